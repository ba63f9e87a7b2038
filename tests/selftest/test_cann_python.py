"""The Python that atc and aoe use is not the harness's; `doctor` says what it has."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness.base import environment
from harness.base.environment import ROOT, without_own_python
from harness.base.errors import CompileError
from harness.catalog.load import load_catalog
from harness.settings import resolve
from harness.targets.ascend import cann_python, doctor
from harness.targets.ascend.cann_python import CannPython
from tests.selftest.running import QUICK, TINY
from tests.selftest.simulated import ascend_target, make_host

NEEDED = {"numpy": "1.24.4", "protobuf": "3.20.3", "attrs": "23.1.0"}
NEEDED |= dict.fromkeys(("decorator", "psutil", "cffi", "sympy", "scipy"), "5.0")
IMPORTED = {"attrs": "attr", "protobuf": "google/protobuf"}


def a_python(folder: Path, modules: dict[str, str] = NEEDED, name: str = "python3") -> Path:
    """A Python that has these modules and no others."""
    site = folder / "site"
    for module, version in modules.items():
        package = site / IMPORTED.get(module, module)
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("float_ = float\n")
        metadata = site / f"{module}-{version}.dist-info" / "METADATA"
        metadata.parent.mkdir()
        metadata.write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: {version}\n")
    python = folder / "bin" / name
    python.parent.mkdir(parents=True, exist_ok=True)
    python.write_text(f'#!/bin/sh\nPYTHONPATH={site} exec {sys.executable} -S "$@"\n')
    python.chmod(0o755)
    return python


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The harness's virtual environment."""
    (tmp_path / "real" / "bin").mkdir(parents=True)
    prefix = tmp_path / "own"
    prefix.symlink_to(tmp_path / "real")
    fake = SimpleNamespace(prefix=str(prefix), base_prefix="/usr")
    monkeypatch.setattr(environment, "sys", fake)
    return prefix


def test_the_harness_s_environment_is_left(own: Path) -> None:
    import numpy

    site = Path(numpy.__file__).parents[1]
    env = {
        "PATH": f"{own.parent}/real/bin:/opt/cann/bin:{own}/bin:/usr/bin",
        "PYTHONPATH": f"{ROOT}:/opt/cann/python:{site}:/home/me",
        "VIRTUAL_ENV": str(own.resolve()),
        "PYTHONHOME": "/usr",
        "PYTHONNOUSERSITE": "1",
        "OTHER": "kept",
    }
    assert without_own_python(env) == {
        "PATH": "/opt/cann/bin:/usr/bin",
        "PYTHONPATH": "/opt/cann/python:/home/me",
        "OTHER": "kept",
    }


def test_the_environment_of_somebody_else_stays(own: Path) -> None:
    env = {"PATH": "/other/bin:/usr/bin", "VIRTUAL_ENV": "/other"}
    assert without_own_python(env) == env


def test_in_no_environment_of_its_own_the_harness_leaves_the_path(own: Path) -> None:
    environment.sys.base_prefix = environment.sys.prefix  # type: ignore[attr-defined]
    env = {"PATH": f"{own}/bin:/usr/bin"}
    assert without_own_python(env) == env


# What a compile starts --------------------------------------------------------------------------


@pytest.fixture
def compile_with(tmp_path: Path):
    """Compile on a host whose atc needs its Python: nothing, or the error."""
    model = load_catalog(TINY).models["tiny"]

    def compile_with(path: str, cann: str = "8.0", **options: str) -> CompileError | None:
        text = f"atc_python=1,cann={cann}"
        target = ascend_target(tmp_path, text, variables={"PATH": path}, options=options)
        try:
            target.compile(
                tmp_path / "no.onnx", model, 1, tmp_path, device=None, log=tmp_path / "log"
            )
        except CompileError as error:
            return error if "EC0010" in error.message else None
        raise AssertionError("no such file")

    (tmp_path / "no.onnx").write_text("nothing that a compiler can read")
    return compile_with


def test_a_compile_without_its_modules_says_what_to_do(compile_with, tmp_path: Path) -> None:
    python = a_python(tmp_path, {"numpy": "1.24.4"})
    error = compile_with(f"{python.parent}:/usr/bin:/bin")
    assert "No module named 'decorator'" in error.message
    assert "--cann-python" in error.remedy


