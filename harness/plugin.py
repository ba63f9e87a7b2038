"""All of pytest: options, parametrisation, fixtures, records of cases, the report at the end.

Hooks delegate in a line or two to `Acceptance`, the state of one pytest process. Everything below
this module can be used from Python without pytest.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shlex
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Generator, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Literal, NoReturn

import pytest

from harness import settings, simulator
from harness.base import files, host, processes
from harness.base.errors import HarnessError
from harness.base.progress import Progress
from harness.base.terms import Outcome
from harness.catalog.load import load_catalog
from harness.catalog.schema import Catalog, KnownFailure
from harness.judge import causes, run_checks
from harness.plan import Case, Plan, make_plan, missing, missing_text
from harness.records import lines, reader, writer
from harness.records.lines import CaseLine, PlannedCase
from harness.records.values import ArtifactRef, ErrorInfo, Verdict
from harness.report import exports
from harness.report.guide_figures import guide_figures
from harness.settings import OPTIONS, ROOT, Settings
from harness.targets import registry

STATE = pytest.StashKey["Acceptance"]()
RESULT = pytest.StashKey["CaseResult"]()
# The hook that tells of an interruption gets no configuration.
INTERRUPTED = threading.Event()
_NODEID = re.compile(r"::test_(accuracy|throughput)\[(?P<id>[^\]]+)\]$")


class CaseResult:
    """What one item did, gathered over its phases and written as one line when it ends."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.started = files.now()
        self.begin = time.monotonic()
        self.bench: Any = None  # a CaseBench; typed loosely: imported only when cases run
        self.error: ErrorInfo | None = None


