"""Which cases run: what is left of a resumed run, in which order, and what nobody selected."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from harness import usage
from harness.base.errors import HarnessError, RecordError, StoreError, of_machine
from harness.judge.causes import Exit
from harness.plan import Case
from harness.run.engine import Run


@contextmanager
def refusing() -> Iterator[None]:
    """End before anything runs: what the host refuses is its trouble, all else an input's."""
    try:
        yield
    except HarnessError as error:
        end_at(error)
        raise pytest.UsageError(str(error)) from None
    except OSError as error:
        end_at(error)
        raise


def end_at(error: BaseException) -> None:
    """End the session at an error of the machine, outside of a case."""
    if isinstance(error, RecordError | StoreError) or of_machine(error):
        text = str(error) if isinstance(error, HarnessError) else f"the host refused: {error}"
        pytest.exit(text, returncode=int(Exit.MACHINE_TROUBLE))


def case_of(item: pytest.Item) -> Case | None:
    """Return the case of an item, None of another test."""
    case = item.callspec.params.get("case") if hasattr(item, "callspec") else None
    return case if isinstance(case, Case) else None


def begin(run: Run, nodeids: Sequence[str]) -> None:
    """Begin a run with what was selected, once."""
    with refusing():
        cases = usage.planned(nodeids, run.plan)
        if cases and not run.begun:
            run.begin(cases)


class Selection:
    """The hooks that choose and order items, and tell what they left out."""

    def __init__(self, run: Run) -> None:
        self.run = run

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """End a run again of which nothing is left."""
        if self.run.left == frozenset() and not session.config.option.collectonly:
            with refusing():
                code = self.run.finish().exit_status
            pytest.exit(f"nothing is left to run in {self.run.directory}", returncode=code)

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        """Several workers end together when the longest cases come first.

        A run that goes on has the cases that are left.
        """
        worker: dict[str, Any] = getattr(config, "workerinput", {})
        left: Collection[str] | None = worker.get("acceptance_left", self.run.left)
        if left is not None:
            done = [item for item in items if item.nodeid not in left]
            config.hook.pytest_deselected(items=done)
            items[:] = [item for item in items if item.nodeid in left]
        ids: list[str] = worker.get("acceptance_order", [])
        order = {case: place for place, case in enumerate(ids)}
        items.sort(key=lambda item: order.get(case.name, -1) if (case := case_of(item)) else -1)

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """All workers of xdist have the cases in the same order."""
        if self.run.left is not None:
            node.workerinput["acceptance_left"] = sorted(self.run.left)
        node.workerinput["acceptance_order"] = [case.name for case in self.run.expected_s]
