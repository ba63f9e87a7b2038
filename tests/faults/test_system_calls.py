"""Single system calls of a run's processes that fail, at any line of the harness that makes one."""

from __future__ import annotations

import errno
import shutil
from collections import Counter

import pytest

from harness.judge.causes import Exit
from harness.records.writer import RESULTS
from tests.faults.started import Place, injected
from tests.faults.test_kills import BUILT, lose_artifacts

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


@pytest.fixture(scope="session")
def calls(ready: Place, tmp_path_factory: pytest.TempPathFactory) -> list[Counter[str]]:
    """What the harness calls, and how often at most in one process, in a run that builds everything
    and in one after.
    """
    place = Place(tmp_path_factory.mktemp("again"))
    shutil.copytree(ready.store, place.store, symlinks=True)
    place.green(env=injected(log=str(place.calls)))
    most: list[Counter[str]] = []
    for one in (ready, place):
        most.append(Counter())
        for line, times in Counter(one.calls.read_text().splitlines()).items():
            most[-1] |= Counter({line.rpartition("\t")[0]: times})
    return most


@pytest.mark.fault(
    "a system call of the harness that fails, once or from then on",
    sees="which file or process, at which stage; the code is 7",
    keeps="every line and every artifact that was whole",
)
def test_a_call_that_fails(ready, calls, tmp_path, tries, record_property):
    failed = 0
    for rng in tries(2, 100):
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
        struck = folder / "failed"
        fails = {"fails": call, "number": number, "errno": getattr(errno, name), "lasts": lasts}
        fails["failed"] = str(struck)
        run = place.start("-n0", env=injected(**fails))
        try:
            code = run.wait()
            failed += struck.is_file() and struck.stat().st_size > 0
            check(place, code, run.text(), forbidden=name in ("EACCES", "EPERM"))
            if code != Exit.PASSED:
                place.green()
        finally:
            place.end()
        shutil.rmtree(folder)
    record_property("tries", failed)  # a call that was never made tried nothing


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
