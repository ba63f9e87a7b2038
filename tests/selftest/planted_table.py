"""Prints the table of planted faults; `--run` plants them all and counts those that are caught.

python -m tests.selftest.planted_table > docs/planted-faults.md
python -m tests.selftest.planted_table --run
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from tests.selftest.planted.rows import attempt, problem_of
from tests.selftest.planted.table import FAULTS, markdown
from tests.selftest.planted.world import World


def run(store: Path | None) -> int:
    """Plant every fault; 1 when a row is not what the table says."""
    caught = 0
    with tempfile.TemporaryDirectory(prefix="planted-") as name:
        folder = Path(name)
        with World(folder, store or folder / "store") as world:
            for fault in FAULTS:
                sound = problem_of(fault, attempt(fault, world, planted=False), planted=False)
                outcome = attempt(fault, world, planted=True)
                missed = problem_of(fault, outcome, planted=True)
                caught += not missed and not sound
                state = "MISSED" if missed else "caught"
                print(f"{state}: {fault.name} ({fault.part}): {outcome.outcome}")
                for problem in filter(None, (sound and f"its sound twin: {sound}", missed)):
                    print(f"  {problem.splitlines()[0]}")
    print(f"{caught} of {len(FAULTS)} planted faults caught by the part that is responsible")
    return 0 if caught == len(FAULTS) else 1


def main() -> int:
    """The command line; its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--run", action="store_true", help="plant the faults (a minute or two)")
    parser.add_argument("--store", type=Path, help="an artifact store to use for --run")
    given = parser.parse_args()
    if given.run:
        return run(given.store)
    print(markdown(), end="")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
