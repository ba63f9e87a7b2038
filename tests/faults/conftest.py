"""What the tests of faults share: how many tries, the table of them, a store that is ready."""

from __future__ import annotations

import os
import random
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.base import locks
from tests.faults import table
from tests.faults.started import Place, injected
from tests.selftest.running import on_one_core

if "PYTEST_XDIST_WORKER" in os.environ:
    on_one_core()  # what the workers start spins on each other's cores otherwise


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("faults", "tests/faults")
    group.addoption("--faults", choices=("short", "whole"), default="short", help="how many tries")
    group.addoption("--faults-seed", type=int, default=1, help="of what is chosen at random")
    group.addoption("--faults-minutes", type=float, default=5, help="of a test: no try later")
    group.addoption("--faults-table", metavar="FILE", help="write what passed into this table")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "fault(name, sees, keeps): a row of docs/faults.md")
    if not hasattr(config, "workerinput"):
        asked = map(config.getoption, ("faults_table", "faults", "faults_seed"))
        config.pluginmanager.register(table.Table(*asked))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.stem != "test_soak")  # it takes its time: the first


@pytest.fixture(autouse=True)
def _row(request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> None:
    for mark in request.node.iter_markers("fault"):
        row = table.Row(request.path.stem.removeprefix("test_"), *mark.args, **mark.kwargs)
        record_property("fault", list(row))


@pytest.fixture
def tries(request: pytest.FixtureRequest, record_property: Callable[[str, object], None]):
    """`tries(short, whole)` yields a generator of random numbers for each try, as long as its share
    of the minutes lasts.
    """

    def each(short: int, whole: int, share: float = 1.0) -> Iterator[random.Random]:
        number, done = whole if request.config.getoption("faults") == "whole" else short, 0
        limit = time.monotonic() + 60 * share * request.config.getoption("faults_minutes")
        while done < number and time.monotonic() < limit:
            seed = f"{request.config.getoption('faults_seed')}/{request.node.name}/{done}"
            print(f"try {done + 1} of {number}, seed {seed}")  # shown where one fails
            yield random.Random(seed)
            done += 1
        record_property("tries", done)

    return each


@pytest.fixture(scope="session")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A place in which a run over the simulated host was green."""
    base = tmp_path_factory.getbasetemp()
    place = Place((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "ready")
    place.folder.mkdir(exist_ok=True)
    done = place.folder / "done"
    with locks.locked(place.folder / "lock", what="the first run"):
        if not done.exists():
            place.green(env=injected(log=str(place.calls)))
            done.touch()
    return place


@pytest.fixture
def place(ready: Place, tmp_path: Path) -> Iterator[Place]:
    """A place of its own with a copy of the store."""
    shutil.copytree(ready.store, tmp_path / "store", symlinks=True)
    one = Place(tmp_path)
    yield one
    one.end()
