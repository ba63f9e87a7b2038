"""pytest's side of a run: options, parametrisation, fixtures and hooks, translated for the engine.

What a run is stands in `harness.run`; nothing below this module imports pytest.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import nullcontext
from typing import Any, NoReturn

import pytest

from harness import settings
from harness.base import signals
from harness.base.errors import HarnessError, RecordError
from harness.judge.causes import Exit
from harness.plan import Case
from harness.records import writer
from harness.records.verdicts import Verdict
from harness.report import pytest_html
from harness.run.case_record import nodeid_of
from harness.run.engine import CaseRun, Run, progress_on_stderr

RUN = pytest.StashKey[Run]()
CASE = pytest.StashKey[CaseRun]()
INTERRUPTED = threading.Event()  # the hook that tells of an interruption gets no configuration
_WORDS = {
    "recorded": ("recorded", "r", ("RECORDED", {"blue": True})),
    "inconclusive": ("inconclusive", "i", ("INCONCLUSIVE", {"yellow": True})),
}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the harness's options, each with a variable and a key of `pytest.ini`."""
    for one in settings.GROUPS:
        parser.getgroup(f"acceptance: {one.title}", f"acceptance: {one.title}, e.g. {one.example}")
    for option in settings.OPTIONS:
        group = parser.getgroup(f"acceptance: {option.group.title}")
        how: dict[str, Any] = {"action": "store_true"}
        if option.kind != "flag":
            repeats = option.kind in ("list", "pairs")
            how = {"action": "append" if repeats else "store", "metavar": option.metavar}
        text = f"{option.help} [${option.environment}]"
        group.addoption(option.flag, dest=option.name, default=None, help=text, **how)
        parser.addini(option.ini, help=option.help.replace("%%", "%"), default="")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Read the settings; options that do not fit are errors of usage."""
    worker: dict[str, Any] = getattr(config, "workerinput", {})  # xdist sets it on its workers
    try:
        run = config.stash[RUN] = _make_run(config, worker)
        if getattr(config.option, "dist", "no") == "each":
            raise pytest.UsageError("--dist=each runs each case several times; use --dist=load")
        if run.settings.configured and not (worker or config.option.collectonly):
            run.make_place()
    except HarnessError as error:
        _refuse(error)
    config.pluginmanager.register(_Ended(run))
    if config.pluginmanager.hasplugin("html"):
        shown = pytest_html.Columns(lambda: run.settings.provenance if run.begun else None)
        config.pluginmanager.register(shown)
    if worker:
        signals.end_with_parent(os.getppid())
    elif threading.current_thread() is threading.main_thread():
        # What ends a night from outside is an interruption like Ctrl-C: records, report, code 2.
        signals.listen()


def _make_run(config: pytest.Config, worker: dict[str, Any]) -> Run:
    given = {one.name: config.getoption(one.name, default=None) for one in settings.OPTIONS}
    given["target"] = worker.get("acceptance_target") or given["target"]
    ini = {one.ini: str(config.getini(one.ini) or "") for one in settings.OPTIONS}
    return Run(
        settings.resolve(given, ini=ini, base=config.invocation_params.dir),
        run_id=worker.get("acceptance_run", ""),
        worker=worker.get("workerid", ""),
        command=("pytest", *map(str, config.invocation_params.args)),
        # pytest's capture is suspended while plugins are configured: this is the real stderr.
        progress=progress_on_stderr(worker.get("workerid", "")),
    )


def _refuse(error: HarnessError) -> NoReturn:
    """End before anything runs: a full disk is the machine's trouble, all else an input."""
    if isinstance(error, RecordError):
        pytest.exit(str(error), returncode=int(Exit.MACHINE_TROUBLE))
    raise pytest.UsageError(str(error)) from None


class _Ended:
    """Counts cases as they end, on the side that reports: the hook brings no config with it."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self._run.progress.ended(nodeid)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Read the catalog before anything is collected: its errors are errors of usage."""
    try:
        _ = session.config.stash[RUN].plan
    except HarnessError as error:
        _refuse(error)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make one item for each case of the test's check."""
    for check in ("accuracy", "throughput"):
        marked = metafunc.definition.get_closest_marker(check) is not None
        if marked and "measure" in metafunc.fixturenames:
            cases = metafunc.config.stash[RUN].plan.of(check)
            metafunc.parametrize("case", cases, ids=[case.id for case in cases])


def pytest_collection_finish(session: pytest.Session) -> None:
    """Without xdist the selection is known here."""
    run = session.config.stash[RUN]
    run.upcoming = tuple(case for item in session.items if (case := _case_of(item)))
    if not run.worker and not session.config.option.collectonly:
        _begin(run, [item.nodeid for item in session.items])


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """xdist's workers write into the run of the controller."""
    run = node.config.stash[RUN]
    node.workerinput["acceptance_run"] = run.id
    node.workerinput["acceptance_target"] = run.settings.target


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_node_collection_finished(node: Any, ids: Sequence[str]) -> None:
    """With xdist the selection is known when a worker has collected."""
    _begin(node.config.stash[RUN], ids)


def _begin(run: Run, nodeids: Sequence[str]) -> None:
    known = {_last(nodeid_of(case)): case for case in run.plan.cases}
    cases = [(nodeid, known[_last(nodeid)]) for nodeid in nodeids if _last(nodeid) in known]
    try:
        if cases and not run.begun:
            run.begin(cases)
    except HarnessError as error:
        _refuse(error)


