"""Checkpoints as upstream ships them: found or fetched, verified, loaded safely and strictly.

Each of the five files has a layout of its own: what the state dict is nested under, and what its
keys are called. A `Layout` is a pair of inverse functions between the file's object and the keys
of the network that `stages/networks.py` builds. Nothing here imports PyTorch before a file is
read or written.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

from harness.base.errors import CheckpointError, some
from harness.base.locks import OnWait
from harness.stages.fetch import DEADLINE_S, RETRIES, TIMEOUT_S, OnProgress, fetch, shown
from harness.stages.networks import import_torch

if TYPE_CHECKING:
    import torch

State = dict[str, "torch.Tensor"]

_CHUNK_BYTES = 1 << 20
_LARGEST_PICKLE = 64 << 20  # bytes; names and shapes, the weights are other members
_LONGEST_NAME = 200  # characters; a name is printed in messages
_COUNTER = ".num_batches_tracked"


class CheckpointSource(Protocol):
    """What the catalog says of a checkpoint file. Digests are hexadecimal, in either case."""

    @property
    def file(self) -> str:
        """Bare file name."""
        ...

    @property
    def url(self) -> str | None:
        """Where its publisher offers it."""
        ...

    @property
    def md5(self) -> str | None:
        """32 digits."""
        ...

    @property
    def sha256(self) -> str | None:
        """64 digits."""
        ...

    @property
    def sha256_prefix(self) -> str | None:
        """First digits of the sha256, as in torch.hub's file names: `resnest50-528c19ca.pth`."""
        ...

    @property
    def layout(self) -> str:
        """A key of `LAYOUTS`."""
        ...


@dataclass(frozen=True)
class Digests:
    """Digests of a whole file, lower-case hexadecimal."""

    md5: str
    sha256: str


@dataclass(frozen=True)
class Layout:
    """How a checkpoint file names and nests the weights of a network.

    `to_network` takes the object that the file holds and gives the network's own keys; it raises
    `CheckpointError`. `from_network` is its inverse: the object to write for a network's state.
    """

    name: str
    description: str
    to_network: Callable[[object], State]
    from_network: Callable[[Mapping[str, torch.Tensor]], object]


def obtain_checkpoint(
    spec: CheckpointSource,
    directories: Sequence[Path],
    *,
    cache: Path | None,
    offline: bool,
    progress: OnProgress | None = None,
    on_wait: OnWait | None = None,
    timeout_s: float = TIMEOUT_S,
    deadline_s: float = DEADLINE_S,
    retries: int = RETRIES,
) -> tuple[Path, Digests]:
    """The verified file and its digests: of `directories`, else of `cache`, else fetched there.

    A file in `directories` is its owner's: when it is not the one that `spec` means it is refused
    and stays where it is, and nothing is fetched in its place. Such a file in `cache` is set aside
    and fetched once more. Where `spec` gives no digest, a fetched file must at least begin like
    one of PyTorch's. `progress`, `on_wait` and the limits are those of `stages.fetch`.

    Raises:
        CheckpointError: there is no such file, it is another one, or it cannot be fetched.
    """
    found = _find(spec, directories)
    if found is not None:
        return found, verify_digest(found, spec)
    seen: list[Digests] = []

    def verify(path: Path) -> None:
        seen.append(_digests(path))
        wrong = _mismatch(seen[-1], spec)
        foreign = _foreign(path) if wrong or not has_digest(spec) else None
        if wrong or foreign:
            it = f"it {foreign}" if foreign else None
            raise CheckpointError("; ".join(text for text in (wrong, it) if text))

    if cache is None:
        raise _absent(spec, directories, "no cache folder was given to fetch it into")
    no_fetch = "`--offline` was given" if offline else "" if spec.url else "it has no URL"
    kept = cache / spec.file
    if os.path.isfile(kept):
        try:
            verify(kept)
            return kept, seen[-1]
        except CheckpointError as error:
            if no_fetch:
                raise CheckpointError(
                    f"{kept} is refused: {error.message}; it was not opened, and not fetched "
                    f"again: {no_fetch}",
                    remedy=_by_hand(spec),
                ) from error
    if spec.url is None or no_fetch:
        raise _absent(spec, [*directories, cache], no_fetch)
    path = fetch(
        spec.url,
        kept,
        verify=verify,
        progress=progress,
        timeout_s=timeout_s,
        deadline_s=deadline_s,
        retries=retries,
        on_wait=on_wait,
    )
    return path, seen[-1]


