"""The report says what the records say, and nothing that they must not say."""

from __future__ import annotations

import base64
import hashlib
import io
import itertools
import json
import os
import random
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from harness.base.errors import RecordError
from harness.base.host import Machine
from harness.base.terms import OUTCOMES, Check, Outcome, Provenance
from harness.catalog.load import load_catalog
from harness.judge import causes
from harness.records import lines, reader, writer
from harness.records.lines import CaseLine, PlannedCase, RunCheckLine
from harness.records.reader import RunRecords
from harness.records.values import ArtifactRef, ErrorInfo, Reference
from harness.report import (
    charts,
    figures,
    findings,
    provenance,
    render_html,
    summary_lines,
    thumbs,
    write_report,
)
from harness.report.cases import safe_href, tail, web_href
from harness.report.figures import NO_VALUE
from harness.report.guide_figures import guide_figures, read_figures
from harness.report.headline import LOOKS, headline, reconcile
from harness.report.page import build, case_views
from tests.selftest import report_samples as samples

NOW = "2026-11-20T07:42:05+00:00"
CHECKS: tuple[Check, ...] = ("accuracy", "throughput")
VOID = {"meta", "link", "input", "br", "img", "hr"}


class Tree(HTMLParser):
    """Tags, attributes and text of a page; complains about tags that do not match."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.stack: list[str] = []
        self.faults: list[str] = []
        self.texts: list[str] = []
        self.within: dict[str, list[str]] = {}
        self.feed(html)
        self.close()
        if self.stack:
            self.faults.append(f"never closed: {self.stack}")

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        if not self.stack or self.stack.pop() != tag:
            self.faults.append(f"</{tag}> at {self.getpos()}")

    def handle_data(self, data: str) -> None:
        if self.stack and self.stack[-1] not in ("script", "style"):
            self.texts.append(data)
        for tag in set(self.stack):
            self.within.setdefault(tag, []).append(data)

    def text(self, tag: str = "") -> str:
        """All text of the page, or that inside `tag`, on one line."""
        parts = self.within.get(tag, []) if tag else self.texts
        return " ".join(" ".join(parts).split())

    def values(self, name: str) -> list[str]:
        return [value for _, attribute, value in self.attributes if attribute == name]


def page(records: RunRecords) -> Tree:
    return Tree(render_html(records, now=NOW))


def tone(records: RunRecords) -> str:
    """The tone that the page shows."""
    shown = [value for value in page(records).values("class") if value.startswith("page tone-")]
    assert len(shown) == 1
    return shown[0].removeprefix("page tone-")


def green(provenance: Provenance = "rehearsal", **changes: Any) -> list[CaseLine]:
    return [
        samples.case(model, batch, check, provenance=provenance, **changes)
        for check in CHECKS
        for model in ("squeezenet1_1", "fixres_resnet50")
        for batch in (1, 4)
    ]


# --- the line of the run -----------------------------------------------------------------------


def _with(*outcomes: Outcome, kind: Provenance = "real") -> RunRecords:
    models = (f"m{index}" for index in itertools.count())
    return samples.run_records(
        [samples.case(next(models), 1, outcome=outcome, provenance=kind) for outcome in outcomes],
        provenance=kind,
    )


@pytest.mark.parametrize(
    ("outcomes", "expected_tone", "text"),
    [
        (("passed",) * 8, "good", "8 of 8 cases passed"),
        (("passed",), "good", "1 of 1 case passed"),
        (("failed",), "bad", "1 failed: m0 bs 1 on cpu (accuracy)"),
        (("passed", "failed"), "bad", "1 failed: m1 bs 1 on cpu (accuracy); 1 of 2 cases passed"),
        (("failed", "crashed", "error"), "bad", "1 failed, 1 crashed, 1 error"),
        (("failed", "error", "error"), "bad", "1 failed, 2 errors"),
        (
            ("failed",) * 5,
            "bad",
            "5 failed: m0 bs 1 on cpu (accuracy); m1 bs 1 on cpu (accuracy); "
            "m2 bs 1 on cpu (accuracy); and 2 more",
        ),
        (
            ("passed", "inconclusive"),
            "warn",
            "1 of 2 cases passed, 1 inconclusive: m1 bs 1 on cpu (accuracy)",
        ),
        (("passed", "recorded"), "good", "1 of 2 cases passed, 1 recorded"),
        (("passed", "known_failure"), "good", "1 of 2 cases passed, 1 known failure"),
        (
            ("recorded", "recorded"),
            "neutral",
            "None of 2 cases passed or failed, 2 recorded: nothing comparable to hold them against",
        ),
        (
            ("passed", "not_run"),
            "bad",
            "Incomplete run, 1 of 2 cases did not run. 1 of 2 cases passed",
        ),
        (("not_run", "not_run"), "bad", "Ran nothing: none of 2 planned cases ran"),
    ],
)
def test_the_headline_of_a_run(
    outcomes: tuple[Outcome, ...], expected_tone: str, text: str
) -> None:
    records = _with(*outcomes)
    line = headline(records)
    assert (line.tone, line.text) == (expected_tone, text)
    assert page(records).text("h1") == text
    assert tone(records) == expected_tone


def _lost() -> PlannedCase:
    return samples.planned(samples.case("inceptionv4", 4, "throughput"))


def _edited(records: RunRecords, **changes: Any) -> RunRecords:
    assert records.end is not None
    return RunRecords(
        records.directory,
        records.run,
        records.plan,
        records.cases,
        records.end.model_copy(update=changes),
        records.damaged,
    )


@pytest.mark.parametrize(
    ("records", "said"),
    [
        (samples.run_records(green(), lost=[_lost()]), "1 of 9 cases did not run"),
        (samples.run_records(green(), end=False), "no end line"),
        (_edited(samples.run_records(green()), planned=9), "the end line says 9 planned"),
        (_edited(samples.run_records(green()), complete=False), "the end line says so"),
        (
            _edited(samples.run_records(green()), counts={"passed": 7, "failed": 1}),
            "the counts of the end line are not those",
        ),
        (
            RunRecords(
                Path("r"),
                None,
                samples.run_records(green()).plan,
                samples.run_records(green()).cases,
                samples.run_records(green()).end,
            ),
            "no run line",
        ),
    ],
    ids=["lost case", "no end", "end plans more", "end says no", "end counts", "no run line"],
)
def test_an_incomplete_run_says_so_first_and_is_never_green(records: RunRecords, said: str) -> None:
    text = page(records).text("h1")
    assert text.removeprefix("Rehearsal: ").lower().startswith("incomplete run, ")
    assert said in text
    assert tone(records) == "bad"
    assert said in summary_lines(records)[1]


def test_a_plan_that_is_smaller_than_what_ran_does_not_add_up() -> None:
    whole = samples.run_records(green())
    records = RunRecords(
        whole.directory, whole.run, whole.plan[:-1], whole.cases, whole.end, whole.damaged
    )
    assert not reconcile(records).holds
    assert "7 planned \N{NOT EQUAL TO} 8 passed" in page(records).text()
    assert "1 case ran that was not in the plan" in page(records).text()
    assert tone(records) == "bad"


@pytest.mark.parametrize(
    ("records", "said"),
    [
        (samples.run_records(green(), damaged=("line 7: Expecting value",)), "1 damaged line"),
        (samples.run_records(green(), exit_status=3), "exit status 3"),
        (samples.run_records(green("simulated")), "the records mix provenances"),
    ],
    ids=["damaged line", "exit status", "mixed"],
)
def test_a_problem_with_the_records_is_never_green(records: RunRecords, said: str) -> None:
    assert said in page(records).text("h1")
    assert tone(records) == "bad"


def test_damaged_lines_are_listed() -> None:
    records = samples.run_records(green(), damaged=("line 7: Expecting value",))
    assert "line 7: Expecting value" in page(records).text()


@pytest.mark.parametrize("run", [True, False])
def test_a_run_that_ran_nothing_is_red(run: bool) -> None:
    whole = samples.run_records([])
    records = RunRecords(Path("runs/x"), whole.run if run else None, (), (), whole.end)
    assert "an nothing: no case was planned" in page(records).text("h1")
    assert tone(records) == "bad"
    assert any("an nothing" in line for line in summary_lines(records))


def test_a_planned_case_without_a_line_is_shown_as_not_run() -> None:
    html = render_html(samples.run_records(green(), lost=[_lost()]), now=NOW)
    assert 'data-outcome="not_run" data-model="inceptionv4"' in html
    assert "the records have no line of it" in html
    assert "9 planned = 8 passed" in html


# --- outcomes and colours ----------------------------------------------------------------------


def test_every_outcome_has_its_own_word_sign_and_colour() -> None:
    assert set(LOOKS) == set(OUTCOMES)
    assert len({look.word for look in LOOKS.values()}) == len(OUTCOMES)
    assert len({look.sign for look in LOOKS.values()}) == len(OUTCOMES)
    html = render_html(samples.all_outcomes(), now=NOW)
    drawings = dict(re.findall(r'<symbol id="sign-(\w+)"[^>]*>(.*?)</symbol>', html))
    assert set(drawings) == set(OUTCOMES)
    assert len(set(drawings.values())) == len(OUTCOMES)
    for outcome in OUTCOMES:
        assert f'data-outcome="{outcome}"' in html
        assert f'class="badge o-{outcome}"' in html
    for scheme in _palettes():
        assert len({scheme[outcome] for outcome in OUTCOMES}) == len(OUTCOMES)


def _palettes() -> Iterator[dict[str, str]]:
    """The custom properties of the light and of the dark scheme."""
    style = (Path(charts.__file__).parent / "style.css").read_text(encoding="utf-8")
    light, dark = (
        dict(re.findall(r"--([\w-]+):\s*(#[0-9a-f]{6})", block))
        for block in re.findall(r":root \{(.*?)\}", style, re.DOTALL)[:2]
    )
    yield light
    yield {**light, **dark}


def _luminance(colour: str) -> float:
    """Relative luminance as WCAG 2 defines it."""
    channels = [int(colour[index : index + 2], 16) / 255 for index in (1, 3, 5)]
    red, green_, blue = (
        value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4
        for value in channels
    )
    return 0.2126 * red + 0.7152 * green_ + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """Contrast ratio as WCAG 2 defines it, 1 to 21."""
    dark, light = sorted((_luminance(one), _luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_the_contrast_function_knows_a_pale_grey() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#999999", "#ffffff") < 3


def test_text_has_enough_contrast_in_both_schemes() -> None:
    grounds = ("bg", "panel", "sunk")
    pairs: list[tuple[str, str]] = [(outcome, f"{outcome}-bg") for outcome in OUTCOMES]
    pairs += [("ink", f"{outcome}-bg") for outcome in OUTCOMES]
    pairs += [(text, ground) for text in ("ink", "muted", "link") for ground in grounds]
    pairs += [(outcome, "panel") for outcome in OUTCOMES]
    pairs += [("rehearsal", "rehearsal-bg"), ("simulated", "simulated-bg")]
    for palette in _palettes():
        weak = {
            pair: round(contrast(palette[pair[0]], palette[pair[1]]), 2)
            for pair in pairs
            if contrast(palette[pair[0]], palette[pair[1]]) < 4.5
        }
        assert not weak


# --- a rehearsal says nothing about published figures ------------------------------------------

PUBLISHED = Reference(
    kind="published", value=58.191, unit="%", source="guide 003", note="whole set"
)


def test_a_rehearsal_is_shouted_at_both_ends_and_in_the_title() -> None:
    sentence = "generated images and stand-in weights. Says nothing about any published figure."
    tree = page(samples.run_records(green()))
    assert tree.text("title").startswith("REHEARSAL \N{EM DASH} Rehearsal: 8 of 8 cases passed")
    assert {"banner top", "banner bottom"} <= set(tree.values("class"))
    assert tree.text().count(sentence) == 2
    assert "Rehearsal report" in tree.text()
    assert "acceptance report" not in tree.text().lower()
    assert summary_lines(samples.run_records(green()))[0] == f"REHEARSAL \N{EM DASH} {sentence}"


def test_a_simulated_run_is_shouted_too() -> None:
    tree = page(samples.run_records(green("simulated"), provenance="simulated"))
    assert tree.text("title").startswith("SIMULATED NPU")
    assert tree.text().count("no NPU was used") == 2
    assert "REHEARSAL" not in tree.text()


def test_a_real_run_has_no_banner() -> None:
    records = samples.run_records(green("real"), provenance="real")
    tree = page(records)
    assert not any(value.startswith("banner") for value in tree.values("class"))
    assert "REHEARSAL" not in tree.text()
    assert "SIMULATED" not in tree.text()
    assert tree.text("title").startswith("8 of 8 cases passed")


def test_one_rehearsed_case_in_a_real_run_is_enough_for_the_banner() -> None:
    cases = [*green("real")[:-1], samples.case("fixres_resnet50", 4, "throughput")]
    tree = page(samples.run_records(cases, provenance="real"))
    assert "REHEARSAL" in tree.text("title")
    assert "the records mix provenances" in tree.text("h1")


@pytest.mark.parametrize("kind", ["published", "baseline", "anything-else"])
@pytest.mark.parametrize("run", ["rehearsal", "simulated"])
def test_a_published_reference_never_reaches_a_page_that_is_not_real(
    run: Provenance, kind: str
) -> None:
    reference = PUBLISHED.model_copy(update={"kind": kind, "provenance": run})
    line = samples.case(
        provenance=run,
        reference=reference,
        difference_percent=34.59,
        sentence="78.32 % is within 1 % of 58.191 %",
    )
    records = samples.run_records([line], provenance=run)
    for text in (page(records).text(), "\n".join(summary_lines(records))):
        assert "58.19" not in text
        assert "34.59" not in text
        assert "guide 003" not in text
    # A figure that the catalog marks as simulated may judge a simulated case.
    marked = (run, kind) == ("simulated", "baseline")
    said = "a figure that the catalog marks as simulated" if marked else "It is withheld"
    assert said in page(records).text()
    assert tone(records) == ("good" if marked else "bad")


def test_the_same_reference_is_shown_when_everything_is_real() -> None:
    line = samples.case(provenance="real", reference=PUBLISHED, difference_percent=34.59)
    text = page(samples.run_records([line], provenance="real")).text()
    for shown in ("58.19\N{NO-BREAK SPACE}%", "+34.59\N{NO-BREAK SPACE}%", "guide 003"):
        assert " ".join(shown.split()) in text


def test_a_case_that_claims_to_be_real_is_not_in_a_rehearsal() -> None:
    line = samples.case(provenance="real", reference=PUBLISHED)
    text = page(samples.run_records([line], provenance="rehearsal")).text()
    assert "58.19" not in text


def test_a_comparison_across_provenances_is_withheld() -> None:
    line = samples.case(
        provenance="real",
        reference=PUBLISHED.model_copy(update={"provenance": "rehearsal"}),
        difference_percent=34.59,
    )
    records = samples.run_records([line], provenance="real")
    text = page(records).text()
    assert "judging across provenances is refused" in text
    assert "58.19" not in text
    assert "34.59" not in text
    assert tone(records) == "bad"


@pytest.mark.parametrize(
    "sentence",
    [
        "accepted: 58.3 % on 50,000 images",
        "58.3 % is within 1 % of the published 58.191 %",
        "ACCEPTED at batch 4",
        "measured 58.3 %, published top-1 58.191 %",
        "312 fps, baseline 1,234.5 fps",
        "reaches the published top-1",
    ],
)
def test_a_sentence_about_figures_of_others_is_withheld_in_a_rehearsal(sentence: str) -> None:
    plain = samples.case(sentence=sentence)
    assert plain.verdict is not None
    line = plain.model_copy(
        update={
            "verdict": plain.verdict.model_copy(
                update={
                    "sentence": sentence + " indeed",
                    "rule": sentence,
                    "figures": {"published top-1": 58.191, "bound": 0.03},
                }
            )
        }
    )
    records = samples.run_records([line])
    html = render_html(records, now=NOW)
    assert sentence not in html
    assert "58.191" not in html
    assert "accepted" not in html.lower()
    assert "withheld" in html
    assert "accepted" not in "\n".join(summary_lines(records)).lower()


def test_a_disclaimer_is_no_claim() -> None:
    for sentence in (
        "512 of 512 predictions agree. Says nothing about any published figure.",
        "no baseline exists for 4 images",
        "the formula is that of the guides: 1000 * batch / mean",
    ):
        assert not provenance.claims(sentence)


def test_the_word_of_a_verdict_on_real_weights_is_nowhere_in_a_rehearsal() -> None:
    word = "accepted"
    line = samples.case(
        model=word,
        outcome="error",
        title=word,
        images={word: word.upper()},
        measurement={"remark": word},
        repeat=[f"echo {word}"],
    )
    assert line.error is not None
    line = line.model_copy(
        update={"error": line.error.model_copy(update={"log": f"connection {word}"})}
    )
    records = samples.run_records([line])
    assert word not in render_html(records, now=NOW).lower()
    assert word not in "\n".join(summary_lines(records)).lower()
    real = samples.run_records([line.model_copy(update={"provenance": "real"})], provenance="real")
    assert f"connection {word}" in render_html(real, now=NOW)  # the net is cast here alone


def test_our_own_words_make_no_claim() -> None:
    folder = Path(charts.__file__).parent
    for name in ("template.html.j2", "style.css", "script.js"):
        assert "accepted" not in (folder / name).read_text(encoding="utf-8").lower()


# --- what a case shows -------------------------------------------------------------------------


def test_an_accuracy_case_shows_its_figures() -> None:
    text = page(samples.run_records([samples.case()])).text()
    for shown in (
        "top-5 491 95.90 %",
        "relative L2 of the logits 6.80e\N{MINUS SIGN}7",
        "equal predictions 99.80 %",
        "ILSVRC2012_val_00000217.JPEG 31 31 8.53 7 8.54 0.0021",
        "eager PyTorch on the same images",
        "Rule: every prediction is equal",
        "resize short side 256 bilinear",
        "b8a52dc0b8a52dc0",
        "9f86d0819f86d081",
        "4.7 MiB",
        "from the store",
        "simplify 1.84 s",
        "gw0",
        "python -m pytest --rehearsal -m accuracy --models squeezenet1_1 --batch-sizes 4",
        "git revision 4f2c9e1",
        "onnxruntime 1.23.0",
        "Example CPU 8-core",
    ):
        assert " ".join(shown.split()) in text, shown


def test_a_throughput_case_shows_its_figures_and_charts() -> None:
    tree = page(samples.run_records([samples.case(check="throughput")]))
    text = tree.text()
    for shown in (
        "coefficient of variation 3.40 %",
        "half-width of the mean's 99 % interval 0.82 %",
        "warm-up executions 20",
        "rounds 8",
        "precision asked for was reached yes",
        "memory format channels_last",
        "contiguous 188.1 fps",
        "outputs against the onnx model relative l2 5.10e\N{MINUS SIGN}7",
        "latency samples 400 executions",
        "+49 %",
    ):
        assert " ".join(shown.split()).lower() in text.lower(), shown
    assert tree.tags["figure"] == 2


def test_an_error_shows_stage_message_remedy_and_log() -> None:
    html = render_html(samples.run_records([samples.case(outcome="error")]), now=NOW)
    assert "<details open>" in html
    text = Tree(html).text()
    assert "CompileError in stage compile" in text
    assert "node Conv_14 has no kernel" in text
    assert "What to do: compare the operator set" in text
    assert "[59] node /features/Conv_59" in text


def test_unknown_measurements_are_shown_and_not_lost() -> None:
    line = samples.case(measurement={"images": 4, "clock_mhz": 1830, "power": {"mean_w": 61.5}})
    text = page(samples.run_records([line])).text()
    assert "clock mhz 1,830" in text
    assert "power: mean w 61.5" in text


def test_each_cell_of_the_matrix_leads_to_its_case() -> None:
    records = samples.all_outcomes()
    html = render_html(records, now=NOW)
    cells = re.findall(r'<a class="cell o-(\w+)" href="#([^"]+)">', html)
    assert len(cells) == len(records.cases)
    for outcome, anchor in cells:
        assert re.search(rf'id="{re.escape(anchor)}" data-outcome="{outcome}"', html)
    assert re.search(
        r"<b>71\.09.%</b>.*?<i>eager 78\.32.%</i> <b>\N{MINUS SIGN}9\.23.%</b>", html, re.DOTALL
    )


def test_two_cases_in_one_cell_are_both_shown() -> None:
    one = samples.case()
    two = one.model_copy(update={"nodeid": one.nodeid + "#2", "outcome": "failed"})
    html = render_html(samples.run_records([one, two]), now=NOW)
    assert len(re.findall(r'<a class="cell ', html)) == 2
    assert len(set(re.findall(r'<article class="case[^"]*" id="([^"]+)"', html))) == 2


def test_cases_stand_in_the_order_of_the_plan() -> None:
    whole = samples.run_records(green())
    records = RunRecords(
        whole.directory, whole.run, whole.plan, tuple(reversed(whole.cases)), whole.end
    )
    pattern = r'<article class="case[^"]*" id="([^"]+)"'
    first = re.findall(pattern, render_html(whole, now=NOW))
    assert re.findall(pattern, render_html(records, now=NOW)) == first


def test_without_a_script_the_page_is_a_plain_list() -> None:
    html = render_html(samples.all_outcomes(), now=NOW)
    assert re.search(r'<form class="filter"[^>]* hidden>', html)
    assert not re.search(r"<article[^>]*hidden", html)


# --- the file ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "records",
    [
        samples.all_outcomes(),
        samples.run_records(green("real"), provenance="real"),
        samples.run_records([]),
        RunRecords(Path("runs/x"), None, (), (), None, ("line 1: bad",)),
    ],
    ids=["all outcomes", "real", "empty", "nothing"],
)
def test_the_page_is_well_formed_and_needs_nothing_else(records: RunRecords) -> None:
    html = render_html(records, now=NOW)
    assert html.startswith("<!doctype html>")
    tree = Tree(html)
    assert not tree.faults
    ids = tree.values("id")
    assert len(ids) == len(set(ids))
    for tag, name, value in tree.attributes:
        if name == "href" and value.startswith("#"):
            assert value[1:] in ids
        if tag in ("link", "use"):
            assert name != "href" or value.startswith(("data:", "#"))
        assert name not in ("src", "srcset", "action", "background")
    assert not re.search(r"url\(|@import", html)
    assert "harness 0" in tree.text()


def test_the_parser_of_these_tests_sees_a_tag_that_is_not_closed() -> None:
    assert Tree("<div><p>text</div>").faults
    assert Tree("<div>text").faults


def test_the_policy_names_the_script_of_the_page_and_nothing_else() -> None:
    html = render_html(samples.run_records(green()), now=NOW)
    scripts = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    assert len(scripts) == 1
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', html)
    assert policy is not None
    assert "default-src 'none'" in policy[1]
    assert f"script-src 'sha256-{digest}'" in policy[1]


def _planted(value: Any, counter: Iterator[int], keep: frozenset[str]) -> Any:
    """`value` with markup in every string and in every free key; fields named in `keep` stay."""
    if isinstance(value, str):
        n = next(counter)
        return f"<script>plant({n})</script>\"'><img src=x onerror=plant({n})>{{{{7*7}}}}&lt;"
    if isinstance(value, list | tuple):
        return [_planted(item, counter, keep) for item in value]
    if isinstance(value, dict):
        return {
            key: item if key in keep else _planted(item, counter, keep)
            for key, item in value.items()
        }
    return value


def hostile(kind: Provenance) -> RunRecords:
    """Records with markup in every string that a record can hold."""
    counter = itertools.count()
    whole = samples.all_outcomes(kind)
    literal = frozenset({"kind", "provenance", "outcome", "check"})
    lines = []
    for case in whole.cases:
        data = _planted(case.model_dump(), counter, literal)
        for artifact in data["artifacts"]:
            artifact["kind"] = _planted("", counter, literal)
        if data["reference"] and kind == "real":
            data["reference"]["kind"] = _planted("", counter, literal)
        data["measurement"][_planted("", counter, literal)] = _planted("", counter, literal)
        data["device"][_planted("", counter, literal)] = {_planted("", counter, literal): 1}
        data["device"]["failed_before"] = _planted([samples.ATTEMPT], counter, literal)
        data["device"]["commands"] = _planted(samples.COMMANDS, counter, literal)
        data["diagnosis"] = _planted(samples.DIAGNOSIS, counter, literal)
        data["measurement"]["conditions"] = _planted(samples.conditions(3), counter, literal)
        lines.append(CaseLine.model_validate(data))
    assert whole.run is not None
    # Markup in the keys as well: a model's id.
    published = {_planted("", counter, literal): _planted(_published(), counter, literal)}
    data = {**whole.run.model_dump(), "guide_figures": {**_published(), **published}}
    run = samples.WithFigures.model_validate(_planted(data, counter, literal))
    check = samples.batch_check("squeezenet1_1", "failed", target="cpu", provenance=kind)
    check_data = _planted(check.model_dump(), counter, literal)
    check_data["reference"]["kind"] = "batch-size"
    check = RunCheckLine.model_validate(check_data)
    lost = PlannedCase.model_validate(_planted(_lost().model_dump(), counter, literal))
    records = samples.run_records(
        lines, provenance=kind, lost=[lost], damaged=(_planted("", counter, literal),)
    )
    return RunRecords(
        records.directory, run, records.plan, records.cases, records.end, records.damaged, (check,)
    )


def _published() -> dict[str, Any]:
    return guide_figures(load_catalog(samples.CATALOG), list(samples.TITLES), "real")


@pytest.mark.parametrize("kind", ["real", "rehearsal"])
def test_markup_in_any_string_stays_text(kind: Provenance) -> None:
    records = hostile(kind)
    html = render_html(records, now="<script>plant(0)</script>")
    tree = Tree(html)
    assert not tree.faults
    assert tree.tags["script"] == 1
    assert tree.tags["img"] == 0
    assert not [name for _, name, _ in tree.attributes if name.startswith("on")]
    assert "{{7*7}}" in html
    for _, name, value in tree.attributes:
        if name == "href":
            assert value.startswith(("#", "data:image/svg+xml,", "https://")) or (
                ":" not in value and "<" not in value
            )
    # What was planted is shown, escaped, and none of it is lost to the parser.
    clean = page(samples.all_outcomes(kind)).tags
    assert tree.tags["article"] == clean["article"] + 1
    assert "<script>plant(" in tree.text()


def test_the_planting_reaches_every_string_field() -> None:
    case = hostile("real").cases[0].model_dump()

    def strings(value: Any) -> Iterator[str]:
        if isinstance(value, str):
            yield value
        elif isinstance(value, list | tuple):
            for item in value:
                yield from strings(item)
        elif isinstance(value, dict):
            for item in value.values():
                yield from strings(item)

    plain = {text for text in strings(case) if "<script>" not in text}
    assert plain <= {"case", "real", "accuracy", "passed", "PASS"}
    check = hostile("real").checks[0].model_dump()
    plain = {text for text in strings(check) if "<script>" not in text}
    assert plain <= {"check", "real", "failed", "FAIL", "batch-size"}


@pytest.mark.parametrize(
    ("path", "href"),
    [
        ("logs/a b.log", "logs/a%20b.log"),
        ("predictions/x.csv", "predictions/x.csv"),
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
def test_links_stay_inside_the_run_directory(path: str, href: str) -> None:
    assert safe_href(path) == href


def test_only_a_bare_https_address_becomes_a_link() -> None:
    assert web_href("https://example.org/readme") == "https://example.org/readme"
    for text in ("http://example.org", "see https://example.org", "javascript:alert(1)", ""):
        assert web_href(text) == ""


def test_what_a_log_can_hold_survives() -> None:
    line = samples.case(outcome="error")
    assert line.error is not None
    log = "\x1b[31mred\x1b[0m\rprogress\x00 tail \u202eright to left <&>\n"
    line = line.model_copy(update={"error": line.error.model_copy(update={"log": log})})
    line = line.model_copy(update={"measurement": {"half": "\ud83d", "whole": "\ud83d\ude00"}})
    html = render_html(samples.run_records([line]), now=NOW)
    html.encode()  # no half of a pair is left
    assert "\x1b" not in html
    assert "\x00" not in html
    assert "\u202e" not in html
    assert "red\nprogress" in html
    assert "right to left &lt;&amp;&gt;" in html


def test_a_long_log_is_cut_to_its_end_with_a_note() -> None:
    text = "\n".join(f"line {index}" for index in range(5_000))
    log = tail(text, 2_000)
    assert log is not None
    assert len(log.text) <= 2_000
    assert log.text.endswith("line 4999")
    assert log.text.startswith("line ")
    assert log.note == f"The first {len(text) - len(log.text):,} characters are cut here."
    dense = tail("<" * 9_000, 2_000)
    assert dense is not None
    assert len(dense.text) * len("&lt;") <= 2_000
    whole = tail("short", 2_000)
    assert whole is not None
    assert whole.note == ""
    assert tail("", 2_000) is None


def _planted_thumb(directory: Path, images: dict[str, Any], name: str) -> Path:
    """A thumbnail as large as one may be, as an earlier write of the report left it."""
    path = directory / thumbs.THUMBS / thumbs.file_name(images, name)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"\xff\xd8\xff" + b"\x00" * (thumbs.LARGEST - 3))
    return path


def test_flips_have_both_scores_and_old_records_without_them_are_shown() -> None:
    old, new = samples.case(batch=1), samples.case(batch=4)
    (flip,) = old.measurement["fidelity"]["flips"]
    del flip["reference_score"], flip["compiled_score"]
    html = render_html(samples.run_records([old, new]), now=NOW)
    assert html.count('<th scope="col">Eager logit</th>') == 2
    assert html.count('<th scope="col">Compiled logit</th>') == 2
    cells = "<td>31</td><td>31</td><td>{}</td><td>7</td><td>{}</td><td>0.0021</td>"
    assert cells.format("8.53", "8.54") in html
    assert cells.format(NO_VALUE, NO_VALUE) in html


def test_a_hundred_cases_stay_under_two_megabytes(tmp_path: Path) -> None:
    log = "<warning> & 'quoted' text of a compiler\n" * 4_000
    failure = samples.case(outcome="error").error
    assert failure is not None
    cases = []
    for index in range(10):
        for check in CHECKS:
            for batch in (1, 4, 8, 16, 32):
                line = samples.case(f"model_{index}", batch, check, "failed")
                artifacts = [item.model_copy(update={"log": log}) for item in line.artifacts]
                error = failure.model_copy(update={"log": log})
                if check == "accuracy":
                    names = [f"{index}-{batch}-{n}.JPEG" for n in range(20)]
                    line.measurement["fidelity"]["flips"] = [{"name": n} for n in names]
                    for name in names:
                        _planted_thumb(tmp_path, line.images, name)
                else:
                    line.measurement["conditions"] = samples.conditions(600, busy=True)
                long = {"title": "t" * 100, "rows": [["<" * 300] * 6] * 200}
                diagnosis = {**samples.DIAGNOSIS, "sections": [long] * 9}
                changes = {"artifacts": artifacts, "error": error, "diagnosis": diagnosis}
                cases.append(line.model_copy(update=changes))
    checks = [samples.batch_check(f"model_{n}", "failed", target="cpu") for n in range(10)]
    records = samples.run_records(cases, exit_status=1, directory=tmp_path, checks=checks)
    assert len(records.cases) == 100
    html = render_html(records, now=NOW)
    assert "data:image/jpeg;base64," in html
    assert len(html.encode()) < 2_000_000
    assert "characters are cut here" in html


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(min_value=-(10**400), max_value=10**400)
    | st.floats()
    | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=6,
)
_KEYS = st.sampled_from(
    [*samples.accuracy_measurement(), *samples.throughput_measurement(4), "unknown"]
)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.dictionaries(_KEYS, _JSON, max_size=6), st.sampled_from(["accuracy", "throughput"]))
def test_any_measurement_gives_a_page(measurement: dict[str, Any], check: Check) -> None:
    line = samples.case(check=check, measurement=measurement)
    tree = page(samples.run_records([line]))
    assert not tree.faults


def test_odd_numbers_give_a_page() -> None:
    line = samples.case(
        check="throughput",
        measured=float("nan"),
        difference_percent=float("inf"),
        seconds=-1.0,
        measurement={
            "samples_ms": [5.0] * 9 + ["x", None, float("nan")],
            "mean_ms": 10**400,
            "eager": [],
            "outputs_check": "none",
        },
    )
    text = page(samples.run_records([line])).text()
    assert "9 executions" in text
    assert "nan" not in text.lower().split()


def test_a_report_is_written_from_the_records_in_one_step(tmp_path: Path) -> None:
    whole = samples.all_outcomes()
    assert whole.run is not None
    assert whole.end is not None
    writer.append(tmp_path, whole.run)
    writer.append(tmp_path, lines.PlanLine(run=whole.run.run, cases=list(whole.plan)))
    for line in whole.cases:
        writer.append(tmp_path, line)
    writer.append(tmp_path, whole.end)
    (tmp_path / "report.html").write_text("old", encoding="utf-8")

    path = write_report(tmp_path)

    assert path == tmp_path / "report.html"
    assert sorted(p.name for p in tmp_path.glob("[!.]*")) == ["report.html", "results.jsonl"]
    written = path.read_text(encoding="utf-8")
    fresh = render_html(reader.read(tmp_path), now=NOW)
    cut = re.compile("Rendered .*? by")
    assert cut.sub("", written) == cut.sub("", fresh)
    assert "13 of 20 cases passed" in written


def test_a_folder_without_records_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="no records of a run") as caught:
        write_report(tmp_path)
    assert caught.value.remedy


@pytest.mark.parametrize("text", ["", "\n", "root:x:0:0\n{}\n[]\n"])
def test_records_without_a_line_have_no_report(tmp_path: Path, text: str) -> None:
    (tmp_path / "results.jsonl").write_text(text, encoding="utf-8")
    with pytest.raises(RecordError, match="holds no line") as caught:
        write_report(tmp_path)
    assert caught.value.remedy
    assert [path.name for path in tmp_path.iterdir()] == ["results.jsonl"]


def test_a_report_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    run = samples.all_outcomes().run
    assert run is not None
    writer.append(tmp_path, run)
    (tmp_path / "report.html").mkdir()
    with pytest.raises(RecordError, match="cannot write") as caught:
        write_report(tmp_path)
    assert caught.value.remedy
    assert sorted(p.name for p in tmp_path.glob("[!.]*")) == ["report.html", "results.jsonl"]


def test_a_withheld_comparison_is_named_in_its_cell_alone() -> None:
    reference = PUBLISHED.model_copy(update={"provenance": "rehearsal"})
    lines = [samples.case(reference=reference), samples.case(check="throughput")]
    html = render_html(samples.run_records(lines), now=NOW)
    assert html.count("<i>withheld</i>") == 1


def test_the_same_records_give_the_same_page() -> None:
    assert render_html(samples.all_outcomes(), now=NOW) == render_html(
        samples.all_outcomes(), now=NOW
    )


def test_rendering_imports_no_framework() -> None:
    code = (
        "import sys, json, harness.report as r;"
        "from harness.records.lines import RunRecords; from pathlib import Path;"
        "r.render_html(RunRecords(Path('x'), None, (), (), None));"
        "print(json.dumps(sorted({m.split('.')[0] for m in sys.modules})))"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    heavy = {"torch", "torchvision", "timm", "onnx", "onnxsim", "onnxruntime", "numpy", "pytest"}
    assert not heavy & set(json.loads(done.stdout))


# --- the terminal ------------------------------------------------------------------------------


def test_the_summary_for_a_terminal() -> None:
    lines = summary_lines(samples.all_outcomes())
    assert lines[0].startswith("REHEARSAL")
    assert lines[1].startswith("Rehearsal: incomplete run, 1 of 20 cases did not run. 1 failed")
    table = lines[lines.index("accuracy on cpu, top-1") + 1 :]
    assert table[0].split() == ["batch", "1", "batch", "4"]
    assert re.fullmatch(
        r"  squeezenet1_1    passed 78\.32 % \(\+0\.00 %\)  failed 71\.09 % \(-9\.23 %\)", table[1]
    )
    assert lines[-1].startswith("20 planned = 13 passed + 1 failed")
    assert not any("\x1b" in line or "\n" in line for line in lines)


def test_the_summary_of_a_hostile_run_is_plain_lines() -> None:
    line = samples.case(model="a\nb\x1b[31m", outcome="failed")
    for text in summary_lines(samples.run_records([line], exit_status=1)):
        assert text.isprintable()


# --- numbers -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (figures.percent(71.254), "71.25 %"),
        (figures.percent(None), "\N{EN DASH}"),
        (figures.difference(0.0), "+0.00 %"),
        (figures.difference(-0.001), "+0.00 %"),
        (figures.difference(-3.207), "\N{MINUS SIGN}3.21 %"),
        (figures.difference(0.5, "points"), "+0.50 points"),
        (figures.rate(12345.6), "12,346 fps"),
        (figures.rate(312.54), "312.5 fps"),
        (figures.rate(3.1415), "3.142 fps"),
        (figures.milliseconds(3.14159), "3.142 ms"),
        (figures.duration(0.4), "0.40 s"),
        (figures.duration(59.97), "1 min 00 s"),
        (figures.duration(184), "3 min 04 s"),
        (figures.duration(float("inf")), figures.NO_VALUE),
        (figures.duration(float("nan")), figures.NO_VALUE),
        (figures.duration(3599.9), "1 h 00 min"),
        (figures.size(512), "512 B"),
        (figures.size(4_970_112), "4.7 MiB"),
        (figures.size(3 * 2**40), "3.0 TiB"),
        (figures.size(5000 * 2**40), "5,000.0 TiB"),
        (figures.size(10**309), figures.NO_VALUE),
        (figures.size(float("inf")), figures.NO_VALUE),
        (figures.plain(0.0021), "0.0021"),
        (figures.plain(6.8e-7), "6.80e\N{MINUS SIGN}7"),
        (figures.plain(0.0), "0"),
        (figures.scalar(float("nan")), "not a finite number"),
        (figures.scalar(True), "yes"),
        (figures.scalar([1, 2]), "1, 2"),
        (figures.scalar(list(range(400))), "400 values"),
        (figures.moment("2026-11-20T07:30:00+00:00"), "2026-11-20 07:30:00 UTC"),
        (figures.moment("yesterday"), "yesterday"),
    ],
)
def test_numbers_are_written_for_a_reader(written: str, expected: str) -> None:
    assert written.replace("\N{NO-BREAK SPACE}", " ") == expected


def test_a_cut_says_how_much_is_left_and_takes_lists_of_image_names_first() -> None:
    assert figures.clip("x" * 377, 300) == "x" * 300 + "… (77 more characters)"
    assert figures.clip("x" * 11, 10) == "x" * 10 + "… (1 more character)"
    names = ", ".join(f"ILSVRC2012_val_{n:08}.JPEG" for n in range(1, 4))
    said = (
        f"NaN or infinity in the outputs of 46 images ({names} and 1,043 more); logits differ by "
        f"nan (relative L2), allowed 0.03; 42 of 46 predictions differ from eager ({names}); "
        "top-1 0.00 % where eager has 84.78 %"
    )
    assert len(said) > 300
    assert figures.clip(said) == said  # where there is room, they stay
    assert figures.line(said, 300) == (
        "NaN or infinity in the outputs of 46 images; logits differ by nan (relative L2), allowed "
        "0.03; 42 of 46 predictions differ from eager; top-1 0.00 % where eager has 84.78 %"
    )
    kept = "it said (no a.JPEG there) and (node Conv_14, a.png)"
    assert figures.clip(kept, len(kept) - 1).startswith(kept[:-1])


def test_charts_hold_every_sample() -> None:
    values = [10.0 + 0.01 * (index % 50) for index in range(399)] + [95.0]
    chart = charts.samples(values)
    assert chart is not None
    assert chart.count == 400
    assert "1 of 400 samples lie beyond" in chart.beyond
    assert "95.000" in chart.beyond
    assert all(0 <= marker.position <= 100 for marker in chart.markers)
    assert re.fullmatch(r"(M[\d.]+ 100v-[\d.]+h[\d.]+V100z)+", chart.histogram)
    assert re.fullmatch(r"M0 \d+H[\d.]+(V-?\d+H[\d.]+)*z", chart.envelope)
    assert charts.samples([1.0, 2.0]) is None
    same = charts.samples([5.0] * 9)
    assert same is not None
    assert same.beyond == ""


def test_no_two_stages_of_a_page_look_alike() -> None:
    names = [f"stage {n}" for n in range(charts.TONES * charts.HATCHES)]
    parts = charts.stacked([(name, 1.0, "") for name in names])
    assert len({(part.tone, part.hatch) for part in parts}) == len(names)
    assert len({part.mark for part in parts}) == len(names)


def test_a_stage_looks_the_same_everywhere_on_a_page() -> None:
    one = samples.case()
    stages = [item.model_copy() for item in one.stages]
    lines = [one, samples.case(batch=1, stages=stages[::-1])]
    html = render_html(samples.run_records(lines), now=NOW)
    looks = set(re.findall(r'<li><i class="(t\d h\d)"><b>(\d+)</b></i>simplify', html))
    assert len(looks) == 1


def test_throughput_over_batch_size() -> None:
    chart = charts.over_batch_size(
        "m on t",
        {1: (100.0, 1.0), 4: (400.0, 0.0)},
        {1: 120.0, 8: 300.0},
        reference_name="baseline",
    )
    assert chart is not None
    assert [tick.text for tick in chart.x] == ["1", "4", "8"]
    assert [tick.text for tick in chart.y] == ["0", "200", "400", "600"]
    reference, measured = chart.series
    assert (reference.name, measured.name) == ("baseline", "measured")
    assert measured.dots == "M16.67 83.33h0M50 33.33h0"
    assert "the fastest is batch 4" in chart.summary
    chart = charts.over_batch_size(
        "m on t",
        {1: (100.0, 1.0), 4: (400.0, 0.0)},
        {},
        reference_name="",
        outcomes={1: "passed", 4: "inconclusive"},
        worthless={4},
    )
    assert chart is not None
    ours, worthless = chart.series
    assert (ours.dots, ours.line) == ("M25 83.33h0", "M25 83.33")
    assert (worthless.style, worthless.dots, worthless.line) == ("trouble", "M75 33.33h0", "")
    assert [tick.outcome for tick in chart.x] == ["passed", "inconclusive"]
    assert charts.over_batch_size("m", {4: (400.0, 0.0)}, {1: 1.0}, reference_name="") is None


@example({1: (0.0, 0.0), 2: (5e-324, 0.0)}, {})
@given(
    st.dictionaries(
        st.integers(1, 4096),
        st.tuples(st.floats(0, 1e7), st.floats(0, 1e4)),
        min_size=2,
        max_size=8,
    ),
    st.dictionaries(st.integers(1, 4096), st.floats(0, 1e7), max_size=8),
)
def test_a_line_stays_in_its_box(
    measured: dict[int, tuple[float, float]], reference: dict[int, float]
) -> None:
    chart = charts.over_batch_size("m", measured, reference, reference_name="r")
    assert chart is not None
    for one in chart.series:
        for number in re.findall(r"-?[\d.]+", f"{one.line} {one.dots} {one.whiskers}"):
            assert 0 <= float(number) <= 100


def test_a_long_measurement_is_thinned_out_and_its_trouble_is_not() -> None:
    points = [(float(n), 40.0 + n / 100, n == 777) for n in range(1_000)]
    chart = charts.over_time("Temperature", points, unit="°C")
    assert chart is not None
    measured, trouble = chart.series
    assert 50 < measured.dots.count("M") < 70
    assert trouble.dots.count("M") == 1
    assert "40.0 to 50.0 °C, 1,000 looks" in chart.summary
    assert charts.over_time("Temperature", points[:1], unit="°C") is None
    flat = charts.over_time("T", [(0.0, 43.0, False), (1.0, 43.0, False)], unit="°C")
    assert flat is not None
    assert [tick.text for tick in flat.y] == ["40", "42", "44", "46"]


def test_intervals_share_an_axis_that_holds_them() -> None:
    one = charts.Interval(-0.1, (-0.4, 0.2), (-0.5, None))
    other = charts.Interval(3.0, None, (-0.5, 0.5))
    reach = charts.interval_axis([one, other])
    assert reach == 4.0
    shape = charts.interval_shape(one, reach)
    assert shape.dot == 48.75
    assert shape.known == charts.Bar(45.0, 7.5)
    assert shape.allowed == charts.Bar(43.75, 56.25)  # a gain is no fault: to the axis' end
    assert charts.interval_shape(other, 1.0).dot == 100.0


def test_stage_shares_add_up() -> None:
    parts = charts.stacked([("a", 1.0, ""), ("b", 3.0, ""), ("c", -1.0, "")])
    assert [part.share for part in parts] == [25.0, 75.0, 0.0]
    assert [part.share for part in charts.stacked([("a", 0.0, "")])] == [0.0]


# --- the first screen --------------------------------------------------------------------------


def _failure(stage: str) -> CaseLine:
    line = samples.case(outcome="error", provenance="real")
    assert line.error is not None
    return line.model_copy(update={"error": line.error.model_copy(update={"stage": stage})})


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (samples.case(outcome="failed", provenance="real"), "The model failed: it ran, and"),
        (_failure("compile"), "The toolchain failed: the model could not be compiled"),
        (_failure("device"), "The machine failed: the device is absent"),
        (_failure("data"), "An input failed: images or labels"),
        (_failure("harness"), "The harness itself failed"),
        (
            samples.case(check="throughput", outcome="inconclusive", provenance="real"),
            "The machine leaves it undecided",
        ),
    ],
)
def test_a_red_run_says_what_failed_and_why_on_its_first_screen(line: CaseLine, said: str) -> None:
    records = samples.run_records([line], provenance="real", exit_status=1)
    html = render_html(records, now=NOW)
    header = Tree(html[html.index("<header") : html.index("</header>") + len("</header>")]).text()
    assert said in header
    assert f"{line.check} of {line.case}" in header
    assert "exit code 1: an acceptance failed" in header
    terminal = "\n".join(summary_lines(records))
    assert said in terminal
    assert "exit code 1: an acceptance failed" in terminal


def test_a_green_run_blames_nothing() -> None:
    records = samples.run_records(green("real"), provenance="real")
    assert findings.whys(records) == ()
    assert "exit code 0: everything that was asked for ran" in page(records).text()
    assert "exit code" not in "\n".join(summary_lines(records))


def test_an_unknown_exit_code_is_named_without_a_meaning() -> None:
    records = samples.run_records(green("real"), provenance="real", exit_status=99)
    assert findings.exit_words(records) == "exit code 99"


STOPPED = "after the first failure (-x)"


def test_a_run_that_was_told_to_stop_blames_no_machine_for_it() -> None:
    lines = [samples.case(f"m{n}", 1, outcome="failed", sentence=f"s{n}") for n in range(2)]
    lines += [samples.case(f"e{n}", 1, outcome="error") for n in range(8)]
    records = samples.run_records(lines, lost=[_lost()], exit_status=1, stopped=STOPPED)
    found = findings.whys(records)
    assert [why.word for why in found if why.word == "The machine"] == []
    assert found[-1].text.startswith(f"The run stopped {STOPPED}: these did not run")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"end": False}, "the run was killed or still goes on"),
        ({"exit_status": 2}, "The run was interrupted: these did not run"),
        ({"exit_status": 7}, "the run ended without a line of these"),
        ({"exit_status": 7, "stopped": STOPPED}, f"The run stopped {STOPPED}: these did not run"),
    ],
)
def test_a_lost_case_is_blamed_on_the_first_screen(changes: dict[str, Any], said: str) -> None:
    records = samples.run_records(green(), lost=[_lost()], **changes)
    text = page(records).text("header")
    assert said in text
    assert "throughput of inceptionv4-bs4-cpu" in text
    assert said in "\n".join(summary_lines(records))


def test_cases_with_one_cause_are_one_finding() -> None:
    lines = [samples.case(f"m{n}", 1, outcome="failed", provenance="real") for n in range(5)]
    (why,) = findings.whys(samples.run_records(lines, provenance="real"))
    assert (len(why.subjects), why.left) == (3, 2)


# --- one failure, told once ---------------------------------------------------------------------


def _compile_failed(batch: int, check: Check, *, artifact: str = "", message: str = "") -> CaseLine:
    """A case whose compile failed; the store adds its words for the second check."""
    said = message or f"[{batch}, 3, 224, 224] for Ascend310P3: atc failed: EZ3002: EyeLike"
    if check == "throughput":
        said += causes.REMEMBERED
    made = ArtifactRef(kind="simplified", key=artifact or f"s{batch}", digest="d")
    return samples.case(
        "resnest50",
        batch,
        check,
        "error",
        provenance="real",
        sentence=f"[compile] {said}",
        error=ErrorInfo(
            type="CompileRefused", stage="compile", message=said, remedy="a newer CANN"
        ),
        artifacts=[made],
    )


CALLED = "resnest50 bs 4 on cpu: compile failed (accuracy and throughput)"


def test_one_failed_build_is_told_once_everywhere() -> None:
    lines = [_compile_failed(4, check) for check in CHECKS]
    records = samples.run_records(lines, provenance="real", exit_status=1)
    assert headline(records).text == f"2 errors: {CALLED}"
    (why,) = findings.whys(records)
    assert why.text == (
        "The toolchain failed: the compiler refused the model "
        "(accuracy and throughput of resnest50-bs4-cpu)"
    )
    assert why.said.endswith("EZ3002: EyeLike")
    assert why.remedy == "a newer CANN"
    terminal = summary_lines(records)
    (told,) = [line for line in terminal if "EyeLike" in line]
    assert told.strip().startswith(f"error: {CALLED}: [4, 3, 224, 224]")
    assert causes.REMEMBERED not in "\n".join(terminal)
    html = render_html(records, now=NOW)
    section = html[html.index('id="h-attention"') : html.index('id="h-results"')]
    assert section.count("<li") == section.count("EyeLike") == 1
    assert CALLED in section
    assert section.count("What to do:") == section.count("a newer CANN") == 1
    # Each case is still there, with a link to it.
    for check in CHECKS:
        assert f'href="#case-resnest50-bs4-cpu-{check}"' in section
        assert html.count(f'id="case-resnest50-bs4-cpu-{check}"') == 1


@pytest.mark.parametrize(
    ("lines", "titles", "in_headline"),
    [
        (
            [_compile_failed(1, "accuracy"), _compile_failed(4, "accuracy")],
            [f"resnest50 bs {n} on cpu: compile failed (accuracy)" for n in (1, 4)],
            "resnest50 bs 1, 4 on cpu: compile failed (accuracy)",  # the name; not the entry
        ),
        (
            [
                _compile_failed(n, c, artifact="onnx", message="it would not")
                for n in (1, 4)
                for c in CHECKS
            ],
            ["resnest50 bs 1, 4 on cpu: compile failed (accuracy and throughput)"],
            "resnest50 bs 1, 4 on cpu: compile failed (accuracy and throughput)",
        ),
        (
            [
                _compile_failed(1, "accuracy", message="it would not"),
                _compile_failed(1, "throughput", artifact="other", message="it would not"),
            ],
            [f"resnest50 bs 1 on cpu: compile failed ({check})" for check in CHECKS],
            "resnest50 bs 1 on cpu: compile failed (accuracy and throughput)",
        ),
    ],
    ids=["two builds", "one export", "other artifacts"],
)
def test_what_is_one_failure_and_what_is_not(
    lines: list[CaseLine], titles: list[str], in_headline: str
) -> None:
    records = samples.run_records(lines, provenance="real", exit_status=1)
    entries = findings.entries(records, case_views(records))
    assert [entry.title for entry in entries] == titles
    assert headline(records).text == f"{len(lines)} errors: {in_headline}"


def test_images_that_no_model_can_use_are_one_failure_of_all_models() -> None:
    lines = [
        samples.case(
            f"m{n}", 1, outcome="error", error=ErrorInfo(type="D", stage="data", message="no set")
        )
        for n in range(5)
    ]
    records = samples.run_records(lines)
    (entry,) = findings.entries(records, case_views(records))
    assert entry.title == "5 cases of m0, m1, m2 and 2 more on cpu: no usable images (accuracy)"
    assert headline(records).text == f"Rehearsal: 5 errors: {entry.title}"


def test_two_crashes_are_two_and_cases_that_were_never_reached_are_one() -> None:
    crashed = [samples.case("a", n, outcome="crashed") for n in (1, 2)]
    lost = [samples.planned(samples.case("b", n)) for n in (1, 2, 3)]
    records = samples.run_records(crashed, lost=lost)
    titles = [entry.title for entry in findings.entries(records, case_views(records))]
    assert titles == [
        "a bs 1 on cpu (accuracy)",
        "a bs 2 on cpu (accuracy)",
        "b bs 1, 2, 3 on cpu (accuracy)",
    ]


def test_checks_that_not_every_case_has_are_counted() -> None:
    lines = [_compile_failed(1, "accuracy", artifact="o", message="no")]
    lines += [_compile_failed(n, "throughput", artifact="o", message="no") for n in (1, 4)]
    records = samples.run_records(lines, provenance="real")
    (entry,) = findings.entries(records, case_views(records))
    assert entry.title.endswith("compile failed (accuracy 1 time, throughput 2 times)")


# --- over the cases ----------------------------------------------------------------------------


def test_batch_sizes_that_disagree_make_a_run_of_passed_cases_red() -> None:
    check = samples.batch_check("squeezenet1_1", "failed", target="cpu")
    records = samples.run_records(green("real"), provenance="real", checks=[check], exit_status=1)
    assert tone(records) == "bad"
    text = page(records).text()
    assert "8 of 8 cases passed; failed over the cases: batch sizes of squeezenet1_1 on cpu" in text
    assert "The model failed: batch size 4 is right on 93 images of 50000 less" in text
    assert "ILSVRC2012_val_00000217.JPEG 31 31 (12.125) 7 (12.128) no" in text
    assert "Batch 1 says (logit) Batch 4 says (logit)" in text
    terminal = "\n".join(summary_lines(records))
    assert "over the cases\n  failed: batch sizes of squeezenet1_1 on cpu: batch size 4" in terminal


def test_a_check_that_is_undecided_is_not_green() -> None:
    check = samples.batch_check(outcome="inconclusive")
    records = samples.run_records(green("real"), provenance="real", checks=[check])
    assert tone(records) == "warn"


def test_a_check_that_holds_is_shown_and_changes_nothing() -> None:
    check = samples.batch_check("squeezenet1_1", target="cpu")
    records = samples.run_records(green("real"), provenance="real", checks=[check])
    assert headline(records).text == "8 of 8 cases passed"
    assert "batch sizes 1, 4 agree" in page(records).text()


@pytest.mark.parametrize("run", ["rehearsal", "simulated"])
def test_a_ratio_to_a_published_figure_never_reaches_a_page_that_is_not_real(
    run: Provenance,
) -> None:
    check = samples.batch_check(provenance=run).model_copy(
        update={
            "name": "ratio",
            "sentence": "893.6 fps against 733.052 published: 1.219 times",
            "reference": PUBLISHED.model_copy(update={"kind": "baseline", "provenance": run}),
        }
    )
    records = samples.run_records(green(run), provenance=run, checks=[check])
    for text in (page(records).text(), "\n".join(summary_lines(records))):
        assert "733" not in text
        assert "58.19" not in text
    assert tone(records) == "bad"


def test_a_claim_in_the_sentence_of_a_rehearsed_check_is_withheld() -> None:
    check = samples.batch_check("squeezenet1_1", target="cpu", provenance="rehearsal").model_copy(
        update={"sentence": "within 1 % of the published 58.191 %"}
    )
    text = page(samples.run_records(green(), checks=[check])).text()
    assert "58.191" not in text
    assert "It is withheld" in text


# --- the guide's tables ------------------------------------------------------------------------


def _tables(records: RunRecords) -> str:
    html = render_html(records, now=NOW)
    start = html.index('<section id="guide"')
    return Tree(html[start : html.index("</section>", start) + 10]).text()


def test_the_guides_throughput_table_with_measured_figures() -> None:
    text = _tables(samples.real_run())
    assert "Batch size 310 a chip T4 a card 310P a chip 310P/310 310P/T4" in text
    # 529.644 measured / 182.224 and / 346.484 published.
    row = "1 published 182.224 published 346.484 529.6 fps passed published 529.115 2.907× 1.529×"
    assert row in text
    # The best batch size of each column, and the ratios of the bests.
    assert "907.1 fps passed ★ best published 903.506" in text
    assert "published 225.18 ★ best" in text
    best = "best batch size published 225.18 published 789.784 907.1 fps passed 4.028× 1.149×"
    assert best in text


def test_a_figure_that_is_not_comparable_has_no_ratio() -> None:
    published = guide_figures(load_catalog(samples.CATALOG), ["fixres"], "real")
    line = samples.real_throughput("fixres", 1, 0.99)
    records = samples.run_records([line], provenance="real", published=published)
    assert "<s>200.616</s>" in render_html(records, now=NOW)
    text = _tables(records)
    # Cards with cards: 733.052.
    assert "884.6 fps failed published 893.562 1.207× \N{EN DASH}" in text
    assert "T4, struck out: not comparable (measured at 224 x 224" in text


def _spoiled(line: CaseLine, how: str) -> CaseLine:
    """A throughput whose figure is worth nothing, or (`slow`) one that merely failed."""
    outcome: Outcome = "inconclusive" if how == "busy" else "failed"
    wrong: dict[str, dict[str, Any]] = {
        "nan": {"outputs_check": {"relative_l2": None}},
        "far": {"outputs_check": {"relative_l2": 0.4, "bound": 0.03}},
        "damaged": {"problems": ["NaN or infinity in the outputs for seeded inputs"]},
        "busy": {"conditions": samples.conditions(busy=True)},
        "slow": {},
    }
    return line.model_copy(
        update={"outcome": outcome, "measurement": {**line.measurement, **wrong[how]}}
    )


WORTHLESS = {"nan": "wrong outputs", "far": "wrong outputs", "damaged": "wrong outputs",
             "busy": "not decided"}  # fmt: skip


@pytest.mark.parametrize("how", [*WORTHLESS, "slow"])
@pytest.mark.parametrize("kind", ["real", "simulated", "rehearsal"])
def test_a_figure_that_is_worth_nothing_is_never_the_best(how: str, kind: Provenance) -> None:
    good, planted = (samples.real_throughput("squeezenet1_1", batch) for batch in (1, 4))
    # The planted one is the faster.
    planted = _spoiled(planted.model_copy(update={"measured": 9000.0}), how)
    lines = [
        line.model_copy(update={"provenance": kind, "reference": None}) for line in (good, planted)
    ]
    records = samples.run_records(lines, provenance=kind)
    text = _tables(records)
    labels = page(records).values("aria-label")
    (chart,) = (label for label in labels if label.startswith("squeezenet1_1 on "))
    chart = chart.replace("\N{NO-BREAK SPACE}", " ")
    if how == "slow":
        assert "9,000.0 fps failed ★ best" in text
        assert "the fastest is batch 4" in chart
        return
    assert f"9,000.0 fps {planted.outcome} {WORTHLESS[how]}" in text
    assert "510.0 fps recorded ★ best" in text
    assert "best batch size 510.0 fps recorded" in re.sub(f" {NO_VALUE}", "", text)
    assert "counts for nothing" in text
    assert f"9,000.0 fps ({planted.outcome}, counts for nothing); the fastest is batch 1" in chart
    html = render_html(records, now=NOW)
    _, after = html.split('<h2 id="h-charts"')
    assert 'class="d-trouble"' in after[: after.index("</section>")]
    assert f'<i class="o-{planted.outcome}"><svg class="sign">' in html


def test_where_no_figure_counts_there_is_no_best_and_no_ratio() -> None:
    published = guide_figures(load_catalog(samples.CATALOG), ["seresnext101"], "real")
    lines = [_spoiled(samples.real_throughput("seresnext101", n), "busy") for n in (1, 4)]
    records = samples.run_records(lines, provenance="real", published=published)
    text = _tables(records)
    assert "539.7 fps inconclusive not decided published 529.115 \N{EN DASH} \N{EN DASH}" in text
    assert "fps inconclusive ★ best" not in text
    assert "×" not in text
    html = render_html(records, now=NOW)
    assert "no figure counts" in html
    assert 'k-trouble">counts for nothing' in html
    assert 'k-measured">measured' not in html
    bare = samples.run_records(lines, provenance="real")
    assert "best batch size" not in _tables(bare)
    assert 'class="total"' not in render_html(bare, now=NOW)


def test_figures_of_a_chip_and_of_a_card_of_four_have_no_ratio() -> None:
    line = samples.real_throughput("squeezenet1_1", 1)  # nothing is published for its 310P
    published = guide_figures(load_catalog(samples.CATALOG), ["squeezenet1_1"], "real")
    records = samples.run_records([line], provenance="real", published=published)
    text = _tables(records)
    assert "published 4,589.72" in text
    assert "×" not in text
    assert "No ratio to the 310: one figure is a chip's, the other a card of 4 chips's." in text


def test_the_guides_accuracy_table_with_measured_figures() -> None:
    text = _tables(samples.real_run())
    assert "Batch size Acc@Top1 Target Relative error Images" in text
    assert "78.24 % passed 78.26 % published 0.0003 (0.03 %) 50,000" in " ".join(text.split())
    # A part of the set is held against eager PyTorch on the same images.
    assert "78.00 % eager, same images; 78.26 % is published for all" in " ".join(text.split())
    assert "79.00 % published 0.0200 (2.00 %)" in " ".join(text.split())


@pytest.mark.parametrize("kind", ["rehearsal", "simulated"])
def test_tables_and_charts_that_are_not_real_hold_no_published_figure(kind: Provenance) -> None:
    whole = samples.real_run()
    cases = []
    for case in whole.cases:
        reference = case.reference
        if reference is not None:
            reference = reference.model_copy(update={"provenance": kind})
        cases.append(case.model_copy(update={"provenance": kind, "reference": reference}))
    # Planted: a run line that is not real and carries published figures all the same.
    assert whole.run is not None
    published = whole.run.model_dump()["guide_figures"]
    assert published
    records = samples.run_records(cases, provenance=kind, published=published)
    text = page(records).text()
    for figure in ("182.224", "346.484", "529.115", "78.26", "815.805", "733.052", "893.562"):
        assert figure not in text
    assert "529.6" in text  # what was measured is shown
    assert "×" not in _tables(records)
    assert 'class="l-reference"' not in render_html(records, now=NOW)
    assert "Accuracy against its reference" not in text


def test_published_figures_are_taken_from_the_catalog_for_real_runs_alone() -> None:
    catalog = load_catalog(samples.CATALOG)
    found = guide_figures(catalog, ["seresnext101", "seresnext101", "nobody"], "real")
    assert list(found) == ["seresnext101"]
    assert json.loads(json.dumps(found)) == found
    read = read_figures(samples.run_records([], provenance="real", published=found).run)
    speeds = {(one.target, one.batch_size): one.fps for one in read["seresnext101"].speeds}
    assert speeds["ascend310p3", 4] == 903.506
    assert speeds["cuda", 64] == 789.784
    assert read["seresnext101"].top1 == 78.26
    for kind in ("rehearsal", "simulated"):
        assert guide_figures(catalog, ["seresnext101"], kind) == {}
    assert read_figures(samples.run_records([], published=found).run) == {}
    assert read_figures(None) == {}


def test_a_record_without_published_figures_still_has_its_tables() -> None:
    lines = [samples.real_throughput("seresnext101", batch) for batch in (1, 4)]
    text = _tables(samples.run_records(lines, provenance="real"))
    assert "529.115" not in text
    assert "539.7 fps" in text


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(_JSON, _JSON, _JSON)
def test_any_json_beside_a_case_gives_a_page(one: Any, other: Any, third: Any) -> None:
    line = samples.real_throughput("seresnext101", 1)
    measurement = {**line.measurement, "conditions": [one, other], "setup": third}
    update = {
        "measurement": measurement,
        "device": {"failed_before": [one], "commands": other, "toolchain": third},
        "diagnosis": {"summary": one, "sections": [other, {"columns": one, "rows": third}]},
    }
    published = {
        "seresnext101": {"accuracy": one, "throughput": [other, {"fps": 3, "target": one}]}
    }
    records = samples.run_records(
        [line.model_copy(update=update)], provenance="real", published=published
    )
    assert not page(records).faults


# --- charts and the device of a case -----------------------------------------------------------


def test_a_real_run_has_its_charts() -> None:
    html = render_html(samples.real_run(), now=NOW)
    assert html.count('class="l-reference"') == 1  # one model with several batch sizes
    assert "difference of top-1, 8 points either way" in html
    assert html.count('<svg class="interval"') == 2 * 5  # on one axis, and in each case
    assert 'class="d-trouble"' in html
    text = Tree(html).text()
    assert "+0.10 points, 99 % interval \N{MINUS SIGN}0.72 points to +0.94 points" in text
    assert "Temperature of the device 43.0 to 56.8 °C, 40 looks" in html


def test_the_environment_names_every_device_and_what_drove_it() -> None:
    other = {**samples.DEVICE, "id": "ascend310p3-0", "card": "npu-0"}
    newer = {"cann": "8.1.RC1", "driver": "23.0.0"}
    lines = [
        samples.real_throughput("seresnext101", 1),
        samples.real_accuracy("seresnext101", 1),
        samples.real_accuracy("seresnext101", 4, device=other, versions=newer),
    ]
    records = samples.run_records(lines, provenance="real")
    groups = {group.title: group.rows for group in build(records, rendered=NOW).environment}
    assert {row.label: row.value for row in groups["Devices and toolchain"]} == {
        "ascend310p3-1": "Ascend310P3, Atlas 300I Pro, npu-1",
        "ascend310p3-0": "Ascend310P3, npu-0",
        "CANN": "8.0.RC2 / 8.1.RC1",
        "driver": "23.0.0",
        "firmware": "7.1.0.3.220",
    }
    elsewhere = lines[0].model_copy(update={"machine": Machine(hostname="bench-04")})
    text = page(samples.run_records([*lines, elsewhere], provenance="real")).text()
    for said in ("ascend310p3-1 on bench-03", "ascend310p3-1 on bench-04"):
        assert said in text


def test_a_case_names_its_device_its_tools_and_what_was_set_aside() -> None:
    text = page(samples.real_run()).text()
    for said in (
        "On ascend310p3-1, Ascend310P3, Atlas 300I Pro, CANN 8.0.RC2, driver 23.0.0, firmware "
        "7.1.0.3.220, run through api",
        "ascend310p3-0 was set aside in stage device : device 0 was lost: [507033] "
        "(npu-smi no longer shows it)",
        "The device was busy during the measurement (process 4711 python3)",
        "used by others no (36 of 40), yes (4 of 40)",
        "temperature 43 to 56.8 °C",
        "card Atlas 300I Pro, npu-1",
        "atc --framework=5 --model=model.onnx",
        "python3 -m ais_bench --model model.om --loop 100",
    ):
        assert said.replace(" : ", ": ") in text.replace(" : ", ": "), said


def test_a_diagnosis_is_shown() -> None:
    text = page(samples.real_run()).text()
    assert "Stage: compile. Suspect: the compiler." in text
    header = page(samples.real_run()).text("header")
    assert "The toolchain failed: Eager PyTorch and the ONNX file agree; the compiled" in header
    unclear = {**samples.DIAGNOSIS, "stage": ""}
    line = samples.real_accuracy("fixres", 1, "failed", diagnosis=unclear)
    header = page(samples.run_records([line], provenance="real")).text("header")
    assert "The model failed: it ran, and its figures do not hold; its diagnosis: Eager" in header
    assert "stage relative L2 equal predictions" in text
    assert "compiled 0.31 41 of 64" in text
    assert "Classes in another order: no match." in text
    assert "python -m harness diagnose latest" in text


def test_a_claim_in_a_rehearsed_diagnosis_is_withheld() -> None:
    diagnosis = {"summary": "far from the published 58.191 %", "sections": []}
    lines = [
        samples.case(diagnosis=diagnosis),
        samples.case("m", 1, diagnosis=diagnosis, outcome="failed"),
    ]
    records = samples.run_records(lines)
    text = page(records).text()
    assert "58.191" not in text
    assert "58.191" not in "\n".join(summary_lines(records))
    assert "[withheld]" in text


# --- thumbnails --------------------------------------------------------------------------------

FLIP = "ILSVRC2012_val_00000217.JPEG"


def _photo(path: Path, size: tuple[int, int] = (320, 200)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, "teal").save(path, "JPEG")
    return path


def _images(source: Path) -> dict[str, Any]:
    return {"source": str(source), "digest": "d"}


def test_a_thumbnail_is_small_and_a_jpeg(tmp_path: Path) -> None:
    _photo(tmp_path / "set" / "val" / FLIP)
    # In a folder of a split or of a class as well; `root` is where a stand-in's images lie.
    images = {"source": "generated", "root": str(tmp_path / "set"), "digest": "d"}
    picture = thumbs.thumbnail(images, FLIP)
    (tmp_path / "set" / "val" / "n01440764").mkdir()
    (tmp_path / "set" / "val" / FLIP).rename(tmp_path / "set" / "val" / "n01440764" / FLIP)
    assert thumbs.thumbnail(images, FLIP) == picture
    with Image.open(io.BytesIO(picture)) as image:
        assert (image.format, image.size) == ("JPEG", (thumbs.EDGE, 60))
    assert len(picture) <= thumbs.LARGEST


def test_an_image_is_read_below_the_root_alone(tmp_path: Path) -> None:
    inside, outside = tmp_path / "set", tmp_path / "private"
    _photo(inside / "ok.JPEG")
    _photo(outside / "x.JPEG")
    (inside / "link.JPEG").symlink_to(outside / "x.JPEG")
    (inside / "folder").symlink_to(outside)
    (inside / "within.JPEG").symlink_to(inside / "ok.JPEG")
    images = _images(inside)
    assert thumbs.thumbnail(images, "ok.JPEG")
    assert thumbs.thumbnail(images, "within.JPEG")
    for name in (
        "link.JPEG",
        "x.JPEG",  # in a folder that is a link
        "folder/x.JPEG",
        "../private/x.JPEG",
        str(outside / "x.JPEG"),
        "",
        ".",
        "a\0b",
        "absent.JPEG",
    ):
        assert thumbs.thumbnail(images, name) == b""
    for root in ("generated", "", "/", 7, "set", str(tmp_path / "absent"), "a\0b"):
        assert thumbs.thumbnail({"source": root}, "ok.JPEG") == b""


def test_what_is_no_image_has_no_thumbnail(tmp_path: Path, monkeypatch: Any) -> None:
    whole = _photo(tmp_path / "whole.JPEG").read_bytes()
    (tmp_path / "half.JPEG").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.JPEG").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    (tmp_path / "empty.JPEG").write_bytes(b"")
    (tmp_path / "folder.JPEG").mkdir()
    os.mkfifo(tmp_path / "pipe.JPEG")  # nobody writes: opening it must not wait
    for name in ("half", "text", "empty", "folder", "pipe"):
        assert thumbs.thumbnail(_images(tmp_path), f"{name}.JPEG") == b""
    monkeypatch.setattr(thumbs, "MAX_PIXELS", 320 * 200 - 1)
    assert thumbs.thumbnail(_images(tmp_path), "whole.JPEG") == b""


def _written(directory: Path, records: RunRecords) -> None:
    assert records.run is not None
    assert records.end is not None
    directory.mkdir()
    run = records.run.run
    lines: tuple[lines.Line, ...] = (
        records.run,
        lines.PlanLine(run=run, cases=list(records.plan)),
        *records.cases,
        *records.checks,
        records.end,
    )
    for line in lines:
        writer.append(directory, line)


def test_thumbnails_outlive_the_images(tmp_path: Path) -> None:
    photo = _photo(tmp_path / "set" / FLIP)
    line = samples.case(images=_images(tmp_path / "set"))
    check = samples.batch_check("squeezenet1_1", target="cpu", provenance="rehearsal")
    run = tmp_path / "run"
    _written(run, samples.run_records([line], checks=[check]))

    # A report of somebody's records opens no file that they name.
    html = write_report(run).read_text(encoding="utf-8")
    assert not (run / thumbs.THUMBS).exists()
    assert "<img" not in html

    html = write_report(run, images_at_hand=True).read_text(encoding="utf-8")
    (made,) = (run / thumbs.THUMBS).iterdir()
    assert re.fullmatch(r"[0-9a-f]{32}\.jpg", made.name)
    photo.unlink()
    again = write_report(run).read_text(encoding="utf-8")
    for text in (html, again):
        assert text.count('<img class="thumb" src="data:image/jpeg;base64,/9j/') == 2
        assert not Tree(text).faults


def test_a_thumbnail_is_read_from_the_run_directory_alone(tmp_path: Path) -> None:
    images = _images(tmp_path)
    path = _planted_thumb(tmp_path, images, "a.JPEG")
    shown = thumbs.Thumbs(tmp_path)
    assert shown.uri(images, "a.JPEG").startswith("data:image/jpeg;base64,/9j/") or path.is_file()
    assert shown.uri(images, "b.JPEG") == ""
    assert shown.uri(images, None) == ""
    path.write_bytes(b"<svg onload=alert(1)>")
    assert thumbs.Thumbs(tmp_path).uri(images, "a.JPEG") == ""
    path.unlink()
    path.symlink_to(_photo(tmp_path / "other.jpg"))
    assert thumbs.Thumbs(tmp_path).uri(images, "a.JPEG") == ""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / thumbs.THUMBS).symlink_to(tmp_path / thumbs.THUMBS)
    path.unlink()
    _planted_thumb(tmp_path, images, "a.JPEG")
    assert thumbs.Thumbs(tmp_path).uri(images, "a.JPEG")
    assert thumbs.Thumbs(elsewhere).uri(images, "a.JPEG") == ""


def test_a_page_holds_no_more_thumbnails_than_it_may(tmp_path: Path) -> None:
    images = _images(tmp_path)
    names = [f"{n}.JPEG" for n in range(100)]
    for name in names:
        _planted_thumb(tmp_path, images, name)
    shown = thumbs.Thumbs(tmp_path)
    total = sum(len(shown.uri(images, name)) for name in names)
    assert thumbs.PAGE_TOTAL - 20_000 < total <= thumbs.PAGE_TOTAL


def test_a_noisy_image_that_stays_large_has_no_thumbnail(tmp_path: Path, monkeypatch: Any) -> None:
    noise = random.Random(1).randbytes(96 * 96 * 3)
    Image.frombytes("RGB", (96, 96), noise).save(tmp_path / "noise.png")
    assert thumbs.thumbnail(_images(tmp_path), "noise.png")
    monkeypatch.setattr(thumbs, "LARGEST", 1_000)
    assert thumbs.thumbnail(_images(tmp_path), "noise.png") == b""
