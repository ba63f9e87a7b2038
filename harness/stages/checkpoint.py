"""Checkpoint files as upstream ships them: found or fetched, and verified against the catalog.

What is in a file is read by `networks/weights.py`; nothing here interprets it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.base.errors import CheckpointError
from harness.base.locks import OnWait
from harness.catalog.schema import CheckpointSpec
from harness.networks.weights import foreign, require_regular_file, unreadable
from harness.stages.fetch import DEADLINE_S, RETRIES, TIMEOUT_S, OnProgress, fetch, shown

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Digests:
    """Digests of a whole file, lower-case hexadecimal."""

    md5: str
    sha256: str


def obtain_checkpoint(
    spec: CheckpointSpec,
    directories: Sequence[Path],
    *,
    cache: Path | None,
    offline: bool,
    progress: OnProgress | None = None,
    on_wait: OnWait | None = None,
    timeout_s: float = TIMEOUT_S,
    deadline_s: float = DEADLINE_S,
    retries: int = RETRIES,
) -> tuple[Path, Digests]:
    """The verified file and its digests: of `directories`, else of `cache`, else fetched there.

    A file in `directories` is its owner's: when it is not the one that `spec` means it is refused
    and stays where it is, and nothing is fetched in its place. Such a file in `cache` is set aside
    and fetched once more. Where `spec` gives no digest, a fetched file must at least begin like
    one of PyTorch's. `progress`, `on_wait` and the limits are those of `stages.fetch`.

    Raises:
        CheckpointError: there is no such file, it is another one, or it cannot be fetched.
    """
    found = _find(spec, directories)
    if found is not None:
        return found, verify_digest(found, spec)
    seen: list[Digests] = []

    def verify(path: Path) -> None:
        seen.append(_digests(path))
        wrong = _mismatch(seen[-1], spec)
        other = foreign(path) if wrong or not has_digest(spec) else None
        if wrong or other:
            it = f"it {other}" if other else None
            raise CheckpointError("; ".join(text for text in (wrong, it) if text))

    if cache is None:
        raise _absent(spec, directories, "no cache folder was given to fetch it into")
    no_fetch = "`--offline` was given" if offline else "" if spec.url else "it has no URL"
    kept = cache / spec.file
    if os.path.isfile(kept):
        try:
            verify(kept)
            return kept, seen[-1]
        except CheckpointError as error:
            if no_fetch:
                raise CheckpointError(
                    f"{kept} is refused: {error.message}; it was not opened, and not fetched "
                    f"again: {no_fetch}",
                    remedy=_by_hand(spec),
                ) from error
    if spec.url is None or no_fetch:
        raise _absent(spec, [*directories, cache], no_fetch)
    path = fetch(
        spec.url,
        kept,
        verify=verify,
        progress=progress,
        timeout_s=timeout_s,
        deadline_s=deadline_s,
        retries=retries,
        on_wait=on_wait,
    )
    return path, seen[-1]


def find_checkpoint(spec: CheckpointSpec, directories: Sequence[Path]) -> Path:
    """The first file called `spec.file` in `directories`; subfolders are not searched.

    Nothing is fetched: see `obtain_checkpoint`. Raises `CheckpointError` with the directories
    searched and the URL.
    """
    found = _find(spec, directories)
    if found is None:
        raise _absent(spec, directories)
    return found


def verify_digest(path: Path, spec: CheckpointSpec) -> Digests:
    """Digests of the file, computed in one pass and held against those that `spec` gives.

    Nothing in the file is interpreted, and it is not moved. Raises `CheckpointError` with both
    values when one differs, or when the file cannot be read.
    """
    found = _digests(path)
    wrong = _mismatch(found, spec)
    if wrong:
        raise CheckpointError(
            f"{path} is not the file that the catalog means: {wrong}; it was not opened and stays "
            "where it is",
            remedy=f"fetch it again from {shown(spec.url) if spec.url else 'its publisher'}, or "
            "take it out of that folder",
        )
    return found


def has_digest(spec: CheckpointSpec) -> bool:
    """Whether the catalog can tell the file from another one."""
    return any(value is not None for value in (spec.md5, spec.sha256, spec.sha256_prefix))


def _find(spec: CheckpointSpec, directories: Sequence[Path]) -> Path | None:
    if spec.file in ("", ".", "..") or Path(spec.file).name != spec.file:
        raise CheckpointError(
            f"`{spec.file}` is not a bare file name",
            remedy="give the checkpoint's file name without a folder in baselines.yaml",
        )
    for directory in directories:
        path = directory / spec.file
        if os.path.isfile(path):  # false, not an error, for a folder that may not be entered
            return path
    return None


def _absent(
    spec: CheckpointSpec, directories: Sequence[Path], no_fetch: str = ""
) -> CheckpointError:
    searched = ", ".join(
        f"{d}{'' if os.path.isdir(d) else ' (no such folder)'}" for d in directories
    )
    reason = f"; not fetched: {no_fetch}" if no_fetch else ""
    return CheckpointError(
        f"{spec.file} is not there; searched: {searched or 'no folder was given'}{reason}",
        remedy=_by_hand(spec),
    )


def _by_hand(spec: CheckpointSpec) -> str:
    source = f"download {shown(spec.url)}" if spec.url else f"get {spec.file} from its publisher"
    return f"{source} into a folder and name that folder with `--checkpoints=DIR`"


def _digests(path: Path) -> Digests:
    # md5 is what the publisher gives; it guards against damage, not against an attacker.
    md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    try:
        require_regular_file(path)
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                md5.update(chunk)
                sha256.update(chunk)
    except OSError as error:
        raise unreadable(path, error) from error
    return Digests(md5.hexdigest(), sha256.hexdigest())


def _mismatch(found: Digests, spec: CheckpointSpec) -> str | None:
    """What differs, with both values: `its md5 is ..., expected ...`."""
    prefix = spec.sha256_prefix
    for kind, wanted, actual in (
        ("md5", spec.md5, found.md5),
        ("sha256", spec.sha256, found.sha256),
        # An empty prefix would match anything: it is compared whole, and so refused.
        ("sha256 prefix", prefix, found.sha256[: len(prefix)] if prefix else found.sha256),
    ):
        if wanted is not None and wanted.lower() != actual:
            return f"its {kind} is {actual}, expected {wanted.lower()}"
    return None
