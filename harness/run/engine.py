"""A run: plan -> cases -> records -> checks over the cases -> exit code. No pytest in it.

    Run(settings).execute()                                     # a whole plan
    Run(settings).case("resnest50", 4, "accuracy").execute()    # one case

A `Run` has two sides. One begins and ends it: it writes the first lines, the sum and the report.
The other runs cases (`CaseRun`), in this process or in workers that share the run's directory.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from harness import estimates
from harness.base import files, host, processes, scratch, signals
from harness.base.environment import ROOT
from harness.base.errors import ConfigError, HarnessError, RecordError
from harness.base.locks import FileLock
from harness.base.progress import Progress
from harness.base.stages import Stage
from harness.base.store import Store
from harness.base.store_care import tidy_dead
from harness.base.terms import Check
from harness.catalog.schema import Catalog
from harness.judge.causes import Exit, undecided_by_machine
from harness.plan import Case, Plan, given_onnx, make_plan, missing, missing_text
from harness.records import reader, writer
from harness.records.lines import CaseLine, Line, PlanLine, ResumeLine, RunLine
from harness.records.observed import Diagnosis, ErrorInfo, Observed
from harness.records.reader import RunRecords
from harness.records.verdicts import Verdict
from harness.run import known_failures
from harness.run.case_record import error_info, nodeid_of, repeat_command, versions_of
from harness.run.directory import hold, make_folder, point_latest
from harness.run.ending import checks_over, end_records, publish
from harness.run.guide_figures import guide_figures
from harness.run.own import catalog_of
from harness.settings import OPTIONS, Settings, resolve
from harness.targets import registry

if TYPE_CHECKING:
    from harness.stages.ahead import Ahead
    from harness.stages.pipeline import CasePipeline, Prepared, Workbench

CLASSES_KEPT = 1000  # names in a record, which each case has


class Run:
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

        Raises:
            ConfigError: options that do not fit together.
        """
        self.settings = settings if worker else registry.located(_with_usual_target(settings))
        registry.provider_of(self.settings).check(self.settings)
        self.earlier = reader.read(settings.resume) if settings.resume and not worker else None
        known = self.earlier.run.run if self.earlier and self.earlier.run else ""
        self.id = run_id or known or writer.new_run_id()
        self.worker = worker
        self.directory: Path = self.settings.runs / self.id
        if place := settings.resume:
            self.directory = (place.parent if place.name == writer.RESULTS else place).resolve()
        self.command = tuple(command) or tuple(sys.orig_argv)
        self.progress = progress or progress_on_stderr(only_terminal=True)
        self.planned: Mapping[str, Case] = {}  # by node id, once the run has begun
        self.upcoming: tuple[Case, ...] = ()  # what this process runs: they are built ahead
        self.records: RunRecords | None = None  # once the run has ended
        self._catalog = catalog
        self._ahead: Ahead | None = None
        self._lock: FileLock | None = None  # while it goes on
        self._begin = time.monotonic()
        self._reported: dict[tuple[Stage, str], str] = {}  # failed builds: who said it

    @cached_property
    def catalog(self) -> Catalog:
        return self._catalog or catalog_of(self.settings)

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
    def workbench(self) -> Workbench:
        from harness.stages.pipeline import Workbench

        return Workbench(self.settings, self.catalog, self.directory, self.progress)

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

    def case(self, model: str, batch_size: int, check: Check) -> CaseRun:
        """Return one case as a run of its own, with a directory of its own.

        Raises:
            ConfigError: no model of that name.
        """
        settings = dataclasses.replace(self.settings, models=(model,), batch_sizes=(batch_size,))
        run = Run(settings, catalog=self.catalog, command=self.command, progress=self.progress)
        return CaseRun(run, run.plan.of(check)[0])

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
        if self.begun or not chosen:
            raise ConfigError(
                "this run was executed before" if self.begun else "no case was selected",
                remedy="make a new Run" if self.begun else "choose other models or batch sizes",
            )
        interrupted = False
        self.upcoming = chosen
        self.begin([(nodeid_of(case), case) for case in chosen])
        try:
            with signals.listening():
                for case in chosen:
                    CaseRun(self, case).perform()
        except KeyboardInterrupt:
            interrupted = True
        finally:
            with signals.uninterrupted():
                self.stop_building()
                records = self.finish(
                    decide=lambda code: int(Exit.INTERRUPTED if interrupted else code)
                )
        if interrupted:
            raise KeyboardInterrupt
        return records

    # The side that begins and ends it -----------------------------------------------------

    def begin(self, cases: Sequence[tuple[str, Case]]) -> None:
        """Write what was asked for, as (node id, case), before any of it runs.

        Raises:
            ConfigError: something that the cases need is missing, or the run has no place.
            RecordError: the records cannot be written.
            StoreError: there is no usable temporary folder.
        """
        chosen = [case for _, case in cases]
        if lacking := missing(self.settings, chosen):
            raise ConfigError(missing_text(lacking, len(cases)))
        scratch.temporary()  # raises where there is none
        self._take_given(chosen)
        tidy_dead(Store(self.settings.store))
        processes.ending.clear()
        if self.earlier is None:
            make_folder(self.directory)
            point_latest(self.settings.runs, self.id)
        self._lock = hold(self.directory)
        lines = self._going_on(cases) if self.earlier is not None else self._opening(cases)
        writer.append(self.directory, *lines)
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
            guide_figures=guide_figures(
                self.catalog, (case.model for _, case in cases), self.settings.provenance
            ),
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

        Raises:
            RecordError: the records cannot be written.
        """
        self.progress.end()
        lock = self._lock or hold(self.directory)
        checks = checks_over(reader.read(self.directory), self.catalog, self.settings)
        records = end_records(
            self.directory,
            checks,
            allow_inconclusive=self.settings.allow_inconclusive,
            stopped=stopped,
            seconds=time.monotonic() - self._begin,
            decide=decide,
        )
        self.records = publish(records, self.settings.lang)
        lock.release()
        return self.records

    def summary(self) -> list[str]:
        """Return the finished run in a few lines, and where its report is."""
        from harness.report import summary_lines

        report = self.directory / "report.html"
        ended = [] if self.records is None else summary_lines(self.records)
        return [*ended, f"report: {report if report.is_file() else 'not written'}"]

    def crashed(self, nodeid: str, why: str, log: str = "") -> CaseLine | None:
        """Write the line of a case that a dead worker process had; None of a case not planned.

        Raises:
            RecordError: the records cannot be written.
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

    # The side that runs cases -------------------------------------------------------------

    def build_ahead(self) -> None:
        """Build what later cases of this process need while a device measures.

        Not where the host's CPU is the device: builds would be measured with it.
        """
        if self._ahead is not None or self.workbench.target.traits.runs_on_host:
            return
        from harness.stages.ahead import Ahead

        given = (self.settings, self.catalog, self.directory, self.upcoming)
        self._ahead = Ahead(*given, self.workbench.store.uses)

    def stop_building(self) -> None:
        """End what is built ahead, and whatever this process has started otherwise."""
        if self._ahead is not None:
            self._ahead.stop()
            processes.end_what_runs()

    def describe(self, case: Case, error: HarnessError) -> str:
        """Return an error as a terminal shows it: of a failed build, all of it once.

        The record of each case has all of it.
        """
        first = self._reported.setdefault((error.stage, error.message), case.name)
        if first == case.name or not error.remembered:
            return str(error)
        return f"[{error.stage}] the same failure as in {first}, see there; not tried again"


