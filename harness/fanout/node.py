"""What a host does for a run that was fanned out: it runs cases, and hands each over as it ends.

Nothing of the host that began the run is needed here but the task: options that were given there
hold here too, and what was not given is this host's own, by its variables and defaults.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.base import scratch
from harness.base.environment import ROOT, code_digest
from harness.base.errors import ConfigError, HarnessError
from harness.base.progress import Progress
from harness.base.store import Store
from harness.base.store_care import tidy_dead
from harness.catalog.schema import Catalog
from harness.plan import Case
from harness.run.case import CaseRun
from harness.run.merged_files import names_of
from harness.run.own import catalog_of
from harness.run.process import RunProcess
from harness.settings import Settings, resolve, with_target
from harness.stages import parcels
from harness.usage import ini_values


@dataclass(frozen=True)
class Task:
    """Some cases of a run. `given`: options as they are typed; `catalog`, `code`: digests."""

    run: str
    shard: str
    given: Mapping[str, Any]
    target: str | None
    catalog: str
    code: str
    cases: tuple[Case, ...]

    def of(self, cases: Iterable[Case]) -> Task:
        """Return the same for other cases."""
        return dataclasses.replace(self, cases=tuple(cases))


@dataclass(frozen=True)
class Ended:
    """A case that ended: its line of the records as JSON, and its files by their names."""

    line: str
    files: Mapping[str, bytes]


def perform(task: Task, built: Iterable[bytes] = ()) -> Iterator[Ended]:
    """Run the cases one after another. `built`: what another host built for them. Raises
    `HarnessError`: this host cannot run them, e.g. since its catalog is another one.
    """
    settings, catalog = _begin(task)
    for parcel in built:
        parcels.unpack(settings.store, parcel)
    with scratch.folder("fan-out") as folder:
        process = RunProcess(
            settings, catalog, task.run, folder, Progress.silent(), worker=f"shard {task.shard}"
        )
        process.upcoming = task.cases
        try:
            for case in task.cases:
                line = CaseRun(process, case).perform()
                names = dict.fromkeys(names_of(line, folder))
                files = {name: (folder / name).read_bytes() for name in names}
                yield Ended(line.model_dump_json(), files)
        finally:
            process.stop_building()


def build(task: Task) -> list[bytes]:
    """Build what can be built without a device; return it for the host that has one.

    What fails here fails there again, where its case says so.
    """
    settings, catalog = _begin(task)
    made: dict[Path, bytes] = {}
    with scratch.folder("fan-out") as folder:
        process = RunProcess(settings, catalog, task.run, folder, Progress.silent(), worker="build")
        for case in task.cases:
            pipeline = process.workbench.for_case(case)
            with contextlib.suppress(HarnessError):
                if settings.stand_ins or settings.imagenet is not None:
                    pipeline.prepare_ahead()
                else:
                    pipeline.compiled()
            for entry in pipeline.observed.artifacts:
                place = parcels.place_of(entry)
                if place not in made:
                    made[place] = parcels.pack(settings.store, place)
    return list(made.values())


def _begin(task: Task) -> tuple[Settings, Catalog]:
    """Return what holds on this host; tidy its store as the begin of a run does.
    Raises `ConfigError`: this host is another one than the task is for.
    """
    if code_digest() != task.code:
        raise ConfigError(
            f"the harness of this host is another one: {ROOT}",
            remedy="give every host the same checkout: it judges by its own rules",
        )
    settings = resolve(dict(task.given), ini=ini_values(ROOT / "pytest.ini"))
    settings = with_target(settings, task.target)
    catalog = catalog_of(settings)
    if catalog.digest != task.catalog:
        raise ConfigError(
            f"the catalog of this host is another one: {', '.join(map(str, settings.catalog))}",
            remedy="give every host the same checkout, or name a file that all have: --catalog",
        )
    tidy_dead(Store(settings.store))
    return settings, catalog
