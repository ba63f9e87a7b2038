"""Driver `api`: ais_bench's Python interface in a device worker.

The fastest of the three: the model is loaded once, batches cross through shared memory, and every
execution is timed by itself.
"""

from __future__ import annotations

import contextlib

from harness.base.errors import HarnessError
from harness.targets import sessions
from harness.targets.ascend import drivers
from harness.targets.ascend.faults import lost_device
from harness.targets.ascend.file_session import Opening
from harness.targets.ascend.workspace import Workspace


def open_api(opening: Opening) -> sessions.WorkerSession:
    """Open an `.om` file in a device worker.

    ais_bench of 2024 and later refuses a file for its path, owner or mode, for root as well: a
    store that another user fills. So a copy in a private folder is opened, which is removed when
    the session is closed.

    Raises:
        LoadError: no ais_bench, no model, or a model with other tensors.
        DeviceError: the device cannot be opened, or the worker would not die.
        ConfigError: the folder for files cannot be used.
    """
    toolkit = opening.toolkit

    def explain(error: HarnessError) -> HarnessError:
        return lost_device(error, opening.device_id) or error

    with contextlib.ExitStack() as undo:
        workspace = Workspace(opening.work)
        undo.callback(workspace.close)
        session = sessions.open_session(
            workspace.own_copy(opening.file),
            backend=drivers.BACKEND,
            options={"device_id": opening.device_id},
            log=opening.log,
            deadline_open_s=opening.deadline_open_s,
            deadline_run_s=opening.deadline_run_s,
            pass_fds=opening.lease_fds,
            python=toolkit.python,
            env=toolkit.env,
            expect=(opening.input, opening.output),
            driver="api",
            explain=explain,
        )
        session.after.push(undo.pop_all())
    return session