def _last(nodeid: str) -> str:
    return nodeid.rpartition("::")[2]  # whatever pytest's root is


def _case_of(item: pytest.Item) -> Case | None:
    case = item.callspec.params.get("case") if hasattr(item, "callspec") else None
    return case if isinstance(case, Case) else None


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Gather what a case does from its first moment."""
    if case := _case_of(item):
        item.stash[CASE] = CaseRun(item.config.stash[RUN], case, item.nodeid)


@pytest.fixture
def measure(case: Case, request: pytest.FixtureRequest) -> Callable[[], Verdict]:
    """The case's check on a leased device, when it is called; all it needs is built before."""
    run: CaseRun = request.node.stash[CASE]
    run.prepare()
    return run.measure


@pytest.fixture
def accept(request: pytest.FixtureRequest) -> Callable[[Verdict], None]:
    """Take a verdict: a FAIL, or an INCONCLUSIVE one, fails the test with its sentence."""

    def take(verdict: Verdict) -> None:
        if request.node.stash[CASE].fails:
            pytest.fail(f"{verdict.kind}: {verdict.sentence}", pytrace=False)

    return take


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, Any, Any]:
    """Turn errors of the harness into one readable text; the last phase writes the case's line."""
    report = yield
    case = item.stash.get(CASE, None)
    if case is None:
        return report
    if call.excinfo is not None:
        error = call.excinfo.value
        if isinstance(error, HarnessError):
            report.longrepr = f"{case.case.name}: {case.run.describe(case.case, error)}"
        if not isinstance(error, pytest.fail.Exception):
            case.failed(error)
    line, end = case.line(), case.end
    if end.excused and (call.when == "call" or report.failed):
        report.outcome, report.wasxfail = "skipped", end.sentence
    elif end.broken and (call.when == "call" or report.failed):
        report.outcome, report.longrepr = "failed", end.sentence
    if call.when == "teardown":
        try:
            writer.append(case.run.directory, line)
        except HarnessError as error:
            # The sum at the end will lack the case: the run cannot end green.
            report.outcome, report.longrepr = "failed", f"{case.case.name}: {error}"
    elif call.when == "call" or not report.passed:
        report.acceptance = pytest_html.columns(line)
        item.user_properties.extend(report.acceptance.items())
        report.user_properties = list(item.user_properties)
    return report


def pytest_report_teststatus(report: Any) -> tuple[str, str, Any] | None:
    """Words and letters of outcomes that pytest does not know."""
    outcome = getattr(report, "acceptance", {}).get("outcome", "")
    shown = report.when == "call" and (report.passed or outcome == "inconclusive")
    return _WORDS.get(outcome) if shown else None


@pytest.hookimpl(optionalhook=True)
def pytest_handlecrashitem(crashitem: str, report: Any, sched: Any) -> None:
    """xdist lost a worker: its case still gets its line."""
    line = sched.config.stash[RUN].crashed(crashitem, str(report.longrepr))
    if line is not None:
        report.acceptance = pytest_html.columns(line)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_logreport(report: Any) -> None:
    """pytest-html drops reports of no phase: a crashed case ends in its teardown."""
    if report.when == "???":
        report.when = "teardown"


@pytest.hookimpl(tryfirst=True)
def pytest_keyboard_interrupt(excinfo: pytest.ExceptionInfo[BaseException]) -> None:
    """xdist ends a run by -x as if somebody had pressed Ctrl-C; its class differs."""
    if excinfo.type is KeyboardInterrupt:
        INTERRUPTED.set()


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> Generator[None]:
    """End the run, after xdist has ended its workers; nothing that was started lives on."""
    run = session.config.stash[RUN]
    with nullcontext() if run.worker else signals.uninterrupted():
        run.stop_building()
        yield
        if run.begun:
            _finish(session, run)


def _finish(session: pytest.Session, run: Run) -> None:
    decided: list[int] = []  # nothing, where the records could not even be read

    def decide(code: Exit) -> int:
        """Keep pytest's code of a run that was interrupted, or in which pytest itself failed."""
        ended = [pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED]
        if not INTERRUPTED.is_set():
            ended.append(pytest.ExitCode.INTERRUPTED)  # what xdist calls the end by -x
        # pytest counts a skipped case as no failure; here nothing skips to green.
        ours = session.exitstatus in ended and (code != Exit.PASSED or not session.testsfailed)
        session.exitstatus = int(code if ours else session.exitstatus)
        decided.append(session.exitstatus)
        return session.exitstatus

    stopped = f"early: {session.shouldstop}" if session.shouldstop else ""
    if session.shouldfail:
        most = int(session.config.getoption("maxfail"))
        stopped = f"after {most} failures (--maxfail)"
        stopped = "after the first failure (-x)" if most == 1 else stopped
    try:
        session.exitstatus = run.finish(stopped=stopped, decide=decide).exit_status
    except HarnessError as error:
        if decided != [Exit.ACCEPTANCE_FAILED]:
            session.exitstatus = int(Exit.MACHINE_TROUBLE)
        sys.stderr.write(f"\n{error}\n")


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """The run in a few lines, and where its report is."""
    run = config.stash[RUN]
    if run.records is not None:
        terminalreporter.section("acceptance")
        for line in run.summary():
            terminalreporter.write_line(line)
