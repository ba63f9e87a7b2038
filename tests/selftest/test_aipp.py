"""A model that normalises by itself (AIPP): crops are fed as they lie, over the simulated host."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from harness.base.errors import InferError, LoadError
from harness.base.stages import Stage
from harness.catalog.load import load_catalog
from harness.catalog.steps import Normalize
from harness.images import preprocess
from harness.simulator import aipp as simulated_aipp
from harness.targets.ascend import aipp
from harness.targets.ascend.chips import CHIPS
from harness.targets.ascend.spec import AscendSpec
from harness.targets.protocol import TensorSpec
from tests.selftest.running import ROOT, TINY
from tests.selftest.simulated import (
    BATCH,
    INPUT,
    SHAPE,
    Opener,
    ascend_target,
    compute,
    make_host,
    write_onnx,
)
from tests.selftest.small_catalog import SMALL, refused
from tests.selftest.test_ascend_chain import case_of as case_of
from tests.selftest.test_ascend_chain import execute as execute

IMAGENET = Normalize(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
CROPS = (BATCH, 8, 8, 3)


@pytest.fixture(scope="module")
def catalog(tmp_path_factory):
    """The small network, which normalises by itself."""
    text = TINY.read_text().rstrip() + "\n    ascend:\n      aipp: true\n"
    path = tmp_path_factory.mktemp("catalog") / "tiny.yaml"
    path.write_text(text)
    return path


# The file, the flags and the keys -----------------------------------------------------------------


def test_the_file_is_that_of_the_public_guides():
    text = aipp.config(IMAGENET, 224)
    pairs = dict(re.findall(r"(\w+): (\S+)", text))
    assert text.startswith("aipp_op{\n") and text.endswith("}\n")
    # SqueezeNet1_1 of CANN 6.0, digit for digit.
    assert [pairs[f"min_chn_{i}"] for i in range(3)] == ["123.675", "116.28", "103.53"]
    scales = [pairs[f"var_reci_chn_{i}"] for i in range(3)]
    assert scales == ["0.0171247538316637", "0.0175070028011204", "0.0174291938997821"]
    assert (pairs["aipp_mode"], pairs["input_format"]) == ("static", "RGB888_U8")
    assert (pairs["crop"], pairs["rbuv_swap_switch"]) == ("false", "false")
    assert pairs["src_image_size_w"] == pairs["src_image_size_h"] == "224"


def test_keys_change_with_it_alone(tmp_path, catalog):
    """A model without it has the keys and the input that it had."""
    target = ascend_target(tmp_path)
    plain, own = (load_catalog(path).models["tiny"] for path in (TINY, catalog))
    before, after = (target.compile_inputs(model, 4) for model in (plain, own))
    assert "aipp" not in str({name: before[name] for name in before if name != "recipe"})
    assert after["files"] == {aipp.FILE: aipp.config(own.preprocessing.normalize, 64)}
    assert {name for name in after if after[name] != before[name]} == {"files", "flags"}
    assert target.input_of(plain, 4) == TensorSpec("image", (4, 3, 64, 64), "float32")
    assert target.input_of(own, 4) == TensorSpec("image", (4, 64, 64, 3), "uint8")
    # Another mean is another artifact.
    steps = own.preprocessing.model_copy(
        update={"normalize": Normalize(mean=(0,) * 3, std=(1,) * 3)}
    )
    other = target.compile_inputs(own.model_copy(update={"preprocessing": steps}), 4)
    assert other["files"] != after["files"]


def test_a_chip_may_be_compiled_in_its_own_way(tmp_path):
    """What holds for one chip takes the place of what holds for all, key by key."""
    path = tmp_path / "tiny.yaml"
    own = '{ascend310p3: {aipp: true, flags: ["--enable_small_channel=1"]}, "310": {log: info}}'
    shared = 'log: error\n      flags: ["--deterministic=1"]\n      targets: '
    path.write_text(f"{TINY.read_text().rstrip()}\n    ascend:\n      {shared}{own}\n")
    model = load_catalog(path).models["tiny"]
    for name, dtype, flags in (
        ("ascend310p3", "uint8", ("--log=error", aipp.FLAG, "--enable_small_channel=1")),
        ("ascend310", "float32", ("--log=info", "--deterministic=1")),
        ("ascend310b1", "float32", ("--log=error", "--deterministic=1")),
    ):
        target = ascend_target(tmp_path, f"chip={name[6:].upper()}", name)
        inputs = target.compile_inputs(model, 4)
        assert (target.input_of(model, 4).dtype, inputs["flags"]) == (dtype, flags)
        assert list(inputs["files"]) == [aipp.FILE] * (dtype == "uint8")
        (device, *_) = target.devices()
        commands = target.commands(tmp_path / "a.onnx", tmp_path / "a.om", model, 4, device)
        assert all(flag in commands["compile"] for flag in flags)


def test_judged_figures_are_of_models_that_are_compiled_alike():
    """Each flag of the edition whose figure is the target, and no other but `--log`."""
    judged = [
        (figure, model.section(AscendSpec).of(figure.target).atc_flags(figure.batch_size))
        for model in load_catalog(ROOT / "baselines.yaml").models.values()
        for figure in model.figures()
        if figure.judged and figure.target in CHIPS
    ]
    assert len(judged) > 30
    for figure, flags in judged:
        ours = {flag for flag in flags if not flag.startswith("--log=")}
        assert ours == set(figure.compiler_flags), (figure.target, figure.batch_size)


def test_a_chip_that_there_is_not_is_refused():
    flags = 'flags: ["--op_select_implmode=high_precision"]'
    error = refused(SMALL.replace(flags, f"{flags}\n      targets: {{ascend31: {{aipp: true}}}}"))
    assert "ascend31" in str(error) and "did you mean 'ascend310'" in str(error)


def test_a_file_of_ones_own_is_no_flag():
    flag = '["--insert_op_conf=mine.config"]'
    error = refused(SMALL.replace('["--op_select_implmode=high_precision"]', flag))
    assert "--insert_op_conf" in str(error)
    assert AscendSpec(aipp=True).atc_flags(1) == ("--insert_op_conf=aipp.config",)


# The simulated atc --------------------------------------------------------------------------------


@pytest.fixture
def compiled(tmp_path):
    """Compile the tiny model with an AIPP file, or without: the bytes of the `.om`."""

    def compiled(text, batch=BATCH):
        host = make_host(tmp_path / "atc")
        file = host.folder / aipp.FILE
        file.write_text(text or "")
        more = [f"--insert_op_conf={file}"] if text is not None else []
        done = host.compile(write_onnx(tmp_path / "tiny.onnx"), batch, *more)
        assert done.code == 0, done.out
        return (host.folder / "model.om").read_bytes()

    return compiled


@pytest.fixture
def opener(tmp_path, compiled):
    opener = Opener(tmp_path / "sessions", lambda batch: compiled(aipp.config(IMAGENET, 8), batch))
    opener.folder.mkdir()
    yield opener
    opener.close()


def crops(count: int = BATCH) -> preprocess.UInt8:
    return np.random.default_rng(3).integers(0, 256, (count, *CROPS[1:]), np.uint8)


TAKES_CROPS: dict[str, Any] = {"input": TensorSpec(INPUT, CROPS, "uint8")}


@pytest.mark.parametrize("driver", ["api", "cli"])
def test_a_session_takes_crops_as_they_lie(opener, tmp_path, driver):
    session = opener(driver, "time=2", **TAKES_CROPS)
    assert session.inputs[0].dtype == "uint8" and session.inputs[0].shape == CROPS
    (logits,) = session.stream([crops()])
    normal = preprocess.normalize(crops(), preprocess.normalization_table(IMAGENET))
    expected = compute(tmp_path / "tiny.onnx", normal)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)
    assert len(session.time(3, 0).ms) == 3


@pytest.mark.parametrize("driver", ["api", "cli"])
@pytest.mark.parametrize("with_aipp", [True, False])
def test_a_model_compiled_the_other_way_is_refused(tmp_path, compiled, driver, with_aipp):
    text = aipp.config(IMAGENET, 8) if with_aipp else None
    opener = Opener(tmp_path / "sessions", lambda batch: compiled(text, batch))
    opener.folder.mkdir()
    given: dict[str, Any] = {} if with_aipp else TAKES_CROPS
    batch = crops() if given else np.zeros(SHAPE, np.float32)
    expected = LoadError if driver == "api" else InferError
    with pytest.raises(expected) as caught:  # the tools describe no input: they refuse its bytes
        list(opener(driver, "", **given).stream([batch]))
    if driver == "api":
        found, wanted = ("uint8", "float32") if with_aipp else ("float32", "uint8")
        assert f"is {found}, not {wanted}" in caught.value.message
    opener.close()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("aipp_mode: static", "aipp_mode: dynamic"),
        ("RGB888_U8", "YUV420SP_U8"),
        ("src_image_size_w: 8", "src_image_size_w: 16"),
        ("min_chn_0: 123.675", "mean_chn_0: 123.675"),  # takes whole numbers
        ("crop: false", "corp: false"),
        ("}", ""),
    ],
)
def test_the_simulated_atc_reads_the_file(tmp_path, before, after):
    host, text = make_host(tmp_path / "host"), aipp.config(IMAGENET, 8)
    assert before in text
    file = host.folder / aipp.FILE
    file.write_text(text.replace(before, after))
    done = host.compile(write_onnx(tmp_path / "m.onnx"), BATCH, f"--insert_op_conf={file}")
    assert done.code == 255 and "E10001" in done.out and "--insert_op_conf" in done.out


def test_simulated_channels_are_counted_after_they_are_swapped():
    one = simulated_aipp.parse(
        "aipp_op { aipp_mode: static input_format: RGB888_U8 rbuv_swap_switch: true "
        "mean_chn_0: 100 min_chn_0: 0.5 var_reci_chn_0: 0.25 }"
    )
    assert (one.swapped, one.side) == (True, None)
    assert (one.subtracted, one.scale) == ((100.5, 0, 0), (0.25, 1, 1))


# Through the engine -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("driver", "check"),
    [("api", None), ("cli", "accuracy")],
)
def test_all_drivers_take_crops(execute, catalog, driver, check):
    records = execute("float16=1", check, catalog=catalog, driver=driver)
    assert records.end.exit_status == 0, [case.sentence for case in records.cases]
    for case in records.cases:
        assert (case.device.driver, case.outcome) in ((driver, "passed"), (driver, "recorded"))
        assert "aipp_op{" in case.device.commands["compile"]
        assert case.device.runtime["input"] == "uint8"
        if case.accuracy is not None:
            assert 1e-5 < case.accuracy.fidelity.relative_l2 < 3e-2
        else:
            assert case.throughput.setup.input == "uint8"
            assert case.throughput.outputs.within


def _steps(change):
    """The file of another mean and std."""
    right = aipp.config
    return lambda normalize, size: right(change(normalize), size)


def _swapped(normalize, size, right=aipp.config):
    return right(normalize, size).replace("rbuv_swap_switch: false", "rbuv_swap_switch: true")


WRONG_FILES = {
    "mean and std in BGR order": _steps(lambda n: Normalize(mean=n.mean[::-1], std=n.std[::-1])),
    "channels swapped before the mean and std": _swapped,
    "": _steps(lambda n: Normalize(mean=n.mean, std=(3 * n.std[0], 3 * n.std[1], 3 * n.std[2]))),
}


@pytest.mark.parametrize("suspect", WRONG_FILES)
def test_a_wrong_file_fails_and_is_named(case_of, catalog, monkeypatch, suspect):
    """The third has a wrong scale, which is no usual mistake."""
    monkeypatch.setattr(aipp, "config", WRONG_FILES[suspect])
    case, code = case_of("", "accuracy", catalog=catalog)
    assert (case.outcome, code) == ("failed", 1), case.sentence
    assert case.diagnosis.stage is Stage.COMPILE, case.diagnosis.summary
    assert case.diagnosis.suspect == suspect, case.diagnosis.summary


def test_a_wrong_file_fails_the_throughput_too(case_of, catalog, monkeypatch):
    monkeypatch.setattr(aipp, "config", _swapped)
    case, code = case_of("", "throughput", catalog=catalog)
    assert (case.outcome, code) == ("failed", 1), case.sentence
    assert not case.throughput.outputs.within
