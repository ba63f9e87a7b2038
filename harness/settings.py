"""Settings of a run: command line, then environment, then `pytest.ini`, then defaults.

A field is an option (`harness.base.options`); each family of targets adds its own. One table of
them serves pytest, the command line and the documentation.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from harness.base.environment import ROOT
from harness.base.errors import ConfigError
from harness.base.families import families, family_of, rehearsal_target, target_name
from harness.base.given import Given, plain
from harness.base.locks import lease_folder
from harness.base.names import did_you_mean
from harness.base.options import (
    GIVEN,
    INPUTS,
    MEASURING,
    PLACES,
    STAND_INS,
    WHAT_TO_RUN,
    Group,
    Option,
    TargetOptions,
    input_option,
    measuring_option,
    place_option,
    rows,
    what_option,
)
from harness.base.selection import Selection
from harness.base.terms import Provenance

# The devices first.
_TARGETS = [name for family in reversed(families()) for name in family.targets]

DEFAULT_REHEARSAL_IMAGES = 46
DEFAULT_BATCH_SIZES = (1, 4)
MAX_BATCH_SIZE = 1024
MAX_IMAGES = 50_000
MAX_SEED = 999_999

Options = TypeVar("Options", bound=TargetOptions)


@dataclass(frozen=True)
class Settings:
    """What a run was asked to do; paths are absolute.

    `targets`: the options of each family of targets. `detection`: how the target was found where
    nobody named one, or why none was.
    """

    rehearsal: bool = what_option(
        "flag",
        "run the whole chain on this machine: ONNX Runtime, generated images, stand-in weights",
        asks_for="rehearsal",
    )
    target: str | None = what_option(
        "text",
        f"where compiled models run: {', '.join(_TARGETS)} (default: the NPU that this host shows)",
        "NAME",
    )
    models: tuple[str, ...] | None = what_option(
        "list",
        "models to run, separated by commas: names, families, patterns such as 'resnet*' "
        "(default: all)",
        "A,B",
        also=("model",),
    )
    batch_sizes: tuple[int, ...] | None = what_option(
        "list",
        "batch sizes, separated by commas (default: those with a figure; 1,4 where none has)",
        "N,M",
        numbers="batch sizes",
        limits=(1, MAX_BATCH_SIZE),
    )
    resume: Path | None = what_option(
        "path",
        "go on with a run, as it was started: what did not run, ended in an error or crashed",
        "RUN",
    )
    resume_undecided: bool = what_option("flag", "with --resume: INCONCLUSIVE cases, too")
    shard: str | None = what_option(
        "text", "run part I of N of the selected cases; merge joins the runs of all parts", "I/N"
    )
    shard_by: Path | None = what_option(
        "path",
        "split so that the parts take equally long by the records of this run (default: cases "
        "count alike); each part needs the same",
        "RUN",
    )
    device: tuple[int, ...] | None = what_option(
        "list",
        "use these devices only, by logical id (default: all)",
        "N,M",
        numbers="logical ids",
        limits=(0, 255),
    )
    imagenet: Path | None = input_option(
        "path",
        "folder of the ImageNet validation images, or of your own: a folder for each class",
        "DIR",
        variable="IMAGENET_DIR",
        also=("data",),
        used_in=GIVEN,
    )
    labels: Path | None = input_option(
        "path", "label file, when it does not lie beside the images", "FILE", used_in=GIVEN
    )
    limit: int | None = input_option(
        "int", "use the first N images by name", "N", limits=(1, MAX_IMAGES), used_in=GIVEN
    )
    sample: int | None = input_option(
        "int",
        "use N images chosen at random, the same ones every time",
        "N",
        limits=(1, MAX_IMAGES),
        used_in=GIVEN,
    )
    seed: int = input_option(
        "int", "seed of --sample (default: 0)", "S", default=0, limits=(0, MAX_SEED), used_in=GIVEN
    )
    image_list: Path | None = input_option(
        "path", "use the images that this file names, one on a line", "FILE", used_in=GIVEN
    )
    checkpoints: Path | None = input_option(
        "path", "folder of the original checkpoints (.pth)", "DIR", used_in=GIVEN
    )
    checkpoint_cache: Path | None = input_option(
        "path",
        "folder that checkpoints are fetched into (default: checkpoints in the store)",
        "DIR",
        used_in=GIVEN,
    )
    offline: bool = input_option("flag", "fetch nothing; use only the files that are there")
    onnx: tuple[tuple[str, Path], ...] = input_option(
        "pairs", "use this ONNX file in place of the export (repeatable)", "MODEL=FILE", default=()
    )
    model_file: Path | None = input_option(
        "path",
        "run this model of your own in place of the catalog's: a checkpoint, a TorchScript or an "
        "ONNX file",
        "FILE",
        used_in=GIVEN,
    )
    network: str | None = input_option(
        "text",
        "who builds its network, where the file does not say: timm:NAME, torchvision:NAME or "
        "python:MODULE:FUNCTION",
        "SOURCE",
        used_in=GIVEN,
    )
    image_size: int | None = input_option(
        "int",
        "side of its input in pixels (default: what the file says, else the network's, else 224)",
        "N",
        limits=(1, 4096),
        used_in=GIVEN,
    )
    trust_network: tuple[str, ...] = input_option(
        "list",
        "models whose network your own Python code builds, which then runs",
        "A,B",
        default=(),
    )
    trust_checkpoint: tuple[str, ...] = input_option(
        "list",
        "models whose checkpoint may run code while it is read; only for files you made",
        "A,B",
        default=(),
        used_in=GIVEN,
    )
    store: Path = place_option(
        "path", "folder of the artifact store (default: .store)", "DIR", default=ROOT / ".store"
    )
    shared_store: str | None = place_option(
        "url",
        "a second store, which hosts share, for models compiled for a device: whatever fsspec "
        "reaches (docs/fleet.md)",
        "URL",
    )
    shared_store_pins: Path | None = place_option(
        "path", "take only what this file has of the lines of `cache pins`; write nothing", "FILE"
    )
    runs: Path = place_option(
        "path", "folder of the run directories (default: runs)", "DIR", default=ROOT / "runs"
    )
    leases: Path = place_option(
        "path",
        "folder of the host's device locks, shared by users and containers (default: "
        "/var/lib/npu-acceptance/leases, or one of your own: docs/security.md)",
        "DIR",
        default=lease_folder,
    )
    lang: str = place_option(
        "text",
        "language of the report: en, or zh for Chinese (default: that of the locale)",
        "LANG",
        default="",
        choices=("en", "zh"),
    )
    catalog: tuple[Path, ...] = what_option(
        "paths",
        "the catalog; repeat it for several (default: baselines.yaml)",
        "FILE",
        default=(ROOT / "baselines.yaml",),
    )
    rehearsal_images: int = input_option(
        "int",
        f"generated images of a rehearsal (default: {DEFAULT_REHEARSAL_IMAGES})",
        "N",
        default=DEFAULT_REHEARSAL_IMAGES,
        used_in=STAND_INS,
        limits=(25, MAX_IMAGES),
    )
    timing_precision: float = measuring_option(
        "float",
        "half-width of a throughput's 99-percent interval at which rounds stop, in percent "
        "(default: 1; 10 in a rehearsal)",
        "PERCENT",
        default=1.0,
        limits=(0.01, 100.0),
        also=("precision",),
    )
    budget: float = measuring_option(
        "float",
        "seconds of timing for one throughput case (default: 120; 40 in a rehearsal)",
        "SECONDS",
        default=120.0,
        limits=(0.1, 86_400.0),
    )
    deadline_factor: float = measuring_option(
        "float",
        "multiply every stage's deadline (default: 1)",
        "FACTOR",
        default=1.0,
        limits=(0.1, 100.0),
    )
    no_diagnosis: bool = measuring_option("flag", "do not look for the cause of a failed accuracy")
    allow_inconclusive: bool = measuring_option(
        "flag", "an inconclusive verdict does not fail the run"
    )
    targets: tuple[TargetOptions, ...] = field(
        default_factory=lambda: tuple(family.options() for family in families())
    )
    detection: str = ""

    @property
    def provenance(self) -> Provenance:
        if any(one.simulated for one in self.targets):
            return "simulated"
        return "rehearsal" if self.rehearsal else "real"

    @property
    def stand_ins(self) -> bool:
        """Whether images are generated and weights are stand-ins. A simulation takes others."""
        given = self.imagenet is not None or self.checkpoints is not None
        return self.rehearsal or (self.provenance == "simulated" and not given)

    @property
    def configured(self) -> bool:
        """Whether the run was told where to run at all."""
        return self.provenance != "real" or self.target is not None

    @property
    def selection(self) -> Selection:
        """Which images of the data set to use.
        Raises `ConfigError`: options that do not go together; `resolve` has seen to that.
        """
        return Selection(self.limit, self.sample, self.seed, self.image_list)

    @property
    def part(self) -> tuple[int, int] | None:
        """Which part of the selected cases to run, the first is 1, and of how many; None: all.
        Raises `ConfigError`: no such part; `resolve` has seen to that.
        """
        if self.shard is None:
            return None
        given = re.fullmatch(r"([0-9]{1,4})/([0-9]{1,4})", self.shard)
        number, count = map(int, given.groups()) if given else (0, 0)
        if not 1 <= number <= count:
            raise ConfigError(
                f"--shard={self.shard} is no part", remedy="--shard=1/3, 2/3 and 3/3, for three"
            )
        return number, count

    def of(self, kind: type[Options]) -> Options:
        """Return the options of one family of targets."""
        return next((one for one in self.targets if isinstance(one, kind)), kind())

    def with_options(self, options: TargetOptions) -> Settings:
        """Return the same settings with other options of one family."""
        others = tuple(one for one in self.targets if type(one) is not type(options))
        return dataclasses.replace(self, targets=(*others, options))

    def value(self, option: Option) -> Any:
        """Return the value of an option, whether it is the run's or a family's."""
        owner = next(one for one in (self, *self.targets) if option in rows(type(one)))
        return getattr(owner, option.name)

    def leases_of(self, run_dir: Path) -> Path:
        """Return the folder of device locks: a simulated host is the run's own."""
        return run_dir / "leases" if self.provenance == "simulated" else self.leases

    def to_json(self) -> dict[str, Any]:
        """For a record: JSON values, paths as text."""
        return {row.name: plain(self.value(row), row) for row in OPTIONS}


