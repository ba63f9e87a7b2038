"""The targets `ascend310` and `ascend310p3`: one chip of an Ascend card, through CANN's tools.

What the host has is looked up when it is first needed, never when a run is planned. Where no
npu-smi is (a container, a build host) the options say what it would have said: the devices that
were named are used as they are, and everything that npu-smi tells of them is unknown.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import shlex
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from harness import simulator
from harness.base.errors import ConfigError, DeviceError, HarnessError, InferError, LoadError
from harness.base.processes import is_ours
from harness.base.store import source_digest
from harness.catalog.schema import Model
from harness.records.conditions import Answer, Condition, Moment, Setup
from harness.records.values import Scalar
from harness.settings import Settings
from harness.targets.ascend import api, atc, cli, drivers, legacy, msit, toolkit
from harness.targets.ascend.npu_smi import Chip, NpuInfo, NpuSmi
from harness.targets.protocol import (
    Device,
    DeviceFault,
    Float32,
    OperatorComparison,
    Session,
    TensorSpec,
    Traits,
)

CHIPS: Mapping[str, str] = {"ascend310": "Ascend310", "ascend310p3": "Ascend310P3"}
VISIBLE = "ASCEND_RT_VISIBLE_DEVICES"
COMPILE_DEADLINE_S = 1800.0
TUNED_DEADLINE_S = 6 * 3600.0  # atc's own tuning searches for hours
DETECT_S = 10.0  # whoever starts pytest waits for it
NO_TUNING = "atc-tunes-no-more"  # in the folder of a run's work: what atc said to one of its cases
LOCK = "npu-smi.lock"  # in the folder of leases
OPEN_DEADLINE_S = 300.0
RUN_DEADLINE_S = 120.0
# A device that was in use a moment ago still shows it: looks before it is called busy.
LOOKS = 4
LOOK_PAUSE_S = 0.5

# What runtimes say when a device is gone or cannot be had (an FAQ of the tools' vendor).
_LOST = re.compile(r"\bEL0003\b|\b507033\b|open device \d+ failed", re.IGNORECASE)
# What a model can cause as well: an AI core's exception (507015), a stream that failed (507011).
_PERHAPS_LOST = re.compile(
    r"\b507\d{3}\b|device (is )?lost|drv(er)? .*not (ready|found)", re.IGNORECASE
)


@dataclass(frozen=True)
class Place:
    """Where a run keeps what its tools write, and the host-wide lock of npu-smi."""

    logs: Path
    work: Path
    locks: Path


class AscendTarget:
    """One of the two Ascend chips of the guides; see `protocol.Target`."""

    traits = Traits(fidelity_bound=3e-2)  # atc computes in float16 by default

    def __init__(
        self,
        name: str,
        settings: Settings,
        place: Place,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.soc_version = CHIPS[name]
        self._settings = settings
        self._place = place
        self._environment = dict(os.environ if environment is None else environment)
        # It renumbers devices for the runtime and not for npu-smi: what it says is honoured here,
        # and every process counts as npu-smi does.
        visible = self._environment.pop(VISIBLE, None)
        self._wanted = settings.device if settings.device is not None else _ids(visible)
        self._factor = settings.deadline_factor
        self._last_info: NpuInfo | None = None
        given = settings.soc_version
        if given is not None and _soc(given) != self.soc_version:
            raise ConfigError(
                f"--soc-version={given} is not the chip of the target {name}, {self.soc_version}",
                remedy=f"--soc-version={self.soc_version}, or the target of the other chip",
            )

    # What the host has -------------------------------------------------------------------

    @cached_property
    def toolkit(self) -> toolkit.Toolkit:
        """CANN's tools and their environment, found once."""
        settings = self._settings
        found = toolkit.find_toolkit(
            environment=self._environment,
            python=settings.ais_python,
            atc=settings.atc,
            npu_smi=settings.npu_smi,
            benchmark=settings.benchmark_tool,
            ais_infer=settings.ais_infer,
            ascend_home=settings.ascend_home,
            log=self._place.logs / "toolkit.log",
        )
        if settings.simulate_ascend:
            return _only_simulated(found)
        _refuse_simulated(found)
        return found

    @cached_property
    def _npu_smi(self) -> NpuSmi | None:
        program = self.toolkit.npu_smi
        if program is None:
            return None
        return NpuSmi(
            program,
            env=self.toolkit.env,
            lock=self._place.locks / LOCK,
            log=self._place.logs / "npu-smi.log",
            deadline_s=30.0 * self._factor,
        )

    def _info(self) -> NpuInfo | None:
        if self._npu_smi is not None:
            self._last_info = self._npu_smi.info()
        return self._last_info

    @property
    def _known_info(self) -> NpuInfo | None:
        """The last table that could be had: no failure is remembered."""
        if self._last_info is None:
            # A build host with a driver and no card; `devices` says it when it counts.
            with contextlib.suppress(DeviceError):
                self._info()
        return self._last_info

    @cached_property
    def _boards(self) -> dict[int, Mapping[str, str]]:
        return {}

    def _board(self, npu_id: int) -> Mapping[str, str]:
        if npu_id not in self._boards:
            self._boards[npu_id] = {} if self._npu_smi is None else self._npu_smi.board(npu_id)
        return self._boards[npu_id]

    def _mine(self, info: NpuInfo) -> list[Chip]:
        return [chip for chip in info.chips if chip.soc_version == self.soc_version]

    def identity(self) -> Mapping[str, Scalar]:
        found: dict[str, Scalar] = {
            "target": self.name,
            "chip": self.soc_version,
            "simulated": self._settings.simulate_ascend,
            **{name: text for name, text in sorted(self.toolkit.versions.items()) if text},
        }
        info = self._known_info
        if info is not None:
            found["driver"] = info.driver_version
            mine = self._mine(info)
            firmware = self._board(mine[0].npu_id).get("Firmware Version", "") if mine else ""
            found |= {"firmware": firmware} if firmware else {}
        return found

    def devices(self) -> Sequence[Device]:
        wanted = self._wanted
        info = self._info()
        if info is None:
            if wanted is None:
                raise DeviceError(
                    f"no npu-smi is on this host: nothing says which {self.soc_version} there is",
                    remedy="install the driver's tools or name it: --npu-smi=FILE; in a container "
                    "without it, --device=N names the device",
                )
            return tuple(
                Device(self.name, index, self.soc_version, f"device-{index}") for index in wanted
            )
        mine = self._mine(info)
        if not mine:
            there = ", ".join(sorted({chip.soc_version for chip in info.chips}))
            raise DeviceError(
                f"this host has no {self.soc_version}: npu-smi shows {there or 'no chip'}",
                remedy=f"--target for what is there; targets: {', '.join(CHIPS)}",
            )
        if wanted is not None:
            absent = sorted(set(wanted) - {chip.logical_id for chip in mine})
            if absent:
                ids = ", ".join(str(chip.logical_id) for chip in mine)
                raise DeviceError(
                    f"--device or ${VISIBLE}: npu-smi shows no {self.soc_version} with the "
                    f"logical id {', '.join(map(str, absent))}",
                    remedy=f"the logical ids here: {ids}",
                )
            mine = [chip for chip in mine if chip.logical_id in wanted]
        healthy = [chip for chip in mine if _healthy(chip)]
        if not healthy:
            states = ", ".join(f"{chip.logical_id}: {chip.health or 'unknown'}" for chip in mine)
            raise DeviceError(
                f"no {self.soc_version} of this host is healthy (logical id: health; {states})",
                remedy="npu-smi info -t health -i NPU -c CHIP says what it has; a reset or another "
                "card",
            )
        return tuple(
            Device(self.name, chip.logical_id, self.soc_version, f"npu-{chip.npu_id}")
            for chip in healthy
        )

    def left_out(self) -> Mapping[str, str]:
        mine = [] if self._known_info is None else self._mine(self._known_info)
        return {
            f"{self.name}-{chip.logical_id}": f"npu-smi says its health is {chip.health}"
            for chip in mine
            if (self._wanted is None or chip.logical_id in self._wanted) and not _healthy(chip)
        }

    def card(self, device: Device) -> Sequence[Device]:
        info = self._info()
        mine = [] if info is None else [c for c in info.chips if c.logical_id == device.index]
        if info is None or not mine:
            return (device,)
        return tuple(
            Device(self.name, chip.logical_id, chip.soc_version, device.group)
            for chip in info.chips
            if chip.npu_id == mine[0].npu_id
        )

    # Compiling ---------------------------------------------------------------------------

    def _flags(self, model: Model, batch_size: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
        spec = model.ascend
        return spec.atc_flags(batch_size), spec.atc_flags(batch_size, tuned=False)

    def compile_inputs(self, model: Model, batch_size: int) -> Mapping[str, Any]:
        flags, untuned = self._flags(model, batch_size)
        return {
            **self.identity(),
            "input": model.input.name,
            "shape": [batch_size, 3, model.input.size, model.input.size],
            "flags": list(untuned if self._settings.tune == "none" else flags),
            "tune": self._settings.tune,
            "simulator": self._settings.simulator,
            "recipe": source_digest("harness.targets.ascend.atc"),
        }

    def compiles_on_device(self, model: Model, batch_size: int) -> bool:
        if model.ascend.tuning(batch_size) == "none":
            return False
        tune = self._settings.tune
        # atc's own tuning takes an NPU of this host. Where there is none, it cannot disturb one:
        # a host that only builds compiles untuned where its atc tunes no more.
        # Nor where it is known to tune no more: an untuned compile needs no turn of its own.
        refused = (self._place.work / NO_TUNING).exists()
        return tune == "aoe" or (tune == "guide" and not refused and self._has_device)

    @property
    def _has_device(self) -> bool:
        info = self._known_info
        return self._wanted is not None if info is None else bool(self._mine(info))

    def compile(
        self,
        onnx: Path,
        model: Model,
        batch_size: int,
        output_dir: Path,
        *,
        device: Device | None,
        log: Path,
        lease_fds: Sequence[int] = (),
    ) -> Mapping[str, str]:
        flags, untuned = self._flags(model, batch_size)
        # Tuning is for the cases that their guide tunes: an untuned figure is an untuned model's.
        tune = self._settings.tune if flags != untuned else "none"
        searches = tune != "none"
        size = model.input.size
        tools = self.toolkit
        if searches and device is not None:
            # atc's tuning takes device 0 unless it is told.
            tools = dataclasses.replace(
                tools, env={**tools.env, "ASCEND_DEVICE_ID": str(device.index)}
            )
        compiled = atc.compile_om(
            tools,
            onnx=onnx,
            output_dir=output_dir,
            input_name=model.input.name,
            shape=(batch_size, 3, size, size),
            soc_version=self.soc_version,
            flags=flags,
            untuned_flags=untuned,
            tune="auto" if tune == "guide" else "aoe" if tune == "aoe" else "none",
            device_id=None if device is None or tune != "aoe" else device.index,
            log=log,
            deadline_s=(TUNED_DEADLINE_S if searches else COMPILE_DEADLINE_S) * self._factor,
            pass_fds=lease_fds,
        )
        if tune == "guide" and compiled.note:
            self._place.work.mkdir(parents=True, exist_ok=True)
            (self._place.work / NO_TUNING).touch()
        return {"tuning": compiled.tuning, "note": compiled.note}

    # Running -----------------------------------------------------------------------------

    @cached_property
    def driver(self) -> str:
        """How models run on this host: what was asked for, or the first driver that is there.

        Raises:
            LoadError: none is, with the reason for each.
        """
        found = drivers.available_drivers(self.toolkit, log=self._place.logs / "drivers.log")
        asked = self._settings.driver
        if asked is not None:
            why = found.get(asked, "unknown")
            if why:
                raise LoadError(
                    f"--driver={asked} cannot be used here: {why}",
                    remedy="docs/ascend.md says what each driver needs; without --driver the "
                    "first that is there is taken",
                )
            return asked
        for name, why in found.items():
            if not why:
                return name
        reasons = "; ".join(f"{name}: {why}" for name, why in found.items())
        raise LoadError(
            f"nothing here can run a compiled model ({reasons})",
            remedy="install the ais_bench and aclruntime wheels into the Python that --ais-python "
            "names (docs/ascend.md)",
        )

    def open(
        self,
        file: Path,
        model: Model,
        batch_size: int,
        device: Device,
        *,
        log: Path,
        lease_fds: Sequence[int],
    ) -> Session:
        factor, size = self._factor, model.input.size
        if self.driver == "api":
            return api.open_api(
                file,
                toolkit=self.toolkit,
                device_id=device.index,
                work=self._place.work,
                log=log,
                lease_fds=lease_fds,
                deadline_open_s=OPEN_DEADLINE_S * factor,
                deadline_run_s=RUN_DEADLINE_S * factor,
                expect_input=(batch_size, 3, size, size),
                expect_output=(batch_size, model.classes),
            )
        opener = cli.open_cli if self.driver == "cli" else legacy.open_legacy
        return opener(
            file,
            toolkit=self.toolkit,
            device_id=device.index,
            input=TensorSpec(model.input.name, (batch_size, 3, size, size), "float32"),
            output=TensorSpec(model.output.name, (batch_size, model.classes), "float32"),
            work=self._place.work,
            log=log,
            lease_fds=lease_fds,
            deadline_run_s=(OPEN_DEADLINE_S + RUN_DEADLINE_S) * factor,
        )

    def look(
        self, device: Device, moment: Moment, seconds: float, session: Session | None
    ) -> Condition:
        if self._npu_smi is None:
            return Condition(moment, seconds, note="no npu-smi")
        looks = LOOKS if moment != "during" else 1
        for left in reversed(range(looks)):
            condition = self._look_once(self._npu_smi, device, moment, seconds, session)
            if condition.busy != "yes" or not left:
                return condition
            time.sleep(LOOK_PAUSE_S)
        raise AssertionError("unreachable")

    def _look_once(
        self,
        npu_smi: NpuSmi,
        device: Device,
        moment: Moment,
        seconds: float,
        session: Session | None,
    ) -> Condition:
        chip = next((one for one in npu_smi.info().chips if one.logical_id == device.index), None)
        if chip is None:
            raise DeviceError(
                f"{device.id} is no longer among npu-smi's devices",
                remedy="its driver lost it: dmesg and npu-smi info say more; a reset may help",
            )
        busy, note = _busy(chip, moment, measuring=session is not None)
        throttled: Answer = "unknown"
        clock = npu_smi.clock(chip.npu_id, chip.chip_id)
        # A chip that rests lowers its frequency: only while it works does that mean anything. The
        # table above is of another moment: between two rounds a chip rests.
        if clock is not None and moment == "during" and (clock.aicore_percent or 0) > 0:
            throttled = "yes" if clock.current_mhz < clock.rated_mhz else "no"
            if throttled == "yes":
                told = f"{clock.current_mhz:g} MHz of {clock.rated_mhz:g}"
                note = f"{told}; {note}" if note else told
        return Condition(
            moment,
            seconds,
            health=chip.health,
            busy=busy,
            throttled=throttled,
            temperature_c=chip.temperature_c,
            power_w=chip.power_w,
            note=note,
        )

    def setup(self, device: Device, facts: Mapping[str, str], session: Session) -> Setup:
        info = self._known_info
        same_card: list[Chip] = []
        card = ""
        if info is not None:
            mine = next((c for c in info.chips if c.logical_id == device.index), None)
            if mine is not None:
                same_card = [chip for chip in info.chips if chip.npu_id == mine.npu_id]
                card = self._npu_smi.product(mine.npu_id) if self._npu_smi else ""
        cann = self.toolkit.versions.get("cann", "")
        return Setup(
            driver=session.about.driver,
            method=session.about.method,
            tuning=facts.get("tuning", "none"),
            chip=self.soc_version,
            card=card,
            chips=len(same_card) or None,
            toolchain=f"CANN {cann}" if cann else "",
            note=facts.get("note", ""),
        )

    def commands(
        self, onnx: Path, file: Path, model: Model, batch_size: int, device: Device
    ) -> Mapping[str, str]:
        flags, untuned = self._flags(model, batch_size)
        size = model.input.size
        arguments = atc.atc_arguments(
            onnx=onnx,
            output_stem=Path(f"{model.id}_bs{batch_size}"),
            input_name=model.input.name,
            shape=(batch_size, 3, size, size),
            soc_version=self.soc_version,
            flags=untuned if self._settings.tune == "none" else flags,
        )
        script = self.toolkit.ais_infer if self.driver == "cli" else None
        run = cli.tool_command(self.toolkit.python, script)
        run += [f"--model={file}", f"--device={device.index}"]
        run += [f"--batchsize={batch_size}", "--loop=100"]
        if script is None:  # the script has no such option
            run += [f"--warmup_count={cli.LEAST_WARMUP}"]
        if self.driver == "benchmark":
            tool = str(self.toolkit.benchmark or "benchmark")
            run = [tool, "-round=20", f"-om_path={file}", f"-device_id={device.index}"]
            run += [f"-batch_size={batch_size}"]
        return {"compile": shlex.join(["atc", *arguments]), "run": shlex.join(run)}

    def compare_operators(
        self, onnx: Path, file: Path, batch: Float32, device: Device | None, folder: Path
    ) -> OperatorComparison:
        if self._settings.simulate_ascend:
            return OperatorComparison(msit.TOOL, why_not="a simulated NPU has no operators")
        if self.toolkit.msit is None:
            return OperatorComparison(msit.TOOL, why_not="msit is not on PATH")
        index = 0 if device is None else device.index
        commands = msit.commands(
            self.toolkit, onnx=onnx, compiled=file, batch=batch, device=index, folder=folder
        )
        return OperatorComparison(msit.TOOL, tuple(commands))

    def device_fault(self, error: HarnessError, device: Device) -> DeviceFault | None:
        if isinstance(error, DeviceError):
            return DeviceFault(error.message)
        if not isinstance(error, InferError | LoadError):
            return None
        text = f"{error.message}\n{error.log}"
        lost = _LOST.search(text)
        if lost:
            return DeviceFault(f"the runtime says {lost[0]!r}")
        try:
            info = self._info()
        except DeviceError as trouble:
            # It tells nothing of this device: the driver fails, or others hold npu-smi's lock.
            return DeviceFault(trouble.message, certain=False)
        if info is not None:
            chip = next((one for one in info.chips if one.logical_id == device.index), None)
            if chip is None:
                return DeviceFault("npu-smi no longer shows it")
            if not _healthy(chip):
                return DeviceFault(f"npu-smi says its health is {chip.health or 'unknown'}")
        perhaps = _PERHAPS_LOST.search(text)
        if perhaps:
            return DeviceFault(f"the runtime says {perhaps[0]!r}", certain=False)
        if error.hung:
            # Whether the model hangs or the device does, another device tells.
            return DeviceFault("it did not answer", certain=False)
        return None


def _ids(visible: str | None) -> tuple[int, ...] | None:
    """Logical ids of `ASCEND_RT_VISIBLE_DEVICES=0,2`; None where it says nothing."""
    if visible is None or not visible.strip():
        return None
    parts = [part.strip() for part in visible.split(",")]
    if not all(part.isascii() and part.isdigit() for part in parts):
        raise ConfigError(
            f"${VISIBLE}={visible!r} is not a list of logical ids",
            remedy="unset it, or write it as 0,2",
        )
    return tuple(int(part) for part in parts)


def _refuse_simulated(found: toolkit.Toolkit) -> None:
    """A simulated host must never stand behind a real run, whoever put it on a search path."""
    tools = [found.atc, found.aoe, found.npu_smi, found.benchmark, found.ais_infer]
    for tool in tools:
        if simulator.VARIABLE in found.env or (tool is not None and simulator.is_part(tool)):
            raise ConfigError(
                f"a simulated Ascend host would stand behind a real run: {tool or 'its variables'}",
                remedy="start from a shell that did not source a simulation's set_env.sh, without "
                f"${simulator.VARIABLE}; or simulate: --simulate-ascend",
            )


def _only_simulated(found: toolkit.Toolkit) -> toolkit.Toolkit:
    """Without what belongs to a real host: a simulation must never touch it."""
    root = Path(found.env[simulator.VARIABLE]).parent

    def ours(path: Path | None) -> Path | None:
        return path if path is not None and path.is_relative_to(root) else None

    return dataclasses.replace(
        found,
        npu_smi=ours(found.npu_smi),
        atc=ours(found.atc),
        aoe=ours(found.aoe),
        benchmark=ours(found.benchmark),
        msit=None,
        devlib=None,
    )


def _healthy(chip: Chip) -> bool:
    return chip.health.upper() == "OK"


def _soc(text: str) -> str:
    """`310P3`, `Ascend310P3` and `ascend 310p3` are the same chip."""
    name = re.sub(r"\s", "", text)
    return "Ascend" + re.sub(r"(?i)^ascend", "", name).upper()


def _busy(chip: Chip, moment: Moment, *, measuring: bool) -> tuple[Answer, str]:
    """Whether others use the chip. An old driver prints no processes: then only idleness shows.

    What this process started is not others', whether it is one worker or a tool for each call.
    """
    if chip.processes is None:
        if moment != "during" and (chip.aicore_percent or 0) > 0:
            return "yes", f"AI cores at {chip.aicore_percent:g} %"
        return "unknown", ""
    others = [
        one
        for one in chip.processes
        if not any(pid is not None and is_ours(pid) for pid in (one.pid, one.container_pid))
    ]
    alone = measuring and len(others) == len(chip.processes) == 1
    # npu-smi prints the host's process ids; in a container ours is another number there.
    if alone and not Path(f"/proc/{others[0].pid}").exists():
        others = []
    if not others:
        return "no", ""
    named = ", ".join(f"{one.pid} {one.name or 'unnamed'}" for one in others[:3])
    return "yes", f"process {named}"


def detect(settings: Settings) -> tuple[str | None, str]:
    """The target of the chip that `--soc-version` names, else of the NPU that npu-smi shows; where
    there is none, why not, in words.

    What a run would find is found here, but for patience: each step has `DETECT_S` seconds.
    """
    if settings.soc_version is not None:
        asked = _soc(settings.soc_version)
        named = next((name for name, chip in CHIPS.items() if chip == asked), None)
        why_not = f"--soc-version={settings.soc_version} is none of: {', '.join(CHIPS.values())}"
        return named, "" if named else why_not
    seconds = DETECT_S * settings.deadline_factor
    with tempfile.TemporaryDirectory(prefix="harness-") as folder:
        place = Path(folder)
        try:
            tools = toolkit.find_toolkit(
                environment=os.environ,
                npu_smi=settings.npu_smi,
                ascend_home=settings.ascend_home,
                log=place / "toolkit.log",
                source_deadline_s=seconds,
            )
            if tools.npu_smi is None:
                source = tools.environment_source
                why = f" ({source})" if source.startswith("not usable") else ""
                return None, f"no npu-smi is on this host{why}"
            smi = NpuSmi(
                tools.npu_smi,
                env=tools.env,
                lock=settings.leases / LOCK,
                log=place / "npu-smi.log",
                deadline_s=seconds,
                wait_s=seconds,
            )
            chips = smi.info().chips
        except HarnessError as error:
            return None, error.message + (f"; {error.remedy}" if error.remedy else "")
    there = {chip.soc_version for chip in chips}
    found = [name for name, chip in CHIPS.items() if chip in there]
    if len(found) == 1:
        return found[0], ""
    shown = " and ".join(sorted(there))
    if found:
        return None, f"npu-smi says {shown}: which one is not said"
    return None, f"npu-smi says {shown}, and targets are for {', '.join(CHIPS.values())}"


def lacking(settings: Settings, *, building: bool = False) -> list[tuple[str, str]]:
    """What an Ascend run needs of this host and does not find: (thing, how to supply it).

    `building`: models are compiled here and run nowhere.
    """
    with tempfile.TemporaryDirectory(prefix="harness-") as folder:
        place = Path(folder)
        target = AscendTarget(
            settings.target or "ascend310p3", settings, Place(place, place, settings.leases)
        )
        tools = target.toolkit
    found = []
    if tools.npu_smi is None and settings.device is None and not building:
        found.append(
            (
                "npu-smi: nothing says which NPU is there",
                "the driver's tools, or --device=N; a host without an NPU can only build: "
                "python -m harness cache build",
            )
        )
    if tools.atc is None:
        found.append(
            (
                "atc: CANN's compiler is neither on PATH nor in a known place",
                "CANN's toolkit and its set_env.sh, --ascend-home=DIR or --atc=FILE",
            )
        )
    return found
