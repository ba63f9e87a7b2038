"""What a record says of the host: machine, versions, revision. Imports none of what it names."""

from __future__ import annotations

import hashlib
import os
import platform
import socket
import subprocess
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path

from harness import __version__
from harness.base.errors import ConfigError

PACKAGES = (
    "numpy",
    "pillow",
    "onnxruntime",
    "onnx",
    "onnxsim",
    "torch",
    "torchvision",
    "timm",
    "pytest",
    "pytest-xdist",
    "pytest-html",
)

_ABSENT = "not installed"


@dataclass(frozen=True)
class Machine:
    """The host that ran a case."""

    hostname: str = ""
    system: str = ""
    architecture: str = ""
    processor: str = ""
    cores: int = 0
    memory_gib: float = 0.0


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0))


def processor() -> tuple[str, str]:
    """Name of the processor and a digest of its features (`/proc/cpuinfo`)."""
    name, features = platform.processor() or platform.machine(), ""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    for line in text.splitlines():
        field, _, value = line.partition(":")
        field = field.strip().lower()
        if field in ("model name", "hardware") and value.strip():
            name = value.strip()
        if field in ("flags", "features") and not features:
            features = " ".join(sorted(value.split()))
        if not line.strip() and features:
            break
    digest = hashlib.sha256(f"{platform.machine()} {features}".encode()).hexdigest()[:16]
    return name, digest


def package_version(name: str) -> str:
    """Installed version of a distribution; "not installed" when it is absent."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return _ABSENT


def required_version(name: str) -> str:
    """Installed version of a distribution that a stage needs.
    Raises `ConfigError`: it is not installed.
    """
    version = package_version(name)
    if version == _ABSENT:
        raise ConfigError(
            f"{name} is not installed, and a stage of this case needs it",
            remedy="pip install -r requirements.txt",
        )
    return version


@cache
def machine() -> Machine:
    """Return the host that this process runs on."""
    pages, page = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return Machine(
        hostname=socket.gethostname(),
        system=f"{platform.system()} {platform.release()}",
        architecture=platform.machine(),
        processor=processor()[0],
        cores=cores(),
        memory_gib=round(pages * page / 2**30, 1),
    )


@cache
def versions() -> dict[str, str]:
    """Versions of the harness, of Python and of the libraries that can change a figure."""
    return {
        "harness": __version__,
        "python": platform.python_version(),
        **{name: package_version(name) for name in PACKAGES},
    }


def git_revision(root: Path) -> str:
    """Revision of the tree, with `+changes` when it differs; empty outside a checkout."""

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments],  # noqa: S607 - git where the user has it
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
            stdin=subprocess.DEVNULL,
        )
        return done.stdout.strip()

    try:
        revision = git("rev-parse", "--short=12", "HEAD")
        changed = git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return ""
    return revision + ("+changes" if changed else "")
