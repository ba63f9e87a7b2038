"""A run: plan -> cases -> records -> checks over the cases -> exit code. No pytest in it.

    Run(settings).execute()                                     # a whole plan
    Run(settings).case("resnest50", 4, "accuracy").execute()    # one case

A `Run` begins and ends it: it writes the first lines, the sum and the report. Cases run in this
process or in workers (`harness.run.process`) that share the run's directory.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from harness import estimates, shards
from harness.base import files, host, processes, scratch, signals
from harness.base.environment import ROOT
from harness.base.errors import ConfigError, HarnessError, RecordError
from harness.base.progress import Progress
from harness.base.stages import Stage
from harness.base.store import Store
from harness.base.store_care import tidy_dead
from harness.base.terms import Check
from harness.catalog.schema import Catalog
from harness.judge.causes import Exit
from harness.plan import Case, Plan, given_onnx, make_plan, missing, missing_text
from harness.records import reader, writer
from harness.records.lines import CaseLine, Line, PlanLine, ResumeLine, RunLine
from harness.records.observed import ErrorInfo
from harness.records.reader import RunRecords
from harness.run.case import CaseRun
from harness.run.case_record import nodeid_of
from harness.run.directory import hold, make_folder, point_latest
from harness.run.ending import checks_over, end_records, publish
from harness.run.guide_figures import guide_figures
from harness.run.process import RunProcess
from harness.settings import OPTIONS, Settings, resolve
from harness.stages.shared import read_pins
from harness.targets import registry

EMPTY = "is empty: the selected cases have fewer groups that share builds than there are shards"


class Run(RunProcess):
    """One run and its directory `<settings.runs>/<id>`."""

    def __init__(
        self,
        settings: Settings,
        *,
        catalog: Catalog | None = None,
        run_id: str = "",
        worker: str = "",
        command: Sequence[str] = (),
        progress: Progress | None = None,
    ) -> None:
        """Prepare a run; nothing is read or written yet.

        Args:
            run_id: the run of another process that this one runs cases for.
            worker: the name of this process among several of one run; such a one begins nothing.
            command: what started the run, as the records keep it.
            progress: where progress is shown; by default standard error, where it is a terminal.

        Raises `ConfigError`: options that do not fit together.
        """
        settings = settings if worker else registry.located(_with_usual_target(settings))
        registry.provider_of(settings).check(settings)
        self.earlier = reader.read(settings.resume) if settings.resume and not worker else None
        known = self.earlier.run.run if self.earlier and self.earlier.run else ""
        name = run_id or known or writer.new_run_id()
        directory: Path = settings.runs / name
        if place := settings.resume:
            directory = (place.parent if place.name == writer.RESULTS else place).resolve()
        super().__init__(
            settings,
            catalog,
            name,
            directory,
            progress or Progress.on_stderr(only_terminal=True),
            worker=worker,
        )
        self.command = tuple(command) or tuple(sys.orig_argv)
        self.planned: Mapping[str, Case] = {}  # by node id, once the run has begun
        self.records: RunRecords | None = None  # once the run has ended
        self.selection = ""  # digest of what this run has a shard of
        self.empty_shard = False  # no case of the selection is its part
        self.interrupted = False  # by Ctrl-C or SIGTERM
        self._held: contextlib.ExitStack | None = None  # its lock, while it goes on
        self._begin = time.monotonic()

    @cached_property
    def plan(self) -> Plan:
        return make_plan(self.catalog, self.settings)

    @cached_property
    def expected_s(self) -> Mapping[Case, float | None]:
        """Seconds of each planned case on this host, the longest first; None, before: unknown."""
        images = self.settings.rehearsal_images if self.settings.stand_ins else None
        times = estimates.estimates(self.plan.cases, self.settings, images=images)
        known = {case: times[case].work_s for case in self.plan.cases}
        return dict(sorted(known.items(), key=lambda one: -math.inf if one[1] is None else -one[1]))

    @cached_property
    def left(self) -> frozenset[str] | None:
        """The node ids that a resumed run still has to run; None: all of the plan."""
        if self.earlier is None:
            return None
        return frozenset(self.earlier.unfinished(undecided=self.settings.resume_undecided))

    @property
    def begun(self) -> bool:
        return bool(self.planned)

    # For a script or a notebook -----------------------------------------------------------

    def case(self, model: str, batch_size: int, check: Check) -> OneCase:
        """Return one case as a run of its own, with a directory of its own.
        Raises `ConfigError`: no model of that name.
        """
        settings = dataclasses.replace(self.settings, models=(model,), batch_sizes=(batch_size,))
        run = Run(settings, catalog=self.catalog, command=self.command, progress=self.progress)
        return OneCase(run, run.plan.of(check)[0])

    def execute(self, cases: Sequence[Case] | None = None) -> RunRecords:
        """Run cases, by default all of the plan, and end the run; return its records.

        A case that fails is a line of the records; `records.end.exit_status` is the run's. Ctrl-C
        and SIGTERM end the run early: its records and report are written, then KeyboardInterrupt
        is raised.

        Raises:
            ConfigError: something that the cases need is missing, or the run was executed before.
            RecordError: the records cannot be written.
        """
        chosen = tuple(self.plan.cases if cases is None else cases)
        if (left := self.left) is not None:
            chosen = tuple(case for case in chosen if nodeid_of(case) in left)
        else:
            chosen = self.shard_of(chosen)
        if self.begun or not (chosen or self.empty_shard):
            raise ConfigError(
                "this run was executed before" if self.begun else "no case was selected",
                remedy="make a new Run" if self.begun else "choose other models or batch sizes",
            )
        self.upcoming = chosen
        self.begin([(nodeid_of(case), case) for case in chosen])
        try:
            with signals.listening():
                for case in chosen:
                    CaseRun(self, case).perform()
        except KeyboardInterrupt:
            self.interrupted = True
        finally:
            with signals.uninterrupted():
                self.stop_building()
                records = self.finish(
                    decide=lambda code: int(Exit.INTERRUPTED if self.interrupted else code)
                )
        if self.interrupted:
            raise KeyboardInterrupt
        return records

    def shard_of(self, cases: Sequence[Case]) -> tuple[Case, ...]:
        """Return which of the selected cases this run has; keep of what they are a shard. Raises
        `RecordError`: the run of `--shard-by` has no records.
        """
        if cases and self.settings.part:
            self.selection = shards.digest(case.name for case in cases)
        mine = shards.of_settings(cases, self.settings)
        self.empty_shard = bool(cases) and not mine
        return mine

    # The side that begins and ends it -----------------------------------------------------

    def begin(self, cases: Sequence[tuple[str, Case]], *, here: bool = True) -> None:
        """Write what was asked for, as (node id, case), before any of it runs.

        `here`: cases run on this host, which must have what they need.

        Raises:
            ConfigError: something that the cases need is missing, or the run has no place.
            RecordError: the records cannot be written.
            StoreError: there is no usable temporary folder.
        """
        chosen = [case for _, case in cases]
        scratch.temporary()  # raises where there is none
        pins = self.settings.shared_store_pins
        if pins is not None and (here or pins.exists()):  # else it lies on the hosts alone
            read_pins(pins)
        if here:
            if lacking := missing(self.settings, chosen):
                raise ConfigError(missing_text(lacking, len(cases)))
            self._take_given(chosen)
            tidy_dead(Store(self.settings.store))
        processes.ending.clear()
        if self.earlier is None:
            make_folder(self.directory)
            point_latest(self.settings.runs, self.id)
        with contextlib.ExitStack() as held:
            held.enter_context(hold(self.directory))
            lines = self._opening(cases) if self.earlier is None else self._going_on(cases)
            writer.append(self.directory, *lines)
            self._held = held.pop_all()
        self.planned = dict(cases)
        self.progress.begin({nodeid: self.expected_s.get(case) for nodeid, case in cases})

    def _opening(self, cases: Sequence[tuple[str, Case]]) -> tuple[Line, ...]:
        run = RunLine(
            run=self.id,
            target=self.settings.target or "",
            provenance=self.settings.provenance,
            started=files.now(),
            command=self.command,
            directory=str(self.directory),
            git=host.git_revision(ROOT),
            catalog_digest=self.catalog.digest,
            machine=host.machine(),
            versions=host.versions(),
            settings=self.settings.to_json(),
            allow_inconclusive=self.settings.allow_inconclusive,
            selection=self.selection,
            guide_figures=guide_figures(
                self.catalog, (case.model for _, case in cases), self.settings.provenance
            ),
            notes=() if cases else (f"shard {self.settings.shard} {EMPTY}",),
        )
        planned = tuple(case.planned(nodeid) for nodeid, case in cases)
        return run, PlanLine(run=self.id, cases=planned)

    def _going_on(self, cases: Sequence[tuple[str, Case]]) -> tuple[Line, ...]:
        """What failed to build before, and devices that were set aside, are tried again."""
        for name in ("failures", "set-aside"):
            shutil.rmtree(self.directory / name, ignore_errors=True)
        line = ResumeLine(
            run=self.id,
            started=files.now(),
            command=self.command,
            git=host.git_revision(ROOT),
            catalog_digest=self.catalog.digest,
            nodeids=tuple(nodeid for nodeid, _ in cases),
        )
        return (line,)

    def _take_given(self, cases: Sequence[Case]) -> None:
        """Check the ONNX files that were given, before there is a run. Raises `ConfigError`."""
        if not given_onnx(self.catalog, self.settings) & {case.model for case in cases}:
            return
        from harness.stages.pipeline import Workbench

        with scratch.folder("given") as folder:
            bench = Workbench(self.settings, self.catalog, folder, self.progress)
            try:
                bench.take_given(cases)
            except ConfigError:
                raise
            except HarnessError:  # the machine's: a case meets it again, and its record says so
                return

    def finish(self, *, stopped: str = "", decide: Callable[[Exit], int] = int) -> RunRecords:
        """Judge what spans the cases, write the end line and the report; return the records.

        Args:
            stopped: why the run was told to end before its last case; empty where it was not.
            decide: makes the exit status of what the records say.

        Raises `RecordError`: the records cannot be written.
        """
        self.progress.end()
        with self._held or hold(self.directory):
            records = end_records(
                self.directory,
                checks_over(reader.read(self.directory), self.catalog, self.settings),
                allow_inconclusive=self.settings.allow_inconclusive,
                stopped=stopped,
                seconds=time.monotonic() - self._begin,
                decide=decide,
            )
            self.records = publish(records, self.settings.lang)
        return self.records

    def summary(self) -> list[str]:
        """Return the finished run in a few lines, and where its report is."""
        from harness.report.terminal import summary_lines

        report = self.directory / "report.html"
        ended = [] if self.records is None else summary_lines(self.records)
        there = os.path.isfile(report)  # False, too, where it cannot be looked at
        return [*ended, f"report: {report if there else 'not written'}"]

    def crashed(self, nodeid: str, why: str, log: str = "") -> CaseLine | None:
        """Write the line of a case that a dead worker process had; None of a case not planned.
        Raises `RecordError`: the records cannot be written.
        """
        self.progress.ended(nodeid)
        if nodeid not in self.planned:
            return None
        case = CaseRun(self, self.planned[nodeid], nodeid)
        case.error = ErrorInfo(
            type="Crash",
            stage=Stage.WORKER,
            message=why,
            remedy="look at the worker's last log in the run directory; memory may have run out",
            log=log,
        )
        line = case.line()
        writer.append(self.directory, line)
        return line


@dataclass(frozen=True)
class OneCase:
    """A case as a run of its own."""

    run: Run
    case: Case

    def execute(self) -> CaseLine:
        """Run the case as a run of its own, with records and report; return its line.

        Raises:
            ConfigError: something that the case needs is missing.
            RecordError: the records cannot be written.
        """
        records = self.run.execute([self.case])
        if not records.cases:
            raise RecordError(f"{records.directory}: the case's line could not be written")
        return records.cases[0]


def _with_usual_target(settings: Settings) -> Settings:
    """Return the settings with the target of a rehearsal or simulation, where they name none."""
    if settings.target is not None or settings.provenance == "real":
        return settings
    kinds = {row.name: True for row in OPTIONS if row.asks_for and settings.value(row)}
    return dataclasses.replace(settings, target=resolve(kinds, environment={}).target)
