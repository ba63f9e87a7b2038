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
from harness.stages.context import Bench, CaseContext
from harness.stages.fetch import shown


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint file in its original layout, with its sha256."""

    path: Path
    sha256: str

    def require_unchanged(self) -> None:
        """After a build that read the file: what was built belongs to the digest in its key.
        Raises `CheckpointError`: the file was replaced meanwhile.
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


def key(model: Model) -> str:
    """Return under which key of `Bench.known` the model's checkpoint is."""
    return f"checkpoint of {model.id}"


def obtain(bench: Bench, model: Model) -> tuple[Checkpoint, CheckpointInfo]:
    """Return the verified original file, and what a record says of it; once for each process.
    Raises `CheckpointError`: absent, refused, or not the file that the catalog means.
    """
    return bench.once(key(model), lambda: _obtain(bench, model))


def _obtain(bench: Bench, model: Model) -> tuple[Checkpoint, CheckpointInfo]:
    settings, spec = bench.settings, model.checkpoint

    def progress(done: int, total: int | None) -> None:
        if total:
            bench.progress.update(done // 10**6, max(1, total // 10**6), "MB")
        else:
            bench.progress.say(f"{done // 10**6} MB")

    path, digests = checkpoint.obtain_checkpoint(
        spec,
        settings.checkpoints,
        settings.checkpoint_cache or settings.store / "checkpoints",
        offline=settings.offline,
        progress=progress,
        on_wait=bench.progress.say,
    )
    return Checkpoint(path, digests.sha256), CheckpointInfo(
        source="checkpoint",
        file=path.name,
        sha256=digests.sha256,
        md5=digests.md5,
        url=shown(spec.url) if spec.url else "",
        layout=spec.layout,
        verified=checkpoint.has_digest(spec),
    )
