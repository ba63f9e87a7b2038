"""How long cases take: from the records of earlier runs on this host, and from the store.

A case's seconds are split into what it built (artifacts that the store keeps) and what it does each
time (open, measure). Builds are counted once for all cases that share them, so that a total can be
said for a full store and for an empty one. Medians; what nobody has run is said to be unknown.
"""

from __future__ import annotations

import json
import os
import socket
import stat
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.base.errors import HarnessError
from harness.base.store import Entry, Store
from harness.catalog.schema import Catalog
from harness.plan import Case
from harness.records.writer import RESULTS
from harness.settings import Settings

# Newest runs first, until one of these is reached: `plan` answers at once, whatever lies there.
MOST_RUNS = 60
MOST_BYTES = 48_000_000
LONGEST_S = 1e7  # what is longer, negative or no number is no duration

# Stages that make an artifact, or that decode images into the store.
BUILDS = (
    "checkpoint",
    "images",
    "standin",
    "onnx",
    "simplified",
    "compiled",
    "eager",
    "probe",
    "wait for images",
)
_BY_BATCH = ("simplified", "compiled", "probe")
_BY_IMAGES = ("eager", "wait for images", "accuracy")
_MEASURED = ("passed", "failed", "inconclusive", "recorded")
_UNREADABLE = (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError)


@dataclass(frozen=True, order=True)
class Build:
    """One artifact that cases share: every case of a model, or those of one batch size."""

    kind: str
    model: str
    batch_size: int = 0  # 0: shared by all batch sizes
    target: str = ""  # of compiled models alone


@dataclass(frozen=True)
class Estimate:
    """Seconds that a case is expected to take on this host.

    `work_s`: with everything in the store; None when nothing is known. `runs`: how many earlier
    cases it is the median of; 0 when it is taken from the model's other batch sizes. `builds`:
    seconds of each artifact that the case needs; None where nobody made it yet.
    """

    work_s: float | None
    runs: int
    builds: Mapping[Build, float | None]


@dataclass(frozen=True)
class Total:
    """Seconds of all cases, one after another. `unknown` cases are not in them."""

    with_store_s: float
    without_store_s: float
    unknown: int
    unknown_builds: int


@dataclass(frozen=True)
class _Seen:
    """What the records say: seconds of cases (scaled to the images of now) and of builds."""

    work: dict[tuple[str, int, str, str], list[float]] = field(default_factory=dict)
    builds: dict[Build, list[float]] = field(default_factory=dict)


def estimates(
    cases: Sequence[Case], settings: Settings, catalog: Catalog, *, images: int | None
) -> dict[Case, Estimate]:
    """What each case is expected to take. `images`: how many this run uses; None: not known."""
    seen = _from_records(settings, images)
    needed = {case: _needed(case, settings, images) for case in cases}
    unseen = any(build not in seen.builds for builds in needed.values() for build in builds)
    stored = _from_store(settings.store, catalog) if unseen else {}
    found = {}
    for case in cases:
        exact = seen.work.get((case.model, case.batch_size, case.target, case.check), [])
        near = exact or [
            seconds
            for (model, _, target, check), values in seen.work.items()
            if (model, target, check) == (case.model, case.target, case.check)
            for seconds in values
        ]
        found[case] = Estimate(
            statistics.median(near) if near else None,
            len(exact),
            {
                build: _median(seen.builds.get(build, ()) or stored.get(build, ()))
                for build in needed[case]
            },
        )
    return found


def total(found: Iterable[Estimate]) -> Total:
    """All cases, each shared artifact once."""
    work, unknown = 0.0, 0
    builds: dict[Build, float | None] = {}
    for one in found:
        work += one.work_s or 0.0
        unknown += one.work_s is None
        builds.update(one.builds)
    built = sum(seconds or 0.0 for seconds in builds.values())
    # Crops are shared between models, and whoever comes second never waits for them.
    absent = [b for b, s in builds.items() if s is None and b.kind != "wait for images"]
    return Total(work, work + built, unknown, len(absent))


def duration(seconds: float) -> str:
    """`8 s`, `3.4 min`, `2.1 h`."""
    if seconds < 1:
        return "<1 s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


def _needed(case: Case, settings: Settings, images: int | None) -> tuple[Build, ...]:
    kinds = ["onnx", "simplified", "compiled"]
    if settings.stand_ins:
        kinds.append("standin")
    if case.check == "throughput":
        kinds.append("probe")
    else:
        kinds.append("wait for images")
        # Eager PyTorch answers for stand-ins and for a part of the set: `CaseBench._reference`.
        part = images is not None and images != 50_000
        if settings.stand_ins or (part and case.model not in dict(settings.onnx)):
            kinds.append("eager")
    return tuple(_build(kind, case.model, case.batch_size, case.target) for kind in kinds)


def _build(kind: str, model: str, batch_size: int, target: str) -> Build:
    return Build(
        kind,
        model,
        batch_size if kind in _BY_BATCH else 0,
        target if kind == "compiled" else "",
    )


# Records -----------------------------------------------------------------------------------


