"""Records of invented runs, for the tests of whatever reads them: every outcome, every field."""

from __future__ import annotations

import random
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

from harness.base.host import Machine
from harness.base.stages import Stage
from harness.base.terms import WHOLE_SET, Check, Outcome, Provenance, VerdictKind
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
MACHINE = Machine(
    hostname="bench-03",
    system="Linux 6.8",
    architecture="x86_64",
    processor="Example CPU 8-core",
    cores=8,
    memory_gib=31.2,
)
VERSIONS = {"python": "3.11.9", "onnx": "1.17.0", "onnxruntime": "1.23.0"}
TITLES = {
    "squeezenet1_1": "SqueezeNet 1.1",
    "fixres_resnet50": "FixRes ResNet-50 at 384",
    "resnest50": "ResNeSt-50",
    "inceptionv4": "Inception-v4",
    "seresnext101": "SE-ResNeXt-101 32x4d",
}
CATALOG = Path(__file__).parents[2] / "baselines.yaml"
LOG = "\n".join(f"[{i:02d}] node /features/Conv_{i}: float32 1x64x56x56" for i in range(60))
FLIPPED = "ILSVRC2012_val_00000217.JPEG"


@cache
def catalog() -> Catalog:
    """The catalog of the five guides."""
    return load_catalog(CATALOG)


def published(*models: str, provenance: Provenance = "real") -> dict[str, GuideFigures]:
    """What the guides published for some models, as a run line carries it."""
    from harness.run.guide_figures import guide_figures

    return guide_figures(catalog(), models, provenance)


# Measurements ------------------------------------------------------------------------------------


def nodeid(model: str, batch: int, target: str, check: str) -> str:
    """The id that pytest would give."""
    name = f"{model}-bs{batch}-{target}"
    return f"tests/acceptance/test_{check}.py::test_{check}[{name}]"


def latencies(batch: int, seed: int = 0, size: int = 400) -> list[float]:
    """Plausible latency samples in ms, a few of them slow."""
    draw = random.Random(seed * 101 + batch)
    return [
        round(
            3.1 * batch + abs(draw.gauss(0, 0.12 * batch)) + (4 if draw.random() < 0.01 else 0), 4
        )
        for _ in range(size)
    ]


def scores(images: int = 512, right: int = 401) -> Scores:
    """`right` images have their label as the best class, more of them among the five best."""
    return Scores(images, tuple(min(images, right + more) for more in (0, 49, 70, 83, 90)))


def flip(name: str = FLIPPED, **changes: Any) -> Flip:
    """An image that rounding moved."""
    return replace(Flip(name, 31, 31, 7, 8.53, 8.54, 0.0021, 0.01), **changes)


def accuracy_measurement(
    images: int = 512, right: int = 401, **changes: Any
) -> AccuracyMeasurement:
    """What an accuracy case measured, beside eager PyTorch on the same images."""
    values: dict[str, Any] = {
        "provenance": "rehearsal",
        "expected_images": images,
        "scores": scores(images, right),
        "problems": (),
        "fidelity": Fidelity(6.8e-7, 4.1e-5, (images - 1) / images, (flip(),)),
        "reference_scores": scores(images),
        "seconds": 21.4,
        "predictions_file": "predictions/squeezenet1_1-bs4-cpu.csv",
    }
    return AccuracyMeasurement(**{**values, **changes})


def timing(batch: int, samples: Sequence[float], **changes: Any) -> Timing:
    """Eight rounds of these samples (ms)."""
    rounds = [samples[start::8] for start in range(8)]
    values: dict[str, Any] = {
        "batch_size": batch,
        "warmup": 20,
        "executions": len(samples),
        "round_means": tuple(statistics.fmean(one) for one in rounds),
        "mean_ms": statistics.fmean(samples),
        "half_width_percent": 0.82,
        **spread(samples),
    }
    return Timing(**{**values, **changes})


