"""The workflows and the nightly script: well formed, least rights, and really run."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.base.families import available
from harness.judge.causes import Exit
from harness.records import reader
from harness.report import exports, why
from harness.settings import OPTIONS
from tests.selftest import report_samples as samples
from tests.selftest.running import PATIENCE_S, ROOT, TINY, on_one_core

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
NIGHTLY = ROOT / "ci" / "nightly.sh"
# What a job may besides reading.
RIGHTS = {"issue": {"issues": "write"}, "pages": {"pages": "write", "id-token": "write"}}
SCRIPTS = [NIGHTLY, ROOT / ".ci" / "run"]


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def steps(path: Path) -> list[dict[str, Any]]:
    return [step for job in load(path)["jobs"].values() for step in job["steps"]]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
class TestWorkflow:
    def test_actions_are_pinned_by_digest_with_their_version_beside_it(self, path):
        lines = [line for line in path.read_text().splitlines() if "uses:" in line]
        assert len(lines) >= 2
        for line in lines:
            assert re.fullmatch(r"\s*-?\s*uses: [\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line), line

    def test_it_may_only_read_where_it_runs_what_is_checked_out(self, path):
        data = load(path)
        assert data["permissions"] == {"contents": "read"}
        for name, job in data["jobs"].items():
            assert job.get("permissions") == RIGHTS.get(name)
            if name in RIGHTS:
                assert job["runs-on"] == "ubuntu-24.04"
                assert "vars.NIGHTLY_" in job["if"]
                assert not [one for one in job["steps"] if "checkout" in one.get("uses", "")]
        assert "pull_request_target" not in path.read_text()
        assert "secrets." not in path.read_text()
        for step in steps(path):
            if "checkout" in step.get("uses", ""):
                assert step["with"]["persist-credentials"] is False

    def test_no_expression_is_written_into_a_script(self, path):
        # What a person types into a form must not become a part of a program.
        assert not [step["run"] for step in steps(path) if "${{" in step.get("run", "")]

    def test_every_job_ends_and_keeps_its_run(self, path):
        for job in load(path)["jobs"].values():
            assert 0 < job["timeout-minutes"] <= 720
            if "permissions" in job:
                continue  # it runs no acceptance
            (kept,) = [step for step in job["steps"] if "upload-artifact" in step.get("uses", "")]
            assert kept["if"].startswith("always()")
            assert kept["with"]["retention-days"]

    def test_the_commands_that_it_runs_are_there(self, path):
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M)
        for step in steps(path):
            for name in re.findall(r"\bmake (?:\w+=\S+ )*([a-z][\w-]*)", step.get("run", "")):
                assert name in targets, name
            for name in re.findall(r"(?:^|\s)(\.?ci/[\w.]+)", step.get("run", "")):
                assert os.access(ROOT / name, os.X_OK), name


def test_nights_do_not_overlap_and_leave_their_things_on_the_runner():
    job = load(ROOT / ".github" / "workflows" / "nightly.yml")["jobs"]["accept"]
    assert job["concurrency"]["cancel-in-progress"] is False
    assert "matrix.target" in job["concurrency"]["group"]
    (usual,) = re.findall(r"\|\| '(\[.*\])'", job["strategy"]["matrix"]["target"])
    assert json.loads(usual) == ["ascend310p3", "ascend910b3"]
    assert set(json.loads(usual)) <= set(available())
    assert job["strategy"]["fail-fast"] is False
    assert job["runs-on"][0] == "self-hosted"
    for name in ("HARNESS_STORE", "HARNESS_RUNS", "NIGHTLY_PYTHON"):
        assert job["env"][name].startswith("${{ vars.NIGHTLY_HOME || ")
    # The script ends the night before the runner would cut it off.
    assert float(job["env"]["NIGHTLY_HOURS"]) * 60 < job["timeout-minutes"]


@pytest.mark.parametrize("name", ["nightly.yml", "zoo.yml"])
def test_what_takes_long_starts_by_schedule_and_by_hand_alone(name):
    triggers = load(ROOT / ".github" / "workflows" / name)[True]  # YAML 1.1: on
    assert set(triggers) == {"schedule", "workflow_dispatch"}


def run_step(job: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the one script of a job of the nightly workflow, as GitHub does."""
    found = load(ROOT / ".github" / "workflows" / "nightly.yml")["jobs"][job]["steps"]
    (script,) = [one["run"] for one in found if "run" in one]
    return subprocess.run(
        ["bash", "-e", "-c", script],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )


def test_a_decline_gets_one_issue_while_it_lasts(tmp_path):
    gh = tmp_path / "gh"
    gh.write_text(
        f'#!/bin/sh\ncase "$2" in list) cat {tmp_path}/open;; '
        f'create) echo "$3" >>{tmp_path}/open; cat >{tmp_path}/body;; esac\n'
    )
    gh.chmod(0o755)
    public = tmp_path / "nights" / "ascend310-1-1" / "public"
    public.mkdir(parents=True)
    (public / "declines-ascend310.txt").write_text("resnest50-bs1-ascend310 (throughput)\n")
    (public / "declines-ascend310p3.txt").write_text("")
    opened = tmp_path / "open"
    opened.write_text("Decline on ascend310p3\n")
    given = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "NIGHT": "https://night"}
    assert run_step("issue", tmp_path, **given).returncode == 0
    assert opened.read_text().splitlines()[1:] == ["--title=Decline on ascend310"]
    body = (tmp_path / "body").read_text()
    assert body == "    resnest50-bs1-ascend310 (throughput)\n\nhttps://night\n"
    opened.write_text("Decline on ascend310\n")
    assert run_step("issue", tmp_path, **given).returncode == 0
    assert opened.read_text() == "Decline on ascend310\n"


def test_the_pages_of_all_targets_are_published_and_never_none(tmp_path):
    assert run_step("pages", tmp_path).returncode != 0
    shutil.rmtree(tmp_path / "site")
    for target in ("ascend310", "ascend310p3"):
        public = tmp_path / "nights" / f"{target}-1-1" / "public"
        public.mkdir(parents=True)
        (public / f"page-{target}.html").write_text(target)
        (public.parent / "trend.html").write_text("its links lead to the runs")
    assert run_step("pages", tmp_path).returncode == 0
    site = tmp_path / "site"
    assert sorted(one.name for one in site.iterdir()) == [
        *("index.html", "page-ascend310.html", "page-ascend310p3.html")
    ]
    assert (site / "index.html").read_text().count("<a href=") == 2


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_sound(path):
    assert os.access(path, os.X_OK)
    assert "set -euo pipefail" in path.read_text()
    program = shutil.which("shellcheck")
    command = [program, str(path)] if program else ["bash", "-n", str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


# The script, run -------------------------------------------------------------------------


@pytest.fixture
def night(tmp_path, shared):
    """Run `ci/nightly.sh`; its variables come from a file, as on a runner."""

    def night(*arguments, environment=(), **variables):
        file = tmp_path / "nightly.env"
        values = {
            "HARNESS_STORE": shared / "store",
            "HARNESS_RUNS": tmp_path / "runs",
            "HARNESS_LEASES": tmp_path / "leases",
            "HARNESS_CATALOG": TINY,
            "NIGHTLY_PYTHON": sys.executable,
            **variables,
        }
        file.write_text("".join(f"{name}='{value}'\n" for name, value in values.items()))
        clean = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("HARNESS_", "PYTEST_", "IMAGENET_", "GITHUB_", "NIGHTLY_"))
        }
        return subprocess.run(
            [str(NIGHTLY), "-e", str(file), *arguments],
            env={**clean, **dict(environment)},
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=4 * PATIENCE_S,
            preexec_fn=on_one_core,
        )

    return night


CHAIN = "--simulate-ascend --batch-sizes=4 --budget=0.2 --timing-precision=50 --no-diagnosis"


def test_a_night_that_fails_keeps_its_code_and_says_why_at_its_end(night, built, tmp_path):
    done = night(
        "-p",
        "no:cacheprovider",
        *CHAIN.split(),
        "--simulator=fault=nan",
        "-m",
        "accuracy",
        environment={
            "GITHUB_ACTIONS": "true",
            "GITHUB_OUTPUT": str(tmp_path / "output"),
            "GITHUB_STEP_SUMMARY": str(tmp_path / "summary"),
        },
    )
    assert done.returncode == 1, done.stdout
    (run,) = [path for path in (tmp_path / "runs").glob("2*") if path.is_dir()]
    ended = reader.read(run).end
    assert ended and ended.exit_status == 1
    end = done.stdout[done.stdout.index("RUN FAILED: model") :]
    assert "tiny-bs4-ascend310p3" in end
    assert "::error title=Acceptance%3A model::" in end
    assert (tmp_path / "output").read_text() == f"run={run}\n"
    assert "SIMULATED" in (tmp_path / "summary").read_text()
    assert (tmp_path / "runs" / "trend-simulated.html").is_file()
    assert (run / "report.html").is_file()
    assert (run / "junit.xml").is_file()


