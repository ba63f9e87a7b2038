"""Settings of a run: command line, then environment, then `pytest.ini`, then defaults.

One table of options serves pytest, `python -m harness plan` and the documentation.
"""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from harness.base.errors import ConfigError
from harness.base.terms import Provenance
from harness.images.selection import Selection
from harness.simulator import check_faults, parse_config

ROOT = Path(__file__).resolve().parents[1]
DEFAULT_REHEARSAL_IMAGES = 46
DEFAULT_BATCH_SIZES = (1, 4)
MAX_BATCH_SIZE = 1024
MAX_IMAGES = 50_000
MAX_SEED = 999_999

Kind = Literal["flag", "text", "path", "list", "int", "float", "pairs"]


@dataclass(frozen=True)
class Option:
    """One setting: its flag, its variable, its key in `pytest.ini` and its help."""

    name: str
    kind: Kind
    help: str
    metavar: str | None = None
    variable: str | None = None

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def environment(self) -> str:
        return self.variable or "HARNESS_" + self.name.upper()

    @property
    def ini(self) -> str:
        return "harness_" + self.name

    @property
    def group(self) -> Group:
        """Where the option stands in `--help`."""
        return next(group for group in GROUPS if self.name in group.names)


OPTIONS: tuple[Option, ...] = (
    Option(
        "rehearsal",
        "flag",
        "run the whole chain on this machine: ONNX Runtime, generated images, stand-in weights",
    ),
    Option(
        "simulate_ascend",
        "flag",
        "run the Ascend chain on this machine: a stand-in for CANN's tools and an NPU, "
        "generated images, stand-in weights",
    ),
    Option(
        "target",
        "text",
        "where compiled models run: ascend310p3, ascend310, cuda, cpu (default: the NPU that "
        "npu-smi shows)",
        "NAME",
    ),
    Option("models", "list", "models to run, separated by commas (default: all)", "A,B"),
    Option(
        "batch_sizes",
        "list",
        "batch sizes, separated by commas (default: those with a figure; 1,4 where none has)",
        "N,M",
    ),
    Option(
        "imagenet",
        "path",
        "folder of the ImageNet validation images",
        "DIR",
        variable="IMAGENET_DIR",
    ),
    Option("labels", "path", "label file, when it does not lie beside the images", "FILE"),
    Option("limit", "int", "use the first N images by name", "N"),
    Option("sample", "int", "use N images chosen at random, the same ones every time", "N"),
    Option("seed", "int", "seed of --sample (default: 0)", "S"),
    Option("image_list", "path", "use the images that this file names, one on a line", "FILE"),
    Option("checkpoints", "path", "folder of the original checkpoints (.pth)", "DIR"),
    Option(
        "checkpoint_cache",
        "path",
        "folder that checkpoints are fetched into (default: checkpoints in the store)",
        "DIR",
    ),
    Option("offline", "flag", "fetch nothing; use only the files that are there"),
    Option("onnx", "pairs", "use this ONNX file in place of the export (repeatable)", "MODEL=FILE"),
    Option(
        "trust_checkpoint",
        "list",
        "models whose checkpoint may run code while it is read; only for files you made",
        "A,B",
    ),
    Option("store", "path", "folder of the artifact store (default: .store)", "DIR"),
    Option("runs", "path", "folder of the run directories (default: runs)", "DIR"),
    Option("leases", "path", "folder of the host's device locks, shared by containers", "DIR"),
    Option("catalog", "path", "the catalog (default: baselines.yaml)", "FILE"),
    Option("device", "list", "use these devices only, by logical id (default: all)", "N,M"),
    Option("soc_version", "text", "the chip, where no npu-smi tells it: Ascend310P3", "CHIP"),
    Option(
        "driver",
        "text",
        "how models run on an NPU: api, cli or benchmark (default: the first that is there)",
        "NAME",
    ),
    Option(
        "tune",
        "text",
        "tuning of compiled models: guide (default), none, or aoe (takes hours)",
        "HOW",
    ),
    Option("ascend_home", "path", "folder of the CANN toolkit (default: where it is found)", "DIR"),
    Option("atc", "path", "the atc to use", "FILE"),
    Option("npu_smi", "path", "the npu-smi to use", "FILE"),
    Option("benchmark_tool", "path", "the legacy benchmark tool, for --driver=benchmark", "FILE"),
    Option("ais_infer", "path", "ais_infer.py of CANN 5.1, for --driver=cli", "FILE"),
    Option(
        "ais_python",
        "text",
        "the Python that has ais_bench and aclruntime (default: this one)",
        "PYTHON",
    ),
    Option(
        "simulator",
        "text",
        "what --simulate-ascend plays, e.g. cards=2,fault=busy or time=spin:5; docs/ascend.md "
        "lists keys and faults, and the drivers that show each",
        "KEY=VALUE,...",
    ),
    Option(
        "rehearsal_images",
        "int",
        f"generated images of a rehearsal (default: {DEFAULT_REHEARSAL_IMAGES})",
        "N",
    ),
    Option(
        "precision",
        "float",
        "half-width of a throughput's 99-percent interval at which rounds stop, in percent "
        "(default: 1; 10 in a rehearsal)",
        "PERCENT",
    ),
    Option(
        "budget",
        "float",
        "seconds of timing for one throughput case (default: 120; 40 in a rehearsal)",
        "SECONDS",
    ),
    Option("deadline_factor", "float", "multiply every stage's deadline (default: 1)", "FACTOR"),
    Option("no_diagnosis", "flag", "do not look for the cause of a failed accuracy"),
    Option("allow_inconclusive", "flag", "an inconclusive verdict does not fail the run"),
)