class Acceptance:
    """Settings, catalog, plan and run directory of one pytest process."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        # Attributes that xdist sets on its workers.
        self.worker: dict[str, Any] = getattr(config, "workerinput", {})
        self.is_worker = bool(self.worker)
        option = {o.name: config.getoption(o.name, default=None) for o in OPTIONS}
        ini = {o.name: str(config.getini(o.ini) or "") for o in OPTIONS}
        self.settings: Settings = settings.resolve(
            option, ini={o.ini: ini[o.name] for o in OPTIONS}, base=config.invocation_params.dir
        )
        if not self.worker:
            self.settings = registry.located(self.settings)
        elif self.worker.get("acceptance_target"):
            target = self.worker["acceptance_target"]
            self.settings = settings.with_target(self.settings, target)
        # What the settings would be if nothing but the kind of run were said.
        kind = {name: getattr(self.settings, name) for name in ("rehearsal", "simulate_ascend")}
        self._plain = settings.resolve(kind, environment={})
        registry.check(self.settings)
        self.run_id: str = self.worker.get("acceptance_run", "") or writer.new_run_id()
        self.run_dir: Path = self.settings.runs / self.run_id
        self.begin = time.monotonic()
        self.active = False
        self.finished = False
        self.planned: tuple[PlannedCase, ...] = ()
        self._catalog: Catalog | None = None
        self._plan: Plan | None = None
        self._ahead: Any = None  # an Ahead, once a case is measured on a device of its own
        self._told: dict[tuple[str, str], str] = {}  # builds that failed, and whose error said it
        self.progress = self._make_progress()

    def _make_progress(self) -> Progress:
        # pytest's capture is suspended while plugins are configured: this is the real stderr.
        worker = self.worker.get("workerid", "")
        fd = os.dup(2)
        terminal = not self.is_worker and os.isatty(fd) and os.environ.get("TERM") != "dumb"
        return Progress(fd, terminal=terminal, prefix=f"[{worker}] " if worker else "  ... ")

    @property
    def catalog(self) -> Catalog:
        if self._catalog is None:
            self._catalog = load_catalog(self.settings.catalog)
        return self._catalog

    @property
    def plan(self) -> Plan:
        if self._plan is None:
            self._plan = make_plan(self.catalog, self.settings)
        return self._plan

    # The run -----------------------------------------------------------------------------

    def begin_run(self, nodeids: Sequence[str]) -> None:
        """Note the cases that were asked for, or end with what they lack.

        Called once the selection is known, on the side that reports: not in xdist's workers.
        """
        if self.active:
            return
        by_id = {(case.check, case.id): case for case in self.plan.cases}
        chosen: list[tuple[str, Case]] = []
        for nodeid in nodeids:
            match = _NODEID.search(nodeid)
            case = by_id.get((match[1], match["id"])) if match else None  # type: ignore[arg-type]
            if case is not None:
                chosen.append((nodeid, case))
        if not chosen:
            return
        lacking = missing(self.settings, [case for _, case in chosen])
        if lacking:
            raise pytest.UsageError(missing_text(lacking, len(chosen)))
        self.active = True
        processes.ending.clear()
        self.planned = tuple(case.planned(nodeid) for nodeid, case in chosen)
        try:
            self.run_dir.mkdir(parents=True)
            _point_latest(self.settings.runs, self.run_id)
            self._first_lines()
        except (OSError, HarnessError) as error:
            self.active = False  # there is nothing to finish
            _cannot_write(self.run_dir, error)
        self.progress.begin(self._expected(chosen))

    def _first_lines(self) -> None:
        """What was asked for, before any of it runs."""
        writer.append(
            self.run_dir,
            lines.RunLine(
                run=self.run_id,
                provenance=self.settings.provenance,
                started=files.now(),
                command=["pytest", *map(str, self.config.invocation_params.args)],
                directory=str(self.run_dir),
                git=host.git_revision(ROOT),
                catalog_digest=self.catalog.digest,
                machine=host.machine(),
                versions=host.versions(),
                settings=self.settings.to_json(),
                guide_figures=guide_figures(
                    self.catalog,
                    [planned.model for planned in self.planned],
                    self.settings.provenance,
                ),
            ),
        )
        writer.append(self.run_dir, lines.PlanLine(run=self.run_id, cases=list(self.planned)))

    def _expected(self, chosen: Sequence[tuple[str, Case]]) -> dict[str, float | None]:
        """Seconds that earlier runs let expect of each case; see `python -m harness plan`."""
        from harness import estimates as expected

        images = self.settings.rehearsal_images if self.settings.stand_ins else None
        cases = [case for _, case in chosen]
        times = expected.estimates(cases, self.settings, self.catalog, images=images)
        return {nodeid: times[case].work_s for nodeid, case in chosen}

    def finish_run(self, session: pytest.Session) -> None:
        """Check the sum, write the last line and the report; a lost case fails the run."""
        if self.is_worker or not self.active or self.finished:
            return
        self.finished = True
        self.progress.end()
        found = self._with_checks(reader.read(self.run_dir))
        counts = found.counts()
        complete = (
            len(found.cases) == len(self.planned)
            and counts["not_run"] == 0
            and sum(counts.values()) == len(self.planned)
        )
        # pytest counts a skipped case as no failure; here nothing skips to green. A run that was
        # interrupted, or in which pytest itself failed, keeps pytest's code.
        stopped = _why_stopped(session)
        ended = [pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED]
        if not INTERRUPTED.is_set():
            ended.append(pytest.ExitCode.INTERRUPTED)  # what xdist calls the end by -x
        if session.exitstatus in ended:
            mine = causes.exit_code(
                found.cases,
                found.checks,
                complete=complete,
                allow_inconclusive=self.settings.allow_inconclusive,
                stopped=bool(stopped),
            )
            if mine != causes.Exit.PASSED or session.testsfailed == 0:
                session.exitstatus = int(mine)
        end = lines.EndLine(
            run=self.run_id,
            finished=files.now(),
            planned=len(self.planned),
            counts=counts,
            complete=complete,
            stopped=stopped,
            exit_status=int(session.exitstatus),
            seconds=round(time.monotonic() - self.begin, 3),
        )
        writer.append(self.run_dir, end)
        from harness.report import write_report

        try:
            write_report(self.run_dir, images_at_hand=True)
            exports.write_all(self.run_dir)
        except HarnessError:
            # The last end line counts: a run without its report did not end well.
            failed = int(session.exitstatus) == causes.Exit.ACCEPTANCE_FAILED
            status = int(session.exitstatus) if failed else int(causes.Exit.MACHINE_TROUBLE)
            with contextlib.suppress(HarnessError):
                writer.append(self.run_dir, end.model_copy(update={"exit_status": status}))
            raise
        try:
            exports.append_step_summary(reader.read(self.run_dir), os.environ)
        except HarnessError as error:
            sys.stderr.write(f"\n{error}\n")

    def _with_checks(self, found: reader.RunRecords) -> reader.RunRecords:
        """The records with the lines of what is judged over all cases."""
        try:
            for line in run_checks.run_checks(found, self.catalog):
                writer.append(self.run_dir, line)
        except HarnessError as error:
            sys.stderr.write(f"\n{error}\n")
            sentence = f"could not be judged: {error.message}"
            self._write_check("run checks", "all cases", "failed", sentence)
        for sentence in simulator.never_struck(self.run_dir / "simulator"):
            # Whoever planted it would take a run that was never harmed for one that bore it.
            self._write_check("planted fault", "the simulated host", "recorded", sentence)
        return reader.read(self.run_dir)

    def _write_check(
        self, name: str, subject: str, outcome: Literal["failed", "recorded"], sentence: str
    ) -> None:
        """The line of something that is said of the whole run, and of no model."""
        line = lines.RunCheckLine(
            run=self.run_id,
            name=name,
            subject=subject,
            model="",
            target=self.settings.target or "",
            provenance=self.settings.provenance,
            outcome=outcome,
            sentence=sentence,
        )
        writer.append(self.run_dir, line)

    def build_ahead(self, request: pytest.FixtureRequest) -> None:
        """Build what later cases of this process need while a device is measured.

        Not where the host's CPU is the device: builds would be measured with it.
        """
        bench = request.getfixturevalue("workbench")
        if self._ahead is not None or bench.target.runs_on_host:
            return
        from harness.stages.ahead import Ahead

        cases = [
            item.callspec.params["case"]
            for item in request.session.items
            if hasattr(item, "callspec") and isinstance(item.callspec.params.get("case"), Case)
        ]
        self._ahead = Ahead(self.settings, self.catalog, self.run_dir, cases)

    def stop_building(self) -> None:
        """End what a thread builds ahead, and whatever this process has started otherwise."""
        if self._ahead is not None:
            self._ahead.stop()
            processes.end_what_runs()

    # Cases -------------------------------------------------------------------------------

    def case_line(self, item_nodeid: str, result: CaseResult) -> CaseLine:
        """The one line of a case that ended on this side, as far as it has come."""
        case, bench, verdict = result.case, result.bench, None
        if bench is not None:
            verdict = bench.verdict
        outcome, sentence = _outcome(result.error, verdict, self.known_failure(case))
        if outcome in ("failed", "error"):
            sentence += self._ended_excuse(case)
        return CaseLine(
            **{**self._about(case, item_nodeid), **({} if bench is None else _of_bench(bench))},
            outcome=outcome,
            sentence=sentence,
            error=result.error,
            worker=self.worker.get("workerid", ""),
            started=result.started,
            seconds=round(time.monotonic() - result.begin, 3),
            **({} if verdict is None else _of_verdict(verdict)),
        )

    def told(self, case: Case, error: HarnessError) -> str:
        """An error as the terminal has it: of a build that failed before, only where it is told.

        The case's record has all of it.
        """
        key = (error.stage, error.message.removesuffix(causes.REMEMBERED))
        before = self._told.setdefault(key, case.name)
        if before == case.name or not error.message.endswith(causes.REMEMBERED):
            return str(error)
        return f"[{error.stage}] the same failure as in {before}, see there; not tried again"

    def _about(self, case: Case, nodeid: str) -> dict[str, Any]:
        """What a line says of a case however it ended."""
        model = self.catalog.models[case.model]
        return {
            "run": self.run_id,
            **case.planned(nodeid).model_dump(),
            "title": model.title,
            "provenance": self.settings.provenance,
            "preprocessing": model.preprocessing.describe(),
            "machine": host.machine(),
            "versions": host.versions(),
            "repeat": self._repeat(case),
        }

    def known_failure(self, case: Case) -> KnownFailure | None:
        """What the catalog excuses the case for, while the excuse lasts."""
        today = datetime.now(UTC).date()
        for known in self._declared(case):
            if not known.expired(today):
                return known
        return None

    def _declared(self, case: Case) -> list[KnownFailure]:
        found = self.catalog.known_failures
        return [known for known in found if known.matches(case.id, case.check)]

    def _ended_excuse(self, case: Case) -> str:
        """What is said of a case that was excused until some day."""
        declared = self._declared(case)
        if not declared or self.known_failure(case) is not None:
            return ""
        last = max(declared, key=lambda known: known.expires or date.min)
        return f"; its excuse ({last.link}) ended on {last.expires}"

    def write_crash(self, nodeid: str, text: str) -> CaseLine | None:
        """Write the line of a case whose xdist worker died; None where no such case was planned."""
        self.progress.ended(nodeid)
        planned = next((p for p in self.planned if p.nodeid == nodeid), None)
        if planned is None:
            return None
        error = ErrorInfo(
            type="Crash",
            stage="worker",
            message="the pytest worker that ran the case died",
            remedy="look at the worker's last log in the run directory; memory may have run out",
            log=text,
        )
        case = Case(planned.model, planned.batch_size, planned.target, planned.check)
        line = CaseLine(
            **self._about(case, nodeid),
            outcome="crashed",
            sentence=f"{error.message}: {text.splitlines()[0] if text else ''}",
            error=error,
        )
        writer.append(self.run_dir, line)
        return line

    def _repeat(self, case: Case) -> list[str]:
        """The command that does one case again, with every setting that could change it."""
        words = ["pytest", "-m", case.check]
        for option in OPTIONS:
            value = getattr(self.settings, option.name)
            if option.name == "models":
                value = (case.model,)
            elif option.name == "batch_sizes":
                value = (case.batch_size,)
            elif option.name in ("rehearsal", "simulate_ascend"):
                if not value:
                    continue
            elif value == getattr(self._plain, option.name) or option.name == "runs":
                continue
            if option.kind == "flag":
                words.append(option.flag)
            elif option.kind == "pairs":
                words += [f"{option.flag}={name}={path}" for name, path in value]
            else:
                text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
                words.append(f"{option.flag}={text}")
        return [shlex.join(words)]


def _outcome(
    error: ErrorInfo | None, verdict: Verdict | None, known: KnownFailure | None
) -> tuple[Outcome, str]:
    """How a case ended. A known failure is strict: another stage, or a pass, fails.

    A case that never came to its model says nothing of what is declared, and ends as others do;
    one that was judged has not failed before, whatever was decided.
    """
    if error is not None:
        outcome, sentence = "error", f"[{error.stage}] {error.message}"
        stage = error.stage
    elif verdict is None:
        return "error", "the case ended without a verdict"
    else:
        outcome, sentence = run_checks.OUTCOME_OF[verdict.kind], verdict.sentence
        stage = "verdict" if outcome == "failed" else ""
    if known is None:
        return outcome, sentence  # type: ignore[return-value]
    if stage == known.stage:
        return "known_failure", f"failed as declared ({known.link}): {sentence}"
    beyond = error is not None and causes.says_nothing_of_the_model(error)
    if beyond or (outcome == "inconclusive" and known.stage == "verdict"):
        open_ = f"declared to fail at {known.stage} ({known.link}), which stays open"
        return outcome, f"{sentence}; {open_}"  # type: ignore[return-value]
    happened = f"it failed at {stage}" if stage else "it did not fail"
    return "failed", (
        f"declared to fail at {known.stage} ({known.link}), but {happened}: {sentence}. "
        "Change known_failures in the catalog"
    )


def _of_bench(bench: Any) -> dict[str, Any]:
    artifacts: list[ArtifactRef] = list(bench.artifacts)
    return {
        "measurement": bench.measurement,
        "checkpoint": bench.checkpoint_info,
        "images": bench.image_info,
        "artifacts": artifacts,
        "stages": list(bench.stages),
        "diagnosis": bench.diagnosis,
        "versions": {
            **host.versions(),
            **{
                name: str(text)
                for name, text in bench.device_info.get("toolchain", {}).items()
                if name in ("cann", "driver", "firmware")
            },
        },
        "device": {
            **bench.device_info,
            **({"failed_before": list(bench.attempts)} if bench.attempts else {}),
        },
    }


def _of_verdict(verdict: Verdict) -> dict[str, Any]:
    difference = verdict.difference_percent
    return {
        "unit": verdict.unit,
        "measured": verdict.measured,
        "reference": verdict.reference,
        "difference_percent": None if difference is None else round(difference, 4),
        "verdict": Verdict(
            kind=verdict.kind,
            sentence=verdict.sentence,
            rule=verdict.rule,
            figures=dict(verdict.figures),
        ),
    }


def _why_stopped(session: pytest.Session) -> str:
    """Why pytest was told to end before its last case; empty where it was not."""
    if session.shouldfail:
        most = int(session.config.getoption("maxfail"))
        return "after the first failure (-x)" if most == 1 else f"after {most} failures (--maxfail)"
    return f"early: {session.shouldstop}" if session.shouldstop else ""


def _cannot_write(folder: Path, error: OSError | HarnessError) -> NoReturn:
    """End before anything runs: a full disk is the machine's trouble, a wrong place an input."""
    if isinstance(error, HarnessError):
        pytest.exit(str(error), returncode=int(causes.Exit.MACHINE_TROUBLE))
    text = f"cannot make {folder}: {error.strerror or error}\n"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        pytest.exit(
            f"{text}  free disk space, or choose another place with --runs=DIR",
            returncode=int(causes.Exit.MACHINE_TROUBLE),
        )
    raise pytest.UsageError(f"{text}  choose another place with --runs=DIR") from None


