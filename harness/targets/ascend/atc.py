"""Compiles ONNX to an offline model (`.om`) with atc, tuned where a guide tunes.

atc's exit code is not enough: a compile counts when the code is 0, the line that says so was
printed, and there is a file that was not there before. Its errors have codes (EZ3002, E10001),
printed on stdout after `ATC run failed`.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness.base import scratch
from harness.base.environment import with_entries
from harness.base.errors import CompileError
from harness.base.processes import (
    NOT_FOUND,
    Completed,
    describe_exit,
    run,
    signal_of,
    signal_said,
)
from harness.targets.ascend.cann_python import folder_with
from harness.targets.ascend.faults import first_error
from harness.targets.ascend.toolkit import NOWHERE, Toolkit

STEM = "model"  # atc takes letters, digits, `_`, `.` and `-`, and looks for ".om" in whole paths
SUCCESS = "ATC run success"
FAILED = "ATC run failed"
AOE_SUCCESS = "process finished"
AOE_OPERATORS = 2  # --job_type: tune operators, as atc's RL and GA did

_PLAIN = re.compile(r"[A-Za-z0-9_./-]+", re.ASCII)
_LIBRARY = re.compile(r"error while loading shared libraries: ([^\s:]+)")
_AUTO_TUNE = re.compile(r"auto[ _]?tune", re.IGNORECASE)
_REFUSED = re.compile(
    r"deprecat|discard|unknown|unrecogni[sz]ed|unsupported|not support", re.IGNORECASE
)
_TUNING_FLAG, _DYNAMIC_FLAG = "--auto_tune_mode=", "--dynamic_batch_size="


class CompileRefused(CompileError):
    """The compiler says what it does not take, with a code."""

    coded = True


class CompileTimeout(CompileError):
    """The compiler did not end within its deadline."""


class NothingCompiled(CompileError):
    """The compiler says that it succeeded, and there is no model that was not there before."""


@dataclass(frozen=True)
class Compiled:
    """An offline model, and how it was tuned: "none", atc's modes ("RL,GA") or "aoe"."""

    file: Path
    tuning: str
    note: str  # how that differs from what was asked for; empty otherwise


@dataclass(frozen=True)
class Recipe:
    """What atc is told of a model besides its ONNX file, as the guides tell it."""

    input_name: str
    shape: tuple[int, ...]  # of the input, batch first: -1 where the flags name several
    soc_version: str
    flags: tuple[str, ...]  # come last
    files: Mapping[str, str] = field(default_factory=dict)  # by name, that the flags name

    @property
    def tuning(self) -> str:
        """Return the modes of atc's own tuning that the flags ask for, or "none"."""
        modes = [flag for flag in self.flags if flag.startswith(_TUNING_FLAG)]
        return modes[-1].removeprefix(_TUNING_FLAG).strip("\"'") if modes else "none"

    def untuned(self) -> Recipe:
        """Return the same without atc's own tuning."""
        flags = tuple(flag for flag in self.flags if not flag.startswith(_TUNING_FLAG))
        return replace(self, flags=flags)

    @property
    def dynamic(self) -> list[str]:
        """Return the flag that names the batch sizes of a file which serves several."""
        return [flag for flag in self.flags if flag.startswith(_DYNAMIC_FLAG)]

    def model(self, onnx: Path | str, output_stem: Path | str) -> list[str]:
        """Return what names the model to atc and aoe alike; atc writes `<output_stem>.om`."""
        return [
            "--framework=5",  # ONNX
            f"--model={onnx}",
            f"--output={output_stem}",
            "--input_format=NCHW",
            f"--input_shape={self.input_name}:{','.join(map(str, self.shape))}",
        ]

    def arguments(self, onnx: Path | str, output_stem: Path | str) -> list[str]:
        """Return atc's arguments; the program is not among them."""
        logs = any(flag.startswith("--log=") for flag in self.flags)
        return [
            *self.model(onnx, output_stem),
            *(() if logs else ("--log=error",)),
            f"--soc_version={self.soc_version}",
            *self.flags,
        ]


