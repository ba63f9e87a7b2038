"""Checkpoint files: where they are taken from, and their digests. Nothing in them is read."""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.base.errors import CheckpointError
from harness.catalog.schema import CheckpointSpec
from harness.networks.weights import load_state
from harness.stages.checkpoint import obtain_checkpoint, verify_digest
from harness.stages.fetch import Limits
from tests.selftest import file_server
from tests.selftest.file_server import CONTENT, OTHER, Site, file, sha256
from tests.selftest.running import PATIENCE_S

PAGE = b"<!DOCTYPE html><title>Log in</title>"
SHORT = Limits(timeout_s=PATIENCE_S, deadline_s=PATIENCE_S, retries=0)
MD5 = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()
SHA256 = sha256(CONTENT)


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    with file_server.running(monkeypatch) as server:
        yield server


def spec(url: str | None, **digests: str) -> CheckpointSpec:
    return CheckpointSpec(file="w.pth", url=url, layout="plain", **digests)


KNOWN = {"sha256": SHA256}


@dataclass
class Obtainer:
    folder: Path
    cache: Path

    def __call__(self, spec: CheckpointSpec, offline: bool = False) -> Path:
        path, digests = obtain_checkpoint(
            spec, self.folder, self.cache, offline=offline, limits=SHORT
        )
        assert digests.sha256 == sha256(path.read_bytes())
        return path

    def fails(self, spec: CheckpointSpec, offline: bool = False) -> str:
        with pytest.raises(CheckpointError) as caught:
            self(spec, offline)
        assert "\n" not in caught.value.message and caught.value.remedy
        return caught.value.message


@pytest.fixture
def obtain(tmp_path: Path) -> Obtainer:
    (tmp_path / "own").mkdir()
    return Obtainer(tmp_path / "own", tmp_path / "cache")


def test_own_file_comes_first_then_the_cache_then_the_url(site: Site, obtain: Obtainer) -> None:
    wanted = spec(site.url, **KNOWN)
    for offline in (False, False, True):
        assert obtain(wanted, offline) == obtain.cache / "w.pth" and len(site.requests) == 1
    (obtain.folder / "w.pth").write_bytes(CONTENT)
    assert obtain(wanted) == obtain.folder / "w.pth" and len(site.requests) == 1


def test_own_wrong_file_stays_and_is_not_replaced(site: Site, obtain: Obtainer) -> None:
    (obtain.folder / "w.pth").write_bytes(OTHER)
    message = obtain.fails(spec(site.url, **KNOWN))
    assert sha256(OTHER) in message and sha256(CONTENT) in message
    assert "stays where it is" in message
    assert (obtain.folder / "w.pth").read_bytes() == OTHER and site.requests == []
    assert not obtain.cache.exists()


def test_wrong_file_in_the_cache_is_fetched_again_once(site: Site, obtain: Obtainer) -> None:
    obtain.cache.mkdir()
    (obtain.cache / "w.pth").write_bytes(OTHER)
    message = obtain.fails(spec(site.url, **KNOWN), offline=True)
    assert sha256(OTHER) in message and "`--offline`" in message
    assert obtain(spec(site.url, **KNOWN)).read_bytes() == CONTENT
    assert (obtain.cache / f"w.pth.refused-{sha256(OTHER)[:8]}").exists()
    site.behaviours, site.requests = [file(OTHER)], []
    (obtain.cache / "w.pth").write_bytes(b"damaged")
    obtain.fails(spec(site.url, **KNOWN))
    assert len(site.requests) == 1 and not (obtain.cache / "w.pth").exists()


@pytest.mark.parametrize("name", ["w.pth", "w.pth.part"])
@pytest.mark.parametrize("digests", [KNOWN, {}], ids=["digest", "none"])
def test_a_pipe_in_the_cache_is_not_waited_for(site, obtain, name, digests):
    obtain.cache.mkdir()
    os.mkfifo(obtain.cache / name)
    assert str(obtain.cache / name) in obtain.fails(spec(site.url, **digests))


