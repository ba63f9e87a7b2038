"""What a machine has and lacks for each target, how to get it, and what it can run.

Every look has a deadline and none runs on a device. Nothing heavy is imported: an interpreter's
`ais_bench` is tried in a child, as the drivers do it, and ONNX Runtime is looked for, not loaded.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.util
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from harness.base import host
from harness.base.errors import CheckpointError, HarnessError
from harness.base.host import cores, processor
from harness.base.store import Store, source_digest
from harness.catalog.schema import Catalog, Model
from harness.judge import verdicts
from harness.judge.causes import Exit
from harness.settings import Settings
from harness.stages import checkpoint as checkpoints
from harness.targets import registry
from harness.targets.ascend import drivers, toolkit
from harness.targets.ascend.npu_smi import Chip, NpuSmi
from harness.targets.ascend.target import CHIPS
from harness.targets.cuda.target import SMI_DEADLINE_S, CudaTarget

LOOK_DEADLINE_S = 60.0  # of one group; a dead network file system would hold it for ever
# Digests of 4 GB of checkpoints, and a look at each of 50,000 files, over a slow network.
INPUTS_DEADLINE_S = 300.0
ASCEND_DEADLINE_S = 420.0  # set_env.sh, three queries of npu-smi and the look for ais_bench
QUERY_DEADLINE_S = 20.0  # of one call of npu-smi or nvidia-smi
LOCK_WAIT_S = 20.0  # for others who hold npu-smi

# What a rehearsal at two batch sizes puts into an empty store for each model: `cache ls` sums
# 3.5 GB for the five models (4.1 GB with those of one simulated chip).
_MODEL_GB = 0.7
_MODELS = 5
_INSTALL = "pip install -r requirements.txt"
_OTHER_AIS_BENCH = "ais_bench_benchmark"

REHEARSAL = "rehearsal"
SIMULATION = "simulate-ascend"
_REAL = tuple(registry.available())
SUBJECTS = (REHEARSAL, SIMULATION, *_REAL)
_EVERY = frozenset(SUBJECTS)
_NPU = frozenset(CHIPS)
# Neither takes an original checkpoint or an image of ImageNet.
_STAND_INS = frozenset({REHEARSAL, SIMULATION})

_INPUTS = "real inputs"

# `short` of findings that `brief` puts together.
_NO_CHECKPOINTS = "original checkpoints are absent"
_NO_IMAGES = "no ImageNet images"
_NO_FOLDER = "no folder given"  # `found`, where no option names one
_NO_NPU_SMI, _NO_ATC, _NO_DRIVER = "no npu-smi", "no atc", "no driver that runs models"
_NO_GPU, _NO_CUDA_RUNTIME = "no GPU that can be used", "no ONNX Runtime for CUDA"

State = Literal["ok", "lacks", "note"]
Kind = Literal["machine", "input"]
Can = Literal["yes", "throughput only", "no"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. `found` and `remedy` are for people.

    state: `lacks` is to be mended where it is needed; `note` is worth knowing.
    needed_by: targets that cannot run without it; `for_accuracy`: only their accuracy cannot.
    kind: whether it is the machine's (devices, drivers, disk) or something to supply.
    short: for the summary; equal ones of several findings are said once.
    file, url: of a checkpoint; where its publisher offers it, if anywhere.
    """

    group: str
    what: str
    state: State
    found: str
    remedy: str = ""
    needed_by: frozenset[str] = frozenset()
    for_accuracy: bool = False
    kind: Kind = "input"
    short: str = ""
    file: str = ""
    url: str = ""


@dataclass(frozen=True)
class Answer:
    """Whether a target can run here, and why not, or in what way. `code`: of `--strict`."""

    target: str
    can: Can
    because: str
    code: int


@dataclass(frozen=True)
class Examination:
    """All findings, and one answer for each of `SUBJECTS`."""

    findings: tuple[Finding, ...]
    answers: tuple[Answer, ...]