def _point_latest(runs: Path, run_id: str) -> None:
    """`runs/latest` follows the newest run, for commands and bookmarks."""
    link = runs / "latest"
    fresh = runs / f".latest-{run_id}"
    try:
        fresh.symlink_to(run_id, target_is_directory=True)
        fresh.replace(link)
    except OSError:  # somebody's folder of that name stays
        with contextlib.suppress(OSError):
            fresh.unlink()


def _end_with_parent(parent: int) -> None:
    """An xdist worker whose controller was killed would go on and hold its device."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(70)


class _Finished:
    """Counts cases as they end, on the side that reports: the hook brings no config with it."""

    def __init__(self, state: Acceptance) -> None:
        self._state = state

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self._state.progress.ended(nodeid)


def _state(config: pytest.Config) -> Acceptance:
    return config.stash[STATE]


# Options ---------------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    """The harness's options, each with a variable and a key of `pytest.ini`."""
    for one in settings.GROUPS:
        parser.getgroup(f"acceptance: {one.title}", f"acceptance: {one.title}, e.g. {one.example}")
    for option in OPTIONS:
        group = parser.getgroup(f"acceptance: {option.group.title}")
        text = f"{option.help} [${option.environment}]"
        if option.kind == "flag":
            group.addoption(
                option.flag, dest=option.name, action="store_true", default=None, help=text
            )
        else:
            repeats = option.kind in ("list", "pairs")
            group.addoption(
                option.flag,
                dest=option.name,
                action="append" if repeats else "store",
                default=None,
                metavar=option.metavar,
                help=text,
            )
        parser.addini(option.ini, help=option.help.replace("%%", "%"), default="")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Read the settings; options that do not fit are errors of usage."""
    try:
        state = Acceptance(config)
    except HarnessError as error:
        raise pytest.UsageError(str(error)) from None
    config.stash[STATE] = state
    config.pluginmanager.register(_Finished(state))
    if threading.current_thread() is threading.main_thread() and not state.is_worker:
        # What ends a night from outside is an interruption like Ctrl-C: records, report, code 2.
        signal.signal(signal.SIGTERM, _interrupt)
        # Not where it is ignored, as in a shell's background job, or somebody else's.
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, _interrupt)
    if state.is_worker:
        threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    if getattr(config.option, "dist", "no") == "each":
        raise pytest.UsageError("--dist=each runs each case several times; use --dist=load")
    wanted = state.settings.configured and not config.option.collectonly
    if not wanted or state.is_worker:
        return
    try:
        state.settings.runs.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        _cannot_write(state.settings.runs, error)


def _interrupt(number: int, frame: Any) -> NoReturn:
    """Once: `timeout` signals the process and its group, and who waits presses Ctrl-C again.

    The second would hit the end: pytest's own hooks, before the session's finish is guarded.
    """
    for one in (signal.SIGINT, signal.SIGTERM):
        signal.signal(one, signal.SIG_IGN)
    raise KeyboardInterrupt


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Read the catalog before anything is collected: its errors are errors of usage."""
    try:
        _ = _state(session.config).plan
    except HarnessError as error:
        raise pytest.UsageError(str(error)) from None


