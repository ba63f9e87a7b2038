"""The catalog of a run: a file, or a drafted one of the model that `--model-file` names.

A draft is text in the catalog's own form, so that a user can keep and correct it
(`python -m harness catalog own`). What the file does not say is assumed, and said.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from pydantic import TypeAdapter

from harness.base import jobs, scratch
from harness.base.errors import CheckpointError, ConfigError, on_disk
from harness.base.host import required_version
from harness.base.stages import Stage
from harness.base.store import Store, file_digest, source_digest
from harness.catalog.fields import FILE_NAME
from harness.catalog.load import load_catalogs, parse_catalog
from harness.catalog.schema import Catalog
from harness.catalog.written import written
from harness.images.dataset import find_image_set
from harness.networks import library
from harness.networks.layouts import OWN
from harness.plan import require_trust
from harness.settings import Settings
from harness.stages.own_file import OwnModel

DEADLINE_S = 300.0  # importing PyTorch and timm on a slow disk, and one image through the network
_LIBRARIES = ("torch", "torchvision", "timm", "onnx")
_UNSORTED = (
    "The classes are counted in the order of their sorted folders, as torchvision's ImageFolder "
    "does: the file has no names of classes."
)


def catalog_of(settings: Settings) -> Catalog:
    """Return the catalog of a run.
    Raises `HarnessError`: a catalog, a model file or images that cannot be used, or do not fit.
    """
    if settings.model_file is None:
        return load_catalogs(settings.catalog)
    return parse_catalog(draft(settings).encode(), Path(f"catalog of {settings.model_file.name}"))


def draft(settings: Settings) -> str:
    """Return the catalog, as YAML, of the model of one's own that the settings name.
    Raises `HarnessError`: as `catalog_of`.
    """
    file = settings.model_file
    if file is None:
        raise ConfigError("no model file is named", remedy="--model-file=FILE")
    if not re.fullmatch(FILE_NAME, file.name):
        raise ConfigError(
            f"--model-file: no catalog takes the name {file.name!r}",
            remedy="rename the file: letters, digits, spaces and ._()+-, a letter or digit first",
        )
    name = re.sub(r"[^a-z0-9]+", "_", file.stem.lower()).strip("_")[:64] or "own"
    require_trust(name, settings.network or "", settings)
    with on_disk(CheckpointError, f"--model-file={file}", "name a file that is there"):
        digest = file_digest(file)
    own = _described(settings, file, digest, trust=name in settings.trust_checkpoint)
    assumed, class_names = list(own.assumed), own.class_names
    if settings.imagenet is not None:
        images = find_image_set(settings.imagenet, settings.labels)
        images.of_classes(own.class_names, own.classes)
        class_names = own.class_names or images.classes
        if images.classes and not own.class_names:
            assumed.append(_UNSORTED)
    model = {
        "title": file.name,
        "network": {"source": own.source, "arguments": own.arguments},
        "checkpoint": {"file": file.name, "sha256": digest, "layout": OWN},
        "input": {"name": own.input, "size": own.size},
        "output": {"name": own.output},
        "classes": own.classes,
        "class_names": list(class_names),
        "preprocessing": own.preprocessing,
        "assumed": assumed,
    }
    text = written({"version": 1, "models": {name: model}})
    return f"# Drafted from a model file: correct what is wrong under `assumed`.\n{text}"


def _described(settings: Settings, file: Path, digest: str, *, trust: bool) -> OwnModel:
    """Return what the job says of a file; from the store, where it was looked at before."""
    asked = {"network": settings.network, "size": settings.image_size, "trust": trust}
    config = file.with_name("config.json")
    inputs = {
        "file": digest,
        "suffix": file.suffix.lower(),
        "config": file_digest(config) if config.is_file() else "",
        **asked,
        "library": library.library_version(settings.network) if settings.network else "",
        "versions": [required_version(name) for name in _LIBRARIES],
        "recipe": source_digest(
            "harness.stages.own_file",
            "harness.networks.defaults",
            "harness.networks.layouts",
            "harness.networks.library",
            "harness.networks.weights",
        ),
    }

    def build(staging: Path) -> str:
        with scratch.folder("own") as folder:
            described = jobs.call(
                "harness.stages.own_file:describe",
                {"file": str(file), **asked},
                deadline_s=DEADLINE_S * settings.deadline_factor,
                log=folder / "job.log",
                error=CheckpointError,
                what=f"looking at {file}",
            )
        (staging / "model.json").write_text(json.dumps(described), encoding="utf-8")
        return ""

    entry = Store(settings.store).get_or_build(
        Stage.NETWORK, inputs, build, about=f"what {file.name} is"
    )
    return TypeAdapter(OwnModel).validate_json(entry.file().read_bytes())
