"""Records of invented runs, for the tests of whatever reads them: every outcome, every field."""

from __future__ import annotations

import random
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from typing import Any, get_args

from harness.base.host import Machine
from harness.base.stages import Stage
from harness.base.terms import CHECKS, WHOLE_SET, Check, Outcome, Provenance, VerdictKind
from harness.catalog.load import load_catalog
from harness.catalog.schema import Catalog
from harness.judge.statistics import spread
from harness.records import writer
from harness.records.conditions import Condition, Moment, Setup
from harness.records.lines import (
    CaseLine,
    CheckName,
    EndLine,
    GuideFigures,
    PlanLine,
    PlannedCase,
    RunCheckLine,
    RunLine,
    count,
)
from harness.records.measurements import (
    AccuracyMeasurement,
    EagerSpeed,
    Fidelity,
    Flip,
    OutputsCheck,
    Samples,
    Scores,
    ThroughputMeasurement,
    Timing,
)
from harness.records.observed import (
    ArtifactRef,
    Attempt,
    CheckpointInfo,
    DeviceInfo,
    Diagnosis,
    ErrorInfo,
    ImagesInfo,
    Section,
    StageTime,
)
from harness.records.reader import RunRecords
from harness.records.verdicts import BatchAnswer, BatchFlip, Reference, Verdict
from harness.records.verdicts import FigureName as F

RUN = "20261120-073000-1a2b"
MACHINE = Machine("bench-03", "Linux 6.8", "x86_64", "Example CPU 8-core", 8, 31.2)
VERSIONS = {"python": "3.11.9", "onnx": "1.17.0", "onnxruntime": "1.23.0"}
MODELS = ("squeezenet1_1", "fixres_resnet50", "resnest50", "inceptionv4", "seresnext101")
TITLES = {"squeezenet1_1": "SqueezeNet 1.1", "seresnext101": "SE-ResNeXt-101 32x4d"}
CATALOG = Path(__file__).parents[2] / "baselines.yaml"
LOG = "\n".join(f"[{i:02d}] node /features/Conv_{i}: float32 1x64x56x56" for i in range(60))
FLIPPED = "ILSVRC2012_val_00000217.JPEG"
_MESSAGE = "onnxruntime could not optimise the model: node Conv_14 has no kernel"
_REMEDY = "compare the operator set with what the target supports"
ERROR = ErrorInfo("CompileError", Stage.COMPILE, _MESSAGE, _REMEDY, LOG)
_JUDGED = ("passed", "failed", "inconclusive", "recorded")
KINDS: dict[str, VerdictKind] = dict(zip(_JUDGED, get_args(VerdictKind), strict=True))
DIGESTS = "77aa01bc" * 8


@cache
def catalog() -> Catalog:
    """The catalog of the five guides."""
    return load_catalog(CATALOG)


def published(*models: str) -> dict[str, GuideFigures]:
    """What the guides published for some models, as the line of a real run carries it."""
    from harness.run.guide_figures import guide_figures

    return guide_figures(catalog(), models, "real")


def _with(value: Any, changes: Mapping[str, Any]) -> Any:
    """`value`, a dataclass, with those of the changes that are fields of it."""
    names = {field.name for field in fields(value)} & changes.keys()
    return replace(value, **{name: changes[name] for name in names})


# Measurements ------------------------------------------------------------------------------------


def latencies(batch: int, size: int = 400) -> list[float]:
    """Plausible latency samples in ms, a few of them slow."""
    draw = random.Random(batch)
    usual = (3.1 * batch + abs(draw.gauss(0, 0.12 * batch)) for _ in range(size))
    return [round(value + (4 if draw.random() < 0.01 else 0), 4) for value in usual]


def scores(images: int = 512, right: int = 401) -> Scores:
    """`right` images have their label as the best class, more of them among the five best."""
    return Scores(images, tuple(min(images, right + more) for more in (0, 49, 70, 83, 90)))


def flip(name: str = FLIPPED) -> Flip:
    """An image that rounding moved."""
    return Flip(name, 31, 31, 7, 8.53, 8.54, 0.0021, 0.01)


def accuracy_measurement(
    images: int = 512, right: int = 401, **changes: Any
) -> AccuracyMeasurement:
    """What an accuracy case measured, beside eager PyTorch on the same images."""
    fidelity = Fidelity(6.8e-7, 4.1e-5, (images - 1) / images, (flip(),))
    measured = AccuracyMeasurement(
        "rehearsal", images, scores(images, right), (), fidelity, scores(images), 21.4, "p.csv"
    )
    return replace(measured, **changes)