@dataclass(frozen=True)
class Group:
    """Options that stand together in `--help`; `example` is a command line with some of them."""

    title: str
    example: str
    names: tuple[str, ...]


GROUPS: tuple[Group, ...] = (
    Group(
        "what to run",
        "pytest -m throughput --target=ascend310p3 --models=resnest50,fixres --batch-sizes=1,4",
        ("rehearsal", "simulate_ascend", "simulator", "target", "models", "batch_sizes", "catalog"),
    ),
    Group(
        "inputs",
        "pytest -m accuracy --imagenet=/data/val --checkpoints=/data/pth --sample=5000",
        (
            "imagenet",
            "labels",
            "limit",
            "sample",
            "seed",
            "image_list",
            "checkpoints",
            "checkpoint_cache",
            "offline",
            "onnx",
            "trust_checkpoint",
            "rehearsal_images",
        ),
    ),
    Group(
        "ascend",
        "pytest --device=0,1 --ais-python=/usr/bin/python3 --tune=none",
        (
            "device",
            "soc_version",
            "driver",
            "tune",
            "ascend_home",
            "atc",
            "npu_smi",
            "benchmark_tool",
            "ais_infer",
            "ais_python",
        ),
    ),
    Group(
        "measuring",
        "pytest -m throughput --precision=0.5 --budget=300 --allow-inconclusive",
        ("precision", "budget", "deadline_factor", "no_diagnosis", "allow_inconclusive"),
    ),
    Group(
        "places",
        "pytest --store=/srv/store --runs=/srv/runs --leases=/srv/leases",
        ("store", "runs", "leases"),
    ),
)
_REAL_INPUTS = ("imagenet", "labels", "limit", "sample", "seed", "image_list", "checkpoints")
"""What a rehearsal, which makes its own images and weights, has no use for."""

_NUMBERS = {"batch_sizes": ("batch sizes", 1, MAX_BATCH_SIZE), "device": ("logical ids", 0, 255)}
_CHOICES = {"driver": ("api", "cli", "benchmark"), "tune": ("guide", "none", "aoe")}
_BY_NAME = {option.name: option for option in OPTIONS}


