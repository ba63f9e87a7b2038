"""Checkpoints: the five files' layouts, strict loading, and what a bad file meets.

No published weights are here. `data/checkpoints/*.txt` lists the names and shapes that the
original files hold; the tests write files of exactly that form, each tensor filled with one
number of its own, so that a weight under a wrong name is seen.
"""

from __future__ import annotations

import collections
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harness.base.errors import CheckpointError
from harness.catalog.load import load_catalog
from harness.networks.layouts import LAYOUTS, State
from harness.networks.library import build_network
from harness.networks.weights import load_into, load_state, save_checkpoint

ROOT = Path(__file__).parents[2]
ZOO = load_catalog(ROOT / "catalogs" / "modelzoo.yaml")
KEYS = Path(__file__).parent / "data" / "checkpoints"
Keys = dict[str, tuple[int, ...]]

NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def read_keys(name: str) -> Keys:
    """Names and shapes in the order of the file, from a list in `data/checkpoints`.

    A line is a name, indented under its parent, `{1-3}` standing for three siblings. A leaf ends
    with what it holds: `weight OxI`, `biased OxI` (a weight and a bias), or `bn C` (the five
    tensors of a batch normalisation).
    """
    lines = [
        (len(line) - len(line.lstrip()), line.split())
        for line in (KEYS / f"{name}.txt").read_text().splitlines()
        if not line.startswith("#")
    ]
    return dict(_expand(lines, ""))


def _expand(
    lines: list[tuple[int, list[str]]], prefix: str
) -> Iterator[tuple[str, tuple[int, ...]]]:
    position = 0
    while position < len(lines):
        indent, words = lines[position]
        end = position + 1
        while end < len(lines) and lines[end][0] > indent:
            end += 1
        for sibling in _siblings(words[0]):
            name = prefix + sibling
            if len(words) == 1:
                yield from _expand(lines[position + 1 : end], f"{name}.")
                continue
            shape = tuple(int(side) for side in words[2].split("x"))
            if words[1] == "bn":
                for part in NORM:
                    yield f"{name}.{part}", () if part == NORM[-1] else shape
            else:
                yield f"{name}.weight", shape
                if words[1] == "biased":
                    yield f"{name}.bias", shape[:1]
        position = end


def _siblings(name: str) -> list[str]:
    found = re.fullmatch(r"\{(\d+)-(\d+)\}", name)
    return [str(n) for n in range(int(found[1]), int(found[2]) + 1)] if found else [name]


def stand_in(keys: Keys) -> State:
    """A tensor for each key, filled with the key's position; an expanded scalar costs nothing."""
    return {
        key: torch.tensor(position)
        if key.endswith(".num_batches_tracked")
        else torch.tensor(float(position)).expand(shape)
        for position, (key, shape) in enumerate(keys.items(), start=1)
    }


@dataclass(frozen=True)
class Original:
    """One of the files, and how its publisher's code calls the network's weights."""

    name: str
    layout: str
    source: str
    nest: str | None = None
    original_key: Callable[[str], str] = lambda key: key

    def wrapped(self, state: State) -> object:
        return {self.nest: state} if self.nest else state


def _mmcls_key(key: str) -> str:
    if key.startswith("fc."):
        return f"head.{key}"
    return "backbone." + key.replace(".se.fc1.", ".se_layer.conv1.conv.").replace(
        ".se.fc2.", ".se_layer.conv2.conv."
    )


SQUEEZENET = Original("squeezenet1_1", "plain", "torchvision:squeezenet1_1")
FIXRES = Original(
    "fixres",
    "fixres",
    "torchvision:resnet50",
    nest="model",
    original_key=lambda key: f"module.{key}",
)
HUAWEI = Original(
    "seresnext101",
    "huawei-seresnext",
    "timm:seresnext101_32x4d",
    original_key=lambda key: key.replace(".se.", "."),
)
ORIGINALS = [
    SQUEEZENET,
    FIXRES,
    HUAWEI,
    replace(
        HUAWEI,
        name="seresnext101_mmcls",
        layout="mmcls-seresnext",
        nest="state_dict",
        original_key=_mmcls_key,
    ),
    Original("resnest50", "plain", "timm:resnest50d"),
    Original("inceptionv4", "plain", "timm:inception_v4"),
]
each_original = pytest.mark.parametrize("original", ORIGINALS, ids=lambda o: o.name)


