"""What other work on the machine does to a rehearsal's throughput.

    python benchmarks/busy_neighbours.py [--runs 20] [--store DIR]

SqueezeNet 1.1 at batch size 1, the quickest model, is held against eager PyTorch as a rehearsal
does it: alone, and beside one and two processes that count without end, at priority 0 and 19.
Beside the sound model one is planted that runs at about half of eager's speed. The ratio should
move by less than 15 % from the quiet machine's, the sound model never FAIL, the planted one always.
Run it with nothing else on the machine.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness.catalog.load import load_catalogs
from harness.judge.throughput import judge_throughput
from harness.measure import beside_eager, device
from harness.plan import Case
from harness.records.measurements import ThroughputMeasurement
from harness.settings import resolve
from harness.stages import eager
from harness.stages.pipeline import CasePipeline, Prepared, Workbench
from harness.targets.protocol import Session
from harness.targets.sessions import open_session

Sessions = tuple[Session, Session]
CASE = Case("squeezenet1_1", 1, "cpu", "throughput")
SLOW = Path(__file__).with_name("repeated_model.py")
# Ends by itself when this process is gone.
LOOP = "import os; os.nice({nice})\nwhile os.getppid() == {parent}: pass"
CONDITIONS = ((0, 0), (1, 19), (1, 0), (2, 19), (2, 0))  # busy processes, their priority


@contextlib.contextmanager
def neighbours(count: int, nice: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Run so many busy processes meanwhile."""
    code = LOOP.format(nice=nice, parent=os.getpid())
    busy = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(count)]
    try:
        yield busy
    finally:
        for process in busy:
            process.kill()
            process.wait()


@contextlib.contextmanager
def opened(case: CasePipeline, prepared: Prepared, slower: int = 0) -> Iterator[Sessions]:
    """The compiled model and eager PyTorch; `slower`: how often the model computes in place of
    once.
    """
    assert prepared.rival is not None
    log = case.bench.run_dir / "log"
    with contextlib.ExitStack() as stack:
        session: Session = stack.enter_context(device.opened(case, prepared))
        fds = case.lease_fds
        if slower:
            slow = open_session(
                prepared.compiled,
                backend=SLOW,
                options={"times": slower},
                log=log,
                deadline_open_s=300,
                deadline_run_s=300,
                pass_fds=fds,
            )
            session = stack.enter_context(contextlib.closing(slow))
        other = eager.open_eager(
            case, prepared.rival, CASE.batch_size, log, lease_fds=fds, faster_format=True
        )
        yield session, stack.enter_context(other)


def measure(sessions: Sessions, runs: int) -> list[ThroughputMeasurement]:
    """Measure so many times, to a rehearsal's precision."""
    ours, other = sessions
    return [
        beside_eager.measure(ours, other, precision_percent=10.0, budget_s=40.0)[0]
        for _ in range(runs)
    ]


def kinds(measured: Sequence[ThroughputMeasurement]) -> str:
    """`20 PASS`, or each kind of verdict with how often it came."""
    counts = Counter(judge_throughput(one, None, case="squeezenet1_1").kind for one in measured)
    return ", ".join(f"{count} {kind}" for kind, count in counts.items())


def ratios(measured: Sequence[ThroughputMeasurement]) -> list[float]:
    return [one.eager.ratio for one in measured if one.eager is not None]


def main() -> None:
    """Measure in each condition and print a Markdown table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=20, help="of the sound model, a condition")
    parser.add_argument("--slow-runs", type=int, default=3, help="of the planted one")
    parser.add_argument("--store", help="an artifact store (default: a new one)")
    given = parser.parse_args()
    print(
        "| neighbours | ratio, median | range | from quiet | fps by the clock | eager's "
        "| seconds | sound | half of eager's speed |\n"
        "| --- | ---: | --- | ---: | ---: | ---: | ---: | --- | --- |"
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        places = {"store": given.store or str(folder / "store"), "leases": str(folder / "leases")}
        settings = resolve({**places, "rehearsal": True, "models": CASE.model})
        bench = Workbench(settings, load_catalogs(settings.catalog), folder, None)
        case = bench.for_case(CASE)
        prepared = case.prepare()
        quiet = 0.0
        for count, nice in CONDITIONS:
            with neighbours(count, nice):
                with opened(case, prepared) as sessions:
                    sound = measure(sessions, given.runs)
                quiet = quiet or median(ratios(sound))
                with opened(case, prepared, slower=round(2 * quiet)) as sessions:
                    slow = measure(sessions, given.slow_runs)
            found = ratios(sound)
            clock = [one.timing.fps for one in sound]
            eagers = [one.eager.timing.fps for one in sound if one.eager is not None]
            cells = (
                f"{count} at priority {nice}" if count else "none",
                f"{median(found):.2f}",
                f"{min(found):.2f} to {max(found):.2f}",
                f"{100 * (median(found) / quiet - 1):+.1f} %",
                f"{median(clock):.1f}",
                f"{median(eagers):.1f}",
                f"{median(one.seconds for one in sound):.1f}",
                kinds(sound),
                f"{kinds(slow)}, {median(ratios(slow)):.2f} times",
            )
            print(f"| {' | '.join(cells)} |", flush=True)
    print(f"\n{os.cpu_count()} cores.")


if __name__ == "__main__":
    main()
