"""What a run amounts to: its line, its counts, and whether its records add up.

planned = passed + failed + inconclusive + recorded + known failures + errors + crashed + not run.
A run whose records do not say so, or that have no end, is never shown as good.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from harness.base.terms import OUTCOMES, Outcome
from harness.judge import causes
from harness.records.lines import CaseLine, PlannedCase, RunCheckLine
from harness.records.reader import RunRecords
from harness.report import figures, provenance

Tone = Literal["good", "bad", "warn", "neutral"]
NAMES_IN_HEADLINE = 3
MODELS_IN_NAME = 3


@dataclass(frozen=True)
class Look:
    """How an outcome is shown: `word` and `sign` carry the meaning, the colour only helps."""

    outcome: Outcome
    word: str
    sign: str
    meaning: str

    def counted(self, count: int) -> str:
        """`1 error`, `2 errors`."""
        return f"{count:,} {self.words(count)}"

    def words(self, count: int) -> str:
        """The word for so many cases; most are the same for many."""
        return f"{self.word}s" if count != 1 and self.outcome in _NOUNS else self.word


_NOUNS: tuple[Outcome, ...] = ("error", "known_failure")
LOOKS: dict[Outcome, Look] = {
    "passed": Look("passed", "passed", "\N{CHECK MARK}", "the rule is met"),
    "failed": Look("failed", "failed", "\N{BALLOT X}", "the rule is not met"),
    "inconclusive": Look("inconclusive", "inconclusive", "?", "measured, but nothing is decided"),
    "recorded": Look(
        "recorded",
        "recorded",
        "\N{BLACK CIRCLE}",
        "measured, nothing comparable to hold it against",
    ),
    "known_failure": Look(
        "known_failure", "known failure", "\N{WHITE DIAMOND}", "failed at its declared stage"
    ),
    "error": Look("error", "error", "!", "a stage could not do its work"),
    "crashed": Look("crashed", "crashed", "\N{DOWNWARDS ZIGZAG ARROW}", "the process died"),
    "not_run": Look("not_run", "not run", "\N{EN DASH}", "planned, never measured"),
}

# Outcomes that make a run red, in the order in which a reader wants them.
BAD: tuple[Outcome, ...] = ("failed", "crashed", "error", "not_run")
ATTENTION: tuple[Outcome, ...] = (*BAD, "inconclusive")


@dataclass(frozen=True)
class Headline:
    """The verdict of a run in one line.

    `incomplete`: why the run is not whole. `problems`: what else is wrong with its records.
    `notes`: what a green run does not hide, e.g. a device that was set aside.
    `more`: those of all three that the text does not say.
    """

    tone: Tone
    text: str
    incomplete: tuple[str, ...]
    problems: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def more(self) -> tuple[str, ...]:
        """Reasons to show under the headline."""
        reasons = (*self.incomplete, *self.problems, *self.notes)
        return tuple(reason for reason in reasons if reason not in self.text)


@dataclass(frozen=True)
class Sum:
    """The reconciliation: `text` is the sum written out, `holds` whether it comes out."""

    holds: bool
    text: str


def missing(records: RunRecords) -> list[PlannedCase]:
    """Planned cases without a line."""
    seen = {case.nodeid for case in records.cases}
    return [planned for planned in records.plan if planned.nodeid not in seen]


def cases(count: int) -> str:
    """`1 case`, `2 cases`."""
    return f"{count:,} case" if count == 1 else f"{count:,} cases"


def _were(count: int) -> str:
    return "was" if count == 1 else "were"


def reconcile(records: RunRecords) -> Sum:
    """planned = sum of the outcomes, as the plan and the case lines have it."""
    counts = records.counts()
    planned, total = len(records.plan), sum(counts.values())
    terms = [LOOKS[outcome].counted(counts[outcome]) for outcome in OUTCOMES]
    sign = "=" if planned == total else "\N{NOT EQUAL TO}"
    text = f"{planned:,} planned {sign} {' + '.join(terms)}"
    if planned != total:
        text += f" (sum {total:,})"
    return Sum(planned == total, text)


def incomplete(records: RunRecords) -> list[str]:
    """Why these records are not those of a whole run; empty when they are."""
    reasons: list[str] = []
    counts = records.counts()
    planned, total = len(records.plan), sum(counts.values())
    end = records.end
    if records.run is None:
        reasons.append("the records have no run line")
    if end is None:
        reasons.append("the records have no end line: the run was killed or still goes on")
    if counts["not_run"]:
        reasons.append(f"{counts['not_run']:,} of {cases(planned)} did not run")
    if planned != total:
        reasons.append(f"{planned:,} planned, but {total:,} accounted for")
    if end is not None:
        if end.planned != planned:
            reasons.append(f"the end line says {end.planned:,} planned, the plan has {planned:,}")
        stated = {outcome: end.counts.get(outcome, 0) for outcome in OUTCOMES}
        if end.counts and stated != counts:
            reasons.append("the counts of the end line are not those of the case lines")
        if not end.complete and not reasons:
            reasons.append("the end line says so")
    return reasons


def problems(records: RunRecords) -> list[str]:
    """What is wrong with the records besides missing cases; empty when nothing is."""
    found: list[str] = []
    if records.damaged:
        count = len(records.damaged)
        noun = "line" if count == 1 else "lines"
        found.append(f"{count:,} damaged {noun} in the records could not be read")
    planned = {item.nodeid for item in records.plan}
    unplanned = [case for case in records.cases if case.nodeid not in planned]
    if unplanned:
        count = len(unplanned)
        found.append(f"{cases(count)} ran that {_were(count)} not in the plan")
    kinds = provenance.kinds(records)
    if len(kinds) > 1:
        found.append(f"the records mix provenances: {', '.join(sorted(kinds))}")
    withheld = sum(provenance.across(records, case) for case in records.cases)
    if withheld:
        found.append(
            f"{cases(withheld)} {_were(withheld)} compared across provenances: "
            "the comparison is withheld"
        )
    hidden = sum(provenance.across(records, check) for check in records.checks)
    if hidden:
        noun = "check" if hidden == 1 else "checks"
        found.append(f"{hidden:,} {noun} of the run {_were(hidden)} judged across provenances")
    return found


# What a case that ended in an error is said to be, by the stage; "compile failed" is the pattern.
_ENDED: dict[str, str] = {
    "data": "no usable images",
    "checkpoint": "no usable weights",
    "configuration": "options do not fit",
    "catalog": "the catalog is not right",
    "network": "no such network",
    "infer": "running it failed",
    "eager": "eager PyTorch failed",
    "rehearsal": "stand-ins do not fit",
    "device": "no usable device",
    "store": "the store failed",
    "records": "writing files failed",
    "worker": "the process died",
    "harness": "a fault of the harness",
}


def told_once(cases: Iterable[CaseLine]) -> list[tuple[CaseLine, ...]]:
    """The cases in their order, those that failed for one reason together (`causes.failure`)."""
    groups: dict[Hashable, list[CaseLine]] = {}
    for case in cases:
        reason = causes.failure(case)
        key = (case.outcome, reason) if reason is not None else (case.nodeid, case.outcome, None)
        groups.setdefault(key, []).append(case)
    return [tuple(group) for group in groups.values()]


def name(cases: Sequence[CaseLine | PlannedCase]) -> str:
    """What some cases are called together: `resnest50 bs 1, 4 on ascend310p3`."""
    models = list(dict.fromkeys(figures.line(case.model, 80) for case in cases))
    targets = ", ".join(dict.fromkeys(figures.line(case.target, 60) for case in cases))
    if len(models) > 1:
        left = len(models) - MODELS_IN_NAME
        named = ", ".join(models[:MODELS_IN_NAME]) + (f" and {left:,} more" if left > 0 else "")
        return f"{len(cases):,} cases of {named} on {targets}"
    sizes = ", ".join(str(size) for size in sorted({case.batch_size for case in cases}))
    return f"{models[0]} bs {sizes} on {targets}"


def checks_of(cases: Sequence[CaseLine | PlannedCase]) -> str:
    """`accuracy and throughput`; where not every batch size has both, how many cases have each."""
    counts: dict[str, int] = {}
    of_case: dict[str, set[str]] = {}
    for case in cases:
        counts[case.check] = counts.get(case.check, 0) + 1
        of_case.setdefault(case.case, set()).add(case.check)
    if any(len(mine) < len(counts) for mine in of_case.values()):
        parts = (f"{check} {count:,} time{'s' * (count != 1)}" for check, count in counts.items())
        return ", ".join(parts)
    return " and ".join(counts)


def title(cases: Sequence[CaseLine]) -> str:
    """`resnest50 bs 1, 4 on ascend310p3: compile failed (accuracy and throughput)`: cases that
    one thing happened to.
    """
    ended = _ended(cases[0])
    return f"{name(cases)}{': ' if ended else ''}{ended} ({checks_of(cases)})"


def _ended(case: CaseLine) -> str:
    """`compile failed`; empty for a case that did not end in an error."""
    if case.error is None or case.outcome != "error":
        return ""
    if causes.is_full_disk(case.error):
        return "a disk is full"
    if case.error.type == "NetworkRefused":
        return "the network cannot be built"
    stage = figures.line(case.error.stage, 60)
    return _ENDED.get(stage, f"{stage} failed")


def _named(items: Sequence[CaseLine]) -> str:
    """What the cases are called, in few words: what happened to a case in both checks, or to a
    model at several batch sizes, is one name.
    """
    by_case: dict[Hashable, list[CaseLine]] = {}
    for case in items:
        same = (case.model, case.batch_size, case.target, case.provenance, _ended(case))
        by_case.setdefault(same, []).append(case)
    by_model: dict[Hashable, list[CaseLine]] = {}
    for mine in by_case.values():
        first = mine[0]
        key = (first.model, first.target, first.provenance, _ended(first), checks_of(mine))
        by_model.setdefault(key, []).extend(mine)
    found = list(by_model.values())
    if found and len(told_once(items)) == 1:
        found = [list(items)]  # e.g. images that no model can use
    names = [title(group) for group in found]
    left = len(names) - NAMES_IN_HEADLINE
    text = "; ".join(names[:NAMES_IN_HEADLINE])
    return f"{text}; and {left:,} more" if left > 0 else text


def _ran(records: RunRecords) -> tuple[Tone, str]:
    """Tone and text of the cases that left a line, apart from the state of the records."""
    counts = records.counts()
    groups: dict[Outcome, list[CaseLine]] = {outcome: [] for outcome in OUTCOMES}
    for case in records.cases:
        groups[case.outcome].append(case)
    total = sum(counts.values())

    # Said in front: a case that did not run makes the run incomplete.
    bad = [outcome for outcome in BAD if groups[outcome] and outcome != "not_run"]
    rest = [
        LOOKS[outcome].counted(counts[outcome])
        for outcome in ("inconclusive", "recorded", "known_failure")
        if counts[outcome]
    ]
    passed = f"{counts['passed']:,} of {cases(total)} passed"
    if bad:
        text = ", ".join(LOOKS[outcome].counted(counts[outcome]) for outcome in bad)
        if len(bad) == 1:
            text += f": {_named(groups[bad[0]])}"
        return "bad", f"{text}; {passed}" if counts["passed"] else text
    if counts["inconclusive"]:
        return "warn", f"{', '.join([passed, *rest])}: {_named(groups['inconclusive'])}"
    if counts["passed"]:
        return "good", ", ".join([passed, *rest])
    tail = "" if counts["known_failure"] else ": nothing comparable to hold them against"
    return "neutral", f"none of {cases(total)} passed or failed, {', '.join(rest)}{tail}"


def _checks(records: RunRecords, outcome: Outcome) -> list[str]:
    return [check_name(check) for check in records.checks if check.outcome == outcome]


def check_name(check: RunCheckLine) -> str:
    """What a check of the run is called: `batch sizes of squeezenet1_1 on cpu`."""
    return figures.line(f"{check.name} of {check.subject}", 160)


def _with_checks(records: RunRecords, tone: Tone, text: str) -> tuple[Tone, str]:
    """A check of the run that does not hold is part of its line, as a case is."""
    failed, undecided = _checks(records, "failed"), _checks(records, "inconclusive")
    for names, word in ((failed, "failed"), (undecided, "inconclusive")):
        if names:
            named = ", ".join(names[:NAMES_IN_HEADLINE])
            left = len(names) - NAMES_IN_HEADLINE
            text += f"; {word} over the cases: {named}" + (
                f" and {left:,} more" if left > 0 else ""
            )
    if failed:
        return "bad", text
    if undecided and tone in ("good", "neutral"):
        return "warn", text
    return tone, text


def headline(records: RunRecords) -> Headline:
    """The verdict of the run in one line, with what makes it less than whole in front."""
    why, wrong = incomplete(records), problems(records)
    measured = [case for case in records.cases if case.outcome != "not_run"]
    if not measured:
        tone: Tone = "bad"
        if records.plan:
            count = len(records.plan)
            text = f"ran nothing: none of {count:,} planned {'case' if count == 1 else 'cases'} ran"
        elif records.cases:
            text = f"ran nothing: {cases(len(records.cases))} did not run"
        else:
            text = "ran nothing: no case was planned"
    else:
        tone, text = _with_checks(records, *_ran(records))
        if why:
            tone, text = "bad", f"incomplete run, {'; '.join(why[:2])}. {text[0].upper()}{text[1:]}"
    status = records.end.exit_status if records.end is not None else 0
    remarks = list(wrong)
    if tone == "good" and status:
        remarks.append(f"the run ended with exit status {status}")
    if remarks and measured:
        tone, text = "bad", f"{text}, but {remarks[0]}"
    text = f"{text[0].upper()}{text[1:]}"
    found = provenance.banners(records)
    if found:
        kind = "simulation" if found[0].kind == "simulated" else found[0].kind
        text = f"{kind.capitalize()}: {text[0].lower()}{text[1:]}"
    return Headline(tone, text, tuple(why), tuple(remarks), _set_aside(records))


def _set_aside(records: RunRecords) -> tuple[str, ...]:
    """Devices that failed as devices: a case may have passed on another all the same."""
    found: dict[str, str] = {}
    told = str if provenance.is_real(records) else provenance.silenced
    for case in records.cases:
        failed = case.device.get("failed_before")
        for attempt in failed if isinstance(failed, list) else []:
            if isinstance(attempt, dict) and attempt.get("device"):
                name = figures.line(str(attempt["device"]), 80)
                found.setdefault(name, figures.line(told(str(attempt.get("why", ""))), 200))
    return tuple(
        f"device {name} was set aside for the run: {why or 'it failed'}"
        for name, why in found.items()
    )
