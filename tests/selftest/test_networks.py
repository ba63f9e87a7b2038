"""Networks: names to modules, and the libraries' import where their wheels do not fit."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.base.errors import NetworkError, from_json
from harness.networks import library as networks
from harness.networks.library import build_network, library_version

ROOT = Path(__file__).parents[2]


def in_child(code: str, *paths: Path, arguments: Sequence[str] = ()) -> str:
    """Standard output of `code` in a fresh interpreter with `paths` first on its path."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [*paths, ROOT]))},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# ---------------------------------------------------------------------------------- building


@pytest.mark.parametrize("source", ["torchvision:squeezenet1_1", "timm:resnet10t"])
def test_network_is_built_for_inference(source: str) -> None:
    module = build_network(source, {"num_classes": 7})
    assert not any(part.training for part in module.modules())
    assert {p.dtype for p in module.parameters()} == {torch.float32}
    with torch.inference_mode():
        assert module(torch.zeros(2, 3, 64, 64)).shape == (2, 7)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("tim:resnest50d", "timm"),
        ("timm:resnest50", "resnest50d"),
        ("torchvision:squeezenet1.1", "squeezenet1_1"),
        ("torchvision:fcn_resnet50", ""),  # a segmenter: it would fetch a backbone
        ("timm:hf-hub:someone/something", ""),  # would reach for the network
        ("resnet50", "LIBRARY:NAME"),
        ("timm:", "LIBRARY:NAME"),
        ("", "LIBRARY:NAME"),
    ],
)
def test_unknown_network_names_the_closest(source: str, said: str) -> None:
    refusal = "no network|no library|does not name a network"  # before anything is built
    with pytest.raises(NetworkError, match=refusal) as caught:
        build_network(source, {})
    assert f"`{source}`" in caught.value.message and said in caught.value.remedy
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("source", "arguments"),
    [
        ("torchvision:squeezenet1_1", {"num_clases": 7}),
        ("timm:resnet10t", {"num_clases": 7}),
        ("timm:resnet10t", {"num_classes": "many"}),
        ("timm:resnet10t.no_such_tag", {}),
    ],
)
def test_refused_arguments_are_one_line(source: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(NetworkError, match="cannot be built") as caught:
        build_network(source, arguments)
    assert "\n" not in caught.value.message and caught.value.remedy
    # It crosses a process and is still told apart from a name that no library has.
    assert type(from_json(caught.value.to_json())).__name__ == "NetworkRefused"


# --------------------------------------------------------------------------------- libraries


def test_absent_library_is_an_error_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    assert library_version("timm:any") == metadata.version("timm")

    def absent(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", absent)
    with pytest.raises(NetworkError, match="timm is not installed") as caught:
        library_version("timm:resnest50d")
    assert "requirements.txt" in caught.value.remedy
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(NetworkError, match="torch") as caught:
        networks.import_torch()
    assert "requirements.txt" in caught.value.remedy


FAKE = """
import torch
from torchvision import part   # stays in sys.modules when this import fails
from torchvision.part import fresh
assert fresh, "half-imported modules were kept"
part.fresh = False
@torch.library.register_fake("torchvision::nms")
def nms(dets, scores, iou_threshold):
    return dets
@torch.library.register_fake("torchvision::qnms")
def qnms(dets, scores, iou_threshold):
    return dets
"""

USE_FAKE = """
import sys
import torch
library = torch.library.Library("torchvision", "FRAGMENT")
for name in sys.argv[1:]:   # what another part of the process declared
    library.define(name + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
try:
    import torchvision
except RuntimeError as error:
    assert "nms does not exist" in str(error), error
else:
    sys.exit("the fake must fail without the shim")
assert "torchvision.part" in sys.modules
from harness.networks.library import import_torchvision
first = import_torchvision()
assert import_torchvision() is first is sys.modules["torchvision"]
try:
    torch.ops.torchvision.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
except NotImplementedError:
    print("declared, not implemented")
"""


def test_import_survives_operators_that_did_not_load(tmp_path: Path) -> None:
    """As PyPI's torchvision for CUDA beside a CPU build of torch, one operator declared."""
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text(FAKE)
    (package / "part.py").write_text("fresh = True\n")
    said = in_child(USE_FAKE, tmp_path, arguments=["nms"])
    assert said.strip() == "declared, not implemented"


def test_other_failures_of_the_import_are_told(tmp_path: Path) -> None:
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('versions do not fit\\nmore')")
    (tmp_path / "torch.py").write_text("")
    code = (
        "from harness.base.errors import NetworkError\n"
        "from harness.networks.library import build_network\n"
        "for source in ('torchvision:resnet50', 'timm:resnest50d'):\n"
        "    try:\n"
        "        build_network(source, {})\n"
        "    except NetworkError as error:\n"
        "        print(error.message)\n"
    )
    line = "torchvision cannot be imported: RuntimeError: versions do not fit"
    assert in_child(code, tmp_path).splitlines() == [line, line]
