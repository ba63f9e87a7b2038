"""Networks: names to modules, and the libraries' import where their wheels do not fit."""

from __future__ import annotations

import importlib.util
import os
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
from tests.selftest.running import ROOT, run_python


def in_child(code: str, *paths: Path, arguments: Sequence[str] = ()) -> str:
    """The output of `code` in a fresh interpreter with `paths` first on its path."""
    path = os.pathsep.join(map(str, [*paths, ROOT]))
    status, output = run_python(["-c", code, *arguments], {"PYTHONPATH": path})
    assert status == 0, output
    return output


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
        ("torchvision:fcn_resnet50", "resnet50"),  # a segmenter: it would fetch a backbone
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
    assert said in caught.value.remedy


@pytest.mark.parametrize(
    ("source", "arguments"),
    [
        ("torchvision:squeezenet1_1", {"num_clases": 7}),
        ("timm:resnet10t", {"num_clases": 7}),
        ("timm:resnet10t", {"num_classes": "many"}),
    ],
)
def test_refused_arguments_are_one_line(source: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(NetworkError, match="cannot be built") as caught:
        build_network(source, arguments)
    assert "\n" not in caught.value.message and caught.value.remedy
    # It crosses a process and is still told apart from a name that no library has.
    assert type(from_json(caught.value.to_json())).__name__ == "NetworkRefused"


# ------------------------------------------------------------------------- names, unimported


def test_the_names_that_are_read_are_those_that_the_libraries_list() -> None:
    torchvision, timm = networks.import_torchvision(), networks.import_timm()
    listed = {
        "torchvision": set(torchvision.models.list_models(module=torchvision.models)),
        "timm": set(timm.list_models()),
    }
    for library, names in listed.items():
        read = {name for text in networks._sources(library) for name in networks._registered(text)}
        assert names <= read
        # What is read besides are the old names of renamed networks, which still build.
        is_model = timm.is_model if library == "timm" else names.__contains__
        assert [name for name in read - names if not is_model(name)] == []


@pytest.mark.parametrize(
    ("source", "closest"),
    [
        ("timm:mobilenetv3_largee_100", "mobilenetv3_large_100"),
        ("timm:mobilenet_v3", "mobilenetv3_"),
        ("timm:Resnest50", "resnest50d"),
        ("torchvision:fcn_resnet50", "resnet50"),  # a segmenter
        ("timm:zzzzqq", "documentation"),
    ],
)
def test_a_name_that_no_library_has_is_refused(source: str, closest: str) -> None:
    found = networks.unknown_network(source)
    assert found is not None
    text, hint = found
    library, _, name = source.partition(":")
    assert text == f"{library} {metadata.version(library)} has no network {name!r}"
    assert closest in hint


def test_names_are_read_without_importing() -> None:
    code = (
        "import sys; from harness.networks.library import library_version, unknown_network as u; "
        "library_version('timm:any'); "
        "print([u(s) for s in ('timm:resnest50d', 'timm:tv_resnet50', 'torchvision:resnet50')], "
        "u('timm:nonsense') is None, {'torch', 'torchvision', 'timm'} & set(sys.modules))"
    )
    assert in_child(code).strip() == "[None, None, None] False set()"


def test_where_nothing_can_tell_no_name_is_refused(monkeypatch, tmp_path):
    """A host without the libraries, and one whose version registers its networks otherwise."""
    check = networks.unknown_network.__wrapped__
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert check("timm:of_no_library") is None
    package = tmp_path / "timm" / "models"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").write_text("raise SystemExit('imported')")
    (package / "net.py").write_text("NETWORKS = make_all()\n")
    monkeypatch.undo()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    assert check("timm:of_another_style") is None
    (package / "net.py").write_text("@register_model\ndef net(pretrained=False):\n    pass\n")
    found = check("timm:nett")
    assert found is not None and found[1] == "closest: net"


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


def test_no_network_needs_pytorchs_compiler() -> None:
    """Its import would take half of the time that a child needs before it does anything."""
    code = (
        "import sys, torch\n"
        "from harness.networks.library import build_network\n"
        "disable = torch.compiler.disable\n"
        "build_network('timm:resnet10t', {})(torch.zeros(1, 3, 64, 64))\n"
        "assert torch.compiler.disable is disable\n"
        "print([name for name in sys.modules if name.startswith('torch._dynamo')])\n"
    )
    assert in_child(code).strip() == "[]"


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


def test_an_edit_beside_a_module_of_ones_own_is_another_network(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_net.py").write_text("from own_layers import build")
    digests = set()
    for text in ("build = 1", "build = 2"):
        (tmp_path / "own_layers.py").write_text(text)
        digests.add(library_version("python:own_net:build"))
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "other.py").write_text("")
    digests.add(library_version("python:own_net:build"))
    assert len(digests) == 2


@pytest.mark.parametrize("module", ["own_folder", "own_absent", "sys"])
def test_a_module_without_a_file_is_refused(tmp_path, monkeypatch, module):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_folder").mkdir()  # Python takes it for a namespace package
    with pytest.raises(NetworkError, match=module) as caught:
        library_version(f"python:{module}:build")
    assert caught.value.remedy