@dataclass(frozen=True)
class Settings:
    """What a run was asked to do; paths are absolute."""

    rehearsal: bool = False
    simulate_ascend: bool = False
    target: str | None = None
    models: tuple[str, ...] | None = None
    batch_sizes: tuple[int, ...] | None = None
    imagenet: Path | None = None
    labels: Path | None = None
    limit: int | None = None
    sample: int | None = None
    seed: int = 0
    image_list: Path | None = None
    checkpoints: Path | None = None
    checkpoint_cache: Path | None = None
    offline: bool = False
    onnx: tuple[tuple[str, Path], ...] = ()
    trust_checkpoint: tuple[str, ...] = ()
    store: Path = ROOT / ".store"
    runs: Path = ROOT / "runs"
    leases: Path = Path(tempfile.gettempdir()) / "npu-acceptance-leases"
    catalog: Path = ROOT / "baselines.yaml"
    device: tuple[int, ...] | None = None
    soc_version: str | None = None
    driver: str | None = None
    tune: str = "guide"
    ascend_home: Path | None = None
    atc: Path | None = None
    npu_smi: Path | None = None
    benchmark_tool: Path | None = None
    ais_infer: Path | None = None
    ais_python: str | None = None
    simulator: str = ""
    rehearsal_images: int = DEFAULT_REHEARSAL_IMAGES
    precision: float = 1.0
    budget: float = 120.0
    deadline_factor: float = 1.0
    no_diagnosis: bool = False
    allow_inconclusive: bool = False
    no_target: str = ""  # why a target was looked for and not found; never an option

    @property
    def provenance(self) -> Provenance:
        if self.simulate_ascend:
            return "simulated"
        return "rehearsal" if self.rehearsal else "real"

    @property
    def stand_ins(self) -> bool:
        """Whether images are generated and weights are stand-ins."""
        return self.rehearsal or self.simulate_ascend

    @property
    def configured(self) -> bool:
        """Whether the run was told where to run at all."""
        return self.stand_ins or self.target is not None

    @property
    def selection(self) -> Selection:
        """Which images of the data set to use.

        Raises:
            ConfigError: options that do not go together; `resolve` has seen to that.
        """
        return Selection(self.limit, self.sample, self.seed, self.image_list)

    def to_json(self) -> dict[str, Any]:
        """For a record: JSON values, paths as text."""
        data: dict[str, Any] = {}
        for option in OPTIONS:
            value = getattr(self, option.name)
            if isinstance(value, Path):
                value = str(value)
            elif option.kind == "pairs":
                value = {name: str(path) for name, path in value}
            elif isinstance(value, tuple):
                value = list(value)
            data[option.name] = value
        return data


def resolve(
    command_line: Mapping[str, Any],
    environment: Mapping[str, str] | None = None,
    ini: Mapping[str, str] | None = None,
    *,
    base: Path | None = None,
) -> Settings:
    """Settings from the command line, then variables, then `pytest.ini`.

    Args:
        command_line: option name -> value, absent or None when not given.
        base: what relative paths are relative to; the working directory by default.

    Raises:
        ConfigError: a value that cannot be used, with the place that it came from.
    """
    environment = os.environ if environment is None else environment
    ini = {} if ini is None else ini
    base = base or Path.cwd()
    values: dict[str, Any] = {}
    for option in OPTIONS:
        for source, raw in (
            (option.flag, command_line.get(option.name)),
            (f"${option.environment}", environment.get(option.environment)),
            (f"pytest.ini {option.ini}", ini.get(option.ini)),
        ):
            if raw is None or raw == "" or raw == [] or raw is False:
                continue
            values[option.name] = _parse(option, raw, source, base)
            break
    _make_consistent(values, command_line)
    settings = Settings(**values)
    _ = settings.selection  # raises where its options do not go together
    return settings


def with_target(settings: Settings, target: str | None, why_not: str = "") -> Settings:
    """The same settings on a target that was found, or that another process chose.

    `why_not`: where there is none, what was found in its place.
    """
    if target is None:
        return dataclasses.replace(settings, no_target=why_not)
    return dataclasses.replace(settings, target=target)


