"""The report as a file: well formed, self-contained, and safe whatever the records hold."""

from __future__ import annotations

import base64
import hashlib
import itertools
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from benchmarks.size import write_records
from harness.base.errors import RecordError
from harness.base.stages import Stage
from harness.base.terms import CHECKS, OUTCOMES, Provenance
from harness.pages import looks
from harness.pages.html import safe_href, web_href
from harness.records import reader
from harness.records.observed import Section
from harness.records.reader import RunRecords
from harness.records.verdicts import FigureName
from harness.report.render import render_html, write_report
from tests.selftest import report_samples as samples
from tests.selftest.pages import NOW, Tree, page, unfolded
from tests.selftest.running import imported_by

# --- how it looks ------------------------------------------------------------------------------


def test_every_outcome_has_its_own_word_sign_and_colour() -> None:
    assert set(looks.LOOKS) == set(OUTCOMES)
    assert len({look.word for look in looks.LOOKS.values()}) == len(OUTCOMES)
    html = render_html(samples.all_outcomes(), now=NOW)
    signs = dict(re.findall(r'\.o-(\w+)::before { content: "(.*?)"; }', html))
    assert signs == {name: look.sign for name, look in looks.LOOKS.items()}
    assert len(set(signs.values())) == len(OUTCOMES)
    for outcome in OUTCOMES:
        assert f'data-outcome="{outcome}"' in html
        assert f'class="badge o-{outcome}"' in html


