"""The table of planted faults: every row, and the table as `docs/planted-faults.md` shows it."""

from __future__ import annotations

from tests.selftest.planted import artifacts, inputs, results, run_records, speed, tools
from tests.selftest.planted.rows import Fault

SUBJECTS: tuple[tuple[str, tuple[Fault, ...]], ...] = (
    ("What the network is fed", inputs.FAULTS),
    ("Labels and results", results.FAULTS),
    ("Weights and artifacts", artifacts.FAULTS),
    ("Tools and devices", tools.FAULTS),
    ("Timing and baselines", speed.FAULTS),
    ("Records", run_records.FAULTS),
)
FAULTS: tuple[Fault, ...] = tuple(fault for _, faults in SUBJECTS for fault in faults)

INTRODUCTION = """\
# Planted faults

{count}.

Each is planted alone, by `tests/selftest/test_planted.py`, and must be noticed by the part that is
responsible for it, in its own words; a twin without the fault must come out sound. What is not
about a device runs through the real chain: export, onnxsim, ONNX Runtime, the device worker. Tools
and devices are the simulator's: no NPU took part.

`python -m tests.selftest.planted_table` prints this page.

- *Preprocessing conformance* holds what is fed against the guides' scripts, bit for bit: a mistake
  in `baselines.yaml` or in the code is eager PyTorch's as well, and no comparison of the two shows
  it ("for both sides"). In a run it holds what lies in a session's input against the catalog's
  steps, on four images of each accuracy case.
- *Fidelity* holds the compiled model's logits against eager PyTorch's on the same images.
- *error*: a part refused to go on, with a remedy. *rebuilt*: the store did not hand the artifact
  out, and it was built again.
"""


def count() -> str:
    """The count that a green run of the suite stands for: every row passes, or it is red."""
    number = len(FAULTS)
    return f"{number} of {number} planted faults caught by the part that is responsible"


def markdown() -> str:
    """The whole document."""
    lines = [INTRODUCTION.format(count=count())]
    for subject, faults in SUBJECTS:
        lines += [
            f"## {subject}",
            "",
            "| fault | planted in | responsible | outcome | sound twin |",
            "| --- | --- | --- | --- | --- |",
        ]
        for fault in faults:
            cells = (fault.name, fault.planted, fault.part, fault.outcome, fault.sound)
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)
