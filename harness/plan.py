"""The plan: catalog x target x selection -> cases, and what has no figure to be held against."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.base.errors import ConfigError, some
from harness.base.families import available, families
from harness.base.names import did_you_mean
from harness.base.terms import CHECKS, Check
from harness.catalog.schema import IMAGENET_CLASSES, Catalog, Model
from harness.networks.library import ONNX, PYTHON, TORCHSCRIPT
from harness.records.lines import PlannedCase
from harness.settings import DEFAULT_BATCH_SIZES, Settings

_TORCH = ("torch", "torchvision", "timm")


@dataclass(frozen=True, order=True)
class Case:
    """One pytest item: (model, batch size, target, check)."""

    model: str
    batch_size: int
    target: str
    check: Check

    @property
    def id(self) -> str:
        """`squeezenet1_1-bs4-cpu`: the item's parameter id."""
        return f"{self.model}-bs{self.batch_size}-{self.target}"

    @property
    def name(self) -> str:
        """`accuracy of squeezenet1_1-bs4-cpu`, for messages."""
        return f"{self.check} of {self.id}"

    def planned(self, nodeid: str) -> PlannedCase:
        """The record's form of the case."""
        return PlannedCase(
            nodeid=nodeid,
            case=self.id,
            model=self.model,
            batch_size=self.batch_size,
            target=self.target,
            check=self.check,
        )


def share_builds(one: Case | None, other: Case | None) -> bool:
    """Return whether two cases are made from one export and fed with the same crops."""
    return one is not None and other is not None and one.model == other.model


@dataclass(frozen=True)
class Missing:
    """A thing that the selected cases need and that nobody supplied."""

    thing: str
    remedy: str


@dataclass(frozen=True)
class Plan:
    """The cases of a command line, in the order in which they run."""

    cases: tuple[Case, ...]

    def of(self, check: Check) -> tuple[Case, ...]:
        return tuple(case for case in self.cases if case.check == check)


def make_plan(catalog: Catalog, settings: Settings) -> Plan:
    """Return the cases of the chosen models, batch sizes and target.

    Without a target the plan holds what could be run: every target that has a figure, else the
    first of each family.
    Raises `ConfigError`: an unknown model or target, of an option or of the catalog, with the
    closest name.
    """
    names = catalog.chosen(settings.models)
    trusted = (*settings.trust_checkpoint, *settings.trust_network)
    for name in (*names, *(n for n, _ in settings.onnx), *trusted):
        _known(name, catalog.models, "model")
    for name in names:
        require_trust(name, catalog.models[name].network.source, settings)
        if settings.stand_ins:
            _require_stand_ins(catalog.models[name])
    for name in (*catalog.targets(), *([settings.target] if settings.target else [])):
        _known(name, available(), "target")
    return Plan(
        tuple(
            Case(name, batch_size, target, check)
            for check in CHECKS
            for name in names
            for target in _targets(catalog.models[name], settings)
            for batch_size in _batch_sizes(catalog.models[name], target, settings)
        )
    )


def given_onnx(catalog: Catalog, settings: Settings) -> set[str]:
    """Return the models whose ONNX file is given: by `--onnx`, or since it is all there is."""
    alone = {one.id for one in catalog.models.values() if one.network.source == ONNX}
    return alone | {name for name, _ in settings.onnx}


def held_against_weights(model: Model, settings: Settings) -> bool:
    """Return whether a real run has weights for an eager pass. A given ONNX file may be of others,
    but where nothing is published of the model, or its block bounds what the file may differ.
    """
    if model.id not in dict(settings.onnx):
        return True
    bounded = model.published is None or model.fidelity is not None
    return bounded and settings.checkpoints is not None


def require_trust(model: str, source: str, settings: Settings) -> None:
    """Refuse to run the code of a user's that builds a model's network, where nobody allowed it.
    Raises `ConfigError`: nobody did.
    """
    if source.startswith(f"{PYTHON}:") and model not in settings.trust_network:
        raise ConfigError(
            f"the network of {model} is built by code that is not the harness's: {source}",
            remedy=f"if you trust it, --trust-network={model} lets it run",
        )


def _require_stand_ins(model: Model) -> None:
    """Refuse a model for which no stand-in weights can be made: they know ImageNet's classes."""
    if model.network.source in (ONNX, TORCHSCRIPT) or model.classes < IMAGENET_CLASSES:
        raise ConfigError(
            f"there are no stand-ins for {model.id}, a model of your own",
            remedy="give its file and its images: --data=DIR with --model-file=FILE or "
            "--checkpoints=DIR, and --target in place of --rehearsal",
        )


