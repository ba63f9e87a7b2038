"""Driver `api`: ais_bench's Python interface in a device worker.

The fastest of the three: the model is loaded once, batches cross through shared memory, and every
execution is timed by itself.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from harness.base.errors import ConfigError, HarnessError, LoadError
from harness.targets import sessions
from harness.targets.ascend import drivers
from harness.targets.ascend.faults import lost_device
from harness.targets.ascend.filetool import Opening
from harness.targets.ascend.workspace import Workspace, is_plain

# ais_bench of 2024 and later looks at a file before it opens it, for root as well; what it then
# prints. What it would refuse is opened as a copy, so this is seen where none could be made.
_REFUSALS = {
    "illegal char": "keep store and run in folders whose paths have only A-Z a-z 0-9 _ - / . "
    "(--store=DIR, --runs=DIR)",
    "soft link": "give the store's real path, without symbolic links",
    "owner or ownergroup": "run as the user or in the group that owns the store",
    "group writable": "take the write permission of group and others away from the store's files",
}


def open_api(opening: Opening) -> sessions.WorkerSession:
    """Open an `.om` file in a device worker.

    A file that ais_bench would refuse for its path, owner or mode (a store that another user fills)
    is opened as a copy in a private folder, which is removed when the session is closed.

    Raises:
        LoadError: no ais_bench, no model, or a model with other tensors.
        DeviceError: the device cannot be opened, or the worker would not die.
    """
    file, toolkit = opening.file, opening.toolkit
    with contextlib.ExitStack() as undo:
        if is_refused(file):
            file = _copied(file, opening.work, undo)
        after = contextlib.ExitStack()
        session = sessions.open_session(
            file,
            backend=drivers.BACKEND,
            options={"device_id": opening.device_id},
            log=opening.log,
            deadline_open_s=opening.deadline_open_s,
            deadline_run_s=opening.deadline_run_s,
            pass_fds=opening.lease_fds,
            python=toolkit.python,
            env=toolkit.env,
            expect_input=opening.input.shape,
            expect_output=opening.output.shape,
            driver="api",
            explain=lambda error: _explained(error, opening.device_id),
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
        state = os.stat(path)
    except OSError:
        return False  # whoever opens it says what is wrong
    ours = state.st_uid == os.geteuid() or state.st_gid in os.getgroups()
    readable = bool(state.st_mode & 0o400)
    writable = bool(state.st_mode & 0o022)
    legal = is_plain(path) and not os.path.islink(path)
    return not (legal and ours and readable and not writable)


def _copied(file: Path, work: Path, undo: contextlib.ExitStack) -> Path:
    """A copy that ais_bench takes; the file itself where `work` would be refused as well."""
    try:
        workspace = Workspace(work)
    except ConfigError:
        return file  # an older ais_bench takes it as it is; a newer one says what it refuses
    undo.callback(workspace.close)
    return workspace.own_copy(file)
