"""The way in: what make installs, the command, the version."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
import tomllib

import harness
from harness.base import host
from tests.selftest.running import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def dry_make(*arguments: str) -> tuple[int, str]:
    """What make would do in a checkout without an environment."""
    done = subprocess.run(
        ["make", "-n", *arguments, "VENV=none"],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith("MAKE")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout


def pinned(name: str) -> str:
    text = (ROOT / "requirements" / "build.txt").read_text(encoding="utf-8")
    (line,) = (line for line in text.splitlines() if line.startswith(f"{name}=="))
    return line.split()[0]


def test_make_says_what_it_fetches_before_it_does() -> None:
    for target, size in (("env", "2.9 GB"), ("accept", "2.9 GB"), ("env-run", "0.11 GB")):
        code, output = dry_make(target)
        assert code == 0, output
        assert output.index(size) < output.index("pip install")
        assert "--extra-index-url" not in output
        assert output.index("pip install") < output.index("--no-deps -e .")
    assert "requirements/run.txt" in dry_make("env-run")[1]


def test_one_variable_takes_the_cpu_wheels_of_the_same_versions() -> None:
    code, output = dry_make("accept", "TORCH=cpu")
    assert code == 0, output
    for name in ("torch", "torchvision"):
        assert f" {pinned(name)}+cpu" in output
    assert "2.9 GB" not in output
    code, output = dry_make("accept", "TORCH=gpu")
    assert code != 0
    assert "TORCH=cpu" in output


def test_the_command_works_from_any_folder() -> None:
    module, _, name = PROJECT["scripts"]["npu-accept"].partition(":")
    assert callable(getattr(importlib.import_module(module), name))
    code = f"import sys; sys.argv = ['/bin/npu-accept', '--version']; import {module} as command; "
    done = subprocess.run(
        [sys.executable, "-c", f"{code}command.{name}()"],
        cwd="/",
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == f"npu-acceptance {harness.__version__}\n", done.stderr


def test_one_version_everywhere() -> None:
    assert host.versions()["harness"] == harness.__version__
    assert "version" in PROJECT["dynamic"]
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^## \[(\d[\d.]*)\]", changes, re.M)[0] == harness.__version__
