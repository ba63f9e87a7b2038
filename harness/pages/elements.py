"""Elements of a page as values: written as HTML, or packed for the page's script, each once.

A node is a text, or an element: its tag with its classes, then its attributes and children, as in
`("p.small", ("@title", "why"), "some text", ("b", "bold"))`. Texts may be foreign; they stay text.
Names of tags, classes and attributes are ours, never a record's.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

from markupsafe import Markup, escape

from harness.base.text import clean

Node: TypeAlias = "str | tuple[Node, ...]"


def markup(node: Node) -> Markup:
    """Return a node as HTML."""
    if isinstance(node, str):
        return escape(clean(node))
    tag, _, classes = str(node[0]).partition(".")
    attributes = {"class": classes.replace(".", " ")} if classes else {}
    inner = ""
    for part in node[1:]:
        if isinstance(part, tuple) and str(part[0]).startswith("@"):
            attributes[str(part[0])[1:]] = str(part[1])
        else:
            inner += markup(part)
    said = "".join(f' {name}="{escape(clean(value))}"' for name, value in attributes.items())
    return Markup(f"<{tag}{said}>{inner}</{tag}>")  # noqa: S704 - its parts are escaped


def packed(nodes: Mapping[str, Node]) -> Markup:
    """Return nodes by name as JSON for a `script` element: `{"shared": [...], "nodes": {...}}`.

    What occurs more than once, text or element, stands in `shared`; a number is a place there.
    """
    seen: Counter[Node] = Counter()
    places: dict[Node, int] = {}
    table: list[object] = []

    def count(node: Node) -> None:
        seen[node] += 1
        if seen[node] == 1 and isinstance(node, tuple):
            for part in node:
                count(part)

    def placed(node: Node) -> object:
        if seen[node] == 1:
            return whole(node)
        if node not in places:
            value = whole(node)
            places[node] = len(table)
            table.append(value)
        return places[node]

    def whole(node: Node) -> object:
        return clean(node) if isinstance(node, str) else [placed(part) for part in node]

    for node in nodes.values():
        count(node)
    data = {"nodes": {name: placed(node) for name, node in nodes.items()}, "shared": table}
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c"))  # noqa: S704 - no tag can begin or end in it


# What pages are made of ------------------------------------------------------------------------


def labelled(rows: Iterable[tuple[str, str]]) -> Node:
    """Return labels and values, one pair a line."""
    return ("dl.rows", *(("div", ("dt", label), ("dd", value)) for label, value in rows))


def section(title: str, *parts: Node) -> Node:
    """Return parts below a small heading."""
    return ("section.group", ("h4", title), *parts)


def fold(title: str, *parts: Node, opened: bool = False) -> Node:
    """Return parts that a reader unfolds."""
    return ("details.fold", *((("@open", ""),) if opened else ()), ("summary", title), *parts)


def table(label: str, heads: Iterable[str], rows: Iterable[Sequence[Node]]) -> Node:
    """Return a table that scrolls by itself; the first cell of a row is its head."""
    region = (("@tabindex", "0"), ("@role", "region"), ("@aria-label", label))
    head: Node = ("thead", ("tr", *(("th", ("@scope", "col"), one) for one in heads)))
    body: Node = ("tbody", *(_row(*cells) for cells in rows))
    return ("div.scroll", *region, ("table.figures", head, body))


def _row(first: Node, *cells: Node) -> Node:
    return ("tr", ("th", ("@scope", "row"), first), *(("td", one) for one in cells))


def command(*lines: str) -> Node:
    """Return commands to copy."""
    return ("div.command", ("pre", ("@tabindex", "0"), "\n".join(lines)))
