"""Faults in labels and in results: other labels, other order, other counts, other numbers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any
from unittest import mock

import numpy as np

from harness.catalog.load import parse_catalog
from harness.catalog.schema import Published
from harness.images import dataset, generated, preprocess
from harness.images.dataset import ImageSet
from harness.images.feed import Batch, Feed
from harness.judge.accuracy import judge_accuracy, judge_whole_set
from harness.judge.batch_sizes import BatchPass, judge_batch_sizes
from harness.measure import accuracy
from harness.records.measurements import ProblemCode
from harness.records.predictions import Prediction
from harness.stages.inference import Predictions
from harness.targets.protocol import Float32, Images
from tests.selftest import fakes, image_folders
from tests.selftest.image_folders import image_set
from tests.selftest.planted import guides
from tests.selftest.planted.altered import Altered
from tests.selftest.planted.rows import Fault, Found, Row, judged, said
from tests.selftest.planted.world import BASELINES, BATCH, World

# Labels ------------------------------------------------------------------------------------

FIRST = dataset.FIRST_LABELS  # of ImageNet's first fifteen images


def _labelled(change: Callable[[list[int]], list[int]]) -> Row:
    """ImageNet's first images beside a label file, looked at before anything runs."""

    def row(world: World, planted: bool) -> Found:
        folder = world.new_folder()
        image_folders.put_images(folder / "val", range(1, len(FIRST) + 1))
        labels = change(list(FIRST)) if planted else list(FIRST)
        image_folders.put_text(folder / "val_label.txt", image_folders.lines(labels))
        found = dataset.find_image_set(folder)
        return said("accepted", f"{dataset.check(found).known} known labels are right", "data")

    return row


def _in_another_order(labels: list[int]) -> list[int]:
    """Each class by its number in an order of the kit's kind."""
    order = {wnid: number for number, wnid in enumerate(image_folders.DEVKIT_ORDER)}
    return [order[image_folders.WNIDS[label]] for label in labels]


def _doubled(world: World, planted: bool) -> Found:
    """The same image twice in a label file, with two labels."""
    folder = world.new_folder()
    image_folders.put_images(folder / "val")
    text = image_folders.lines()
    image_folders.put_text(
        folder / "val_label.txt", text + f"{image_folders.name(1)} 66\n" * planted
    )
    found = dataset.find_image_set(folder)
    return said("accepted", f"{len(found)} images have one label each", "data")