def test_a_download_is_not_written_through_a_link(site: Site, obtain: Obtainer) -> None:
    obtain.cache.mkdir()
    (obtain.folder / "precious").write_text("ours")
    (obtain.cache / "w.pth.part").symlink_to(obtain.folder / "precious")
    assert "w.pth.part" in obtain.fails(spec(site.url, **KNOWN))
    assert (obtain.folder / "precious").read_text() == "ours"


def test_nothing_is_fetched_where_it_may_not_be(site: Site, obtain: Obtainer) -> None:
    assert "`--offline` was given" in obtain.fails(spec(site.url), offline=True)
    assert "it has no URL" in obtain.fails(spec(None))
    assert str(obtain.folder) in obtain.fails(spec(None))
    assert site.requests == [] and not obtain.cache.exists()


@pytest.mark.parametrize("digests", [{}, KNOWN], ids=["none", "sha256"])
def test_login_page_is_refused_with_and_without_a_digest(digests, site, obtain):
    site.behaviours = [file(PAGE)]
    message = obtain.fails(spec(site.url, **digests))
    assert "is a web page, not weights: '<!DOCTYPE html>" in message
    assert all(text in message for text in digests.values())
    assert not (obtain.cache / "w.pth").exists()


def test_file_without_a_digest_is_taken_when_it_begins_like_one(site, obtain):
    assert obtain(spec(site.url)) == obtain(spec(site.url)) and len(site.requests) == 1
    (obtain.cache / "w.pth").write_bytes(b"")
    assert "is empty" in obtain.fails(spec(None))


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    (tmp_path / "w.pth").write_bytes(CONTENT)
    return tmp_path / "w.pth"


@pytest.mark.parametrize("kind", ["md5", "sha256", "sha256_prefix"])
def test_wrong_digest_is_said_with_both_values(kind: str, weights: Path) -> None:
    right = {"md5": MD5, "sha256": SHA256, "sha256_prefix": SHA256[:8]}
    wrong = right[kind][:-1] + ("0" if right[kind][-1] != "0" else "1")
    with pytest.raises(CheckpointError) as caught:
        verify_digest(weights, spec("https://publisher.example/w.pth", **{**right, kind: wrong}))
    assert right[kind] in caught.value.message and wrong in caught.value.message
    assert "was not opened" in caught.value.message and "publisher.example" in caught.value.remedy


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A zip archive of stored members, as torch.save writes it."""
    with zipfile.ZipFile(tmp_path / "w.pth", "w") as archive:
        archive.writestr("w/data.pkl", b"names and shapes")
        archive.writestr("w/data/0", bytes(range(256)) * 100)
    return tmp_path / "w.pth"


def flip(file: Path, at: int) -> None:
    data = bytearray(file.read_bytes())
    data[at] ^= 1
    file.write_bytes(data)


def test_a_flipped_bit_is_found_where_no_digest_is_published(archive: Path) -> None:
    verify_digest(archive, spec(None))
    flip(archive, 9000)
    with pytest.raises(CheckpointError, match="w/data/0"):
        verify_digest(archive, spec(None))
    for folder in (archive.parent, None):
        with pytest.raises(CheckpointError, match="w/data/0"):
            obtain_checkpoint(spec(None), folder, archive.parent, offline=True)


def test_a_crc_that_was_not_computed_is_not_compared(archive: Path) -> None:
    """As `torch.serialization.set_crc32_options(False)` writes it."""
    with zipfile.ZipFile(archive) as whole:
        crc = whole.getinfo("w/data/0").CRC.to_bytes(4, "little")
    archive.write_bytes(archive.read_bytes().replace(crc, bytes(4)))
    flip(archive, 9000)
    verify_digest(archive, spec(None))


def test_a_cut_archive_and_what_is_none_are_left_to_the_reader(archive: Path) -> None:
    archive.write_bytes(archive.read_bytes()[:9000])
    verify_digest(archive, spec(None))


def test_what_is_no_regular_file_is_an_error_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pth")
    for path in (tmp_path / "absent.pth", tmp_path, tmp_path / "pipe.pth"):
        for read in (lambda p: verify_digest(p, spec(None)), lambda p: load_state(p, "plain")):
            with pytest.raises(CheckpointError, match=r"regular file|No such file|directory"):
                read(path)