def _make_consistent(values: dict[str, Any], command_line: Mapping[str, Any]) -> None:
    """Defaults and limits of a rehearsal and of a simulation; both make their own inputs."""
    if values.get("rehearsal") and values.get("simulate_ascend"):
        raise ConfigError(
            "--rehearsal and --simulate-ascend are two kinds of run",
            remedy="leave out one: a rehearsal runs on this machine's CPU, a simulation through "
            "stand-ins of CANN's tools",
        )
    if not (values.get("rehearsal") or values.get("simulate_ascend")):
        if command_line.get("simulator"):
            raise ConfigError(
                "--simulator says what --simulate-ascend plays", remedy="add --simulate-ascend"
            )
        return
    if values.get("rehearsal"):
        kind, target = "--rehearsal", values.setdefault("target", "cpu")
        if target != "cpu":
            raise ConfigError(
                f"a rehearsal runs on the target cpu, not on {target}",
                remedy="leave out --rehearsal to run on a device, or leave out --target",
            )
    else:
        kind, target = "--simulate-ascend", values.setdefault("target", "ascend310p3")
        if target not in ("ascend310", "ascend310p3"):
            raise ConfigError(
                f"there is no simulator for the target {target}",
                remedy="--target=ascend310p3 or --target=ascend310",
            )
        host = parse_config(
            values.get("simulator", ""), usual_chip=target.removeprefix("ascend").upper()
        )
        check_faults(host, values.get("driver"))
    for name in _REAL_INPUTS:
        if name in values and command_line.get(name):
            flag = _BY_NAME[name].flag
            raise ConfigError(
                f"{flag} does not go with {kind}, which makes its own images and weights",
                remedy=f"leave out one of the two; real inputs on this machine: --target=cpu "
                f"{flag}=...",
            )
        values.pop(name, None)
    values.setdefault("precision", 10.0)
    values.setdefault("budget", 40.0 if values.get("rehearsal") else 10.0)


def _parse(option: Option, raw: Any, source: str, base: Path) -> Any:
    def bad(expected: str) -> ConfigError:
        return ConfigError(
            f"{source}: {raw!r} is not {expected}", remedy=f"{option.flag}: {option.help}"
        )

    def path_of(text: str) -> Path:
        try:
            return (base / Path(text).expanduser()).absolute()
        except (RuntimeError, ValueError, OSError):  # a home directory that nobody has
            raise bad("a path that can be used") from None

    if option.kind == "flag":
        if isinstance(raw, bool):
            return raw
        text = str(raw).strip().lower()
        if text not in ("1", "true", "yes", "on", "0", "false", "no", "off"):
            raise bad("yes or no")
        return text in ("1", "true", "yes", "on")
    if option.kind == "text":
        text = str(raw).strip()
        choices = _CHOICES.get(option.name)
        if choices is not None and text not in choices:
            raise bad(f"one of {', '.join(choices)}")
        return text
    if option.kind == "path":
        return path_of(str(raw))
    if option.kind == "list":
        items: Sequence[str] = raw if isinstance(raw, list | tuple) else [str(raw)]
        parts = [part.strip() for item in items for part in item.split(",") if part.strip()]
        parts = list(dict.fromkeys(parts))
        if not parts:
            raise bad("a list of names separated by commas")
        if option.name not in _NUMBERS:
            return tuple(parts)
        what, low, high = _NUMBERS[option.name]
        numbers = []
        for part in parts:
            if not part.isascii() or not part.isdigit() or not low <= int(part) <= high:
                raise bad(f"a list of {what} from {low} to {high}")
            numbers.append(int(part))
        return tuple(dict.fromkeys(numbers))
    if option.kind == "pairs":
        pairs = {}
        for item in raw if isinstance(raw, list | tuple) else str(raw).split(","):
            name, separator, file = str(item).partition("=")
            if not separator or not name.strip() or not file.strip():
                raise bad("MODEL=FILE")
            pairs[name.strip()] = path_of(file.strip())
        return tuple(pairs.items())
    try:
        number: float = int(str(raw)) if option.kind == "int" else float(str(raw))
    except ValueError:
        raise bad("a number") from None
    limits = {
        "rehearsal_images": (25, MAX_IMAGES),
        "limit": (1, MAX_IMAGES),
        "sample": (1, MAX_IMAGES),
        "seed": (0, MAX_SEED),
        "precision": (0.01, 100.0),
        "budget": (0.1, 86_400.0),
        "deadline_factor": (0.1, 100.0),
    }[option.name]
    if not limits[0] <= number <= limits[1]:
        raise bad(f"a number from {limits[0]:g} to {limits[1]:g}")
    return number