OPTIONS: tuple[Option, ...] = (
    *rows(Settings),
    *(row for family in families() for row in rows(family.options)),
)
GROUPS: tuple[Group, ...] = (
    WHAT_TO_RUN,
    INPUTS,
    *(family.group for family in families() if family.group is not None),
    MEASURING,
    PLACES,
)
_KINDS: Mapping[Provenance, str] = {
    "real": "a real run",
    **{row.asks_for: row.flag for row in OPTIONS if row.asks_for},
}


def resolve(
    command_line: Mapping[str, Any],
    environment: Mapping[str, str] | None = None,
    ini: Mapping[str, str] | None = None,
    *,
    base: Path | None = None,
) -> Settings:
    """Return the settings of the command line, then variables, then `pytest.ini`.

    Args:
        command_line: option name -> value, absent or None when not given.
        ini: every key `harness_...` of the file, with its value.
        base: what relative paths are relative to; the working directory by default.

    Raises `ConfigError`: a value that cannot be used, with the place that it came from; an option
    that such a run does not use; a key that does not exist.
    """
    environment = os.environ if environment is None else environment
    ini = {} if ini is None else ini
    base = base or Path.cwd()
    values: dict[str, Any] = {}
    for key in ini.keys() - {key for row in OPTIONS for key in row.keys}:
        hint = did_you_mean(key, [row.ini for row in OPTIONS])
        raise ConfigError(f"pytest.ini: there is no key {key}", remedy=hint or "remove it")
    (row,) = (row for row in OPTIONS if row.name == "resume")
    others = (*map(environment.get, row.variables), *map(ini.get, row.keys))
    if resume := command_line.get("resume") or next(filter(None, others), None):
        # What the run had, also where it had the default: no variable of today changes it.
        from harness.records.resumed import as_before  # reads records, for which there is pydantic

        default = Settings().to_json()
        command_line = as_before(command_line, base / resume, base, OPTIONS, default)
        environment, ini = {}, {}
    for row in OPTIONS:
        for source, raw in (
            (row.flag, command_line.get(row.name)),
            *((f"${name}", environment.get(name)) for name in row.variables),
            *((f"pytest.ini {key}", ini.get(key)) for key in row.keys),
        ):
            if raw == "" and source == row.flag and not row.empty:
                raise ConfigError(
                    f"{row.flag} was given without a value",
                    remedy="give one, or leave it out; a shell variable may be unset",
                )
            if raw is None or raw == "" or raw == [] or raw is False:
                continue
            values[row.name] = Given(row, raw, source, base).value()
            break
    _make_consistent(values, command_line)
    _place_own_model(values, command_line)
    targets = []
    for family in families():
        names = [row.name for row in rows(family.options) if row.name in values]
        targets.append(family.options(**{name: values.pop(name) for name in names}))
    settings = Settings(**values, targets=tuple(targets))
    _ = settings.selection, settings.part  # raise where options do not go together
    return settings


