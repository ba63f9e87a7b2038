"""Checkpoint files that are unsafe, damaged or no checkpoints are refused in one line."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harness.base.errors import CheckpointError
from harness.networks.weights import load_into, load_state

ROOT = Path(__file__).parents[2]
ONE = torch.ones(1)


def write(path: Path, loaded: object, **options: Any) -> Path:
    torch.save(loaded, path, **options)
    return path


class RunsCode:
    """A pickle of this makes a folder when it is loaded."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.mkdir, (self.folder,)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "old"])
def test_code_in_a_checkpoint_is_refused_and_not_run(zipped: bool, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    loaded = {"fc.bias": ONE, "fc.weight": RunsCode(ran)}
    path = write(tmp_path / "w.pth", loaded, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError) as caught:
        load_state(path, "plain")
    assert not ran.exists()
    assert f"{os.mkdir.__module__}.mkdir" in caught.value.message
    assert "as a malicious file would" in caught.value.message
    assert "--trust-checkpoint MODEL" in caught.value.remedy
    # The same file is no dud: whoever trusts it runs it.
    load_state(path, "plain", allow_unsafe=True)
    assert ran.exists()


def test_more_than_weights_is_refused_until_trusted(tmp_path: Path) -> None:
    """FixRes may have kept its accuracy as a NumPy scalar."""
    loaded = {"model": {"module.fc.bias": ONE}, "accuracy": np.float64(79.0)}
    path = write(tmp_path / "w.pth", loaded)
    with pytest.raises(CheckpointError, match=r"more than weights.*multiarray\.scalar") as caught:
        load_state(path, "fixres")
    assert "--trust-checkpoint MODEL" in caught.value.remedy
    assert list(load_state(path, "fixres", allow_unsafe=True)) == ["fc.bias"]


def saved(**options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save({"a.b": torch.arange(1000.0)}, buffer, **options)
    return buffer.getvalue()


OLD = {"_use_new_zipfile_serialization": False}


def zip_of_something_else() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("notes/readme.txt", "no weights")
    return buffer.getvalue()


def saved_again(data: bytes = b"", method: int = zipfile.ZIP_STORED) -> bytes:
    """What torch.save wrote, packed with `method`, and with `data` at the end of its pickle."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(saved())) as old, zipfile.ZipFile(buffer, "w", method) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name) + (data if name.endswith("data.pkl") else b""))
    return buffer.getvalue()


def safetensors(padding: bytes = b"") -> bytes:
    """A file of the format, with `padding` after its header's JSON."""
    tensor = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}
    header = json.dumps({"__metadata__": {"format": "pt"}, "a.b": tensor}).encode() + padding
    return len(header).to_bytes(8, "little") + header + np.arange(6, dtype="<f4").tobytes()


@pytest.mark.parametrize("padding", [0, 0x80 - len(safetensors()) % 256 + 32])
def test_safetensors_are_read_whatever_they_are_called(tmp_path: Path, padding: int) -> None:
    """Also where the length of the header begins as a pickle does, with the byte 0x80."""
    path = tmp_path / "w.pth"
    path.write_bytes(safetensors(b" " * padding))
    assert (path.read_bytes()[0] == 0x80) == bool(padding)
    assert load_state(path, "plain")["a.b"].tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        pytest.param(
            lambda: saved_again(method=zipfile.ZIP_DEFLATED), "compressed member", id="packed zip"
        ),
        pytest.param(
            lambda: saved_again(bytes(65 << 20)), "data.pkl` of 65 MiB", id="large pickle"
        ),
        pytest.param(lambda: b"", "is empty", id="empty"),
        pytest.param(lambda: b"\n<!DOCTYPE html><html>404</html>", "a web page", id="html"),
        pytest.param(lambda: b"version https://git-lfs", "Git LFS pointer", id="pointer"),
        pytest.param(lambda: safetensors()[:-8], "damaged", id="cut safetensors"),
        pytest.param(lambda: safetensors(b"x")[:40], "damaged", id="other header"),
        pytest.param(lambda: b"\0" * 4096, "zero bytes", id="zeros"),
        pytest.param(lambda: saved()[:2000], "damaged", id="cut zip"),
        pytest.param(lambda: saved(**OLD)[:2000], "damaged", id="cut old file"),
        pytest.param(lambda: saved()[:4], "damaged", id="four bytes"),
        pytest.param(zip_of_something_else, "damaged or was written", id="other zip"),
        pytest.param(lambda: pickle.dumps({"a": 1}), "damaged or was written", id="pickle"),
    ],
)
def test_damaged_file_is_one_line(content: Callable[[], bytes], said: str, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(content())
    with pytest.raises(CheckpointError) as caught:
        load_state(path, "plain")
    assert said in caught.value.message and str(path) in caught.value.message
    assert "\n" not in caught.value.message and caught.value.remedy
    assert len(caught.value.message) < 400 + len(str(path))


@pytest.mark.parametrize("options", [{}, OLD], ids=["zip", "old"])
def test_flipped_bytes_never_end_in_another_exception(options, tmp_path):
    rng = random.Random(5)
    whole, path = saved(**options), tmp_path / "w.pth"
    for _ in range(80):
        damaged = bytearray(whole)
        for _ in range(4):
            # Not only in the values, which no format check can see.
            damaged[rng.choice((rng.randrange(400), rng.randrange(len(whole))))] = rng.randrange(
                256
            )
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError) as caught:
            load_into(torch.nn.Identity(), load_state(path, "plain"), name="none")
        assert caught.value.message.isprintable()
