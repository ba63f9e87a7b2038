"""`harness.images.file_digests`: unchanged files are hashed once."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.base.store import file_digest
from harness.images import file_digests
from harness.images.dataset import ImageSet
from harness.images.file_digests import FileDigests
from tests.selftest.small_images import (
    COUNT,
    noise,
    put_images,
)


@pytest.fixture
def images(tmp_path: Path) -> ImageSet:
    return put_images(tmp_path / "images")


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the images that were hashed, as it happens."""
    names: list[str] = []

    def counted(path: Path) -> str:
        names.append(path.name)
        return file_digest(path)

    monkeypatch.setattr(file_digests, "file_digest", counted)
    return names


def test_unchanged_files_are_hashed_once(tmp_path: Path, hashed: list[str]) -> None:
    files = [tmp_path / f"{number:03}" for number in range(501)]  # more than one query takes
    for file in files:
        file.write_text(file.name)
    memory = tmp_path / "memory.sqlite"
    first = FileDigests(memory).of(files)
    assert len(hashed) == len(set(first)) == 501
    hashed.clear()
    assert FileDigests(memory).of(files[::-1]) == first[::-1]
    assert FileDigests(memory).of([]) == []
    assert hashed == []


def test_a_file_that_took_anothers_place_is_hashed_again(
    tmp_path: Path, images: ImageSet, hashed: list[str]
) -> None:
    """By a rename, with the size and the time of the old one."""
    memory = FileDigests(tmp_path / "memory.sqlite")
    (before,) = memory.of([images.paths[3]])
    stat = images.paths[3].stat()
    other = tmp_path / "other.bmp"
    noise(18, 20, seed=99).save(other)
    os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    other.rename(images.paths[3])
    assert images.paths[3].stat().st_size == stat.st_size
    assert memory.of([images.paths[3]]) != [before]


def garble_the_rows(memory: Path) -> None:
    content = bytearray(memory.read_bytes())
    content[4096:] = b"\xff" * len(content[4096:])  # past the first page, which has the schema
    memory.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        lambda memory: memory.write_bytes(b"no database at all" * 100),
        lambda memory: os.truncate(memory, 5000),
        lambda memory: os.truncate(memory, 0),
        garble_the_rows,
        lambda memory: (memory.unlink(), Path(f"{memory}-journal").write_bytes(b"x" * 600)),
    ],
    ids=["garbage", "truncated", "empty", "garbled rows", "left-over journal"],
)
def test_a_damaged_memory_is_only_slower(
    damage: Callable[[Path], object], tmp_path: Path, images: ImageSet, hashed: list[str]
) -> None:
    memory = tmp_path / "memory.sqlite"
    right = FileDigests(memory).of(images.paths)
    damage(memory)
    hashed.clear()
    assert FileDigests(memory).of(images.paths) == right
    assert len(hashed) == COUNT
    assert FileDigests(memory).of(images.paths) == right
    assert len(hashed) == COUNT  # and it remembers again


def test_a_memory_that_cannot_be_used_is_only_slower(tmp_path: Path, images: ImageSet) -> None:
    right = FileDigests(tmp_path / "memory.sqlite").of(images.paths)
    (tmp_path / "folder.sqlite").mkdir()
    assert FileDigests(tmp_path / "folder.sqlite").of(images.paths) == right
    (tmp_path / "file").write_text("x")
    assert FileDigests(tmp_path / "file" / "memory.sqlite").of(images.paths) == right


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    file = tmp_path / os.fsdecode(b"caf\xe9.bmp")
    file.write_text("x")
    assert FileDigests(tmp_path / "memory.sqlite").of([file]) == [file_digest(file)]
