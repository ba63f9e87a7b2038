"""Stage DATA: the labelled images of a run, generated or found in a folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from harness.base.errors import ConfigError, DataError
from harness.base.host import cores, required_version
from harness.base.stages import Stage
from harness.base.store import source_digest
from harness.images import dataset, generated
from harness.images.dataset import ImageSet
from harness.images.selection import find_images
from harness.records.observed import ImagesInfo, SetFindings
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


class RunImages:
    """The run's images: found once for each process, whatever the number of its cases."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._found: tuple[ImageSet, ImagesInfo] | None = None
        self._refused: DataError | None = None

    def find(self) -> tuple[ImageSet, ImagesInfo]:
        """Return the images, and what a record says of them.

        Raises:
            DataError: images or labels that cannot be used.
        """
        if self._refused is not None:  # six batch sizes do not look through 50,000 files six times
            raise self._refused
        if self._found is None:
            try:
                self._found = self._generated() if self._bench.settings.stand_ins else self._real()
            except DataError as error:
                self._refused = error
                raise
        return self._found

    def _generated(self) -> tuple[ImageSet, ImagesInfo]:
        bench, build = self._bench, GeneratedImages(self._bench)
        with bench.progress.stage("rehearsal images", Stage.DATA):
            entry = bench.store.get_or_build(build.stage, build.inputs(), build.build)
        images = dataset.find_image_set(entry.directory)
        return images, _info("generated", images)

    def _real(self) -> tuple[ImageSet, ImagesInfo]:
        settings = self._bench.settings
        if settings.imagenet is None:
            raise ConfigError("no data set is configured", remedy="--imagenet=DIR or $IMAGENET_DIR")
        found = find_images(settings.imagenet, settings.labels, settings.selection)
        selection = settings.selection.describe()
        return found.chosen, _info("folder", found.chosen, selection, found.findings)


def _info(
    source: Any, images: ImageSet, selection: str = "", checked: SetFindings | None = None
) -> ImagesInfo:
    return ImagesInfo(
        source=source,
        root=str(images.root),
        count=len(images),
        digest=images.digest,
        layout=images.layout,
        labels=images.label_source,
        selection=selection,
        checked=checked,
    )