def _known(name: str, names: Iterable[str], what: str) -> None:
    known = list(dict.fromkeys(names))
    if name in known:
        return
    hint = did_you_mean(name, known)
    remedy = " ".join([hint, f"{what}s: {', '.join(known)}"]).strip()
    raise ConfigError(f"no {what} is named {name!r}", remedy=remedy)


def _targets(model: Model, settings: Settings) -> tuple[str, ...]:
    if settings.target is not None:
        return (settings.target,)
    with_figures = dict.fromkeys(table.target for table in model.throughput)
    return tuple(with_figures or (family.targets[0] for family in families()))


def _batch_sizes(model: Model, target: str, settings: Settings) -> tuple[int, ...]:
    if settings.batch_sizes is not None:
        return settings.batch_sizes
    sizes = model.dynamic_batch(target) or tuple(sorted(model.baselines(target)))
    return sizes or DEFAULT_BATCH_SIZES


def missing(
    settings: Settings, cases: Iterable[Case], *, building: bool = False
) -> tuple[Missing, ...]:
    """Return what the cases need besides what the settings say; a rehearsal needs nothing.

    `building`: their models are made and not run, which needs no device and no images.
    """
    selected = tuple(cases)
    if not selected:
        return ()
    items = [
        Missing(f"--{name}: {path} {problem}", "the right path")
        for name, path, problem in _wrong_paths(settings)
    ]
    if settings.target is not None:
        # The room above, for what only the target knows of this host.
        from harness.targets import registry

        items += registry.provider_of(settings).lacking(settings, building=building)
    if settings.stand_ins:
        absent = [name for name in _TORCH if importlib.util.find_spec(name) is None]
        if absent:
            items.append(
                Missing(
                    f"{', '.join(absent)}: stand-in weights are made with them",
                    "an environment with pip install -r requirements.txt",
                )
            )
        return tuple(items)
    if settings.target is None:
        why_not = f" ({settings.detection})" if settings.detection else ""
        items.append(
            Missing(
                f"target: where compiled models run{why_not}",
                f"--target=NAME ({', '.join(available())}), $HARNESS_TARGET, or "
                "harness_target in pytest.ini",
            )
        )
    judged = any(case.check == "accuracy" for case in selected)
    if settings.imagenet is None and judged and not building:
        thing = "data set: the ImageNet validation images and val_label.txt"
        remedy = "--imagenet=DIR or $IMAGENET_DIR"
        if settings.model_file is not None:
            thing, remedy = "data set: a folder of images for each class", "--data=DIR"
        items.append(Missing(thing, remedy))
    # All but a real run hold a given ONNX file against the weights.
    given = {name for name, _ in settings.onnx if settings.provenance == "real"}
    if settings.checkpoints is None and settings.checkpoint_cache is None:
        models = sorted({case.model for case in selected} - given)
        if models:
            items.append(
                Missing(
                    f"checkpoints: the original weights of {some(models, 20)}",
                    "--checkpoints=DIR or $HARNESS_CHECKPOINTS (files that you have), or "
                    "--checkpoint-cache=DIR (fetched from their publishers)",
                )
            )
    return tuple(items)


def _wrong_paths(settings: Settings) -> Iterator[tuple[str, Path, str]]:
    data = "imagenet" if settings.model_file is None else "data"
    folders = ((data, settings.imagenet), ("checkpoints", settings.checkpoints))
    for name, folder in folders:
        if folder is not None and not folder.is_dir():
            yield name, folder, "is not a folder" if folder.exists() else "does not exist"
    files = [("labels", settings.labels), ("image-list", settings.image_list)]
    files += [("model-file", settings.model_file)]
    files += [(f"onnx={model}", file) for model, file in settings.onnx]
    for name, file in files:
        if file is not None and not file.is_file():
            yield name, file, "is not a file" if file.exists() else "does not exist"


def missing_text(items: Iterable[Missing], count: int) -> str:
    """The text of the error that ends a run which is not configured."""
    lines = [f"{count} case{'s' if count != 1 else ''} selected, but not everything is there:"]
    lines += [f"  - {item.thing}\n      give {item.remedy}" for item in items]
    lines.append("To try the whole chain on this machine without any of them: pytest --rehearsal")
    return "\n".join(lines)
