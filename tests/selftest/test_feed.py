"""`harness.images.feed`: normalised batches in the order of the set."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.base.store import Store
from harness.catalog.steps import CenterCrop, Resize
from harness.images import crops as module
from harness.images import preprocess
from harness.images.feed import Feed
from tests.selftest.small_images import (
    COUNT,
    IMAGENET,
    STEPS,
    crops,
    image_set,
    put_images,
    wanted,
)
from tests.selftest.small_images import store as store


def resident(name: str) -> int:
    """Bytes of the maps of files of that name that are in this process's memory."""
    found = 0
    with open("/proc/self/smaps") as maps:
        ours = False
        for line in maps:
            words = line.split()
            if "-" in words[0] and not words[0].endswith(":"):
                ours = words[-1].endswith(name)
            elif ours and words[0] == "Rss:":
                found += 1024 * int(words[1])
    return found


def test_a_feed_gives_the_memory_of_its_batches_back(store: Store, tmp_path: Path) -> None:
    images = put_images(tmp_path / "images", 64)
    steps = STEPS.model_copy(
        update={
            "resize": Resize(op="resize_short", size=256, interpolation="bilinear"),
            "crop": CenterCrop(size=224, offset="round"),
        }
    )
    found = crops(store, images, steps)
    a_row = 224 * 224 * 3
    rows = found.rows(0, 64)
    assert int(rows[0][:, ::8].sum()) > 0
    assert resident("crops.npy") > 60 * a_row  # what is counted is really counted
    found.forget(0, 64)
    out = np.empty((4, 3, 224, 224), np.float32)
    most = 0
    for batch in Feed(found, IMAGENET, 4):
        batch.fill(out)
        most = max(most, resident("crops.npy"))
    assert most < 8 * a_row


def test_an_error_in_a_thread_is_raised_when_all_are_done(store, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(4)))
    images = put_images(tmp_path / "many", 16)
    feed = Feed(crops(store, images, STEPS), IMAGENET, 16)
    real, calls = preprocess.normalize_into, []

    def failing(piece: Any, table: Any, out: Any) -> None:
        real(piece, table, out)
        calls.append(len(piece))
        if threading.current_thread() is not threading.main_thread():
            raise MemoryError

    monkeypatch.setattr(preprocess, "normalize_into", failing)
    with feed.running():
        (batch,) = feed
        with pytest.raises(MemoryError):
            batch.fill(np.empty((16, 3, 12, 12), np.float32))
        assert calls == [4, 4, 4, 4]


@pytest.mark.parametrize("chunk", [3, 1024])
@pytest.mark.parametrize("batch_size", [1, 3, 4, COUNT, 16])
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_batches_follow_the_set_and_end_in_zeros(
    threads: int,
    batch_size: int,
    chunk: int,
    store: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "CHUNK", chunk)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(threads)))
    images = put_images(tmp_path / "many", 21)
    feed = Feed(crops(store, images, STEPS), IMAGENET, batch_size)
    assert feed.images == 21
    right = preprocess.normalize(wanted(images), preprocess.normalization_table(IMAGENET))
    for context in (contextlib.nullcontext(), feed.running()):  # as often as one likes
        names: list[str] = []
        rows = []
        with context:
            for batch in feed:
                # What an earlier batch left in the buffer must not stay.
                out = np.full((batch_size, 3, 12, 12), 7.0, np.float32)
                batch.fill(out)
                assert not out[len(batch.names) :].any()
                names += batch.names
                rows.append(out[: len(batch.names)])
        assert tuple(names) == images.names
        np.testing.assert_array_equal(np.concatenate(rows), right)
        assert len(rows) == -(-21 // batch_size)


def test_a_feed_of_no_images(store: Store, tmp_path: Path) -> None:
    none = crops(store, image_set(tmp_path, []), STEPS)
    assert (len(none), none.rows(0, 0), none.keys()) == (0, [], ())
    assert list(Feed(none, IMAGENET, 4)) == []
