"""How long cases are expected to take: from records, from the store, and never from others'."""

from __future__ import annotations

import json
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import estimates as expected
from harness.base.store import Store
from harness.catalog.load import load_catalog
from harness.cli.plan import expected_text
from harness.estimates import Build, duration
from harness.plan import make_plan
from harness.settings import resolve
from tests.selftest.running import TINY

HOST = socket.gethostname()


@pytest.fixture
def settings(tmp_path):
    given = {"rehearsal": True, "catalog": str(TINY), "runs": str(tmp_path / "runs")}
    return resolve({**given, "store": str(tmp_path / "store"), "rehearsal_images": "50"}, {})


def case(check="accuracy", batch=4, *, seconds=20.0, stages=(), **more):
    return {
        "kind": "case",
        "model": "tiny",
        "batch_size": batch,
        "target": "cpu",
        "check": check,
        "provenance": "rehearsal",
        "outcome": "passed",
        "machine": {"hostname": HOST},
        "images": {"count": 50} if check == "accuracy" else {},
        "seconds": seconds,
        "stages": [{"stage": n, "seconds": s, "cached": c} for n, s, c in stages],
        **more,
    }


def write(settings, name, *lines):
    folder = settings.runs / name
    folder.mkdir(parents=True)
    run = {"kind": "run", "settings": settings.to_json()}
    text = "".join(json.dumps(line) + "\n" for line in (run, *lines))
    (folder / "results.jsonl").write_text(text)


def estimates(settings, images=50):
    catalog = load_catalog(TINY)
    cases = make_plan(catalog, settings).cases
    found = expected.estimates(cases, settings, catalog, images=images)
    return {(one.check, one.batch_size): estimate for one, estimate in found.items()}


def test_the_median_of_earlier_runs_without_builds_and_waiting(settings):
    for index, seconds in enumerate((20.0, 22.0, 90.0)):
        stages = (("onnx", 8.0, False), ("compiled", 0.01, True), ("lease", 2.0, False))
        write(settings, f"2026-{index}", case(seconds=seconds, stages=stages))
    found = estimates(settings)["accuracy", 4]
    assert found.work_s == pytest.approx(22 - 8 - 0.01 - 2)
    assert found.runs == 3
    assert found.builds[Build("onnx", "tiny")] == 8.0
    assert found.builds[Build("compiled", "tiny", 4, "cpu")] is None  # it was in the store


def test_another_batch_size_stands_in_and_says_so(settings):
    write(settings, "a", case(batch=4, seconds=10.0))
    found = estimates(settings)["accuracy", 1]
    assert (found.work_s, found.runs) == (10.0, 0)


def test_shared_artifacts_are_counted_once_in_the_total(settings):
    stages = (("standin", 30.0, False), ("onnx", 10.0, False), ("simplified", 2.0, False))
    write(settings, "a", case(seconds=47.0, stages=stages), case(batch=1, seconds=5.0))
    found = estimates(settings)
    total = expected.total(found[key] for key in (("accuracy", 1), ("accuracy", 4)))
    assert total.with_store_s == 10.0
    assert total.without_store_s == 10.0 + 30 + 10 + 2
    assert total.unknown == 0
    assert total.unknown_builds == 4  # simplified at 1, compiled at both, eager
    assert expected.total(found.values()).unknown == 2  # throughput


def test_more_images_take_longer(settings):
    line = case(seconds=12.0, stages=(("open", 2.0, False), ("accuracy", 10.0, False)))
    write(settings, "a", line)
    assert estimates(settings, images=500)["accuracy", 4].work_s == pytest.approx(2 + 100)


@pytest.mark.parametrize(
    "other",
    [
        {"machine": {"hostname": "another"}},
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


def test_a_throughput_of_another_budget_says_nothing(settings):
    folder = settings.runs / "a"
    folder.mkdir(parents=True)
    lines = [{"kind": "run", "settings": {**settings.to_json(), "budget": 7.0}}, case("throughput")]
    (folder / "results.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert estimates(settings)["throughput", 4].work_s is None


def test_what_was_built_and_never_run_is_taken_from_the_store(settings):
    catalog = load_catalog(TINY)
    network = catalog.models["tiny"].network
    store = Store(settings.store)

    def build(staging):
        (staging / "model.onnx").write_text(staging.name)
        return ""

    inputs = {"network": network.source, "arguments": dict(network.arguments)}
    onnx = store.get_or_build("onnx", inputs, build)
    simplified = store.get_or_build("simplified", {"onnx": onnx.digest, "batch_size": 4}, build)
    compiled = {"simplified": simplified.digest, "batch_size": 4, "target": "cpu"}
    store.get_or_build("compiled", compiled, build)
    store.get_or_build("probe", {"simplified": simplified.digest}, build)
    store.get_or_build("onnx", {"network": "timm:of_no_model"}, build)
    found = estimates(settings)["throughput", 4]
    assert found.work_s is None
    assert {build.kind for build, seconds in found.builds.items() if seconds is not None} == {
        "onnx",
        "simplified",
        "compiled",
        "probe",
    }


@pytest.mark.parametrize(("target", "said"), [("ascend310p3", True), ("cpu", False)])
def test_the_time_of_building_is_said_of_the_planned_cases_artifacts_alone(settings, target, said):
    """An ONNX file is no target's: what a rehearsal on another one built says nothing of these."""
    cases = make_plan(load_catalog(TINY), settings).cases
    planned = "ascend310p3"
    compiled = {Build("compiled", "tiny", 4, planned): 4.0 if target == planned else None}
    estimate = expected.Estimate(None, 0, {Build("onnx", "tiny"): 20.0, **compiled})
    text = expected_text(dict.fromkeys(cases, estimate))
    assert text.startswith("expected: not known")
    assert ("building the artifacts took" in text) == said


def test_links_and_strange_files_are_passed_over(settings, tmp_path):
    write(settings, "a", case(seconds=10.0))
    (settings.runs / "latest").symlink_to("a", target_is_directory=True)
    (settings.runs / "b").mkdir()
    (settings.runs / "b" / "results.jsonl").symlink_to(settings.runs / "a" / "results.jsonl")
    (settings.runs / "c").mkdir()
    (settings.runs / "c" / "results.jsonl").mkdir()
    assert estimates(settings)["accuracy", 4].runs == 1


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


@given(st.sampled_from(sorted(case())), _VALUES)
def test_a_line_of_any_content_is_passed_over_or_read(tmp_path_factory, key, value):
    base = tmp_path_factory.mktemp("runs")
    options = {"rehearsal": True, "catalog": str(TINY), "runs": str(base / "runs")}
    settings = resolve({**options, "store": str(base / "store")}, {})
    write(settings, "a", {**case(), key: value}, case(batch=1, seconds=3.0))
    found = estimates(settings)["accuracy", 1]
    assert found.work_s is not None
    assert found.work_s >= 0


def test_durations():
    assert [duration(s) for s in (0.2, 42, 600, 7200)] == ["<1 s", "42 s", "10.0 min", "2.0 h"]
