"""Text of others that reaches a terminal has no codes of a terminal in it."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from harness.__main__ import app
from harness.base.errors import DeviceError, from_json
from harness.base.locks import holder_of
from harness.base.progress import Progress
from harness.base.stages import Stage
from harness.base.store import Store
from harness.base.text import clean
from harness.cli import doctor, options
from harness.plugin import RunHooks
from harness.targets.provider import Findings

# Clears the screen, sets the title, rings, goes up a line, turns text around, uses C1 codes.
HOSTILE = "a\x1b[2Jb\x1b]0;title\x07c\x07\x1b[1Ad\u202ee\x9b2Jf\x1bPg\x1b\\h\x00i\x08j\x7f"
FORBIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]")


def harmless(text: str) -> bool:
    """Whether the letters arrived, and nothing that a terminal obeys."""
    return FORBIDDEN.search(text) is None and all(letter in text for letter in "abcdefghij")


def test_clean_text_keeps_what_people_write() -> None:
    assert (
        clean("中文\u3000e\u0301 \U0001f642\t1\r\n2\r3") == "中文\u3000e\u0301 \U0001f642\t1\n2\n3"
    )
    assert harmless(clean(HOSTILE))


@pytest.mark.parametrize("part", ["message", "remedy", "log"])
def test_errors_of_tools_and_drivers(part: str) -> None:
    error = from_json({"type": "DeviceError", "message": "m", part: HOSTILE})
    assert harmless(str(error))
    assert harmless(str(from_json(error.to_json())))


def test_what_somebody_wrote_into_a_lock_file(tmp_path: Path) -> None:
    lock = tmp_path / "a.lock"
    holder = {"pid": os.getpid(), "host": HOSTILE, "what": HOSTILE, "since": "", "token": "t"}
    lock.write_text(json.dumps(holder))
    assert HOSTILE in holder_of(lock)
    with pytest.raises(DeviceError) as caught:
        raise DeviceError(f"held by {holder_of(lock)}")
    assert harmless(str(caught.value))


@pytest.mark.parametrize("terminal", [True, False])
def test_progress(terminal: bool) -> None:
    read, write = os.pipe()
    progress = Progress(write, terminal=terminal)
    progress.note(HOSTILE)
    os.close(write)
    with open(read, encoding="utf-8") as shown:
        assert harmless(shown.read())


def test_tables_and_lines_of_commands(tmp_path, capsys, monkeypatch):
    def build(staging: Path) -> str:
        (staging / "file").write_text("x")
        return ""

    monkeypatch.setenv("COLUMNS", "200")
    Store(tmp_path / "store").get_or_build(Stage.EXPORT, {}, build, about=HOSTILE)
    assert harmless(
        CliRunner().invoke(app, ["cache", "ls", f"--store={tmp_path / 'store'}"]).output
    )
    options.say(HOSTILE)
    assert harmless(capsys.readouterr().out)
    chip = Findings("Ascend", frozenset({"ascend310"})).note("NPU 0", HOSTILE, HOSTILE)
    options.console().print(doctor._findings([chip], None, HOSTILE))
    assert harmless(capsys.readouterr().out)


def test_the_summary_of_a_run() -> None:
    lines: list[str] = []
    reporter: Any = SimpleNamespace(
        section=lambda _: None,
        write_line=lines.append,
        config=SimpleNamespace(option=SimpleNamespace(keyword="")),
    )
    run: Any = SimpleNamespace(records=(), summary=lambda: [HOSTILE], upcoming=())
    RunHooks(run).pytest_terminal_summary(reporter)
    assert len(lines) == 1 and harmless(lines[0])