def find_checkpoint(spec: CheckpointSource, directories: Sequence[Path]) -> Path:
    """The first file called `spec.file` in `directories`; subfolders are not searched.

    Nothing is fetched: see `obtain_checkpoint`. Raises `CheckpointError` with the directories
    searched and the URL.
    """
    found = _find(spec, directories)
    if found is None:
        raise _absent(spec, directories)
    return found


def verify_digest(path: Path, spec: CheckpointSource) -> Digests:
    """Digests of the file, computed in one pass and held against those that `spec` gives.

    Nothing in the file is interpreted, and it is not moved. Raises `CheckpointError` with both
    values when one differs, or when the file cannot be read.
    """
    found = _digests(path)
    wrong = _mismatch(found, spec)
    if wrong:
        raise CheckpointError(
            f"{path} is not the file that the catalog means: {wrong}; it was not opened and stays "
            "where it is",
            remedy=f"fetch it again from {shown(spec.url) if spec.url else 'its publisher'}, or "
            "take it out of that folder",
        )
    return found


def has_digest(spec: CheckpointSource) -> bool:
    """Whether the catalog can tell the file from another one."""
    return any(value is not None for value in (spec.md5, spec.sha256, spec.sha256_prefix))


def load_state(path: Path, layout_name: str, *, allow_unsafe: bool = False) -> State:
    """The state dict in `path` under the network's own keys, on the CPU.

    PyTorch's restricted unpickler builds tensors and plain containers and runs nothing else.
    `allow_unsafe` uses the full one, which runs whatever code the file names. Raises
    `CheckpointError` for a file that is absent, damaged, refused, or of another layout.
    """
    layout = _layout(layout_name)
    loaded = _load(path, allow_unsafe=allow_unsafe)
    try:
        return layout.to_network(loaded)
    except CheckpointError as error:
        raise CheckpointError(
            f"{path} has not the layout `{layout.name}` ({layout.description}): {error.message}",
            remedy=error.remedy or "check the checkpoint's `layout` in baselines.yaml",
        ) from error


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
    try:
        network.load_state_dict({**counters, **state}, strict=True)
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
    layout = _layout(layout_name)
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


def state_digest(state: Mapping[str, torch.Tensor]) -> str:
    """sha256 over keys, dtypes, shapes and values; the order of the keys does not matter."""
    torch = import_torch()
    digest = hashlib.sha256()
    for key in sorted(state):
        value = state[key].detach().cpu().contiguous()
        digest.update(f"{key} {value.dtype} {list(value.shape)}\n".encode())
        # Bytes by way of uint8: NumPy has no bfloat16, and a scalar cannot be viewed.
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


# ------------------------------------------------------------------------------- finding files


def _find(spec: CheckpointSource, directories: Sequence[Path]) -> Path | None:
    if spec.file in ("", ".", "..") or Path(spec.file).name != spec.file:
        raise CheckpointError(
            f"`{spec.file}` is not a bare file name",
            remedy="give the checkpoint's file name without a folder in baselines.yaml",
        )
    for directory in directories:
        path = directory / spec.file
        if os.path.isfile(path):  # false, not an error, for a folder that may not be entered
            return path
    return None


def _absent(
    spec: CheckpointSource, directories: Sequence[Path], no_fetch: str = ""
) -> CheckpointError:
    searched = ", ".join(
        f"{d}{'' if os.path.isdir(d) else ' (no such folder)'}" for d in directories
    )
    reason = f"; not fetched: {no_fetch}" if no_fetch else ""
    return CheckpointError(
        f"{spec.file} is not there; searched: {searched or 'no folder was given'}{reason}",
        remedy=_by_hand(spec),
    )


def _by_hand(spec: CheckpointSource) -> str:
    source = f"download {shown(spec.url)}" if spec.url else f"get {spec.file} from its publisher"
    return f"{source} into a folder and name that folder with `--checkpoints=DIR`"