# Collection ------------------------------------------------------------------------------


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One item for each case of the test's check."""
    if "bench" not in metafunc.fixturenames:
        return
    for check in ("accuracy", "throughput"):
        if metafunc.definition.get_closest_marker(check) is not None:
            cases = _state(metafunc.config).plan.of(check)
            metafunc.parametrize("case", cases, ids=[case.id for case in cases])


def pytest_collection_finish(session: pytest.Session) -> None:
    """Without xdist the selection is known here."""
    state = _state(session.config)
    if not state.is_worker and not session.config.option.collectonly:
        state.begin_run([item.nodeid for item in session.items])


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """xdist's workers write into the run of the controller."""
    state = _state(node.config)
    node.workerinput["acceptance_run"] = state.run_id
    node.workerinput["acceptance_target"] = state.settings.target or ""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_node_collection_finished(node: Any, ids: Sequence[str]) -> None:
    """With xdist the selection is known when a worker has collected."""
    _state(node.config).begin_run(ids)


# Fixtures --------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def workbench(request: pytest.FixtureRequest) -> Any:
    """Store, target and run directory of this process."""
    from harness.stages.pipeline import Workbench

    state = _state(request.config)
    return Workbench(state.settings, state.catalog, state.run_dir, state.progress)


@pytest.fixture
def bench(case: Case, workbench: Any, request: pytest.FixtureRequest) -> Any:
    """The case's view of the workbench."""
    found = workbench.for_case(case)
    request.node.stash[RESULT].bench = found
    return found


