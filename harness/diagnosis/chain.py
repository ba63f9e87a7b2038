"""The same images through each stage of the chain: which stage departs."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from harness.base import jobs
from harness.base.errors import HarnessError, InferError
from harness.base.stages import Stage
from harness.diagnosis import trials
from harness.diagnosis.agreement import CELLS, agree, outputs
from harness.diagnosis.evidence import Evidence
from harness.diagnosis.words import COMPILED, EAGER, EXPORTED, SIMPLIFIED, STAGES
from harness.measure import attempt
from harness.stages import eager
from harness.targets.protocol import Float32

# Export and simplification change no arithmetic: rounding of float32 alone. On the five models it
# is at most 3e-4, the slightest mistake 6e-3: the bound of a target that computes in float32.
FLOAT32_BOUND = 1e-3


def host_stages(evidence: Evidence) -> None:
    """Run eager PyTorch and the two ONNX files; where they differ is told later."""
    case, reference = evidence.case, evidence.prepared.reference
    np.save(evidence.scratch / "inputs.npy", evidence.input, allow_pickle=False)
    with evidence.trying(EAGER):
        if reference is not None:
            row_of = {name: row for row, name in enumerate(reference.names)}
            rows = [row_of[name] for name in evidence.names]
            evidence.logits[EAGER] = reference.rows(np.array(rows, np.int64))
        elif case.given_onnx is not None:
            raise HarnessError("the ONNX file was given, there are no weights")
        else:
            weights = case.checkpoint()
            log = case.log_path(Stage.DIAGNOSE, "eager")
            with (
                evidence.sharing_host() as lease,
                eager.open_eager(case, weights, eager.BATCH, log, lease_fds=lease.fds) as session,
            ):
                evidence.logits[EAGER] = outputs(session, evidence.input)
    for name, file in ((EXPORTED, case.onnx), (SIMPLIFIED, case.simplified)):
        with evidence.trying(name):
            evidence.logits[name] = graph_outputs(evidence, file(), name)


def graph_outputs(evidence: Evidence, path: Path, name: str) -> Float32:
    """Return the logits of an ONNX file for the few images."""
    output = evidence.scratch / f"{STAGES[name]}.npy"
    with evidence.sharing_host() as lease:
        jobs.call(
            "harness.diagnosis.graphs:run_graph",
            {
                "model": str(path),
                "inputs": str(evidence.scratch / "inputs.npy"),
                "batch_size": evidence.case.case.batch_size,
                "output": str(output),
            },
            deadline_s=evidence.deadline.left_s,
            log=evidence.case.log_path(Stage.DIAGNOSE),
            error=InferError,
            what=f"{name} of {evidence.case.case.id}",
            pass_fds=lease.fds,
        )
    return np.asarray(np.load(output, allow_pickle=False), np.float32)


def compiled_stage(evidence: Evidence) -> None:
    """Run the compiled model on its device, with the catalog's input and with what is fed.

    Then try the usual mistakes on it.
    """
    reference = next(iter(evidence.logits.values()), None)
    evidence.deadline.check()
    try:
        with attempt.opened(
            evidence.case, evidence.prepared, timeout_s=evidence.deadline.left_s
        ) as session:
            evidence.logits[COMPILED] = right = outputs(session, evidence.input)
            fed = evidence.pictures.fed
            same = np.array_equal(fed, evidence.input)
            as_fed = right if same else outputs(session, fed)
            _agreement_table(evidence, None if same else as_fed)
            if reference is None or agree(as_fed, reference).within(evidence.bound):
                trials.label_suspects(evidence, session)
            else:
                trials.input_suspects(evidence, session, as_fed, reference, same=same)
    finally:
        if COMPILED not in evidence.logits:
            _agreement_table(evidence, None)


def _agreement_table(evidence: Evidence, as_fed: Float32 | None) -> None:
    """Compare each stage with the one before it and with the first; note the first that departs."""
    findings, rows = evidence.findings, []
    first = next(iter(evidence.logits), "")
    before = ""
    for name, logits in evidence.logits.items():
        bound = evidence.bound if name == COMPILED else FLOAT32_BOUND
        for other in dict.fromkeys(one for one in (before, first) if one and one != name):
            agreement = agree(logits, evidence.logits[other])
            within = agreement.within(bound)
            rows.append([name, other, *agreement.cells(), _says(within)])
            if other == before and not within and findings.stage is None:
                findings.stage, findings.difference = STAGES[name], agreement
        before = name
    if as_fed is not None and first:
        agreement = agree(as_fed, evidence.logits[first])
        name = f"{COMPILED}, as fed in the run"
        rows.append([name, first, *agreement.cells(), _says(agreement.within(evidence.bound))])
    evidence.section(
        f"Agreement of the stages on {len(evidence.index)} images",
        ["stage", "compared with", *CELLS, f"bound {FLOAT32_BOUND:g}, compiled {evidence.bound:g}"],
        rows,
    )


def _says(within: bool) -> str:
    return "agrees" if within else "departs"
