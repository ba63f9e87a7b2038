"""`cache build`: artifacts are made without a device, and what fails decides the exit code."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from harness.base.errors import DeviceError
from harness.judge.causes import Exit
from harness.targets.ascend import toolkit
from harness.targets.pool import DevicePool
from tests.selftest.planted.graphs import small_onnx
from tests.selftest.running import ROOT, TINY, alive, eventually

ATC = """#!/bin/sh
# What is known of atc's success, without a compiler in it.
echo "$@" >> {log}
for word in "$@"; do
    case $word in --output=*) echo compiled > "${{word#--output=}}.om";; esac
done
echo "ATC run success, welcome to the next use."
"""


@pytest.fixture
def run(monkeypatch, tmp_path, shared, command):
    """Run `cache build` on a host that has nothing, and must lease nothing."""
    for name in ("ROOTS", "SYSTEM_TOOLS"):
        monkeypatch.setattr(toolkit, name, (tmp_path / name.lower(),))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def lease(*_, **__):
        raise DeviceError("a device was leased")

    monkeypatch.setattr(DevicePool, "for_case", lease)

    def run(*words, name="build"):
        return command("cache", name, f"--catalog={TINY}", f"--store={shared / 'store'}", *words)

    return run


@pytest.fixture(scope="module")
def onnx(tmp_path_factory) -> Path:
    """A file with the tensors of the catalog's model."""
    path = tmp_path_factory.mktemp("given") / "given.onnx"
    return small_onnx(path, batch=None, side=64, classes=1000)


@pytest.fixture
def atc(tmp_path):
    path = tmp_path / "cann" / "atc"
    path.parent.mkdir()
    path.write_text(ATC.format(log=path.parent / "called"))
    path.chmod(0o755)
    return path


def left(tmp_path) -> list[Path]:
    return sorted([*tmp_path.glob("harness-build-*"), *tmp_path.glob("npu-accept-*")])


def test_a_host_without_an_npu_builds_for_the_chip_that_was_named(run, onnx, atc, tmp_path):
    given = (f"--atc={atc}", f"--onnx=tiny={onnx}", "--batch-sizes=2")
    done = run("--soc-version=Ascend310P3", *given, f"--store={tmp_path / 'store'}")
    assert done.exit_code == Exit.PASSED, done.output
    assert "built for target ascend310p3, chip Ascend310P3, " in done.output
    assert f"atc {atc}" in done.output  # which CANN it is of, nothing tells
    for kind in ("export", "simplify", "compile", "probe"):
        assert f"tiny-bs2-ascend310p3: {kind} " in done.output
    assert "4 artifacts, 4 of them built now; 0 of 2 cases failed" in done.output
    assert "without a data set no crops and no references are made" in done.output
    (called,) = (atc.parent / "called").read_text().splitlines()  # for both checks
    assert "--soc_version=Ascend310P3" in called
    assert not left(tmp_path)
    # Another atc is another toolchain, though its version is not known either.
    other = atc.with_name("other")
    other.write_text(atc.read_text())
    other.chmod(0o755)
    words = ("-m", "accuracy", "--soc-version=310P3", f"--atc={other}", *given[1:])
    done = run(*words, f"--store={tmp_path / 'store'}")
    assert "3 artifacts, 1 of them built now" in done.output


def test_what_was_built_is_what_a_run_takes(run, tmp_path):
    words = ("--simulate-ascend", "--simulator=without=npu-smi", "--batch-sizes=1")
    done = run(*words)
    assert done.exit_code == Exit.PASSED, done.output
    assert "simulated True" in done.output
    for kind in ("standin", "export", "simplify", "compile", "crops", "eager", "probe"):
        assert done.output.count(f"tiny-bs1-ascend310p3: {kind} ") == 1
    told = run(*words, name="explain")
    assert "is in the store" in told.output
    assert "not in the store" not in told.output
    again = run(*words)
    assert "built" not in again.output.replace("built for", "").replace(" 0 of them built now", "")


