"""xdist's workers: they write into the run of the controller, and what they lose is recorded."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from harness.plugin.selection import begin
from harness.report import pytest_html
from harness.run.case_record import nodeid_of
from harness.run.engine import Run


def has_workers(config: pytest.Config) -> bool:
    """Return whether this process gives its tests to workers of xdist."""
    return getattr(config.option, "dist", "no") != "no" and not hasattr(config, "workerinput")


class WorkerHooks:
    """The controller's side of xdist."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self._lost = ""  # how xdist lost a worker; the last one counts

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionstart(self, session: pytest.Session) -> Generator[None]:
        """xdist starts its workers."""
        with self._losing_workers(session):
            yield

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Generator[None, Any, Any]:
        """Its workers run."""
        with self._losing_workers(session):
            return (yield)
        return None

    @contextmanager
    def _losing_workers(self, session: pytest.Session) -> Iterator[None]:
        """Note that a worker died while xdist started it, in place of xdist's traceback."""
        try:
            yield
        except (EOFError, OSError, RuntimeError) as error:
            frames = traceback.extract_tb(error.__traceback__)
            if self.run.begun:  # else any of them can be how a worker did not start
                frames = traceback.StackSummary.from_list(frames[-1:])
            rooms = {Path(frame.filename).parent.name for frame in frames}
            if not (has_workers(session.config) and rooms & {"xdist", "execnet"}):
                raise
            self._lost = self._lost or f"{type(error).__name__}: {error}"

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_make_scheduler(self, config: pytest.Config, log: Any) -> Any:
        """Cases go to workers by their lengths, unless another way was asked for, or all of the
        tests are others.
        """
        if config.option.dist != "load":
            return None
        from harness.plugin.schedule import CaseScheduling

        cases = {nodeid_of(case).rpartition("::")[2]: case for case in self.run.plan.cases}
        return CaseScheduling(config, log, cases, self.run.expected_s)

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Give a worker the controller's run."""
        node.workerinput["acceptance_run"] = self.run.id
        node.workerinput["acceptance_target"] = self.run.settings.target

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: Sequence[str]) -> None:
        """With xdist the selection is known when a worker has collected."""
        begin(self.run, ids)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object | None) -> None:
        """A worker ended; `error` says how, where it was no end."""
        self._lost = f"{node.gateway.id}: {error}" if error else self._lost

    @pytest.hookimpl(optionalhook=True)
    def pytest_handlecrashitem(self, crashitem: str, report: Any) -> None:
        """xdist lost a worker: its case still gets its line."""
        text = str(report.longrepr)
        why = f"the pytest worker that ran the case died: {text.partition(chr(10))[0]}"
        if line := self.run.crashed(crashitem, why, text):
            report.acceptance = pytest_html.columns(line)
            report.when = "teardown"  # pytest-html drops reports of no phase

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Generator[None]:
        """Record the cases that workers would have collected and run, had one come so far."""
        if self._lost and not (self.run.interrupted or self.run.begun):
            why = f"every pytest worker died before its first case ({self._lost})"
            sys.stderr.write(f"\n{why}\n")
            begin(self.run, [item.nodeid for item in session.perform_collect()])
            for nodeid in self.run.planned:
                self.run.crashed(nodeid, why)
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        yield
