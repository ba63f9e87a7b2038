"""A target is one folder and one line: a made-up one, outside the tree, takes a case through."""

from harness.base.environment import ROOT
from harness.records import reader
from tests.selftest.running import TINY, run_python
from tests.selftest.test_ascend_chain import small_network

FAMILY = """
from dataclasses import dataclass

from harness.base.families import Family
from harness.base.options import Group, TargetOptions, option

GROUP = Group("abacus", "pytest --target=abacus --beads=7")


@dataclass(frozen=True)
class AbacusOptions(TargetOptions):
    beads: int = option("int", "beads on a wire", group=GROUP, default=10, limits=(1, 100))


FAMILY = Family(
    "abacus", "abacus", ("abacus",), options=AbacusOptions, group=GROUP
)
"""
PROVIDER = """
from harness.targets.provider import Findings, Look, Provider


class AbacusProvider(Provider):
    def make(self, name, settings, folder):
        from abacus.target import AbacusTarget

        return AbacusTarget(settings)

    def looks(self, settings):
        say = Findings("Abacus", frozenset({"abacus"}))
        return [Look("Abacus", 60.0, say.of, lambda: [say.ok("wires", "two")])]


PROVIDER = AbacusProvider()
"""
TARGET = """
import shutil

from abacus.family import AbacusOptions
from harness.records.conditions import Condition, Setup
from harness.targets import sessions
from harness.targets.protocol import Device, Target, Traits


class AbacusTarget(Target):
    name = "abacus"
    traits = Traits(fidelity_bound=1e-3)

    def __init__(self, settings):
        self._beads = settings.of(AbacusOptions).beads

    def identity(self):
        return {"target": self.name, "beads": self._beads}

    def devices(self):
        return (Device(self.name, 0, f"{self._beads} beads", "shelf"),)

    def compile_inputs(self, model, batch_size):
        return self.identity()

    def compile(self, onnx, model, batch_size, output_dir, *, device, log, lease_fds=()):
        shutil.copyfile(onnx, output_dir / "model.abacus.onnx")
        return {}

    def open(self, file, model, batch_size, device, *, log, lease_fds):
        return sessions.open_session(
            file, backend="onnxruntime", options={}, log=log, pass_fds=lease_fds,
            deadline_open_s=60.0, deadline_run_s=60.0,
        )

    def look(self, device, moment, seconds, session):
        return Condition(moment, seconds, busy="no")

    def setup(self, device, facts, session):
        return Setup(driver=session.about.driver, chip=device.name)

    def commands(self, onnx, file, model, batch_size, device):
        return {"run": f"abacus {file}"}
"""
RUN = """
import sys
from harness.base import families

families.PACKAGES += ("abacus",)  # the one line

import pytest
from harness.cli.examination import SUBJECTS, examine

code = pytest.main(sys.argv[1:])
from harness.settings import resolve

answers = {one.target: one for one in examine(resolve({}), None).answers}
print("doctor:", answers["abacus"].can, "torch" in sys.modules)
sys.exit(code)
"""


def test_a_target_outside_the_tree_is_registered_in_one_line(tmp_path):
    package = tmp_path / "path" / "abacus"
    package.mkdir(parents=True)
    for name, text in (("family", FAMILY), ("provider", PROVIDER), ("target", TARGET)):
        (package / f"{name}.py").write_text(text)
    options = ["-p", "no:cacheprovider", "-m", "throughput", "--target=abacus", "--beads=7"]
    options += [f"--onnx=tiny={small_network(tmp_path / 'small.onnx')}", "--batch-sizes=4"]
    options += ["--budget=0.2", "--timing-precision=50", f"--catalog={TINY}"]
    options += [f"--{name}={tmp_path / name}" for name in ("store", "runs", "leases")]
    env = {"PYTHONPATH": f"{ROOT}:{tmp_path / 'path'}"}
    code, output = run_python(["-c", RUN, *options], env=env)
    assert code == 0, output
    (case,) = reader.read((tmp_path / "runs" / "latest").resolve()).cases
    assert (case.target, case.provenance) == ("abacus", "real")
    assert case.outcome in ("recorded", "inconclusive")  # as many rounds as the time allows
    assert case.device is not None and case.throughput is not None
    assert case.device.name == "7 beads"
    assert case.throughput.setup.chip == "7 beads"
    assert case.device.commands["run"].startswith("abacus ")
    assert "--beads=7" in " ".join(case.repeat)
    assert "doctor: no False" in output  # without a catalog; torch is not needed
