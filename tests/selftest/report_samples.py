"""Records of invented runs for the tests of the report: every outcome, every field."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from harness.base.host import Machine
from harness.base.terms import Check, Outcome, Provenance
from harness.catalog.load import load_catalog
from harness.records.lines import CaseLine, EndLine, PlannedCase, RunCheckLine, RunLine, count
from harness.records.reader import RunRecords
from harness.records.values import ArtifactRef, ErrorInfo, Reference, StageTime, Verdict
from harness.report.guide_figures import guide_figures

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


def accuracy_measurement(images: int = 512, right: int = 401) -> dict[str, Any]:
    """What an accuracy case records."""
    correct = [right, right + 49, right + 70, right + 83, right + 90]
    top = {f"top{k + 1}": 100 * value / images for k, value in enumerate(correct)}
    flip = {
        "name": "ILSVRC2012_val_00000217.JPEG",
        "label": 31,
        "reference": 31,
        "compiled": 7,
        "reference_score": 8.53,
        "compiled_score": 8.54,
        "margin": 0.0021,
    }
    return {
        "images": images,
        "correct": correct,
        **top,
        "nan_outputs": 0,
        "fidelity": {
            "relative_l2": 6.8e-7,
            "max_abs": 4.1e-5,
            "agreement": 511 / 512,
            "flips": [flip],
            "excused": 1,
        },
        "eager": top,
        "seconds": 21.4,
        "images_per_second": 23.9,
        "predictions_file": "predictions/squeezenet1_1-bs4-cpu.csv",
    }


def throughput_measurement(batch: int, size: int = 400) -> dict[str, Any]:
    """What a throughput case records."""
    samples = latencies(batch, size=size)
    mean = sum(samples) / len(samples)
    eager = latencies(batch, seed=7, size=size)
    return {
        "fps": 1000 * batch / mean,
        "mean_ms": mean,
        "median_ms": sorted(samples)[len(samples) // 2],
        "p99_ms": sorted(samples)[int(len(samples) * 0.99)],
        "min_ms": min(samples),
        "cv_percent": 3.4,
        "half_width_percent": 0.82,
        "rounds": 8,
        "warmup": 20,
        "loops": len(samples),
        "samples_ms": samples,
        "batch_size": batch,
        "budget_s": 60,
        "precision_reached": True,
        "eager": {
            "fps": 210.4,
            "memory_format": "channels_last",
            "mean_ms": 1000 * batch / 210.4,
            "samples_ms": eager,
            "by_format": {"contiguous": {"fps": 188.1}, "channels_last": {"fps": 210.4}},
        },
        "ratio": 1000 * batch / mean / 210.4,
        "outputs_check": {"relative_l2": 5.1e-7, "bound": 0.03},
    }


ARTIFACTS = (
    ("checkpoint", 4_966_400, True),
    ("onnx", 4_952_222, True),
    ("simplified", 4_951_870, False),
    ("compiled", 4_970_112, False),
    ("crops", 77_070_336, True),
)


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
    """One case line with every field filled; `changes` replace fields."""
    accuracy = check == "accuracy"
    measured = 78.32 if accuracy else 1000 / 3.2
    reference = Reference(
        kind="eager" if accuracy else "eager-speed",
        value=78.32 if accuracy else 210.4,
        unit="%" if accuracy else "fps",
        source="eager PyTorch on the same 512 images" if accuracy else "measured in alternation",
        note="the generated set is the whole set" if accuracy else "channels_last, 8 threads",
        provenance=provenance,
    )
    sentences: dict[Outcome, str] = {
        "passed": "512 of 512 predictions agree with the eager model's; relative L2 6.8e-7.",
        "failed": "37 of 512 predictions differ from the eager model's; 0 may differ.",
        "inconclusive": "The half-width of the mean's 99 % interval is 2.9 %; 1 % was asked for.",
        "recorded": "312.5 fps measured; nothing comparable exists.",
        "known_failure": "Fails at its declared stage: simplify.",
        "error": "The stage compile could not do its work.",
        "crashed": "The process that ran the case died with signal 11.",
        "not_run": "Not run: the run was stopped after the first failure.",
    }
    broken = outcome in ("error", "crashed", "known_failure", "not_run")
    kinds: dict[str, str] = {"failed": "FAIL", "inconclusive": "INCONCLUSIVE"}
    kind = "RECORDED" if outcome == "recorded" else kinds.get(outcome, "PASS")
    values: dict[str, Any] = {
        "run": "20261120-073000-1a2b",
        "nodeid": nodeid(model, batch, target, check),
        "case": f"{model}-bs{batch}-{target}",
        "model": model,
        "title": TITLES.get(model, model),
        "batch_size": batch,
        "target": target,
        "check": check,
        "provenance": provenance,
        "outcome": outcome,
        "sentence": sentences[outcome],
        "unit": "%" if accuracy else "fps",
        "measured": None if broken else measured,
        "reference": None if broken or outcome == "recorded" else reference,
        "difference_percent": None
        if broken or outcome == "recorded"
        else 0.0
        if accuracy
        else 100 * (measured - 210.4) / 210.4,
        "verdict": None
        if broken
        else Verdict(
            kind=kind,  # type: ignore[arg-type] # one of the four, from the table above
            sentence=sentences[outcome],
            rule="every prediction is equal unless the eager margin is below the bound",
            figures={"predictions that differ": 0, "images": 512, "bound": 0.03},
        ),
        "error": ErrorInfo(
            type="CompileError",
            stage="compile",
            message="onnxruntime could not optimise the model: node Conv_14 has no kernel",
            remedy="compare the operator set with what the target supports",
            log=LOG,
        )
        if broken and outcome != "not_run"
        else None,
        "measurement": {}
        if broken
        else accuracy_measurement()
        if accuracy
        else throughput_measurement(batch),
        "checkpoint": {"file": f"{model}.pth", "sha256": "b8a52dc0" * 8, "layout": "plain"},
        "images": {"set": "generated", "images": 512, "digest": "77aa01bc" * 8},
        "preprocessing": "resize short side 256 bilinear, centre crop 224 (round)",
        "artifacts": [
            ArtifactRef(
                kind=kind,
                key=f"{index:02d}{'c0ffee' * 10}",
                digest="9f86d081" * 8,
                bytes=size,
                cached=cached,
                log=LOG if not cached else "",
                log_file=f"logs/{model}-{kind}.log" if not cached else "",
            )
            for index, (kind, size, cached) in enumerate(ARTIFACTS)
        ],
        "stages": [
            StageTime(stage="export", seconds=0.02, cached=True),
            StageTime(stage="simplify", seconds=1.84),
            StageTime(stage="compile", seconds=2.61),
            StageTime(stage="load", seconds=0.31),
            StageTime(stage="infer" if accuracy else "time", seconds=21.4),
        ],
        "device": {"id": "cpu-0", "name": "Example CPU 8-core", "threads": 8},
        "machine": MACHINE,
        "versions": VERSIONS,
        "worker": "gw0",
        "started": "2026-11-20T07:30:12+00:00",
        "seconds": 26.2,
        "repeat": [
            f"python -m pytest --rehearsal -m {check} --models {model} --batch-sizes {batch}",
        ],
    }
    return CaseLine(**{**values, **changes})


def planned(line: CaseLine) -> PlannedCase:
    """The plan's entry of a case."""
    return PlannedCase(
        nodeid=line.nodeid,
        case=line.case,
        model=line.model,
        batch_size=line.batch_size,
        target=line.target,
        check=line.check,
    )


