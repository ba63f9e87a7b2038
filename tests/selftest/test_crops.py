"""`harness.images.crops`: each image decoded once, kept in chunks that never change."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.base import locks
from harness.base.errors import DataError
from harness.base.store import Store, remove_tree
from harness.catalog.steps import CenterCrop, Normalize, Preprocessing
from harness.images import crops as module
from harness.images import preprocess
from harness.images.crops import AHEAD, Crops
from tests.selftest.running import PATIENCE_S, eventually
from tests.selftest.small_images import (
    COUNT,
    STEPS,
    all_rows,
    crops,
    image_set,
    put_images,
    rewrite,
    wanted,
)
from tests.selftest.small_images import images as images
from tests.selftest.small_images import store as store


@pytest.fixture(autouse=True)
def chunks_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK", 2)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the images that were decoded, as it happens."""
    names: list[str] = []
    load = preprocess.load_crop

    def counted(path: Path, pre: Preprocessing, sha256: str = "") -> Any:
        names.append(path.name)
        return load(path, pre, sha256)

    monkeypatch.setattr(preprocess, "load_crop", counted)
    return names


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


# Crops.


@pytest.mark.parametrize("chunk", [1, 3, COUNT, 1024])
def test_rows_across_the_borders_of_chunks(chunk, store, images, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", chunk)
    found = crops(store, images, STEPS)
    right = wanted(images)
    assert len(found.keys()) == len(found.entries) == -(-COUNT // chunk)
    with pytest.raises(ValueError, match="read-only"):
        found.rows(0, 1)[0][0] = 0
    for start in range(COUNT + 1):
        assert found.rows(start, start) == []
        for stop in range(start + 1, COUNT + 1):
            rows = found.rows(start, stop)
            np.testing.assert_array_equal(np.concatenate(rows), right[start:stop])
            assert len(rows) == (stop - 1) // chunk - start // chunk + 1
            assert not any(row.flags.owndata for row in rows)  # views, no copies


def test_only_a_few_chunks_are_mapped_at_a_time_and_views_stay_valid(store, images, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 1)
    found = crops(store, images, STEPS)
    views = [found.rows(index, index + 1)[0] for index in range(COUNT)]
    with open("/proc/self/maps") as maps:
        mapped = {line.split()[-1] for line in maps if str(store.root) in line}
    found.forget(0, COUNT)
    np.testing.assert_array_equal(np.concatenate(views), wanted(images))
    assert len(mapped) == COUNT  # held by the views alone
    del views
    with open("/proc/self/maps") as maps:
        mapped = {line.split()[-1] for line in maps if str(store.root) in line}
    assert len(mapped) == module.OPEN
    del found  # at once, not when cycles are looked for
    with open("/proc/self/maps") as maps:
        assert str(store.root) not in maps.read()


def test_the_first_chunk_is_read_while_the_next_is_decoded(store, images, monkeypatch):
    monkeypatch.setattr(module, "cores", lambda: 2)  # a lone thread may take the next chunk first
    load, first_was_read, began = preprocess.load_crop, threading.Event(), threading.Event()

    def held(path: Path, pre: Preprocessing, sha256: str = "") -> Any:
        if path == images.paths[2]:
            began.set()
            assert first_was_read.wait(PATIENCE_S)
        return load(path, pre, sha256)

    monkeypatch.setattr(preprocess, "load_crop", held)
    found = Crops(store, images, STEPS)
    with found.filling():
        rows = [found.rows(0, 2)[0]]
        assert began.wait(PATIENCE_S)  # though nobody asked for it
        first_was_read.set()
        rows += found.rows(2, COUNT)
    np.testing.assert_array_equal(np.concatenate(rows), wanted(images))


def test_what_is_ahead_of_the_reader_is_bounded(store, images, decoded, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 1)
    found = Crops(store, images, STEPS)
    with found.filling():
        found.rows(0, 1)
        assert eventually(lambda: len(decoded) == 1 + AHEAD)
        time.sleep(0.2)
        assert len(decoded) == 1 + AHEAD
        found.rows(0, COUNT)
    assert len(decoded) == COUNT


def test_a_reader_that_ends_early_ends_the_decoding(store, images, decoded, monkeypatch):
    monkeypatch.setattr(module, "cores", lambda: 1)
    go_on, load = threading.Event(), preprocess.load_crop

    def held(path: Path, pre: Preprocessing, sha256: str = "") -> Any:
        found = load(path, pre, sha256)
        go_on.wait(PATIENCE_S)
        return found

    monkeypatch.setattr(preprocess, "load_crop", held)
    with pytest.raises(ZeroDivisionError), Crops(store, images, STEPS).filling():
        threading.Timer(0.1, go_on.set).start()
        raise ZeroDivisionError
    assert len(decoded) <= 1
    assert not list((store.root / "staging").iterdir())
    decoded.clear()
    crops(store, images, STEPS)
    assert len(decoded) == COUNT


def test_who_waits_for_another_process_is_told_and_can_end(store, images, monkeypatch):
    defaults = locks.FileLock.acquire.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "notice_s", 0.01)
    told: list[str] = []
    store.on_wait = told.append
    found = Crops(store, images, STEPS)
    lock = store.root / "locks" / f"crops-{found.keys()[0]}.lock"
    with locks.locked(lock, what="the test"), found.filling():
        while not told:
            time.sleep(0.01)
    assert "the test" in told[0]


def test_a_bad_image_ahead_stops_the_reader_at_once(store, images):
    images.paths[3].write_text("<html>")
    found = Crops(store, images, STEPS)
    with pytest.raises(DataError, match="not an image"), found.filling():
        for _ in range(2000):  # far longer than the decoding takes
            found.rows(0, 2)
            time.sleep(0.005)


def test_the_host_is_taken_before_the_lock_of_a_chunk(store, images, monkeypatch):
    """Never the other way round: the holder of a lock would wait for who waits for the lock."""
    held = threading.local()
    seen: list[bool] = []
    real = locks.locked

    @contextlib.contextmanager
    def using_host() -> Iterator[None]:
        assert not getattr(held, "locks", 0)
        held.host = True
        yield
        held.host = False

    @contextlib.contextmanager
    def locked(*arguments: Any, **options: Any) -> Iterator[Any]:
        with real(*arguments, **options) as lock:
            if of_crops := "/crops-" in str(arguments[0]):
                seen.append(getattr(held, "host", False))
                held.locks = 1
            yield lock
            held.locks = 0 if of_crops else getattr(held, "locks", 0)

    monkeypatch.setattr(locks, "locked", locked)
    progress: list[int] = []
    for _ in range(2):  # the second time nothing is decoded
        with (found := Crops(store, images, STEPS)).filling(using_host, progress.append):
            all_rows(found)
    assert seen == [True] * 4
    assert sorted(progress) == list(range(1, COUNT + 1))


def test_a_second_call_builds_nothing(store, images, tmp_path, decoded):
    first = crops(store, images, STEPS)
    assert sorted(decoded) == sorted(images.names)
    decoded.clear()
    for again in (crops(store, images, STEPS), crops(Store(store.root), images, STEPS)):
        assert all(entry.cached for entry in again.entries)
        assert [e.digest for e in again.entries] == [e.digest for e in first.entries]
        np.testing.assert_array_equal(all_rows(again), all_rows(first))
    elsewhere = put_images(tmp_path / "copy")  # the folder does not matter, the order does
    assert crops(store, elsewhere, STEPS).names == images.names
    assert decoded == []
    turned = image_set(images.root, list(reversed(images.paths)))
    np.testing.assert_array_equal(all_rows(crops(store, turned, STEPS)), wanted(images)[::-1])


def test_another_geometry_is_another_entry_and_another_mean_is_not(store, images):
    first = crops(store, images, STEPS).entries[0]
    halves = Normalize(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    shared = crops(store, images, STEPS.model_copy(update={"normalize": halves}))
    assert shared.entries[0].key == first.key
    smaller = STEPS.model_copy(update={"crop": CenterCrop(size=10, offset="round")})
    floor = STEPS.model_copy(update={"crop": CenterCrop(size=12, offset="floor")})
    for other in (smaller, floor):
        found = crops(store, images, other)
        assert found.entries[0].key != first.key
        np.testing.assert_array_equal(all_rows(found), wanted(images, other))


def test_a_changed_image_is_decoded_again(store, images, decoded):
    before = crops(store, images, STEPS)
    rewrite(images.paths[3], seed=99)
    decoded.clear()
    after = crops(store, images, STEPS)
    assert sorted(decoded) == sorted(images.names[2:4])  # its chunk alone
    assert [e.cached for e in after.entries] == [True, False, True, True]
    np.testing.assert_array_equal(all_rows(after), wanted(images))
    assert not np.array_equal(all_rows(after)[3], all_rows(before)[3])


# Images that cannot be used.


def test_every_bad_image_is_named_in_one_go(store, images):
    bad = (1, 2, 3, 6)
    for index in bad:
        images.paths[index].write_bytes(b"no image at all")
    found = Crops(store, images, STEPS)
    with pytest.raises(DataError, match=r"4 images cannot be used: .* and 1 more") as caught:
        found.complete()
    assert [file.partition(": ")[0] for file in caught.value.files] == [
        f"image {images.paths[i]}" for i in bad
    ]
    made = [entry.kind for entry in store.entries()]
    assert made.count("crops") == 1  # the chunk without one is made all the same
    with pytest.raises(DataError, match=r"1\.png"):
        found.rows(0, 1)


def lose(store, key):
    """Remove a chunk as somebody does who does not ask whether it is in use."""
    for entry in list(store.entries()):
        if entry.key == key:
            remove_tree(entry.directory)


def test_an_image_that_changes_under_a_run_poisons_nothing(store, images):
    right = wanted(images)
    before = images.paths[3].read_bytes()
    found = Crops(store, images, STEPS)
    keys = found.keys()
    rewrite(images.paths[3], 99)
    with pytest.raises(DataError, match="changed while the run used it"):
        found.complete()
    images.paths[3].write_bytes(before)
    again = crops(store, images, STEPS)
    assert again.keys() == keys
    np.testing.assert_array_equal(all_rows(again), right)
    # Also where a chunk is made again that had been there.
    lose(store, keys[1])
    rewrite(images.paths[3], 99)
    with pytest.raises(DataError, match="changed while the run used them"):
        again.rows(3, 4)
        again._maps.clear()
        again.rows(3, 4)


def test_chunks_that_were_tidied_away_meanwhile_are_made_again(store, images, decoded):
    found = crops(store, images, STEPS)
    right = wanted(images)
    decoded.clear()
    lose(store, found.keys()[0])
    np.testing.assert_array_equal(all_rows(found), right)
    assert sorted(decoded) == list(images.names[:2])
    lose(store, found.keys()[1])
    # What is about to be fed is not the next to be tidied away.
    last = found.entries[-1]
    os.utime(last.directory / "manifest.json", (1.0, 1.0))
    assert found.verify_present() == len(found.keys()) - 1
    assert store.last_used(last) > time.time() - 600


def test_contents_are_those_of_the_files(store, images):
    first = Crops(store, images, STEPS).contents()
    assert Crops(store, images, STEPS).contents() == first
    rewrite(images.paths[3], 99)
    assert Crops(store, images, STEPS).contents() != first
    assert images.digest == put_images(images.root).digest
