"""One case on a device: leased, looked at, opened, measured, closed, looked at again, judged.

After a failure that may be the device's the case is tried once on another, and a device that
failed is set aside for the run. Which one failed how is in the record, also when the second try
succeeds.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Self

from harness.base import precision
from harness.base.errors import DeviceError, HarnessError, LoadError
from harness.judge import verdicts
from harness.judge.causes import OTHER_NETWORK
from harness.measure import accuracy, throughput
from harness.measure.input_check import Spots
from harness.records.conditions import Condition, Moment
from harness.records.values import AccuracyMeasurement, ThroughputMeasurement, Verdict
from harness.stages import checkpoint as checkpoints
from harness.stages.pipeline import EAGER_FORMATS, CaseBench, Prepared
from harness.targets.protocol import Device, DeviceFault, Session

WARMUP = 5
WATCH_S = 1.0
# Until a look has met the device at work (it may rest at that moment), the next comes sooner.
HURRY_S = 0.2
HURRIED_LOOKS = 8


def measure(case: CaseBench, prepared: Prepared) -> Verdict:
    """The case's check, judged; the record's parts are noted in `case`.

    Raises:
        HarnessError: it could not be measured; of a stage, or of the device.
    """
    with case.all_unusable() if prepared.feed is not None else contextlib.nullcontext():
        verdict = _measured(case, prepared)
    failed = verdict.kind == "FAIL" and case.case.check == "accuracy"
    if failed and not case.bench.settings.no_diagnosis:
        # Here: it opens sessions with this module, and a run without a failure needs none of it.
        from harness.diagnosis.diagnose import diagnose

        case.diagnosis = diagnose(case, prepared)
    return verdict


@dataclass(frozen=True)
class _Failed:
    """A failure that may be a device's."""

    device: Device
    fault: DeviceFault
    error: HarnessError


def _strange_network(case: CaseBench, prepared: Prepared) -> tuple[str, ...]:
    """What is wrong with an ONNX file that was given to a run on stand-ins; nothing where it
    computes what eager PyTorch makes of the stand-in's weights.

    A file is as fast as its network, and held against itself any network's outputs are right: a
    small one would pass in a large one's name. A real run has no weights to compare with, and its
    sentence says that they are not verified. Before a device is leased: the store may build.
    """
    settings = case.bench.settings
    given = case.model.id in dict(settings.onnx)
    if prepared.probe is None or not (given and settings.stand_ins):
        return ()
    images, outputs = prepared.probe
    weights = case.checkpoint()
    with (
        case.stage("eager"),
        case.bench.share_host(f"the eager outputs of {case.case.id}"),
        case.open_eager(weights, case.case.batch_size, case.log_path("eager-outputs")) as eager,
    ):
        (wanted,) = eager.stream([images])
    difference, problems = throughput.compare_outputs(outputs, wanted)
    bound = case.bench.target.fidelity_bound
    if not problems and difference <= bound:
        return ()
    why = "; ".join(problems) or f"they differ by {difference:.2g} (relative L2), allowed {bound:g}"
    return (
        f"{OTHER_NETWORK} than {case.model.id} with the stand-in's weights: outputs "
        f"for seeded inputs are not eager PyTorch's ({why})",
    )


def _measured(case: CaseBench, prepared: Prepared) -> Verdict:
    """The check on one device, or on a second one.

    A device is set aside at once only where it certainly failed itself. Where a model can cause
    the same (it hangs, it ends its stream with an error), the device is used again, unless
    another one then does what it did not: one bad model must not take every device from a run.
    """
    try:
        return _attempt(case, prepared, ())
    except HarnessError as error:
        first = _failed(case, error)
        if first is None:
            raise
        if first.fault.certain:
            _set_aside(case, first)
        if not _another(case, first.device):
            raise
        case.bench.progress.note(
            f"{case.case.name} failed on {first.device.id} ({first.fault.why}): "
            "it is tried on another device"
        )
    try:
        verdict = _attempt(case, prepared, {first.device.id})
    except HarnessError as error:
        second = _failed(case, error)
        if second is not None and second.fault.certain:
            _set_aside(case, second)
            raise _lost_twice(case, first, second) from error
        if not first.fault.certain:
            error.message += (
                f" (on {first.device.id} too: {first.fault.why})"
                if second is None
                else f" (on {first.device.id} and {second.device.id} alike: the model or the "
                "toolchain, not the device)"
            )
        raise
    if not first.fault.certain:
        _set_aside(case, first)
    return verdict


