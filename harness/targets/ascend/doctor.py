"""What `doctor` finds for the Ascend targets: CANN, npu-smi, chips, drivers; real or simulated.

No look runs anything on a device.
"""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from harness.base import scratch
from harness.base.errors import HarnessError
from harness.base.stages import Stage
from harness.base.store import Store
from harness.settings import Settings
from harness.targets.ascend import cann_python, drivers, simulation
from harness.targets.ascend.chips import CHIPS, KINDS, PERIODS, Kind, age
from harness.targets.ascend.host import AscendHost, Place, chips_of
from harness.targets.ascend.npu_info import Chip
from harness.targets.ascend.options import AscendOptions
from harness.targets.ascend.toolkit import NOWHERE, Toolkit
from harness.targets.provider import Finding, Findings, Look

DEADLINE_S = 420.0  # set_env.sh, three queries of npu-smi and the look for ais_bench
QUERY_S = 20.0  # of one call of npu-smi, and for others who hold it

_NO_NPU_SMI, _NO_ATC, _NO_DRIVER = "no npu-smi", "no atc", "no ais_bench"
_OF = frozenset(CHIPS)
_SUBJECT = frozenset({"simulate-ascend"})  # what `doctor` calls the simulated host
_GROUP = "Ascend"
NOTHING_HERE = (
    frozenset({_NO_NPU_SMI, _NO_ATC, _NO_DRIVER}),
    Findings(_GROUP, _OF, "machine").lacks(
        "an NPU, its driver, CANN and ais_bench",
        "none of them is here",
        "for the Ascend targets: docs/ascend.md; --simulate-ascend needs none of them",
    ),
)
_SIMULATED = "simulation of an Ascend host"


def looks(settings: Settings) -> Sequence[Look]:
    """Return the look at this host, simulated where the run is, and one at what is simulated."""
    return (
        Look(_GROUP, DEADLINE_S, _OF, lambda: _host(settings)),
        Look(_SIMULATED, DEADLINE_S, _SUBJECT, lambda: _simulation(settings)),
    )


def _host(settings: Settings) -> Iterator[Finding]:
    with scratch.folder("doctor") as folder:
        locks, group = settings.leases, _GROUP
        environment: Mapping[str, str] = os.environ
        if settings.of(AscendOptions).simulate_ascend:
            group = f"{_GROUP} (SIMULATED: stand-ins of CANN's tools, no NPU)"
            settings, environment = simulation.host(settings, folder / "simulator")
            locks = folder / "leases"
        yield from _parts(settings, folder, locks, environment, group)


def _simulation(settings: Settings) -> Iterator[Finding]:
    """Say whether `--simulate-ascend` can be played as the options describe it."""
    say, what = Findings(_SIMULATED, _SUBJECT), "stand-ins of CANN's tools"
    target = settings.target if settings.target in CHIPS else None
    try:
        chip = simulation.check(settings.of(AscendOptions), target)
        yield say.ok(what, f"plays {chip}; proves nothing of a device")
    except HarnessError as error:
        yield say.lacks(what, error.message, error.remedy)


# The parts of a host ---------------------------------------------------------------------------


def _parts(
    settings: Settings, folder: Path, locks: Path, environment: Mapping[str, str], group: str
) -> Iterator[Finding]:
    say = Findings(group, _OF)
    options = settings.of(AscendOptions)
    place = Place(folder, folder, locks)
    host = AscendHost(options, place, environment, query_s=QUERY_S, wait_s=QUERY_S)
    try:
        tools = host.toolkit
    except HarnessError as error:
        yield say.lacks("CANN's tools", error.message, error.remedy)
        return
    cann = tools.versions.get("cann") or tools.versions.get("nnrt")
    what, source = "CANN and its environment", f"environment: {tools.environment_source}"
    if cann:
        yield say.ok(what, f"{cann}; {source}")
    else:
        remedy = "install CANN's toolkit; source its set_env.sh, or --ascend-home=DIR"
        yield say.note(what, f"version not known; {source}", remedy)
    what = "atc: CANN's compiler"
    remedy = "install CANN's toolkit and source its set_env.sh, or --atc=FILE"
    yield say.check(bool(tools.atc), what, str(tools.atc or NOWHERE), remedy, short=_NO_ATC)
    if tools.atc and simulation.needs_python(options):
        yield _python(tools, folder, say)
    yield from _kept(settings, tools, say)
    yield from _devices(settings, host, Findings(group, _OF, "machine"))
    yield _drivers(options.driver, tools, folder, say)


