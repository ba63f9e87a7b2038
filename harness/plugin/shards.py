"""`--shard=I/N`: which of the selected items are this host's part."""

from __future__ import annotations

import pytest

from harness.plugin.selection import case_of, refusing
from harness.plugin.workers import has_workers
from harness.run.engine import Run


class ShardHooks:
    """The hooks that leave other hosts' cases out, after `-m` and `-k` have chosen."""

    def __init__(self, run: Run) -> None:
        self.run = run

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        """Keep this shard's cases."""
        if not self._chooses:
            return
        cases = [case for item in items if (case := case_of(item))]
        with refusing():
            mine = set(self.run.shard_of(cases))
        kept = [item for item in items if (case := case_of(item)) is None or case in mine]
        config.hook.pytest_deselected(items=list(set(items) - set(kept)))
        items[:] = kept

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> None:
        """With xdist its workers alone collect, and the run's first line names the selection."""
        if self._chooses and has_workers(session.config):
            session.perform_collect()

    @property
    def _chooses(self) -> bool:
        """A run that goes on has those that are left of it."""
        return self.run.settings.part is not None and self.run.settings.resume is None
