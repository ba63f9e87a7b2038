"""`harness.catalog.schema`: each fault of a `baselines.yaml` is found, at its line, with a way out.

Every fault is planted into a small catalog or into the real one by replacing a text that stands
there exactly once; the expected line is the line of a text, so that the tests survive edits above.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.base.errors import CatalogError
from harness.base.stages import Stage
from harness.catalog import yaml_document
from harness.catalog.load import MAX_BYTES, load_catalog, parse_catalog
from harness.catalog.schema import Catalog, KnownFailure

ROOT = Path(__file__).resolve().parents[2]
TARGETS = ("ascend310", "ascend310p3", "cpu", "cuda")

SMALL = """\
version: 1
sources:
  paper: {title: A paper, where: "https://example.org/paper"}
  table: {title: A table, where: "https://example.org/table"}
models:
  tiny:
    title: Tiny
    guide: paper
    network:
      source: "timm:test_resnet"
      arguments: {num_classes: 1000, act_layer: relu}
    checkpoint:
      file: tiny-0123abcd.pth
      url: "https://example.org/tiny-0123abcd.pth"
      md5: "0123456789ABCDEF0123456789ABCDEF"
      sha256_prefix: "0123ABCD"
      layout: plain
    input: {name: image, size: 64}
    output: {name: class}
    classes: 1000
    label_offset: 0
    preprocessing:
      resize: {op: resize_short, size: 72, interpolation: bilinear}
      crop: {size: 64, offset: round}
      normalize:
        mean: [0.485, 0.456, 0.406]
        std: [0.229, 0.224, 0.225]
    accuracy:
      published: {top1: 70.5, top5: 90, source: paper}
      rule: {tolerance_percent: 1, side: both, source: paper}
      guide_measured:
        - {target: ascend310, top1: 70.4, top2: 80.1, batch_sizes: [1, 4], source: paper}
    throughput:
      - target: ascend310
        chip: Ascend310
        card: Atlas 300
        unit: card
        chips_per_card: 4
        toolchain: CANN 5.0.1
        method: pure-inference
        compiler_flags: ["--auto_tune_mode=RL,GA"]
        tuning: "RL,GA"
        source: table
        fps: {1: 400, 4: 800.5}
        chip_fps:
          1: 100.0
        judged: [1]
      - target: ascend310
        chip: Ascend310
        card: Atlas 300
        unit: chip
        toolchain: CANN 5.0.1
        method: whole-dataset
        tuning: none
        tolerance_percent: 2.5
        source: table
        fps: {1: 90, 4: 190, 16: 250}
        judged: [4]
    ascend:
      log: error
      flags: ["--op_select_implmode=high_precision"]
      auto_tune: {mode: "RL,GA", batch_sizes: [16]}
known_failures:
  - case: "tiny-bs*-ascend310p3"
    check: throughput
    stage: compile
    link: "https://example.org/issues/1"
    expires: 2027-06-30
