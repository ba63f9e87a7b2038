"""What every stage works with: the run's settings, store and target, and the case it serves."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np

from harness.base import jobs
from harness.base.errors import ConfigError, HarnessError
from harness.base.host import cores
from harness.base.processes import last_text
from harness.base.progress import Progress
from harness.base.stages import Stage
from harness.base.store import Store, canonical
from harness.catalog.schema import Catalog, Model
from harness.images import preprocess
from harness.plan import Case, require_trust
from harness.settings import Settings
from harness.stages.onnx_file import Tensors
from harness.stages.shared import ANSWER_S, SharedStore, read_pins
from harness.targets import host, leases
from harness.targets.pool import TIMEOUT_S, DevicePool
from harness.targets.protocol import Images, TensorSpec
from harness.targets.registry import make_target

T = TypeVar("T")
LOG_CHARACTERS = 20_000  # the end alone: a compiler may write gigabytes


class Build(Protocol):
    """How the artifact of one stage is made."""

    stage: ClassVar[Stage]

    def inputs(self) -> Mapping[str, Any]:
        """Everything that can change the artifact's bytes: its key in the store."""
        ...

    def build(self, staging: Path) -> str:
        """Write the artifact's files into `staging`; returns the log."""
        ...


class Bench:
    """Settings, catalog, store, target and run directory of one process of a run."""

    def __init__(
        self, settings: Settings, catalog: Catalog, run_dir: Path, progress: Progress | None = None
    ) -> None:
        if settings.target is None:
            raise ConfigError("no target is configured", remedy="--target=NAME or --rehearsal")
        self.settings = settings
        self.catalog = catalog
        self.run_dir = run_dir
        self.progress = progress or Progress.silent()
        self.provenance = settings.provenance
        self.store = Store(
            settings.store,
            failures=run_dir / "failures",
            on_wait=self.waiting,
            on_damage=lambda what: self.progress.note(f"damaged artifact: {what}"),
        )
        # A rehearsal takes one thread for each thing, and does several things at a time (pytest's
        # -n): threads that wait for each other take longer for the same.
        self.threads = 1 if settings.stand_ins else cores()
        target = make_target(settings.target, settings, run_dir)
        self.target = target.on_one_thread() if settings.stand_ins else target
        if settings.shared_store is not None and target.traits.portable:
            pins, off = read_pins(settings.shared_store_pins), run_dir / "failures"
            limit = ANSWER_S * settings.deadline_factor
            note = self.progress.note
            self.store.second = SharedStore(settings.shared_store, pins, off, note, limit)
        leases_dir = settings.leases_of(run_dir)
        self.pool = DevicePool(
            self.target, leases_dir, run_dir, self.waiting, shares_host=settings.rehearsal
        )
        self.known: dict[str, Any] = {}  # what the cases of this process share, or its error
        self.opened: set[Path] = set()  # compiled models that a session of this process opened

    def waiting(self, who: str) -> None:
        """Show who is waited for."""
        self.progress.say(f"waiting: {who}")

    def once(self, key: str, make: Callable[[], T]) -> T:
        """Return what `make` gave this process the first time, or raise its error again: six batch
        sizes do not look through 50,000 files six times.
        """
        if key not in self.known:
            try:
                self.known[key] = make()
            except HarnessError as error:
                self.known[key] = error
        known: T | HarnessError = self.known[key]
        if isinstance(known, HarnessError):
            raise known
        return known

    def share_host(
        self, what: str, timeout_s: float = TIMEOUT_S, *, alone: bool = False
    ) -> contextlib.AbstractContextManager[leases.Lease]:
        """Hold a share of the host's CPU: where it is what is measured, builds are users of it.

        `alone`: hold all of it, so that nothing else of ours runs beside.
        """
        return leases.lease(
            host.device(),
            self.settings.leases,
            exclusive=alone,
            timeout_s=timeout_s,
            what=what,
            on_wait=self.waiting,
        )


