"""Driver `api`: ais_bench's Python interface in a device worker.

The fastest of the three: the model is loaded once, batches cross through shared memory, and every
execution is timed by itself.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from harness.base.errors import ConfigError, InferError, LoadError
from harness.targets import sessions
from harness.targets.ascend.exchange import Workspace, lost_device, own_copy
from harness.targets.ascend.toolkit import Toolkit
from harness.targets.protocol import Float32, TensorSpec

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
) -> ApiSession:
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
        try:
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
            )
        except LoadError as error:
            lost = lost_device(error, device_id)
            if lost is not None:
                raise lost from error
            for sign, remedy in _REFUSALS.items():
                if sign in error.log:
                    error.remedy = remedy
            raise
        after = undo.pop_all()
    return ApiSession(session, device_id, after)


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


class ApiSession:
    """A `protocol.Session` on a model that is open in ais_bench's `InferSession`.

    What the device did wrong is a `DeviceError`, what the model or the tool did an `InferError`.
    """

    driver = "api"
    method = "pure-inference"
    round_s = ROUND_S

    def __init__(
        self, session: sessions.WorkerSession, device_id: int, after: contextlib.ExitStack
    ) -> None:
        """`after` is closed when the session is."""
        self._session = session
        self._device_id = device_id
        self._after = after
        self.name = session.name
        self.inputs: Sequence[TensorSpec] = session.inputs
        self.outputs: Sequence[TensorSpec] = session.outputs
        self.info: Mapping[str, Any] = session.info

    @property
    def pid(self) -> int | None:
        """The worker's process; None once the session is closed."""
        return self._session.pid

    def stream(self, batches: Iterable[Float32]) -> Iterator[Float32]:
        """See `protocol.Session.stream`."""
        return self._watched(self._session.stream(batches))

    def stream_into(self, fillers: Iterable[Callable[[Float32], None]]) -> Iterator[Float32]:
        """See `protocol.Session.stream_into`."""
        return self._watched(self._session.stream_into(fillers))

    def _watched(self, results: Iterator[Float32]) -> Iterator[Float32]:
        try:
            yield from results
        except InferError as error:
            raise lost_device(error, self._device_id) or error from error.__cause__

    def time(self, loops: int, warmup: int) -> list[float]:
        """Milliseconds of each execution, without the transfers, on zeros; see the protocol."""
        try:
            return self._session.time(loops, warmup)
        except InferError as error:
            raise lost_device(error, self._device_id) or error from error.__cause__

    def executions(self, loops: int) -> int:
        """See `protocol.Session.executions`."""
        return self._session.executions(loops)

    def close(self) -> None:
        """End the worker; safe to call twice. Raises `DeviceError` if it would not die."""
        with self._after:
            self._session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
