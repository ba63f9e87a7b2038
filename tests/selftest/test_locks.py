"""`harness.base.locks`: who holds what, and who may not."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from harness.base import locks
from harness.base.locks import FileLock, LockTimeout, holder_of, left_behind, locked
from tests.selftest.running import PATIENCE_S, ROOT, descriptors, eventually


def is_free(path: Path, *, exclusive: bool = True) -> bool:
    lock = FileLock(path)
    try:
        lock.acquire(exclusive=exclusive, timeout_s=0, what="look")
    except LockTimeout:
        return False
    lock.release()
    return True


def test_an_exclusive_lock_excludes_everybody_until_it_is_released(tmp_path):
    path = tmp_path / "deep" / "a.lock"
    with pytest.raises(RuntimeError), locked(path, what="build"):
        assert not is_free(path)
        assert not is_free(path, exclusive=False)
        raise RuntimeError
    assert is_free(path)
    assert path.exists()  # never deleted


def test_shared_holders_keep_an_exclusive_one_out_and_are_all_named(tmp_path):
    path = tmp_path / "a.lock"
    with locked(path, exclusive=False, what="one"), locked(path, exclusive=False, what="two"):
        with locked(path, exclusive=False, what="gone"):
            pass
        assert not is_free(path)
        text = holder_of(path)
        assert "one" in text and "two" in text and "gone" not in text
        assert is_free(path, exclusive=False)
    assert is_free(path)


def test_timeout_names_the_holder_and_leaves_no_descriptor_open(tmp_path):
    path = tmp_path / "a.lock"
    before = descriptors()
    with locked(path, what="compiling resnest50-bs4"), pytest.raises(LockTimeout) as caught:
        FileLock(path).acquire(timeout_s=0.05, what="other")
    for part in ("compiling resnest50-bs4", str(os.getpid()), socket.gethostname()):
        assert part in caught.value.holder
    assert caught.value.holder in str(caught.value)
    assert descriptors() <= before


def test_a_name_left_by_the_dead_is_said_to_be_so(tmp_path):
    path = tmp_path / "a.lock"
    gone = subprocess.Popen(["true"])
    gone.wait()
    name = {"host": socket.gethostname(), "what": "old", "since": "then", "token": "t"}
    path.write_text(json.dumps({**name, "pid": gone.pid}) + "\n")
    assert "what is left of old" in holder_of(path)
    path.write_text(json.dumps({**name, "pid": gone.pid, "host": "elsewhere"}) + "\n")
    assert "old" in holder_of(path) and "left of" not in holder_of(path)


@pytest.mark.parametrize("text", [b"", b"{half", b"[]\n7\nnull\n", b'{"pid": "x"}\n', b"\xff\xfe"])
def test_a_damaged_name_is_not_an_error(tmp_path, text):
    path = tmp_path / "a.lock"
    path.write_bytes(text)
    assert holder_of(path) == "a process that left no name"
    assert is_free(path)


def test_names_of_shared_holders_do_not_fill_the_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "NAMES_BYTES", 1000)
    path = tmp_path / "a.lock"
    for _ in range(50):
        with locked(path, exclusive=False, what="case"):
            pass
    assert path.stat().st_size < 2000


def test_held_while_the_holder_is_stopped_and_free_after_kill_9(tmp_path):
    path = tmp_path / "a.lock"
    code = (
        "import sys, time; from pathlib import Path; from harness.base.locks import FileLock\n"
        "FileLock(Path(sys.argv[1])).acquire(what='victim'); print('held', flush=True)\n"
        "time.sleep(600)"
    )
    # The lock object is garbage at once: a lock lives as long as its descriptor, not its object.
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], cwd=ROOT, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout and child.stdout.readline() == b"held\n"
        child.send_signal(signal.SIGSTOP)
        assert not is_free(path)
        assert "victim" in holder_of(path) and "left of" not in holder_of(path)
        assert eventually(lambda: "is stopped" in holder_of(path))
        assert left_behind(path) == ""
        child.send_signal(signal.SIGKILL)
    assert is_free(path)


@pytest.mark.parametrize("leave", [True, False])
def test_a_child_holds_on_after_leave_and_not_after_release(tmp_path, leave):
    path = tmp_path / "a.lock"
    lock = FileLock(path)
    lock.acquire(what="worker of a case")
    child = subprocess.Popen(["sleep", "600"], pass_fds=[lock.fd])
    try:
        lock.leave() if leave else lock.release()
        assert is_free(path) is not leave
        assert ("what is left of worker of a case" in left_behind(path)) == leave
    finally:
        child.kill()
        child.wait()
    assert is_free(path) and left_behind(path) == ""


def test_a_deleted_file_is_not_locked_in_vain(tmp_path):
    path = tmp_path / "a.lock"
    old = FileLock(path)
    old.acquire(what="old")
    waiter = FileLock(path)
    swapped: list[bool] = []

    def swap(holder: str) -> None:
        if not swapped:
            swapped.append(True)
            path.unlink()
            path.touch()
            old.release()

    def wait() -> None:
        waiter.acquire(what="new", timeout_s=PATIENCE_S, on_wait=swap, notice_s=0)

    thread = threading.Thread(target=wait)
    thread.start()
    thread.join(PATIENCE_S)
    assert swapped
    assert not is_free(path)  # the file that is there now
    waiter.release()


def test_only_a_regular_file_is_a_lock(tmp_path):
    (tmp_path / "target").touch()
    (tmp_path / "link").symlink_to(tmp_path / "target")
    (tmp_path / "dangling").symlink_to(tmp_path / "absent")
    os.link(tmp_path / "target", tmp_path / "hard")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "dangling", "hard", "pipe"):
        for for_all in (False, True):
            with pytest.raises(OSError, match=name):
                FileLock(tmp_path / name, for_all=for_all).acquire(what="case", timeout_s=0)
    assert not (tmp_path / "absent").exists()
    assert (tmp_path / "target").read_bytes() == b""
    for name in ("link", "pipe"):  # as one that waits for a holder names it
        assert holder_of(tmp_path / name) == "a process that left no name"


# --- between users ----------------------------------------------------------------------------


ROOT_USER = os.geteuid() == 0


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o7777


@pytest.fixture
def private():
    """The umask of a careful user."""
    before = os.umask(0o077)
    yield
    os.umask(before)


@pytest.mark.usefixtures("private")
def test_modes_of_locks_for_all_and_of_others(tmp_path):
    path = tmp_path / "srv" / "leases" / "a.lock"
    for lock in (path, path.with_name("b.lock")):
        with locked(lock, what="case", for_all=True):
            assert mode(lock) == (0o666 if ROOT_USER else 0o600)
    # Root's is everybody's: they make files there, and delete only their own.
    assert mode(path.parent) == (0o1777 if ROOT_USER else 0o700)
    assert mode(path.parent.parent) == 0o755  # through which they must pass
    path = tmp_path / "store" / "a.lock"
    for for_all in (False, True):  # what is there keeps its mode
        with locked(path, what="build", for_all=for_all):
            assert (mode(path.parent), mode(path)) == (0o700, 0o600)


def test_a_folder_for_all_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "leases"):
        with pytest.raises(OSError, match="file"):
            FileLock(folder / "a.lock", for_all=True).acquire(what="case", timeout_s=0)


def test_a_lock_file_that_another_process_makes_first(tmp_path, monkeypatch):
    path = tmp_path / "a.lock"
    real = locks._open_existing

    def late(path: Path, folder: int | None) -> int:
        monkeypatch.setattr(locks, "_open_existing", real)
        try:
            return real(path, folder)
        finally:
            path.touch()

    monkeypatch.setattr(locks, "_open_existing", late)
    assert is_free(path)
