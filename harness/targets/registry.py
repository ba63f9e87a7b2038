"""Targets by name, through the families that `harness.base.families` lists."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from harness.base import scratch
from harness.base.errors import ConfigError, DeviceError
from harness.base.families import Family, available, families, family_of
from harness.base.host import cores
from harness.settings import Settings, with_target
from harness.targets.protocol import Target
from harness.targets.provider import Provider

CASES_ON_HOST = 2


def provider(family: Family) -> Provider:
    """Return what a family offers; its package is imported now."""
    instance: Provider = import_module(f"{family.package}.provider").PROVIDER
    return instance


def provider_of(settings: Settings) -> Provider:
    """Return the provider of the settings' target; one that offers nothing where there is none."""
    family = family_of(settings.target or "")
    return Provider() if family is None else provider(family)


def make_target(name: str, settings: Settings, folder: Path) -> Target:
    """Return the target of that name, for a run whose files lie in `folder`. Raises `ConfigError`:
    a target that this version has not, or options that do not fit it.
    """
    family = family_of(name)
    if family is None:
        raise ConfigError(
            f"this version cannot run on the target {name!r}",
            remedy=f"targets: {', '.join(available())}",
        )
    return provider(family).make(name, settings, folder)


def located(settings: Settings) -> Settings:
    """Return the settings with the target of the hardware that this host shows, or why there is
    none, where nobody named one.
    """
    if settings.configured:
        return settings
    detected = [provider(family).detect(settings) for family in families()]
    for one in detected:
        if one.target is not None:
            return with_target(settings, one.target, one.how)
    return with_target(settings, None, "; ".join(one.how for one in detected if one.how))


def workers(settings: Settings) -> int:
    """Return how many cases of a run can go on side by side: one for each device that it may use.

    Two on the host's CPU, which more would only share out. One where no device answers: the cases
    say why.
    """
    with scratch.folder("look") as folder:
        target = make_target(settings.target or "", settings, folder)
        if target.traits.runs_on_host:
            return min(CASES_ON_HOST, cores())
        try:
            return len(target.devices())
        except DeviceError:
            return 1