def examine(settings: Settings, catalog: Catalog | None) -> Examination:
    """Look at this machine; with `--simulate-ascend` at the simulated one.

    `catalog` is None where it cannot be read: what hangs on it is left out.
    """
    looks: list[tuple[str, float, frozenset[str], Callable[[], Iterable[Finding]]]] = [
        ("Python and libraries", LOOK_DEADLINE_S, _EVERY, lambda: _python(settings, catalog)),
        ("disk", LOOK_DEADLINE_S, _EVERY, lambda: _disk(settings, catalog)),
        (_INPUTS, INPUTS_DEADLINE_S, frozenset(_REAL), lambda: _weights(settings, catalog)),
        (_INPUTS, INPUTS_DEADLINE_S, frozenset(_REAL), lambda: _image_set(settings)),
        ("Ascend", ASCEND_DEADLINE_S, _NPU, lambda: _ascend(settings)),
        ("CUDA", LOOK_DEADLINE_S, frozenset({"cuda"}), lambda: _cuda(settings)),
        (_SIMULATED, ASCEND_DEADLINE_S, frozenset({SIMULATION}), lambda: _simulation(settings)),
    ]
    results: list[list[Finding]] = [[] for _ in looks]
    threads = []
    for (group, _, needed_by, look), into in zip(looks, results, strict=True):
        thread = threading.Thread(target=_looking, args=(group, needed_by, look, into), daemon=True)
        thread.start()
        threads.append(thread)
    findings: list[Finding] = []
    for (group, deadline_s, needed_by, _), into, thread in zip(
        looks, results, threads, strict=True
    ):
        thread.join(deadline_s)
        findings += list(into)
        if thread.is_alive():
            findings.append(
                Finding(
                    group,
                    "looking at it",
                    "lacks",
                    f"no answer in {deadline_s:.0f} s",
                    "a file system or a driver hangs: look with ls, df and npu-smi by hand",
                    needed_by,
                    kind="machine",
                )
            )
    return Examination(tuple(findings), tuple(_answer(name, findings) for name in SUBJECTS))


def _looking(
    group: str,
    needed_by: frozenset[str],
    look: Callable[[], Iterable[Finding]],
    into: list[Finding],
) -> None:
    """Findings as they come: one that hangs or fails does not take the others with it."""
    try:
        for finding in look():
            into.append(finding)  # noqa: PERF402 - one by one, see above
    except (HarnessError, OSError) as error:
        remedy = error.remedy if isinstance(error, HarnessError) else "check its path and rights"
        text = error.message if isinstance(error, HarnessError) else str(error)
        into.append(
            Finding(group, "looking at it", "lacks", text, remedy, needed_by, kind="machine")
        )


def _answer(target: str, findings: Sequence[Finding]) -> Answer:
    lacking = [one for one in findings if one.state == "lacks" and target in one.needed_by]
    hard = [one for one in lacking if not one.for_accuracy]
    if not lacking:
        how = [one.found for one in findings if one.group == _SIMULATED and target == SIMULATION]
        return Answer(target, "yes", "; ".join(how), 0)
    machine = any(one.kind == "machine" for one in lacking)
    code = int(Exit.MACHINE_TROUBLE if machine else Exit.INPUT_ERROR)
    first = sorted(hard or lacking, key=lambda one: one.kind != "machine")
    reasons = list(dict.fromkeys(one.short or f"{one.what}: {one.found}" for one in first))
    return Answer(target, "no" if hard else "throughput only", "; ".join(reasons), code)


