"""How an outcome and a provenance are shown; words and signs carry the meaning, colours help."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from harness.base.terms import Outcome, Provenance
from harness.pages.words import language, say

Tone = Literal["good", "bad", "warn", "neutral"]


@dataclass(frozen=True)
class Look:
    """Word, sign and meaning of an outcome."""

    outcome: Outcome
    word: str
    sign: str
    meaning: str

    @property
    def said(self) -> str:
        """The word in the page's language."""
        return say(self.word)

    def counted(self, count: int) -> str:
        """`1 error`, `2 errors`, `2 failed`."""
        return say("{count} {word}", count=f"{count:,}", word=self.words(count))

    def words(self, count: int) -> str:
        """Return the word for so many cases."""
        many = count != 1 and self.outcome in _NOUNS and language() == "en"
        return f"{self.word}s" if many else self.said


_NOUNS: tuple[Outcome, ...] = ("error", "known_failure")
_ALL: tuple[Look, ...] = (
    Look("passed", "passed", "\N{CHECK MARK}", "the rule is met"),
    Look("failed", "failed", "\N{BALLOT X}", "the rule is not met"),
    Look("inconclusive", "inconclusive", "?", "measured, but nothing is decided"),
    Look("recorded", "recorded", "\N{BLACK CIRCLE}", "measured, nothing comparable exists"),
    Look("known_failure", "known failure", "\N{WHITE DIAMOND}", "failed at its declared stage"),
    Look("error", "error", "!", "a stage could not do its work"),
    Look("crashed", "crashed", "\N{DOWNWARDS ZIGZAG ARROW}", "the process died"),
    Look("not_run", "not run", "\N{EN DASH}", "planned, never measured"),
)
LOOKS: dict[Outcome, Look] = {look.outcome: look for look in _ALL}

# Outcomes that make a run red, and those that need a look, in the order in which a reader wants.
BAD: tuple[Outcome, ...] = ("failed", "crashed", "error", "not_run")
ATTENTION: tuple[Outcome, ...] = (*BAD, "inconclusive")


@dataclass(frozen=True)
class Banner:
    """A bar at both ends of a page. `word` is shouted, `sentence` explains it."""

    kind: Provenance
    noun: str
    word: str
    sentence: str

    @property
    def text(self) -> str:
        """Return the whole banner on one line."""
        return f"{say(self.word)} \N{EM DASH} {say(self.sentence)}"


_BANNERS = (
    Banner(
        "rehearsal",
        "Rehearsal",
        "REHEARSAL",
        "generated images and stand-in weights. Says nothing about any published figure.",
    ),
    Banner(
        "simulated",
        "Simulation",
        "SIMULATED NPU",
        "a stand-in toolchain, no NPU was used. Says nothing about any NPU or published figure.",
    ),
)


def banners(kinds: Collection[Provenance]) -> tuple[Banner, ...]:
    """Return the banners that a page with figures of these provenances must carry."""
    return tuple(banner for banner in _BANNERS if banner.kind in kinds)
