"""The text of a deployment guide: its lines, tables and commands, each with its line number.

Markdown as people write it, read with patterns: a table needs its row of dashes, or is HTML's, or
stands in columns; a command may go on after a backslash. Nothing here knows what a figure means.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.base.errors import CatalogError, on_disk

MAX_BYTES = 1 << 20  # a guide has 10 kB
_DASHES = re.compile(r"\s*\|?(\s*:?-+:?\s*\|)*\s*:?-+:?\s*\|?\s*")
_BAR = re.compile(r"(?<!\\)\|")
_LINK = re.compile(r"!?\[([^]]*)\]\([^)]*\)")
_TAG = re.compile(r"<[^>]{0,300}>")
_ROW = re.compile(r"<tr\b[^>]*>(.*?)</tr>", re.DOTALL | re.IGNORECASE)
_CELL = re.compile(r"<t[hd]\b([^>]*)>(.*?)</t[hd]>", re.DOTALL | re.IGNORECASE)
_SPAN = re.compile(r"rowspan\s*=\s*\"?(\d{1,3})", re.IGNORECASE)
_COLUMNS = re.compile(r"\s*\S+\s{2,}.*Acc@1\b.*")  # a table of Acc@1 and Acc@5 without bars


@dataclass(frozen=True)
class Row:
    """A row of a table: its line number, from 1, and the text of its cells."""

    line: int
    cells: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """`header` and `rows`; `heading` is that of the section it stands in."""

    header: tuple[str, ...]
    rows: tuple[Row, ...]
    heading: str


@dataclass(frozen=True)
class Guide:
    """A guide's lines; the first has the number 1."""

    lines: tuple[str, ...]

    def origin(self, line: int) -> str:
        """Return a line with its number, as a source of a value."""
        return f"line {line}: {self.lines[line - 1].strip()}"

    def find(self, pattern: str) -> tuple[int, re.Match[str]] | None:
        """Return the first line in which a pattern is found, case ignored, and the match."""
        return next(self.find_all(pattern), None)

    def find_all(self, pattern: str) -> Iterator[tuple[int, re.Match[str]]]:
        """Yield each match with its line number."""
        compiled = re.compile(pattern, re.IGNORECASE)
        for number, line in enumerate(self.lines, 1):
            for match in compiled.finditer(line):
                yield number, match

    def tables(self) -> tuple[Table, ...]:
        """Return every table, in the order of the file."""
        found = [*self._bars(), *self._html(), *self._spaced()]
        return tuple(sorted(found, key=lambda table: table.rows[0].line))

    def command(self, name: str) -> tuple[int, tuple[tuple[str, str], ...]] | None:
        """Return the first command line of a tool: its line, and its flags with their values."""
        pattern = re.compile(rf"[\s`$#]*{re.escape(name)}(\s+--?\w.*|\s*\\\s*)")
        for number, line in enumerate(self.lines, 1):
            if pattern.fullmatch(line):
                return number, _flags(self._joined(number))
        return None

    def _joined(self, number: int) -> str:
        """Return a command with the lines that continue it."""
        text = self.lines[number - 1].strip()
        for line in self.lines[number : number + 20]:
            goes_on = text.endswith("\\") or line.strip().startswith("--")
            if not goes_on or not line.strip().startswith("-"):
                break
            text = f"{text.rstrip(chr(92))} {line.strip()}"
        return text.rstrip("\\")

    def _heading(self, number: int) -> str:
        above = (line.strip() for line in reversed(self.lines[: number - 1]))
        return next((line for line in above if re.match(r"#{1,6}\s", line)), "")

    def _bars(self) -> Iterator[Table]:
        lines = self.lines
        for at in range(1, len(lines)):
            if "|" not in lines[at] or not _DASHES.fullmatch(lines[at]) or "|" not in lines[at - 1]:
                continue
            rows = []
            for number in range(at + 2, len(lines) + 1):
                if "|" not in lines[number - 1]:
                    break
                if number < len(lines) and _DASHES.fullmatch(lines[number]):
                    break  # the header of the next table
                rows.append(Row(number, _cells(lines[number - 1])))
            if rows:
                yield Table(_cells(lines[at - 1]), tuple(rows), self._heading(at))

    def _html(self) -> Iterator[Table]:
        text = "\n".join(self.lines)
        for table in re.finditer(r"<table\b.*?</table>", text, re.DOTALL | re.IGNORECASE):
            rows: list[Row] = []
            held: dict[int, tuple[int, str]] = {}  # column -> rows that its cell still spans
            for row in _ROW.finditer(table[0]):
                given = [(m[1], plain(m[2])) for m in _CELL.finditer(row[1])]
                line = text.count("\n", 0, table.start() + row.start()) + 1
                if cells := _spanned(given, held):
                    rows.append(Row(line, cells))
            if len(rows) > 1:
                yield Table(rows[0].cells, tuple(rows[1:]), self._heading(rows[0].line))

    def _spaced(self) -> Iterator[Table]:
        for number, line in enumerate(self.lines[:-1], 1):
            if "|" not in line and _COLUMNS.fullmatch(line):
                header, cells = (tuple(self.lines[n].split()) for n in (number - 1, number))
                if len(header) == len(cells):
                    yield Table(header, (Row(number + 1, cells),), self._heading(number))