def brief(examination: Examination, target: str | None = None) -> list[Finding]:
    """What a person can mend or must know, what stops most first; of one target, or of all.

    Where a machine has nothing of a platform, that is one line and not one for each of its parts;
    so are the checkpoints. What is all right, or only told for completeness, is left out. Who
    asks for one target is not told what it is good for.
    """
    aside = target is None
    left = [
        one
        for one in examination.findings
        if (one.state == "lacks" or (one.state == "note" and one.remedy))
        and (target is None or _concerns(one, target))
    ]
    shorts = {one.short for one in left}
    if shorts >= {_NO_NPU_SMI, _NO_ATC, _NO_DRIVER}:
        one = Finding(
            "Ascend",
            "an NPU, its driver, CANN and ais_bench",
            "lacks",
            "none of them is here",
            ("only for the Ascend targets: " if aside else "")
            + "docs/ascend.md; --simulate-ascend needs none of them",
            _NPU,
            kind="machine",
        )
        left = [*(other for other in left if not other.group.startswith("Ascend")), one]
    if shorts >= {_NO_GPU, _NO_CUDA_RUNTIME}:
        one = Finding(
            "CUDA",
            "a GPU and its ONNX Runtime",
            "lacks",
            "neither is here",
            ("only for --target=cuda: " if aside else "")
            + "NVIDIA's driver, then pip install -r requirements/cuda.txt",
            frozenset({"cuda"}),
            kind="machine",
        )
        left = [*(other for other in left if other.group != "CUDA"), one]
    left = _one_of(left, _NO_CHECKPOINTS, lambda absent: _checkpoints(absent, aside=aside))
    left = _one_of(left, _NO_IMAGES, lambda absent: _images(absent, aside=aside))
    # What stops more comes first; a mere note is last.
    return sorted(left, key=lambda one: (one.state == "note", -len(one.needed_by)))


def _concerns(finding: Finding, target: str) -> bool:
    if finding.needed_by:
        return target in finding.needed_by
    of = _NPU if finding.group.startswith("Ascend") else _EVERY
    return target in of


def _one_of(
    findings: Sequence[Finding], short: str, joined: Callable[[Sequence[Finding]], Finding]
) -> list[Finding]:
    mine = [one for one in findings if one.short == short]
    others = [one for one in findings if one.short != short]
    return [*others, joined(mine)] if mine else others


def _checkpoints(absent: Sequence[Finding], *, aside: bool) -> Finding:
    """All in one line; those of folders that were given by their files, others by their models."""
    only = "only needed for published accuracy and throughput: " if aside else ""
    if len(absent) == 1 and absent[0].found != _NO_FOLDER:
        return dataclasses.replace(absent[0], remedy=only + absent[0].remedy)
    offered = [one for one in absent if one.url]
    if absent[0].found != _NO_FOLDER:
        found = f"absent: {', '.join(one.file for one in absent)}; {absent[0].found}"
        remedy = "put them there (docs/checkpoints.md)"
        if any("--checkpoint-cache" in one.remedy for one in offered):
            remedy += ", or --checkpoint-cache=DIR fetches " + _those(offered, absent)
    else:
        found = f"absent: {', '.join(_model_of(one) for one in absent)}"
        remedy = "--checkpoints=DIR"
        if offered:
            remedy += f", or --checkpoint-cache=DIR fetches {_those(offered, absent)}"
        remedy += " (docs/checkpoints.md)"
    return dataclasses.replace(
        absent[0], what="original checkpoints", found=found, remedy=only + remedy
    )


def _those(offered: Sequence[Finding], absent: Sequence[Finding]) -> str:
    if len(offered) == len(absent):
        return "them" if len(absent) > 1 else "it"
    return f"that of {', '.join(_model_of(one) for one in offered)}"


def _model_of(checkpoint: Finding) -> str:
    return checkpoint.what.removeprefix("checkpoint of ").partition(":")[0]


def _images(absent: Sequence[Finding], *, aside: bool) -> Finding:
    only = "only needed for published accuracy: " if aside else ""
    return dataclasses.replace(absent[0], remedy=f"{only}--imagenet=DIR (docs/imagenet.md)")


def _models(settings: Settings, catalog: Catalog | None) -> list[Model]:
    if catalog is None:
        return []
    wanted = settings.models
    return [one for one in catalog.models.values() if wanted is None or one.id in wanted]


# Python ----------------------------------------------------------------------------------


