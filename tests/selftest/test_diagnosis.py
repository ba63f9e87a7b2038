"""Diagnosis of a failed accuracy: each planted fault is named by the part that is responsible.

The chain is real and built once (export, onnxsim, ONNX Runtime, the device worker); a fault is
planted in one place of it, and the diagnosis sees it as it would see it in a run.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from harness import settings
from harness.base.errors import DeviceError, InferError
from harness.base.stages import Stage
from harness.catalog.load import load_catalog
from harness.catalog.steps import Normalize
from harness.diagnosis import chain
from harness.diagnosis.agreement import agree
from harness.diagnosis.diagnose import diagnose
from harness.diagnosis.words import About, Findings, Restored, words
from harness.images.crops import Crops
from harness.images.feed import Feed
from harness.measure import accuracy
from harness.measure import attempt as measuring
from harness.plan import Case
from harness.records.observed import Observed
from harness.stages.inference import Predictions, infer
from harness.stages.pipeline import CasePipeline, Workbench
from harness.targets.protocol import OperatorComparison
from tests.selftest.planted.altered import Altered
from tests.selftest.running import TINY

BATCH = 4
IMAGES = 8


@pytest.fixture(scope="module")
def prepared(shared, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    chosen = settings.resolve(
        {
            "rehearsal": True,
            "store": str(shared / "store"),
            "leases": str(folder / "leases"),
            "catalog": str(TINY),
        },
        environment={},
    )
    bench = Workbench(chosen, load_catalog(TINY), folder)
    case = bench.for_case(Case("tiny", BATCH, "cpu", "accuracy"))
    return case, case.prepare()


class Faulty:
    """A target whose sessions are altered on the way."""

    def __init__(self, target, alter):
        self._target, self._alter = target, alter

    def __getattr__(self, name):
        return getattr(self._target, name)

    def open(self, *arguments, **keywords):
        session = self._target.open(*arguments, **keywords)
        altered = self._alter(session)
        altered.close = session.close
        return altered


def each(change):
    """What a session gives, each batch of logits changed."""
    return lambda batches: (change(logits) for logits in batches)


def diagnosed(prepared, *, alter=None, measured=True, **changes):
    """The diagnosis after a pass that failed, with a part of the case exchanged."""
    case, ready = prepared
    case = dataclasses.replace(case, observed=Observed())
    bench = case.bench
    if alter is not None:
        target, bench.target = bench.target, Faulty(bench.target, alter)
    try:
        ready = dataclasses.replace(ready, **changes)
        if measured:
            with measuring.opened(case, ready) as session:
                found = measuring.take_accuracy(case, session, ready)
            assert measuring.judge(case, found).kind == "FAIL"
            case.observed.measurement = found
        before = dataclasses.replace(case.observed, stages=[])
        answer = diagnose(case, ready, IMAGES)
        assert dataclasses.replace(case.observed, stages=[]) == before
    finally:
        if alter is not None:
            bench.target = target
    assert answer.summary.endswith(".")
    for section in answer.sections:
        assert section.rows
        assert {len(row) for row in section.rows} == {len(section.columns)}
    assert [one.stage for one in case.observed.stages].count(Stage.DIAGNOSE) == 1
    return answer


def section(answer, title):
    return next(one for one in answer.sections if one.title.startswith(title))


def restoring(answer, title):
    return [row[0] for row in section(answer, title).rows if row[-1] == "yes"]


def not_tried(answer):
    return dict(section(answer, "Not tried").rows)


@pytest.fixture
def quick(prepared, monkeypatch):
    """Leaves the two ONNX files out: what is wrong comes after them. They are what they were,
    whatever a test changes in what they were made from.
    """
    case, _ = prepared
    onnx, simplified = case.onnx(), case.simplified()
    monkeypatch.setattr(CasePipeline, "onnx", lambda self: onnx)
    monkeypatch.setattr(CasePipeline, "simplified", lambda self: simplified)

    def left_out(*_):
        raise InferError("left out, to be quick")

    monkeypatch.setattr(chain, "graph_outputs", left_out)


# What is fed and how results come back ---------------------------------------------------------


def test_swapped_channels_are_named(prepared, quick):
    answer = diagnosed(
        prepared, alter=lambda s: Altered(s, inputs=lambda view: view[:, ::-1].copy())
    )
    assert (answer.stage, answer.suspect) == (Stage.DATA, "channels swapped (BGR for RGB)")
    assert restoring(answer, "Usual suspects") == ["channels swapped (BGR for RGB)"]


def test_another_resize_is_named(prepared, quick):
    case, _ = prepared
    steps = case.model.preprocessing
    square = steps.resize.model_copy(update={"op": "resize_square", "size": 73})
    steps = steps.model_copy(update={"resize": square})
    feed = Feed(Crops(case.bench.store, case.images(), steps), steps.normalize, BATCH)
    answer = diagnosed(prepared, feed=feed)
    assert (answer.stage, answer.suspect) == (Stage.DATA, "resized to a square")


def replaced(steps, part, **changes):
    """Preprocessing of which one step is changed."""
    return steps.model_copy(update={part: getattr(steps, part).model_copy(update=changes)})


def fed_by(case, steps):
    return Feed(Crops(case.bench.store, case.images(), steps), steps.normalize, BATCH)


def as_compiled(prepared, steps):
    """What the compiled model makes of images by `steps`: eager agrees with it."""
    case, ready = prepared
    names, rows = [], []

    def take(these, logits):
        names.extend(these)
        rows.append(np.array(logits))

    with measuring.opened(case, ready) as session:
        infer(session, fed_by(case, steps), take)
    return Predictions(tuple(names), np.concatenate(rows))


@pytest.fixture(scope="module")
def odd(prepared):
    """The case with a margin of 11 pixels: rounded by another rule, the crop is another one."""
    case, ready = prepared
    steps = replaced(case.model.preprocessing, "resize", size=75)
    model = case.model.model_copy(update={"preprocessing": steps})
    reference = as_compiled(prepared, steps)
    return dataclasses.replace(case, model=model), dataclasses.replace(ready, reference=reference)


@pytest.mark.parametrize(
    ("part", "changes", "suspect"),
    [
        ("crop", {"offset": "floor"}, "odd margins of the crop by floor"),
        ("resize", {"interpolation": "bicubic"}, "bicubic interpolation"),
        ("resize", {"size": 64}, "resized to 64, the crop's own size"),
        (
            "normalize",
            {"mean": (0.406, 0.456, 0.485), "std": (0.225, 0.224, 0.229)},
            "mean and std in BGR order",
        ),
        ("normalize", {"mean": (0.3, 0.3, 0.3)}, ""),
    ],
    ids=["crop", "interpolation", "size", "bgr", "none that is usual"],
)
def test_what_is_fed_is_named(quick, odd, part, changes, suspect):
    case, _ = odd
    wrong = fed_by(case, replaced(case.model.preprocessing, part, **changes))
    answer = diagnosed(odd, feed=wrong, measured=False)
    assert (answer.stage, answer.suspect) == (Stage.DATA, suspect)
    assert restoring(answer, "Usual suspects") == ["the catalog's preprocessing"]
    how = f"but: {suspect}" if suspect else "and no usual mistake makes them so"
    assert answer.summary == (
        f"The images are not fed as the catalog says, {how}; the catalog's preprocessing "
        "restores agreement with eager PyTorch."
    )


@pytest.mark.parametrize(
    ("fed", "name", "suspect"),
    [
        ("resized to a square", "the catalog's preprocessing", "resized to a square"),
        ("", "the catalog's preprocessing", ""),
        ("", "channels swapped (BGR for RGB)", "channels swapped (BGR for RGB)"),
        (None, "channels swapped (BGR for RGB)", "channels swapped (BGR for RGB)"),
        ("resized to a square", None, "resized to a square"),
        ("", None, ""),
    ],
)
def test_a_suspect_is_a_mistake_that_explains_the_result(fed, name, suspect):
    restored = None if name is None else Restored(name, "restores the score", About.INPUT)
    stage, named, summary = words(Findings(fed=fed, restored=restored), 8, 3e-2)
    assert (stage, named) == (Stage.DATA, suspect)
    assert ("no usual mistake" in summary) == (fed == "")


@pytest.mark.parametrize("about", About)
@pytest.mark.parametrize("stage", [None, Stage.EXPORT, Stage.SIMPLIFY, Stage.COMPILE])
def test_a_suspect_that_is_found_is_named_whichever_stage_departs(stage, about):
    logits = np.ones((2, 3), np.float32)
    restored = Restored("labels shifted by one (+1)", "restores the score", about)
    findings = Findings(stage=stage, difference=agree(logits, 2 * logits), restored=restored)
    _, suspect, summary = words(findings, 8, 3e-2)
    assert suspect == restored.name
    assert restored.name in summary


def test_labels_off_by_one_are_named(prepared, quick, monkeypatch):
    case, ready = prepared
    model = case.model.model_copy(update={"label_offset": 1})
    real = accuracy.tally
    monkeypatch.setattr(accuracy, "tally", lambda found, images, _: real(found, images, 0))
    answer = diagnosed((dataclasses.replace(case, model=model), ready))
    assert answer.suspect == "labels shifted by one (-1)"
    assert answer.stage is None
    assert restoring(answer, "Labels and order") == ["labels shifted by one (-1)"]


def test_results_of_other_images_are_named(prepared, quick):
    answer = diagnosed(
        prepared,
        alter=lambda s: Altered(s, outputs=each(lambda logits: np.roll(logits, 1, axis=0))),
    )
    assert (answer.stage, answer.suspect) == (Stage.INFER, "results rotated by 1 within each batch")


def test_results_that_were_shifted_in_the_run_alone_are_named(prepared, quick):
    case, _ = prepared

    class Shifted(Feed):
        def __iter__(self):
            names = self.crops.names[1:] + self.crops.names[:1]
            for batch in super().__iter__():
                yield Renamed(batch, names[batch.start : batch.start + BATCH])

    class Renamed:
        def __init__(self, batch, names):
            self.fill, self.names = batch.fill, names

    answer = diagnosed(prepared, feed=Shifted(case.crops(), case.model.preprocessing.normalize, 4))
    assert (answer.stage, answer.suspect) == (Stage.INFER, "results 1 place later")


def test_outputs_of_another_class_order_are_named(prepared, quick):
    answer = diagnosed(
        prepared,
        alter=lambda s: Altered(s, outputs=each(lambda logits: np.roll(logits, 1, axis=1))),
    )
    assert answer.suspect == "outputs shifted by one class (-1)"


def test_a_mistake_of_the_catalog_is_told_by_the_labels(prepared, quick, monkeypatch):
    """Eager and compiled share it: only the score against the published one is off."""
    case, _ = prepared
    monkeypatch.setattr(case.bench, "provenance", "real")
    raw = Normalize(mean=(0.0, 0.0, 0.0), std=(1 / 255, 1 / 255, 1 / 255))
    steps = case.model.preprocessing.model_copy(update={"normalize": raw})
    published = case.model.accuracy.published.model_copy(update={"top1": 80.0})
    accuracy_spec = case.model.accuracy.model_copy(update={"published": published})
    model = case.model.model_copy(update={"preprocessing": steps, "accuracy": accuracy_spec})
    wrong = dataclasses.replace(case, model=model), prepared[1]
    feed, reference = fed_by(case, steps), as_compiled(prepared, steps)
    answer = diagnosed(wrong, measured=False, reference=reference, feed=feed)
    assert all(row[-1] == "agrees" for row in section(answer, "Agreement").rows)
    assert (answer.stage, answer.suspect) == (Stage.DATA, "ImageNet's mean and std")


# Stages -----------------------------------------------------------------------------------------


def altered_onnx(source, path, change):
    import onnx

    model = onnx.load(source)
    change(model.graph)
    onnx.save(model, path)
    return path


def perturb(name):
    """One convolution's weights of a channel, doubled."""

    def change(graph):
        import onnx

        node = next(one for one in graph.node if one.name == name)
        weight = next(one for one in graph.initializer if one.name == node.input[1])
        values = np.array(onnx.numpy_helper.to_array(weight))
        values[0] *= 2.0
        weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))

    return change


