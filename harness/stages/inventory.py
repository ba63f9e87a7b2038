"""Say what each artifact of a store is, for people: its model, batch size, chip, and what it is of.

A key's inputs name what an artifact was made from by digest alone: a compiled model names its
simplified file, this its ONNX file, and that the network. The digests are followed back here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
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
    every = _Artifacts(list(entries), tuple(catalog.models.values()) if catalog else ())
    items = [every.item(entry) for entry in every.entries]
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


@dataclass(frozen=True)
class _Artifacts:
    """All of a store, and the models that they may belong to."""

    entries: Sequence[Entry]
    models: Sequence[Model]

    def item(self, entry: Entry) -> Item:
        line = list(self._ancestry(entry))
        source = line[-1].inputs
        sizes = (one.inputs.get("batch_size") for one in line)
        batch_size = next((size for size in sizes if isinstance(size, int)), None)
        if entry.kind == Stage.EAGER:
            batch_size = None
        return Item(entry, self._model(source), batch_size, self._what(entry, source))

    def _ancestry(self, entry: Entry) -> Iterator[Entry]:
        """Return the artifact, what it was made from, and so on, as far as the store has them."""
        for _ in range(_MOST_STEPS):
            yield entry
            digest = next((entry.inputs[name] for name in _FROM if name in entry.inputs), None)
            origin = self._of_digest(digest, Stage.EXPORT, Stage.SIMPLIFY)
            if origin is None:
                return
            entry = origin

    def _of_digest(self, digest: object, *kinds: Stage) -> Entry | None:
        return next((e for e in self.entries if e.digest == digest and e.kind in kinds), None)

    def _model(self, source: Mapping[str, Any]) -> str:
        """Names of the models that it belongs to; else the network's; else empty."""
        network, arguments = source.get("network"), source.get("arguments", {})
        geometry = source.get("geometry")
        names = [
            one.id
            for one in self.models
            if (
                one.preprocessing.model_dump(include={"resize", "crop"}) == geometry
                if network is None
                else (one.network.source, dict(one.network.arguments)) == (network, arguments)
            )
        ]
        return ", ".join(names) or str(network or "")

    def _what(self, entry: Entry, source: Mapping[str, Any]) -> str:
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
            first = self._images(inputs)
        return ", ".join(part for part in (first, self._weights(source)) if part)

    def _weights(self, source: Mapping[str, Any]) -> str:
        if "given" in source:
            return f"given file {str(source['given'])[:8]}"
        digest = source.get("checkpoint")
        if digest is None:
            return ""
        return "stand-in" if self._of_digest(digest, Stage.STANDIN) else f"weights {digest[:8]}"

    def _images(self, inputs: Mapping[str, Any]) -> str:
        """How many images an eager pass ran on; empty where some of their crops are gone."""
        keys = inputs.get("crops", ())
        chunks = [one for one in self.entries if one.kind == Stage.CROPS and one.key in keys]
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
