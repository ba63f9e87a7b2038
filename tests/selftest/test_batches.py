"""Batch sizes of a run, judged from its records and predictions."""

from __future__ import annotations

import pytest

from harness.base.errors import RecordError
from harness.judge import batches
from harness.measure import accuracy
from harness.measure.accuracy import Predictions
from harness.records import reader, writer
from harness.records.lines import CaseLine
from tests.selftest.fakes import image_set, predictions

LABELS = [1, 2, 3, 4, 5, 6, 7, 8]


def write(run, batch_size, best, *, provenance="rehearsal", reference=None, outcome="passed"):
    """One accuracy case as a run leaves it: its predictions and its line."""
    images = image_set(LABELS)
    observed = accuracy.Observation(
        images, 0, reference=reference or predictions(LABELS), fidelity_bound=3e-2
    )
    found: Predictions = predictions(best)
    observed.add(found.names, found.logits)
    name = f"predictions/tiny-bs{batch_size}-cpu.csv"
    observed.write(run / name)
    measured = observed.measurement(provenance=provenance, seconds=1.0)
    measurement = {**measured.to_json(), "predictions_file": name}
    line(run, batch_size, measurement, provenance=provenance, outcome=outcome)


def line(run, batch_size, measurement, model="tiny", provenance="rehearsal", outcome="passed"):
    case = f"{model}-bs{batch_size}-cpu"
    writer.append(
        run,
        CaseLine(
            run="r",
            nodeid=f"accuracy[{case}]",
            case=case,
            model=model,
            batch_size=batch_size,
            target="cpu",
            check="accuracy",
            provenance=provenance,
            outcome=outcome if measurement else "error",
            sentence="",
            measurement=measurement,
        ),
    )


def judge(run):
    return batches.judge_batch_sizes(run, reader.read(run).cases)


def test_the_predictions_of_a_run_are_compared(tmp_path):
    write(tmp_path, 1, LABELS)
    assert judge(tmp_path).kind == "RECORDED"
    write(tmp_path, 4, LABELS)
    found = judge(tmp_path)
    assert found.kind == "PASS"
    assert found.figures["images"] == 8


def test_a_flip_at_one_batch_size_is_found_and_listed(tmp_path):
    write(tmp_path, 1, LABELS)
    write(tmp_path, 4, [9, *LABELS[1:]])
    found = judge(tmp_path)
    assert found.kind == "FAIL"
    (flip,) = found.figures["flips"]
    assert flip["by batch size"]["4"]["class"] == 9
    assert flip["by batch size"]["1"]["logit"] == pytest.approx(5.0, abs=0.2)


def test_a_known_failure_is_left_out_and_named(tmp_path):
    write(tmp_path, 1, LABELS)
    write(tmp_path, 4, LABELS)
    write(tmp_path, 16, [9] * 8, outcome="known_failure")
    found = judge(tmp_path)
    assert found.kind == "PASS"
    assert "batch sizes 1, 4 agree" in found.sentence
    assert found.sentence.endswith("left out as known to fail: batch size 16")


def test_known_failures_alone_are_not_judged(tmp_path):
    write(tmp_path, 1, LABELS, outcome="known_failure")
    write(tmp_path, 4, [9] * 8, outcome="known_failure")
    assert judge(tmp_path) is None


def test_what_rounding_moves_is_excused_from_the_record(tmp_path):
    reference = predictions(LABELS)
    reference.logits[0] = 0.0
    reference.logits[0, 1], reference.logits[0, 9] = 5.0, 4.999  # eager itself hardly knows
    write(tmp_path, 1, LABELS, reference=reference)
    write(tmp_path, 4, [9, *LABELS[1:]], reference=reference)
    found = judge(tmp_path)
    assert found.kind == "PASS"
    assert found.figures["of these within rounding"] == 1


def test_a_batch_size_without_predictions_is_not_compared(tmp_path):
    write(tmp_path, 1, LABELS)
    line(tmp_path, 4, {})
    assert judge(tmp_path).kind == "RECORDED"


@pytest.mark.parametrize("provenance", ["rehearsal", "simulated"])
def test_cases_that_left_no_predictions_yield_no_verdict(tmp_path, provenance):
    """A verdict on nothing would have no pass to take its provenance from, and would say real."""
    line(tmp_path, 1, {}, provenance=provenance)
    line(tmp_path, 4, {}, provenance=provenance)
    assert judge(tmp_path) is None
    write(tmp_path, 8, LABELS, provenance=provenance)
    assert judge(tmp_path).reference.provenance == provenance


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "image,label\na,1\n",
        "image,label,eager,top1\na,1,1,one\n",
        "image,label,eager,top1\na,1,1,1\na,1,1,1\n",
        "image,label,eager,top1\na\n",
        'image,label,eager,top1\n"a,1,1,1\n',
        b"\xff\xfe",
    ],
)
def test_damaged_predictions_are_an_error_with_the_file(tmp_path, text):
    write(tmp_path, 1, LABELS)
    path = tmp_path / "predictions" / "tiny-bs1-cpu.csv"
    path.unlink()
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    if text == "":
        # Not one image: nothing is compared with it.
        assert judge(tmp_path).kind == "RECORDED"
        return
    with pytest.raises(RecordError, match=r"tiny-bs1-cpu\.csv"):
        judge(tmp_path)


@pytest.mark.parametrize("name", ["../outside.csv", "/etc/hostname", "predictions/x\0.csv"])
def test_a_record_cannot_name_files_outside_of_its_run(tmp_path, name):
    line(tmp_path, 1, {"predictions_file": name})
    with pytest.raises(RecordError, match="outside"):
        judge(tmp_path)
