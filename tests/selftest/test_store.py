"""`harness.base.store`: never stale, never half, built once, and whole whenever it is read."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.base import locks, processes, uses
from harness.base import store as module
from harness.base.errors import CompileError, HarnessError, StoreError
from harness.base.stages import Stage
from harness.base.store import MANIFEST, Builder, Entry, Store, key_of, source_digest
from harness.base.store_care import explain, tidy
from tests.selftest.builders import (
    INPUTS,
    KIND,
    ROOT,
    files_below,
    forbidden,
    raises,
    refuse,
    writes,
)
from tests.selftest.running import eventually

# What a tool left.


@pytest.mark.parametrize("trap", ["link", "hard link", "dangling", "folder", "pipe"])
def test_what_is_no_file_of_its_own_is_not_published(tmp_path, trap):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "cache.om").write_text("the compiler's own")
    (outside / "cache.om").chmod(0o640)

    def build(staging: Path) -> str:
        (staging / "facts.json").write_text("{}")
        made = staging / "model.om"
        if trap == "hard link":
            made.hardlink_to(outside / "cache.om")
        elif trap == "pipe":
            os.mkfifo(made)
        else:
            names = {"link": "cache.om", "dangling": "absent", "folder": ""}
            made.symlink_to(outside / names[trap])
        return "the tool's log"

    store = Store(tmp_path / "store")
    with pytest.raises(StoreError, match=r"left model\.om") as caught:
        store.get_or_build(KIND, INPUTS, build)
    assert caught.value.log == "the tool's log"
    assert files_below(store.root) == []
    assert (outside / "cache.om").stat().st_mode & 0o777 == 0o640


# Keys.

CHANGES: list[dict[str, Any]] = [
    {"model": "tiny2"},
    {"batch_size": "4"},
    {"batch_size": None},
    {"flags": ["--b", "--a"]},
    {"flags": ["--a --b"]},
    {"target": {"os": "x", "driver": "1"}},
    {"target": "x"},
    {"more": ""},
]


def test_kind_format_and_each_input_change_the_key_and_their_order_does_not(monkeypatch):
    keys = {key_of(KIND, INPUTS), key_of(Stage.COMPILE, INPUTS)}
    keys |= {key_of(KIND, {**INPUTS, **change}) for change in CHANGES}
    keys |= {key_of(KIND, {k: v for k, v in INPUTS.items() if k != left}) for left in INPUTS}
    assert key_of(KIND, {name: INPUTS[name] for name in reversed(INPUTS)}) in keys
    monkeypatch.setattr(module, "FORMAT", module.FORMAT + 1)
    assert len(keys | {key_of(KIND, INPUTS)}) == 3 + len(CHANGES) + len(INPUTS)


def test_the_recipe_changes_with_the_source(tmp_path, monkeypatch):
    (tmp_path / "stages").mkdir()
    monkeypatch.setattr(module, "__file__", str(tmp_path / "base" / "store.py"))
    source = tmp_path / "stages" / "export.py"
    digests = []
    for text in ("a = 1\n", "a = 1\n", "a = 2\n"):
        source.write_text(text)
        digests.append(source_digest("harness.stages.export"))
    assert digests[0] == digests[1] != digests[2]


# Building and reading.


def test_built_once_then_read(tmp_path):
    store = Store(tmp_path)
    assert store.get(KIND, INPUTS) is None
    built = store.get_or_build(KIND, INPUTS, writes())
    assert (built.cached, built.kind, built.log) == (False, "export", "the tool's log")
    assert (built.file().read_text(), built.bytes) == ("bytes", 5)
    assert built.file().stat().st_mode & 0o222 == 0
    for reader in (store, Store(tmp_path)):
        read = reader.get_or_build(KIND, INPUTS, forbidden)
        assert read.cached
        assert (read.digest, read.file(), read.inputs) == (built.digest, built.file(), INPUTS)
    assert store.get(KIND, {**INPUTS, "batch_size": 8}) is None


def test_files_in_folders_and_their_digest(tmp_path):
    def build(staging: Path) -> str:
        return writes("b", "sub/b")(staging) + writes("a", "a")(staging)

    entry = Store(tmp_path).get_or_build(KIND, INPUTS, build)
    assert list(entry.files) == ["a", "sub/b"]
    assert entry.file("sub/b").read_text() == "b"
    read = Store(tmp_path).get(KIND, INPUTS)
    assert read is not None and read.digest == entry.digest != entry.files["a"].sha256


def test_a_build_without_files_is_refused_with_its_log(tmp_path):
    with pytest.raises(StoreError, match="left no file") as caught:
        Store(tmp_path).get_or_build(KIND, INPUTS, lambda staging: "what the tool said")
    assert caught.value.log == "what the tool said"
    assert files_below(tmp_path) == []


@pytest.mark.parametrize("error", [ValueError(), KeyboardInterrupt(), CompileError("no")], ids=repr)
def test_a_builder_that_raises_leaves_nothing(error, tmp_path):
    store = Store(tmp_path)
    with pytest.raises(type(error)):
        store.get_or_build(KIND, INPUTS, raises(error))
    assert files_below(tmp_path) == []
    assert store.get_or_build(KIND, INPUTS, writes()).file().read_text() == "bytes"


def test_an_entry_appears_whole_by_one_rename_of_what_is_on_the_disk(tmp_path, monkeypatch):
    steps: list[object] = []
    rename, fsync = Path.rename, os.fsync

    def watched(path: Path, target: Path) -> Path:
        assert not target.exists()
        steps.append((sorted(os.listdir(path)), target))
        return rename(path, target)

    def synced(fd: int) -> None:
        steps.append(os.path.basename(os.readlink(f"/proc/self/fd/{fd}")))
        fsync(fd)

    monkeypatch.setattr(Path, "rename", watched)
    monkeypatch.setattr(os, "fsync", synced)
    entry = Store(tmp_path).get_or_build(KIND, INPUTS, writes())
    whole = ([MANIFEST, "model.onnx"], entry.directory)
    assert steps == ["model.onnx", MANIFEST, whole]


# Several processes.


def other_process(root: Path, code: str) -> subprocess.Popen[str]:
    head = f"""
        import json, os, pathlib, signal, sys, time
        from harness.base.stages import Stage
        from harness.base.store import Store
        root, inputs = pathlib.Path({str(root)!r}), json.loads({json.dumps(INPUTS)!r})
        store, kind = Store(root), Stage.EXPORT
        """
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(head) + textwrap.dedent(code)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_who_waits_is_told_of_the_builder_and_gets_its_entry(tmp_path, monkeypatch):
    builder = other_process(
        tmp_path / "store",
        """
        def build(staging):
            (root.parent / "begun").touch()
            while not (root.parent / "told").exists():
                time.sleep(0.001)
            (staging / "model.onnx").write_text("theirs")
            return ""

        print(store.get_or_build(kind, inputs, build).digest)
        """,
    )
    assert eventually((tmp_path / "begun").exists)
    holders: list[str] = []

    def on_wait(holder: str) -> None:
        holders.append(holder)
        (tmp_path / "told").touch()

    acquire = locks.FileLock.acquire  # which tells at once here
    monkeypatch.setattr(
        locks.FileLock, "acquire", lambda self, **given: acquire(self, **given, notice_s=0.0)
    )
    entry = Store(tmp_path / "store", on_wait=on_wait).get_or_build(KIND, INPUTS, forbidden)
    assert (entry.file().read_text(), entry.cached) == ("theirs", True)
    assert f"process {builder.pid}" in holders[0] and "building export" in holders[0]
    assert builder.communicate(timeout=60)[0].strip() == entry.digest


def test_waiting_has_an_end(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LOCK_TIMEOUT_S", 0.02)
    lock = tmp_path / "locks" / f"export-{key_of(KIND, INPUTS)}.lock"
    with (
        locks.locked(lock, what="a build that hangs"),
        pytest.raises(StoreError, match="a build that hangs") as caught,
    ):
        Store(tmp_path).get_or_build(KIND, INPUTS, forbidden)
    assert "end the process" in caught.value.remedy


# Damage.


def manifest(change: Callable[[dict[str, Any]], Any]) -> Callable[[Entry], object]:
    def damage(entry: Entry) -> None:
        path = entry.directory / MANIFEST
        data = json.loads(path.read_text())
        path.write_text(json.dumps(change(data) or data))

    return damage


def text(content: str) -> Callable[[Entry], object]:
    return lambda entry: (entry.directory / MANIFEST).write_text(content)


def truncate(entry: Entry) -> None:
    os.truncate(entry.file(), 3)


def flip_a_byte(entry: Entry) -> None:
    """Change the content and no size or time of change that can be set."""
    before = entry.file().stat()
    entry.file().chmod(0o644)
    content = bytearray(entry.file().read_bytes())
    content[1] ^= 1
    entry.file().write_bytes(content)
    os.utime(entry.file(), ns=(before.st_atime_ns, before.st_mtime_ns))


def endless(make: Callable[[Path], object]) -> Callable[[Entry], object]:
    def damage(entry: Entry) -> None:
        (entry.directory / MANIFEST).unlink()
        make(entry.directory / MANIFEST)

    return damage


def of_file(**changes: Any) -> Callable[[Entry], object]:
    return manifest(lambda m: m["files"]["model.onnx"].update(changes))


def renamed(name: str) -> Callable[[Entry], object]:
    return manifest(lambda m: m.update(files={name: m["files"]["model.onnx"]}))


OF_BYTES: dict[str, tuple[Callable[[Entry], object], str]] = {
    "truncated": (truncate, "has 3 bytes instead of 5"),
    "flipped byte": (flip_a_byte, "not those that were published"),
    "missing file": (lambda e: e.file().unlink(), "model.onnx is missing"),
    "other inputs": (manifest(lambda m: m["inputs"].update(batch_size=8)), "inputs"),
    "another digest": (of_file(sha256="0" * 64), "not those that were published"),
}
CANNOT = "its manifest cannot be used"
OF_MANIFEST: dict[str, tuple[Callable[[Entry], object], str]] = {
    "missing manifest": (lambda e: (e.directory / MANIFEST).unlink(), CANNOT),
    "half a manifest": (text('{"format": 1, "kind": "ex'), CANNOT),
    "no UTF-8": (lambda e: (e.directory / MANIFEST).write_bytes(b"\xff\xfe"), CANNOT),
    "nested for ever": (text("[" * 100_000), CANNOT),
    "endless number": (manifest(lambda m: m.update(seconds=10**400)), CANNOT),
    "another key": (manifest(lambda m: m.update(key="0" * 32)), "manifest of export 0000"),
    "size in words": (of_file(bytes="x"), ".bytes"),
    "no files": (manifest(lambda m: m.update(files={})), "it names no file"),
    "path outside": (renamed("../x"), "a file outside the entry"),
    "absolute path": (renamed("/etc/passwd"), "a file outside the entry"),
    "a pipe": (endless(os.mkfifo), "not a regular file"),
    "a device": (endless(lambda p: p.symlink_to("/dev/zero")), "not a regular file"),
}


@pytest.mark.parametrize("same_process", [True, False])
@pytest.mark.parametrize("name", [*OF_BYTES, *OF_MANIFEST])
def test_a_damaged_entry_is_set_aside_reported_and_built_again(name, same_process, tmp_path):
    damage, says = {**OF_BYTES, **OF_MANIFEST}[name]
    store = Store(tmp_path)
    entry = store.get_or_build(KIND, INPUTS, writes())
    damage(entry)
    if not same_process:
        store = Store(tmp_path)
    messages: list[str] = []
    store.on_damage = messages.append
    assert store.get(KIND, INPUTS) is None
    again = store.get_or_build(KIND, INPUTS, writes("again"))
    assert again.file().read_text() == "again"
    (message,) = messages
    (aside,) = (tmp_path / "damaged").iterdir()
    assert says in message and "\n" not in message
    assert str(entry.directory) in message and str(aside) in message
    assert store.get_or_build(KIND, INPUTS, forbidden).digest == again.digest


@pytest.mark.parametrize("name", OF_MANIFEST)
def test_a_manifest_that_cannot_be_used_is_passed_over(name, tmp_path):
    """By what looks at every entry: `cache ls`, `explain` and `gc`."""
    store = Store(tmp_path)
    OF_MANIFEST[name][0](store.get_or_build(KIND, INPUTS, writes()))
    other = store.get_or_build(KIND, {"number": 1}, writes())
    assert [entry.key for entry in store.entries()] == [other.key]
    assert explain(store, KIND, {"number": 1}).present
    assert tidy(store, max_bytes=0).failed == ()


def test_unchanged_files_are_hashed_once_in_a_process(tmp_path, monkeypatch):
    Store(tmp_path).get_or_build(KIND, INPUTS, writes())
    hashed: list[Path] = []
    digest = module.file_digest

    def counted(path: Path) -> str:
        hashed.append(path)
        return digest(path)

    monkeypatch.setattr(module, "file_digest", counted)
    store = Store(tmp_path)
    for _ in range(3):
        assert store.get(KIND, INPUTS) is not None
    assert len(hashed) == 1


# Failed builds.

REFUSAL = CompileError("the compiler says no", remedy="ask it", log="line\n")


def failure(store: Store, build: Builder) -> HarnessError:
    with pytest.raises(CompileError) as caught:
        store.get_or_build(Stage.COMPILE, INPUTS, build)
    assert caught.value.message == "the compiler says no"
    return caught.value


def test_a_failed_build_is_not_tried_again_in_its_run(tmp_path):
    def a_store(run: str) -> Store:
        return Store(tmp_path / "store", failures=tmp_path / run / "failures")

    store = a_store("run")
    assert not failure(store, raises(REFUSAL)).remembered
    for other in (store, a_store("run")):
        again = failure(other, forbidden)
        assert (again.remembered, again.remedy, again.log) == (True, "ask it", "line\n")
    # Another key of the same run and the same key of another run are built.
    assert store.get_or_build(Stage.COMPILE, {"batch_size": 8}, writes()).file().exists()
    assert a_store("later").get_or_build(Stage.COMPILE, INPUTS, writes()).file().exists()
    # And what is there is read, whatever failed before.
    assert store.get_or_build(Stage.COMPILE, INPUTS, forbidden).cached


def test_a_failure_that_cannot_be_remembered_is_still_seen(tmp_path):
    (tmp_path / "failures").write_text("a file where the folder should be")
    for failures in (tmp_path / "failures", None, tmp_path / "damaged"):
        for _ in range(2):
            store = Store(tmp_path / "store", failures=failures)
            assert not failure(store, raises(REFUSAL)).remembered
            for remembered in (tmp_path / "damaged").glob("*"):
                remembered.write_text("[]")


def test_a_build_that_is_ended_with_the_process_is_not_remembered(tmp_path, monkeypatch):
    store = Store(tmp_path / "store", failures=tmp_path / "failures")
    monkeypatch.setattr(processes, "ending", threading.Event())
    processes.ending.set()
    failure(store, raises(REFUSAL))
    processes.ending.clear()
    assert store.get_or_build(Stage.COMPILE, INPUTS, writes()).cached is False


def test_an_entry_that_cannot_be_used_is_built_again_once_in_a_run(tmp_path):
    store = Store(tmp_path / "store", failures=tmp_path / "failures")

    def again(refused: Entry, build: Builder) -> Entry | None:
        return store.build_again(KIND, INPUTS, build, refused=refused.digest, why="it is refused")

    first = store.get_or_build(KIND, INPUTS, writes("one"))
    second = again(first, writes("two"))
    assert second is not None and second.file().read_text() == "two"
    assert len(list((tmp_path / "store/damaged").iterdir())) == 1
    other = again(first, forbidden)  # another case that had the first
    assert other is not None and other.digest == second.digest
    assert again(second, forbidden) is None  # the failure stands, in this run
    store = Store(tmp_path / "store", failures=tmp_path / "later")
    assert again(second, writes("two")) is None  # the same comes out
    assert Store(tmp_path / "store").get(KIND, INPUTS) is not None


def test_an_entry_that_another_process_uses_is_not_pulled_away(tmp_path):
    def another() -> Store:
        return Store(tmp_path / "store", failures=tmp_path / "failures")

    def again(store: Store, build: Builder) -> Entry | None:
        return store.build_again(KIND, INPUTS, build, refused=entry.digest, why="it is refused")

    store, user = another(), another()
    entry = store.get_or_build(KIND, INPUTS, writes("one"))
    assert user.get(KIND, INPUTS) is not None
    assert again(store, forbidden) is None
    assert entry.file().read_text() == "one"
    # Of two that cannot use it, the second one builds.
    anew = again(user, writes("two"))
    assert anew is not None and anew.file().read_text() == "two"


def test_who_lost_an_entry_gets_the_one_that_was_built_meanwhile(tmp_path, monkeypatch):
    monkeypatch.setattr(uses.Uses, "_locked", lambda *_: True)  # a file system without such locks

    def again(store: Store, build: Builder) -> Entry | None:
        return store.build_again(KIND, INPUTS, build, refused=entry.digest, why="it is refused")

    stores = [Store(tmp_path / "store", failures=tmp_path / "failures") for _ in range(2)]
    entry = stores[0].get_or_build(KIND, INPUTS, writes("one"))
    assert stores[1].get(KIND, INPUTS) is not None
    assert again(stores[0], writes("one")) is None
    assert again(stores[1], forbidden) is not None
    assert again(stores[1], forbidden) is None  # that one is refused as well


# A disk that does not do as it should.


def test_a_read_only_store_is_readable(tmp_path, monkeypatch):
    Store(tmp_path).get_or_build(KIND, INPUTS, writes())
    # A test may run as root, whom no mode of a folder stops.
    for name in ("utime", "mkdir", "rename"):
        monkeypatch.setattr(os, name, refuse(errno.EROFS))
    monkeypatch.setattr(locks, "open_regular", refuse(errno.EROFS))
    store = Store(tmp_path)
    assert store.get_or_build(KIND, INPUTS, forbidden).cached
    with pytest.raises(StoreError, match="Read-only file system") as caught:
        store.get_or_build(KIND, {"model": "other"}, writes())
    assert str(tmp_path) in caught.value.remedy


def test_damage_in_a_read_only_store_is_a_store_error(tmp_path, monkeypatch):
    entry = Store(tmp_path).get_or_build(KIND, INPUTS, writes())
    truncate(entry)
    monkeypatch.setattr(os, "rename", refuse(errno.EROFS))
    with pytest.raises(StoreError, match=r"is damaged .* cannot be set aside") as caught:
        Store(tmp_path).get_or_build(KIND, INPUTS, writes())
    assert str(entry.directory) in caught.value.remedy


@pytest.mark.parametrize("where", ["build", "fsync"])
def test_a_full_disk_is_a_store_error_and_leaves_nothing(tmp_path, monkeypatch, where):
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    build = raises(full) if where == "build" else writes()
    if where == "fsync":
        monkeypatch.setattr(os, "fsync", refuse(errno.ENOSPC))
    with pytest.raises(StoreError, match="No space left on device") as caught:
        Store(tmp_path).get_or_build(KIND, INPUTS, build)
    assert caught.value.full_disk
    assert files_below(tmp_path) == []
