"""Say what each artifact of a store is, for people: its model, batch size, chip, and what it is of.

A key's inputs name what an artifact was made from by digest alone: a compiled model names its
simplified file, this its ONNX file, and that the network. The digests are followed back here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from harness.base.stages import Stage
from harness.base.store import Entry
from harness.catalog.schema import Catalog, Model

# In the order in which a case makes them.
KINDS = (
    Stage.DATA,
    Stage.CROPS,
    Stage.STANDIN,
    Stage.EXPORT,
    Stage.SIMPLIFY,
    Stage.COMPILE,
    Stage.PROBE,
    Stage.EAGER,
)
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

    @property
    def subject(self) -> tuple[object, ...]:
        return (self.entry.kind, self.model, self.batch_size, self.what)


def inventory(entries: Iterable[Entry], catalog: Catalog | None) -> list[Item]:
    """Describe every artifact; by model, then in the order in which a case makes them.

    `catalog` gives networks and croppings the names of their models; without it, or where no model
    has them, the network itself is named.
    """
    every = list(entries)
    origins = {e.digest: e for e in every if e.kind in (Stage.EXPORT, Stage.SIMPLIFY)}
    standins = {entry.digest for entry in every if entry.kind == Stage.STANDIN}
    models = () if catalog is None else tuple(catalog.models.values())
    items = [_item(entry, origins, standins, every, models) for entry in every]
    newest: dict[tuple[object, ...], str] = {}
    for item in items:
        newest[item.subject] = max(newest.get(item.subject, ""), item.entry.created)
    # Of those that nothing tells apart, other versions made all but the newest.
    marked = (replace(one, older=one.entry.created < newest[one.subject]) for one in items)
    return sorted(marked, key=_order)


def _order(item: Item) -> tuple[object, ...]:
    kind = item.entry.kind
    place = [*KINDS, kind].index(kind)
    return (item.model, place, item.batch_size or 0, item.what, item.older, item.entry.created)


def _item(
    entry: Entry,
    origins: Mapping[str, Entry],
    standins: Collection[str],
    every: Sequence[Entry],
    models: Sequence[Model],
) -> Item:
    line = list(_ancestry(entry, origins))
    source = line[-1].inputs
    sizes = (one.inputs.get("batch_size") for one in line)
    batch_size = next((size for size in sizes if isinstance(size, int)), None)
    if entry.kind == Stage.EAGER:
        batch_size = None
    return Item(entry, _model(source, models), batch_size, _what(entry, source, standins, every))


def _ancestry(entry: Entry, origins: Mapping[str, Entry]) -> Iterator[Entry]:
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
        arguments = source.get("arguments", {})
        exact = [
            one.id
            for one in models
            if one.network.source == network and dict(one.network.arguments) == arguments
        ]
        return ", ".join(exact) or str(network)
    return ", ".join(
        one.id
        for one in models
        if one.preprocessing.model_dump(mode="json", include={"resize", "crop"}) == geometry
    )


def _what(
    entry: Entry, source: Mapping[str, Any], standins: Collection[str], every: Sequence[Entry]
) -> str:
    inputs, kind = entry.inputs, entry.kind
    if kind == Stage.DATA:
        return f"{inputs.get('count', '?')} generated"
    if kind == Stage.CROPS:
        return f"{inputs.get('count', '?')} images, {_cropping(inputs.get('geometry'))}"
    if kind == Stage.STANDIN:
        return "generated weights"
    first = ""
    if kind == Stage.COMPILE:
        first = _chip(inputs)
    elif kind == Stage.PROBE:
        first = "outputs for seeds"
    elif kind == Stage.EAGER:
        first = _images(inputs, every)
    return ", ".join(part for part in (first, _weights(source, standins)) if part)


def _weights(source: Mapping[str, Any], standins: Collection[str]) -> str:
    if "given" in source:
        return f"given file {str(source['given'])[:8]}"
    if source.get("checkpoint") is None:
        return ""
    digest = str(source["checkpoint"])
    return "stand-in" if digest in standins else f"weights {digest[:8]}"


def _images(inputs: Mapping[str, Any], every: Sequence[Entry]) -> str:
    """How many images an eager pass ran on; empty where some of their crops are gone."""
    keys = inputs.get("crops", ())
    chunks = [one for one in every if one.kind == Stage.CROPS and one.key in keys]
    if not keys or len(chunks) != len(keys):
        return ""
    return f"{sum(int(chunk.inputs['count']) for chunk in chunks):,} images"


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
