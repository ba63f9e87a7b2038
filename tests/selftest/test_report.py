"""The report says what the records say, and nothing that they must not say."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness import records as records_module
from harness.errors import RecordError
from harness.records import (
    OUTCOMES,
    CaseLine,
    Check,
    Outcome,
    PlannedCase,
    Provenance,
    ReferenceInfo,
    RunLine,
    RunRecords,
)
from harness.report import charts, figures, provenance, render_html, summary_lines, write_report
from harness.report.cases import safe_href, tail, web_href
from harness.report.headline import LOOKS, headline, reconcile
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
        (("failed",), "bad", "1 failed: m0-bs1-cpu (accuracy)"),
        (("passed", "failed"), "bad", "1 failed: m1-bs1-cpu (accuracy); 1 of 2 cases passed"),
        (("failed", "crashed", "error"), "bad", "1 failed, 1 crashed, 1 error"),
        (
            ("failed",) * 5,
            "bad",
            "5 failed: m0-bs1-cpu (accuracy), m1-bs1-cpu (accuracy), m2-bs1-cpu (accuracy) "
            "and 2 more",
        ),
        (
            ("passed", "inconclusive"),
            "warn",
            "1 of 2 cases passed, 1 inconclusive: m1-bs1-cpu (accuracy)",
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

PUBLISHED = ReferenceInfo(
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
    assert "It is withheld" in page(records).text()
    assert tone(records) == "bad"


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
        "ILSVRC2012_val_00000217.JPEG 31 31 7 0.0021",
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
        "precision reached yes",
        "memory format channels_last",
        "contiguous 188.1 fps",
        "outputs against the onnx model relative l2 5.10e\N{MINUS SIGN}7",
        "latency samples 400 executions",
        "+48.53 %",
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
        lines.append(CaseLine.model_validate(data))
    assert whole.run is not None
    run = RunLine.model_validate(_planted(whole.run.model_dump(), counter, literal))
    lost = PlannedCase.model_validate(_planted(_lost().model_dump(), counter, literal))
    records = samples.run_records(
        lines, provenance=kind, lost=[lost], damaged=(_planted("", counter, literal),)
    )
    return RunRecords(
        records.directory, run, records.plan, records.cases, records.end, records.damaged
    )


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


def test_a_hundred_cases_stay_under_two_megabytes() -> None:
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
                cases.append(line.model_copy(update={"artifacts": artifacts, "error": error}))
    records = samples.run_records(cases, exit_status=1)
    assert len(records.cases) == 100
    html = render_html(records, now=NOW)
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
    records_module.append(tmp_path, whole.run)
    records_module.append(
        tmp_path, records_module.PlanLine(run=whole.run.run, cases=list(whole.plan))
    )
    for line in whole.cases:
        records_module.append(tmp_path, line)
    records_module.append(tmp_path, whole.end)
    (tmp_path / "report.html").write_text("old", encoding="utf-8")

    path = write_report(tmp_path)

    assert path == tmp_path / "report.html"
    assert sorted(p.name for p in tmp_path.glob("[!.]*")) == ["report.html", "results.jsonl"]
    written = path.read_text(encoding="utf-8")
    fresh = render_html(records_module.read(tmp_path), now=NOW)
    cut = re.compile("Rendered .*? by")
    assert cut.sub("", written) == cut.sub("", fresh)
    assert "13 of 20 cases passed" in written


def test_a_folder_without_records_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="no records of a run") as caught:
        write_report(tmp_path)
    assert caught.value.remedy


def test_a_report_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    run = samples.all_outcomes().run
    assert run is not None
    records_module.append(tmp_path, run)
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
        "from harness.records import RunRecords; from pathlib import Path;"
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
        (figures.duration(3599.9), "1 h 00 min"),
        (figures.size(512), "512 B"),
        (figures.size(4_970_112), "4.7 MiB"),
        (figures.size(3 * 2**40), "3.0 TiB"),
        (figures.size(5000 * 2**40), "5,000.0 TiB"),
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


def test_stage_shares_add_up() -> None:
    parts = charts.stacked([("a", 1.0, ""), ("b", 3.0, ""), ("c", -1.0, "")])
    assert [part.share for part in parts] == [25.0, 75.0, 0.0]
    assert [part.share for part in charts.stacked([("a", 0.0, "")])] == [0.0]
