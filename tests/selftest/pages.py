"""Reading a rendered page in a test: its tags, attributes and words, all of it unfolded."""

from __future__ import annotations

import json
import re
from collections import Counter
from html.parser import HTMLParser
from typing import Any

from harness.pages.elements import Node, markup
from harness.records.reader import RunRecords
from harness.report.render import render_html

NOW = "2026-11-20T07:42:05+00:00"
_VOID = {"meta", "link", "input", "br", "img", "hr"}


class Tree(HTMLParser):
    """Tags, attributes and text of a page; complains about tags that do not match."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.html = html
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.faults: list[str] = []
        self._stack: list[str] = []
        self._texts: list[str] = []
        self._within: dict[str, list[str]] = {}
        self.feed(html)
        self.close()
        if self._stack:
            self.faults.append(f"never closed: {self._stack}")

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in _VOID:
            self._stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        if not self._stack or self._stack.pop() != tag:
            self.faults.append(f"</{tag}> at {self.getpos()}")

    def handle_data(self, data: str) -> None:
        if self._stack and self._stack[-1] not in ("script", "style"):
            self._texts.append(data)
        for tag in set(self._stack):
            self._within.setdefault(tag, []).append(data)

    def text(self, tag: str = "") -> str:
        """All text of the page, or that inside `tag`, on one line."""
        return " ".join(" ".join(self._within.get(tag, []) if tag else self._texts).split())

    def values(self, name: str) -> list[str]:
        """Every value of one attribute."""
        return [value for _, attribute, value in self.attributes if attribute == name]

    @property
    def tone(self) -> str:
        """The tone of the headline."""
        (shown,) = [one for one in self.values("class") if one.startswith("page tone-")]
        return shown.removeprefix("page tone-")


def unfolded(html: str) -> str:
    """The page with the elements in place that its script makes when somebody unfolds them."""
    packed = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.S)
    assert packed is not None
    data = json.loads(packed[1])

    def whole(part: Any) -> Node:
        part = data["shared"][part] if isinstance(part, int) else part
        return part if isinstance(part, str) else tuple(map(whole, part))

    return re.sub(
        r'<div data-node="([^"]+)"></div>',
        lambda place: markup(whole(data["nodes"].pop(place[1]))),
        html.replace(packed[0], ""),
    )


def page(records: RunRecords) -> Tree:
    """Render a run and read the page."""
    return Tree(unfolded(render_html(records, now=NOW)))


def section(records: RunRecords, name: str) -> Tree:
    """One section of the page, by its id."""
    html = page(records).html
    start = html.index(f'<section id="{name}"')
    end = re.compile(r"</section>\s*(?=<section id|</main>)").search(html, start)
    assert end is not None
    return Tree(html[start : end.end()])