class WithFigures(RunLine):
    """A run line that carries what the guides published."""

    guide_figures: dict[str, Any] = Field(default_factory=dict)


def run_records(
    cases: Iterable[CaseLine],
    *,
    provenance: Provenance = "rehearsal",
    lost: Sequence[PlannedCase] = (),
    end: bool = True,
    directory: Path = Path("runs/20261120-073000-1a2b"),
    damaged: tuple[str, ...] = (),
    exit_status: int = 0,
    stopped: str = "",
    checks: Sequence[RunCheckLine] = (),
    published: dict[str, Any] | None = None,
) -> RunRecords:
    """A whole run around `cases`; `lost` were planned and left no line. `published`: what
    `guide_figures` gave for the run.
    """
    lines = tuple(cases)
    plan = (*map(planned, lines), *lost)
    counts = count(plan, lines)
    return RunRecords(
        directory,
        WithFigures(
            run="20261120-073000-1a2b",
            guide_figures=published or {},
            provenance=provenance,
            started="2026-11-20T07:30:00+00:00",
            command=["pytest", "--rehearsal", "--batch-sizes", "1,4"],
            directory="/srv/harness",
            git="4f2c9e1",
            catalog_digest="c4" * 32,
            machine=MACHINE,
            versions=VERSIONS,
            settings={"rehearsal": True, "batch_sizes": [1, 4], "store": ".store"},
        ),
        plan,
        lines,
        EndLine(
            run="20261120-073000-1a2b",
            finished="2026-11-20T07:42:03+00:00",
            planned=len(plan),
            counts=counts,
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
                    measurement = accuracy_measurement(right=364)
                    measurement["eager"] = accuracy_measurement()["eager"]
                    changes = {
                        "measured": 71.09,
                        "difference_percent": -9.23,
                        "measurement": measurement,
                    }
                cases.append(case(model, batch, check, outcome, provenance=provenance, **changes))
    return run_records(cases, provenance=provenance, exit_status=1)


# A real run on a 310P3 (invented figures) --------------------------------------------------------

DEVICE = {
    "id": "ascend310p3-1",
    "name": "Ascend310P3",
    "card": "npu-1",
    "alone": True,
    "waited_s": 0.2,
    "toolchain": {"cann": "8.0.RC2", "driver": "23.0.0", "firmware": "7.1.0.3.220"},
    "driver": "api",
}
ATTEMPT = {
    "device": "ascend310p3-0",
    "stage": "device",
    "error": "device 0 was lost: [507033]",
    "why": "npu-smi no longer shows it",
}
COMMANDS = [
    "atc --framework=5 --model=model.onnx --output=model --input_format=NCHW "
    "--input_shape=image:4,3,224,224 --soc_version=Ascend310P3",
    "python3 -m ais_bench --model model.om --loop 100 --device 1",
]
DIAGNOSIS = {
    "summary": "Eager PyTorch and the ONNX file agree; the compiled model does not.",
    "stage": "compile",
    "suspect": "the compiler",
    "sections": [
        {
            "title": "Agreement of the stages",
            "columns": ["stage", "relative L2", "equal predictions"],
            "rows": [
                ["ONNX Runtime", "4.1e-07", "64 of 64"],
                ["simplified", "4.1e-07", "64 of 64"],
                ["compiled", "0.31", "41 of 64"],
            ],
        },
        {"title": "What was tried", "text": "Classes in another order: no match."},
    ],
    "commands": ["python -m harness diagnose latest squeezenet1_1-bs4-ascend310p3"],
}


def conditions(seconds: int = 40, *, busy: bool = False) -> list[dict[str, Any]]:
    """Looks at a device that warms up; `busy`: another process came in between."""
    looks = []
    for second in range(seconds):
        moment = "before" if second == 0 else "after" if second == seconds - 1 else "during"
        taken = busy and 20 <= second < 24
        looks.append(
            {
                "moment": moment,
                "seconds": float(second),
                "health": "OK",
                "busy": "yes" if taken else "no",
                "throttled": "no" if moment == "during" else "unknown",
                "temperature_c": 43.0 + 14 * (1 - 0.9**second),
                "power_w": 15.8 + min(second, 10) * 3,
                "note": "process 4711 python3" if taken else "",
            }
        )
    return looks


def real_accuracy(model: str, batch: int, outcome: Outcome = "passed", **changes: Any) -> CaseLine:
    """An accuracy case over the whole set against the published figure."""
    published = load_catalog(CATALOG).models[model].accuracy.published
    measured = published.top1 * (0.9997 if outcome == "passed" else 0.98)
    relative = measured / published.top1 - 1
    images = 50_000
    sentence = (
        f"{'accepted: ' if outcome == 'passed' else ''}top-1 {measured:.2f} % against "
        f"{published.top1:g} % published: {100 * relative:+.2f} %, allowed ±1 %"
    )
    values: dict[str, Any] = {
        "provenance": "real",
        "target": "ascend310p3",
        "measured": measured,
        "difference_percent": 100 * relative,
        "sentence": sentence,
        "reference": Reference(
            kind="published", value=published.top1, unit="%", source=published.source
        ),
        "verdict": Verdict(
            kind="PASS" if outcome == "passed" else "FAIL",
            sentence=sentence,
            rule="relative difference at most 1 %, either side (guide-000)",
            figures={
                "images": images,
                "top-1, %": round(measured, 3),
                "published top-1, %": published.top1,
                "relative difference": relative,
                "tolerance": 0.01,
            },
        ),
        "measurement": {
            "images": images,
            "expected_images": images,
            "correct": [round(images * measured / 100)],
            "top1": measured,
            "seconds": 61.0,
        },
        "images": {"source": "/data/imagenet", "count": images, "digest": "77aa01bc" * 8},
        "device": DEVICE,
    }
    return case(model, batch, "accuracy", outcome, **{**values, **changes})


def part_accuracy(model: str, batch: int, **changes: Any) -> CaseLine:
    """An accuracy case over a part of the set against eager PyTorch on the same images."""
    sentence = "top-1 78.10 % where eager has 78.00 % on the same images; more would decide"
    values: dict[str, Any] = {
        "measured": 78.1,
        "difference_percent": 0.13,
        "sentence": sentence,
        "reference": Reference(
            kind="eager", value=78.0, unit="%", source="eager PyTorch on the same 1000 images"
        ),
        "verdict": Verdict(
            kind="INCONCLUSIVE",
            sentence=sentence,
            rule="the whole 99 % interval of the difference within ±0.78 points",
            figures={
                "images": 1000,
                "top-1 compiled, %": 78.1,
                "top-1 eager, %": 78.0,
                "published top-1, %": 78.26,
                "tolerance, points": 0.7826,
                "difference, points": 0.1,
                "99 % interval of the difference, points": [-0.72, 0.94],
                "99.9 % interval of eager's top-1, %": [73.4, 82.1],
            },
        ),
        "measurement": {**accuracy_measurement(1000, 781), "expected_images": 1000},
    }
    return real_accuracy(model, batch, "inconclusive", **{**values, **changes})


def real_throughput(model: str, batch: int, factor: float = 1.02, **changes: Any) -> CaseLine:
    """A throughput case on a 310P3 against its published figure, or recorded without one."""
    baseline = load_catalog(CATALOG).models[model].baseline("ascend310p3", batch)
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
    values: dict[str, Any] = {
        "provenance": "real",
        "target": "ascend310p3",
        "measured": fps,
        "difference_percent": None if baseline is None else 100 * (fps / baseline.fps - 1),
        "sentence": sentence,
        "reference": reference,
        "measurement": {
            "fps": fps,
            "mean_ms": mean,
            "half_width_percent": 0.6,
            "rounds": 12,
            "loops": len(samples),
            "samples_ms": samples,
            "batch_size": batch,
            "conditions": conditions(),
            "setup": {
                "driver": "api",
                "method": "pure-inference",
                "tuning": "none",
                "chip": "Ascend310P3",
                "card": "Atlas 300I Pro",
                "chips": 1,
                "toolchain": "CANN 8.0.RC2",
            },
        },
        "images": {},
        "device": {**DEVICE, "commands": COMMANDS},
    }
    return case(model, batch, "throughput", outcome, **{**values, **changes})


def batch_check(
    model: str = "seresnext101",
    outcome: Any = "passed",
    *,
    target: str = "ascend310p3",
    provenance: Provenance = "real",
) -> RunCheckLine:
    """Batch sizes of one model, with one image whose prediction is not the same."""
    sentence = "batch sizes 1, 4 agree: top-1 within 0.00 points of 0.1 allowed; 1 differs"
    if outcome == "failed":
        sentence = "batch size 4 is right on 93 images of 50000 less than batch size 1"
    flips = [
        {
            "name": "ILSVRC2012_val_00000217.JPEG",
            "label": 31,
            "excused": False,
            "by batch size": {
                "1": {"class": 31, "logit": 12.125},
                "4": {"class": 7, "logit": 12.128},
            },
        }
    ]
    return RunCheckLine(
        run="20261120-073000-1a2b",
        name="batch sizes",
        subject=f"{model} on {target}",
        model=model,
        target=target,
        provenance=provenance,
        outcome=outcome,
        sentence=sentence,
        unit="points",
        measured=0.0 if outcome == "passed" else 0.186,
        reference=Reference(kind="batch-size", unit="points", provenance=provenance),
        verdict=Verdict(
            kind="PASS" if outcome == "passed" else "FAIL",
            sentence=sentence,
            rule="top-1 on the same images differs by at most 0.1 points between batch sizes",
            figures={
                "images": 50_000,
                "top-1 by batch size, %": {"1": 78.24, "4": 78.24},
                "predictions that differ": 1,
                "flips": flips,
            },
        ),
    )


def real_run(directory: Path = Path("runs/20261120-073000-1a2b")) -> RunRecords:
    """Two models on a 310P3, red: a slow batch size, an undecided accuracy, a device set aside."""
    sizes = (1, 4, 8, 16, 32, 64)
    cases = [real_accuracy("seresnext101", batch) for batch in (1, 4)]
    cases.append(part_accuracy("seresnext101", 16))
    cases.append(real_accuracy("fixres", 1, "failed", diagnosis=DIAGNOSIS))
    cases += [
        real_throughput("seresnext101", batch, 0.96 if batch == 8 else 1.0 + batch / 1000)
        for batch in sizes
    ]
    slow = real_throughput("fixres", 1, 0.99)
    busy = {**slow.measurement, "conditions": conditions(busy=True)}
    cases.append(
        slow.model_copy(
            update={
                "outcome": "inconclusive",
                "measurement": busy,
                "device": {**slow.device, "failed_before": [ATTEMPT]},
            }
        )
    )
    cases.append(case("resnest50", 1, "throughput", "error", target="ascend310p3",
                      provenance="real"))  # fmt: skip
    published = guide_figures(load_catalog(CATALOG), ["seresnext101", "fixres"], "real")
    checks = [batch_check()]
    return run_records(
        cases,
        provenance="real",
        exit_status=1,
        checks=checks,
        published=published,
        directory=directory,
    )
