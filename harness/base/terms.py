"""Words that every room uses: check, provenance, verdict kind, outcome."""

from __future__ import annotations

from typing import Literal, get_args

Check = Literal["accuracy", "throughput"]
CHECKS: tuple[Check, ...] = get_args(Check)
Provenance = Literal["real", "rehearsal", "simulated"]
VerdictKind = Literal["PASS", "FAIL", "INCONCLUSIVE", "RECORDED"]
Outcome = Literal[
    "passed",
    "failed",
    "inconclusive",
    "recorded",
    "known_failure",
    "error",
    "crashed",
    "not_run",
]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
WHOLE_SET = 50_000
"""Images of ImageNet's validation set: a published accuracy speaks of all of them."""