def test_a_named_python_is_the_first_whatever_lies_beside_it(compile_with, tmp_path: Path) -> None:
    wrong = a_python(tmp_path / "wrong", {}).parent
    a_python(tmp_path / "right", name="python3.9")
    (tmp_path / "right" / "bin" / "python3").symlink_to(wrong / "python3")
    path = f"{wrong}:/usr/bin:/bin"
    assert compile_with(path) is not None
    assert compile_with(path, cann_python=str(tmp_path / "right" / "bin" / "python3.9")) is None


def test_a_virtual_environment_is_taken_as_it_lies(tmp_path: Path) -> None:
    python = a_python(tmp_path)
    assert cann_python.folder_with(python, tmp_path) == tmp_path / "python"
    assert os.readlink(tmp_path / "python" / "python3") == str(python)
    (tmp_path / "pyvenv.cfg").touch()
    assert cann_python.folder_with(python, tmp_path) == python.parent


def test_the_sequence_of_the_readme(shared: Path, tmp_path: Path) -> None:
    """With the harness's environment active, whose Python lacks what atc needs."""
    activate = Path(sys.prefix) / "bin" / "activate"
    if not activate.is_file():
        pytest.skip("these tests run in no virtual environment")
    outside = a_python(tmp_path).parent
    line = '. "$1"; shift; PYTHONPATH=$PWD exec pytest -p no:cacheprovider "$@"'
    given = ("--simulate-ascend", "--simulator=atc_python=1", *QUICK)
    places = (f"--store={shared / 'store'}", f"--runs={tmp_path}", f"--leases={tmp_path}")
    selected = ("-m", "throughput", f"--catalog={TINY}", "--batch-sizes=4")
    done = subprocess.run(
        ["bash", "-c", line, "bash", activate, *given, *places, *selected],
        cwd=ROOT,
        env={"PATH": f"{outside}:/usr/bin:/bin", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert "EC0010" not in done.stdout
    assert "1 recorded" in done.stdout, done.stdout + done.stderr


# doctor -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("modules", "cann", "state", "words"),
    [
        (NEEDED, "8.0.RC2", "ok", "numpy 1.24.4, protobuf 3.20.3, decorator 5.0"),
        ({"numpy": "1.24.4"}, "8.0.RC2", "lacks", "without protobuf, decorator, attrs"),
        (NEEDED | {"numpy": "2.1.0"}, "8.0.RC2", "note", "outside: numpy 2.1.0; CANN 8.0 takes"),
        (NEEDED | {"numpy": "2.1.0"}, "9.1.0", "ok", "numpy 2.1.0"),
    ],
)
def test_doctor_says_what_atc_will_find(tmp_path, modules, cann, state, words) -> None:
    host = make_host(tmp_path / "host", f"cann={cann}")
    python = a_python(tmp_path, modules)
    given = {"simulate_ascend": True, "simulator": "atc_python=1", "cann_python": str(python)}
    settings = resolve({"catalog": str(TINY), **given}, {})
    findings = doctor._parts(settings, tmp_path / "work", tmp_path, host.env, "Ascend")
    (found,) = [one for one in findings if "Python" in one.what]
    assert (found.state, words in found.found) == (state, True), found.found
    assert str(python) in found.found
    assert found.remedy == "" if state == "ok" else str(python) in found.remedy


@pytest.mark.parametrize(
    ("python", "numpy", "cann", "wrong"),
    [
        ("3.9.2", "1.19.2", "5.1.RC2", ""),
        ("3.10.1", "1.19.2", "5.1.RC2", "Python 3.10.1; CANN 5 takes Python 3.7 to 3.9"),
        ("3.11.4", "1.24.4", "8.3.RC1", ""),
        ("3.12.3", "1.24.4", "8.3.RC1", "Python 3.12.3; CANN 8.0"),
        ("3.12.3", "1.26.4", "8.5.0", ""),
        ("3.12.3", "2.1.0", "8.5.0", "numpy 2.1.0; CANN 8.5"),
        ("3.13.1", "1.26.4", "8.5.0", "numpy 1.26.4; CANN 8.5"),
        ("3.14.0", "2.3.1", "9.2.0", ""),
        ("3.6.8", "1.19.2", "", ""),  # nobody says which CANN
    ],
)
def test_limits_of_each_cann(python: str, numpy: str, cann: str, wrong: str) -> None:
    outside = CannPython(python, NEEDED | {"numpy": numpy}).outside(cann)
    assert outside.startswith(wrong) and bool(outside) == bool(wrong)
