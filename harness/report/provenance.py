"""What a report may say about a run that is not real.

A rehearsal uses stand-in weights on generated images, a simulated run a stand-in toolchain.
Neither says anything about a published figure, so a report of one holds no such figure, no word
of acceptance, and a banner that is seen on every screen and on every printed page. The records
should not hold such statements in the first place; here they are withheld if they do, with a
note, and the run is then not shown as green.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from harness.base.terms import Provenance
from harness.records.lines import CaseLine, RunCheckLine
from harness.records.reader import RunRecords

WITHHELD = "[withheld]"
# What a figure of a run that is not real may be held against.
_OWN_REFERENCES = frozenset({"eager", "eager-speed", "batch-size", "none", ""})
_VERDICT_WORD = re.compile("accepted", re.IGNORECASE)
_FOREIGN_FIGURE = re.compile(
    r"(?<!\bno )(?<!\bany )\b(?:published|baseline)\b[^.;\d]{0,24}\d"
    r"|\d\s*(?:%|fps|frames a second)?\s*\(?(?:as |the )?\b(?:published|baseline)\b"
    r"|\btop-[1-5]\b[^.;]{0,12}\bpublished\b",
    re.IGNORECASE,
)
_FOREIGN_LABEL = re.compile(r"published|baseline|accepted", re.IGNORECASE)


@dataclass(frozen=True)
class Banner:
    """A bar at both ends of the page. `word` is shouted, `sentence` explains it."""

    kind: Provenance
    word: str
    sentence: str

    @property
    def text(self) -> str:
        """The whole banner on one line."""
        return f"{self.word} \N{EM DASH} {self.sentence}"


_BANNERS: dict[Provenance, Banner] = {
    "rehearsal": Banner(
        "rehearsal",
        "REHEARSAL",
        "generated images and stand-in weights. Says nothing about any published figure.",
    ),
    "simulated": Banner(
        "simulated",
        "SIMULATED NPU",
        "a stand-in toolchain, no NPU was used. Says nothing about any NPU or published figure.",
    ),
}


def of_case(records: RunRecords, case: CaseLine | RunCheckLine) -> Provenance:
    """The provenance of a case or check; nothing is real in a run that is not."""
    if case.provenance == "real" and records.run is not None:
        return records.run.provenance
    return case.provenance


def kinds(records: RunRecords) -> set[Provenance]:
    """Every provenance in the records; empty when neither a run line nor a case was read."""
    found: set[Provenance] = {case.provenance for case in records.cases}
    found |= {check.provenance for check in records.checks}
    if records.run is not None:
        found.add(records.run.provenance)
    return found


def banners(records: RunRecords) -> list[Banner]:
    """The banners that the page of these records must carry."""
    found = kinds(records)
    return [banner for kind, banner in _BANNERS.items() if kind in found]


def why_withheld(provenance: Provenance, case: CaseLine | RunCheckLine) -> str:
    """Why what the case or check was held against must not be shown; empty when it may be."""
    reference = case.reference
    if reference is None:
        return ""
    if simulated_figure(provenance, case):
        return (
            "It was held against a figure that the catalog marks as simulated. Such a figure is "
            "not shown: on a page it could be taken for a published one."
        )
    if provenance != "real" and reference.kind not in _OWN_REFERENCES:
        return (
            f"The record of this {provenance} {_what(case)} names a reference of kind "
            f"'{reference.kind}'. It is withheld: a {provenance} run says nothing about it."
        )
    if reference.provenance != provenance:
        return (
            f"The measurement is {provenance} and its reference {reference.provenance}. "
            "The comparison is withheld: judging across provenances is refused."
        )
    return ""


def simulated_figure(provenance: Provenance, case: CaseLine | RunCheckLine) -> bool:
    """Whether a simulated case was judged by a simulated figure: allowed, but not shown."""
    reference = case.reference
    return (
        isinstance(case, CaseLine)
        and reference is not None
        and reference.kind == "baseline"
        and provenance == reference.provenance == "simulated"
    )


def across(records: RunRecords, case: CaseLine | RunCheckLine) -> bool:
    """Whether a case or check was compared with what it must never be compared with."""
    kind = of_case(records, case)
    return bool(why_withheld(kind, case)) and not simulated_figure(kind, case)


def _what(case: CaseLine | RunCheckLine) -> str:
    return "case" if isinstance(case, CaseLine) else "check"


def claims(text: str) -> bool:
    """True for a sentence that states, or could be taken to state, a figure of others."""
    return bool(_VERDICT_WORD.search(text) or _FOREIGN_FIGURE.search(text))


def silenced(text: str) -> str:
    """A text of a tool for a page that is not real: lines that state a figure of others go."""
    if not claims(text):
        return text
    text = "\n".join(WITHHELD if claims(line) else line for line in text.split("\n"))
    return WITHHELD if claims(text) else text  # it was stated over the end of a line


def foreign(label: str) -> bool:
    """True for the label of a figure that belongs to others."""
    return bool(_FOREIGN_LABEL.search(label))


def is_real(records: RunRecords) -> bool:
    """True when everything in the records is real, or nothing says otherwise."""
    return kinds(records) <= {"real"}


def scrub(text: str) -> str:
    """The last net under a page that is not real: the word of a verdict on real weights goes."""
    return _VERDICT_WORD.sub(WITHHELD, text)


def scrub_lines(lines: Iterable[str]) -> list[str]:
    """`scrub` for each line."""
    return [scrub(line) for line in lines]