@pytest.fixture
def prepared(bench: Any) -> Any:
    """Everything that the check needs, built or taken from the store."""
    return bench.prepare()


@pytest.fixture
def measure(bench: Any, prepared: Any, request: pytest.FixtureRequest) -> Callable[[], Verdict]:
    """The case's check on a leased device, when it is called; meanwhile other cases are built."""
    from harness.measure import attempt as measuring

    _state(request.config).build_ahead(request)
    return lambda: measuring.measure(bench, prepared)


@pytest.fixture
def accept(bench: Any, request: pytest.FixtureRequest) -> Callable[[Verdict], None]:
    """Take a verdict: a FAIL, or an INCONCLUSIVE one, fails the test with its sentence."""
    allow = _state(request.config).settings.allow_inconclusive

    def take(verdict: Verdict) -> None:
        bench.verdict = verdict
        if verdict.kind == "FAIL" or (verdict.kind == "INCONCLUSIVE" and not allow):
            pytest.fail(f"{verdict.kind}: {verdict.sentence}", pytrace=False)

    return take


# Outcomes --------------------------------------------------------------------------------


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Gather what a case does, and write its line when it ends."""
    callspec = getattr(item, "callspec", None)
    case = None if callspec is None else callspec.params.get("case")
    if isinstance(case, Case):
        item.stash[RESULT] = CaseResult(case)
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, Any, Any]:
    """Errors of the harness become one readable text; the last phase writes the case's line."""
    report = yield
    result = item.stash.get(RESULT, None)
    if result is None:
        return report
    if call.excinfo is not None:
        error = call.excinfo.value
        if isinstance(error, HarnessError):
            report.longrepr = f"{result.case.name}: {_state(item.config).told(result.case, error)}"
        if not isinstance(error, pytest.fail.Exception):
            result.error = result.error or _error_info(error)
    state = _state(item.config)
    line = state.case_line(item.nodeid, result)
    if state.known_failure(result.case) is not None and (call.when == "call" or report.failed):
        if line.outcome == "known_failure":
            report.outcome, report.wasxfail = "skipped", line.sentence
        elif line.outcome == "failed":
            report.outcome, report.longrepr = "failed", line.sentence
    if call.when == "teardown":
        try:
            writer.append(state.run_dir, line)
        except HarnessError as error:
            # The sum at the end will lack the case: the run cannot end green.
            report.outcome, report.longrepr = "failed", f"{result.case.name}: {error}"
    elif call.when == "call" or not report.passed:
        report.acceptance = _columns(line)
        item.user_properties.extend(report.acceptance.items())
        report.user_properties = list(item.user_properties)
    return report


