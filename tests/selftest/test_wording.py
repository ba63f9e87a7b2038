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
FEW = {"images": 2, "names": ("a", "b")}
MANY = {"images": 12, "names": ("a", "b", "c", "d")}
L2 = {"relative_l2": 0.2, "bound": 0.03}
BATCH = {**FEW, "size": 1, "other": 4}
TIMES = {"executions": 9, "reported_ms": 1.0, "passed_ms": 50.0}
PROBLEMS: tuple[tuple[ProblemCode, dict[str, Any], str], ...] = (
    (C.ROWS, {"outputs": 3, "images": 4}, "3 rows of outputs for 4 images"),
    (C.NOT_FINITE, MANY, "NaN or infinity in the outputs of 12 images (a, b, c and 9 more)"),
    (C.NOT_FINITE, {}, "NaN or infinity in the outputs for seeded inputs"),
    (C.NOT_FINITE, {**FEW, "eager": True}, "in the eager pass: NaN or infinity in the outputs of"),
    (C.COUNTED_TWICE, {"images": 1, "names": ("a",)}, "1 image counted more than once (a)"),
    (C.NO_OUTPUT, FEW, "2 images without output (a, b)"),
    (C.FOREIGN_OUTPUT, {"outputs": 1, "names": ("x",)}, "1 output without an image (x)"),
    (C.OTHER_INPUT, FEW, "what is fed is not the catalog's preprocessing: 2 images (a, b)"),
    (C.IMAGES_MISSING, {"scored": 1, "expected": 2}, "1 of 2 images scored"),
    (C.EAGER_IMAGES_MISSING, {"scored": 1, "expected": 2}, "1 of 2 images in the eager pass"),
    (C.OTHER_PAIRS, {}, "do not speak of the same images"),
    (C.LOGITS_DIFFER, L2, "logits differ by 0.2 (relative L2), allowed 0.03"),
    (C.LOGITS_DIFFER, {**L2, "relative_l2": math.inf}, "logits differ by inf"),
    (C.PREDICTIONS_DIFFER, {**FEW, "of": 9}, "2 of 9 predictions differ from eager (a, b)"),
    (C.SCORE_DIFFERS, {"top1": 1.0, "eager_top1": 2.0}, "top-1 1.00 % where eager has 2.00 %"),
    (
        C.REFERENCE_OFF,
        {"images": 9, "top1": 1.0, "low": 0.5, "high": 2.0, "published": 78.26},
        "the reference is off: eager PyTorch has 1.00 % on 9 images (99.9 % interval 0.50 to 2.00)",
    ),
    (
        C.CLASS_ORDER,
        {"classes": 2, "names": ("cat for dog", "dog for cat")},
        "it takes 2 classes for each other in turn (cat for dog, dog for cat)",
    ),
    (
        C.WRONG_SHAPE,
        {"shape": (4, 10), "expected": (4, 5)},
        "outputs have shape (4, 10), the ONNX model's (4, 5)",
    ),
    (C.OTHER_NETWORK, {**L2, "model": "tiny"}, "--onnx gave another network than tiny with"),
    (C.OUTPUTS_DIFFER, L2, "differ from the ONNX model's by 0.2 (relative L2), allowed 0.03: the"),
    (C.STRANGE_TIMES, TIMES, "9 executions took 1 ms, and 50 ms passed: its times are not"),
    (C.WAITS, {"cpu_ms": 5.0, "clock_ms": 150.0}, "5 ms of CPU time and 150 ms by the clock"),
    (C.BATCH_IMAGES, BATCH, "2 images of batch size 1 or 4 alone, or with another label (a, b)"),
    (
        C.OTHER_ARTIFACT,
        {"accuracy": "a" * 64, "throughput": "b" * 64},
        f"different compiled files: accuracy {'a' * 12}, throughput {'b' * 12}",
    ),
    (
        C.COMPILED_ANEW,
        {"accuracy": "a" * 64, "throughput": "b" * 64},
        f"was compiled anew in between: accuracy ran {'a' * 12}, throughput {'b' * 12}",
    ),
)