def timing(batch: int, samples: Sequence[float], **changes: Any) -> Timing:
    """Eight rounds of these samples (ms)."""
    means = tuple(statistics.fmean(samples[start::8]) for start in range(8))
    mean = statistics.fmean(samples)
    spreads: dict[str, Any] = {**spread(samples), **changes}
    return replace(Timing(batch, 20, len(samples), means, mean, 0.82), **spreads)


def throughput_measurement(batch: int, size: int = 400, **changes: Any) -> ThroughputMeasurement:
    """What a throughput case measured, in turns with eager PyTorch."""
    eager = timing(batch, [1000 * batch / 210.4] * 40, half_width_percent=0.9)
    beside = EagerSpeed("channels-last", eager, (4.1, 4.2), (5.1, 5.0), 1.217)
    ours, outputs = timing(batch, latencies(batch, size)), OutputsCheck(5.1e-7, 0.03)
    measured = ThroughputMeasurement(
        "rehearsal", ours, 1.0, 60.0, 12.5, 0.82, beside, outputs=outputs, samples_file="s.json"
    )
    return replace(measured, **{"setup": Setup(driver="onnxruntime"), **changes})


def conditions(seconds: int = 40, *, busy: bool = False) -> tuple[Condition, ...]:
    """Looks at a device that warms up; `busy`: another process came in between."""
    looks = []
    for second in range(seconds):
        moment: Moment = "during" if 0 < second < seconds - 1 else "after" if second else "before"
        warm, power = 43.0 + 14 * (1 - 0.9**second), 15.8 + min(second, 10) * 3
        look = Condition(moment, float(second), "OK", "no", "no", warm, power)
        if busy and 20 <= second < 24:
            look = replace(look, busy="yes", note="process 4711 python3")
        looks.append(look)
    return tuple(looks)


# Lines -------------------------------------------------------------------------------------------


def artifact(stage: Stage, key: str = "", model: str = MODELS[0], **changes: Any) -> ArtifactRef:
    """An artifact; one that was built has a log."""
    key = key or f"{list(Stage).index(stage):02d}{'c0ffee' * 10}"
    log = () if changes.get("cached") else (LOG, f"logs/{model}-{stage}.log")
    return replace(ArtifactRef(stage, key, "9f86d081" * 8, 4_970_112, False, *log), **changes)


def verdict(check: Check, outcome: Outcome, provenance: Provenance) -> Verdict | None:
    """The verdict of a case with this outcome; None where it ended without one."""
    if outcome not in KINDS:
        return None
    value, unit, figures = 78.32, "%", {F.FLIPS: 0, F.IMAGES: 512, F.LOGITS_L2_ALLOWED: 0.03}
    reference = Reference("eager", 78.32, "%", "eager PyTorch on the same 512 images")
    if check == "throughput":
        value, unit, figures = 312.5, "fps", {F.MEAN_MS: 3.2 * 4, F.ROUNDS: 8}
        reference = Reference("eager-speed", 210.4, "fps", "measured in alternation", "8 threads")
    if outcome == "recorded":
        reference = Reference("none")
    allowed = "every prediction is equal unless the eager margin is below the bound"
    held = replace(reference, provenance=provenance)
    said = f"The sentence of a case that is {outcome}."
    return Verdict(KINDS[outcome], said, "rehearsal", unit, value, held, allowed, figures=figures)


