"""One process of a run: what its cases share, and what is built for them ahead."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from harness.base import processes
from harness.base.errors import HarnessError
from harness.base.progress import Progress
from harness.base.stages import Stage
from harness.catalog.schema import Catalog
from harness.plan import Case
from harness.run.own import catalog_of
from harness.settings import Settings

if TYPE_CHECKING:
    from harness.stages.ahead import Ahead
    from harness.stages.pipeline import Workbench


class RunProcess:
    """A process that runs cases of the run `id`: the only one, or a worker beside others."""

    def __init__(
        self,
        settings: Settings,
        catalog: Catalog | None,
        id: str,
        directory: Path,
        progress: Progress,
        *,
        worker: str,
    ) -> None:
        self.settings = settings
        self.id = id
        self.directory = directory
        self.progress = progress
        self.worker = worker
        self.upcoming: tuple[Case, ...] = ()  # what this process runs: they are built ahead
        self._catalog = catalog
        self._ahead: Ahead | None = None
        self._reported: dict[tuple[Stage, str], str] = {}  # failed builds: who said it

    @cached_property
    def catalog(self) -> Catalog:
        return self._catalog or catalog_of(self.settings)

    @cached_property
    def workbench(self) -> Workbench:
        from harness.stages.pipeline import Workbench

        return Workbench(self.settings, self.catalog, self.directory, self.progress)

    def build_ahead(self) -> None:
        """Build what later cases of this process need while a device measures.

        Not where the host's CPU is the device: builds would be measured with it.
        """
        if self._ahead is not None or self.workbench.target.traits.runs_on_host:
            return
        from harness.stages.ahead import Ahead

        given = (self.settings, self.catalog, self.directory, self.upcoming)
        self._ahead = Ahead(*given, self.workbench.store)

    def stop_building(self) -> None:
        """End what is built ahead, and whatever this process has started otherwise."""
        if self._ahead is not None:
            self._ahead.stop()
            processes.end_what_runs()

    def describe(self, case: Case, error: HarnessError) -> str:
        """Return an error as a terminal shows it: of a failed build, all of it once.

        The record of each case has all of it.
        """
        first = self._reported.setdefault((error.stage, error.message), case.name)
        if first == case.name or not error.remembered:
            return str(error)
        return f"[{error.stage}] the same failure as in {first}, see there; not tried again"
