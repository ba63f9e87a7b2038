"""One compiled file for several batch sizes (`--dynamic_batch_size`), over the simulated host."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from harness.base.errors import ConfigError, InferError, LoadError
from harness.base.stages import Stage
from harness.catalog.load import load_catalog
from harness.cli.plan import plan
from harness.settings import resolve
from harness.targets.ascend.spec import AscendSpec, AutoTune
from tests.selftest.running import TINY
from tests.selftest.simulated import (
    Opener,
    SimulatedHost,
    ascend_target,
    compute,
    images,
    make_host,
    write_onnx,
)
from tests.selftest.small_catalog import SMALL, refused
from tests.selftest.test_ascend_chain import execute as execute

DYNAMIC = "--dynamic_batch_size=1,2,4"


def catalog_with(folder: Path, ascend: str) -> Path:
    path = folder / "tiny.yaml"
    path.write_text(f"{TINY.read_text().rstrip()}\n    ascend: {ascend}\n")
    return path


@pytest.fixture(scope="module")
def catalog(tmp_path_factory):
    """The small network, of which one file serves three batch sizes."""
    return catalog_with(tmp_path_factory.mktemp("catalog"), "{dynamic_batch_size: [1, 2, 4]}")


# The catalog and the keys -------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", ["[4]", "[4, 1]", "[1, 1]", "[0, 1]", f"{list(range(1, 102))}"])
def test_batch_sizes_that_atc_does_not_take_are_refused(sizes):
    flags = 'flags: ["--op_select_implmode=high_precision"]'
    assert flags in SMALL
    error = refused(SMALL.replace(flags, f"dynamic_batch_size: {sizes}"))
    assert "dynamic_batch_size" in str(error)


def test_its_flag_is_the_harnesss_own():
    error = refused(SMALL.replace("--op_select_implmode=high_precision", DYNAMIC))
    assert "dynamic_batch_size" in str(error)
    assert AscendSpec(dynamic_batch_size=(1, 2, 4)).atc_flags(2) == (DYNAMIC,)


def test_a_file_is_tuned_where_a_batch_size_of_it_is():
    tuned = AutoTune(mode="RL,GA", batch_sizes=(2,))
    one = AscendSpec(dynamic_batch_size=(1, 2, 4), auto_tune=tuned)
    assert [one.tuning(size) for size in (1, 4)] == ["RL,GA"] * 2
    other = AscendSpec(dynamic_batch_size=(1, 4), auto_tune=tuned)
    assert other.tuning(1) == AscendSpec(auto_tune=tuned).tuning(1) == "none"


def test_the_key_holds_all_its_batch_sizes_and_not_that_of_the_case(tmp_path, catalog):
    target = ascend_target(tmp_path)
    model = load_catalog(catalog).models["tiny"]
    one, other = (target.compile_inputs(model, size) for size in (1, 4))
    assert one == other and one["shape"] == (-1, 3, 64, 64) and DYNAMIC in one["flags"]
    assert target.input_of(model, 4).shape == (4, 3, 64, 64)
    with pytest.raises(ConfigError, match="batch size 8 is none of") as caught:
        target.compile_inputs(model, 8)
    assert "dynamic_batch_size" in caught.value.remedy
    (device,) = target.devices()
    commands = target.commands(tmp_path / "a.onnx", tmp_path / "a.om", model, 2, device)
    assert DYNAMIC in commands["compile"] and "--dymBatch 2" in commands["run"]


def test_a_plan_tells_it(capsys, catalog):
    for target, told in (("ascend310p3", True), ("cpu", False)):
        plan(resolve({"target": target, "catalog": str(catalog)}, environment={}))
        text = capsys.readouterr().out
        assert ("tiny on ascend310p3: one compiled file for batch sizes 1, 2, 4" in text) is told
        # Without --batch-sizes the cases are those that the file serves.
        sizes = {int(size) for size in re.findall(rf"tiny-bs(\d+)-{target}", text)}
        assert (sizes == {1, 2, 4}) is told


# The simulated tools ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def onnx(tmp_path_factory):
    return write_onnx(tmp_path_factory.mktemp("onnx") / "tiny.onnx")


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    return make_host(tmp_path_factory.mktemp("host"))


@pytest.fixture(scope="module")
def compiled(host, onnx):
    done = host.compile(onnx, -1, DYNAMIC)
    assert done.code == 0, done.out
    return (host.folder / "model.om").read_bytes()


@pytest.fixture(scope="module")
def static(host, onnx):
    assert host.compile(onnx, 4, name="static").code == 0
    return (host.folder / "static.om").read_bytes()


@pytest.mark.parametrize(
    ("batch", "more", "flag"),
    [
        (-1, (), "--input_shape"),
        (4, (DYNAMIC,), "--dynamic_batch_size"),
        (-1, ("--dynamic_batch_size=4",), "2 to 100"),
        (-1, ("--dynamic_batch_size=4,4",), "2 to 100"),
        (-1, ("--dynamic_batch_size=0,4",), "at least 1"),
    ],
)
def test_atc_wants_an_open_axis_and_its_batch_sizes(host, onnx, batch, more, flag):
    done = host.compile(onnx, batch, *more, name="refused")
    assert done.code == 255 and "E10001" in done.out and flag in done.out
    assert not (host.folder / "refused.om").exists()


@pytest.fixture
def opener(tmp_path, compiled):
    opener = Opener(tmp_path / "sessions", lambda batch: compiled)
    opener.folder.mkdir()
    yield opener
    opener.close()


@pytest.mark.parametrize("driver", ["api", "cli"])
@pytest.mark.parametrize("generation", ["v2", "v5"])
def test_one_file_runs_at_each_of_its_batch_sizes(opener, onnx, driver, generation):
    for batch in (1, 4):
        session = opener(driver, f"time=2,generation={generation}", batch=batch, dynamic=True)
        (logits,) = session.stream([images(batch)])
        np.testing.assert_allclose(logits, compute(onnx, images(batch)), rtol=1e-4, atol=1e-5)
        assert len(session.time(3, 0).ms) == 3


@pytest.mark.parametrize(("driver", "kind"), [("api", LoadError), ("cli", InferError)])
@pytest.mark.parametrize(
    ("batch", "dynamic", "words"),
    [(3, True, "dymBatch parameter is not correct"), (4, False, "")],
)
def test_a_batch_size_that_is_none_of_the_files(opener, driver, kind, batch, dynamic, words):
    with pytest.raises(kind) as caught:
        opener(driver, batch=batch, dynamic=dynamic)
    assert words in caught.value.log + caught.value.message
    assert driver != "api" or str([-1, 3, 8, 8] if not dynamic else batch) in caught.value.message


@pytest.mark.parametrize(("driver", "kind"), [("api", LoadError), ("cli", InferError)])
def test_a_file_of_one_batch_size_is_none_of_several(opener, static, driver, kind):
    opener.compiled = lambda batch: static
    with pytest.raises(kind) as caught:
        opener(driver, dynamic=True)
    assert "not specified for model conversion" in caught.value.log


# Through the engine -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("driver", "check", "sizes", "ascend"),
    [
        ("api", None, "1,4", "{dynamic_batch_size: [1, 2, 4]}"),
        ("cli", "accuracy", "1,4,8", "{dynamic_batch_size: [1, 2, 4], aipp: true}"),
    ],
)
def test_all_batch_sizes_share_one_compile(execute, tmp_path, driver, check, sizes, ascend):
    records = execute(
        "float16=1",
        check,
        catalog=catalog_with(tmp_path, ascend),
        driver=driver,
        batch_sizes=sizes,
    )
    calls = SimulatedHost(records.directory / "simulator", {}).calls("atc")
    assert len(calls) == 1 and DYNAMIC in calls[0]["argv"]
    good = [case for case in records.cases if case.batch_size != 8]
    files = {ref.digest for case in good for ref in case.artifacts if ref.stage == "compile"}
    assert len(files) == 1
    for case in good:
        assert case.device.runtime["dynamic_batch"] == "1,2,4"
        if case.throughput is None:
            assert case.outcome == "passed", case.sentence
        else:
            assert case.throughput.setup.dynamic_batch == "1,2,4"
            assert case.throughput.outputs.within
    for case in records.cases:
        if case.batch_size == 8:
            assert case.outcome == "error" and "batch size 8 is none of" in case.sentence
            # Of the options, so that no known failure of the compiler excuses it.
            assert case.error.stage is Stage.CONFIGURATION
