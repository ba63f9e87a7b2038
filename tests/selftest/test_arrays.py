"""`harness.base.npy`: rows in `.npy` files, without the file in memory."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from harness.base.npy import NpyReader, NpyWriter


@pytest.fixture
def rows() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (50, 7, 5), np.uint8)


def test_what_is_written_is_what_numpy_reads(tmp_path: Path, rows: np.ndarray) -> None:
    with NpyWriter(tmp_path / "a.npy", rows.shape, np.uint8) as out:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda i: out.put(i, rows[i : i + 1]), reversed(range(40))))
        out.put(40, rows[40:])
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy", allow_pickle=False), rows)


def test_rows_that_do_not_lie_together_are_written_as_they_read(tmp_path, rows):
    turned = np.asfortranarray(rows.astype(np.float32))[::2]
    with NpyWriter(tmp_path / "a.npy", turned.shape, np.float32) as out:
        out.put(0, turned)
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), turned)


@pytest.mark.parametrize(
    ("start", "put"),
    [
        (0, np.zeros((1, 7, 4), np.uint8)),
        (0, np.zeros((1, 7, 5), np.float32)),
        (49, np.zeros((2, 7, 5), np.uint8)),
    ],
)
def test_rows_that_do_not_fit_are_refused(tmp_path, rows, start, put):
    with NpyWriter(tmp_path / "a.npy", rows.shape, np.uint8) as out, pytest.raises(ValueError):
        out.put(start, put)


def test_what_numpy_writes_is_what_is_read(tmp_path: Path, rows: np.ndarray) -> None:
    np.save(tmp_path / "a.npy", rows)
    found = NpyReader(tmp_path / "a.npy")
    assert found.array.dtype == np.uint8
    np.testing.assert_array_equal(found.array, rows)
    with pytest.raises(ValueError, match="read-only"):
        found.array[0] = 0


def test_what_was_forgotten_is_read_again(tmp_path: Path) -> None:
    rows = np.arange(100_000, dtype=np.float32).reshape(100, 1000)
    np.save(tmp_path / "a.npy", rows)
    found = NpyReader(tmp_path / "a.npy")
    view = found.array[30:40]
    for start, stop in ((0, 100), (33, 35), (99, 100), (0, 0)):
        found.forget(start, stop)
        np.testing.assert_array_equal(view, rows[30:40])


@pytest.mark.parametrize(
    "content",
    [b"", b"no array at all", b"\x93NUMPY\x01\x00"],
    ids=["empty", "garbage", "cut off"],
)
def test_a_file_that_is_no_array_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(ValueError):
        NpyReader(tmp_path / "a.npy")
