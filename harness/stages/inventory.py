"""What each artifact of a store is, for people: its model, batch size, chip, and what it is of.

A key's inputs name what an artifact was made from by digest alone: a compiled model names its
simplified file, this its ONNX file, and that the network. The digests are followed back here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.base.store import Entry
from harness.catalog.schema import Catalog, Model

# As a case makes them.
KINDS = ("images", "crops", "standin", "onnx", "simplified", "compiled", "probe", "eager")
_FROM = ("simplified", "onnx")  # inputs that hold the digest of another artifact
_MOST_STEPS = 8


@dataclass(frozen=True)
class Item:
    """One artifact. `batch_size` is None where it is for any; `older`: a newer one is alike."""

    entry: Entry
    model: str
    batch_size: int | None
    what: str
    older: bool = False


def inventory(entries: Iterable[Entry], catalog: Catalog | None) -> list[Item]:
    """Every artifact with what it is, by model, then in the order in which a case makes them.

    `catalog` gives networks and croppings the names of their models; without it, or where no model
    has them, the network itself is named.
    """
    held = list(entries)
    origins = {entry.digest: entry for entry in held if entry.kind in ("onnx", "simplified")}
    standins = {entry.digest for entry in held if entry.kind == "standin"}
    models = () if catalog is None else tuple(catalog.models.values())
    items = [_item(entry, origins, standins, held, models) for entry in held]
    return sorted(_marked(items), key=_order)


def _order(item: Item) -> tuple[object, ...]:
    kind = item.entry.kind
    place = KINDS.index(kind) if kind in KINDS else len(KINDS)
    return (item.model, place, item.batch_size or 0, item.what, item.older, item.entry.created)


def _marked(items: Sequence[Item]) -> Iterator[Item]:
    """Of those that nothing tells apart, all but the newest are older: other versions made them."""
    newest: dict[tuple[object, ...], str] = {}
    for item in items:
        key = (item.entry.kind, item.model, item.batch_size, item.what)
        newest[key] = max(newest.get(key, ""), item.entry.created)
    for item in items:
        key = (item.entry.kind, item.model, item.batch_size, item.what)
        older = item.entry.created < newest[key]
        yield Item(item.entry, item.model, item.batch_size, item.what, older)


def _item(
    entry: Entry,
    origins: Mapping[str, Entry],
    standins: set[str],
    held: Sequence[Entry],
    models: Sequence[Model],
) -> Item:
    line = list(_line(entry, origins))
    source = line[-1].inputs
    batch_size = next(
        (size for one in line if isinstance(size := one.inputs.get("batch_size"), int)), None
    )
    return Item(
        entry,
        _model(source, models),
        None if entry.kind == "eager" else batch_size,
        _what(entry, source, standins, held),
    )


def _line(entry: Entry, origins: Mapping[str, Entry]) -> Iterator[Entry]:
    """The artifact, what it was made from, and so on, as far as the store has them."""
    for _ in range(_MOST_STEPS):
        yield entry
        digest = next((str(entry.inputs[name]) for name in _FROM if name in entry.inputs), "")
        if digest not in origins:
            return
        entry = origins[digest]


def _model(source: Mapping[str, Any], models: Sequence[Model]) -> str:
    """Names of the models that it belongs to; else the network's; else empty."""
    network, geometry = source.get("network"), source.get("geometry")
    if network is not None:
        same = [one for one in models if one.network.source == network]
        arguments = source.get("arguments", {})
        exact = [one for one in same if dict(one.network.arguments) == arguments]
        return ", ".join(one.id for one in exact) or str(network)
    if isinstance(geometry, Mapping):
        return ", ".join(one.id for one in models if _geometry(one) == geometry)
    return ""


def _geometry(model: Model) -> dict[str, Any]:
    return model.preprocessing.model_dump(mode="json", include={"resize", "crop"})


def _what(
    entry: Entry, source: Mapping[str, Any], standins: set[str], held: Sequence[Entry]
) -> str:
    inputs, kind = entry.inputs, entry.kind
    if kind == "images":
        return f"{inputs.get('count', '?')} generated"
    if kind == "crops":
        return f"{inputs.get('count', '?')} images, {_cropping(inputs.get('geometry'))}"
    if kind == "standin":
        return "generated weights"
    said = {"compiled": _chip(inputs), "probe": "outputs for seeds", "eager": _images(inputs, held)}
    return ", ".join(part for part in (said.get(kind, ""), _weights(source, standins)) if part)


def _weights(source: Mapping[str, Any], standins: set[str]) -> str:
    if "given" in source:
        return f"given file {str(source['given'])[:8]}"
    if source.get("checkpoint") is None:
        return ""
    digest = str(source["checkpoint"])
    return "stand-in" if digest in standins else f"weights {digest[:8]}"


def _images(inputs: Mapping[str, Any], held: Sequence[Entry]) -> str:
    keys = inputs.get("crops")
    if not isinstance(keys, Sequence):
        return ""
    counts = [one.inputs.get("count") for one in held if one.kind == "crops" and one.key in keys]
    images = sum(count for count in counts if isinstance(count, int))
    # Not where some of the crops are gone.
    return f"{images:,} images" if len(counts) == len(keys) else ""


def _chip(inputs: Mapping[str, Any]) -> str:
    chip = str(inputs.get("chip") or inputs.get("target") or "")
    if inputs.get("simulated") is None:
        return chip
    tools = f"CANN {inputs['cann']}" if inputs.get("cann") else "real"
    return f"{chip}, {'SIMULATED' if inputs['simulated'] else tools}"


def _cropping(geometry: Any) -> str:
    try:
        return f"{geometry['resize']['size']} to {geometry['crop']['size']}"
    except (KeyError, TypeError):
        return "cropping not known"
