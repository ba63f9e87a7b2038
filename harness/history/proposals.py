"""Baselines from measurement: what real runs propose for `baselines.yaml`, as YAML to paste.

Only a throughput without a figure gets one; a figure that is there is never touched, nor is the
catalog ever written. Each proposal has its evidence as a comment.
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
from harness.catalog.schema import Catalog, Method, Tuning
from harness.history.index import COUNTED, chip_of, row_of, run_line
from harness.pages.formats import plural
from harness.records import reader
from harness.records.lines import CaseLine, RunLine
from harness.records.measurements import ThroughputMeasurement
from harness.records.reader import RunRecords

_DECIMALS = 3  # as the guides print them
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
        """Return what must be the same in all runs of one figure, as a catalog has it."""
        setup = self.measurement.setup
        return {
            "card": _plain(setup.card) or "not stated",
            "toolchain": _plain(setup.toolchain),
            "method": setup.method,
            "tuning": setup.tuning,
            "input": setup.input,
            "dynamic_batch": setup.dynamic_batch,
        }


@dataclass(frozen=True)
class Proposal:
    """One figure for the catalog. `judged`: no other chip's figure judges the batch size."""

    model: str
    target: str
    chip: str
    batch_size: int
    samples: tuple[Sample, ...]
    judged: bool

    @property
    def fps(self) -> float:
        """Return the median of the runs, in frames a second of one chip."""
        values = (sample.measurement.timing.fps for sample in self.samples)
        return round(statistics.median(values), _DECIMALS)

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
        runs = plural(len(values), "run")
        return f"batch {self.batch_size}: median of {runs}, {executions:,} executions, {known}"


@dataclass(frozen=True)
class Proposed:
    """What runs propose. `text`: YAML with comments, empty for nothing; `left`: case, why not."""

    text: str
    proposals: tuple[Proposal, ...]
    left: tuple[tuple[str, str], ...]


def propose(runs: Sequence[Path], catalog: Catalog) -> Proposed:
    """Return what the throughput figures of real runs propose for a catalog.

    Raises:
        RecordError: a run cannot be read.
        ConfigError: a run is a rehearsal or a simulation, or runs that were not made alike are
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
            why = _unusable(records, case, catalog)
            if why or case.throughput is None:
                left.setdefault(case.case, why)
                continue
            key = (case.model, case.target, chip_of(case), case.batch_size)
            sample = Sample(run, case, case.throughput)
            grouped.setdefault(key, {}).setdefault(case.run, sample)
    proposals = []
    for (model, target, chip, size), samples in sorted(grouped.items()):
        figures = [one for one in catalog.models[model].figures(target) if one.batch_size == size]
        judged = not any(one.judged for one in figures)
        made = Proposal(model, target, chip, size, tuple(samples.values()), judged)
        _require_alike(made)
        proposals.append(made)
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


def _unusable(records: RunRecords, case: CaseLine, catalog: Catalog) -> str:
    """Return why nothing is built on the figure of a case; empty where something is."""
    one, model = case.throughput, catalog.models.get(case.model)
    if case.outcome not in COUNTED or one is None:
        return f"{case.outcome.replace('_', ' ')}: nothing to build on"
    if model is None:
        return "the catalog has no such model"
    if case.checkpoint is not None and case.checkpoint.source == "onnx":
        return "network and weights not verified: --onnx gave the file, which may be any network"
    if not one.precise or one.too_short:
        return "the precision asked for was not reached"
    if one.outputs is None:
        return "its outputs were not compared with the ONNX model's"
    trouble = row_of(records, case, 0.0).trouble
    if trouble:
        return f"{', '.join(trouble)}: such a speed counts for nothing"
    chip = chip_of(case)
    if not chip or not one.setup.toolchain:
        return "the record does not name the chip or the toolchain"
    method, tuning = one.setup.method, one.setup.tuning
    if tuning not in get_args(Tuning) or method not in get_args(Method):
        return f"the catalog has no word for its method {method!r} with tuning {tuning!r}"
    for figure in model.figures(case.target):
        if figure.batch_size == case.batch_size and figure.is_of(chip):
            return f"has a figure, {figure.fps:.10g} fps ({figure.source})"
    return ""


def _require_alike(one: Proposal) -> None:
    """Refuse runs of one figure that were not made alike."""
    for what in one.samples[0].made_with:
        values = sorted({sample.made_with[what] for sample in one.samples})
        if len(values) > 1:
            raise ConfigError(
                f"{one.model}, batch {one.batch_size}, {one.chip}: the runs differ in their {what} "
                f"({some(values)})",
                remedy="propose from runs that were made alike",
            )


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
        alike = (one.target, one.chip, one.judged, *one.samples[0].made_with.values())
        tables.setdefault(one.model, {}).setdefault(alike, []).append(one)
    for name, groups in tables.items():
        lines += [f"  {name}:", "    throughput:"]
        for group in groups.values():
            lines += (f"      # {one.evidence}" for one in group)
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
    """Return one table of `throughput`: figures of one chip that were measured in one way."""
    one, setup = group[0], group[0].samples[0].measurement.setup
    note = "; ".join(proposal.evidence for proposal in group)
    made_with = one.samples[0].made_with
    del made_with["input"], made_with["dynamic_batch"]  # which the flags say
    flags = ["--auto_tune_mode=RL,GA"] if setup.tuning == "RL,GA" else []
    flags += ["--insert_op_conf=aipp.config"] if setup.input == "uint8" else []
    sizes = setup.dynamic_batch
    flags += [f"--dynamic_batch_size={sizes}"] if re.fullmatch("[0-9,]+", sizes) else []
    optional = {
        "chips_per_card": setup.chips if (setup.chips or 1) > 1 else None,
        "compiler_flags": flags or None,
        "judged": None if one.judged else [],
    }
    return {
        "target": one.target,
        "chip": _plain(one.chip),
        "unit": "chip",
        **made_with,
        "tolerance_percent": 0,
        "source": source,
        "note": _plain(f"{note[0].upper()}{note[1:]}.", 4 * _LONGEST_TEXT),
        "fps": {proposal.batch_size: proposal.fps for proposal in group},
        **{name: value for name, value in optional.items() if value is not None},
    }


def _plain(text: str, longest: int = _LONGEST_LINE) -> str:
    """One line of printable text, whatever a record holds."""
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    return " ".join(text.split())[:longest].strip()
