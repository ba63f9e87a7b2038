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
def ls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    for name in os.environ:
        if name.startswith(("HARNESS_", "COLUMNS")):
            monkeypatch.delenv(name)
    monkeypatch.setattr(options, "INI", tmp_path / "pytest.ini")

    def ls(*words: str, **environment: str) -> str:
        done = CliRunner().invoke(
            app, ["cache", "ls", f"--store={tmp_path / 'store'}", *words], env=environment
        )
        assert done.exit_code == 0, done.output
        return done.output

    return ls


def test_the_list_names_model_batch_chip_and_key(ls, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    fill(store)
    lines = ls(COLUMNS="140").splitlines()
    (real,) = [line for line in lines if "Ascend310P3, CANN 8.0.RC2" in line and " 4  " in line]
    assert real.split()[:3] == ["compile", "squeezenet1_1", "4"]
    keys = {entry.key[: cache_commands.KEY_SHOWN] for entry in store.entries()}
    assert all(any(line.endswith(key) for line in lines) for key in keys)
    assert "14 artifacts, 0.0 MB in " in lines[-1]
    assert "torchvision:squeezenet1_1" in ls(f"--catalog={TINY}")
    assert "torchvision:squeezenet1_1" in ls(f"--catalog={tmp_path / 'absent.yaml'}")


def test_an_empty_store_is_one_line(ls) -> None:
    (line,) = ls().splitlines()
    assert line.startswith("0 artifacts, 0.0 MB in ")


@pytest.mark.parametrize(
    ("columns", "width"),
    [("80", 80), ("132", 132), ("", 100), ("wide", 100), ("0", 100), ("-5", 100), ("1", 40),
     ("9999", 500), ("9" * 50, 100)],
)  # fmt: skip
def test_a_pipe_is_as_wide_as_columns_says(
    columns: str, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert options.console().width == width
    monkeypatch.delenv("COLUMNS")
    assert options.console().width == options.PIPED_WIDTH


def test_ages_are_said_in_one_unit() -> None:
    ages = [-5, 0, 3600, 7200, 3 * 86400, 40 * 86400]
    assert [cache_commands._ago(age) for age in ages] == [
        "0 min", "0 min", "60 min", "2 h", "3 d", "40 d"
    ]  # fmt: skip


def test_a_store_that_is_no_folder_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(options, "INI", tmp_path / "pytest.ini")
    for command in ("ls", "gc"):
        done = CliRunner().invoke(app, ["cache", command, "--store=/dev/null"])
        assert done.exit_code == 4
        assert "--store=/dev/null is no folder" in done.output


def test_sizes_and_counts_are_said_in_fit_words() -> None:
    assert [cache_commands._size(size) for size in (0, 40_000_000, 2_500_000_000)] == [
        "0.0 MB", "40.0 MB", "2.5 GB"
    ]  # fmt: skip
    assert [cache_commands._count(number, "case") for number in (0, 1, 2)] == [
        "0 cases", "1 case", "2 cases"
    ]  # fmt: skip


def test_a_manifest_without_inputs_is_not_listed(ls, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    fill(store)
    manifest = next(store.entries()).directory / MANIFEST
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "inputs": None}))
    assert "13 artifacts, " in ls()


@pytest.fixture
def gc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    for name in os.environ:
        if name.startswith("HARNESS_"):
            monkeypatch.delenv(name)
    monkeypatch.setattr(options, "INI", tmp_path / "pytest.ini")

    def gc(*words: str) -> Result:
        return CliRunner().invoke(app, ["cache", "gc", f"--store={tmp_path / 'store'}", *words])

    return gc


def test_what_was_used_within_the_hour_stays_and_is_told(gc, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    one, other = put(store, Stage.EXPORT, "a", number=1), put(store, Stage.EXPORT, "b", number=2)
    os.utime(other.directory / MANIFEST, (0, 0))
    done = gc("--older-than-days=0")
    assert done.exit_code == 0
    assert "1 artifact, 0.0 MB removed; 1 used within the last hour stay" in done.output
    assert [entry.key for entry in store.entries()] == [one.key]
    assert "1 artifact, 0.0 MB removed" in gc(f"--key={one.key[:8]}").output
    assert list(store.entries()) == []


@pytest.mark.parametrize("key", ["", "12", "*", "../../../x", "0" * 33, "ABCDEF01"])
def test_a_key_that_is_none_is_refused(gc, key: str) -> None:
    done = gc(f"--key={key}")
    assert done.exit_code == 4
    assert "is no key" in done.output


def test_what_cannot_be_removed_is_the_machine(
    gc, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    put_ = put(Store(tmp_path / "store"), Stage.EXPORT, "a", number=1)
    os.utime(put_.directory / MANIFEST, (0, 0))

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "rename", refuse)
    done = gc("--older-than-days=1")
    assert done.exit_code == 7
    assert "0 artifacts, 0.0 MB removed" in done.output
    assert "1 thing could not be removed" in done.output
    assert "Permission denied" in done.output