def _digests(path: Path) -> Digests:
    # md5 is what the publisher gives; it guards against damage, not against an attacker.
    md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    try:
        _require_regular_file(path)
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                md5.update(chunk)
                sha256.update(chunk)
    except OSError as error:
        raise _unreadable(path, error) from error
    return Digests(md5.hexdigest(), sha256.hexdigest())


def _mismatch(found: Digests, spec: CheckpointSource) -> str | None:
    """What differs, with both values: `its md5 is ..., expected ...`."""
    prefix = spec.sha256_prefix
    for kind, wanted, actual in (
        ("md5", spec.md5, found.md5),
        ("sha256", spec.sha256, found.sha256),
        # An empty prefix would match anything: it is compared whole, and so refused.
        ("sha256 prefix", prefix, found.sha256[: len(prefix)] if prefix else found.sha256),
    ):
        if wanted is not None and wanted.lower() != actual:
            return f"its {kind} is {actual}, expected {wanted.lower()}"
    return None


# ------------------------------------------------------------------------------- reading files


def _load(path: Path, *, allow_unsafe: bool) -> object:
    torch = import_torch()
    try:
        _refuse_foreign(path)
        # Old pickle protocols and storage classes are announced as warnings; the result is
        # checked key by key, so they tell a reader nothing.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loaded: object = torch.load(path, map_location="cpu", weights_only=not allow_unsafe)
            return loaded
    except CheckpointError:
        raise
    except OSError as error:
        raise _unreadable(path, error) from error
    except Exception as error:  # a damaged pickle raises nearly any class
        raise _refused(path, error) from error


def _require_regular_file(path: Path) -> None:
    if not path.is_file():  # a pipe would be waited for
        raise CheckpointError(
            f"{path} is not there, or is not a regular file",
            remedy="put the checkpoint there, or name its folder with `--checkpoints=DIR`",
        )


def _refuse_foreign(path: Path) -> None:
    """Say plainly what a file is that PyTorch would stumble over."""
    _require_regular_file(path)
    foreign = _foreign(path)
    if foreign:
        raise CheckpointError(
            f"{path} {foreign}", remedy="fetch it again; the download did not give the file"
        )
    inflated = _inflated(path)
    if inflated:
        raise CheckpointError(
            f"{path} was not loaded: {inflated}",
            remedy="fetch it from its publisher, or write it again with torch.save",
        )


def _inflated(path: Path) -> str | None:
    """What in a zip archive could take any amount of memory; torch.save stores, never packs."""
    with path.open("rb") as file:
        if file.read(4) != b"PK\x03\x04":
            return None  # an older format, see `_foreign`
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
    for member in members:
        name = _printable(member.filename)[:_LONGEST_NAME]
        # A TorchScript archive packs its code, which no reader of weights opens.
        code = member.filename.split("/")[1:2] == ["code"]
        if member.compress_type != zipfile.ZIP_STORED and not code:
            return f"its member `{name}` is compressed, which torch.save never does"
        if name.lower().endswith("data.pkl") and member.file_size > _LARGEST_PICKLE:
            size = f"{member.file_size / 2**20:,.0f} MiB"
            return f"its member `{name}` has {size}; names and shapes are far smaller"
    return None


def _foreign(path: Path) -> str | None:
    """What the file is when it begins like none of PyTorch's, after "it ": `is empty (0 bytes)`."""
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        raise _unreadable(path, error) from error
    if not head:
        return "is empty (0 bytes)"
    # A zip archive, a pickle (PyTorch before 1.6), a tar archive (before 0.1.10).
    if head.startswith((b"PK\x03\x04", b"\x80")) or head[257:262] == b"ustar":
        return None
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
# torch/serialization.py: "Cannot use ``weights_only=True`` with files saved in the legacy .tar
# format".
_NO_SAFE_READER = re.compile(r"(files saved in the legacy \.tar format|TorchScript archives)")