@pytest.mark.parametrize(
    "records",
    [
        samples.all_outcomes(),
        samples.real_run(),
        samples.run_records([]),
        RunRecords(Path("runs/x"), None, (), (), None, ("line 1: bad",)),
    ],
    ids=["all outcomes", "real", "empty", "nothing"],
)
def test_the_page_is_well_formed_and_needs_nothing_else(records: RunRecords) -> None:
    tree = page(records)
    assert tree.html.startswith("<!doctype html>")
    assert not tree.faults
    ids = tree.values("id")
    assert len(ids) == len(set(ids))
    for tag, name, value in tree.attributes:
        if name == "href" and value.startswith("#"):
            assert value[1:] in ids
        if tag in ("link", "use"):
            assert name != "href" or value.startswith(("data:", "#"))
        assert name not in ("src", "srcset", "action", "background")
    assert not re.search(r"url\(|@import", tree.html)
    # Without a script it is a plain list.
    assert "filter" not in ids or re.search(r'<form class="filter"[^>]* hidden>', tree.html)
    assert not re.search(r"<article[^>]*hidden", tree.html)
    (script,) = re.findall(r"<script>(.*?)</script>", tree.html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', tree.html)
    assert policy is not None
    assert "default-src 'none'" in policy[1]
    assert f"script-src 'sha256-{digest}'" in policy[1]


# --- foreign text ------------------------------------------------------------------------------

_COUNTER = itertools.count()


_PLACES: dict[int, str] = {}


def _markup(place: str = "") -> str:
    """Text that is markup and a template, with a word that fits on no phone."""
    n = next(_COUNTER)
    _PLACES[n] = place
    evil = f"<script>planted={n}</script>\"'><img src=x onerror=planted={n}></details>"
    return f"{evil}{{{{7*7}}}}&lt;{'W' * 100}"


def _planted(value: Any, place: str) -> Any:
    """`value` with markup in every string; keys stay."""
    if isinstance(value, str):
        return _markup(place)
    if isinstance(value, list):
        return [_planted(item, place) for item in value]
    if isinstance(value, dict):
        return {
            key: item if key == "kind" else _planted(item, f"{place}.{key}")
            for key, item in value.items()
        }
    return value


NOT_SHOWN = {
    *("run.target", "run.selection", "case.run", "case.artifacts.instead_of"),
    "case.verdict.reference.unit",
    *(f"case.measurement.{name}" for name in ("samples_file", "setup.driver", "reference_by")),
    *("check.run", "check.model", "check.target", "check.verdict.sentence"),
    *(f"{kind}.verdict.{name}" for kind in ("case", "check") for name in ("rule", "unit")),
    *(f"check.verdict.reference.{name}" for name in ("note", "source", "unit")),
}


def hostile(line: BaseModel) -> Any:
    """A line with markup in every string that it can hold: what has a closed type stays."""
    data = line.model_dump(mode="json")
    planted = _planted(data, line.kind if hasattr(line, "kind") else "plan")
    while True:
        try:
            return type(line).model_validate(planted)
        except ValidationError as error:
            for fault in error.errors():
                _restore(planted, data, fault["loc"])


def _restore(planted: Any, data: Any, path: Sequence[Any]) -> None:
    """Put one value back; a path names the member of a union as well."""
    *steps, last = path
    for step in steps:
        if isinstance(planted, list) or step in planted:
            planted, data = planted[step], data[step]
    if last == "[key]" or (isinstance(planted, dict) and last not in planted):
        last = "kind"
    planted[last] = data[last]


def hostile_run(kind: Provenance) -> RunRecords:
    """A run with markup in every string of its records."""
    whole = samples.real_run() if kind == "real" else samples.all_outcomes(kind)
    named = {_markup(): _markup()}
    device = replace(samples.DEVICE, toolchain=named, runtime=named, commands=named, left_out=named)
    changes: dict[str, Any] = {
        "versions": named,
        "device": device,
        "diagnosis": samples.DIAGNOSIS,
        "attempts": (samples.ATTEMPT,),
    }
    assert whole.run is not None
    run = whole.run.model_copy(update={"settings": named, "versions": named})
    records = samples.run_records(
        [hostile(case.model_copy(update=changes)) for case in whole.cases],
        provenance=kind,
        lost=[hostile(samples.planned(samples.case("inceptionv4", 4, "throughput")))],
        damaged=(_markup(),),
        checks=[hostile(samples.batch_check("squeezenet1_1", "failed", provenance=kind))],
    )
    return replace(records, run=hostile(run))


@pytest.mark.parametrize("kind", ["real", "rehearsal"])
def test_markup_in_any_string_stays_text(kind: Provenance) -> None:
    records = hostile_run(kind)
    tree = Tree(unfolded(render_html(records, now=_markup())))
    assert not tree.faults
    assert tree.tags["script"] == 1
    assert tree.tags["img"] == 0
    assert not [name for _, name, _ in tree.attributes if name.startswith("on")]
    assert "{{7*7}}" in tree.html
    for _, name, value in tree.attributes:
        if name == "href":
            assert value.startswith(("#", "data:image/svg+xml,", "https://")) or (
                ":" not in value and "<" not in value
            )
    assert tree.tags["article"] == len(records.cases) + 1
    # Whatever a record says is on the page, escaped, but for names that only programs read.
    lines = [one.model_dump_json() for one in (records.run, *records.cases, *records.checks) if one]
    there, shown = (
        {_PLACES[int(n)] for n in re.findall(r"<script>planted=(\d+)<", text)}
        for text in ("".join(lines), tree.text())
    )
    known = {place for place in there if place.split(".")[0] in ("run", "case", "check")}
    assert {one for one in known - shown if "guide_figures" not in one} <= NOT_SHOWN


@pytest.mark.parametrize(
    ("path", "href"),
    [
        ("logs/a b.log", "logs/a%20b.log"),
        ("javascript:alert(1)", ""),
        ("/etc/passwd", ""),
        ("../../other/x.log", ""),
        ("logs/../../x", ""),
        ("//host/x", ""),
        ("a\\b", ""),
        ("", ""),
        ("data:text/html,x", ""),
        ("\ud800", ""),
        ('x" onclick="y', "x%22%20onclick%3D%22y"),
    ],
)
def test_links_stay_inside_the_run_directory_or_are_bare_addresses(path: str, href: str) -> None:
    assert safe_href(path) == href
    assert web_href(f"https://example.org/{path}") in ("", f"https://example.org/{path}")
    for text in ("http://example.org", f"see https://{path}", "javascript:alert(1)", path):
        assert web_href(text) == ""


def test_what_a_log_can_hold_survives() -> None:
    log = "\x1b[31mred\x1b[0m\rprogress\x00 tail \u202eright to left <&>\n"
    error = replace(samples.ERROR, log=log)
    built = samples.case(artifacts=(samples.artifact(Stage.COMPILE, log=log),))
    # One stands open, the other is packed.
    for line in (samples.case(outcome="error", error=error, title="half \ud83d"), built):
        html = render_html(samples.run_records([line]))
        html.encode()  # no half of a pair is left
        for sign in ("\x1b", "\x00", "\u202e", "\\u001b", "\\u0000"):
            assert sign not in html
        assert "red\nprogress" in unfolded(html)
        assert "right to left &lt;&amp;&gt;" in unfolded(html)


def test_a_long_log_is_cut_to_its_end() -> None:
    for count, cut in ((5_000, True), (500, False)):
        log = "\n".join(f"line {index}" for index in range(count))
        error = replace(samples.ERROR, log=log)
        html = page(samples.run_records([samples.case(outcome="error", error=error)])).html
        assert f"\nline {count - 1}</pre>" in html
        assert (">line 0\n" in html) != cut
        assert ("The beginning is cut here" in html) == cut
        assert re.search(r">line \d+\n", html)  # whole lines


# --- odd records -------------------------------------------------------------------------------


def test_a_case_more_costs_few_bytes(tmp_path: Path) -> None:
    sizes = {}
    for count in (24, 72):
        directory = tmp_path / f"{count}"
        directory.mkdir()
        html = render_html(write_records(directory, count), now=NOW)
        sizes[count] = len(html.encode())
        packed = html[html.index('<script type="application/json"') :]
        assert packed.count("b8a52dc0" * 8) == 1  # what all cases have is said once
        assert html.count("data-node=") == count + 1 - html.count("<details open>")
    assert (sizes[72] - sizes[24]) / 48 < 4_000  # 4 MB for a thousand


def test_without_its_script_a_page_has_every_verdict() -> None:
    cases = [samples.case(f"m{n}", outcome="failed", sentence=f"said {n}.") for n in range(30)]
    html = render_html(samples.run_records(cases, exit_status=1), now=NOW)
    text = Tree(html.partition('<script type="application/json"')[0] + "</body></html>").text()
    assert [n for n in range(30) if f"said {n}." not in text] == []
    assert html.count('<span class="badge o-failed">failed</span><span class="name">') == 30
    # All of those that stand open, which are not more than a reader bears.
    assert text.count("Fidelity to the eager model") == html.count("<details open>") == 20


def test_many_models_of_a_matrix_are_grouped_by_family() -> None:
    names = [f"{family}{n}" for n in range(5) for family in ("vgg", "resnet", "Swin_")]
    for count, families in ((15, ["resnet 5", "swin 5", "vgg 5"]), (12, [])):
        cases = [samples.case(name) for name in names[:count]]
        html = render_html(samples.run_records(cases), now=NOW)
        heads = re.findall(r'<th scope="rowgroup".*?>(\w+) <span class="small">(\d+)</span>', html)
        assert [" ".join(head) for head in heads] == families
        assert html.count('<tr><th scope="row">') == count


def test_a_hundred_cases_stay_under_two_megabytes(tmp_path: Path) -> None:
    log = "<warning> & 'quoted' text of a compiler\n" * 4_000
    long = Section("t" * 100, (), (("<" * 300,) * 6,) * 200)
    diagnosis = replace(samples.DIAGNOSIS, sections=(long,) * 9)
    cases = []
    for index, check, batch in itertools.product(range(10), CHECKS, (1, 4, 8, 16, 32)):
        line = samples.case(f"model_{index}", batch, check, "failed", diagnosis=diagnosis)
        artifacts = tuple(replace(one, log=log) for one in line.artifacts)
        update = {"artifacts": artifacts, "error": replace(samples.ERROR, log=log)}
        line = line.model_copy(update=update)
        if line.accuracy is not None and line.accuracy.fidelity is not None:
            flips = tuple(samples.flip(f"{index}-{batch}-{n}.JPEG") for n in range(20))
            line = samples.measured(line, fidelity=replace(line.accuracy.fidelity, flips=flips))
        else:
            line = samples.measured(line, conditions=samples.conditions(600, busy=True))
        cases.append(line)
    checks = [samples.batch_check(f"model_{n}", "failed", target="cpu") for n in range(10)]
    records = samples.run_records(cases, exit_status=1, checks=checks)
    html = render_html(samples.write_samples(tmp_path, records), now=NOW)
    assert html.count("<article") == 100
    assert "Latency samples" in html
    assert len(html.encode()) < 2_000_000
    assert "The beginning is cut here" in html


def test_odd_numbers_give_a_page() -> None:
    nan, inf = float("nan"), float("inf")
    speed = samples.measured(
        samples.case(check="throughput", measured=nan, seconds=-1.0),
        timing=samples.timing(4, [5.0] * 8, mean_ms=inf, half_width_percent=inf),
        half_width_percent=nan,
    )
    score = samples.case("b", measured=nan, figures={FigureName.TOP1: nan})
    assert score.accuracy and score.accuracy.fidelity is not None
    fidelity = replace(score.accuracy.fidelity, relative_l2=nan, max_abs=inf)
    score = samples.measured(score, fidelity=fidelity, seconds=0.0)
    text = page(samples.run_records([speed, score])).text()
    assert "relative L2 not a finite number" in text
    words = set(text.replace("(", " ").split())
    assert {"nan", "inf"} & words == set()


# --- writing it --------------------------------------------------------------------------------


def test_a_report_is_written_from_the_records_in_one_step(tmp_path: Path) -> None:
    samples.write(tmp_path, samples.all_outcomes())
    (tmp_path / "report.html").write_text("old", encoding="utf-8")
    path = write_report(reader.read(tmp_path))
    assert path == tmp_path / "report.html"
    assert sorted(p.name for p in tmp_path.glob("[!.]*")) == ["report.html", "results.jsonl"]
    written = path.read_text(encoding="utf-8")
    cut = re.compile("Rendered .*? by")
    assert cut.sub("", written) == cut.sub("", render_html(reader.read(tmp_path), now=NOW))
    path.unlink()
    path.mkdir()
    with pytest.raises(RecordError, match="cannot write") as caught:
        write_report(reader.read(tmp_path))
    assert caught.value.remedy
    assert list(tmp_path.glob(".report*")) == []  # nothing half written is left


@pytest.mark.parametrize("text", [None, "", "\n", "root:x:0:0\n[]\n"])
def test_records_without_a_line_have_no_report(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "results.jsonl").write_text(text, encoding="utf-8")
    said = "no records of a run" if text is None else "holds no line"
    with pytest.raises(RecordError, match=said) as caught:
        write_report(reader.read(tmp_path))
    assert caught.value.remedy
    assert not (tmp_path / "report.html").exists()


def test_rendering_imports_no_framework(tmp_path: Path) -> None:
    samples.write(tmp_path, samples.real_run())
    code = (
        "from pathlib import Path; from harness.report.render import write_report; "
        "from harness.report.exports import write_all; from harness.records.reader import read; "
        f"records = read(Path({str(tmp_path)!r})); write_report(records); write_all(records)"
    )
    loaded = {name.split(".")[0] for name in imported_by(code)}
    heavy = {"torch", "torchvision", "timm", "onnx", "onnxsim", "onnxruntime", "pytest"}
    assert not heavy & loaded
