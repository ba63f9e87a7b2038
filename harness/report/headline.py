"""What a run amounts to: its line, its counts, and whether its records add up.

planned = passed + failed + inconclusive + recorded + known failures + errors + crashed + not run.
A run whose records do not say so, or that have no end, is never shown as good.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from harness.records import OUTCOMES, CaseLine, Outcome, PlannedCase, RunRecords
from harness.report import figures, provenance

Tone = Literal["good", "bad", "warn", "neutral"]
NAMES_IN_HEADLINE = 3


@dataclass(frozen=True)
class Look:
    """How an outcome is shown: `word` and `sign` carry the meaning, the colour only helps."""

    outcome: Outcome
    word: str
    sign: str
    meaning: str


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
    `more`: those of both that the text does not say.
    """

    tone: Tone
    text: str
    incomplete: tuple[str, ...]
    problems: tuple[str, ...]

    @property
    def more(self) -> tuple[str, ...]:
        """Reasons to show under the headline."""
        reasons = (*self.incomplete, *self.problems)
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


def _cases(count: int) -> str:
    return f"{count:,} case" if count == 1 else f"{count:,} cases"


def _were(count: int) -> str:
    return "was" if count == 1 else "were"


def reconcile(records: RunRecords) -> Sum:
    """planned = sum of the outcomes, as the plan and the case lines have it."""
    counts = records.counts()
    planned, total = len(records.plan), sum(counts.values())
    terms = [f"{counts[outcome]:,} {LOOKS[outcome].word}" for outcome in OUTCOMES]
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
        reasons.append(f"{counts['not_run']:,} of {_cases(planned)} did not run")
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
        found.append(f"{_cases(count)} ran that {_were(count)} not in the plan")
    kinds = provenance.kinds(records)
    if len(kinds) > 1:
        found.append(f"the records mix provenances: {', '.join(sorted(kinds))}")
    withheld = sum(
        1
        for case in records.cases
        if provenance.why_withheld(provenance.of_case(records, case), case)
    )
    if withheld:
        found.append(
            f"{_cases(withheld)} {_were(withheld)} compared across provenances: "
            "the comparison is withheld"
        )
    return found


def _name(case: CaseLine | PlannedCase) -> str:
    return f"{figures.line(case.case, 80)} ({case.check})"


def _named(items: Sequence[CaseLine | PlannedCase]) -> str:
    names = ", ".join(_name(item) for item in items[:NAMES_IN_HEADLINE])
    left = len(items) - NAMES_IN_HEADLINE
    return f"{names} and {left:,} more" if left > 0 else names


def _ran(records: RunRecords) -> tuple[Tone, str]:
    """Tone and text of the cases that left a line, apart from the state of the records."""
    counts = records.counts()
    groups: dict[Outcome, list[CaseLine | PlannedCase]] = {outcome: [] for outcome in OUTCOMES}
    for case in records.cases:
        groups[case.outcome].append(case)
    total = sum(counts.values())

    # Said in front: a case that did not run makes the run incomplete.
    bad = [outcome for outcome in BAD if groups[outcome] and outcome != "not_run"]
    rest = [
        f"{counts[outcome]:,} {LOOKS[outcome].word}"
        for outcome in ("inconclusive", "recorded", "known_failure")
        if counts[outcome]
    ]
    passed = f"{counts['passed']:,} of {_cases(total)} passed"
    if bad:
        text = ", ".join(f"{counts[outcome]:,} {LOOKS[outcome].word}" for outcome in bad)
        if len(bad) == 1:
            text += f": {_named(groups[bad[0]])}"
        return "bad", f"{text}; {passed}" if counts["passed"] else text
    if counts["inconclusive"]:
        return "warn", f"{', '.join([passed, *rest])}: {_named(groups['inconclusive'])}"
    if counts["passed"]:
        return "good", ", ".join([passed, *rest])
    tail = "" if counts["known_failure"] else ": nothing comparable to hold them against"
    return "neutral", f"none of {_cases(total)} passed or failed, {', '.join(rest)}{tail}"


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
            text = f"ran nothing: {_cases(len(records.cases))} did not run"
        else:
            text = "ran nothing: no case was planned"
    else:
        tone, text = _ran(records)
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
    return Headline(tone, text, tuple(why), tuple(remarks))
