"""Faults planted in the compiled model's path alone: each turns the verdict of a rehearsal.

The chain is real (export, onnxsim, ONNX Runtime, the device worker); only what the fault is about
is changed. `HARNESS_PLANT_MODELS=fixres,...` plants them in other models of the catalog too.
"""

from __future__ import annotations

import dataclasses
import os

import numpy as np
import pytest

from harness import accuracy, settings
from harness.cases import Case
from harness.catalog import load_catalog
from harness.images.crops import Crops
from harness.images.feed import Feed
from harness.images.steps import Normalize, ResizeHeight, ResizeSquare
from harness.workbench import Workbench
from tests.selftest.running import ROOT, TINY

MODELS = [
    "tiny",
    "squeezenet1_1",
    *filter(None, os.environ.get("HARNESS_PLANT_MODELS", "").split(",")),
]
BATCH = 4


@pytest.fixture(scope="module", params=MODELS)
def prepared(request, shared, tmp_path_factory):
    """A case with everything built, as the fixtures of the acceptance tests build it."""
    file = TINY if request.param == "tiny" else ROOT / "baselines.yaml"
    folder = tmp_path_factory.mktemp("run")
    chosen = settings.resolve(
        {
            "rehearsal": True,
            "store": str(shared / "store"),
            "leases": str(folder / "leases"),
            "catalog": str(file),
        },
        environment={},
    )
    bench = Workbench(chosen, load_catalog(file), folder)
    case = bench.for_case(Case(request.param, BATCH, "cpu", "accuracy"))
    return case, case.prepare()


def judge(prepared, *, feed=None, session=None, label_offset=None):
    """The verdict of the case with a part of the compiled path exchanged."""
    case, ready = prepared
    if label_offset is not None:
        changed = case.model.model_copy(update={"label_offset": label_offset})
        case = dataclasses.replace(case, model=changed)
    if feed is not None:
        ready = dataclasses.replace(ready, feed=feed)
    with case.session(ready.compiled, exclusive=False) as opened:
        return case.accuracy(session(opened) if session else opened, ready)


class Altered:
    """A session whose outputs, or inputs, are altered on the way."""

    def __init__(self, inner, outputs=None, inputs=None):
        self._inner, self._outputs, self._inputs = inner, outputs, inputs
        self.inputs, self.outputs = inner.inputs, inner.outputs

    def stream_into(self, fillers):
        def altered():
            for fill in fillers:

                def both(view, fill=fill):
                    fill(view)
                    if self._inputs is not None:
                        view[:] = self._inputs(view)

                yield both

        for i, logits in enumerate(self._inner.stream_into(altered())):
            yield logits if self._outputs is None else self._outputs(i, logits)


def feed_with(case, steps):
    images = case.images()
    return Feed(Crops(case.bench.store, images, steps), steps.normalize, BATCH)


def test_the_sound_path_passes(prepared):
    verdict = judge(prepared)
    assert verdict.kind == "PASS", verdict.sentence
    low, high = 40.0, 99.0
    assert low <= verdict.figures["top-1 eager, %"] <= high
    assert verdict.figures["images"] % BATCH != 0  # a last partial batch is among them


def test_swapped_colour_channels_fail(prepared):
    verdict = judge(
        prepared, session=lambda s: Altered(s, inputs=lambda view: view[:, ::-1].copy())
    )
    assert verdict.kind == "FAIL"
    assert "relative L2" in verdict.sentence


def test_another_models_mean_and_std_fail(prepared):
    case, _ = prepared
    other = Normalize(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    if case.model.preprocessing.normalize == other:
        other = Normalize(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    steps = case.model.preprocessing.model_copy(update={"normalize": other})
    verdict = judge(prepared, feed=feed_with(case, steps))
    assert verdict.kind == "FAIL"


def test_labels_off_by_one_fail(prepared, monkeypatch):
    case, _ = prepared
    # The eager reference is scored as it was: the fault is in the compiled model's path alone.
    real, offset, calls = accuracy.score, case.model.label_offset, []

    def as_it_was(found, images, _):
        calls.append(found)
        return real(found, images, offset)

    monkeypatch.setattr(accuracy, "score", as_it_was)
    verdict = judge(prepared, label_offset=offset + 1)
    assert len(calls) == 1
    assert verdict.kind == "FAIL"
    assert "top-1" in verdict.sentence


def test_outputs_shuffled_between_images_fail(prepared):
    verdict = judge(
        prepared, session=lambda s: Altered(s, outputs=lambda i, logits: np.roll(logits, 1, axis=0))
    )
    assert verdict.kind == "FAIL"
    assert "predictions differ" in verdict.sentence


def test_padding_that_is_counted_fails(prepared):
    _, ready = prepared

    class Counting(Feed):
        def __iter__(self):
            for batch in super().__iter__():
                spare = self.batch_size - len(batch.names)
                yield _Padded(batch, batch.names + tuple(f"padding-{i}" for i in range(spare)))

    feed = Counting(
        ready.feed.crops, prepared[0].model.preprocessing.normalize, ready.feed.batch_size
    )
    verdict = judge(prepared, feed=feed)
    assert verdict.kind == "FAIL"
    assert "rows were scored" in verdict.sentence
    assert "belong to no image" in verdict.sentence


class _Padded:
    def __init__(self, batch, names):
        self.batch, self.names = batch, names

    def fill(self, out):
        self.batch.fill(out)


def test_a_resize_of_another_kind_fails(prepared):
    case, _ = prepared
    resize = case.model.preprocessing.resize
    kind = ResizeHeight if isinstance(resize, ResizeSquare) else ResizeSquare
    other = kind(size=resize.size, interpolation=resize.interpolation)
    steps = case.model.preprocessing.model_copy(update={"resize": other})
    verdict = judge(prepared, feed=feed_with(case, steps))
    assert verdict.kind == "FAIL"


def test_one_nan_fails(prepared):
    def spoiled(i, logits):
        logits = logits.copy()
        if i == 0:
            logits[0, 7] = np.nan
        return logits

    verdict = judge(prepared, session=lambda s: Altered(s, outputs=spoiled))
    assert verdict.kind == "FAIL"
    assert "NaN" in verdict.sentence


def test_a_constant_output_fails(prepared):
    verdict = judge(
        prepared, session=lambda s: Altered(s, outputs=lambda i, logits: np.zeros_like(logits))
    )
    assert verdict.kind == "FAIL"


def test_an_image_that_is_counted_twice_fails(prepared):
    _, ready = prepared

    class Doubling(Feed):
        def __iter__(self):
            batches = list(super().__iter__())
            yield from [batches[0], *batches]

    feed = Doubling(
        ready.feed.crops, prepared[0].model.preprocessing.normalize, ready.feed.batch_size
    )
    verdict = judge(prepared, feed=feed)
    assert verdict.kind == "FAIL"
    assert "more than once" in verdict.sentence
