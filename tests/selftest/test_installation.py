"""The way in: what make installs, the command, the version."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
import tomllib
from fnmatch import fnmatch

import yaml

import harness
from harness.base import host
from harness.settings import OPTIONS
from tests.selftest.running import ROOT, dry_make

NEW = "VENV=none"  # as in a checkout without an environment
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def pinned(name: str) -> str:
    text = (ROOT / "requirements" / "build.txt").read_text(encoding="utf-8")
    (line,) = (line for line in text.splitlines() if line.startswith(f"{name}=="))
    return line.split()[0]


def test_make_says_what_it_fetches_before_it_does() -> None:
    for target, size in (("env", "2.9 GB"), ("accept", "2.9 GB"), ("env-run", "0.11 GB")):
        code, output = dry_make(target, NEW)
        assert code == 0, output
        assert output.index(size) < output.index("pip install")
        assert "--extra-index-url" not in output
        assert output.index("pip install") < output.index("--no-deps -e .")
    assert "requirements/run.txt" in dry_make("env-run", NEW)[1]


def test_one_variable_takes_the_cpu_wheels_of_the_same_versions() -> None:
    code, output = dry_make("accept", "TORCH=cpu", NEW)
    assert code == 0, output
    for name in ("torch", "torchvision"):
        assert f" {pinned(name)}+cpu" in output
    assert "2.9 GB" not in output
    code, output = dry_make("accept", "TORCH=gpu", NEW)
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


# The image ---------------------------------------------------------------------------------------

IMAGE = (ROOT / "ci" / "Dockerfile").read_text(encoding="utf-8")


def lines_of(word: str) -> list[str]:
    whole = re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", IMAGE, flags=re.M))
    return re.findall(rf"^{word} (.*)$", whole, re.M)


def test_the_lines_of_the_image_are_sound() -> None:
    for line in lines_of("RUN"):
        subprocess.run(["sh", "-n", "-c", line], check=True, timeout=60)
    assert "make env TORCH=${TORCH}" in " ".join(lines_of("RUN"))
    assert "TORCH=cpu" in lines_of("ARG")
    names = re.findall(r"(\w+)=", " ".join(lines_of("ENV")))
    ours = {option.environment for option in OPTIONS}
    assert {name for name in names if name != "HOME"} <= ours
    assert not [name for name in names if name.startswith("ASCEND_")]  # the vendor forbids it
    (entry,) = lines_of("ENTRYPOINT")
    assert json.loads(entry) == ["/harness/.venv/bin/python", "-m"]


def test_the_image_gets_nothing_that_git_ignores() -> None:
    def names(path: str) -> set[str]:
        return {line.strip("/") for line in (ROOT / path).read_text().split()}

    kept_out = {line.removeprefix("**/") for line in names("ci/Dockerfile.dockerignore")}
    missing = [
        name
        for name in names(".gitignore") - kept_out - {"wheels"}
        if not any(fnmatch(name, pattern) for pattern in kept_out)
    ]
    assert not missing
    assert ".git" in kept_out


def test_the_examples_of_the_documents_fit_the_image() -> None:
    page = (ROOT / "docs" / "ascend.md").read_text(encoding="utf-8")
    part = page[page.index("## Containers") : page.index("## Building on a host")]
    job, variable = map(yaml.safe_load, re.findall(r"```yaml\n(.*?)```", part, re.S))
    pod = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    volumes = {one["name"]: one["hostPath"]["path"] for one in pod["volumes"]}
    mounts = {one["mountPath"]: volumes.pop(one["name"]) for one in container["volumeMounts"]}
    assert not volumes
    (docker,) = re.findall(r"```shell\n(docker run.*?)```", part, re.S)
    for inside, outside in mounts.items():
        assert f" -v {outside}:{inside}" in docker
    for one in container["env"]:
        assert f" -e {one['name']}={one['value']}" in docker
    for name in ("HARNESS_STORE", "HARNESS_RUNS"):
        assert re.search(rf"\b{name}=(\S+)", IMAGE)[1] in mounts  # type: ignore[index]
    asked = container["resources"]
    assert asked["limits"] == asked["requests"] == {"huawei.com/Ascend310P": 1}
    assert os.access(ROOT / container["command"][0], os.X_OK)
    assert variable["env"][0]["name"] == "ASCEND_VISIBLE_DEVICES"
    base = re.search(r"^ARG BASE=(\S+)$", IMAGE, re.M)
    assert base is not None
    assert f"`{base[1]}`" in part
