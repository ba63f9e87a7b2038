"""What a run amounts to: its line, its counts, and whether its records add up.

planned = passed + failed + inconclusive + recorded + known failures + errors + crashed + not run.
A run whose records do not say so, or that have no end, is never shown as good.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.base.terms import OUTCOMES, Outcome
from harness.pages import formats
from harness.pages.formats import plural
from harness.pages.looks import LOOKS, Tone
from harness.report import findings
from harness.report.provenance import Shown, key_of

_RED: tuple[Outcome, ...] = ("failed", "crashed", "error")
_TONES: tuple[Tone, ...] = ("neutral", "good", "warn", "bad")


@dataclass(frozen=True)
class Headline:
    """The verdict of a run in one line. `more`: what else is not as it should be, and what a green
    run does not hide, e.g. a device that was set aside.
    """

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
    terms = [LOOKS[outcome].counted(counts[outcome]) for outcome in OUTCOMES]
    sign = "=" if planned == total else "\N{NOT EQUAL TO}"
    text = f"{planned:,} planned {sign} {' + '.join(terms)}"
    if planned != total:
        text += f" (sum {total:,})"
    return Sum(planned == total, text)


def incomplete(shown: Shown) -> list[str]:
    """Return why these records are not those of a whole run; nothing when they are."""
    records = shown.source
    counts, end = records.counts(), records.end
    planned, total, lost = len(records.plan), sum(counts.values()), counts["not_run"]
    reasons = {
        "the records have no run line": records.run is None,
        "the records have no end line: the run was killed or still goes on": end is None,
        f"{lost:,} of {plural(planned, 'case')} did not run": lost > 0,
        f"{planned:,} planned, but {total:,} accounted for": planned != total,
        "the end line counts other cases than the plan and the case lines have": (
            end is not None and not records.end_agrees()
        ),
    }
    found = [reason for reason, holds in reasons.items() if holds]
    return found if found or end is None or end.complete else ["the end line says so"]


def problems(shown: Shown) -> list[str]:
    """Return what is wrong with the records besides missing cases; nothing when all is well."""
    records = shown.source
    planned = {item.nodeid for item in records.plan}
    unplanned = sum(case.nodeid not in planned for case in records.cases)
    damaged, refused = len(records.damaged), shown.refused
    reasons = {
        f"{plural(damaged, 'damaged line')} in the records could not be read": damaged,
        f"{plural(unplanned, 'case')} ran outside of the plan": unplanned,
        f"the records mix provenances: {', '.join(sorted(shown.kinds))}": len(shown.kinds) > 1,
        f"{plural(refused, 'comparison')} across provenances withheld": refused,
    }
    return [reason for reason, holds in reasons.items() if holds]


def headline(shown: Shown) -> Headline:
    """Return the verdict of the run in one line, what makes it less than whole in front."""
    end, run = shown.records.end, shown.records.run
    why, wrong = incomplete(shown), problems(shown)
    if any(case.outcome != "not_run" for case in shown.records.cases):
        tone, text = _ran(shown)
        if why:
            tone, text = "bad", f"incomplete run, {why.pop(0)}. {text}"
    elif shown.records.cases:
        count = plural(len(shown.records.cases), "planned case")
        tone, text = "bad", f"ran nothing: none of {count} ran"
    else:
        tone, text = "bad", "ran nothing: no case was planned"
    if tone == "good" and end is not None and end.exit_status:
        wrong.append(f"the run ended with exit status {end.exit_status}")
    if wrong:
        tone, text = "bad", f"{text}, but {wrong.pop(0)}"
    if shown.banners:
        text = f"{shown.banners[0].noun}: {text}"
    notes = (*(run.notes if run is not None else ()), *_set_aside(shown))
    return Headline(tone, f"{text[0].upper()}{text[1:]}", (*why, *wrong, *notes))


def _ran(shown: Shown) -> tuple[Tone, str]:
    """Tone and text of the cases and checks, apart from the state of the records."""
    tone: Tone
    counts = shown.records.counts()

    def counted(*outcomes: Outcome) -> list[str]:
        return [LOOKS[one].counted(counts[one]) for one in outcomes if counts[one]]

    # A case that did not run is said in front.
    red = counted(*_RED)
    passed = f"{counts['passed']:,} of {plural(sum(counts.values()), 'case')} passed"
    look_at = _RED if red else ("inconclusive",)
    titles = [one.title for one in findings.entries(shown) if one.look.outcome in look_at]
    name = f": {titles[0]}" if len(titles) == 1 else ""  # several are listed below it
    if red:
        tone, text = "bad", f"{', '.join(red)}{name}; {passed}"
    else:
        rest = counted("recorded", "known_failure", "inconclusive")
        tone = "warn" if counts["inconclusive"] else "good" if counts["passed"] else "neutral"
        text = f"{', '.join([passed, *rest])}{name}"
    worst: dict[Outcome, Tone] = {"failed": "bad", "inconclusive": "warn"}
    for outcome, checks_tone in worst.items():
        checks = [key_of(check) for check in shown.records.checks if check.outcome == outcome]
        if checks:
            text += f"; {outcome} over the cases: {formats.line(findings.named(checks))}"
            tone = max(tone, checks_tone, key=_TONES.index)
    return tone, text


def _set_aside(shown: Shown) -> tuple[str, ...]:
    """Devices that failed as devices: a case may have passed on another all the same."""
    attempts = {one.device: one for case in shown.records.cases for one in case.attempts}
    return tuple(
        f"device {formats.line(name, 80)} was set aside for the run: "
        f"{formats.line(one.why or one.error, 200)}"
        for name, one in attempts.items()
    )
