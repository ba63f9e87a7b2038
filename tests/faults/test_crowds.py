"""Many processes on one empty store, as two sessions of eight workers are."""

from __future__ import annotations

import itertools
import os
import random
import time
import traceback
from collections import Counter
from collections.abc import Callable, Collection
from pathlib import Path

import pytest

from harness.base import store_care
from harness.base.stages import Stage
from harness.base.store import Store
from harness.records import reader, writer
from harness.records.lines import PlanLine
from tests.faults.started import check_entry

SESSIONS, WORKERS, ARTIFACTS = 2, 8, 5


def worker(folder: Path, session: int, rng: random.Random) -> None:
    """Need every artifact, in an order of one's own, and write a line for each."""
    numbers = list(range(ARTIFACTS))
    rng.shuffle(numbers)

    for number in numbers:

        def build(staging: Path, number: int = number) -> str:
            with (folder / "builds").open("a") as file:
                file.write(f"{number}\n")
            (staging / "file.bin").write_bytes(bytes([number]) * 10_000)
            return ""

        entry = Store(folder / "store").get_or_build(Stage.COMPILE, {"number": number}, build)
        assert entry.file().read_bytes() == bytes([number]) * 10_000
        writer.append(folder / str(session), PlanLine(run=f"{session}-{os.getpid()}", cases=()))


def collector(folder: Path, session: int, rng: random.Random) -> None:
    """Remove what nobody uses, again and again."""
    for _ in range(20):
        store_care.tidy(Store(folder / "store"), max_bytes=0)
        time.sleep(0.01 * rng.random())


def crowd(folder: Path, rng: random.Random, *others: Callable[..., None]) -> None:
    """Let all of them run to their ends at once."""
    pids = []
    for session, work in [*itertools.product(range(SESSIONS), [worker] * WORKERS + [*others])]:
        (folder / str(session)).mkdir(parents=True, exist_ok=True)
        seed = rng.random()
        pids.append(os.fork())
        if pids[-1] == 0:
            try:
                work(folder, session, random.Random(seed))
                os._exit(0)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(1)
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0] * len(pids)


def check(folder: Path, artifacts: Collection[int]) -> None:
    """Entries are whole, and each worker's lines are there once."""
    entries = list(Store(folder / "store").entries())
    assert len(entries) in artifacts
    for entry in entries:
        check_entry(entry)
    for session in range(SESSIONS):
        lines = Counter((folder / str(session) / writer.RESULTS).read_text().splitlines())
        assert set(lines.values()) == {ARTIFACTS}
        assert len(lines) == WORKERS
        assert not reader.read(folder / str(session)).damaged


@pytest.mark.fault(
    "two sessions of eight workers on an empty store",
    sees="who waits for whom",
    keeps="every artifact, built once; every line",
)
def test_a_crowd_builds_each_artifact_once(tmp_path, tries):
    for number, rng in enumerate(tries(5, 100)):
        folder = tmp_path / str(number)
        crowd(folder, rng)
        builds = Counter((folder / "builds").read_text().split())
        assert builds == {str(one): 1 for one in range(ARTIFACTS)}
        check(folder, {ARTIFACTS})


@pytest.mark.fault(
    "`cache gc` again and again beside two sessions of eight workers",
    sees="nothing",
    keeps="every artifact as long as somebody uses it; every line",
)
def test_a_crowd_beside_collectors(tmp_path, tries):
    for number, rng in enumerate(tries(3, 50)):
        crowd(tmp_path / str(number), rng, collector)
        check(tmp_path / str(number), range(ARTIFACTS + 1))
