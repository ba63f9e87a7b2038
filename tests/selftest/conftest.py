"""What several test modules share: a store with the small network's artifacts, runs of pytest."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from typer.testing import CliRunner, Result

from harness.__main__ import app
from harness.base import processes
from harness.base.terms import CHECKS
from harness.cli import options
from harness.plan import Case
from tests.selftest import in_process
from tests.selftest.fakes import workbench
from tests.selftest.running import TINY, Finished, on_one_core, run_python

# The same examples in every run: what is red is red again. To search for more:
# pytest tests/selftest --hypothesis-profile=search
settings.register_profile(
    "repeatable", derandomize=True, deadline=None, database=None, max_examples=50
)
settings.register_profile("search", deadline=None, max_examples=1000)
settings.load_profile("repeatable")

# Hundreds of processes of Python start here: each would compile the same modules again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# A shell starts what runs in its background with Ctrl-C ignored, and children inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
WITH_OTHERS = "PYTEST_XDIST_WORKER" in os.environ
if WITH_OTHERS:
    # What the workers start spins on each other's cores otherwise, and takes many times as long.
    on_one_core()


def pytest_configure(config: pytest.Config) -> None:
    """A warning fails a test of ours; it never fails an acceptance case."""
    config.addinivalue_line("filterwarnings", "error")
    # pytest-metadata's own, nothing of ours
    config.addinivalue_line("filterwarnings", "ignore::DeprecationWarning:pytest_metadata")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put modules first that start whole runs: the last test of a worker should be a short one."""
    long = {item.path for item in items if "run_pytest" in getattr(item, "fixturenames", ())}
    items.sort(key=lambda item: item.path not in long)


@pytest.fixture(autouse=True)
def _as_in_a_new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cases that run in this process begin with the first device, whatever worker of ours it is;
    no earlier run is ending.
    """
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    processes.ending.clear()


@pytest.fixture(scope="session", autouse=True)
def _heavy_libraries_once() -> Iterator[None]:
    with in_process.in_this_process():
        yield


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all workers of this test session share: the store's locks do the rest."""
    base = tmp_path_factory.getbasetemp()
    if WITH_OTHERS:
        base = base.parent
    folder = base / "shared"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def built(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """In the shared store: what runs of the small model need, made quicker here than by them."""
    store = str(shared / "store")
    bench = workbench(tmp_path_factory.mktemp("built"), rehearsal=True, store=store)
    for size in (1, 4):
        for check in CHECKS:
            bench.for_case(Case("tiny", size, "cpu", check)).prepare()


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Result]:
    """Run a command of ours in this process, where nobody has set an option of it."""
    for name in os.environ:
        if name.startswith(("HARNESS_", "IMAGENET_", "GITHUB_", "ASCEND_", "COLUMNS")):
            monkeypatch.delenv(name)
    for name in ("RUNS", "LEASES", "STORE"):
        monkeypatch.setenv(f"HARNESS_{name}", str(tmp_path / name.lower()))
    monkeypatch.setattr(options, "INI", tmp_path / "pytest.ini")

    def run(*words: object, **environment: str) -> Result:
        return CliRunner().invoke(app, [str(word) for word in words], env=environment)

    return run


@pytest.fixture
def run_pytest(shared: Path, tmp_path: Path):
    """Run pytest as a user does, in a process of its own."""

    def run(*arguments: str, catalog: Path | None = TINY, env=None) -> Finished:
        runs = tmp_path / "runs"
        command = [
            *("-m", "pytest", "-p", "no:cacheprovider", "-p", "no:hypothesispytest"),
            *(f"--store={shared / 'store'}", f"--runs={runs}", f"--leases={tmp_path / 'leases'}"),
            *([f"--catalog={catalog}"] if catalog is not None else []),
            *arguments,
        ]
        return Finished(*run_python(command, env), runs)

    return run
