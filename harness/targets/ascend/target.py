"""A target of `chips.py`, such as `ascend310p3`: one chip of an Ascend card, through CANN's tools.

What the host has is looked up when it is first needed, never when a run is planned. Where no
npu-smi is (a container, a build host) the options say what it would have said: the devices that
were named are used as they are, and everything that npu-smi tells of them is unknown.
"""

from __future__ import annotations

import os
import platform
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

from harness.base.errors import ConfigError, DeviceError, HarnessError, InferError, LoadError
from harness.base.store import source_digest
from harness.catalog.schema import Model
from harness.records.conditions import Answer, Condition, Moment, Setup
from harness.records.measurements import Scalar
from harness.settings import Settings
from harness.targets.ascend import aipp, atc, drivers, faults, operators
from harness.targets.ascend.chips import CHIPS
from harness.targets.ascend.cli import AisBench
from harness.targets.ascend.drivers import Opening
from harness.targets.ascend.host import (
    VISIBLE,
    AscendHost,
    Place,
    chip_at,
    chips_of,
    require_chip,
)
from harness.targets.ascend.npu_info import Chip, NpuInfo
from harness.targets.ascend.npu_smi import NpuSmi
from harness.targets.ascend.options import AscendOptions
from harness.targets.ascend.spec import AscendSpec, AtcSpec
from harness.targets.ascend.toolkit import Toolkit
from harness.targets.devices import strangers, visible_ids
from harness.targets.protocol import (
    OPSETS,
    Device,
    DeviceFault,
    EagerOnDevice,
    Images,
    OperatorComparison,
    Session,
    Target,
    TensorSpec,
    Traits,
)

COMPILE_DEADLINE_S = 1800.0
TUNED_DEADLINE_S = 6 * 3600.0  # atc's own tuning searches for hours
NO_TUNING = "atc-tunes-no-more"  # in the folder of a run's work: what atc said to one of its cases
OPEN_DEADLINE_S = 300.0
RUN_DEADLINE_S = 120.0
# A device that was in use a moment ago still shows it: looks before it is called busy.
LOOKS = 4
LOOK_PAUSE_S = 0.5
_OPENERS: Mapping[str, Callable[[Opening], Session]] = {
    "api": drivers.open_api,
    "cli": AisBench.open,
}


