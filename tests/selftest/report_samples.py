"""Records of invented runs for the tests of the report: every outcome, every field."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from harness.records import (
    ArtifactRef,
    CaseLine,
    Check,
    EndLine,
    ErrorInfo,
    Machine,
    Outcome,
    PlannedCase,
    Provenance,
    ReferenceInfo,
    RunLine,
    RunRecords,
    StageTime,
    VerdictInfo,
    count,
)

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
    reference = ReferenceInfo(
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
        else VerdictInfo(
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


def run_records(
    cases: Iterable[CaseLine],
    *,
    provenance: Provenance = "rehearsal",
    lost: Sequence[PlannedCase] = (),
    end: bool = True,
    directory: Path = Path("runs/20261120-073000-1a2b"),
    damaged: tuple[str, ...] = (),
    exit_status: int = 0,
) -> RunRecords:
    """A whole run around `cases`; `lost` were planned and left no line."""
    lines = tuple(cases)
    plan = (*map(planned, lines), *lost)
    counts = count(plan, lines)
    return RunRecords(
        directory,
        RunLine(
            run="20261120-073000-1a2b",
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
            exit_status=exit_status,
            seconds=723.0,
        )
        if end
        else None,
        damaged,
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