def test_a_model_that_does_not_compile(run, tmp_path):
    fault = "--simulator=without=npu-smi,fault=unsupported-operator"
    done = run("--simulate-ascend", fault, "--batch-sizes=3")
    assert done.exit_code == Exit.ACCEPTANCE_FAILED
    assert done.stderr.count("EZ3002") >= 1
    assert done.stderr.count("[compile]") == 1  # both checks need the same model
    assert "failed at the stage compile" in done.stdout
    assert "tiny-bs3-ascend310p3: simplify " in done.stdout  # what came before it
    (folder,) = left(tmp_path)
    assert f"logs: {folder / 'logs'}" in done.stderr
    assert any("EZ3002" in log.read_text() for log in (folder / "logs").glob("*-compile.log"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "no npu-smi is on this host"),
        (("--soc-version=Ascend910",), "--soc-version=Ascend910 is none of"),
        (("--soc-version=Ascend310P3", "--target=ascend310"), "is not the chip of the target"),
        (("--soc-version=Ascend310P3",), "atc: CANN's compiler"),
        (("--soc-version=Ascend310P3",), "checkpoints: the original weights of tiny"),
        (("--models=nothing",), "no model is named"),
        (("--simulate-ascend", "--simulator=without=atc"), "has no atc"),
        (("--simulate-ascend", "--simulator=fault=nan:7"), "this host has 1 devices"),
    ],
)
def test_what_is_missing_or_wrong_ends_before_anything_is_built(run, tmp_path, words, said):
    done = run(*words)
    assert done.exit_code == Exit.INPUT_ERROR
    assert said in done.output
    assert "Traceback" not in done.output
    assert "built for" not in done.output
    assert "npu-smi: nothing says" not in done.output  # nothing is run here
    assert not left(tmp_path)


def test_weights_that_are_not_there_are_an_input(run, atc, tmp_path):
    (tmp_path / "weights").mkdir()
    weights = (f"--checkpoints={tmp_path / 'weights'}", "--offline")
    done = run("--soc-version=Ascend310P3", f"--atc={atc}", *weights)
    assert done.exit_code == Exit.INPUT_ERROR
    assert done.stderr.count("[checkpoint]") == 1
    assert "failed at the stage checkpoint, as before" in done.stdout


def test_a_store_that_cannot_be_written_is_the_machine(run, onnx, atc, tmp_path):
    (tmp_path / "store").write_text("no folder")
    done = run(
        "--soc-version=Ascend310P3",
        f"--atc={atc}",
        f"--onnx=tiny={onnx}",
        f"--store={tmp_path / 'store'}",
    )
    assert done.exit_code == Exit.MACHINE_TROUBLE
    assert "Traceback" not in done.output


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_build_that_is_ended_takes_its_compiler_with_it(onnx, atc, tmp_path, number):
    """The compiler has children, as atc's is; each would go on for ever."""
    atc.write_text(
        "#!/bin/sh\nsleep 1000 &\necho $! $$ > "
        f"{tmp_path / 'writing'}\nmv {tmp_path / 'writing'} {tmp_path / 'pids'}\nwait\n"
    )
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("HARNESS_", "IMAGENET_", "ASCEND_"))
    }
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "harness", "cache", "build", f"--catalog={TINY}"),
            *("--soc-version=Ascend310P3", f"--atc={atc}", f"--onnx=tiny={onnx}"),
            *("--batch-sizes=2", f"--store={tmp_path / 'store'}", f"--runs={tmp_path / 'runs'}"),
            *("-m", "throughput", f"--leases={tmp_path / 'leases'}"),
        ],
        cwd=ROOT,
        env={**clean, "TMPDIR": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert eventually((tmp_path / "pids").is_file) or process.poll(), "atc never ran"
        assert process.poll() is None, process.stdout and process.stdout.read()
        process.send_signal(number)
        process.send_signal(number) if number == signal.SIGTERM else None  # as `timeout` does
        output, _ = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait(30)
    assert process.returncode == Exit.INTERRUPTED, output
    assert output.splitlines()[-1] == "interrupted: what was whole is in the store"
    assert "Traceback" not in output
    assert not left(tmp_path)
    pids = [int(word) for word in (tmp_path / "pids").read_text().split()]
    assert eventually(lambda: not any(alive(pid) for pid in pids))


def test_a_simulated_host_uses_no_real_tool(run, atc, monkeypatch):
    words = ("--simulate-ascend", "--simulator=without=npu-smi", "--batch-sizes=1")
    monkeypatch.setenv("HARNESS_ATC", str(atc))
    done = run(*words, "-m", "throughput")
    assert done.exit_code == Exit.PASSED, done.output
    assert "0 of 1 case failed" in done.stdout
    assert not (atc.parent / "called").exists()