def _failed(case: CaseBench, error: HarnessError) -> _Failed | None:
    """What speaks against the device that the case had; None where nothing does."""
    device = case.device
    fault = None if device is None else case.bench.target.device_fault(error, device)
    return None if device is None or fault is None else _Failed(device, fault, error)


def _another(case: CaseBench, device: Device) -> bool:
    try:
        return bool(case.bench.pool.usable({device.id}))
    except DeviceError:
        return False


def _set_aside(case: CaseBench, failed: _Failed) -> None:
    device, why = failed.device, failed.fault.why
    case.bench.pool.quarantine(device, f"{why} ({case.case.name})")
    case.bench.progress.note(f"{device.id} is set aside: {why}")
    case.attempts.append(
        {
            "device": device.id,
            "stage": failed.error.stage,
            "error": failed.error.message,
            "why": why,
        }
    )


def _lost_twice(case: CaseBench, first: _Failed, second: _Failed) -> DeviceError:
    lost = [one.device.id for one in (first, second) if one.fault.certain]
    return DeviceError(
        f"{case.case.name} failed on {first.device.id} and {second.device.id}: "
        f"{second.error.message}",
        remedy="npu-smi info and dmesg say more of the devices; set aside for this run: "
        f"{', '.join(lost)}",
        log=second.error.log,
    )


def _attempt(case: CaseBench, prepared: Prepared, without: Collection[str]) -> Verdict:
    case.device = None  # until there is a lease, no failure is a device's
    problems = _strange_network(case, prepared)
    with opened(case, prepared, without) as session:
        if case.case.check == "accuracy":
            return judge_accuracy(case, take_accuracy(case, session, prepared))
        measured = take_throughput(case, session, prepared, problems)
        # Closed before the last look: what then uses the device is not the measurement.
        session.close()
        device = case.device
        assert device is not None
        after = _look(case, device, "after", measured.seconds, None)
        measured = dataclasses.replace(measured, conditions=(*measured.conditions, after))
        case.measurement = measured.to_json()
        return judge_throughput(case, measured)


def judge_accuracy(case: CaseBench, measured: AccuracyMeasurement) -> Verdict:
    """By the rule that provenance and number of images call for."""
    spec, bound = case.model.accuracy, case.bench.target.fidelity_bound
    note = unverified_weights(case) if measured.provenance == "real" else ""
    return verdicts.judge_accuracy(measured, spec.published, spec.rule, bound=bound, note=note)


def unverified_weights(case: CaseBench) -> str:
    """Why nobody knows whether the weights are those of the published figure; empty if they are."""
    if case.model.id in dict(case.bench.settings.onnx):
        return "weights not verified: the ONNX file was given"
    if not checkpoints.has_digest(case.model.checkpoint):
        return "weights not verified: no digest is published"
    return ""


def unverified_network(case: CaseBench) -> str:
    """The same for a speed: a checkpoint loads into its own network alone, and a given ONNX file
    may be any network with the right tensors, which nothing in a real run would show.
    """
    if case.model.id in dict(case.bench.settings.onnx):
        return "network and weights not verified: the ONNX file was given"
    return unverified_weights(case)


