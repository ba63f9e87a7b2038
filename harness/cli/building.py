"""`cache build`: makes what the cases of a command line need, and runs none of them.

What fails is said once, and the cases after it are built all the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.base.errors import HarnessError
from harness.base.progress import Progress
from harness.catalog.schema import Catalog
from harness.images.crops import CHUNK
from harness.judge.causes import REMEMBERED, Exit, exit_code
from harness.plan import Case
from harness.records.lines import CaseLine
from harness.records.values import ErrorInfo
from harness.settings import Settings
from harness.stages.pipeline import CaseBench, Workbench


@dataclass(frozen=True)
class Built:
    """An artifact that is in the store now; `case` is the first that needs it."""

    case: Case
    kind: str
    key: str
    bytes: int
    cached: bool  # it was there before


@dataclass(frozen=True)
class Failed:
    """A build that failed, for `case` and whichever need the same. `repeated`: said before."""

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
        self._seen: set[tuple[str, str]] = set()
        self._failed: list[Failed] = []

    @property
    def with_images(self) -> bool:
        """Whether there are images to make crops and references of."""
        return self._settings.stand_ins or self._settings.imagenet is not None

    def toolchain(self) -> Mapping[str, Any]:
        """What the models are compiled for and with."""
        return self._bench.target.identity()

    def build(self) -> Iterator[Built | Failed]:
        """Everything in the order of the cases, as it is made."""
        told: set[str] = set()
        for case in self._cases:
            one = self._bench.for_case(case)
            failed = None
            try:
                self._prepare(one)
            except HarnessError as error:
                message = error.message.removesuffix(REMEMBERED)
                failed = Failed(case, error, repeated=message in told)
                told.add(message)
                self._failed.append(failed)
            for artifact in one.artifacts:
                if (artifact.kind, artifact.key) not in self._seen:
                    self._seen.add((artifact.kind, artifact.key))
                    yield Built(case, artifact.kind, artifact.key, artifact.bytes, artifact.cached)
            if failed is not None:
                yield failed

    def exit_code(self) -> Exit:
        """What `build` ended with: the exit code of a run whose cases fail so."""
        lines = [_line(failed, self._settings) for failed in self._failed]
        return exit_code(lines, [], complete=True, allow_inconclusive=False)

    def _prepare(self, one: CaseBench) -> None:
        if one.case.check == "accuracy" and not self.with_images:
            one.compiled()
            return
        prepared = one.prepare()
        if prepared.feed is not None:  # a check takes images as it feeds them
            feed = prepared.feed
            with (
                one.all_unusable(),
                one.stage("crops"),
                one.feeding(feed, one.decoding),
            ):
                for start in range(0, len(feed.crops), CHUNK):
                    feed.crops.rows(start, start + 1)


def _line(failed: Failed, settings: Settings) -> CaseLine:
    case, error = failed.case, failed.error
    return CaseLine(
        run="",
        nodeid=case.name,
        case=case.id,
        model=case.model,
        batch_size=case.batch_size,
        target=case.target,
        check=case.check,
        provenance=settings.provenance,
        outcome="error",
        sentence=error.message,
        error=ErrorInfo(**error.to_json()),
    )