@dataclass
class CaseContext:
    """One case: its model, its logs, its jobs."""

    bench: Bench
    case: Case
    model: Model
    alone: bool = field(
        default=False, kw_only=True
    )  # it takes the whole host where it takes a share

    @property
    def given_onnx(self) -> Path | None:
        """The ONNX file that `--onnx` puts in the place of the export."""
        return dict(self.bench.settings.onnx).get(self.model.id)

    @property
    def dynamic_batch(self) -> tuple[int, ...]:
        """The batch sizes that one compiled file serves; none where the case has its own."""
        return self.model.dynamic_batch(self.case.target)

    @property
    def file_batch(self) -> int | None:
        """The batch size of the simplified and the compiled file; None where they serve several."""
        return None if self.dynamic_batch else self.case.batch_size

    @property
    def bound(self) -> float:
        """Return the relative L2 that the logits may differ: the model's own, or the target's."""
        own = self.model.fidelity
        return self.bench.target.traits.fidelity_bound if own is None else own.bound

    @property
    def tensors(self) -> Tensors:
        """Names and sizes of the model's input and output."""
        return {
            "input_name": self.model.input.name,
            "output_name": self.model.output.name,
            "size": self.model.input.size,
            "classes": self.model.classes,
        }

    @property
    def network(self) -> dict[str, Any]:
        """Return source and arguments of the network, and the layout of its checkpoint.
        Raises `ConfigError`: it is code that nobody allowed to run.
        """
        require_trust(self.model.id, self.model.network.source, self.bench.settings)
        return {
            "network": self.model.network.source,
            "arguments": dict(self.model.network.arguments),
            "layout": self.model.checkpoint.layout,
        }

    def images_for(self, spec: TensorSpec, crops: preprocess.UInt8) -> Images:
        """Return crops `uint8[N, S, S, 3]` in the form of an input: normalised, or as they lie."""
        images: Images = np.empty((len(crops), *spec.shape[1:]), spec.dtype)
        table = preprocess.normalization_table(self.model.preprocessing.normalize)
        preprocess.write_into(crops, table, images)
        return images

    @property
    def trusted(self) -> bool:
        """Return whether the checkpoint may run code while it is read."""
        return self.model.id in self.bench.settings.trust_checkpoint

    def about(self, stage: Stage) -> str:
        """Say what the artifact of a stage is, for people who look at the store."""
        words = [self.model.id]
        if stage in (Stage.SIMPLIFY, Stage.COMPILE, Stage.PROBE):
            several = () if stage is Stage.PROBE else self.dynamic_batch
            words.append(f"batch size {', '.join(map(str, several or (self.case.batch_size,)))}")
        if stage is Stage.COMPILE:
            toolchain = self.bench.target.identity()
            words.append(str(toolchain.get("chip", self.case.target)))
            words += [f"CANN {toolchain['cann']}"] if "cann" in toolchain else []
        if self.given_onnx is not None:
            words.append("given ONNX file")
        if self.bench.provenance != "real":
            words.append(self.bench.provenance)
        return ", ".join(words)

    def log_path(self, stage: Stage, part: str = "") -> Path:
        """Return the file that keeps what a stage prints; `part` where a stage has several."""
        name = f"{self.case.check}-{self.case.id}-{stage}{f'-{part}' if part else ''}.log"
        path = self.bench.run_dir / "logs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def deadline(self, seconds: float) -> float:
        """Return a deadline, longer on a machine that was called slow."""
        return seconds * self.bench.settings.deadline_factor

    def share_host(self, what: str) -> contextlib.AbstractContextManager[leases.Lease]:
        """Hold a share of the host's CPU for a part of the case, or all of it: see `alone`."""
        return self.bench.share_host(f"{what} of {self.case.id}", alone=self.alone)

    def job(
        self,
        stage: Stage,
        function: str,
        arguments: Mapping[str, Any],
        error: type[HarnessError],
        deadline_s: float,
    ) -> str:
        """Run a job (`harness.base.jobs`) on a share of the host; returns its log and answer.
        Raises `HarnessError`: the function's own, or `error`.
        """
        log = self.log_path(stage)
        with self.share_host(stage.doing) as lease:
            answer = jobs.call(
                function,
                arguments,
                deadline_s=self.deadline(deadline_s),
                log=log,
                error=error,
                what=f"{stage} of {self.case.id}",
                pass_fds=lease.fds,
            )
        return f"{last_text(log, LOG_CHARACTERS)}\n{canonical(answer)}".strip()
