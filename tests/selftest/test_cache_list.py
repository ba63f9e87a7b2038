"""`cache ls` and `cache gc`: what they print, what they remove, the width of it."""

from __future__ import annotations

import errno
import functools
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from harness.base.stages import Stage
from harness.base.store import MANIFEST, Entry, Store
from harness.cli import cache as cache_commands
from harness.cli import options


@pytest.fixture
def cache(command: Callable[..., Result]) -> Callable[..., Result]:
    return functools.partial(command, "cache")


def put(store: Store, about: str, **inputs: int) -> Entry:
    """An artifact with a file of a few bytes."""

    def build(staging: Path) -> str:
        (staging / "file").write_text(about)
        return ""

    return store.get_or_build(Stage.EXPORT, inputs, build, about=about)


def test_the_list_says_what_each_artifact_is(cache, tmp_path: Path) -> None:
    (line,) = cache("ls").output.splitlines()
    assert line.startswith("0 artifacts, 0 bytes in ")
    store = Store(tmp_path / "store")
    put(store, "squeezenet1_1, [batch size 4]", number=2)
    damaged = put(store, "resnest50, batch size 1", number=1)
    first, second, summary = cache("ls", COLUMNS="140").output.splitlines()[-3:]
    assert first.startswith("export") and "resnest50, batch size 1" in first
    assert first.endswith(damaged.key[: cache_commands.KEY_SHOWN])
    assert "squeezenet1_1, [batch size 4]" in second and "0.0 d" in second
    assert summary.startswith("2 artifacts, 52 bytes in ")
    (damaged.directory / MANIFEST).write_text("{}")
    assert "1 artifact, " in cache("ls").output


@pytest.mark.parametrize(("columns", "width"), [("80", 80), ("132", 132), ("", 100), ("x", 100)])
def test_a_pipe_is_as_wide_as_columns_says(columns, width, monkeypatch):
    monkeypatch.setenv("COLUMNS", columns)
    assert options.console().width == width


def test_what_was_used_within_the_hour_stays_and_is_told(cache, tmp_path: Path) -> None:
    store, run = Store(tmp_path / "store"), Store(tmp_path / "store")
    one, other = put(run, "a", number=1), put(Store(store.root), "b", number=2)
    os.utime(other.directory / MANIFEST, (0, 0))
    done = cache("gc", "--older-than-days=0")
    assert done.exit_code == 0
    assert "1 artifact, " in done.output
    assert " removed; 1 used now or within the last hour, or in the making, stay" in done.output
    assert [entry.key for entry in store.entries()] == [one.key]
    assert "1 used now" in cache("gc", f"--key={one.key[:8]}").output
    del run
    assert cache("gc", f"--key={one.key[:8]}").exit_code == 0
    assert list(store.entries()) == []


def test_what_cannot_be_removed_is_the_machine(cache, monkeypatch, tmp_path):
    entry = put(Store(tmp_path / "store"), "a", number=1)
    os.utime(entry.directory / MANIFEST, (0, 0))

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "rename", refuse)
    done = cache("gc", "--older-than-days=1")
    assert done.exit_code == 7
    assert "0 artifacts, " in done.output
    assert "1 thing could not be removed" in done.output
    assert "Permission denied" in done.output
