"""The files that a run's cases name, copied into a merged run.

A record may come from anywhere: a name that leads out of its run's folders, or through a link, is
left out, with a note. Each file bears its case's name, and no case is in two runs.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from harness.records.lines import CaseLine

_FOLDERS = ("predictions", "samples", "logs")


def copy_files(case: CaseLine, source: Path, target: Path) -> Iterator[str]:
    """Copy the files of a case from one run directory to another; yield what is left out and why.
    Raises `OSError`: a copy cannot be written.
    """
    for name in dict.fromkeys(names_of(case, source)):
        try:
            file = _checked(source, name)
        except OSError as error:
            yield f"left out: {name!r:.80} of {source.name}: {error.strerror}"
            continue
        copy = target / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)


def names_of(case: CaseLine, directory: Path) -> Iterator[str]:
    """Yield the names of a case's files, relative to the run's directory; some of them twice."""
    # Logs that bear the case's name: its record does not list them one by one.
    for log in sorted(directory.glob(f"logs/{case.check}-{case.case}-*")):
        yield log.relative_to(directory).as_posix()
    named = [one.log_file for one in case.artifacts]
    named += [case.accuracy.predictions_file] if case.accuracy is not None else []
    named += [case.throughput.samples_file] if case.throughput is not None else []
    yield from filter(None, named)


def is_name(name: str) -> bool:
    """Return whether a name is that of a file in one of a run's folders."""
    folder, _, file = name.partition("/")
    return folder in _FOLDERS and name.isprintable() and bool(file) and "/" not in file


def _checked(directory: Path, name: str) -> Path:
    """Return the path of a regular file in one of a run's folders.
    Raises `OSError`: there is none, or the name leads elsewhere.
    """
    path = Path(os.path.realpath(directory), name)
    if not is_name(name):
        raise OSError(errno.EINVAL, "no name of a file of a run")
    if os.path.realpath(path) != str(path):
        raise OSError(errno.ELOOP, "it leads elsewhere")
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "no regular file")
    return path