def _python(tools: Toolkit, folder: Path, say: Findings) -> Finding:
    """Say which Python atc will use, what it has, and what this CANN does not take of it."""
    what, found = "the Python that atc uses", cann_python.probe(tools, folder)
    another = "--cann-python=PYTHON names another"
    if isinstance(found, str):
        return say.lacks(what, found, f"a Python 3 outside the harness's environment; {another}")
    install = f"{tools.compiler_python} -m pip install"
    has = [f"{name} {found.modules[name]}" for name in cann_python.MODULES if name in found.modules]
    text = f"{tools.compiler_python}, {', '.join([f'Python {found.version}', *has])}"
    outside = found.outside(tools.versions.get("cann", ""))
    if found.missing:
        names = ", ".join(found.missing)
        remedy = f"{install} {' '.join(found.missing)}; or {another}"
        return say.lacks(what, f"{text}; without {names}", remedy, short=f"atc's Python: {names}")
    if outside:
        return say.note(what, f"{text}; outside: {outside}", f"{install} what it takes; {another}")
    return say.ok(what, text)


def _kept(settings: Settings, tools: Toolkit, say: Findings) -> Iterator[Finding]:
    """Say where CANN does not promise to run what another compiled: atc's, or what is kept."""
    cann = tools.versions.get("cann", "")
    runtime = tools.versions.get("runtime", "") or tools.versions.get("nnrt", "") or cann
    rule = f"an .om runs on the CANN that compiled it and {PERIODS} version periods later"
    behind = age(cann, runtime) or 0
    if not 0 <= behind <= PERIODS:
        remedy = "source the set_env.sh of one CANN, or --ascend-home=DIR"
        found = f"atc is of CANN {cann}, what runs its models of {runtime}; {rule}"
        yield say.note("atc and runtime", found, remedy)
    kept = Counter(
        str(entry.inputs["cann"])
        for entry in Store(settings.store).entries()
        if entry.kind == Stage.COMPILE
        and entry.inputs.get("simulated") == settings.of(AscendOptions).simulate_ascend
        and entry.inputs.get("cann")
    )
    old = sorted(cann for cann in kept if (age(cann, runtime) or 0) > PERIODS)
    if old:
        count = sum(kept[cann] for cann in old)
        found = f"{count} of CANN {', '.join(old)}; {rule}, and this is {runtime}"
        remedy = "they are compiled anew where needed; python -m harness cache gc makes room"
        yield say.note("compiled models in the store", found, remedy)


def _devices(settings: Settings, host: AscendHost, say: Findings) -> Iterator[Finding]:
    what = "npu-smi: the driver's tool"
    if host.npu_smi is None:
        remedy = (
            "install the driver's tools; in a container map npu-smi and /dev/davinciN, or name the "
            "device: --device=N (health and idleness are then unknown)"
        )
        if settings.device is None:
            yield say.lacks(what, NOWHERE, remedy, short=_NO_NPU_SMI)
        else:
            yield say.note(what, NOWHERE, remedy)
        return
    try:
        info = host.npu_smi.info()
        firmware = host.firmware(info.chips[0].npu_id)
    except HarnessError as error:
        yield say.lacks(what, error.message, error.remedy)
        return
    yield say.ok(what, str(host.npu_smi.program))
    if not settings.of(AscendOptions).simulate_ascend:
        yield say.locks(settings.leases)
    versions = host.toolkit.versions
    driver = info.driver_version or versions.get("driver", "")
    firmware = firmware or versions.get("firmware", "not told")
    text = f"driver {driver or 'not told'}, firmware {firmware}"
    yield (say.ok if driver else say.note)("driver and firmware", text)
    yield from (_chip(say, chip, host.name(chip.soc_version, chip)) for chip in info.chips)
    here = {name: found for name, soc in CHIPS.items() if (found := chips_of(info, soc))}
    cann = host.toolkit.versions.get("cann", "")
    for name, chips in here.items():
        yield from _devices_of(KINDS[name], chips, settings.device, cann, say)
    others = dataclasses.replace(say, of=_OF - {*here})
    shown = ", ".join(sorted({chip.soc_version for chip in info.chips}))
    remedy = "a host with such a chip, or --target for what is there"
    yield others.lacks("other chips", f"none here: npu-smi shows {shown}", remedy)


