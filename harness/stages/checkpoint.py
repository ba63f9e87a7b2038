"""Checkpoint files as upstream ships them: found or fetched, and verified against the catalog.

What is in a file is read by `networks/weights.py`; nothing here interprets it.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from harness.base.errors import CheckpointError
from harness.base.files import open_binary
from harness.base.locks import OnWait
from harness.catalog.schema import CheckpointSpec
from harness.networks.weights import flipped, foreign, unreadable
from harness.stages.fetch import DEFAULTS, Limits, OnProgress, fetch, shown

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Digests:
    """Digests of a whole file, lower-case hexadecimal."""

    md5: str
    sha256: str


def obtain_checkpoint(
    spec: CheckpointSpec,
    folder: Path | None,
    cache: Path,
    *,
    offline: bool,
    progress: OnProgress = lambda done, total: None,
    on_wait: OnWait | None = None,
    limits: Limits = DEFAULTS,
) -> tuple[Path, Digests]:
    """Return the verified file: of `folder`, else of `cache`, else fetched there.

    A file in `folder` is its owner's: when it is not the one that `spec` means it is refused and
    stays where it is, and nothing is fetched in its place. Such a file in `cache` is set aside and
    fetched once more. Where `spec` gives no digest, a fetched file must at least begin like one of
    PyTorch's. Subfolders are not searched.
    Raises `CheckpointError`: there is no such file, it is another one, or it cannot be fetched.
    """
    # `isfile` is false, not an error, for a folder that may not be entered.
    if folder is not None and os.path.isfile(folder / spec.file):
        return folder / spec.file, verify_digest(folder / spec.file, spec)
    kept = cache / spec.file
    no_fetch = "`--offline` was given" if offline else "" if spec.url else "it has no URL"
    if spec.url is not None and not no_fetch:
        found: list[Digests] = []
        fetch(
            spec.url,
            kept,
            verify=lambda path: found.append(_verified(path, spec)),
            progress=progress,
            on_wait=on_wait,
            limits=limits,
        )
        return kept, found[-1]
    if not os.path.isfile(kept):
        places = [f"{d}{'' if d.is_dir() else ' (no such folder)'}" for d in (folder, cache) if d]
        raise CheckpointError(
            f"{spec.file} is not there; searched: {', '.join(places)}; not fetched: {no_fetch}",
            remedy=_by_hand(spec),
        )
    try:
        return kept, _verified(kept, spec)
    except CheckpointError as error:
        raise CheckpointError(
            f"{kept} is refused: {error.message}; it was not opened, and not fetched again: "
            f"{no_fetch}",
            remedy=_by_hand(spec),
        ) from error


def _verified(path: Path, spec: CheckpointSpec) -> Digests:
    """Return the digests of a file that was fetched. Raises `CheckpointError` for another one."""
    digests = _digests(path)
    wrong = _mismatch(digests, spec)
    other = foreign(path) if wrong or not has_digest(spec) else None
    other = other or _damage(path, spec)
    if wrong or other:
        raise CheckpointError("; ".join(filter(None, (wrong, other and f"it {other}"))))
    return digests


def verify_digest(path: Path, spec: CheckpointSpec) -> Digests:
    """Compute the file's digests in one pass and compare them with those that `spec` gives.
    Raises `CheckpointError`: one differs (the message has both values), or the file cannot be read.
    """
    digests = _digests(path)
    damage = _damage(path, spec)
    wrong = f"it {damage}" if damage else _mismatch(digests, spec)
    if wrong:
        raise CheckpointError(
            f"{path} is not the file that the catalog means: {wrong}; it was not opened and stays "
            "where it is",
            remedy=f"fetch it again from {shown(spec.url) if spec.url else 'its publisher'}, or "
            "take it out of that folder",
        )
    return digests


def has_digest(spec: CheckpointSpec) -> bool:
    """Return whether the catalog can tell the file from another one."""
    return any(value is not None for value in (spec.md5, spec.sha256, spec.sha256_prefix))


def _by_hand(spec: CheckpointSpec) -> str:
    source = f"download {shown(spec.url)}" if spec.url else f"get {spec.file} from its publisher"
    return f"{source} into a folder and name that folder with `--checkpoints=DIR`"


def _digests(path: Path) -> Digests:
    # md5 is what the publisher gives; it guards against damage, not against an attacker.
    md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    try:
        with open_binary(path) as file:
            while chunk := file.read(_CHUNK_BYTES):
                md5.update(chunk)
                sha256.update(chunk)
    except OSError as error:
        raise unreadable(path, error) from error
    return Digests(md5.hexdigest(), sha256.hexdigest())


def _damage(path: Path, spec: CheckpointSpec) -> str | None:
    return None if has_digest(spec) else flipped(path)


def _mismatch(digests: Digests, spec: CheckpointSpec) -> str | None:
    """Return what differs, with both values: `its md5 is ..., expected ...`."""
    prefix = digests.sha256[: len(spec.sha256_prefix or "")]
    for kind, wanted, actual in (
        ("md5", spec.md5, digests.md5),
        ("sha256", spec.sha256, digests.sha256),
        ("sha256 prefix", spec.sha256_prefix, prefix),
    ):
        if wanted is not None and wanted != actual:
            return f"its {kind} is {actual}, expected {wanted}"
    return None
