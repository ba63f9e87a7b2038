"""The command line: options from the table, plan, why, exit codes."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
import typer.main

from harness.__main__ import app
from harness.images.dataset import FIRST_LABELS
from harness.judge.causes import Exit
from harness.settings import GROUPS, OPTIONS, with_target
from tests.selftest import image_folders
from tests.selftest import report_samples as samples
from tests.selftest.image_folders import lines, put_images, put_text
from tests.selftest.running import TINY, run_python


@pytest.fixture
def run(command):
    return command


# Options ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["plan", "doctor", "cache explain"])
def test_commands_take_the_options_of_pytest(name):
    command: Any = typer.main.get_command(app)
    for word in name.split():
        command = command.commands[word]
    flags = {flag for parameter in command.params for flag in parameter.opts}
    assert flags >= {option.flag for option in OPTIONS}


def test_settings_come_from_the_command_line_then_variables_then_the_file(run, tmp_path):
    (tmp_path / "pytest.ini").write_text("[pytest]\nharness_models = resnest50\naddopts = -ra\n")
    plan = ("plan", "--target=cpu", "-m", "throughput")
    output = run(*plan).output
    assert "resnest50" in output
    assert "fixres" not in output
    output = run(*plan, HARNESS_MODELS="fixres").output
    assert "fixres" in output
    assert "resnest50" not in output
    assert "fixres" in run(*plan, "--model=fixres").output
    assert "did you mean 'HARNESS_MODELS'" in run(*plan, HARNESS_MODLES="fixres").stderr
    output = run(*plan, "--models=inceptionv4", HARNESS_MODELS="fixres").output
    assert "inceptionv4" in output
    assert "fixres" not in output


@pytest.mark.parametrize("content", [b"harness_models\n\xff", b"[pytest]\n  x\n", b"no section"])
def test_a_pytest_ini_that_cannot_be_read_is_one_line(run, tmp_path, content):
    (tmp_path / "pytest.ini").write_bytes(content)
    done = run("plan", "--rehearsal")
    assert done.exit_code == 4
    assert "pytest.ini cannot be read" in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("plan --batch-sizes=0", "--batch-sizes"),
        ("plan --rehearsal -m accurracy", "'accurracy' is not one of"),
        ("plan --rehearsal --simulate-ascend", "two kinds of run"),
        ("plan --catalog=absent.yaml", "absent.yaml"),
        ("plan --no-such", "No such option"),
        ("plan --modles=tiny", "--models"),
        ("plan --rehearsal --driver=api", "--driver does not go with the target cpu"),
        ("nothing", "No such command"),
        ("cache explain", "--rehearsal or --target"),
        ("cache gc --max-gb=-1", "--max-gb"),
        ("cache gc --max-gb=nan", "--max-gb"),
        ("cache gc --key=../../../x", "is no key"),
        ("cache gc --key=1234567", "is no key"),
        ("cache ls --store=/dev/null", "--store=/dev/null is no folder"),
        ("report", "Missing argument"),
        ("report absent", "no records"),
        ("why absent", "no records"),
        ("why --exit-code=x", "--exit-code"),
        ("why --stopped-after=inf", "--stopped-after"),
    ],
)
def test_nonsense_says_what_is_wrong_and_ends_with_4(run, words, said):
    done = run(*words.split(), COLUMNS="200")
    assert done.exit_code == Exit.INPUT_ERROR
    assert said in done.stderr
    assert "Traceback" not in done.output


# plan ------------------------------------------------------------------------------------


def test_plan_says_whether_a_part_of_the_data_set_can_pass(run):
    words = ("plan", "--target=cpu", "--models=fixres", "-m", "accuracy")
    few = run(*words, "--limit=100").output
    assert "100 images: no PASS is possible" in few
    assert "eager PyTorch on the same images" in few
    assert "a PASS is possible" in run(*words, "--sample=5000").output
    whole = run(*words).output
    assert "PASS is possible" not in whole
    assert "top-1 79 % ±1 %" in whole
    output = run(*words, "--limit=5000", "--onnx=fixres=pytest.ini").output
    assert "no weights for an eager pass" in output


def test_plan_and_doctor_know_a_data_set_of_ones_own(run, tmp_path):
    for name in ("cat.png", "dog.png"):
        (tmp_path / name).write_bytes(b"PNG")
    (tmp_path / "val_label.txt").write_text("cat.png 282\ndog.png 207\n")
    words = ("plan", "--target=cpu", "--models=fixres", "-m", "accuracy", f"--imagenet={tmp_path}")
    assert "the reference on all 2 images decides" in run(*words).output
    assert "1 image: no PASS is possible" in run(*words, "--limit=1").output
    looked = run("doctor", "--target=cpu", f"--imagenet={tmp_path}", "--all").output
    assert "not ImageNet's" in " ".join(looked.split())


def test_plan_counts_the_images_that_are_there_and_checks_them(run, tmp_path):
    put_images(tmp_path, range(1, 4))
    put_text(tmp_path / "val_label.txt", lines(FIRST_LABELS[:3]))
    words = ("plan", "--target=cpu", "--models=fixres", "-m", "accuracy", f"--imagenet={tmp_path}")
    assert "fixres: 3 images" in run(*words).output
    assert "fixres: 2 images" in run(*words, "--limit=2").output
    (tmp_path / image_folders.name(3)).write_bytes(b"")
    output = run(*words).output
    assert f"{image_folders.name(3)} (empty, 0 bytes)" in output
    assert "what to do: copy them again" in output
    assert "fixres: 2 images" in run(*words, "--limit=2").output
    put_images(tmp_path, range(1, 4))
    put_text(tmp_path / "val_label.txt", lines([label + 1 for label in FIRST_LABELS[:3]]))
    output = run(*words).output
    assert "the images cannot be used: " in output
    assert "what to do: the list counts from 1: subtract one" in output
    assert "fixres: 3 images" not in output


def test_plan_says_recorded_where_the_guide_only_records(run):
    words = ("plan", "--target=ascend310", "--models=squeezenet1_1", "-m", "throughput")
    lines = run(*words, COLUMNS="200").output.splitlines()
    rows = {line.split()[0]: line for line in lines if line.startswith("squeezenet1_1-")}
    assert len(rows) == 5
    for size in (1, 4, 8, 16, 32):
        row = rows[f"squeezenet1_1-bs{size}-ascend310"]
        judged = size in (1, 16)
        assert ("fps a card" in row, "recorded, as guide-003 does" in row) == (judged, not judged)


def test_plan_takes_the_target_that_pytest_would_find(run, monkeypatch):
    monkeypatch.setattr(
        "harness.targets.registry.located",
        lambda settings: with_target(settings, "ascend310", "the NPU that npu-smi shows"),
    )
    output = run("plan", "--models=resnest50", "-m", "throughput").output
    assert "target ascend310: the NPU that npu-smi shows" in output
    assert "resnest50-bs1-ascend310 " in output
    assert "310p3" not in output


def test_plan_shows_the_minutes_of_earlier_runs(run, tmp_path):
    words = ("plan", "--rehearsal", f"--catalog={TINY}", "-m", "accuracy", "--batch-sizes=4")
    output = run(*words).output
    assert "not known" in output
    line = samples.case("tiny", 4, outcome="passed").model_dump(mode="json")
    line |= {"machine": {"hostname": os.uname().nodename}, "seconds": 320.0, "stages": []}
    folder = tmp_path / "runs" / "20261120-000000-aaaa"
    folder.mkdir(parents=True)
    (folder / "results.jsonl").write_text(json.dumps(line) + "\n")
    output = run(*words).output
    assert output.count("5\N{NO-BREAK SPACE}min 20\N{NO-BREAK SPACE}s") == 2
    assert "(1 run)" in output
    assert "with everything in the store" in output


def test_a_rehearsals_plan_speaks_of_no_published_figure(run):
    for kind in ("--rehearsal", "--simulate-ascend"):
        output = run("plan", kind).output
        assert "top-1" not in output
        assert "fps" not in output
        assert "only recorded" not in output


# why -------------------------------------------------------------------------------------


def test_without_its_requirements_the_program_says_how_to_get_them():
    code, output = run_python(["-S", "-m", "harness", "plan"])
    assert code == 4
    assert "typer is not installed in" in output
    assert ". .venv/bin/activate, or python -m pip install -r requirements.txt" in output
    assert "Traceback" not in output


def test_why_reads_a_run_and_annotates_in_a_workflow(run, tmp_path):
    samples.write(tmp_path, samples.run_records([samples.case(outcome="error")], exit_status=1))
    done = run("why", tmp_path)
    assert done.exit_code == 0
    assert "RUN FAILED: toolchain" in done.output
    assert "::error" not in done.output
    done = run("why", tmp_path, GITHUB_ACTIONS="true")
    (line,) = [line for line in done.output.splitlines() if line.startswith("::")]
    assert line.startswith("::error title=Acceptance%3A toolchain::")
    assert "::notice title=Acceptance%3A passed::" in run("why", "--exit-code=0", "--github").output


def test_every_option_is_in_one_group_of_the_help():
    assert {option.group for option in OPTIONS} == set(GROUPS)