def case(
    model: str = "squeezenet1_1",
    batch: int = 4,
    check: Check = "accuracy",
    outcome: Outcome = "passed",
    *,
    target: str = "cpu",
    provenance: Provenance = "rehearsal",
    **changes: Any,
) -> CaseLine:
    """One case line with every field filled.

    `changes` are fields of the line, of its verdict or of its measurement, by their names.
    """
    name, accuracy, judged = f"{model}-bs{batch}-{target}", check == "accuracy", outcome in KINDS
    measured: Any = None
    if judged and accuracy:
        measured = accuracy_measurement(predictions_file=f"predictions/{name}.csv")
    elif judged:
        measured = throughput_measurement(batch, samples_file=f"samples/{name}.json")
    given = verdict(check, outcome, provenance)
    own = set(CaseLine.model_fields)
    values: dict[str, Any] = {
        "run": RUN,
        "nodeid": f"tests/acceptance/test_{check}.py::test_{check}[{name}]",
        "case": name,
        "model": model,
        "title": TITLES.get(model, model),
        "batch_size": batch,
        "target": target,
        "check": check,
        "provenance": provenance,
        "outcome": outcome,
        "sentence": f"The sentence of a case that is {outcome}.",
        "error": ERROR if not judged and outcome != "not_run" else None,
        "checkpoint": CheckpointInfo("checkpoint", f"{model}.pth", "b8a52dc0" * 8, verified=True),
        "images": ImagesInfo("generated", "/srv/images", 512, DIGESTS),
        "preprocessing": "resize short side 256 bilinear, centre crop 224 (round)",
        "artifacts": tuple(
            artifact(stage, model=model, cached=stage not in (Stage.SIMPLIFY, Stage.COMPILE))
            for stage in (*_CHAIN, Stage.CROPS)
        ),
        "stages": (
            StageTime(Stage.EXPORT, 0.02, cached=True),
            StageTime(Stage.SIMPLIFY, 1.84),
            StageTime(Stage.INFER if accuracy else Stage.TIME, 21.4),
        ),
        "device": DeviceInfo("cpu-0", "Example CPU 8-core", runtime={"threads": 8}),
        "machine": MACHINE,
        "versions": VERSIONS,
        "worker": "gw0",
        "started": "2026-11-20T07:30:12+00:00",
        "seconds": 26.2,
        "repeat": (
            f"python -m pytest --rehearsal -m {check} --models {model} --batch-sizes {batch}",
        ),
        "verdict": given and _with(given, changes),
        "measurement": measured
        and _with(
            measured,
            {"provenance": provenance}
            | {name: value for name, value in changes.items() if name not in own},
        ),
    }
    return CaseLine(**{**values, **{name: changes[name] for name in own & changes.keys()}})


_CHAIN = (Stage.CHECKPOINT, Stage.EXPORT, Stage.SIMPLIFY, Stage.COMPILE)


def measured(line: CaseLine, **changes: Any) -> CaseLine:
    """`line` with another measurement."""
    return line.model_copy(update={"measurement": _with(line.measurement, changes)})


def planned(line: CaseLine) -> PlannedCase:
    """The plan's entry of a case."""
    return PlannedCase(**line.model_dump(include=set(PlannedCase.model_fields)))


def batch_check(
    model: str = "seresnext101",
    outcome: Any = "passed",
    *,
    target: str = "ascend310p3",
    provenance: Provenance = "real",
    **changes: Any,
) -> RunCheckLine:
    """Batch sizes of one model, with one image whose prediction is not the same."""
    sentence = "batch sizes 1, 4 agree: top-1 within 0.00 points of 0.1 allowed; 1 differs"
    if outcome == "failed":
        sentence = "batch size 4 is right on 93 images of 50000 less than batch size 1"
    reference = Reference("batch-size", unit="points", provenance=provenance)
    answers = {1: BatchAnswer(31, 12.125), 4: BatchAnswer(7, 12.128)}
    made = Verdict(
        *(KINDS[outcome], sentence, "batch-sizes", "points", 0.186, reference),
        "top-1 on the same images differs by at most 0.1 points between batch sizes",
        figures={F.IMAGES: WHOLE_SET, F.FLIPS: 1},
        top1_by_batch_size={1: 78.24, 4: 78.24},
        batch_flips=(BatchFlip(FLIPPED, 31, False, answers),),
    )
    about: dict[str, Any] = {"run": RUN, "name": CheckName.BATCH_SIZES, "model": model}
    about |= {"subject": f"{model} on {target}", "target": target, "provenance": provenance}
    about |= {"outcome": outcome, "sentence": sentence, "verdict": _with(made, changes)}
    return RunCheckLine(**{**about, **{k: v for k, v in changes.items() if k in about}})


# Runs --------------------------------------------------------------------------------------------


def run_records(
    cases: Iterable[CaseLine],
    *,
    lost: Sequence[PlannedCase] = (),
    end: bool = True,
    directory: Path = Path("runs") / RUN,
    damaged: tuple[str, ...] = (),
    exit_status: int = 0,
    stopped: str = "",
    checks: Sequence[RunCheckLine] = (),
    **about: Any,
) -> RunRecords:
    """A whole run around `cases`; `lost` were planned and left no line; `about` is of its first."""
    lines = tuple(cases)
    plan = (*map(planned, lines), *lost)
    usual: dict[str, Any] = {
        "run": RUN,
        "provenance": "rehearsal",
        "started": "2026-11-20T07:30:00+00:00",
        "command": ("pytest", "--rehearsal", "--batch-sizes", "1,4"),
        "directory": "/srv/harness",
        "git": "4f2c9e1",
        "catalog_digest": "c4" * 32,
        "machine": MACHINE,
        "versions": VERSIONS,
        "settings": {"rehearsal": True, "batch_sizes": [1, 4], "store": ".store"},
    }
    run = RunLine(**usual | about)
    ending = EndLine(
        run=run.run,
        finished="2026-11-20T07:42:03+00:00",
        planned=len(plan),
        counts=count(plan, lines),
        complete=not lost,
        stopped=stopped,
        exit_status=exit_status,
        seconds=723.0,
    )
    return RunRecords(directory, run, plan, lines, ending if end else None, damaged, tuple(checks))


