"""What a model file of one's own says of its network: the job behind a drafted catalog.

A checkpoint, a TorchScript or an ONNX file is read as a run reads it, its network is built and run
once, so that what does not fit ends before there is a run. Jobs (`harness.base.jobs`): they import
the libraries.
"""

from __future__ import annotations

import ast
import contextlib
import json
import zipfile
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from harness.base.errors import CheckpointError, ConfigError, NetworkError, some
from harness.base.text import first_line
from harness.networks import library, weights
from harness.networks.defaults import default_steps
from harness.networks.layouts import LAYOUTS, NESTS, OWN, nest_of
from harness.networks.library import ONNX, PYTHON, TORCHSCRIPT

USUAL_SIZE = 224
_LARGEST_CONFIG = 4 << 20  # bytes of a config.json
_NAMES = ("class_names", "classes", "label_names", "names", "labels", "id2label", "idx_to_class")
_INDICES = ("class_to_idx", "label2id")
_USUAL = {"interpolation": "bilinear"}  # of torchvision's scripts, and timm's mean and crop
_TRAINED = ("img_size", "input_size", "crop_pct", "mean", "std", "interpolation")  # timm's options


def describe(*, file: str, network: str | None, size: int | None, trust: bool) -> dict[str, Any]:
    """Return what the catalog says of a model: `source`, `arguments`, `classes`, `class_names` (by
    index, empty where the file has none), `input`, `output`, `size`, `steps`, and in `assumed` what
    the file does not say.

    network: who builds it, where the file does not say; size: the side of its input.

    Raises:
        CheckpointError, ConfigError, NetworkError: a file that cannot be used, or weights that are
            not the network's.
    """
    path = Path(file)
    weights.require_regular_file(path)
    if network == ONNX or path.suffix.lower() == ".onnx":
        return _onnx(path, size)
    if network == TORCHSCRIPT or _is_torchscript(path):
        return _torchscript(path, size)
    return _checkpoint(path, network, size, trust=trust)


def _onnx(path: Path, size: int | None) -> dict[str, Any]:
    import onnx

    try:
        model = onnx.load(str(path), load_external_data=False)
        known = {tensor.name for tensor in model.graph.initializer}
        (given,) = (one for one in model.graph.input if one.name not in known)
        (out,) = model.graph.output
        sides = [d.dim_value for d in given.type.tensor_type.shape.dim[2:]]
        classes = [d.dim_value for d in out.type.tensor_type.shape.dim][1:]
    except Exception as error:  # a damaged file raises nearly any class
        raise ConfigError(
            f"{path} is no ONNX file of one input and one output: {first_line(error)}",
            remedy="export it again: images in, logits out",
        ) from error
    own = sides[0] if sides and sides[0] > 0 else None
    if len(classes) != 1 or classes[0] < 2:
        raise ConfigError(
            f"{path}: its output {out.name!r} has the shape (batch, {', '.join(map(str, classes))})"
            ", not (batch, classes)",
            remedy="export a classifier, with its number of classes in the graph",
        )
    names = _names({one.key: one.value for one in model.metadata_props})
    about = _facts(ONNX, {}, classes[0], names, own or size or USUAL_SIZE)
    about["input"], about["output"] = given.name, out.name
    if size is not None and own not in (None, size):
        raise ConfigError(f"{path} takes images of {own} x {own}", remedy="leave out --image-size")
    return _with_steps(about, {}, said=own or size)


def _is_torchscript(path: Path) -> bool:
    with contextlib.suppress(OSError, zipfile.BadZipFile), zipfile.ZipFile(path) as archive:
        return any(name.split("/")[1:2] == ["code"] for name in archive.namelist())
    return False


def _torchscript(path: Path, size: int | None) -> dict[str, Any]:
    module = weights.load_network(TORCHSCRIPT, {}, path, OWN, trust=False)
    names = _names({name: getattr(module, name, None) for name in _NAMES})
    classes = _outputs(module, size or USUAL_SIZE, str(path))
    return _with_steps(_facts(TORCHSCRIPT, {}, classes, names, size or USUAL_SIZE), {}, said=size)


def _checkpoint(
    path: Path, network: str | None, size: int | None, *, trust: bool
) -> dict[str, Any]:
    loaded = weights.load_file(path, allow_unsafe=trust)
    config = _config(path)
    texts = config | (dict(loaded) if isinstance(loaded, Mapping) else {})
    options = texts.get("args")
    trained = {name: getattr(options, name, None) for name in _TRAINED}
    cfg = config.get("pretrained_cfg")
    trained |= {k: v for k, v in (cfg if isinstance(cfg, dict) else {}).items() if k in _TRAINED}
    trained |= {} if size is None else {"img_size": size, "input_size": None}
    source, said_by = (network, "") if network else _named(texts, path)
    state = LAYOUTS[OWN].to_network(loaded)
    classes = _classes_of(state, source)
    arguments = {} if source.startswith(f"{PYTHON}:") else {"num_classes": classes}
    module = library.build_network(source, arguments)
    weights.load_into(module, state, name=source)
    about = _facts(source, arguments, classes, _names(texts), size or 0)
    if said_by:
        about["assumed"].append(f"The network is {source}, as {said_by} says.")
    if nest_of(loaded, NESTS) and "state_dict_ema" in texts:
        about["assumed"].append("The weights are state_dict's, not the average state_dict_ema.")
    about = _with_steps(about, trained, said=size)
    found = _outputs(module, about["size"], source)
    if found != classes:
        raise NetworkError(
            f"{source} with {classes} classes gives {found} outputs for an image",
            remedy="name the network that ends with the logits",
        )
    return about