@dataclass
class Compilation:
    """One compile of `onnx`. `tune`:

    * "guide": the recipe; when this atc says that it tunes no more, untuned, with a note.
    * "none": untuned.
    * "aoe": the operators are tuned with aoe on `device_id` first, which takes hours, and atc
      compiles untuned with what it found.

    The caller holds a device that is tuned on; the tools inherit `pass_fds`, its lease's. The
    tools' output is in `log`. `deadline_s` bounds everything together.
    """

    toolkit: Toolkit
    recipe: Recipe
    onnx: Path
    tune: str
    device_id: int | None
    log: Path
    deadline_s: float
    pass_fds: Sequence[int] = ()
    _limit: float = field(init=False)  # on the monotonic clock
    _work: Path = field(init=False)
    _source: Path = field(init=False)  # the ONNX file under a name that atc takes

    @property
    def what(self) -> str:
        return f"{self.onnx.name} {list(self.recipe.shape)} for {self.recipe.soc_version}"

    def into(self, output_dir: Path) -> Compiled:
        """Compile; the file appears in `output_dir`, which is there, when it is whole.

        atc's litter stays in a folder that is removed. Raises `CompileError`: a tool is absent,
        fails, hangs, or leaves no file. The first line has the tool's error code and text where
        there is one.
        """
        self._limit = time.monotonic() + self.deadline_s
        try:
            with scratch.folder("atc", _work_parent(output_dir)) as self._work:
                self._source = _plain(self.onnx, self._work)
                for name, text in self.recipe.files.items():
                    (self._work / name).write_text(text, encoding="ascii")
                made, tuning, note = self._compiled()
                file = output_dir / made.name
                shutil.move(made, file)
        except OSError as error:
            raise CompileError(
                f"{self.what}: {error.strerror or error}: {error.filename or output_dir}",
                remedy="free disk space or choose another directory for the store",
            ) from error
        return Compiled(file, tuning, note)

    def _compiled(self) -> tuple[Path, str, str]:
        """Return the file in the work directory, its tuning, and the note."""
        untuned, note = self.recipe.untuned(), ""
        if self.tune == "aoe":
            bank, note = self._tuned()
            return self._result(*self._atc(untuned, {"TUNE_BANK_PATH": str(bank)})), "aoe", note
        if self.tune == "guide" and self.recipe != untuned:
            done, text = self._atc(self.recipe)
            if _succeeded(done, text) or not _refuses_tuning(text):
                return self._result(done, text, tuned=True), self.recipe.tuning, ""
            note = f"this atc has no {_TUNING_FLAG}{self.recipe.tuning} any more: untuned"
        return self._result(*self._atc(untuned)), "none", note

    def _atc(self, recipe: Recipe, more: Mapping[str, str] | None = None) -> tuple[Completed, str]:
        atc = self.toolkit.atc
        if atc is None:
            raise CompileError(
                f"{self.what}: there is no atc on this host: {NOWHERE}",
                remedy="install the CANN toolkit and source its set_env.sh (the runtime packages "
                "nnrt have no atc), or name atc by its option; or compile on another host",
            )
        for refused in self._work.glob(f"{STEM}*.om"):
            refused.unlink()
        return self._run([str(atc), *recipe.arguments(self._source, STEM)], more or {})

    def _tuned(self) -> tuple[Path, str]:
        """The knowledge bank that aoe made on a device, and a note when there is nothing in it."""
        aoe = self.toolkit.aoe
        if aoe is None:
            raise CompileError(
                f"{self.what}: tuning with aoe was asked for and there is no aoe on this host: "
                + NOWHERE,
                remedy="install the CANN toolkit of 5.1 or later, or compile untuned",
            )
        if self.device_id is None:
            raise CompileError(
                f"{self.what}: aoe tunes on a device, and there is none",
                remedy="tune on a host with an NPU, or compile untuned",
            )
        bank = self._work / "bank"
        bank.mkdir(mode=0o750)
        model = self.recipe.model(self._source, "tuned")
        tune = [str(aoe), *model, *self.recipe.dynamic, f"--job_type={AOE_OPERATORS}"]
        done, text = self._run(tune, {"TUNE_BANK_PATH": str(bank)})
        if not done.ok or AOE_SUCCESS not in text.lower():
            raise self._failure(done, text, said=AOE_SUCCESS in text.lower())
        improved = any(path.is_file() for path in bank.rglob("*"))
        return bank, "" if improved else "aoe found nothing better than the defaults"

    def _run(self, argv: Sequence[str], more: Mapping[str, str]) -> tuple[Completed, str]:
        if self.device_id is not None:  # a tool that tunes takes device 0 unless it is told
            more = {**more, "ASCEND_DEVICE_ID": str(self.device_id)}
        done = run(
            argv,
            deadline_s=max(0.0, self._limit - time.monotonic()),
            log=self.log,
            cwd=self._work,  # kernel_meta, fusion_result.json and others are written where it runs
            env={**self._env(), **more},
            pass_fds=self.pass_fds,
            dies_with_us=True,
        )
        return done, done.output().replace("\r", "\n")  # of progress bars

    def _env(self) -> Mapping[str, str]:
        env, python = self.toolkit.compiler_env, self.toolkit.cann_python
        if python is None:
            return env
        return with_entries(env, "PATH", first=[folder_with(python, self._work)])

    def _result(self, done: Completed, text: str, *, tuned: bool = False) -> Path:
        if not _succeeded(done, text):
            raise self._failure(done, text, said=SUCCESS in text, tuned=tuned)
        # `x.om`; with code for the host inside, `x_<system>_<processor>.om`.
        made = [self._work / f"{STEM}.om", *sorted(self._work.glob(f"{STEM}_*.om"))]
        there = [path for path in made if path.is_file()]
        if not there or there[0].stat().st_size == 0:
            raise NothingCompiled(
                f"{self.what}: atc says that it succeeded and left "
                + (f"an empty {there[0].name}" if there else f"no {STEM}.om"),
                remedy="look for a full file system, and at atc's own log in ~/ascend/log",
                log=done.tail(),
            )
        return there[0]

    def _failure(
        self, done: Completed, text: str, *, said: bool, tuned: bool = False
    ) -> CompileError:
        message, remedy = _explained(done, text, said)
        error = first_error(_verdict(text))
        if tuned and not (error and error.code.startswith("E10")):  # E10xxx: a wrong argument
            remedy += "; tuning needs an idle NPU on this host: without one compile untuned"
        kind = CompileError
        if done.timed_out:
            kind = CompileTimeout
        elif error and not error.inner and error.code not in _LACKS_A_MODULE:
            kind = CompileRefused
        signal = 0 if done.timed_out else signal_of(done.returncode)
        if not (signal or done.timed_out) and (signal := signal_said(text)):
            message += f"; a part of it {describe_exit(-signal)}"
        return kind(f"{self.what}: {message}", remedy=remedy, log=done.tail(), signal=signal)