@cache
def network(source: str) -> torch.nn.Module:
    """One module for all tests, which overwrite its weights: building costs most of a test."""
    return build_network(source, {"num_classes": 1001} if "inception" in source else {})


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads that spin for each other take a minute for a second's work on a busy host."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def write(path: Path, loaded: object, **options: Any) -> Path:
    torch.save(loaded, path, **options)
    return path


# ------------------------------------------------------------------------ the five originals


@each_original
def test_original_loads_into_its_network(original: Original, tmp_path: Path) -> None:
    stored = stand_in(read_keys(original.name))
    path = write(tmp_path / "weights.pth", original.wrapped(stored))
    module = network(original.source)
    load_into(module, load_state(path, original.layout), name=original.name)
    for key, value in module.state_dict().items():
        wanted = stored[original.original_key(key)]
        assert value.aminmax() == wanted.reshape(-1)[:1].aminmax(), key


@each_original
def test_layout_is_undone_by_its_inverse(original: Original) -> None:
    layout = LAYOUTS[original.layout]
    state = stand_in({k: tuple(v.shape) for k, v in network(original.source).state_dict().items()})
    written: Any = layout.from_network(state)
    inner = written[original.nest] if original.nest else written
    assert {k: tuple(v.shape) for k, v in inner.items()} == read_keys(original.name)
    back = layout.to_network(written)
    assert list(back) == list(state)
    assert all(torch.equal(back[key], state[key]) for key in state)


