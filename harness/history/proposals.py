"""Baselines from measurement: what runs propose for `baselines.yaml`, and how a run compares.

`propose` writes a unified diff for a person to read, never the catalog itself. A figure that is
there is never overwritten: a lower one becomes a table of its own that judges from then on, and the
old one stays, recorded, with its own source beside it. The text is edited by the lines that
`yaml_document` gives, so that comments and order stay; the patched file must load, and must say
what the old one said but for what was proposed.

`check` holds a run against the recorded figures and against the runs before it, so that a slow
decline is seen while the floor stays where it is.
"""

from __future__ import annotations

import difflib
import json
import math
import re
import statistics
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

from harness.base.errors import CatalogError, ConfigError, RecordError, some
from harness.base.terms import Outcome
from harness.catalog.load import load_catalog, parse_catalog
from harness.catalog.schema import Baseline, Catalog, Model, Tuning
from harness.catalog.yaml_document import Document, KeyPath, read_document
from harness.history import drift, series
from harness.history.store import (
    chip_of,
    moment_of,
    open_history,
    toolchain_of,
    trouble_of,
)
from harness.judge.causes import GIVEN_FILE
from harness.judge.verdicts import FIDELITY_BOUND
from harness.records import reader
from harness.records.lines import CaseLine
from harness.records.reader import RunRecords

_TUNINGS: tuple[str, ...] = get_args(Tuning)
_METHODS = ("pure-inference", "whole-dataset")
_CHIP_DECIMALS = 3  # as the guides print them
_WIDTH = 100
_RUNS_NAMED = 12
_LONGEST_NOTE = 1900  # the catalog takes 2,000 characters


@dataclass(frozen=True)
class Sample:
    """One usable throughput of one run. `fps` is one chip's."""

    run: str
    started: str
    hostname: str
    git: str
    fps: float
    executions: int
    half_width_percent: float
    toolchain: str
    method: str
    tuning: str
    card: str
    chips: int


@dataclass(frozen=True)
class Proposal:
    """One figure for the catalog. `old` is the one that it would take the place of."""

    model: str
    target: str
    chip: str
    batch_size: int
    samples: tuple[Sample, ...]
    old: Baseline | None
    judged: bool

    @property
    def chip_fps(self) -> float:
        """The median of the runs, in frames a second of one chip."""
        return round(statistics.median(s.fps for s in self.samples), _CHIP_DECIMALS)

    @property
    def unit(self) -> str:
        """As the figure that it would take the place of; otherwise a chip's, which was measured."""
        return self.old.unit if self.old else "chip"

    @property
    def factor(self) -> int:
        """Chips that the figure adds up."""
        return self.old.factor if self.old else 1

    @property
    def fps(self) -> float:
        """Frames a second of one `unit`."""
        return round(self.chip_fps * self.factor, _CHIP_DECIMALS)

    @property
    def spread_percent(self) -> float | None:
        """From the lowest to the highest run, in percent of the median; None for a single run."""
        values = [sample.fps for sample in self.samples]
        if len(values) < 2:
            return None
        return 100.0 * (max(values) - min(values)) / statistics.median(values)

    @property
    def where(self) -> str:
        """`resnest50, batch 4, Ascend310P3`."""
        return f"{self.model}, batch {self.batch_size}, {self.chip}"

    def note(self) -> str:
        """What a reviewer must know, and what stays beside the figure."""
        n = len(self.samples)
        spread = self.spread_percent
        width = max(sample.half_width_percent for sample in self.samples)
        known = (
            f"{spread:.2g} % from the lowest to the highest"
            if spread is not None
            else f"known to ±{width:.2g} %, spread between runs unknown"
        )
        executions = sum(sample.executions for sample in self.samples)
        before = f"; {self.old.fps:.10g} fps ({self.old.source}) before" if self.old else ""
        return (
            f"Batch {self.batch_size}: median of {n} {'run' if n == 1 else 'runs'}, "
            f"{executions:,} executions, {known}{before}."
        )


