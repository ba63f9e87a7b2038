"""One case of a run on the side that runs it: prepare, measure, diagnose; then its line."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from harness.base import files, host
from harness.base.errors import HarnessError, RecordError
from harness.base.stages import Stage
from harness.judge.causes import undecided_by_machine
from harness.plan import Case
from harness.records import writer
from harness.records.lines import CaseLine
from harness.records.observed import Diagnosis, ErrorInfo, Observed
from harness.records.verdicts import Verdict
from harness.run import known_failures
from harness.run.case_record import error_info, nodeid_of, repeat_command, versions_of
from harness.run.process import RunProcess

if TYPE_CHECKING:
    from harness.stages.pipeline import CasePipeline, Prepared

CLASSES_KEPT = 1000  # names in a record, which each case has


class CaseRun:
    """A case, and what is known of it so far."""

    def __init__(self, run: RunProcess, case: Case, nodeid: str = "") -> None:
        self.run = run
        self.case = case
        self.nodeid = nodeid or nodeid_of(case)
        self.error: ErrorInfo | None = None
        self.known_failure = known_failures.declared(run.catalog, case)
        self.observed = Observed()
        self._prepared: tuple[CasePipeline, Prepared] | None = None
        self._started = files.now()
        self._begin = time.monotonic()

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
        Raises `HarnessError`: of the stage that failed.
        """
        pipeline = self.run.workbench.for_case(self.case)
        self.observed = pipeline.observed
        self.run.workbench.pool.held = self.observed.leases
        with self._listing():
            self._prepared = pipeline, pipeline.prepare()

    def measure(self) -> Verdict:
        """Measure on a leased device and judge; look for the cause of what failed.
        Raises `HarnessError`: of the stage that failed.
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
