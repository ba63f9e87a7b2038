"""Each fault of a catalog is found, at its line, with a way out.

Every fault is planted by replacing a text that stands there exactly once; the expected line is the
line of a text, so that the tests survive edits above.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from pydantic_core import ErrorDetails

from harness.catalog import load, yaml_document
from harness.catalog.load import MAX_BYTES, parse_catalog
from harness.catalog.yaml_document import Document, Problem, problem_of
from tests.selftest.small_catalog import SMALL, parse, refused

FEW = 10_000  # values: what the parser in Python reads in a moment


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
FAULTS = [
    Fault("classes: 1000\n", "clases: 1000\n", "models.tiny.clases: unknown key", "'classes'"),
    Fault("crop: {size:", "crop: {sise:", f"{STEPS}.crop.sise: unknown key", "'size'"),
    Fault("    title: Tiny\n", "    id: tiny\n", "models.tiny.id: unknown key", "known: title"),
    Fault("    title: Tiny\n", "", "models.tiny.title: this key is missing", at="  tiny:\n"),
    Fault(
        "    title: Tiny\n",
        "    title: Tiny\n    title: Other\n",
        "'title' stands twice in models.tiny, first at line 7",
        "keep one",
        "    title: Other",
    ),
    Fault(
        "output: {name: class}", "output: {<<: {name: class}}", "merge key <<", "write the values"
    ),
    Fault("output: {name:", "output: &out {name:", "anchor &out", "where it is used"),
    Fault("title: Tiny", "title: *name", "alias *name", "write the value out"),
    Fault("title: Tiny", "title: !!python/name:os.system x", "found the tag", "remove"),
    Fault("title: Tiny", "[a, b]: Tiny", "a list or a mapping as a key"),
    Fault("title: Tiny", "true: Tiny", "the key true in models.tiny"),
    Fault("4: 800.5}", "4.5: 800.5}", f"the key 4.5 in {TABLE}.fps"),
    Fault("top1: 70.5", "top1: true", "found true; expected a valid number"),
    Fault("classes: 1000\n", "classes: 1000.0\n", "found 1000.0; expected"),
    Fault(
        "top1: 70.5", 'top1: "70.5"', 'found "70.5"; expected a valid number', "remove the quotes"
    ),
    Fault("size: 72,", "size: 7_2,", 'found "7_2"; expected a valid integer', "plain digits"),
    Fault(
        'sha256_prefix: "0123ABCD"',
        "sha256_prefix: 12345678",
        "found 12345678; expected text",
        "put it in quotes",
    ),
    Fault("title: Tiny", "title:", "found nothing; expected text", "write a value"),
    Fault("top1: 70.5", "top1: .nan", "found nan; expected a finite number"),
    Fault(
        "act_layer: relu", "act_layer: [relu]", "act_layer: found a list; expected a number, text"
    ),
    Fault("classes: 1000\n", "classes: 1002\n", "found 1002; expected 1000 or 1001"),
    Fault("1: 400,", "0: 400,", f"{TABLE}.fps.0: found the key 0; expected greater than or"),
    Fault("4: 800.5}", "99999: 800.5}", "found the key 99999; expected less than or"),
    Fault(
        "4: 800.5}",
        '"4": 800.5}',
        'found the key "4"; expected a valid integer',
        "remove the quotes",
    ),
    Fault("4: 800.5}", "4: 800,5}", f"{TABLE}.fps.5: found nothing", "write a value"),
    Fault("fps: {1: 400, 4: 800.5}", "fps: {}", "should have at least 1 item"),
    Fault("top1: 70.5", "top1: 0.705", "found 0.705; expected greater than 1"),
    Fault(
        "tolerance_percent: 1,",
        "tolerance_percent: 100,",
        "found 100; expected less than or equal to 10",
    ),
    Fault("tolerance_percent: 1,", "tolerance_percent: 0,", "found 0; expected greater than 0"),
    Fault("side: both", "side: bth", "found \"bth\"; expected 'both' or 'drop'", "'both'"),
    Fault(
        "{target: ascend310,",
        "{target: ascend310p,",
        'found "ascend310p"; expected',
        "'ascend310p3'",
    ),
    Fault("log: error", "log: eror", 'found "eror"', "'error'"),
    Fault('md5: "0123456789ABCDEF', 'md5: "123456789ABCDEF', "expected 32 hex digits"),
    Fault(
        "file: tiny-0123abcd.pth", "file: ../tiny.pth", 'found "../tiny.pth"; expected the name of'
    ),
    Fault(
        'url: "https://example.org/',
        'url: "ftp://example.org/',
        "expected an http: or https: address",
    ),
    Fault('url: "https://example', 'url: "https://ex ample', "no spaces"),
    Fault(
        "  tiny:\n", "  Tiny-1:\n", 'models.Tiny-1: found the key "Tiny-1"; expected a name of a-z'
    ),
    Fault("  tiny:\n", "  7:\n", "found the key 7; expected text"),
    Fault(
        'source: "timm:test_resnet"',
        'source: "timm:test_resnot"',
        "has no network 'test_resnot'",
        "test_resnet",
    ),
    Fault("{name: image,", '{name: "image:0",', "expected the name of an ONNX tensor"),
    Fault(
        '"--auto_tune_mode=RL,GA"]', '"--auto_tune_mode=RL,GA --log=debug"]', "expected one flag"
    ),
    Fault(
        '"--op_select_implmode=high_precision"', '"--soc_version=Ascend310"', "does not set itself"
    ),
    Fault("title: Tiny", 'title: "Ti\\nny"', "expected one line of text"),
    Fault(
        "crop: {size: 64,", "crop: {size: 60,", f"{STEPS}.crop.size: found 60; expected the size of"
    ),
    Fault("size: 72,", "size: 60,", f"{STEPS}.crop.size: found 64, larger than", at="crop: {size"),
    Fault("0.225]", "0]", f"{STEPS}.normalize.std[2]: found 0; expected greater than 0"),
    Fault(
        "classes: 1000\n    label_offset: 0",
        "classes: 1001\n    label_offset: 0",
        "models.tiny.label_offset: found 0 with 1001 classes",
        at="label_offset",
    ),
    Fault("label_offset: 0", "label_offset: 1", "found 1 with 1000 classes; expected 0 with 1000"),
    Fault(
        "num_classes: 1000,", "num_classes: 1001,", "the network has 1001 outputs; expected 1000"
    ),
    Fault("act_layer: relu", "pretrained: true", "would fetch weights", "remove it"),
    Fault("layout: plain", "layout: plane", 'found "plane"', "'plain'"),
    Fault(
        'sha256_prefix: "0123ABCD"', 'sha256_prefix: "0123abce"', "expected 0123abcd, as the file's"
    ),
    Fault("guide: paper", "guide: papers", "expected a name defined under sources", "'paper'"),
    Fault(
        "    preprocessing:\n",
        "    preprocessing:\n      source: papers\n",
        "expected a name defined under sources",
        "'paper'",
        at="source: papers",
    ),
    Fault("top5: 90", "top5: 60", "found 60; expected at least 70.5"),
    Fault("judged: [1]", "judged: [1, 16]", f"{TABLE}.judged[1]: found 16", "known: 1, 4"),
    Fault(
        "judged: [4]", "judged: [1]", "judged by throughput[0] already", "judged: []", "fps: {1: 90"
    ),
    Fault("judged: [1]", "judged: [1]\n        not_comparable: other size", "judges nothing"),
    Fault(
        '"https://example.org/table"}',
        '"https://example.org/table", edition_of: paper}',
        "sources.table: the date of the edition is missing",
        "date: 2023-01-06",
    ),
    Fault(
        '"https://example.org/table"}',
        '"https://example.org/table", edition_of: papre, date: 2023-01-06}',
        "expected a source that is no edition itself",
        "'paper'",
    ),
    Fault(
        'tuning: "RL,GA"', "tuning: none", 'found "none", while compiler_flags say "RL,GA"', "agree"
    ),
    Fault("tuning: none", 'tuning: "RL,GA"', 'found "RL,GA", while compiler_flags say "none"'),
    Fault("1: 100.0", "1: 100.5", "100.5 times 4 is 402.00, while `fps` says 400"),
    Fault("1: 100.0", "8: 100.0", "card's figure for it is missing"),
    Fault(
        "judged: [4]", "judged: [4]\n        chip_fps: {1: 90}", "beside `unit: chip`", at="{1: 90}"
    ),
    Fault(
        'case: "tiny-bs*-ascend310p3"',
        'case: "tiny-bs4-ascend310p"',
        "no case can match",
        "tiny-bs4-ascend310",
    ),
    Fault("stage: compile", "stage: compil", "found", "'compile'"),
    Fault("expires: 2027-06-30", "expires: 30.06.2027", "expected a date such as"),
    Fault("output: {name: class}", "output: {name: class", "not YAML", at="classes: 1000\n"),
    Fault("title: Tiny", "title: Ti\x07ny", "control character U+0007"),
    Fault("title: Tiny", 'title: "Ti\\x1bny"', "a control character"),
    Fault("models:\n", "---\nmodels:\n", "a second document", at="---"),
    Fault(
        "mean: [0.485,",
        "mean: [123.675,",
        "mean[0]: found 123.675; expected less than or equal to 1",
    ),
    Fault(
        "      layout: plain",
        f'      sha256: "{"9" * 64}"\n      layout: plain',
        "found 0123abcd; expected 99999999, the first 8 digits of sha256",
        at="sha256_prefix",
    ),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.new.strip()[:30])
def test_a_planted_fault_is_named_with_its_line(fault: Fault) -> None:
    error = refused(fault.text)
    if "not YAML" not in fault.says:  # which parsers notice at different places
        assert error.message.startswith(f"some.yaml:{fault.line}: "), error.message
    assert fault.says in error.message, error.message
    assert "\n" not in error.message
    assert error.remedy and fault.hint in error.remedy, error.remedy


EDITION = """\
      - target: ascend310
        chip: Ascend310
        card: Atlas 300
        unit: chip
        toolchain: CANN 6.0.RC1
        method: pure-inference
        tuning: none
        source: paper-2023
        fps: {16: 99, 32: 98}
        judged: [16, 32]
