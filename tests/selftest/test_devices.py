"""`harness.targets.devices`: which devices a variable names, and whose processes are on one."""

from __future__ import annotations

import os

import pytest

from harness.base.errors import ConfigError
from harness.targets import devices
from harness.targets.devices import strangers, visible_ids

NOBODY = 4_194_305  # one above Linux's largest


def test_a_variable_is_a_list_of_ids_or_refused() -> None:
    assert visible_ids({}, "V") is None
    assert visible_ids({"V": "0, 2"}, "V") == (0, 2)
    for text in ("", "all", "GPU-aaaa", "-1", "0,GPU-bbbb", "²"):
        with pytest.raises(ConfigError, match="not a list of ids") as caught:
            visible_ids({"V": text}, "V")
        assert "--device=0,2" in caught.value.remedy


@pytest.mark.parametrize(
    ("processes", "measuring", "others"),
    [
        ([], True, []),
        ([(os.getpid(), None)], False, []),
        ([(NOBODY, os.getpid())], False, []),  # as the container counts
        ([(os.getpid(),), (os.getppid(),)], True, [1]),
        # The host's id of ours, seen from a container, if nobody else is there.
        ([(NOBODY, None)], True, []),
        ([(NOBODY, None)], False, [0]),
        ([(None,)], True, []),
        ([(NOBODY, None), (NOBODY, None)], True, [0, 1]),
        ([(os.getppid(), None)], True, [0]),
    ],
)
def test_processes_that_are_not_ours(monkeypatch, processes, measuring, others):
    monkeypatch.setattr(devices, "is_ours", lambda pid: pid == os.getpid())
    assert strangers(processes, measuring=measuring) == others
