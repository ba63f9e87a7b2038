"""The directory of a run, and the link to the newest one."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from harness.base.errors import ConfigError, RecordError
from harness.base.locks import FileLock, LockTimeout

LATEST = "latest"


def make_folder(path: Path) -> None:
    """Make the directory. Raises `ConfigError`, or `RecordError` where the disk is full."""
    try:
        path.mkdir(parents=True)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise (RecordError if full else ConfigError)(
            f"cannot make {path}: {error.strerror or error}",
            remedy="choose another place with --runs=DIR, with free space",
        ) from error


@contextlib.contextmanager
def hold(directory: Path) -> Iterator[None]:
    """Keep others from going on with a run within the block.

    Raises:
        ConfigError: another process runs it.
        RecordError: nothing can be written there.
    """
    lock = FileLock(directory / ".run.lock")
    try:
        lock.acquire(timeout_s=0.0, what="the run")
    except LockTimeout as error:
        raise ConfigError(
            f"the run in {directory} still goes on: {error.holder}",
            remedy="wait until it ends, or end it",
        ) from None
    except OSError as error:
        raise RecordError(f"cannot write in {directory}: {error.strerror or error}") from error
    try:
        yield
    finally:
        lock.release()


def point_latest(runs: Path, run_id: str) -> None:
    """Let `runs/latest` follow the newest run, for commands and bookmarks."""
    fresh = runs / f".{LATEST}-{run_id}"
    try:
        fresh.symlink_to(run_id, target_is_directory=True)
        fresh.replace(runs / LATEST)
    except OSError:  # somebody's folder of that name stays
        with contextlib.suppress(OSError):
            fresh.unlink()
