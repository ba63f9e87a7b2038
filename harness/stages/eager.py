"""Stage EAGER: what eager PyTorch makes of the run's images, the reference of compiled models."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from harness.base.environment import ROOT, for_builds, with_entries
from harness.base.errors import EagerError, LoadError, RehearsalError
from harness.base.host import processor
from harness.base.npy import NpyWriter
from harness.base.stages import Stage
from harness.base.store import Entry, file_digest, source_digest
from harness.images.crops import Crops, UsingHost
from harness.images.dataset import ImageSet
from harness.images.feed import Feed
from harness.judge.accuracy import REHEARSAL_MIN_CLASSES, REHEARSAL_TOP1_PERCENT
from harness.stages.context import CaseContext
from harness.stages.inference import Predictions, best, finite, infer
from harness.stages.weights import Checkpoint
from harness.targets import sessions
from harness.targets.protocol import Device, EagerOnDevice, Float32, Session

BATCH = 8
_BACKEND = Path(__file__).with_name("eager_backend.py")

Feeding = Callable[[Feed, UsingHost], contextlib.AbstractContextManager[None]]


@dataclass(frozen=True)
class Eager:
    """Eager PyTorch's logits of all images; `feeding` runs a feed and notes what it decoded.

    On a leased device where the target says how: `on_device`.
    """

    case: CaseContext
    weights: Checkpoint
    crops: Crops
    feeding: Feeding
    on_device: EagerOnDevice | None = None
    stage: ClassVar[Stage] = Stage.EAGER

    def inputs(self) -> Mapping[str, Any]:
        on, device = self.on_device, {}
        if on is not None:
            recipe = file_digest(on.file)
            identity = self.case.bench.target.identity()
            device = {"on_device": {"by": on.about, "recipe": recipe, **identity}}
        return {
            **device,
            **self.weights.network_inputs(self.case),
            "crops": list(self.crops.keys()),
            "names": hashlib.sha256("\n".join(self.crops.names).encode()).hexdigest(),
            "normalize": self.case.model.preprocessing.normalize.model_dump(),
            "batch_size": BATCH,
            "processor": processor()[1],
            "threads": self.case.bench.threads,
            "recipe": source_digest(
                "harness.stages.eager",
                "harness.stages.eager_backend",
                "harness.stages.inference",
                "harness.targets.worker",
                "harness.networks.layouts",
                "harness.networks.library",
                "harness.networks.weights",
                "harness.images.feed",
                "harness.images.preprocess",
            ),
        }

    def build(self, staging: Path) -> str:
        case = self.case
        feed = Feed(self.crops, case.model.preprocessing.normalize, BATCH)
        names: list[str] = []
        progress = case.bench.progress
        with contextlib.ExitStack() as stack:
            fds: tuple[int, ...] = ()
            on = None
            if self.on_device is not None:
                what = f"eager pass of {case.case.id}"
                device, held = stack.enter_context(case.bench.pool.for_case("accuracy", what))
                fds += held.fds
                on = (self.on_device, device)
            fds += stack.enter_context(case.share_host("the eager pass")).fds
            session = stack.enter_context(
                open_eager(
                    case,
                    self.weights,
                    BATCH,
                    case.log_path(Stage.EAGER),
                    lease_fds=fds,
                    on=on,
                )
            )
            shape = (len(self.crops), case.model.classes)
            out = stack.enter_context(NpyWriter(staging / "logits.npy", shape, np.float32))

            def take(these: tuple[str, ...], logits: Float32) -> None:
                out.put(len(names), logits)
                names.extend(these)

            # Decoding is covered by the lease that is held: see `Crops.filling`.
            with self.feeding(feed, contextlib.nullcontext):
                total = len(self.crops)
                infer(session, feed, take, progress=lambda n: progress.update(n, total, "images"))
        self.weights.require_unchanged()
        (staging / "names.json").write_text(json.dumps(names), encoding="utf-8")
        return f"{len(names)} images"

    @staticmethod
    def read(entry: Entry, on_device: EagerOnDevice | None = None) -> Predictions:
        """Return what the store keeps of it; the logits stay in their file."""
        names = json.loads(entry.file("names.json").read_text(encoding="utf-8"))
        by = "" if on_device is None else on_device.about
        return Predictions.stored(tuple(names), entry.file("logits.npy"), by)


@contextlib.contextmanager
def open_eager(
    case: CaseContext,
    weights: Checkpoint,
    batch_size: int,
    log: Path,
    *,
    lease_fds: tuple[int, ...],
    faster_format: bool = False,
    on: tuple[EagerOnDevice, Device] | None = None,
) -> Iterator[Session]:
    """Open eager PyTorch in a device worker, in channels-last memory or in the `faster_format`;
    on the CPU, or on a leased device.
    Raises `EagerError`: it could not be opened; `CheckpointError`: the weights could not be read.
    """
    env = os.environ if on is None else on[0].env_of(on[1])
    try:
        session = sessions.open_session(
            weights.path,
            backend=_BACKEND,
            options={
                **case.network,
                **case.tensors,
                "trust": case.trusted,
                "batch_size": batch_size,
                "threads": case.bench.threads,
                "faster_format": faster_format,
                "device": "" if on is None else str(on[0].file),
            },
            log=log,
            deadline_open_s=case.deadline(300.0),
            deadline_run_s=case.deadline(600.0),
            pass_fds=lease_fds,
            env=with_entries(for_builds(env), "PYTHONPATH", first=[ROOT]),
        )
    except LoadError as error:
        raise EagerError(
            f"{case.model.id}: eager PyTorch could not be opened: {error.message}",
            remedy=error.remedy,
            log=error.log,
            signal=error.signal,
        ) from error
    with contextlib.closing(session):
        yield session


def check_rehearsal(case: CaseContext, predictions: Predictions, images: ImageSet) -> None:
    """Refuse stand-in weights or images that could not tell a good model from a bad one.
    Raises `RehearsalError`: the score is too low or too high, or too few classes are predicted.
    """
    label_of = dict(zip(images.names, images.labels, strict=True))
    right = [label_of[name] + case.model.label_offset for name in predictions.names]
    first = np.concatenate(
        [np.where(finite(rows), best(rows, 1)[:, 0], -1) for _, rows in predictions.blocks()]
    )
    top1, classes = 100.0 * float(np.mean(first == right)), len(np.unique(first))
    low, high = REHEARSAL_TOP1_PERCENT
    if not low <= top1 <= high or classes < REHEARSAL_MIN_CLASSES:
        raise RehearsalError(
            f"{case.model.id}: the eager stand-in has top-1 {top1:.1f} % and predicts "
            f"{classes} classes; a rehearsal needs {low:g} to {high:g} % and at least "
            f"{REHEARSAL_MIN_CLASSES}",
            remedy="use another number of images: --rehearsal-images=N",
        )