def _devices_of(
    kind: Kind, chips: list[Chip], wanted: tuple[int, ...] | None, cann: str, say: Findings
) -> Iterator[Finding]:
    what = f"devices of {kind.target}"
    say = dataclasses.replace(say, of=frozenset({kind.target}))
    if not_listed := kind.not_listed(cann):
        remedy = "if atc refuses the chip, use a CANN that lists it"
        yield say.note(f"CANN for {kind.target}", f"{not_listed}; this is {cann}", remedy)
    chosen = [chip for chip in chips if wanted is None or chip.logical_id in wanted]
    healthy = [chip for chip in chosen if chip.healthy]
    found = f"{len(healthy)} of {len(chosen)} healthy"
    counts = Counter(chip.npu_id for chip in chips)
    few = [f"npu-{npu}: {count}" for npu, count in counts.items() if count < kind.chips]
    if healthy and few:
        found += f"; fewer chips than the {kind.chips} of an {kind.card}: {', '.join(few)}"
        remedy = "in a container map them all; else dmesg: a card's figure is of all its chips"
        yield say.note(what, found, remedy)
        return
    if healthy:
        yield say.ok(what, found)
        return
    remedy = "npu-smi info -t health -i NPU -c CHIP says what it has; a reset may help"
    if not chosen:
        ids = ", ".join(str(chip.logical_id) for chip in chips)
        found, remedy = "--device names none of them", f"the logical ids here: {ids}"
    yield say.lacks(what, found, remedy)


def _chip(say: Findings, chip: Chip, name: str) -> Finding:
    what = f"NPU {chip.npu_id} chip {chip.chip_id}, --device={chip.logical_id}"
    parts = [name, f"health {chip.health or 'unknown'}"]
    parts.append({"yes": "idle", "no": "in use", "unknown": "idleness unknown"}[chip.idle])
    if chip.temperature_c is not None:
        parts.append(f"{chip.temperature_c:g} °C")
    if chip.power_w is not None:
        parts.append(f"{chip.power_w:g} W")
    users = [f"{one.pid} {one.name}".strip() for one in chip.processes or ()]
    if users:
        parts.append(f"processes: {', '.join(users[:3])}")
    found = ", ".join(parts)
    if not chip.healthy:
        remedy = f"npu-smi info -t health -i {chip.npu_id} -c {chip.chip_id}; dmesg; a reset"
        return say.lacks(what, found, remedy, needed_by=frozenset())
    if chip.idle == "no":
        remedy = "end what uses it: throughput on a busy device is INCONCLUSIVE"
        return say.note(what, found, remedy)
    return say.ok(what, found)


def _drivers(wanted: str | None, tools: Toolkit, folder: Path, say: Findings) -> Finding:
    reasons = drivers.available_drivers(tools, log=folder / "drivers.log")
    usable = [name for name, why in reasons.items() if not why and wanted in (None, name)]
    what = "a driver that runs models" + (f": {wanted}" if wanted else "")
    told = {name: why or f"can be used, by {tools.python}" for name, why in reasons.items()}
    found = "; ".join(f"{name}: {text}" for name, text in told.items())
    if not usable:
        short = "" if wanted else _NO_DRIVER
        return say.lacks(what, found, drivers.INSTALL, short=short)
    return say.note(what, found) if any(reasons.values()) else say.ok(what, found)
