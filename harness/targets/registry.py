"""Targets by name. A new target is one file and one line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from harness.errors import ConfigError
from harness.settings import Settings
from harness.targets.onnxruntime import CpuTarget
from harness.targets.protocol import Target

_PROVIDERS: Mapping[str, Callable[[Settings], Target]] = {
    "cpu": lambda settings: CpuTarget(settings.deadline_factor),
}


def available() -> tuple[str, ...]:
    """Names of the targets that this version can run on."""
    return tuple(_PROVIDERS)


def make_target(name: str, settings: Settings) -> Target:
    """The target of that name. Raises `ConfigError` for one that this version has not."""
    if name not in _PROVIDERS:
        raise ConfigError(
            f"this version cannot run on the target {name!r}",
            remedy=f"targets: {', '.join(_PROVIDERS)}",
        )
    return _PROVIDERS[name](settings)
