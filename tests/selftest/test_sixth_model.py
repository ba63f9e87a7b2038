"""A model that nobody made for the harness: CONTRIBUTING.md's example, with its trained weights."""

from __future__ import annotations

import csv
import re
import runpy
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from harness import Run, resolve
from harness.__main__ import app
from harness.records.reader import RunRecords
from tests.selftest.running import ROOT, run_python
from tests.selftest.test_readmes import failures

PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
EXAMPLE = ROOT / "examples" / "sixth_model"
CATALOG = EXAMPLE / "efficientnet_lite0.yaml"
# The classes that a person sees on the photographs, and by how much the best logit leads in plain
# PyTorch: timm's network, torchvision's transforms. Other padding, mean or filter moves it.
SEEN = {
    "camera.png": ({872}, 4.5207),  # tripod
    "chelsea.png": ({281, 282, 283, 284, 285}, 0.0975),  # cats
    "coffee.png": ({967}, 4.1424),  # espresso
    "motorcycle_left.png": ({665, 670}, 1.4955),  # moped, motor scooter
    "rocket.jpg": ({657}, 0.3673),  # missile
}


def commands() -> list[str]:
    """Return the commands of the section, in order."""
    section = PAGE.partition("\n## A sixth model\n")[2].partition("\n## ")[0]
    (block,) = re.findall(r"```shell\n(.*?)```", section, re.S)
    return [re.sub(r"\s+#.*", "", line) for line in block.splitlines()]


def follow(folder: Path, store: Path) -> list[RunRecords]:
    """Do what the commands say. Those of pytest collect; then the engine runs the cases of those
    that are given the trained weights. Returns the records of these runs.
    """
    env = {
        "HARNESS_STORE": str(store),
        "HARNESS_RUNS": str(folder / "runs"),
        "HARNESS_LEASES": str(folder / "leases"),
        "HARNESS_BUDGET": "0.1",
        "HARNESS_PRECISION": "100",
        "PYTEST_ADDOPTS": "-p no:cacheprovider",
    }
    collected, runs = [], []
    for command in commands():
        command = command.replace("runs/", f"{folder}/runs/")
        match shlex.split(command):
            case ["export", setting]:
                name, _, value = setting.partition("=")
                env[name] = value
            case ["unset", *names]:  # at the end: no later command of the shell has them
                left = {name for name in env if name in names}
                assert left == {*names} and command == commands()[-1]
            case ["cat", name]:
                lines = Path(name).read_text(encoding="utf-8").splitlines()
                assert any(line.startswith("coffee.png,967,967,967") for line in lines)
            case ["python", "-m", "harness", *arguments]:
                plan = CliRunner().invoke(app, arguments, env=env)
                assert plan.exit_code == 0, plan.output
                assert "efficientnet_lite0-bs4-cpu" in plan.output
            case ["python", *arguments]:
                assert run_python(arguments) == (0, "")
            case ["pytest", *options]:
                collected.append(command)
                given = {name[2:].replace("-", "_"): value for name, value in map(pair, options)}
                if "checkpoints" in given:
                    runs.append(Run(resolve(given, environment=env)).execute())
            case _:
                pytest.fail(f"the test does not know how to run this: {command}")
    assert failures(collected, env, folder / "none") == {}
    return runs


def pair(option: str) -> tuple[str, str | bool]:
    name, equals, value = option.partition("=")
    return name, value if equals else True


def test_the_block_of_the_page_is_the_example():
    (block,) = re.findall(r"```yaml\n(models:\n.*?)```", PAGE, re.S)
    assert CATALOG.read_text(encoding="utf-8").endswith(block)


def test_the_compiled_model_sees_what_is_on_the_photographs(shared, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    for records in follow(tmp_path, shared / "store"):
        assert records.exit_status == 0
        accuracy, throughput = records.cases
        assert (accuracy.outcome, throughput.outcome) == ("passed", "recorded")
        assert accuracy.accuracy and accuracy.checkpoint and accuracy.checkpoint.verified
        predictions = records.directory / accuracy.accuracy.predictions_file
        with predictions.open(encoding="utf-8") as file:
            rows = {row["image"]: row for row in csv.DictReader(file)}
        assert rows.keys() == SEEN.keys()
        for name, (classes, margin) in SEEN.items():
            assert int(rows[name]["top1"]) in classes, rows[name]
            lead = float(rows[name]["logit1"]) - float(rows[name]["logit2"])
            assert lead == pytest.approx(margin, abs=0.03), name
        assert accuracy.provenance == throughput.provenance
        assert accuracy.verdict and accuracy.accuracy.fidelity
        assert "accepted" not in accuracy.sentence
        if accuracy.provenance == "real":
            assert accuracy.verdict.rule == "accuracy-own-set"
            assert "conversion agrees on all 5 images" in accuracy.sentence
        else:
            assert accuracy.accuracy.fidelity.relative_l2 > 1e-5  # float16


def test_weights_of_another_digest_are_refused(run_pytest, tmp_path):
    runpy.run_path(str(EXAMPLE / "gather.py"))["gather"](tmp_path)
    (weights,) = tmp_path.glob("*.pth")
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    folders = (f"--checkpoints={tmp_path}", f"--imagenet={tmp_path / 'photographs'}")
    options = ("-m", "accuracy", "--target=cpu", "--batch-sizes=4", *folders)
    done = run_pytest(*options, catalog=CATALOG)
    assert done.code == 4, done.output
    assert "sha256" in done.output
