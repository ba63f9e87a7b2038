"""Layouts of checkpoint files: what a state dict is nested under, and what its keys are called.

A `Layout` is a pair of inverse functions between the object in a file and the keys of the network
that `networks/library.py` builds. PyTorch is not imported before it is needed.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from harness.base.errors import CheckpointError, some
from harness.networks.library import import_torch

if TYPE_CHECKING:
    import torch

State = dict[str, "torch.Tensor"]
LONGEST_NAME = 200  # characters; a name is printed in messages


@dataclass(frozen=True)
class Layout:
    """The names and the nesting of the weights of a network in a checkpoint file.

    `to_network` takes the object that the file holds and gives the network's own keys; it raises
    `CheckpointError`. `from_network` is its inverse: the object to write for a network's state.
    """

    name: str
    description: str
    to_network: Callable[[object], State]
    from_network: Callable[[Mapping[str, torch.Tensor]], object]


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
        if not isinstance(key, str) or not key.isprintable() or len(key) > LONGEST_NAME:
            raise CheckpointError(
                f"{what} has the key {repr(key)[:LONGEST_NAME]}, no weight's name"
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


def _plain_to_network(loaded: object) -> State:
    state = _bare(loaded)
    bare = [key for key in state if not key.startswith(_PREFIX)]
    if bare and len(bare) < len(state):
        prefixed = next(key for key in state if key.startswith(_PREFIX))
        raise CheckpointError(
            f"some names begin with `{_PREFIX}` and some do not: `{prefixed}`, `{bare[0]}`"
        )
    return state if bare else _renamed(state, lambda key: key.removeprefix(_PREFIX))


def _fixres_to_network(loaded: object) -> State:
    state = _nested(loaded, "model")
    bare = [key for key in state if not key.startswith(_PREFIX)]
    if bare:
        raise CheckpointError(f"names without `{_PREFIX}` under `model`: {some(bare)}")
    return _renamed(state, lambda key: key.removeprefix(_PREFIX))


def _fixres_from_network(state: Mapping[str, torch.Tensor]) -> object:
    return {"model": _renamed(state, lambda key: _PREFIX + key)}


# The two squeeze-and-excitation layers of a block, in three spellings, as what stands before and
# after a layer's number: timm's, which is the network's; Huawei's SE_ResNeXt, where they are Linear
# layers beside the block's convolutions; mmcls v0.23.0, where they are ConvModules. The classifier,
# a top-level `fc`, is none of them.
_Spelling = tuple[str, str]
_NETWORK_SE: _Spelling = ("se.fc", "")
_HUAWEI_SE: _Spelling = ("fc", "")
_MMCLS_SE: _Spelling = ("se_layer.conv", ".conv")


def _se_parts(key: str, spelling: _Spelling) -> re.Match[str] | None:
    before, after = map(re.escape, spelling)
    return re.fullmatch(rf"(layer[1-4]\.\d+)\.{before}([12]){after}\.(weight|bias)", key)


def _respelled(key: str, old: _Spelling, new: _Spelling) -> str:
    parts = _se_parts(key, old)
    return f"{parts[1]}.{new[0]}{parts[2]}{new[1]}.{parts[3]}" if parts else key


def _refuse_network_names(keys: Iterable[str], spelling: _Spelling) -> None:
    for key in keys:
        if _se_parts(key, _NETWORK_SE):
            raise CheckpointError(
                f"`{key}` is the network's own name; the layout calls it "
                f"`{_respelled(key, _NETWORK_SE, spelling)}`"
            )


def _huawei_to_network(loaded: object) -> State:
    state = _bare(loaded)
    _refuse_network_names(state, _HUAWEI_SE)
    for key, value in state.items():
        if _se_parts(key, _HUAWEI_SE) and key.endswith(".weight"):
            state[key] = _linear_to_conv(key, value)
    return _renamed(state, lambda key: _respelled(key, _HUAWEI_SE, _NETWORK_SE))


def _huawei_from_network(state: Mapping[str, torch.Tensor]) -> object:
    result = dict(state)
    for key, value in result.items():
        if _se_parts(key, _NETWORK_SE) and key.endswith(".weight"):
            result[key] = value.flatten(start_dim=1)
    return _renamed(result, lambda key: _respelled(key, _NETWORK_SE, _HUAWEI_SE))


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

    def plain(key: str) -> str:
        if key in inner:
            return _respelled(inner[key], _MMCLS_SE, _NETWORK_SE)
        return key.removeprefix(_HEAD)

    return _renamed(state, plain)


def _mmcls_from_network(state: Mapping[str, torch.Tensor]) -> object:
    def outer(key: str) -> str:
        if key.startswith(_CLASSIFIER):
            return _HEAD + key
        return _BACKBONE + _respelled(key, _NETWORK_SE, _MMCLS_SE)

    return {"state_dict": _renamed(state, outer)}


_ALL = (
    Layout(
        "plain",
        "a bare state dict under the network's own names, all of them or none with a `module.` "
        "prefix, as guide 002's script takes it",
        _plain_to_network,
        dict,
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
LAYOUTS: Mapping[str, Layout] = MappingProxyType({layout.name: layout for layout in _ALL})


def layout_of(name: str) -> Layout:
    try:
        return LAYOUTS[name]
    except KeyError:
        close = difflib.get_close_matches(name, LAYOUTS, n=1) or list(LAYOUTS)
        raise CheckpointError(
            f"no checkpoint layout `{name}`", remedy=f"closest: {', '.join(close)}"
        ) from None
