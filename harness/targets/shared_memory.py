"""Memory that a session shares with its worker: where batches lie.

It is in memory where kernel, C library and Python know how, else in the temporary directory.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import math
import mmap
import os
import tempfile
from dataclasses import dataclass

import numpy as np

from harness.base.errors import LoadError
from harness.targets.protocol import Float32, TensorSpec

SLOTS = 3
# Where three slots take more, two do: a batch that large runs for so long that the device hardly
# notices the moment between two, and memory is bounded by fewer of them.
SLOTS_BYTES = 512 * 1024 * 1024
ALIGNMENT = 64  # bytes: a cache line, and what vector instructions want

# Linux' own numbers, the same for all processors: a Python that was built for an old C library, as
# uv's and conda's may be, lacks their names.
MFD_CLOEXEC, MFD_ALLOW_SEALING = 1, 2
F_ADD_SEALS, F_SEAL_SHRINK, F_SEAL_GROW = 1033, 2, 4


def memory_file(name: str) -> int:
    """The descriptor of an empty file without a path, to be shared with a worker for `name`.

    It is in memory where kernel, C library and Python know how, else in the temporary directory.

    Raises:
        LoadError: neither can be had.
    """
    with contextlib.suppress(AttributeError, OSError):  # AttributeError: glibc before 2.27
        return _memfd_create("batches", MFD_CLOEXEC | MFD_ALLOW_SEALING)
    try:
        with tempfile.TemporaryFile(buffering=0) as file:
            return os.dup(file.fileno())
    except OSError as error:
        raise no_memory(name, error) from error


def _memfd_create(name: str, flags: int) -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create(name, flags)
    create = ctypes.CDLL(None, use_errno=True).memfd_create
    create.argtypes, create.restype = (ctypes.c_char_p, ctypes.c_uint), ctypes.c_int
    fd: int = create(name.encode(), flags)
    if fd < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return fd


def no_memory(name: str, error: BaseException) -> LoadError:
    return LoadError(
        f"{name}: no shared memory for its batches: {error}",
        remedy="take a smaller batch size, or free memory and space in the temporary directory",
    )


@dataclass(frozen=True)
class Memory:
    """The slots in shared memory: views of their inputs and outputs, and where they lie."""

    size: int  # bytes
    layout: list[dict[str, list[int]]]
    inputs: tuple[Float32, ...]
    outputs: tuple[Float32, ...]


def _count(spec: TensorSpec) -> int:
    return math.prod(spec.shape)


def _slot_bytes(spec: TensorSpec) -> int:
    size = _count(spec) * np.dtype(spec.dtype).itemsize
    return -(-size // ALIGNMENT) * ALIGNMENT


def allocate(fd: int, given: TensorSpec, returned: TensorSpec) -> Memory:
    """Lay out and map the slots.

    A file in memory is sealed: pages that the worker could take away would be a SIGBUS in this
    process.
    Its pages come as they are touched. The kernel lets it have any size and ends processes when
    that was too much, hence the check against the machine's memory.

    Raises:
        MemoryError: the slots are larger than the machine's memory.
        OSError: the kernel refuses them.
    """
    sizes = {"inputs": _slot_bytes(given), "outputs": _slot_bytes(returned)}
    count = SLOTS if SLOTS * sum(sizes.values()) <= SLOTS_BYTES else SLOTS - 1
    offset = 0
    layout = []
    for _ in range(count):
        slot = {}
        for key, size in sizes.items():
            slot[key] = [offset]
            offset += size
        layout.append(slot)
    if offset > os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"):
        raise MemoryError(f"{offset / 2**30:.0f} GiB are more than this machine has")
    os.ftruncate(fd, offset)
    try:
        fcntl.fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW)
    except OSError:  # a file in the temporary directory
        # A page that the disk has no room for would be a SIGBUS, too: take them all now.
        os.posix_fallocate(fd, 0, offset)
    # Unmapped when the last view is gone: whoever holds one after `close` reads stale numbers,
    # not freed memory.
    memory = mmap.mmap(fd, offset)

    def view(spec: TensorSpec, at: int) -> Float32:
        return np.frombuffer(memory, np.float32, _count(spec), at).reshape(spec.shape)

    return Memory(
        offset,
        layout,
        tuple(view(given, slot["inputs"][0]) for slot in layout),
        tuple(view(returned, slot["outputs"][0]) for slot in layout),
    )
