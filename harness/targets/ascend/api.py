"""Driver `api`: ais_bench's Python interface in a device worker.

The fastest of the three: the model is loaded once, batches cross through shared memory, and every
execution is timed by itself.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Sequence
from pathlib import Path

from harness.base.errors import ConfigError, HarnessError, LoadError
from harness.targets import sessions
from harness.targets.ascend.exchange import Workspace, lost_device, own_copy
from harness.targets.ascend.toolkit import Toolkit

BACKEND = Path(__file__).with_name("api_backend.py")
ROUND_S = 0.25

# ais_bench of 2024 and later looks at a file before it opens it, for root as well; what it then
# prints. What it would refuse is opened as a copy, so this is seen where none could be made.
_LEGAL = re.compile(r"[A-Za-z0-9_./-]+")
_REFUSALS = {
    "illegal char": "keep store and run in folders whose paths have only A-Z a-z 0-9 _ - / . "
    "(--store=DIR, --runs=DIR)",
    "soft link": "give the store's real path, without symbolic links",
    "owner or ownergroup": "run as the user or in the group that owns the store",
    "group writable": "take the write permission of group and others away from the store's files",
}


def open_api(
    file: Path,
    *,
    toolkit: Toolkit,
    device_id: int,
    work: Path,
    log: Path,
    lease_fds: Sequence[int],
    deadline_open_s: float,
    deadline_run_s: float,
    expect_input: tuple[int, ...] | None = None,
    expect_output: tuple[int, ...] | None = None,
) -> sessions.WorkerSession:
    """Open an `.om` file on a device, given by its logical id.

    Deadlines and expected shapes are as in `sessions.open_session`. A file that ais_bench would
    refuse for its path, owner or mode (a store that another user fills) is opened as a copy in a
    private part of `work`, which is removed when the session is closed.

    Raises:
        LoadError: no ais_bench, no model, or a model with other tensors.
        DeviceError: the device cannot be opened, or the worker would not die.
    """
    with contextlib.ExitStack() as undo:
        if is_refused(file):
            file = _copied(file, work, undo)
        after = contextlib.ExitStack()
        session = sessions.open_session(
            file,
            backend=BACKEND,
            options={"device_id": device_id},
            log=log,
            deadline_open_s=deadline_open_s,
            deadline_run_s=deadline_run_s,
            pass_fds=lease_fds,
            python=toolkit.python,
            env=toolkit.env,
            expect_input=expect_input,
            expect_output=expect_output,
            driver="api",
            explain=lambda error: _explained(error, device_id),
            after=after,
        )
        after.push(undo.pop_all())
    return session


def _explained(error: HarnessError, device_id: int) -> HarnessError:
    """A `DeviceError` where the log says that the device was lost; what ais_bench refuses, with
    its remedy.
    """
    if isinstance(error, LoadError):
        for sign, remedy in _REFUSALS.items():
            if sign in error.log:
                error.remedy = remedy
    return lost_device(error, device_id) or error


def is_refused(file: Path) -> bool:
    """Whether ais_bench of 2024 and later would refuse to read a file."""
    path = os.path.abspath(file)
    try:
        found = os.stat(path)
    except OSError:
        return False  # whoever opens it says what is wrong
    ours = found.st_uid == os.geteuid() or found.st_gid in os.getgroups()
    readable = bool(found.st_mode & 0o400)
    writable = bool(found.st_mode & 0o022)
    legal = _LEGAL.fullmatch(path) is not None and not os.path.islink(path)
    return not (legal and ours and readable and not writable)


def _copied(file: Path, work: Path, undo: contextlib.ExitStack) -> Path:
    """A copy that ais_bench takes; the file itself where `work` would be refused as well."""
    try:
        workspace = Workspace(work)
    except ConfigError:
        return file  # an older ais_bench takes it as it is; a newer one says what it refuses
    undo.callback(workspace.close)
    return own_copy(file, workspace)
