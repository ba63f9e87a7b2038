"""The workbench: every stage of a case, built through the store, from Python without pytest.

A `Workbench` belongs to one process of a run; `CaseBench` is the view of one case, and notes
which artifacts the case stood on and how long each stage took. The order is fixed: everything is
built, then a device is leased, then a session is opened. No lock of the store is waited for while
a lease is held, but those of chunks of images, which are decoded as they are fed: see
`harness.images.crops`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from harness import accuracy, checkpoints, jobs, networks, throughput, verdicts
from harness.accuracy import AccuracyMeasurement, Predictions
from harness.arrays import NpyWriter
from harness.artifacts.export import OPSET
from harness.artifacts.store import Entry, Store, canonical, file_digest, source_digest
from harness.cases import Case
from harness.catalog import Catalog, Model
from harness.checkpoints import Digests
from harness.errors import (
    CheckpointError,
    ConfigError,
    EagerError,
    ExportError,
    HarnessError,
    LoadError,
    RehearsalError,
    SimplifyError,
)
from harness.fetch import shown
from harness.host import required_version
from harness.images import dataset, generated
from harness.images.crops import Crops, UsingHost
from harness.images.dataset import ImageSet
from harness.images.feed import Feed
from harness.progress import Progress
from harness.records import ArtifactRef, StageTime
from harness.settings import Settings
from harness.targets import leases, sessions
from harness.targets.onnxruntime import CpuTarget, cores, processor
from harness.targets.protocol import Device, Float32, Session
from harness.targets.registry import make_target
from harness.throughput import ThroughputMeasurement
from harness.verdicts import Verdict

LEASE_TIMEOUT_S = 3 * 3600.0
EAGER_BATCH = 8
WARMUP = 5
EAGER_FORMATS = ("contiguous", "channels-last")
_EAGER_BACKEND = Path(__file__).parent / "targets" / "eager_backend.py"
_PROBE_SEED = 22
REHEARSAL_SEED = 2026


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint file in its original layout, with its sha256."""

    path: Path
    sha256: str
    source: str  # "stand-in" or the file's name

    def require_unchanged(self) -> None:
        """After a build that read the file: what was built belongs to the digest in its key.

        Raises:
            CheckpointError: the file was replaced meanwhile.
        """
        if file_digest(self.path) != self.sha256:
            raise CheckpointError(f"{self.path} changed while it was used", remedy="run again")


@dataclass(frozen=True)
class Prepared:
    """What a check needs: built, verified, and on disk."""

    compiled: Path
    feed: Feed | None = None
    reference: Predictions | None = None
    probe: tuple[Float32, Float32] | None = None
    rival: Checkpoint | None = None


