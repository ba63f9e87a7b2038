"""`baselines.yaml` against the five guides: every figure, copied here a second time by hand.

The tables below were written from the guides and not from the catalog. A figure that was typed
wrongly in one of the two places fails a test; so does one that a guide derives from another.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
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

# Of later editions: source, target -> its date, and the figures at 1, 4, 8, 16, 32, 64.
EDITIONS: dict[tuple[str, str], tuple[str, tuple[float, ...]]] = {
    ("seresnext101-2023-01", "ascend310p3"):
        ("2023-01-03", (555.81, 927.09, 844.82, 721.43, 421.14, 641.26)),
    ("fixres-2023-01", "ascend310p3"): ("2023-01-06", (973, 984, 952, 933, 957, 949)),
    ("squeezenet-2022-12", "ascend310p3"):
        ("2022-12-17", (6459.28, 17122.55, 22418.76, 19458.47, 15860.09, 11393.71)),
    ("squeezenet-2023-06", "ascend310p3"):
        ("2023-06-08", (5797.1, 15289.3, 21301.5, 18339.9, 15468.8, 14051.23)),
    ("squeezenet-2023-11", "ascend310p3"):
        ("2023-11-19", (4849.7, 14058.3, 19546.3, 18339.9, 15468.8, 14051.23)),
    ("squeezenet-2023-11", "ascend310b1"):
        ("2023-11-19", (3146.63, 4576.65, 3871.84, 3629.88, 3544.9, 822.58)),
}  # fmt: skip

# One chip's figures, of which a card's are four times as much: guides 001 and 003.
CHIP_FIGURES = {
    "fixres": {1: 183.263},
    "squeezenet1_1": {1: 1147.43, 4: 2086.42, 8: 2265.25, 16: 2505.61, 32: 2305.57},
}

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALVES = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@dataclass(frozen=True)
class Guide:
    """What a guide says of its model besides throughput."""

    guide: str
    network: str
    file: str
    output: str
    toolchain: str
    published: tuple[float, float | None]  # top-1 and top-5
    # The guide's own compiled model: target, top-1 to top-5, batch sizes.
    measured: list[tuple[str, tuple[float | None, ...], tuple[int, ...]]]
    input: str = "image"
    size: int = 224
    layout: str = "plain"
    md5: str | None = None
    sha256_prefix: str | None = None
    classes: tuple[int, int] = (1000, 0)  # and the offset of the labels
    resize: tuple[str, int] = ("resize_short", 256)
    crop_offset: str = "round"
    normalize: tuple[tuple[float, ...], tuple[float, ...]] = IMAGENET
    rule: tuple[str, float, str] = ("guide-000", 1, "both")  # 001, 002 and 004 state none
    log: str | None = "error"


ALL_BATCHES = (1, 4, 8, 16, 32, 64)
GUIDES = {
    "seresnext101": Guide(
        "guide-000", "timm:seresnext101_32x4d", "state_dict.pth", "class", "CANN 5.1.RC2",
        (78.26, None), [("ascend310p3", (78.24, 87.99, 91.32, 93.14, 94.23), (1, 16))],
        layout="huawei-seresnext", md5="0c94ea7067268cb66d74001d8b01f7f8",
    ),
    "fixres": Guide(
        "guide-001", "torchvision:resnet50", "ResNetFinetune.pth", "class", "CANN 5.1.RC1",
        (79.0, 94.6),
        [(target, (79.1, None, None, None, None), (1,)) for target in ("ascend310p3", "ascend310")],
        size=384, layout="fixres", resize=("resize_height", 438), log="debug",
    ),
    "resnest50": Guide(
        "guide-002", "timm:resnest50d", "resnest50-528c19ca.pth", "output1", "CANN 6.0.RC1",
        (81.13, None), [("ascend310p3", (80.98, None, None, None, None), ALL_BATCHES)],
        input="actual_input_1", sha256_prefix="528c19ca", resize=("resize_square", 256),
        crop_offset="floor", log=None,
    ),
    "squeezenet1_1": Guide(
        "guide-003", "torchvision:squeezenet1_1", "squeezenet1_1-f364aa15.pth", "class",
        "CANN 5.0.1", (58.178, 80.624),
        [("ascend310", (58.19, 69.67, 75.08, 78.28, 80.61), (1, 16))],
        md5="46a44d32d2c5c07f7f66324bef4c7266", sha256_prefix="f364aa15",
        rule=("guide-003", 1, "drop"), log="debug",
    ),
    "inceptionv4": Guide(
        "guide-004", "timm:inception_v4", "inceptionv4-8e4777a0.pth", "class", "CANN 6.0.RC1",
        (80.062, 94.926), [("ascend310p3", (79.99, None, None, None, 94.86), ALL_BATCHES)],
        size=299, sha256_prefix="8e4777a0", classes=(1001, 1), resize=("resize_short", 342),
        crop_offset="floor", normalize=HALVES,
    ),
}  # fmt: skip


def said_by(model: Model) -> Guide:
    checkpoint, steps, accuracy = model.checkpoint, model.preprocessing, model.stated
    own = [t for t in model.throughput if t.source == model.guide]
    tools = {t.toolchain for t in own if t.target == "ascend310p3"}
    (toolchain,) = tools or {t.toolchain for t in own}
    return Guide(
        guide=model.guide,
        network=model.network.source,
        file=checkpoint.file,
        output=model.output.name,
        toolchain=toolchain,
        published=(accuracy.published.top1, accuracy.published.top5),
        measured=[
            (one.target, (one.top1, one.top2, one.top3, one.top4, one.top5), one.batch_sizes)
            for one in accuracy.guide_measured
        ],
        input=model.input.name,
        size=model.input.size,
        layout=checkpoint.layout,
        md5=checkpoint.md5,
        sha256_prefix=checkpoint.sha256_prefix,
        classes=(model.classes, model.label_offset),
        resize=(steps.resize.op, steps.resize.size),
        crop_offset=steps.crop.offset,
        normalize=(steps.normalize.mean, steps.normalize.std),
        rule=(accuracy.rule.source, accuracy.rule.tolerance_percent, accuracy.rule.side),
        log=model.section(AscendSpec).log,
    )


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return load_catalog(ROOT / "baselines.yaml")


@pytest.fixture(params=list(GUIDES))
def model(request: pytest.FixtureRequest, catalog: Catalog) -> Model:
    return catalog.model(request.param)


def test_the_five_models_in_the_order_of_their_guides(catalog: Catalog) -> None:
    # Models may follow them: a sixth needs no change here.
    assert list(catalog.models)[: len(GUIDES)] == list(GUIDES)
    assert {"ascend310", "ascend310p3", "cuda"} <= set(catalog.targets())


def test_what_each_guide_says_of_its_model(model: Model) -> None:
    assert said_by(model) == GUIDES[model.id]
    assert model.preprocessing.resize.interpolation == "bilinear"
    assert model.checkpoint.url and model.checkpoint.url.endswith(f"/{model.checkpoint.file}")
    assert model.checkpoint.sha256 is None  # nobody publishes one; a figure here would be made up
    assert {figure.tolerance_percent for figure in model.figures()} == {0}
    assert {figure.provenance for figure in model.figures()} == {"real"}


def test_every_throughput_figure(catalog: Catalog) -> None:
    figures: dict[tuple[str, str, str, str], dict[int, float]] = {}
    for name in GUIDES:
        guide = catalog.model(name).guide
        for entry in catalog.model(name).figures():
            if entry.source != guide:
                continue
            place = (entry.model, entry.target, entry.unit, entry.tuning)
            assert entry.batch_size not in figures.setdefault(place, {})
            figures[place][entry.batch_size] = entry.fps
    assert figures == FIGURES
    for name, expected in CHIP_FIGURES.items():
        chips = {}
        for entry in catalog.model(name).figures("ascend310"):
            assert (entry.unit, entry.chips_per_card, entry.factor) == ("card", 4, 4)
            if entry.chip_fps is not None:
                chips[entry.batch_size] = entry.chip_fps
                assert entry.fps == pytest.approx(4 * entry.chip_fps, abs=1e-6)
        assert chips == expected


def test_every_figure_of_a_later_edition(catalog: Catalog) -> None:
    found: dict[tuple[str, str], dict[int, float]] = {}
    for name in GUIDES:
        for entry in catalog.model(name).figures():
            source = catalog.sources[entry.source]
            assert entry.edition == str(source.date)
            if source.edition_of is not None:
                assert source.edition_of == catalog.model(name).guide
                assert EDITIONS[entry.source, entry.target][0] == entry.edition
                assert entry.toolchain == "CANN 6.0.RC1"
                assert (entry.input == "uint8") is (name == "squeezenet1_1")
                found.setdefault((entry.source, entry.target), {})[entry.batch_size] = entry.fps
    assert found == {
        place: dict(zip(ALL_BATCHES, figures, strict=True))
        for place, (_, figures) in EDITIONS.items()
    }


def test_the_guides_come_first_and_a_later_edition_where_they_have_nothing(catalog):
    def judged(model: str, target: str) -> dict[str, list[int]]:
        by: dict[str, list[int]] = {}
        for at, entry in catalog.model(model).baselines(target).items():
            assert entry.judged
            by.setdefault(entry.source, []).append(at)
        return by

    later = [4, 8, 16, 32, 64]
    assert judged("seresnext101", "ascend310p3") == {"guide-000": [1, *later]}
    assert judged("fixres", "ascend310p3") == {"guide-001": [1], "fixres-2023-01": later}
    for target in ("ascend310p3", "ascend310b1"):
        assert judged("squeezenet1_1", target) == {"squeezenet-2023-11": [1, *later]}
    one = catalog.model("squeezenet1_1").baseline("ascend310p3", 1)
    assert one is not None
    assert (one.fps, [other.fps for other in one.others]) == (4849.7, [5797.1, 6459.28])


def test_every_source_is_used_and_every_guide_is_there(catalog: Catalog) -> None:
    text = catalog.path.read_text(encoding="utf-8").partition("\nmodels:")[2]
    # A network is `source: timm:NAME`, with or without quotes: no source of a figure.
    used = set(re.findall(r"(?:source|guide): ([a-z0-9-]+)(?![\w:-])", text))
    assert set(catalog.sources) == used
    assert {f"guide-{n:03}" for n in range(5)} <= used


def test_both_sides_of_a_contradiction_are_kept(catalog: Catalog) -> None:
    fixres = catalog.model("fixres")
    assert fixres.baselines("ascend310p3")[1].judged and not fixres.baselines("cuda")[1].judged
    resnest = catalog.model("resnest50").stated
    assert resnest.published.source == "guide-002"
    others = {(other.source, other.top1, other.top5) for other in resnest.also_published}
    assert others == {("resnest-readme", 81.03, None), ("mmcls", 81.13, 95.59)}
    squeezenet = catalog.model("squeezenet1_1").baselines("ascend310")
    assert [at for at, entry in squeezenet.items() if entry.judged] == [1, 16]
    assert (squeezenet[16].fps, squeezenet[16].tuning) == (10022.44, "RL,GA")


# --- The document ---------------------------------------------------------------------------


def test_the_document_names_every_key_and_every_word_that_a_key_may_have() -> None:
    text = DOC.read_text(encoding="utf-8")
    kinds = [v for v in vars(module).values() if isinstance(v, type)]
    sections = [kind for kind in kinds if issubclass(kind, fields.Section) and kind is not Catalog]
    keys = {key for section in sections for key in section.known_keys()}
    assert len(keys) > 40
    keys |= {*load_catalog(ROOT / "baselines.yaml").targets(), *fields.FAILURE_STAGES, *LAYOUTS}
    keys |= {"whole-dataset", "pure-inference"}
    assert sorted(key for key in keys if f"`{key}`" not in text) == []
