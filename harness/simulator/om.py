"""The simulator's own `.om`: a magic line, a JSON header, and the ONNX model's bytes.

It is no real offline model and does not pretend to be one. Like a real one it is made for one
chip and one batch size, or the several of `--dynamic_batch_size`, and a file that lacks its end
cannot be loaded.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

MAGIC = b"SIMULATED OM, not for a real NPU, version 1\n"


class OmError(Exception):
    """A file that is not an `.om` of this simulator, or is damaged."""


@dataclass(frozen=True)
class Tensor:
    """One input or output; `dtype` is a NumPy name. Where the model serves several batch sizes the
    shape of an input begins with -1, that of an output with the largest.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Header:
    """What a compiled model says of itself; `digest` is the payload's SHA-256."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    soc_version: str
    size: int
    digest: str
    batch_sizes: tuple[int, ...] = ()  # that one file serves; none: the inputs' own


def write(path: Path, payload: bytes, **described: Any) -> None:
    """Write a compiled model; `described` are the header's other fields."""
    header = Header(size=len(payload), digest=hashlib.sha256(payload).hexdigest(), **described)
    path.write_bytes(MAGIC + json.dumps(asdict(header)).encode() + b"\n" + payload)


def read(path: Path) -> tuple[Header, bytes]:
    """Return header and payload.

    Raises:
        OmError: not such a file, or damaged.
        OSError: it cannot be read.
    """
    magic, _, rest = path.read_bytes().partition(b"\n")
    if magic + b"\n" != MAGIC:
        raise OmError("not an offline model of this toolchain")
    line, _, payload = rest.partition(b"\n")
    try:
        data = json.loads(line)
        for role in ("inputs", "outputs"):
            data[role] = tuple(Tensor(t["name"], tuple(t["shape"]), t["dtype"]) for t in data[role])
        data["batch_sizes"] = tuple(data["batch_sizes"])
        header = Header(**data)
    except (ValueError, KeyError, TypeError):
        raise OmError("the header is damaged") from None
    if len(payload) != header.size:
        raise OmError("the file is truncated")
    if hashlib.sha256(payload).hexdigest() != header.digest:
        raise OmError("the content does not fit its digest")
    return header, payload
