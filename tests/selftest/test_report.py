"""The report says what the records say, and nothing that they must not say."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from harness.base.errors import RecordError
from harness.base.host import Machine
from harness.base.stages import Stage
from harness.base.terms import OUTCOMES, Check, Outcome, Provenance
from harness.pages import looks
from harness.pages.html import safe_href, web_href
from harness.records import reader
from harness.records.lines import CaseLine
from harness.records.measurements import OutputsCheck, Problem, ProblemCode
from harness.records.observed import Section, StageTime
from harness.records.reader import RunRecords
from harness.records.verdicts import BatchFlip, FigureName, Reference
from harness.report import exports, render_html, summary_lines, view, write_report
from harness.report.cases import tail
from harness.report.junit import junit_xml
from harness.report.markdown import summary_markdown
from harness.report.why import first_screen
from tests.selftest import report_samples as samples
from tests.selftest.pages import NOW, Tree, page, section
from tests.selftest.running import ROOT
from tests.selftest.test_thumbs import planted_thumb

CHECKS: tuple[Check, ...] = ("accuracy", "throughput")
# Everything that is made from the records of a run.
TEXTS = {
    "report": render_html,
    "terminal": lambda found: "\n".join(summary_lines(found)),
    "why": lambda found: "\n".join(first_screen(found).lines),
    "junit": junit_xml,
    "json": exports.summary_json,
    "csv": exports.results_csv,
    "markdown": summary_markdown,
}


def green(provenance: Provenance = "rehearsal") -> list[CaseLine]:
    return [
        samples.case(model, batch, check, provenance=provenance)
        for check in CHECKS
        for model in ("squeezenet1_1", "fixres_resnet50")
        for batch in (1, 4)
    ]


def real(*cases: CaseLine, **changes: Any) -> RunRecords:
    return samples.run_records(cases, provenance="real", **changes)


# --- the line of the run -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcomes", "tone", "text"),
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
def test_the_headline_of_a_run(outcomes: tuple[Outcome, ...], tone: str, text: str) -> None:
    records = real(
        *(samples.case(f"m{n}", 1, outcome=o, provenance="real") for n, o in enumerate(outcomes))
    )
    tree = page(records)
    assert (tree.tone, tree.text("h1")) == (tone, text)
    assert summary_lines(records)[0] == text


LOST = samples.planned(samples.case("inceptionv4", 4, "throughput"))
GREEN = samples.run_records(green())


def _edited(**changes: Any) -> RunRecords:
    assert GREEN.end is not None
    return replace(GREEN, end=GREEN.end.model_copy(update=changes))


@pytest.mark.parametrize(
    ("records", "said", "whole"),
    [
        (samples.run_records(green(), lost=[LOST]), "1 of 9 cases did not run", False),
        (samples.run_records(green(), end=False), "no end line", False),
        (_edited(planned=9), "the end line says 9 planned", False),
        (_edited(complete=False), "the end line says so", False),
        (_edited(counts={"passed": 7, "failed": 1}), "the counts of the end line are not", False),
        (replace(GREEN, run=None), "no run line", False),
        (replace(GREEN, damaged=("line 7: Expecting value",)), "1 damaged line", True),
        (samples.run_records(green(), exit_status=3), "exit status 3", True),
        (samples.run_records(green("simulated")), "the records mix provenances", True),
        (replace(GREEN, plan=GREEN.plan[:-1]), "7 planned, but 8 accounted for", False),
        (replace(GREEN, plan=GREEN.plan[:-1]), "1 case ran that was not in the plan", False),
    ],
)
def test_records_that_are_not_whole_say_so_first_and_are_never_green(
    records: RunRecords, said: str, whole: bool
) -> None:
    tree = page(records)
    assert whole or "ncomplete run, " in tree.text("h1")
    assert said in tree.text("h1")
    assert said in "\n".join(summary_lines(records)[:4])
    assert tree.tone == "bad"


def test_what_is_wrong_with_the_records_is_listed() -> None:
    text = page(replace(GREEN, plan=GREEN.plan[:-1], damaged=("line 7: Expecting value",))).text()
    assert "line 7: Expecting value" in text
    assert "7 planned \N{NOT EQUAL TO} 8 passed" in text


@pytest.mark.parametrize("run", [True, False])
def test_a_run_that_ran_nothing_is_red(run: bool) -> None:
    whole = samples.run_records([])
    records = replace(whole, run=whole.run if run else None)
    assert "an nothing: no case was planned" in page(records).text("h1")
    assert page(records).tone == "bad"
    assert any("an nothing" in line for line in summary_lines(records))


def test_a_planned_case_without_a_line_is_shown_as_not_run() -> None:
    tree = page(samples.run_records(green(), lost=[LOST]))
    assert 'data-outcome="not_run" data-model="inceptionv4"' in tree.html
    assert "the records have no line of it" in tree.html
    assert "9 planned = 8 passed" in tree.html


def test_notes_of_a_merged_run_are_shown() -> None:
    assert GREEN.run is not None
    run = GREEN.run.model_copy(update={"notes": ("run B has no end line",), "merged": ("A", "B")})
    text = page(replace(GREEN, run=run)).text()
    assert "run B has no end line" in text
    assert "merged from A, B" in text


# --- outcomes and colours ----------------------------------------------------------------------


def test_every_outcome_has_its_own_word_sign_and_colour() -> None:
    assert set(looks.LOOKS) == set(OUTCOMES)
    assert len({look.word for look in looks.LOOKS.values()}) == len(OUTCOMES)
    assert len({look.sign for look in looks.LOOKS.values()}) == len(OUTCOMES)
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
    style = Path(looks.__file__).with_name("style.css").read_text(encoding="utf-8")
    light, dark = (
        dict(re.findall(r"--([\w-]+):\s*(#[0-9a-f]{6})", block))
        for block in re.findall(r":root \{(.*?)\}", style, re.DOTALL)[:2]
    )
    yield light
    yield {**light, **dark}


def contrast(one: str, other: str) -> float:
    """Contrast ratio as WCAG 2 defines it, 1 to 21."""

    def luminance(colour: str) -> float:
        parts = [int(colour[index : index + 2], 16) / 255 for index in (1, 3, 5)]
        linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_text_has_enough_contrast_in_both_schemes() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    pairs: list[tuple[str, str]] = [("rehearsal", "rehearsal-bg"), ("simulated", "simulated-bg")]
    pairs += [(text, ground) for text in ("ink", "muted", "link") for ground in ("bg", "panel")]
    pairs += [(text, "sunk") for text in ("ink", "muted", "link")]
    for outcome in OUTCOMES:
        pairs += [(outcome, f"{outcome}-bg"), ("ink", f"{outcome}-bg"), (outcome, "panel")]
    for palette in _palettes():
        assert [one for one in pairs if contrast(palette[one[0]], palette[one[1]]) < 4.5] == []


# --- a rehearsal says nothing about published figures ------------------------------------------

PUBLISHED = Reference("published", 58.191, "%", "guide 003", "whole set")


def test_a_run_that_is_not_real_is_shouted_at_both_ends_and_in_the_title() -> None:
    kinds: tuple[tuple[Provenance, str, str], ...] = (
        ("rehearsal", "REHEARSAL", "Rehearsal report"),
        ("simulated", "SIMULATED NPU", "Simulation report"),
    )
    for kind, word, name in kinds:
        records = samples.run_records(green(kind), provenance=kind)
        tree = page(records)
        (banner,) = looks.banners({kind})
        assert tree.text("title").startswith(f"{word} \N{EM DASH} {name.split()[0]}")
        assert {"banner top", "banner bottom"} <= set(tree.values("class"))
        assert tree.text().count(banner.sentence) == 2
        assert name in tree.text()
        assert "acceptance report" not in tree.text().lower()
        for how, text in TEXTS.items():
            assert word in text(records) or how == "csv"
        assert f",{kind},passed," in exports.results_csv(records)
    tree = page(real(*green("real")))
    assert not any(value.startswith("banner") for value in tree.values("class"))
    assert "REHEARSAL" not in tree.text() + tree.text("title")
    assert tree.text("title").startswith("8 of 8 cases passed")


def test_one_rehearsed_case_in_a_real_run_is_enough_for_the_banner() -> None:
    tree = page(real(*green("real")[:-1], samples.case("fixres_resnet50", 4, "throughput")))
    assert "REHEARSAL" in tree.text("title")
    assert "the records mix provenances" in tree.text("h1")


def _held_against(reference: Reference, provenance: Provenance) -> CaseLine:
    return samples.case(
        provenance=provenance,
        reference=reference,
        sentence="78.32 % is within 1 % of 58.191 %",
        allowed="1 % of 58.191 %",
        figures={FigureName.PUBLISHED_TOP1: 58.191, FigureName.SMALLEST_PERCENT: 34.59},
    )


@pytest.mark.parametrize("kind", ["published", "baseline", "ratio"])
@pytest.mark.parametrize("run", ["rehearsal", "simulated"])
@pytest.mark.parametrize("claimed", ["as the run", "real"])
def test_a_figure_of_others_is_nowhere_in_a_run_that_is_not_real(
    run: Provenance, kind: Any, claimed: str
) -> None:
    reference = replace(PUBLISHED, kind=kind, provenance=run if claimed != "real" else "real")
    line = _held_against(reference, run if claimed != "real" else "real")
    records = samples.run_records([line], provenance=run)
    for text in (make(records) for make in TEXTS.values()):
        for figure in ("58.19", "34.59", "guide 003"):
            assert figure not in text
    # A figure that the catalog marks as simulated may judge a simulated case.
    marked = (run, kind, claimed) == ("simulated", "baseline", "as the run")
    said = "a figure that the catalog marks as simulated" if marked else "It is withheld"
    tree = page(records)
    assert said in tree.text()
    assert tree.html.count("<i>withheld</i>") == 1
    if not marked:  # never green, anywhere
        assert tree.tone == "bad"
        assert ("passed" if claimed == "real" else ",passed,") not in exports.results_csv(records)
        assert 'data-outcome="inconclusive"' in tree.html
        assert "<failure" in junit_xml(records)


def test_the_same_reference_is_shown_when_everything_is_real() -> None:
    text = page(real(_held_against(PUBLISHED, "real"))).text()
    for said in ("58.19 %", "+34.59 %", "guide 003", "is within 1 % of 58.191 %"):
        assert said in text


def test_a_comparison_across_provenances_is_withheld_and_never_green() -> None:
    records = real(_held_against(replace(PUBLISHED, provenance="rehearsal"), "real"))
    tree = page(records)
    assert "judging across provenances is refused" in tree.text()
    assert "1 case was compared across provenances" in tree.text("h1")
    assert tree.tone == "bad"
    assert "1 planned = 0 passed + 0 failed + 1 inconclusive" in tree.text()
    for text in (make(records) for make in TEXTS.values()):
        assert "58.19" not in text
        assert "34.59" not in text


@pytest.mark.parametrize("run", ["rehearsal", "simulated"])
def test_a_published_figure_beside_an_own_reference_is_left_out(run: Provenance) -> None:
    figures = {FigureName.PUBLISHED_TOP1: 58.191, FigureName.LOGITS_L2_ALLOWED: 0.03}
    records = samples.run_records([samples.case(provenance=run, figures=figures)], provenance=run)
    text = page(records).text()
    assert "58.191" not in text
    assert f"1 recorded figure(s) of others are withheld: this case is {run}." in text
    assert "relative L2 allowed 0.03" in text
    assert page(records).tone == "good"


@pytest.mark.parametrize("run", ["rehearsal", "simulated"])
def test_a_check_against_a_published_figure_is_nowhere_in_a_run_that_is_not_real(
    run: Provenance,
) -> None:
    check = samples.batch_check(provenance=run, sentence="893.6 fps against 733.052 published")
    assert check.verdict is not None
    verdict = replace(check.verdict, reference=replace(PUBLISHED, kind="ratio", provenance=run))
    check = check.model_copy(update={"verdict": verdict})
    records = samples.run_records(green(run), provenance=run, checks=[check])
    for text in (make(records) for make in TEXTS.values()):
        assert "733" not in text
        assert "58.19" not in text
    assert page(records).tone == "bad"
    assert "1 check of the run was judged across provenances" in page(records).text("h1")


@pytest.mark.parametrize("kind", ["rehearsal", "simulated"])
def test_tables_and_charts_that_are_not_real_hold_no_published_figure(kind: Provenance) -> None:
    whole = samples.real_run()
    cases = [case.model_copy(update={"provenance": kind}) for case in whole.cases]
    # Planted: a run line that is not real and carries published figures all the same.
    assert whole.run is not None
    assert whole.run.guide_figures
    tree = page(samples.run_records(cases, provenance=kind, published=whole.run.guide_figures))
    for figure in ("182.224", "346.484", "529.115", "78.26", "815.805", "733.052", "893.562"):
        assert figure not in tree.text()
    assert "529.6" in tree.text()  # what was measured is shown
    assert "×" not in tree.text()
    assert 'class="l-reference"' not in tree.html
    assert "Accuracy against its reference" not in tree.text()


# --- what a case shows -------------------------------------------------------------------------


def test_an_accuracy_case_shows_its_figures() -> None:
    text = page(samples.run_records([samples.case()])).text()
    for said in (
        "top-5 491 95.90 %",
        "Fidelity to the eager model relative L2 6.80e\N{MINUS SIGN}7",
        "equal predictions 99.80 %",
        "predictions that differ 1 of these excused by their margin 1",
        "ILSVRC2012_val_00000217.JPEG 31 31 8.53 7 8.54 0.0021 yes",
        "eager PyTorch on the same images",
        "Rule: every prediction is equal",
        "resize short side 256 bilinear",
        "b8a52dc0b8a52dc0",
        "9f86d0819f86d081",
        "4.7 MiB from the store",
        "simplify 1.84 s",
        "infer images 21.4 s",
        "gw0",
        "python -m pytest --rehearsal -m accuracy --models squeezenet1_1 --batch-sizes 4",
        "git revision 4f2c9e1",
        "onnxruntime 1.23.0",
        "Example CPU 8-core",
        "threads 8",
    ):
        assert said in text, said
    assert text.count("onnxruntime 1.23.0") == 1  # a case has the versions of its run


def test_a_throughput_case_shows_its_figures_and_charts(tmp_path: Path) -> None:
    records = samples.run_records([samples.case(check="throughput")])
    assert page(records).tags["figure"] == 0  # no samples beside the records: no chart
    tree = page(samples.write_samples(tmp_path, records))
    for said in (
        "coefficient of variation 4.11 %",
        "half-width of the mean's 99 % interval 0.82 %",
        "warm-up executions 20",
        "rounds 8",
        "precision asked for was reached yes",
        "memory format channels_last",
        "contiguous 188.1 fps",
        "Outputs against the ONNX model relative L2 5.10e\N{MINUS SIGN}7 bound 0.03",
        "Latency samples 400 executions",
        "+49 %",
    ):
        assert said in tree.text(), said
    assert tree.tags["figure"] == 2
    means = samples.measured(
        records.cases[0], timing=samples.timing(4, [12.0] * 8, means_only=True)
    )
    assert "samples are means of several executions" in page(samples.run_records([means])).text()


def test_an_error_shows_stage_message_remedy_and_log() -> None:
    tree = page(samples.run_records([samples.case(outcome="error")]))
    assert "<details open>" in tree.html
    for said in (
        "CompileError in stage compile",
        "node Conv_14 has no kernel",
        "What to do: compare the operator set",
        "[59] node /features/Conv_59",
    ):
        assert said in tree.text(), said


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


def test_cases_stand_in_the_order_of_the_plan_and_two_in_one_cell() -> None:
    pattern = r'<article class="case[^"]*" id="([^"]+)"'
    turned = replace(GREEN, cases=tuple(reversed(GREEN.cases)))
    assert re.findall(pattern, render_html(turned)) == re.findall(pattern, render_html(GREEN))
    one = samples.case()
    two = one.model_copy(update={"nodeid": one.nodeid + "#2", "outcome": "failed"})
    html = render_html(samples.run_records([one, two]), now=NOW)
    assert len(re.findall(r'<a class="cell ', html)) == 2
    assert len(set(re.findall(pattern, html))) == 2


def test_stages_are_named_by_what_was_done_and_look_the_same_everywhere() -> None:
    times = (
        (Stage.EXPORT, 1.0),
        (Stage.COMPILE, 900.0),
        (Stage.DEVICE, 0.01),
        (Stage.LOAD, 0.02),
        (Stage.INFER, 60.0),
    )
    stages = tuple(StageTime(stage, seconds) for stage, seconds in times)
    records = samples.run_records([samples.case(stages=stages), samples.case(batch=1)])
    tree = section(records, "time")
    # The longest first; what nobody sees in the bar is one part of it.
    places = [tree.text().index(part) for part in ("compile ", "infer images ", "all others 3.20")]
    assert places == sorted(places)
    assert "simplify, export, load, wait for the device" in tree.text()
    found = set(re.findall(r'<i class="(t\d h\d)"><b>(\d+)</b></i>compile', render_html(records)))
    assert len(found) == 1


def test_artifacts_are_named_by_what_they_are() -> None:
    kinds = (Stage.STANDIN, Stage.EXPORT, Stage.SIMPLIFY, Stage.COMPILE, Stage.CROPS)
    line = samples.case(artifacts=tuple(samples.artifact(stage) for stage in kinds))
    html = render_html(samples.run_records([line]), now=NOW)
    table = html[html.index('aria-label="Artifacts of') :]
    names = re.findall(r'<th scope="row">(.*?)</th>', table[: table.index("</table>")])
    assert names == [stage.makes for stage in kinds]
    assert 'Whole log: <a href="logs/squeezenet1_1-compile.log">' in html


def test_a_real_case_names_its_device_its_tools_and_what_was_set_aside() -> None:
    text = page(samples.real_run()).text()
    for said in (
        "On ascend310p3-1, Ascend310P3, Atlas 300I Pro, CANN 8.0.RC2, driver 23.0.0, firmware "
        "7.1.0.3.220, run through api",
        "ascend310p3-0 was set aside in stage device: device 0 was lost: [507033] "
        "(npu-smi no longer shows it)",
        "device ascend310p3-0 was set aside for the run: npu-smi no longer shows it",
        "The device was busy during the measurement (process 4711 python3)",
        "used by others no (36 of 40), yes (4 of 40)",
        "temperature 43 to 56.8 °C",
        "card Atlas 300I Pro, npu-1",
        "CANN 8.0.RC2 driver of the device 23.0.0 firmware",
        "atc --framework=5 --model=model.onnx",
        "python3 -m ais_bench --model model.om --loop 100",
        "+0.10 points, 99 % interval \N{MINUS SIGN}0.72 points to +0.94 points",
        "difference of top-1, 8 points either way",
    ):
        assert said in text.replace(" : ", ": "), said


def test_a_real_run_has_its_charts() -> None:
    html = render_html(samples.real_run(), now=NOW)
    assert html.count('class="l-reference"') == 1  # one model with several batch sizes
    assert html.count('<svg class="interval"') == 2 * 5  # on one axis, and in each case
    assert 'class="d-trouble"' in html
    assert "Temperature of the device 43.0 to 56.8 °C, 40 looks" in html


@pytest.mark.parametrize(("side", "said"), [("both", "± 0.78 allowed"), ("drop", "a drop of 0.78")])
def test_the_side_of_a_tolerance_is_that_of_the_guide(side: Any, said: str) -> None:
    guide = replace(samples.published("seresnext101")["seresnext101"], side=side)
    records = real(samples.part_accuracy("seresnext101", 16), published={"seresnext101": guide})
    assert said in page(records).text()


def test_the_environment_names_every_device_and_what_drove_it() -> None:
    other = replace(samples.DEVICE, id="ascend310p3-0", card="npu-0")
    newer = {"cann": "8.1.RC1", "driver": "23.0.0"}
    lines = [
        samples.real_throughput("seresnext101", 1),
        samples.real_accuracy("seresnext101", 1),
        samples.real_accuracy("seresnext101", 4, device=other, versions=newer),
    ]
    groups = {group.title: group.rows for group in view.view(real(*lines)).environment}
    assert {row.label: row.value for row in groups["Devices and toolchain"]} == {
        "ascend310p3-1": "Ascend310P3, Atlas 300I Pro, npu-1",
        "ascend310p3-0": "Ascend310P3, npu-0",
        "CANN": "8.0.RC2 / 8.1.RC1",
        "driver": "23.0.0",
        "firmware": "7.1.0.3.220",
    }
    elsewhere = lines[0].model_copy(
        update={"machine": Machine(hostname="bench-04"), "nodeid": "other"}
    )
    text = page(real(*lines, elsewhere)).text()
    versions = "Versions of this case CANN 8.1.RC1"
    for said in ("ascend310p3-1 on bench-03", "ascend310p3-1 on bench-04", versions):
        assert said in text


def test_a_diagnosis_is_shown() -> None:
    text = page(samples.real_run()).text()
    for said in (
        "Stage: compile. Suspect: the compiler.",
        "stage relative L2 equal predictions",
        "compiled 0.31 41 of 64",
        "python -m harness diagnose latest",
    ):
        assert said in text
    many = Section("Many", ("n",), tuple((str(n),) for n in range(200)))
    unclear = replace(samples.DIAGNOSIS, stage=None, sections=(many,))
    tree = page(real(samples.real_accuracy("fixres", 1, "failed", diagnosis=unclear)))
    said = "The model failed: it ran, and its figures do not hold; its diagnosis: Eager"
    assert said in tree.text("header")
    assert "140 more rows in the records." in tree.text()


def test_batch_sizes_that_disagree_make_a_run_of_passed_cases_red() -> None:
    check = samples.batch_check("squeezenet1_1", "failed", target="cpu")
    assert page(real(*green("real"), checks=[check])).tone == "bad"
    records = real(*green("real"), checks=[check], exit_status=1)
    tree = page(records)
    for said in (
        "8 of 8 cases passed; failed over the cases: batch sizes of squeezenet1_1 on cpu",
        "The model failed: batch size 4 is right on 93 images of 50000 less",
        "ILSVRC2012_val_00000217.JPEG 31 31 (12.125) 7 (12.128) no",
        "Batch 1 says (logit) Batch 4 says (logit)",
        "top-1 at batch size 4 78.24 %",
        "Rule: top-1 on the same images differs by at most 0.1 points",
    ):
        assert said in tree.text()
    terminal = "\n".join(summary_lines(records))
    assert "over the cases\n  failed: batch sizes of squeezenet1_1 on cpu: batch size 4" in terminal
    undecided = samples.batch_check(outcome="inconclusive")
    assert page(real(*green("real"), checks=[undecided])).tone == "warn"
    holds = page(real(*green("real"), checks=[samples.batch_check("squeezenet1_1", target="cpu")]))
    assert holds.text("h1") == "8 of 8 cases passed"
    assert "batch sizes 1, 4 agree" in holds.text()


def test_flips_that_are_not_shown_are_counted() -> None:
    check = samples.batch_check("squeezenet1_1", "failed", target="cpu")
    assert check.verdict is not None
    flips = tuple(BatchFlip(f"{n}.JPEG", 1, False, {}) for n in range(30))
    verdict = replace(check.verdict, batch_flips=flips, figures={FigureName.FLIPS: 95})
    records = real(*green("real"), checks=[check.model_copy(update={"verdict": verdict})])
    assert "75 more in the records." in section(records, "checks").text()


# --- the guide's tables ------------------------------------------------------------------------


def test_the_guides_tables_with_measured_figures() -> None:
    text = section(samples.real_run(), "guide").text()
    for said in (
        "Batch size Acc@Top1 Target Relative error Images",
        "78.24 % passed 78.26 % published 0.0003 (0.03 %) 50,000",
        # A part of the set is held against eager PyTorch on the same images.
        "78.00 % eager, same images; 78.26 % is published for all",
        "79.00 % published 0.0200 (2.00 %)",
        "Batch size 310 a chip T4 a card 310P a chip 310P/310 310P/T4",
        # 529.644 measured / 182.224 and / 346.484 published.
        "1 published 182.224 published 346.484 529.6 fps passed published 529.115 2.907× 1.529×",
        # The best batch size of each column, and the ratios of the bests.
        "907.1 fps passed ★ best published 903.506",
        "published 225.18 ★ best",
        "best batch size published 225.18 published 789.784 907.1 fps passed 4.028× 1.149×",
    ):
        assert said in text, said


def test_a_figure_that_is_not_comparable_has_no_ratio() -> None:
    line = samples.real_throughput("fixres", 1, 0.99)
    tree = section(real(line, published=samples.published("fixres")), "guide")
    assert "<s>200.616</s>" in tree.html
    # Cards with cards: 733.052.
    assert "884.6 fps failed published 893.562 1.207× \N{EN DASH}" in tree.text()
    assert "T4, struck out: not comparable (measured at 224 x 224" in tree.text()


def _spoiled(line: CaseLine, how: str) -> CaseLine:
    """A throughput whose figure is worth nothing, or (`slow`) one that merely failed."""
    wrong: dict[str, dict[str, Any]] = {
        "nan": {"outputs": OutputsCheck(float("nan"), 0.03)},
        "far": {"outputs": OutputsCheck(0.4, 0.03)},
        "damaged": {"problems": (Problem(ProblemCode.NOT_FINITE),)},
        "times": {"problems": (Problem(ProblemCode.STRANGE_TIMES),)},
        "busy": {"conditions": samples.conditions(busy=True)},
        "slow": {},
    }
    line = samples.measured(samples.judged(line, measured=9000.0), **wrong[how])
    return line.model_copy(update={"outcome": "inconclusive" if how == "busy" else "failed"})


WORTHLESS = {
    "nan": "wrong outputs",
    "far": "wrong outputs",
    "damaged": "wrong outputs",
    "times": "wrong times",
    "busy": "not decided",
}


@pytest.mark.parametrize("how", [*WORTHLESS, "slow"])
def test_a_figure_that_is_worth_nothing_is_never_the_best(how: str) -> None:
    model = "seresnext101"
    # The planted one is the faster.
    planted = _spoiled(samples.real_throughput(model, 4), how)
    good = samples.real_throughput(model, 1, 1.0)
    tree = page(real(good, planted, published=samples.published(model)))
    (chart,) = (one for one in tree.values("aria-label") if one.startswith(f"{model} on "))
    chart = chart.replace("\N{NO-BREAK SPACE}", " ")
    if how == "slow":
        assert "9,000.0 fps failed ★ best" in tree.text()
        assert "the fastest is batch 4" in chart
        assert "The fastest is batch 4" in tree.text()
        return
    assert f"9,000.0 fps {planted.outcome} {WORTHLESS[how]}" in tree.text()
    assert "529.1 fps passed ★ best" in tree.text()
    assert "counts for nothing" in tree.text()
    assert f"9,000.0 fps ({planted.outcome}, counts for nothing); the fastest is batch 1" in chart
    charts = tree.html.split('<h2 id="h-charts"')[1].split("</section>")[0]
    assert 'class="d-trouble"' in charts
    assert f'<i class="o-{planted.outcome}"><svg class="sign">' in charts


def test_where_no_figure_counts_there_is_no_best_and_no_ratio() -> None:
    model = "seresnext101"
    lines = [_spoiled(samples.real_throughput(model, n), "busy") for n in (1, 4)]
    records = real(*lines, published=samples.published(model))
    tree = page(records)
    assert "not decided published 529.115 \N{EN DASH} \N{EN DASH}" in tree.text()
    assert "fps inconclusive ★ best" not in tree.text()
    assert "×" not in section(records, "guide").text()
    assert "no figure counts" in tree.html
    assert 'k-trouble">counts for nothing' in tree.html
    assert 'k-measured">measured' not in tree.html


def test_figures_of_a_chip_and_of_a_card_of_four_have_no_ratio() -> None:
    line = samples.real_throughput("squeezenet1_1", 1)  # nothing is published for its 310P
    text = section(real(line, published=samples.published("squeezenet1_1")), "guide").text()
    assert "published 4,589.72" in text
    assert "×" not in text
    assert "No ratio to the 310: one figure is a chip's, the other a card of 4 chips's." in text


def test_a_table_that_would_repeat_the_summary_is_left_out() -> None:
    assert "Throughput of" not in page(real(samples.real_throughput("seresnext101", 1))).text()


# --- the file ----------------------------------------------------------------------------------


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
    assert Tree("<div><p>text</div>").faults  # the parser sees what is not closed
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
    assert "harness 0" in tree.text()
    # Without a script it is a plain list.
    assert "filter" not in ids or re.search(r'<form class="filter"[^>]* hidden>', tree.html)
    assert not re.search(r"<article[^>]*hidden", tree.html)


def test_the_policy_names_the_script_of_the_page_and_nothing_else() -> None:
    html = render_html(GREEN, now=NOW)
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', html)
    assert policy is not None
    assert "default-src 'none'" in policy[1]
    assert f"script-src 'sha256-{digest}'" in policy[1]


_COUNTER = itertools.count()


def _markup() -> str:
    n = next(_COUNTER)
    return f"<script>plant({n})</script>\"'><img src=x onerror=plant({n})>{{{{7*7}}}}&lt;"


def _planted(value: Any) -> Any:
    """`value` with markup in every string; keys stay."""
    if isinstance(value, str):
        return _markup()
    if isinstance(value, list):
        return [_planted(item) for item in value]
    if isinstance(value, dict):
        return {key: _planted(item) for key, item in value.items()}
    return value


def hostile(line: BaseModel) -> Any:
    """A line with markup in every string that it can hold: what has a closed type stays."""
    data = line.model_dump(mode="json")
    planted = _planted(data)
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


@pytest.mark.parametrize("kind", ["real", "rehearsal"])
def test_markup_in_any_string_stays_text(kind: Provenance) -> None:
    whole = samples.real_run() if kind == "real" else samples.all_outcomes(kind)
    named = {_markup(): _markup()}
    cases = [
        hostile(
            case.model_copy(
                update={
                    "versions": named,
                    "device": replace(samples.DEVICE, toolchain=named, runtime=named,
                                      commands=named, left_out=named),
                    "diagnosis": samples.DIAGNOSIS,
                    "attempts": (samples.ATTEMPT,),
                }
            )
        )
        for case in whole.cases
    ]  # fmt: skip
    assert whole.run is not None
    run = hostile(whole.run.model_copy(update={"settings": named, "versions": named}))
    records = samples.run_records(
        cases,
        provenance=kind,
        lost=[hostile(LOST)],
        damaged=(_markup(),),
        checks=[hostile(samples.batch_check("squeezenet1_1", "failed", provenance=kind))],
    )
    tree = Tree(render_html(replace(records, run=run), now=_markup()))
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
    # What was planted is shown, escaped, and none of it is lost to the parser.
    assert tree.tags["article"] == len(cases) + 1
    assert tree.text().count("<script>plant(") > 20 * len(cases)


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
    html = render_html(
        samples.run_records([samples.case(outcome="error", error=error, title="half \ud83d")])
    )
    html.encode()  # no half of a pair is left
    for sign in "\x1b\x00\u202e":
        assert sign not in html
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
            names = [f"{index}-{batch}-{n}.JPEG" for n in range(20)]
            flips = tuple(samples.flip(name) for name in names)
            line = samples.measured(line, fidelity=replace(line.accuracy.fidelity, flips=flips))
            for name in names:
                assert line.images is not None
                planted_thumb(tmp_path, line.images, name)
        else:
            line = samples.measured(line, conditions=samples.conditions(600, busy=True))
        cases.append(line)
    checks = [samples.batch_check(f"model_{n}", "failed", target="cpu") for n in range(10)]
    records = samples.run_records(cases, exit_status=1, checks=checks)
    html = render_html(samples.write_samples(tmp_path, records), now=NOW)
    assert html.count("<article") == 100
    assert "data:image/jpeg;base64," in html
    assert "Latency samples" in html
    assert len(html.encode()) < 2_000_000
    assert "characters are cut here" in html


def test_odd_numbers_give_a_page() -> None:
    nan, inf = float("nan"), float("inf")
    speed = samples.measured(
        samples.case(check="throughput", measured=nan, seconds=-1.0),
        timing=samples.timing(4, [5.0] * 8, mean_ms=inf, half_width_percent=inf),
        half_width_percent=nan,
    )
    score = samples.case("b", measured=nan, figures={FigureName.TOP1: nan})
    assert score.accuracy is not None
    assert score.accuracy.fidelity is not None
    fidelity = replace(score.accuracy.fidelity, relative_l2=nan, max_abs=inf)
    score = samples.measured(score, fidelity=fidelity, seconds=0.0)
    text = page(samples.run_records([speed, score])).text()
    assert "relative L2 not a finite number" in text
    words = set(text.replace("(", " ").split())
    assert {"nan", "inf"} & words == set()


def test_a_report_is_written_from_the_records_in_one_step(tmp_path: Path) -> None:
    samples.write(tmp_path, samples.all_outcomes())
    (tmp_path / "report.html").write_text("old", encoding="utf-8")
    path = write_report(tmp_path)
    assert path == tmp_path / "report.html"
    assert sorted(p.name for p in tmp_path.glob("[!.]*")) == ["report.html", "results.jsonl"]
    written = path.read_text(encoding="utf-8")
    cut = re.compile("Rendered .*? by")
    assert cut.sub("", written) == cut.sub("", render_html(reader.read(tmp_path), now=NOW))
    assert "13 of 20 cases passed" in written
    path.unlink()
    path.mkdir()
    with pytest.raises(RecordError, match="cannot write") as caught:
        write_report(tmp_path)
    assert caught.value.remedy
    assert sorted(p.name for p in tmp_path.glob("[!.]*")) == ["report.html", "results.jsonl"]


@pytest.mark.parametrize("text", [None, "", "\n", "root:x:0:0\n[]\n"])
def test_records_without_a_line_have_no_report(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "results.jsonl").write_text(text, encoding="utf-8")
    said = "no records of a run" if text is None else "holds no line"
    with pytest.raises(RecordError, match=said) as caught:
        write_report(tmp_path)
    assert caught.value.remedy
    assert not (tmp_path / "report.html").exists()


def test_rendering_imports_no_framework(tmp_path: Path) -> None:
    samples.write(tmp_path, samples.real_run())
    code = (
        "import sys, json; from pathlib import Path; from harness.report import write_report;"
        "from harness.report.exports import write_all;"
        "write_report(Path(sys.argv[1])); write_all(Path(sys.argv[1]));"
        "print(json.dumps(sorted({m.split('.')[0] for m in sys.modules})))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    heavy = {"torch", "torchvision", "timm", "onnx", "onnxsim", "onnxruntime", "pytest"}
    assert not heavy & set(json.loads(done.stdout))


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
    for text in (*lines, *summary_lines(samples.run_records([samples.case("a\nb\x1b[31m")]))):
        assert text.isprintable()
