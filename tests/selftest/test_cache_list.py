"""`cache ls` and `cache gc`: what they print, what they remove, the width of it."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from harness.__main__ import app
from harness.base.stages import Stage
from harness.base.store import MANIFEST, Store
from harness.cli import cache as cache_commands
from harness.cli import options
from tests.selftest.running import TINY
from tests.selftest.test_inventory import fill, put


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    for name in os.environ:
        if name.startswith(("HARNESS_", "COLUMNS")):
            monkeypatch.delenv(name)
    monkeypatch.setattr(options, "INI", tmp_path / "pytest.ini")

    def cache(command: str, *words: str, **environment: str) -> Result:
        given = ["cache", command, f"--store={tmp_path / 'store'}", *words]
        return CliRunner().invoke(app, given, env=environment)

    return cache


def test_the_list_names_model_batch_chip_and_key(cache, tmp_path: Path) -> None:
    (line,) = cache("ls").output.splitlines()
    assert line.startswith("0 artifacts, 0 bytes in ")
    store = Store(tmp_path / "store")
    fill(store)
    lines = cache("ls", COLUMNS="140").output.splitlines()
    (real,) = [line for line in lines if "Ascend310P3, CANN 8.0.RC2" in line and " 4  " in line]
    assert real.split()[:3] == ["compile", "squeezenet1_1", "4"]
    keys = {entry.key[: cache_commands.KEY_SHOWN] for entry in store.entries()}
    assert all(any(line.endswith(key) for line in lines) for key in keys)
    assert lines[-1].startswith("14 artifacts, ")
    assert "torchvision:squeezenet1_1" in cache("ls", f"--catalog={TINY}", COLUMNS="140").output
    assert "torchvision:squeezenet1_1" in cache("ls", "--catalog=absent.yaml", COLUMNS="140").output
    manifest = next(store.entries()).directory / MANIFEST
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "inputs": None}))
    assert "13 artifacts, " in cache("ls").output


@pytest.mark.parametrize(("columns", "width"), [("80", 80), ("132", 132), ("", 100), ("x", 100)])
def test_a_pipe_is_as_wide_as_columns_says(
    columns: str, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert options.console().width == width


def test_what_was_used_within_the_hour_stays_and_is_told(cache, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    one, other = put(store, Stage.EXPORT, "a", number=1), put(store, Stage.EXPORT, "b", number=2)
    os.utime(other.directory / MANIFEST, (0, 0))
    done = cache("gc", "--older-than-days=0")
    assert done.exit_code == 0
    assert "1 artifact, " in done.output
    assert " removed; 1 used within the last hour or in the making stay" in done.output
    assert [entry.key for entry in store.entries()] == [one.key]
    assert cache("gc", f"--key={one.key[:8]}").exit_code == 0
    assert list(store.entries()) == []


def test_what_cannot_be_removed_is_the_machine(
    cache, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    entry = put(Store(tmp_path / "store"), Stage.EXPORT, "a", number=1)
    os.utime(entry.directory / MANIFEST, (0, 0))

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "rename", refuse)
    done = cache("gc", "--older-than-days=1")
    assert done.exit_code == 7
    assert "0 artifacts, " in done.output
    assert "1 thing could not be removed" in done.output
    assert "Permission denied" in done.output
