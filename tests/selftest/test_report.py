"""The report says what the records say, and nothing that they must not say."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from harness.base.host import Machine
from harness.base.stages import Stage
from harness.base.terms import CHECKS, Outcome, Provenance
from harness.pages import looks
from harness.records.lines import CaseLine
from harness.records.observed import Attempt, Section, StageTime
from harness.records.reader import RunRecords
from harness.records.verdicts import BatchFlip, Edition, FigureName, Reference
from harness.report import exports
from harness.report.junit import junit_xml
from harness.report.markdown import summary_markdown
from harness.report.render import render_html
from harness.report.terminal import summary_lines
from harness.report.why import first_screen
from tests.selftest import report_samples as samples
from tests.selftest.pages import Tree, page, section

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


LOST = samples.planned(samples.case("inceptionv4", 4, "throughput"))
GREEN = samples.run_records(green())


# --- the line of the run -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcomes", "tone", "text"),
    [
        (("passed",) * 8, "good", "8 of 8 cases passed"),
        (("passed", "failed"), "bad", "1 failed: m1 bs 1 on cpu (accuracy); 1 of 2 cases passed"),
        (("failed",) * 5, "bad", "5 failed; 0 of 5 cases passed"),
        (
            ("failed", "crashed", "error", "inconclusive", "passed"),
            "bad",
            "1 failed, 1 crashed, 1 error; 1 of 5 cases passed",
        ),
        (
            ("passed", "inconclusive", "recorded"),
            "warn",
            "1 of 3 cases passed, 1 recorded, 1 inconclusive: m1 bs 1 on cpu (accuracy)",
        ),
        (("passed", "recorded"), "good", "1 of 2 cases passed, 1 recorded"),
        (("passed", "known_failure"), "good", "1 of 2 cases passed, 1 known failure"),
        (("recorded", "recorded"), "neutral", "0 of 2 cases passed, 2 recorded"),
        (
            ("passed", "not_run"),
            "bad",
            "Incomplete run, 1 of 2 cases did not run. 1 of 2 cases passed",
        ),
        (("not_run", "not_run"), "bad", "Ran nothing: none of 2 planned cases ran"),
        ((), "bad", "Ran nothing: no case was planned"),
    ],
)
def test_the_headline_of_a_run(outcomes: tuple[Outcome, ...], tone: str, text: str) -> None:
    records = real(
        *(samples.case(f"m{n}", 1, outcome=o, provenance="real") for n, o in enumerate(outcomes))
    )
    tree = page(records)
    assert (tree.tone, tree.text("h1")) == (tone, text)
    assert summary_lines(records)[0] == text


@pytest.mark.parametrize(
    ("records", "word"),
    [
        (
            real(samples.real_accuracy("fixres", 1), samples.real_throughput("fixres", 1)),
            "Accepted",
        ),
        (real(samples.real_throughput("fixres", 1)), "Passed"),
        (
            real(samples.real_accuracy("fixres", 1), samples.real_throughput("resnest50", 1)),
            "Passed",
        ),
        (real(samples.real_accuracy("fixres", 1, "failed")), "Not accepted"),
        (real(samples.part_accuracy("seresnext101", 1)), "Undecided"),
        (real(samples.real_throughput("squeezenet1_1", 2)), "Recorded only"),
        (GREEN, "Passed"),
        (samples.all_outcomes(), "Failed"),
    ],
)
def test_the_first_word_is_the_answer(records: RunRecords, word: str) -> None:
    assert f'<p class="verdict">{word}</p>' in page(records).html
    assert summary_markdown(records).count(f" {word}: ") == 1


def _edited(**changes: Any) -> RunRecords:
    assert GREEN.end is not None
    return replace(GREEN, end=GREEN.end.model_copy(update=changes))


@pytest.mark.parametrize(
    ("records", "said", "whole"),
    [
        (samples.run_records(green(), lost=[LOST]), "1 of 9 cases did not run", False),
        (samples.run_records(green(), end=False), "no end line", False),
        (_edited(planned=9), "the end line counts other cases", False),
        (_edited(counts={"passed": 7, "failed": 1}), "the end line counts other cases", False),
        (_edited(complete=False), "the end line says so", False),
        (replace(GREEN, run=None), "no run line", False),
        (replace(GREEN, damaged=("line 7: Expecting value",)), "1 damaged line", True),
        (samples.run_records(green(), exit_status=3), "exit status 3", True),
        (samples.run_records(green("simulated")), "the records mix provenances", True),
        (replace(GREEN, plan=GREEN.plan[:-1]), "7 planned, but 8 accounted for", False),
        (replace(GREEN, plan=GREEN.plan[:-1]), "1 case ran outside of the plan", False),
    ],
)
def test_records_that_are_not_whole_say_so_first_and_are_never_green(records, said, whole):
    tree = page(records)
    assert whole or "ncomplete run, " in tree.text("h1")
    assert said in tree.text("h1")
    assert said in "\n".join(summary_lines(records)[:4])
    assert tree.tone == "bad"


def test_what_is_wrong_with_the_records_is_listed() -> None:
    assert GREEN.run is not None
    run = GREEN.run.model_copy(update={"notes": ("run B has no end line",), "merged": ("A", "B")})
    records = samples.run_records(green(), lost=[LOST], damaged=("line 7: Expecting value",))
    tree = page(replace(records, run=run, plan=records.plan[1:]))
    for said in (
        "line 7: Expecting value",
        "8 planned \N{NOT EQUAL TO} 8 passed",
        "run B has no end line",
        "merged from A, B",
        "the records have no line of it",
    ):
        assert said in tree.text()
    assert 'data-outcome="not_run" data-model="inceptionv4"' in tree.html


def test_batch_sizes_that_disagree_make_a_run_of_passed_cases_red() -> None:
    check = samples.batch_check("squeezenet1_1", "failed", target="cpu")
    assert check.verdict is not None
    flips = tuple(BatchFlip(f"{n}.JPEG", 1, False, {}) for n in range(30))
    verdict = replace(check.verdict, batch_flips=(*check.verdict.batch_flips, *flips))
    verdict = replace(verdict, figures={FigureName.FLIPS: 95})
    check = check.model_copy(update={"verdict": verdict})
    assert page(real(*green("real"), checks=[check])).tone == "bad"
    records = real(*green("real"), checks=[check], exit_status=1)
    tree = page(records)
    for said in (
        "8 of 8 cases passed; failed over the cases: batch sizes of squeezenet1_1 on cpu",
        "The model failed: batch size 4 is right on 93 images of 50000 less",
        "ILSVRC2012_val_00000217.JPEG 31 31 (12.125) 7 (12.128) no",
        "Batch 1 says (logit) Batch 4 says (logit)",
        "75 more in the records",
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


# --- a rehearsal says nothing about published figures ------------------------------------------

PUBLISHED = Reference("published", 58.191, "%", "guide 003", "whole set")


@pytest.mark.parametrize(
    ("kind", "word", "name"),
    [
        ("rehearsal", "REHEARSAL", "Rehearsal report"),
        ("simulated", "SIMULATED NPU", "Simulation report"),
    ],
)
def test_a_run_that_is_not_real_is_shouted_at_both_ends_and_in_the_title(kind, word, name):
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
    # One such case in a real run is enough.
    mixed = page(real(*green("real")[:-1], samples.case("fixres_resnet50", 4, provenance=kind)))
    assert word in mixed.text("title")
    assert "the records mix provenances" in mixed.text("h1")


def test_a_real_run_has_no_banner() -> None:
    tree = page(real(*green("real")))
    assert not any(value.startswith("banner") for value in tree.values("class"))


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
def test_a_figure_of_others_is_nowhere_in_a_run_that_is_not_real(run, kind, claimed):
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


def test_a_comparison_across_provenances_is_withheld_and_never_green() -> None:
    text = page(real(_held_against(PUBLISHED, "real"))).text()
    for said in ("58.19 %", "+34.59 %", "guide 003", "is within 1 % of 58.191 %"):
        assert said in text  # where everything is real
    records = real(_held_against(replace(PUBLISHED, provenance="rehearsal"), "real"))
    tree = page(records)
    assert "judging across provenances is refused" in tree.text()
    assert "1 comparison across provenances withheld" in tree.text("h1")
    assert tree.tone == "bad"
    assert "1 planned = 0 passed + 0 failed + 1 inconclusive" in tree.text()
    for text in (make(records) for make in TEXTS.values()):
        assert "58.19" not in text
        assert "34.59" not in text


@pytest.mark.parametrize("run", ["rehearsal", "simulated"])
def test_a_published_figure_beside_an_own_reference_or_in_a_check_is_left_out(run):
    figures = {FigureName.PUBLISHED_TOP1: 58.191, FigureName.LOGITS_L2_ALLOWED: 0.03}
    tree = page(
        samples.run_records([samples.case(provenance=run, figures=figures)], provenance=run)
    )
    assert "58.191" not in tree.text()
    assert f"1 recorded figure(s) of others are withheld: this case is {run}." in tree.text()
    assert "relative L2 allowed 0.03" in tree.text()
    assert tree.tone == "good"
    check = samples.batch_check(provenance=run, sentence="893.6 fps against 733.052 published")
    assert check.verdict is not None
    verdict = replace(check.verdict, reference=replace(PUBLISHED, kind="ratio", provenance=run))
    check = check.model_copy(update={"verdict": verdict})
    records = samples.run_records(green(run), provenance=run, checks=[check])
    for text in (make(records) for make in TEXTS.values()):
        assert "733" not in text
        assert "58.19" not in text
    assert page(records).tone == "bad"
    assert "1 comparison across provenances withheld" in page(records).text("h1")


@pytest.mark.parametrize("kind", ["real", "rehearsal", "simulated"])
def test_a_case_shows_the_figures_of_all_editions_in_a_real_run_alone(kind: Provenance) -> None:
    flags = ("--enable_small_channel=1",)
    editions = (
        Edition(4849.7, "chip", "later", "2023-11-19", "CANN 6.0.RC1", flags),
        Edition(6459.28, "chip", "earlier", "2022-12-17", "CANN 6.0.RC1"),
    )
    reference = Reference("none", provenance=kind, editions=editions)
    line = samples.case(provenance=kind, reference=reference)
    text = page(samples.run_records([line], provenance=kind)).text()
    for said in ("later 2023-11-19", "6,459.28", "CANN 6.0.RC1, --enable_small_channel=1"):
        assert (said in text) is (kind == "real")


@pytest.mark.parametrize("kind", ["rehearsal", "simulated"])
def test_tables_and_charts_that_are_not_real_hold_no_published_figure(kind: Provenance) -> None:
    whole = samples.real_run()
    cases = [case.model_copy(update={"provenance": kind}) for case in whole.cases]
    # Planted: a run line that is not real and carries published figures all the same.
    assert whole.run and whole.run.guide_figures
    tree = page(samples.run_records(cases, provenance=kind, guide_figures=whole.run.guide_figures))
    for figure in ("182.224", "346.484", "529.115", "78.26", "815.805", "733.052", "893.562"):
        assert figure not in tree.text()
    assert "529.6" in tree.text()  # what was measured is shown
    assert "Acc@Top1" not in tree.text()  # it would repeat the results
    assert "×" not in tree.text()
    assert 'class="l-reference"' not in tree.html


# --- what a case shows -------------------------------------------------------------------------

MANY = Section("Many", ("n",), tuple((str(n),) for n in range(200)))
UNCLEAR = replace(samples.DIAGNOSIS, stage=None, sections=(MANY,))
SHOWN: dict[str, tuple[RunRecords, tuple[str, ...]]] = {
    "accuracy": (
        samples.run_records([samples.case()]),
        (
            "top-5 95.90 % (491), eager 95.90 %, +0.00 points",
            "Fidelity to the eager model relative L2 6.80e\N{MINUS SIGN}7",
            "equal predictions 99.80 %",
            "predictions that differ 1 of these excused by their margin 1",
            "ILSVRC2012_val_00000217.JPEG 31 31 (8.53) 7 (8.54) 0.0021 yes",
            "Held against 78.32 % (eager PyTorch)",
            "4.7 MiB from the store",
            "simplify 1.84 s",
            "infer images 21.4 s",
        ),
    ),
    "throughput": (
        samples.run_records([samples.case(check="throughput")]),
        (
            "coefficient of variation 4.11 %",
            "half-width of the mean's 99 % interval 0.82 %",
            "precision asked for was reached yes",
            "by the clock 210.4 fps, 19.011 ms",
            "CPU time, eager to compiled 1.217 times",
            "Outputs against the ONNX model relative L2 5.10e\N{MINUS SIGN}7 bound 0.03",
            "+49 %",
        ),
    ),
    "error": (
        samples.run_records([samples.case(outcome="error")]),
        ("CompileError in stage compile", "no kernel What to do: compare the operator set"),
    ),
    "a build that was killed once": (
        samples.run_records(
            [
                samples.case(
                    attempts=(Attempt("cpu", Stage.EXPORT, "killed by SIGKILL", "w", aside=False),)
                )
            ]
        ),
        (
            "Retried once with nothing else running on this host: killed by SIGKILL",
            "a process was killed, or the host refused something; tried once more: accuracy of "
            "squeezenet1_1-bs4-cpu",
        ),
    ),
    "a real run": (
        samples.real_run(),
        (
            "On ascend310p3-1, Ascend310P3, Atlas 300I Pro, CANN 8.0.RC2, driver 23.0.0, firmware "
            "7.1.0.3.220, run through api",
            "ascend310p3-0 was set aside in stage device: device 0 was lost: [507033] "
            "(npu-smi no longer shows it)",
            "device ascend310p3-0 was set aside for the run: npu-smi no longer shows it",
            "The device was busy during the measurement (process 4711 python3)",
            "used by others no (36), yes (4)",
            "temperature 43 to 56.8 °C",
            "W images a joule 12.5",
            "interval of the difference \N{MINUS SIGN}0.72 to 0.94 points",
            "Stage: compile Suspect: the compiler",
        ),
    ),
    "a diagnosis without a stage": (
        real(samples.real_accuracy("fixres", 1, "failed", diagnosis=UNCLEAR)),
        (
            "The model failed: it ran, and its figures do not hold; its diagnosis: eager",
            "140 more in the records",
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SHOWN)
def test_a_case_shows_what_its_record_has(name: str) -> None:
    records, texts = SHOWN[name]
    shown = page(records).text().replace(" : ", ": ")
    assert [text for text in texts if text not in shown] == []
    assert shown.count("onnxruntime 1.23.0") == 1  # a case has the versions of its run


def test_the_environment_names_every_device_and_what_drove_it() -> None:
    other = replace(samples.DEVICE, id="ascend310p3-0", card="npu-0")
    other = replace(other, toolchain={"target": "ascend310p3", **samples.TOOLS})
    newer = {"cann": "8.1.RC1", "driver": "23.0.0"}
    lines = [
        samples.real_throughput("seresnext101", 1),
        samples.real_accuracy("seresnext101", 4, device=other, versions=newer),
        samples.real_accuracy("seresnext101", 1, machine=Machine(hostname="bench-04")),
    ]
    text = page(real(*lines)).text()
    for said in (
        "bench-03 ascend310p3-1, Ascend310P3, Atlas 300I Pro, CANN 8.0.RC2, driver 23.0.0",
        "bench-03 ascend310p3-0, Ascend310P3, CANN 8.0.RC2",
        "bench-04 ascend310p3-1, Ascend310P3, CANN 8.0.RC2, driver 23.0.0, firmware 7.1.0.3.220",
        "Machine 2 host bench-04",
        "On ascend310p3-0, Ascend310P3, CANN 8.0.RC2",  # what names the device is no tool
        "Versions of this case CANN 8.1.RC1",
    ):
        assert said in text, said


def test_each_cell_of_the_matrix_leads_to_its_case() -> None:
    records = samples.all_outcomes()
    html = render_html(records)
    cells = re.findall(r'<a class="cell o-(\w+)" href="#([^"]+)"', html)
    assert len(cells) == len(records.cases)
    for outcome, anchor in cells:
        assert re.search(rf'id="{re.escape(anchor)}" data-outcome="{outcome}"', html)
    assert re.search(r"<b>71\.09.%</b>\s*<span>failed</span>\s*<i>\N{MINUS SIGN}9\.23.%</i>", html)
    # Cases stand in the order of the plan, and two may have one cell.
    pattern = r'<article class="case[^"]*" id="([^"]+)"'
    turned = replace(records, cases=tuple(reversed(records.cases)))
    assert re.findall(pattern, render_html(turned)) == re.findall(pattern, html)
    one = samples.case()
    two = one.model_copy(update={"nodeid": one.nodeid + "#2", "outcome": "failed"})
    html = render_html(samples.run_records([one, two]))
    assert len(re.findall(r'<a class="cell ', html)) == 2
    assert len(set(re.findall(pattern, html))) == 2


def test_stages_and_artifacts_are_named_by_what_was_done() -> None:
    times = (
        (Stage.EXPORT, 1.0),
        (Stage.COMPILE, 900.0),
        (Stage.DEVICE, 0.01),
        (Stage.LOAD, 0.02),
        (Stage.INFER, 60.0),
    )
    stages = tuple(StageTime(stage, seconds) for stage, seconds in times)
    kinds = (Stage.STANDIN, Stage.EXPORT, Stage.SIMPLIFY, Stage.COMPILE, Stage.CROPS)
    line = samples.case(stages=stages, artifacts=tuple(map(samples.artifact, kinds)))
    records = samples.run_records([line, samples.case(batch=1)])
    # The longest first; what nobody sees is one part of it.
    text = section(records, "environment").text().replace("\N{NO-BREAK SPACE}", " ")
    said = "compile 15 min 00 s (91 %) infer images 1 min 21 s (8 %) all others 2.89 s (0 %)"
    assert f"Where the time went {said}" in text
    html = page(records).html
    table = html[html.index('aria-label="Artifacts"') :]
    names = re.findall(r'<th scope="row">(.*?)</th>', table[: table.index("</table>")])
    assert names == [stage.makes for stage in kinds]
    assert '<a href="logs/squeezenet1_1-compile.log">' in html


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


def test_the_parser_of_these_tests_sees_what_is_not_closed() -> None:
    assert Tree("<div><p>text</div>").faults
