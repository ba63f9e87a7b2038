"""Runs on files that were given: an ONNX file, a data set, checkpoints. No rule of a rehearsal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import onnx.version_converter
import pytest

from harness import Run, resolve
from harness.base.errors import ConfigError
from harness.base.stages import Stage
from harness.judge.causes import Exit
from harness.records.lines import CaseLine
from harness.records.reader import RunRecords
from tests.selftest.running import TINY

# The first labels of ImageNet's order.
FIRST = [65, 970, 230, 809, 516, 57, 334, 415, 674, 332, 109, 286, 370, 757, 595]


@pytest.fixture
def run(shared, tmp_path):
    """Run the accuracy of the small model at one batch size."""

    def run(check: str = "accuracy", **options: Any) -> tuple[Run, RunRecords, CaseLine]:
        places = {"store": shared / "store", "leases": tmp_path / "leases", "runs": tmp_path / "r"}
        given = {"catalog": TINY, "batch_sizes": "4", **places, **options}
        texts = {k: v if isinstance(v, bool) else str(v) for k, v in given.items()}
        started = Run(resolve(texts, environment={}))
        chosen = [case for case in started.plan.cases if case.check == check]
        records = started.execute(chosen)
        return started, records, records.cases[0]

    return run


@pytest.fixture
def rehearsed(run):
    return run(rehearsal=True)[2]


def artifact(shared: Path, case: CaseLine, stage: Stage) -> Path:
    key = next(one.key for one in case.artifacts if one.stage is stage)
    return shared / "store" / "v1" / stage / key


@pytest.fixture
def real_inputs(shared, tmp_path, rehearsed):
    """A data set and a folder with a checkpoint; `known`: with the first labels of ImageNet's
    order, whatever the images show.
    """
    generated = next((shared / "store").glob(f"v1/{Stage.DATA}/*/val"))

    def make(*, known: bool) -> dict[str, Any]:
        root = tmp_path / "imagenet"
        (root / "val").mkdir(parents=True)
        text = (generated.parent / "val_label.txt").read_text()
        labels = dict(line.split() for line in text.splitlines())
        lines = []
        for number, image in enumerate(sorted(generated.iterdir())[:20]):
            name = image.name if known else f"ILSVRC2012_val_{number + 2000:08d}.JPEG"
            label = [*FIRST, *range(20)][number] if known else labels[image.name]
            (root / "val" / name).write_bytes(image.read_bytes())
            lines.append(f"{name} {label}\n")
        (root / "val_label.txt").write_text("".join(lines))
        weights = artifact(shared, rehearsed, Stage.STANDIN)
        return {"target": "cpu", "limit": 18, "imagenet": root, "checkpoints": weights}

    return make


def test_a_part_of_a_real_set_says_what_stood_behind_its_figure(run, real_inputs):
    options = {**real_inputs(known=False), "offline": True}
    started, records, case = run(**options)
    assert (records.exit_status, case.outcome) == (Exit.INCONCLUSIVE_ONLY, "inconclusive")
    assert "accepted" not in case.sentence
    assert case.provenance == "real"
    assert case.reference is not None
    assert case.reference and case.reference.kind == "eager"
    assert case.images and case.images.count == 18
    assert "18" in case.images.selection
    assert len(case.images.digest) == 64
    assert case.checkpoint is not None
    assert len(case.checkpoint.sha256) == 64
    assert case.checkpoint.verified is False
    assert "crop 64" in case.preprocessing
    assert "REHEARSAL" not in (started.directory / "report.html").read_text()


def test_wrong_labels_are_not_hidden_by_a_conversion_that_agrees(run, real_inputs):
    _, records, case = run(**real_inputs(known=True), offline=True)
    assert (records.exit_status, case.outcome) == (Exit.ACCEPTANCE_FAILED, "failed")
    assert case.verdict is not None
    assert any(problem.code == "reference-off" for problem in case.verdict.problems)


def test_an_onnx_file_can_take_the_place_of_the_export(run, shared, rehearsed, tmp_path):
    exported = artifact(shared, rehearsed, Stage.EXPORT) / "model.onnx"
    _, records, case = run(rehearsal=True, onnx=f"tiny={exported}")
    assert (records.exit_status, case.outcome) == (Exit.PASSED, "passed")
    # The record names what ran, beside whatever its outputs are held against.
    assert case.checkpoint is not None
    assert (case.checkpoint.source, case.checkpoint.file) == ("onnx", str(exported))


def test_a_later_opset_is_taken_where_the_target_takes_it(run, shared, rehearsed, tmp_path):
    exported = artifact(shared, rehearsed, Stage.EXPORT) / "model.onnx"
    later = tmp_path / "later.onnx"
    onnx.save(onnx.version_converter.convert_version(onnx.load(exported), 17), str(later))
    _, records, case = run(rehearsal=True, onnx=f"tiny={later}")
    assert (records.exit_status, case.outcome) == (Exit.PASSED, "passed")
    old = {"simulate_ascend": True, "simulator": "cann=5.0.2"}
    with pytest.raises(ConfigError, match="opset 17, the target's compiler takes 9 to 13"):
        run(onnx=f"tiny={later}", **old)


def test_a_given_file_that_cannot_be_used_is_an_input_and_leaves_no_run(run, tmp_path):
    garbage = tmp_path / "garbage.onnx"
    garbage.write_bytes(b"not a model")
    for options in ({"rehearsal": True}, {"simulate_ascend": True}):
        with pytest.raises(ConfigError, match=r"garbage\.onnx: not a valid ONNX file"):
            run(onnx=f"tiny={garbage}", **options)
    assert not (tmp_path / "r").exists()


def test_a_simulated_host_takes_what_it_is_given_and_holds_it_against_the_weights(
    run, real_inputs, rehearsed, shared
):
    given = {**real_inputs(known=False), "target": "ascend310p3", "offline": True}
    exported = artifact(shared, rehearsed, Stage.EXPORT) / "model.onnx"
    _, records, case = run(simulate_ascend=True, onnx=f"tiny={exported}", **given)
    assert (records.exit_status, case.outcome) == (Exit.PASSED, "passed")
    assert (case.provenance, case.images and case.images.count) == ("simulated", 18)
    assert case.reference and case.reference.kind == "eager"
