"""Baselines from measurement: what real runs propose for `baselines.yaml`, as YAML to paste.

The catalog is never written. A figure that is there is never raised; a lower one becomes a table
of its own, beside the old one that no longer judges. Each figure has its evidence as a comment.
"""

from __future__ import annotations

import itertools
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import yaml

from harness.base.errors import ConfigError, some
from harness.catalog.schema import Baseline, Catalog, Method, Tuning
from harness.history.index import COUNTED, chip_of, row_of, run_line
from harness.pages.formats import plural
from harness.records import reader
from harness.records.lines import CaseLine, RunLine
from harness.records.measurements import ThroughputMeasurement
from harness.records.reader import RunRecords

_CHIP_DECIMALS = 3  # as the guides print them
_NAMED = 12  # runs, hosts and revisions of a source
_LONGEST_LINE, _LONGEST_TEXT = 199, 480
MEDIAN = (
    "Each figure is the median of the runs: a floor that half of all equal runs miss. "
    "Set tolerance_percent before you paste it."
)


@dataclass(frozen=True)
class Sample:
    """One usable throughput of one run."""

    run: RunLine
    case: CaseLine
    measurement: ThroughputMeasurement

    @property
    def made_with(self) -> dict[str, str]:
        """Return what must be the same in all runs of one figure."""
        setup = self.measurement.setup
        return {
            "toolchain": _plain(setup.toolchain),
            "method": setup.method,
            "tuning": setup.tuning,
            "input": setup.input,
            "card": _plain(setup.card) or "not stated",
        }


@dataclass(frozen=True)
class Proposal:
    """One figure for the catalog. `old` is the judging one that it would take the place of."""

    model: str
    target: str
    chip: str
    batch_size: int
    samples: tuple[Sample, ...]
    old: Baseline | None
    judged: bool

    @property
    def chip_fps(self) -> float:
        """Return the median of the runs, in frames a second of one chip."""
        values = (sample.measurement.timing.fps for sample in self.samples)
        return round(statistics.median(values), _CHIP_DECIMALS)

    @property
    def unit(self) -> str:
        """As the old figure has it; otherwise a chip's, which was measured."""
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
    def evidence(self) -> str:
        """`batch 4: median of 3 runs, 1,200 executions, 0.4 % from the lowest to the highest`."""
        values = [sample.measurement.timing.fps for sample in self.samples]
        executions = sum(sample.measurement.timing.executions for sample in self.samples)
        spread = 100.0 * (max(values) - min(values)) / statistics.median(values)
        known = f"{spread:.2g} % from the lowest to the highest"
        if len(values) == 1:
            width = self.samples[0].measurement.half_width_percent
            known = f"known to ±{width:.2g} %, spread between runs unknown"
        times = f"; one chip measured, times {self.factor}" if self.factor > 1 else ""
        before = f"; {self.old.fps:.10g} fps ({self.old.source}) before" if self.old else ""
        return (
            f"batch {self.batch_size}: median of {plural(len(values), 'run')}, "
            f"{executions:,} executions, {known}{times}{before}"
        )


@dataclass(frozen=True)
class Proposed:
    """What runs propose. `text`: YAML with comments, empty for nothing; `left`: case, why not."""

    text: str
    proposals: tuple[Proposal, ...]
    left: tuple[tuple[str, str], ...]


def propose(runs: Sequence[Path], catalog: Catalog, *, lower: bool = False) -> Proposed:
    """Return what the throughput figures of real runs propose for a catalog.

    Args:
        lower: also propose figures that are lower than the judged ones.

    Raises:
        RecordError: a run cannot be read.
        ConfigError: a run is a rehearsal or a simulation, or runs of different toolchains are
            given together.
    """
    left: dict[str, str] = {}
    grouped: dict[tuple[str, str, str, int], dict[str, Sample]] = {}
    folders = dict.fromkeys((run.parent if run.is_file() else run).resolve() for run in runs)
    for records in map(reader.read, folders):
        run = _real(records)
        for case in records.cases:
            if case.check != "throughput":
                continue
            why = _unusable(records, case)
            if why or case.throughput is None:
                left.setdefault(case.case, why)
                continue
            key = (case.model, case.target, chip_of(case), case.batch_size)
            sample = Sample(run, case, case.throughput)
            grouped.setdefault(key, {}).setdefault(case.run, sample)
    proposals = []
    for key, samples in sorted(grouped.items()):
        proposal = _proposal(catalog, key, tuple(samples.values()), lower)
        if isinstance(proposal, Proposal):
            proposals.append(proposal)
        else:
            left[f"{key[0]}-bs{key[3]}-{key[1]} ({key[2]})"] = proposal
    return Proposed(_text(catalog, proposals), tuple(proposals), tuple(sorted(left.items())))


