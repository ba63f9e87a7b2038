"""Faults planted one at a time: each is noticed by the part that is responsible for it.

The rows, and how each is planted, are in `planted/`; the table is `docs/planted-faults.md`.
"""

from __future__ import annotations

import re
import runpy
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.selftest.planted import guides, table
from tests.selftest.planted.rows import Fault, Found, attempt, problem_of, said
from tests.selftest.planted.table import FAULTS
from tests.selftest.planted.world import BASELINES, World
from tests.selftest.running import ROOT

DOCUMENT = ROOT / "docs" / "planted-faults.md"


@pytest.fixture(scope="module")
def world(shared, tmp_path_factory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("planted")
    folder.chmod(0o750)
    with World(folder, shared / "store") as made:
        yield made


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.id)
def test_the_fault_is_caught_by_the_part_that_is_responsible(world, fault):
    assert problem_of(fault, attempt(fault, world, planted=True), planted=True) == ""


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.id)
def test_its_twin_without_the_fault_is_sound(world, fault):
    assert problem_of(fault, attempt(fault, world, planted=False), planted=False) == ""


# The table itself --------------------------------------------------------------------------


def test_the_document_is_what_the_script_prints(capsys):
    runpy.run_module("tests.selftest.planted_table", run_name="__main__")
    assert DOCUMENT.read_text(encoding="utf-8") == capsys.readouterr().out


SAID = {
    "README.md": "{caught} of {total} [planted faults](docs/planted-faults.md) are caught",
    "README.zh.md": "植入的 {total} 个故障，{caught} 个都被负责的那项检查发现",
}


@pytest.mark.parametrize("name", SAID)
def test_both_readmes_say_the_tables_count(name):
    caught, total = re.findall(r"\d+", table.count())
    text = " ".join((ROOT / name).read_text(encoding="utf-8").split())
    assert SAID[name].format(caught=caught, total=total) in text


def test_each_fault_stands_in_the_table_once():
    assert [name for name, n in Counter(fault.id for fault in FAULTS).items() if n > 1] == []


def test_a_row_cannot_pass_by_what_its_twin_gives():
    # A fault that comes out as its twin does, in the same words, would prove nothing.
    assert [fault.name for fault in FAULTS if fault.outcome == fault.sound] == []


@pytest.mark.parametrize(
    ("found", "problem"),
    [
        (said("FAIL", "swapped", "fidelity"), ""),
        (said("PASS", "swapped", "fidelity"), "PASS where FAIL must be"),
        (said("FAIL", "swapped", "verdict"), "verdict spoke, fidelity must"),
        (said("FAIL", "swapped"), "nobody spoke"),
        (said("FAIL", "something else", "fidelity"), "'swapped' is not in"),
    ],
)
def test_another_outcome_part_or_word_is_not_caught(found: Found, problem: str):
    fault = Fault("a fault", "here", "fidelity", "FAIL", "swapped", lambda world, planted: found)
    got = problem_of(fault, found, planted=True)
    assert got.startswith(problem)
    assert bool(got) == bool(problem)


def test_every_model_of_the_catalog_has_its_guides_script(world):
    assert set(guides.SCRIPTS) == set(world.catalog(str(BASELINES)).models)