def judge_throughput(case: CaseBench, measured: ThroughputMeasurement) -> Verdict:
    """By the figure of the catalog that is comparable with the run; recorded without one."""
    return verdicts.judge_throughput(
        measured,
        case.model.baseline(case.case.target, case.case.batch_size),
        case=case.case.id,
        bound=case.bench.target.fidelity_bound,
        note=unverified_network(case) if measured.provenance == "real" else "",
    )


@contextlib.contextmanager
def opened(case: CaseBench, prepared: Prepared, without: Collection[str] = ()) -> Iterator[Session]:
    """The compiled model on a leased device. Everything must have been built before."""
    bench, target = case.bench, case.bench.target
    with contextlib.ExitStack() as stack:
        with case.stage("lease"):
            device, lease = stack.enter_context(
                bench.pool.for_case(case.case.check, case.case.name, without)
            )
        case.device, case.lease_fds = device, lease.fds
        stack.callback(case.returned)
        left_out = target.left_out()
        for name, why in left_out.items():
            bench.note_once(f"{name} is not used: {why}")
        case.device_info = {
            "id": device.id,
            "name": device.name,
            "card": device.group,
            "alone": lease.exclusive,
            "waited_s": round(lease.waited_s, 3),
            "toolchain": dict(target.identity()),
            **({"left_out": dict(left_out)} if left_out else {}),
        }
        if case.case.check == "throughput":
            case.before = _look(case, device, "before", 0.0, None)
        with case.stage("open"):
            session = target.open(
                prepared.compiled,
                case.model,
                case.case.batch_size,
                device,
                log=case.log_path("session"),
                lease_fds=lease.fds,
            )
            stack.callback(session.close)
            _check_tensors(case, session)
        case.device_info["driver"] = getattr(session, "driver", "")
        info = getattr(session, "info", None)
        if info:  # what ran it, in which version, and how it times
            case.device_info["runtime"] = dict(info)
        commands = target.commands(
            prepared.simplified, prepared.compiled, case.model, case.case.batch_size, device
        )
        if commands:
            case.device_info["commands"] = dict(commands)
        yield session


class Watcher:
    """Looks at a device every few seconds while it measures, from a thread of its own: between
    two rounds it rests, and a resting chip lowers its frequency.
    """

    def __init__(self, case: CaseBench, device: Device, session: Session) -> None:
        self.seen: list[Condition] = []
        self._case, self._device, self._session = case, device, session
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watcher", daemon=True)

    def _watch(self) -> None:
        begin = time.monotonic()
        pause = HURRY_S
        while not self._ended.wait(pause):
            seconds = round(time.monotonic() - begin, 3)
            self.seen.append(_look(self._case, self._device, "during", seconds, self._session))
            pause = WATCH_S if self._seen_enough else HURRY_S

    @property
    def _seen_enough(self) -> bool:
        met_at_work = any(look.throttled != "unknown" for look in self.seen)
        return met_at_work or len(self.seen) >= HURRIED_LOOKS

    def ready(self) -> bool:
        """Whether a look met the device at work, or enough of them tried: a figure of which neither
        holds may be that of a throttled device.
        """
        return self._seen_enough or not self._thread.is_alive()

    def __enter__(self) -> Self:
        if not self._case.bench.target.runs_on_host:
            self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(60.0)


def _look(
    case: CaseBench, device: Device, moment: Moment, seconds: float, session: Session | None
) -> Condition:
    """The device now; one that cannot be looked at is unknown, and that is said."""
    try:
        return case.bench.target.look(device, moment, seconds, session)
    except DeviceError as error:
        return Condition(moment, seconds, note=error.message)


def _check_tensors(case: CaseBench, session: Session) -> None:
    batch, size = case.case.batch_size, case.model.input.size
    wanted = (
        ("input", case.model.input.name, (batch, 3, size, size), session.inputs),
        ("output", case.model.output.name, (batch, case.model.classes), session.outputs),
    )
    for role, name, shape, found in wanted:
        specs = [(spec.name, tuple(spec.shape), spec.dtype) for spec in found]
        # A compiler may rename tensors (atc does): with one of each, shapes and types say which.
        renamed = [(name, shape, dtype) for _, shape, dtype in specs]
        if renamed != [(name, shape, "float32")]:
            raise LoadError(
                f"{case.case.id}: the compiled model's {role}s are {specs}, they must be "
                f"[({name!r}, {shape}, 'float32')]",
                remedy="the compiled file is another model's or another batch size's",
            )


