"""Types of the single values in a catalog: what each may be, and how a fault is worded."""

from __future__ import annotations

import datetime as dt
import re
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from harness.base.families import target_name
from harness.base.stages import Stage
from harness.catalog.yaml_document import unknown_key, unknown_name

# Stages at which a case can fail; the others end a run before there is a case.
FAILURE_STAGES = (
    Stage.DATA,
    Stage.CHECKPOINT,
    Stage.NETWORK,
    Stage.EXPORT,
    Stage.SIMPLIFY,
    Stage.COMPILE,
    Stage.LOAD,
    Stage.INFER,
    Stage.DEVICE,
    Stage.EAGER,
    Stage.VERDICT,
)

MAX_BATCH_SIZE = 4096  # ais_bench's own limit
# The guides allow 1 % for accuracy and nothing for throughput. Ten times that still tells a sound
# conversion from a broken one; beyond it a rule would pass nearly anything.
MAX_TOLERANCE_PERCENT = 10
# Top-1 and top-5 are percent: a figure of at most 1 is a fraction by mistake, or a network that
# is hardly better than guessing among 1,000 classes (0.1).
MIN_ACCURACY_PERCENT = 1


def _target(value: Any) -> Any:
    return target_name(value) if isinstance(value, str) else value


def matching(pattern: str, expected: str) -> AfterValidator:
    compiled = re.compile(pattern)

    def check(value: str) -> str:
        if not compiled.fullmatch(value):
            raise PydanticCustomError("expected", "expected {what}", {"what": expected})
        return value

    return AfterValidator(check)


def _exact_int(value: object) -> object:
    # `Literal[1]` takes True and 1.0 for 1; a file that says so means something else.
    if type(value) is not int:
        raise PydanticCustomError("int_type", "expected a whole number")
    return value


def _argument(value: object) -> object:
    # One sentence in place of pydantic's four, one for each member of the union.
    if not isinstance(value, bool | int | float | str):
        raise PydanticCustomError("expected", "expected a number, text, true or false")
    return value


_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def _iso_date(value: object) -> object:
    if isinstance(value, str) and _DAY.fullmatch(value):  # nothing else that ISO 8601 knows
        try:
            return dt.date.fromisoformat(value)
        except ValueError:
            pass
    raise PydanticCustomError("expected", "expected a date such as 2027-06-30")


def _failure_stage(value: object) -> Stage:
    for stage in FAILURE_STAGES:
        if stage == value:
            return stage
    raise unknown_name("a stage at which a case can fail", FAILURE_STAGES)


WHOLE_NUMBER = BeforeValidator(_exact_int)
Line = Annotated[str, matching(r"\S(.{0,198}\S)?", "one line of text")]
Note = Annotated[str, Field(max_length=2000)]
Id = Annotated[str, matching(r"[a-z0-9][a-z0-9-]{0,63}", "a name of a-z, 0-9 and -")]
# Ids of models become folders and parts of test ids.
ModelId = Annotated[str, matching(r"[a-z0-9_]{1,64}", "a name of a-z, 0-9 and _")]
FILE_NAME = r"[^\W_][\w .()+-]{0,127}"  # letters of any script
FileName = Annotated[str, matching(FILE_NAME, "the name of a file, without a folder")]
Url = Annotated[str, matching(r"https?://[!-~]+", "an http: or https: address, no spaces")]
# Names go into atc's --input_shape="name:1,3,224,224", where ':', ',' and ';' separate.
TensorName = Annotated[
    str, matching(r"[A-Za-z_][A-Za-z0-9_./-]{0,127}", "the name of an ONNX tensor")
]
# Nothing parses an output's name: PyTorch numbers it where none is given, `495`.
OutputName = Annotated[str, matching(r"[!-~]{1,128}", "the name of an ONNX tensor")]
Md5 = Annotated[str, matching(r"[0-9a-fA-F]{32}", "32 hex digits (md5)"), AfterValidator(str.lower)]
Sha256 = Annotated[
    str, matching(r"[0-9a-fA-F]{64}", "64 hex digits (sha256)"), AfterValidator(str.lower)
]
Sha256Prefix = Annotated[
    str,
    matching(r"[0-9a-fA-F]{8}", "the first 8 hex digits of a sha256"),
    AfterValidator(str.lower),
]
Percent = Annotated[float, Field(gt=MIN_ACCURACY_PERCENT, le=100, allow_inf_nan=False)]
Fps = Annotated[float, Field(gt=0, le=1e7, allow_inf_nan=False)]
Tolerance = Annotated[float, Field(gt=0, le=MAX_TOLERANCE_PERCENT, allow_inf_nan=False)]
Number = Annotated[float, Field(allow_inf_nan=False)]
# Which targets there are is known to `base/families.py`.
Target = Annotated[
    str, matching(r"[a-z][a-z0-9-]{0,31}", "the name of a target"), BeforeValidator(_target)
]
BatchSize = Annotated[int, Field(ge=1, le=MAX_BATCH_SIZE)]
Flag = Annotated[str, matching(r"--[a-z][a-z0-9_]*(=[^\s\"'`$;|&<>]+)?", "one flag, --name=value")]
Argument = Annotated[bool | int | Number | str, BeforeValidator(_argument)]
Day = Annotated[dt.date, BeforeValidator(_iso_date)]
FailureStage = Annotated[Stage, BeforeValidator(_failure_stage)]


class Value(BaseModel):
    """A frozen value; nothing is converted, and unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Section(Value):
    """A mapping of the file. An unknown key is refused before a missing one is missed.

    `injected`: fields that no file gives.
    """

    injected: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    def known_keys(cls) -> tuple[str, ...]:
        return tuple(name for name in cls.model_fields if name not in cls.injected)

    @model_validator(mode="before")
    @classmethod
    def _only_known_keys(cls, data: Any) -> Any:
        known = cls.known_keys()
        for key in data if isinstance(data, dict) else ():
            if key not in known:
                raise unknown_key(key, known)
        return data


class FamilySection(Section):
    """What a family of targets has in a model."""

    def dynamic_batch(self, target: str) -> tuple[int, ...]:
        """Return the batch sizes that one compiled file serves on a target; none where each has a
        file of its own.
        """
        return ()