def recompiled(case, onnx, folder):
    folder.mkdir()
    target = case.bench.target
    target.compile(onnx, case.model, BATCH, folder, device=None, log=folder / "log")
    return folder / "model.ort.onnx"


def test_a_fault_of_the_simplified_file_is_named(prepared, tmp_path, monkeypatch):
    case, _ = prepared
    broken = altered_onnx(
        case.simplified(), tmp_path / "model.onnx", perturb("/layer2/layer2.0/conv1/Conv")
    )
    compiled = recompiled(case, broken, tmp_path / "compiled")
    monkeypatch.setattr(CasePipeline, "simplified", lambda self: broken)
    answer = diagnosed(prepared, compiled=compiled)
    assert (answer.stage, answer.suspect) == (Stage.SIMPLIFY, "")
    assert "departs from exported ONNX" in answer.summary
    assert restoring(answer, "Usual suspects") == []


def test_a_fault_of_the_export_is_named(prepared, tmp_path, monkeypatch):
    case, _ = prepared
    broken = altered_onnx(
        case.onnx(), tmp_path / "model.onnx", perturb("/layer2/layer2.0/conv1/Conv")
    )
    compiled = recompiled(case, case.simplified(), tmp_path / "compiled")
    monkeypatch.setattr(CasePipeline, "onnx", lambda self: broken)
    monkeypatch.setattr(CasePipeline, "simplified", lambda self: broken)
    answer = diagnosed(prepared, compiled=compiled, measured=False)
    assert answer.stage is Stage.EXPORT
    assert "departs from eager PyTorch" in answer.summary


