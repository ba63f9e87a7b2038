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
from typing import Any

import numpy as np

from harness.base.errors import NoSession
from harness.targets.protocol import Float32, Images, TensorSpec

SLOTS = 3
# Batches of one message, at most, and their bytes: a message costs as much as a short execution.
TOGETHER = 8
TOGETHER_BYTES = 4 * 1024 * 1024
# Where three slots take more, two do: a batch that large runs for so long that the device hardly
# notices the moment between two, and memory is bounded by fewer of them.
SLOTS_BYTES = 512 * 1024 * 1024
ALIGNMENT = 64  # bytes: a cache line, and what vector instructions want

# Linux' own numbers, the same for all processors: a Python that was built for an old C library, as
# uv's and conda's may be, lacks their names.
MFD_CLOEXEC, MFD_ALLOW_SEALING = 1, 2
F_ADD_SEALS, F_SEAL_SHRINK, F_SEAL_GROW = 1033, 2, 4


def memory_file(name: str) -> int:
    """The descriptor of an empty file without a path, to be shared with a worker for `name`. Raises
    `NoSession`: neither memory nor the temporary directory has one.
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


def no_memory(name: str, error: BaseException) -> NoSession:
    return NoSession(
        f"{name}: no shared memory for its batches: {error}",
        remedy="take a smaller batch size, or free memory and space in the temporary directory",
    )


@dataclass(frozen=True)
class Memory:
    """The slots in shared memory: views of their inputs and outputs, and where they lie."""

    size: int  # bytes
    layout: list[dict[str, list[int]]]
    inputs: tuple[Images, ...]
    outputs: tuple[Float32, ...]


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
    given_bytes, returned_bytes = (
        -(-np.dtype(spec.dtype).itemsize * math.prod(spec.shape) // ALIGNMENT) * ALIGNMENT
        for spec in (given, returned)
    )
    slot = given_bytes + returned_bytes
    together = max(1, min(TOGETHER, TOGETHER_BYTES // slot))
    count = SLOTS * together if SLOTS * slot <= SLOTS_BYTES else SLOTS - 1
    size = count * slot
    if size > os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"):
        raise MemoryError(f"{size / 2**30:.0f} GiB are more than this machine has")
    os.ftruncate(fd, size)
    try:
        fcntl.fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW)
    except OSError:  # a file in the temporary directory
        # A page that the disk has no room for would be a SIGBUS, too: take them all now.
        os.posix_fallocate(fd, 0, size)
    # Unmapped when the last view is gone: whoever holds one after `close` reads stale numbers,
    # not freed memory.
    memory = mmap.mmap(fd, size)

    def views(spec: TensorSpec, offsets: range) -> tuple[Any, ...]:
        flat = (np.frombuffer(memory, spec.dtype, math.prod(spec.shape), at) for at in offsets)
        return tuple(one.reshape(spec.shape) for one in flat)

    inputs, outputs = range(0, size, slot), range(given_bytes, size, slot)
    layout = [{"inputs": [i], "outputs": [o]} for i, o in zip(inputs, outputs, strict=True)]
    return Memory(size, layout, views(given, inputs), views(returned, outputs))