def _real(records: RunRecords) -> RunLine:
    """Return the run's line; refuse a run that is not real throughout."""
    run = run_line(records)
    kinds = {run.provenance, *(case.provenance for case in records.cases)} - {"real"}
    if kinds:
        raise ConfigError(
            f"{records.directory} is not a real run ({', '.join(sorted(kinds))}): it says nothing "
            "about a baseline",
            remedy="name runs of real weights on a real device",
        )
    return run


def _unusable(records: RunRecords, case: CaseLine) -> str:
    """Return why nothing may be built on the figure of a case; empty where it may."""
    one = case.throughput
    if case.outcome not in COUNTED or one is None:
        return f"{case.outcome.replace('_', ' ')}: nothing to build on"
    if case.checkpoint is not None and case.checkpoint.source == "onnx":
        return "network and weights not verified: --onnx gave the file, which may be any network"
    if not one.precise or one.too_short:
        return "the precision asked for was not reached"
    if one.outputs is None:
        return "its outputs were not compared with the ONNX model's"
    trouble = row_of(records, case, 0.0).trouble
    if trouble:
        return f"{', '.join(trouble)}: such a speed counts for nothing"
    if not chip_of(case) or not one.setup.toolchain:
        return "the record does not name the chip or the toolchain"
    method, tuning = one.setup.method, one.setup.tuning
    if tuning not in get_args(Tuning) or method not in get_args(Method):
        return f"the catalog has no word for its method {method!r} with tuning {tuning!r}"
    return ""


def _proposal(
    catalog: Catalog,
    key: tuple[str, str, str, int],
    samples: tuple[Sample, ...],
    lower: bool,
) -> Proposal | str:
    """Return a proposal for one (model, target, chip, batch size), or why there is none."""
    name, target, chip, batch_size = key
    model = catalog.models.get(name)
    if model is None:
        return "the catalog has no such model"
    made_with = samples[0].made_with
    for what in made_with:
        values = sorted({sample.made_with[what] for sample in samples})
        if len(values) > 1:
            raise ConfigError(
                f"{name}, batch {batch_size}, {chip}: the runs differ in their {what} "
                f"({some(values)})",
                remedy="propose from runs that were made alike",
            )
    figures = [one for one in model.figures(target) if one.batch_size == batch_size]
    own = [figure for figure in figures if figure.is_of(chip)]
    if not own:
        # Another chip's figure may judge this target's batch size already: one at most may.
        judged = not any(figure.judged for figure in figures)
        return Proposal(name, target, chip, batch_size, samples, None, judged)
    old = next((figure for figure in own if figure.judged), None)
    if old is None:
        return "has a figure that is recorded, not judged"
    proposal = Proposal(name, target, chip, batch_size, samples, old, True)
    there = f"has a figure, {old.fps:.10g} fps ({old.source})"
    if proposal.fps >= old.fps:
        return f"{there}, that is not above what was measured"
    if not lower:
        return f"{there}, above the measured {proposal.fps:.10g}: --lower proposes the lower one"
    for what, stated in (("method", old.method), ("tuning", old.tuning), ("input", old.input)):
        if stated not in ("not-stated", made_with[what]):
            return (
                f"{there} of {what} {stated}, these runs are of {made_with[what]}: not "
                "comparable, so not lowered"
            )
    return proposal


# YAML --------------------------------------------------------------------------------------------


