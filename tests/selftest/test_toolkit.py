"""`harness.targets.ascend.toolkit`: what a host has is found, what it lacks is no error."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.base.errors import ConfigError
from harness.targets.ascend import toolkit
from harness.targets.ascend.options import AscendOptions
from harness.targets.ascend.toolkit import Toolkit, find_toolkit

ARCH = platform.machine()
# What a real set_env.sh does, and its bad manners: it prints, and its last line is a test.
SET_ENV = """
echo "welcome to {home}"
export ASCEND_TOOLKIT_HOME={home}
export PATH={home}/bin:$PATH
export LD_LIBRARY_PATH={home}/lib64:$LD_LIBRARY_PATH
export WITH_LINES='one
two=2'
[ -f {home}/nowhere ] && echo there
"""


@pytest.fixture(autouse=True)
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host whose /usr/local/Ascend, /etc and system folders are below `tmp_path`."""
    monkeypatch.setattr(toolkit, "ROOTS", (tmp_path / "Ascend",))
    monkeypatch.setattr(toolkit, "INSTALL_INFO", tmp_path / "etc" / "ascend_install.info")
    monkeypatch.setattr(toolkit, "SYSTEM_TOOLS", (tmp_path / "sbin",))
    return tmp_path


def environment(host: Path, **more: str) -> dict[str, str]:
    return {"PATH": "/usr/bin:/bin", "HOME": str(host / "home"), **more}


def find(host: Path, env: dict[str, str] | None = None, **options: Any) -> Toolkit:
    env = environment(host) if env is None else env
    return find_toolkit(AscendOptions(**options), env, log=host / "logs" / "toolkit.log")


def put(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def tool(path: Path) -> Path:
    put(path, "#!/bin/sh\n").chmod(0o755)
    return path


def cann(home: Path, version: str = "8.0.RC2") -> Path:
    """An installed toolkit with atc and aoe; `home` is its `latest`."""
    tool(home / "bin" / "atc")
    tool(home / "bin" / "aoe")
    put(home / f"{ARCH}-linux/ascend_toolkit_install.info", f"arch={ARCH}\nversion={version}\n")
    put(home.parent / "set_env.sh", SET_ENV.format(home=home))
    return home


def test_a_host_with_nothing(host: Path) -> None:
    found = find(host)
    assert found == Toolkit(environment(host), sys.executable)
    assert found.compiler_env == found.env


# The environment


@pytest.mark.parametrize(
    ("root", "place"),
    [
        ("Ascend", "ascend-toolkit/latest"),
        ("home/Ascend", "cann/latest"),
        ("Ascend", "nnrt/latest"),
    ],
)
def test_set_env_is_found_and_sourced(host: Path, root: str, place: str) -> None:
    home = cann(host / root / place)
    found = find(host, environment(host, PYTHONPATH="/mine"))
    assert found.environment_source == f"sourced {home.parent / 'set_env.sh'}"
    assert found.atc == home / "bin" / "atc"
    assert found.aoe == home / "bin" / "aoe"
    assert found.env["PATH"] == f"{home}/bin:/usr/bin:/bin"
    assert found.env["PYTHONPATH"] == "/mine"
    assert found.env["WITH_LINES"] == "one\ntwo=2"
    assert found.versions == {"cann": "8.0.RC2"}
    assert "welcome to" in (host / "logs" / "toolkit.log").read_text()


def test_nothing_of_the_shell_comes_along(host: Path) -> None:
    home = cann(host / "Ascend/ascend-toolkit/latest")
    env = environment(host, OLDPWD="/before")
    found = find(host, env)
    new = {name for name in found.env if found.env[name] != env.get(name)}
    assert new == {"PATH", "LD_LIBRARY_PATH", "ASCEND_TOOLKIT_HOME", "WITH_LINES"}
    assert found.env["ASCEND_TOOLKIT_HOME"] == str(home)
    assert set(env) <= set(found.env)


def test_variables_that_are_set_are_left_alone(host: Path) -> None:
    cann(host / "Ascend/ascend-toolkit/latest", "8.0.RC2")
    mine = cann(host / "mine" / "latest", "7.0.0")
    for name in ("ASCEND_TOOLKIT_HOME", "ASCEND_HOME_PATH"):
        env = environment(host, **{name: str(mine)})
        found = find(host, env)
        assert found.environment_source == "variables already set"
        assert found.env == env
        assert found.atc == mine / "bin" / "atc"  # though it is not on PATH
        assert found.versions == {"cann": "7.0.0"}


def test_variables_of_a_toolkit_that_is_gone_do_not_count(host: Path) -> None:
    home = cann(host / "Ascend/ascend-toolkit/latest")
    found = find(host, environment(host, ASCEND_TOOLKIT_HOME=str(host / "gone")))
    assert found.environment_source.startswith("sourced")
    assert found.env["ASCEND_TOOLKIT_HOME"] == str(home)


def test_a_script_that_replaces_lists_loses_nothing_of_the_users(host: Path) -> None:
    home = cann(host / "Ascend/ascend-toolkit/latest")
    put(home.parent / "set_env.sh", f"export ASCEND_HOME_PATH={home} PATH={home}/bin:/bin\n")
    env = environment(host, PATH="/usr/bin:/bin:/opt/mine", LD_LIBRARY_PATH="/lib/mine")
    found = find(host, env)
    # bash found `env` all the same: its own default, or /bin.
    assert found.env["PATH"] == f"{home}/bin:/bin:/usr/bin:/opt/mine"
    assert found.env["LD_LIBRARY_PATH"] == "/lib/mine"


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("exit 3\n", "ended with exit code 3"),
        ("sleep 600\n", "its deadline"),
        ("true\n", "exported no ASCEND_TOOLKIT_HOME that exists"),
        ("export ASCEND_TOOLKIT_HOME=/no/such/folder\n", "exported no ASCEND_TOOLKIT_HOME"),
    ],
    ids=["leaves the shell", "hangs", "sets nothing", "sets nonsense"],
)
def test_a_script_that_does_not_work(host, monkeypatch, script, why):
    monkeypatch.setattr(toolkit, "SOURCE_DEADLINE_S", 0.5 if "sleep" in script else 60.0)
    path = put(host / "Ascend/ascend-toolkit/set_env.sh", script)
    found = find(host)
    assert found.environment_source.startswith(f"not usable: {path}: ")
    assert why in found.environment_source
    assert found.env == environment(host)
    with pytest.raises(ConfigError, match=why):  # what was named must work
        find(host, ascend_home=path.parent)
    home = cann(host / "Ascend/cann/latest")  # the next one is tried
    found = find(host)
    assert found.environment_source == f"sourced {home.parent / 'set_env.sh'}"


