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
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.base.errors import CheckpointError, ConfigError, NetworkError, some
from harness.base.text import first_line
from harness.catalog.steps import Resize
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


@dataclass(frozen=True)
class OwnModel:
    """What a model file says of its network, in the catalog's words; `assumed`: what it does not.

    `class_names`: by index, none where the file has none. `preprocessing`: as the catalog has it.
    """

    source: str
    arguments: Mapping[str, Any]
    classes: int
    class_names: tuple[str, ...]
    input: str
    output: str
    preprocessing: Mapping[str, Any]
    assumed: tuple[str, ...]

    @property
    def size(self) -> int:
        """Side of its input in pixels."""
        return int(self.preprocessing["crop"]["size"])


def describe(*, file: str, network: str | None, size: int | None, trust: bool) -> dict[str, Any]:
    """Return the fields of an `OwnModel`.

    network: who builds it, where the file does not say; size: the side of its input.

    Raises `CheckpointError`, `ConfigError`, `NetworkError`: a file that cannot be used, or weights
    that are not the network's.
    """
    path = Path(file)
    weights.require_regular_file(path)
    if network == ONNX or path.suffix.lower() == ".onnx":
        model = _onnx(path, size)
    elif network == TORCHSCRIPT or _is_torchscript(path):
        model = _torchscript(path, size)
    else:
        model = _checkpoint(path, network, size, trust=trust)
    return asdict(model)


def _onnx(path: Path, size: int | None) -> OwnModel:
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
    if size is not None and own not in (None, size):
        raise ConfigError(f"{path} takes images of {own} x {own}", remedy="leave out --image-size")
    return _model(
        ONNX,
        classes[0],
        _names({one.key: one.value for one in model.metadata_props}),
        own or size,
        tensors=(given.name, out.name),
        assumed=["The reference is ONNX Runtime on the CPU: the file has no PyTorch network."],
    )


def _is_torchscript(path: Path) -> bool:
    with contextlib.suppress(OSError, zipfile.BadZipFile), zipfile.ZipFile(path) as archive:
        return any(name.split("/")[1:2] == ["code"] for name in archive.namelist())
    return False


def _torchscript(path: Path, size: int | None) -> OwnModel:
    module = weights.load_network(TORCHSCRIPT, {}, path, OWN, trust=False)
    names = _names({name: getattr(module, name, None) for name in _NAMES})
    classes = _outputs(module, size or USUAL_SIZE, str(path))
    return _model(TORCHSCRIPT, classes, names, size)


def _checkpoint(path: Path, network: str | None, size: int | None, *, trust: bool) -> OwnModel:
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
    assumed = [f"The network is {source}, as {said_by} says."] if said_by else []
    if nest_of(loaded, NESTS) and "state_dict_ema" in texts:
        assumed.append("The weights are state_dict's, not the average state_dict_ema.")
    model = _model(
        source, classes, _names(texts), size, arguments=arguments, trained=trained, assumed=assumed
    )
    found = _outputs(module, model.size, source)
    if found != classes:
        raise NetworkError(
            f"{source} with {classes} classes gives {found} outputs for an image",
            remedy="name the network that ends with the logits",
        )
    return model


def _model(
    source: str,
    classes: int,
    names: list[str],
    size: int | None,
    *,
    arguments: Mapping[str, Any] | None = None,
    tensors: tuple[str, str] = ("image", "class"),
    trained: Mapping[str, Any] | None = None,
    assumed: Sequence[str] = (),
) -> OwnModel:
    """Return a model with its network's own preprocessing, and `trained`, what the file says of its
    training, in its place. `size`: the side that was said.
    Raises `CheckpointError`: the class names are not those of `classes` classes.
    """
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
    given = {name: value for name, value in (trained or {}).items() if value}
    in_library = source.partition(":")[0] in library.LIBRARIES
    usual = {} if in_library else {**_USUAL, "img_size": size or USUAL_SIZE}
    steps = default_steps(source, usual | given)
    resize, side = Resize.model_construct(**steps["resize"]), steps["crop"]["size"]
    whose = f"the default configuration of {source}" if in_library else "what is usual"
    whose += ", with what the file says of its training" if given else ""
    preprocessing = f"resize {resize.describe()}, crop {side}, {resize.interpolation}"
    assumed = [*assumed, f"Preprocessing is {whose}: {preprocessing}."]
    if not in_library and size is None:
        assumed.append(f"Images of {side} x {side}: no file says it.")
    return OwnModel(
        source=source,
        arguments=arguments or {},
        classes=classes,
        class_names=tuple(names),
        input=tensors[0],
        output=tensors[1],
        preprocessing=steps,
        assumed=tuple(assumed),
    )


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