def _yaml(data: object, indent: int, flow: bool | None = None) -> Iterable[str]:
    """Lines of YAML; unless `flow` says otherwise, what holds only scalars stands on one."""
    width = 96 - indent
    text = yaml.safe_dump(
        data, sort_keys=False, allow_unicode=True, width=width, default_flow_style=flow
    )
    return (f"{' ' * indent}{line}" for line in text.splitlines())


def _text(catalog: Catalog, proposals: Sequence[Proposal]) -> str:
    """Return the parts of a catalog that hold the proposals: a source, and tables of models."""
    if not proposals:
        return ""
    source, entry = _source(catalog, proposals)
    lines = [f"# To paste into {catalog.path.name}, each part below its key there."]
    if any(one.judged for one in proposals):
        lines.append(f"# {MEDIAN}")
    lines += ["sources:", *_yaml({source: entry}, 2, flow=False), "models:"]
    # Figures of a model that were measured in one way share a table.
    tables: dict[str, dict[tuple[object, ...], list[Proposal]]] = {}
    for one in proposals:
        made_with = one.samples[0].made_with.values()
        alike = (one.target, one.chip, one.unit, one.factor, one.judged, *made_with)
        tables.setdefault(one.model, {}).setdefault(alike, []).append(one)
    for name, groups in tables.items():
        lines += [f"  {name}:", "    throughput:"]
        for group in groups.values():
            for one in group:
                lines.append(f"      # {_plain(one.evidence)}")
                if one.old:
                    lines.append(
                        f"      # Take batch {one.batch_size} out of what the table of "
                        f"{one.old.source} judges (`judged: [...]`): only one may judge it."
                    )
            lines += _yaml([_table(group, source)], 6)
    return "\n".join(lines) + "\n"


def _source(catalog: Catalog, proposals: Sequence[Proposal]) -> tuple[str, dict[str, str]]:
    """Return name and entry of the source that the new tables name."""
    samples = [sample for one in proposals for sample in one.samples]
    day = max(sample.case.started or sample.run.started for sample in samples)[:10]
    base = f"measured-{re.sub('[^0-9-]', '', day)}"
    names = itertools.chain([base], (f"{base}-{number}" for number in itertools.count(2)))
    name = next(name for name in names if name not in catalog.sources)

    where = "; ".join(
        f"{what} {some(sorted(names), _NAMED)}"
        for what, names in (
            ("runs", {one.case.run for one in samples}),
            ("on", {one.case.machine.hostname for one in samples} - {""}),
            ("harness at", {one.run.git for one in samples} - {""}),
        )
        if names
    )
    title = _plain(f"Measured by this harness, {day}")
    return name, {"title": title, "where": _plain(where, _LONGEST_TEXT)}


def _table(group: Sequence[Proposal], source: str) -> Mapping[str, Any]:
    """Return one table of `throughput`."""
    one, setup = group[0], group[0].samples[0].measurement.setup
    made_with = one.samples[0].made_with
    chips = one.old.chips_per_card if one.old else setup.chips or 1
    note = "; ".join(proposal.evidence for proposal in group)
    table: dict[str, Any] = {
        "target": one.target,
        "chip": one.old.chip if one.old else _plain(one.chip),
        "card": one.old.card if one.old and one.unit == "card" else made_with["card"],
        "unit": one.unit,
        "toolchain": made_with["toolchain"],
        "method": made_with["method"],
        "tuning": made_with["tuning"],
        "tolerance_percent": 0,
        "source": source,
        "note": _plain(f"{note[0].upper()}{note[1:]}.", 4 * _LONGEST_TEXT),
        "fps": {proposal.batch_size: proposal.fps for proposal in group},
    }
    if chips > 1:
        table["chips_per_card"] = chips
    flags = ["--auto_tune_mode=RL,GA"] if setup.tuning == "RL,GA" else []
    flags += ["--insert_op_conf=aipp.config"] if setup.input == "uint8" else []
    if flags:
        table["compiler_flags"] = flags
    if one.unit == "card":
        table["chip_fps"] = {proposal.batch_size: proposal.chip_fps for proposal in group}
    if not one.judged:
        table["judged"] = []
    return table


def _plain(text: str, longest: int = _LONGEST_LINE) -> str:
    """One line of printable text, whatever a record holds."""
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    return " ".join(text.split())[:longest].strip()
