"""Arrays in `.npy` files, read and written a few rows at a time: they may be larger than memory."""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

_Any = npt.NDArray[Any]


class NpyReader:
    """A C-ordered `.npy` file, memory-mapped; `array` is a read-only view of all of it.

    Pages of a map count as this process's memory once they are touched. `forget` gives those of
    some rows back; they are read again from the file when they are touched again.
    Raises `OSError`, `ValueError`: no file, or not a `.npy` file of plain numbers.
    """

    def __init__(self, path: Path) -> None:
        with path.open("rb") as stream:
            np.lib.format.read_magic(stream)
            shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
            self._offset = stream.tell()
            self._map = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        count = int(np.prod(shape, dtype=np.int64))
        self.array: _Any = np.frombuffer(self._map, dtype, count, self._offset).reshape(shape)
        self._row_bytes = self.array[:1].nbytes

    def forget(self, start: int, stop: int) -> None:
        """Give the memory of rows `start:stop` back. Views of them stay valid."""
        first = self._offset + start * self._row_bytes
        first -= first % mmap.PAGESIZE
        self._map.madvise(mmap.MADV_DONTNEED, first, self._offset + stop * self._row_bytes - first)


class NpyWriter:
    """A new C-ordered `.npy` file of a known shape, written by rows in any order by any thread.

    Not through a map, whose pages would count as memory until they are on the disk.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
        self.shape = shape
        self.dtype = np.dtype(dtype)
        self._stream = path.open("xb")
        np.lib.format.write_array_header_1_0(
            self._stream,
            {
                "descr": np.lib.format.dtype_to_descr(self.dtype),
                "fortran_order": False,
                "shape": shape,
            },
        )
        self._stream.flush()
        self._offset = self._stream.tell()
        self._row_bytes = int(np.prod(shape[1:], dtype=np.int64)) * self.dtype.itemsize
        os.ftruncate(self._stream.fileno(), self._offset + shape[0] * self._row_bytes)

    def put(self, start: int, rows: _Any) -> None:
        """Write `rows`, of the file's shape but for the first axis, at row `start`.

        Raises:
            ValueError: rows of another shape or dtype, or past the end.
            OSError: the disk is full.
        """
        last = start + len(rows)
        if rows.dtype != self.dtype or rows.shape[1:] != self.shape[1:] or last > self.shape[0]:
            raise ValueError(f"rows {start}:{last} do not fit: {rows.dtype}{list(rows.shape)}")
        data = np.ascontiguousarray(rows).reshape(-1).view(np.uint8).data
        at = self._offset + start * self._row_bytes
        while data:
            written = os.pwrite(self._stream.fileno(), data, at)
            data, at = data[written:], at + written

    def sync(self) -> None:
        """Flush what was written until now to the disk."""
        os.fdatasync(self._stream.fileno())

    def close(self) -> None:
        self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
