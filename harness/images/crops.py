"""The crop cache: each image decoded once for each distinct geometry, kept as uint8.

A chunk holds up to `CHUNK` crops, `uint8[n, S, S, 3]`, as one immutable entry of the store: it is
verified, memory-mapped and shared by batch sizes, models with equal geometry, processes and later
runs. Filling is resumable, since each chunk is published by itself. Normalising is not part of a
chunk: a quarter of the bytes, and two models may differ in mean and std alone.

Chunks are decoded while they are fed: `Crops.filling` works ahead of the reader in threads, and a
reader waits for the chunk that it needs. Whoever decodes takes the host's lease first, then the
chunk's lock in the store: the holder of a chunk's lock waits for nothing but its own decoding, so
that a wait for it ends, whatever leases the waiting one holds.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, nullcontext
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import (
    _imaging,  # its allocator has no other handle but the environment
    features,
)

from harness.base.errors import DataError
from harness.base.host import cores
from harness.base.npy import NpyReader, NpyWriter
from harness.base.stages import Stage
from harness.base.store import Entry, Store, key_of, source_digest
from harness.catalog.steps import Preprocessing
from harness.images import preprocess
from harness.images.dataset import ImageSet
from harness.images.file_digests import digests_of, unusable

CHUNK = 1024
AHEAD = 2  # chunks that may be decoded or verified before the reader comes to them
OPEN = 2  # chunks that are mapped at a time: a batch may lie across a border
# Chunks that are worked on at a time: while one is hashed and written to the disk, the processors
# decode the next.
FILLERS = 2
# Images between two times that a chunk goes to the disk: all at its end would take a second, for
# which the reader of the last chunk waits.
SYNC_EVERY = 128

_KIND = Stage.CROPS
_FILE = "crops.npy"

UInt8 = npt.NDArray[np.uint8]
UsingHost = Callable[[], AbstractContextManager[object]]
Progress = Callable[[int], None]


class Crops:
    """Crops of an image set in its order, decoded where the store has none when they are needed.

    One thread reads; `filling` works ahead of it.
    """

    def __init__(self, store: Store, images: ImageSet, preprocessing: Preprocessing) -> None:
        self.names = images.names
        self.size = preprocessing.size
        self.waited_s = 0.0  # how long the reader waited for chunks
        self._store = store
        self._rows = CHUNK  # of each chunk but the last
        starts = range(0, len(images), CHUNK)
        self._chunks = [
            _Chunk(store, images.paths[start : start + CHUNK], preprocessing) for start in starts
        ]
        self._maps: OrderedDict[int, NpyReader] = OrderedDict()
        self._filler: _Filler | None = None

    def __len__(self) -> int:
        return len(self.names)

    @property
    def entries(self) -> tuple[Entry, ...]:
        """Return the chunks that were used until now."""
        return tuple(chunk.entry for chunk in self._chunks if chunk.entry is not None)

    def keys(self) -> tuple[str, ...]:
        """Return the chunks' keys in the store, which are known before anything is decoded.

        Here and below `DataError` names the image files that cannot be read or decoded.
        """
        return tuple(key_of(_KIND, chunk.inputs()) for chunk in self._chunks)

    def contents(self) -> str:
        """SHA-256 in hex over the bytes of every image file: the same images, the same digest."""
        return _together([chunk.inputs()["images"] for chunk in self._chunks])

    def rows(self, start: int, stop: int) -> list[UInt8]:
        """Views of the crops `start:stop`, `uint8[n, S, S, 3]`, one for each chunk they touch.

        Where chunks are filled ahead, images of a later one may be what ends it.
        """
        return [self._map(index).array[part] for index, part in self._parts(start, stop)]

    def forget(self, start: int, stop: int) -> None:
        """Give the memory of the crops `start:stop` back; views of them stay valid."""
        for index, part in self._parts(start, stop):
            if (reader := self._maps.get(index)) is not None:
                reader.forget(part.start, part.stop)

    def _parts(self, start: int, stop: int) -> Iterator[tuple[int, slice]]:
        """Yield the chunks that hold the crops `start:stop`, and which rows of each."""
        while start < stop:
            index, first = divmod(start, self._rows)
            last = min(first + stop - start, self._rows)
            yield index, slice(first, last)
            start += last - first

    def complete(self, using_host: UsingHost = nullcontext) -> None:
        """Decode and verify every chunk now, also after one that cannot be."""
        refused: list[DataError] = []
        with _keeping_memory(), ThreadPoolExecutor(cores()) as pool:
            for chunk in self._chunks:
                try:
                    chunk.acquire(pool, using_host)
                except DataError as error:
                    refused.append(error)
        if refused:
            raise unusable(refused)

    def verify_present(self) -> int:
        """Read and verify the chunks that the store has; how many it has.

        Before a device is taken: hashing gigabytes while it is fed would cost it a tenth of its
        time. A process does this once for each chunk.
        """
        with ThreadPoolExecutor(cores()) as pool:
            return sum(pool.map(_Chunk.look, self._chunks))

    @contextlib.contextmanager
    def filling(
        self, using_host: UsingHost = nullcontext, progress: Progress | None = None
    ) -> Iterator[None]:
        """Within the block chunks are decoded and verified ahead of the reader.

        `using_host` is held for each chunk that is decoded; a caller that holds the host's lease
        itself leaves it out, since a second one could wait for a third who waits for the first.
        `progress` gets the number of images decoded here, from any thread. The threads end with
        the block. Images that cannot be used end it.
        """
        with _keeping_memory():
            self._filler = filler = _Filler(self._store, self._chunks, using_host, progress)
            try:
                yield
            finally:
                self._filler = None
                filler.end()

    def _map(self, index: int) -> NpyReader:
        chunk = self._chunks[index]
        if self._filler is not None:
            begin = time.monotonic()
            self._filler.wait_for(index)
            self.waited_s += time.monotonic() - begin
        entry = chunk.entry or chunk.acquire()
        reader = self._maps.get(index)
        if reader is None:
            while len(self._maps) >= OPEN:
                self._maps.popitem(last=False)  # unmapped when the last view of it is gone
            try:
                reader = NpyReader(entry.file(_FILE))
            except FileNotFoundError:  # tidied away since it was looked at
                reader = NpyReader(chunk.acquire().file(_FILE))
            self._maps[index] = reader
        return reader


class _Chunk:
    """Files whose crops are one entry of the store; what is known of them so far."""

    def __init__(self, store: Store, paths: Sequence[Path], preprocessing: Preprocessing) -> None:
        self.entry: Entry | None = None
        self._store, self._paths, self._preprocessing = store, paths, preprocessing
        self._digests: list[str] = []  # of the files, until there is an entry
        self._inputs: dict[str, Any] = {}

    def inputs(self) -> dict[str, Any]:
        """Everything that can change the chunk's bytes."""
        if not self._inputs:
            self._digests = digests_of(self._store, self._paths)
            self._inputs = {
                "images": _together(self._digests),
                "count": len(self._paths),
                "geometry": self._preprocessing.model_dump(include={"resize", "crop"}),
                "pillow": metadata.version("pillow"),
                # A distribution's Pillow is linked against another one than the wheel's.
                "libjpeg": features.version("libjpeg_turbo") or features.version("jpg"),
                "recipe": source_digest("harness.images.preprocess", "harness.catalog.steps"),
            }
        return self._inputs

    def look(self) -> bool:
        """Return whether the store has the chunk.

        Also of one that was used before: it may have been tidied away since, and what was used
        long ago is the next to be.
        """
        self.entry = self._store.get(_KIND, self.inputs())
        return self.entry is not None

    def acquire(
        self,
        pool: Executor | None = None,
        using_host: UsingHost = nullcontext,
        decoded: Callable[[], None] = lambda: None,
        store: Store | None = None,
    ) -> Entry:
        """Return the chunk from the store, decoded by `pool` where it has none."""
        store, inputs = store or self._store, self.inputs()
        about = f"{len(self._paths)} images, {self._preprocessing.describe()}"

        def build(staging: Path) -> str:
            given = (self._paths, self._digests_in_key(), self._preprocessing)
            with contextlib.ExitStack() as stack:
                threads = pool or stack.enter_context(ThreadPoolExecutor(cores()))
                _decode(staging / _FILE, *given, threads, decoded)
            return about

        entry = store.get(_KIND, inputs)
        if entry is None:
            with using_host():
                entry = store.get_or_build(_KIND, inputs, build, about=about)
        self.entry, self._digests = entry, []
        return entry

    def _digests_in_key(self) -> list[str]:
        digests = self._digests or digests_of(self._store, self._paths)
        if _together(digests) != self.inputs()["images"]:
            first, last = self._paths[0], self._paths[-1]
            raise DataError(
                f"images between {first} and {last.name} changed while the run used them",
                remedy="leave the data set alone, and run again",
            )
        return digests


