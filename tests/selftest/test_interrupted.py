"""A run that is ended from outside: it says so, and keeps what was recorded."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from harness.base import processes
from harness.images.dataset import FIRST_LABELS
from harness.plugin import RunHooks
from harness.records import reader
from harness.run.case import CaseRun
from harness.run.engine import Run
from harness.settings import resolve
from tests.selftest.image_folders import lines, put_images, put_text
from tests.selftest.running import PATIENCE_S, ROOT, TINY, alive, eventually

QUICK_EXIT = ("-p", "tests.selftest.plugins.quick_exit")


@pytest.mark.parametrize(
    ("signals", "options"),
    [
        # Who waits presses Ctrl-C as well, while pytest works out what it interrupted.
        ([signal.SIGTERM, *[signal.SIGINT] * 7], []),
        # As `timeout` does: the process, then its group. xdist's workers write lines to their end.
        ([signal.SIGTERM, signal.SIGTERM], ["-n", "2", *QUICK_EXIT]),
    ],
    ids=["and SIGINT", "twice with workers"],
)
def test_an_interrupted_run_leaves_its_report_and_code_2(tmp_path, shared, built, signals, options):
    runs = tmp_path / "runs"
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HARNESS_")}
    command = [
        *(sys.executable, "-m", "pytest", "--simulate-ascend", "-m", "throughput"),
        *("--batch-sizes=4", "--simulator=fault=hang-run", f"--runs={runs}"),
        *(f"--catalog={TINY}", f"--store={shared / 'store'}", f"--leases={tmp_path / 'leases'}"),
        *options,
    ]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=clean,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        log = runs / "latest/logs/throughput-tiny-bs4-ascend310p3-load.log"
        assert eventually(lambda: log.is_file() or process.poll() is not None)
        for number in signals:
            process.send_signal(number)
            time.sleep(0.05)
        output, _ = process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()
        process.wait(PATIENCE_S)
    assert process.returncode == 2, output
    found = reader.read((runs / "latest").resolve())
    assert found.end and found.end.exit_status == 2
    assert not found.end.complete
    assert found.end.counts == found.counts()
    assert "Traceback" not in output
    assert (runs / "latest" / "report.html").is_file()
    assert (runs / "latest" / "junit.xml").is_file()


def test_a_run_that_ends_by_x_with_a_worker_keeps_the_code_of_its_failure(run_pytest, built):
    done = run_pytest(
        *("--simulate-ascend", "-m", "accuracy", "--batch-sizes=1,2,4,8", "-n", "1", "-x"),
        *("--simulator=fault=nan:any", "--no-diagnosis"),
    )
    assert done.code == 1, done.output  # an acceptance failed: xdist calls it interrupted
    assert done.records().end.stopped == "early (stopping after 1 failures)"
    assert "The run stopped early (stopping after 1 failures): " in done.output
    assert "The machine" not in done.output


def test_nothing_that_was_built_ahead_lives_on(shared, tmp_path, monkeypatch):
    options = {
        "simulate_ascend": True,
        "simulator": "atc_seconds=600",
        "batch_sizes": "4",
        "catalog": str(TINY),
        "store": str(shared / "store"),
        **{name: str(tmp_path / name) for name in ("runs", "leases")},
    }
    run = Run(resolve(options, environment={}))
    compilers: list[int] = []

    def compiling() -> bool:
        known = list(processes._running)
        compilers.extend(one.pid for one in known if "--framework=5" in str(one.args))
        return bool(compilers)

    def interrupted(*_):
        assert eventually(compiling)
        raise KeyboardInterrupt

    prepared = (SimpleNamespace(listing=nullcontext), None)
    monkeypatch.setattr(CaseRun, "prepare", lambda self: setattr(self, "_prepared", prepared))
    monkeypatch.setattr("harness.measure.attempt.measure", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run.execute(run.plan.of("accuracy"))
    assert not any(alive(pid) for pid in compilers)


def test_a_session_of_pytest_ends_what_is_built_ahead_before_its_workers():
    steps: list[str] = []
    run: Any = SimpleNamespace(
        worker="", begun=False, empty_shard=False, stop_building=lambda: steps.append("builds")
    )
    option = SimpleNamespace(collectonly=False)
    session: Any = SimpleNamespace(exitstatus=0, config=SimpleNamespace(option=option))
    for _ in RunHooks(run).pytest_sessionfinish(session):
        steps.append("workers")
    assert steps == ["builds", "workers"]


def test_an_input_error_keeps_its_code_with_x(run_pytest, tmp_path):
    put_images(tmp_path / "val", range(1, 16))
    put_text(tmp_path / "val_label.txt", lines([label + 1 for label in FIRST_LABELS]))
    words = ("--target=cpu", "-m", "accuracy", "--batch-sizes=1,2", "-x")
    done = run_pytest(*words, f"--imagenet={tmp_path}", f"--checkpoints={tmp_path}")
    assert done.code == 4, done.output
    assert "counts from 1" in done.output
    assert "The machine" not in done.output


STARTS = """
import sys, threading, time
from pathlib import Path
from harness.base import processes
from harness.images.dataset import FIRST_LABELS
code = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
log = Path(sys.argv[1])
def work():
    argv = [sys.executable, "-c", code]
    processes.run(argv, deadline_s=600, log=log, dies_with_us=sys.argv[2] == "dies")
threading.Thread(target=work, daemon=True).start()
while not log.is_file() or not log.read_text().strip():
    time.sleep(0.05)
pid = int(log.read_text())
assert processes.is_ours(pid) and not processes.is_ours(1)
print(pid, flush=True)
if sys.argv[2] == "dies":
    time.sleep(600)
"""


@pytest.mark.parametrize("how", ["ends", "dies"])
def test_what_a_process_started_ends_with_it(tmp_path, how):
    """Also with one that is killed, where the host has util-linux' setpriv, 2.33 or later."""
    if how == "dies" and processes.with_parent(["true"]) == ["true"]:
        pytest.skip("this host's setpriv cannot")
    process = subprocess.Popen(
        [sys.executable, "-c", STARTS, str(tmp_path / "log"), how],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    if how == "dies":
        process.kill()
    process.communicate(timeout=PATIENCE_S)
    assert eventually(lambda: not alive(pid))