@pytest.mark.parametrize("given", ["", "ascend-toolkit", "ascend-toolkit/latest"])
def test_an_installation_may_be_named_at_each_level(host: Path, given: str) -> None:
    home = cann(host / "elsewhere/ascend-toolkit/latest")
    other = cann(host / "Ascend/ascend-toolkit/latest")
    env = environment(host, ASCEND_TOOLKIT_HOME=str(other))
    found = find(host, env, ascend_home=host / "elsewhere" / given)
    assert found.env["ASCEND_TOOLKIT_HOME"] == str(home)  # the option wins
    assert found.atc == home / "bin" / "atc"


def test_the_version_that_was_named_is_the_one_that_is_used(host: Path) -> None:
    installed = host / "Ascend/ascend-toolkit"
    old, new = installed / "7.0.0", cann(installed / "8.0.0")
    old.mkdir()
    (installed / "latest").symlink_to("8.0.0")
    put(installed / "set_env.sh", SET_ENV.format(home=installed / "latest"))
    assert find(host, ascend_home=new).atc == installed / "latest/bin/atc"
    with pytest.raises(ConfigError, match=r"it is for .*latest"):
        find(host, ascend_home=old)


# Tools


def test_tools_are_on_the_environments_path(host: Path) -> None:
    places = {
        name: tool(host / "tools" / name) for name in ("npu-smi", "atc", "aoe", "msit", "msprobe")
    }
    found = find(host, environment(host, PATH=f"{host / 'tools'}:/usr/bin:/bin"))
    assert found.npu_smi == places["npu-smi"]
    assert found.atc == places["atc"]
    assert found.aoe == places["aoe"]
    assert found.comparers == {name: places[name] for name in ("msprobe", "msit")}


