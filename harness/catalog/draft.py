"""A guide -> a block of the catalog: what it says with its lines, and blanks for the rest.

Nothing is guessed. A value that the guide or a script beside it states carries the line; whatever
else a catalog needs is a blank, which loading refuses until somebody has filled it in.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from harness.catalog.figures import Accuracy, Figures, Throughput, read_figures, target_of
from harness.catalog.guide import Guide, plain, read_guide
from harness.catalog.scripts import network_of, propose
from harness.catalog.written import Cited, Digits, blank, written

_WEIGHTS = r"\.(?:pth\.tar|pth|pyth|pt|pkl|ckpt|safetensors|tar)"
_TITLE = re.compile(
    r"^#+|[-_ ]*(?:Onnx|PyTorch)?\s*(?:模型)?[-_ ]*(?:端到端)?(?:离线)?推理(?:指导|说明).*$"
    r"|\s+(?:inference guide|for pytorch).*$",
    re.I,
)
# The harness sets these itself, or they are said elsewhere in the block.
_USUAL = ("framework", "model", "output", "input_format", "input_shape", "input-shape", "log")
_USUAL_FLAGS = tuple(f"--{name}" for name in (*_USUAL, "soc_version"))
_TOOL = r"\b(ais_bench|ais_infer|benchmark)(?=[ .\w/]*\s.*?(?:--?loop|-round)[= ]+(\d+))"


def draft_guide(readme: Path, *, where: str = "", date: str = "", name: str = "") -> str:
    """Return the catalog, as YAML, of the guide in a file.

    where: repository, path and commit of the guide. name: the id of the model, by default the
    folder's. Raises `CatalogError`: the file cannot be read.
    """
    guide = read_guide(readme)
    folder = readme.resolve().parent
    known = name or re.sub(r"[^a-z0-9]+", "_", folder.name.lower()).strip("_")[:64] or "model"
    source = f"{known.replace('_', '-')}-guide"[-64:].lstrip("-")
    title = _title(guide)
    block = {
        "version": 1,
        "sources": {source: _source(title.value, where, date)},
        "models": {known: _model(guide, folder, source, title)},
    }
    return f"# Drafted from a guide: fill in each blank, and check the rest.\n{written(block)}"


def _title(guide: Guide) -> Cited:
    found = guide.find(r"^#\s+\S.*")
    stated = " ".join(found[1][0][:200].split()) if found else ""
    text = plain(_TITLE.sub("", _TITLE.sub("", stated)).strip())
    return Cited(text, guide.origin(found[0])) if found and text else blank("a title")


def _source(title: Any, where: str, date: str) -> dict[str, Any]:
    of = f"{title}, README" if isinstance(title, str) else blank("a title")
    place = where or blank("repository, path and commit of this guide")
    return {"title": of, "where": place, **({"date": date} if date else {})}


def _model(guide: Guide, folder: Path, source: str, title: Cited) -> dict[str, Any]:
    figures = read_figures(guide)
    command = guide.command("atc")
    flags = [
        f"{name}={value}" if value else name
        for name, value in (command[1] if command else ())
        if name not in _USUAL_FLAGS and "$" not in value
    ]
    aipp = any(flag.startswith("--insert_op_conf") for flag in flags)
    cited = Cited(flags, guide.origin(command[0])) if command else blank("flags of atc")
    tensors = _tensors(guide)
    width = tensors["classes"]
    arguments = {"arguments": {"num_classes": width}} if width.value == 1001 else {}
    model: dict[str, Any] = {
        "title": title,
        "guide": source,
        "network": {"source": network_of(folder) or blank("who builds it"), **arguments},
        "checkpoint": _checkpoint(guide),
        **tensors,
        "preprocessing": {"source": source, **propose(guide, folder)},
        "accuracy": _accuracy(guide, figures, source),
        "throughput": _tables(guide, figures, source, cited),
    }
    log = next((v for n, v in command[1] if n == "--log"), "") if command else ""
    ascend: dict[str, Any] = {"log": log} if log else {}
    if aipp:
        ascend["aipp"] = Cited(True, cited.origin)
    return {**model, **({"ascend": ascend} if ascend else {})}


def _checkpoint(guide: Guide) -> dict[str, Any]:
    block: dict[str, Any] = {"file": blank("the file of the weights")}
    link = guide.find(rf"https?://[^\s)\]\"'>]+{_WEIGHTS}(?![\w.])")
    # A command that reads the file.
    used = guide.find(rf"\S+\.py\b.*?[\s=/\"]([\w.+-]+{_WEIGHTS})(?![\w.])")
    if link:
        url = unquote(link[1][0]).partition("link?target=")[2] or link[1][0]
        origin = guide.origin(link[0])
        block = {"file": Cited(unquote(url).rsplit("/", 1)[1], origin), "url": Cited(url, origin)}
    elif used:
        block = {"file": Cited(used[1][1], guide.origin(used[0]))}
    for name, digits in (("md5", 32), ("sha256", 64)):
        pattern = rf"(?<![a-z0-9]){name}(?:sum)?\W{{1,9}}([0-9a-f]{{{digits}}})(?![0-9a-f])"
        if found := guide.find(pattern):
            block[name] = Cited(found[1][1], guide.origin(found[0]))
    file = block["file"]
    if hub := re.search(r"-([0-9a-f]{8})\.", str(file.value)):
        block["sha256_prefix"] = Cited(hub[1], f"in the file's name, {file.origin}")
    return {**block, "layout": blank("how its weights are nested and named")}


def _tensors(guide: Guide) -> dict[str, Any]:
    """Return name and size of the input, and name and width of the output; atc's command says what
    the network has, the guide's own table only what it calls them.
    """
    name, size = blank("the name of the ONNX input"), blank("its side in pixels")
    output, classes = blank("the name of the ONNX output"), blank("1000, or 1001 with a background")
    for table in guide.tables():
        row, first = table.rows[0], table.header[0]
        origin = guide.origin(row.line)
        square = _first(r"3\s*x\s*(\d+)\s*x\s*\1\s*$", row.cells)
        width = _first(r"[x,]\s*(\d{3,5})\s*$", row.cells)
        if re.search(r"输入数据|input", first, re.I) and square:
            name, size = Cited(row.cells[0], origin), Cited(int(square[1]), origin)
        elif re.search(r"输出数据|output", first, re.I):
            output = Cited(row.cells[0], origin)
            classes = Cited(int(width[1]), origin) if width and not square else classes
    if command := guide.command("atc"):
        given = [value for flag, value in command[1] if re.fullmatch("--input[_-]shape", flag)]
        if shape := _first(r"^([^:;]+):[^,]+,\s*3,\s*(\d+),\s*\2$", given):
            origin = guide.origin(command[0])
            name, size = Cited(shape[1], origin), Cited(int(shape[2]), origin)
    offset = {"label_offset": Cited(1, classes.origin)} if classes.value == 1001 else {}
    block = {"input": {"name": name, "size": size}, "output": {"name": output}}
    return {**block, "classes": classes, **offset}


def _first(pattern: str, texts: Iterable[str]) -> re.Match[str] | None:
    return next((match for text in texts if (match := re.search(pattern, text, re.I))), None)


def _accuracy(guide: Guide, figures: Figures, source: str) -> dict[str, Any]:
    own = [one for one in figures.accuracy if not one.variant]
    published = [one for one in own if one.published]
    rule = guide.find(r"(相对误差|下降|drop|error)[^|%\d]{0,30}1\s*%")
    one_sided = rule and re.search("下降|drop", rule[1][1], re.I)
    measured: dict[tuple[str, tuple[int, ...]], list[Accuracy]] = {}
    sets: dict[tuple[str, int, str], list[Accuracy]] = {}
    for one in own:
        if not one.published:
            sets.setdefault((one.chip, one.rank, one.percent), []).append(one)
    for same in sets.values():
        sizes = tuple(dict.fromkeys(size for one in same for size in one.batch_sizes))
        measured.setdefault((same[0].chip, sizes), []).append(same[0])
    return {
        "published": {
            **(_ranks(guide, published) or {"top1": blank("the figure that is the target")}),
            "source": source,
        },
        "rule": {
            "tolerance_percent": Cited(1, guide.origin(rule[0])) if rule else blank("1 is usual"),
            "side": Cited("drop" if one_sided else "both", guide.origin(rule[0]))
            if rule
            else blank("both or drop"),
            "source": source,
        },
        "guide_measured": [
            {
                "target": _target(guide, chip, chip, group[0].line),
                **_ranks(guide, group),
                "batch_sizes": list(sizes) or blank("at which batch sizes"),
                "source": source,
            }
            for (chip, sizes), group in measured.items()
        ],
    }


def _ranks(guide: Guide, group: Iterable[Accuracy]) -> dict[str, Any]:
    """Return the first figure of each rank, the lowest rank first."""
    ranks: dict[int, Accuracy] = {}
    for one in group:
        ranks.setdefault(one.rank, one)
    block: dict[str, Any] = {}
    for rank, one in sorted(ranks.items()):
        if rank:
            block[f"top{rank}"] = Cited(Digits(one.percent), guide.origin(one.line))
        else:
            block["top1"] = blank(f"top-1? {guide.origin(one.line)}")
    if block and "top1" not in block:
        block = {"top1": blank("the guide gives no top-1"), **block}
    return block


def _target(guide: Guide, chip: str, stated: str, line: int) -> Any:
    target = target_of(chip)
    origin = guide.origin(line)
    return Cited(target, origin) if target else blank(f"which target is {stated!r}? {origin}")


def _tables(guide: Guide, figures: Figures, source: str, flags: Cited) -> list[dict[str, Any]]:
    groups: dict[tuple[str, ...], list[dict[int, Throughput]]] = {}
    for one in figures.throughput:
        named = one.chip or f"not named: {one.stated}"
        key = (named, str(one.card), one.variant, str(one.chips))
        alike = groups.setdefault(key, [])
        # Another figure of the same batch size, e.g. of another model, gets a table of its own.
        rows = next((r for r in alike if r.get(one.batch_size, one).fps == one.fps), None)
        if rows is None:
            alike.append(rows := {})
        rows.setdefault(one.batch_size, one)
    judged: set[tuple[str, int]] = set()
    tables = []
    for group in (list(rows.values()) for alike in groups.values() for rows in alike):
        # One figure for a batch size: a second one is another way of measuring, for the reader.
        again = any((one.chip, one.batch_size) in judged for one in group)
        tables.append(_table(guide, group, source, flags, judged=not (again or group[0].variant)))
        judged |= {(one.chip, one.batch_size) for one in group}
    for line in figures.left_out if tables else ():
        tables[-1]["note"] = f"{tables[-1].get('note', '')} Left out: {guide.origin(line)}".strip()
    return tables


def _table(
    guide: Guide, group: list[Throughput], source: str, flags: Cited, *, judged: bool
) -> dict[str, Any]:
    first, ordered = group[0], sorted(group, key=lambda one: one.batch_size)
    at = guide.origin(first.line)
    tool = guide.find(_TOOL)
    block: dict[str, Any] = {
        "target": _target(guide, first.chip, first.stated, first.line),
        "chip": Cited(first.chip, at) if first.chip else blank("the chip"),
        "card": first.chip or "not stated",
        **_unit(guide, first, tool),
        "toolchain": "not stated",
        "method": "not-stated",
        "tuning": "not-stated",
        "source": source,
    }
    if first.chip.startswith("Ascend"):
        block |= _of_cann(guide, flags, tool)
    if first.variant:
        block["not_comparable"] = f"of the configuration {first.variant}"
    elif not judged:
        block["judged"] = []
    block["fps"] = {
        one.batch_size: Cited(Digits(one.fps), guide.origin(one.line)) for one in ordered
    }
    if first.chips > 1:
        block["chip_fps"] = {
            one.batch_size: Cited(Digits(one.chip_fps), guide.origin(one.line)) for one in ordered
        }
    return block


def _of_cann(guide: Guide, flags: Cited, tool: Any) -> dict[str, Any]:
    """Return what a figure of an Ascend chip depends on besides."""
    version = guide.find(r"\bCANN\b[\s|]*(?:版本)?[:：\s|]*(\d[\w.]+)")
    block: dict[str, Any] = {
        "card": _card(guide),
        "toolchain": "not stated",
        "method": blank("whole-dataset, pure-inference or not-stated"),
        "compiler_flags": flags,
        "tuning": blank("none, aoe, not-stated or RL,GA"),
        "note": "No loops stated.",
    }
    if version:
        block["toolchain"] = Cited(f"CANN {version[1][1]}", guide.origin(version[0]))
    if tool:
        block["method"] = Cited("pure-inference", guide.origin(tool[0]))
        block["note"] = f"{tool[1][1]} with {tool[1][2]} loops."
    if isinstance(flags.value, list):
        given = [one.partition("=")[2] for one in flags.value if one.startswith("--auto_tune_mode")]
        spoken = guide.find(r"auto_?tune|\baoe\b")
        block["tuning"] = given[0] if given else "not-stated" if spoken else "none"
    return block


def _card(guide: Guide) -> Any:
    found = guide.find(r"使用\s*(Atlas \w[\w ]*?)\s*推理卡|\b(?:on|with) an? (Atlas [\w ]+?) card")
    return Cited(found[1][1] or found[1][2], guide.origin(found[0])) if found else "not stated"


def _unit(guide: Guide, first: Throughput, tool: Any) -> Mapping[str, Any]:
    """Say whether figures are a chip's; a 310 card has four, of other cards it makes no odds."""
    if first.card:
        chips = {"chips_per_card": first.chips} if first.chips > 1 else {}
        return {"unit": Cited("card", guide.origin(first.line)), **chips}
    if first.chip == "Ascend310":
        return {"unit": blank("chip or card")}
    reason = guide.origin(tool[0]) if tool else "the guide names no card"
    return {"unit": Cited("chip", reason)}
