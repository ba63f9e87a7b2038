"""Acceptance tests for image classifiers deployed on Ascend NPUs.

From Python: `Run(Settings(...)).execute()` runs a plan and returns its records; see docs/python.md.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.catalog.load import load_catalog
    from harness.plan import Case
    from harness.records.reader import read as read_records
    from harness.records.verdicts import Verdict
    from harness.run.engine import Run
    from harness.settings import Settings, resolve

__version__ = "0.4.0"  # CHANGELOG.md says what each brought

__all__ = [
    "Case",
    "Run",
    "Settings",
    "Verdict",
    "__version__",
    "load_catalog",
    "read_records",
    "resolve",
]

# Imported when used: importing the package costs nothing.
_PLACES = {
    "Case": ("harness.plan", "Case"),
    "Run": ("harness.run.engine", "Run"),
    "Settings": ("harness.settings", "Settings"),
    "Verdict": ("harness.records.verdicts", "Verdict"),
    "load_catalog": ("harness.catalog.load", "load_catalog"),
    "read_records": ("harness.records.reader", "read"),
    "resolve": ("harness.settings", "resolve"),
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _PLACES[name]
    return getattr(importlib.import_module(module), attribute)