def _refused(path: Path, error: Exception) -> CheckpointError:
    text = _printable(str(error))
    trust = "`--trust-checkpoint MODEL` loads it and runs the code it names"
    if found := _GLOBAL.search(text):
        if _BLOCKED.search(text):
            return CheckpointError(
                f"{path} was not loaded: it calls `{found[1]}`, as a malicious file would",
                remedy=f"delete it and fetch it from its publisher; weights need no such call "
                f"({trust}, so that is not for this file)",
            )
        return CheckpointError(
            f"{path} was not loaded: it holds more than weights, the first being `{found[1]}`",
            remedy=f"if you trust where the file comes from, {trust}",
        )
    if found := _NO_SAFE_READER.search(text):
        return CheckpointError(
            f"{path} was not loaded: PyTorch has no safe way to read {found[1]}",
            remedy=f"if you trust where the file comes from, {trust}",
        )
    return CheckpointError(
        f"{path} is damaged or was not written by torch.save: {_reason(error)}",
        remedy="fetch it again and compare its size with the publisher's",
    )


def _reason(error: Exception) -> str:
    """One line out of an exception of PyTorch's: what it found, without its advice."""
    text = _printable(str(error))
    if isinstance(error, pickle.UnpicklingError):
        # The first paragraph is advice on weights_only; what was found follows it.
        found = re.search(r"WeightsUnpickler error:\s*(.+)", text)
        paragraphs = [part.strip() for part in text.split("\n\n") if part.strip()]
        text = found[1] if found else paragraphs[min(1, len(paragraphs) - 1)] if paragraphs else ""
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    sentence = line.split(". ")[0].rstrip(".")[:200]
    return f"{type(error).__name__}: {sentence}" if sentence else type(error).__name__


def _printable(text: str) -> str:
    """`text` without what a damaged file could do to a terminal; line ends stay."""
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in text)


def _unreadable(path: Path, error: OSError) -> CheckpointError:
    return CheckpointError(
        f"{path} cannot be read: {error.strerror or error}",
        remedy="check that it exists and that its permissions let you read it",
    )


# ------------------------------------------------------------------------- weights and networks


def _faults(torch: Any, expected: State, state: Mapping[str, Any]) -> list[str]:
    """What keeps `state` out of a network with the state dict `expected`, one entry a kind."""
    missing = [k for k in expected if k not in state and not k.endswith(_COUNTER)]
    extra = [k for k in state if k not in expected]
    other, shapes, dtypes, values, variances = [], [], [], [], []
    for key, wanted in expected.items():
        if key not in state:
            continue
        value = state[key]
        if not isinstance(value, torch.Tensor):
            other.append(f"{key} ({type(value).__name__})")
        elif value.layout is not torch.strided or value.is_quantized or value.is_meta:
            other.append(f"{key} (sparse, quantised or without data)")
        elif value.shape != wanted.shape:
            shapes.append(f"{key} ({list(value.shape)}, the network has {list(wanted.shape)})")
        elif value.dtype != wanted.dtype:
            dtypes.append(f"{key} ({_dtype(value)}, the network has {_dtype(wanted)})")
        elif not bool(torch.isfinite(value).all()):
            values.append(key)
        elif key.endswith(".running_var") and bool((value < 0).any()):
            variances.append(key)
    kinds = {
        "missing": missing,
        "unknown to the network": extra,
        "not a dense tensor": other,
        "of another shape": shapes,
        "of another dtype": dtypes,
        "with NaN or infinity": values,
        "a variance below zero": variances,
    }
    return [f"{_count(keys)} {kind}: {some(keys)}" for kind, keys in kinds.items() if keys]


