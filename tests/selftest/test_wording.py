"""Sentences of verdicts: every problem has one, and no figure reads as what it is not."""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.judge import wording
from harness.judge.accuracy import judge_accuracy
from harness.judge.throughput import judge_baseline, judge_eager_speed, record_speed
from harness.records.conditions import Condition
from harness.records.lines import CheckName, RunCheckLine
from harness.records.measurements import Problem, ProblemCode
from harness.records.verdicts import Reference, Verdict
from tests.selftest.judge_samples import (
    BOTH,
    BOUND,
    PUBLISHED,
    floor_of,
    part,
    real,
    rehearsed,
    steady,
    timed,
    timing,
    whole,
)

C = ProblemCode
FEW: dict[str, Any] = {"images": 2, "names": ("a", "b")}
MANY: dict[str, Any] = {"images": 12, "names": ("a", "b", "c", "d")}
L2: dict[str, Any] = {"relative_l2": 0.2, "bound": 0.03}
COMPILED: dict[str, Any] = {"accuracy": "a" * 64, "throughput": "b" * 64}
PROBLEMS: tuple[tuple[ProblemCode, dict[str, Any]], ...] = (
    (C.ROWS, {"outputs": 3, "images": 4}),
    (C.NOT_FINITE, MANY),
    (C.NOT_FINITE, {}),
    (C.NOT_FINITE, {**FEW, "eager": True}),
    (C.COUNTED_TWICE, {"images": 1, "names": ("a",)}),
    (C.NO_OUTPUT, FEW),
    (C.FOREIGN_OUTPUT, {"outputs": 1, "names": ("x",)}),
    (C.OTHER_INPUT, FEW),
    (C.IMAGES_MISSING, {"scored": 1, "expected": 2}),
    (C.EAGER_IMAGES_MISSING, {"scored": 1, "expected": 2}),
    (C.OTHER_PAIRS, {}),
    (C.LOGITS_DIFFER, {**L2, "relative_l2": math.inf}),
    (C.PREDICTIONS_DIFFER, {**FEW, "of": 9}),
    (C.SCORE_DIFFERS, {"top1": 1.0, "eager_top1": 2.0}),
    (C.REFERENCE_OFF, {"images": 9, "top1": 1.0, "low": 0.5, "high": 2.0, "published": 78.26}),
    (C.CLASS_ORDER, {"classes": 2, "names": ("cat for dog", "dog for cat")}),
    (C.WRONG_SHAPE, {"shape": (4, 10), "expected": (4, 5)}),
    (C.OTHER_NETWORK, {**L2, "model": "tiny"}),
    (C.OUTPUTS_DIFFER, L2),
    (C.STRANGE_TIMES, {"executions": 9, "reported_ms": 1.0, "passed_ms": 50.0}),
    (C.WAITS, {"cpu_ms": 5.0, "clock_ms": 150.0}),
    (C.BATCH_IMAGES, {**FEW, "size": 1, "other": 4}),
    (C.OTHER_ARTIFACT, COMPILED),
    (C.COMPILED_ANEW, COMPILED),
)


@pytest.mark.parametrize(("code", "data"), PROBLEMS)
def test_each_problem_has_a_sentence_before_and_after_a_record(code, data):
    problem = Problem(code, data)
    text = wording.problem_text(problem)
    assert not re.search(r"[{}]|\b1 images", text)
    for name in data.get("names", ())[:3]:
        assert name in text
    verdict = Verdict("FAIL", "", "r", "", None, Reference("none"), problems=(problem,))
    line = RunCheckLine(
        run="r", name=CheckName.RATIO, subject="s", model="m", target="t", provenance="real",
        outcome="failed", sentence="", verdict=verdict,
    )  # fmt: skip
    read = RunCheckLine.model_validate_json(line.model_dump_json()).verdict
    assert read is not None
    assert wording.problems_text(read.problems) == text


def test_no_problem_is_without_a_sentence_and_the_few_names_say_how_many_more():
    assert {code for code, _ in PROBLEMS} == set(ProblemCode)
    assert "(a, b, c and 9 more)" in wording.problem_text(Problem(C.NOT_FINITE, MANY))


