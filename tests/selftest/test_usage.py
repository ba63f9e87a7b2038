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
