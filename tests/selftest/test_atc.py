"""`harness.targets.ascend.atc`: a compile counts when there is a new file, and only then."""

from __future__ import annotations

import json
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.base.errors import CompileError
from harness.base.processes import Completed, run
from harness.targets.ascend import atc as module
from harness.targets.ascend.atc import (
    Compilation,
    Compiled,
    CompileRefused,
    CompileTimeout,
    NothingCompiled,
    Recipe,
)
from harness.targets.ascend.toolkit import Toolkit
from tests.selftest.running import alive, deadline_at, eventually

START = "ATC start working now, please wait for a moment.\n...\n"
SUCCESS = START + "ATC run success, welcome to the next use.\n"
FAILED = (
    START + "ATC run failed, Please check the detail log, Try 'atc --help' for more information\n"
)
TUNED = ("--log=error", "--auto_tune_mode=RL,GA", "--enable_small_channel=1")
UNTUNED = ("--log=error", "--enable_small_channel=1")
DEPRECATED = (
    "E10001: [PID: 31] 2025-03-18-09:02:18.501.341 Value [RL,GA] for parameter [--auto_tune_mode] "
    "is invalid. Reason: The Auto Tune function has been deprecated. Please use the AOE tool for "
    "tuning.\n"
)

# What every fake tool starts with. It logs how it was called.
PROLOGUE = """
import json, os, signal, sys, time
args = dict(a.split("=", 1) for a in sys.argv[1:])
with open(os.environ["CALLS"], "a") as calls:
    names = ("TUNE_BANK_PATH", "ASCEND_DEVICE_ID", "LD_LIBRARY_PATH")
    env = {n: os.environ[n] for n in names if n in os.environ}
    what = [os.path.basename(sys.argv[0]), sys.argv[1:], os.getcwd(), env]
    calls.write(json.dumps(what) + "\\n")
def write(suffix=".om", text="offline model"):
    with open(args["--output"] + suffix, "w") as file:
        file.write(text)
def say(text, code=0):
    sys.stdout.write(text)
    sys.stdout.flush()
    sys.exit(code)
"""


