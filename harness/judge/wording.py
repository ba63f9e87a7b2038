"""What sentences of verdicts are made of: problems, counts, figures. Nothing reads one back."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

from harness.base import precision
from harness.base.terms import WHOLE_SET
from harness.records.measurements import Problem, ProblemCode


def joined(*clauses: str) -> str:
    """Return one sentence of clauses; empty ones are left out."""
    return "; ".join(clause for clause in clauses if clause)


def clause(sentence: str) -> str:
    """Return a sentence as a part of another: `the compiled model departs`."""
    return sentence[:1].lower() + sentence[1:]


def counted(count: int, what: str = "image") -> str:
    """Return `1 image`, `12 images`."""
    return f"{count} {what}{'' if count == 1 else 's'}"


def sizes_of(sizes: Iterable[int]) -> str:
    """Return `batch size 4`, `batch sizes 1, 4`."""
    ordered = sorted(sizes)
    return f"batch size{'' if len(ordered) == 1 else 's'} {', '.join(map(str, ordered))}"


def would_decide(enough: int | None) -> str:
    """Say how many images would decide; None where only all do."""
    count = f"only the whole set of {WHOLE_SET}" if enough is None else f"about {enough}"
    return f"{count} images would decide, if they differ as often"


def one_device(wrong: str, right: str) -> str:
    """Say that one device alone gives wrong outputs."""
    return f"{wrong} gives wrong outputs and {right} the right ones, of the same compiled file"


# Problems ----------------------------------------------------------------------------------

_L2 = "by {relative_l2:.2g} (relative L2), allowed {bound:g}"
# By code; beside the problem's data `n` is "3 images", and `some` the first of its names.
_PROBLEMS = {
    ProblemCode.ROWS: "{outputs} rows of outputs for {n}",
    ProblemCode.NOT_FINITE: "NaN or infinity in the outputs of {n} ({some})",
    ProblemCode.COUNTED_TWICE: "{n} counted more than once ({some})",
    ProblemCode.NO_OUTPUT: "{n} without output ({some})",
    ProblemCode.FOREIGN_OUTPUT: "{n} without an image ({some})",
    ProblemCode.OTHER_INPUT: "what is fed is not the catalog's preprocessing: {n} ({some})",
    ProblemCode.IMAGES_MISSING: "{scored} of {expected} images scored",
    ProblemCode.EAGER_IMAGES_MISSING: "{scored} of {expected} images in the eager pass",
    ProblemCode.OTHER_PAIRS: "the compiled and the eager pass do not speak of the same images",
    ProblemCode.LOGITS_DIFFER: f"logits differ {_L2}",
    ProblemCode.PREDICTIONS_DIFFER: "{images} of {of} predictions differ from {by} ({some})",
    ProblemCode.SCORE_DIFFERS: "top-1 {top1:.2f} % where {by} has {eager_top1:.2f} %",
    ProblemCode.REFERENCE_OFF: "the reference is off: eager PyTorch has {top1:.2f} % on {n} (99.9 "
    "% interval {low:.2f} to {high:.2f}), {published:g} % is published: wrong weights, labels or "
    "preprocessing? To agree with it means nothing",
    ProblemCode.CLASS_ORDER: "the network counts its classes in another order than the images: it "
    "takes {n} for each other in turn ({some})",
    ProblemCode.WRONG_SHAPE: "outputs have shape {shape}, the ONNX model's {expected}",
    ProblemCode.OTHER_NETWORK: "--onnx gave another network than {model} with the stand-in's "
    f"weights: outputs for seeded inputs differ from eager PyTorch's {_L2}",
    ProblemCode.OUTPUTS_DIFFER: f"outputs for seeded inputs differ from the ONNX model's {_L2}: "
    "the speed of a wrong model counts for nothing",
    ProblemCode.STRANGE_TIMES: "the session says that {executions} executions took "
    "{reported_ms:.4g} ms, and {passed_ms:.4g} ms passed: its times are not milliseconds, or it "
    "does not wait for the device",
    ProblemCode.WAITS: "an execution takes {cpu_ms:.4g} ms of CPU time and {clock_ms:.4g} ms by "
    "the clock, where eager PyTorch hardly waits: it waits, or computes in another process",
    ProblemCode.BATCH_IMAGES: "{n} of batch size {size} or {other} alone, or with another label "
    "({some})",
    ProblemCode.OTHER_ARTIFACT: "the checks ran different compiled files: accuracy "
    "{accuracy:.12}, throughput {throughput:.12}",
    ProblemCode.COMPILED_ANEW: "one check's compiled file did not load and was compiled anew in "
    "between: accuracy ran {accuracy:.12}, throughput {throughput:.12}",
}
_SEEDED = "NaN or infinity in the outputs for seeded inputs"


def problem_text(problem: Problem) -> str:
    """Return what is wrong, in words."""
    data = problem.data
    words: dict[str, object] = {"by": "eager"}
    for key, value in data.items():
        words[key] = value
        if key in ("images", "outputs", "classes") and isinstance(value, int):
            words["n"] = counted(value, key.removesuffix("s"))
            words["n"] = f"{value} classes" if key == "classes" else words["n"]
            if isinstance(names := data.get("names"), tuple):
                left = value - len(names[:3])
                more = f" and {left} more" if left > 0 else ""
                words["some"] = ", ".join(map(str, names[:3])) + more
        elif isinstance(value, tuple):  # a shape
            words[key] = f"({', '.join(f'{one:g}' for one in value if not isinstance(one, str))})"
    seeded = problem.code is ProblemCode.NOT_FINITE and "images" not in data
    text = (_SEEDED if seeded else _PROBLEMS[problem.code]).format(**words)
    return f"in the eager pass: {text}" if data.get("eager") else text


def problems_text(problems: Iterable[Problem]) -> str:
    """Return all that is wrong, in one sentence; empty where nothing is."""
    return joined(*map(problem_text, problems))


# Figures -----------------------------------------------------------------------------------


def apart(value: float, *others: float, digits: int = 4) -> str:
    """Return a figure in so many digits, or in as many as set it apart from `others`: no near miss
    reads as if it were none. Never in powers of ten.
    """

    def read(number: float, count: int) -> float:
        # `1.000` and `1.0000` read the same.
        return float(precision.significant(number, count).replace(",", ""))

    near = [other for other in others if other != value]
    for count in range(digits, 16):
        if all(read(other, count) != read(value, count) for other in near):
            break
    return precision.significant(value, count)


def decimal(value: float) -> str:
    """Return a published figure in all its digits, never in powers of ten."""
    text = format(Decimal(repr(float(value))), ",f")
    return text.rstrip("0").removesuffix(".") if "." in text else text
