"""Simulated Ascend hosts for tests: a tiny model, an installation, runs of its tools."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.settings import resolve
from harness.simulator import environment, install, parse_config
from harness.simulator.host import VARIABLE, Host
from harness.targets.ascend.cli import AisBench
from harness.targets.ascend.drivers import Opening, open_api
from harness.targets.ascend.host import Place
from harness.targets.ascend.options import AscendOptions
from harness.targets.ascend.target import AscendTarget
from harness.targets.ascend.toolkit import find_toolkit
from harness.targets.protocol import TensorSpec
from tests.selftest import onnx_files

BATCH = 4
SHAPE = (BATCH, 3, 8, 8)
CLASSES = 5
INPUT, OUTPUT = "image", "class"
QUICK = "compute=none,time=2"
OPENERS: dict[str, Callable[[Opening], Any]] = {"api": open_api, "cli": AisBench.open}


def write_onnx(path: Path, batch: int | str = "N") -> Path:
    """A convolution, a mean and a matrix: `float32[N, 3, 8, 8]` -> `float32[N, 5]`."""
    rng = np.random.default_rng(7)
    kernel, matrix = (rng.standard_normal(shape) for shape in ((4, 3, 3, 3), (4, CLASSES)))
    text = f"""
        tiny (float[{batch}, 3, 8, 8] {INPUT}) => (float[{batch}, {CLASSES}] {OUTPUT}) {{
            a = Conv({INPUT}, kernel)
            b = Relu(a)
            c = GlobalAveragePool(b)
            d = Flatten(c)
            {OUTPUT} = MatMul(d, matrix)
        }}"""
    return onnx_files.write(path, text, kernel=kernel, matrix=matrix)


def compute(onnx: Path, images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """What ONNX Runtime makes of the model."""
    import onnxruntime

    result: npt.NDArray[np.float32] = onnxruntime.InferenceSession(str(onnx)).run(
        None, {INPUT: images}
    )[0]
    return result


@dataclass(frozen=True)
class Ran:
    """A tool that ended."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class SimulatedHost:
    """An installation, and the environment that has it."""

    folder: Path
    env: dict[str, str]

    @property
    def host(self) -> Host:
        return Host.load({VARIABLE: self.env[VARIABLE]})

    def run(self, *command: str | Path) -> Ran:
        """Run a tool (`python` is this interpreter)."""
        done = subprocess.run(
            self._argv(command),
            env=self.env,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        return Ran(done.returncode, done.stdout, done.stderr)

    def calls(self, tool: str) -> list[dict[str, Any]]:
        """Return how a tool was called so far, but for its help: `argv` and `pid` of each."""
        file = self.folder / "state" / "calls.jsonl"
        lines = file.read_text().splitlines() if file.exists() else []
        calls = [json.loads(line) for line in lines]
        return [one for one in calls if one["tool"] == tool and "--help" not in one["argv"]]

    def start(self, *command: str | Path) -> subprocess.Popen[str]:
        """Start a tool and do not wait."""
        return subprocess.Popen(
            self._argv(command),
            env=self.env,
            cwd=self.folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def _argv(self, command: tuple[str | Path, ...]) -> list[str]:
        program, *arguments = map(str, command)
        if program == "python":
            return [sys.executable, *arguments]
        return [shutil.which(program, path=self.env["PATH"]) or program, *arguments]

    def compile(self, onnx: Path, batch: int = BATCH, *more: str, name: str = "model") -> Ran:
        """Compile with the guides' flags to `name`.om in the host's folder."""
        shape = ",".join(map(str, (batch, *SHAPE[1:])))
        return self.run(
            *("atc", "--framework=5", f"--model={onnx}", f"--output={self.folder / name}"),
            *("--input_format=NCHW", f"--input_shape={INPUT}:{shape}"),
            *(f"--soc_version={self.host.config.soc_version}", *more),
        )


def make_host(folder: Path, text: str = "") -> SimulatedHost:
    """Install a simulated host with a configuration's text below `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    os.chmod(folder, 0o750)
    variables = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("ASCEND_", "HARNESS_", "PYTEST_"))
    }
    install(folder, parse_config(text))
    return SimulatedHost(folder, environment(folder, variables))


class Opener:
    """Opens sessions of a driver on a simulated host in a folder."""

    def __init__(self, folder: Path, compiled: Callable[[int], bytes]) -> None:
        self.folder, self.compiled = folder, compiled
        self.sessions: list[Any] = []

    def __call__(
        self,
        driver: str,
        config: str = QUICK,
        *,
        batch: int = BATCH,
        model_batch: int = 0,
        mode: int = 0o640,
        first: str = "",
        **given: Any,
    ) -> Any:
        """`first`: code that the command-line tool begins with."""
        self.host = make_host(self.folder / "host", config)
        if first:
            main = self.host.folder / "site" / "ais_bench" / "__main__.py"
            main.write_text(first + main.read_text())
        log = self.folder / "log"
        toolkit = find_toolkit(AscendOptions(), self.host.env, log=log)
        model = self.folder / "model.om"
        model.write_bytes(self.compiled(model_batch or batch))
        model.chmod(mode)
        options = {
            "file": model,
            "toolkit": toolkit,
            "device_id": 0,
            "input": TensorSpec(INPUT, (batch, *SHAPE[1:]), "float32"),
            "output": TensorSpec(OUTPUT, (batch, CLASSES), "float32"),
            "work": self.folder / "work",
            "log": log,
            "deadline_open_s": 0.0 if driver != "api" else 60.0,
            "deadline_run_s": 60.0,
            **given,
        }
        self.sessions.append(OPENERS[driver](Opening(**options)))
        return self.sessions[-1]

    def close(self) -> None:
        for session in self.sessions:
            session.close()
        assert not list((self.folder / "work").glob("*"))  # nothing is left, whatever happened


def ascend_target(
    folder: Path,
    text: str = "",
    name: str = "ascend310p3",
    variables: Mapping[str, str] | None = None,
    options: Mapping[str, Any] | None = None,
    **given: Any,
) -> AscendTarget:
    """A target on a simulated host in `folder`; `options` are set whatever they say."""
    settings = resolve({"simulate_ascend": True, "target": name, **given}, environment={})
    changed = dataclasses.replace(settings.of(AscendOptions), **(options or {}))
    env = {**make_host(folder / "host", text).env, **(variables or {})}
    place = Place(folder / "logs", folder / "work", folder)
    return AscendTarget(name, settings.with_options(changed), place, env)


@contextmanager
def misbehaving(env: Mapping[str, str], fault: str) -> Iterator[None]:
    """Within the block the tools of a host have a fault that they had not before."""
    path = Path(env[VARIABLE])
    before = path.read_text(encoding="utf-8")
    data = json.loads(before)
    path.write_text(json.dumps({**data, "text": f"{data['text']},fault={fault}"}), "utf-8")
    try:
        yield
    finally:
        path.write_text(before, encoding="utf-8")


def images(count: int = BATCH, seed: int = 0) -> npt.NDArray[Any]:
    """Seeded `float32[count, 3, 8, 8]`."""
    return np.random.default_rng(seed).standard_normal((count, *SHAPE[1:])).astype(np.float32)
