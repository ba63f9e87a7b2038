"""`--shard=I/N`: which of the selected items are this host's part."""

from __future__ import annotations

from typing import Any

import pytest

from harness.plugin.selection import case_of, refusing
from harness.run.engine import Run


class ShardHooks:
    """The hooks that leave other hosts' cases out, after `-m` and `-k` have chosen."""

    def __init__(self, run: Run) -> None:
        self.run = run

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        """Keep this shard's cases; a run that goes on has those that are left of it."""
        worker: dict[str, Any] = getattr(config, "workerinput", {})
        if self.run.settings.part is None or self.run.settings.resume is not None:
            return
        cases = [case for item in items if (case := case_of(item))]
        with refusing():
            mine = set(self.run.shard_of(cases))
        kept = [item for item in items if (case := case_of(item)) is None or case in mine]
        config.hook.pytest_deselected(items=list(set(items) - set(kept)))
        items[:] = kept
        if worker:
            output: dict[str, Any] = getattr(config, "workeroutput", {})
            output["acceptance_selection"] = self.run.selection
            output["acceptance_empty_shard"] = self.run.empty_shard

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Take over what a worker of xdist had to choose from."""
        known: dict[str, Any] = getattr(node, "workeroutput", {})
        self.run.selection = self.run.selection or known.get("acceptance_selection", "")
        self.run.empty_shard |= known.get("acceptance_empty_shard", False)
