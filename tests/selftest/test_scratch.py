"""`harness.base.scratch`: what killed processes left goes, what is used stays."""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from harness.__main__ import app
from harness.base import locks, scratch
from harness.base.errors import StoreError
from harness.base.store import Store
from harness.base.store_care import tidy_dead
from harness.run.engine import Run
from harness.settings import resolve
from tests.selftest.running import ROOT, TINY

HOLD = """
import sys, time
from pathlib import Path
from harness.base import scratch
with scratch.folder("job", sys.argv[1]) as folder:
    (folder / "spec.json").write_text("{}")
    print(folder, flush=True)
    time.sleep(600)
"""


def test_a_folder_goes_with_its_block_or_with_the_next_run(tmp_path: Path) -> None:
    with scratch.folder("job", tmp_path) as ours:
        (ours / "file").write_text("x")
        argv = [sys.executable, "-c", HOLD, str(tmp_path)]
        with subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            theirs = Path(child.stdout.readline().strip())
            scratch.sweep(tmp_path)
            assert sorted(tmp_path.iterdir()) == sorted([ours, theirs])
            child.send_signal(signal.SIGKILL)
        assert (theirs / "spec.json").exists()
        scratch.sweep(tmp_path)
        assert list(tmp_path.iterdir()) == [ours]
    assert list(tmp_path.iterdir()) == []


def test_nothing_else_is_swept(tmp_path: Path) -> None:
    (tmp_path / "npu-acceptance-leases-0").mkdir()
    (tmp_path / "target").mkdir()
    (tmp_path / f"{scratch.PREFIX}link").symlink_to(tmp_path / "target")
    (tmp_path / f"{scratch.PREFIX}file").touch()
    before = sorted(tmp_path.iterdir())
    scratch.sweep(tmp_path)
    assert sorted(tmp_path.iterdir()) == before


def test_a_folder_that_is_swept_before_it_is_locked_is_made_again(tmp_path, monkeypatch):
    made: list[Path] = []

    def mkdtemp(*, prefix: str, dir: Path) -> str:
        path = dir / f"{prefix}{len(made)}"
        path.mkdir()
        made.append(path)
        if len(made) == 1:
            scratch.sweep(dir)
        return str(path)

    monkeypatch.setattr(scratch, "tempfile", SimpleNamespace(mkdtemp=mkdtemp))
    with scratch.folder("job", tmp_path) as folder:
        assert folder == made[1] and folder.is_dir()


def test_staging_of_dead_builds_goes_at_once_and_that_of_living_ones_stays(tmp_path: Path) -> None:
    store = Store(tmp_path)
    dead, living = (tmp_path / "staging" / f"export-{key}-1-0a1b2c3d" for key in ("aa", "bb"))
    for folder in (dead, living):
        (folder / "sub").mkdir(parents=True)
    with locks.locked(tmp_path / "locks" / "export-bb.lock", what="building export bb"):
        assert tidy_dead(store) == ()
        assert list((tmp_path / "staging").iterdir()) == [living]


def test_a_run_tidies_its_store(tmp_path: Path) -> None:
    left = tmp_path / "store" / "staging" / "export-aa-1-0a1b2c3d"
    left.mkdir(parents=True)
    run_of(tmp_path).begin([("case", run_of(tmp_path).plan.cases[0])])
    assert not left.exists()


def run_of(tmp_path: Path) -> Run:
    given = {name: str(tmp_path / name) for name in ("store", "runs", "leases")}
    return Run(resolve({"rehearsal": True, "catalog": str(TINY), **given}, {}))


def test_without_a_temporary_folder_a_run_says_so_and_gc_works(tmp_path, monkeypatch):
    def gettempdir() -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(scratch, "tempfile", SimpleNamespace(gettempdir=gettempdir))
    run = run_of(tmp_path)
    with pytest.raises(StoreError, match=r"temporary folder .*'/tmp'") as caught:
        run.begin([("case", run.plan.cases[0])])
    assert "\n" not in caught.value.message and "TMPDIR" in caught.value.remedy
    assert not run.directory.exists()
    done = CliRunner().invoke(app, ["cache", "gc", f"--store={tmp_path / 'store'}"])
    assert (done.exit_code, "0 artifacts" in done.output) == (0, True)
