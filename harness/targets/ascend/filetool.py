"""Files of a tool of CANN: what a driver is given, where they lie, and what comes back is checked.

Stems of files have no dot: ais_bench cuts a name at its first dot, so that `img.1` and `img.2`
would share one output. Every call of a tool gets a new folder, so an output that lies there is
this call's.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.base.errors import InferError, some
from harness.targets.ascend.toolkit import Toolkit
from harness.targets.protocol import Float32, TensorSpec

CHUNK_BYTES = 1 << 30
"""Inputs of one call of a tool: it loads the model anew each time, which takes seconds."""


@dataclass(frozen=True)
class Opening:
    """What a driver is given to open a model.

    `file` is an `.om` file, `device_id` a logical id; `input` and `output` are what the model must
    have: float32, of one batch size. `work` is a folder for files, of which a private part is used
    and removed. The deadlines are for loading and for the wait for one batch; a tool that does both
    in each call, over as many batches as fit in `chunk_bytes`, gets their sum.
    """

    file: Path
    toolkit: Toolkit
    device_id: int
    input: TensorSpec
    output: TensorSpec
    work: Path
    log: Path
    deadline_open_s: float
    deadline_run_s: float
    lease_fds: tuple[int, ...] = ()
    chunk_bytes: int = CHUNK_BYTES


@dataclass(frozen=True)
class Chunk:
    """Some batches as files: `folder/in/<stem>.bin`, and a folder for what the tool writes."""

    folder: Path
    stems: tuple[str, ...] = ()
    batches: int = 0

    @property
    def inputs(self) -> Path:
        return self.folder / "in"

    @property
    def results(self) -> Path:
        return self.folder / "out"


def check_files(
    what: str,
    folder: Path,
    expected: Mapping[str, int],
    *,
    ignore: frozenset[str] = frozenset(),
    log: str = "",
) -> None:
    """Check that a folder holds exactly these files, each with so many bytes.

    A size of -1 is not looked at. Tools end with 0 however little they wrote.

    Raises:
        InferError: files are missing, left over, or of another size, by name.
    """
    sizes: dict[str, int] = {}
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name not in ignore:
                regular = entry.is_file(follow_symlinks=False)
                sizes[entry.name] = entry.stat().st_size if regular else -1
    missing = sorted(expected.keys() - sizes.keys())
    if missing:
        raise InferError(
            f"{what} wrote {len(expected) - len(missing)} of {len(expected)} outputs, "
            f"missing: {some(missing)}",
            remedy="see the tool's log; it ends with 0 although outputs are missing",
            log=log,
        )
    extra = sorted(sizes.keys() - expected.keys())
    if extra:
        raise InferError(
            f"{what} left {len(extra)} files that no input accounts for: {some(extra)}",
            remedy="see the tool's log; a model with several outputs needs its logits alone",
            log=log,
        )
    wrong = [name for name in sorted(expected) if expected[name] not in (-1, sizes[name])]
    if wrong:
        name = wrong[0]
        raise InferError(
            f"{what}: {len(wrong)} outputs have another size than the model's: {name} has "
            f"{sizes[name]} bytes, expected {expected[name]}",
            remedy="compile the model with float32 outputs at this batch size; see the log",
            log=log,
        )


def read_floats(path: Path, count: int) -> Float32:
    """Return `count` float32 values of a `.bin`, or of a `.txt` with numbers between blanks.

    Raises:
        InferError: another number of values, or something else than numbers.
    """
    try:
        if path.suffix == ".txt":
            text = path.read_text(encoding="ascii").split()
            values = np.array(text, dtype=np.float64).astype(np.float32)
        else:
            values = np.fromfile(path, np.float32)
    except (OSError, ValueError) as error:
        raise InferError(f"the output {path.name} cannot be read: {error}") from error
    if len(values) != count:
        raise InferError(
            f"the output {path.name} has {len(values)} values, expected {count}",
            remedy="compile the model from the ONNX file of this batch size",
        )
    return values
