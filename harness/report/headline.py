"""What a run amounts to: its line, its counts, and whether its records add up.

planned = passed + failed + inconclusive + recorded + known failures + errors + crashed + not run.
A run whose records do not say so, or that have no end, is never shown as good.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.base.terms import OUTCOMES, Outcome
from harness.judge.causes import excused
from harness.pages import formats
from harness.pages.formats import plural
from harness.pages.looks import LOOKS, Tone
from harness.pages.words import say
from harness.report.findings import Why, named, subjects
from harness.report.provenance import Shown, key_of

_RED: tuple[Outcome, ...] = ("failed", "crashed", "error")
_TONES: tuple[Tone, ...] = ("neutral", "good", "warn", "bad")
_WORDS: dict[Tone, str] = {
    "good": "Passed",
    "bad": "Failed",
    "warn": "Undecided",
    "neutral": "Recorded only",
}


@dataclass(frozen=True)
class Headline:
    """The verdict of a run: one `word`, and one line. `more`: what else is not as it should be,
    and what a green run does not hide, e.g. a device that was set aside.
    """

    word: str
    tone: Tone
    text: str
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
    terms = " + ".join(LOOKS[outcome].counted(counts[outcome]) for outcome in OUTCOMES)
    text = say("{n} planned", n=f"{planned:,}")
    if planned == total:
        return Sum(True, f"{text} = {terms}")
    total_said = say("sum {n}", n=f"{total:,}")
    return Sum(False, f"{text} \N{NOT EQUAL TO} {terms} ({total_said})")


def incomplete(shown: Shown) -> list[str]:
    """Return why these records are not those of a whole run; nothing when they are."""
    records = shown.source
    counts, end = records.counts(), records.end
    planned, total, lost = len(records.plan), sum(counts.values()), counts["not_run"]
    counted = {"planned": f"{planned:,}", "total": f"{total:,}"}
    did_not_run = say("{n} of {cases} did not run", n=f"{lost:,}", cases=plural(planned, "case"))
    reasons = {
        say("the records have no run line"): records.run is None,
        say("the records have no end line: the run was killed or still goes on"): end is None,
        did_not_run: lost > 0,
        say("{planned} planned, but {total} accounted for", **counted): planned != total,
        say("the end line counts other cases than the plan and the case lines have"): (
            end is not None and not records.end_agrees()
        ),
    }
    found = [reason for reason, holds in reasons.items() if holds]
    return found if found or end is None or end.complete else [say("the end line says so")]


def problems(shown: Shown) -> list[str]:
    """Return what is wrong with the records besides missing cases; nothing when all is well."""
    records = shown.source
    planned = {item.nodeid for item in records.plan}
    unplanned = sum(case.nodeid not in planned for case in records.cases)
    damaged, refused = len(records.damaged), shown.refused
    kinds = ", ".join(sorted(shown.kinds))
    of = {
        "damaged": plural(damaged, "damaged line"),
        "cases": plural(unplanned, "case"),
        "comparisons": plural(refused, "comparison"),
    }
    reasons = {
        say("{damaged} in the records could not be read", **of): damaged,
        say("{cases} ran outside of the plan", **of): unplanned,
        say("the records mix provenances: {kinds}", kinds=kinds): len(shown.kinds) > 1,
        say("{comparisons} across provenances withheld", **of): refused,
    }
    return [reason for reason, holds in reasons.items() if holds]


def headline(shown: Shown, whys: Sequence[Why]) -> Headline:
    """Return the verdict of the run, what makes it less than whole in front."""
    end, run = shown.records.end, shown.records.run
    why, wrong = incomplete(shown), problems(shown)
    if any(case.outcome != "not_run" for case in shown.records.cases):
        tone, text = _ran(shown, whys)
        if why:
            tone = "bad"
            text = say("incomplete run, {why}. {text}", why=why.pop(0), text=text)
    elif shown.records.cases:
        count = plural(len(shown.records.cases), "planned case")
        tone, text = "bad", say("ran nothing: none of {cases} ran", cases=count)
    elif run is not None and run.selection:
        tone, text = "neutral", say("this shard of the selection has no case")
    else:
        tone, text = "bad", say("ran nothing: no case was planned")
    if tone == "good" and end is not None and end.exit_status:
        wrong.append(say("the run ended with exit status {code}", code=end.exit_status))
    if wrong:
        tone, text = "bad", say("{text}, but {wrong}", text=text, wrong=wrong.pop(0))
    if shown.banners:
        text = f"{say(shown.banners[0].noun)}{say(': ')}{text}"
    notes = (*(run.notes if run is not None else ()), *_undecided(shown))
    notes += (*_ended_and_tried_again(shown), *_set_aside(shown))
    word = _WORDS[tone]
    if tone == "bad" and shown.real:
        word = "Not accepted"
    elif tone == "good" and _whole(shown):
        word = "Accepted"
    elif not shown.records.cases and tone == "neutral":
        word = "Empty"
    return Headline(say(word), tone, f"{text[0].upper()}{text[1:]}", (*why, *wrong, *notes))


def _whole(shown: Shown) -> bool:
    """Return whether every model passed on the whole data set: only then is it "accepted".

    In a run that is not real no published figure is left, so that nothing is.
    """
    scored = {
        case.model
        for case in shown.records.cases
        if case.reference is not None and case.reference.kind == "published"
    }
    kinds = {case.outcome for case in shown.records.cases}
    return kinds == {"passed"} and scored == {c.model for c in shown.records.cases}


def _ran(shown: Shown, whys: Sequence[Why]) -> tuple[Tone, str]:
    """Tone and text of the cases and checks, apart from the state of the records."""
    tone: Tone
    counts = shown.records.counts()

    def counted(*outcomes: Outcome) -> list[str]:
        return [LOOKS[one].counted(counts[one]) for one in outcomes if counts[one]]

    # A case that did not run is said in front.
    red = counted(*_RED)
    all_cases = plural(sum(counts.values()), "case")
    passed = say("{n} of {cases} passed", n=f"{counts['passed']:,}", cases=all_cases)
    look_at = _RED if red else ("inconclusive",)
    entries = [entry for why in whys for entry in why.entries if entry.cases]
    titles = [entry.title for entry in entries if entry.look.outcome in look_at]
    name = f"{say(': ')}{titles[0]}" if len(titles) == 1 else ""  # several are listed below it
    if red:
        tone, text = "bad", f"{say(', ').join(red)}{name}{say('; ')}{passed}"
    else:
        rest = counted("recorded", "known_failure", "inconclusive")
        tone = "warn" if counts["inconclusive"] else "good" if counts["passed"] else "neutral"
        text = f"{say(', ').join([passed, *rest])}{name}"
    worst: dict[Outcome, Tone] = {"failed": "bad", "inconclusive": "warn"}
    for outcome, checks_tone in worst.items():
        checks = [key_of(check) for check in shown.records.checks if check.outcome == outcome]
        if checks:
            of = {"outcome": LOOKS[outcome].said, "checks": formats.line(named(checks))}
            text += say("; {outcome} over the cases: {checks}", **of)
            tone = max(tone, checks_tone, key=_TONES.index)
    return tone, text


def _undecided(shown: Shown) -> tuple[str, ...]:
    """Name the cases that did not pass, and for which the run does not fail."""
    names = named(subjects(excused(shown.records.cases)))
    text = say("undecided: {names}; a rehearsal does not fail for it", names=names)
    return (text,) if names else ()


def _ended_and_tried_again(shown: Shown) -> tuple[str, ...]:
    """Cases that the machine ended once: they may have passed then all the same."""
    cases = [case for case in shown.records.cases if not all(one.aside for one in case.attempts)]
    text = say(
        "a process was killed, or the host refused something; tried once more: {names}",
        names=named(subjects(cases)),
    )
    return (text,) if cases else ()


def _set_aside(shown: Shown) -> tuple[str, ...]:
    """Devices that failed as devices: a case may have passed on another all the same."""
    tries = [one for case in shown.records.cases for one in case.attempts]
    attempts = {one.device: one for one in tries if one.aside}
    return tuple(
        say(
            "device {name} was set aside for the run: {why}",
            name=formats.line(name, 80),
            why=formats.line(one.why or one.error, 200),
        )
        for name, one in attempts.items()
    )