class _Stopped(Exception):
    """The reader is done: whoever waits for another process on its behalf waits no longer."""


class _Filler:
    """Works ahead of a reader: each chunk is a task, begun in order once the reader is near."""

    def __init__(
        self,
        store: Store,
        chunks: Sequence[_Chunk],
        using_host: UsingHost,
        progress: Progress | None,
    ) -> None:
        self._chunks, self._using_host, self._progress = chunks, using_host, progress
        self._decoded = itertools.count(1)
        self._ended = False
        self._told = store.on_wait
        self._store = dataclasses.replace(store, on_wait=self._on_wait)
        self._todo = [index for index, one in enumerate(chunks) if one.entry is None]
        self._tasks: dict[int, Future[Entry]] = {}
        self._pool = ThreadPoolExecutor(FILLERS, thread_name_prefix="chunks")
        self._images = ThreadPoolExecutor(cores(), thread_name_prefix="decode")
        self._begin(0)

    def wait_for(self, index: int) -> None:
        """Wait for the chunk; raise what ended it, or any other that is done."""
        self._begin(index)
        for other, task in self._tasks.items():
            if other == index or task.done():
                task.result()

    def end(self) -> None:
        """Stop the threads and wait for them: an image's time, or a few seconds for a lock."""
        self._ended = True
        self._images.shutdown(wait=True, cancel_futures=True)
        self._pool.shutdown(wait=True, cancel_futures=True)
        # What is left of this object holds no crops: it is in cycles, and its maps are large.
        self._tasks.clear()
        self._store.on_wait = None

    def _begin(self, index: int) -> None:
        while self._todo and self._todo[0] <= index + AHEAD:
            one = self._todo.pop(0)
            given = (self._images, self._using_host, self._count, self._store)
            self._tasks[one] = self._pool.submit(self._chunks[one].acquire, *given)

    def _count(self) -> None:
        if self._progress is not None:
            self._progress(next(self._decoded))

    def _on_wait(self, who: str) -> None:
        if self._ended:
            raise _Stopped
        if self._told is not None:
            self._told(who)


