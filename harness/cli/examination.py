"""What a machine has and lacks for each target, how to get it, and what it can run.

Every look has a deadline and none runs on a device. Nothing heavy is imported. What a family of
targets needs, it looks at itself (`Provider.looks`).
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from harness.base import host
from harness.base.errors import CheckpointError, HarnessError
from harness.base.families import available, families, family_of
from harness.base.stages import Stage
from harness.base.store import Store
from harness.base.terms import WHOLE_SET
from harness.catalog.schema import Catalog, Model
from harness.judge.causes import Exit
from harness.settings import Settings
from harness.stages.checkpoint import has_digest, verify_digest
from harness.targets import registry
from harness.targets.provider import Finding, Findings, Look

LOOK_DEADLINE_S = 60.0  # of one group; a dead network file system would hold it for ever
# Digests of 4 GB of checkpoints, and a look at each of 50,000 files, over a slow network.
INPUTS_DEADLINE_S = 300.0
# What a rehearsal at two batch sizes puts into an empty store for each model: `cache ls` sums
# 3.5 GB for the five models (4.1 GB with those of one simulated chip).
MODEL_GB = 0.7
_LIBRARIES = {
    "onnxruntime": "runs the compiled models of cpu, checks exports",
    "onnx": "reads ONNX files",
    "onnxsim": "simplifies them",
    "torch": "exports; eager references",
    "torchvision": "networks",
    "timm": "networks",
}
_OF_TORCH = ("torch", "torchvision", "timm")

REHEARSAL = "rehearsal"
_SIMULATED = tuple(family.simulation.subject for family in families() if family.simulation)
SUBJECTS = (REHEARSAL, *_SIMULATED, *available())
_EVERY = frozenset(SUBJECTS)
_STAND_INS = frozenset({REHEARSAL, *_SIMULATED})  # take no original checkpoint and no ImageNet
_PYTHON, _DISK, _INPUTS = "Python and libraries", "disk", "real inputs"
_NO_FOLDER = "no folder given"
_ABSENT = "original checkpoints are absent"  # `Finding.short` of checkpoints that are nowhere

Can = Literal["yes", "throughput only", "no"]


@dataclass(frozen=True)
class Answer:
    """Whether a target can run here: how, or why not. `code`: of `--strict`. `name`: as shown."""

    target: str
    can: Can
    because: str
    code: int
    name: str


@dataclass(frozen=True)
class Examination:
    """All findings, and one answer for each of `SUBJECTS`."""

    findings: tuple[Finding, ...]
    answers: tuple[Answer, ...]


def examine(settings: Settings, catalog: Catalog | None) -> Examination:
    """Look at this machine, or at the simulated one of a simulated run.

    `catalog` is None where it cannot be read: what hangs on it is left out.
    """
    real = frozenset(available())
    chosen = () if catalog is None else catalog.chosen(settings.models)
    models = [] if catalog is None else [catalog.models[name] for name in chosen]
    looks = [
        Look(_PYTHON, LOOK_DEADLINE_S, _EVERY, lambda: _python(settings, models)),
        Look(_DISK, LOOK_DEADLINE_S, _EVERY, lambda: _disk(settings, models)),
        Look(_INPUTS, INPUTS_DEADLINE_S, real, lambda: _weights(settings, catalog, models)),
        Look(_INPUTS, INPUTS_DEADLINE_S, real, lambda: _image_set(settings)),
        *(look for family in families() for look in registry.provider(family).looks(settings)),
    ]
    running = []
    for look in looks:
        into: list[Finding] = []
        thread = threading.Thread(target=_look, args=(look, into), daemon=True)
        thread.start()
        running.append((look, into, thread))
    findings: list[Finding] = []
    for look, into, thread in running:
        thread.join(look.deadline_s)
        findings += list(into)
        if thread.is_alive():
            remedy = "a file system or a driver hangs: look with ls, df and the driver's tool"
            findings.append(_failed(look, f"no answer in {look.deadline_s:.0f} s", remedy))
    return Examination(
        tuple(findings), tuple(_answer(name, settings, findings) for name in SUBJECTS)
    )


def _look(look: Look, into: list[Finding]) -> None:
    """Findings as they come: one that hangs or fails does not take the others with it."""
    try:
        for finding in look.findings():
            into.append(finding)  # noqa: PERF402 - one by one, see above
    except HarnessError as error:
        into.append(_failed(look, error.message, error.remedy))
    except OSError as error:
        into.append(_failed(look, str(error), "check its path and rights"))


def _failed(look: Look, found: str, remedy: str) -> Finding:
    return Findings(look.group, look.of, "machine").lacks("looking at it", found, remedy)


def _answer(target: str, settings: Settings, findings: Sequence[Finding]) -> Answer:
    family = family_of(target) if target in _played(settings) else None
    played = family.simulation if family is not None else None
    name = f"{target} (simulated)" if played else target
    lacking = [one for one in findings if one.state == "lacks" and target in one.needed_by]
    if not lacking:
        simulated = {target} & {*_SIMULATED}
        how = f"pytest --{target}" if target in _STAND_INS else f"pytest --target={target}"
        how += f" --{played.subject}" if played else ""
        found = [one.found for one in findings if simulated and one.concerns == simulated]
        return Answer(target, "yes", ": ".join([how, *found]), 0, name)
    hard = [one for one in lacking if not one.for_accuracy]
    machine = any(one.kind == "machine" for one in lacking)
    code = int(Exit.MACHINE_TROUBLE if machine else Exit.INPUT_ERROR)
    first = sorted(hard or lacking, key=lambda one: one.kind != "machine")
    reasons = dict.fromkeys(one.short or f"{one.what}: {one.found}" for one in first)
    return Answer(target, "no" if hard else "throughput only", "; ".join(reasons), code, name)


def _played(settings: Settings) -> frozenset[str]:
    """Targets that the run's simulated host plays."""
    return frozenset(
        name
        for family in families()
        if settings.of(family.options).simulated
        for name in family.targets
    )