@pytest.fixture
def played(tmp_path):
    """Make a Python whose pytest leaves a run that is given, says its arguments and does a last
    thing; all else is the real one's.
    """

    def played(records, last):
        kept = samples.write(tmp_path / "kept", records)
        run = tmp_path / "runs" / "20261120-073000-1a2b"
        run.parent.mkdir()
        python = tmp_path / "python"
        python.write_text(
            f'#!/bin/sh\ncase "$*" in "-m pytest"*) cp -r {kept} {run} && ln -s {run.name} '
            f'{run.parent}/latest && echo "asked: $@" && {last};; esac\n'
            f'exec {sys.executable} "$@"\n'
        )
        python.chmod(0o755)
        return python

    return played


def test_a_good_night_takes_its_arguments_from_the_file_and_tidies_the_store(night, played):
    python = played(samples.run_records([samples.case("a", 1)]), "exit 0")
    done = night(NIGHTLY_ARGS="-k 1 -m throughput", NIGHTLY_STORE_GB=100, NIGHTLY_PYTHON=python)
    assert done.returncode == 0, done.stdout
    assert "asked: -m pytest -k 1 -m throughput\n" in done.stdout
    assert "RUN PASSED" in done.stdout
    assert "0 artifacts, 0 bytes removed" in done.stdout
    assert "::" not in done.stdout.replace(".py::", "")


def test_a_second_night_is_refused_while_the_first_runs(night, tmp_path):
    lock = tmp_path / "lock"
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        done = night("--rehearsal", NIGHTLY_LOCK=lock)
    assert done.returncode == 75
    assert "another night still runs" in done.stdout
    assert "NOTHING RAN: overlap" in done.stdout
    assert not list((tmp_path / "runs").glob("2*"))


def test_a_night_without_a_run_says_so_and_blames_no_earlier_one(night, tmp_path):
    runs = tmp_path / "runs"
    runs.mkdir()
    (runs / "latest").symlink_to("20260101-000000-aaaa")
    done = night("--rehearsal", "--models=tinyy")
    assert done.returncode == 4
    assert "did you mean 'tiny'" in done.stdout
    assert "RUN FAILED: input" in done.stdout
    assert "20260101" not in done.stdout


def test_a_night_that_is_stopped_says_one_thing_of_what_it_left(night, played):
    """Its records say that it was interrupted: the script knows by what."""
    records = samples.run_records(
        [samples.case("a", 1)], lost=[samples.planned(samples.case("b", 1))], exit_status=2
    )
    slow = played(records, "exec sleep 600")
    done = night("--rehearsal", NIGHTLY_PYTHON=slow, NIGHTLY_HOURS="0.001")
    assert done.returncode == 7, done.stdout
    end = done.stdout[done.stdout.index("RUN STOPPED: time limit") :]
    assert "limit of 0.001 hours: 1 of 2 cases done (1 passed)" in end
    assert "not reached, or not finished: accuracy of b-bs1-cpu" in end
    assert "Nobody failed" not in done.stdout
    assert "its records say" not in done.stdout


TOLD = (
    'import json, os, sys; names = "CODE", "RUN", "SUMMARY", "JSON", "NOTIFY"; '
    'told = {name: os.environ.get(f"NIGHTLY_{name}") for name in names}; '
    "print(json.dumps({**told, 'stdin': sys.stdin.read()}))"
)


@pytest.fixture
def notice(tmp_path):
    """A command for NIGHTLY_NOTIFY, and what it was told."""
    program, told = tmp_path / "notice.py", tmp_path / "told.json"
    program.write_text(TOLD)
    command = f'"{sys.executable}" "{program}" >"{told}"'
    return command, lambda: json.loads(told.read_text())


def test_a_notice_has_code_summary_and_first_screen(night, played, notice, tmp_path):
    command, told = notice
    worse = samples.run_records([samples.case("a", 1, outcome="failed")], exit_status=1)
    python = played(worse, 'echo "seen: ${NIGHTLY_NOTIFY-none}" && exit 1')
    exports.write_all(reader.read(tmp_path / "kept"))
    done = night(
        NIGHTLY_NOTIFY=command, NIGHTLY_PYTHON=python, environment={"GITHUB_ACTIONS": "true"}
    )
    assert done.returncode == 1, done.stdout
    assert "seen: none" in done.stdout
    text = told()
    assert (text["CODE"], text["NOTIFY"]) == ("1", None)
    assert Path(text["RUN"]).parent == tmp_path / "runs"
    assert text["SUMMARY"] == f"{text['RUN']}/summary.md"
    assert "RUN FAILED: model" in text["stdin"]
    assert "::error" in done.stdout
    assert "::" not in text["stdin"]
    sent = json.loads(text["JSON"])
    assert text["stdin"].startswith(sent)
    assert len(sent.encode()) <= 2000


