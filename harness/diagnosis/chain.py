"""The same images through each stage of the chain: which stage departs."""

from __future__ import annotations

import numpy as np

from harness.base.errors import HarnessError
from harness.base.stages import Stage
from harness.diagnosis import devices, trials
from harness.diagnosis.agreement import CELLS, Agreement, agree
from harness.diagnosis.evidence import Evidence
from harness.diagnosis.words import COMPILED, EXPORTED, GIVEN, SIMPLIFIED, STAGES
from harness.stages import eager
from harness.stages.inference import outputs_of
from harness.targets.protocol import Float32

# Export and simplification change no arithmetic: rounding of float32 alone. On the five models it
# is at most 3e-4, the slightest mistake 6e-3: the bound of a target that computes in float32.
FLOAT32_BOUND = 1e-3


def host_stages(evidence: Evidence) -> None:
    """Run the reference and the two ONNX files; where they differ is told later."""
    case, reference = evidence.case, evidence.prepared.reference
    with evidence.trying(evidence.reference):
        if reference is not None:
            row_of = {name: row for row, name in enumerate(reference.names)}
            rows = [row_of[name] for name in evidence.names]
            evidence.logits[evidence.reference] = reference.rows(np.array(rows, np.int64))
        elif case.given_onnx is not None:
            raise HarnessError("the ONNX file was given, there are no weights")
        else:
            weights = case.checkpoint()
            log = case.log_path(Stage.DIAGNOSE, "eager")
            with (
                evidence.sharing_host() as lease,
                eager.open_eager(case, weights, eager.BATCH, log, lease_fds=lease.fds) as session,
            ):
                evidence.logits[evidence.reference] = outputs_of(session, evidence.input)
    exports = case.given_onnx is None and case.model.reference_kind == "eager"
    exported = EXPORTED if exports else GIVEN
    for name, file in ((exported, case.onnx), (SIMPLIFIED, case.simplified)):
        with evidence.trying(name):
            evidence.logits[name] = evidence.graph_outputs(file(), evidence.input)


def compiled_stage(evidence: Evidence) -> None:
    """Run the compiled model on the run's device, with the catalog's input and with what is fed.

    Then try the usual mistakes on it, and another device.
    """
    evidence.check_time()
    case, prepared = evidence.case, evidence.prepared
    reference = next(iter(evidence.logits.values()), None)
    with devices.opened_where_it_ran(case, prepared, evidence.left_s) as session:
        as_fed = evidence.logits[COMPILED] = outputs_of(session, evidence.right)
        if not evidence.right_is_fed:
            as_fed = evidence.as_fed = outputs_of(session, evidence.pictures.fed)
        if reference is None or agree(as_fed, reference).within(evidence.bound):
            trials.label_suspects(evidence, session)
            return
        trials.input_suspects(evidence, session, as_fed, reference)
    with evidence.trying("another device"):
        evidence.check_time()
        elsewhere = devices.elsewhere(case, prepared, evidence.pictures.fed, evidence.left_s)
        if elsewhere is not None:
            evidence.elsewhere = elsewhere.device, elsewhere.outputs
            if agree(elsewhere.outputs, reference).within(evidence.bound):
                wrong, right = elsewhere.not_on, elsewhere.device
                evidence.findings.devices = devices.blame(case, wrong, right)


def agreement(evidence: Evidence) -> None:
    """Compare each stage with the one before it and with the first; note the first that departs."""
    findings, rows = evidence.findings, []

    def row(name: str, logits: Float32, other: str, bound: float) -> Agreement:
        result = agree(logits, evidence.logits[other])
        says = "agrees" if result.within(bound) else "departs"
        rows.append([name, other, *result.cells(), says])
        return result

    # A given file may be of int8: its model's own bound says what it costs.
    lossy = (COMPILED,) if evidence.case.model.fidelity is None else (COMPILED, GIVEN)
    first = before = next(iter(evidence.logits), "")
    for name, logits in list(evidence.logits.items())[1:]:
        bound = evidence.bound if name in lossy else FLOAT32_BOUND
        result = row(name, logits, before, bound)
        if not result.within(bound) and findings.stage is None:
            findings.stage, findings.difference = STAGES[name], result
            findings.departs, findings.before = name, before
        if before != first:
            row(name, logits, first, bound)
        before = name
    if evidence.as_fed is not None and first != COMPILED:
        row(f"{COMPILED}, as fed in the run", evidence.as_fed, first, evidence.bound)
    if evidence.elsewhere is not None and first != COMPILED:
        device, logits = evidence.elsewhere
        row(f"{COMPILED}, as fed, on {device}", logits, first, evidence.bound)
    columns = ("stage", "compared with", *CELLS)
    evidence.section(
        f"Agreement of the stages on {len(evidence.index)} images",
        [*columns, f"bound {FLOAT32_BOUND:g}, {' and '.join(lossy)} {evidence.bound:g}"],
        rows,
        first=True,
    )
