"""`cache explain`: which artifacts a command line would take from the store, and why not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from harness.base.errors import ConfigError
from harness.base.stages import Stage
from harness.base.store import Store
from harness.base.store_care import Explanation
from harness.base.store_care import explain as explain_key
from harness.catalog.schema import Catalog
from harness.images.crops import Crops
from harness.pages.formats import clip, datum
from harness.plan import make_plan
from harness.settings import Settings
from harness.stages.pipeline import Workbench


def explain(settings: Settings, catalog: Catalog, check: str | None) -> Iterator[str]:
    """One line for each artifact of each case, then the inputs that differ. Builds nothing.
    Raises `ConfigError`: no target is configured.
    """
    plan = make_plan(catalog, settings)
    if not settings.configured:
        raise ConfigError("which artifacts depends on the target", remedy="--rehearsal or --target")
    bench = Workbench(settings, catalog, settings.runs)
    bench.store = _ReadOnly(settings.store)
    seen: set[str] = set()
    for case in plan.cases:
        if check not in (None, case.check):
            continue
        pipeline = bench.for_case(case)
        crops: Crops | None = None
        missing = None
        try:
            feed = pipeline.prepare().feed
            if feed is not None:  # a check takes images as it feeds them
                crops = feed.crops
                crops.complete()
        except _Absent as absent:
            missing = absent.explanation
        present = [(str(one.stage), one.key) for one in pipeline.observed.artifacts]
        present += [(entry.kind, entry.key) for entry in (crops.entries if crops else ())]
        for kind, key in present:
            if key not in seen:
                seen.add(key)
                yield f"{case.id}: {kind} {key} is in the store"
        if missing is not None and missing.key not in seen:
            seen.add(missing.key)
            yield f"{case.id}: {missing.kind} {missing.key} is not in the store and would be built"
            yield from _differences(missing)
            yield "  (what is made from it is not known before it is built)"


def _differences(missing: Explanation) -> Iterator[str]:
    if missing.present:
        yield "  the entry is there, but damaged"
    elif missing.nearest is None:
        yield f"  there is no {missing.kind} in the store at all"
    else:
        yield f"  nearest: {missing.kind} {missing.nearest}, which differs in"
    for name, wanted, other in missing.differences:
        yield f"    {name}: {clip(datum(wanted), 80)} here, {clip(datum(other), 80)} there"


class _Absent(Exception):
    def __init__(self, explanation: Explanation) -> None:
        super().__init__(explanation.key)
        self.explanation = explanation


class _ReadOnly(Store):
    """A store that stops at the first artifact which would have to be built."""

    def get_or_build(self, kind: Stage, inputs: Any, build: Any, *, about: str = "") -> Any:
        entry = self.get(kind, inputs)
        if entry is None:
            raise _Absent(explain_key(self, kind, inputs))
        return entry
