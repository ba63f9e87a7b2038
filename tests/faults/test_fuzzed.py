"""What others wrote and we read, changed at random: an answer or an error of ours, in time."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.base.errors import HarnessError
from harness.catalog.load import parse_catalog
from harness.images import labels, synsets
from harness.records import reader
from harness.records.writer import RESULTS
from harness.targets.ascend import npu_info, times
from tests.selftest.running import ROOT, TINY

LIMIT_S = 30.0  # the files have kilobytes: what takes longer would never end
PIECES = [
    b"\0",
    b"\n",
    b"\x1b[2J",
    b"../",
    b"9" * 5000,
    b"-1e999",
    "猫".encode(),
    b"{" * 3000,
    b"&a",
]
NPU_SMI = [path.read_bytes() for path in (ROOT / "tests/selftest/data/npu_smi").glob("*.txt")]
SUMMARY = b"""[INFO] throughput 1000*batchsize.mean(4)/NPU_compute_time.mean(2.0): 2000.0
[info] -----------------Performance Summary------------------
[Average] samples_per_second: 1006.5, ave_latency: 0.9947
Interface throughputRate: 251.62, moduleRateSum = 1
"""
LABELS = b"".join(b"ILSVRC2012_val_%08d.JPEG %d\n" % (n, n % 1000) for n in range(1, 60))
SYNSETS = b"".join(b"n%08d %d a name\n" % (n, n) for n in range(1, 1001))
RECORDS = (
    b'{"schema_version":2,"kind":"run","run":"r","provenance":"simulated","started":""}\n'
    b'{"schema_version":2,"kind":"plan","run":"r","cases":[]}\n'
)


def of_file(read: Callable[[Path], Any], name: str) -> Callable[[bytes, Path], Any]:
    """Make a function of bytes from one of a file."""

    def parse(content: bytes, folder: Path) -> None:
        path = folder / name
        path.write_bytes(content)
        read(path)

    return parse


def of_text(parse: Callable[[str], Any]) -> Callable[[bytes, Path], Any]:
    """Make a function of bytes from one of text."""
    return lambda content, _: parse(content.decode(errors="replace"))


def printed(text: str) -> None:
    times.parse_throughput(text)


PARSERS: dict[str, tuple[Callable[[bytes, Path], Any], list[bytes]]] = {
    "npu-smi": (of_text(npu_info.parse_info), NPU_SMI),
    "summaries": (of_text(printed), [SUMMARY]),
    "catalog": (parse_catalog, [TINY.read_bytes(), (ROOT / "baselines.yaml").read_bytes()]),
    "labels": (of_file(lambda path: labels.read(path, []), "val_label.txt"), [LABELS]),
    "classes": (of_file(synsets.read_list, "synsets.txt"), [SYNSETS]),
    "records": (of_file(reader.read, RESULTS), [RECORDS]),
}


def changed(content: bytes, rng: random.Random) -> bytes:
    """Change a text in a few places: cut, doubled, moved, flipped, or with a hostile piece."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 5, 20))):
        at, to = sorted(rng.randrange(len(data) + 1) for _ in range(2))
        to = min(to, at + rng.choice((1, 10, 1000)))
        match rng.randrange(5):
            case 0:
                del data[at:to]
            case 1:
                data[at:at] = data[at:to]
            case 2:
                data[at:at] = rng.choice(PIECES)
            case 3:
                data[at:to] = rng.randbytes(to - at)
            case _:
                other = rng.randrange(len(data) + 1)
                data[other:other] = data[at:to]
    return bytes(data)


@pytest.mark.fault(
    "text of tools and people, changed at random",
    sees="an error that names the file and what is wrong in it, within seconds",
    keeps="everything",
)
@pytest.mark.parametrize("name", PARSERS)
def test_changed_texts(name, tmp_path, tries):
    parse, texts = PARSERS[name]
    for rng in tries(300, 30_000):
        content = changed(rng.choice(texts), rng)
        began = time.monotonic()
        try:
            parse(content, tmp_path)
        except HarnessError as error:
            assert str(error)
        except BaseException:
            (tmp_path / "content").write_bytes(content)
            print(f"see {tmp_path / 'content'}")
            raise
        assert time.monotonic() - began < LIMIT_S
