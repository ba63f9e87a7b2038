"""Looking after the store: why a key is not there, and what is collected."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from harness.base import locks, scratch
from harness.base.stages import Stage
from harness.base.store import MANIFEST, Entry, Store, key_of
from harness.base.store_care import Tidied, explain, tidy
from tests.selftest.builders import INPUTS, KIND, ROOT, files_below, refuse, writes

# Explaining.


def test_explain_names_the_differing_input_of_the_nearest_entry(tmp_path):
    store = Store(tmp_path)
    assert explain(store, KIND, INPUTS).nearest is None
    near = store.get_or_build(KIND, {**INPUTS, "target": {"os": "y"}}, writes())
    store.get_or_build(KIND, {**INPUTS, "target": {"os": "y"}, "batch_size": 8}, writes())
    store.get_or_build(Stage.COMPILE, {**INPUTS, "batch_size": 1}, writes())  # another kind
    why = explain(store, KIND, INPUTS)
    assert (why.present, why.nearest, why.key) == (False, near.key, key_of(KIND, INPUTS))
    assert why.differences == (("target.os", "x", "y"),)
    why = explain(store, KIND, {**near.inputs, "new": 2})
    assert why.differences == (("new", 2, None),)
    why = explain(store, KIND, dict(near.inputs))
    assert (why.present, why.nearest, why.differences) == (True, near.key, ())


# Looking after it.

DAY = 86400.0


def aged(path: Path, seconds: float) -> None:
    moment = time.time() - seconds
    os.utime(path, (moment, moment))


def entry_of_age(store: Store, number: int, seconds: float) -> Entry:
    entry = store.get_or_build(KIND, {"number": number}, writes("x" * 100))
    aged(entry.directory / MANIFEST, seconds)
    return entry


def numbers(entries: Any) -> list[int]:
    return sorted(entry.inputs["number"] for entry in entries)


@pytest.mark.parametrize(
    ("ages", "limits", "removed", "recent"),
    [
        ([9 * DAY, 3 * DAY, 0.0], {"older_than_s": 7 * DAY}, [0], []),
        ([60.0, 2 * 3600, 3000.0], {"older_than_s": 0}, [1], [0, 2]),
        # The least recently used first; what was used a minute ago may be about to be opened.
        ([2 * DAY, 4 * DAY, 3 * DAY, 60.0], {"max_bytes": 250}, [1, 2], []),
        ([2 * DAY, 60.0], {"max_bytes": 0}, [0], [1]),
        ([900 * DAY], {}, [], []),
    ],
)
def test_gc_by_age_and_size(tmp_path, ages, limits, removed, recent):
    store = Store(tmp_path)
    for number, age in enumerate(ages):
        entry_of_age(store, number, age)
    done = tidy(store, **limits)
    assert numbers(entry for entry, _ in done.removed) == removed
    assert numbers(done.kept) == recent
    assert numbers(store.entries()) == [n for n in range(len(ages)) if n not in removed]
    for entry in store.entries():  # reading makes recent
        assert store.get(KIND, entry.inputs) is not None
        assert store.last_used(entry) > time.time() - DAY
    assert not any(entry.directory.exists() for entry, _ in done.removed)
    assert files_below(tmp_path / "staging") == []
    for entry in store.entries():  # a named key goes whenever it was used
        ((removed_one, why),) = tidy(store, key=entry.key[:8]).removed
        assert (removed_one.key, why) == (entry.key, "its key was named")


def test_entries_of_an_earlier_version_are_listed_and_collected(tmp_path):
    """Their kinds are no stages, e.g. `compiled`."""
    store = Store(tmp_path)
    old = Store.get_or_build(store, "compiled", INPUTS, writes())  # type: ignore[arg-type]
    aged(old.directory / MANIFEST, 9 * DAY)
    assert [entry.kind for entry in store.entries()] == ["compiled"]
    assert not explain(store, Stage.COMPILE, INPUTS).present
    ((removed, reason),) = tidy(store, older_than_s=7 * DAY).removed
    assert (removed.key, "9.0 days" in reason) == (old.key, True)


@pytest.mark.parametrize(("owner", "call"), [(locks, "open_regular"), (os, "rename")])
def test_gc_tells_what_it_cannot_remove(tmp_path, monkeypatch, owner, call):
    """As in the store of another user, or on a disk that is mounted to be read."""
    store = Store(tmp_path)
    entry = entry_of_age(store, 0, 9 * DAY)
    leftover = tmp_path / "staging" / f"export-{entry.key}-123-0a1b2c3d"
    leftover.mkdir()
    aged(leftover, 2 * 3600)
    monkeypatch.setattr(owner, call, refuse(errno.EACCES))
    done = tidy(store, older_than_s=DAY)
    assert done.removed == ()
    assert [path for path, _ in done.failed] == [leftover, entry.directory]
    assert {error.errno for _, error in done.failed} == {errno.EACCES}


def test_gc_spares_an_entry_that_somebody_builds(tmp_path):
    store = Store(tmp_path)
    entry = entry_of_age(store, 0, 9 * DAY)
    with locks.locked(tmp_path / "locks" / f"export-{entry.key}.lock", what="building it"):
        done = tidy(store, older_than_s=DAY)
    assert (done.removed, [one.key for one in done.kept]) == ((), [entry.key])
    assert len(tidy(store, older_than_s=DAY).removed) == 1


def test_gc_spares_what_a_run_uses_and_says_so(tmp_path):
    """Also one whose key is named: its next stage is about to open it."""
    run = Store(tmp_path)
    used, other = entry_of_age(run, 0, 9 * DAY), entry_of_age(Store(tmp_path), 1, 9 * DAY)
    done = tidy(Store(tmp_path), key=used.key)
    assert (done.removed, [one.key for one in done.kept]) == ((), [used.key])
    done = tidy(Store(tmp_path), older_than_s=DAY)
    assert [one.key for one, _ in done.removed] == [other.key]
    assert [one.key for one in done.kept] == [used.key]
    reader = Store(tmp_path)
    assert reader.get(KIND, {"number": 0}) is not None  # two use it
    aged(used.directory / MANIFEST, 9 * DAY)
    del run
    assert tidy(Store(tmp_path), key=used.key).removed == ()
    del reader  # the last one ended
    assert [one.key for one, _ in tidy(Store(tmp_path), key=used.key).removed] == [used.key]


def test_what_a_process_used_is_free_when_it_is_dead(tmp_path):
    entry = entry_of_age(Store(tmp_path), 0, 0)
    code = (
        "import sys, time; from pathlib import Path; from harness.base.stages import Stage\n"
        "from harness.base.store import Store; store = Store(Path(sys.argv[1]))\n"
        "print(store.get(Stage.EXPORT, {'number': 0}).key, flush=True); time.sleep(600)"
    )
    argv = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout and child.stdout.readline().strip() == entry.key
        assert len(tidy(Store(tmp_path), key=entry.key).kept) == 1
        child.kill()
    assert len(tidy(Store(tmp_path), key=entry.key).removed) == 1


def test_gc_removes_leftovers_of_dead_builds_and_old_damage(tmp_path):
    key = key_of(KIND, INPUTS)
    young = tmp_path / "damaged" / f"export-{key}-0a1b2c3e"
    old = [
        tmp_path / "staging" / f"export-{key}-123-0a1b2c3d",
        tmp_path / "damaged" / f"export-{key}-0a1b2c3d",
    ]
    for folder in (young, *old):
        folder.mkdir(parents=True)
        (folder / "half").write_text("x")
    for folder in old:
        aged(folder, 2 * 3600)
    for folder in old:
        folder.with_name(f"export-{key}-125-0a1b2c3d").symlink_to("a disk that is gone")
    assert tidy(Store(tmp_path)) == Tidied((), (), ())
    assert list(tmp_path.glob("*/*")) == [young, *tmp_path.glob("locks/*")]
    assert files_below(tmp_path) == [f"damaged/{young.name}/half"]
    assert tidy(Store(tmp_path / "absent"), max_bytes=0) == Tidied((), (), ())


def test_what_a_dead_process_was_unpacking_goes(tmp_path):
    dead, fd = scratch.make(tmp_path, f"{scratch.PREFIX}parcel-")
    (dead / "half").write_text("x")
    os.close(fd)
    with scratch.folder("parcel", tmp_path) as alive:
        assert tidy(Store(tmp_path)) == Tidied((), (), ())
        assert alive.is_dir() and not dead.exists()


def test_gc_spares_a_build_that_takes_hours(tmp_path):
    """Tuning can: the time of its staging folder says nothing then, its lock does."""
    store = Store(tmp_path)

    def build(staging: Path) -> str:
        (staging / "part").write_text("x")
        aged(staging, 5 * 3600)
        tidy(Store(tmp_path), older_than_s=0)
        return writes()(staging)

    assert list(store.get_or_build(KIND, INPUTS, build).files) == ["model.onnx", "part"]


def test_an_entry_that_vanishes_during_gc(tmp_path, monkeypatch):
    """Another gc was faster."""
    store = Store(tmp_path)
    entry = entry_of_age(Store(tmp_path), 0, 9 * DAY)
    monkeypatch.setattr(store, "entries", lambda: iter([entry]))
    tidy(Store(tmp_path), older_than_s=DAY)
    assert tidy(store, older_than_s=DAY) == Tidied((), (), ())
