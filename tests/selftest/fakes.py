"""Small stand-ins for what a test does not test: sessions, image sets, predictions, runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from harness import settings
from harness.base.terms import Provenance
from harness.catalog.load import load_catalog
from harness.images.dataset import ImageSet
from harness.measure.accuracy import Observation
from harness.plan import Case
from harness.records.measurements import AccuracyMeasurement
from harness.stages.inference import Predictions
from harness.stages.pipeline import CasePipeline, Prepared, Workbench
from harness.targets.protocol import (
    Device,
    Filler,
    Float32,
    Images,
    SessionInfo,
    TensorSpec,
    Times,
    Traits,
)
from tests.selftest.image_folders import image_set
from tests.selftest.running import TINY


class FakeSession:
    """A session whose logits are `function(batch)`, and whose times are given."""

    about = SessionInfo(driver="fake")

    def __init__(
        self,
        function: Callable[[Any], Float32],
        shape: tuple[int, ...] = (4, 3, 2, 2),
        classes: int = 10,
        times: Iterable[float] = (),
    ) -> None:
        self.inputs: Sequence[TensorSpec] = (TensorSpec("image", shape, "float32"),)
        self.outputs: Sequence[TensorSpec] = (TensorSpec("class", (shape[0], classes), "float32"),)
        self._function = function
        self._times = iter(times)
        self.closed = False
        self.warmups: list[int] = []

    def stream(self, batches: Iterable[Images]) -> Iterator[Float32]:
        for batch in batches:
            yield self._function(batch)

    def stream_into(self, fillers: Iterable[Filler]) -> Iterator[Float32]:
        for fill in fillers:
            # As in shared memory, what an earlier batch left there is still there.
            view = np.full(self.inputs[0].shape, 7.0, np.float32)
            fill(view)
            yield self._function(view)

    def time(self, loops: int, warmup: int) -> Times:
        self.warmups.append(warmup)
        times = [next(self._times) for _ in range(warmup + loops)]
        return Times(tuple(times[warmup:]))

    def close(self) -> None:
        self.closed = True


class Devices:
    """A target that is nothing but its devices: cards of so many chips."""

    name = "npu"

    def __init__(self, *cards: int, runs_on_host: bool = False) -> None:
        self.traits = Traits(fidelity_bound=3e-2, runs_on_host=runs_on_host)
        chips = (card for card, count in enumerate(cards) for _ in range(count))
        self.all = [Device("npu", n, "chip", f"card-{card}") for n, card in enumerate(chips)]

    def devices(self) -> tuple[Device, ...]:
        return tuple(self.all)

    def card(self, device: Device) -> tuple[Device, ...]:
        return tuple(one for one in self.all if one.group == device.group)


def predictions(
    best: Sequence[int], classes: int = 10, *, names: Sequence[str] = ()
) -> Predictions:
    """Predictions whose best class is given, with a clear margin."""
    logits = np.zeros((len(best), classes), np.float32)
    logits[np.arange(len(best)), list(best)] = 5.0
    logits += np.linspace(0, 0.1, classes, dtype=np.float32)
    return Predictions(tuple(names) or image_set(list(best)).names, logits)


def measured(
    predictions: Predictions,
    images: ImageSet,
    label_offset: int,
    *,
    provenance: Provenance,
    reference: Predictions | None,
    fidelity_bound: float,
    seconds: float = 1.0,
) -> AccuracyMeasurement:
    """Return the measurement of a whole pass that is at hand."""
    seen = Observation(images, label_offset, reference=reference, fidelity_bound=fidelity_bound)
    for names, logits in predictions.blocks():
        seen.add(names, logits)
    return seen.measurement(provenance=provenance, seconds=seconds)


def workbench(folder: Path, *, catalog: Path = TINY, **options: Any) -> Workbench:
    """What the cases of a run share; store, leases and records lie in `folder` by default."""
    places = {"store": str(folder / "store"), "leases": str(folder / "leases")}
    chosen = settings.resolve({**places, "catalog": str(catalog), **options}, environment={})
    return Workbench(chosen, load_catalog(catalog), folder / "run")


def rehearsed(shared: Path, folder: Path) -> tuple[CasePipeline, Prepared]:
    """The tiny model's accuracy in a rehearsal on the CPU, with everything built."""
    bench = workbench(folder, rehearsal=True, store=str(shared / "store"))
    case = bench.for_case(Case("tiny", 4, "cpu", "accuracy"))
    return case, case.prepare()
