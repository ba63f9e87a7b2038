"""What a family of targets offers a run: its targets, and what it knows of this host.

Each family's `provider.py` has one, `PROVIDER`. It is light: it imports its target when it is asked
for one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from harness.plan import Missing
from harness.settings import Settings
from harness.targets.protocol import Target

State = Literal["ok", "lacks", "note"]
Kind = Literal["machine", "input"]


@dataclass(frozen=True)
class Detected:
    """The target of the hardware that this host shows, and how it was found, or why none was."""

    target: str | None = None
    how: str = ""


# Findings of `doctor` ------------------------------------------------------------------------


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. `found` and `remedy` are for people.

    state: `lacks` is to be mended where it is needed; `note` is worth knowing.
    needed_by: targets that cannot run without it; `for_accuracy`: only their accuracy cannot.
    concerns: targets that it speaks of; `doctor` fills it in where it is empty.
    only_for: "needed for published accuracy": said where nobody asked for one target.
    kind: whether it is the machine's (devices, drivers, disk) or something to supply.
    short: for the summary; equal ones of several findings are said once.
    """

    group: str
    what: str
    state: State
    found: str
    remedy: str = ""
    needed_by: frozenset[str] = frozenset()
    for_accuracy: bool = False
    kind: Kind = "input"
    short: str = ""
    concerns: frozenset[str] = frozenset()
    only_for: str = ""


@dataclass(frozen=True)
class Look:
    """One look at this host, with a deadline. `of`: the targets that cannot run where it fails."""

    group: str
    deadline_s: float
    of: frozenset[str]
    findings: Callable[[], Iterable[Finding]]


@dataclass(frozen=True)
class NothingHere:
    """What is said in one line where a host lacks a whole platform: every one of `shorts`."""

    shorts: frozenset[str]
    what: str
    found: str
    remedy: str
    only_for: str  # "the Ascend targets"


class Provider:
    """A family that offers nothing; each family overrides what it has."""

    def make(self, name: str, settings: Settings, folder: Path) -> Target:
        """Return a target of the family for a run whose files lie in `folder`."""
        raise NotImplementedError

    def detect(self, settings: Settings) -> Detected:
        """Return the target of the hardware that this host shows."""
        return Detected()

    def lacking(self, settings: Settings, *, building: bool) -> Sequence[Missing]:
        """Return what a run lacks here. `building`: models are compiled here and run nowhere."""
        return ()

    def check(self, settings: Settings) -> None:
        """Raise `ConfigError` where the options of a simulation cannot be played."""

    def unused(self, settings: Settings) -> Sequence[str]:
        """Return options that name tools of a real host in a simulated run, which has its own."""
        return ()

    def remarks(self, settings: Settings, run_dir: Path) -> Sequence[str]:
        """Return what the family says of a finished run, e.g. planted faults that never struck."""
        return ()

    def nothing_here(self) -> NothingHere | None:
        """Return what `doctor` says where the host has nothing of the family."""
        return None

    def looks(self, settings: Settings) -> Sequence[Look]:
        """Return what `doctor` looks at."""
        return ()