def throughput_measurement(batch: int, size: int = 400, **changes: Any) -> ThroughputMeasurement:
    """What a throughput case measured, in turns with eager PyTorch."""
    eager = timing(batch, [1000 * batch / 210.4] * 40, half_width_percent=0.9)
    values: dict[str, Any] = {
        "provenance": "rehearsal",
        "timing": timing(batch, latencies(batch, size=size)),
        "eager": EagerSpeed("channels-last", eager, (4.1, 4.2), (5.1, 5.0), 1.217),
        "precision_percent": 1.0,
        "budget_s": 60.0,
        "seconds": 12.5,
        "half_width_percent": 0.82,
        "outputs": OutputsCheck(5.1e-7, 0.03),
        "setup": Setup(driver="onnxruntime"),
        "samples_file": f"samples/throughput-{batch}.json",
    }
    return ThroughputMeasurement(**{**values, **changes})


# Lines -------------------------------------------------------------------------------------------

SENTENCES: dict[Outcome, str] = {
    "passed": "512 of 512 predictions agree with the eager model's; relative L2 6.8e-7.",
    "failed": "37 of 512 predictions differ from the eager model's; 0 may differ.",
    "inconclusive": "The half-width of the mean's 99 % interval is 2.9 %; 1 % was asked for.",
    "recorded": "312.5 fps measured; nothing comparable exists.",
    "known_failure": "Fails at its declared stage: simplify.",
    "error": "The stage compile could not do its work.",
    "crashed": "The process that ran the case died with signal 11.",
    "not_run": "Not run: the run was stopped after the first failure.",
}
KINDS: dict[Outcome, VerdictKind] = {
    "passed": "PASS",
    "failed": "FAIL",
    "inconclusive": "INCONCLUSIVE",
    "recorded": "RECORDED",
}
ERROR = ErrorInfo(
    type="CompileError",
    stage=Stage.COMPILE,
    message="onnxruntime could not optimise the model: node Conv_14 has no kernel",
    remedy="compare the operator set with what the target supports",
    log=LOG,
)
ARTIFACTS = (
    (Stage.CHECKPOINT, 4_966_400, True),
    (Stage.EXPORT, 4_952_222, True),
    (Stage.SIMPLIFY, 4_951_870, False),
    (Stage.COMPILE, 4_970_112, False),
    (Stage.CROPS, 77_070_336, True),
)


def artifact(
    stage: Stage, key: str = "", *, model: str = "squeezenet1_1", **changes: Any
) -> ArtifactRef:
    """An artifact that was built, with its log."""
    key = key or f"{list(Stage).index(stage):02d}{'c0ffee' * 10}"
    built = ArtifactRef(
        stage, key, "9f86d081" * 8, 4_970_112, False, LOG, f"logs/{model}-{stage}.log"
    )
    return replace(built, **changes)


def eager_reference(check: Check, provenance: Provenance = "rehearsal") -> Reference:
    """What a rehearsal is held against."""
    if check == "accuracy":
        source, note = "eager PyTorch on the same 512 images", "the generated set is the whole set"
        return Reference("eager", 78.32, "%", source, note, provenance)
    source, note = "measured in alternation", "channels_last, 8 threads"
    return Reference("eager-speed", 210.4, "fps", source, note, provenance)


def verdict(check: Check, outcome: Outcome, **changes: Any) -> Verdict | None:
    """The verdict of a case with this outcome; None where it ended without one."""
    if outcome not in KINDS:
        return None
    accuracy = check == "accuracy"
    none = Reference(kind="none", provenance=changes.get("provenance", "rehearsal"))
    values: dict[str, Any] = {
        "kind": KINDS[outcome],
        "sentence": SENTENCES[outcome],
        "rule": "rehearsal",
        "allowed": "every prediction is equal unless the eager margin is below the bound",
        "unit": "%" if accuracy else "fps",
        "measured": 78.32 if accuracy else 312.5,
        "reference": none
        if outcome == "recorded"
        else eager_reference(check, changes.get("provenance", "rehearsal")),
        "figures": {F.FLIPS: 0, F.IMAGES: 512, F.LOGITS_L2_ALLOWED: 0.03}
        if accuracy
        else {F.MEAN_MS: 3.2 * 4, F.ROUNDS: 8},
    }
    changes.pop("provenance", None)
    return Verdict(**{**values, **changes})


