"""`baselines.yaml` against the five guides: every figure, copied here a second time by hand.

The tables below were written from the guides and not from the catalog. A figure that was typed
wrongly in one of the two places fails a test; so does one that a guide derives from another.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harness.catalog import fields
from harness.catalog import schema as module
from harness.catalog.load import load_catalog
from harness.catalog.schema import Catalog, Model
from harness.networks.layouts import LAYOUTS
from harness.targets.ascend.spec import AscendSpec

ROOT = Path(__file__).resolve().parents[2]
DOC = ROOT / "docs" / "baselines.md"

# Every throughput figure: model, target, unit, tuning -> {batch size: fps}.
FIGURES: dict[tuple[str, str, str, str], dict[int, float]] = {
    ("seresnext101", "ascend310p3", "chip", "none"): {
        1: 529.115, 4: 903.506, 8: 815.805, 16: 729.260, 32: 419.361, 64: 603.140,
    },
    ("seresnext101", "ascend310", "chip", "not-stated"): {
        1: 182.224, 4: 207.960, 8: 218.401, 16: 225.180, 32: 222.117, 64: 223.843,
    },
    ("seresnext101", "cuda", "card", "none"): {
        1: 346.484, 4: 604.421, 8: 648.682, 16: 723.749, 32: 771.672, 64: 789.784,
    },
    ("fixres", "ascend310p3", "card", "RL,GA"): {1: 893.562},
    ("fixres", "ascend310", "card", "RL,GA"): {1: 733.052},
    ("fixres", "cuda", "card", "none"): {1: 200.616},
    ("resnest50", "ascend310p3", "chip", "none"): {
        1: 435, 4: 1704, 8: 1630, 16: 1326, 32: 1161, 64: 1107,
    },
    ("squeezenet1_1", "ascend310", "card", "none"): {1: 4589.72, 16: 9414.68},
    ("squeezenet1_1", "ascend310", "card", "RL,GA"): {16: 10022.44},
    ("squeezenet1_1", "ascend310", "card", "not-stated"): {4: 8345.68, 8: 9061, 32: 9222.28},
    ("inceptionv4", "ascend310p3", "chip", "none"): {
        1: 761.4, 4: 1498.5, 8: 1315.3, 16: 1181.3, 32: 1163.6, 64: 1168.9,
    },
}  # fmt: skip

# One chip's figures, of which a card's are four times as much: guides 001 and 003.
CHIP_FIGURES = {
    "fixres": {1: 183.263},
    "squeezenet1_1": {1: 1147.43, 4: 2086.42, 8: 2265.25, 16: 2505.61, 32: 2305.57},
}

# Target (top-1, top-5), rule (percent, side), and the guide's own compiled model.
ACCURACY = {
    "seresnext101": ((78.26, None), (1, "both"), [("ascend310p3", 78.24, 94.23, (1, 16))]),
    "fixres": (
        (79.0, 94.6),
        (1, "both"),
        [("ascend310p3", 79.1, None, (1,)), ("ascend310", 79.1, None, (1,))],
    ),
    "resnest50": (
        (81.13, None),
        (1, "both"),
        [("ascend310p3", 80.98, None, (1, 4, 8, 16, 32, 64))],
    ),
    "squeezenet1_1": ((58.178, 80.624), (1, "drop"), [("ascend310", 58.19, 80.61, (1, 16))]),
    "inceptionv4": (
        (80.062, 94.926),
        (1, "both"),
        [("ascend310p3", 79.99, 94.86, (1, 4, 8, 16, 32, 64))],
    ),
}
MIDDLE_RANKS = {
    "seresnext101": (87.99, 91.32, 93.14),
    "squeezenet1_1": (69.67, 75.08, 78.28),
}

# guide, network, file, input, size, output, classes, offset, resize, crop's offset, toolchains
IDENTITY = {
    "seresnext101": (
        "guide-000", "timm:seresnext101_32x4d", "state_dict.pth", "image", 224, "class", 1000, 0,
        ("resize_short", 256), "round", {"CANN 5.1.RC2"},
    ),
    "fixres": (
        "guide-001", "torchvision:resnet50", "ResNetFinetune.pth", "image", 384, "class", 1000, 0,
        ("resize_height", 438), "round", {"CANN 5.1.RC1"},
    ),
    "resnest50": (
        "guide-002", "timm:resnest50d", "resnest50-528c19ca.pth", "actual_input_1", 224, "output1",
        1000, 0, ("resize_square", 256), "floor", {"CANN 6.0.RC1"},
    ),
    "squeezenet1_1": (
        "guide-003", "torchvision:squeezenet1_1", "squeezenet1_1-f364aa15.pth", "image", 224,
        "class", 1000, 0, ("resize_short", 256), "round", {"CANN 5.0.1"},
    ),
    "inceptionv4": (
        "guide-004", "timm:inception_v4", "inceptionv4-8e4777a0.pth", "image", 299, "class", 1001,
        1, ("resize_short", 342), "floor", {"CANN 6.0.RC1"},
    ),
}  # fmt: skip
CHECKPOINTS = {
    "seresnext101": ("huawei-seresnext", "0c94ea7067268cb66d74001d8b01f7f8", None),
    "fixres": ("fixres", None, None),
    "resnest50": ("plain", None, "528c19ca"),
    "squeezenet1_1": ("plain", "46a44d32d2c5c07f7f66324bef4c7266", "f364aa15"),
    "inceptionv4": ("plain", None, "8e4777a0"),
}
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALVES = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
LOG_LEVELS = {
    "seresnext101": "error", "fixres": "debug", "resnest50": None, "squeezenet1_1": "debug",
    "inceptionv4": "error",
}  # fmt: skip


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return load_catalog(ROOT / "baselines.yaml")


@pytest.fixture(params=list(IDENTITY))
def model(request: pytest.FixtureRequest, catalog: Catalog) -> Model:
    return catalog.model(request.param)


def test_the_five_models_in_the_order_of_their_guides(catalog: Catalog) -> None:
    # Models may follow them: a sixth needs no change here.
    assert list(catalog.models)[: len(IDENTITY)] == list(IDENTITY)
    assert {"ascend310", "ascend310p3", "cuda"} <= set(catalog.targets())


def test_every_throughput_figure(catalog: Catalog) -> None:
    found: dict[tuple[str, str, str, str], dict[int, float]] = {}
    for name in IDENTITY:
        for entry in catalog.model(name).figures():
            place = (entry.model, entry.target, entry.unit, entry.tuning)
            figures = found.setdefault(place, {})
            assert entry.batch_size not in figures
            figures[entry.batch_size] = entry.fps
    assert found == FIGURES


def test_figures_of_one_chip_and_of_the_card(catalog: Catalog) -> None:
    for name, expected in CHIP_FIGURES.items():
        figures = catalog.model(name).figures("ascend310")
        chips = {f.batch_size: f.chip_fps for f in figures if f.chip_fps is not None}
        assert chips == expected
        for entry in figures:
            assert (entry.unit, entry.chips_per_card, entry.factor) == ("card", 4, 4)
            if entry.chip_fps is not None:
                assert entry.fps == pytest.approx(4 * entry.chip_fps, abs=1e-6)


def test_each_accuracy(model: Model) -> None:
    target, rule, measured = ACCURACY[model.id]
    accuracy = model.accuracy
    assert (accuracy.published.top1, accuracy.published.top5) == target
    assert (accuracy.rule.tolerance_percent, accuracy.rule.side) == rule
    assert [
        (entry.target, entry.top1, entry.top5, entry.batch_sizes)
        for entry in accuracy.guide_measured
    ] == measured
    first = accuracy.guide_measured[0]
    ranks = (first.top2, first.top3, first.top4)
    assert ranks == MIDDLE_RANKS.get(model.id, (None, None, None))


def test_each_network_input_and_output(model: Model) -> None:
    steps = model.preprocessing
    tools = {t.toolchain for t in model.throughput if t.target == "ascend310p3"}
    tools = tools or {t.toolchain for t in model.throughput}
    assert (
        model.guide,
        model.network.source,
        model.checkpoint.file,
        model.input.name,
        model.input.size,
        model.output.name,
        model.classes,
        model.label_offset,
        (steps.resize.op, steps.resize.size),
        steps.crop.offset,
        tools,
    ) == IDENTITY[model.id]
    assert steps.resize.interpolation == "bilinear"
    expected = HALVES if model.id == "inceptionv4" else IMAGENET
    assert (steps.normalize.mean, steps.normalize.std) == expected
    assert model.section(AscendSpec).log == LOG_LEVELS[model.id]


def test_each_checkpoint(model: Model) -> None:
    checkpoint = model.checkpoint
    assert (checkpoint.layout, checkpoint.md5, checkpoint.sha256_prefix) == CHECKPOINTS[model.id]
    assert checkpoint.layout in LAYOUTS
    assert checkpoint.url is not None
    assert checkpoint.url.endswith(f"/{checkpoint.file}")
    assert checkpoint.sha256 is None  # nobody publishes one; a figure here would be made up


def test_the_rules_name_the_guide_that_states_them(catalog: Catalog) -> None:
    sources = {name: catalog.model(name).accuracy.rule.source for name in IDENTITY}
    # Guides 001, 002 and 004 state no rule.
    assert sources.pop("squeezenet1_1") == "guide-003"
    assert set(sources.values()) == {"guide-000"}
    for name in ("fixres", "resnest50", "inceptionv4"):
        assert "no rule" in catalog.model(name).accuracy.rule.note


def test_every_source_is_used_and_every_guide_is_there(catalog: Catalog) -> None:
    text = catalog.path.read_text(encoding="utf-8").partition("\nmodels:")[2]
    # A network is `source: timm:NAME`, with or without quotes: no source of a figure.
    used = set(re.findall(r"(?:source|guide): ([a-z0-9-]+)(?![\w:-])", text))
    assert set(catalog.sources) == used
    assert {f"guide-{n:03}" for n in range(5)} <= used


# --- Contradictions of the guides: both sides are kept --------------------------------------


def test_both_sides_of_a_contradiction_are_kept(catalog: Catalog) -> None:
    fixres, seresnext = catalog.model("fixres"), catalog.model("seresnext101")
    p3, t4 = (fixres.baselines(target)[1] for target in ("ascend310p3", "cuda"))
    assert p3.judged and not t4.judged
    resnest = catalog.model("resnest50").accuracy
    assert (resnest.published.top1, resnest.published.source) == (81.13, "guide-002")
    others = {(other.source, other.top1, other.top5) for other in resnest.also_published}
    assert others == {("resnest-readme", 81.03, None), ("mmcls", 81.13, 95.59)}
    for said, note in (
        ("1.6", p3.note),
        ("224", t4.not_comparable),
        ("SE-ResNet-101", seresnext.accuracy.published.note),
        ("a chip's or a card's", seresnext.baselines("ascend310")[1].note),
        ("81.03", resnest.published.note),
    ):
        assert said in note


def test_squeezenet_judges_batches_1_and_16_and_16_tuned(catalog: Catalog) -> None:
    model = catalog.model("squeezenet1_1")
    figures = model.baselines("ascend310")
    assert [at for at, entry in figures.items() if entry.judged] == [1, 16]
    assert (figures[16].fps, figures[16].tuning) == (10022.44, "RL,GA")
    untuned = [b.fps for b in model.figures() if b.batch_size == 16 and b.tuning == "none"]
    assert untuned == [9414.68]


def test_judged_ascend_figures_are_tuned_as_the_model_is_compiled(model: Model) -> None:
    for target in ("ascend310", "ascend310p3"):
        for at, entry in model.baselines(target).items():
            if entry.judged and entry.tuning != "not-stated":
                assert entry.tuning == model.section(AscendSpec).tuning(at)
                flag = ("--auto_tune_mode=RL,GA",) if entry.tuning == "RL,GA" else ()
                assert entry.compiler_flags == flag


def test_throughput_may_not_fall_short_by_default(model: Model) -> None:
    assert {entry.tolerance_percent for entry in model.figures()} == {0}
    assert {entry.provenance for entry in model.figures()} == {"real"}


# --- The document ---------------------------------------------------------------------------


def sections() -> list[type[fields.Section]]:
    values = vars(module).values()
    kinds = [v for v in values if isinstance(v, type) and issubclass(v, fields.Section)]
    return [kind for kind in kinds if kind is not Catalog]


def test_the_document_names_every_key() -> None:
    text = DOC.read_text(encoding="utf-8")
    keys = {key for section in sections() for key in section.known_keys()}
    assert len(keys) > 40
    assert sorted(key for key in keys if f"`{key}`" not in text) == []


def test_the_document_names_every_word_that_a_key_may_have() -> None:
    text = DOC.read_text(encoding="utf-8")
    words = [
        *load_catalog(ROOT / "baselines.yaml").targets(),
        *fields.FAILURE_STAGES,
        *LAYOUTS,
        "whole-dataset",
        "pure-inference",
    ]
    assert [word for word in words if f"`{word}`" not in text] == []