def _columns(line: CaseLine) -> dict[str, str]:
    """What pytest-html's columns and junit's properties say of a case."""
    difference = line.difference_percent
    return {
        "outcome": line.outcome,
        "measured": _figure(line.measured, line.unit),
        "reference": _figure(line.reference.value if line.reference else None, line.unit),
        "difference": "" if difference is None else f"{difference:+.2f} %",
        "sentence": line.sentence,
        "provenance": line.provenance,
    }


def _error_info(error: BaseException) -> ErrorInfo:
    if isinstance(error, HarnessError):
        return ErrorInfo(**error.to_json())
    lines = str(error).strip().splitlines() or ["no message"]
    return ErrorInfo(
        type=type(error).__name__,
        stage="harness",
        message=f"{type(error).__name__}: {lines[0]}",
        remedy="this is a fault of the harness: please report it with the log",
        log="".join(traceback.format_exception(error))[-8000:],
    )


def _figure(value: float | None, unit: str) -> str:
    return "" if value is None else f"{value:.4g} {unit}".strip()


def pytest_report_teststatus(report: Any) -> tuple[str, str, Any] | None:
    """Words and letters of outcomes that pytest does not know."""
    outcome = getattr(report, "acceptance", {}).get("outcome")
    if report.when == "call" and outcome == "recorded" and report.passed:
        return "recorded", "r", ("RECORDED", {"blue": True})
    if report.when == "call" and outcome == "inconclusive":
        return "inconclusive", "i", ("INCONCLUSIVE", {"yellow": True})
    return None


