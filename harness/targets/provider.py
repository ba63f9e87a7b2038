"""What a family of targets offers a run: its targets, and what it knows of this host.

Each family's `provider.py` has one, `PROVIDER`. It is light: it imports its target when it is asked
for one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from harness.base.locks import SHARED, shared
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
    concerns: targets that it speaks of. needed_by: those that cannot run without it;
    `for_accuracy`: only their accuracy cannot.
    kind: whether it is the machine's (devices, drivers, disk) or something to supply.
    short: for the summary; equal ones of several findings are said once.
    """

    group: str
    what: str
    state: State
    found: str
    remedy: str = ""
    concerns: frozenset[str] = frozenset()
    needed_by: frozenset[str] = frozenset()
    for_accuracy: bool = False
    kind: Kind = "input"
    short: str = ""


@dataclass(frozen=True)
class Findings:
    """Makes the findings of one group, which concern the targets `of`."""

    group: str
    of: frozenset[str]
    kind: Kind = "input"

    def ok(self, what: str, found: str) -> Finding:
        return Finding(self.group, what, "ok", found, concerns=self.of, kind=self.kind)

    def note(self, what: str, found: str, remedy: str = "") -> Finding:
        return Finding(self.group, what, "note", found, remedy, self.of, kind=self.kind)

    def lacks(self, what: str, found: str, remedy: str, **more: Any) -> Finding:
        """Say what the targets cannot run without; `more` are other fields of `Finding`."""
        more = {"needed_by": self.of, "kind": self.kind, **more}
        return Finding(self.group, what, "lacks", found, remedy, self.of, **more)

    def locks(self, folder: Path) -> Finding:
        """Say whether other users of the host see which devices are held."""
        what = "device locks"
        if shared(folder):
            return self.ok(what, f"{folder}: shared by the users of this host")
        remedy = f"if others use its devices, as root: install -d -m 1777 {SHARED}"
        return self.note(what, f"{folder}: runs of other users are not seen", remedy)

    def check(self, good: bool, what: str, found: str, remedy: str, **more: Any) -> Finding:
        """Say `ok` where it is `good`, else what lacks."""
        return self.ok(what, found) if good else self.lacks(what, found, remedy, **more)


@dataclass(frozen=True)
class Look:
    """One look at this host, with a deadline. `of`: the targets that cannot run where it fails."""

    group: str
    deadline_s: float
    of: frozenset[str]
    findings: Callable[[], Iterable[Finding]]


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

    def cluster_needs(self, settings: Settings) -> Mapping[str, float]:
        """Return what a case takes of a host of a Ray cluster: resources as Ray names them."""
        return {}

    def remarks(self, settings: Settings, run_dir: Path) -> Sequence[str]:
        """Return what the family says of a finished run, e.g. planted faults that never struck."""
        return ()

    def nothing_here(self) -> tuple[frozenset[str], Finding] | None:
        """Return what `doctor` says in one line where the host lacks the whole platform: every
        finding with one of these `short` words.
        """
        return None

    def looks(self, settings: Settings) -> Sequence[Look]:
        """Return what `doctor` looks at."""
        return ()
