"""Parts of a selection on several hosts: nothing is lost, and they join into what one host says."""

from __future__ import annotations

import dataclasses
from collections import Counter
from itertools import chain

import pytest

from benchmarks.chips import write_catalog
from harness import shards
from harness.base.errors import ConfigError
from harness.catalog.load import load_catalog
from harness.judge.causes import Exit
from harness.plan import Case
from harness.report.why import first_screen
from harness.run.engine import Run
from harness.run.merge import merge
from harness.settings import resolve
from tests.selftest.running import QUICK

NETWORKS = ("a", "b", "c")


def cases(models="abcde", sizes=(1, 4, 8)):
    return [
        Case(model, size, "cpu", check)
        for check in ("accuracy", "throughput")
        for model in models
        for size in sizes
    ]


@pytest.mark.parametrize("count", [1, 2, 3, 5, 9])
def test_every_case_is_in_one_shard_with_those_that_share_its_builds(count):
    parts = shards.split(cases(), count, {})
    assert len(parts) == count
    assert Counter(chain.from_iterable(parts)) == Counter(cases())
    models = [{case.model for case in part} for part in parts]
    assert sum(map(len, models)) == 5
    for part in parts:
        assert list(part) == [case for case in cases() if case in part]


def test_the_order_in_which_a_host_has_its_cases_changes_no_shard():
    parts = shards.split(cases(), 3, {})
    assert [set(one) for one in shards.split(cases()[::-1], 3, {})] == [set(one) for one in parts]


def test_shards_take_equally_long_by_what_cases_took():
    times = {case.name: 50.0 if case.model == "a" else 10.0 for case in cases("abcdef")}
    first, second = shards.split(cases("abcdef"), 2, times)
    assert {case.model for case in first} == {"a"}
    assert len(second) == 5 * len(first)


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "1/", "a/b", "-1/2", "1/2/3"])
def test_a_part_that_cannot_be_is_an_error_of_usage(text):
    with pytest.raises(ConfigError, match="is no part"):
        resolve({"shard": text}, {})


@pytest.fixture(scope="module")
def joined(shared, built, tmp_path_factory):
    """One host's run of three models, the runs of four shards of it, and what merge makes."""
    folder = tmp_path_factory.mktemp("shards")
    catalog = write_catalog(folder, NETWORKS)

    def run(name: str, **given: str):
        options = {"rehearsal": True, "catalog": str(catalog), "store": str(shared / "store")}
        places = {"runs": str(folder / name), "leases": str(folder / "leases")}
        own = Run(resolve({**options, **places, "batch_sizes": "1,4", **given}, {}))
        return own.execute(own.plan.of("accuracy"))

    whole = run("whole")
    parts = [run("parts", shard=f"{number}/4") for number in range(1, 5)]
    output = folder / "joined"
    return (
        whole,
        parts,
        merge([one.directory for one in parts], output, catalog=load_catalog(catalog)),
    )


def notes(records):
    return records.run.notes if records.run is not None else ()


def figures(records):
    return {
        case.nodeid: (case.outcome, case.measured, case.sentence, case.reference)
        for case in records.cases
    }


def test_joined_shards_say_what_one_host_says(joined):
    whole, parts, made = joined
    assert figures(made) == figures(whole) and len(figures(made)) == 6
    assert {(c.name, c.subject, c.outcome) for c in made.checks} == {
        (c.name, c.subject, c.outcome) for c in whole.checks
    }
    assert made.exit_status == whole.exit_status == Exit.PASSED
    assert sorted(len(one.plan) for one in parts) == [0, 2, 2, 2]
    assert not any("shard" in note and "missing" in note for note in notes(made))


def test_an_empty_shard_ends_green_and_says_that_it_is_empty(joined):
    (empty,) = (one for one in joined[1] if not one.plan)
    assert empty.exit_status == Exit.PASSED
    assert empty.end is not None and empty.end.complete
    screen = "\n".join(first_screen(empty, None).lines)
    assert "no case" in screen and "4/4 is empty" in " ".join(notes(empty))


def test_a_lost_shard_and_one_of_another_selection_are_found(joined, tmp_path):
    _, parts, _ = joined
    made = merge([one.directory for one in parts if one.plan][:2], tmp_path / "two")
    assert made.exit_status == Exit.MACHINE_TROUBLE
    assert any("shards are missing: 3/4, 4/4" in note for note in notes(made))
    assert shards.lacking(parts) == []
    (empty,) = (one for one in parts if not one.plan)
    other = dataclasses.replace(empty, run=empty.run.model_copy(update={"selection": "another"}))
    assert "not of one selection" in shards.lacking([*parts[:3], other])[0]
    assert "not of one selection" in shards.lacking([*parts, other])[0]  # the same part twice
    killed = [dataclasses.replace(one, end=None) for one in (*parts[:3], other)]
    assert "not of one selection" in shards.lacking(killed)[0]


@pytest.mark.parametrize("shard", ["x", "1/999999999", 7])
def test_records_of_no_such_part_are_refused(joined, shard):
    run = joined[1][0].run
    changed = run.model_copy(update={"settings": {**run.settings, "shard": shard}})
    with pytest.raises(ConfigError, match="is no part"):
        shards.lacking([dataclasses.replace(joined[1][0], run=changed)])


def test_pytest_splits_what_was_selected(run_pytest, built):
    words = ("--rehearsal", "-m", "throughput", "--batch-sizes=1,4", *QUICK)
    done = run_pytest(*words, "--shard=1/2", "-n", "1")
    assert done.code == 0, done.output
    first = done.records()
    assert len(first.cases) == 2
    other = run_pytest(*words, "--shard=2/2", "-n", "1")
    assert other.code == 0, other.output
    assert "2/2 is empty" in other.output
    assert shards.lacking([first, other.records()]) == []
    assert run_pytest(*words, "--shard=2/2", "-k", "nothing_has_this_name").code == 5
    # What leaves the shard's cases out after the shard was made makes no empty one of it.
    left_out = ("-p", "cacheprovider", "--lf", "--lfnf=none")
    assert run_pytest(*words, "--shard=1/2", *left_out).code == 5