def _python(settings: Settings, catalog: Catalog | None) -> Iterator[Finding]:
    group = "Python and libraries"
    version = sys.version_info[:2]
    fits = version in ((3, 11), (3, 12))
    yield Finding(
        group,
        "Python 3.11 or 3.12",
        "ok" if fits else "lacks",
        f"{version[0]}.{version[1]}",
        "" if fits else "make accept PYTHON=/path/to/python3.12",
        _EVERY,
    )
    given = {name for name, _ in settings.onnx}
    exported = any(model.id not in given for model in _models(settings, catalog))
    for name, why in (
        ("onnxruntime", "runs the compiled models of cpu, checks exports"),
        ("onnx", "reads ONNX files"),
        ("onnxsim", "simplifies them"),
        ("torch", "exports; eager references"),
        ("torchvision", "networks"),
        ("timm", "networks"),
    ):
        there = importlib.util.find_spec(name) is not None
        of_torch = name in ("torch", "torchvision", "timm")
        needed = "" if there else _INSTALL
        if not there and of_torch:
            needed += " (real inputs need none of it with --onnx=MODEL=FILE)"
        found = host.package_version(name)
        if there and name == "onnxruntime" and found == "not installed":
            found = host.package_version("onnxruntime-gpu")  # the same module
        needed_by = _EVERY if not of_torch or exported else _STAND_INS
        yield Finding(group, f"{name}: {why}", "ok" if there else "lacks", found, needed, needed_by)
    name, _ = processor()
    yield Finding(group, "processor", "ok", f"{name}, {cores()} cores")


# Disk ------------------------------------------------------------------------------------


def _disk(settings: Settings, catalog: Catalog | None) -> Iterator[Finding]:
    group = "disk"
    place = _existing(settings.store)
    free = shutil.disk_usage(place).free / 1e9
    writable = os.access(place, os.W_OK)
    held = sum(entry.bytes for entry in Store(settings.store).entries()) / 1e9
    count = _MODELS if catalog is None else len(_models(settings, catalog))
    need = _MODEL_GB * count
    enough = free >= need - held
    yield Finding(
        group,
        f"store: a rehearsal of {count} {'model' if count == 1 else 'models'} fills about "
        f"{need:.1f} GB",
        "ok" if enough and writable else "lacks",
        f"{held:.1f} GB in it, {free:.1f} GB free at {settings.store}"
        + ("" if writable else ", not writable"),
        ""
        if enough and writable
        else "--store=DIR on a larger disk, or python -m harness cache gc"
        if writable
        else f"make {place} writable, or --store=DIR",
        # A store that is filled already needs no more room: only what cannot be written stops.
        frozenset() if writable else _EVERY,
        kind="machine",
    )
    for name, folder in (("runs", settings.runs), ("leases", settings.leases)):
        if not os.access(_existing(folder), os.W_OK):
            yield Finding(
                group,
                f"{name} directory",
                "lacks",
                f"{folder} cannot be written",
                f"make it writable, or --{name}=DIR",
                _EVERY,
                kind="machine",
            )
    yield from _crops(settings, catalog, group, free)


def _crops(
    settings: Settings, catalog: Catalog | None, group: str, free: float
) -> Iterator[Finding]:
    """What the cropped images of all models take, and whether it fits in `free` GB."""
    decoded = _decoded(settings.store)
    geometries: dict[str, list[Model]] = {}
    for model in _models(settings, catalog):
        text = model.preprocessing.describe().partition(", mean")[0]
        geometries.setdefault(text, []).append(model)
    whole = verdicts.WHOLE_SET
    need = left = 0.0
    for geometry, models in geometries.items():
        size = models[0].preprocessing.size
        image = size * size * 3 / 1e9
        inputs = models[0].preprocessing.model_dump(mode="json", include={"resize", "crop"})
        there = sum(count for key, count in decoded if key == inputs)
        need += whole * image
        left += max(0, whole - there) * image
        yield Finding(
            group,
            f"crops of {whole:,} images for {', '.join(model.id for model in models)}: "
            f"{whole * image:.1f} GB",
            "ok",
            f"{geometry}; {there:,} images are decoded in the store",
        )
    if not geometries:
        return
    # Each set may fit where all together do not.
    enough = free >= left
    yield Finding(
        group,
        f"crops of {whole:,} images, all together: {need:.1f} GB",
        "ok" if enough else "note",
        f"{left:.1f} GB are still to be written, {free:.1f} GB are free",
        ""
        if enough
        else "for the whole set: --store=DIR on a larger disk, or fewer --models at a time and "
        "python -m harness cache gc --max-gb=N after each",
    )


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path


