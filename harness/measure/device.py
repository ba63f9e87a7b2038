"""The device of a case: leased, and the compiled model opened on it."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Collection, Iterator
from dataclasses import replace

from harness.base.errors import LoadError
from harness.base.stages import Stage
from harness.records.observed import DeviceInfo
from harness.stages.pipeline import CasePipeline, Prepared
from harness.targets.pool import TIMEOUT_S
from harness.targets.protocol import Device, Session, TensorSpec


@contextlib.contextmanager
def leased(
    case: CasePipeline, without: Collection[str] = (), *, timeout_s: float = TIMEOUT_S
) -> Iterator[Device]:
    """Lease a device for the case's check. Everything must have been built before. Raises
    `DeviceError`: none is usable, or none became free within `timeout_s` seconds.
    """
    bench = case.bench
    with contextlib.ExitStack() as stack:
        with case.stage(Stage.DEVICE):
            check, name = case.case.check, case.case.name
            device, lease = stack.enter_context(
                bench.pool.for_case(check, name, without, timeout_s=timeout_s, alone=case.alone)
            )
            if case.alone and not bench.target.traits.runs_on_host:
                stack.enter_context(case.share_host(check))
        case.device, case.lease_fds = device, lease.fds
        # No longer held afterwards; which device it was stays known.
        stack.callback(setattr, case, "lease_fds", ())
        unused = bench.target.left_out()
        for name, why in unused.items():
            text = f"{name} is not used: {why}"
            bench.once(text, functools.partial(bench.progress.note, text))
        case.observed.device = DeviceInfo(
            id=device.id,
            name=device.name,
            card=device.group,
            alone=lease.exclusive,
            waited_s=round(lease.waited_s, 3),
            toolchain=dict(bench.target.identity()),
            left_out=dict(unused),
        )
        yield device


@contextlib.contextmanager
def loaded(case: CasePipeline, prepared: Prepared, device: Device) -> Iterator[Session]:
    """Open the compiled model on the leased device. Raises `LoadError`: the runtime does not take
    the file, or it is another model's.
    """
    target, model, batch_size = case.bench.target, case.model, case.case.batch_size
    with contextlib.ExitStack() as stack:
        with case.stage(Stage.LOAD):
            session = target.open(
                prepared.compiled,
                model,
                batch_size,
                device,
                log=case.log_path(Stage.LOAD),
                lease_fds=case.lease_fds,
            )
            stack.callback(session.close)
            _check_tensors(case, session)
        case.bench.opened.add(prepared.compiled)
        assert case.observed.device is not None
        runtime, taken = dict(session.about.runtime), session.inputs[0].dtype
        if taken != "float32":  # crops, which the compiled model normalises
            runtime["input"] = taken
        if (sizes := prepared.facts.get("dynamic_batch", "none")) != "none":
            runtime["dynamic_batch"] = sizes
        case.observed.device = replace(
            case.observed.device,
            driver=session.about.driver,
            runtime=runtime,
            commands=dict(
                target.commands(prepared.simplified, prepared.compiled, model, batch_size, device)
            ),
        )
        yield session


@contextlib.contextmanager
def opened(
    case: CasePipeline,
    prepared: Prepared,
    without: Collection[str] = (),
    *,
    timeout_s: float = TIMEOUT_S,
) -> Iterator[Session]:
    """Lease a device and open the compiled model on it: see `leased` and `loaded`."""
    with (
        leased(case, without, timeout_s=timeout_s) as device,
        loaded(case, prepared, device) as session,
    ):
        yield session


def _check_tensors(case: CasePipeline, session: Session) -> None:
    model, batch = case.model, case.case.batch_size
    output = TensorSpec(model.output.name, (batch, model.classes), "float32")
    expected = (
        ("input", case.bench.target.input_of(model, batch), session.inputs),
        ("output", output, session.outputs),
    )
    for role, wanted, tensors in expected:
        specs = [(spec.name, tuple(spec.shape), spec.dtype) for spec in tensors]
        # A compiler may rename tensors (atc does): with one of each, shapes and types say which.
        renamed = [(wanted.name, shape, dtype) for _, shape, dtype in specs]
        if renamed != [(wanted.name, wanted.shape, wanted.dtype)]:
            raise LoadError(
                f"{case.case.id}: the compiled model's {role}s are {specs}, they must be "
                f"[({wanted.name!r}, {wanted.shape}, {wanted.dtype!r})]",
                remedy="the compiled file is another model's or another batch size's",
            )