@pytest.hookimpl(optionalhook=True)
def pytest_handlecrashitem(crashitem: str, report: Any, sched: Any) -> None:
    """xdist lost a worker: its case still gets its line."""
    state = _state(sched.config)
    line = state.write_crash(crashitem, str(report.longrepr)) if state.active else None
    if line is not None:
        report.acceptance = _columns(line)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_logreport(report: Any) -> None:
    """pytest-html drops reports of no phase: a crashed case ends in its teardown."""
    if report.when == "???":
        report.when = "teardown"


@pytest.hookimpl(tryfirst=True)
def pytest_keyboard_interrupt(excinfo: pytest.ExceptionInfo[BaseException]) -> None:
    """xdist ends a run by -x as if somebody had pressed Ctrl-C; its class tells the two apart."""
    if excinfo.type is KeyboardInterrupt:
        INTERRUPTED.set()


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> Generator[None]:
    """The sum, the last line and the report; nothing that was started lives on.

    Inside of pytest's own summary, and after xdist has ended its workers: they write lines.
    """
    state = _state(session.config)
    with _uninterrupted(state):
        state.stop_building()
        yield
        try:
            state.finish_run(session)
        except HarnessError as error:
            if session.exitstatus != causes.Exit.ACCEPTANCE_FAILED:
                session.exitstatus = int(causes.Exit.MACHINE_TROUBLE)
            sys.stderr.write(f"\n{error}\n")