def _from_records(settings: Settings, images: int | None) -> _Seen:
    seen = _Seen()
    host = socket.gethostname()
    timing: Any = None
    for data in _lines(settings.runs):
        try:
            if data["kind"] == "run":
                timing = _timing(data["settings"])
            elif (
                data["kind"] == "case"
                and data["provenance"] == settings.provenance
                and data["outcome"] in _MEASURED
                and data["machine"]["hostname"] == host
            ):
                ours = data["check"] == "accuracy" or timing == _timing(settings.to_json())
                _take(seen, data, images, ours)
        except _UNREADABLE:
            continue
    return seen


def _timing(settings: Mapping[str, Any]) -> tuple[Any, ...]:
    """What a throughput's duration depends on besides the model."""
    return tuple(settings.get(name) for name in ("budget", "precision"))


def _take(seen: _Seen, data: Mapping[str, Any], images: int | None, comparable: bool) -> None:
    model, batch_size, target = str(data["model"]), int(data["batch_size"]), str(data["target"])
    count = data["images"].get("count")
    scale = images / count if images and isinstance(count, int) and count > 0 else 1.0
    work = _seconds(data["seconds"])
    for one in data["stages"]:
        stage, seconds = str(one["stage"]), _seconds(one["seconds"])
        scaled = seconds * scale if stage in _BY_IMAGES else seconds
        if stage == "lease":
            work -= seconds  # waiting for others
        elif stage in BUILDS:
            work -= seconds
            if not one["cached"]:
                key = _build(stage, model, batch_size, target)
                seen.builds.setdefault(key, []).append(scaled)
        else:
            work += scaled - seconds
    if comparable:
        key_of_case = (model, batch_size, target, str(data["check"]))
        seen.work.setdefault(key_of_case, []).append(max(0.0, work))


def _seconds(value: Any) -> float:
    seconds = float(value)
    if not 0 <= seconds < LONGEST_S:
        raise ValueError("no duration")
    return seconds


def _lines(runs: Path) -> Iterator[Mapping[str, Any]]:
    """JSON lines of the newest runs; links are not followed, what is no JSON is passed over."""
    left = MOST_BYTES
    for path in _newest(runs)[:MOST_RUNS]:
        try:
            with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
                status = os.fstat(file.fileno())
                if not stat.S_ISREG(status.st_mode) or status.st_size > left:
                    continue
                left -= status.st_size
                text = file.read(status.st_size).decode(errors="replace")
        except OSError:
            continue
        for raw in text.split("\n"):
            try:
                data = json.loads(raw) if raw else None
            except (ValueError, RecursionError):
                continue
            if isinstance(data, dict):
                yield data


def _newest(runs: Path) -> list[Path]:
    """Records below the folder, newest first by the run's name, which begins with its time."""
    try:
        with os.scandir(runs) as entries:
            names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []
    return [runs / name / RESULTS for name in sorted(names, reverse=True)]


# The store ---------------------------------------------------------------------------------


def _from_store(root: Path, catalog: Catalog) -> dict[Build, list[float]]:
    """Build times that manifests hold, for models whose network only one model has."""
    found: dict[Build, list[float]] = {}
    try:
        entries = list(Store(root).entries())
        owners = _owners(catalog)
        by_digest: dict[str, str] = {}  # of an ONNX file, plain or simplified -> the model
        for kind in ("standin", "onnx", "eager", "simplified", "compiled", "probe"):
            for entry in entries:
                model = _model(entry, owners, by_digest) if entry.kind == kind else None
                if model is None:
                    continue
                by_digest[entry.digest] = model
                batch_size = entry.inputs.get("batch_size")
                key = _build(
                    kind,
                    model,
                    batch_size if isinstance(batch_size, int) else _batch_of(entry, entries),
                    str(entry.inputs.get("target", "")),
                )
                found.setdefault(key, []).append(entry.seconds)
    except (HarnessError, OSError, *_UNREADABLE):
        return found
    return found


def _owners(catalog: Catalog) -> dict[str, str | None]:
    """Network and arguments -> the model that has it; None where several have."""
    owners: dict[str, str | None] = {}
    for model in catalog.models.values():
        key = json.dumps([model.network.source, dict(model.network.arguments)], sort_keys=True)
        owners[key] = None if key in owners else model.id
    return owners


def _model(
    entry: Entry, owners: Mapping[str, str | None], by_digest: Mapping[str, str]
) -> str | None:
    inputs = entry.inputs
    if "network" in inputs:
        key = json.dumps([inputs["network"], inputs.get("arguments", {})], sort_keys=True)
        return owners.get(key)
    return by_digest.get(str(inputs.get("onnx") or inputs.get("simplified") or ""))


def _batch_of(entry: Entry, entries: Iterable[Entry]) -> int:
    """A probe's key has no batch size, but its simplified model's has."""
    wanted = entry.inputs.get("simplified")
    if wanted is None:
        return 0
    for other in entries:
        size = other.inputs.get("batch_size")
        if other.kind == "simplified" and other.digest == wanted and isinstance(size, int):
            return size
    return 0
