"""Thumbnails of flipped images: made once, below the image root alone, kept in the run."""

from __future__ import annotations

import io
import os
import random
import re
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from harness.records.observed import ImagesInfo
from harness.report import thumbs, write_report
from tests.selftest import report_samples as samples
from tests.selftest.pages import Tree

FLIP = samples.FLIPPED


def _photo(path: Path, size: tuple[int, int] = (320, 200)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, "teal").save(path, "JPEG")
    return path


def _images(root: Path | str) -> ImagesInfo:
    return ImagesInfo("folder", str(root), 512, "d")


def planted_thumb(directory: Path, images: ImagesInfo, name: str) -> Path:
    """A thumbnail as large as one may be, as an earlier write of the report left it."""
    path = directory / thumbs.THUMBS / thumbs.file_name(images, name)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"\xff\xd8\xff" + b"\x00" * (thumbs.LARGEST - 3))
    return path


def test_a_thumbnail_is_small_and_a_jpeg(tmp_path: Path) -> None:
    _photo(tmp_path / "set" / "val" / FLIP)
    # In a folder of a split or of a class as well.
    images = _images(tmp_path / "set")
    picture = thumbs.thumbnail(images, FLIP)
    (tmp_path / "set" / "val" / "n01440764").mkdir()
    (tmp_path / "set" / "val" / FLIP).rename(tmp_path / "set" / "val" / "n01440764" / FLIP)
    assert thumbs.thumbnail(images, FLIP) == picture
    with Image.open(io.BytesIO(picture)) as image:
        assert (image.format, image.size) == ("JPEG", (thumbs.EDGE, 60))
    assert len(picture) <= thumbs.LARGEST


def test_an_image_is_read_below_the_root_alone(tmp_path: Path) -> None:
    inside, outside = tmp_path / "set", tmp_path / "private"
    _photo(inside / "ok.JPEG")
    _photo(outside / "x.JPEG")
    (inside / "link.JPEG").symlink_to(outside / "x.JPEG")
    (inside / "folder").symlink_to(outside)
    (inside / "within.JPEG").symlink_to(inside / "ok.JPEG")
    for name in ("ok.JPEG", "within.JPEG"):
        assert thumbs.thumbnail(_images(inside), name)
    for name in (
        "link.JPEG",
        "x.JPEG",  # in a folder that is a link
        "folder/x.JPEG",
        "../private/x.JPEG",
        str(outside / "x.JPEG"),
        "",
        ".",
        "a\0b",
        "absent.JPEG",
    ):
        assert thumbs.thumbnail(_images(inside), name) == b""
    for root in ("", "/", "set", tmp_path / "absent", "a\0b"):
        assert thumbs.thumbnail(_images(root), "ok.JPEG") == b""


def test_what_is_no_image_has_no_thumbnail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = _photo(tmp_path / "whole.JPEG").read_bytes()
    (tmp_path / "half.JPEG").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.JPEG").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    (tmp_path / "empty.JPEG").write_bytes(b"")
    (tmp_path / "folder.JPEG").mkdir()
    os.mkfifo(tmp_path / "pipe.JPEG")  # nobody writes: opening it must not wait
    for name in ("half", "text", "empty", "folder", "pipe"):
        assert thumbs.thumbnail(_images(tmp_path), f"{name}.JPEG") == b""
    noise = random.Random(1).randbytes(96 * 96 * 3)
    Image.frombytes("RGB", (96, 96), noise).save(tmp_path / "noise.png")
    assert thumbs.thumbnail(_images(tmp_path), "noise.png")
    monkeypatch.setattr(thumbs, "LARGEST", 1_000)
    assert thumbs.thumbnail(_images(tmp_path), "noise.png") == b""
    monkeypatch.setattr(thumbs, "MAX_PIXELS", 320 * 200 - 1)
    assert thumbs.thumbnail(_images(tmp_path), "whole.JPEG") == b""


def test_thumbnails_outlive_the_images(tmp_path: Path) -> None:
    photo = _photo(tmp_path / "set" / FLIP)
    line = samples.case(images=_images(tmp_path / "set"))
    check = samples.batch_check("squeezenet1_1", target="cpu", provenance="rehearsal")
    run = samples.write(tmp_path / "run", samples.run_records([line], checks=[check]))

    # A report of somebody's records opens no file that they name.
    html = write_report(run).read_text(encoding="utf-8")
    assert not (run / thumbs.THUMBS).exists()
    assert "<img" not in html

    html = write_report(run, images_at_hand=True).read_text(encoding="utf-8")
    (made,) = (run / thumbs.THUMBS).iterdir()
    assert re.fullmatch(r"[0-9a-f]{32}\.jpg", made.name)
    photo.unlink()
    again = write_report(run).read_text(encoding="utf-8")
    for text in (html, again):
        assert text.count('<img class="thumb" src="data:image/jpeg;base64,/9j/') == 2
        assert not Tree(text).faults


def test_a_thumbnail_is_read_from_the_run_directory_alone(tmp_path: Path) -> None:
    images = _images(tmp_path)
    path = planted_thumb(tmp_path, images, "a.JPEG")
    assert thumbs.Thumbs(tmp_path).uri(images, "a.JPEG").startswith("data:image/jpeg;base64,/9j")
    assert thumbs.Thumbs(tmp_path).uri(images, "b.JPEG") == ""
    assert thumbs.Thumbs(tmp_path).uri(None, "a.JPEG") == ""
    assert thumbs.Thumbs(tmp_path).uri(replace(images, digest="e"), "a.JPEG") == ""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / thumbs.THUMBS).symlink_to(tmp_path / thumbs.THUMBS)
    assert thumbs.Thumbs(elsewhere).uri(images, "a.JPEG") == ""
    path.write_bytes(b"<svg onload=alert(1)>")
    assert thumbs.Thumbs(tmp_path).uri(images, "a.JPEG") == ""
    path.unlink()
    path.symlink_to(_photo(tmp_path / "other.jpg"))
    assert thumbs.Thumbs(tmp_path).uri(images, "a.JPEG") == ""


def test_a_page_holds_no_more_thumbnails_than_it_may(tmp_path: Path) -> None:
    images = _images(tmp_path)
    names = [f"{n}.JPEG" for n in range(100)]
    for name in names:
        planted_thumb(tmp_path, images, name)
    shown = thumbs.Thumbs(tmp_path)
    total = sum(len(shown.uri(images, name)) for name in names)
    assert thumbs.PAGE_TOTAL - 20_000 < total <= thumbs.PAGE_TOTAL