_PLOG = (
    "atc's own log is in ~/ascend/log (debug/plog); `log: info` in the model's ascend section "
    "says more"
)
_OPERATOR = (
    "this CANN has no such operator for this chip: check the chip's name, install the operator "
    "package of the chip (CANN 8.5 and later), or use a newer CANN"
)
_PYTHON = (
    "install the named module, in a version that this CANN takes, for the Python that atc uses, or "
    "name another: --cann-python=PYTHON; `python -m harness doctor` shows it with its modules"
)
_FLAGS = "compare the command in the log with this CANN's `atc --help`"
_REMEDIES = {
    "EZ3002": _OPERATOR,
    "EZ3003": _OPERATOR,
    "EZ9010": "export at opset 11, or use a newer CANN: this one cannot read the operator",
    "E19010": "export at opset 11, or use a newer CANN: this one cannot read the operator",
    "E10001": _FLAGS + "; the name in input_shape must be an input of the ONNX file",
    "E10007": _FLAGS,
    "E10054": _FLAGS,
    "E10055": _FLAGS,
    "EC0010": _PYTHON,
    "E40000": _PYTHON,
}
_LACKS_A_MODULE = frozenset({"EC0010", "E40000"})


def _explained(done: Completed, text: str, said: bool) -> tuple[str, str]:
    """Return what a reader needs to know of a failure, and what to do. `said`: the tool claims
    success.
    """
    name = Path(done.argv[0]).name
    library = _LIBRARY.search(text)
    error = first_error(_verdict(text))
    if done.timed_out:
        slow = "if the machine is slow: --deadline-factor=N gives it N times as long; "
        return done.describe(), slow + _PLOG
    if library:
        where = "source the toolkit's set_env.sh"
        if library[1] == "libascend_hal.so":
            where = "add <toolkit>/<arch>-linux/devlib to LD_LIBRARY_PATH"
        return f"{name} does not find {library[1]}", where
    if error:
        usual = f"an inner error of CANN: {_PLOG}" if error.inner else _PLOG
        message = f"{name} failed: {error.code}: {error.words}"
        return message, _REMEDIES.get(error.code, usual)
    if done.returncode == NOT_FOUND:
        return f"{name} cannot be started", f"is {done.argv[0]} a program of this machine's kind?"
    claim = " though it said that it succeeded" if said else ""
    if done.returncode == 0:
        claim = " and did not say that it succeeded"
    return done.describe() + claim, _PLOG


def _refuses_tuning(text: str) -> bool:
    """Return whether this atc tunes no more: the flag is deprecated (E10001), or unknown."""
    return any(_AUTO_TUNE.search(line) and _REFUSED.search(line) for line in _verdict(text))


def _verdict(text: str) -> Sequence[str]:
    """Return the lines after `ATC run failed`, or all where atc did not come so far.

    With ASCEND_SLOG_PRINT_TO_STDOUT its log comes before, with codes of no account.
    """
    _, line, after = text.partition(FAILED)
    return (after if line else text).splitlines()


def _succeeded(done: Completed, text: str) -> bool:
    return done.ok and SUCCESS in text and FAILED not in text


def _work_parent(output_dir: Path) -> str | None:
    """Return where to make the work directory: in `output_dir`, unless atc trips over its name."""
    place = str(output_dir.resolve())
    return place if _PLAIN.fullmatch(place) and ".om" not in place else None


def _plain(onnx: Path, work: Path) -> Path:
    """Return the ONNX file under a name that atc takes: its own, or that of a copy."""
    place = onnx.resolve()
    if _PLAIN.fullmatch(str(place)):
        return place
    return Path(shutil.copyfile(place, work / f"{STEM}.onnx"))