def with_target(settings: Settings, target: str | None, detection: str = "") -> Settings:
    """Return the same settings on a target that was found, or that another process chose."""
    return dataclasses.replace(settings, target=target or settings.target, detection=detection)


def _make_consistent(values: dict[str, Any], command_line: Mapping[str, Any]) -> None:
    """Set defaults and limits of a rehearsal and of a simulation; both make their own inputs."""
    kinds = [row for row in OPTIONS if row.asks_for and values.get(row.name)]
    if len(kinds) > 1:
        raise ConfigError(
            f"{kinds[0].flag} and {kinds[1].flag} are two kinds of run",
            remedy="leave out one: a rehearsal runs on this machine's CPU, a simulation through "
            "stand-ins of a device's tools",
        )
    if values.get("target"):
        values["target"] = target_name(values["target"])
    if kinds:
        _choose_target(values, kinds[0])
    _leave_out_unused(values, command_line, (kinds[0].asks_for if kinds else None) or "real")
    if kinds:
        values.setdefault("timing_precision", 10.0)
        values.setdefault("budget", 40.0 if values.get("rehearsal") else 10.0)


def _place_own_model(values: dict[str, Any], command_line: Mapping[str, Any]) -> None:
    """Look for the weights of a model of one's own where its file lies."""
    file = values.get("model_file")
    others = [name for name in ("network", "image_size") if values.get(name)]
    if file is None and others:
        raise ConfigError(
            f"--{others[0].replace('_', '-')} says nothing without --model-file",
            remedy="name the model's file, or leave it out",
        )
    if file is None:
        return
    if command_line.get("catalog"):
        raise ConfigError(
            "--model-file and --catalog both say what to run",
            remedy="leave out one; `python -m harness catalog own` prints the file's own catalog",
        )
    if command_line.get("checkpoints") and values["checkpoints"] != file.parent:
        raise ConfigError(
            f"--checkpoints is not the folder of {file}", remedy="leave out --checkpoints"
        )
    values["checkpoints"] = file.parent