def sentence(measurement, **options) -> str:
    return judge_accuracy(measurement, PUBLISHED, BOTH, bound=BOUND, **options).sentence


def test_accepted_is_said_of_the_whole_set_alone():
    assert sentence(whole(39_120)).startswith("accepted: top-1 78.24 % against 78.26 % published")
    for other in (whole(35_000), whole(783, 1000), part(5000, 3913), rehearsed()):
        assert "accepted" not in sentence(other)


# Throughput --------------------------------------------------------------------------------

EAGER = steady(10.0)
SLOWER = timing(*(4.0 + 0.2 * (i >= 10) + 0.001 * (i % 3) for i in range(20)))


@pytest.mark.parametrize(
    ("verdict", "words"),
    [
        (
            judge_baseline(real(500.0, too_few_seconds=10.0, seconds=9.99), floor_of()),
            "timed for 9.9 s in a budget of 20 s, it takes 10 s",
        ),
        (record_speed(real(500.0, too_few_rounds=5), "why"), "not a figure to keep: 6 rounds"),
        (judge_baseline(real(500.0, outputs=None), floor_of()), "outputs were not compared with"),
        (judge_baseline(real(500.0), floor_of(), note="a note"), "; a note; "),
        (record_speed(real(500.0), "why", note="a note"), "; why; a note"),
        (judge_baseline(timed(SLOWER), floor_of()), "was 5.0 % slower than the first"),
    ],
)
def test_what_is_said_beside_a_figure(verdict: Verdict, words: str):
    assert words in verdict.sentence


LOOKED = tuple(Condition(moment, 0.0, busy="no") for moment in ("before", "during", "after"))


@pytest.mark.parametrize(
    ("looks", "words"),
    [
        (LOOKED, ""),
        ((), "; whether the device was idle throughout is not known"),
        (LOOKED[:2], "; whether the device was idle throughout is not known"),
    ],
)
def test_unknown_idleness_is_judged_and_said(looks, words):
    known = judge_baseline(real(2000.0, conditions=LOOKED), floor_of()).sentence
    unknown = (*looks, Condition("after", 0.0))
    verdict = judge_baseline(real(2000.0, conditions=unknown), floor_of())
    assert (verdict.kind, verdict.sentence) == ("PASS", f"{known}{words}")


SPEEDS = st.floats(1e-2, 1e9).map(lambda fps: float(f"{fps:.6g}"))


@given(SPEEDS, st.floats(0.5, 2.0) | st.sampled_from([1.0, 0.99999, 1.00001, 1 - 1e-9]))
def test_no_sentence_has_powers_of_ten_or_hides_a_near_miss(fps, factor):
    verdict = judge_baseline(real(fps * factor), floor_of(fps))
    match = re.fullmatch(
        r"(?:too slow: )?([\d.,]+) fps against ([\d.,]+) \(.*?\), at least ([\d.,]+) is asked for;"
        r".*",
        verdict.sentence,
    )
    assert match is not None
    ours, theirs, asked = (float(text.replace(",", "")) for text in match.groups())
    assert theirs == asked == fps
    if verdict.kind == "FAIL":
        assert ours < asked
    assert re.match(r"[\d.,]+ fps measured", record_speed(real(fps), "why").sentence)


def test_a_near_miss_has_as_many_digits_as_it_takes():
    near = judge_baseline(real(10022.3), floor_of(10022.4)).sentence
    assert near.startswith("too slow: 10,022.3 fps against 10,022.4 (")
    slow = judge_eager_speed(timed(steady(10.0 / 0.8999), EAGER))
    assert slow.kind == "FAIL"
    assert "0.8999 times eager" in slow.sentence.replace("0.89990", "0.8999")
    rough = dataclasses.replace(timed(steady(10.0 / 1.234), EAGER), half_width_percent=30.0)
    assert "1.2 times eager" in judge_eager_speed(rough).sentence
    assert "e+" not in judge_eager_speed(timed(steady(10.0 / 40_000), EAGER)).sentence
