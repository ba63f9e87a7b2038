"""The checkpoint of a case: the original file, found or fetched, and verified."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.base.errors import CheckpointError
from harness.base.host import required_version
from harness.base.store import file_digest
from harness.catalog.schema import Model
from harness.networks import library
from harness.records.observed import CheckpointInfo
from harness.stages import checkpoint
from harness.stages.checkpoint import Digests
from harness.stages.context import Bench, CaseContext
from harness.stages.fetch import shown


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint file in its original layout, with its sha256."""

    path: Path
    sha256: str

    def require_unchanged(self) -> None:
        """After a build that read the file: what was built belongs to the digest in its key.

        Raises:
            CheckpointError: the file was replaced meanwhile.
        """
        if file_digest(self.path) != self.sha256:
            raise CheckpointError(f"{self.path} changed while it was used", remedy="run again")

    def network_inputs(self, case: CaseContext) -> dict[str, Any]:
        """Return which network with which weights this is: a part of the key of what it makes."""
        return {
            "checkpoint": self.sha256,
            **case.network,
            "library": library.library_version(case.model.network.source),
            "torch": required_version("torch"),
        }


class Checkpoints:
    """The original checkpoints of a run: each found, or fetched, once for each process."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._obtained: dict[str, tuple[Path, Digests]] = {}
        self._refused: dict[str, CheckpointError] = {}

    def has(self, model: Model) -> bool:
        """Whether this process has the checkpoint already."""
        return model.id in self._obtained

    def obtain(self, model: Model) -> tuple[Checkpoint, CheckpointInfo]:
        """Return the verified file, and what a record says of it.

        Raises:
            CheckpointError: absent, refused, or not the file that the catalog means.
        """
        if model.id in self._refused:  # six batch sizes do not fetch a refused file six times
            raise self._refused[model.id]
        if model.id not in self._obtained:
            settings = self._bench.settings
            try:
                self._obtained[model.id] = checkpoint.obtain_checkpoint(
                    model.checkpoint,
                    [settings.checkpoints] if settings.checkpoints else [],
                    cache=settings.checkpoint_cache or settings.store / "checkpoints",
                    offline=settings.offline,
                    progress=self._progress,
                    on_wait=self._bench.progress.say,
                )
            except CheckpointError as error:
                self._refused[model.id] = error
                raise
        path, digests = self._obtained[model.id]
        spec = model.checkpoint
        info = CheckpointInfo(
            source="checkpoint",
            file=path.name,
            sha256=digests.sha256,
            md5=digests.md5,
            url=shown(spec.url) if spec.url else "",
            layout=spec.layout,
            verified=checkpoint.has_digest(spec),
        )
        return Checkpoint(path, digests.sha256), info

    def _progress(self, done: int, total: int | None) -> None:
        if total:
            self._bench.progress.update(done // 10**6, max(1, total // 10**6), "MB")
        else:
            self._bench.progress.say(f"{done // 10**6} MB")
