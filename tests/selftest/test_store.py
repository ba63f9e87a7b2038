"""`harness.base.store`: never stale, never half, built once, and whole whenever it is read."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.base import locks
from harness.base import store as module
from harness.base.errors import CompileError, ExportError, StoreError
from harness.base.store import MANIFEST, Builder, Entry, Store, Tidied, key_of, source_digest

ROOT = Path(__file__).parents[2]
INPUTS = {"model": "tiny", "batch_size": 4, "flags": ["--a", "--b"], "target": {"os": "x"}}


def writes(text: str = "bytes", name: str = "model.onnx") -> Builder:
    def build(staging: Path) -> str:
        (staging / name).write_text(text)
        return "the tool's log"

    return build


def forbidden(staging: Path) -> str:
    raise AssertionError("built although the store has it")


def everything_below(root: Path) -> list[str]:
    """Published, staged and damaged files, as paths below the root."""
    return sorted(
        str(path.relative_to(root))
        for path in root.rglob("*")
        if path.is_file() and path.suffix != ".lock"
    )


# Keys.


@pytest.mark.parametrize(
    "change",
    [
        {"model": "tiny2"},
        {"batch_size": 8},
        {"batch_size": "4"},
        {"batch_size": None},
        {"flags": ["--b", "--a"]},
        {"flags": ["--a"]},
        {"flags": ["--a --b"]},
        {"target": {"os": "y"}},
        {"target": {"os": "x", "driver": "1"}},
        {"target": "x"},
        {"more": ""},
    ],
    ids=str,
)
def test_each_input_changes_the_key(change: dict[str, Any]) -> None:
    assert key_of("onnx", {**INPUTS, **change}) != key_of("onnx", INPUTS)


def test_a_missing_input_the_kind_and_the_format_change_the_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keys = {key_of("onnx", INPUTS), key_of("compiled", INPUTS)}
    keys |= {key_of("onnx", {k: v for k, v in INPUTS.items() if k != left}) for left in INPUTS}
    monkeypatch.setattr(module, "FORMAT", module.FORMAT + 1)
    keys.add(key_of("onnx", INPUTS))
    assert len(keys) == 3 + len(INPUTS)


def test_order_does_not_change_the_key() -> None:
    other = {name: INPUTS[name] for name in reversed(INPUTS)}
    assert list(other) != list(INPUTS)
    assert key_of("onnx", other) == key_of("onnx", INPUTS)


def test_the_recipe_changes_with_the_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "stages").mkdir()
    monkeypatch.setattr(module, "__file__", str(tmp_path / "base" / "store.py"))
    source = tmp_path / "stages" / "export.py"
    source.write_text("a = 1\n")
    before = source_digest("harness.stages.export")
    assert source_digest("harness.stages.export") == before
    source.write_text("a = 2\n")
    assert source_digest("harness.stages.export") != before


# Building and reading.


def test_built_once_then_read(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.get("onnx", INPUTS) is None
    built = store.get_or_build("onnx", INPUTS, writes())
    assert (built.cached, built.kind, built.log) == (False, "onnx", "the tool's log")
    assert built.file().read_text() == "bytes"
    assert built.bytes == 5
    for reader in (store, Store(tmp_path)):
        read = reader.get_or_build("onnx", INPUTS, forbidden)
        assert read.cached
        assert (read.digest, read.file(), read.inputs) == (built.digest, built.file(), INPUTS)
    assert store.get("onnx", {**INPUTS, "batch_size": 8}) is None


def test_files_in_folders_and_their_digest(tmp_path: Path) -> None:
    def build(staging: Path) -> str:
        (staging / "sub").mkdir()
        (staging / "sub" / "b").write_text("b")
        (staging / "a").write_text("a")
        return ""

    entry = Store(tmp_path).get_or_build("images", INPUTS, build)
    assert list(entry.files) == ["a", "sub/b"]
    assert entry.file("sub/b").read_text() == "b"
    read = Store(tmp_path).get("images", INPUTS)
    assert read is not None
    assert read.digest == entry.digest != entry.files["a"]["sha256"]


def test_a_build_without_files_is_refused_with_its_log(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="left no file") as caught:
        Store(tmp_path).get_or_build("onnx", INPUTS, lambda staging: "what the tool said")
    assert caught.value.log == "what the tool said"
    assert everything_below(tmp_path) == []


# Publication is atomic.


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt, CompileError])
def test_a_builder_that_raises_leaves_nothing(failure: type[BaseException], tmp_path: Path) -> None:
    def build(staging: Path) -> str:
        (staging / "model.onnx").write_text("half")
        raise failure("no")

    store = Store(tmp_path)
    with pytest.raises(failure):
        store.get_or_build("onnx", INPUTS, build)
    assert everything_below(tmp_path) == []
    assert store.get_or_build("onnx", INPUTS, writes()).file().read_text() == "bytes"


def test_a_killed_builder_leaves_nothing_readable(tmp_path: Path) -> None:
    done = other_process(
        tmp_path,
        """
        def build(staging):
            (staging / "model.onnx").write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)

        store.get_or_build("onnx", inputs, build)
        """,
    )
    done.communicate(timeout=60)
    assert done.returncode == -signal.SIGKILL
    store = Store(tmp_path)
    assert store.get("onnx", INPUTS) is None
    assert list(store.entries()) == []
    assert store.get_or_build("onnx", INPUTS, writes()).file().read_text() == "bytes"


def test_an_entry_appears_whole_by_one_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved: list[tuple[list[str], Path]] = []
    rename = Path.rename

    def watched(path: Path, target: Path) -> Path:
        assert not target.exists()
        moved.append((sorted(os.listdir(path)), target))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", watched)
    entry = Store(tmp_path).get_or_build("onnx", INPUTS, writes())
    assert moved == [([MANIFEST, "model.onnx"], entry.directory)]


# Several processes.


def other_process(root: Path, code: str) -> subprocess.Popen[str]:
    head = f"""
        import json, os, pathlib, signal, sys, time
        from harness.base.store import Store
        root, inputs = pathlib.Path({str(root)!r}), json.loads({json.dumps(INPUTS)!r})
        store = Store(root)
        """
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(head) + textwrap.dedent(code)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )


def eventually(condition: Callable[[], bool], seconds: float = 30.0) -> bool:
    limit = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > limit:
            return False
        time.sleep(0.005)
    return True


def test_one_of_several_processes_builds_and_all_get_the_entry(tmp_path: Path) -> None:
    racers = [
        other_process(
            tmp_path / "store",
            f"""
            def build(staging):
                with open({str(tmp_path / "builds")!r}, "a") as stream:
                    stream.write("built\\n")
                time.sleep(0.2)  # the others come meanwhile
                (staging / "model.onnx").write_text("bytes")
                return ""

            root.parent.joinpath(f"ready-{{os.getpid()}}").touch()
            while not root.parent.joinpath("go").exists():
                time.sleep(0.001)
            print(store.get_or_build("onnx", inputs, build).digest)
            """,
        )
        for _ in range(3)
    ]
    assert eventually(lambda: len(list(tmp_path.glob("ready-*"))) == len(racers))
    (tmp_path / "go").touch()
    digests = {racer.communicate(timeout=60)[0].strip() for racer in racers}
    entry = Store(tmp_path / "store").get("onnx", INPUTS)
    assert entry is not None
    assert digests == {entry.digest}
    assert (tmp_path / "builds").read_text() == "built\n"


def test_who_waits_gets_the_entry_and_is_told_of_the_builder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    builder = other_process(
        tmp_path / "store",
        """
        def build(staging):
            (root.parent / "begun").touch()
            while not (root.parent / "told").exists():
                time.sleep(0.001)
            (staging / "model.onnx").write_text("theirs")
            return ""

        store.get_or_build("onnx", inputs, build)
        """,
    )
    assert eventually((tmp_path / "begun").exists)
    told: list[str] = []

    def on_wait(holder: str) -> None:
        told.append(holder)
        (tmp_path / "told").touch()

    # As `locks.locked`, but it tells at once.
    acquire = locks.FileLock.acquire
    monkeypatch.setattr(
        locks.FileLock, "acquire", lambda self, **given: acquire(self, **given, notice_s=0.0)
    )
    entry = Store(tmp_path / "store", on_wait=on_wait).get_or_build("onnx", INPUTS, forbidden)
    assert entry.file().read_text() == "theirs"
    assert entry.cached
    assert f"process {builder.pid}" in told[0]
    assert "building onnx" in told[0]
    builder.communicate(timeout=60)


def test_waiting_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOCK_TIMEOUT_S", 0.02)
    key = key_of("onnx", INPUTS)
    with (
        locks.locked(tmp_path / "locks" / f"onnx-{key}.lock", what="a build that hangs"),
        pytest.raises(StoreError, match="a build that hangs") as caught,
    ):
        Store(tmp_path).get_or_build("onnx", INPUTS, forbidden)
    assert "end the process" in caught.value.remedy


# Damage.


def rewritten(entry: Entry, change: Callable[[dict[str, Any]], Any]) -> None:
    path = entry.directory / MANIFEST
    data = json.loads(path.read_text())
    path.write_text(json.dumps(change(data) or data))


def truncate(entry: Entry) -> None:
    os.truncate(entry.file(), 3)


def flip_a_byte(entry: Entry) -> None:
    before = entry.file().stat()
    entry.file().chmod(0o644)
    content = bytearray(entry.file().read_bytes())
    content[1] ^= 1
    entry.file().write_bytes(content)
    os.utime(entry.file(), ns=(before.st_atime_ns, before.st_mtime_ns))
    after = entry.file().stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def endless(entry: Entry, make: Callable[[Path], object]) -> None:
    """A manifest that nobody can read to its end."""
    (entry.directory / MANIFEST).unlink()
    make(entry.directory / MANIFEST)


def garbage(text: str) -> Callable[[Entry], object]:
    return lambda entry: (entry.directory / MANIFEST).write_text(text)


DAMAGES: dict[str, tuple[Callable[[Entry], object], str]] = {
    "truncated": (truncate, "has 3 bytes instead of 5"),
    "flipped byte": (flip_a_byte, "not those that were published"),
    "missing file": (lambda e: e.file().unlink(), "model.onnx is missing"),
    "missing manifest": (lambda e: (e.directory / MANIFEST).unlink(), "its manifest cannot"),
    "empty manifest": (garbage(""), "its manifest cannot"),
    "half a manifest": (garbage('{"format": 1, "kind": "on'), "its manifest cannot"),
    "no object": (garbage("[1]"), "its manifest cannot"),
    "no UTF-8": (
        lambda e: (e.directory / MANIFEST).write_bytes(b"\xff\xfe"),
        "its manifest cannot",
    ),
    "nested for ever": (garbage("[" * 100_000), "its manifest cannot"),
    "endless number": (
        lambda e: rewritten(e, lambda m: m.update(seconds=10**400)),
        "its manifest cannot",
    ),
    "manifest of another key": (
        lambda e: rewritten(e, lambda m: m.update(key="0" * 32)),
        "the manifest of onnx 0000",
    ),
    "other inputs": (lambda e: rewritten(e, lambda m: m["inputs"].update(batch_size=8)), "inputs"),
    "no inputs": (lambda e: rewritten(e, lambda m: m.update(inputs=None)), "its manifest cannot"),
    "list of inputs": (
        lambda e: rewritten(e, lambda m: m.update(inputs=[])),
        "its inputs are no object",
    ),
    "size in words": (
        lambda e: rewritten(e, lambda m: m["files"]["model.onnx"].update(bytes="5")),
        "does not say what 'model.onnx' is",
    ),
    "digest that is none": (
        lambda e: rewritten(e, lambda m: m["files"]["model.onnx"].update(sha256=[])),
        "does not say what 'model.onnx' is",
    ),
    "a pipe": (lambda e: endless(e, os.mkfifo), "not a regular file"),
    "a device": (lambda e: endless(e, lambda p: p.symlink_to("/dev/zero")), "not a regular file"),
    "no files": (lambda e: rewritten(e, lambda m: m.update(files={})), "it names no file"),
    "list of files": (
        lambda e: rewritten(e, lambda m: m.update(files=["model.onnx"])),
        "its manifest cannot",
    ),
    "file without digest": (
        lambda e: rewritten(e, lambda m: m.update(files={"model.onnx": {"bytes": 5}})),
        "its manifest cannot",
    ),
    "file with another digest": (
        lambda e: rewritten(e, lambda m: m["files"]["model.onnx"].update(sha256="0" * 64)),
        "not those that were published",
    ),
    "path outside": (
        lambda e: rewritten(e, lambda m: m.update(files={"../x": m["files"]["model.onnx"]})),
        "a file outside the entry",
    ),
    "absolute path": (
        lambda e: rewritten(e, lambda m: m.update(files={"/etc/passwd": {}})),
        "a file outside the entry",
    ),
}


@pytest.mark.parametrize("reader", ["the same process", "another process"])
@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_entry_is_set_aside_reported_and_built_again(
    name: str, reader: str, tmp_path: Path
) -> None:
    damage, says = DAMAGES[name]
    store = Store(tmp_path)
    entry = store.get_or_build("onnx", INPUTS, writes())
    damage(entry)
    if reader == "another process":
        store = Store(tmp_path)
    told: list[str] = []
    store.on_damage = told.append
    assert store.get("onnx", INPUTS) is None
    again = store.get_or_build("onnx", INPUTS, writes("again"))
    assert again.file().read_text() == "again"
    (message,) = told
    assert says in message
    assert str(entry.directory) in message
    (aside,) = (tmp_path / "damaged").iterdir()
    assert str(aside) in message
    assert store.get_or_build("onnx", INPUTS, forbidden).digest == again.digest


@pytest.mark.parametrize(
    "name", [name for name, (_, says) in DAMAGES.items() if says not in ("inputs",)]
)
def test_a_manifest_that_cannot_be_used_is_passed_over(name: str, tmp_path: Path) -> None:
    """By what looks at every entry: `cache ls`, `explain` and `gc`. Bytes are not read there."""
    damage, says = DAMAGES[name]
    store = Store(tmp_path)
    damage(store.get_or_build("onnx", INPUTS, writes()))
    other = store.get_or_build("onnx", {"number": 1}, writes())
    of_bytes = says.startswith(("has 3", "not those", "model.onnx is missing"))
    assert len(list(store.entries())) == 1 + of_bytes
    assert other.key in {entry.key for entry in store.entries()}
    assert store.explain("onnx", {"number": 1}).present
    assert store.gc(max_bytes=0).failed == ()


def test_an_entry_that_was_repaired_meanwhile_is_not_set_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes see the damage; the second to get the lock finds a new entry."""
    entry = Store(tmp_path).get_or_build("onnx", INPUTS, writes())
    truncate(entry)
    second = Store(tmp_path)
    seen = second._look("onnx", entry.key)
    assert seen == "model.onnx has 3 bytes instead of 5"
    looks = iter([seen])
    look = second._look
    monkeypatch.setattr(second, "_look", lambda *key: next(looks, None) or look(*key))
    Store(tmp_path).get_or_build("onnx", INPUTS, writes("by the first"))
    assert second.get_or_build("onnx", INPUTS, forbidden).file().read_text() == "by the first"


