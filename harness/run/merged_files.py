"""The files that a run's cases name, copied into a merged run.

A record may come from anywhere: a name that leads out of its run's folders, or through a link, is
left out, with a note.
"""

from __future__ import annotations

import errno
import filecmp
import os
import shutil
import stat
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness.records.lines import CaseLine

_FOLDERS = ("predictions", "samples", "logs")


def with_files(case: CaseLine, rename: Callable[[str], str]) -> CaseLine:
    """Return the same case with other names of its files."""
    changes: dict[str, object] = {
        "artifacts": tuple(
            replace(one, log_file=rename(one.log_file)) if one.log_file else one
            for one in case.artifacts
        )
    }
    if case.accuracy is not None and case.accuracy.predictions_file:
        name = rename(case.accuracy.predictions_file)
        changes["measurement"] = replace(case.accuracy, predictions_file=name)
    if case.throughput is not None and case.throughput.samples_file:
        name = rename(case.throughput.samples_file)
        changes["measurement"] = replace(case.throughput, samples_file=name)
    return case.model_copy(update=changes)


@dataclass
class FileCopier:
    """Copies files into `folder`; `notes` say what was left out, and why."""

    folder: Path
    notes: list[str] = field(default_factory=list)

    def take_over(self, case: CaseLine, directory: Path, number: int) -> CaseLine:
        """Copy the files of a case of run `number`; return it with the names of the copies."""
        for name in _logs(case, directory):
            self._copy(name, directory, number)
        return with_files(case, lambda name: self._copy(name, directory, number) or name)

    def _copy(self, name: str, directory: Path, number: int) -> str:
        """Copy one file and return the copy's name; empty where it was left out."""
        try:
            source = _checked(directory, name)
        except OSError as error:
            note = f"left out: {name!r:.80} of {directory.name}: {error.strerror}"
            if note not in self.notes:
                self.notes.append(note)
            return ""
        target = self.folder / name
        if target.exists() and not filecmp.cmp(source, target, shallow=False):
            first, _, rest = name.partition("/")
            name = f"{first}/from-{number}/{rest}"
            target = self.folder / name
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
        return name


def _logs(case: CaseLine, directory: Path) -> list[str]:
    """Logs that bear the case's name: its record does not list them one by one."""
    pattern = f"logs/{case.check}-{case.case}-*"
    return sorted(path.relative_to(directory).as_posix() for path in directory.glob(pattern))


def _checked(directory: Path, name: str) -> Path:
    """Return the path of a regular file in one of a run's folders.

    Raises:
        OSError: there is none, or the name leads elsewhere.
    """
    path = Path(os.path.realpath(directory), name)
    if name.partition("/")[0] not in _FOLDERS or not name.isprintable():
        raise OSError(errno.EINVAL, "no name of a file of a run")
    if os.path.realpath(path) != str(path):
        raise OSError(errno.ELOOP, "it leads elsewhere")
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "no regular file")
    return path
