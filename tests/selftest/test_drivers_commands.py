"""The commands that a report prints for a case: those of the tool and the Python that ran it."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest

from harness import simulator
from harness.catalog.load import load_catalog
from tests.selftest.running import TINY
from tests.selftest.simulated import ascend_target, make_host, write_onnx


def run_command(folder: Path, config: str, driver: str, *, script: Path | None = None) -> list[str]:
    """The words of the command that runs a case's model on a simulated host."""
    target = ascend_target(folder, config, options={"ais_infer": script}, driver=driver)
    (model,) = load_catalog(TINY).models.values()
    (device,) = target.devices()
    found = target.commands(folder / "a.onnx", folder / "model.om", model, 4, device)
    return shlex.split(found["run"])


def test_the_package_is_started_with_the_interpreter_that_has_it(tmp_path: Path) -> None:
    words = run_command(tmp_path, "", "cli")
    assert words[:3] == [sys.executable, "-m", "ais_bench"]
    assert "--batchsize=4" in words and "--warmup_count=5" in words


def test_a_script_has_no_warm_up_to_ask_for(tmp_path: Path) -> None:
    script = tmp_path / "host" / "tools" / "ais_infer.py"
    words = run_command(tmp_path, "generation=v1", "cli", script=script)
    assert words[:2] == [sys.executable, str(script)]
    assert "--batchsize=4" in words  # 1 is what its throughput counts without it
    assert not any("warmup" in word for word in words)


def test_the_interface_is_the_packages_whatever_script_was_given(tmp_path: Path) -> None:
    script = tmp_path / "ais_infer.py"
    script.write_text("")
    assert run_command(tmp_path, "", "api", script=script)[1:3] == ["-m", "ais_bench"]


@pytest.mark.parametrize("generation", ["v1", "v2", "v3", "v4", "v5"])
def test_the_command_runs(tmp_path: Path, generation: str) -> None:
    """In the tool's own words: an option that it does not know would end it with 2."""
    config = f"generation={generation},compute=none,time=2"
    host = make_host(tmp_path / "host", config)
    assert host.compile(write_onnx(tmp_path / "tiny.onnx")).code == 0
    (tmp_path / "host" / "model.om").rename(tmp_path / "model.om").chmod(0o640)
    words = run_command(tmp_path, config, "cli", script=simulator.ais_infer_script(host.folder))
    ran = host.run("python", *words[1:])
    assert ran.code == 0, ran
    assert "throughput" in ran.out