@pytest.mark.parametrize(
    ("variables", "code", "said"),
    [({"NIGHTLY_HOURS": "many"}, "4", "not a number of hours"), ({}, "75", "NOTHING RAN: overlap")],
    ids=["input", "overlap"],
)
def test_a_night_that_ran_nothing_is_told_of_too(night, notice, tmp_path, variables, code, said):
    command, told = notice
    with (tmp_path / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX if code == "75" else fcntl.LOCK_UN)
        night(NIGHTLY_NOTIFY=command, NIGHTLY_LOCK=tmp_path / "lock", **variables)
    assert (told()["CODE"], told()["RUN"], told()["SUMMARY"]) == (code, "", "")
    assert said in told()["stdin"]


@pytest.mark.parametrize("command", ["echo SECRET; sleep 600", "exit 3", "kill -9 $$", "( SECRET"])
def test_a_notice_that_fails_or_hangs_leaves_the_code_and_no_secret(night, played, command):
    python = played(samples.run_records([samples.case("a", 1)]), "exit 0")
    done = night(NIGHTLY_NOTIFY=command, NIGHTLY_NOTIFY_S="0.5", NIGHTLY_PYTHON=python)
    assert done.returncode == 0, done.stdout
    assert "NIGHTLY_NOTIFY ended with" in done.stdout
    assert "SECRET" not in done.stdout


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"NIGHTLY_PYTHON": "/nowhere/python"}, "set NIGHTLY_PYTHON"),
        ({"NIGHTLY_HOURS": "many"}, "is not a number of hours"),
        ({"HARNESS_RUNS": "/proc/runs"}, "cannot make"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_wrong_setting_of_the_night_is_an_input_error(night, variables, said):
    done = night("--rehearsal", **variables)
    assert done.returncode == 4
    assert said in done.stdout


def test_an_environment_file_that_is_absent_or_fails_is_an_input_error(tmp_path):
    def run(file):
        done = subprocess.run([str(NIGHTLY), "-e", str(file)], capture_output=True, text=True)
        return done.returncode, done.stderr

    code, said = run(tmp_path / "absent.env")
    assert (code, "cannot be read" in said) == (4, True)
    broken = tmp_path / "broken.env"
    broken.write_text("A=1\nfalse\n")
    code, said = run(broken)
    assert (code, "broken.env failed" in said) == (4, True)


# The document ----------------------------------------------------------------------------

DOCUMENT = (ROOT / "docs" / "nightly.md").read_text(encoding="utf-8")


def test_the_document_says_every_exit_code_and_its_word():
    rows = dict(re.findall(r"^\| (\d+) \| ([\w, ]+) \|", DOCUMENT, re.M))
    assert {int(code) for code in rows} == {*map(int, Exit), why.OVERLAP}
    for code, words in rows.items():
        assert why.first_screen(None, int(code)).word in words.split(", ")


def test_the_document_and_the_workflow_name_variables_that_the_script_knows():
    script = NIGHTLY.read_text(encoding="utf-8")
    texts = [path.read_text() for path in WORKFLOWS]
    ours = {f"NIGHTLY_{name}" for name in re.findall(r"vars\.NIGHTLY_(\w+)", "".join(texts))}
    assert ours == {"NIGHTLY_HOME", "NIGHTLY_ISSUES", "NIGHTLY_PAGES"}
    assert all(f"`{name}`" in DOCUMENT for name in ours)
    known = set(re.findall(r"NIGHTLY_\w+", script)) | ours
    for text in (DOCUMENT, *texts):
        assert set(re.findall(r"NIGHTLY_\w+", text)) <= known
    options = {option.environment for option in OPTIONS}
    for text in (DOCUMENT, script, *(path.read_text() for path in WORKFLOWS)):
        assert set(re.findall(r"HARNESS_\w+", text)) <= options


@pytest.mark.parametrize("line", re.findall(r"^NIGHTLY_NOTIFY='(.*)'$", DOCUMENT, re.M))
def test_the_notices_of_the_document_send_the_first_screen_as_json(line, tmp_path):
    curl = tmp_path / "curl"
    curl.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >{tmp_path}/sent\n')
    curl.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    text = 'RUN FAILED: "model" \\ $HOME `id` \N{GREEK SMALL LETTER MU}'
    given = {"PATH": path, "NIGHTLY_CODE": "1", "NIGHTLY_JSON": json.dumps(text)}
    subprocess.run(["bash", "-c", line], env=given, check=True, timeout=PATIENCE_S)
    *_, body, address = (tmp_path / "sent").read_text().splitlines()
    sent = json.loads(body)
    inner = sent.get("content") or sent["text"]
    assert text == inner or text in inner.values()
    assert re.fullmatch(r"https://[\w./?=-]+(/|=)(TOKEN|A/B/TOKEN)", address)
