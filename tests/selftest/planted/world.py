"""What the rows share: artifacts, open sessions, simulated hosts; made when first asked for."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self, TypeVar

from harness.catalog.load import load_catalog
from harness.catalog.schema import Catalog
from harness.measure import attempt as measuring
from harness.measure.device import opened
from harness.measure.passes import take_accuracy
from harness.plan import Case
from harness.records.verdicts import Verdict
from harness.simulator import parse_config
from harness.stages.pipeline import CasePipeline, Prepared
from harness.targets.protocol import Session
from tests.selftest.fakes import workbench
from tests.selftest.running import ROOT, TINY
from tests.selftest.simulated import ascend_target, misbehaving

_T = TypeVar("_T")
BATCH = 4
ODD = Path(__file__).with_name("odd.yaml")
BASELINES = ROOT / "baselines.yaml"
SMALL = {"odd": ODD, "tiny": TINY}  # the models that are built here, with their catalogs


class World:
    """Folders of one process, and a store that several share (its locks do the rest)."""

    def __init__(self, folder: Path, store: Path) -> None:
        self.folder = folder
        self.store = store
        self._made: dict[str, Any] = {}
        self._stack = contextlib.ExitStack()
        self._numbers = itertools.count(1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def once(self, name: str, make: Callable[[], _T]) -> _T:
        """What `make` gives, made once."""
        if name not in self._made:
            self._made[name] = make()
        found: _T = self._made[name]
        return found

    def new_folder(self) -> Path:
        """An empty folder of its own, as private as the tools of CANN ask for."""
        path = self.folder / f"f{next(self._numbers):03d}"
        path.mkdir(parents=True, mode=0o750)
        return path

    # The chain on the CPU ----------------------------------------------------------------

    def catalog(self, model: str) -> Catalog:
        """The catalog that has a model."""
        path = SMALL.get(model, BASELINES)
        return self.once(f"catalog {path}", lambda: load_catalog(path))

    def bench(self, model: str, **options: Any) -> CasePipeline:
        """A case of a model at batch size 4 on the CPU, nothing built."""
        bench = workbench(
            self.new_folder(),
            catalog=SMALL[model],
            **{
                "store": str(self.store),
                "leases": str(self.folder / "leases"),
                **(options or {"rehearsal": True}),
            },
        )
        return bench.for_case(Case(model, BATCH, "cpu", "accuracy"))

    def prepared(self, model: str) -> tuple[CasePipeline, Prepared]:
        """A rehearsal's case with everything built, as the acceptance tests build it."""
        case: CasePipeline = self.once(f"case {model}", lambda: self.bench(model))
        return case, self.once(f"prepared {model}", case.prepare)

    def session(self, model: str) -> Session:
        """The compiled model of `prepared`, open until the world ends."""
        case, ready = self.prepared(model)

        return self.once(
            f"session {model}",
            lambda: self._stack.enter_context(opened(case, ready)),
        )

    def judge(self, name: str, *, session: Session | None = None, **changes: Any) -> Verdict:
        """The verdict of a rehearsal with parts of the compiled model's path exchanged.

        `changes` are fields of `Prepared` (the feed) or of the case (the model).
        """
        case, ready = self.prepared(name)
        for field, value in changes.items():
            if hasattr(ready, field):
                ready = dataclasses.replace(ready, **{field: value})
            else:
                case = dataclasses.replace(case, **{field: value})
        measured = take_accuracy(case, session or self.session(name), ready)
        return measuring.judge(case, measured)

    def judge_file(self, model: str, compiled: Path) -> Verdict:
        """The verdict of a rehearsal with another compiled file, opened as a case opens it."""
        case, ready = self.prepared(model)
        ready = dataclasses.replace(ready, compiled=compiled)
        with opened(case, ready) as session:
            return measuring.judge(case, take_accuracy(case, session, ready))

    # Simulated hosts ---------------------------------------------------------------------

    def host(self, config: str = "", driver: str = "api") -> Host:
        """A simulated host with a configuration; the same one when asked for again."""
        return self.once(f"host {config} {driver}", lambda: Host(self.new_folder(), config, driver))


class Host:
    """An installation of the simulator, and the Ascend target of a run on it."""

    def __init__(self, folder: Path, config: str, driver: str) -> None:
        self.folder = folder
        chip = parse_config(config).chip
        name = "ascend310" if chip == "310" else "ascend310p3"
        self.log = folder / "log"
        self.target = ascend_target(folder, config, name, driver=driver)

    def misbehaving(self, fault: str) -> contextlib.AbstractContextManager[None]:
        """Within the block the host's tools have a fault that they had not before."""
        return misbehaving(self.target.toolkit.env, fault)