def _facts(
    source: str, arguments: Mapping[str, Any], classes: int, names: list[str], size: int
) -> dict[str, Any]:
    if names and len(names) != classes:
        raise CheckpointError(
            f"the file names {len(names)} classes ({some(names)}), its network has {classes}",
            remedy="write the file again with the names of its own classes",
        )
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise CheckpointError(
            f"its class names repeat: {some(twice)}",
            remedy="write the file again with a name of its own for each class",
        )
    return {
        "source": source,
        "arguments": dict(arguments),
        "classes": classes,
        "class_names": names,
        "input": "image",
        "output": "class",
        "size": size,
        "assumed": [],
    }


def _with_steps(
    about: dict[str, Any], trained: dict[str, Any], *, said: int | None
) -> dict[str, Any]:
    """Add the preprocessing: the network's own, with what the file says of its training."""
    source, library_has = about["source"], about["source"].partition(":")[0] in library.LIBRARIES
    asked = dict(trained) if library_has else {**_USUAL, "img_size": about["size"], **trained}
    steps = about["steps"] = default_steps(source, asked)
    about["size"] = steps["crop"]
    text = f"resize {steps['resize']}, crop {steps['crop']}, {steps['interpolation']}"
    whose = f"the default configuration of {source}" if library_has else "what is usual"
    if any(trained.values()):
        whose += ", with what the file says of its training"
    about["assumed"].append(f"Preprocessing is {whose}: {text}.")
    if source == ONNX:
        text = "The reference is ONNX Runtime on the CPU: the file has no PyTorch network."
        about["assumed"].append(text)
    if not library_has and said is None:
        about["assumed"].append(f"Images of {about['size']} x {about['size']}: no file says it.")
    return about


def _config(path: Path) -> dict[str, Any]:
    """Return the `config.json` that timm's hub writes beside weights; empty where there is none."""
    place = path.with_name("config.json")
    with contextlib.suppress(OSError, ValueError, RecursionError):
        if place.is_file() and place.stat().st_size <= _LARGEST_CONFIG:
            config = json.loads(place.read_text(encoding="utf-8"))
            return dict(config) if isinstance(config, dict) else {}
    return {}


def _named(texts: Mapping[str, Any], path: Path) -> tuple[str, str]:
    """Return the network that a file names (`arch` of training scripts), and who says so."""
    name = next((texts[k] for k in ("arch", "architecture") if isinstance(texts.get(k), str)), "")
    known = [f"{one}:{name}" for one in library.LIBRARIES if name.isidentifier()]
    for source in known:
        if library.unknown_network(source) is None:
            return source, f"`{'arch' if 'arch' in texts else 'architecture'}` of the file"
    raise NetworkError(
        f"{path} holds weights and does not say of which network{f' ({name})' if name else ''}",
        remedy="--network=timm:NAME, torchvision:NAME, or python:MODULE:FUNCTION",
    )


def _classes_of(state: Mapping[str, Any], source: str) -> int:
    """Return how many outputs the last layer has, by its weights."""
    names = [name for name, value in state.items() if getattr(value, "ndim", 0)]
    supplier, _, name = source.partition(":")
    config = library.import_timm().get_pretrained_cfg(name) if supplier == "timm" else None
    head = getattr(config, "classifier", None) or ()
    heads = [head] if isinstance(head, str) else list(head)
    places = [f"{one}.{part}" for one in heads for part in ("weight", "bias", "fc.weight")]
    last = next((one for one in places if one in names), names[-1] if names else "")
    if not last or state[last].shape[0] < 2:
        raise CheckpointError(
            f"the last weights, {last or 'none'}, are no classifier's",
            remedy="name the checkpoint of the whole network",
        )
    return int(state[last].shape[0])


def _outputs(module: Any, size: int, name: str) -> int:
    """Return how many logits the network has for one image."""
    torch = library.import_torch()
    try:
        with torch.inference_mode():
            shape = tuple(module(torch.zeros(1, 3, size, size)).shape)
    except Exception as error:  # the network's own code
        raise NetworkError(
            f"{name} does not take an image float32[1, 3, {size}, {size}]: {first_line(error)}",
            remedy="give the side of its input: --image-size=N",
        ) from error
    if len(shape) != 2 or shape[1] < 2:
        raise NetworkError(
            f"{name} gives {list(shape)} for one image, not [1, classes]",
            remedy="name a classifier that ends with logits",
        )
    return int(shape[1])


def _names(texts: Mapping[str, Any]) -> list[str]:
    """Return the class names that a file has, by index; empty where it has none."""
    for key in (*_INDICES, *_NAMES):
        value = texts.get(key)
        if isinstance(value, str):
            with contextlib.suppress(ValueError, SyntaxError, RecursionError, MemoryError):
                value = ast.literal_eval(value)
        if key in _INDICES and isinstance(value, Mapping):
            value = {index: name for name, index in value.items()}
        if isinstance(value, Mapping):
            value = _by_index(value.items())
        if isinstance(value, list | tuple) and value and all(isinstance(v, str) for v in value):
            return list(value)
    return []


def _by_index(pairs: Iterable[tuple[Any, Any]]) -> list[Any] | None:
    with contextlib.suppress(ValueError, TypeError):
        numbered = {int(index): name for index, name in pairs}
        if sorted(numbered) == list(range(len(numbered))):
            return [numbered[index] for index in sorted(numbered)]
    return None