"""


def parse(text: str) -> Catalog:
    return parse_catalog(text.encode(), Path("some.yaml"), TARGETS)


def refused(text: str | bytes) -> CatalogError:
    with pytest.raises(CatalogError) as caught:
        parse_catalog(
            text if isinstance(text, bytes) else text.encode(), Path("some.yaml"), TARGETS
        )
    return caught.value


def line_of(text: str, part: str) -> int:
    assert text.count(part) == 1, f"{part!r} stands {text.count(part)} times"
    return text[: text.index(part)].count("\n") + 1


@dataclass(frozen=True)
class Fault:
    """`old` becomes `new`; the error names the line of `at` (or of `new`) and says `says`."""

    old: str
    new: str
    says: str
    hint: str = ""
    at: str | None = None

    @property
    def text(self) -> str:
        assert SMALL.count(self.old) == 1, f"{self.old!r} stands {SMALL.count(self.old)} times"
        return SMALL.replace(self.old, self.new)

    @property
    def line(self) -> int:
        if self.at is None:
            before = SMALL[: SMALL.index(self.old)]
            return before.count("\n") + 1
        return line_of(self.text, self.at)


TABLE = "models.tiny.throughput[0]"
STEPS = "models.tiny.preprocessing"
FAULTS = {
    # Keys.
    "unknown key": Fault(
        "classes: 1000\n", "clases: 1000\n", "models.tiny.clases: unknown key", "'classes'"
    ),
    "unknown key at the top": Fault(
        "version: 1\n", "version: 1\nmodel: {}\n", "model: unknown key", "'models'", "model: {}"
    ),
    "unknown key of a step": Fault(
        "crop: {size:", "crop: {sise:", f"{STEPS}.crop.sise: unknown key", "'size'"
    ),
    "unknown key of a union's member": Fault(
        "size: 72,", "sizes: 72,", f"{STEPS}.resize.sizes: unknown key", "'size'"
    ),
    "unknown section of the steps": Fault(
        "      normalize:\n", "      normalise:\n", f"{STEPS}.normalise: unknown key", "'normalize'"
    ),
    "id is the key": Fault(
        "    title: Tiny\n", "    id: tiny\n", "models.tiny.id: unknown key", "the key above"
    ),
    "path and digest are not keys": Fault(
        "version: 1\n", "version: 1\ndigest: abc\n", "digest: unknown key", at="digest: abc"
    ),
    "missing key": Fault(
        "    title: Tiny\n", "", "models.tiny.title: this key is missing", at="  tiny:\n"
    ),
    "missing top-level key": Fault(
        "version: 1\n", "", "version: this key is missing", at="sources"
    ),
    "missing discriminator": Fault(
        "op: resize_short, ", "", f"{STEPS}.resize.op: this key is missing", "resize_square"
    ),
    "unknown discriminator": Fault(
        "op: resize_short", "op: resize_shrot", '.op: found "resize_shrot"', "'resize_short'"
    ),
    "duplicate key": Fault(
        "    title: Tiny\n",
        "    title: Tiny\n    title: Other\n",
        "'title' stands twice in models.tiny, first at line 7",
        "keep one",
        "    title: Other",
    ),
    "duplicate batch size": Fault(
        "4: 800.5}", "4: 800.5, 1: 7}", f"the key 1 stands twice in {TABLE}.fps"
    ),
    "duplicate model": Fault(
        "known_failures:\n",
        "  tiny: {}\nknown_failures:\n",
        "'tiny' stands twice in models",
        at="  tiny: {}",
    ),
    "merge key": Fault(
        "output: {name: class}", "output: {<<: {name: class}}", "merge key <<", "write the values"
    ),
    "anchor": Fault("output: {name:", "output: &out {name:", "anchor &out", "where it is used"),
    "alias": Fault("title: Tiny", "title: *name", "alias *name", "write the value out"),
    "tag": Fault("title: Tiny", "title: !!python/name:os.system x", "found the tag", "remove"),
    "key that is a list": Fault("title: Tiny", "[a, b]: Tiny", "a list or a mapping as a key"),
    "key that is a boolean": Fault("title: Tiny", "true: Tiny", "the key true in models.tiny"),
    "key that is a float": Fault("4: 800.5}", "4.5: 800.5}", f"the key 4.5 in {TABLE}.fps"),
    # Types: nothing is converted.
    "boolean as number": Fault("top1: 70.5", "top1: true", "found true; expected a number"),
    "boolean as literal": Fault("label_offset: 0", "label_offset: false", "found false; expected"),
    "yes as number": Fault("classes: 1000\n", "classes: yes\n", 'found "yes"; expected a whole'),
    "float as literal": Fault("classes: 1000\n", "classes: 1000.0\n", "found 1000.0; expected"),
    "float as integer": Fault(
        "input: {name: image, size: 64}",
        "input: {name: image, size: 64.5}",
        "found 64.5; expected a whole number",
    ),
    "text as number": Fault(
        "top1: 70.5", 'top1: "70.5"', 'found "70.5"; expected a number', "remove the quotes"
    ),
    "digits with underscores": Fault(
        "size: 72,", "size: 7_2,", 'found "7_2"; expected a whole number', "plain digits"
    ),
    "octal": Fault("size: 72,", "size: 072,", 'found "072"; expected a whole', "plain digits"),
    "number as text": Fault(
        'sha256_prefix: "0123ABCD"',
        "sha256_prefix: 12345678",
        "found 12345678; expected text",
        "put it in quotes",
    ),
    "nothing": Fault("title: Tiny", "title:", "found nothing; expected text", "write a value"),
    "list for a mapping": Fault(
        "output: {name: class}", "output: [class]", "output: found a list; expected a mapping"
    ),
    "mapping for a list": Fault(
        "judged: [1]", "judged: {1: 2}", "found a mapping; expected a list"
    ),
    "list for steps": Fault(
        "resize: {op: resize_short, size: 72, interpolation: bilinear}",
        "resize: [72]",
        "resize: found a list; expected a mapping",
    ),
    "NaN": Fault("top1: 70.5", "top1: .nan", "found nan; expected a finite number"),
    "infinity": Fault("1: 400,", "1: .inf,", "found inf; expected a finite number"),
    "overflow": Fault("1: 400,", "1: 1e999,", "found inf; expected a finite number"),
    "NaN in a step": Fault("mean: [0.485,", "mean: [.nan,", "mean[0]: found nan; expected"),
    "argument that is a list": Fault(
        "act_layer: relu", "act_layer: [relu]", "act_layer: found a list; expected a number, text"
    ),
    # Ranges and spellings.
    "version": Fault("version: 1\n", "version: 2\n", "version: found 2; expected 1"),
    "classes": Fault("classes: 1000\n", "classes: 1002\n", "found 1002; expected 1000 or 1001"),
    "batch size 0": Fault(
        "1: 400,", "0: 400,", f"{TABLE}.fps.0: found the key 0; expected at least"
    ),
    "negative batch size": Fault("1: 400,", "-1: 400,", "found the key -1; expected at least 1"),
    "absurd batch size": Fault(
        "4: 800.5}", "99999: 800.5}", "found the key 99999; expected at most"
    ),
    "quoted batch size": Fault(
        "4: 800.5}", '"4": 800.5}', 'found the key "4"; expected a whole', "remove the quotes"
    ),
    "named batch size": Fault("4: 800.5}", "four: 800.5}", 'the key "four"; expected a whole'),
    "throughput of 0": Fault("1: 400,", "1: 0,", "found 0; expected more than 0"),
    "decimal comma": Fault(
        "4: 800.5}", "4: 800,5}", f"{TABLE}.fps.5: found nothing", "write a value"
    ),
    "no figures": Fault("fps: {1: 400, 4: 800.5}", "fps: {}", "expected at least 1 entry"),
    "no models": Fault(
        SMALL[SMALL.index("  tiny:") : SMALL.index("known_failures")],
        "  {}\n",
        "models: found an empty mapping; expected at least 1",
        at="models:",
    ),
    "accuracy above 100": Fault("top1: 70.5", "top1: 100.5", "found 100.5; expected at most 100"),
    "accuracy as a fraction": Fault(
        "top1: 70.5", "top1: 0.705", "found 0.705; expected more than 1"
    ),
    "negative accuracy": Fault("top1: 70.5", "top1: -70.5", "found -70.5; expected more than 1"),
    "tolerance of 100 %": Fault(
        "tolerance_percent: 1,", "tolerance_percent: 100,", "found 100; expected at most 10"
    ),
    "tolerance of 0 % for accuracy": Fault(
        "tolerance_percent: 1,", "tolerance_percent: 0,", "found 0; expected more than 0"
    ),
    "negative tolerance": Fault(
        "tolerance_percent: 2.5", "tolerance_percent: -2.5", "found -2.5; expected at least 0"
    ),
    "side": Fault("side: both", "side: bth", "found \"bth\"; expected 'both' or 'drop'", "'both'"),
    "unknown target": Fault(
        "{target: ascend310,",
        "{target: ascend310p,",
        'found "ascend310p"; expected',
        "'ascend310p3'",
    ),
    "unknown unit": Fault("unit: card", "unit: cards", 'found "cards"; expected', "'card'"),
    "unknown method": Fault(
        "method: pure-inference", "method: pure_inference", "expected", "'pure-inference'"
    ),
    "unknown log level": Fault("log: error", "log: eror", 'found "eror"', "'error'"),
    "short md5": Fault('md5: "0123456789ABCDEF', 'md5: "123456789ABCDEF', "expected 32 hex digits"),
    "no hex digit": Fault('sha256_prefix: "0123ABCD"', 'sha256_prefix: "0123ABCX"', "8 hex digits"),
    "short sha256": Fault(
        "      layout: plain", '      sha256: "0123abcd"\n      layout: plain', "64 hex digits"
    ),
    "folder in a file name": Fault(
        "file: tiny-0123abcd.pth", "file: ../tiny.pth", 'found "../tiny.pth"; expected the name of'
    ),
    "hidden file name": Fault("file: tiny-0123abcd.pth", "file: ..", "expected the name of a file"),
    "scheme": Fault(
        'url: "https://example.org/',
        'url: "ftp://example.org/',
        "expected an http:, https: or file:",
    ),
    "space in an address": Fault('url: "https://example', 'url: "https://ex ample', "no spaces"),
    "model id with capitals": Fault(
        "  tiny:\n", "  Tiny-1:\n", 'models.Tiny-1: found the key "Tiny-1"; expected a name of a-z'
    ),
    "model id that is a number": Fault("  tiny:\n", "  7:\n", "found the key 7; expected text"),
    "library": Fault(
        'source: "timm:test_resnet"',
        'source: "keras:tiny"',
        "expected torchvision:NAME or timm:NAME",
    ),
    "network that timm does not have": Fault(
        'source: "timm:test_resnet"',
        'source: "timm:test_resnot"',
        "has no network 'test_resnot'",
        "test_resnet",
    ),
    "network that torchvision does not have": Fault(
        'source: "timm:test_resnet"',
        'source: "torchvision:squeezenet11"',
        "has no network 'squeezenet11'",
        "squeezenet1_1",
    ),
    "tensor name that atc would split": Fault(
        "{name: image,", '{name: "image:0",', "expected the name of an ONNX tensor"
    ),
    "flag that is two": Fault(
        '"--auto_tune_mode=RL,GA"]', '"--auto_tune_mode=RL,GA --log=debug"]', "expected one flag"
    ),
    "flag that the harness sets": Fault(
        '"--op_select_implmode=high_precision"', '"--soc_version=Ascend310"', "does not set itself"
    ),
    "title of two lines": Fault("title: Tiny", 'title: "Ti\\nny"', "expected one line of text"),
    # Values against each other.
    "crop is not the input": Fault(
        "crop: {size: 64,", "crop: {size: 60,", f"{STEPS}.crop.size: found 60; expected the size of"
    ),
    "crop larger than the image": Fault(
        "size: 72,", "size: 60,", f"{STEPS}.crop.size: found 64, larger than", at="crop: {size"
    ),
    "std of 0": Fault("0.225]", "0]", f"{STEPS}.normalize.std[2]: found 0; expected more than 0"),
    "mean of the 0..255 scale": Fault(
        "mean: [0.485,", "mean: [123.675,", "mean[0]: found 123.675; expected -1 to 1"
    ),
    "two channels": Fault("0.224, 0.225]", "0.225]", "std[2]: this entry is missing"),
    "background class without offset": Fault(
        "classes: 1000\n    label_offset: 0",
        "classes: 1001\n    label_offset: 0",
        "models.tiny.label_offset: found 0 with 1001 classes",
        at="label_offset",
    ),
    "offset past the classes": Fault(
        "label_offset: 0", "label_offset: 1", "found 1 with 1000 classes; expected 0 with 1000"
    ),
    "outputs of the network": Fault(
        "num_classes: 1000,", "num_classes: 1001,", "the network has 1001 outputs; expected 1000"
    ),
    "argument that fetches weights": Fault(
        "act_layer: relu", "pretrained: true", "would fetch weights", "remove it"
    ),
    "unknown layout": Fault("layout: plain", "layout: plane", 'found "plane"', "'plain'"),
    "prefix against the file's name": Fault(
        'sha256_prefix: "0123ABCD"', 'sha256_prefix: "0123abce"', "expected 0123abcd, as the file's"
    ),
    "prefix against sha256": Fault(
        "      layout: plain",
        f'      sha256: "{"9" * 64}"\n      layout: plain',
        "found 0123abcd; expected the first 8 digits of sha256, 99999999",
        at="sha256_prefix",
    ),
    "guide without a source": Fault(
        "guide: paper", "guide: papers", "expected a name defined under sources", "'paper'"
    ),
    "rule without a source": Fault(
        "side: both, source: paper", "side: both, source: pape", "accuracy.rule.source", "'paper'"
    ),
    "measured without a source": Fault(
        "batch_sizes: [1, 4], source: paper",
        "batch_sizes: [1, 4], source: x",
        "guide_measured[0].source",
        "known: paper, table",
    ),
    "figures without a source": Fault(
        "source: table\n        fps: {1: 400",
        "source: tabel\n        fps: {1: 400",
        f'{TABLE}.source: found "tabel"',
        "'table'",
        "source: tabel",
    ),
    "top-5 below top-1": Fault("top5: 90", "top5: 60", "found 60; expected at least 70.5"),
    "top-2 below top-1": Fault(
        "top2: 80.1", "top2: 70.1", "top2: found 70.1; expected at least 70.4"
    ),
    "judged without a figure": Fault(
        "judged: [1]", "judged: [1, 16]", f"{TABLE}.judged[1]: found 16", "known: 1, 4"
    ),
    "judged twice": Fault(
        "judged: [4]",
        "judged: [1]",
        "judged by throughput[0] already",
        "judged: []",
        "fps: {1: 90",
    ),
    "judged and not comparable": Fault(
        "judged: [1]",
        "judged: [1]\n        not_comparable: other size",
        "judges nothing",
    ),
    "tuning against the flags": Fault(
        'tuning: "RL,GA"', "tuning: none", 'found "none", while compiler_flags say "RL,GA"', "agree"
    ),
    "tuning without the flag": Fault(
        "tuning: none", 'tuning: "RL,GA"', 'found "RL,GA", while compiler_flags say "none"'
    ),
    "chip figure that does not add up": Fault(
        "1: 100.0", "1: 100.5", "100.5 times 4 is 402.00, while `fps` says 400"
    ),
    "chip figure without a card's": Fault(
        "1: 100.0", "8: 100.0", "card's figure for it is missing"
    ),
    "chip figure beside unit chip": Fault(
        "judged: [4]", "judged: [4]\n        chip_fps: {1: 90}", "beside `unit: chip`", at="{1: 90}"
    ),
    "known failure of no case": Fault(
        'case: "tiny-bs*-ascend310p3"',
        'case: "tiny-bs4-ascend310p"',
        "no case can match",
        "tiny-bs4-ascend310",
    ),
    "known failure of an unknown model": Fault(
        'case: "tiny-bs*-ascend310p3"', 'case: "tny-bs4-cpu"', "no case can match", "tiny-bs4-cpu"
    ),
    "known failure at no stage": Fault("stage: compile", "stage: compil", "found", "'compile'"),
    "known failure without a link": Fault(
        '    link: "https://example.org/issues/1"\n',
        "",
        "link: this key is missing",
        at='- case: "tiny',
    ),
    "known failure with a bad date": Fault(
        "expires: 2027-06-30", "expires: 30.06.2027", "expected a date such as"
    ),
    "known failure with a week's date": Fault(
        "expires: 2027-06-30", "expires: 2026-W47-5", "expected a date such as"
    ),
    "known failure with a date without dashes": Fault(
        "expires: 2027-06-30", 'expires: "20270630"', "expected a date such as"
    ),
    # Not the YAML that is meant.
    "syntax": Fault(
        "output: {name: class}", "output: {name: class", "not YAML", at="classes: 1000\n"
    ),
    "tab": Fault("    title: Tiny", "\ttitle: Tiny", "not YAML"),
    "unclosed quote": Fault(
        'url: "https://example.org/tiny-0123abcd.pth"',
        'url: "https:',
        "not YAML",
        at='md5: "',
    ),
    "control character": Fault("title: Tiny", "title: Ti\x07ny", "control character U+0007"),
    "escaped control character": Fault("title: Tiny", 'title: "Ti\\x1bny"', "a control character"),
    "second document": Fault("models:\n", "---\nmodels:\n", "a second document", at="---"),
}


@pytest.mark.parametrize("loader", ["libyaml", "python"])
@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_named_with_its_line(
    name: str, loader: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if loader == "python":
        monkeypatch.delattr(yaml, "CSafeLoader", raising=False)
    fault = FAULTS[name]
    error = refused(fault.text)
    if "not YAML" in fault.says:  # the two parsers notice at different places
        assert error.message.startswith("some.yaml:")
    else:
        assert error.message.startswith(f"some.yaml:{fault.line}: "), error.message
    assert fault.says in error.message, error.message
    assert "\n" not in error.message
    assert fault.hint in error.remedy, error.remedy
    assert error.remedy


@pytest.mark.parametrize("loader", ["libyaml", "python"])
def test_a_catalog_without_faults_is_read(loader: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if loader == "python":
        monkeypatch.delattr(yaml, "CSafeLoader", raising=False)
    catalog = parse(SMALL)
    model = catalog.model("tiny")
    assert (model.id, model.title, model.guide) == ("tiny", "Tiny", "paper")
    assert (model.network.library, model.network.name) == ("timm", "test_resnet")
    assert model.network.arguments == {"num_classes": 1000, "act_layer": "relu"}
    assert model.checkpoint.md5 == "0123456789abcdef" * 2  # lower case, whatever the file says
    assert model.checkpoint.sha256_prefix == "0123abcd"
    assert model.preprocessing.size == model.input.size == 64
    assert model.accuracy.published.top5 == 90.0
    assert model.accuracy.rule.side == "both"
    assert catalog.path == Path("some.yaml")
    assert catalog.digest == hashlib.sha256(SMALL.encode()).hexdigest()
    assert list(catalog.sources) == ["paper", "table"]
    assert catalog.targets() == ("ascend310",)


def test_baselines_prefer_the_judged_figure() -> None:
    figures = parse(SMALL).model("tiny").baselines("ascend310")
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
    described = first.describe()
    assert "400 fps a card" in described
    assert "table" in described


def test_figures_lists_what_baselines_leaves_out() -> None:
    model = parse(SMALL).model("tiny")
    assert [figure.fps for figure in model.figures()] == [400.0, 800.5, 90.0, 190.0, 250.0]
    assert model.figures("cuda") == ()
    assert model.baselines("cuda") == {}
    assert model.baseline("ascend310", 64) is None


def test_a_table_that_is_not_comparable_judges_nothing() -> None:
    text = SMALL.replace("        judged: [1]\n", "        not_comparable: another input size\n")
    figures = parse(text).model("tiny").baselines("ascend310")
    assert figures[1].not_comparable == "another input size"
    assert not figures[1].judged
    assert not figures[1].comparable


def test_resize_height_may_leave_less_than_the_crop() -> None:
    text = SMALL.replace("op: resize_short, size: 72", "op: resize_height, size: 60")
    assert parse(text).model("tiny").preprocessing.resize.size == 60


def test_atc_is_told_what_the_catalog_says() -> None:
    ascend = parse(SMALL).model("tiny").ascend
    common = ("--log=error", "--op_select_implmode=high_precision")
    assert ascend.atc_flags(1) == common
    assert ascend.atc_flags(16) == (common[0], "--auto_tune_mode=RL,GA", common[1])
    assert ascend.atc_flags(16, tuned=False) == common
    assert (ascend.tuning(1), ascend.tuning(16)) == ("none", "RL,GA")
    everywhere = parse(SMALL.replace(", batch_sizes: [16]}", "}")).model("tiny").ascend
    assert everywhere.tuning(7) == "RL,GA"
    silent = parse(SMALL.replace("      log: error\n", "")).model("tiny").ascend
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


@pytest.mark.parametrize("pattern", ["*", "tiny-*", "t*-bs1?-cpu", "[st]iny-bs[48]-ascend310"])
def test_patterns_that_can_match_are_accepted(pattern: str) -> None:
    text = SMALL.replace("tiny-bs*-ascend310p3", pattern)
    assert parse(text).known_failures[0].case == pattern


def test_an_unknown_model_names_the_closest() -> None:
    with pytest.raises(CatalogError) as caught:
        parse(SMALL).model("tny")
    assert "'tny'" in caught.value.message
    assert "did you mean 'tiny'?" in caught.value.remedy


def test_all_faults_are_listed_unknown_keys_first() -> None:
    text = SMALL.replace("guide: paper", "guide: 7").replace("side: both", "sied: both")
    text = text.replace("top1: 70.5", "top1: 170")
    error = refused(text)
    assert "models.tiny.accuracy.rule.sied: unknown key" in error.message
    assert "models.tiny.guide: found 7; expected text" in error.log
    assert "top1: found 170.0" in error.log or "top1: found 170;" in error.log


def test_many_faults_stay_readable() -> None:
    tables = "".join(f"  s{i}: {{titel: x, where: y}}\n" for i in range(300))
    error = refused(SMALL.replace("sources:\n", f"sources:\n{tables}"))
    assert len(error.log.splitlines()) < 25
    assert "more" in error.log.splitlines()[-1]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "some.yaml:1: the file is empty"),
        (b"# nothing but a comment\n", "some.yaml:1: the file is empty"),
        (b"- a\n- b\n", "some.yaml:1: found a list at the top"),
        (b"just text\n", 'some.yaml:1: found "just text" at the top'),
        (b"version: 1\ntitle: caf\xe9\n", "some.yaml:2: not UTF-8: the byte 0xe9"),
        (b"\xff\xfev\x00", "some.yaml:1: not UTF-8"),
        (b"a: [" * 100, "nested more than"),
        (b"{" * 100_000, "some.yaml:1: "),
        (b"[" * 100_000, "some.yaml:1: "),
        (b"a: &a [x, x]\nb: &b [*a, *a]\n", "some.yaml:1: found the anchor &a"),
        (b"version: 1\n" + b"#" * MAX_BYTES, "more than"),
        (b"a: [" + b"1," * yaml_document.MAX_VALUES + b"]", "some.yaml:1: more than"),
        (b'a: "\\Uffffffff"\n', "some.yaml:1: not YAML"),
        (b"%YAML " + b"9" * 5000 + b".1\n---\na: 1\n", "some.yaml:1: not YAML"),
        (b"version: " + b"9" * 5000 + b"\n", "some.yaml:1: version: found inf"),
    ],
    ids=lambda value: str(value)[:24],
)
@pytest.mark.parametrize("loader", ["libyaml", "python"])
def test_what_is_no_catalog_at_all(
    content: bytes, says: str, loader: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if loader == "python":
        monkeypatch.delattr(yaml, "CSafeLoader", raising=False)
    error = refused(content)
    assert says in error.message
    assert "\n" not in error.message


def test_a_byte_order_mark_does_no_harm() -> None:
    assert parse_catalog(b"\xef\xbb\xbf" + SMALL.encode(), Path("x")).model("tiny").title == "Tiny"


def test_windows_line_ends_do_no_harm() -> None:
    fault = FAULTS["unknown layout"]
    error = refused(fault.text.replace("\n", "\r\n"))
    assert error.message.startswith(f"some.yaml:{fault.line}: ")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    missing = tmp_path / "baselines.yaml"
    with pytest.raises(CatalogError, match="cannot be read: No such file") as caught:
        load_catalog(missing)
    assert str(missing) in caught.value.message
    with pytest.raises(CatalogError, match="this is a directory"):
        load_catalog(tmp_path)
    with pytest.raises(CatalogError, match="cannot be read"):
        load_catalog(tmp_path / "a\0b")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(CatalogError, match="not a regular file"):  # opening it would wait for ever
        load_catalog(pipe)
    with pytest.raises(CatalogError, match="not a regular file"):
        load_catalog(Path("/dev/zero"))
    large = tmp_path / "large.yaml"
    with large.open("wb") as stream:
        stream.truncate(1 << 40)  # sparse: a reader that took it whole would not come back
    with pytest.raises(CatalogError, match="more than"):
        load_catalog(large)


def test_a_file_is_loaded_with_its_path(tmp_path: Path) -> None:
    path = tmp_path / "b.yaml"
    path.write_text(SMALL)
    assert load_catalog(path).path == path


def test_values_are_frozen() -> None:
    catalog = parse(SMALL)
    with pytest.raises(ValueError, match="frozen"):
        catalog.model("tiny").title = "Other"
    with pytest.raises(ValueError, match="frozen"):
        catalog.digest = ""


def test_loading_imports_no_framework() -> None:
    code = (
        "import sys; from pathlib import Path; from harness.catalog.load import load_catalog; "
        f"load_catalog(Path({str(ROOT / 'baselines.yaml')!r})); "
        "heavy = {'torch', 'torchvision', 'timm', 'onnx', 'onnxsim', 'onnxruntime', 'pytest'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")


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
@given(st.binary(max_size=200))
def test_any_bytes(content: bytes) -> None:
    check_total(content)


@FUZZ
@given(st.lists(st.tuples(st.integers(0, len(SMALL)), st.integers(0, 12), TOKENS), max_size=4))
def test_any_edit_of_the_text(edits: list[tuple[int, int, str]]) -> None:
    text = SMALL
    for start, length, inserted in edits:
        text = text[:start] + inserted + text[start + length :]
    check_total(text.encode())


@FUZZ
@given(st.data())
def test_any_order_and_number_of_lines(data: st.DataObject) -> None:
    lines = SMALL.splitlines(keepends=True)
    chosen = data.draw(st.lists(st.integers(0, len(lines) - 1), max_size=4))
    for index in chosen:
        action = data.draw(st.sampled_from(["drop", "double", "indent", "dedent"]))
        line = lines[index]
        lines[index] = {
            "drop": "", "double": line * 2, "indent": f"  {line}", "dedent": line.removeprefix("  ")
        }[action]  # fmt: skip
    check_total("".join(lines).encode())


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


@FUZZ
@given(ANYTHING)
def test_any_document(document: object) -> None:
    check_total(yaml.safe_dump(document).encode("utf-8", "surrogatepass"))