def test_this_processes_path_does_not_count(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool(host / "tools" / "atc")
    monkeypatch.setenv("PATH", str(host / "tools"))
    assert find(host).atc is None
    assert find(host, {}).atc is None


def test_what_is_given_wins(host: Path) -> None:
    cann(host / "Ascend/ascend-toolkit/latest")
    mine = {name: tool(host / "mine" / name) for name in ("atc", "npu-smi")}
    found = find(
        host,
        atc=mine["atc"],
        npu_smi=mine["npu-smi"],
        ais_python=sys.executable,
    )
    assert found.atc == mine["atc"]
    assert found.npu_smi == mine["npu-smi"]
    assert found.python == sys.executable


def test_relative_names_are_made_absolute(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tool(host / "tools" / "python3.7")
    found = find(host, environment(host, PATH=f"{host / 'tools'}:/usr/bin"), ais_python="python3.7")
    assert found.python == str(path)
    monkeypatch.chdir(host)
    assert find(host, ais_python="tools/python3.7").python == str(path)  # children run elsewhere
    atc = tool(host / "tools" / "atc")
    assert find(host, environment(host, PATH="tools")).atc == atc


@pytest.mark.parametrize("option", ["atc", "npu_smi", "ascend_home"])
def test_an_option_that_names_nothing(host: Path, option: str) -> None:
    with pytest.raises(ConfigError, match=r"nowhere, given for .*, does not exist"):
        find(host, None, **{option: host / "nowhere"})
    (host / "folder").mkdir()
    with pytest.raises(ConfigError, match=r"folder, given for .*, is not a"):
        find(host, None, **{option: host / "folder"})


@pytest.mark.parametrize("python", ["python9.9", "/no/such/python"])
def test_an_interpreter_that_is_not_there(host: Path, python: str) -> None:
    with pytest.raises(ConfigError, match="given for the Python interpreter"):
        find(host, ais_python=python)


# Versions


def home_with(host: Path, **files: str) -> dict[str, str]:
    home = host / "toolkit"
    home.mkdir()
    for name, text in files.items():
        put(home / {"info": f"{ARCH}-linux/ascend_toolkit_install.info"}.get(name, name), text)
    return environment(host, ASCEND_TOOLKIT_HOME=str(home))


def test_version_cfg_where_there_is_no_install_info(host: Path) -> None:
    text = (
        "# version: 1.0\nruntime_running_version=[7.6.0.1.220:8.0.0]\n"
        "toolkit_running_version=[7.6.0.1.220:8.0.0]\n"
    )
    assert find(host, home_with(host, **{"version.cfg": text})).versions == {"cann": "8.0.0"}


@pytest.mark.parametrize("text", ["version=\n", "version=;rm\n", "\0\xff" * 99, "x" * 100_000])
def test_a_version_that_cannot_be_read_is_absent(host: Path, text: str) -> None:
    assert find(host, home_with(host, info=text)).versions == {}


def test_the_version_is_of_the_atc_that_was_chosen(host: Path) -> None:
    cann(host / "Ascend/ascend-toolkit/latest", "8.0.RC2")
    other = cann(host / "other/6.3", "6.3.RC1")
    assert find(host).versions == {"cann": "8.0.RC2"}
    found = find(host, atc=other / "bin/atc")
    assert found.versions == {"cann": "6.3.RC1", "runtime": "8.0.RC2"}


@pytest.mark.parametrize("part", ["compiler", f"{ARCH}-linux", "atc"])
def test_the_version_of_an_atc_behind_links(host: Path, part: str) -> None:
    """`latest` links to a version, whose `bin` links to where atc is."""
    home = cann(host / "Ascend/ascend-toolkit/8.0.RC2")
    real = tool(home / part / "bin" / "atc")
    (home / "bin" / "atc").unlink()
    (home / "bin" / "atc").symlink_to(real)
    cann(host / "Ascend/ascend-toolkit/7.0.0", "7.0.0")
    (host / "Ascend/ascend-toolkit/latest").symlink_to("8.0.RC2")
    atc = host / "Ascend/ascend-toolkit/latest/bin/atc"
    assert find(host, environment(host, PATH="/bin"), atc=atc).versions["cann"] == "8.0.RC2"


def test_an_atc_of_no_known_version_is_told_by_its_file(host: Path) -> None:
    """Two of them are never one compiler; the environment's CANN is not theirs."""
    home = cann(host / "Ascend/ascend-toolkit/latest", "8.0.RC2")
    one, two = tool(host / "a/atc"), tool(host / "b/atc")
    first = find(host, atc=one).versions
    assert set(first) == {"atc", "runtime"}
    assert first["runtime"] == "8.0.RC2"
    assert str(one) in first["atc"]
    assert find(host, atc=one).versions == first
    assert find(host, atc=two).versions != first
    os.utime(one, (1, 1))  # another file of the same size was put there
    assert find(host, atc=one).versions != first
    # An upgrade in place, where nothing tells the version.
    (home / f"{ARCH}-linux/ascend_toolkit_install.info").unlink()
    before = find(host).versions
    assert set(before) == {"atc"}
    put(home / "bin/atc", "#!/bin/sh\n# new\n")
    assert find(host).versions != before


def test_the_runtime_without_a_toolkit(host: Path) -> None:
    env = home_with(host, **{"ascend_nnrt_install.info": "version=6.0.1\n"})
    assert find(host, env).versions == {"nnrt": "6.0.1"}


def test_driver_and_firmware(host: Path) -> None:
    put(host / "Ascend/driver/version.info", "Version=23.0.0\nascendhal_version=7.35.19\n")
    put(host / "Ascend/firmware/version.info", "Version=7.1.0.3.220\n")
    assert find(host).versions == {"driver": "23.0.0", "firmware": "7.1.0.3.220"}


def test_a_driver_that_was_installed_elsewhere(host: Path) -> None:
    put(host / "Ascend/driver/version.info", "Version=1.0\n")
    put(host / "opt/driver/version.info", "Version=2.0\n")
    put(host / "etc/ascend_install.info", f"UserName=x\nDriver_Install_Path_Param={host}/opt\n")
    assert find(host).versions == {"driver": "2.0"}
    cann(host / "user/ascend-toolkit/latest")
    put(host / "user/driver/version.info", "Version=2.5\n")
    env = environment(host, ASCEND_HOME_PATH=str(host / "user/ascend-toolkit/latest"))
    assert find(host, env).versions["driver"] == "2.5"  # beside the toolkit
    put(host / "third/version.info", "Version=3.0\n")
    env = environment(host, ASCEND_DRIVER_PATH=str(host / "third"))
    assert find(host, env).versions == {"driver": "3.0"}


# Libraries


def test_the_drivers_libraries_are_added_last(host: Path) -> None:
    (host / "Ascend/driver/lib64/driver").mkdir(parents=True)
    found = find(host, environment(host, LD_LIBRARY_PATH="/mine"))
    lib64 = host / "Ascend/driver/lib64"
    assert found.env["LD_LIBRARY_PATH"] == f"/mine:{lib64}:{lib64}/driver"


def test_a_compiler_without_a_driver_gets_stand_ins(host: Path) -> None:
    home = cann(host / "Ascend/ascend-toolkit/latest")
    devlib = home / f"{ARCH}-linux/devlib"
    devlib.mkdir()
    found = find(host)
    assert found.devlib == devlib
    assert found.compiler_env["LD_LIBRARY_PATH"].split(":")[-1] == str(devlib)
    assert str(devlib) not in found.env["LD_LIBRARY_PATH"]  # not for what runs models
    assert {**found.compiler_env, "LD_LIBRARY_PATH": ""} == {**found.env, "LD_LIBRARY_PATH": ""}


@pytest.mark.parametrize("place", ["Ascend/driver/lib64/driver", "elsewhere"])
def test_a_compiler_beside_a_driver_gets_none(host: Path, place: str) -> None:
    home = cann(host / "Ascend/ascend-toolkit/latest")
    (home / f"{ARCH}-linux/devlib").mkdir()
    put(host / place / "libascend_hal.so")
    found = find(host, environment(host, LD_LIBRARY_PATH=str(host / "elsewhere")))
    assert found.devlib is None
    assert found.compiler_env == found.env