def test_unchanged_files_are_hashed_once_in_a_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Store(tmp_path).get_or_build("onnx", INPUTS, writes())
    hashed: list[Path] = []
    real = module.file_digest

    def counted(path: Path) -> str:
        hashed.append(path)
        return real(path)

    monkeypatch.setattr(module, "file_digest", counted)
    store = Store(tmp_path)
    for _ in range(3):
        assert store.get("onnx", INPUTS) is not None
    assert len(hashed) == 1


# Failed builds.


def fails(staging: Path) -> str:
    raise CompileError("the compiler says no", remedy="ask it", log="line\n")


def test_a_failed_build_is_not_tried_again_in_its_run(tmp_path: Path) -> None:
    run = tmp_path / "run" / "failures"
    store = Store(tmp_path / "store", failures=run)
    with pytest.raises(CompileError) as first:
        store.get_or_build("compiled", INPUTS, fails)
    assert first.value.message == "the compiler says no"
    for other in (store, Store(tmp_path / "store", failures=run)):
        with pytest.raises(CompileError) as again:
            other.get_or_build("compiled", INPUTS, forbidden)
        assert again.value.message.startswith("the compiler says no (failed earlier in this run")
        assert (again.value.remedy, again.value.log) == ("ask it", "line\n")
    # Another key of the same run and the same key of another run are built.
    other_key = {**INPUTS, "batch_size": 8}
    assert store.get_or_build("compiled", other_key, writes()).file().exists()
    later = Store(tmp_path / "store", failures=tmp_path / "later" / "failures")
    assert later.get_or_build("compiled", INPUTS, writes()).file().exists()
    # And what is there is read, whatever failed before.
    assert store.get_or_build("compiled", INPUTS, forbidden).cached


