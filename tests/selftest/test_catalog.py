"""`harness.catalog`: values, files, and that any bytes end in a catalog or in one error."""

from __future__ import annotations

import datetime as dt
import hashlib
import os
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.base.errors import CatalogError
from harness.base.stages import Stage
from harness.catalog.load import load_catalog, parse_catalog
from harness.catalog.schema import KnownFailure
from harness.targets.ascend.spec import AscendSpec
from tests.selftest.small_catalog import SMALL, parse

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("loader", ["libyaml", "python"])
def test_a_catalog_without_faults_is_read(loader: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if loader == "python":
        monkeypatch.delattr(yaml, "CSafeLoader", raising=False)
    catalog = parse(SMALL)
    model = catalog.model("tiny")
    assert (model.id, model.title, model.guide) == ("tiny", "Tiny", "paper")
    assert model.network.source == "timm:test_resnet"
    assert model.network.arguments == {"num_classes": 1000, "act_layer": "relu"}
    assert model.checkpoint.md5 == "0123456789abcdef" * 2  # lower case, whatever the file says
    assert model.checkpoint.sha256_prefix == "0123abcd"
    assert model.preprocessing.size == model.input.size == 64
    assert model.stated.published.top5 == 90.0
    assert model.stated.rule.side == "both"
    assert catalog.path == Path("some.yaml")
    assert catalog.digest == hashlib.sha256(SMALL.encode()).hexdigest()
    assert list(catalog.sources) == ["paper", "table"]
    assert catalog.targets() == ("ascend310",)


def test_baselines_prefer_the_judged_figure_of_all() -> None:
    model = parse(SMALL).model("tiny")
    figures = model.baselines("ascend310")
    assert list(figures) == [1, 4, 16]
    assert [(b.fps, b.unit, b.judged) for b in figures.values()] == [
        (400.0, "card", True),
        (190.0, "chip", True),
        (250.0, "chip", False),
    ]
    first, second, _ = figures.values()
    assert (first.chip_fps, first.factor, first.tuning) == (100.0, 4, "RL,GA")
    assert (second.chip_fps, second.factor, second.tolerance_percent) == (None, 1, 2.5)
    assert (first.model, first.target, first.batch_size) == ("tiny", "ascend310", 1)
    assert first.provenance == "real"
    assert first.comparable
    assert [figure.fps for figure in model.figures()] == [400.0, 800.5, 90.0, 190.0, 250.0]
    assert model.figures("cuda") == () and model.baselines("cuda") == {}
    assert model.baseline("ascend310", 64) is None
    text = SMALL.replace("        judged: [1]\n", "        not_comparable: another input size\n")
    recorded = parse(text).model("tiny").baselines("ascend310")[1]
    assert recorded.not_comparable == "another input size"
    assert not recorded.judged and not recorded.comparable
    described = first.describe()
    assert "400 fps a card" in described
    assert "table" in described


def test_resize_height_may_leave_less_than_the_crop() -> None:
    text = SMALL.replace("op: resize_short, size: 72", "op: resize_height, size: 60")
    assert parse(text).model("tiny").preprocessing.resize.size == 60


def test_atc_is_told_what_the_catalog_says() -> None:
    ascend = parse(SMALL).model("tiny").section(AscendSpec)
    common = ("--log=error", "--op_select_implmode=high_precision")
    assert ascend.atc_flags(1) == common
    assert ascend.atc_flags(16) == (common[0], "--auto_tune_mode=RL,GA", common[1])
    assert (ascend.tuning(1), ascend.tuning(16)) == ("none", "RL,GA")
    everywhere = parse(SMALL.replace(", batch_sizes: [16]}", "}")).model("tiny").section(AscendSpec)
    assert everywhere.tuning(7) == "RL,GA"
    silent = parse(SMALL.replace("      log: error\n", "")).model("tiny").section(AscendSpec)
    assert silent.atc_flags(1) == common[1:]


def test_known_failures_match_cases_and_expire() -> None:
    (failure,) = parse(SMALL).known_failures
    assert failure.matches("tiny-bs16-ascend310p3", "throughput")
    assert not failure.matches("tiny-bs16-ascend310p3", "accuracy")
    assert not failure.matches("tiny-bs16-ascend310", "throughput")
    assert not failure.expired(dt.date(2027, 6, 30))
    assert failure.expired(dt.date(2027, 7, 1))
    forever = KnownFailure(case="*", stage=Stage.VERDICT, link="https://example.org")
    assert forever.matches("anything-bs1-cpu", "accuracy")
    assert not forever.expired(dt.date(9999, 1, 1))


def test_an_unknown_model_names_the_closest() -> None:
    with pytest.raises(CatalogError) as caught:
        parse(SMALL).model("tny")
    assert "'tny'" in caught.value.message
    assert "did you mean 'tiny'?" in caught.value.remedy


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    missing = tmp_path / "baselines.yaml"
    with pytest.raises(CatalogError, match="cannot be read: No such file") as caught:
        load_catalog(missing)
    assert str(missing) in caught.value.message
    with pytest.raises(CatalogError, match="cannot be read"):
        load_catalog(tmp_path / "a\0b")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for other in (tmp_path, pipe, Path("/dev/zero")):  # opening a pipe would wait for ever
        with pytest.raises(CatalogError, match="not a regular file"):
            load_catalog(other)
    large = tmp_path / "large.yaml"
    with large.open("wb") as stream:
        stream.truncate(1 << 40)  # sparse: a reader that took it whole would not come back
    with pytest.raises(CatalogError, match="more than"):
        load_catalog(large)


# --- Whatever the bytes are: a Catalog or a CatalogError ------------------------------------

FUZZ = settings(
    max_examples=120,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
TOKENS = st.sampled_from(
    ["", " ", "\n", "  ", ":", ": ", "-", "- ", "{", "}", "[", "]", ",", "&a", "*a", "!!x", "<<: ",
     "|", ">", '"', "'", "#", "%", "---", "?", "~", "null", "yes", "0", "-1", "1e999", ".nan", "\t",
     "\x00", "\u2028", "é", "9" * 30, "fps", "models", "source"]
)  # fmt: skip
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), TOKENS
)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=6) | st.integers(), inner)
    ),
    max_leaves=8,
)


def check_total(content: bytes) -> None:
    """Parsing ends in a value or in one readable error, and in nothing else."""
    refusal: CatalogError | None = None
    try:
        catalog = parse_catalog(content, Path("some.yaml"))
        for model in catalog.models.values():
            for target in catalog.targets():
                model.baselines(target)
    except CatalogError as error:
        refusal = error
    if refusal is not None:
        assert refusal.message.startswith("some.yaml")
        assert "\n" not in refusal.message
        assert refusal.remedy


@FUZZ
@given(st.lists(st.tuples(st.integers(0, len(SMALL)), st.integers(0, 12), TOKENS), max_size=4))
def test_any_edit_of_the_text(edits: list[tuple[int, int, str]]) -> None:
    text = SMALL
    for start, length, inserted in edits:
        text = text[:start] + inserted + text[start + length :]
    check_total(text.encode())


@FUZZ
@given(st.data())
def test_any_value_in_any_place(data: st.DataObject) -> None:
    tree = yaml.safe_load(SMALL.replace("2027-06-30", '"2027-06-30"'))
    node = tree
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        key = data.draw(st.sampled_from(keys))
        below = node[key]
        if not isinstance(below, dict | list) or not below or data.draw(st.booleans()):
            break
        node = below
    node[key] = data.draw(ANYTHING)
    check_total(yaml.safe_dump(tree, allow_unicode=True).encode("utf-8", "surrogatepass"))
