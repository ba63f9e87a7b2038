"""Options as fields of a dataclass: one field is the option's name, type, default and help.

The settings of a run and the options of each family of targets are such dataclasses; pytest, the
command line and the documentation read their rows.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

from harness.base.terms import Provenance

Kind = Literal["flag", "text", "url", "path", "paths", "list", "int", "float", "pairs"]
_KEY = "option"
REAL, STAND_INS = ("real",), ("rehearsal", "simulated")  # kinds of run
GIVEN = ("real", "simulated")  # a simulation makes its own images and weights where it has none


@dataclass(frozen=True)
class Group:
    """Options that stand together in `--help`; `example` is a command line with some of them."""

    title: str
    example: str


WHAT_TO_RUN = Group(
    "what to run", "pytest -m throughput --models=resnest50,fixres --batch-sizes=1,4"
)
INPUTS = Group(
    "inputs", "pytest -m accuracy --imagenet=/data/val --checkpoints=/data/pth --sample=5000"
)
MEASURING = Group(
    "measuring", "pytest -m throughput --timing-precision=0.5 --budget=300 --allow-inconclusive"
)
PLACES = Group("places", "pytest --store=/srv/store --runs=/srv/runs --leases=/srv/leases")


@dataclass(frozen=True)
class Option:
    """One setting: its flag, its variable, its key in `pytest.ini` and its help.

    `limits`: the least and the largest number; of a list, whose numbers are `numbers`.
    `asks_for`: the kind of run that a flag asks for. `used_in`: the kinds of run that use it.
    `empty`: whether nothing is a value on the command line, as in `--simulator=`.
    `also`: other names that are accepted, e.g. an older one.
    """

    name: str
    kind: Kind
    help: str
    group: Group
    metavar: str | None = None
    variable: str | None = None
    choices: tuple[str, ...] = ()
    limits: tuple[float, float] | None = None
    numbers: str = ""
    asks_for: Provenance | None = None
    used_in: tuple[Provenance, ...] = get_args(Provenance)
    empty: bool = False
    also: tuple[str, ...] = ()

    @property
    def flag(self) -> str:
        return self.flags[0]

    @property
    def flags(self) -> tuple[str, ...]:
        """The flag and the other names of it."""
        return tuple("--" + name.replace("_", "-") for name in (self.name, *self.also))

    @property
    def own_flag(self) -> str:
        """A form of the flag that no other plugin of pytest has."""
        return "--harness" + self.flag[1:]

    @property
    def environment(self) -> str:
        return self.variables[0]

    @property
    def variables(self) -> tuple[str, ...]:
        own = self.variable or "HARNESS_" + self.name.upper()
        return (own, *("HARNESS_" + name.upper() for name in self.also))

    @property
    def ini(self) -> str:
        return self.keys[0]

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple("harness_" + name for name in (self.name, *self.also))


def option(
    kind: Kind,
    help: str,
    metavar: str | None = None,
    *,
    group: Group,
    default: Any = None,
    **more: Any,
) -> Any:
    """Return a dataclass field that is an option; `more` are fields of `Option`.

    `default`: the value, or a function that returns it.
    """
    if kind == "flag" and default is None:
        default = False
    how = {"default_factory" if callable(default) else "default": default}
    return dataclasses.field(**how, metadata={_KEY: (kind, help, group, metavar, more)})


what_option, input_option = partial(option, group=WHAT_TO_RUN), partial(option, group=INPUTS)
measuring_option, place_option = partial(option, group=MEASURING), partial(option, group=PLACES)


def rows(of: type) -> tuple[Option, ...]:
    """Return the options of a dataclass, in the order of its fields."""
    options = []
    for field in dataclasses.fields(of):
        if _KEY in field.metadata:
            kind, help_text, group, metavar, more = field.metadata[_KEY]
            options.append(Option(field.name, kind, help_text, group, metavar, **more))
    return tuple(options)


@dataclass(frozen=True)
class TargetOptions:
    """Options of one family of targets; a family with options of its own derives its class."""

    @property
    def simulated(self) -> bool:
        """Return whether the run is on a simulated host of this family."""
        return False