def take_accuracy(case: CaseBench, session: Session, prepared: Prepared) -> AccuracyMeasurement:
    """One pass over every image; predictions are kept in the run directory.

    A few images are decoded afresh, and what the session is fed is held against them.
    """
    assert prepared.feed is not None
    images = case.images()
    spots = Spots(images, case.model.preprocessing)
    observed = accuracy.Observation(
        images,
        case.model.label_offset,
        reference=prepared.reference,
        fidelity_bound=case.bench.target.fidelity_bound,
    )
    with case.stage("accuracy"), case.feeding(prepared.feed, case.decoding):
        begin = time.monotonic()
        accuracy.infer(
            session,
            prepared.feed,
            observed.add,
            look=spots.look,
            progress=lambda n: case.bench.progress.update(n, len(images), "images"),
        )
        seconds = time.monotonic() - begin
    measured = observed.measurement(provenance=case.bench.provenance, seconds=seconds)
    case.image_info["contents"] = prepared.feed.crops.contents()
    measured = dataclasses.replace(measured, problems=(*measured.problems, *spots.problems()))
    path = case.bench.run_dir / "predictions" / f"{case.case.id}.csv"
    observed.write(path)
    case.measurement = {
        **measured.to_json(),
        "predictions_file": path.relative_to(case.bench.run_dir).as_posix(),
    }
    return measured


def said_of_rounds(rounds: int, half_width: float, asked: float) -> str:
    """`9 rounds, known to ±58 % (asked for: ±10 %)`: how far a timing is from its end."""
    known = precision.known_to(half_width)
    return f"{rounds} rounds, {known} (asked for: \N{PLUS-MINUS SIGN}{asked:g} %)"


def take_throughput(
    case: CaseBench, session: Session, prepared: Prepared, problems: tuple[str, ...] = ()
) -> ThroughputMeasurement:
    """Execution times with looks at the device; a rehearsal times eager PyTorch in turns.

    `problems`: what was wrong before anything was timed.
    """
    assert prepared.probe is not None
    device, target, settings = case.device, case.bench.target, case.bench.settings
    assert device is not None
    difference, wrong = throughput.check_outputs(session, *prepared.probe)

    def progress(rounds: int, width: float) -> None:
        case.bench.progress.say(said_of_rounds(rounds, width, settings.precision))

    with contextlib.ExitStack() as stack:
        rival = None
        if prepared.rival is not None:
            with case.stage("open eager"):
                rival = stack.enter_context(case.eager_rival(prepared.rival))
        with case.stage("throughput"), Watcher(case, device, session) as watcher:
            measured = throughput.measure(
                session,
                provenance=case.bench.provenance,
                precision_percent=settings.precision,
                budget_s=settings.budget,
                rival=rival,
                rival_names=EAGER_FORMATS if rival is not None else (),
                least_s=throughput.LEAST_S if case.bench.provenance == "real" else 0.0,
                wall_check="near" if getattr(session, "pid", None) else "at-most",
                round_s=getattr(session, "round_s", target.round_s),
                # A CPU needs no more, and a heavy model takes half a second for each.
                warmup=1 if rival is not None else WARMUP,
                outputs_relative_l2=difference,
                problems=(*problems, *wrong),
                progress=progress,
                ready=watcher.ready,
            )
    return dataclasses.replace(
        measured,
        conditions=(*([case.before] if case.before else []), *watcher.seen),
        setup=target.setup(device, prepared.facts, session),
        outputs_bound=target.fidelity_bound,
    )