def write(directory: Path, records: RunRecords, raw: Iterable[str] = ()) -> Path:
    """Write a run, with `raw` lines before its end, into its directory; returns the directory."""
    directory.mkdir(parents=True, exist_ok=True)
    plan = PlanLine(run=records.run.run if records.run else RUN, cases=records.plan)
    first = [records.run] if records.run else []
    writer.append(directory, *first, plan, *records.cases, *records.checks)
    with (directory / writer.RESULTS).open("a", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in raw)
    if records.end:
        writer.append(directory, records.end)
    return directory


def write_samples(directory: Path, records: RunRecords) -> RunRecords:
    """Write the execution times of each throughput case; returns the records of `directory`."""
    for line in records.cases:
        if line.throughput is not None:
            times = tuple(latencies(line.batch_size))
            rounds = tuple(times[start::8] for start in range(8))
            name = Path(line.throughput.samples_file).stem
            writer.write_samples(directory, name, Samples(rounds))
    return replace(records, directory=directory)


def all_outcomes(provenance: Provenance = "rehearsal") -> RunRecords:
    """Five models, two batch sizes, both checks; every outcome is in it."""
    odd: dict[tuple[str, int, str], Outcome] = {
        ("squeezenet1_1", 4, "accuracy"): "failed",
        ("fixres_resnet50", 4, "throughput"): "inconclusive",
        ("resnest50", 1, "throughput"): "recorded",
        ("resnest50", 4, "accuracy"): "known_failure",
        ("inceptionv4", 1, "accuracy"): "error",
        ("inceptionv4", 4, "accuracy"): "crashed",
        ("inceptionv4", 4, "throughput"): "not_run",
    }
    cases = []
    for check, model, batch in ((c, m, b) for c in CHECKS for m in MODELS for b in (1, 4)):
        outcome = odd.get((model, batch, check), "passed")
        worse: dict[str, Any] = (
            {"measured": 71.09, "scores": scores(right=364)} if outcome == "failed" else {}
        )
        cases.append(case(model, batch, check, outcome, provenance=provenance, **worse))
    return run_records(cases, provenance=provenance, exit_status=1)


# A real run on a 310P3 (invented figures) --------------------------------------------------------

COMMANDS = {
    "compile": "atc --framework=5 --model=model.onnx --output=model --soc_version=Ascend310P3",
    "time": "python3 -m ais_bench --model model.om --loop 100 --device 1",
}
TOOLS = {"cann": "8.0.RC2", "driver": "23.0.0", "firmware": "7.1.0.3.220"}
DEVICE = DeviceInfo("ascend310p3-1", "Ascend310P3", "npu-1", True, 0.2, "api", TOOLS)
_LOST = ("device 0 was lost: [507033]", "npu-smi no longer shows it")
ATTEMPT = Attempt("ascend310p3-0", Stage.DEVICE, *_LOST)
_ROWS = (("ONNX Runtime", "4.1e-07", "64 of 64"), ("compiled", "0.31", "41 of 64"))
DIAGNOSIS = Diagnosis(
    "Eager PyTorch and the ONNX file agree; the compiled model does not.",
    Stage.COMPILE,
    "the compiler",
    (Section("Agreement of the stages", ("stage", "relative L2", "equal predictions"), _ROWS),),
    ("python -m harness diagnose latest squeezenet1_1-bs4-ascend310p3",),
)
SETUP = Setup("api", "pure-inference", "none", "Ascend310P3", "Atlas 300I Pro", 1, "CANN 8.0.RC2")


def _real(*names: Any, **changes: Any) -> CaseLine:
    usual: dict[str, Any] = {"provenance": "real", "target": "ascend310p3", "device": DEVICE}
    return case(*names, **usual | changes)


