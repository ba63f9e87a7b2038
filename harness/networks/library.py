"""Network names of the catalog, `torchvision:resnet50` or `timm:resnest50d`, to PyTorch modules.

The libraries supply the architecture alone: nothing is downloaded and no weights are read here
(`networks/weights.py` does that). PyTorch is imported when a function asks for it, never when
this module is: a plan, or a run whose artifacts are all in the store, does without it.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import importlib
import importlib.util
import os
import re
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping
from functools import cache, lru_cache, partial
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from harness.base.errors import NetworkError
from harness.base.store import file_digest
from harness.base.text import first_line

if TYPE_CHECKING:
    import torch

LIBRARIES = ("timm", "torchvision")
PYTHON = "python"  # `python:module:function`: the user's own function builds the network
ONNX, TORCHSCRIPT = "onnx", "torchscript"  # the file is the network: it has no other source
SOURCE = (
    r"(torchvision|timm):[A-Za-z0-9_]{1,64}|onnx|torchscript"
    r"|python:[A-Za-z_][A-Za-z0-9_.]{0,127}:[A-Za-z_][A-Za-z0-9_]{0,63}"
)
SOURCE_WANTED = (
    "torchvision:NAME or timm:NAME; of your own: torchscript, onnx or python:MODULE:FUNCTION"
)

# Arguments that would fetch or read weights, which is the checkpoint stage's business: no catalog
# may have them. timm unpickles what `checkpoint_path` names.
RESERVED_ARGUMENTS = frozenset(
    {
        "cache_dir",
        "checkpoint_path",
        "pretrained",
        "pretrained_cfg",
        "pretrained_cfg_overlay",
        "weights",
        "weights_backbone",
    }
)


class NetworkRefused(NetworkError):
    """The library has a network of that name and does not build it as the catalog asks."""


_INSTALL = "install the pinned requirements: python -m pip install -r requirements.txt"
_MISSING_OPERATOR = re.compile(r"operator torchvision::q?nms does not exist")
_OPERATORS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}


def import_torch() -> ModuleType:
    """Import PyTorch. Raises `NetworkError` where it is absent or broken."""
    return _import("torch")


def import_torchvision() -> ModuleType:
    """Import torchvision, also where its binary part does not fit the PyTorch beside it.

    PyPI's wheel for x86 is linked against CUDA. With a CPU build of PyTorch that part does not
    load, and the import ends with "operator torchvision::nms does not exist". No classifier
    needs `nms` or `qnms`: declaring their schemas is enough for the import, and calling one
    still fails. Raises `NetworkError` for any other failure.
    """
    import_torch()
    if "torchvision" in sys.modules:
        return _import("torchvision")
    with _without_compiler():
        _purge("torchvision")  # what another, failed import left behind
        try:
            return _import("torchvision")
        except NetworkError as error:
            if not _MISSING_OPERATOR.search(error.message):
                raise
        _purge("torchvision")
        _declare_operators()
        return _import("torchvision")


@contextlib.contextmanager
def _without_compiler() -> Iterator[None]:
    """Leave PyTorch's compiler out of torchvision's import, which it would take half of.

    torchvision asks it for one function, for the backward pass of `roi_align`, which no classifier
    has. Who imports the compiler afterwards gets the real one.
    """
    name = "torch._dynamo.utils"
    if name in sys.modules:
        yield
        return
    sys.modules[name] = stub = ModuleType(name)
    stub.__dict__["is_compile_supported"] = lambda device_type: False
    try:
        yield
    finally:
        del sys.modules[name]


def import_timm() -> ModuleType:
    """Import timm, after torchvision, which it imports. Raises `NetworkError`."""
    import_torchvision()
    torch: Any = import_torch()
    # timm marks what must not be compiled, for which the whole compiler is imported: half of the
    # time that timm takes. Nothing is compiled here.
    disable, torch.compiler.disable = torch.compiler.disable, _unchanged
    try:
        return _import("timm")
    finally:
        torch.compiler.disable = disable


def _unchanged(function: Any = None, *_: Any, **__: Any) -> Any:
    """Decorate with nothing, as a decorator with or without arguments."""
    return function if function is not None else _unchanged


def build_network(source: str, arguments: Mapping[str, Any]) -> torch.nn.Module:
    """Build the network that `source` names, `LIBRARY:NAME`, float32, in eval mode.

    Its weights are the library's random initialisation. `arguments` go to the library's
    constructor, e.g. `{"num_classes": 1001}`. Raises `NetworkError` for an unknown library or
    name, with the closest ones, and `NetworkRefused` for arguments that the constructor refuses.
    """
    if source.startswith(f"{PYTHON}:"):
        return _by_function(source, arguments)
    library, name = _split(source)
    # Classifiers alone are known: a detector fetches its backbone's weights, and timm takes
    # `hf-hub:...`, too.
    if unknown := unknown_network(source):
        raise NetworkError(unknown[0], remedy=unknown[1])
    if library == "torchvision":
        build = partial(import_torchvision().models.get_model, name, weights=None)
    else:
        build = partial(import_timm().create_model, name, pretrained=False)
    try:
        network: torch.nn.Module = build(**arguments)
    except Exception as error:  # the library's own code: any class can come out of it
        raise NetworkRefused(
            f"`{source}` cannot be built: {first_line(error)}",
            remedy="hold `network: arguments` of the model in the catalog (baselines.yaml) against "
            "the library's documentation",
        ) from error
    network.eval()
    return network


def _by_function(source: str, arguments: Mapping[str, Any]) -> torch.nn.Module:
    """Build the network with a function of the user's, which is code that runs."""
    _, module, name = source.split(":")
    try:
        network = getattr(importlib.import_module(module), name)(**arguments)
    except Exception as error:  # the user's own code: any class can come out of it
        raise NetworkRefused(
            f"`{source}` cannot be built: {first_line(error)}",
            remedy=f"put the folder of {module} into PYTHONPATH, and see that {name}() returns the "
            "network",
        ) from error
    if not isinstance(network, import_torch().nn.Module):
        raise NetworkRefused(
            f"`{source}` returned a {type(network).__name__}, not a torch.nn.Module",
            remedy="name the function that builds the network",
        )
    built: torch.nn.Module = network.float().eval()
    return built


