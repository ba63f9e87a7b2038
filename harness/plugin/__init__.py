"""pytest's side of a run: options, parametrisation, fixtures and hooks, translated for the engine.

What a run is stands in `harness.run.engine`; nothing below this module imports pytest.
"""

from __future__ import annotations

import os
import shlex
import sys
import threading
import traceback
from collections.abc import Callable, Generator
from contextlib import nullcontext
from typing import Any

import pytest

from harness import settings, usage
from harness.base import signals
from harness.base.errors import ConfigError, HarnessError
from harness.base.progress import Progress
from harness.base.text import clean
from harness.judge.causes import Exit
from harness.plan import Case
from harness.plugin.options import add_options
from harness.plugin.selection import Selection, begin, case_of, end_at, refusing
from harness.plugin.shards import ShardHooks
from harness.plugin.workers import WorkerHooks, has_workers
from harness.records import writer
from harness.records.verdicts import Verdict
from harness.report import pytest_html
from harness.run.case import CaseRun
from harness.run.engine import Run
from harness.targets import registry

CASE = pytest.StashKey[CaseRun]()
_WORDS = {
    "recorded": ("recorded", "r", ("RECORDED", {"blue": True})),
    "inconclusive": ("inconclusive", "i", ("INCONCLUSIVE", {"yellow": True})),
    "error": ("error", "E", ("ERROR", {"red": True})),
    "crashed": ("crashed", "C", ("CRASHED", {"red": True})),
}


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    """Add the harness's options, each with a variable and a key of `pytest.ini`."""
    config: Any = pluginmanager.get_plugin("pytestconfig")
    more = shlex.split(os.environ.get("PYTEST_ADDOPTS", ""))
    arguments = [*map(str, config.invocation_params.args), *more]
    with refusing():
        add_options(parser, arguments)


def _of_worker(config: pytest.Config) -> dict[str, Any]:
    """Return what the controller of xdist gave this process; empty where it is none of its."""
    given: dict[str, Any] = getattr(config, "workerinput", {})
    return given


def _settings(config: pytest.Config) -> settings.Settings:
    given = {one.name: config.getoption(one.ini, default=None) for one in settings.OPTIONS}
    given["target"] = _of_worker(config).get("acceptance_target") or given["target"]
    keys = [key for one in settings.OPTIONS for key in one.keys]
    ini = usage.ini_values(config.inipath) if config.inipath else {}
    ini |= {key: str(config.getini(key) or "") for key in keys}
    return settings.resolve(given, ini=ini, base=config.invocation_params.dir)


