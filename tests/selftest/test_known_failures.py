"""Known failures, and the command that repeats a case."""

from __future__ import annotations

import shlex
from datetime import date
from types import SimpleNamespace
from typing import Any

import pytest

from harness.base.errors import (
    CompileError,
)
from harness.base.stages import Stage
from harness.catalog.schema import KnownFailure
from harness.plan import Case
from harness.records.observed import ErrorInfo
from harness.records.verdicts import Reference, Verdict
from harness.run import known_failures
from harness.run.case_record import error_info, repeat_command
from harness.run.known_failures import CaseEnd, case_end
from harness.settings import resolve
from tests.selftest.running import TINY


def judged(kind: Any, unit: str = "%") -> Verdict:
    return Verdict(kind, f"a sentence of {kind}", "a rule", unit, 50.0, Reference("none"))


# Known failures ---------------------------------------------------------------------------

LINK = "https://example.org/issues/1"


def known(stage: str, **more: Any) -> KnownFailure:
    return KnownFailure(case="tiny-bs4-cpu", stage=Stage(stage), link=LINK, **more)


def error_at(stage: str, **more: Any) -> ErrorInfo:
    return ErrorInfo(type="X", stage=Stage(stage), message="m", **more)


OPEN = "which stays open"
EXCUSED = "failed as declared"
CHANGE = "Change known_failures in the catalog"


@pytest.mark.parametrize(
    ("declared", "happened", "outcome", "words"),
    [
        ("compile", error_at("compile"), "known_failure", EXCUSED),
        ("device", error_at("device"), "known_failure", EXCUSED),
        ("verdict", judged("FAIL"), "known_failure", EXCUSED),
        # What says nothing of the model leaves the declaration open.
        *(("compile", error_at(s), "error", OPEN) for s in ("data", "checkpoint", "device")),
        *(("verdict", error_at(s), "error", OPEN) for s in ("store", "harness")),
        ("verdict", error_at("export", full_disk=True), "error", OPEN),
        ("verdict", error_at("worker"), "crashed", OPEN),
        ("verdict", judged("INCONCLUSIVE"), "inconclusive", OPEN),
        ("verdict", error_at("export"), "failed", "it failed at export"),
        ("compile", judged("FAIL"), "failed", "it failed at verdict"),
        ("verdict", judged("PASS"), "failed", "it did not fail"),
        ("compile", judged("INCONCLUSIVE"), "failed", "it did not fail"),
        ("compile", judged("RECORDED"), "failed", "it did not fail"),
    ],
)
def test_what_was_declared_and_what_happened(declared, happened, outcome, words):
    failed = isinstance(happened, ErrorInfo)
    end = case_end(happened if failed else None, None if failed else happened, known(declared))
    assert end.outcome == outcome
    assert words in end.sentence
    assert LINK in end.sentence
    assert end.broken == (outcome == "failed") == end.sentence.endswith(CHANGE)
    assert (f"[{happened.stage}] m" if failed else happened.sentence) in end.sentence


def test_an_excuse_that_has_ended_is_spoken_of_and_one_that_holds_wins(monkeypatch):
    ended = known("compile", expires="2024-02-29")
    catalog: Any = SimpleNamespace(known_failures=(ended, known("export"), known("load")))
    case = Case("tiny", 4, "cpu", "accuracy")
    said = f"its excuse ({LINK}) ended on 2024-02-29"
    error = error_info(CompileError("m"))
    monkeypatch.setattr(known_failures, "today", lambda: date(2024, 3, 1))
    assert known_failures.declared(catalog, case) == catalog.known_failures[1]
    assert case_end(error, None, ended) == CaseEnd("error", f"[compile] m; {said}")
    assert said not in case_end(None, judged("PASS"), ended).sentence
    monkeypatch.setattr(known_failures, "today", lambda: date(2024, 2, 29))
    assert known_failures.declared(catalog, case) == ended
    assert case_end(error, None, ended).outcome == "known_failure"
    assert known_failures.declared(catalog, Case("tiny", 1, "cpu", "accuracy")) is None


# The command that repeats a case ----------------------------------------------------------


@pytest.mark.parametrize(
    "given",
    [
        {"rehearsal": True},
        {"rehearsal": True, "offline": True, "rehearsal_images": "60", "timing_precision": "3"},
        {"simulate_ascend": True, "simulator": "cards=2,fault=busy", "device": "0,1"},
        {"target": "ascend310p3", "imagenet": "/data/a b", "sample": "50", "seed": "3"},
        {"target": "cpu", "onnx": ["tiny=/x/y.onnx"], "allow_inconclusive": True},
    ],
    ids=lambda given: " ".join(given),
)
def test_the_command_of_a_case_leads_to_its_settings(given, monkeypatch):
    monkeypatch.setenv("HARNESS_BUDGET", "5")  # which `--budget=120` replaced
    asked = resolve({**given, "models": "tiny,other", "catalog": str(TINY)}, environment={})
    case = Case("tiny", 4, asked.target or "cpu", "accuracy")
    program, *words = shlex.split(repeat_command(asked, case))
    assert program == "pytest"
    assert words[:2] == ["-m", "accuracy"]
    back: dict[str, Any] = {}
    for word in words[2:]:
        flag, _, value = word.removeprefix("--").partition("=")
        name = flag.replace("-", "_")
        back[name] = [*back.get(name, []), value] if name == "onnx" else value or True
    again = resolve(back)
    assert again.to_json() == {**asked.to_json(), "models": ["tiny"], "batch_sizes": [4]}