def _decoded(root: Path) -> list[tuple[object, int]]:
    """(geometry, images) of each chunk of crops in the store that this version would use."""
    now = {
        "pillow": host.package_version("pillow"),
        "recipe": source_digest("harness.images.preprocess", "harness.images.steps"),
    }
    return [
        (entry.inputs.get("geometry"), count)
        for entry in Store(root).entries()
        if entry.kind == "crops"
        and isinstance(count := entry.inputs.get("count"), int)
        and all(entry.inputs.get(key) == value for key, value in now.items())
    ]


# Inputs ----------------------------------------------------------------------------------


def _real(settings: Settings) -> frozenset[str]:
    """Targets that take real inputs: a simulated NPU runs on stand-ins."""
    return frozenset(_REAL) - (_NPU if settings.simulate_ascend else frozenset())


def _weights(settings: Settings, catalog: Catalog | None) -> Iterator[Finding]:
    real = _real(settings)
    if catalog is None:
        yield Finding(
            _INPUTS,
            "the catalog",
            "lacks",
            f"{settings.catalog} cannot be used",
            "python -m harness plan says what is wrong with it",
            _EVERY,
        )
    given = dict(settings.onnx)
    for model in _models(settings, catalog):
        if model.id in given:
            there = given[model.id].is_file()
            yield Finding(
                _INPUTS,
                f"ONNX file of {model.id}",
                "ok" if there else "lacks",
                f"{given[model.id]}" + ("" if there else " is no file"),
                "" if there else "--onnx=MODEL=FILE with the right path",
                real,
            )
            continue
        yield checkpoint(settings, model)


def _image_set(settings: Settings) -> Iterator[Finding]:
    what, real = "ImageNet validation set", _real(settings)
    if settings.imagenet is None:
        yield Finding(
            _INPUTS,
            what,
            "lacks",
            _NO_FOLDER,
            "--imagenet=DIR or $IMAGENET_DIR: ILSVRC2012_val_*.JPEG and val_label.txt "
            "(image-net.org, after registration)",
            real,
            for_accuracy=True,
            short=_NO_IMAGES,
        )
        return
    from harness.images.selection import find_images

    try:
        images = find_images(settings.imagenet, settings.labels, settings.selection)
    except HarnessError as error:
        yield Finding(_INPUTS, what, "lacks", error.message, error.remedy, real, for_accuracy=True)
        return
    chosen, known = len(images.chosen), images.findings.known
    found = f"{images.whole.describe()}; "
    found += (
        f"right for the {known} whose class is known"
        if known
        else "not compared: none of them is known by its name"
    )
    if chosen != len(images.whole):
        found += f"; used: {settings.selection.describe()}, {chosen:,} of them"
    whole = chosen == verdicts.WHOLE_SET
    yield Finding(
        _INPUTS,
        what,
        "ok" if whole else "note",
        found,
        ""
        if whole
        else f"a part of the {verdicts.WHOLE_SET:,}: only conversion can be judged, "
        "see python -m harness plan",
    )


