"""A run's records as one page: what stands in each section, in order.

Nothing here knows HTML. A further section is a further field of `Page` and a further block of the
template.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness import __version__
from harness.base.host import Machine
from harness.base.terms import OUTCOMES, Outcome, Provenance
from harness.records.lines import CaseLine
from harness.records.reader import RunRecords
from harness.report import charts, details, figures, guide_tables, provenance, worth
from harness.report.cases import CaseView, Group, Shared, absent, count_logs, view
from harness.report.checks import CheckView, check_views
from harness.report.figures import Row
from harness.report.findings import Entry, Why, entries, exit_words, whys
from harness.report.guide_figures import ModelFigures, read_figures
from harness.report.headline import (
    LOOKS,
    Headline,
    Look,
    Sum,
    headline,
    missing,
    reconcile,
)
from harness.report.stages import stage_name
from harness.report.thumbs import PAGE_TOTAL, Thumbs

# All logs of a page together, in characters of HTML: keeps 100 cases well under 2 MB.
LOGS_TOTAL = 500_000
LOG_LONGEST = 12_000
LOG_SHORTEST = 400
# The same for the diagnoses.
DIAGNOSES_TOTAL = 300_000
DIAGNOSIS_LONGEST = 20_000
DIAGNOSIS_SHORTEST = 1_000
ATTENTION_SHOWN = 12
SMALL_STAGE = 0.005
"""Of the time of all stages: a part of the bar below this is not seen."""

_NAMES: dict[Provenance | None, str] = {
    "real": "Acceptance report",
    "rehearsal": "Rehearsal report",
    "simulated": "Simulation report",
    None: "Report",
}


@dataclass(frozen=True)
class Count:
    """How many cases ended so; `share` in percent of all."""

    look: Look
    count: int
    share: float


@dataclass(frozen=True)
class Matrix:
    """Models by batch sizes for one target and one check; a cell holds its cases, often one."""

    target: str
    check: str
    unit: str
    batch_sizes: tuple[int, ...]
    rows: tuple[tuple[str, str, tuple[tuple[CaseView, ...], ...]], ...]


@dataclass(frozen=True)
class Accuracy:
    """One interval of a case on the axis that all of them share."""

    case: CaseView
    view: details.IntervalView


@dataclass(frozen=True)
class Page:
    """Everything on the page. `icon` is the outcome whose sign stands beside the headline.

    `real`: every figure is a real one, so that published ones may stand beside them.
    """

    name: str
    run: str
    banners: tuple[provenance.Banner, ...]
    headline: Headline
    icon: Outcome
    whys: tuple[Why, ...]
    exit_words: str
    real: bool
    facts: tuple[str, ...]
    counts: tuple[Count, ...]
    sum: Sum
    attention: tuple[Entry, ...]
    attention_left: int
    matrices: tuple[Matrix, ...]
    checks: tuple[CheckView, ...]
    guide_accuracy: tuple[guide_tables.AccuracyGroup, ...]
    guide_speed: tuple[guide_tables.SpeedTable, ...]
    speed_plots: tuple[charts.Plot, ...]
    intervals: tuple[Accuracy, ...]
    stages: tuple[charts.Segment, ...]
    stages_total: str
    cases: tuple[CaseView, ...]
    models: tuple[str, ...]
    check_names: tuple[str, ...]
    targets: tuple[str, ...]
    environment: tuple[Group, ...]
    command: str
    damaged: tuple[str, ...]
    rendered: str
    version: str


def ordered(records: RunRecords) -> list[CaseLine]:
    """The cases in the order of the plan, those that were not planned after them."""
    place = {planned.nodeid: index for index, planned in enumerate(records.plan)}
    return sorted(records.cases, key=lambda case: place.get(case.nodeid, len(place)))


def _shared(records: RunRecords, *, thumbs: bool, share: float = 1.0) -> Shared:
    logs = max(1, count_logs(records.cases))
    diagnosed = max(1, sum(1 for case in records.cases if case.diagnosis))
    return Shared(
        thumbs=Thumbs(records.directory, int(PAGE_TOTAL * share)) if thumbs else None,
        log_limit=max(LOG_SHORTEST, min(LOG_LONGEST, int(LOGS_TOTAL * share) // logs)),
        diagnosis_limit=max(
            DIAGNOSIS_SHORTEST, min(DIAGNOSIS_LONGEST, int(DIAGNOSES_TOTAL * share) // diagnosed)
        ),
    )


def case_views(records: RunRecords, shared: Shared | None = None) -> list[CaseView]:
    """Every case, planned ones without a line included, in the order of the plan."""
    return [view for view, _ in pairs(records, shared)]


def pairs(
    records: RunRecords, shared: Shared | None = None
) -> list[tuple[CaseView, CaseLine | None]]:
    """The same, each with its line where it left one."""
    shared = shared or _shared(records, thumbs=False)
    lines = {case.nodeid: case for case in ordered(records)}
    lost = {planned.nodeid: planned for planned in missing(records)}
    fallback: Provenance = records.run.provenance if records.run else "real"
    found: list[tuple[CaseView, CaseLine | None]] = []
    for planned in records.plan:
        if planned.nodeid in lost:
            found.append((absent(planned, fallback, shared), None))
        elif (case := lines.pop(planned.nodeid, None)) is not None:
            found.append((view(case, provenance.of_case(records, case), shared), case))
    found += [
        (view(case, provenance.of_case(records, case), shared), case) for case in lines.values()
    ]
    return found


def matrices(cases: Sequence[CaseView]) -> list[Matrix]:
    """One matrix for each target and check, in the order of the plan."""
    found: list[Matrix] = []
    for target, check in dict.fromkeys((case.target, case.check) for case in cases):
        mine = [case for case in cases if (case.target, case.check) == (target, check)]
        sizes = tuple(sorted({case.batch_size for case in mine}))
        rows = []
        for model in dict.fromkeys(case.model for case in mine):
            of_model = [case for case in mine if case.model == model]
            title = next((case.title for case in of_model if case.title), "")
            cells = tuple(
                tuple(case for case in of_model if case.batch_size == size) for size in sizes
            )
            rows.append((model, title if title != model else "", cells))
        unit = "top-1" if check == "accuracy" else "frames a second"
        found.append(Matrix(target, check, unit, sizes, tuple(rows)))
    return found


def _machine(machine: Machine) -> list[Row]:
    memory = f"{machine.memory_gib:,.1f}\N{NO-BREAK SPACE}GiB" if machine.memory_gib else ""
    pairs = (
        ("host", machine.hostname),
        ("system", machine.system),
        ("architecture", machine.architecture),
        ("processor", machine.processor),
        ("cores", str(machine.cores) if machine.cores else ""),
        ("memory", memory),
    )
    return [Row(label, figures.clip(value, 300)) for label, value in pairs if value]


def _environment(records: RunRecords) -> list[Group]:
    run, end = records.run, records.end
    if run is None:
        return []
    about = (
        ("run", run.run),
        ("provenance", run.provenance),
        ("started", figures.moment(run.started)),
        ("finished", figures.moment(end.finished) if end else "no end line"),
        ("duration", figures.duration(end.seconds) if end else ""),
        ("exit status", str(end.exit_status) if end else ""),
        ("git revision", run.git),
        ("catalog digest", run.catalog_digest),
        ("working directory", run.directory),
    )
    groups = [
        Group("Run", tuple(Row(key, figures.clip(value, 400)) for key, value in about if value)),
        Group("Machine", tuple(_machine(run.machine))),
    ]
    others = dict.fromkeys(
        case.machine for case in records.cases if case.machine not in (run.machine, Machine())
    )
    groups += [
        Group(f"Machine {index}", tuple(_machine(machine)))
        for index, machine in enumerate(list(others)[:16], 2)
    ]
    groups += [
        Group("Devices and toolchain", details.toolchain_rows(records.cases)),
        Group("Versions", tuple(figures.flatten(dict(run.versions)))),
        Group("Settings", tuple(figures.flatten(run.settings))),
    ]
    return [group for group in groups if group.rows]


def _facts(records: RunRecords) -> list[str]:
    run, end = records.run, records.end
    facts: list[str] = []
    if run is not None:
        facts.append(f"run {figures.clip(run.run, 80)}")
        facts.append(f"started {figures.moment(run.started)}")
    if end is not None and end.seconds:
        facts.append(f"took {figures.duration(end.seconds)}")
    if run is not None and run.machine.hostname:
        facts.append(f"on {figures.clip(run.machine.hostname, 80)}")
    if run is not None and run.git:
        facts.append(f"git {figures.clip(run.git, 20)}")
    return facts


def _where_time_went(
    cases: Sequence[CaseLine], looks: charts.Looks
) -> tuple[list[charts.Segment], str]:
    totals: dict[str, float] = {}
    for case in cases:
        for stage in case.stages:
            name = stage_name(stage.stage)
            totals[name] = totals.get(name, 0.0) + max(0.0, stage.seconds)
    total = sum(totals.values())
    # The longest first; what nobody would see in the bar is one part of it.
    ranked = sorted(totals.items(), key=lambda item: -item[1])
    small = [name for name, seconds in ranked if seconds < SMALL_STAGE * total]
    if len(small) < 2:
        small = []
    parts = [(name, seconds, "") for name, seconds in ranked if name not in small]
    if small:
        rest = sum(totals[name] for name in small)
        parts.append(("all others", rest, ", ".join(small[:8])))
    return charts.stacked(parts, looks), figures.duration(total)


# What the line of a throughput chart is held against, by the kind of reference.
_REFERENCES = {"baseline": "baseline", "eager-speed": "eager PyTorch, same host"}


def _speed_plots(
    cases: Sequence[tuple[CaseView, CaseLine]], known: Mapping[str, ModelFigures]
) -> list[charts.Plot]:
    """Throughput over batch size for each model and target, against what it was held against.

    Where a case has no comparable figure, none is drawn; neither is a published figure in a run
    that is not real (its views have no such reference, see `harness.report.provenance`).
    """
    groups: dict[tuple[str, str], list[tuple[CaseView, CaseLine]]] = {}
    for shown, case in cases:
        if case.check == "throughput" and figures.number(case.measured) is not None:
            groups.setdefault((shown.model, shown.target), []).append((shown, case))
    plots = []
    for (model, target), mine in groups.items():
        measured = {
            case.batch_size: (
                figures.number(case.measured) or 0.0,
                figures.number(case.measurement.get("half_width_percent")) or 0.0,
            )
            for _, case in mine
        }
        reference: dict[int, float] = {}
        names = []
        for shown, case in mine:
            held = None if shown.withheld else case.reference
            value = None if held is None else figures.number(held.value)
            if held is not None and value is not None and held.kind in _REFERENCES:
                reference[case.batch_size] = value
                names.append(_REFERENCES[held.kind])
        if "baseline" in names and mine[0][0].provenance == "real" and model in known:
            # The guide's whole column: batch sizes that were not run as well.
            for one in known[model].speeds:
                if one.target == target and not one.not_comparable:
                    reference.setdefault(one.batch_size, one.fps)
        name = ", ".join(dict.fromkeys(names))
        plot = charts.over_batch_size(
            f"{model} on {target}",
            measured,
            reference,
            reference_name=name,
            outcomes={case.batch_size: shown.look.outcome for shown, case in mine},
            worthless={case.batch_size for _, case in mine if worth.why_not(case)},
        )
        if plot is not None:
            plots.append(plot)
    return plots


def _intervals(cases: Sequence[CaseView]) -> list[Accuracy]:
    flat = [(case, one) for case in cases for one in case.intervals]
    shown = details.on_one_axis([one for _, one in flat])
    return [Accuracy(case, one) for (case, _), one in zip(flat, shown, strict=True)]


def build(records: RunRecords, *, rendered: str, share: float = 1.0) -> Page:
    """The page of a run. `rendered` is the moment that its foot names.

    `share` is how much of their usual room logs, diagnoses and thumbnails get.
    """
    shared = _shared(records, thumbs=True, share=share)
    # First, so that a stage looks the same here and in every case.
    stages, stages_total = _where_time_went(ordered(records), shared.stages)
    checks = check_views(records, shared.anchors, shared.thumbs)
    found = pairs(records, shared)
    cases = [view for view, _ in found]
    lines = [(view, line) for view, line in found if line is not None]
    counts = records.counts()
    total = max(1, sum(counts.values()))
    attention = entries(records, cases)
    line = headline(records)
    kinds = provenance.kinds(records)
    real = provenance.is_real(records)
    known = read_figures(records.run) if real else {}
    shown: list[Provenance] = [kind for kind in ("simulated", "rehearsal", "real") if kind in kinds]
    icons: dict[str, Outcome] = {"good": "passed", "bad": "failed", "warn": "inconclusive"}
    run = records.run
    return Page(
        name=_NAMES[shown[0] if shown else None],
        run=figures.clip(run.run, 80) if run else figures.clip(records.directory.name, 80),
        banners=tuple(provenance.banners(records)),
        headline=line,
        icon=icons.get(line.tone, "recorded"),
        whys=whys(records),
        exit_words=exit_words(records),
        real=real,
        facts=tuple(_facts(records)),
        counts=tuple(
            Count(LOOKS[outcome], counts[outcome], round(100 * counts[outcome] / total, 2))
            for outcome in OUTCOMES
        ),
        sum=reconcile(records),
        attention=attention[:ATTENTION_SHOWN],
        attention_left=max(0, len(attention) - ATTENTION_SHOWN),
        matrices=tuple(matrices(cases)),
        checks=tuple(checks),
        guide_accuracy=guide_tables.accuracy_table(lines, known),
        guide_speed=guide_tables.speed_tables(lines, known),
        speed_plots=tuple(_speed_plots(lines, known)),
        intervals=tuple(_intervals(cases)),
        stages=tuple(stages),
        stages_total=stages_total,
        cases=tuple(cases),
        models=tuple(dict.fromkeys(case.model for case in cases)),
        check_names=tuple(dict.fromkeys(case.check for case in cases)),
        targets=tuple(dict.fromkeys(case.target for case in cases)),
        environment=tuple(_environment(records)),
        command=figures.clip(shlex.join(run.command), 4_000) if run and run.command else "",
        damaged=tuple(figures.clip(text, 300) for text in records.damaged[:50]),
        rendered=figures.moment(rendered),
        version=__version__,
    )
