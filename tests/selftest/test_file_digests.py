"""`harness.images.file_digests`: unchanged files are hashed once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness.base.errors import DataError
from harness.base.store import Store, file_digest
from harness.images import file_digests
from harness.images.dataset import ImageSet
from harness.images.file_digests import digests_of
from tests.selftest.small_images import COUNT, noise
from tests.selftest.small_images import images as images
from tests.selftest.small_images import store as store


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the images that were hashed, as it happens."""
    names: list[str] = []

    def counted(path: Path) -> str:
        names.append(path.name)
        return file_digest(path)

    monkeypatch.setattr(file_digests, "file_digest", counted)
    return names


def test_unchanged_files_are_hashed_once(store: Store, images: ImageSet, hashed: list[str]) -> None:
    right = [file_digest(path) for path in images.paths]
    for _ in range(2):
        assert digests_of(store, images.paths) == right
    assert len(hashed) == COUNT
    assert digests_of(store, images.paths[::-1]) == right[::-1]
    assert digests_of(store, []) == []


def test_a_file_that_took_anothers_place_is_hashed_again(tmp_path, store, images):
    """By a rename, with the size and the time of the old one."""
    before = digests_of(store, images.paths)
    stat = images.paths[3].stat()
    other = tmp_path / "other.bmp"
    noise(18, 20, seed=99).save(other)
    os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    other.rename(images.paths[3])
    assert images.paths[3].stat().st_size == stat.st_size
    after = digests_of(store, images.paths)
    assert [a == b for a, b in zip(before, after, strict=True)] == [i != 3 for i in range(COUNT)]


def test_a_store_that_is_damaged_or_cannot_be_written_is_only_slower(tmp_path, store, images):
    """A digest that is wrong would make each later run say that an image changed."""
    right = digests_of(store, images.paths)
    (entry,) = store.entries()
    file = entry.file("digests.txt")
    file.chmod(0o644)
    whole = file.read_bytes()
    for damaged in (b"", whole[:-1], bytes([whole[0] ^ 1]) + whole[1:]):
        file.write_bytes(damaged)
        assert digests_of(Store(store.root), images.paths) == right
        assert file.read_bytes() == whole
        file.chmod(0o644)
    (tmp_path / "file").write_text("x")
    assert digests_of(Store(tmp_path / "file"), images.paths) == right


def test_every_file_that_cannot_be_read_is_named(store: Store, images: ImageSet) -> None:
    for path in images.paths[2:5]:
        path.unlink()
    with pytest.raises(DataError, match="3 images cannot be used") as caught:
        digests_of(store, images.paths)
    assert [line.partition(": ")[0] for line in caught.value.files] == [
        f"image {path}" for path in images.paths[2:5]
    ]


def test_names_that_are_not_utf8(tmp_path: Path, store: Store, hashed: list[str]) -> None:
    file = tmp_path / os.fsdecode(b"caf\xe9.bmp")
    file.write_text("x")
    for _ in range(2):
        assert digests_of(store, [file]) == [file_digest(file)]
    assert len(hashed) == 1
