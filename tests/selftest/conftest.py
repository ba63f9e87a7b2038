"""What several test modules share: a store with the small network's artifacts, runs of pytest."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.selftest.running import TINY, Finished, run_python


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all workers of this test session share: the store's locks do the rest."""
    base = tmp_path_factory.getbasetemp()
    if os.environ.get("PYTEST_XDIST_WORKER"):
        base = base.parent
    folder = base / "shared"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture
def run_pytest(shared: Path, tmp_path: Path):
    """Run pytest as a user does, in a process of its own."""

    def run(*arguments: str, catalog: Path | None = TINY, env=None) -> Finished:
        runs = tmp_path / "runs"
        command = [
            *("-m", "pytest", "-p", "no:cacheprovider"),
            *(f"--store={shared / 'store'}", f"--runs={runs}", f"--leases={tmp_path / 'leases'}"),
            *([f"--catalog={catalog}"] if catalog is not None else []),
            *arguments,
        ]
        return Finished(*run_python(command, env), runs)

    return run