class AscendTarget(Target):
    """A kind of Ascend chip; see `protocol.Target`."""

    traits = Traits(fidelity_bound=3e-2, portable=True)  # atc computes in float16 by default

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
        self._options = settings.of(AscendOptions)
        self._place = place
        self._factor = settings.deadline_factor
        env = dict(os.environ if environment is None else environment)
        visible = visible_ids(env, VISIBLE)
        env.pop(VISIBLE, None)  # every process counts as npu-smi does
        self._wanted = settings.device if settings.device is not None else visible
        self._host = AscendHost(
            self._options, place, env, query_s=30.0 * self._factor, wait_s=300.0 * self._factor
        )
        require_chip(self._options.soc_version, name)

    @property
    def toolkit(self) -> Toolkit:
        """CANN's tools and their environment, found once."""
        return self._host.toolkit

    # What the host has -------------------------------------------------------------------

    def _known_chips(self) -> list[Chip]:
        return chips_of(self._host.known_info, self.soc_version)

    def identity(self) -> Mapping[str, Scalar]:
        known: dict[str, Scalar] = {
            "target": self.name,
            "chip": self.soc_version,
            "simulated": self._options.simulate_ascend,
            **{name: text for name, text in sorted(self.toolkit.versions.items()) if text},
        }
        info = self._host.known_info
        if info is not None:
            known["driver"] = info.driver_version
            chips = self._known_chips()
            firmware = self._host.firmware(chips[0].npu_id) if chips else ""
            known |= {"firmware": firmware} if firmware else {}
        return known

    def devices(self) -> Sequence[Device]:
        wanted = self._wanted
        info = self._host.info()
        if info is None:
            if wanted is None:
                raise DeviceError(
                    f"no npu-smi is on this host: nothing says which {self.soc_version} there is",
                    remedy="install the driver's tools or name it: --npu-smi=FILE; in a container "
                    "without it, --device=N names the device",
                )
            return tuple(
                Device(self.name, index, self._host.name(self.soc_version, None), f"device-{index}")
                for index in wanted
            )
        chips = self._chosen(info)
        healthy = [chip for chip in chips if chip.healthy]
        if not healthy:
            states = ", ".join(f"{chip.logical_id}: {chip.health or 'unknown'}" for chip in chips)
            raise DeviceError(
                f"no {self.soc_version} of this host is healthy (logical id: health; {states})",
                remedy="npu-smi info -t health -i NPU -c CHIP says what it has; a reset or another "
                "card",
            )
        return tuple(self._device(chip) for chip in healthy)

    def _device(self, chip: Chip) -> Device:
        name = self._host.name(chip.soc_version, chip)
        return Device(self.name, chip.logical_id, name, f"npu-{chip.npu_id}")

    def _chosen(self, info: NpuInfo) -> list[Chip]:
        """Return the target's chips that a run may use, healthy or not. Raises `DeviceError`."""
        chips = chips_of(info, self.soc_version)
        if not chips:
            shown = ", ".join(sorted({chip.soc_version for chip in info.chips}))
            raise DeviceError(
                f"this host has no {self.soc_version}: npu-smi shows {shown or 'no chip'}",
                remedy=f"--target for what is there; targets: {', '.join(CHIPS)}",
            )
        if self._wanted is None:
            return chips
        absent = sorted(set(self._wanted) - {chip.logical_id for chip in chips})
        if absent:
            ids = ", ".join(str(chip.logical_id) for chip in chips)
            raise DeviceError(
                f"--device or ${VISIBLE}: npu-smi shows no {self.soc_version} with the "
                f"logical id {', '.join(map(str, absent))}",
                remedy=f"the logical ids here: {ids}",
            )
        return [chip for chip in chips if chip.logical_id in self._wanted]

    def left_out(self) -> Mapping[str, str]:
        return {
            f"{self.name}-{chip.logical_id}": f"npu-smi says its health is {chip.health}"
            for chip in self._known_chips()
            if (self._wanted is None or chip.logical_id in self._wanted) and not chip.healthy
        }

    def card(self, device: Device) -> Sequence[Device]:
        info = self._host.info()
        chip = chip_at(info, device.index)
        if info is None or chip is None:
            return (device,)
        return tuple(self._device(one) for one in info.on_npu(chip.npu_id))

    # Compiling ---------------------------------------------------------------------------

    def _spec(self, model: Model) -> AtcSpec:
        return model.section(AscendSpec).of(self.name)

    def _recipe(self, model: Model, batch_size: int) -> atc.Recipe:
        """Return what atc is told of a model in this run, tuning included where it is wanted."""
        spec, files = self._spec(model), {}
        sizes = spec.dynamic_batch_size
        if sizes and batch_size not in sizes:
            # An option's fault: no known failure of the compiler may excuse it.
            raise ConfigError(
                f"{model.id}: batch size {batch_size} is none of those that its one compiled file "
                f"serves: {', '.join(map(str, sizes))}",
                remedy="add it to the model's dynamic_batch_size in the catalog, under ascend, or "
                "choose others: --batch-sizes=",
            )
        if spec.aipp:
            files[aipp.FILE] = aipp.config(model.preprocessing.normalize, model.input.size)
        shape = super().input_of(model, -1 if sizes else batch_size).shape  # of the ONNX file
        flags = spec.atc_flags(batch_size)
        recipe = atc.Recipe(model.input.name, shape, self.soc_version, flags, files)
        return recipe.untuned() if self._options.tune == "none" else recipe

    def input_of(self, model: Model, batch_size: int) -> TensorSpec:
        given = super().input_of(model, batch_size)
        if not self._spec(model).aipp:
            return given
        side = model.input.size
        return replace(given, shape=(batch_size, side, side, 3), dtype="uint8")

    def _compiler(self) -> Mapping[str, str]:
        """Return what of the host's tools a compiled file depends on.

        Not what runs it (driver, firmware): a host without an NPU builds for those that have one.
        """
        known = self.toolkit.versions
        compiler = {name: known[name] for name in ("atc", "cann", "runtime") if name in known}
        if "nnrt" in known and not compiler:  # without atc: it takes what CANN of its number made
            compiler = {"cann": known["nnrt"]}
        return compiler

    def compile_inputs(self, model: Model, batch_size: int) -> Mapping[str, Any]:
        return {
            "target": self.name,
            "simulated": self._options.simulate_ascend,
            "machine": platform.machine(),  # atc may put code for its own host into a model
            **self._compiler(),
            **asdict(self._recipe(model, batch_size)),
            "tune": self._options.tune,
            "simulator": self._options.simulator,
            "recipe": source_digest("harness.targets.ascend.atc"),
        }

    def opsets(self) -> tuple[int, int]:
        # By Huawei's pages of atc: 9 to 13 for CANN 5, ONNX 1.12 (opset 17) for CANN 8. Of those
        # between them none is at hand: atc says what it cannot read.
        cann = self.toolkit.versions.get("cann", "")
        return (9, 13) if cann.startswith("5.") else OPSETS

    def compiles_on_device(self, model: Model, batch_size: int) -> bool:
        if self._spec(model).tuning(batch_size) == "none":
            return False
        tune = self._options.tune
        # atc's own tuning takes an NPU of this host. Where there is none, it cannot disturb one:
        # a host that only builds compiles untuned where its atc tunes no more.
        # Nor where it is known to tune no more: an untuned compile needs no turn of its own.
        refused = (self._place.work / NO_TUNING).exists()
        return tune == "aoe" or (tune == "guide" and not refused and self._has_device)

    @property
    def _has_device(self) -> bool:
        if self._host.known_info is None:
            return self._wanted is not None
        return bool(self._known_chips())

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
        recipe = self._recipe(model, batch_size)
        # Tuning is for the cases that their guide tunes: an untuned figure is an untuned model's.
        tune = "none" if recipe.tuning == "none" else self._options.tune
        compiled = atc.Compilation(
            self.toolkit,
            recipe,
            onnx,
            tune,
            device_id=None if device is None else device.index,
            log=log,
            deadline_s=self._factor * (COMPILE_DEADLINE_S if tune == "none" else TUNED_DEADLINE_S),
            pass_fds=lease_fds,
        ).into(output_dir)
        if tune == "guide" and compiled.note:
            self._place.work.mkdir(parents=True, exist_ok=True)
            (self._place.work / NO_TUNING).touch()
        sizes = ",".join(map(str, model.dynamic_batch(self.name)))
        return {"tuning": compiled.tuning, "note": compiled.note, "dynamic_batch": sizes or "none"}

    # Running -----------------------------------------------------------------------------

    @cached_property
    def driver(self) -> str:
        """Return how models run here: `api` or `cli`. Raises `LoadError`."""
        log = self._place.logs / "drivers.log"
        return drivers.choose(self.toolkit, self._options.driver, log=log)

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
        return _OPENERS[self.driver](
            Opening(
                file,
                toolkit=self.toolkit,
                device_id=device.index,
                input=self.input_of(model, batch_size),
                output=TensorSpec(model.output.name, (batch_size, model.classes), "float32"),
                work=self._place.work,
                dynamic=bool(model.dynamic_batch(self.name)),
                log=log,
                lease_fds=tuple(lease_fds),
                deadline_open_s=OPEN_DEADLINE_S * self._factor,
                deadline_run_s=RUN_DEADLINE_S * self._factor,
            )
        )

    def look(
        self, device: Device, moment: Moment, seconds: float, session: Session | None
    ) -> Condition:
        npu_smi = self._host.npu_smi
        if npu_smi is None:
            return Condition(moment, seconds, note="no npu-smi")
        for left in reversed(range(LOOKS if moment != "during" else 1)):
            condition = self._look_once(npu_smi, device, moment, seconds, session is not None)
            if condition.busy != "yes" or not left:
                return condition
            time.sleep(LOOK_PAUSE_S)
        raise AssertionError("unreachable")

    def _look_once(
        self, npu_smi: NpuSmi, device: Device, moment: Moment, seconds: float, measuring: bool
    ) -> Condition:
        chip = chip_at(npu_smi.info(), device.index)
        if chip is None:
            raise DeviceError(
                f"{device.id} is no longer among npu-smi's devices",
                remedy="its driver lost it: dmesg and npu-smi info say more; a reset may help",
            )
        busy, note = _busy(chip, resting=moment != "during", measuring=measuring)
        throttled: Answer = "unknown"
        clock = npu_smi.clock(chip.npu_id, chip.chip_id)
        # A chip that rests lowers its frequency: only while it works does that mean anything. The
        # table above is of another moment: between two rounds a chip rests.
        if clock is not None and moment == "during" and (clock.aicore_percent or 0) > 0:
            throttled = "yes" if clock.current_mhz < clock.rated_mhz else "no"
            if throttled == "yes":
                slowed = f"{clock.current_mhz:g} MHz of {clock.rated_mhz:g}"
                note = f"{slowed}; {note}" if note else slowed
        if not chip.healthy:
            note = f"npu-smi info -t health -i {chip.npu_id} -c {chip.chip_id} says what it has"
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
        info, npu_smi = self._host.known_info, self._host.npu_smi
        chip = chip_at(info, device.index)
        chips: int | None = None
        card = ""
        if info is not None and chip is not None:
            chips = len(info.on_npu(chip.npu_id))
            card = npu_smi.product(chip.npu_id) if npu_smi is not None else ""
        cann = self._compiler().get("cann", "")
        return Setup(
            driver=session.about.driver,
            tuning=facts.get("tuning", "none"),
            chip=self._host.name(self.soc_version, chip),
            card=card,
            chips=chips,
            toolchain=f"CANN {cann}" if cann else "",
            note=facts.get("note", ""),
            input=session.inputs[0].dtype,
            dynamic_batch=facts.get("dynamic_batch", "none"),
        )

    def commands(
        self, onnx: Path, file: Path, model: Model, batch_size: int, device: Device
    ) -> Mapping[str, str]:
        recipe, dynamic = self._recipe(model, batch_size), bool(model.dynamic_batch(self.name))
        stem = f"{model.id}_dynamic" if dynamic else f"{model.id}_bs{batch_size}"
        run = drivers.run_command(self.toolkit, file, device.index, batch_size)
        run += drivers.dynamic_flags(batch_size) if dynamic else []
        files = [
            f"echo {shlex.quote(' '.join(text.split()))} > {name} && "
            for name, text in recipe.files.items()
        ]
        compile_ = "".join([*files, shlex.join(["atc", *recipe.arguments(onnx, stem)])])
        return {"compile": compile_, "run": shlex.join(run)}

    def compare_operators(
        self,
        onnx: Path,
        file: Path,
        model: Model,
        batch: Images,
        device: Device | None,
        folder: Path,
    ) -> OperatorComparison:
        if self._options.simulate_ascend:
            return OperatorComparison("msprobe", why_not="a simulated NPU has no operators")
        index = 0 if device is None else device.index
        given = super().input_of(model, len(batch)) if model.dynamic_batch(self.name) else None
        return operators.comparison(
            self.toolkit,
            onnx=onnx,
            compiled=file,
            batch=batch,
            device=index,
            folder=folder,
            given=given,
        )

    def eager(self) -> EagerOnDevice | None:
        if self._options.simulate_ascend or self._options.eager_on == "cpu":
            return None
        try:
            about = f"torch_npu {metadata.version('torch_npu')}"
        except metadata.PackageNotFoundError:
            return None
        return EagerOnDevice(
            Path(__file__).with_name("eager_npu.py"),
            about,
            lambda device: {**self.toolkit.env, VISIBLE: str(device.index)},
        )

    def device_fault(self, error: HarnessError, device: Device) -> DeviceFault | None:
        if isinstance(error, DeviceError):
            return DeviceFault(error.message)
        if not isinstance(error, InferError | LoadError):
            return None
        sign, certain = faults.lost_sign(error)
        if certain:
            return DeviceFault(f"the runtime says {sign!r}")
        try:
            info = self._host.info()
        except DeviceError as trouble:
            # It tells nothing of this device: the driver fails, or others hold npu-smi's lock.
            return DeviceFault(trouble.message, certain=False)
        if info is not None:
            chip = chip_at(info, device.index)
            if chip is None:
                return DeviceFault("npu-smi no longer shows it")
            if not chip.healthy:
                return DeviceFault(f"npu-smi says its health is {chip.health or 'unknown'}")
        if sign:
            return DeviceFault(f"the runtime says {sign!r}", certain=False)
        if error.hung:
            # Whether the model hangs or the device does, another device tells.
            return DeviceFault("it did not answer", certain=False)
        return None


def _busy(chip: Chip, *, resting: bool, measuring: bool) -> tuple[Answer, str]:
    """Return whether others use the chip, and what shows it.

    An old driver prints no processes: then only the cores of a chip that should rest show it.
    """
    if chip.processes is None:
        if resting and (chip.aicore_percent or 0) > 0:
            return "yes", f"AI cores at {chip.aicore_percent:g} %"
        return "unknown", ""
    ids = [(one.pid, one.container_pid) for one in chip.processes]
    others = [chip.processes[at] for at in strangers(ids, measuring=measuring)]
    if not others:
        return "no", ""
    named = ", ".join(f"{one.pid} {one.name or 'unnamed'}" for one in others[:3])
    return "yes", f"process {named}"
