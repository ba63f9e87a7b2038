"""Diagnosis of a failed accuracy: each planted fault is named by the part that is responsible.

The chain is real and built once (export, onnxsim, ONNX Runtime, the device worker); a fault is
planted in one place of it, and the diagnosis sees it as it would see it in a run.
"""

import dataclasses

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from harness.base.errors import DeviceError, InferError
from harness.base.stages import Stage
from harness.catalog.steps import Normalize
from harness.diagnosis import pairing
from harness.diagnosis.diagnose import diagnose
from harness.diagnosis.evidence import Evidence
from harness.images.crops import Crops
from harness.images.feed import Feed
from harness.measure import accuracy
from harness.measure import attempt as measuring
from harness.measure.device import opened
from harness.measure.passes import take_accuracy
from harness.records.observed import Observed
from harness.stages.inference import Predictions, infer
from harness.stages.pipeline import CasePipeline
from harness.targets.protocol import OperatorComparison
from tests.selftest.fakes import rehearsed
from tests.selftest.planted.altered import Altered

BATCH = 4
IMAGES = 8


@pytest.fixture(scope="module")
def prepared(shared, tmp_path_factory):
    return rehearsed(shared, tmp_path_factory.mktemp("run"))


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
            with opened(case, ready) as session:
                found = take_accuracy(case, session, ready)
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

    monkeypatch.setattr(Evidence, "graph_outputs", left_out)


# What is fed and how results come back ---------------------------------------------------------


def each(change):
    """What a session gives, each batch of logits changed."""
    return {"outputs": lambda batches: (change(logits) for logits in batches)}


SWAPPED = "channels swapped (BGR for RGB)"


@pytest.mark.parametrize(
    ("change", "stage", "suspect", "restoring"),
    [
        # What is fed is right: the compiled model alone has the mistake.
        ({"inputs": lambda view: view[:, ::-1].copy()}, Stage.COMPILE, SWAPPED, [SWAPPED]),
        (
            each(lambda logits: np.roll(logits, 1, axis=0)),
            Stage.INFER,
            "results rotated by 1 within each batch",
            [],
        ),
        (
            each(lambda logits: np.roll(logits, 1, axis=1)),
            Stage.COMPILE,
            "outputs shifted by one class (-1)",
            ["outputs shifted by one class (-1)"],
        ),
        (each(lambda logits: np.full_like(logits, np.inf)), Stage.COMPILE, "", []),
    ],
    ids=["channels", "order", "classes", "infinity"],
)
def test_what_happens_on_the_way_to_and_from_the_model_is_named(
    prepared, quick, change, stage, suspect, restoring
):
    answer = diagnosed(prepared, alter=lambda session: Altered(session, **change))
    assert (answer.stage, answer.suspect) == (stage, suspect)
    table = section(answer, "Usual suspects").rows
    assert [row[0] for row in table if row[-1] == "yes"] == restoring


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

    with opened(case, ready) as session:
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
    table = section(answer, "Usual suspects").rows
    assert [row[0] for row in table if row[-1] == "yes"] == ["the catalog's preprocessing"]
    how = f"but: {suspect}" if suspect else "and no usual mistake makes them so"
    assert answer.summary == (
        f"The images are not fed as the catalog says, {how}; the catalog's preprocessing "
        "restores agreement with eager PyTorch."
    )


def test_labels_off_by_one_are_named(prepared, quick, monkeypatch):
    case, ready = prepared
    model = case.model.model_copy(update={"label_offset": 1})
    real = accuracy.tally
    monkeypatch.setattr(accuracy, "tally", lambda found, images, _: real(found, images, 0))
    answer = diagnosed((dataclasses.replace(case, model=model), ready))
    assert (answer.stage, answer.suspect) == (Stage.DATA, "labels shifted by one (-1)")
    table = section(answer, "Labels and order").rows
    assert [row[0] for row in table if row[-1] == "yes"] == [answer.suspect]


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


