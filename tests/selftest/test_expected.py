"""How long cases are expected to take: from records, and never from others'."""

from __future__ import annotations

import socket
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from harness import estimates as expected
from harness.base.stages import Stage
from harness.catalog.load import load_catalog
from harness.plan import make_plan
from harness.plugin.selection import Selection
from harness.records import writer
from harness.records.lines import RunLine
from harness.records.observed import StageTime
from harness.run.engine import Run
from harness.settings import resolve
from tests.selftest import report_samples as samples
from tests.selftest.running import TINY

HOST = replace(samples.MACHINE, hostname=socket.gethostname())


@pytest.fixture
def settings(tmp_path):
    given = {"rehearsal": True, "catalog": str(TINY), "runs": str(tmp_path / "runs")}
    return resolve({**given, "store": str(tmp_path / "store"), "rehearsal_images": "50"}, {})


def case(check="accuracy", batch=4, *, seconds=20.0, stages=(), **more):
    line = samples.case(
        *("tiny", batch, check),
        **{"machine": HOST, "seconds": seconds, **more},
        stages=tuple(StageTime(*one) for one in stages),
    )
    assert line.images is not None
    return line.model_copy(update={"images": replace(line.images, count=50)})


def write(settings, name, *lines, **options):
    folder = settings.runs / name
    folder.mkdir(parents=True)
    given = {**settings.to_json(), **options}
    for line in (RunLine(run=name, provenance="rehearsal", started="", settings=given), *lines):
        writer.append(folder, line)


def estimates(settings, images=50):
    cases = make_plan(load_catalog(TINY), settings).cases
    each = expected.estimates(cases, settings, images=images)
    return {(one.check, one.batch_size): estimate for one, estimate in each.items()}


def test_the_median_of_earlier_runs_without_builds_and_waiting(settings):
    stages = ((Stage.EXPORT, 8.0), (Stage.COMPILE, 0.01, True), (Stage.DEVICE, 2.0))
    for index, seconds in enumerate((20.0, 22.0, 90.0)):
        write(settings, f"2026-{index}", case(seconds=seconds, stages=stages))
    estimate = estimates(settings)["accuracy", 4]
    assert estimate.work_s == pytest.approx(22 - 8 - 0.01 - 2)
    assert estimate.runs == 3


def test_another_batch_size_stands_in_and_says_so(settings):
    write(settings, "a", case(batch=4, seconds=10.0))
    estimate = estimates(settings)["accuracy", 1]
    assert (estimate.work_s, estimate.runs) == (10.0, 0)


def test_more_images_take_longer(settings):
    write(settings, "a", case(seconds=12.0, stages=((Stage.LOAD, 2.0), (Stage.INFER, 10.0))))
    assert estimates(settings, images=500)["accuracy", 4].work_s == pytest.approx(2 + 100)


@pytest.mark.parametrize(
    "other",
    [
        {"machine": replace(HOST, hostname="another")},
        {"provenance": "real"},
        {"provenance": "simulated"},
        {"outcome": "error"},
        {"outcome": "crashed"},
    ],
    ids=str,
)
def test_what_is_not_like_this_run_says_nothing(settings, other):
    write(settings, "a", case(**other))
    assert estimates(settings)["accuracy", 4].work_s is None


@pytest.mark.parametrize("option", ["budget", "timing_precision"])
def test_a_throughput_of_another_budget_says_nothing(settings, option):
    write(settings, "a", case("throughput"), **{option: 7.0})
    assert estimates(settings)["throughput", 4].work_s is None
    write(settings, "b", case("throughput", seconds=5.0))
    assert estimates(settings)["throughput", 4].work_s == 5.0


def test_links_and_unreadable_runs_are_passed_over(settings):
    write(settings, "a", case(seconds=10.0))
    (settings.runs / "latest").symlink_to("a", target_is_directory=True)
    (settings.runs / "b").mkdir()
    (settings.runs / "c" / "results.jsonl").mkdir(parents=True)
    (settings.runs / "d").mkdir()
    (settings.runs / "d" / "results.jsonl").write_text('[]\n{"kind": "run", "schema_version": 1}\n')
    assert estimates(settings)["accuracy", 4].runs == 1


def test_several_workers_begin_with_unknown_and_then_with_long_cases(settings):
    write(settings, "2026", case("throughput", 1, seconds=5.0), case("throughput", seconds=9.0))
    run = Run(settings)
    hooks, node = Selection(run), cast(Any, SimpleNamespace(workerinput={}))
    hooks.pytest_configure_node(node)
    items: Any = [
        SimpleNamespace(callspec=SimpleNamespace(params={"case": c})) for c in run.plan.cases
    ]
    hooks.pytest_collection_modifyitems(node, items)
    order = [item.callspec.params["case"] for item in items]
    assert [(one.check, one.batch_size) for one in order] == [
        ("accuracy", 1),
        ("accuracy", 4),
        ("throughput", 4),
        ("throughput", 1),
    ]