def checkpoint(settings: Settings, model: Model) -> Finding:
    """Whether the file is there and is the one that the catalog means; nothing is fetched."""
    real, spec = _real(settings), model.checkpoint
    cache = settings.checkpoint_cache or settings.store / "checkpoints"
    places = [folder / spec.file for folder in (settings.checkpoints, cache) if folder]
    what = f"checkpoint of {model.id}: {spec.file}"
    fetches = settings.checkpoint_cache is not None and not settings.offline and bool(spec.url)
    path = next((place for place in places if place.is_file()), None)
    if path is not None:
        if settings.checkpoints is None and settings.checkpoint_cache is None:
            remedy = f"--checkpoint-cache={cache}"
            found = f"{path}, a folder that no option names"
            return Finding(_INPUTS, what, "lacks", found, remedy, real)
        try:
            checkpoints.verify_digest(path, spec)
        except CheckpointError as error:
            # A wrong file in the cache is set aside and fetched again; its owner's is not.
            if fetches and path.parent == cache:
                found = f"{error.message}; another is fetched when it is needed"
                return Finding(_INPUTS, what, "note", found)
            return Finding(_INPUTS, what, "lacks", error.message, error.remedy, real)
        if path.stat().st_size == 0:
            remedy = f"get it again: {spec.url or 'from its publisher'}"
            return Finding(_INPUTS, what, "lacks", f"{path} is empty (0 bytes)", remedy, real)
        verified = (
            "digest as published"
            if checkpoints.has_digest(spec)
            else "not verified: no digest is published"
        )
        return Finding(_INPUTS, what, "ok", f"{path}; {verified}", "", real)
    given = [folder for folder in (settings.checkpoints, settings.checkpoint_cache) if folder]
    folders = [f"{one}{'' if one.is_dir() else ' (no such folder)'}" for one in given]
    absent = f"not in {' or '.join(folders)}" if given else _NO_FOLDER
    if fetches:
        return Finding(_INPUTS, what, "note", f"{absent}; fetched when it is needed")
    cached = settings.checkpoint_cache is not None
    if not given:
        remedy = "--checkpoints=DIR"
    elif spec.url:
        remedy = f"download {spec.url} into {given[0]}"
    else:
        remedy = f"get {spec.file} from its publisher and put it into {given[0]}"
    if spec.url and not cached:
        remedy += ", or --checkpoint-cache=DIR fetches it" + ("" if given else f": {spec.url}")
    return Finding(
        _INPUTS,
        what,
        "lacks",
        absent,
        remedy,
        real,
        short=_NO_CHECKPOINTS,
        file=spec.file,
        url=spec.url or "",
    )


# Ascend ----------------------------------------------------------------------------------


