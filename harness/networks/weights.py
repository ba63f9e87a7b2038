"""Weights into networks: checkpoint files read safely and put in strictly, and written again.

What a file's object looks like is a layout's matter (`networks/layouts.py`). Nothing here imports
PyTorch before a file is read or written.
"""

from __future__ import annotations

import argparse
import pickle
import re
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.base.errors import CheckpointError, some
from harness.base.files import is_lfs_pointer
from harness.base.text import clean
from harness.networks import library
from harness.networks.layouts import LAYOUTS, LONGEST_NAME, State
from harness.networks.library import import_torch

if TYPE_CHECKING:
    import torch

_LARGEST_PICKLE = 64 << 20  # bytes; names and shapes, the weights are other members
_LARGEST_HEADER = 100_000_000  # bytes: what the format allows
_COUNTER = ".num_batches_tracked"


def load_state(path: Path, layout_name: str, *, allow_unsafe: bool = False) -> State:
    """Return the state dict in `path` under the network's own keys, on the CPU.

    PyTorch's restricted unpickler builds tensors and plain containers and runs nothing else; a
    safetensors file holds nothing else. `allow_unsafe` uses the full unpickler, which runs whatever
    code the file names. Raises `CheckpointError` for a file that is absent, damaged, refused, or of
    another layout.
    """
    layout = LAYOUTS[layout_name]
    loaded = load_file(path, allow_unsafe=allow_unsafe)
    try:
        return layout.to_network(loaded)
    except CheckpointError as error:
        raise CheckpointError(
            f"{path} has not the layout `{layout.name}` ({layout.description}): {error.message}",
            remedy=error.remedy or "check the checkpoint's `layout` in baselines.yaml",
        ) from error


def load_network(
    source: str, arguments: Mapping[str, Any], path: Path, layout: str, *, trust: bool
) -> torch.nn.Module:
    """Return the network `source` with the weights in `path`, on the CPU, in eval mode; a
    TorchScript file holds both. Raises `NetworkError`, `CheckpointError`.
    """
    if source == library.TORCHSCRIPT:
        return _torchscript(path)
    network = library.build_network(source, arguments)
    load_into(network, load_state(path, layout, allow_unsafe=trust), name=source)
    return network.eval()


