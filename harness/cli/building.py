"""`cache build`: makes what the cases of a command line need, and runs none of them.

A failed build is reported once, and the cases after it are built all the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.base.errors import HarnessError
from harness.base.progress import Progress
from harness.base.stages import Stage
from harness.catalog.schema import Catalog
from harness.images.crops import CHUNK
from harness.judge.causes import Exit, cause_of_error, exit_of_causes
from harness.plan import Case
from harness.records.observed import ArtifactRef
from harness.run.case_record import error_info
from harness.settings import Settings
from harness.stages.pipeline import CasePipeline, Workbench


@dataclass(frozen=True)
class Built:
    """An artifact that is in the store now; `case` is the first that needs it."""

    case: Case
    artifact: ArtifactRef


@dataclass(frozen=True)
class Failed:
    """A build that failed, for `case` and whichever need the same. `repeated`: reported before."""

    case: Case
    error: HarnessError
    repeated: bool


class Builder:
    """Builds `cases` through the store; logs and notes of failures lie in `folder`."""

    def __init__(
        self,
        settings: Settings,
        catalog: Catalog,
        folder: Path,
        cases: Sequence[Case],
        progress: Progress | None = None,
    ) -> None:
        self._settings = settings
        self._bench = Workbench(settings, catalog, folder, progress)
        self._cases = tuple(cases)
        self._errors: list[HarnessError] = []

    @property
    def with_images(self) -> bool:
        """True where there are images to make crops and references of."""
        return self._settings.stand_ins or self._settings.imagenet is not None

    def toolchain(self) -> Mapping[str, Any]:
        """Return what the models are compiled for and with."""
        return self._bench.target.identity()

    def build(self) -> Iterator[Built | Failed]:
        """Make everything in the order of the cases; yield it as it is made."""
        seen: set[tuple[Stage, str]] = set()
        for case in self._cases:
            pipeline = self._bench.for_case(case)
            failed = None
            try:
                self._prepare(pipeline)
            except HarnessError as error:
                before = [(one.stage, one.message) for one in self._errors]
                failed = Failed(case, error, repeated=(error.stage, error.message) in before)
                self._errors.append(error)
            for artifact in pipeline.observed.artifacts:
                if (artifact.stage, artifact.key) not in seen:
                    seen.add((artifact.stage, artifact.key))
                    yield Built(case, artifact)
            if failed is not None:
                yield failed

    def exit_code(self) -> Exit:
        """Return the exit code of a run whose cases fail so."""
        return exit_of_causes(cause_of_error(error_info(error))[0] for error in self._errors)

    def _prepare(self, pipeline: CasePipeline) -> None:
        if pipeline.case.check == "accuracy" and not self.with_images:
            pipeline.compiled()
            return
        feed = pipeline.prepare().feed
        if feed is not None:  # a check takes images as it feeds them
            with (
                pipeline.all_unusable(),
                pipeline.stage(Stage.CROPS),
                pipeline.feeding(feed, pipeline.decoding),
            ):
                for start in range(0, len(feed.crops), CHUNK):
                    feed.crops.rows(start, start + 1)