@dataclass(frozen=True)
class Proposed:
    """What runs propose. `patch` is empty when they propose nothing; `left`: case -> why not."""

    patch: str
    text: str
    proposals: tuple[Proposal, ...]
    left: tuple[tuple[str, str], ...]

    @property
    def warning(self) -> str:
        """What to do before the patch is applied; empty where it proposes nothing that judges."""
        if not any(one.judged for one in self.proposals):
            return ""
        return (
            "each figure is the median of the runs: a floor that half of all equal runs miss. Set "
            "tolerance_percent in the patch before you apply it"
        )


# --- Measurements -> proposals --------------------------------------------------------------


def propose(runs: Sequence[Path], catalog_path: Path, *, lower: bool = False) -> Proposed:
    """What the throughput figures of real runs propose for a catalog.

    Args:
        lower: also propose figures that are lower than the judged ones.

    Raises:
        RecordError: a run cannot be read.
        ConfigError: a run is a rehearsal or a simulation, or runs of different toolchains are
            given together.
        CatalogError: the catalog is not valid, or is written in a style that is not edited.
    """
    load_catalog(catalog_path)  # refuses what must not be read at all
    content = catalog_path.read_bytes()
    catalog = parse_catalog(content, catalog_path)
    read = [reader.read(run) for run in _distinct(runs)]
    _refuse_what_is_not_real(read)
    left: dict[str, str] = {}
    grouped: dict[tuple[str, str, str, int], dict[str, Sample]] = {}
    for run in read:
        for case in run.cases:
            if case.check != "throughput":
                continue
            sample = _sample(run, case)
            if isinstance(sample, str):
                left.setdefault(case.case, sample)
                continue
            key = (case.model, case.target, chip_of(case.measurement, case.device), case.batch_size)
            grouped.setdefault(key, {}).setdefault(sample.run, sample)
    proposals = []
    for key, samples in sorted(grouped.items()):
        found = _proposal(catalog, key, tuple(samples.values()), lower)
        if isinstance(found, Proposal):
            proposals.append(found)
        else:
            left[f"{key[0]}-bs{key[3]}-{key[1]} ({key[2]})"] = found
    text = _patched(content, catalog, proposals)
    return Proposed(
        _diff(content.decode(), text, catalog_path),
        text,
        tuple(proposals),
        tuple(sorted(left.items())),
    )


def _distinct(runs: Sequence[Path]) -> list[Path]:
    return list(dict.fromkeys((run.parent if run.is_file() else run).resolve() for run in runs))


