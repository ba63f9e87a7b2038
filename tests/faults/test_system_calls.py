"""Single system calls of a run's processes that fail, at any line of the harness that makes one."""

from __future__ import annotations

import errno
import json
import random
import shutil
from collections import Counter
from pathlib import Path

import pytest

from harness.judge.causes import Exit
from harness.records.writer import RESULTS
from tests.faults.started import ROLES, Place
from tests.faults.test_kills import BUILT, lose_artifacts
from tests.selftest.running import ROOT

HOOK = ROOT / "tests/faults/injected"
ERRORS = {
    "open": "EACCES EIO EMFILE ENFILE ENOMEM ENOSPC",
    "fcntl.flock": "EIO ENOLCK",
    "mmap.__new__": "ENOMEM",
    "memfd_create": "EMFILE ENOMEM",
    "subprocess.Popen": "EAGAIN ENOMEM",
    "pipe": "EMFILE ENFILE",
    "dup": "EMFILE",
    "read": "EIO",
    "pread": "EIO",
    "stat": "EACCES EIO",
    "fstat": "EIO",
    "os.listdir": "EACCES EIO EMFILE",
    "os.scandir": "EACCES EIO EMFILE",
    "os.utime": "EACCES EIO EROFS",
    "os.chmod": "EPERM EIO EROFS",
    "os.remove": "EACCES EIO EROFS",
    "os.rmdir": "EACCES EIO EROFS",
}
OF_WRITING = "EDQUOT EIO ENOSPC EROFS"  # all others


def failing(folder: Path, **asked: object) -> dict[str, str]:
    """Return the environment of a run in which calls are watched: see `injected`."""
    (folder / "tmp").mkdir(exist_ok=True)
    roles = {role: word for role, word in ROLES.items() if role != "atc"}
    call = json.dumps({"roles": roles, **asked})
    return {"FAILING_CALL": call, "PYTHONPATH": str(HOOK), "TMPDIR": str(folder / "tmp")}


@pytest.fixture(scope="session")
def calls(ready: Place, tmp_path_factory: pytest.TempPathFactory) -> list[Counter[str]]:
    """What the harness calls, and how often, in a run that builds everything and in one after."""
    place = Place(tmp_path_factory.mktemp("calls"))
    shutil.copytree(ready.store, place.store, symlinks=True)
    lose_artifacts(place.store, random.Random(0), len(BUILT))
    found = []
    for log in (place.folder / "building", place.folder / "again"):
        run = place.start("-n0", env=failing(place.folder, log=str(log)))
        assert run.wait() == Exit.PASSED, run.text()
        found.append(Counter(log.read_text().splitlines()))
    return found


@pytest.mark.fault(
    "a system call of the harness that fails, once or from then on",
    sees="which file or process, at which stage; the code is 7",
    keeps="every line and every artifact that was whole",
)
def test_a_call_that_fails(ready, calls, tmp_path, tries):
    for rng in tries(2, 150):
        call = rng.choice(sorted(calls[0] | calls[1]))
        of_build = call not in calls[1]
        most = calls[not of_build][call]
        number = rng.choice((1, 1, rng.randint(1, most), most))
        name = rng.choice(ERRORS.get(call.split("\t")[1], OF_WRITING).split())
        lasts = rng.random() < 0.25
        print(f"{name} at {call!r}, {number} of {most}{', lasts' * lasts}")
        folder = tmp_path / str(rng.random())
        shutil.copytree(ready.store, folder / "store", symlinks=True)
        place = Place(folder)
        lose_artifacts(place.store, rng, len(BUILT) if of_build else 0)
        fails = {"fails": call, "number": number, "errno": getattr(errno, name), "lasts": lasts}
        run = place.start("-n0", env=failing(folder, **fails))
        try:
            code = run.wait()
            check(place, code, run.text(), forbidden=name in ("EACCES", "EPERM"))
            if code != Exit.PASSED:
                place.green()
        finally:
            place.end()
        shutil.rmtree(folder)


def check(place: Place, code: int, text: str, *, forbidden: bool) -> None:
    """The run is green, or the machine is said to be at fault, and all that was whole is kept."""
    assert "\nTraceback" not in text, text  # but in the log of a tool
    assert "INTERNALERROR" not in text, text
    place.check_kept()
    # A catalog, an image or a checkpoint that nobody may read is an input that is wrong.
    said = {Exit.PASSED, Exit.MACHINE_TROUBLE} | ({Exit.INPUT_ERROR} if forbidden else set())
    assert code in said, text
    if (place.latest / RESULTS).is_file():
        found = place.records()
        if found.end is not None:
            assert found.end.exit_status == code, text
        assert code != Exit.PASSED or (found.end and found.end.complete), text
