"""A YAML file as plain data with a line for every value, and its faults by line.

A subset of YAML is read: one document of mappings, lists and scalars, without anchors, tags or
merge keys. What pydantic then finds wrong in the data becomes a `Problem`, in the file's words and
with the closest names. What the data means is not known here.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import yaml
from pydantic_core import ErrorDetails, PydanticCustomError

from harness.base.errors import some

KeyPath = tuple[str | int, ...]

# Another file, given by mistake or by malice, ends in seconds and not in minutes: a model of
# `baselines.yaml` has 110 values, in seven levels. So many are refused in 8 s and
# 400 MB at most.
MAX_VALUES = 600_000
MAX_DEPTH = 16
BLANK = "FILL_IN"  # what a draft could not know
MAX_SUGGESTIONS = 30  # names that a hint lists
_MAX_COMPARED = 500  # names that a misspelt one is compared with


@dataclass(frozen=True)
class Document:
    """Plain data (dict, tuple, str, int, float, bool, None) and the line of every path.

    `lists` has the paths that are lists, so that `written` can tell an index from a key; `blanks`
    those that a draft left to be filled in.
    """

    data: dict[str | int, Any]
    lines: dict[KeyPath, int]
    lists: set[KeyPath]
    blanks: list[KeyPath]

    def line(self, path: KeyPath) -> int:
        """Return the line of a path, or of the closest section around it; lines count from 1."""
        while path not in self.lines:
            path = path[:-1]
        return self.lines[path]

    def written(self, path: KeyPath) -> str:
        """`models.fixres.throughput[0].fps.1`."""
        parts = (f"[{p}]" if path[:i] in self.lists else f".{p}" for i, p in enumerate(path))
        return "".join(parts).removeprefix(".")


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
    """Read the data and its lines. `expected` says which keys the top has, for messages. Raises
    `SyntaxFault`: anything but a mapping in the subset of YAML, encoded as UTF-8.
    """
    text = _decoded(content)
    # libyaml is a few times faster than the parser in Python; both give the same nodes.
    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        # First what is flat: composing nodes has no limit to its depth but the stack's.
        _require_subset(yaml.parse(text, Loader=loader))
        node: Any = yaml.compose(text, Loader=loader)
    except yaml.MarkedYAMLError as error:
        mark, begun = error.problem_mark or error.context_mark, error.context_mark
        line = mark.line + 1 if mark else 1
        context = f" {error.context}" if error.context else ""
        if begun and begun.line + 1 != line:
            context += f" that begins at line {begun.line + 1}"
        raise SyntaxFault(line, f"not YAML: {error.problem}{context}") from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        # The parser in Python lets ValueError and OverflowError through for absurd escapes.
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SyntaxFault(1, f"not YAML: {reason}") from error
    if node is None:
        raise SyntaxFault(1, f"the file is empty; expected {expected}")
    document = Document({}, {(): 1}, set(), [])
    data = _data_of(node, (), document)
    if not isinstance(data, dict):
        raise SyntaxFault(1, f"found {shown(data)} at the top; expected {expected}")
    document.data.update(data)
    return document


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
    """Return the name that was probably meant, where one is close, and the names that there are."""
    known = [str(name) for name in names]
    close = difflib.get_close_matches(str(found)[:100], known[:_MAX_COMPARED], n=1, cutoff=0.5)
    meant = [f"did you mean {close[0]!r}?"] if close else []
    listed = [f"known: {some(known, MAX_SUGGESTIONS)}"] if known else []
    return " ".join(meant + listed)


def unknown_key(key: object, known: Collection[str]) -> PydanticCustomError:
    """Make the error of a key that a section does not have; `problem_of` suggests `known` ones."""
    return PydanticCustomError("unknown_key", "unknown key", {"key": key, "known": tuple(known)})


def unknown_name(what: str, known: Collection[str]) -> PydanticCustomError:
    """Make the error of a name that is not among `known`; `what` is one of them."""
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
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise SyntaxFault(
            line, f"not UTF-8: the byte 0x{content[error.start]:02x}", "save the file as UTF-8"
        ) from error
    control = _CONTROL.search(text)
    if control:
        line = text.count("\n", 0, control.start()) + 1
        raise SyntaxFault(line, f"found the control character U+{ord(control[0]):04X}")
    return text


def _plain(text: str) -> Any:
    """Return the value of a scalar that is not in quotes."""
    if text in _PLAIN:
        return _PLAIN[text]
    if _INT.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    if _NOT_FINITE.fullmatch(text):
        return float(text.replace(".", ""))
    return text


def _require_subset(events: Iterable[Any]) -> None:
    """Refuse what is not read: aliases (and with them every document that grows when it is read),
    tags, further documents, and more values or levels than a catalog has.
    """
    depth = documents = values = 0
    for event in events:
        line = event.start_mark.line + 1
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, yaml.NodeEvent):
            values += 1
            depth += isinstance(event, yaml.CollectionStartEvent)
            _refuse_properties(event, line)
        if documents > 1:
            raise SyntaxFault(line, "a second document begins; expected one")
        if depth > MAX_DEPTH:
            raise SyntaxFault(line, f"nested more than {MAX_DEPTH} levels deep")
        if values > MAX_VALUES:
            raise SyntaxFault(line, f"more than {MAX_VALUES} values")


def _refuse_properties(event: Any, line: int) -> None:
    if isinstance(event, yaml.AliasEvent):
        raise SyntaxFault(line, f"found the alias *{event.anchor}", "write the value out")
    if event.anchor is not None:
        raise SyntaxFault(
            line, f"found the anchor &{event.anchor}", "write each value where it is used"
        )
    if event.tag is not None:
        raise SyntaxFault(line, f"found the tag {event.tag}", "remove the tag")


def _data_of(node: Any, path: KeyPath, document: Document) -> Any:
    """Return the value of a node; lines and lists below it are added to `document`."""
    line = node.start_mark.line + 1
    # A mapping's entry stands at its key, which has been noted already.
    document.lines.setdefault(path, line)
    if isinstance(node, yaml.SequenceNode):
        document.lists.add(path)
        return tuple(_data_of(one, (*path, i), document) for i, one in enumerate(node.value))
    if isinstance(node, yaml.ScalarNode):
        if _CONTROL.search(node.value):
            raise SyntaxFault(line, "found a control character in a text")
        if node.value == BLANK:
            document.blanks.append(path)
        return node.value if node.style else _plain(node.value)
    data: dict[str | int, Any] = {}
    for key_node, value_node in node.value:
        key = _key_of(key_node, path, data, document)
        document.lines[(*path, key)] = key_node.start_mark.line + 1
        data[key] = _data_of(value_node, (*path, key), document)
    return data


def _key_of(node: Any, path: KeyPath, seen: Collection[str | int], document: Document) -> str | int:
    line = node.start_mark.line + 1
    where = f" in {document.written(path)}" if path else ""
    if not isinstance(node, yaml.ScalarNode):
        raise SyntaxFault(line, "found a list or a mapping as a key; expected a name")
    key: str | int = node.value if node.style else _plain(node.value)
    if key == "<<":
        raise SyntaxFault(line, f"found the merge key <<{where}", "write the values out")
    if type(key) not in (str, int):
        raise SyntaxFault(
            line, f"found the key {shown(key)}{where}; expected a name or a whole number"
        )
    if key in seen:
        raise SyntaxFault(
            line,
            f"the key {key!r} stands twice{where}, first at line {document.lines[(*path, key)]}",
            "keep one of the two",
        )
    return key


# --- Faults of the data in the file's words -------------------------------------------------

# Words of pydantic, and what a file calls these things.
_WORDS = {
    "Input should be": "expected",
    "a valid dictionary": "a mapping",
    "a valid tuple": "a list",
    "a valid string": "text",
}


def problem_of(document: Document, error: ErrorDetails) -> Problem:
    """One fault that pydantic found, at its place in the file and in the file's words."""
    kind, loc, context = error["type"], error["loc"], error.get("ctx", {})
    path: KeyPath = ()
    node: Any = document.data
    for part in loc:
        if part == "[key]":
            node = path[-1]
            break
        # A part that the file does not have is the key that is missing.
        if (*path, part) in document.lines:
            path, node = (*path, part), node[part]
    if kind == "unknown_key":
        key = context["key"]
        return Problem((*path, key), "unknown key", suggest(key, context["known"]), first=True)
    if kind == "missing":
        what = "entry" if isinstance(loc[-1], int) else "key"
        return Problem((*path, loc[-1]), f"this {what} is missing")
    expected, hint = _expectation(error, node)
    found = "the key " if loc and loc[-1] == "[key]" else ""
    return Problem(path, f"found {found}{shown(node)}; {expected}", hint)


def _expectation(error: ErrorDetails, found: Any) -> tuple[str, str]:
    """Return what was expected, and a hint."""
    kind, context = error["type"], error.get("ctx", {})
    if kind == "unknown_name":
        return error["msg"], suggest(found, context["known"])
    names = str(context.get("expected", ""))
    if names:
        quoted = re.findall(r"'([^']*)'", names)
        hint = suggest(found, quoted) if quoted and isinstance(found, str) else ""
        return f"expected {names}", hint
    text = error["msg"]
    for words, ours in _WORDS.items():
        text = text.replace(words, ours)
    if found is None:
        return text, "write a value, or remove the key"
    if kind == "string_type" and isinstance(found, int | float):
        return text, "put it in quotes"
    if kind in ("int_type", "float_type") and isinstance(found, str):
        number = isinstance(_plain(found), int | float)
        return text, "remove the quotes" if number else "write plain digits, such as 16 or 903.506"
    return text, ""
