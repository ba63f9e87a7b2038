"""What the catalog says of a model for the Ascend targets: its key `ascend`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from harness.catalog.fields import BatchSize, FamilySection, Flag, Section, Target
from harness.catalog.yaml_document import unknown_name
from harness.targets.ascend import aipp
from harness.targets.ascend.chips import CHIPS


class AutoTune(Section):
    """atc's `--auto_tune_mode`, for some batch sizes or, with none named, for all."""

    mode: Literal["RL,GA"]
    batch_sizes: tuple[BatchSize, ...] = ()


# The harness sets these itself, or has a key of its own for them.
_RESERVED_ATC_FLAGS = (
    "auto_tune_mode",
    "dynamic_batch_size",
    "framework",
    "input_format",
    "input_shape",
    "insert_op_conf",
    "log",
    "model",
    "output",
    "soc_version",
)


def _free_atc_flag(value: str) -> str:
    name = value[2:].partition("=")[0]
    if name in _RESERVED_ATC_FLAGS:
        raise PydanticCustomError(
            "expected",
            "expected a flag that the harness does not set itself (--{name})",
            {"name": name},
        )
    return value


def _chip_target(value: str) -> str:
    if value not in CHIPS:
        raise unknown_name("the name of an Ascend target", CHIPS)
    return value


def _in_one_file(sizes: tuple[int, ...]) -> tuple[int, ...]:
    if sizes and not (list(sizes) == sorted(set(sizes)) and 2 <= len(sizes) <= 100):
        raise PydanticCustomError("expected", "expected 2 to 100 batch sizes in rising order")
    return sizes


AtcFlag = Annotated[Flag, AfterValidator(_free_atc_flag)]
ChipTarget = Annotated[Target, AfterValidator(_chip_target)]


class AtcSpec(Section):
    """What atc is told for this model besides what it is told for every model.

    `aipp`: the mean and std of `preprocessing` are compiled in, and the model takes crops.
    `dynamic_batch_size`: one file serves these batch sizes; none: each has a file of its own.
    """

    log: Literal["debug", "info", "warning", "error", "null"] | None = None
    flags: tuple[AtcFlag, ...] = ()
    auto_tune: AutoTune | None = None
    aipp: bool = False
    dynamic_batch_size: Annotated[tuple[BatchSize, ...], AfterValidator(_in_one_file)] = ()

    def tuning(self, batch_size: int) -> Literal["none", "RL,GA"]:
        """The tuning that the guide asks for at this batch size, or at another of its file."""
        tune, sizes = self.auto_tune, self.dynamic_batch_size or (batch_size,)
        if tune is None or (tune.batch_sizes and not set(sizes) & set(tune.batch_sizes)):
            return "none"
        return tune.mode

    def atc_flags(self, batch_size: int) -> tuple[str, ...]:
        """Extra flags, one argument each."""
        given = () if self.log is None else (f"--log={self.log}",)
        tuning = self.tuning(batch_size)
        tune = (f"--auto_tune_mode={tuning}",) if tuning != "none" else ()
        insert = (aipp.FLAG,) if self.aipp else ()
        sizes = self.dynamic_batch_size
        dynamic = (f"--dynamic_batch_size={','.join(map(str, sizes))}",) if sizes else ()
        return (*given, *tune, *insert, *dynamic, *self.flags)


class AscendSpec(AtcSpec, FamilySection):
    """The same for all chips, and for some of them what takes its place, key by key."""

    targets: Mapping[ChipTarget, AtcSpec] = Field(default_factory=dict)

    def dynamic_batch(self, target: str) -> tuple[int, ...]:
        return self.of(target).dynamic_batch_size if target in CHIPS else ()

    def of(self, target: str) -> AtcSpec:
        """Return what holds for a target."""
        own = self.targets.get(target, AtcSpec())
        return self.model_copy(update={name: getattr(own, name) for name in own.model_fields_set})