def test_a_compiled_file_of_other_weights_is_named(prepared, tmp_path):
    case, _ = prepared
    other = altered_onnx(
        case.simplified(), tmp_path / "other.onnx", perturb("/layer3/layer3.0/conv1/Conv")
    )
    answer = diagnosed(prepared, compiled=recompiled(case, other, tmp_path / "compiled"))
    assert (answer.stage, answer.suspect) == (Stage.COMPILE, "")
    assert "No usual suspect restores it" in answer.summary


def test_infinity_from_the_device_departs_at_the_compiled_model(prepared):
    answer = diagnosed(
        prepared,
        alter=lambda s: Altered(s, outputs=each(lambda logits: np.full_like(logits, np.inf))),
    )
    assert answer.stage is Stage.COMPILE


# Nothing is lost --------------------------------------------------------------------------------


def test_a_sound_case_blames_nobody(prepared):
    answer = diagnosed(prepared, measured=False)
    assert (answer.stage, answer.suspect) == (None, "")
    assert "agree" in answer.summary


def test_a_device_that_is_gone_costs_its_rows_alone(prepared):
    def gone(session):
        session.close()
        raise DeviceError("the device is gone")

    answer = diagnosed(prepared, alter=gone, measured=False)
    assert not_tried(answer)["compiled model"] == "could not be tried: the device is gone"
    assert section(answer, "Agreement of the stages")