@pytest.hookimpl(tryfirst=True, optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """`-n auto`: a worker for each device. xdist counts cores where no target is known, as for
    tests that are no acceptance.
    """
    with refusing():
        found = registry.located(_settings(config))
        if found.target is None:
            return None
        registry.provider_of(found).check(found)
        return registry.workers(found)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Read the settings; options that do not fit are errors of usage."""
    worker = _of_worker(config)
    if getattr(config.option, "dist", "no") == "each":
        raise pytest.UsageError("--dist=each runs each case several times; use --dist=load")
    if getattr(config.option, "setuponly", False) or getattr(config.option, "setupplan", False):
        raise pytest.UsageError("--setup-only and --setup-plan run no case; see npu-accept plan")
    with refusing():
        run = Run(
            _settings(config),
            run_id=worker.get("acceptance_run", ""),
            worker=worker.get("workerid", ""),
            command=("pytest", *map(str, config.invocation_params.args)),
            # pytest's capture is suspended while plugins are configured: this is the real stderr.
            progress=Progress.on_stderr(worker.get("workerid", "")),
        )
    config.pluginmanager.register(RunHooks(run), "acceptance-run")
    config.pluginmanager.register(Selection(run), "acceptance-selection")
    config.pluginmanager.register(WorkerHooks(run), "acceptance-workers")
    config.pluginmanager.register(ShardHooks(run), "acceptance-shard")
    for line in [] if worker else usage.unknown_variables(os.environ):
        sys.stderr.write(f"{line}\n")
    if config.pluginmanager.hasplugin("html"):
        config.pluginmanager.register(pytest_html.Columns(run.settings.provenance))
    if worker:
        signals.end_with_parent(os.getppid())
    elif threading.current_thread() is threading.main_thread():
        # What ends a night from outside is an interruption like Ctrl-C: records, report, code 2.
        signals.listen()
        if has_workers(config):
            limit_s = signals.FROZEN_S * run.settings.deadline_factor
            signals.end_frozen(limit_s, lambda text: sys.stderr.write(f"\n{text}\n"))


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
            pytest.fail(clean(f"{verdict.kind}: {verdict.sentence}"), pytrace=False)

    return take


def pytest_report_teststatus(report: Any) -> tuple[str, str, Any] | None:
    """Words and letters of outcomes that pytest does not know."""
    outcome = getattr(report, "acceptance", {}).get("outcome", "")
    shown = report.when == "call" and (report.passed or outcome in ("inconclusive", "error"))
    return _WORDS.get(outcome) if shown or outcome == "crashed" else None


class RunHooks:
    """The hooks that need the run, in the order in which pytest calls them."""

    def __init__(self, run: Run) -> None:
        self.run = run

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """Read the catalog, `-k` and `-m` before anything is collected, here and not in a worker:
        what is wrong with them is an error of usage.
        """
        marks: Any = session.config.pluginmanager.get_plugin("mark")
        marks.pytest_collection_modifyitems(items=[], config=session.config)
        with refusing():
            _ = self.run.plan

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Make one item for each case of the test's check."""
        for check in ("accuracy", "throughput"):
            marked = metafunc.definition.get_closest_marker(check) is not None
            if marked and "measure" in metafunc.fixturenames:
                cases = self.run.plan.of(check)
                metafunc.parametrize("case", cases, ids=[case.id for case in cases])

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> None:
        """Without xdist the selection is known here, and that it could be collected."""
        self.run.upcoming = tuple(case for item in session.items if (case := case_of(item)))
        if not (self.run.worker or session.config.option.collectonly or session.testsfailed):
            begin(self.run, [item.nodeid for item in session.items])

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Gather what a case does from its first moment."""
        if case := case_of(item):
            item.stash[CASE] = CaseRun(self.run, case, item.nodeid)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, Any, Any]:
        """Turn errors into one readable text; the last phase writes the case's line."""
        report = yield
        case = item.stash.get(CASE, None)
        if case is None:
            return report
        name = case.case.name
        if call.excinfo is not None:
            error = call.excinfo.value
            if isinstance(error, HarnessError):
                report.longrepr = f"{name}: {self.run.describe(case.case, error)}"
            if not isinstance(error, pytest.fail.Exception | pytest.skip.Exception):
                case.failed(error)
            elif not case.fails:  # else it is the verdict, which the line has
                remedy = "see to that plugin, e.g. a longer --timeout"
                case.failed(ConfigError(f"another plugin ended the case: {error}", remedy=remedy))
        line = case.line()
        if call.when == "call" or report.failed:
            if line.outcome == "known_failure":
                report.outcome, report.wasxfail = "skipped", clean(line.sentence)
            elif case.end.broken:
                report.outcome, report.longrepr = "failed", clean(line.sentence)
        if call.when == "teardown":
            try:
                writer.append(self.run.directory, line)
            except HarnessError as error:
                # The sum at the end will lack the case: the run cannot end green.
                report.outcome, report.longrepr = "failed", f"{name}: {error}"
        elif call.when == "call" or not report.passed:
            report.acceptance = pytest_html.columns(line)
            item.user_properties.extend(report.acceptance.items())
        return report

    @pytest.hookimpl(tryfirst=True)
    def pytest_internalerror(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        """Say in a line what the host refused, in place of a traceback."""
        end_at(excinfo.value)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        """Count cases as they end, on the side that reports."""
        self.run.progress.ended(nodeid)

    @pytest.hookimpl(tryfirst=True)
    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        """xdist ends a run by -x as if somebody had pressed Ctrl-C; its class differs."""
        self.run.interrupted |= excinfo.type is KeyboardInterrupt

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Generator[None]:
        """End the run, after xdist has ended its workers; nothing that was started lives on."""
        with nullcontext() if self.run.worker else signals.uninterrupted():
            self.run.stop_building()
            fault = ""
            try:
                yield
            except Exception as error:  # another plugin's: it must not cost records and report
                if not self.run.begun:
                    raise
                where = traceback.extract_tb(error.__traceback__)[-1]
                fault = f"{where.filename}, line {where.lineno}: {type(error).__name__}: {error}"
                sys.stderr.write(f"\na plugin of pytest failed as the run ended: {fault}\n")
            nothing = session.exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED
            looked = self.run.worker or session.config.option.collectonly
            empty_shard = nothing and self.run.empty_shard and not looked
            if empty_shard:
                session.exitstatus = pytest.ExitCode.OK
            if self.run.begun or empty_shard:
                self._finish(session, fault=bool(fault))

    def _finish(self, session: pytest.Session, *, fault: bool) -> None:
        decided: list[int] = []  # nothing, where the records could not even be read

        def decide(code: Exit) -> int:
            """Keep pytest's code of a run that was interrupted, or in which pytest failed."""
            code = Exit.HARNESS_FAULT if fault and code == Exit.PASSED else code
            ended = [pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED]
            if not self.run.interrupted:
                ended.append(pytest.ExitCode.INTERRUPTED)  # what xdist calls the end by -x
            # pytest counts a skipped case as no failure; here nothing skips to green.
            ours = session.exitstatus in ended and (code != Exit.PASSED or not session.testsfailed)
            decided.append(int(code if ours else session.exitstatus))
            return decided[0]

        told = session.shouldfail or session.shouldstop  # "stopping after 1 failures"
        stopped = f"early ({told})" if told else ""
        try:
            if not self.run.begun:
                self.run.begin(())
            session.exitstatus = self.run.finish(stopped=stopped, decide=decide).exit_status
        except (HarnessError, OSError) as error:
            failed = decided == [Exit.ACCEPTANCE_FAILED]
            session.exitstatus = decided[0] if failed else int(Exit.MACHINE_TROUBLE)
            sys.stderr.write(f"\n{error}\n")

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """The run in a few lines, and where its report is."""
        if self.run.records is not None:
            terminalreporter.section("acceptance")
            for line in self.run.summary():
                terminalreporter.write_line(clean(line))
