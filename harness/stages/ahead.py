"""Building what later cases need while a device measures the present one.

A thread of the process goes through the cases in their order and builds each through the store,
whose locks see to it that nothing is built twice: whoever comes second waits and finds it. What
fails here is remembered by the store for the run, and fails the case that needs it. What is
tuned on a device is left to its case: a device that measures is nobody else's.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Sequence
from pathlib import Path

from harness.base.errors import HarnessError
from harness.base.store import Store
from harness.catalog.schema import Catalog
from harness.plan import Case
from harness.settings import Settings
from harness.stages.pipeline import Workbench

NICENESS = 10


class Ahead:
    """Builds `cases` one after another in a thread of its own; it ends with the process."""

    def __init__(
        self,
        settings: Settings,
        catalog: Catalog,
        run_dir: Path,
        cases: Sequence[Case],
        store: Store | None = None,
    ) -> None:
        # A workbench of its own: nothing but the store is shared with the thread that measures.
        self._bench = Workbench(settings, catalog, run_dir)
        if store is not None:  # what is built ahead stands in the way of no case of this process
            self._bench.store.uses, self._bench.store.second = store.uses, store.second
        self._cases = tuple(cases)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._build, name="building ahead", daemon=True)
        self._thread.start()

    def _build(self) -> None:
        # The niceness of a thread is its own on Linux, and what it starts inherits it: builds
        # leave the host to what feeds the device.
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        for case in self._cases:
            if self._stopped.is_set():
                return
            try:
                self._bench.for_case(case).prepare_ahead()
            except (HarnessError, OSError):
                continue

    def stop(self) -> None:
        """Begin no further build."""
        self._stopped.set()

    def join(self, timeout_s: float) -> None:
        """Wait for the end of the last build."""
        self._thread.join(timeout_s)
