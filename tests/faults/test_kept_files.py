"""Damage to every kind of file that a run leaves: a flipped bit, or an end that is missing."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from harness.judge.causes import Exit
from harness.records.measurements import AccuracyMeasurement
from harness.records.writer import RESULTS
from tests.faults.started import PATIENCE_S, Place
from tests.selftest.running import ROOT, eventually

COMMANDS = ("report", "why")
CODES = {0, 1, 4, 6, 7}


def by_kind(folder: Path) -> dict[str, list[Path]]:
    """The files below a folder by what they are: the first folders and the suffix, without keys."""
    kinds: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink() and path.stat().st_size:
            place = path.relative_to(folder).parts[:2]
            kinds.setdefault(f"{'/'.join(place[:-1])} {path.suffix}", []).append(path)
    return kinds


def damage(path: Path, rng: random.Random) -> None:
    """Flip a bit of a file, or cut it anywhere."""
    print(f"damaged: {path}")
    content = bytearray(path.read_bytes())
    at = rng.randrange(len(content))
    if rng.random() < 0.5:
        del content[at:]
    else:
        content[at] ^= 1 << rng.randrange(8)
    path.chmod(0o600)
    path.write_bytes(content)


@pytest.mark.fault(
    "a flipped bit or a cut in kinds of files of the store",
    sees="which entry was damaged, set aside and built again",
    keeps="the figures of every case",
)
def test_a_store_with_damaged_files(place, tries):
    before = scores(place)
    for rng in tries(1, 30):
        kinds = by_kind(place.store)
        for kind in rng.sample(sorted(kinds), rng.randrange(1, len(kinds))):
            damage(rng.choice(kinds[kind]), rng)
        assert scores(place) == before


def scores(place: Place) -> dict[str, object]:
    """The scores of each accuracy case of a run that is green."""
    return {
        case.nodeid: case.measurement.scores
        for case in place.green().cases
        if isinstance(case.measurement, AccuracyMeasurement)
    }


def written(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


def spoil(path: Path, rng: random.Random) -> None:
    """Remove the records, or cut or garble a line of them."""
    text = path.read_text()
    lines = text.splitlines(keepends=True)
    at = rng.randrange(len(lines))
    match rng.choice(("remove", "cut", "garble")):
        case "remove":
            path.unlink()
        case "cut":
            path.write_text("".join(lines[:at]) + lines[at][: rng.randrange(len(lines[at]) - 1)])
        case _:
            lines[at] = lines[at][: rng.randrange(len(lines[at]) - 1)] + "\n"
            path.write_text("".join(lines))


@pytest.mark.fault(
    "records that somebody removes, cuts or garbles while the run goes on",
    sees="that lines are missing or cannot be read; the code is 7",
    keeps="the lines that can be read, and every artifact",
)
def test_records_that_are_spoilt_while_the_run_goes_on(place, tries):
    for number, rng in enumerate(tries(1, 20)):
        run = place.start("-n0", f"--runs={place.folder / str(number)}")
        records = place.folder / str(number) / "latest" / RESULTS
        assert eventually(partial(written, records))
        time.sleep(rng.uniform(0.0, 6.0))
        ended = '"kind":"end"' in records.read_text()
        spoil(records, rng)
        assert run.wait() == Exit.MACHINE_TROUBLE or ended, run.text()
        assert "\nTraceback" not in run.text()
        place.check_kept()


@pytest.mark.fault(
    "a flipped bit or a cut in files of a run",
    sees="`report` and `why` tell which line or file cannot be read",
    keeps="the lines that can be read",
)
def test_a_run_with_damaged_files(place, tmp_path, tries):
    place.green()
    for number, rng in enumerate(tries(2, 100)):
        run = tmp_path / f"run{number}"
        shutil.copytree(place.latest, run)
        kinds = by_kind(run)
        any_file = rng.choice(kinds[rng.choice(sorted(kinds))])
        damage(run / RESULTS if number % 2 else any_file, rng)
        for command in COMMANDS:
            done = subprocess.run(
                [sys.executable, "-m", "harness", command, str(run)],
                cwd=ROOT,
                capture_output=True,
                text=True,
                timeout=PATIENCE_S,
            )
            assert done.returncode in CODES, done.stderr
            assert "Traceback" not in done.stderr