def test_without_a_run_nothing_is_remembered(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for _ in range(2):
        with pytest.raises(CompileError) as caught:
            store.get_or_build("compiled", INPUTS, fails)
        assert caught.value.message == "the compiler says no"


@pytest.mark.parametrize("content", ["", "{", "[]", "7"])
def test_a_damaged_memory_of_failures_is_no_failure(content: str, tmp_path: Path) -> None:
    store = Store(tmp_path, failures=tmp_path / "failures")
    with pytest.raises(CompileError):
        store.get_or_build("compiled", INPUTS, fails)
    (remembered,) = (tmp_path / "failures").iterdir()
    remembered.write_text(content)
    assert store.get_or_build("compiled", INPUTS, writes()).file().exists()


def test_a_failure_that_cannot_be_remembered_is_still_seen(tmp_path: Path) -> None:
    (tmp_path / "failures").write_text("a file where the folder should be")
    store = Store(tmp_path / "store", failures=tmp_path / "failures")
    with pytest.raises(CompileError, match="the compiler says no"):
        store.get_or_build("compiled", INPUTS, fails)


# Explaining.


def test_explain_names_the_differing_input_of_the_nearest_entry(tmp_path: Path) -> None:
    store = Store(tmp_path)
    near = store.get_or_build("onnx", {**INPUTS, "target": {"os": "y"}}, writes())
    store.get_or_build("onnx", {**INPUTS, "target": {"os": "y"}, "batch_size": 8}, writes())
    store.get_or_build("compiled", {**INPUTS, "batch_size": 1}, writes())  # another kind
    told = store.explain("onnx", INPUTS)
    assert (told.present, told.nearest, told.key) == (False, near.key, key_of("onnx", INPUTS))
    assert told.differences == (("target.os", "x", "y"),)


def test_explain_names_an_input_that_one_side_lacks(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.get_or_build("onnx", {"model": "tiny", "old": 1}, writes())
    told = store.explain("onnx", {"model": "tiny", "new": 2})
    assert told.differences == (("new", 2, None), ("old", None, 1))


def test_explain_of_what_is_there_and_of_an_empty_store(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.explain("onnx", INPUTS).nearest is None
    entry = store.get_or_build("onnx", INPUTS, writes())
    told = store.explain("onnx", INPUTS)
    assert (told.present, told.nearest, told.differences) == (True, entry.key, ())


# Looking after it.

DAY = 86400.0


def aged(path: Path, seconds: float) -> None:
    moment = time.time() - seconds
    os.utime(path, (moment, moment))


def entry_of_age(store: Store, number: int, seconds: float) -> Entry:
    entry = store.get_or_build("onnx", {"number": number}, writes("x" * 100))
    aged(entry.directory / MANIFEST, seconds)
    return entry


def numbers(store: Store) -> list[int]:
    return sorted(entry.inputs["number"] for entry in store.entries())


def test_gc_by_age(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for number, age in enumerate([9 * DAY, 3 * DAY, 0.0]):
        entry_of_age(store, number, age)
    ((removed, reason),) = store.gc(older_than_s=7 * DAY).removed
    assert removed.inputs == {"number": 0}
    assert "9.0 days" in reason
    assert numbers(store) == [1, 2]
    assert not removed.directory.exists()
    assert list((tmp_path / "staging").iterdir()) == []


def test_gc_by_size_takes_the_least_recently_used_and_spares_recent_ones(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for number, age in enumerate([2 * DAY, 4 * DAY, 3 * DAY, 60.0]):
        entry_of_age(store, number, age)
    assert [entry.inputs["number"] for entry, _ in store.gc(max_bytes=250).removed] == [1, 2]
    assert numbers(store) == [0, 3]
    done = store.gc(max_bytes=0)
    assert [entry.inputs["number"] for entry, _ in done.removed] == [0]
    assert numbers(store) == [3]  # used a minute ago: a run may be about to open it
    assert [entry.inputs["number"] for entry in done.recent] == [3]


def test_gc_by_any_age_spares_what_was_used_within_the_hour(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for number, age in enumerate([60.0, 2 * 3600, 3000.0]):
        entry_of_age(store, number, age)
    done = store.gc(older_than_s=0)
    assert [entry.inputs["number"] for entry, _ in done.removed] == [1]
    assert numbers(store) == [0, 2]
    assert sorted(entry.inputs["number"] for entry in done.recent) == [0, 2]


def test_gc_removes_a_named_key_whenever_it_was_used(tmp_path: Path) -> None:
    store = Store(tmp_path)
    one = entry_of_age(store, 0, 0.0)
    entry_of_age(store, 1, 0.0)
    done = store.gc(key=one.key[:8])
    assert [(entry.key, why) for entry, why in done.removed] == [(one.key, "its key was named")]
    assert numbers(store) == [1]


@pytest.mark.parametrize("call", ["open", "rename"])
def test_gc_tells_what_it_cannot_remove(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """As in the store of another user, or on a disk that is mounted to be read."""
    store = Store(tmp_path)
    entry = entry_of_age(store, 0, 9 * DAY)
    leftover = tmp_path / "staging" / f"onnx-{entry.key}-123-0a1b2c3d"
    leftover.mkdir()
    aged(leftover, 2 * 3600)

    def refuse(*args: object, **kwargs: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, call, refuse)
    done = store.gc(older_than_s=DAY)
    assert done.removed == ()
    assert [path for path, _ in done.failed] == [leftover, entry.directory]
    assert {error.errno for _, error in done.failed} == {errno.EACCES}
    assert numbers(store) == [0]


def test_reading_makes_an_entry_recent(tmp_path: Path) -> None:
    store = Store(tmp_path)
    entry = entry_of_age(store, 0, 9 * DAY)
    before = store.last_used(entry)
    assert store.get("onnx", {"number": 0}) is not None
    assert store.last_used(entry) > before
    assert store.gc(older_than_s=7 * DAY).removed == ()


def test_gc_spares_an_entry_that_somebody_holds(tmp_path: Path) -> None:
    store = Store(tmp_path)
    entry = entry_of_age(store, 0, 9 * DAY)
    with locks.locked(tmp_path / "locks" / f"onnx-{entry.key}.lock", what="building it"):
        done = store.gc(older_than_s=DAY)
    assert (done.removed, [one.key for one in done.held]) == ((), [entry.key])
    assert numbers(store) == [0]
    assert len(store.gc(older_than_s=DAY).removed) == 1


def test_gc_without_limits_removes_no_entry(tmp_path: Path) -> None:
    store = Store(tmp_path)
    entry_of_age(store, 0, 900 * DAY)
    assert store.gc() == Tidied((), (), (), ())


def test_gc_of_a_store_that_is_not_there(tmp_path: Path) -> None:
    assert Store(tmp_path / "absent").gc(max_bytes=0) == Tidied((), (), (), ())


def test_gc_removes_leftovers_of_dead_builds_and_old_damage(tmp_path: Path) -> None:
    store = Store(tmp_path)
    key = key_of("onnx", INPUTS)
    old = tmp_path / "staging" / f"onnx-{key}-123-0a1b2c3d"
    young = tmp_path / "staging" / f"onnx-{key}-124-0a1b2c3d"
    damaged = tmp_path / "damaged" / f"onnx-{key}-0a1b2c3d"
    for folder in (old, young, damaged):
        folder.mkdir(parents=True)
        (folder / "half").write_text("x")
    for folder in (old, damaged):
        aged(folder, 2 * 3600)
    store.gc()
    assert everything_below(tmp_path) == [f"staging/{young.name}/half"]


def test_gc_spares_a_build_that_takes_hours(tmp_path: Path) -> None:
    """Tuning can: the time of its staging folder says nothing then, its lock does."""
    store = Store(tmp_path)

    def build(staging: Path) -> str:
        (staging / "part").write_text("x")
        aged(staging, 5 * 3600)
        Store(tmp_path).gc(older_than_s=0)
        return writes()(staging)

    assert list(store.get_or_build("compiled", INPUTS, build).files) == ["model.onnx", "part"]


def test_an_entry_that_vanishes_during_gc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another gc was faster."""
    store = Store(tmp_path)
    entry = entry_of_age(store, 0, 9 * DAY)
    monkeypatch.setattr(store, "entries", lambda: iter([entry]))
    Store(tmp_path).gc(older_than_s=DAY)
    assert store.gc(older_than_s=DAY) == Tidied((), (), (), ())


# A disk that does not do as it should.


def test_a_read_only_store_is_readable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Store(tmp_path).get_or_build("onnx", INPUTS, writes())

    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    # A test may run as root, whom no mode of a folder stops. Files are opened for reading with
    # `io.open`, lock files with `os.open`.
    for name in ("utime", "mkdir", "rename", "open"):
        monkeypatch.setattr(os, name, refuse)
    store = Store(tmp_path)
    assert store.get_or_build("onnx", INPUTS, forbidden).cached
    with pytest.raises(StoreError, match="Read-only file system") as caught:
        store.get_or_build("onnx", {"model": "other"}, writes())
    assert str(tmp_path) in caught.value.remedy


def test_damage_in_a_read_only_store_is_a_store_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = Store(tmp_path).get_or_build("onnx", INPUTS, writes())
    truncate(entry)

    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(StoreError, match=r"is damaged .* cannot be set aside") as caught:
        Store(tmp_path).get_or_build("onnx", INPUTS, writes())
    assert str(entry.directory) in caught.value.remedy


def test_a_root_that_is_a_file_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("x")
    store = Store(tmp_path / "store")
    assert store.get("onnx", INPUTS) is None
    with pytest.raises(StoreError, match="cannot write the onnx entry") as caught:
        store.get_or_build("onnx", INPUTS, writes())
    assert "--store" in caught.value.remedy


def test_a_full_disk_is_a_store_error_and_leaves_nothing(tmp_path: Path) -> None:
    def build(staging: Path) -> str:
        (staging / "half").write_text("x")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(StoreError, match="No space left on device"):
        Store(tmp_path).get_or_build("onnx", INPUTS, build)
    assert everything_below(tmp_path) == []


def test_a_full_disk_at_publication_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="No space left on device"):
        Store(tmp_path).get_or_build("onnx", INPUTS, writes())
    assert everything_below(tmp_path) == []


def test_an_error_of_a_stage_keeps_its_class(tmp_path: Path) -> None:
    def build(staging: Path) -> str:
        raise ExportError("no")

    with pytest.raises(ExportError):
        Store(tmp_path).get_or_build("onnx", INPUTS, build)


def test_a_build_that_is_ended_with_the_process_is_not_remembered_as_a_failure(
    tmp_path, monkeypatch
):
    from harness.base import processes

    def killed(_):
        raise ExportError("killed by SIGTERM")

    failures = tmp_path / "failures"
    ours, other = (Store(tmp_path / "store", failures=failures) for _ in range(2))
    monkeypatch.setattr(processes, "ending", threading.Event())
    processes.ending.set()
    with pytest.raises(ExportError):
        ours.get_or_build("onnx", {"a": 1}, killed)
    processes.ending.clear()

    def build(staging):
        (staging / "model.onnx").write_text("x")
        return ""

    assert other.get_or_build("onnx", {"a": 1}, build).cached is False
