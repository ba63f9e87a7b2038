"""The list of rules: every `Verdict.rule` is the name of one of these.

`python -m harness rules` prints the list, and docs/judging.md has a section for each, in this
order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from harness.judge.accuracy import (
    judge_own_set,
    judge_part,
    judge_rehearsal,
    judge_whole_set,
)
from harness.judge.batch_sizes import judge_batch_sizes
from harness.judge.run_checks import judge_ratio, judge_same_artifact
from harness.judge.throughput import judge_baseline, judge_eager_speed, record_speed
from harness.records.verdicts import Verdict


@dataclass(frozen=True)
class Rule:
    """A rule of judgement. `source`: the guide or the paper that it comes from."""

    name: str
    title: str
    source: str
    function: Callable[..., Verdict]


RULES = (
    Rule(
        "accuracy-whole-set",
        "Accuracy on the whole data set",
        "guides 000 (both sides) and 003 (a drop alone)",
        judge_whole_set,
    ),
    Rule(
        "accuracy-part",
        "Accuracy on a part of it",
        "Tango 1998; Clopper and Pearson 1934; tolerance of guides 000 and 003",
        judge_part,
    ),
    Rule(
        "accuracy-own-set",
        "Accuracy on a data set of your own",
        "this project: eager PyTorch in place of the published figure; tolerance of guides 000 and "
        "003",
        judge_own_set,
    ),
    Rule(
        "accuracy-rehearsal",
        "Accuracy in a rehearsal",
        "this project: eager PyTorch is the truth on all of the images",
        judge_rehearsal,
    ),
    Rule(
        "batch-sizes",
        "Accuracy over batch sizes",
        "guides 000 and 003; Tango 1998",
        judge_batch_sizes,
    ),
    Rule(
        "throughput-baseline",
        "Throughput against a baseline",
        "guides 000 to 004: the figure of each in baselines.yaml",
        judge_baseline,
    ),
    Rule(
        "throughput-rehearsal",
        "Throughput in a rehearsal",
        "this project: a compiled model is not slower than eager PyTorch",
        judge_eager_speed,
    ),
    Rule(
        "throughput-recorded",
        "Throughput that is only recorded",
        "this project: nothing comparable is published",
        record_speed,
    ),
    Rule("ratio", "Ratios between chips", "guides 000 and 001", judge_ratio),
    Rule(
        "same-artifact",
        "The same artifact",
        "this project: a figure of one file says nothing about another",
        judge_same_artifact,
    ),
)