def test_a_session_that_dies_costs_its_rows_alone(prepared, quick):
    class Dying(Altered):
        def stream_into(self, fillers):
            raise InferError("the worker died")
            yield

    answer = diagnosed(prepared, alter=Dying, measured=False)
    assert not_tried(answer)["compiled model"] == "could not be tried: the worker died"


def test_time_that_is_over_is_said(prepared, monkeypatch):
    monkeypatch.setattr("harness.diagnosis.diagnose.LIMIT_S", 0.0)
    answer = diagnosed(prepared, measured=False)
    assert "has taken its 0 s" in section(answer, "Not tried").rows[-1][1]


def test_an_unexpected_failure_does_not_cost_the_verdict(prepared, quick, monkeypatch):
    monkeypatch.setattr("harness.diagnosis.pairing.orders", lambda *_: 1 / 0)
    answer = diagnosed(prepared, measured=False)
    assert not_tried(answer)["pairing and labels"] == (
        "could not be tried: ZeroDivisionError: division by zero"
    )


def test_without_an_eager_pass_the_onnx_file_is_the_reference(prepared, monkeypatch):
    case, _ = prepared
    given = dataclasses.replace(case.bench.settings, onnx=(("tiny", case.onnx()),))
    monkeypatch.setattr(case.bench, "settings", given)
    answer = diagnosed(prepared, measured=False, reference=None)
    assert section(answer, "Agreement").rows[0][:2] == ("simplified ONNX", "exported ONNX")
    assert "eager PyTorch" in not_tried(answer)


def test_eager_is_run_where_the_run_had_no_eager_pass(prepared):
    answer = diagnosed(prepared, measured=False, reference=None)
    assert section(answer, "Agreement").rows[0][:2] == ("exported ONNX", "eager PyTorch")
    assert section(answer, "Agreement").rows[0][-1] == "agrees"


@pytest.mark.parametrize("commands", [("compare them",), ()])
def test_the_targets_own_comparison_is_offered_where_it_has_one(
    prepared, quick, commands, monkeypatch
):
    case, _ = prepared

    def compare(self, onnx, file, batch, device, folder):
        assert (batch.shape, batch.dtype) == ((BATCH, 3, 64, 64), np.float32)
        return OperatorComparison("a tool", commands, "" if commands else "it is not here")

    monkeypatch.setattr(type(case.bench.target), "compare_operators", compare, raising=False)
    answer = diagnosed(prepared, measured=False)
    assert answer.commands == commands
    (row,) = section(answer, "Operator by operator").rows
    assert ("it is not here" in row) == (not commands)
