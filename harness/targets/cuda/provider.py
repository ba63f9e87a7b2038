"""What the family `cuda` offers a run, and what it needs of a host."""

from __future__ import annotations

import dataclasses
import importlib.util
import shutil
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path

from harness.base.errors import HarnessError
from harness.plan import Missing
from harness.settings import Settings
from harness.targets.protocol import Target
from harness.targets.provider import Finding, Findings, Look, Provider

QUERY_DEADLINE_S = 20.0  # of one call of nvidia-smi
LOOK_DEADLINE_S = 60.0

_GROUP = "CUDA"
_OF = frozenset({"cuda"})
_NO_GPU, _NO_RUNTIME = "no GPU that can be used", "no ONNX Runtime for CUDA"


class CudaProvider(Provider):
    """NVIDIA GPUs of this host."""

    def make(self, name: str, settings: Settings, folder: Path) -> Target:
        from harness.targets.cuda.target import CudaTarget

        return CudaTarget(settings)

    def cluster_needs(self, settings: Settings) -> Mapping[str, float]:
        return {"GPU": 1}

    def lacking(self, settings: Settings, *, building: bool) -> Sequence[Missing]:
        missing = []
        if shutil.which("nvidia-smi") is None:
            thing = "nvidia-smi: nothing says which GPU is there"
            missing.append(Missing(thing, "NVIDIA's driver"))
        if importlib.util.find_spec("onnxruntime") and not _version("onnxruntime-gpu"):
            thing = "onnxruntime-gpu: the plain onnxruntime has no CUDA provider"
            remedy = "an environment of its own with pip install -r requirements/cuda.txt"
            missing.append(Missing(thing, remedy))
        return missing

    def nothing_here(self) -> tuple[frozenset[str], Finding]:
        remedy = "for --target=cuda: NVIDIA's driver, then pip install -r requirements/cuda.txt"
        say = Findings(_GROUP, _OF, "machine")
        finding = say.lacks("a GPU and its ONNX Runtime", "neither is here", remedy)
        return frozenset({_NO_GPU, _NO_RUNTIME}), finding

    def looks(self, settings: Settings) -> Sequence[Look]:
        return (Look(_GROUP, LOOK_DEADLINE_S, _OF, lambda: _findings(settings)),)


def _findings(settings: Settings) -> Iterator[Finding]:
    from harness.targets.cuda.target import SMI_DEADLINE_S, CudaTarget

    say = Findings(_GROUP, _OF)
    quick = dataclasses.replace(settings, deadline_factor=QUERY_DEADLINE_S / SMI_DEADLINE_S)
    try:
        target = CudaTarget(quick)
        names = ", ".join(f"{device.index}: {device.name}" for device in target.devices())
        yield say.ok("GPUs", f"{names}; driver {target.identity().get('driver', 'not told')}")
        yield say.locks(settings.leases)
    except HarnessError as error:
        yield say.lacks("GPUs", error.message, error.remedy, kind="machine", short=_NO_GPU)
    plain, of_gpu = _version("onnxruntime"), _version("onnxruntime-gpu")
    found, works = f"onnxruntime-gpu {of_gpu}", False
    if not of_gpu:
        found = "onnxruntime-gpu is not installed"
    elif plain:
        found = f"onnxruntime {plain} and {found}: both are one module"
    elif not _has_provider():
        found += ", without its CUDA library"
    else:
        works = True
    what = "ONNX Runtime with the CUDA provider"
    remedy = "pip uninstall onnxruntime, then pip install -r requirements/cuda.txt"
    yield say.check(works, what, found, remedy, short=_NO_RUNTIME)


def _version(distribution: str) -> str:
    """Version of an installed distribution; empty where it is absent."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""


def _has_provider() -> bool:
    """Return whether the module brings the provider's library; it is not imported."""
    spec = importlib.util.find_spec("onnxruntime")
    places = (spec.submodule_search_locations if spec else None) or ()
    return any(
        Path(place, "capi", "libonnxruntime_providers_cuda.so").is_file() for place in places
    )


PROVIDER = CudaProvider()
