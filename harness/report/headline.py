"""What a run amounts to: its line, its counts, and whether its records add up.

planned = passed + failed + inconclusive + recorded + known failures + errors + crashed + not run.
A run whose records do not say so, or that have no end, is never shown as good.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.base.terms import OUTCOMES, Outcome
from harness.pages import formats
from harness.pages.formats import plural
from harness.pages.looks import BAD, LOOKS, Tone
from harness.report import naming
from harness.report.provenance import Shown, key_of


@dataclass(frozen=True)
class Headline:
    """The verdict of a run in one line.

    `incomplete`: why the run is not whole. `problems`: what else is wrong with its records.
    `notes`: what a green run does not hide, e.g. a device that was set aside. `more`: those of all
    three that the text does not say.
    """

    tone: Tone
    text: str
    incomplete: tuple[str, ...]
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    more: tuple[str, ...]


@dataclass(frozen=True)
class Sum:
    """The reconciliation: `text` is the sum written out, `holds` whether it comes out."""

    holds: bool
    text: str


def reconcile(shown: Shown) -> Sum:
    """Return planned = sum of the outcomes, as the plan and the case lines have it."""
    counts = shown.records.counts()
    planned, total = len(shown.records.plan), sum(counts.values())
    terms = [LOOKS[outcome].counted(counts[outcome]) for outcome in OUTCOMES]
    sign = "=" if planned == total else "\N{NOT EQUAL TO}"
    text = f"{planned:,} planned {sign} {' + '.join(terms)}"
    if planned != total:
        text += f" (sum {total:,})"
    return Sum(planned == total, text)


def incomplete(shown: Shown) -> tuple[str, ...]:
    """Return why these records are not those of a whole run; nothing when they are."""
    records = shown.source
    counts, end = records.counts(), records.end
    planned, total = len(records.plan), sum(counts.values())
    reasons: list[str] = []
    if records.run is None:
        reasons.append("the records have no run line")
    if end is None:
        reasons.append("the records have no end line: the run was killed or still goes on")
    if counts["not_run"]:
        reasons.append(f"{counts['not_run']:,} of {plural(planned, 'case')} did not run")
    if planned != total:
        reasons.append(f"{planned:,} planned, but {total:,} accounted for")
    if end is not None:
        if end.planned != planned:
            reasons.append(f"the end line says {end.planned:,} planned, the plan has {planned:,}")
        if not records.end_agrees() and end.planned == planned:
            reasons.append("the counts of the end line are not those of the case lines")
        if not end.complete and not reasons:
            reasons.append("the end line says so")
    return tuple(reasons)


def problems(shown: Shown) -> tuple[str, ...]:
    """Return what is wrong with the records besides missing cases; nothing when all is well."""
    records = shown.source
    found: list[str] = []
    if records.damaged:
        count = plural(len(records.damaged), "damaged line")
        found.append(f"{count} in the records could not be read")
    planned = {item.nodeid for item in records.plan}
    unplanned = sum(case.nodeid not in planned for case in records.cases)
    if unplanned:
        found.append(f"{plural(unplanned, 'case')} ran that {were(unplanned)} not in the plan")
    if len(shown.kinds) > 1:
        found.append(f"the records mix provenances: {', '.join(sorted(shown.kinds))}")
    if refused := shown.refused_cases:
        found.append(
            f"{plural(refused, 'case')} {were(refused)} compared across provenances: the "
            "comparison is withheld"
        )
    if refused := shown.refused_checks:
        found.append(
            f"{plural(refused, 'check')} of the run {were(refused)} judged across provenances"
        )
    return tuple(found)


def were(count: int) -> str:
    return "was" if count == 1 else "were"


def headline(shown: Shown) -> Headline:
    """Return the verdict of the run in one line, what makes it less than whole in front."""
    cases, end = shown.records.cases, shown.records.end
    why, wrong = incomplete(shown), list(problems(shown))
    measured = any(case.outcome != "not_run" for case in cases)
    tone, text = _with_checks(shown, *_ran(shown)) if measured else _nothing(shown)
    said = set(why[:2]) if measured else set()
    if measured and why:
        tone, text = "bad", f"incomplete run, {'; '.join(why[:2])}. {_capital(text)}"
    if tone == "good" and end is not None and end.exit_status:
        wrong.append(f"the run ended with exit status {end.exit_status}")
    if measured and wrong:
        tone, text = "bad", f"{text}, but {wrong[0]}"
        said.add(wrong[0])
    text = _capital(text)
    if shown.banners:
        kind = "Simulation" if shown.banners[0].kind == "simulated" else "Rehearsal"
        text = f"{kind}: {text[0].lower()}{text[1:]}"
    run = shown.records.run
    notes = (*(run.notes if run is not None else ()), *_set_aside(shown))
    more = tuple(reason for reason in (*why, *wrong, *notes) if reason not in said)
    return Headline(tone, text, why, tuple(wrong), notes, more)


def _capital(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}"


def _nothing(shown: Shown) -> tuple[Tone, str]:
    records = shown.source
    if records.plan:
        count = len(records.plan)
        return "bad", f"ran nothing: none of {count:,} planned {_cases(count)} ran"
    if records.cases:
        return "bad", f"ran nothing: {plural(len(records.cases), 'case')} did not run"
    return "bad", "ran nothing: no case was planned"


def _cases(count: int) -> str:
    return "case" if count == 1 else "cases"


def _ran(shown: Shown) -> tuple[Tone, str]:
    """Tone and text of the cases, apart from the state of the records."""
    cases, counts = shown.records.cases, shown.records.counts()
    total = sum(counts.values())
    # Said in front: a case that did not run makes the run incomplete.
    bad = [outcome for outcome in BAD if counts[outcome] and outcome != "not_run"]
    others: tuple[Outcome, ...] = ("inconclusive", "recorded", "known_failure")
    rest = [LOOKS[outcome].counted(counts[outcome]) for outcome in others if counts[outcome]]
    passed = f"{counts['passed']:,} of {plural(total, 'case')} passed"

    def named(outcome: Outcome) -> str:
        return naming.titles([case for case in cases if case.outcome == outcome])

    if bad:
        text = ", ".join(LOOKS[outcome].counted(counts[outcome]) for outcome in bad)
        if len(bad) == 1:
            text += f": {named(bad[0])}"
        return "bad", f"{text}; {passed}" if counts["passed"] else text
    if counts["inconclusive"]:
        return "warn", f"{', '.join([passed, *rest])}: {named('inconclusive')}"
    if counts["passed"]:
        return "good", ", ".join([passed, *rest])
    tail = "" if counts["known_failure"] else ": nothing comparable to hold them against"
    return "neutral", f"none of {plural(total, 'case')} passed or failed, {', '.join(rest)}{tail}"


def _with_checks(shown: Shown, tone: Tone, text: str) -> tuple[Tone, str]:
    """A check of the run that does not hold is part of its line, as a case is."""
    by_outcome: dict[str, list[str]] = {"failed": [], "inconclusive": []}
    for check in shown.records.checks:
        if check.outcome in by_outcome:
            by_outcome[check.outcome].append(formats.line(key_of(check), 160))
    for outcome, names in by_outcome.items():
        if names:
            text += f"; {outcome} over the cases: {naming.named(names)}"
    if by_outcome["failed"]:
        return "bad", text
    if by_outcome["inconclusive"] and tone in ("good", "neutral"):
        return "warn", text
    return tone, text


def _set_aside(shown: Shown) -> tuple[str, ...]:
    """Devices that failed as devices: a case may have passed on another all the same."""
    found: dict[str, str] = {}
    for case in shown.records.cases:
        for attempt in case.attempts:
            found.setdefault(attempt.device, attempt.why)
    return tuple(
        f"device {formats.line(name, 80)} was set aside for the run: "
        f"{formats.line(why, 200) or 'it failed'}"
        for name, why in found.items()
    )


def done(counts: dict[str, int]) -> Sequence[str]:
    """`3 passed`, `1 error`: the outcomes of what ran."""
    return [
        look.counted(counts[outcome])
        for outcome, look in LOOKS.items()
        if counts[outcome] and outcome != "not_run"
    ]
