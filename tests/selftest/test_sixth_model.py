"""A model that nobody made for the harness: CONTRIBUTING.md's example, with its trained weights."""

from __future__ import annotations

import csv
import re
import runpy
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from harness.__main__ import app
from tests.selftest.running import ROOT, Finished, run_python
from tests.selftest.test_readmes import failures

PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
EXAMPLE = ROOT / "examples" / "sixth_model"
CATALOG = EXAMPLE / "efficientnet_lite0.yaml"
# The classes that a person sees on the photographs.
SEEN = {
    "camera.png": {872},  # tripod
    "chelsea.png": {281, 282, 283, 284, 285},  # cats
    "coffee.png": {967},  # espresso
    "motorcycle_left.png": {665, 670},  # moped, motor scooter
    "rocket.jpg": {657},  # missile
}


def commands() -> list[str]:
    """Return the commands of the section, in order."""
    section = PAGE.partition("\n## A sixth model\n")[2].partition("\n## ")[0]
    (block,) = re.findall(r"```shell\n(.*?)```", section, re.S)
    return [re.sub(r"\s+#.*", "", line) for line in block.splitlines()]


def follow(folder: Path, store: Path) -> Finished:
    """Run the commands as they stand; where stand-in weights are made, only collect."""
    env = {
        "HARNESS_STORE": str(store),
        "HARNESS_RUNS": str(folder / "runs"),
        "HARNESS_LEASES": str(folder / "leases"),
        "HARNESS_BATCH_SIZES": "4",
        "HARNESS_BUDGET": "0.1",
        "HARNESS_PRECISION": "100",
        "PYTEST_ADDOPTS": "-p no:cacheprovider",
    }
    collected, finished = [], []
    for command in commands():
        words = shlex.split(command.replace("runs/", f"{folder}/runs/"))
        match words:
            case ["export", setting]:
                name, _, value = setting.partition("=")
                env[name] = value
            case ["cat", name]:
                lines = Path(name).read_text(encoding="utf-8").splitlines()
                assert any(line.startswith("coffee.png,967,967,967") for line in lines)
            case ["python", "-m", "harness", *arguments]:
                plan = CliRunner().invoke(app, arguments, env=env)
                assert plan.exit_code == 0, plan.output
                assert "efficientnet_lite0-bs4-cpu" in plan.output
            case ["python", *arguments]:
                assert run_python(arguments) == (0, "")
            case ["pytest", "--target=cpu", *_]:
                finished.append(Finished(*run_python(["-m", *words], env), folder / "runs"))
            case ["pytest", *_]:
                collected.append(command)
            case _:
                pytest.fail(f"the test does not know how to run this: {command}")
    assert collected == ["pytest --rehearsal", "pytest --simulate-ascend"]
    assert failures(collected, env, folder / "none") == {}
    (done,) = finished
    return done


def test_the_block_of_the_page_is_the_example():
    (block,) = re.findall(r"```yaml\n(models:\n.*?)```", PAGE, re.S)
    assert CATALOG.read_text(encoding="utf-8").endswith(block)


def test_the_compiled_model_sees_what_is_on_the_photographs(shared, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    done = follow(tmp_path, shared / "store")
    assert done.code == 0, done.output
    accuracy, throughput = done.records().cases
    assert accuracy.accuracy and accuracy.checkpoint and accuracy.verdict
    with (done.run_dir / accuracy.accuracy.predictions_file).open(encoding="utf-8") as file:
        rows = {row["image"]: row for row in csv.DictReader(file)}
    assert rows.keys() == SEEN.keys()
    for name, classes in SEEN.items():
        assert int(rows[name]["top1"]) in classes, rows[name]
        assert rows[name]["top1"] == rows[name]["eager"]
    # What was judged, and what was not.
    assert (accuracy.outcome, throughput.outcome) == ("passed", "recorded")
    assert {accuracy.provenance, throughput.provenance} == {"real"}
    assert accuracy.checkpoint.verified
    assert accuracy.verdict.rule == "accuracy-own-set"
    assert "conversion agrees on all 5 images" in accuracy.sentence
    assert "accepted" not in done.output + accuracy.sentence


def test_weights_of_another_digest_are_refused(run_pytest, tmp_path):
    runpy.run_path(str(EXAMPLE / "gather.py"))["gather"](tmp_path)
    (weights,) = tmp_path.glob("*.pth")
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    folders = (f"--checkpoints={tmp_path}", f"--imagenet={tmp_path / 'photographs'}")
    options = ("-m", "accuracy", "--target=cpu", "--batch-sizes=4", *folders)
    done = run_pytest(*options, catalog=CATALOG)
    assert done.code == 4, done.output
    assert "sha256" in done.output
