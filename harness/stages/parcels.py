"""Entries of the store as bytes, from the host that built them to one that uses them.

The store's reader verifies what was unpacked as it does whatever it finds, by its manifest.
"""

from __future__ import annotations

import io
import re
import tarfile
from pathlib import Path

from harness.base import scratch
from harness.base.errors import StoreError
from harness.base.store import FORMAT
from harness.records.observed import ArtifactRef

_PLACE = re.compile(r"v[0-9]+/[a-z_]+/[0-9a-f]{32}")


def place_of(artifact: ArtifactRef) -> Path:
    """Return where an artifact lies in a store."""
    return Path(f"v{FORMAT}", artifact.stage, artifact.key)


def pack(store: Path, place: Path) -> bytes:
    """Return an entry of a store as a tar archive."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        archive.add(store / place, arcname=place.as_posix())
    return data.getvalue()


def unpack(store: Path, parcel: bytes) -> None:
    """Put an entry into a store that lacks it; it appears whole or not at all. Raises `StoreError`:
    it is no entry, or cannot be written.
    """
    with tarfile.open(fileobj=io.BytesIO(parcel), mode="r:") as archive:
        members = archive.getmembers()
        place = members[0].name if members else ""
        if not _PLACE.fullmatch(place):
            raise StoreError(f"no entry of a store: {place!r:.80}", remedy="build it here")
        for one in members:  # a link leads elsewhere, a sparse file is larger than its parcel
            if one.issparse() or not (one.isreg() or one.isdir()):
                raise StoreError(f"{one.name!r:.80} is no plain file", remedy="build it here")
        target = store / place
        if target.exists():
            return
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with scratch.folder("parcel", store) as folder:
                archive.extractall(folder, filter="data")
                (folder / place).rename(target)
        except OSError as error:
            if not target.exists():  # else another process was first
                raise StoreError(f"cannot write {target}: {error}") from error