def _digest_of(module: str) -> str:
    """Return a digest of the Python files of a user's module, of what lies in its folder, which it
    may import, or of its package: what they build is in no library's version. Nothing is imported.
    """
    top = module.partition(".")[0]
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        spec = None
    places = [Path(place) for place in (spec and spec.submodule_search_locations) or ()]
    if spec and spec.has_location and spec.origin and not places:
        places = [Path(spec.origin).parent]
    files = {path.relative_to(place): path for place in places for path in place.rglob("*.py")}
    digest, none = hashlib.sha256(), True
    for name, path in sorted(files.items()):
        environment = any(part.startswith(".") or part == "site-packages" for part in name.parts)
        if path.is_file() and not environment:
            none = False
            digest.update(os.fsencode(f"{name} {file_digest(path)}\n"))
    if none:
        raise NetworkError(
            f"there is no Python file of a module {top}",
            remedy="put the folder that it is in into PYTHONPATH",
        )
    return digest.hexdigest()


def library_version(source: str) -> str:
    """Return the version of the library that `source` names; nothing is imported to learn it."""
    if source.startswith(f"{PYTHON}:"):
        return _digest_of(source.split(":")[1])
    files = {ONNX: "onnxruntime", TORCHSCRIPT: "torch"}
    library = files[source] if source in files else _split(source)[0]
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError as error:
        raise NetworkError(f"`{source}`: {library} is not installed", remedy=_INSTALL) from error


# What each library writes above a network that it knows by name, and timm's tables of names that
# it has renamed. A test compares these names with those that the libraries list.
_REGISTERED = re.compile(
    r"^@register_model(?:\([^)\n]*\))?\n(?:@[^\n]*\n)*def ([A-Za-z0-9_]+)\(", re.MULTILINE
)
_RENAMED = re.compile(
    r"^register_model_deprecations\(__name__, \{(.*?)^\}\)", re.DOTALL | re.MULTILINE
)
_KEY = re.compile(r"""['"]([A-Za-z0-9_]+)['"]\s*:""")


@lru_cache(maxsize=256)
def unknown_network(source: str) -> tuple[str, str] | None:
    """Say what is wrong with the name in `LIBRARY:NAME`, and what to do; None when nothing is.

    The library's source is read for it, nothing is imported. Nothing is wrong where that cannot
    tell: the library is not installed, or a version of it writes down its networks otherwise.
    """
    if source in (ONNX, TORCHSCRIPT) or source.startswith(f"{PYTHON}:"):
        return None
    library, name = _split(source)
    # Nearly every name is right: the modules that do not even hold the word are not parsed.
    if any(name in _registered(text) for text in _sources(library) if name in text):
        return None
    known = {one for text in _sources(library) for one in _registered(text)}
    if not known:
        return None
    return (
        f"{library} {library_version(source)} has no network {name!r}",
        _closest(name, known) or f"look the name up in {library}'s documentation",
    )


def _registered(text: str) -> set[str]:
    """The names that a module of a library registers, the old names of renamed ones included."""
    names = set(_REGISTERED.findall(text)) if "register_model" in text else set()
    for table in _RENAMED.findall(text):
        names |= set(_KEY.findall(table))
    return names


def _sources(library: str) -> Iterator[str]:
    """Return the text of each module in which a library keeps its classifiers. Raises `OSError`:
    one of them cannot be read.
    """
    try:
        spec = importlib.util.find_spec(library)
    except (ImportError, ValueError):
        return
    for place in (spec.submodule_search_locations if spec else None) or ():
        for path in sorted(Path(place, "models").glob("*.py")):
            yield path.read_text(encoding="utf-8", errors="replace")


def _split(source: str) -> tuple[str, str]:
    library, colon, name = source.partition(":")
    if not colon or not name:
        raise NetworkError(
            f"`{source}` does not name a network",
            remedy="write LIBRARY:NAME, e.g. torchvision:resnet50 or timm:resnest50d",
        )
    if library not in LIBRARIES:
        raise NetworkError(
            f"`{source}`: no library `{library}`",
            remedy=_closest(library, LIBRARIES) or f"use one of {', '.join(LIBRARIES)}",
        )
    return library, name


def _closest(name: str, names: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, sorted(names), n=3)
    return f"closest: {', '.join(close)}" if close else ""


def _import(name: str) -> ModuleType:
    try:
        # Optional parts that are missing are announced as warnings; none matters to a
        # classifier, and a strict test session would turn them into errors.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise NetworkError(f"{name} needs {error.name}: not installed", remedy=_INSTALL) from error
    except Exception as error:  # a broken installation raises OSError, RuntimeError and more
        raise NetworkError(
            f"{name} cannot be imported: {first_line(error)}", remedy=_INSTALL
        ) from error


def _purge(package: str) -> None:
    for name in [n for n in sys.modules if n == package or n.startswith(f"{package}.")]:
        del sys.modules[name]


@cache
def _declare_operators() -> Any:
    """Declare the missing schemas; the cache keeps the library object, and so the schemas."""
    torch = import_torch()
    # A fragment, not a definition: the namespace may already have an owner.
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name, schema in _OPERATORS.items():
        if not hasattr(torch.ops.torchvision, name):
            library.define(schema)
    return library