class Workbench:
    """Settings, catalog, store, target and run directory of one process."""

    def __init__(
        self, settings: Settings, catalog: Catalog, run_dir: Path, progress: Progress | None = None
    ) -> None:
        if settings.target is None:
            raise ConfigError("no target is configured", remedy="--target=NAME or --rehearsal")
        self.settings = settings
        self.catalog = catalog
        self.run_dir = run_dir
        self.progress = progress or Progress.silent()
        self.store = Store(
            settings.store,
            failures=run_dir / "failures",
            on_wait=lambda who: self.progress.say(f"waiting: {who}"),
            on_damage=lambda what: self.progress.note(f"damaged artifact: {what}"),
        )
        self.target = make_target(settings.target, settings)
        self.provenance = settings.provenance
        self._checkpoints: dict[str, tuple[Path, Digests]] = {}
        self._refused: dict[str, CheckpointError] = {}
        self._image_set: tuple[ImageSet, dict[str, Any]] | None = None

    def for_case(self, case: Case) -> CaseBench:
        """The view of one case."""
        return CaseBench(self, case, self.catalog.models[case.model])

    def host(self) -> Device:
        """The host's CPU: builds, decoding and eager passes count as users of it."""
        return CpuTarget().devices()[0]

    @contextlib.contextmanager
    def lease(self, device: Device, *, exclusive: bool, what: str) -> Iterator[leases.Lease]:
        """A lease of `device`; an exclusive one takes every device of its card."""
        group = [
            other
            for other in ([device] if device.target == "cpu" else self.target.devices())
            if other.group == device.group
        ]
        with leases.lease(
            device,
            self.settings.leases,
            exclusive=exclusive,
            timeout_s=LEASE_TIMEOUT_S,
            what=what,
            on_wait=lambda who: self.progress.say(f"waiting: {who}"),
            group=group if exclusive else (),
        ) as held:
            yield held

    def found_checkpoint(self, model: str) -> tuple[Path, Digests] | None:
        """The checkpoint that this process has found before."""
        return self._checkpoints.get(model)

    def obtain_checkpoint(self, model: Model) -> tuple[Path, Digests]:
        """The original weights: found or fetched, verified, once for each process.

        Raises:
            CheckpointError: absent, refused, or not the file that the catalog means.
        """

        def progress(done: int, total: int | None) -> None:
            if total:
                self.progress.update(done // 10**6, max(1, total // 10**6), "MB")
            else:
                self.progress.say(f"{done // 10**6} MB")

        settings = self.settings
        try:
            remembered = self._refused.get(model.id)
            if remembered is not None:
                raise remembered
            found = checkpoints.obtain_checkpoint(
                model.checkpoint,
                [settings.checkpoints] if settings.checkpoints else [],
                cache=settings.checkpoint_cache or settings.store / "checkpoints",
                offline=settings.offline,
                progress=progress,
                on_wait=self.progress.say,
            )
        except CheckpointError as error:
            # Six batch sizes do not fetch a refused file six times.
            self._refused[model.id] = error
            raise
        self._checkpoints[model.id] = found
        return found

    def images(self) -> tuple[ImageSet, dict[str, Any]]:
        """The run's labelled images, and what a record says of them."""
        if self._image_set is None:
            if self.settings.rehearsal:
                root = self._generated_images()
                found = dataset.find_image_set(root)
                source = "generated"
            else:
                if self.settings.imagenet is None:
                    raise ConfigError(
                        "no data set is configured", remedy="--imagenet=DIR or $IMAGENET_DIR"
                    )
                found = dataset.find_image_set(self.settings.imagenet, self.settings.labels)
                dataset.check(found)  # the whole set, before a part is chosen
                found = self.settings.selection.apply(found)
                dataset.check_files(found)
                source = str(self.settings.imagenet)
            about = {
                "source": source,
                "count": len(found),
                "digest": found.digest,
                "layout": found.layout,
                "labels": found.label_source,
                "selection": "" if self.settings.rehearsal else self.settings.selection.describe(),
            }
            self._image_set = (found, about)
        return self._image_set

    def _generated_images(self) -> Path:
        inputs = {
            "count": self.settings.rehearsal_images,
            "seed": REHEARSAL_SEED,
            "pillow": required_version("pillow"),
            "numpy": required_version("numpy"),
            "recipe": source_digest("harness.images.generated"),
        }

        def build(staging: Path) -> str:
            with self.lease(self.host(), exclusive=False, what="generating images"):
                generated.write_set(
                    staging, self.settings.rehearsal_images, REHEARSAL_SEED, workers=cores()
                )
            return f"{self.settings.rehearsal_images} images"

        with self.progress.stage("rehearsal images", "generating"):
            return self.store.get_or_build("images", inputs, build).directory


@dataclass
class CaseBench:
    """Stages of one case; `artifacts` and `stages` fill as they are used."""

    bench: Workbench
    case: Case
    model: Model
    artifacts: list[ArtifactRef] = field(default_factory=list)
    stages: list[StageTime] = field(default_factory=list)
    checkpoint_info: dict[str, Any] = field(default_factory=dict)
    image_info: dict[str, Any] = field(default_factory=dict)
    device_info: dict[str, Any] = field(default_factory=dict)
    measurement: dict[str, Any] = field(default_factory=dict)
    verdict: Verdict | None = None
    _lease_fds: tuple[int, ...] = ()
    _leased: Device | None = None
    _crops: Crops | None = None

    # Artifacts ---------------------------------------------------------------------------

    def checkpoint(self) -> Checkpoint:
        """The weights: the original file, verified, or a stand-in in its layout."""
        spec, settings = self.model.checkpoint, self.bench.settings
        if settings.rehearsal:
            entry = self._build("standin", self._standin_inputs(), self._make_standin)
            made = Checkpoint(entry.file(), entry.digest, "stand-in")
            self.checkpoint_info = {
                "source": "stand-in (seeded weights, fitted to generated images)",
                "file": entry.file().name,
                "sha256": entry.digest,
                "layout": spec.layout,
            }
            return made
        found = self.bench.found_checkpoint(self.model.id)
        if found is None:
            with self._stage("checkpoint"):
                found = self.bench.obtain_checkpoint(self.model)
        path, digests = found
        self.checkpoint_info = {
            "source": shown(spec.url) if spec.url else "",
            "file": path.name,
            "sha256": digests.sha256,
            "md5": digests.md5,
            "verified": "digest as published"
            if checkpoints.has_digest(spec)
            else "no digest is published: these weights could not be verified",
            "layout": spec.layout,
        }
        return Checkpoint(path, digests.sha256, path.name)

    def onnx(self) -> Path:
        """The ONNX file: exported from the checkpoint, or the one that was given."""
        given = dict(self.bench.settings.onnx).get(self.model.id)
        if given is not None:
            return self._given_onnx(given).file("model.onnx")
        weights = self.checkpoint()
        inputs = {**self._network_inputs(weights), **self._export_inputs()}

        def build(staging: Path) -> str:
            log = self._job(
                "export",
                "harness.artifacts.export:export_onnx",
                {
                    "network": self.model.network.source,
                    "arguments": dict(self.model.network.arguments),
                    "checkpoint": str(weights.path),
                    "layout": self.model.checkpoint.layout,
                    "trust": self._trusted,
                    **self._tensors,
                    "output": str(staging / "model.onnx"),
                },
                ExportError,
                600.0,
            )
            weights.require_unchanged()
            return log

        return self._build("onnx", inputs, build).file("model.onnx")

    def simplified(self) -> Path:
        """The ONNX file simplified at the case's batch size."""
        source = self.onnx()
        inputs = {
            "onnx": self._digest("onnx"),
            "batch_size": self.case.batch_size,
            "onnxsim": required_version("onnxsim"),
            "onnxruntime": required_version("onnxruntime"),  # onnxsim folds constants with it
            "onnx_version": required_version("onnx"),
            **self._tensors,
            "recipe": source_digest("harness.artifacts.export"),
        }

        def build(staging: Path) -> str:
            return self._job(
                "simplify",
                "harness.artifacts.export:simplify_onnx",
                {
                    "source": str(source),
                    **self._tensors,
                    "batch_size": self.case.batch_size,
                    "output": str(staging / "model.onnx"),
                },
                SimplifyError,
                600.0,
            )

        return self._build("simplified", inputs, build).file("model.onnx")

    def compiled(self) -> Path:
        """The compiled model of the case."""
        source = self.simplified()
        inputs = self._compile_inputs()

        def build(staging: Path) -> str:
            log = self._log("compile")
            self.bench.target.compile(source, self.case.batch_size, staging, log=log)
            return _read(log)

        return self._build("compiled", inputs, build).file()

    def images(self) -> ImageSet:
        """The run's images; cases of other models use the same."""
        with self._stage("images"):
            found, about = self.bench.images()
        self.image_info = dict(about)
        return found

    def crops(self) -> Crops:
        """The model's crops of the run's images, which are decoded when they are fed."""
        if self._crops is None:
            self._crops = Crops(self.bench.store, self.images(), self.model.preprocessing)
        return self._crops

    def feed(self) -> Feed:
        """Normalised batches of the case's size."""
        return Feed(self.crops(), self.model.preprocessing.normalize, self.case.batch_size)

    def eager(self) -> Predictions:
        """Logits of eager PyTorch on the run's images.

        Raises:
            RehearsalError: stand-in weights or images that could not tell good from bad.
        """
        weights = self.checkpoint()
        images = self.images()
        crops = self.crops()
        inputs = {
            **self._network_inputs(weights),
            "crops": list(crops.keys()),
            "names": _text_digest("\n".join(crops.names)),
            "normalize": self.model.preprocessing.normalize.model_dump(),
            "batch_size": EAGER_BATCH,
            "processor": processor()[1],
            "threads": cores(),
            "recipe": source_digest(
                "harness.targets.eager_backend",
                "harness.targets.worker",
                "harness.checkpoints",
                "harness.networks",
                "harness.images.feed",
                "harness.images.preprocess",
                "harness.accuracy",
            ),
        }

        def build(staging: Path) -> str:
            feed = Feed(crops, self.model.preprocessing.normalize, EAGER_BATCH)
            log = self._log("eager")
            shape = (len(crops), self.model.classes)
            names: list[str] = []
            with (
                self._sharing_host("the eager pass"),
                self._open_eager(weights, EAGER_BATCH, log) as session,
                NpyWriter(staging / "logits.npy", shape, np.float32) as out,
            ):

                def take(found: tuple[str, ...], logits: Float32) -> None:
                    out.put(len(names), logits)
                    names.extend(found)

                # Decoding is covered by the lease that is held: see `Crops.filling`.
                with self._feeding(feed, contextlib.nullcontext):
                    accuracy.infer(
                        session, feed, take, progress=lambda n: self._update(n, len(images))
                    )
            weights.require_unchanged()
            (staging / "names.json").write_text(json.dumps(names), encoding="utf-8")
            return f"{len(names)} images"

        entry = self._build("eager", inputs, build)
        names = json.loads(entry.file("names.json").read_text(encoding="utf-8"))
        found = Predictions.stored(tuple(names), entry.file("logits.npy"))
        if self.bench.settings.rehearsal:
            self._check_rehearsal(found, images)
        return found

    @contextlib.contextmanager
    def _feeding(self, feed: Feed, using_host: UsingHost) -> Iterator[None]:
        """Within the block the feed runs; what it decoded or found in the store is noted."""
        waited = feed.crops.waited_s
        try:
            with feed.running(using_host, lambda n: self.bench.progress.say(f"{n} images decoded")):
                yield
        finally:
            entries = feed.crops.entries
            for entry in entries:
                self._note(entry)
            cached = all(entry.cached for entry in entries)
            self._add_time("wait for images", feed.crops.waited_s - waited, cached)

    def probe(self) -> tuple[Float32, Float32]:
        """Seeded input `float32[B, 3, S, S]` and what the simplified ONNX file makes of it."""
        source = self.simplified()
        size, batch_size = self.model.input.size, self.case.batch_size
        images = np.random.default_rng(_PROBE_SEED).standard_normal(
            (batch_size, 3, size, size), np.float32
        )
        inputs = {
            "simplified": self._digest("simplified"),
            "seed": _PROBE_SEED,
            "processor": processor()[1],
            "threads": cores(),
            "recipe": source_digest("harness.targets.worker"),
            "numpy": required_version("numpy"),
            "onnxruntime": required_version("onnxruntime"),
        }

        def build(staging: Path) -> str:
            log = self._log("probe")
            with self._sharing_host("the output check"):
                # The graph as it is, not as the target's compiler changed it.
                session = sessions.open_session(
                    source,
                    backend="onnxruntime",
                    options={"threads": cores()},
                    log=log,
                    deadline_open_s=self._deadline(120.0),
                    deadline_run_s=self._deadline(300.0),
                )
                with contextlib.closing(session):
                    (outputs,) = session.stream([images])
            np.save(staging / "outputs.npy", outputs, allow_pickle=False)
            return ""

        entry = self._build("probe", inputs, build)
        return images, np.load(entry.file("outputs.npy"), allow_pickle=False)

    def prepare(self) -> Prepared:
        """Build everything that the case's check needs, before a device is leased."""
        rehearsal = self.bench.settings.rehearsal
        if self.case.check == "accuracy":
            feed = self.feed()
            # A real run is held to the published figure; an eager pass over a whole data set
            # would take a CPU hours.
            reference = self.eager() if rehearsal else None
            return Prepared(self.compiled(), feed=feed, reference=reference)
        weights = self.checkpoint() if rehearsal else None
        return Prepared(self.compiled(), probe=self.probe(), rival=weights)

    # Sessions ----------------------------------------------------------------------------

    @contextlib.contextmanager
    def session(self, compiled: Path, *, exclusive: bool) -> Iterator[Session]:
        """The compiled model on a leased device. Everything must have been built before."""
        device = self.bench.target.devices()[0]
        with self._stage("lease"):
            manager = self.bench.lease(device, exclusive=exclusive, what=self.case.name)
            lease = manager.__enter__()
            self._lease_fds, self._leased = lease.fds, device
        with contextlib.ExitStack() as stack:
            stack.push(manager)
            self.device_info = {
                "id": device.id,
                "name": device.name,
                "alone": exclusive,
                "waited_s": round(lease.waited_s, 3),
            }
            with self._stage("open"):
                session = self.bench.target.open(
                    compiled, device, log=self._log("session"), lease_fds=lease.fds
                )
                stack.callback(session.close)
                self._check_tensors(session)
            try:
                yield session
            finally:
                self._lease_fds, self._leased = (), None

    def _eager_rival(self, weights: Checkpoint) -> contextlib.AbstractContextManager[Session]:
        """Eager PyTorch at the case's batch size, execution `i` in format `i % 2`."""
        return self._open_eager(
            weights, self.case.batch_size, self._log("eager-speed"), both_formats=True
        )

    @contextlib.contextmanager
    def _open_eager(
        self, weights: Checkpoint, batch_size: int, log: Path, *, both_formats: bool = False
    ) -> Iterator[Session]:
        try:
            session = sessions.open_session(
                weights.path,
                backend=_EAGER_BACKEND,
                options={
                    "network": self.model.network.source,
                    "arguments": dict(self.model.network.arguments),
                    "layout": self.model.checkpoint.layout,
                    "trust": self._trusted,
                    **self._tensors,
                    "batch_size": batch_size,
                    "threads": cores(),
                    "both_formats": both_formats,
                },
                log=log,
                deadline_open_s=self._deadline(300.0),
                deadline_run_s=self._deadline(600.0),
                pass_fds=self._lease_fds,
            )
        except LoadError as error:
            raise EagerError(
                f"{self.model.id}: eager PyTorch could not be opened: {error.message}",
                remedy=error.remedy,
                log=error.log,
            ) from error
        with contextlib.closing(session):
            yield session

    # Measuring ---------------------------------------------------------------------------

    def accuracy(self, session: Session, prepared: Prepared) -> Verdict:
        """One pass over every image, judged; predictions are kept in the run directory."""
        assert prepared.feed is not None
        images = self.images()
        observed = accuracy.Observation(
            images,
            self.model.label_offset,
            reference=prepared.reference,
            fidelity_bound=self.bench.target.fidelity_bound,
        )
        with self._stage("accuracy"), self._feeding(prepared.feed, self._decoding):
            begin = time.monotonic()
            accuracy.infer(
                session,
                prepared.feed,
                observed.add,
                progress=lambda n: self._update(n, len(images)),
            )
            seconds = time.monotonic() - begin
        measured = observed.measurement(provenance=self.bench.provenance, seconds=seconds)
        path = self.bench.run_dir / "predictions" / f"{self.case.id}.csv"
        observed.write(path)
        self.measurement = {
            **measured.to_json(),
            "predictions_file": path.relative_to(self.bench.run_dir).as_posix(),
        }
        return self._judge_accuracy(measured)

    def throughput(self, session: Session, prepared: Prepared) -> Verdict:
        """Execution times, judged; a rehearsal times eager PyTorch in alternation."""
        assert prepared.probe is not None
        settings = self.bench.settings
        difference, problems = throughput.check_outputs(session, *prepared.probe)

        def progress(rounds: int, width: float) -> None:
            self.bench.progress.say(f"{rounds} rounds, known to ±{width:.1f} %")

        with contextlib.ExitStack() as stack:
            rival = None
            if prepared.rival is not None:
                with self._stage("open eager"):
                    rival = stack.enter_context(self._eager_rival(prepared.rival))
            with self._stage("throughput"):
                measured = throughput.measure(
                    session,
                    provenance=self.bench.provenance,
                    precision_percent=settings.precision,
                    budget_s=settings.budget,
                    rival=rival,
                    rival_names=EAGER_FORMATS if rival is not None else (),
                    # A CPU needs no more, and a heavy model takes half a second for each.
                    warmup=1 if rival is not None else WARMUP,
                    outputs_relative_l2=difference,
                    problems=problems,
                    progress=progress,
                )
        self.measurement = measured.to_json()
        return self._judge_throughput(measured)

    def _judge_accuracy(self, measurement: AccuracyMeasurement) -> Verdict:
        """The verdict of an accuracy case by the rule that its provenance calls for."""
        if self.bench.provenance == "rehearsal":
            bound = self.bench.target.fidelity_bound
            return verdicts.judge_rehearsal_accuracy(measurement, bound=bound)
        spec = self.model.accuracy
        return verdicts.judge_published_accuracy(measurement, spec.published, spec.rule)

    def _judge_throughput(self, measurement: ThroughputMeasurement) -> Verdict:
        """The verdict of a throughput case by the rule that its provenance calls for."""
        bound = self.bench.target.fidelity_bound
        if self.bench.provenance == "rehearsal":
            return verdicts.judge_eager_speed(measurement, bound=bound)
        baseline = self.model.baseline(self.case.target, self.case.batch_size)
        if baseline is None:
            return verdicts.record_throughput(
                measurement, f"no figure is published for {self.case.id}", bound=bound
            )
        if not baseline.comparable:
            return verdicts.record_throughput(
                measurement,
                f"the published figure is not comparable: {baseline.not_comparable}",
                bound=bound,
            )
        if not baseline.judged:
            return verdicts.record_throughput(
                measurement, "its guide only records this size", bound=bound
            )
        return verdicts.judge_baseline(measurement, baseline, bound=bound)

    # Parts -------------------------------------------------------------------------------

    @property
    def _tensors(self) -> dict[str, Any]:
        return {
            "input_name": self.model.input.name,
            "output_name": self.model.output.name,
            "size": self.model.input.size,
            "classes": self.model.classes,
        }

    @property
    def _trusted(self) -> bool:
        return self.model.id in self.bench.settings.trust_checkpoint

    def _deadline(self, seconds: float) -> float:
        return seconds * self.bench.settings.deadline_factor

    def _network_inputs(self, weights: Checkpoint) -> dict[str, Any]:
        return {
            "checkpoint": weights.sha256,
            "layout": self.model.checkpoint.layout,
            "network": self.model.network.source,
            "arguments": dict(self.model.network.arguments),
            "library": networks.library_version(self.model.network.source),
            "torch": required_version("torch"),
        }

    def _export_inputs(self) -> dict[str, Any]:
        return {
            "onnx_version": required_version("onnx"),
            "opset": OPSET,
            **self._tensors,
            "recipe": source_digest(
                "harness.artifacts.export", "harness.checkpoints", "harness.networks"
            ),
        }

    def _standin_inputs(self) -> dict[str, Any]:
        return {
            "layout": self.model.checkpoint.layout,
            "file": self.model.checkpoint.file,
            "network": self.model.network.source,
            "arguments": dict(self.model.network.arguments),
            "library": networks.library_version(self.model.network.source),
            "torch": required_version("torch"),
            "preprocessing": self.model.preprocessing.model_dump(),
            "classes": self.model.classes,
            "label_offset": self.model.label_offset,
            "recipe": source_digest(
                "harness.artifacts.standin",
                "harness.images.generated",
                "harness.images.preprocess",
                "harness.images.steps",
                "harness.checkpoints",
                "harness.networks",
            ),
            "pillow": required_version("pillow"),
            "numpy": required_version("numpy"),
        }

    def _compile_inputs(self) -> dict[str, Any]:
        return {
            "simplified": self._digest("simplified"),
            "batch_size": self.case.batch_size,
            **self.bench.target.compile_inputs(),
        }

    def _make_standin(self, staging: Path) -> str:
        return self._job(
            "standin",
            "harness.artifacts.standin:make_standin",
            {
                "network": self.model.network.source,
                "arguments": dict(self.model.network.arguments),
                "layout": self.model.checkpoint.layout,
                "preprocessing": self.model.preprocessing.model_dump(),
                "classes": self.model.classes,
                "label_offset": self.model.label_offset,
                "output": str(staging / self.model.checkpoint.file),
            },
            RehearsalError,
            1200.0,
        )

    def _given_onnx(self, given: Path) -> Entry:
        try:
            sha256 = file_digest(given)
        except OSError as error:
            raise ExportError(
                f"--onnx {self.model.id}={given}: {error.strerror or error}",
                remedy="name an ONNX file that can be read",
            ) from error
        self.checkpoint_info = {"source": f"the ONNX file {given}", "sha256": sha256}
        inputs = {
            "given": sha256,
            **self._tensors,
            "recipe": source_digest("harness.artifacts.export"),
        }

        def build(staging: Path) -> str:
            copy = staging / "model.onnx"
            shutil.copyfile(given, copy)
            if file_digest(copy) != sha256:
                raise ExportError(f"{given} changed while it was read", remedy="run again")
            return self._job(
                "export",
                "harness.artifacts.export:check_onnx",
                {"path": str(copy), **self._tensors, "batch_size": None},
                ExportError,
                300.0,
            )

        return self._build("onnx", inputs, build)

    def _check_rehearsal(self, found: Predictions, images: ImageSet) -> None:
        tally = accuracy.tally(found, images, self.model.label_offset)
        scores, classes = tally.scores, tally.classes
        low, high = verdicts.REHEARSAL_TOP1_PERCENT
        if not low <= scores.percent(1) <= high or classes < verdicts.REHEARSAL_MIN_CLASSES:
            raise RehearsalError(
                f"{self.model.id}: the eager stand-in has top-1 {scores.percent(1):.1f} % and "
                f"predicts {classes} classes; a rehearsal needs {low:g} to {high:g} % and at "
                f"least {verdicts.REHEARSAL_MIN_CLASSES}",
                remedy="use another number of images: --rehearsal-images=N",
            )

    def _check_tensors(self, session: Session) -> None:
        batch, size = self.case.batch_size, self.model.input.size
        wanted = (
            ("input", self.model.input.name, (batch, 3, size, size), session.inputs),
            ("output", self.model.output.name, (batch, self.model.classes), session.outputs),
        )
        for role, name, shape, found in wanted:
            specs = [(spec.name, tuple(spec.shape), spec.dtype) for spec in found]
            if specs != [(name, shape, "float32")]:
                raise LoadError(
                    f"{self.case.id}: the compiled model's {role}s are {specs}, they must be "
                    f"[({name!r}, {shape}, 'float32')]",
                    remedy="the compiled file is another model's or another batch size's",
                )

    def _job(
        self,
        stage: str,
        function: str,
        arguments: Mapping[str, Any],
        error: type[HarnessError],
        deadline_s: float,
    ) -> str:
        log = self._log(stage)
        with self._sharing_host(stage) as lease:
            answer = jobs.call(
                function,
                arguments,
                deadline_s=self._deadline(deadline_s),
                log=log,
                error=error,
                what=f"{stage} of {self.case.id}",
                pass_fds=lease.fds,
            )
        return f"{_read(log)}\n{canonical(answer)}".strip()

    def _log(self, stage: str) -> Path:
        path = self.bench.run_dir / "logs" / f"{self.case.check}-{self.case.id}-{stage}.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _sharing_host(self, what: str) -> contextlib.AbstractContextManager[leases.Lease]:
        # Where the CPU is what is measured, builds and decoding are users of it.
        return self.bench.lease(
            self.bench.host(), exclusive=False, what=f"{what} of {self.case.id}"
        )

    def _decoding(self) -> contextlib.AbstractContextManager[object]:
        # A lease of the host that the session holds already covers decoding: a second one would
        # wait behind a measurement that waits for the first.
        if self._leased == self.bench.host():
            return contextlib.nullcontext()
        return self._sharing_host("decoding")

    def _build(self, kind: str, inputs: Mapping[str, Any], build: Callable[[Path], str]) -> Entry:
        with self._stage(kind) as note:
            entry = self.bench.store.get_or_build(kind, inputs, build)
            note.cached = entry.cached
        self._note(entry)
        return entry

    def _note(self, entry: Entry) -> None:
        if any(ref.kind == entry.kind and ref.key == entry.key for ref in self.artifacts):
            return
        self.artifacts.append(
            ArtifactRef(
                kind=entry.kind,
                key=entry.key,
                digest=entry.digest,
                bytes=entry.bytes,
                cached=entry.cached,
                log=entry.log[-4000:],
            )
        )

    def _digest(self, kind: str) -> str:
        return next(ref.digest for ref in reversed(self.artifacts) if ref.kind == kind)

    def _update(self, done: int, total: int) -> None:
        self.bench.progress.update(done, total, "images")

    @contextlib.contextmanager
    def _stage(self, name: str) -> Iterator[_StageNote]:
        note = _StageNote()
        begin = time.monotonic()
        with self.bench.progress.stage(self.case.id, name):
            try:
                yield note
            finally:
                seconds = time.monotonic() - begin
                self._add_time(name, seconds, note.cached)

    def _add_time(self, name: str, seconds: float, cached: bool) -> None:
        for index, one in enumerate(self.stages):
            if one.stage == name:
                self.stages[index] = StageTime(
                    stage=name,
                    seconds=round(one.seconds + seconds, 3),
                    cached=one.cached and cached,
                )
                return
        self.stages.append(StageTime(stage=name, seconds=round(seconds, 3), cached=cached))


@dataclass
class _StageNote:
    cached: bool = False


def _read(log: Path) -> str:
    try:
        return log.read_text(encoding="utf-8", errors="replace")[-20000:]
    except OSError:
        return ""


def _text_digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
