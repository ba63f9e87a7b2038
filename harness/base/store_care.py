"""Look after a store: say which inputs keep a key from being there; remove what is old."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from harness.base import locks, scratch
from harness.base.errors import StoreError
from harness.base.stages import Stage
from harness.base.store import Entry, Inputs, Store, canonical, key_of, mtime, remove_tree

GRACE_S = 3600.0

Failed = tuple[tuple[Path, OSError], ...]


@dataclass(frozen=True)
class Explanation:
    """Why a key is in the store or not: the inputs that differ from the nearest entry."""

    kind: str
    key: str
    present: bool
    nearest: str | None = None
    differences: tuple[tuple[str, Any, Any], ...] = ()  # (input, wanted, in the nearest entry)


def explain(store: Store, kind: Stage, inputs: Inputs) -> Explanation:
    """Return which inputs keep a key from being in the store."""
    key = key_of(kind, inputs)
    wanted = _flatten(json.loads(canonical(inputs)))  # as a manifest has them
    nearest: tuple[str, tuple[tuple[str, Any, Any], ...]] | None = None
    for entry in store.entries():
        if entry.kind != kind:
            continue
        if entry.key == key:
            return Explanation(kind, key, True, key)
        have = _flatten(dict(entry.inputs))
        differing = tuple(
            (name, wanted.get(name), have.get(name))
            for name in sorted(wanted.keys() | have.keys())
            if wanted.get(name) != have.get(name)
        )
        if nearest is None or len(differing) < len(nearest[1]):
            nearest = (entry.key, differing)
    return Explanation(kind, key, False, *(nearest or ()))


def _flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix.removesuffix("."): value}
    flat: dict[str, Any] = {}
    for name, inner in value.items():
        flat |= _flatten(inner, f"{prefix}{name}.")
    return flat


@dataclass(frozen=True)
class Tidied:
    """What `tidy` removed, with the reason, and what it left although it was asked to remove it."""

    removed: tuple[tuple[Entry, str], ...]
    kept: tuple[Entry, ...]  # used now or within the last hour, or somebody is building it
    failed: Failed  # entries and leftovers that cannot be removed


def tidy(
    store: Store,
    *,
    max_bytes: int | None = None,
    older_than_s: float | None = None,
    key: str = "",
) -> Tidied:
    """Remove entries not used for `older_than_s`, then the least recently used ones until at most
    `max_bytes` remain; leftovers of dead builds and damaged entries go as well.

    Entries used now or within the last hour stay: a run may be about to open them. `key`: its
    first digits name entries that go unless they are used now.
    """
    removed: list[tuple[Entry, str]] = []
    kept: list[Entry] = []
    failed = list(_remove_leftovers(store))
    entries = sorted(store.entries(), key=store.last_used)
    total = sum(entry.bytes for entry in entries)
    for entry in entries:
        age = time.time() - store.last_used(entry)
        named = bool(key) and entry.key.startswith(key)
        if named:
            reason = "its key was named"
        elif older_than_s is not None and age > older_than_s:
            reason = f"not used for {age / 86400:.1f} days"
        elif max_bytes is not None and total > max_bytes:
            reason = "least recently used, over the size limit"
        else:
            continue
        if age <= GRACE_S and not named:
            kept.append(entry)
            continue
        try:
            gone = store.remove(f"{entry.kind}-{entry.key}", entry.directory)
        except locks.LockTimeout:
            kept.append(entry)
        except OSError as error:
            failed.append((entry.directory, error))
        else:
            total -= entry.bytes
            removed += [(entry, reason)] * gone
    return Tidied(tuple(removed), tuple(kept), tuple(failed))


def tidy_dead(store: Store) -> Failed:
    """Remove what dead processes left in the temporary folder, in the store and its staging; return
    what cannot be removed from the staging.

    Who builds holds the entry's lock; who unpacks a parcel, that of its folder.
    """
    scratch.sweep(store.root)
    with contextlib.suppress(StoreError):  # there is no temporary folder
        scratch.sweep(scratch.temporary())
    staged = store.root.glob("staging/*")
    return _removed({path: partial(store.remove, path.name.rsplit("-", 2)[0]) for path in staged})


def _remove_leftovers(store: Store) -> Failed:
    """Remove what dead builds left, and damage of an hour ago; return what cannot be removed."""
    damaged = store.root.glob("damaged/*")  # nobody opens it
    old = (path for path in damaged if time.time() - mtime(path) > GRACE_S)
    return (*_removed(dict.fromkeys(old, remove_tree)), *tidy_dead(store))


def _removed(leftovers: Mapping[Path, Callable[[Path], object]]) -> Failed:
    failed = []
    for path, remove in leftovers.items():
        try:
            remove(path)
        except (locks.LockTimeout, FileNotFoundError):
            continue
        except OSError as error:
            failed.append((path, error))
    return tuple(failed)
