"""docs/python.md: its examples run as they stand, one after another."""

from __future__ import annotations

import os
import re
from typing import Any

from harness import read_records
from tests.selftest.running import ROOT


def test_the_examples_run_as_they_stand(shared, tmp_path, monkeypatch, capsys):
    for name in os.environ:
        if name.startswith(("HARNESS_", "IMAGENET_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("HARNESS_STORE", str(shared / "store"))
    monkeypatch.setenv("HARNESS_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("HARNESS_LEASES", str(tmp_path / "leases"))
    text = (ROOT / "docs" / "python.md").read_text()
    values: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", text, re.S):
        exec(compile(block, "docs/python.md", "exec"), values)
    output = capsys.readouterr().out
    assert output.startswith("passed 84.")
    assert "accuracy tiny-bs4-cpu" in output
    assert "batch sizes tiny on cpu" in output
    assert values["records"].exit_status == 0
    second = values["run"].directory
    runs = (path for path in (tmp_path / "runs").iterdir() if path.is_dir())
    (first,) = (path for path in runs if not path.is_symlink() and path != second)
    assert [case.batch_size for case in read_records(first).cases] == [1]
    assert [case.batch_size for case in read_records(second).cases] == [1, 4]
    assert (second / "report.html").is_file()