def test_fixres_training_entries_are_passed_over(tmp_path: Path) -> None:
    module = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    module(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    loaded = {
        "epoch": 3,
        "accuracy": torch.tensor([79.0]),
        "optimizer": optimizer.state_dict(),
        "lr_scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 1).state_dict(),
        "model": {"module.fc.weight": torch.ones(2, 2)},
    }
    assert list(load_state(write(tmp_path / "w.pth", loaded), "fixres")) == ["fc.weight"]


def test_file_of_an_old_pytorch_loads(tmp_path: Path) -> None:
    """squeezenet1_1-f364aa15.pth is of the format before PyTorch 1.6."""
    stored = collections.OrderedDict(stand_in(read_keys("squeezenet1_1")))
    path = write(tmp_path / "w.pth", stored, _use_new_zipfile_serialization=False)
    assert path.read_bytes()[:1] == b"\x80"
    load_into(network(SQUEEZENET.source), load_state(path, "plain"), name="squeezenet1_1")


def test_state_without_counters_loads() -> None:
    """Files older than PyTorch 0.4.1 have no `num_batches_tracked`."""
    state = {
        key: value
        for key, value in stand_in(network_keys()).items()
        if not key.endswith(".num_batches_tracked")
    }
    load_into(network(FIXRES.source), state, name="resnet50")
    assert network(FIXRES.source).state_dict()["bn1.running_var"][0] == state["bn1.running_var"][0]


def network_keys() -> Keys:
    return {key.removeprefix("module."): shape for key, shape in read_keys("fixres").items()}


def test_saved_checkpoint_has_its_layout_and_steady_bytes(tmp_path: Path) -> None:
    state = {"layer1.0.se.fc1.weight": torch.rand(4, 8, 1, 1), "fc.bias": torch.rand(9)[:3]}
    for layout in LAYOUTS:
        save_checkpoint(state, layout, tmp_path / "a.pth")
        copies = {key: torch.nn.Parameter(value.clone()) for key, value in state.items()}
        save_checkpoint(copies, layout, tmp_path / "another name.pth")
        assert (tmp_path / "a.pth").read_bytes() == (tmp_path / "another name.pth").read_bytes()
        loaded = load_state(tmp_path / "a.pth", layout)
        assert {k: v.tolist() for k, v in loaded.items()} == {
            k: v.tolist() for k, v in state.items()
        }
    # A view must not take the rest of its storage along.
    save_checkpoint({"a.b": torch.zeros(1_000_000)[:3]}, "plain", tmp_path / "view.pth")
    assert (tmp_path / "view.pth").stat().st_size < 10_000


def test_checkpoint_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot be written"):
        save_checkpoint({"a.b": torch.ones(1)}, "plain", tmp_path / "absent" / "w.pth")


# ----------------------------------------------------------------- what strict loading notices


def fault(change: Callable[[State], object], original: Original = FIXRES) -> str:
    """The message that a changed state dict meets at the network, which must not change."""
    state = stand_in({k: tuple(v.shape) for k, v in network(original.source).state_dict().items()})
    change(state)
    module = network(original.source)
    first = next(iter(module.parameters()))
    with torch.no_grad():
        first.fill_(-7.0)
    with pytest.raises(CheckpointError) as caught:
        load_into(module, state, name="the-model")
    assert bool((first == -7.0).all()), "the network was changed before all was checked"
    assert "\n" not in caught.value.message
    return caught.value.message


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("layer3.4.bn2.running_mean", None, "1 key missing: layer3.4.bn2.running_mean"),
        ("layer3.4.bn2.running_var", None, "1 key missing: layer3.4.bn2.running_var"),
        ("fc2.weight", torch.ones(1), "1 key unknown to the network: fc2.weight"),
        (
            "fc.bias",
            torch.ones(1001),
            "1 key of another shape: fc.bias ([1001], the network has [1000])",
        ),
        ("bn1.running_var", torch.full((64,), -1.0), "a variance below zero: bn1.running_var"),
        ("fc.bias", torch.ones(1000).half(), "dtype: fc.bias (float16, the network has float32"),
        ("fc.bias", torch.ones(1000).bfloat16(), "dtype: fc.bias (bfloat16,"),
        ("fc.bias", torch.ones(1000).double(), "dtype: fc.bias (float64,"),
        ("fc.bias", torch.full((1000,), float("nan")), "with NaN or infinity: fc.bias"),
        ("fc.bias", torch.full((1000,), float("-inf")), "with NaN or infinity: fc.bias"),
        ("fc.bias", [0.0] * 1000, "not a dense tensor: fc.bias (list)"),
        ("fc.bias", np.zeros(1000, np.float32), "not a dense tensor: fc.bias (ndarray)"),
        ("fc.bias", torch.ones(1000).to_sparse(), "not a dense tensor: fc.bias"),
        ("fc.bias", torch.ones(1000, device="meta"), "not a dense tensor: fc.bias"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_weight_of_the_network_is_noticed(key: str, value: Any, said: str) -> None:
    def change(state: State) -> object:
        return state.pop(key) if value is None else state.update({key: value})

    message = fault(change)
    assert said in message and message.startswith("the-model does not take these weights")


# ------------------------------------------------------------------------------ wrong layouts

ONE = torch.ones(1)
FC = torch.ones(16, 256)


@pytest.mark.parametrize(
    ("layout", "loaded", "said"),
    [
        (
            "fixres",
            {"module.fc.bias": ONE},
            "no `model` at the top level, which has module.fc.bias",
        ),
        ("fixres", {"state_dict": {"module.fc.bias": ONE}}, "no `model`"),
        (
            "fixres",
            {"model": {"fc.bias": ONE}},
            "`fc.bias` is not a name of it; the layout calls it `module.fc.bias`",
        ),
        ("fixres", {"model": [ONE]}, "`model` is a list"),
        ("fixres", {"model": {}}, "`model` is an empty dict"),
        ("fixres", {"model": {"module.a.b": ONE}, "a.b": ONE}, "and at the top level: a.b"),
        ("plain", {"model": {"fc.bias": ONE}}, "found a dict under `model`"),
        ("plain", {"module.a.b": ONE, "a.b": ONE}, "`module.a.b`, `a.b`"),
        ("plain", [ONE], "is a list, not a dict"),
        ("plain", ONE, "is a Tensor, not a dict"),
        ("plain", {}, "is an empty dict"),
        ("plain", {3: ONE}, "has the key 3, no weight's name"),
        ("plain", {"\x1b[31m\n": ONE}, r"has the key '\x1b[31m\n', no weight's name"),
        ("plain", {"x" * 5000: ONE}, "has the key 'xxx"),
        (
            "huawei-seresnext",
            {"layer1.0.fc1.weight": FC, "layer1.0.se.fc1.weight": FC},
            "the layout calls it `layer1.0.fc1.weight`",
        ),
        (
            "huawei-seresnext",
            {"layer1.0.fc1.weight": torch.ones(16, 256, 1, 1)},
            "`layer1.0.fc1.weight` has the shape [16, 256, 1, 1]",
        ),
        ("huawei-seresnext", {"layer1.0.fc1.weight": "x"}, "has the shape []"),
        ("huawei-seresnext", {"state_dict": {"fc.bias": ONE}}, "found a dict under `state_dict`"),
        ("mmcls-seresnext", {"backbone.conv1.weight": ONE}, "no `state_dict`"),
        ("mmcls-seresnext", {"state_dict": {"neck.a.b": ONE}}, "neck.a.b"),
        ("mmcls-seresnext", {"state_dict": {"backbone.fc.bias": ONE}}, "backbone.fc.bias"),
        (
            "mmcls-seresnext",
            {"state_dict": {"backbone.layer2.1.se.fc2.bias": ONE}},
            "the layout calls it `backbone.layer2.1.se_layer.conv2.conv.bias`",
        ),
    ],
)
def test_wrong_layout_is_named(layout: str, loaded: object, said: str, tmp_path: Path) -> None:
    path = write(tmp_path / "w.pth", loaded)
    with pytest.raises(CheckpointError) as caught:
        load_state(path, layout)
    assert said in caught.value.message and str(path) in caught.value.message
    assert layout in caught.value.message and caught.value.remedy
    assert caught.value.message.isprintable() and len(caught.value.message) < 600 + len(str(path))


def test_data_parallel_prefix_is_stripped_when_uniform() -> None:
    loaded = LAYOUTS["plain"].to_network({"module.a.b": ONE, "module.module.c": ONE})
    assert list(loaded) == ["a.b", "module.c"]


# A name in each file as its authors' code writes it, and the network's own.
ZOO_NAMES = {
    "efficientnet_b7": ("_blocks.4._se_reduce.weight", "blocks.1.0.se.conv_reduce.weight"),
    "efficientnet_b0_pycls": ("s2.b1.lin_proj_bn.bias", "blocks.1.0.bn3.bias"),
    "dpn131": ("last_linear.weight", "classifier.weight"),
    "inception_resnet_v2": ("last_linear.bias", "classif.bias"),
    "convnext_tiny": ("downsample_layers.2.1.weight", "stages.2.downsample.1.weight"),
    "convmixer_1536_20": ("22.0.fn.0.weight", "blocks.19.0.fn.0.weight"),
    "repvgg_a0": ("stage2.1.rbr_dense.bn.bias", "stages.1.1.conv_kxk.bn.bias"),
}


@pytest.mark.parametrize("model", ZOO_NAMES)
def test_layouts_of_the_zoo_name_every_weight_there_and_back(model: str) -> None:
    spec = ZOO.models[model]
    with torch.device("meta"):
        network = build_network(spec.network.source, spec.network.arguments)
    state, layout = network.state_dict(), LAYOUTS[spec.checkpoint.layout]
    written: Any = layout.from_network(state)
    in_file = written[layout.nest] if layout.nest else written
    theirs, ours = ZOO_NAMES[model]
    assert in_file[theirs].shape == state[ours].shape
    assert not in_file.keys() & {ours}
    back = layout.to_network(written)
    assert {name: v.shape for name, v in back.items()} == {n: v.shape for n, v in state.items()}


def test_a_network_that_takes_red_first_gets_weights_that_take_blue_first(tmp_path: Path) -> None:
    stem = torch.arange(6.0).reshape(2, 3, 1, 1)
    layout = replace(LAYOUTS["plain"], bgr="stem.weight")
    state = layout.to_network({"stem.weight": stem, "bias": torch.ones(3)})
    assert state["stem.weight"][:, 0].flatten().tolist() == [2.0, 5.0]
    assert layout.from_network(state)["stem.weight"].equal(stem)  # type: ignore[index]


def test_a_network_that_asks_for_versions_takes_a_state_without_them(tmp_path: Path) -> None:
    network = build_network("torchvision:mnasnet0_5", {})
    save_checkpoint(network.state_dict(), "plain", tmp_path / "plain.pth")
    load_into(network, load_state(tmp_path / "plain.pth", "plain"), name="mnasnet0_5")