def _truncated_image(world: World, planted: bool) -> Found:
    """Half of a JPEG file: decoders of other libraries fill the rest with grey."""
    file = guides.write_photos(world.new_folder())[0]
    if planted:
        os.truncate(file, file.stat().st_size // 2)
    steps = world.catalog("squeezenet1_1").models["squeezenet1_1"].preprocessing
    return said("accepted", f"{preprocess.load_crop(file, steps).shape}", "data")


def _offset_in_the_path(world: World, planted: bool) -> Found:
    """The compiled model's results scored with another offset than eager's."""
    case, _ = world.prepared("odd")
    real, offset = accuracy.tally, case.model.label_offset

    def as_it_was(found: Predictions, images: ImageSet, _: int) -> accuracy.Tally:
        return real(found, images, offset)

    with mock.patch.object(accuracy, "tally", as_it_was):
        model = case.model.model_copy(update={"label_offset": offset - planted})
        return judged(world.judge("odd", model=model))


def _offset_in_the_catalog(world: World, planted: bool) -> Found:
    text = BASELINES.read_text(encoding="utf-8")
    right = "label_offset: 1"
    assert text.count(right) == 1  # InceptionV4's
    catalog = parse_catalog(
        (text.replace(right, "label_offset: 0") if planted else text).encode(), BASELINES
    )
    return said("accepted", f"{len(catalog.models)} models", "catalog")


def _part_of_the_set(seed: int, images: int = 2000) -> tuple[Predictions, ImageSet]:
    """Predictions of a model that is right on about 78 %, and its images."""
    random = np.random.default_rng(seed)
    labels = [int(label) for label in random.integers(0, 999, images)]
    right = random.random(images) < 0.7826
    best = [label if ok else (label + 7) % 999 for label, ok in zip(labels, right, strict=True)]
    return fakes.predictions(best, 1000), image_set(labels)


def _subset(change: Callable[[ImageSet], ImageSet]) -> Row:
    """A part of the real set on which the compiled model and eager agree to the last bit."""

    def row(world: World, planted: bool) -> Found:
        found, images = world.once("part", lambda: _part_of_the_set(5))
        model = world.catalog("seresnext101").models["seresnext101"]
        measured = fakes.measured(
            found,
            change(images) if planted else images,
            model.label_offset,
            provenance="real",
            reference=found,
            fidelity_bound=3e-2,
            seconds=1.0,
        )
        spec = model.stated
        return judged(judge_accuracy(measured, spec.published, spec.rule, bound=3e-2))

    return row


def _shifted_labels(images: ImageSet) -> ImageSet:
    return replace(images, labels=tuple(label + 1 for label in images.labels))


def _shuffled_labels(images: ImageSet) -> ImageSet:
    random = np.random.default_rng(3)
    return replace(images, labels=tuple(random.permutation(images.labels).tolist()))


# What comes back ---------------------------------------------------------------------------


def _outputs(change: Callable[[Iterator[Float32]], Iterator[Float32]], model: str = "odd") -> Row:
    """All logits of the compiled model changed on their way to the score."""

    def row(world: World, planted: bool) -> Found:
        session = Altered(world.session(model), outputs=change if planted else None)
        return judged(world.judge(model, session=session))

    return row


def _late(found: Iterator[Float32]) -> Iterator[Float32]:
    """Each batch gets the results of the one before, as of a buffer that was not waited for."""
    before = None
    for logits in found:
        yield logits.copy() if before is None else before
        before = logits.copy()


def _each(change: Callable[[Float32], None], only: int | None = None) -> Any:
    def changed(found: Iterator[Float32]) -> Iterator[Float32]:
        for number, logits in enumerate(found):
            logits = logits.copy()
            if only in (None, number):
                with np.errstate(over="ignore"):
                    change(logits)
            yield logits

    return changed


def _rolled(logits: Float32) -> None:
    logits[:] = np.roll(logits, 1, axis=0)


def _nan(logits: Float32) -> None:
    logits[0, 7] = np.nan


def _overflow(logits: Float32) -> None:
    scale = np.float32(1e5 / np.abs(logits).max())
    logits[:] = (logits * scale).astype(np.float16).astype(np.float32) / scale


def _constant(logits: Float32) -> None:
    logits[:] = np.linspace(0, 1, logits.shape[1], dtype=np.float32)


def _scaled(logits: Float32) -> None:
    logits *= np.float32(1.05)


def _exchanged(logits: Float32) -> None:
    first, second = (label + 1 for label in generated.CLASSES[:2])
    logits[:, [first, second]] = logits[:, [second, first]]


def _softmax(logits: Float32) -> None:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    logits[:] = powers / powers.sum(axis=1, keepdims=True)


def _fewer(found: Iterator[Float32]) -> Iterator[Float32]:
    """A batch that never comes back."""
    for number, logits in enumerate(found):
        if number != 3:
            yield logits


def _feed_counted(count: Callable[[list[Batch], int], Iterable[Batch]]) -> Row:
    """The batches of the feed changed before they are counted."""

    class Counted(Feed):
        def __iter__(self) -> Iterator[Batch]:
            return iter(count(list(super().__iter__()), self.batch_size))

    def row(world: World, planted: bool) -> Found:
        case, ready = world.prepared("odd")
        assert ready.feed is not None
        assert ready.feed.images % BATCH  # a last partial batch is among them
        feed = (Counted if planted else Feed)(
            ready.feed.crops, case.model.preprocessing.normalize, BATCH
        )
        return judged(world.judge("odd", feed=feed))

    return row


class _Padded(Batch):
    """A batch whose padding has names."""

    def fill(self, out: Images) -> None:
        real = tuple(name for name in self.names if not name.startswith("padding"))
        Batch(self.feed, self.start, real).fill(out)


def _padding(batches: list[Batch], size: int) -> Iterator[Batch]:
    for batch in batches:
        spare = tuple(f"padding-{i}" for i in range(size - len(batch.names)))
        yield _Padded(batch.feed, batch.start, batch.names + spare)


def _twice(batches: list[Batch], size: int) -> Iterator[Batch]:
    """The second batch holds the first one's last image in place of its own first."""
    first, second, *others = batches
    yield first
    yield replace(second, start=second.start - 1, names=(first.names[-1], *second.names[:-1]))
    yield from others


# What only several cases together show ------------------------------------------------------


def _batch_sizes(world: World, planted: bool) -> Found:
    """0.2 points apart on the whole set, each within the tolerance of the published figure."""
    good, bad = Prediction(1, 1, 9.0), Prediction(1, 2, 9.0)
    right = dict.fromkeys(map(str, range(50_000)), good)
    other = {**right, **dict.fromkeys(map(str, range(100)), bad)} if planted else right
    return judged(judge_batch_sizes({1: BatchPass("real", right), 16: BatchPass("real", other)}))


def _other_provenance(world: World, planted: bool) -> Found:
    """A rehearsal's score held against the published figure, or against eager as it must."""
    found = fakes.predictions([1, 2, 3, 9])
    measured = fakes.measured(
        found,
        image_set([1, 2, 3, 4]),
        0,
        provenance="rehearsal",
        reference=found,
        fidelity_bound=1e-3,
        seconds=1.0,
    )
    spec = world.catalog("squeezenet1_1").models["squeezenet1_1"].stated
    published = Published(top1=75.0, source=spec.published.source)
    judge = judge_whole_set if planted else judge_accuracy
    return judged(judge(measured, published, spec.rule, bound=1e-3))


_FILE = "the label file"
_AFTER = "between session and score"

FAULTS = (
    Fault("1001 classes without offset", "`baselines.yaml`", "catalog", "error",
          "found 0 with 1001 classes", _offset_in_the_catalog, "accepted"),
    Fault("1001 classes without offset, in the score", _AFTER, "verdict", "FAIL",
          ProblemCode.SCORE_DIFFERS, _offset_in_the_path),
    Fault("Labels off by one", _FILE, "data", "error", "counts from 1",
          _labelled(lambda labels: [label + 1 for label in labels]), "accepted"),
    Fault("Label file of another order", _FILE, "data", "error", "another order",
          _labelled(_in_another_order), "accepted"),
    Fault("Labels of other images", _FILE, "data", "error", "not in ImageNet's class order",
          _labelled(lambda labels: labels[1:] + labels[:1]), "accepted"),
    Fault("Two labels for one image", _FILE, "data", "error", "more than one label", _doubled,
          "accepted"),
    Fault("Half an image", "an image file", "data", "error", "cannot be decoded",
          _truncated_image, "accepted"),
    Fault("A subset PASS on wrong labels", "labels of 2,000 images that nobody knows", "verdict",
          "FAIL", ProblemCode.REFERENCE_OFF, _subset(_shifted_labels)),
    Fault("A subset PASS on shuffled labels", "labels of 2,000 images that nobody knows",
          "verdict", "FAIL", ProblemCode.REFERENCE_OFF, _subset(_shuffled_labels)),
    Fault("Results shuffled between images", _AFTER, "fidelity", "FAIL",
          ProblemCode.PREDICTIONS_DIFFER, _outputs(_each(_rolled))),
    Fault("Results of the batch before", _AFTER, "fidelity", "FAIL",
          ProblemCode.PREDICTIONS_DIFFER, _outputs(_late)),
    Fault("A batch that never comes back", _AFTER, "session", "error",
          "returned 11 batches of 12", _outputs(_fewer)),
    Fault("The last batch's padding counted", "the feed", "verdict", "FAIL",
          ProblemCode.FOREIGN_OUTPUT, _feed_counted(_padding)),
    Fault("One image counted twice, another not at all", "the feed", "verdict", "FAIL",
          ProblemCode.COUNTED_TWICE, _feed_counted(_twice)),
    Fault("A batch counted twice", "the feed", "verdict", "FAIL", ProblemCode.IMAGES_MISSING,
          _feed_counted(lambda batches, _: [batches[0], *batches])),
    Fault("The last batch left out", "the feed", "verdict", "FAIL", ProblemCode.NO_OUTPUT,
          _feed_counted(lambda batches, _: batches[:-1])),
    Fault("NaN in one logit", _AFTER, "verdict", "FAIL", ProblemCode.NOT_FINITE,
          _outputs(_each(_nan, only=5))),
    Fault("float16 overflow to infinity", _AFTER, "verdict", "FAIL",
          ProblemCode.NOT_FINITE, _outputs(_each(_overflow))),
    Fault("A constant output", _AFTER, "fidelity", "FAIL",
          ProblemCode.PREDICTIONS_DIFFER, _outputs(_each(_constant))),
    Fault("All logits 5 % larger", _AFTER, "fidelity", "FAIL", ProblemCode.LOGITS_DIFFER,
          _outputs(_each(_scaled))),
    Fault("Two classes exchanged in the last layer", _AFTER, "fidelity", "FAIL",
          ProblemCode.LOGITS_DIFFER, _outputs(_each(_exchanged))),
    Fault("Softmax compiled in", _AFTER, "fidelity", "FAIL", ProblemCode.LOGITS_DIFFER,
          _outputs(_each(_softmax))),
    Fault("One batch size 0.2 points below another", "predictions of one batch size", "verdict",
          "FAIL", "100 of 50000 predictions differ", _batch_sizes),
    Fault("A rehearsal held against the published figure", "the choice of the rule", "verdict",
          "error", "cannot be judged against", _other_provenance),
)  # fmt: skip