"""
EDITIONS = SMALL.replace(
    "sources:\n",
    "sources:\n  paper-2023: {title: A, where: b, date: 2023-01-06, edition_of: paper}\n",
).replace("    throughput:\n", f"    throughput:\n{EDITION}")


@pytest.mark.parametrize("judged", ["[4]", "[16]"])
def test_another_edition_judges_nothing_that_the_guide_has_a_figure_for(judged: str) -> None:
    # The guide has 16 in its second table: judged there, or only recorded.
    text = EDITIONS.replace(
        "source: table\n        fps: {1: 90", "source: paper\n        fps: {1: 90"
    )
    error = refused(text.replace("judged: [4]", f"judged: {judged}"))
    assert "paper-2023 judges batch size 16 of ascend310, for which paper" in error.message
    assert error.remedy and "judged" in error.remedy
    catalog = parse(text.replace("judged: [16, 32]", "judged: [32]"))
    at = catalog.models["tiny"].baselines("ascend310")
    assert (at[32].source, at[32].edition, at[32].judged) == ("paper-2023", "2023-01-06", True)
    assert not at[16].judged


def test_an_edition_without_a_source_is_refused() -> None:
    error = refused(EDITIONS.replace("source: paper-2023", "source: paper-2024"))
    assert 'found "paper-2024"; expected a name defined under sources' in error.message


def test_all_faults_are_listed_unknown_keys_first() -> None:
    text = SMALL.replace("guide: paper", "guide: 7").replace("side: both", "sied: both")
    text = text.replace("top1: 70.5", "top1: 170")
    error = refused(text)
    assert "models.tiny.accuracy.rule.sied: unknown key" in error.message
    assert "models.tiny.guide: found 7; expected text" in error.log
    assert "top1: found 170.0" in error.log or "top1: found 170;" in error.log


def test_more_than_a_quarter_of_a_mebibyte_is_read() -> None:
    head, _, rest = SMALL.partition("  tiny:\n")
    block, _, _ = rest.partition("known_failures:")
    catalog = parse(head + "".join(f"  tiny{n}:\n{block}" for n in range(200)))
    assert len(catalog.models) == 200


def test_a_great_many_faults_are_not_all_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[ErrorDetails] = []

    def look(document: Document, error: ErrorDetails) -> Problem:
        looked.append(error)
        return problem_of(document, error)

    monkeypatch.setattr(load, "problem_of", look)
    models = "".join(f"  m{i}: {{titel: x}}\n" for i in range(2000))
    error = refused(f"version: 1\nmodels:\n{models}")
    assert "models.m0.titel: unknown key" in error.message
    assert len(looked) <= 100


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
        (b"a: [" + b"1," * FEW + b"]", "some.yaml:1: more than"),
        (b'a: "\\Uffffffff"\n', "some.yaml:1: not YAML"),
        (b"%YAML " + b"9" * 5000 + b".1\n---\na: 1\n", "some.yaml:1: not YAML"),
        (b"version: " + b"9" * 5000 + b"\n", "some.yaml:1: version: found inf"),
    ],
    ids=lambda value: str(value)[:24],
)
@pytest.mark.parametrize("loader", ["libyaml", "python"])
def test_what_is_no_catalog_at_all(content, says, loader, monkeypatch):
    monkeypatch.setattr(yaml_document, "MAX_VALUES", FEW)
    if loader == "python":
        monkeypatch.delattr(yaml, "CSafeLoader", raising=False)
    error = refused(content)
    assert says in error.message
    assert "\n" not in error.message


def test_a_byte_order_mark_does_no_harm() -> None:
    assert parse_catalog(b"\xef\xbb\xbf" + SMALL.encode(), Path("x")).model("tiny").title == "Tiny"


def test_windows_line_ends_do_no_harm() -> None:
    error = refused(SMALL.replace("guide: paper", "guide: pap").replace("\n", "\r\n"))
    assert error.message.startswith("some.yaml:8: ")
