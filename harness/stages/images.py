"""Stage DATA: the labelled images of a run, generated or found in a folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from harness.base.errors import ConfigError
from harness.base.host import cores, required_version
from harness.base.stages import Stage
from harness.base.store import source_digest
from harness.images import dataset, generated
from harness.images.dataset import ImageSet
from harness.images.selection import find_images
from harness.records.observed import ImagesInfo
from harness.stages.context import Bench

SEED = 2026


@dataclass(frozen=True)
class GeneratedImages:
    """The seeded images of a rehearsal."""

    bench: Bench
    stage: ClassVar[Stage] = Stage.DATA

    def inputs(self) -> Mapping[str, Any]:
        return {
            "count": self.bench.settings.rehearsal_images,
            "seed": SEED,
            "pillow": required_version("pillow"),
            "numpy": required_version("numpy"),
            "recipe": source_digest("harness.images.generated"),
        }

    def build(self, staging: Path) -> str:
        count = self.bench.settings.rehearsal_images
        with self.bench.share_host("generating images"):
            generated.write_set(staging, count, SEED, workers=cores())
        return f"{count} images"


def find(bench: Bench) -> tuple[ImageSet, ImagesInfo]:
    """Return the run's images, and what a record says of them; found once for each process.
    Raises `DataError`: images or labels that cannot be used.
    """
    return bench.once("images", lambda: _find(bench))


def _find(bench: Bench) -> tuple[ImageSet, ImagesInfo]:
    settings = bench.settings
    if settings.stand_ins:
        build = GeneratedImages(bench)
        with bench.progress.stage("rehearsal images", Stage.DATA):
            entry = bench.store.get_or_build(
                build.stage, build.inputs(), build.build, about="generated"
            )
        images, selection, findings = dataset.find_image_set(entry.directory), "", None
    elif settings.imagenet is None:
        raise ConfigError("no data set is configured", remedy="--imagenet=DIR or $IMAGENET_DIR")
    else:
        found = find_images(settings.imagenet, settings.labels, settings.selection)
        images, findings = found.chosen, found.findings
        selection = settings.selection.describe()
    return images, ImagesInfo(
        source="generated" if settings.stand_ins else "folder",
        root=str(images.root),
        count=len(images),
        digest=images.digest,
        layout=images.layout,
        labels=images.label_source,
        selection=selection,
        checked=findings,
    )