@pytest.mark.parametrize(("code", "data", "words"), PROBLEMS)
def test_each_problem_has_a_sentence_before_and_after_a_record(code, data, words):
    problem = Problem(code, data)
    assert words in wording.problem_text(problem)
    verdict = Verdict("FAIL", "", "r", "", None, Reference("none"), problems=(problem,))
    line = RunCheckLine(
        run="r", name=CheckName.RATIO, subject="s", model="m", target="t", provenance="real",
        outcome="failed", sentence="", verdict=verdict,
    )  # fmt: skip
    read = RunCheckLine.model_validate_json(line.model_dump_json()).verdict
    assert read is not None
    assert wording.problems_text(read.problems) == wording.problem_text(problem)


def test_no_problem_is_without_a_sentence():
    assert {code for code, _, _ in PROBLEMS} == set(ProblemCode)


def sentence(measurement, **options) -> str:
    return judge_accuracy(measurement, PUBLISHED, BOTH, bound=BOUND, **options).sentence


def test_accepted_is_said_of_the_whole_set_alone():
    assert sentence(whole(39_120)).startswith("accepted: top-1 78.24 % against 78.26 % published")
    for other in (whole(35_000), whole(783, 1000), part(5000, 3913), rehearsed()):
        assert "accepted" not in sentence(other)


@pytest.mark.parametrize(
    ("measurement", "words"),
    [
        (part(5000, 3913, 5, 4), "conversion agrees on 5000 images: top-1 78.24 % where eager has"),
        (part(5000, 3913, 100), "conversion changes the score on 5000 images: "),
        (part(5000, 3913, 100), "-2.00 points, 99 % interval "),
        (part(5000, 3913, 39), "only the whole set of 50000 images would decide"),
        (part(1, 1), "1 image: top-1"),
        (part(5000, 3500, 100), "the reference is off"),
        (whole(783, 1000), "run all 50000, or give the weights in place of --onnx"),
        (rehearsed(), "4 of 4 predictions equal eager's; logits differ by 5.0e-03 of 0.03 allowed"),
    ],
)
def test_sentences_of_accuracy(measurement, words):
    assert words in sentence(measurement)


# Throughput --------------------------------------------------------------------------------

EAGER = steady(10.0)
BUSY = Condition("during", 1.0, busy="yes", note="process 4711")
SLOWER = timing(*(4.0 + 0.2 * (i >= 10) + 0.001 * (i % 3) for i in range(20)))


@pytest.mark.parametrize(
    ("verdict", "words"),
    [
        (judge_baseline(real(2000.0), floor_of()), "fps against 903.506 ("),
        (judge_baseline(real(500.0), floor_of()), "at least 903.506 is asked for"),
        (
            judge_baseline(real(500.0, too_few_rounds=5), floor_of()),
            "this decides nothing: 6 rounds timed in a budget of 20 s, it takes 5",
        ),
        (
            judge_baseline(real(500.0, too_few_seconds=10.0, seconds=9.99), floor_of()),
            "timed for 9.9 s in a budget of 20 s, it takes 10 s",
        ),
        (
            judge_baseline(real(500.0, half_width_percent=50.0), floor_of()),
            "the mean is only known to ±50",
        ),
        (
            judge_eager_speed(timed(EAGER, EAGER, half_width_percent=20.0)),
            "the ratio is only known to ±20",
        ),
        (
            judge_eager_speed(timed(steady(2.0), EAGER, half_width_percent=20.0)),
            "which decides",
        ),
        (record_speed(real(500.0), "why"), "500.0 fps measured (known to ±0.00"),
        (record_speed(real(500.0, too_few_rounds=5), "why"), "not a figure to keep: 6 rounds"),
        (record_speed(real(500.0, outputs=None), "why"), "outputs were not compared with"),
        (judge_baseline(real(500.0, outputs=None), floor_of()), "outputs were not compared with"),
        (judge_baseline(real(500.0), floor_of(), note="a note"), "; a note; "),
        (record_speed(real(500.0), "why", note="a note"), "; why; a note"),
        (
            judge_baseline(timed(SLOWER, conditions=(BUSY,)), floor_of()),
            "the device was busy during the measurement (process 4711)",
        ),
        (
            judge_baseline(timed(SLOWER), floor_of()),
            "the second half of the rounds was 5.0 % slower than the first",
        ),
    ],
)
def test_sentences_of_throughput(verdict: Verdict, words: str):
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
