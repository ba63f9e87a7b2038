"""The figures of a guide: throughput and accuracy out of its tables and sentences, digit for digit.

Each form is one that a public guide has. A figure whose chip, rank or side the guide does not say
is given without it; nothing is taken for granted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from harness.base.families import available, target_name
from harness.catalog.guide import Guide, Table, plain

_CHIP = re.compile(
    r"(?<![A-Za-z0-9_.])(?:Ascend\s*)?(310(?:[BP]\d?)?|910[AB]?\d?|T4|V100|A100)(?![\d.%])", re.I
)
_BATCH = re.compile(r"\s*(batch[ _-]?size|batchs?|bs)\s*$", re.I)
_BATCH_CELL = re.compile(r"(?:bs|batch)?\s*(\d{1,4})", re.I)
_FPS = re.compile(r"性能|fps|吞吐|throughput|performance|images/s|img/s", re.I)
_ACCURACY = re.compile(r"精度|acc|top[-_ ]?[15]", re.I)
_ERROR = re.compile(r"误差|错误|提升|降低|error|diff|loss|improve", re.I)  # of two accuracies
_DEVICE = re.compile(r"(?!.*(?:性能|fps)).*(芯片|型号|chip|device|gpu|npu|硬件|hardware)", re.I)
_VARIANT = re.compile(r".*(config|配置|variant)", re.I)
_FPS_CELL = re.compile(r"(\d+(?:\.\d+)?)\s*(?:fps|张/秒|images/s)?", re.I)
_CARD = re.compile(r"/\s*card|单卡|a card", re.I)
_PROSE = re.compile(
    r"(?:(?P<one>\d+(?:\.\d+)?)\s*[x*×]\s*(?P<times>\d)\s*=\s*)?(?P<fps>\d+(?:\.\d+)?)\s*(?:fps)?"
    r"[,，。\s]*[即既]是\s*batch\s*(?P<batch>\d+)\s*(?P<chip>310\w*|T4)"
    r"|batch\s*(?P<batch2>\d+)\s*(?P<chip2>310\w*|T4)\s*单卡吞吐率\W*"
    r"(?:(?P<one2>\d+(?:\.\d+)?)\s*[x*×]\s*(?P<times2>\d)\s*=\s*)?(?P<fps2>\d+(?:\.\d+)?)",
    re.I,
)
_NUMBER = r"(\d{1,3}(?:\.\d+)?)"
_BEHIND = re.compile(rf"{_NUMBER}\s*%?\s*/\s*top[-_ ]?([1-5])", re.I)  # 79.47/Top1
_NAMED = re.compile(rf"(?:top|acc|rank)[-_ @]*([1-5])(?!\d)[^\d%]*?{_NUMBER}", re.I)
_RANK = re.compile(r"(?:top|acc|rank)[-_ @]*([1-5])(?!\d)", re.I)
_BARE = re.compile(rf"{_NUMBER}\s*%?")
_PUBLISHED = re.compile(
    r"开源|标杆|官网|官方|目标|office|official|published|reference|target|paper", re.I
)
_MEASURED = re.compile(r"NPU|310|实测|测试|指标|\bom\b|measured|离线", re.I)


@dataclass(frozen=True)
class Throughput:
    """A figure in frames a second, as the guide writes it.

    `chip`: as a catalog names it, empty where the guide does not say; `stated`: its words.
    `chip_fps`, `chips`: where a card's figure was computed from one chip's.
    """

    line: int
    chip: str
    stated: str
    batch_size: int
    fps: str
    card: bool = False
    chip_fps: str = ""
    chips: int = 1
    variant: str = ""  # of which configuration, where one table has several


@dataclass(frozen=True)
class Accuracy:
    """A figure in percent; `rank` 0 where the guide does not say of which."""

    line: int
    rank: int
    percent: str
    published: bool
    chip: str = ""
    batch_sizes: tuple[int, ...] = ()
    variant: str = ""


@dataclass(frozen=True)
class Figures:
    """All figures of a guide. `left_out`: lines that have none where one was expected, or another
    one than the tables.
    """

    throughput: tuple[Throughput, ...]
    accuracy: tuple[Accuracy, ...]
    left_out: tuple[int, ...]


def read_figures(guide: Guide) -> Figures:
    """Return every figure of a guide, in its order."""
    chips = _Chips(guide)
    left_out: list[int] = []
    throughput: list[Throughput] = []
    accuracy: list[Accuracy] = []
    for table in guide.tables():
        for one in _throughput(table, chips):
            if one.fps:
                throughput.append(one)
            else:
                left_out.append(one.line)
        accuracy += _accuracy(table, chips)
    throughput = throughput or list(_of_sentences(guide, chips))
    stated = list(_accuracy_of_sentences(guide, chips))
    sides = {one.published for one in accuracy}
    accuracy += [one for one in stated if one.published not in sides]
    left_out += _contradicting(guide, throughput)
    return Figures(tuple(throughput), tuple(accuracy), tuple(dict.fromkeys(left_out)))


class _Chips:
    """Names of chips: `310P` is the one 310P that the guide shows in full, `310P3`."""

    def __init__(self, guide: Guide) -> None:
        full = guide.find_all(r"(?<![A-Za-z0-9_.])(?:Ascend)?(310P\d)(?!\d)")
        shown = {match[1].upper() for _, match in full}
        self._full = shown.pop() if len(shown) == 1 else "310P"

    def named(self, text: str) -> str:
        """Return the chip that a text names, as `Ascend310P3`; empty where it names none."""
        match = _CHIP.search(text)
        if match is None:
            return ""
        name = match[1].upper()
        name = self._full if name == "310P" else name
        return f"Tesla {name}" if name in ("T4", "V100", "A100") else f"Ascend{name}"


def target_of(chip: str) -> str | None:
    """Return the target that a chip is, or None."""
    name = "cuda" if chip.startswith("Tesla") else target_name(chip)
    return name if name in available() else None


def _throughput(table: Table, chips: _Chips) -> Iterator[Throughput]:
    """Yield the figures of a table with a column of batch sizes; `fps` is empty where there is
    none in a cell.
    """
    header = table.header
    batch, variants = _column(header, _BATCH), _column(header, _VARIANT)
    if batch is None:
        return
    which = _column(header, _DEVICE)
    columns = [i for i, name in enumerate(header) if i != which and _is_throughput(name)]
    chip = variant = ""
    for row in table.rows:
        cells = (*row.cells, *("",) * (len(header) - len(row.cells)))
        if which is not None and cells[which].strip("- "):
            chip = cells[which]
        if variants is not None and cells[variants].strip("- "):
            variant = cells[variants]
        size = _BATCH_CELL.fullmatch(cells[batch].strip())
        if size is None:
            continue
        for column in columns:
            value = _FPS_CELL.fullmatch(cells[column].strip())
            stated = header[column] if chips.named(header[column]) else chip
            yield Throughput(
                line=row.line,
                chip=chips.named(stated),
                stated=stated,
                batch_size=int(size[1]),
                fps=value[1] if value else "",
                card=bool(_CARD.search(header[column])),
                variant=variant,
            )


def _column(header: tuple[str, ...], pattern: re.Pattern[str]) -> int | None:
    return next((i for i, name in enumerate(header) if pattern.match(name)), None)


def _is_throughput(name: str) -> bool:
    """Return whether a column has frames a second: of a chip, and not the ratio of two."""
    if _ACCURACY.search(name) or len(_CHIP.findall(name)) > 1:
        return False
    return bool(_FPS.search(name) or _CHIP.search(name))


def _of_sentences(guide: Guide, chips: _Chips) -> Iterator[Throughput]:
    """Yield figures of the form `183.263 * 4 = 733.052, 即是batch1 310单卡吞吐率`."""
    for number, line in enumerate(guide.lines, 1):
        for match in _PROSE.finditer(plain(line)):
            got = {k.rstrip("2"): v for k, v in match.groupdict().items() if v}
            yield Throughput(
                line=number,
                chip=chips.named(got["chip"]),
                stated=got["chip"],
                batch_size=int(got["batch"]),
                fps=got["fps"],
                card=bool(_CARD.search(line)),
                chip_fps=got.get("one", ""),
                chips=int(got.get("times", 1)),
            )


def _accuracy(table: Table, chips: _Chips) -> Iterator[Accuracy]:
    header = table.header
    batch, variants = _column(header, _BATCH), _column(header, _VARIANT)
    # `参考精度`, reference, is the publisher's beside one that was measured, and else the guide's.
    measured = any(_MEASURED.search(name) and _ACCURACY.search(name) for name in header)
    for row in table.rows:
        label = row.cells[0]
        size = None if batch is None or batch >= len(row.cells) else row.cells[batch]
        sizes = re.findall(r"(?:bs\s*|^)(\d{1,4})\b", f"{size or ''}\n{label}", re.I | re.M)
        chip = "" if batch is None else label
        variant = "" if variants is None else "".join(row.cells[variants : variants + 1])
        for column, cell in enumerate(row.cells):
            name = header[column] if column < len(header) else ""
            context = f"{label if column and batch is None else ''} {name}"
            if column == batch or _ERROR.search(name):
                continue
            if not (_ACCURACY.search(context) or _NAMED.search(cell)):
                continue
            published = bool(
                _PUBLISHED.search(f"{context} {table.heading}")
                or (measured and "参考" in name and not _MEASURED.search(name))
            )
            for rank, percent in _percents(cell, context):
                of = chips.named(name) or chips.named(chip or label)
                numbers = tuple(dict.fromkeys(map(int, sizes)))
                yield Accuracy(row.line, rank, percent, published, of, numbers, variant)


def _percents(cell: str, context: str) -> Iterator[tuple[int, str]]:
    """Yield rank and percent of each figure in a cell; what it is may stand in the header."""
    if behind := _BEHIND.findall(cell):
        yield from ((int(rank), percent) for percent, rank in behind)
    elif named := _NAMED.findall(cell):
        yield from ((int(rank), percent) for rank, percent in named)
    elif bare := _BARE.fullmatch(cell.strip()):
        ranks = set(_RANK.findall(context))
        yield (int(ranks.pop()) if len(ranks) == 1 else 0), bare[1]


def _accuracy_of_sentences(guide: Guide, chips: _Chips) -> Iterator[Accuracy]:
    """Yield figures of sentences, and of a script's JSON: `"key": "Top1 accuracy", "value": ..`."""
    for number, line in enumerate(guide.lines, 1):
        if "|" in line or "<t" in line:
            continue
        published = False
        for clause in re.split(r"[，。；]\s*", plain(line)):
            # `开源精度 top1: 79.0%，310精度 top1: 79.1%`; a clause that names no side goes on.
            published = bool(_PUBLISHED.search(clause)) or (
                published and not _MEASURED.search(clause)
            )
            for match in _NAMED.finditer(clause) if not _ERROR.search(clause) else ():
                if "%" in clause[match.end() : match.end() + 2] and float(match[2]) <= 100:
                    chip = "" if published else chips.named(clause)
                    yield Accuracy(number, int(match[1]), match[2], published, chip)


def _contradicting(guide: Guide, figures: Sequence[Throughput]) -> Iterator[int]:
    """Yield lines that state another throughput than the tables: `达 2736.9 fps`."""
    known = {float(one.fps) for one in figures}
    for number, match in guide.find_all(r"(\d+(?:\.\d+)?)\s*fps"):
        if "|" not in guide.lines[number - 1] and float(match[1]) not in known:
            yield number
