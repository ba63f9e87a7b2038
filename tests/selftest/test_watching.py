"""The looks at a device while it measures: a moment of rest is not taken for an answer."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

from harness.base.errors import DeviceError
from harness.measure import watcher as watching
from harness.records.conditions import Condition
from harness.targets.protocol import Traits
from tests.selftest.running import PATIENCE_S, eventually


def looks_of(monkeypatch, answers, enough):
    """What a watcher saw of a device that answers so, its ordinary pause longer than the test."""
    monkeypatch.setattr(watching, "WATCH_S", 60.0)
    monkeypatch.setattr(watching, "HURRY_S", 0.001)
    left, looked = list(answers), threading.Event()

    def look(device, moment, seconds, session):
        if not left:
            looked.set()
            raise DeviceError("one look too many")
        answer = left.pop(0)
        if len(answers) - len(left) == enough:
            looked.set()
        return Condition(moment, seconds, throttled=answer)

    target: Any = SimpleNamespace(traits=Traits(3e-2), look=look)
    nothing: Any = None
    with watching.Watcher(target, nothing, nothing) as watcher:
        assert looked.wait(PATIENCE_S)
        assert eventually(watcher.ready)
    return [condition.throttled for condition in watcher.seen]


def test_it_is_looked_at_again_until_it_was_met_at_work(monkeypatch):
    answers = ["unknown", "unknown", "yes", "no", "no"]
    assert looks_of(monkeypatch, answers, enough=3) == answers[:3]


def test_rounds_wait_for_a_look_that_meets_the_device_at_work(monkeypatch):
    monkeypatch.setattr(watching, "HURRY_S", 0.001)
    asked, answer = threading.Event(), threading.Event()

    def look(device, moment, seconds, session):
        asked.set()
        assert answer.wait(PATIENCE_S)
        return Condition(moment, seconds, throttled="yes")

    target: Any = SimpleNamespace(traits=Traits(3e-2), look=look)
    nothing: Any = None
    with watching.Watcher(target, nothing, nothing) as watcher:
        assert asked.wait(PATIENCE_S)
        assert not watcher.ready()
        answer.set()
        assert eventually(watcher.ready)
    target.traits = Traits(3e-2, runs_on_host=True)
    with watching.Watcher(target, nothing, nothing) as watcher:
        assert watcher.ready()  # nobody looks


def test_a_tool_that_never_says_is_not_asked_for_ever(monkeypatch):
    most = watching.HURRIED_LOOKS
    assert looks_of(monkeypatch, ["unknown"] * (most + 5), enough=most) == ["unknown"] * most