@contextlib.contextmanager
def _uninterrupted(state: Acceptance) -> Generator[None]:
    """The end of a run is bounded, and a second Ctrl-C would cost its records and its report."""
    if state.is_worker or threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, signal.SIG_IGN) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """The run in a few lines, and where its report is."""
    state = _state(config)
    if state.is_worker or not state.finished:
        return
    from harness.report import summary_lines

    terminalreporter.section("acceptance")
    for line in summary_lines(reader.read(state.run_dir)):
        terminalreporter.write_line(line)
    report = state.run_dir / "report.html"
    terminalreporter.write_line(f"report: {report if report.is_file() else 'not written'}")


# pytest-html -----------------------------------------------------------------------------

_COLUMNS = ("Verdict", "Measured", "Reference", "Difference", "Why")


_WARNING = {
    "rehearsal": "REHEARSAL: generated images and stand-in weights. "
    "Says nothing about any published figure.",
    "simulated": "SIMULATED NPU. Says nothing about any published figure.",
}


@pytest.hookimpl(optionalhook=True)
def pytest_html_report_title(report: Any) -> None:
    """The page says what it is before anything else."""
    report.title = "Acceptance of deployed models"


@pytest.hookimpl(optionalhook=True)
def pytest_html_results_summary(
    prefix: list[str], summary: list[str], postfix: list[str], session: pytest.Session
) -> None:
    """A banner that no one misses, where figures are not what they seem."""
    state = _state(session.config)
    warning = _WARNING.get(state.settings.provenance) if state.active else None
    if warning is not None:
        prefix.append(
            '<p style="padding:.6em;font-weight:bold;color:#000;background:#ffd21f;'
            f'border:4px dashed #000">{warning}</p>'
        )


@pytest.hookimpl(optionalhook=True)
def pytest_html_results_table_header(cells: list[str]) -> None:
    """Our columns after the test's name."""
    cells[2:2] = [f"<th>{name}</th>" for name in _COLUMNS]


@pytest.hookimpl(optionalhook=True)
def pytest_html_results_table_row(report: Any, cells: list[str]) -> None:
    """Figures of a case; other tests have empty cells."""
    from html import escape

    found = getattr(report, "acceptance", {})
    values = [
        found.get("outcome", ""),
        found.get("measured", ""),
        found.get("reference", ""),
        found.get("difference", ""),
        found.get("sentence", ""),
    ]
    if found.get("provenance", "real") != "real":
        values[0] = f"{values[0]} ({found['provenance']})"
    cells[2:2] = [f"<td>{escape(value)}</td>" for value in values]
