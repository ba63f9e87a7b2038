"""`harness.images.file_digests`: unchanged files are hashed once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness.base.errors import DataError
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


def memory_in(folder: Path) -> Path:
    (memory,) = folder.iterdir()
    return memory


def test_unchanged_files_are_hashed_once(
    tmp_path: Path, images: ImageSet, hashed: list[str]
) -> None:
    first = FileDigests(tmp_path / "memory").of(images.paths)
    assert len(hashed) == len(set(first)) == COUNT
    assert FileDigests(tmp_path / "memory").of(images.paths) == first
    assert len(hashed) == COUNT
    assert FileDigests(tmp_path / "memory").of(images.paths[::-1]) == first[::-1]
    assert FileDigests(tmp_path / "memory").of([]) == []


def test_a_file_that_took_anothers_place_is_hashed_again(
    tmp_path: Path, images: ImageSet, hashed: list[str]
) -> None:
    """By a rename, with the size and the time of the old one; the others are not."""
    memory = FileDigests(tmp_path / "memory")
    before = memory.of(images.paths)
    stat = images.paths[3].stat()
    other = tmp_path / "other.bmp"
    noise(18, 20, seed=99).save(other)
    os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    other.rename(images.paths[3])
    assert images.paths[3].stat().st_size == stat.st_size
    hashed.clear()
    after = memory.of(images.paths)
    assert hashed == [images.names[3]]
    assert [a == b for a, b in zip(before, after, strict=True)] == [i != 3 for i in range(COUNT)]
    assert memory.of(images.paths) == after
    assert hashed == [images.names[3]]


@pytest.mark.parametrize(
    "content", [b"", b'{"a": "b', b"[]", b'{"a": 1}', b"\xff\xfe", b"[" * 99_999]
)
def test_a_damaged_memory_is_only_slower(
    content: bytes, tmp_path: Path, images: ImageSet, hashed: list[str]
) -> None:
    right = FileDigests(tmp_path / "memory").of(images.paths)
    memory_in(tmp_path / "memory").write_bytes(content)
    for _ in range(2):  # and it remembers again
        assert FileDigests(tmp_path / "memory").of(images.paths) == right
        assert len(hashed) == 2 * COUNT


def test_one_wrong_byte_is_found_wherever_it_is(
    tmp_path: Path, images: ImageSet, hashed: list[str]
) -> None:
    """A digest that is wrong would make each later run say that an image changed."""
    right = FileDigests(tmp_path / "memory").of(images.paths)
    memory = memory_in(tmp_path / "memory")
    whole = memory.read_bytes()
    for at in (0, 40, 63, 64, 65, *range(len(whole) // 2, len(whole), 97), len(whole) - 1):
        memory.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert FileDigests(tmp_path / "memory").of(images.paths) == right
        assert memory.read_bytes() == whole


def test_every_file_that_cannot_be_read_is_named(tmp_path: Path, images: ImageSet) -> None:
    for path in images.paths[2:5]:
        path.unlink()
    with pytest.raises(DataError, match="3 images cannot be used") as caught:
        FileDigests(tmp_path / "memory").of(images.paths)
    assert [line.partition(": ")[0] for line in caught.value.files] == [
        f"image {path}" for path in images.paths[2:5]
    ]


def test_a_memory_that_cannot_be_written_is_only_slower(tmp_path: Path, images: ImageSet) -> None:
    (tmp_path / "file").write_text("x")
    digests = FileDigests(tmp_path / "file").of(images.paths)
    assert digests == [file_digest(path) for path in images.paths]


def test_names_that_are_not_utf8(tmp_path: Path, hashed: list[str]) -> None:
    file = tmp_path / os.fsdecode(b"caf\xe9.bmp")
    file.write_text("x")
    for _ in range(2):
        assert FileDigests(tmp_path / "memory").of([file]) == [file_digest(file)]
    assert len(hashed) == 1