def read_guide(path: Path) -> Guide:
    """Read a guide. Raises `CatalogError`: the file cannot be read, or is no text of a guide's
    size.
    """
    with on_disk(CatalogError, f"{path}: cannot be read", "see to its permissions"):
        if not path.is_file():
            raise CatalogError(f"{path}: there is no such file", remedy="name a guide's README.md")
        with path.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES or b"\0" in content:
        raise CatalogError(f"{path}: this is no guide", remedy="name a README.md")
    text = content.decode("utf-8-sig", "replace").replace("\r\n", "\n").replace("\r", "\n")
    return Guide(tuple(text.split("\n")))


def plain(text: str) -> str:
    """Return the text of a cell: links by their text, without tags and emphasis."""
    return _TAG.sub(" ", _LINK.sub(r"\1", text)).replace("**", "").replace("\\_", "_").strip(" `")


def _cells(line: str) -> tuple[str, ...]:
    stripped = line.strip()
    body = stripped.removeprefix("|")
    return tuple(plain(cell) for cell in _BAR.split(body.removesuffix("|")))


def _spanned(given: Sequence[tuple[str, str]], held: dict[int, tuple[int, str]]) -> tuple[str, ...]:
    """Return the cells of one row of HTML, with those of rows above that reach into it."""
    cells: list[str] = []
    waiting = list(given)
    while waiting or len(cells) in held:
        column = len(cells)
        if column in held:
            left, text = held.pop(column)
        else:
            attributes, text = waiting.pop(0)
            span = _SPAN.search(attributes)
            left = int(span[1]) if span else 1
        if left > 1:
            held[column] = (left - 1, text)
        cells.append(text)
    return tuple(cells)


def _flags(command: str) -> tuple[tuple[str, str], ...]:
    """Return the flags of a command line, `--name=value` and `--name value` alike."""
    # A closing quote that the next flag follows at once, and `{batch size}`, would be one word.
    text = re.sub(r"\"(?=--)", '" ', command.replace("{batch size}", "{batch_size}"))
    try:
        words = shlex.split(text, posix=True)
    except ValueError:  # a quote that is not closed
        words = text.replace('"', "").split()
    flags: list[tuple[str, str]] = []
    for word in words[1:]:
        if word.startswith("--"):
            name, _, value = word.partition("=")
            flags.append((name, value))
        elif flags and not flags[-1][1] and word != "\\":
            flags[-1] = (flags[-1][0], word)
    return tuple(flags)