# Keywords of `case` that belong to its verdict.
_OF_THE_VERDICT = ("measured", "reference", "unit", "figures", "rule", "allowed", "problems")


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
    """One case line with every field filled; `changes` replace fields of it or of its verdict."""
    accuracy = check == "accuracy"
    judged = {name: changes.pop(name) for name in _OF_THE_VERDICT if name in changes}
    if "sentence" in changes:
        judged["sentence"] = changes["sentence"]
    broken = outcome not in KINDS
    measured: AccuracyMeasurement | ThroughputMeasurement | None = None
    if not broken:
        if accuracy:
            name = f"predictions/{model}-bs{batch}-{target}.csv"
            measured = accuracy_measurement(provenance=provenance, predictions_file=name)
        else:
            name = f"samples/{model}-bs{batch}-{target}.json"
            measured = throughput_measurement(batch, provenance=provenance, samples_file=name)
    values: dict[str, Any] = {
        "run": RUN,
        "nodeid": nodeid(model, batch, target, check),
        "case": f"{model}-bs{batch}-{target}",
        "model": model,
        "title": TITLES.get(model, model),
        "batch_size": batch,
        "target": target,
        "check": check,
        "provenance": provenance,
        "outcome": outcome,
        "sentence": SENTENCES[outcome],
        "verdict": verdict(check, outcome, provenance=provenance, **judged),
        "error": ERROR if broken and outcome != "not_run" else None,
        "measurement": measured,
        "checkpoint": CheckpointInfo(
            "checkpoint", f"{model}.pth", "b8a52dc0" * 8, layout="plain", verified=True
        ),
        "images": ImagesInfo("generated", "/srv/images", 512, "77aa01bc" * 8),
        "preprocessing": "resize short side 256 bilinear, centre crop 224 (round)",
        "artifacts": tuple(
            artifact(stage, model=model, bytes=size, cached=cached)
            if not cached
            else artifact(stage, bytes=size, cached=True, log="", log_file="")
            for stage, size, cached in ARTIFACTS
        ),
        "stages": (
            StageTime(Stage.EXPORT, 0.02, cached=True),
            StageTime(Stage.SIMPLIFY, 1.84),
            StageTime(Stage.COMPILE, 2.61),
            StageTime(Stage.LOAD, 0.31),
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
    }
    return CaseLine(**{**values, **changes})


def judged(line: CaseLine, **changes: Any) -> CaseLine:
    """`line` with another verdict; a new sentence is the line's as well."""
    assert line.verdict is not None
    update: dict[str, Any] = {"verdict": replace(line.verdict, **changes)}
    if "sentence" in changes:
        update["sentence"] = changes["sentence"]
    return line.model_copy(update=update)


def planned(line: CaseLine) -> PlannedCase:
    """The plan's entry of a case."""
    return PlannedCase(**line.model_dump(include=set(PlannedCase.model_fields)))


# Runs --------------------------------------------------------------------------------------------


def run_records(
    cases: Iterable[CaseLine],
    *,
    provenance: Provenance = "rehearsal",
    lost: Sequence[PlannedCase] = (),
    end: bool = True,
    directory: Path = Path("runs") / RUN,
    damaged: tuple[str, ...] = (),
    exit_status: int = 0,
    stopped: str = "",
    checks: Sequence[RunCheckLine] = (),
    published: Mapping[str, GuideFigures] | None = None,
) -> RunRecords:
    """A whole run around `cases`; `lost` were planned and left no line."""
    lines = tuple(cases)
    plan = (*map(planned, lines), *lost)
    return RunRecords(
        directory,
        RunLine(
            run=RUN,
            provenance=provenance,
            started="2026-11-20T07:30:00+00:00",
            command=("pytest", "--rehearsal", "--batch-sizes", "1,4"),
            directory="/srv/harness",
            git="4f2c9e1",
            catalog_digest="c4" * 32,
            machine=MACHINE,
            versions=VERSIONS,
            settings={"rehearsal": True, "batch_sizes": [1, 4], "store": ".store"},
            guide_figures=published or {},
        ),
        plan,
        lines,
        EndLine(
            run=RUN,
            finished="2026-11-20T07:42:03+00:00",
            planned=len(plan),
            counts=count(plan, lines),
            complete=not lost,
            stopped=stopped,
            exit_status=exit_status,
            seconds=723.0,
        )
        if end
        else None,
        damaged,
        tuple(checks),
    )


def write(directory: Path, records: RunRecords) -> Path:
    """Write a run into its directory as a run does; returns the directory."""
    directory.mkdir(parents=True, exist_ok=True)
    plan = PlanLine(run=RUN, cases=records.plan)
    for line in (records.run, plan, *records.cases, *records.checks, records.end):
        if line is not None:
            writer.append(directory, line)
    return directory


def write_samples(directory: Path, records: RunRecords) -> RunRecords:
    """Write the execution times of each throughput case; returns the records of `directory`."""
    for line in records.cases:
        measured = line.throughput
        if measured is not None and measured.samples_file:
            times = tuple(latencies(line.batch_size))
            rounds = tuple(times[start::8] for start in range(8))
            writer.write_samples(directory, Path(measured.samples_file).stem, Samples(rounds))
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
    checks: tuple[Check, ...] = ("accuracy", "throughput")
    for check in checks:
        for model in TITLES:
            for batch in (1, 4):
                outcome = odd.get((model, batch, check), "passed")
                changes: dict[str, Any] = {}
                if outcome == "failed":
                    measurement = accuracy_measurement(right=364, provenance=provenance)
                    changes = {"measured": 71.09, "measurement": measurement}
                cases.append(case(model, batch, check, outcome, provenance=provenance, **changes))
    return run_records(cases, provenance=provenance, exit_status=1)


# A real run on a 310P3 (invented figures) --------------------------------------------------------

COMMANDS = {
    "compile": "atc --framework=5 --model=model.onnx --output=model --input_format=NCHW "
    "--input_shape=image:4,3,224,224 --soc_version=Ascend310P3",
    "time": "python3 -m ais_bench --model model.om --loop 100 --device 1",
}
DEVICE = DeviceInfo(
    id="ascend310p3-1",
    name="Ascend310P3",
    card="npu-1",
    alone=True,
    waited_s=0.2,
    driver="api",
    toolchain={"cann": "8.0.RC2", "driver": "23.0.0", "firmware": "7.1.0.3.220"},
)
ATTEMPT = Attempt(
    device="ascend310p3-0",
    stage=Stage.DEVICE,
    error="device 0 was lost: [507033]",
    why="npu-smi no longer shows it",
)
DIAGNOSIS = Diagnosis(
    summary="Eager PyTorch and the ONNX file agree; the compiled model does not.",
    stage=Stage.COMPILE,
    suspect="the compiler",
    sections=(
        Section(
            "Agreement of the stages",
            ("stage", "relative L2", "equal predictions"),
            (
                ("ONNX Runtime", "4.1e-07", "64 of 64"),
                ("simplified", "4.1e-07", "64 of 64"),
                ("compiled", "0.31", "41 of 64"),
            ),
        ),
    ),
    commands=("python -m harness diagnose latest squeezenet1_1-bs4-ascend310p3",),
)
SETUP = Setup(
    driver="api",
    method="pure-inference",
    tuning="none",
    chip="Ascend310P3",
    card="Atlas 300I Pro",
    chips=1,
    toolchain="CANN 8.0.RC2",
)


def conditions(seconds: int = 40, *, busy: bool = False) -> tuple[Condition, ...]:
    """Looks at a device that warms up; `busy`: another process came in between."""
    looks = []
    for second in range(seconds):
        moment: Moment = "during"
        if second in (0, seconds - 1):
            moment = "before" if second == 0 else "after"
        taken = busy and 20 <= second < 24
        looks.append(
            Condition(
                moment=moment,
                seconds=float(second),
                health="OK",
                busy="yes" if taken else "no",
                throttled="no" if moment == "during" else "unknown",
                temperature_c=43.0 + 14 * (1 - 0.9**second),
                power_w=15.8 + min(second, 10) * 3,
                note="process 4711 python3" if taken else "",
            )
        )
    return tuple(looks)


def _real(**changes: Any) -> dict[str, Any]:
    return {"provenance": "real", "target": "ascend310p3", "device": DEVICE, **changes}


def real_accuracy(
    model: str, batch: int, outcome: Literal["passed", "failed"] = "passed", **changes: Any
) -> CaseLine:
    """An accuracy case over the whole set against the published figure."""
    figure = catalog().models[model].accuracy.published
    measured = figure.top1 * (0.9997 if outcome == "passed" else 0.98)
    relative = 100 * (measured / figure.top1 - 1)
    right = round(WHOLE_SET * measured / 100)
    values = _real(
        measured=measured,
        sentence=f"{'accepted: ' if outcome == 'passed' else ''}top-1 {measured:.2f} % against "
        f"{figure.top1:g} % published: {relative:+.2f} %, allowed ±1 %",
        rule="published-top1",
        allowed="relative difference at most 1 %, either side (guide-000)",
        reference=Reference(kind="published", value=figure.top1, unit="%", source=figure.source),
        figures={
            F.IMAGES: WHOLE_SET,
            F.TOP1: round(measured, 3),
            F.PUBLISHED_TOP1: figure.top1,
            F.RELATIVE_DIFFERENCE: relative,
            F.TOLERANCE_PERCENT: 1.0,
        },
        measurement=accuracy_measurement(
            WHOLE_SET,
            right,
            provenance="real",
            fidelity=None,
            reference_scores=None,
            seconds=61.0,
        ),
        images=ImagesInfo("folder", "/data/imagenet", WHOLE_SET, "77aa01bc" * 8),
    )
    return case(model, batch, "accuracy", outcome, **{**values, **changes})


def part_accuracy(model: str, batch: int, **changes: Any) -> CaseLine:
    """An undecided accuracy case over a part of the set, against eager on the same images."""
    values = _real(
        measured=78.1,
        sentence="top-1 78.10 % where eager has 78.00 % on the same images; more would decide",
        rule="part-of-the-set",
        allowed="the whole 99 % interval of the difference within ±0.78 points",
        reference=Reference(
            kind="eager", value=78.0, unit="%", source="eager PyTorch on the same 1000 images"
        ),
        figures={
            F.IMAGES: 1000,
            F.TOP1: 78.1,
            F.EAGER_TOP1: 78.0,
            F.PUBLISHED_TOP1: 78.26,
            F.TOLERANCE_POINTS: 0.7826,
            F.DIFFERENCE_POINTS: 0.1,
            F.DIFFERENCE_INTERVAL: (-0.72, 0.94),
            F.EAGER_INTERVAL: (73.4, 82.1),
        },
        measurement=accuracy_measurement(
            1000, 781, provenance="real", reference_scores=scores(1000, 780)
        ),
        images=ImagesInfo("folder", "/data/imagenet", 1000, "77aa01bc" * 8),
    )
    return case(model, batch, "accuracy", "inconclusive", **{**values, **changes})


def real_throughput(model: str, batch: int, factor: float = 1.02, **changes: Any) -> CaseLine:
    """A throughput case on a 310P3 against its published figure, or recorded without one."""
    baseline = catalog().models[model].baseline("ascend310p3", batch)
    fps = (baseline.fps if baseline else 500.0) * factor
    mean = 1000 * batch / fps
    outcome: Outcome = "recorded"
    reference = Reference(kind="none", note="no figure is published")
    sentence = f"{fps:.4g} fps measured; no figure is published"
    if baseline is not None:
        outcome = "passed" if fps >= baseline.fps else "failed"
        reference = Reference(
            kind="baseline", value=baseline.fps, unit="fps", source=baseline.source
        )
        sentence = f"{fps:.4g} fps against {baseline.fps:g} ({baseline.source})"
    samples = [mean * (1 + 0.01 * ((i * 37) % 11 - 5) / 5) for i in range(300)]
    values = _real(
        measured=fps,
        sentence=sentence,
        reference=reference,
        rule="published-fps",
        allowed="at least the baseline",
        measurement=throughput_measurement(
            batch,
            provenance="real",
            timing=timing(batch, samples, mean_ms=mean, half_width_percent=0.6),
            eager=None,
            half_width_percent=0.6,
            conditions=conditions(),
            setup=SETUP,
            outputs=OutputsCheck(1.2e-3, 0.03),
            samples_file=f"samples/{model}-bs{batch}-ascend310p3.json",
        ),
        images=None,
        device=replace(DEVICE, commands=COMMANDS),
    )
    return case(model, batch, "throughput", outcome, **{**values, **changes})


def measured(line: CaseLine, **changes: Any) -> CaseLine:
    """`line` with another measurement."""
    assert line.measurement is not None
    return line.model_copy(update={"measurement": replace(line.measurement, **changes)})


def batch_check(
    model: str = "seresnext101",
    outcome: Literal["passed", "failed", "inconclusive", "recorded"] = "passed",
    *,
    target: str = "ascend310p3",
    provenance: Provenance = "real",
    **changes: Any,
) -> RunCheckLine:
    """Batch sizes of one model, with one image whose prediction is not the same."""
    sentence = "batch sizes 1, 4 agree: top-1 within 0.00 points of 0.1 allowed; 1 differs"
    if outcome == "failed":
        sentence = "batch size 4 is right on 93 images of 50000 less than batch size 1"
    answers = {1: BatchAnswer(31, 12.125), 4: BatchAnswer(7, 12.128)}
    values: dict[str, Any] = {
        "run": RUN,
        "name": CheckName.BATCH_SIZES,
        "subject": f"{model} on {target}",
        "model": model,
        "target": target,
        "provenance": provenance,
        "outcome": outcome,
        "sentence": sentence,
        "verdict": Verdict(
            kind=KINDS[outcome],
            sentence=sentence,
            rule="batch-sizes",
            allowed="top-1 on the same images differs by at most 0.1 points between batch sizes",
            unit="points",
            measured=0.0 if outcome == "passed" else 0.186,
            reference=Reference(kind="batch-size", unit="points", provenance=provenance),
            figures={F.IMAGES: WHOLE_SET, F.FLIPS: 1},
            top1_by_batch_size={1: 78.24, 4: 78.24},
            batch_flips=(BatchFlip(FLIPPED, 31, False, answers),),
        ),
    }
    return RunCheckLine(**{**values, **changes})


def real_run(directory: Path = Path("runs") / RUN) -> RunRecords:
    """Two models on a 310P3, red: a slow batch size, an undecided accuracy, a device set aside."""
    cases = [real_accuracy("seresnext101", batch) for batch in (1, 4)]
    cases.append(part_accuracy("seresnext101", 16))
    cases.append(real_accuracy("fixres", 1, "failed", diagnosis=DIAGNOSIS))
    cases += [
        real_throughput("seresnext101", batch, 0.96 if batch == 8 else 1.0 + batch / 1000)
        for batch in (1, 4, 8, 16, 32, 64)
    ]
    slow = measured(real_throughput("fixres", 1, 0.99), conditions=conditions(busy=True))
    cases.append(
        judged(slow, kind="INCONCLUSIVE").model_copy(
            update={"outcome": "inconclusive", "attempts": (ATTEMPT,)}
        )
    )
    cases.append(case("resnest50", 1, "throughput", "error", **_real()))
    return run_records(
        cases,
        provenance="real",
        exit_status=1,
        checks=[batch_check()],
        published=published("seresnext101", "fixres"),
        directory=directory,
    )