def real_accuracy(model: str, batch: int, outcome: Outcome = "passed", **changes: Any) -> CaseLine:
    """An accuracy case over the whole set against the published figure."""
    figure = catalog().models[model].stated.published
    measured = figure.top1 * (0.9997 if outcome == "passed" else 0.98)
    relative = 100 * (measured / figure.top1 - 1)
    given: dict[str, Any] = {
        "measured": measured,
        "sentence": f"{measured:.2f} % against {figure.top1:g} % published: {relative:+.2f} %",
        "reference": Reference("published", figure.top1, "%", figure.source),
        "figures": {
            F.IMAGES: WHOLE_SET,
            F.TOP1: round(measured, 3),
            F.PUBLISHED_TOP1: figure.top1,
            F.RELATIVE_DIFFERENCE: relative,
            F.TOLERANCE_PERCENT: 1.0,
        },
        "expected_images": WHOLE_SET,
        "scores": scores(WHOLE_SET, round(WHOLE_SET * measured / 100)),
        "fidelity": None,
        "reference_scores": None,
        "images": ImagesInfo("folder", "/data/imagenet", WHOLE_SET, DIGESTS),
    }
    return _real(model, batch, "accuracy", outcome, **given | changes)


def part_accuracy(model: str, batch: int, **changes: Any) -> CaseLine:
    """An undecided accuracy case over a part of the set, against eager on the same images."""
    given: dict[str, Any] = {
        "measured": 78.1,
        "sentence": "top-1 78.10 % where eager has 78.00 % on the same images; more would decide",
        "reference": Reference("eager", 78.0, "%", "eager PyTorch on the same 1000 images"),
        "figures": {
            F.IMAGES: 1000,
            F.TOP1: 78.1,
            F.EAGER_TOP1: 78.0,
            F.PUBLISHED_TOP1: 78.26,
            F.TOLERANCE_POINTS: 0.7826,
            F.DIFFERENCE_POINTS: 0.1,
            F.DIFFERENCE_INTERVAL: (-0.72, 0.94),
            F.EAGER_INTERVAL: (73.4, 82.1),
        },
        "expected_images": 1000,
        "scores": scores(1000, 781),
        "reference_scores": scores(1000, 780),
        "images": ImagesInfo("folder", "/data/imagenet", 1000, DIGESTS),
    }
    return _real(model, batch, "accuracy", "inconclusive", **given | changes)


def real_throughput(model: str, batch: int, factor: float = 1.02, **changes: Any) -> CaseLine:
    """A throughput case on a 310P3 against its published figure; recorded where there is none.

    `changes` may name the outcome, too.
    """
    baseline = catalog().models[model].baseline("ascend310p3", batch)
    floor, source = (baseline.fps, baseline.source) if baseline else (500.0, "")
    fps = floor * factor
    mean = 1000 * batch / fps
    samples = [mean * (1 + 0.01 * ((i * 37) % 11 - 5) / 5) for i in range(300)]
    given: dict[str, Any] = {
        "outcome": "recorded" if baseline is None else "passed" if fps >= floor else "failed",
        "measured": fps,
        "sentence": f"{fps:.4g} fps against {floor:g} ({source})",
        "reference": Reference("baseline", floor, "fps", source) if baseline else Reference("none"),
        "timing": timing(batch, samples, mean_ms=mean, half_width_percent=0.6),
        "eager": None,
        "half_width_percent": 0.6,
        "conditions": conditions(),
        "setup": SETUP,
        "outputs": OutputsCheck(1.2e-3, 0.03),
        "images": None,
        "device": replace(DEVICE, commands=COMMANDS),
    }
    return _real(model, batch, "throughput", **given | changes)


def real_run(directory: Path = Path("runs") / RUN) -> RunRecords:
    """Two models on a 310P3, red: a slow batch size, an undecided accuracy, a device set aside."""
    cases = [real_accuracy("seresnext101", batch) for batch in (1, 4)]
    cases.append(part_accuracy("seresnext101", 16))
    cases.append(real_accuracy("fixres", 1, "failed", diagnosis=DIAGNOSIS))
    cases += [
        real_throughput("seresnext101", batch, 0.96 if batch == 8 else 1.0 + batch / 1000)
        for batch in (1, 4, 8, 16, 32, 64)
    ]
    busy: dict[str, Any] = {"conditions": conditions(busy=True), "attempts": (ATTEMPT,)}
    cases.append(real_throughput("fixres", 1, 0.99, outcome="inconclusive", **busy))
    cases.append(_real("resnest50", 1, "throughput", "error"))
    return run_records(
        cases,
        provenance="real",
        exit_status=1,
        checks=[batch_check()],
        guide_figures=published("seresnext101", "fixres"),
        directory=directory,
    )