def perturbed(source, path):
    """The same ONNX file with the weights of a channel doubled."""
    model = onnx.load(source)
    node = next(one for one in model.graph.node if one.name == "/layer2/layer2.0/conv1/Conv")
    weight = next(one for one in model.graph.initializer if one.name == node.input[1])
    values = np.array(numpy_helper.to_array(weight))
    values[0] *= 2.0
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    onnx.save(model, path)
    return path


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        (Stage.EXPORT, "departs from eager PyTorch"),
        (Stage.SIMPLIFY, "departs from the exported ONNX"),
        (Stage.COMPILE, "No usual suspect restores it"),
    ],
)
def test_the_stage_that_changes_weights_is_named(prepared, tmp_path, monkeypatch, stage, words):
    case, _ = prepared
    source = case.onnx() if stage is Stage.EXPORT else case.simplified()
    broken = perturbed(source, tmp_path / "model.onnx")
    target, folder = case.bench.target, tmp_path / "compiled"
    folder.mkdir()
    compiled = case.simplified() if stage is Stage.EXPORT else broken
    target.compile(compiled, case.model, BATCH, folder, device=None, log=folder / "log")
    if stage is Stage.EXPORT:
        monkeypatch.setattr(CasePipeline, "onnx", lambda self: broken)
    if stage is not Stage.COMPILE:
        monkeypatch.setattr(CasePipeline, "simplified", lambda self: broken)
    measured = stage is not Stage.EXPORT  # there the compiled model is sound
    answer = diagnosed(prepared, compiled=folder / "model.ort.onnx", measured=measured)
    assert (answer.stage, answer.suspect) == (stage, "")
    assert words in answer.summary


# Nothing is lost --------------------------------------------------------------------------------


def test_a_sound_case_blames_nobody(prepared):
    answer = diagnosed(prepared, measured=False)
    assert (answer.stage, answer.suspect) == (None, "")
    assert "agree" in answer.summary


def gone(session):
    session.close()
    raise DeviceError("the device is gone")


class Dying(Altered):
    def stream(self, batches):
        raise InferError("the worker died")
        yield


@pytest.mark.parametrize(
    ("alter", "why"), [(gone, "the device is gone"), (Dying, "the worker died")]
)
def test_a_device_that_is_gone_or_a_session_that_dies_costs_its_rows_alone(prepared, alter, why):
    answer = diagnosed(prepared, alter=alter, measured=False)
    assert not_tried(answer)["compiled model"] == f"could not be tried: {why}"
    assert section(answer, "Agreement of the stages")


def test_time_that_is_over_is_said(prepared, monkeypatch):
    monkeypatch.setattr("harness.diagnosis.diagnose.LIMIT_S", 0.0)
    answer = diagnosed(prepared, measured=False)
    assert "has taken its 0 s" in section(answer, "Not tried").rows[-1][1]


def test_an_unexpected_failure_does_not_cost_the_verdict(prepared, quick, monkeypatch):
    monkeypatch.setattr(pairing, "orders", lambda *_: 1 / 0)
    answer = diagnosed(prepared, measured=False)
    assert not_tried(answer)["pairing and labels"] == (
        "could not be tried: ZeroDivisionError: division by zero"
    )


def test_without_an_eager_pass_the_onnx_file_is_the_reference(prepared, monkeypatch):
    case, _ = prepared
    given = dataclasses.replace(case.bench.settings, onnx=(("tiny", case.onnx()),))
    monkeypatch.setattr(case.bench, "settings", given)
    answer = diagnosed(prepared, measured=False, reference=None)
    assert section(answer, "Agreement").rows[0][:2] == ("simplified ONNX", "given ONNX")
    assert "eager PyTorch" in not_tried(answer)


def test_an_onnx_file_that_stands_alone_is_held_against_no_pytorch(prepared, monkeypatch):
    case, _ = prepared
    files = {"onnx": case.onnx(), "simplified": case.simplified()}
    network = case.model.network.model_copy(update={"source": "onnx"})
    for name, file in files.items():
        monkeypatch.setattr(CasePipeline, name, lambda self, file=file: file)
    monkeypatch.setattr(case, "model", case.model.model_copy(update={"network": network}))
    answer = diagnosed(prepared, measured=False)
    assert section(answer, "Agreement").rows[0][:2] == ("given ONNX", "ONNX Runtime on the CPU")
    assert "PyTorch" not in str(answer)
    assert "exported" not in str(answer)


@pytest.mark.parametrize("commands", [("compare them",), ()])
def test_the_targets_own_comparison_is_offered_where_it_has_one(
    prepared, quick, commands, monkeypatch
):
    case, _ = prepared

    def compare(self, onnx, file, model, batch, device, folder):
        assert (batch.shape, batch.dtype) == ((BATCH, 3, 64, 64), np.float32)
        return OperatorComparison("a tool", commands, "" if commands else "it is not here")

    monkeypatch.setattr(type(case.bench.target), "compare_operators", compare, raising=False)
    answer = diagnosed(prepared, measured=False)
    assert answer.commands == commands
    (row,) = section(answer, "Operator by operator").rows
    assert ("it is not here" in row) == (not commands)