def _dtype(value: torch.Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")


def _count(keys: Sequence[str]) -> str:
    return "1 key" if len(keys) == 1 else f"{len(keys)} keys"


# -------------------------------------------------------------------------------------- layouts
#
# Every layout is a bijection on keys. A key that is not in the layout's own form is refused,
# even where the result would be right, since the file is then not the one that the layout
# describes; two keys that become one are refused by name.

Rename = Callable[[str], str]


def _mapping(loaded: object, what: str) -> dict[str, Any]:
    """`loaded` as a dict with string keys."""
    if not isinstance(loaded, Mapping):
        raise CheckpointError(f"{what} is a {type(loaded).__name__}, not a dict of names to values")
    if not loaded:
        raise CheckpointError(f"{what} is an empty dict")
    for key in loaded:
        if not isinstance(key, str) or not key.isprintable() or len(key) > _LONGEST_NAME:
            raise CheckpointError(
                f"{what} has the key {repr(key)[:_LONGEST_NAME]}, no weight's name"
            )
    return dict(loaded)


def _bare(loaded: object) -> dict[str, Any]:
    """A state dict that is not nested."""
    state = _mapping(loaded, "the file's object")
    nests = [key for key, value in state.items() if isinstance(value, Mapping)]
    if nests:
        raise CheckpointError(f"weights must be at the top level, found a dict under `{nests[0]}`")
    return state


def _nested(loaded: object, nest: str) -> dict[str, Any]:
    """The state dict under `nest`; other entries (epoch, optimizer, ...) are not weights."""
    torch = import_torch()
    top = _mapping(loaded, "the file's object")
    if nest not in top:
        raise CheckpointError(f"no `{nest}` at the top level, which has {some(list(top))}")
    # A dot tells a weight from an accuracy that was kept as a tensor.
    loose = [k for k, value in top.items() if "." in k and isinstance(value, torch.Tensor)]
    if loose:
        raise CheckpointError(f"weights under `{nest}` and at the top level: {some(loose)}")
    return _mapping(top[nest], f"`{nest}`")


def _renamed(state: Mapping[str, Any], rename: Rename) -> dict[str, Any]:
    """`state` under new names. Raises `CheckpointError` when two names become one."""
    origin: dict[str, str] = {}
    result: dict[str, Any] = {}
    for key, value in state.items():
        new = rename(key)
        if new in result:
            raise CheckpointError(f"`{origin[new]}` and `{key}` both name `{new}`")
        origin[new], result[new] = key, value
    return result


_PREFIX = "module."  # torch.nn.DataParallel wrote these


def _strip_optional_prefix(state: dict[str, Any]) -> dict[str, Any]:
    prefixed = [key for key in state if key.startswith(_PREFIX)]
    if not prefixed:
        return state
    if len(prefixed) < len(state):
        bare = next(key for key in state if not key.startswith(_PREFIX))
        raise CheckpointError(
            f"some names begin with `{_PREFIX}` and some do not: `{prefixed[0]}`, `{bare}`"
        )
    return _renamed(state, lambda key: key.removeprefix(_PREFIX))


def _plain_to_network(loaded: object) -> State:
    return _strip_optional_prefix(_bare(loaded))


def _plain_from_network(state: Mapping[str, torch.Tensor]) -> object:
    return dict(state)


def _fixres_to_network(loaded: object) -> State:
    state = _nested(loaded, "model")
    bare = [key for key in state if not key.startswith(_PREFIX)]
    if bare:
        raise CheckpointError(f"names without `{_PREFIX}` under `model`: {some(bare)}")
    return _renamed(state, lambda key: key.removeprefix(_PREFIX))


def _fixres_from_network(state: Mapping[str, torch.Tensor]) -> object:
    return {"model": _renamed(state, lambda key: _PREFIX + key)}


# The two squeeze-and-excitation layers of a block, in three spellings: timm's, which is the
# network's; Huawei's SE_ResNeXt, where they are Linear layers beside the block's convolutions;
# mmcls v0.23.0, where they are ConvModules. The classifier, a top-level `fc`, is none of them.
@dataclass(frozen=True)
class _Spelling:
    pattern: re.Pattern[str]
    template: str

    def matches(self, key: str) -> bool:
        return self.pattern.fullmatch(key) is not None

    def respelled(self, key: str, other: _Spelling) -> str:
        match = self.pattern.fullmatch(key)
        return match.expand(other.template) if match else key


def _spelling(layer: str) -> _Spelling:
    before, after = layer.split("#")
    return _Spelling(
        re.compile(
            rf"(layer[1-4]\.\d+)\.{re.escape(before)}([12]){re.escape(after)}\.(weight|bias)"
        ),
        rf"\1.{before}\2{after}.\3",
    )


_NETWORK_SE = _spelling("se.fc#")
_HUAWEI_SE = _spelling("fc#")
_MMCLS_SE = _spelling("se_layer.conv#.conv")


def _refuse_network_names(keys: Iterable[str], layout_se: _Spelling) -> None:
    for key in keys:
        if _NETWORK_SE.matches(key):
            raise CheckpointError(
                f"`{key}` is the network's own name; the layout calls it "
                f"`{_NETWORK_SE.respelled(key, layout_se)}`"
            )


def _huawei_to_network(loaded: object) -> State:
    state = _bare(loaded)
    _refuse_network_names(state, _HUAWEI_SE)
    for key, value in state.items():
        if _HUAWEI_SE.matches(key) and key.endswith(".weight"):
            state[key] = _linear_to_conv(key, value)
    return _renamed(state, lambda key: _HUAWEI_SE.respelled(key, _NETWORK_SE))


def _huawei_from_network(state: Mapping[str, torch.Tensor]) -> object:
    result = dict(state)
    for key, value in result.items():
        if _NETWORK_SE.matches(key) and key.endswith(".weight"):
            result[key] = value.flatten(start_dim=1)
    return _renamed(result, lambda key: _NETWORK_SE.respelled(key, _HUAWEI_SE))


def _linear_to_conv(key: str, value: Any) -> Any:
    shape = list(getattr(value, "shape", ()))
    if len(shape) != 2:
        raise CheckpointError(f"`{key}` has the shape {shape}; a Linear layer's is [out, in]")
    return value[:, :, None, None]


_BACKBONE, _HEAD = "backbone.", "head."
_CLASSIFIER = "fc."


def _mmcls_to_network(loaded: object) -> State:
    state = _nested(loaded, "state_dict")
    inner = {key: key.removeprefix(_BACKBONE) for key in state if key.startswith(_BACKBONE)}
    _refuse_network_names(inner.values(), _MMCLS_SE)
    outside = [
        key
        for key in state
        if not key.startswith(_HEAD + _CLASSIFIER)
        and (key not in inner or inner[key].startswith(_CLASSIFIER))
    ]
    if outside:
        raise CheckpointError(
            f"names that are neither the backbone's under `{_BACKBONE}` nor the classifier's "
            f"under `{_HEAD}{_CLASSIFIER}`: {some(outside)}"
        )
    return _renamed(
        state,
        lambda key: (
            _MMCLS_SE.respelled(inner[key], _NETWORK_SE)
            if key in inner
            else key.removeprefix(_HEAD)
        ),
    )


def _mmcls_from_network(state: Mapping[str, torch.Tensor]) -> object:
    return {
        "state_dict": _renamed(
            state,
            lambda key: (
                _HEAD + key
                if key.startswith(_CLASSIFIER)
                else _BACKBONE + _NETWORK_SE.respelled(key, _MMCLS_SE)
            ),
        )
    }


LAYOUTS: Mapping[str, Layout] = MappingProxyType(
    {
        layout.name: layout
        for layout in (
            Layout(
                "plain",
                "a bare state dict under the network's own names, all of them or none with a "
                "`module.` prefix, as guide 002's script takes it",
                _plain_to_network,
                _plain_from_network,
            ),
            Layout(
                "fixres",
                "nested under `model`, every name with a `module.` prefix; FixRes's "
                "imnet_finetune/train.py",
                _fixres_to_network,
                _fixres_from_network,
            ),
            Layout(
                "huawei-seresnext",
                "a bare state dict with `layerX.Y.fc1` and `fc2` as Linear layers; guide 000's "
                "state_dict.pth",
                _huawei_to_network,
                _huawei_from_network,
            ),
            Layout(
                "mmcls-seresnext",
                "nested under `state_dict`, with `backbone.` and `head.fc.` prefixes and "
                "`se_layer.convN.conv`; mmcls v0.23.0",
                _mmcls_to_network,
                _mmcls_from_network,
            ),
        )
    }
)


def _layout(name: str) -> Layout:
    try:
        return LAYOUTS[name]
    except KeyError:
        close = difflib.get_close_matches(name, LAYOUTS, n=1) or list(LAYOUTS)
        raise CheckpointError(
            f"no checkpoint layout `{name}`", remedy=f"closest: {', '.join(close)}"
        ) from None
