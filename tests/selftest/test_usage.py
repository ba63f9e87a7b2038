"""What pytest may run."""

from __future__ import annotations

import pytest

from harness import usage
from harness.base.errors import ConfigError
from harness.plan import Case, Plan

ONE, TWO = (Case("tiny", size, "cpu", "accuracy") for size in (1, 4))
PLAN = Plan((ONE, TWO))
NODE = "tests/acceptance/test_accuracy.py::test_accuracy[tiny-bs{}-cpu{}]"


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


MARKS = ("accuracy: top-1", "throughput: frames a second", "skipif(condition, reason): skip it")


def test_a_mark_that_does_not_exist_is_refused() -> None:
    """pytest would leave its cases out without a word."""
    for good in ("", "not (accuracy or throughput)", "not accuracy and skipif", 'skipif(a="b c")'):
        usage.check_marks(good, MARKS)
    for text, word in (("acuracy", "acuracy"), ("accuracy or throughputt", "throughputt")):
        with pytest.raises(ConfigError, match=f"no test is marked {word}") as caught:
            usage.check_marks(text, MARKS)
        assert "did you mean" in caught.value.remedy