def _leave_out_unused(
    values: dict[str, Any], command_line: Mapping[str, Any], kind: Provenance
) -> None:
    """Refuse what the command line asks and this run does not use; drop it where it comes from a
    variable or a file, which are the same for every run.
    """
    target = values.get("target")
    family = family_of(target or "")
    # What a variable names for every run may be 50,000 images.
    given = any(map(command_line.get, ("imagenet", "checkpoints", "model_file")))
    others = {
        row.name: other
        for other in families()
        for row in rows(other.options)
        if family not in (None, other)
    }
    for row in OPTIONS:
        if row.name not in values:
            continue
        if kind not in row.used_in:
            place = _KINDS[kind]
            remedy = f"leave it out; it is for {' and '.join(_KINDS[one] for one in row.used_in)}"
            if kind == "rehearsal" and row.used_in == GIVEN:
                remedy += f", which --target={rehearsal_target()} makes on this machine"
        elif kind == "simulated" and row.used_in == GIVEN and not given:
            place = f"{_KINDS[kind]} alone"
            remedy = "leave it out, or give both --imagenet=DIR and --checkpoints=DIR"
        elif row.name in others or (family is not None and row.name in family.ignores):
            place, remedy = f"the target {target}", "leave it out"
            if row.name in others:
                remedy += f"; it is for {', '.join(others[row.name].targets)}"
        else:
            continue
        if command_line.get(row.name):
            raise ConfigError(f"{row.flag} does not go with {place}", remedy=remedy)
        values.pop(row.name)


def _choose_target(values: dict[str, Any], kind: Option) -> None:
    """Take the target of a rehearsal or of a simulation; refuse another."""
    for family in families():
        if family.simulation is not None and family.simulation.asked_by == kind.name:
            played = family.simulation.targets
            if values.setdefault("target", played[0]) not in played:
                raise ConfigError(
                    f"there is no simulator for the target {values['target']}",
                    remedy=" or ".join(f"--target={name}" for name in played),
                )
            return
    if values.setdefault("target", rehearsal_target()) != rehearsal_target():
        raise ConfigError(
            f"a rehearsal runs on the target {rehearsal_target()}, not on {values['target']}",
            remedy="leave out --rehearsal to run on a device, or leave out --target",
        )
