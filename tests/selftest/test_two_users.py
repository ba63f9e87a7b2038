"""What another user of the host can do to our locks, tried by two users. Needs root."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness.base import locks
from harness.base.errors import DeviceError
from harness.base.locks import lease_folder, shared
from harness.base.stages import Stage
from harness.base.store import Store
from harness.base.store_care import tidy
from harness.targets.leases import lease
from harness.targets.protocol import Device

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become two users")
CPU = Device("cpu", 0, "host", "host")
ALICE, MALLORY = 65533, 65534


@contextmanager
def user(number: int) -> Iterator[None]:
    """Do what is in the block as another user, with a careful umask and none of root's rights."""
    groups, before = os.getgroups(), os.umask(0o077)
    os.setgroups([])
    os.setegid(number)
    os.seteuid(number)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)
        os.umask(before)


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder as `/`: `/tmp` in it is everybody's, `/var/lib` root's, `/home/alice` Alice's."""
    with tempfile.TemporaryDirectory() as name:  # pytest's own is closed to others
        root = Path(name)
        for folder, mode in ((".", 0o755), ("tmp", 0o1777), ("var/lib", 0o755), ("home", 0o755)):
            (root / folder).mkdir(parents=True, exist_ok=True)
            (root / folder).chmod(mode)
        (root / "home" / "alice").mkdir(mode=0o700)
        os.chown(root / "home" / "alice", ALICE, ALICE)
        monkeypatch.setattr(locks, "SHARED", root / "var" / "lib" / "npu-acceptance" / "leases")
        monkeypatch.setenv("HOME", str(root / "home" / "alice"))
        yield root


def take(folder: Path) -> str:
    """Take the CPU alone, for a moment; return who has it where it is not free."""
    try:
        with lease(CPU, folder, exclusive=True, timeout_s=0, what="a case"):
            return ""
    except DeviceError as error:
        return error.message


def test_the_users_of_a_host_share_what_root_made(host: Path) -> None:
    folder = lease_folder()
    assert folder == locks.SHARED
    with lease(CPU, folder, exclusive=True, timeout_s=0, what="root's case"):
        pass
    for one, other in ((ALICE, MALLORY), (MALLORY, ALICE)):
        with user(one):
            assert lease_folder() == folder and shared(folder)
            holding = lease(CPU, folder, exclusive=True, timeout_s=0, what=f"case of {one}")
            holding.__enter__()
        with user(other):
            assert f"case of {one}" in take(folder)
            with pytest.raises(PermissionError):  # it is not the other's file
                (folder / "cpu-0.lock").unlink()
            with pytest.raises(OSError):
                folder.rename(folder.with_name("away"))
        holding.__exit__(None, None, None)


def test_without_it_each_user_has_a_folder_that_nobody_else_can_prepare(host: Path) -> None:
    with user(ALICE):
        folder = lease_folder()
        assert folder.is_relative_to(host / "home" / "alice") and not shared(folder)
        assert take(folder) == ""
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    with user(MALLORY), pytest.raises(PermissionError):
        (folder / "cpu-0.lock").touch()
    with user(MALLORY):  # has no home here
        assert lease_folder() == Path("/tmp", f"npu-acceptance-leases-{MALLORY}")


@pytest.mark.parametrize("victim", [0, ALICE], ids=["root", "a user"])
@pytest.mark.parametrize("trap", ["folder", "open folder", "link", "link to ours"])
def test_a_folder_that_another_prepared_is_refused(host: Path, victim: int, trap: str) -> None:
    place, ours = host / "tmp" / "leases", host / "home" / "alice" / "precious"
    ours.mkdir()
    os.chown(ours, victim, victim)
    with user(MALLORY):
        if trap == "link to ours":
            place.symlink_to(ours)
        elif trap == "link":
            (host / "tmp" / "elsewhere").mkdir(mode=0o777)
            place.symlink_to("elsewhere")
        else:
            place.mkdir()
            place.chmod(0o1777 if trap == "open folder" else 0o755)
    with user(victim) if victim else pytest.MonkeyPatch.context():
        refusal = take(place)
    assert ("link" if "link" in trap else f"user {MALLORY}") in refusal
    assert list(ours.iterdir()) == list(place.iterdir()) == []


def test_an_entry_that_another_user_reads_is_in_use(host: Path) -> None:
    def build(staging: Path) -> str:
        (staging / "file").write_text("x")
        return ""

    key = Store(host / "store").get_or_build(Stage.EXPORT, {}, build).key
    with user(ALICE):
        reader = Store(host / "store")
        assert reader.get(Stage.EXPORT, {}) is not None
    assert len(tidy(Store(host / "store"), key=key).kept) == 1
    del reader
    assert len(tidy(Store(host / "store"), key=key).removed) == 1


def test_a_folder_without_the_sticky_bit_is_refused(host: Path) -> None:
    place = host / "leases"
    place.mkdir()
    for mode in (0o777, 0o775, 0o2770):
        place.chmod(mode)
        assert "sticky" in take(place)
        place.chmod(mode | stat.S_ISVTX)
        assert take(place) == ""
    os.chown(place, ALICE, ALICE)
    place.chmod(0o775)
    with user(ALICE):  # whose group is often hers alone
        assert take(place) == ""


@pytest.mark.parametrize("trap", ["link", "pipe", "folder"])
def test_what_another_put_in_place_of_a_lock_is_neither_followed_nor_waited_for(host, trap):
    folder, precious = host / "tmp", host / "home" / "precious"
    precious.write_text("ours")
    with user(MALLORY):
        lock = folder / "cpu-0.lock"
        if trap == "link":
            lock.symlink_to(precious)
        elif trap == "pipe":
            os.mkfifo(lock)
            lock.chmod(0o644)  # which we may read: without a writer that would wait for ever
        else:
            lock.mkdir()
    assert "cannot be taken" in take(folder)
    with user(ALICE):
        assert "cannot be taken" in take(folder)
    assert precious.read_text() == "ours"
    assert stat.S_IMODE(precious.stat().st_mode) == 0o644
