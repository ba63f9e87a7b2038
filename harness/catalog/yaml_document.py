"""A YAML file as plain data with a line for every value, and its faults told by line.

A subset of YAML is read: one document of mappings, lists and scalars, without anchors, tags or
merge keys. What pydantic then finds wrong in the data becomes a `Problem`, in the file's words and
with the closest names. What the data means is not known here.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml
from pydantic_core import ErrorDetails, PydanticCustomError

from harness.base.errors import some

KeyPath = tuple[str | int, ...]

# Another file, given by mistake, ends at once and not in minutes: `baselines.yaml` has 550 values
# in seven levels.
MAX_VALUES = 10_000
MAX_DEPTH = 16
MAX_SUGGESTIONS = 30  # names that a hint lists
_MAX_COMPARED = 500  # names that are held against a misspelt one


@dataclass(frozen=True)
class Document:
    """Plain data (dict, tuple, str, int, float, bool, None) and the line of every path.

    `lists` has the paths that are lists, so that `written` can tell an index from a key.
    """

    data: dict[str | int, Any]
    lines: Mapping[KeyPath, int]
    lists: Collection[KeyPath]

    def line(self, path: KeyPath) -> int:
        """The line of a path, or of the closest section around it; lines count from 1."""
        while path not in self.lines:
            path = path[:-1]
        return self.lines[path]

    def written(self, path: KeyPath) -> str:
        """`models.fixres.throughput[0].fps.1`."""
        return _written(path, self.lists)


@dataclass(frozen=True)
class Problem:
    """What is wrong at a path: one line, and what to do about it (`hint`, may be empty)."""

    path: KeyPath
    text: str
    hint: str = ""
    first: bool = False  # an unknown key often explains the others


class SyntaxFault(Exception):
    """The text is not the YAML that is read here; `line` counts from 1."""

    def __init__(self, line: int, text: str, hint: str = "") -> None:
        super().__init__(text)
        self.line, self.text, self.hint = line, text, hint


def read_document(content: bytes, *, expected: str) -> Document:
    """Bytes -> data and lines. `expected` says which keys the top has, for messages.

    Raises:
        SyntaxFault: anything but a mapping in the subset of YAML, encoded as UTF-8.
    """
    text = _decoded(content)
    found = _CONTROL.search(text)
    if found:
        line = text.count("\n", 0, found.start()) + 1
        raise SyntaxFault(line, f"found the control character U+{ord(found[0]):04X}")
    # libyaml is a few times faster than the parser in Python; both give the same events.
    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    builder = _Builder()
    try:
        for event in yaml.parse(text, Loader=loader):
            builder.feed(event)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        begun = error.context_mark
        context = f" {error.context}" if error.context else ""
        if begun and begun.line + 1 != line:
            context += f" that begins at line {begun.line + 1}"
        raise SyntaxFault(line, f"not YAML: {error.problem}{context}") from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        # The parser in Python lets ValueError and OverflowError through for absurd escapes.
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SyntaxFault(1, f"not YAML: {reason}") from error
    if builder.data is None:
        raise SyntaxFault(1, f"the file is empty; expected {expected}")
    if not isinstance(builder.data, dict):
        raise SyntaxFault(1, f"found {shown(builder.data)} at the top; expected {expected}")
    return Document(builder.data, builder.lines, builder.lists)


def shown(value: Any) -> str:
    """A value as the file would write it, short."""
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "a mapping" if value else "an empty mapping"
    if isinstance(value, tuple | list):
        return "a list" if value else "an empty list"
    if isinstance(value, str):
        return json.dumps(value if len(value) <= 60 else value[:57] + "...", ensure_ascii=False)
    return json.dumps(value) if isinstance(value, bool) else repr(value)


def suggest(found: object, names: Collection[object]) -> str:
    """The name that was probably meant, where one is close, and the names that there are."""
    known = [str(name) for name in names]
    close = difflib.get_close_matches(str(found)[:100], known[:_MAX_COMPARED], n=1, cutoff=0.5)
    meant = [f"did you mean {close[0]!r}?"] if close else []
    listed = [f"known: {some(known, MAX_SUGGESTIONS)}"] if known else []
    return " ".join(meant + listed)


def unknown_key(key: object, known: Collection[str]) -> PydanticCustomError:
    """What a model raises for a key that it does not have; `problem_of` suggests `known` ones."""
    return PydanticCustomError("unknown_key", "unknown key", {"key": key, "known": tuple(known)})


def unknown_name(what: str, known: Collection[str]) -> PydanticCustomError:
    """What a validator raises for a name that is not among `known`; `what` is one of them."""
    return PydanticCustomError(
        "unknown_name", "expected {what}", {"what": what, "known": tuple(known)}
    )


# --- Text -> data ---------------------------------------------------------------------------

# JSON's scalars and YAML's usual spellings of them. Not here, on purpose: yes/no, octal, base 60,
# 1_000 and dates, which readers of YAML 1.1 and 1.2 understand differently. They stay text.
_PLAIN: Mapping[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INT = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_CONTROL = re.compile(
    "[^\\t\\n\\r\\x20-\\x7e\\x85\\xa0-\\ud7ff\\ue000-\\ufffd\\U00010000-\\U0010ffff]"
)


def _decoded(content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise SyntaxFault(
            line, f"not UTF-8: the byte 0x{content[error.start]:02x}", "save the file as UTF-8"
        ) from error


def _plain(text: str) -> Any:
    """The value of a scalar that is not in quotes."""
    if text in _PLAIN:
        return _PLAIN[text]
    if _INT.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    if _NOT_FINITE.fullmatch(text):
        return float(text.replace(".", ""))
    return text


def _written(path: KeyPath, lists: Collection[KeyPath]) -> str:
    parts = (f"[{p}]" if path[:i] in lists else f".{p}" for i, p in enumerate(path))
    return "".join(parts).removeprefix(".")


@dataclass
class _Open:
    """A mapping or a list whose end has not been read."""

    path: KeyPath
    items: dict[str | int, Any] | list[Any]
    key: str | int | None = None  # of a mapping: the key that waits for its value

    def next_path(self, line: int) -> KeyPath:
        if isinstance(self.items, list):
            return (*self.path, len(self.items))
        if self.key is None:
            raise SyntaxFault(line, "found a list or a mapping as a key; expected a name")
        return (*self.path, self.key)

    def add(self, value: Any) -> None:
        if isinstance(self.items, list):
            self.items.append(value)
        elif self.key is not None:
            self.items[self.key] = value
            self.key = None


@dataclass
class _Builder:
    """Events of the YAML parser -> the parts of a `Document`, without recursion.

    Depth is bounded here: the C parser's own way of building nested data has no limit but the
    stack's. Aliases are refused, and with them every document that grows when it is read.
    """

    lines: dict[KeyPath, int] = field(default_factory=lambda: {(): 1})
    lists: set[KeyPath] = field(default_factory=set)
    stack: list[_Open] = field(default_factory=list)
    data: Any = None
    documents: int = 0

    def feed(self, event: Any) -> None:
        line = event.start_mark.line + 1
        if len(self.lines) > MAX_VALUES:
            raise SyntaxFault(line, f"more than {MAX_VALUES} values")
        if isinstance(event, yaml.DocumentStartEvent):
            self.documents += 1
            if self.documents > 1:
                raise SyntaxFault(line, "a second document begins; expected one")
        elif isinstance(event, yaml.AliasEvent):
            raise SyntaxFault(line, f"found the alias *{event.anchor}", "write the value out")
        elif isinstance(event, yaml.CollectionEndEvent):
            items = self.stack.pop().items
            self._place(tuple(items) if isinstance(items, list) else items)
        elif isinstance(event, yaml.NodeEvent):
            _refuse_properties(event, line)
            if isinstance(event, yaml.ScalarEvent):
                unquoted = event.implicit[0] and not event.style
                self._scalar(_plain(event.value) if unquoted else event.value, line)
            else:
                self._open(isinstance(event, yaml.SequenceStartEvent), line)

    def _open(self, is_list: bool, line: int) -> None:
        if len(self.stack) == MAX_DEPTH:
            raise SyntaxFault(line, f"nested more than {MAX_DEPTH} levels deep")
        path = self.stack[-1].next_path(line) if self.stack else ()
        # A mapping's entry stands at its key, which has been noted already.
        self.lines.setdefault(path, line)
        if is_list:
            self.lists.add(path)
        self.stack.append(_Open(path, [] if is_list else {}))

    def _scalar(self, value: Any, line: int) -> None:
        if isinstance(value, str) and _CONTROL.search(value):
            raise SyntaxFault(line, "found a control character in a text")
        top = self.stack[-1] if self.stack else None
        if top is not None and isinstance(top.items, dict) and top.key is None:
            self._key(top, value, line)
            return
        if top is not None:
            self.lines.setdefault(top.next_path(line), line)
        self._place(value)

    def _key(self, top: _Open, key: Any, line: int) -> None:
        where = f" in {_written(top.path, self.lists)}" if top.path else ""
        if key == "<<":
            raise SyntaxFault(line, f"found the merge key <<{where}", "write the values out")
        if type(key) not in (str, int):
            raise SyntaxFault(
                line, f"found the key {shown(key)}{where}; expected a name or a whole number"
            )
        path = (*top.path, key)
        if path in self.lines:
            raise SyntaxFault(
                line,
                f"the key {key!r} stands twice{where}, first at line {self.lines[path]}",
                "keep one of the two",
            )
        self.lines[path] = line
        top.key = key

    def _place(self, value: Any) -> None:
        if self.stack:
            self.stack[-1].add(value)
        else:
            self.data = value


def _refuse_properties(event: Any, line: int) -> None:
    if event.anchor is not None:
        raise SyntaxFault(
            line, f"found the anchor &{event.anchor}", "write each value where it is used"
        )
    if event.tag is not None:
        raise SyntaxFault(line, f"found the tag {event.tag}", "remove the tag")


# --- Faults of the data in the file's words -------------------------------------------------

_EXPECTED: Mapping[str, str] = {
    "dict_type": "a mapping",
    "mapping_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "tuple_type": "a list",
    "string_type": "text",
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "finite_number": "a finite number",
}
_BOUNDS: Mapping[str, tuple[str, str]] = {
    "greater_than": ("more than", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than_equal": ("at most", "le"),
}


def problem_of(
    document: Document, error: ErrorDetails, known: Mapping[str, Collection[str]]
) -> Problem:
    """One fault that pydantic found, at its place in the file and in the file's words.

    `known` has names that pydantic does not give: the keys of each model that forbids others, by
    the key or the tag that leads to it, and the tags of each union, by its discriminator.
    """
    kind, loc, context = error["type"], error["loc"], error.get("ctx", {})
    path: KeyPath = ()
    node: Any = document.data
    for part in loc:
        if part == "[key]":
            node = path[-1]
            break
        # A part that the file does not have is the tag of a union, or the key that is missing.
        if (*path, part) in document.lines:
            path, node = (*path, part), node[part]
    if kind == "unknown_key":
        key = context["key"]
        return Problem((*path, key), "unknown key", suggest(key, context["known"]), first=True)
    if kind == "extra_forbidden":
        names = known.get(str(loc[-2]), ()) if len(loc) > 1 else ()
        return Problem(path, "unknown key", suggest(loc[-1], names), first=True)
    if kind == "missing":
        what = "entry" if isinstance(loc[-1], int) else "key"
        return Problem((*path, loc[-1]), f"this {what} is missing")
    if kind in ("union_tag_not_found", "union_tag_invalid"):
        key = context["discriminator"].strip("'")
        path = (*path, key)
        if kind == "union_tag_not_found":
            return Problem(path, "this key is missing", suggest("", known.get(key, ())))
        node = context["tag"]
    expected, hint = _expectation(error, node)
    found = "the key " if loc and loc[-1] == "[key]" else ""
    return Problem(path, f"found {found}{shown(node)}; {expected}", hint)


def _expectation(error: ErrorDetails, found: Any) -> tuple[str, str]:
    kind, context = error["type"], error.get("ctx", {})
    names = str(context.get("expected") or context.get("expected_tags") or "")
    if names:
        quoted = re.findall(r"'([^']*)'", names)
        hint = suggest(found, quoted) if quoted and isinstance(found, str) else ""
        return f"expected {names}", hint
    if kind == "unknown_name":
        return f"expected {context['what']}", suggest(found, context["known"])
    if kind in _BOUNDS:
        words, bound = _BOUNDS[kind]
        return f"expected {words} {context[bound]:g}", ""
    if kind == "too_short":
        return f"expected at least {context.get('min_length', 1)} entry", ""
    expected = _EXPECTED.get(kind)
    if expected is None:
        return error["msg"].replace("Input should be", "expected"), ""
    if found is None:
        return f"expected {expected}", "write a value, or remove the key"
    if kind == "string_type" and isinstance(found, int | float):
        return f"expected {expected}", "put it in quotes"
    if kind in ("int_type", "float_type") and isinstance(found, str):
        if type(_plain(found)) in (int, float):
            return f"expected {expected}", "remove the quotes"
        if isinstance(_plain(re.sub(r"[_,\s]", "", found).lstrip("0")), int | float):
            return f"expected {expected}", "write plain digits, such as 16 or 903.506"
    return f"expected {expected}", ""
