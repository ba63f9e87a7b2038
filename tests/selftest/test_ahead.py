"""Builds of later cases: done while another case is measured, and never in its way."""

import os

import pytest

from harness.base.errors import DeviceError, ExportError
from harness.base.stages import Stage
from harness.catalog.load import load_catalog
from harness.plan import Case
from harness.stages.ahead import NICENESS, Ahead
from harness.stages.pipeline import CasePipeline, Workbench
from harness.targets.pool import DevicePool
from tests.selftest.fakes import workbench
from tests.selftest.running import TINY


@pytest.fixture
def made(shared, tmp_path):
    """Settings, catalog and folder of a run on a simulated NPU."""
    store = str(shared / "store")
    bench = workbench(tmp_path, simulate_ascend=True, store=store)
    return bench.settings, bench.catalog, bench.run_dir


def case(batch_size, check="throughput"):
    return Case("tiny", batch_size, "ascend310p3", check)


def test_what_later_cases_need_is_there_when_they_come(made):
    chosen, catalog, folder = made
    Ahead(chosen, catalog, folder, [case(5), case(6)]).join(120)
    bench = Workbench(*made).for_case(case(6))
    bench.prepare()
    assert {ref.stage for ref in bench.observed.artifacts} >= {
        *(Stage.EXPORT, Stage.SIMPLIFY, Stage.COMPILE, Stage.PROBE)
    }
    assert all(ref.cached for ref in bench.observed.artifacts)


def test_a_build_that_fails_does_not_end_the_others_and_runs_at_low_priority(made, monkeypatch):
    seen = []

    def prepare(self):
        seen.append((self.case.batch_size, os.getpriority(os.PRIO_PROCESS, 0)))
        if self.case.batch_size == 1:
            raise ExportError("planted")

    monkeypatch.setattr(CasePipeline, "prepare_ahead", prepare)
    before = os.getpriority(os.PRIO_PROCESS, 0)
    chosen, catalog, folder = made
    Ahead(chosen, catalog, folder, [case(1), case(2)]).join(60)
    assert [size for size, _ in seen] == [1, 2]
    assert all(nice >= min(19, NICENESS) for _, nice in seen)
    assert os.getpriority(os.PRIO_PROCESS, 0) == before


@pytest.fixture
def tuned(made, tmp_path, monkeypatch):
    """The same where batch size 7 is tuned by its guide; no device may be leased."""
    chosen, _, folder = made
    path = tmp_path / "tuned.yaml"
    section = '    ascend:\n      auto_tune: {mode: "RL,GA", batch_sizes: [7]}\n'
    path.write_text(TINY.read_text() + section)
    leased = []

    def for_case(self, check, what, *_, **__):
        leased.append(what)
        raise DeviceError("planted")

    monkeypatch.setattr(DevicePool, "for_case", for_case)
    return (chosen, load_catalog(path), folder), leased


def test_a_model_that_tunes_on_a_device_is_not_built_while_others_use_it(tuned):
    workplace, leased = tuned
    cases = [case(7), case(7, "accuracy")]
    chosen, catalog, folder = workplace
    Ahead(chosen, catalog, folder, cases).join(120)
    assert leased == []
    for one in cases:
        bench = Workbench(*workplace).for_case(one)
        bench.simplified()
        bench.probe() if one.check == "throughput" else bench.eager()
        # All else is there; the compiled model is made by the case itself, on a device.
        assert all(ref.cached for ref in bench.observed.artifacts)
        with pytest.raises(DeviceError, match="planted"):
            bench.compiled()
    assert set(leased) == {"compile of tiny-bs7-ascend310p3"}