class CaseRun:
    """One case on the side that runs it: prepare, measure, diagnose; then its line."""

    def __init__(self, run: Run, case: Case, nodeid: str = "") -> None:
        self.run = run
        self.case = case
        self.nodeid = nodeid or nodeid_of(case)
        self.error: ErrorInfo | None = None
        self.known_failure = known_failures.declared(run.catalog, case)
        self.observed = Observed()
        self._prepared: tuple[CasePipeline, Prepared] | None = None
        self._started = files.now()
        self._begin = time.monotonic()

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

    def perform(self) -> CaseLine:
        """Run the case within a run that has begun; write and return its line."""
        try:
            self.prepare()
            self.measure()
        except Exception as error:
            self.failed(error)
        line = self.line()
        try:
            writer.append(self.run.directory, line)
        except RecordError as error:
            # The sum at the end will lack the case: the run cannot end green.
            sys.stderr.write(f"\n{self.case.name}: {error}\n")
        self.run.progress.ended(self.nodeid)
        return line

    def prepare(self) -> None:
        """Build what the check needs, or take it from the store.

        Raises:
            HarnessError: of the stage that failed.
        """
        pipeline = self.run.workbench.for_case(self.case)
        self.observed = pipeline.observed
        with self._listing():
            self._prepared = pipeline, pipeline.prepare()

    def measure(self) -> Verdict:
        """Measure on a leased device and judge; look for the cause of what failed.

        Raises:
            HarnessError: of the stage that failed.
        """
        from harness.measure.attempt import measure

        assert self._prepared is not None
        pipeline, prepared = self._prepared
        self.run.build_ahead()
        with self._listing():
            self.observed.verdict = verdict = measure(pipeline, prepared)
        if verdict.kind == "FAIL" and not self.run.settings.no_diagnosis:
            from harness.diagnosis.devices import diagnose_outputs
            from harness.diagnosis.diagnose import diagnose

            look = diagnose if self.case.check == "accuracy" else diagnose_outputs
            try:
                self.observed.diagnosis = look(pipeline, prepared)
            except HarnessError as error:  # the verdict stands, whatever becomes of its cause
                self.observed.diagnosis = Diagnosis(
                    f"the cause could not be looked for: [{error.stage}] {error.message}"
                )
        return verdict

    @contextlib.contextmanager
    def _listing(self) -> Iterator[None]:
        """Write the names of all files that cannot be used beside the record; an error's sentence
        has the first few.
        """
        try:
            yield
        except HarnessError as error:
            path = Path("logs", f"{self.case.check}-{self.case.id}-{Stage.DATA}.log")
            # Once for an error that cases share.
            if len(error.files) > 1 and not error.remedy.endswith(f"-{Stage.DATA}.log"):
                with contextlib.suppress(OSError, RecordError):  # the error is the one to be told
                    (self.run.directory / path).parent.mkdir(exist_ok=True)
                    files.replace_file(self.run.directory / path, "\n".join(error.files) + "\n")
                    error.remedy += f"; all of them are in {path}"
            raise

    def failed(self, error: BaseException) -> None:
        """Note what ended the case; the first error counts."""
        self.error = self.error or error_info(error)

    @property
    def fails(self) -> bool:
        """True where the verdict fails a test."""
        verdict, settings = self.observed.verdict, self.run.settings
        if verdict is None or verdict.kind != "INCONCLUSIVE":
            return verdict is not None and verdict.kind == "FAIL"
        excused = undecided_by_machine(self.case.check, settings.provenance)
        return not (excused or settings.allow_inconclusive)

    @property
    def end(self) -> known_failures.CaseEnd:
        """How the case ended, as far as it has come."""
        return known_failures.case_end(self.error, self.observed.verdict, self.known_failure)

    def line(self) -> CaseLine:
        """Return the case's record, as far as it has come."""
        run, observed, end = self.run, self.observed, self.end
        model = run.catalog.models[self.case.model]
        return CaseLine(
            run=run.id,
            **dict(self.case.planned(self.nodeid)),
            title=model.title,
            provenance=run.settings.provenance,
            outcome=end.outcome,
            sentence=end.sentence,
            error=self.error,
            preprocessing=model.preprocessing.describe(),
            class_names=model.class_names[:CLASSES_KEPT],
            assumed=model.assumed,
            **vars(observed),
            machine=host.machine(),
            versions=versions_of(observed.device),
            worker=run.worker,
            started=self._started,
            seconds=round(time.monotonic() - self._begin, 3),
            repeat=(repeat_command(run.settings, self.case),),
        )


def progress_on_stderr(worker: str = "", *, only_terminal: bool = False) -> Progress:
    """Return a progress on standard error as it is now, whatever captures it later."""
    descriptor = os.dup(2)
    terminal = not worker and os.isatty(descriptor) and os.environ.get("TERM") != "dumb"
    if only_terminal and not terminal:
        os.close(descriptor)
        return Progress.silent()
    return Progress(descriptor, terminal=terminal, prefix=f"[{worker}] " if worker else "  ... ")


def _with_usual_target(settings: Settings) -> Settings:
    """Return the settings with the target of a rehearsal or simulation, where they name none."""
    if settings.target is not None or settings.provenance == "real":
        return settings
    kinds = {row.name: True for row in OPTIONS if row.asks_for and settings.value(row)}
    return dataclasses.replace(settings, target=resolve(kinds, environment={}).target)