def _ascend(settings: Settings) -> Iterator[Finding]:
    with tempfile.TemporaryDirectory(prefix="harness-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        environment: Mapping[str, str] = dict(os.environ)
        group = "Ascend"
        if settings.simulate_ascend:
            group = "Ascend (SIMULATED: stand-ins of CANN's tools, no NPU)"
            environment = registry.simulated_host(settings, folder / "simulator")
            settings = dataclasses.replace(settings, leases=folder / "leases")
        yield from _npu_host(settings, environment, folder, group)


# The simulation --------------------------------------------------------------------------

_SIMULATED = "simulation of an Ascend host"


def _simulation(settings: Settings) -> Iterator[Finding]:
    """Whether `--simulate-ascend` works here: its tools are installed, found and asked."""
    with tempfile.TemporaryDirectory(prefix="harness-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        target = settings.target if settings.target in CHIPS else "ascend310p3"
        alone = dataclasses.replace(
            settings,
            target=target,
            leases=folder / "leases",
            # Tools of a real host must not be asked for the simulated ones.
            ais_infer=None,
            ais_python=None,
            ascend_home=None,
            atc=None,
            benchmark_tool=None,
            npu_smi=None,
            device=None,
            driver=None,
        )
        environment = registry.simulated_host(alone, folder / "simulator")
        found = list(_npu_host(alone, environment, folder, _SIMULATED))
    lacking = {
        target: [one for one in found if one.state == "lacks" and target in one.needed_by]
        for target in CHIPS
    }
    plays = [CHIPS[target] for target, what in lacking.items() if not what]
    reason = min(lacking.values(), key=len)
    yield Finding(
        _SIMULATED,
        "stand-ins of CANN's tools",
        "ok" if plays else "lacks",
        f"plays {' and '.join(plays)}; proves nothing of a device"
        if plays
        else f"{reason[0].what}: {reason[0].found}",
        ""
        if plays
        else "--simulator says what the simulated host has: docs/ascend.md"
        if settings.simulator
        else reason[0].remedy,
        frozenset({SIMULATION}),
        kind="machine",
    )


def _npu_host(
    settings: Settings, environment: Mapping[str, str], folder: Path, group: str
) -> Iterator[Finding]:
    try:
        tools = toolkit.find_toolkit(
            environment=environment,
            python=settings.ais_python,
            atc=settings.atc,
            npu_smi=settings.npu_smi,
            benchmark=settings.benchmark_tool,
            ais_infer=settings.ais_infer,
            ascend_home=settings.ascend_home,
            log=folder / "toolkit.log",
        )
    except HarnessError as error:
        yield Finding(group, "CANN's tools", "lacks", error.message, error.remedy, _NPU)
        return
    cann = tools.versions.get("cann") or tools.versions.get("nnrt")
    yield Finding(
        group,
        "CANN and its environment",
        "ok" if cann else "note",
        f"{cann or 'version not known'}; environment: {tools.environment_source}",
        "" if cann else "install CANN's toolkit; source its set_env.sh, or --ascend-home=DIR",
    )
    atc = tools.atc is not None
    yield Finding(
        group,
        "atc: CANN's compiler",
        "ok" if atc else "lacks",
        str(tools.atc or "neither on PATH nor in a known place"),
        "" if atc else "install CANN's toolkit and source its set_env.sh, or --atc=FILE",
        _NPU,
        short="" if atc else _NO_ATC,
    )
    yield from _devices(settings, tools, folder, group)
    yield from _drivers(settings, tools, folder, group)


def _devices(
    settings: Settings, tools: toolkit.Toolkit, folder: Path, group: str
) -> Iterator[Finding]:
    what = "npu-smi: the driver's tool"
    if tools.npu_smi is None:
        named = settings.device is not None
        yield Finding(
            group,
            what,
            "note" if named else "lacks",
            "neither on PATH nor in a known place",
            "install the driver's tools; in a container map npu-smi and /dev/davinciN, or name "
            "the device: --device=N (health and idleness are then unknown)",
            frozenset() if named else _NPU,
            kind="machine",
            short="" if named else _NO_NPU_SMI,
        )
        return
    lock = settings.leases / "npu-smi.lock"
    try:
        smi = NpuSmi(
            tools.npu_smi,
            env=tools.env,
            lock=lock,
            log=folder / "npu-smi.log",
            deadline_s=QUERY_DEADLINE_S,
            wait_s=LOCK_WAIT_S,
        )
        info = smi.info()
        firmware = smi.board(info.chips[0].npu_id).get("Firmware Version", "")
    except HarnessError as error:
        yield Finding(group, what, "lacks", error.message, error.remedy, _NPU, kind="machine")
        return
    yield Finding(group, what, "ok", str(tools.npu_smi))
    driver = info.driver_version or tools.versions.get("driver", "")
    yield Finding(
        group,
        "driver and firmware",
        "ok" if driver else "note",
        f"driver {driver or 'not told'}, firmware "
        f"{firmware or tools.versions.get('firmware') or 'not told'}",
    )
    for chip in info.chips:
        yield _chip(group, chip)
    for target, soc in CHIPS.items():
        mine = [chip for chip in info.chips if chip.soc_version == soc]
        wanted = settings.device
        chosen = [chip for chip in mine if wanted is None or chip.logical_id in wanted]
        healthy = [chip for chip in chosen if chip.health.upper() == "OK"]
        found = f"{len(healthy)} of {len(chosen)} healthy" if mine else f"no {soc} here"
        remedy = "" if mine else f"a host with {soc}, or --target for what is there"
        if chosen and not healthy:
            remedy = "npu-smi info -t health -i NPU -c CHIP says what it has; a reset may help"
        elif mine and not chosen:
            ids = ", ".join(str(chip.logical_id) for chip in mine)
            found, remedy = "--device names none of them", f"the logical ids here: {ids}"
        yield Finding(
            group,
            f"devices of {target}",
            "ok" if healthy else "lacks",
            found,
            remedy,
            frozenset({target}),
            kind="machine",
        )


def _chip(group: str, chip: Chip) -> Finding:
    healthy = chip.health.upper() == "OK"
    parts = [chip.soc_version, f"health {chip.health or 'unknown'}"]
    parts.append({"yes": "idle", "no": "in use", "unknown": "idleness unknown"}[chip.idle])
    if chip.temperature_c is not None:
        parts.append(f"{chip.temperature_c:g} °C")
    if chip.power_w is not None:
        parts.append(f"{chip.power_w:g} W")
    if chip.memory_total_mb:
        parts.append(f"{chip.memory_used_mb or 0:g} of {chip.memory_total_mb:g} MB")
    users = [f"{one.pid} {one.name}".strip() for one in chip.processes or ()]
    if users:
        parts.append(f"processes: {', '.join(users[:3])}")
    remedy = ""
    if not healthy:
        remedy = f"npu-smi info -t health -i {chip.npu_id} -c {chip.chip_id}; dmesg; a reset"
    elif chip.idle == "no":
        remedy = "end what uses it: throughput on a busy device is INCONCLUSIVE"
    return Finding(
        group,
        f"NPU {chip.npu_id} chip {chip.chip_id}, --device={chip.logical_id}",
        "lacks" if not healthy else "note" if chip.idle == "no" else "ok",
        ", ".join(parts),
        remedy,
        kind="machine",
    )


def _drivers(
    settings: Settings, tools: toolkit.Toolkit, folder: Path, group: str
) -> Iterator[Finding]:
    there = drivers.available_drivers(tools, log=folder / "drivers.log")
    usable = [name for name, why in there.items() if not why]
    wanted = settings.driver
    works = wanted in usable if wanted else bool(usable)
    about = {
        "api": f"ais_bench's interface in {tools.python}",
        "cli": "ais_bench's command line, or ais_infer.py",
        "benchmark": "the older benchmark tool",
    }
    for name, why in there.items():
        yield Finding(
            group,
            f"driver {name}: {about.get(name, '')}",
            "note" if why else "ok",
            why or "can be used",
        )
    yield Finding(
        group,
        "a driver that runs models" + (f": {wanted}" if wanted else ""),
        "ok" if works else "lacks",
        (wanted or usable[0]) if works else "none of the above" if not wanted else there[wanted],
        ""
        if works
        else "install the ais_bench and aclruntime wheels into the Python that --ais-python names",
        _NPU,
        short="" if works or wanted else _NO_DRIVER,
    )
    other = _version(_OTHER_AIS_BENCH) if tools.python == sys.executable else ""
    if other:
        yield Finding(
            group,
            "another package named ais_bench",
            "note",
            f"{_OTHER_AIS_BENCH} {other} is installed in {tools.python}: a benchmark of language "
            "models that has the same module name",
            "keep it in another environment, and name the one with the wheels: --ais-python=PYTHON",
        )


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""


# CUDA ------------------------------------------------------------------------------------


def _cuda(settings: Settings) -> Iterator[Finding]:
    group, cuda = "CUDA", frozenset({"cuda"})
    quick = dataclasses.replace(settings, deadline_factor=QUERY_DEADLINE_S / SMI_DEADLINE_S)
    try:
        target = CudaTarget(quick)
        gpus = target.devices()
        names = ", ".join(f"{gpu.index}: {gpu.name}" for gpu in gpus)
        driver = target.identity().get("driver", "not told")
        yield Finding(group, "GPUs", "ok", f"{names}; driver {driver}", "", cuda, kind="machine")
    except HarnessError as error:
        yield Finding(
            group,
            "GPUs",
            "lacks",
            error.message,
            error.remedy,
            cuda,
            kind="machine",
            short=_NO_GPU,
        )
    plain, gpu = _version("onnxruntime"), _version("onnxruntime-gpu")
    provider = _has_cuda_provider()
    if plain and gpu:
        found = f"onnxruntime {plain} and onnxruntime-gpu {gpu}: both are one module"
    elif gpu:
        found = f"onnxruntime-gpu {gpu}" + ("" if provider else ", without its CUDA library")
    else:
        found = "onnxruntime-gpu is not installed"
    works = bool(gpu) and not plain and provider
    yield Finding(
        group,
        "ONNX Runtime with the CUDA provider",
        "ok" if works else "lacks",
        found,
        "" if works else "pip uninstall onnxruntime, then pip install -r requirements/cuda.txt",
        cuda,
        short="" if works else _NO_CUDA_RUNTIME,
    )


def _has_cuda_provider() -> bool:
    """Whether the installed module brings the provider's library; the module is not imported."""
    spec = importlib.util.find_spec("onnxruntime")
    places = (spec.submodule_search_locations if spec else None) or ()
    return any(
        Path(place, "capi", "libonnxruntime_providers_cuda.so").is_file() for place in places
    )