# In short ------------------------------------------------------------------------------------


def brief(examination: Examination, target: str | None = None) -> list[Finding]:
    """What a person can mend or must know, what stops most first; of one target, or of all.

    Where a machine has nothing of a platform, that is one line and not one for each of its parts.
    What is all right, or only told for completeness, is left out.
    """
    left = [
        one
        for one in examination.findings
        if (one.state == "lacks" or (one.state == "note" and one.remedy))
        and (target is None or target in one.concerns)
    ]
    for family in families():
        nothing = registry.provider(family).nothing_here()
        if nothing is not None and {one.short for one in left} >= nothing[0]:
            left = [one for one in left if not one.concerns <= nothing[1].concerns]
            left.append(nothing[1])
    # What stops more comes first; a mere note is last.
    return sorted(left, key=lambda one: (one.state == "note", -len(one.needed_by)))


# Python and disk -----------------------------------------------------------------------------


def _python(settings: Settings, models: Sequence[Model]) -> Iterator[Finding]:
    say = Findings(_PYTHON, _EVERY)
    what, version = "Python 3.11 or 3.12", sys.version_info[:2]
    found = f"{version[0]}.{version[1]}"
    supported = version in ((3, 11), (3, 12))
    yield say.check(supported, what, found, "make accept PYTHON=/path/to/python3.12")
    given = {name for name, _ in settings.onnx}
    exported = any(model.id not in given for model in models)
    for name, why in _LIBRARIES.items():
        what, of_torch = f"{name}: {why}", name in _OF_TORCH
        found = host.package_version(name)
        there = importlib.util.find_spec(name) is not None
        if there and name == "onnxruntime" and found == "not installed":
            found = host.package_version("onnxruntime-gpu")  # the same module
        remedy = "pip install -r requirements.txt"
        if of_torch:
            remedy += " (real inputs need none of it with --onnx=MODEL=FILE)"
        needed_by = _EVERY if not of_torch or exported else _STAND_INS
        yield say.check(there, what, found, remedy, needed_by=needed_by)
    yield say.ok("processor", f"{host.processor()[0]}, {host.cores()} cores")


def _disk(settings: Settings, models: Sequence[Model]) -> Iterator[Finding]:
    say = Findings(_DISK, _EVERY, "machine")
    place = _existing(settings.store)
    free = shutil.disk_usage(place).free / 1e9
    entries = list(Store(settings.store).entries())
    filled = sum(entry.bytes for entry in entries) / 1e9
    need, count = MODEL_GB * len(models), f"{len(models)} model{'s' if len(models) != 1 else ''}"
    what = f"store: a rehearsal of {count} fills about {need:.1f} GB"
    found = f"{filled:.1f} GB in it, {free:.1f} GB free at {settings.store}"
    if not os.access(place, os.W_OK):
        remedy = f"make {place} writable, or --store=DIR"
        yield say.lacks(what, f"{found}, not writable", remedy)
    else:
        # A store that is filled already needs no more room: only what cannot be written stops.
        remedy = "--store=DIR on a larger disk, or python -m harness cache gc"
        yield say.check(free >= need - filled, what, found, remedy, needed_by=frozenset())
    for name, folder in (("runs", settings.runs), ("leases", settings.leases)):
        if not os.access(_existing(folder), os.W_OK):
            remedy = f"make it writable, or --{name}=DIR"
            yield say.lacks(f"{name} directory", f"{folder} cannot be written", remedy)
    # Models with one geometry share their crops.
    sizes = {
        model.preprocessing.model_dump_json(include={"resize", "crop"}): model.preprocessing.size
        for model in models
    }
    need = sum(WHOLE_SET * size**2 * 3 / 1e9 for size in sizes.values())
    left = max(0.0, need - sum(entry.bytes for entry in entries if entry.kind == Stage.CROPS) / 1e9)
    what = f"crops of {WHOLE_SET:,} images, all together: {need:.1f} GB"
    found = f"{left:.1f} GB are still to be written, {free:.1f} GB are free"
    remedy = (
        "for the whole set: --store=DIR on a larger disk, or fewer --models at a time and "
        "python -m harness cache gc --max-gb=N after each"
    )
    yield say.ok(what, found) if free >= left else say.note(what, found, remedy)


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path