def _torchscript(path: Path) -> torch.nn.Module:
    require_regular_file(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            network: Any = import_torch().jit.load(path, map_location="cpu")
    except Exception as error:  # a damaged archive raises nearly any class
        raise CheckpointError(
            f"{path} cannot be read as TorchScript: {_reason(error)}",
            remedy="write it again with torch.jit.save",
        ) from error
    module: torch.nn.Module = network.eval()
    return module


def load_into(network: torch.nn.Module, state: Mapping[str, torch.Tensor], *, name: str) -> None:
    """Put `state` into `network`, strictly: every key, every shape, every dtype, finite values.

    Only `num_batches_tracked` may be absent: files older than PyTorch 0.4.1 lack it and
    inference does not use it. Nothing is cast and nothing is changed before all is checked.
    Two weights of equal shape under each other's names cannot be told apart here; comparing
    outputs can. Raises `CheckpointError` that names keys.
    """
    torch = import_torch()
    expected: State = network.state_dict()
    faults = _faults(torch, expected, state)
    if faults:
        raise CheckpointError(
            f"{name} does not take these weights: {'; '.join(faults)}",
            remedy="check `network`, its arguments, and the checkpoint's `file` and `layout` "
            "in baselines.yaml",
        )
    counters = {key: value for key, value in expected.items() if key.endswith(_COUNTER)}
    complete = OrderedDict({**counters, **state})
    # Versions of modules, by which some convert what older files have: these keys and shapes are
    # the network's. MNASNet takes no state without one.
    setattr(complete, "_metadata", getattr(expected, "_metadata", {}))  # noqa: B010 - no such field
    try:
        network.load_state_dict(complete, strict=True)
    except (RuntimeError, ValueError, TypeError) as error:
        raise CheckpointError(f"{name} does not take these weights: {_reason(error)}") from error


def save_checkpoint(
    network_state: Mapping[str, torch.Tensor], layout_name: str, path: Path
) -> None:
    """Write a network's state as its publisher would: nested and named as the layout says.

    Equal keys, values and order give equal bytes with one version of PyTorch, whatever the
    file is called. Raises `CheckpointError` when it cannot be written; what was written by then
    stays.
    """
    torch = import_torch()
    layout = LAYOUTS[layout_name]
    # Copies, since a view would take its whole storage along, and shared storages differ.
    dense = torch.contiguous_format
    plain = {k: v.detach().clone(memory_format=dense) for k, v in network_state.items()}
    loaded = layout.from_network(plain)
    try:
        # An open file: given a path, torch.save writes the file's name into the archive.
        with path.open("wb") as file:
            torch.save(loaded, file)
    except (OSError, RuntimeError) as error:
        raise CheckpointError(f"{path} cannot be written: {_reason(error)}") from error


def load_file(path: Path, *, allow_unsafe: bool) -> object:
    torch = import_torch()
    require_regular_file(path)
    try:
        other = foreign(path) or _inflated(path)
        if other:
            raise CheckpointError(
                f"{path} {other}; it was not loaded",
                remedy="fetch it again from its publisher, or write it again with torch.save",
            )
        if _is_safetensors(path):
            from safetensors.torch import load_file

            tensors: object = load_file(path)
            return tensors
        # Old pickle protocols and storage classes are announced as warnings; the result is
        # checked key by key, so they tell a reader nothing.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # Scripts that train keep their options beside the weights: names and values, no code.
            with torch.serialization.safe_globals([argparse.Namespace]):
                loaded: object = torch.load(path, map_location="cpu", weights_only=not allow_unsafe)
            return loaded
    except CheckpointError:
        raise
    except OSError as error:
        raise unreadable(path, error) from error
    except Exception as error:  # a damaged pickle raises nearly any class
        raise _refused(path, error) from error


def require_regular_file(path: Path) -> None:
    if not path.is_file():  # a pipe would be waited for
        raise CheckpointError(
            f"{path} is not there, or is not a regular file",
            remedy="put the checkpoint there, or name its folder with `--checkpoints=DIR`",
        )


def _inflated(path: Path) -> str | None:
    """Name what in a zip archive could take any amount of memory; torch.save packs nothing."""
    with path.open("rb") as file:
        if file.read(4) != b"PK\x03\x04":
            return None  # an older format, see `foreign`
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    for member in members:
        name = clean(member.filename)[:LONGEST_NAME]
        # A TorchScript archive packs its code, which no reader of weights opens.
        code = member.filename.split("/")[1:2] == ["code"]
        if member.compress_type != zipfile.ZIP_STORED and not code:
            return f"has the compressed member `{name}`, which torch.save never writes"
        if name.lower().endswith("data.pkl") and member.file_size > _LARGEST_PICKLE:
            size = f"{member.file_size / 2**20:,.0f} MiB"
            return f"has a `{name}` of {size}; names and shapes are far smaller"
    return None


def flipped(path: Path) -> str | None:
    """Say which member of a zip archive is not what its CRC says, after "it ": 33 ms for 100 MB.

    PyTorch does not look at it. One that it was told not to compute is zero.
    """
    if not zipfile.is_zipfile(path):
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                if member.CRC and member.compress_type == zipfile.ZIP_STORED:
                    with archive.open(member) as stream:
                        while stream.read(1 << 20):
                            pass
    except Exception as error:  # whatever a damaged archive raises
        return f"is damaged: {_reason(error)}"
    return None


def _is_safetensors(path: Path) -> bool:
    """Return whether a file begins with the length of a JSON header, and that."""
    with path.open("rb") as file:
        head = file.read(9)
    return head[8:] == b"{" and int.from_bytes(head[:8], "little") <= _LARGEST_HEADER


def foreign(path: Path) -> str | None:
    """Say what a file is that begins like none of PyTorch's or safetensors', after "it ": `is empty
    (0 bytes)`.
    """
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        raise unreadable(path, error) from error
    if not head:
        return "is empty (0 bytes)"
    # A zip archive, or a pickle (PyTorch before 1.6).
    if head.startswith((b"PK\x03\x04", b"\x80")):
        return None
    if _is_safetensors(path):
        return None
    if is_lfs_pointer(path):
        return "is a Git LFS pointer, not the file itself, which `git lfs pull` fetches"
    if not any(head):
        return "begins with zero bytes: an unfinished download"
    start = head[:40].decode("ascii", "replace").replace("\ufffd", "?")
    if head.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        return f"is a web page, not weights: {start!r}"
    return f"is not a file of PyTorch; it begins with {start!r}"


# torch/_weights_only_unpickler.py: "Unsupported global: GLOBAL numpy.dtype was not an allowed
# global by default", "Trying to load unsupported GLOBAL posix.system whose module posix is
# blocked".
_GLOBAL = re.compile(r"unsupported (?:global: )?GLOBAL (\S+)", re.IGNORECASE)
_BLOCKED = re.compile(r"whose module \S+ is blocked")


def _refused(path: Path, error: Exception) -> CheckpointError:
    text = clean(str(error))
    trust = "`--trust-checkpoint MODEL` loads it and runs the code it names"
    named = _GLOBAL.search(text)
    if named is None:
        return CheckpointError(
            f"{path} is damaged or was written neither by torch.save nor as safetensors: "
            f"{_reason(error)}",
            remedy="fetch it again and compare its size with the publisher's",
        )
    if _BLOCKED.search(text):
        return CheckpointError(
            f"{path} was not loaded: it calls `{named[1]}`, as a malicious file would",
            remedy="delete it and fetch it from its publisher; weights need no such call "
            f"({trust}, so that is not for this file)",
        )
    return CheckpointError(
        f"{path} was not loaded: it holds more than weights, the first being `{named[1]}`",
        remedy=f"if you trust where the file comes from, {trust}",
    )


def _reason(error: Exception) -> str:
    """Return one line of an exception of PyTorch's, without its advice."""
    text = clean(str(error))
    if isinstance(error, pickle.UnpicklingError):
        # The first paragraph is advice on weights_only; the reason follows it.
        stated = re.search(r"WeightsUnpickler error:\s*(.+)", text)
        text = stated[1] if stated else text.partition("\n\n")[2] or text
    sentence = next(iter(text.strip().splitlines()), "").split(". ")[0].rstrip(".")[:200]
    return f"{type(error).__name__}: {sentence}" if sentence else type(error).__name__


def unreadable(path: Path, error: OSError) -> CheckpointError:
    return CheckpointError(
        f"{path} cannot be read: {error.strerror or error}",
        remedy="check that it exists and that its permissions let you read it",
    )


def _faults(torch: Any, expected: State, state: Mapping[str, Any]) -> list[str]:
    """Reasons why a network with the state dict `expected` cannot take `state`, by kind."""
    faults: dict[str, list[str]] = {}
    for key, wanted in expected.items():
        if key in state:
            kind, detail = _fault(torch, key, state[key], wanted)
        else:
            kind, detail = ("" if key.endswith(_COUNTER) else "missing"), ""
        if kind:
            faults.setdefault(kind, []).append(f"{key} ({detail})" if detail else key)
    extra = [key for key in state if key not in expected]
    if extra:
        faults["unknown to the network"] = extra
    return [
        f"{len(keys)} key{'' if len(keys) == 1 else 's'} {kind}: {some(keys)}"
        for kind, keys in faults.items()
    ]


def _fault(torch: Any, key: str, value: Any, wanted: torch.Tensor) -> tuple[str, str]:
    """Return the kind of fault of one value and its details; empty where there is none."""
    if not isinstance(value, torch.Tensor):
        return "not a dense tensor", type(value).__name__
    if value.layout is not torch.strided or value.is_quantized or value.is_meta:
        return "not a dense tensor", "sparse, quantised or without data"
    if value.shape != wanted.shape:
        return "of another shape", f"{list(value.shape)}, the network has {list(wanted.shape)}"
    if value.dtype != wanted.dtype:
        both = f"{value.dtype}, the network has {wanted.dtype}"
        return "of another dtype", both.replace("torch.", "")
    if not bool(torch.isfinite(value).all()):
        return "with NaN or infinity", ""
    if key.endswith(".running_var") and bool((value < 0).any()):
        return "a variance below zero", ""
    return "", ""
