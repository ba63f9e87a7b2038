"""What cases are called together, so that one thing that happened to many is said once."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence

from harness.base.stages import Stage
from harness.judge.causes import failure
from harness.pages import formats
from harness.records.lines import CaseLine

NAMES_SHOWN = 3

# What a case that ended in an error is said to be; "compile failed" is the pattern.
_ENDED: dict[Stage, str] = {
    Stage.DATA: "no usable images",
    Stage.CHECKPOINT: "no usable weights",
    Stage.CONFIGURATION: "options do not fit",
    Stage.CATALOG: "the catalog is not right",
    Stage.NETWORK: "no such network",
    Stage.INFER: "running it failed",
    Stage.EAGER: "eager PyTorch failed",
    Stage.REHEARSAL: "stand-ins do not fit",
    Stage.DEVICE: "no usable device",
    Stage.STORE: "the store failed",
    Stage.RECORDS: "writing files failed",
    Stage.WORKER: "the process died",
    Stage.HARNESS: "a fault of the harness",
}


def same_failure(cases: Iterable[CaseLine]) -> list[list[CaseLine]]:
    """Group cases that failed for one reason (`causes.failure`), in their order."""
    groups: dict[Hashable, list[CaseLine]] = {}
    for case in cases:
        reason = failure(case)
        key = (case.outcome, reason) if reason is not None else (case.nodeid, case.outcome, None)
        groups.setdefault(key, []).append(case)
    return list(groups.values())


def named(names: Sequence[str], most: int = NAMES_SHOWN, join: str = ", ") -> str:
    """`a, b, c and 2 more`."""
    left = len(names) - most
    return join.join(names[:most]) + (f" and {left:,} more" if left > 0 else "")


def name(cases: Sequence[CaseLine]) -> str:
    """`resnest50 bs 1, 4 on ascend310p3`, or `5 cases of a, b, c and 2 more on cpu`."""
    models = list(dict.fromkeys(formats.line(case.model, 80) for case in cases))
    targets = ", ".join(dict.fromkeys(formats.line(case.target, 60) for case in cases))
    if len(models) > 1:
        return f"{len(cases):,} cases of {named(models)} on {targets}"
    sizes = ", ".join(str(size) for size in sorted({case.batch_size for case in cases}))
    return f"{models[0]} bs {sizes} on {targets}"


def checks_of(cases: Sequence[CaseLine]) -> str:
    """`accuracy and throughput`; where not every batch size has both, how many cases have each."""
    counts: dict[str, int] = {}
    of_case: dict[str, set[str]] = {}
    for case in cases:
        counts[case.check] = counts.get(case.check, 0) + 1
        of_case.setdefault(case.case, set()).add(case.check)
    if any(len(checks) < len(counts) for checks in of_case.values()):
        return ", ".join(f"{check} {formats.plural(n, 'time')}" for check, n in counts.items())
    return " and ".join(counts)


def title(cases: Sequence[CaseLine]) -> str:
    """`resnest50 bs 1, 4 on ascend310p3: compile failed (accuracy and throughput)`."""
    how = ended(cases[0])
    return f"{name(cases)}{': ' if how else ''}{how} ({checks_of(cases)})"


def ended(case: CaseLine) -> str:
    """`compile failed`; empty for a case that did not end in an error."""
    error = case.error
    if error is None or case.outcome != "error":
        return ""
    if error.full_disk:
        return "a disk is full"
    if error.type == "NetworkRefused":
        return "the network cannot be built"
    return _ENDED.get(error.stage, f"{error.stage} failed")


def titles(cases: Sequence[CaseLine]) -> str:
    """Name some cases in a headline: what happened to a model in both checks or at several batch
    sizes is one name.
    """
    by_case: dict[Hashable, list[CaseLine]] = {}
    for case in cases:
        same = (case.model, case.batch_size, case.target, case.provenance, ended(case))
        by_case.setdefault(same, []).append(case)
    by_model: dict[Hashable, list[CaseLine]] = {}
    for group in by_case.values():
        first = group[0]
        key = (first.model, first.target, first.provenance, ended(first), checks_of(group))
        by_model.setdefault(key, []).extend(group)
    groups = list(by_model.values())
    if groups and len(same_failure(cases)) == 1:
        groups = [list(cases)]  # e.g. images that no model can use
    left = len(groups) - NAMES_SHOWN
    text = "; ".join(title(group) for group in groups[:NAMES_SHOWN])
    return f"{text}; and {left:,} more" if left > 0 else text


def subjects(cases: Sequence[CaseLine]) -> list[str]:
    """`accuracy and throughput of resnest50-bs4-ascend310p3`: the names that `-k` and logs have."""
    by_case: dict[str, list[CaseLine]] = {}
    for case in cases:
        by_case.setdefault(case.case, []).append(case)
    return [f"{checks_of(group)} of {formats.line(case, 120)}" for case, group in by_case.items()]