# Inputs --------------------------------------------------------------------------------------


def _inputs(settings: Settings) -> Findings:
    """A simulated device runs on stand-ins: its targets take no real inputs."""
    return Findings(_INPUTS, frozenset(available()) - _played(settings))


def _image_set(settings: Settings) -> Iterator[Finding]:
    say, what = _inputs(settings), "ImageNet validation set"
    if settings.imagenet is None:
        yield say.lacks(
            what,
            _NO_FOLDER,
            "for published accuracy: --imagenet=DIR or $IMAGENET_DIR (docs/imagenet.md)",
            for_accuracy=True,
            short="no ImageNet images",
        )
        return
    from harness.images.selection import find_images

    try:
        images = find_images(settings.imagenet, settings.labels, settings.selection)
    except HarnessError as error:
        yield say.lacks(what, error.message, error.remedy, for_accuracy=True)
        return
    chosen, known = len(images.chosen), images.findings.known
    found = f"{images.whole.describe()}; not compared: none of them is known by its name"
    if known:
        found = f"{images.whole.describe()}; right for the {known} whose class is known"
    if chosen != len(images.whole):
        found += f"; used: {settings.selection.describe()}, {chosen:,} of them"
    part = "not ImageNet's" if images.whole.own_set else f"a part of the {WHOLE_SET:,}"
    part += ": only conversion can be judged, see python -m harness plan"
    yield say.ok(what, found) if chosen == WHOLE_SET else say.note(what, found, part)


def _weights(
    settings: Settings, catalog: Catalog | None, models: Iterable[Model]
) -> Iterator[Finding]:
    say, given = _inputs(settings), dict(settings.onnx)
    if catalog is None:
        remedy = "python -m harness plan says what is wrong with it"
        found = f"{', '.join(map(str, settings.catalog))} cannot be used"
        yield say.lacks("the catalog", found, remedy, needed_by=_EVERY)
    absent: dict[str, str] = {}
    for model in models:
        if model.id in given:
            path, what = given[model.id], f"ONNX file of {model.id}"
            found = str(path) if path.is_file() else f"{path} is no file"
            yield say.check(path.is_file(), what, found, "--onnx=MODEL=FILE with the right path")
            continue
        finding = _checkpoint(settings, model)
        if finding.short == _ABSENT:
            absent[model.id] = finding.found
        else:
            yield finding
    if absent:  # one line for all
        (where,) = set(absent.values())
        remedy = (
            "for published accuracy and throughput: --checkpoints=DIR, or --checkpoint-cache=DIR "
            "fetches those that have a URL (docs/checkpoints.md)"
        )
        found = f"absent: {', '.join(absent)}; {where}"
        yield say.lacks("original checkpoints", found, remedy, short=_ABSENT)


def _checkpoint(settings: Settings, model: Model) -> Finding:
    """Say whether the file is there and is the one that the catalog means; nothing is fetched."""
    say, spec = _inputs(settings), model.checkpoint
    what = f"checkpoint of {model.id}: {spec.file}"
    cache = settings.checkpoint_cache
    folders = [folder for folder in (settings.checkpoints, cache) if folder]
    fetches = cache is not None and not settings.offline and bool(spec.url)
    path = next((one / spec.file for one in folders if (one / spec.file).is_file()), None)
    if path is None:
        places = [f"{one}{'' if one.is_dir() else ' (no such folder)'}" for one in folders]
        found = f"not in {' or '.join(places)}" if folders else _NO_FOLDER
        if fetches:
            return say.note(what, f"{found}; fetched when it is needed")
        remedy = f"download {spec.url}" if spec.url else f"get {spec.file} from its publisher"
        remedy += f" into {folders[0]}" if folders else ", then --checkpoints=DIR"
        if spec.url and cache is None:
            remedy += ", or --checkpoint-cache=DIR fetches it"
        return say.lacks(what, found, remedy, short=_ABSENT)
    try:
        verify_digest(path, spec)
    except CheckpointError as error:
        # A wrong file in the cache is set aside and fetched again; its owner's is not.
        if fetches and path.parent == cache:
            return say.note(what, f"{error.message}; another is fetched when it is needed")
        return say.lacks(what, error.message, error.remedy)
    if path.stat().st_size == 0:
        remedy = f"get it again: {spec.url or 'from its publisher'}"
        return say.lacks(what, f"{path} is empty (0 bytes)", remedy)
    verified = "digest as published" if has_digest(spec) else "not verified: no digest is published"
    return say.ok(what, f"{path}; {verified}")
