"""What a diagnosis has gathered: a few images, the logits of each stage, what the run recorded."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from harness.base import jobs
from harness.base.errors import HarnessError, InferError
from harness.base.stages import Stage
from harness.diagnosis.pairing import Index, Predicted
from harness.diagnosis.suspects import Pictures
from harness.diagnosis.words import Findings
from harness.images.dataset import ImageSet
from harness.judge.accuracy import REFERENCES
from harness.records.measurements import AccuracyMeasurement
from harness.records.observed import Section
from harness.records.predictions import read_predictions
from harness.stages.pipeline import CasePipeline, Prepared
from harness.targets.leases import Lease
from harness.targets.protocol import Float32, Images


@dataclass
class Evidence:
    """State of one diagnosis; each part adds to it."""

    case: CasePipeline
    prepared: Prepared
    recorded: AccuracyMeasurement | None
    limit_s: float
    scratch: Path
    count: int  # images that go through the stages
    findings: Findings = field(default_factory=Findings)
    sections: list[Section] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)  # what, and why
    commands: list[str] = field(default_factory=list)
    logits: dict[str, Float32] = field(default_factory=dict)  # by stage, on the catalog's input
    as_fed: Float32 | None = None  # the compiled model's, on what the run feeds
    elsewhere: tuple[str, Float32] | None = None  # another device, and its logits of the same
    predicted: Predicted | None = None  # what the run kept of each image

    images: ImageSet = field(init=False)
    index: Index = field(default_factory=lambda: np.zeros(0, np.int64))  # of the few, in the set
    pictures: Pictures = field(init=False)
    input: Float32 = field(init=False)  # of the few images, by the catalog's preprocessing
    right: Images = field(init=False)  # the same in the form of the compiled model's input
    _began: float = field(default_factory=time.monotonic)

    @property
    def left_s(self) -> float:
        """Seconds that are left; at least one, which a step may always take."""
        return max(1.0, self._began + self.limit_s - time.monotonic())

    def check_time(self) -> None:
        """Raise `HarnessError` when no further step may begin."""
        if time.monotonic() >= self._began + self.limit_s:
            raise HarnessError(
                f"the diagnosis has taken its {self.limit_s:g} s",
                remedy="a slow machine needs --deadline-factor",
            )

    @property
    def bound(self) -> float:
        """Relative L2 of the logits that is allowed."""
        return self.case.bound

    @property
    def reference(self) -> str:
        """Name what the stages are held against: eager PyTorch, or what runs an ONNX file alone."""
        return REFERENCES[self.case.model.reference_kind]

    @property
    def labels(self) -> Index:
        """The class of each image of the set."""
        return np.asarray(self.images.labels, np.int64) + self.case.model.label_offset

    @property
    def names(self) -> list[str]:
        """Names of the few images."""
        return [self.images.names[i] for i in self.index]

    @property
    def expected_score(self) -> float:
        """The share of right predictions of a sound model: eager's, or the published one."""
        eager = None if self.recorded is None else self.recorded.reference_scores
        real = self.case.bench.provenance == "real"
        target = self.case.model.published
        published = float(target.top1) if real and target is not None else 0.0
        return max(0.0 if eager is None else eager.percent(1), published) / 100.0

    @property
    def right_is_fed(self) -> bool:
        """Return whether the run feeds what the catalog's preprocessing gives."""
        return np.array_equal(self.pictures.fed, self.right)

    @property
    def takes_crops(self) -> bool:
        """Return whether the compiled model takes crops and normalises them itself."""
        return self.pictures.fed.dtype == np.uint8

    def section(
        self,
        title: str,
        columns: Sequence[str],
        rows: Sequence[Sequence[str]],
        *,
        first: bool = False,
    ) -> None:
        """Add a table, if it has rows, as the last or the first."""
        if rows:
            table = Section(title, tuple(columns), tuple(map(tuple, rows)))
            self.sections.insert(0 if first else len(self.sections), table)

    @contextmanager
    def trying(self, what: str) -> Iterator[None]:
        """Try a part of the diagnosis: what goes wrong in it becomes a row."""
        self.case.bench.progress.say(what)
        try:
            yield
        except HarnessError as error:
            remedy = f" ({error.remedy})" if error.remedy else ""
            self.failed.append((what, f"could not be tried: {error.message}{remedy}"))
        except Exception as error:
            # Whatever it is, the verdict of the case must not be lost for it.
            text = f"{type(error).__name__}: {error}".splitlines()[0]
            self.failed.append((what, f"could not be tried: {text}"))

    def choose(self) -> None:
        """Choose the images: those whose prediction flipped first, the others spread over the set.

        Flips that rounding explains come after the others.
        """
        self.images = self.case.images()
        with self.trying("predictions of the run"):
            if self.recorded is not None and self.recorded.predictions_file:
                kept = read_predictions(self.case.bench.run_dir, self.recorded.predictions_file)
                self.predicted = Predicted.of(kept)
        place = {name: i for i, name in enumerate(self.images.names)}
        fidelity = None if self.recorded is None else self.recorded.fidelity
        flips = sorted(fidelity.flips if fidelity else (), key=lambda flip: flip.excused)
        chosen = [place[flip.name] for flip in flips if flip.name in place][: self.count]
        chosen += spread(len(self.images), self.count - len(chosen), set(chosen))
        self.index = np.array(sorted(chosen), np.int64)
        self.pictures, self.right = self.load(self.index)
        self.input = self.pictures.inputs(self.case.model.preprocessing)

    def load(self, index: Index) -> tuple[Pictures, Images]:
        """Return some images with what the run feeds for them, and what it should."""
        self.check_time()
        feed = self.prepared.feed
        assert feed is not None
        pictures = Pictures([self.images.paths[i] for i in index])
        model, size = self.case.model, self.case.case.batch_size
        spec = self.case.bench.target.input_of(model, size)
        right = self.case.images_for(spec, pictures.crops(model.preprocessing))
        pictures.fed = np.empty_like(right)
        for row, i in enumerate(index):
            feed.write(feed.crops.rows(i, i + 1), pictures.fed[row : row + 1])
        return pictures, right

    def graph_outputs(self, model: Path, images: Float32) -> Float32:
        """Return the logits of an ONNX file for `float32[N, 3, S, S]`."""
        inputs, output = self.scratch / "inputs.npy", self.scratch / "outputs.npy"
        np.save(inputs, images, allow_pickle=False)
        with self.sharing_host() as lease:
            jobs.call(
                "harness.diagnosis.graphs:run_graph",
                {
                    "model": str(model),
                    "inputs": str(inputs),
                    "batch_size": self.case.case.batch_size,
                    "output": str(output),
                },
                deadline_s=self.left_s,
                log=self.case.log_path(Stage.DIAGNOSE),
                error=InferError,
                what=f"the ONNX file of {self.case.case.id}",
                pass_fds=lease.fds,
            )
        return np.asarray(np.load(output, allow_pickle=False), np.float32)

    @contextmanager
    def sharing_host(self) -> Iterator[Lease]:
        """Hold a share of the host's CPU, waited for no longer than there is time."""
        self.check_time()
        what = f"diagnosis of {self.case.case.id}"
        with self.case.bench.share_host(what, self.left_s) as lease:
            yield lease


def spread(total: int, count: int, without: set[int]) -> list[int]:
    """Return `count` places out of `total`, spread evenly, none of `without`."""
    left = [i for i in range(total) if i not in without]
    count = min(max(count, 0), len(left))
    return [left[i * len(left) // count] for i in range(count)]


def best_class(logits: Float32) -> Index:
    """Return the best class of each row; -1 for a row with NaN or infinity."""
    finite = np.isfinite(logits).all(axis=1)
    return np.where(finite, logits.argmax(axis=1), -1).astype(np.int64)