def _decode(
    file: Path,
    paths: Sequence[Path],
    digests: Sequence[str],
    preprocessing: Preprocessing,
    pool: Executor,
    decoded: Callable[[], None],
) -> None:
    """Decode every image into `file`: the bytes of `digests`, which are in the chunk's key. Raises
    `DataError`: names every image of the chunk that cannot be used.
    """
    size = preprocessing.size
    with NpyWriter(file, (len(paths), size, size, 3), np.uint8) as out:

        def one(index: int) -> None:
            crop = preprocess.load_crop(paths[index], preprocessing, digests[index])
            out.put(index, crop[None])
            decoded()

        # Pillow releases the interpreter lock while it decodes and resizes: threads suffice.
        futures: list[Future[None]] = []
        bad: dict[int, DataError] = {}
        try:
            futures.extend(pool.submit(one, index) for index in range(len(paths)))
            for index, future in enumerate(futures):
                try:
                    future.result()
                except DataError as error:
                    bad[index] = error
                if index % SYNC_EVERY == SYNC_EVERY - 1:
                    out.sync()
        finally:
            # Before the file is closed: another file could get its descriptor.
            wait([future for future in futures if not future.cancel()])
    if bad:
        raise unusable([bad[index] for index in sorted(bad)])


def _together(digests: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


@contextlib.contextmanager
def _keeping_memory() -> Iterator[None]:
    """Let Pillow use the memory of one image for the next, for a few images, within the block.

    It asks the system for it anew otherwise, which is an eighth of the time that decoding takes.
    """
    before = _imaging.get_blocks_max()
    _imaging.set_blocks_max(max(before, 4 * cores()))
    try:
        yield
    finally:
        _imaging.set_blocks_max(before)
        _imaging.clear_cache()
