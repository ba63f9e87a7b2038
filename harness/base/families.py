"""The families of targets: a line a family.

A family is a package with two modules: `family` (light: what options, catalog and plan must know)
and `provider` (`harness.targets.provider`: what a run uses). A package is imported when it is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module

from harness.base.options import Group, TargetOptions

PACKAGES = ("harness.targets.cpu", "harness.targets.cuda", "harness.targets.ascend")


@dataclass(frozen=True)
class Simulation:
    """The simulated host of a family: the option that asks for it, and the targets that it plays,
    the usual one first.
    """

    asked_by: str
    targets: tuple[str, ...]

    @property
    def subject(self) -> str:
        """How `doctor` calls it: the option without its dashes."""
        return self.asked_by.replace("_", "-")


@dataclass(frozen=True)
class GuideColumn:
    """The column of a target in the guides' table of throughput, the `place`th from the left.

    `product`: where the column is one product's, the word that such a device has in its name.
    """

    target: str
    name: str
    place: int
    product: str = ""


@dataclass(frozen=True)
class Family:
    """What the lower rooms know of a family of targets.

    `group`: of its options in `--help`.
    `short_names`: other names of its targets. `ignores`: options of every run that its targets
    have no use for.
    `spelt`: names of what its devices are driven by, as people write them.
    `rehearses`: its target is that of a rehearsal.
    `section`: the part of a model in the catalog that is the family's, as `module:Class` of a
    `FamilySection`.
    """

    package: str
    name: str
    targets: tuple[str, ...]
    short_names: Mapping[str, str] = field(default_factory=dict)
    ignores: tuple[str, ...] = ()
    spelt: Mapping[str, str] = field(default_factory=dict)
    options: type[TargetOptions] = TargetOptions
    group: Group | None = None
    simulation: Simulation | None = None
    rehearses: bool = False
    section: str = ""
    guide_columns: tuple[GuideColumn, ...] = ()


@cache
def families() -> tuple[Family, ...]:
    """Return every family, in the order of `PACKAGES`."""
    return tuple(_family(package) for package in PACKAGES)


def _family(package: str) -> Family:
    family = import_module(f"{package}.family").FAMILY
    if not isinstance(family, Family):
        raise TypeError(f"{package}.family.FAMILY is no Family")
    return family


def available() -> tuple[str, ...]:
    """Return the names of the targets that this version can run on."""
    return tuple(name for family in families() for name in family.targets)


def target_name(name: str) -> str:
    """Return a target's name for what a person writes: `310P3` and `Ascend310P3` alike."""
    text = name.strip().lower()
    short = {key: target for family in families() for key, target in family.short_names.items()}
    text = short.get(text, text)
    return text if text in available() else name.strip()


def spelt(tool: str) -> str:
    """Return the name of a tool as people write it: `CANN`."""
    return next((one.spelt[tool] for one in families() if tool in one.spelt), tool)


def family_of(target: str) -> Family | None:
    """Return the family that a target belongs to; None for a name that no family has."""
    return next((family for family in families() if target in family.targets), None)


def guide_columns() -> dict[str, GuideColumn]:
    """Return the columns of the guides' table by target, from left to right."""
    columns = [column for family in families() for column in family.guide_columns]
    return {one.target: one for one in sorted(columns, key=lambda one: one.place)}


def rehearsal_target() -> str:
    """Return the target that a rehearsal runs on."""
    return next(family.targets[0] for family in families() if family.rehearses)
