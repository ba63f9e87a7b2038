"""The command line of pytest: expressions, and what may run."""

from __future__ import annotations

import pytest

from harness import usage
from harness.base.errors import ConfigError
from harness.plan import Case, Plan

MARKS = ["accuracy", "throughput", "skipif"]
ONE, TWO = (Case("tiny", size, "cpu", "accuracy") for size in (1, 4))
PLAN = Plan((ONE, TWO))
NODE = "tests/acceptance/test_accuracy.py::test_accuracy[tiny-bs{}-cpu{}]"


@pytest.mark.parametrize(
    "text",
    ["", "accuracy", "not (accuracy or throughput)", "not accuracy and skipif", 'skipif(a="b c")'],
)
def test_marks_that_there_are(text: str) -> None:
    usage.check_expression("-m", text, MARKS)


@pytest.mark.parametrize("text", ["acuracy", "accuracy or throughputt", "accuracy)", "not", "a b"])
def test_marks_that_cannot_be_meant(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        usage.check_expression("-m", text, MARKS)
    assert text in caught.value.message
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("", True),
        ("resnest50-bs4-cpu", True),
        ("test_x.py::test_y[a/b] and not 310", True),
        ("(((", False),
        ("bs1 bs4", False),
        ("bs1 and", False),
    ],
)
def test_words_of_names(text: str, good: bool) -> None:
    if good:
        usage.check_expression("-k", text)
        return
    with pytest.raises(ConfigError):
        usage.check_expression("-k", text)


def test_what_runs_is_in_the_plan() -> None:
    own = "tests/selftest/test_usage.py::test_x[1]"
    nodes = [NODE.format(1, ""), "elsewhere/" + NODE.format(4, "")]
    assert usage.planned(nodes, PLAN) == list(zip(nodes, (ONE, TWO), strict=True))
    assert usage.planned([own], PLAN) == usage.planned([], PLAN) == []
    for strange in (
        [NODE.format(1, "-1-2")],
        [*nodes, own],
        [nodes[0], nodes[0]],
        [NODE.partition("[")[0]],
    ):
        with pytest.raises(ConfigError):
            usage.planned(strange, PLAN)