class Host:
    """A host with fake tools."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.calls_file = folder / "calls"
        self.output = folder / "out"
        self.log = folder / "logs" / "compile.log"
        self.onnx = folder / "resnest50-bs4.onnx"
        self.onnx.write_text("an ONNX model")
        env = {"PATH": "/usr/bin:/bin", "CALLS": str(self.calls_file)}
        self.toolkit = Toolkit(env, sys.executable)

    def tool(self, name: str, body: str) -> None:
        path = self.folder / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!{sys.executable} -SE\n{PROLOGUE}{textwrap.dedent(body)}")
        path.chmod(0o755)
        tools: dict[str, Any] = {name: path}
        self.toolkit = replace(self.toolkit, **tools)

    def atc(self, body: str) -> None:
        self.tool("atc", body)

    def compile(self, *, flags: tuple[str, ...] = UNTUNED, **changes: Any) -> Compiled:
        options: dict[str, Any] = {
            "onnx": self.onnx,
            "tune": "guide",
            "device_id": None,
            "log": self.log,
            "deadline_s": 60.0,
        }
        output = changes.pop("output_dir", self.output)
        output.mkdir(exist_ok=True)
        recipe = Recipe("actual_input_1", (4, 3, 224, 224), "Ascend310P3", flags)
        return Compilation(self.toolkit, recipe, **{**options, **changes}).into(output)

    def fails(self, **changes: Any) -> CompileError:
        with pytest.raises(CompileError) as caught:
            self.compile(**changes)
        assert "\n" not in caught.value.message
        return caught.value

    def calls(self) -> list[tuple[str, list[str], str, dict[str, str]]]:
        return [tuple(json.loads(line)) for line in self.calls_file.read_text().splitlines()]


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


# Success


def test_arguments_are_the_guides() -> None:
    recipe = Recipe("image", (16, 3, 384, 384), "Ascend310", ("--auto_tune_mode=RL,GA",))
    assert recipe.tuning == "RL,GA" and recipe.untuned().tuning == "none"
    assert recipe.arguments("/a/x.onnx", "x_bs16") == [
        "--framework=5",
        "--model=/a/x.onnx",
        "--output=x_bs16",
        "--input_format=NCHW",
        "--input_shape=image:16,3,384,384",
        "--log=error",
        "--soc_version=Ascend310",
        "--auto_tune_mode=RL,GA",
    ]


def test_a_file_named_after_the_host_and_warnings_after_success(host: Host) -> None:
    warning = "W11001: Op [x] does not hit the high-priority operator information library.\n"
    host.atc(f"write('_linux_aarch64.om'); say({SUCCESS + warning!r})")
    assert host.compile().file == host.output / "model_linux_aarch64.om"
    host.atc(f"write('_linux_aarch64.om', 'no'); write(); say({SUCCESS!r})")  # the plain name first
    assert host.compile().file == host.output / "model.om"


def test_litter_stays_out_of_the_way(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    here = host.folder / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    body = "os.mkdir('kernel_meta'); open('fusion_result.json', 'w').close(); "
    host.atc(body + f"write(); say({SUCCESS!r})")
    host.compile()
    assert [path.name for path in host.output.iterdir()] == ["model.om"]
    assert not list(here.iterdir())
    host.atc(body + f"say({FAILED!r}, 255)")
    host.fails(output_dir=host.folder / "other")
    assert not list((host.folder / "other").iterdir())


def test_stand_ins_for_the_driver_are_given(host: Host) -> None:
    host.atc(f"write(); say({SUCCESS!r})")
    host.toolkit = replace(host.toolkit, devlib=host.folder / "devlib")
    host.compile()
    assert host.calls()[0][3] == {"LD_LIBRARY_PATH": str(host.folder / "devlib")}


@pytest.mark.parametrize("name", ["a.om", "with space", "图", "x.omega"])
def test_names_that_atc_trips_over(host: Host, name: str) -> None:
    host.atc(f"write(); say({SUCCESS!r})")
    folder = host.folder / name
    folder.mkdir()
    onnx = folder / "model one.onnx"
    onnx.write_text("an ONNX model")
    made = host.compile(onnx=onnx, output_dir=folder / "out").file
    assert made == folder / "out" / "model.om"
    [(_, arguments, cwd, _)] = host.calls()
    told = next(a for a in arguments if a.startswith("--model="))
    assert not set(told + cwd) & set(" 图")
    assert ".om" not in cwd + next(a for a in arguments if a.startswith("--output="))
    assert not Path(cwd).exists()


# Claims that are not true


CLAIMS = {
    "0 without the line": (f"write(); say({START!r})", "code 0 and did not say that it succeeded"),
    "1 with the line": (f"write(); say({SUCCESS!r}, 1)", "code 1 though it said that it succeeded"),
    "the line after a failure": (f"write(); say({FAILED + SUCCESS!r})", ""),
    "no file": (f"say({SUCCESS!r})", "says that it succeeded and left no model.om"),
    "an empty file": (f"write(text=''); say({SUCCESS!r})", "left an empty model.om"),
}


@pytest.mark.parametrize("claim", CLAIMS)
def test_a_claim_that_is_not_true(host: Host, claim: str) -> None:
    body, message = CLAIMS[claim]
    host.atc(body)
    error = host.fails()
    assert message in error.message
    assert error.message.startswith("resnest50-bs4.onnx [4, 3, 224, 224] for Ascend310P3: ")
    assert (type(error) is NothingCompiled) == claim.endswith("file")
    assert not list(host.output.iterdir())


def test_a_file_of_the_refused_tuning_is_not_taken(host: Host) -> None:
    host.atc(
        f"""
        if "--auto_tune_mode" in args:
            write()
            say({FAILED + DEPRECATED!r}, 255)
        say({SUCCESS!r})
        """
    )
    assert "left no model.om" in host.fails(flags=TUNED).message


# Failures


OPERATOR = "Optype [GridSample] of Ops kernel [AIcoreEngine] is unsupported."
NOISE = "[ERROR] GE(1,atc):2024-01-01 E19999: noise\n[DEBUG] GE add error_code EZ9999: success\n"


@pytest.mark.parametrize(
    ("text", "first", "remedy"),
    [
        (
            "E10007: [--framework] is required. The value must be [5(Onnx)].\n",
            "E10007: [--framework] is required. The value must be [5(Onnx)].",
            "atc --help",
        ),
        (f"EZ3002: {OPERATOR}\n", f"EZ3002: {OPERATOR}", "no such operator"),
        (
            f"[PID: 7] 2026-01-14-06:41:59.991.811 Unsupported_Operator(EZ3002): {OPERATOR}\n"
            "        Solution: Submit an issue (E40000: no)\n",
            f"EZ3002: {OPERATOR}",
            "no such operator",
        ),
        ("E19010: No parser is registered for Op [n].\n", "E19010: No parser", "opset 11"),
        (
            "E10001: Value [-1] for parameter [input_2] is invalid. Reason: maybe you should\n",
            "E10001: Value [-1] for parameter [input_2] is invalid.",
            "must be an input of the ONNX file",
        ),
        (
            "EC0010: [PID: 1] 2025-07-08-10:25:28.680.962 Failed to import Python module "
            "[ModuleNotFoundError: No module named 'decorator'.].\n",
            "EC0010: Failed to import Python module [ModuleNotFoundError: No module named 'decor",
            "--cann-python",
        ),
        ("E19999: Inner Error!\n        x[FUNC:y][FILE:z]\n", "E19999: Inner Error! x", "plog"),
        ("EE9999: Inner Error! \n", "EE9999: Inner Error!", "an inner error of CANN"),
        (
            "EZ9999: Inner Error!\nEZ9999: [PID: 4242] 2025-03-18-09:02:18.501.341 Compile "
            "op[te_conv] failed, optype[Conv2D][FUNC:Process][FILE:tbe.cc][LINE:860]\n",
            "EZ9999: Inner Error! Compile op[te_conv] failed, optype[Conv2D]",
            "an inner error of CANN",
        ),
        (
            "E89999: Inner Error!\nE89999 op[Add_7], dtypes differ[FUNC:C][FILE:u.cc][LINE:1]\n"
            "        Verifying Add_7 failed.[FUNC:I][FILE:i.cc][LINE:135]\n",
            "E89999: Inner Error! op[Add_7], dtypes differ",
            "an inner error of CANN",
        ),
        (  # The operator is named further down.
            "E19999: Inner Error!\nE19999[PID: 7] 2025-12-25-07:48:39.874.850 (E19999):  the "
            "k-axis differs[FUNC:A][FILE:b.cc][LINE:3]\n"
            "        TraceBack (most recent call last):\n"
            "        Failed to infer output shape[FUNC:B][FILE:b.cc][LINE:4]\n"
            "        Call Infer for node:Gemm_1(MatMulV2) failed[FUNC:C][FILE:c.cc][LINE:5]",
            "E19999: Inner Error! the k-axis differs; Call Infer for node:Gemm_1(MatMulV2) failed",
            "an inner error of CANN",
        ),
        ("E77777: nobody knows\n", "E77777: nobody knows", "plog"),
        ("E10001: " + "x" * 9999, "E10001: " + "x" * 300, ""),
    ],
)
def test_the_first_line_has_code_and_text(host: Host, text: str, first: str, remedy: str) -> None:
    host.atc(f"say({NOISE + FAILED + text!r}, 255)")
    error = host.fails()
    assert f"for Ascend310P3: atc failed: {first}" in error.message
    assert remedy in error.remedy
    assert text.splitlines()[0][:60] in error.log
    assert len(error.message) < 500
    # A CANN that lacks a module, or stumbled itself, refuses no model.
    own = first[:6] == "EC0010" or "9999" in first[:6]
    assert type(error) is (CompileError if own else CompileRefused)
    assert "--auto_tune_mode" not in error.remedy and "tuning" not in error.remedy


LIBRARY = "atc.bin: error while loading shared libraries: {}: cannot open shared object file\n"
SHELL = "/opt/cann/bin/atc: line 17:  4242"
CRASHES = {
    f"say({FAILED!r}, 255)": ("atc ended with exit code 255", "plog"),
    "print('EZ3003: no kernel', flush=True); os.abort()": ("EZ3003: no kernel", ""),
    # A code in a line of its log is none.
    "print('[INFO] GE: E19999: registered', flush=True); os.abort()": ("by SIGABRT (abort)", ""),
    "os.kill(os.getpid(), signal.SIGKILL)": ("killed by SIGKILL (perhaps out of memory)", ""),
    # atc is a script that starts the compiler, as is aoe.
    f"say({SUCCESS!r} + '{SHELL} Segmentation fault      (core dumped) atc.bin\\n', 139)": (
        "atc was killed by SIGSEGV (segmentation fault), its shell says with exit code 139 though",
        "plog",
    ),
    f"say('{SHELL} Killed                  atc.bin\\n', 137)": (
        "killed by SIGKILL (perhaps out of memory), its shell says with exit code 137",
        "dmesg",
    ),
    f"say({FAILED!r} + '{SHELL} Killed                  atc.bin\\n', 255)": (
        "exit code 255; a part of it was killed by SIGKILL",
        "dmesg",
    ),
    f"say({LIBRARY.format('libascend_hal.so')!r}, 127)": ("does not find libascend_hal", "devlib"),
    f"say({LIBRARY.format('libge.so')!r}, 127)": ("atc does not find libge.so", "set_env.sh"),
}


@pytest.mark.parametrize("body", CRASHES)
def test_how_a_compiler_ended_is_told(host: Host, body: str) -> None:
    message, remedy = CRASHES[body]
    host.atc(body)
    error = host.fails()
    assert message in error.message and remedy in error.remedy
    assert "E19999" not in error.message
    assert error.killed == ("SIGKILL" in message)
    # Without a code it is not known whether it refused the model.
    assert (type(error) is CompileRefused) == ("EZ3003" in body)


NO_MEMORY = "Cannot allocate memory"


@pytest.mark.parametrize(
    ("body", "killed"),
    [
        (f"say('{NO_MEMORY} for cache, fall back\\n' + 9 * 'tiling\\n', 1)", False),
        (f"say('EZ3003: no kernel\\n{NO_MEMORY} for cache, fall back\\n', 255)", False),
        ("say(9 * 'tiling\\n' + 'what(): std::bad_alloc\\nAborted\\n', 134)", True),
        (f"say('E19999: Inner Error!\\n{NO_MEMORY}\\n', 255)", True),
    ],
)
def test_only_what_a_compiler_says_last_is_a_lack_of_memory(host, body, killed):
    host.atc(body)
    assert host.fails().killed == killed


def test_a_hang_ends_with_all_its_processes(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    pid = host.folder / "pid"
    host.atc("")
    assert host.toolkit.atc is not None
    host.toolkit.atc.write_text(f"#!/bin/sh\nsleep 600 &\necho $! > {pid}\necho tiling\nwait\n")
    deadline_at(monkeypatch, lambda: "tiling" in host.log.read_text())
    error = host.fails()
    assert type(error) is CompileTimeout
    assert "its deadline" in error.message
    assert "--deadline-factor=N" in error.remedy
    assert "tiling" in error.log
    child = int(pid.read_text())
    assert eventually(lambda: not alive(child))


@pytest.mark.parametrize("tune", ["guide", "aoe"])
def test_the_deadline_is_for_all_calls_together(host, monkeypatch, tune):
    deadlines = []

    def watched(*arguments: Any, deadline_s: float, **options: Any) -> Completed:
        deadlines.append(deadline_s)
        return run(*arguments, deadline_s=deadline_s, **options)

    monkeypatch.setattr(module, "run", watched)
    host.tool("aoe", AOE)
    host.atc(
        f"write() if '--auto_tune_mode' not in args else say({FAILED + DEPRECATED!r}, 255)\n"
        f"say({SUCCESS!r})"
    )
    host.compile(flags=TUNED, tune=tune, device_id=0)
    assert len(deadlines) == 2
    assert 60.0 >= deadlines[0] > deadlines[1] > 0.0


def test_without_atc(host: Host) -> None:
    error = host.fails()
    assert "there is no atc on this host" in error.message
    assert "CANN toolkit" in error.remedy


def test_a_full_disk_is_no_traceback(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    host.atc(f"write(); say({SUCCESS!r})")
    monkeypatch.setattr(module, "shutil", SimpleNamespace(move=full))
    assert "No space left on device" in host.fails().message


# Tuning


def test_the_guides_tuning(host: Host) -> None:
    host.atc(f"write(); say({SUCCESS!r})")
    made = host.compile(flags=TUNED, device_id=3)
    assert made == Compiled(host.output / "model.om", "RL,GA", "")
    [(_, arguments, _, env)] = host.calls()
    assert arguments[-3:] == list(TUNED)
    assert env["ASCEND_DEVICE_ID"] == "3"  # it tunes on device 0 unless it is told


@pytest.mark.parametrize(
    "refusal",
    [
        FAILED + DEPRECATED,
        FAILED + "E10055: The Auto Tune function has been discarded. Please use the AOE tool.\n",
        "ERROR: unknown command line flag 'auto_tune_mode'\n",
    ],
    ids=["E10001", "E10055", "unknown flag"],
)
def test_an_atc_that_tunes_no_more(host: Host, refusal: str) -> None:
    host.atc(
        f"""
        if "--auto_tune_mode" in args:
            say({refusal!r}, 255)
        write()
        say({SUCCESS!r})
        """
    )
    made = host.compile(flags=TUNED)
    assert made.tuning == "none"
    assert made.note == "this atc has no --auto_tune_mode=RL,GA any more: untuned"
    tuned, untuned = (call[1] for call in host.calls())
    assert [flag for flag in tuned if flag not in untuned] == ["--auto_tune_mode=RL,GA"]


def test_another_failure_of_tuning_is_one(host: Host) -> None:
    noise = "[INFO] FE auto tune: soc is not supported by the repository\n"
    text = noise + FAILED + "E19999: Inner Error! auto tune failed, no device\n"
    host.atc(f"say({text!r}, 255)")
    error = host.fails(flags=TUNED)
    assert "E19999: Inner Error! auto tune failed, no device" in error.message
    assert "tuning needs an idle NPU on this host" in error.remedy
    assert len(host.calls()) == 1


AOE = """
open(os.path.join(os.environ["TUNE_BANK_PATH"], "Ascend310P3.json"), "w").close()
say("[Aoe]Aoe process finished,cost time 1109s.\\n")
"""


def test_aoe_tunes_and_atc_uses_what_it_found(host: Host) -> None:
    host.tool("aoe", AOE)
    host.atc(f"assert os.listdir(os.environ['TUNE_BANK_PATH']); write(); say({SUCCESS!r})")
    made = host.compile(flags=TUNED, tune="aoe", device_id=5)
    assert made == Compiled(host.output / "model.om", "aoe", "")
    (first, told, _, env), (second, arguments, _, others) = host.calls()
    assert (first, second) == ("aoe", "atc")
    assert "--job_type=2" in told and "--framework=5" in told
    assert "--input_shape=actual_input_1:4,3,224,224" in told
    assert env["ASCEND_DEVICE_ID"] == "5"
    assert others["TUNE_BANK_PATH"] == env["TUNE_BANK_PATH"]
    assert not any("auto_tune" in argument for argument in arguments)
    assert [path.name for path in host.output.iterdir()] == ["model.om"]


def test_aoe_that_finds_nothing_or_has_no_device(host: Host) -> None:
    host.atc(f"write(); say({SUCCESS!r})")
    assert "there is no aoe on this host" in host.fails(tune="aoe", device_id=0).message
    host.tool("aoe", "say('[Aoe]Aoe process finished,cost time 9s.\\n')")
    made = host.compile(tune="aoe", device_id=0)
    assert (made.tuning, made.note) == ("aoe", "aoe found nothing better than the defaults")
    error = host.fails(tune="aoe")
    assert "aoe tunes on a device" in error.message and "untuned" in error.remedy


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("say('E10001: device 9 is invalid\\n', 1)", "aoe failed: E10001: device 9 is invalid"),
        ("say('')", "aoe ended with exit code 0 and did not say that it succeeded"),
        (AOE.replace('s.\\n")', 's.\\n", 3)'), "aoe ended with exit code 3 though it said"),
    ],
)
def test_aoe_that_fails(host: Host, body: str, message: str) -> None:
    host.tool("aoe", body)
    host.atc(f"write(); say({SUCCESS!r})")
    assert message in host.fails(tune="aoe", device_id=0).message
    assert [call[0] for call in host.calls()] == ["aoe"]
