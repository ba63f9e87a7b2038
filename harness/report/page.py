"""A run's records as one page: what stands in each section, in order.

Nothing here knows HTML. A further section (history, charts over batch size) is a further field of
`Page` and a further block of the template.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from harness import __version__
from harness.records import OUTCOMES, CaseLine, Machine, Outcome, Provenance, RunRecords
from harness.report import charts, figures, provenance
from harness.report.cases import Anchors, CaseView, Group, absent, count_logs, view
from harness.report.figures import Row
from harness.report.headline import (
    ATTENTION,
    LOOKS,
    Headline,
    Look,
    Sum,
    headline,
    missing,
    reconcile,
)

# All logs of a page together, in characters of HTML: keeps 100 cases well under 2 MB.
LOGS_TOTAL = 500_000
LOG_LONGEST = 12_000
LOG_SHORTEST = 400
ATTENTION_SHOWN = 12

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
class Page:
    """Everything on the page. `icon` is the outcome whose sign stands beside the headline."""

    name: str
    run: str
    banners: tuple[provenance.Banner, ...]
    headline: Headline
    icon: Outcome
    facts: tuple[str, ...]
    counts: tuple[Count, ...]
    sum: Sum
    attention: tuple[CaseView, ...]
    attention_left: int
    matrices: tuple[Matrix, ...]
    stages: tuple[charts.Segment, ...]
    stages_total: str
    cases: tuple[CaseView, ...]
    models: tuple[str, ...]
    checks: tuple[str, ...]
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


def case_views(records: RunRecords) -> list[CaseView]:
    """Every case, planned ones without a line included, in the order of the plan."""
    logs = max(1, count_logs(records.cases))
    limit = max(LOG_SHORTEST, min(LOG_LONGEST, LOGS_TOTAL // logs))
    anchors = Anchors()
    lines = {case.nodeid: case for case in ordered(records)}
    lost = {planned.nodeid: planned for planned in missing(records)}
    fallback: Provenance = records.run.provenance if records.run else "real"
    views: list[CaseView] = []
    for planned in records.plan:
        if planned.nodeid in lost:
            views.append(absent(planned, fallback, anchors))
        else:
            case = lines.pop(planned.nodeid)
            views.append(view(case, provenance.of_case(records, case), anchors, log_limit=limit))
    views += [
        view(case, provenance.of_case(records, case), anchors, log_limit=limit)
        for case in lines.values()
    ]
    return views


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


def _where_time_went(cases: Sequence[CaseLine]) -> tuple[list[charts.Segment], str]:
    totals: dict[str, float] = {}
    for case in cases:
        for stage in case.stages:
            totals[stage.stage] = totals.get(stage.stage, 0.0) + max(0.0, stage.seconds)
    parts = [(figures.clip(stage, 60), seconds, "") for stage, seconds in totals.items()]
    return charts.stacked(parts), figures.duration(sum(totals.values()))


def build(records: RunRecords, *, rendered: str) -> Page:
    """The page of a run. `rendered` is the moment that its foot names."""
    cases = case_views(records)
    counts = records.counts()
    total = max(1, sum(counts.values()))
    attention = sorted(
        (case for case in cases if case.look.outcome in ATTENTION),
        key=lambda case: ATTENTION.index(case.look.outcome),
    )
    line = headline(records)
    kinds = provenance.kinds(records)
    shown: list[Provenance] = [kind for kind in ("simulated", "rehearsal", "real") if kind in kinds]
    icons: dict[str, Outcome] = {"good": "passed", "bad": "failed", "warn": "inconclusive"}
    stages, stages_total = _where_time_went(records.cases)
    run = records.run
    return Page(
        name=_NAMES[shown[0] if shown else None],
        run=figures.clip(run.run, 80) if run else figures.clip(records.directory.name, 80),
        banners=tuple(provenance.banners(records)),
        headline=line,
        icon=icons.get(line.tone, "recorded"),
        facts=tuple(_facts(records)),
        counts=tuple(
            Count(LOOKS[outcome], counts[outcome], round(100 * counts[outcome] / total, 2))
            for outcome in OUTCOMES
        ),
        sum=reconcile(records),
        attention=tuple(attention[:ATTENTION_SHOWN]),
        attention_left=max(0, len(attention) - ATTENTION_SHOWN),
        matrices=tuple(matrices(cases)),
        stages=tuple(stages),
        stages_total=stages_total,
        cases=tuple(cases),
        models=tuple(dict.fromkeys(case.model for case in cases)),
        checks=tuple(dict.fromkeys(case.check for case in cases)),
        targets=tuple(dict.fromkeys(case.target for case in cases)),
        environment=tuple(_environment(records)),
        command=figures.clip(shlex.join(run.command), 4_000) if run and run.command else "",
        damaged=tuple(figures.clip(text, 300) for text in records.damaged[:50]),
        rendered=figures.moment(rendered),
        version=__version__,
    )