def _refuse_what_is_not_real(read: Sequence[RunRecords]) -> None:
    for run in read:
        if run.run is None:
            raise RecordError(
                f"{run.directory}: the records have no run line, so nothing says what made them",
                remedy="leave this run out",
            )
        kinds = {run.run.provenance, *(case.provenance for case in run.cases)}
        if kinds != {"real"}:
            odd = ", ".join(sorted(kinds - {"real"}))
            raise ConfigError(
                f"{run.directory} is not a real run ({odd}): it says nothing about a baseline",
                remedy="name runs of real weights on a real device",
            )


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _positive(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 < value < 1e9 else None


def _of_any_network(run: RunRecords, case: CaseLine) -> bool:
    """Whether `--onnx` gave the model's file; a merged run may not keep its parts' settings."""
    given = _mapping(run.run.settings.get("onnx")) if run.run else {}
    return case.model in given or str(case.checkpoint.get("source")).startswith(GIVEN_FILE)


def _sample(run: RunRecords, case: CaseLine) -> Sample | str:
    """The figure of a case, or why it is none to build on."""
    measurement = case.measurement
    if case.outcome not in series.COUNTED:
        return f"{case.outcome.replace('_', ' ')}: nothing to build on"
    if _of_any_network(run, case):
        return "network and weights not verified: --onnx gave the file, which may be any network"
    fps = _positive(measurement.get("fps"))
    width = _positive(measurement.get("half_width_percent"))
    if fps is None or width is None:
        return "the record has no throughput with its precision"
    if measurement.get("precision_reached") is not True:
        return "the precision asked for was not reached"
    if measurement.get("problems"):
        return "the measurement had problems: the speed of a wrong model counts for nothing"
    # Infinity and NaN are null in a record: they are no distance that is small enough either.
    check = _mapping(measurement.get("outputs_check"))
    outputs = check.get("relative_l2")
    if isinstance(outputs, bool) or not isinstance(outputs, int | float):
        return "its outputs were not compared with the ONNX model's, or could not be"
    if not outputs <= (_positive(check.get("bound")) or FIDELITY_BOUND):
        return "its outputs are not the ONNX model's: the speed of a wrong model counts for nothing"
    trouble = trouble_of(measurement)
    if trouble:
        return f"the device was {trouble}"
    if not chip_of(case.measurement, case.device):
        return "the record does not name the chip"
    setup = _mapping(measurement.get("setup"))
    versions = {**(run.run.versions if run.run else {}), **case.versions}
    toolchain = toolchain_of(case.target, measurement, versions)
    if not toolchain:
        return "the record does not name the toolchain"
    tuning = str(setup.get("tuning") or "none")
    method = str(setup.get("method") or "pure-inference")
    if tuning not in _TUNINGS or method not in _METHODS:
        return f"the catalog has no word for its method {method!r} with tuning {tuning!r}"
    chips = setup.get("chips")
    loops = measurement.get("loops")
    return Sample(
        run=case.run,
        started=case.started or (run.run.started if run.run else ""),
        hostname=case.machine.hostname,
        git=run.run.git if run.run else "",
        fps=fps,
        executions=loops if type(loops) is int else 0,
        half_width_percent=width,
        toolchain=toolchain,
        method=method,
        tuning=tuning,
        card=str(setup.get("card") or "") or "not stated",
        chips=chips if type(chips) is int and 1 <= chips <= 64 else 1,
    )


def _proposal(
    catalog: Catalog,
    key: tuple[str, str, str, int],
    samples: tuple[Sample, ...],
    lower: bool,
) -> Proposal | str:
    """A proposal for one (model, target, chip, batch size), or why there is none."""
    name, target, chip, batch_size = key
    model = catalog.models.get(name)
    if model is None:
        return "the catalog has no such model"
    for what in ("toolchain", "method", "tuning", "card"):
        values = sorted({getattr(sample, what) for sample in samples})
        if len(values) > 1:
            raise ConfigError(
                f"{name}, batch {batch_size}, {chip}: the runs differ in their {what} "
                f"({some(values)})",
                remedy="propose from runs that were made alike",
            )
    own = [
        figure
        for figure in model.figures(target)
        if figure.batch_size == batch_size and figure.is_of(chip)
    ]
    judging = next((f for f in model.figures(target) if f.batch_size == batch_size and f.judged),
                   None)  # fmt: skip
    if not own:
        # Another chip's figure may judge this target's batch size already: one at most may.
        return Proposal(name, target, chip, batch_size, samples, None, judging is None)
    old = next((figure for figure in own if figure.judged), None)
    if old is None:
        return "has a figure that is recorded, not judged"
    found = Proposal(name, target, chip, batch_size, samples, old, True)
    if found.fps >= old.fps:
        return (
            f"has a figure, {old.fps:.10g} fps ({old.source}), that is not above what was measured"
        )
    if not lower:
        return (
            f"has a figure, {old.fps:.10g} fps ({old.source}), above the measured "
            f"{found.fps:.10g}: --lower proposes the lower one"
        )
    if old.method not in ("not-stated", samples[0].method):
        return (
            f"has a figure measured {old.method}, these runs are {samples[0].method}: not "
            "comparable, so not lowered"
        )
    if old.tuning not in ("not-stated", samples[0].tuning):
        return (
            f"has a figure with tuning {old.tuning}, these runs have {samples[0].tuning}: not "
            "comparable, so not lowered"
        )
    return found


# --- Proposals -> text ----------------------------------------------------------------------


@dataclass(frozen=True)
class _Edit:
    """Lines that stand after line `after` (from 1), or in place of it."""

    after: int
    lines: tuple[str, ...]
    replaces: bool = False


def _patched(content: bytes, catalog: Catalog, proposals: Sequence[Proposal]) -> str:
    """The catalog's text with the proposals in it, checked."""
    text = content.decode()
    if not proposals:
        return text
    newline = "\r\n" if "\r\n" in text else "\n"
    bare = text.replace("\r\n", "\n")
    if re.search("[\r\x85\u2028\u2029]", bare):
        # YAML counts these as ends of lines, nobody else does.
        raise _unsafe(catalog, "it has line separators other than line feeds")
    lines = bare.split("\n")
    if lines[-1] == "":
        lines.pop()
    document = read_document(content, expected="a catalog")
    layout = _Layout(document, lines, catalog.path)
    source = _source_name(catalog, proposals)
    edits = [layout.source_edit(source, proposals)]
    for name in dict.fromkeys(one.model for one in proposals):
        ours = [one for one in proposals if one.model == name]
        edits += layout.model_edits(catalog.models[name], ours, source)
    # From the end, so that earlier lines keep their numbers; of two at one place, the later first.
    order = sorted(range(len(edits)), key=lambda index: (edits[index].after, index), reverse=True)
    for edit in (edits[index] for index in order):
        start = edit.after - 1 if edit.replaces else edit.after
        lines[start : edit.after] = edit.lines
    new = newline.join(lines) + newline
    _verify(catalog, new, proposals, source)
    return new


def _source_name(catalog: Catalog, proposals: Sequence[Proposal]) -> str:
    newest = max(sample.started for one in proposals for sample in one.samples)[:10]
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", newest):
        newest = datetime.now(UTC).strftime("%Y-%m-%d")
    name = f"measured-{newest}"
    number = 1
    while name in catalog.sources:
        number += 1
        name = f"measured-{newest}-{number}"
    return name


class _Layout:
    """Where things stand in the text. All that is not understood ends in an error, not a guess."""

    def __init__(self, document: Document, lines: list[str], path: Path) -> None:
        self.document, self.lines, self.path = document, lines, path

    def _refuse(self, key: KeyPath, why: str) -> CatalogError:
        return CatalogError(
            f"{self.path}:{self.document.line(key)}: {self.document.written(key)} {why}",
            remedy="write it in lines of its own, as the other models do, and propose again",
        )

    def indent(self, key: KeyPath) -> int:
        """Spaces before a key that begins its line, or before the `- ` of a list's entry."""
        line = self.lines[self.document.line(key) - 1]
        bare = line.lstrip(" ")
        last = key[-1]
        first = "- " if key[:-1] in self.document.lists else str(last)
        if not bare.lstrip("\"'").startswith(first):
            raise self._refuse(key, "does not begin its line")
        return len(line) - len(bare)

    def end(self, key: KeyPath, inner: int) -> int:
        """The last line of a section whose own lines are indented by at least `inner`."""
        begin = self.document.line(key)
        after = min(
            (
                line
                for path, line in self.document.lines.items()
                if line > begin and path[: len(key)] != key
            ),
            default=len(self.lines) + 1,
        )
        last = after - 1
        while last > begin:
            line = self.lines[last - 1]
            bare = line.lstrip(" ")
            # A comment that is indented less belongs to what follows; deeper, it may be text.
            outer = bare.startswith("#") and len(line) - len(bare) < inner
            if bare.strip() and not outer and bare.rstrip() not in ("---", "..."):
                break
            last -= 1
        return last

    def source_edit(self, name: str, proposals: Sequence[Proposal]) -> _Edit:
        """The entry under `sources` that the new tables name."""
        first = next(iter(self.document.data["sources"]))
        indent = self.indent(("sources", first))
        if not indent:
            raise self._refuse(("sources",), "is not indented")
        samples = {sample.run: sample for one in proposals for sample in one.samples}
        hosts = sorted({sample.hostname for sample in samples.values() if sample.hostname})
        gits = sorted({sample.git for sample in samples.values() if sample.git})
        where = f"runs {some(sorted(samples), _RUNS_NAMED)}"
        where += f"; on {some(hosts)}" if hosts else ""
        where += f"; harness at {some(gits)}" if gits else ""
        pad = " " * indent
        return _Edit(
            self.end(("sources",), indent),
            (
                f"{pad}{name}:",
                f"{pad}  title: Measured by this harness, {name.removeprefix('measured-')[:10]}",
                f"{pad}  where: {_scalar(where[:480])}",
            ),
        )

    def model_edits(self, model: Model, proposals: Sequence[Proposal], source: str) -> list[_Edit]:
        """The new tables of a model, and `judged` of those whose figures no longer judge."""
        base: KeyPath = ("models", model.id)
        here: KeyPath = (*base, "throughput")
        edits = self._unjudged(model, here, proposals)
        new = [line for group in _tables(proposals) for line in _table_lines(group, source)]
        if model.throughput:
            dash = self.indent((*here, 0))
            after = self.end(here, dash + 2)
            edits.append(_Edit(after, tuple(" " * dash + line for line in new)))
            return edits
        indent = self.indent((*base, next(iter(self.document.data["models"][model.id]))))
        if here in self.document.lines:  # `throughput: []`
            number = self.document.line(here)
            if not re.fullmatch(r"\s*throughput:\s*\[\s*\]\s*(#.*)?", self.lines[number - 1]):
                raise self._refuse(here, "is empty in a way that is not edited")
            edits.append(_Edit(number, self._block(indent, new), replaces=True))
        else:
            edits.append(_Edit(self.end(base, indent), self._block(indent, new)))
        return edits

    @staticmethod
    def _block(indent: int, lines: Sequence[str]) -> tuple[str, ...]:
        pad = " " * indent
        return (f"{pad}throughput:", *(f"{pad}  {line}" for line in lines))

    def _unjudged(self, model: Model, here: KeyPath, proposals: Sequence[Proposal]) -> list[_Edit]:
        edits = []
        for index, table in enumerate(model.throughput):
            lowered = {
                one.batch_size
                for one in proposals
                if one.old is not None
                and table.target == one.target
                and table.judges(one.batch_size)
            }
            if not lowered:
                continue
            kept = sorted(size for size in table.fps if table.judges(size) and size not in lowered)
            text = f"judged: [{', '.join(map(str, kept))}]"
            place: KeyPath = (*here, index, "judged")
            if place in self.document.lines:
                number = self.document.line(place)
                line = self.lines[number - 1]
                match = re.fullmatch(r"(\s*(?:- )?)judged:\s*\[[^\]#]*\](\s*#.*)?\s*", line)
                if match is None:
                    raise self._refuse(place, "is not a list on one line")
                edits.append(_Edit(number, (f"{match[1]}{text}{match[2] or ''}",), replaces=True))
            else:
                fps: KeyPath = (*here, index, "fps")
                line = self.lines[self.document.line(fps) - 1]
                match = re.match(r"(\s*(?:- )?)fps:", line)
                if match is None:
                    raise self._refuse(fps, "does not begin its line")
                pad = " " * len(match[1])
                edits.append(_Edit(self.end(fps, len(pad) + 1), (f"{pad}{text}",)))
        return edits


def _tables(proposals: Sequence[Proposal]) -> list[list[Proposal]]:
    """Proposals that were measured in one way share a table."""
    grouped: dict[tuple[object, ...], list[Proposal]] = {}
    for one in proposals:
        first = one.samples[0]
        key = (
            one.target, one.chip, one.unit, one.factor, one.judged, first.toolchain,
            first.method, first.tuning, first.card,
        )  # fmt: skip
        grouped.setdefault(key, []).append(one)
    return [sorted(group, key=lambda one: one.batch_size) for group in grouped.values()]


def _table_lines(group: Sequence[Proposal], source: str) -> list[str]:
    """One table of `throughput`, not indented."""
    one, made = group[0], group[0].samples[0]
    chips = one.old.chips_per_card if one.old else made.chips
    card = one.old.card if one.old and one.unit == "card" else made.card
    lines = [
        f"target: {one.target}",
        f"chip: {_scalar(one.old.chip if one.old else one.chip)}",
        f"card: {_scalar(card)}",
        f"unit: {one.unit}",
        *([f"chips_per_card: {chips}"] if chips > 1 else []),
        f"toolchain: {_scalar(made.toolchain)}",
        f"method: {made.method}",
    ]
    if made.tuning in ("none", "not-stated"):
        lines.append(f"tuning: {made.tuning}")
    else:
        lines.append(f'compiler_flags: ["--auto_tune_mode={made.tuning}"]')
        lines.append(f'tuning: "{made.tuning}"')
    lines += ["tolerance_percent: 0", f"source: {source}", "note: >-"]
    runs = sorted({sample.run for proposal in group for sample in proposal.samples})
    notes = " ".join(
        [
            *(["One chip measured, times " + str(one.factor) + "."] if one.factor > 1 else []),
            *(proposal.note() for proposal in group),
            f"Runs: {some(runs, _RUNS_NAMED)}.",
        ]
    )
    lines += [
        f"  {line}"
        for line in textwrap.wrap(
            _plain(notes)[:_LONGEST_NOTE],
            _WIDTH - 10,
            break_long_words=False,
            break_on_hyphens=False,
        )
    ]
    lines.append(_figures("fps", {p.batch_size: p.fps for p in group}))
    if one.unit == "card":
        lines.append(_figures("chip_fps", {p.batch_size: p.chip_fps for p in group}))
    if not one.judged:
        lines.append("judged: []")
    return [f"- {lines[0]}", *(f"  {line}" for line in lines[1:])]


def _figures(key: str, values: Mapping[int, float]) -> str:
    return f"{key}: {{{', '.join(f'{size}: {value:.10g}' for size, value in values.items())}}}"


_PLAIN_SCALAR = re.compile(r"[A-Za-z][A-Za-z0-9 ._+()/-]*[A-Za-z0-9.)]")
_WORDS = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n"})


def _scalar(text: str) -> str:
    """Text as one YAML scalar: plain where every reader takes it for text, else in quotes."""
    text = _plain(text)[:199] or "not stated"
    if _PLAIN_SCALAR.fullmatch(text) and text.lower() not in _WORDS:
        return text
    return json.dumps(text, ensure_ascii=False)


def _plain(text: str) -> str:
    """One line of printable text, whatever a record held."""
    return " ".join(re.sub(r"[^\x20-\x7e\xa0-\u2027\u2030-\ud7ff]", "?", text).split())


def _verify(catalog: Catalog, text: str, proposals: Sequence[Proposal], source: str) -> None:
    """The patched text loads, and says what the old one said but for the proposals.

    Raises:
        CatalogError: it does not.
    """
    new = parse_catalog(text.encode(), catalog.path)
    wanted = {(one.model, one.target, one.batch_size, one.fps) for one in proposals}
    found = set()
    for name, model in catalog.models.items():
        old_tables, tables = model.throughput, new.models[name].throughput
        for old, table in zip(old_tables, tables, strict=False):
            if old.model_copy(update={"judged": None}) != table.model_copy(update={"judged": None}):
                raise _unsafe(catalog, f"a table of {name} would change")
        for table in tables[len(old_tables) :]:
            found |= {(name, table.target, size, fps) for size, fps in table.fps.items()}
        rest = new.models[name].model_copy(update={"throughput": model.throughput})
        if rest != model or len(tables) < len(old_tables):
            raise _unsafe(catalog, f"{name} would change")
        for before in model.figures():
            after = next(f for f in new.models[name].figures() if _is(before, f))
            lowered = any(
                one.old is not None and _is(one.old, before) and one.model == name
                for one in proposals
            )
            if after.judged != (before.judged and not lowered):
                raise _unsafe(catalog, f"another figure of {name} would be judged")
    sources = {key: value for key, value in new.sources.items() if key != source}
    if found != wanted or sources != catalog.sources or new.models.keys() != catalog.models.keys():
        raise _unsafe(catalog, "it would not say what is proposed")
    if new.known_failures != catalog.known_failures:
        raise _unsafe(catalog, "the known failures would change")


def _is(one: Baseline, other: Baseline) -> bool:
    """Whether two figures are the same entry; whether it judges may differ."""
    names = ("target", "batch_size", "fps", "source", "chip", "toolchain", "method", "tuning")
    return all(getattr(one, name) == getattr(other, name) for name in names)


def _unsafe(catalog: Catalog, why: str) -> CatalogError:
    return CatalogError(
        f"{catalog.path} cannot be patched safely: {why}",
        remedy="write the tables in lines of their own, as the other models do",
    )


def _diff(old: str, new: str, path: Path) -> str:
    """A unified diff that `git apply` and `patch -p1` take."""
    name = path.name
    # On line feeds alone: other ends of lines are parts of a line to patch.
    before, after = (re.findall(r"[^\n]*\n|[^\n]+", text) for text in (old, new))
    return "".join(
        line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"
        for line in difflib.unified_diff(before, after, f"a/{name}", f"b/{name}")
    )


# --- A run against figures and history -------------------------------------------------------


State = Literal["falls", "low", "failed", "undecided", "new", "ok"]


@dataclass(frozen=True)
class Compared:
    """One case of a run against its recorded figure and the runs before it.

    `before`: the median of those runs; `change_percent`: from it. `low`: below the floor.
    `trouble`: what speaks against the measurement.
    """

    case: str
    check: str
    unit: str
    measured: float
    floor: series.Floor | None
    low: bool
    runs: int
    before: float | None
    change_percent: float | None
    decline: drift.Change | None
    meanwhile: tuple[str, ...]
    outcome: Outcome
    trouble: str

    @property
    def bad(self) -> bool:
        """Whether it fails the check."""
        return self.low or self.decline is not None

    @property
    def state(self) -> State:
        """What is to be said of it in a word; only `ok` says that it was held against anything
        and is none the worse.
        """
        if self.bad:
            return "falls" if self.decline is not None else "low"
        if self.outcome == "inconclusive":
            return "undecided"
        if self.outcome not in ("passed", "recorded"):
            return "failed"
        if self.trouble:
            return "undecided"
        return "ok" if self.floor is not None or self.runs else "new"

    @property
    def sentence(self) -> str:
        """What is to be said of it; empty when nothing is."""
        said = []
        if self.state == "failed":
            known = ", as is known" if self.outcome == "known_failure" else ""
            said.append(f"the case failed{known}: its figure is not judged")
        elif self.state == "undecided":
            why = f" ({self.trouble})" if self.trouble else ""
            said.append(f"the case is undecided{why}: its figure is not judged")
        elif self.state == "new":
            said.append("no floor, and no run before it")
        elif not self.runs and not self.bad:
            said.append("no run before it")
        if self.decline is not None:
            said.append(self.decline.sentence)
        if self.low and self.floor is not None:
            said.append(f"below the floor of {self.floor.value:.10g} {self.unit}")
        said += [f"meanwhile {text}" for text in self.meanwhile]
        return "; ".join(said)


def check(
    run: Path, runs: Path, catalog: Catalog | None = None, *, last: int = drift.REACH
) -> list[Compared]:
    """Every measured case of a run against the catalog and the `last` runs before it.

    Args:
        runs: the folder whose history to use; the run itself need not lie in it.

    Raises:
        RecordError: the run or the history cannot be read.
    """
    found = reader.read(run)
    kind = found.run.provenance if found.run else "real"
    with open_history(runs) as history:
        known = {one.key: one for one in series.load(history, kind, catalog=catalog)}
    compared = []
    for case in found.cases:
        if case.measured is None or case.provenance != kind:
            continue
        key = series.key_of(case, kind)
        compared.append(_compared(case, key, known.get(key), catalog, last))
    return compared


def _compared(
    case: CaseLine,
    key: series.Key,
    known: series.Series | None,
    catalog: Catalog | None,
    last: int,
) -> Compared:
    assert case.measured is not None
    moment = moment_of(case.started)
    until = math.inf if moment is None else moment
    earlier = [
        point
        for point in (known.counted if known else ())
        if point.run != case.run and point.moment < until
    ][-last:]
    values = [point.value for point in earlier]
    trouble = trouble_of(case.measurement)
    counted = case.outcome in series.COUNTED and not trouble
    change = drift.decline([*values, case.measured], case.check) if counted else None
    before = statistics.median(values) if values else None
    floor = series.floor_of(key, catalog)
    meanwhile: list[str] = []
    if change is not None and known is not None:
        begin = earlier[1 - change.runs].moment  # of the first run that the rule looked at
        for mark in known.marks:
            point = known.points[mark.index]
            if begin < point.moment <= until:
                meanwhile += [f"{point.started[:10]} {text}" for text in mark.texts]
    return Compared(
        case=case.case,
        check=case.check,
        unit=case.unit,
        measured=case.measured,
        floor=floor,
        low=counted and floor is not None and case.measured < floor.value * (1.0 - 1e-12),
        runs=len(values),
        before=before,
        change_percent=100.0 * (case.measured / before - 1.0) if before else None,
        decline=change,
        meanwhile=tuple(meanwhile[:6]),
        outcome=case.outcome,
        trouble=trouble,
    )
