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
import shlex
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from harness.base import jobs
from harness.base.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    EagerError,
    ExportError,
    HarnessError,
    LoadError,
    RehearsalError,
    SimplifyError,
)
from harness.base.host import cores, processor, required_version
from harness.base.npy import NpyWriter
from harness.base.processes import last_text
from harness.base.progress import Progress
from harness.base.store import Entry, Store, canonical, file_digest, source_digest
from harness.catalog.schema import Catalog, Model
from harness.images import dataset, generated
from harness.images.crops import Crops, UsingHost
from harness.images.dataset import ImageSet
from harness.images.feed import Feed
from harness.images.selection import find_images
from harness.judge import verdicts
from harness.judge.causes import GIVEN_FILE
from harness.measure import accuracy
from harness.measure.accuracy import Predictions
from harness.networks import library
from harness.plan import Case
from harness.records.conditions import Condition
from harness.records.values import ArtifactRef, StageTime, Verdict
from harness.settings import Settings
from harness.stages import checkpoint as checkpoints
from harness.stages.checkpoint import Digests
from harness.stages.export import OPSET
from harness.stages.fetch import shown
from harness.targets import leases, sessions
from harness.targets.cpu.target import CpuTarget, open_on_cpu
from harness.targets.pool import TIMEOUT_S, DevicePool
from harness.targets.protocol import Device, Float32, Session
from harness.targets.registry import make_target

EAGER_BATCH = 8
EAGER_FORMATS = ("contiguous", "channels-last")
_EAGER_BACKEND = Path(__file__).with_name("eager_backend.py")
FACTS = "facts.json"
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
    simplified: Path
    facts: Mapping[str, str] = field(default_factory=dict)  # what the compiler did, by its word
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
        self.target = make_target(settings.target, settings, run_dir)
        self.provenance = settings.provenance
        # A simulated host is the run's own; its devices are nobody else's.
        self.pool = DevicePool(
            self.target,
            run_dir / "leases" if settings.simulate_ascend else settings.leases,
            run_dir,
            lambda who: self.progress.say(f"waiting: {who}"),
        )
        self._noted: set[str] = set()
        self._checkpoints: dict[str, tuple[Path, Digests]] = {}
        self._refused: dict[str, CheckpointError] = {}
        self._image_set: tuple[ImageSet, dict[str, Any]] | None = None
        self._refused_images: DataError | None = None

    def for_case(self, case: Case) -> CaseBench:
        """The view of one case."""
        return CaseBench(self, case, self.catalog.models[case.model])

    def note_once(self, text: str) -> None:
        """Tell what holds for more than one case."""
        if text not in self._noted:
            self._noted.add(text)
            self.progress.note(text)

    def host(self) -> Device:
        """The host's CPU: builds, decoding and eager passes count as users of it."""
        return CpuTarget().devices()[0]

    def share_host(self, what: str) -> contextlib.AbstractContextManager[leases.Lease]:
        """A share of the host's CPU: where it is what is measured, builds are users of it."""
        return leases.lease(
            self.host(),
            self.settings.leases,
            exclusive=False,
            timeout_s=TIMEOUT_S,
            what=what,
            on_wait=lambda who: self.progress.say(f"waiting: {who}"),
        )

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
        """The run's labelled images, and what a record says of them: once for each process.

        Raises:
            DataError: images or labels that cannot be used.
        """
        if self._refused_images is not None:
            raise self._refused_images
        if self._image_set is None:
            try:
                self._image_set = self._find_images()
            except DataError as error:
                # Six batch sizes do not look through 50,000 files six times.
                self._refused_images = error
                raise
        return self._image_set

    def _find_images(self) -> tuple[ImageSet, dict[str, Any]]:
        checked: dict[str, int] = {}
        if self.settings.stand_ins:
            root = self._generated_images()
            found = dataset.find_image_set(root)
            source = "generated"
        else:
            if self.settings.imagenet is None:
                raise ConfigError(
                    "no data set is configured", remedy="--imagenet=DIR or $IMAGENET_DIR"
                )
            images = find_images(
                self.settings.imagenet, self.settings.labels, self.settings.selection
            )
            found, checked = images.chosen, asdict(images.findings)
            source = str(self.settings.imagenet)
        about = {
            "source": source,
            "root": str(found.root),
            "count": len(found),
            "digest": found.digest,
            "layout": found.layout,
            "labels": found.label_source,
            "selection": "" if self.settings.stand_ins else self.settings.selection.describe(),
        }
        if checked:
            about["checked"] = checked
        return found, about

    def _generated_images(self) -> Path:
        inputs = {
            "count": self.settings.rehearsal_images,
            "seed": REHEARSAL_SEED,
            "pillow": required_version("pillow"),
            "numpy": required_version("numpy"),
            "recipe": source_digest("harness.images.generated"),
        }

        def build(staging: Path) -> str:
            with self.share_host("generating images"):
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
    diagnosis: dict[str, Any] = field(default_factory=dict)
    attempts: list[dict[str, str]] = field(default_factory=list)  # on devices that failed
    before: Condition | None = None  # the device before a measurement
    device: Device | None = None  # leased now, or the last that was
    lease_fds: tuple[int, ...] = ()  # of the lease that is held
    _crops: Crops | None = None

    # Artifacts ---------------------------------------------------------------------------

    def checkpoint(self) -> Checkpoint:
        """The weights: the original file, verified, or a stand-in in its layout."""
        spec, settings = self.model.checkpoint, self.bench.settings
        if settings.stand_ins:
            entry = self._build("standin", self._standin_inputs(), self._make_standin)
            made = Checkpoint(entry.file(), entry.digest, "stand-in")
            if self.model.id not in dict(settings.onnx):  # else what runs is the given file
                self.checkpoint_info = {
                    "source": "stand-in (seeded weights, fitted to generated images)",
                    "file": entry.file().name,
                    "sha256": entry.digest,
                    "layout": spec.layout,
                }
            return made
        found = self.bench.found_checkpoint(self.model.id)
        if found is None:
            with self.stage("checkpoint"):
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
                "harness.stages.export:export_onnx",
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
            "recipe": source_digest("harness.stages.export"),
        }

        def build(staging: Path) -> str:
            return self._job(
                "simplify",
                "harness.stages.export:simplify_onnx",
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

    def compiled(self) -> tuple[Path, Mapping[str, str]]:
        """The compiled model of the case, and what its compiler did that no key can know."""
        source = self.simplified()
        target, batch_size = self.bench.target, self.case.batch_size
        inputs = {
            "simplified": self._digest("simplified"),
            "batch_size": batch_size,
            **target.compile_inputs(self.model, batch_size),
        }

        def build(staging: Path) -> str:
            log = self.log_path("compile")
            with contextlib.ExitStack() as stack:
                device = None
                fds: tuple[int, ...] = ()
                if self.compiles_on_device:
                    device, held = stack.enter_context(
                        self.bench.pool.for_case("throughput", f"compile of {self.case.id}")
                    )
                    fds += held.fds
                fds += stack.enter_context(self._sharing_host("compile")).fds
                facts = target.compile(
                    source,
                    self.model,
                    batch_size,
                    staging,
                    device=device,
                    log=log,
                    lease_fds=fds,
                )
            (staging / FACTS).write_text(json.dumps(dict(facts)), encoding="utf-8")
            return _read(log)

        entry = self._build("compiled", inputs, build)
        facts = json.loads(entry.file(FACTS).read_text(encoding="utf-8"))
        (name,) = set(entry.files) - {FACTS}
        return entry.file(name), facts

    @property
    def compiles_on_device(self) -> bool:
        """Whether compiling the case's model takes a device alone, as tuning on it does."""
        return self.bench.target.compiles_on_device(self.model, self.case.batch_size)

    def images(self) -> ImageSet:
        """The run's images; cases of other models use the same."""
        with self.stage("images"):
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
                "harness.stages.eager_backend",
                "harness.targets.worker",
                "harness.networks.layouts",
                "harness.networks.library",
                "harness.networks.weights",
                "harness.images.feed",
                "harness.images.preprocess",
                "harness.measure.accuracy",
            ),
        }

        def build(staging: Path) -> str:
            feed = Feed(crops, self.model.preprocessing.normalize, EAGER_BATCH)
            log = self.log_path("eager")
            shape = (len(crops), self.model.classes)
            names: list[str] = []
            with (
                self._sharing_host("the eager pass"),
                self.open_eager(weights, EAGER_BATCH, log) as session,
                NpyWriter(staging / "logits.npy", shape, np.float32) as out,
            ):

                def take(found: tuple[str, ...], logits: Float32) -> None:
                    out.put(len(names), logits)
                    names.extend(found)

                # Decoding is covered by the lease that is held: see `Crops.filling`.
                with self.feeding(feed, contextlib.nullcontext):
                    accuracy.infer(
                        session, feed, take, progress=lambda n: self._update(n, len(images))
                    )
            weights.require_unchanged()
            (staging / "names.json").write_text(json.dumps(names), encoding="utf-8")
            return f"{len(names)} images"

        with self.all_unusable():
            entry = self._build("eager", inputs, build)
        names = json.loads(entry.file("names.json").read_text(encoding="utf-8"))
        found = Predictions.stored(tuple(names), entry.file("logits.npy"))
        if self.bench.settings.stand_ins:
            self._check_rehearsal(found, images)
        return found

    @contextlib.contextmanager
    def feeding(self, feed: Feed, using_host: UsingHost) -> Iterator[None]:
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

    @contextlib.contextmanager
    def all_unusable(self) -> Iterator[None]:
        """Images that cannot be used end the block with the names of all of them.

        The first chunk of them ends a case at once, for it may hold a device. A set of 50,000 is
        decoded for minutes or hours: whoever mends it wants to know of every file. What else is
        decoded on the way is not decoded again.
        """
        try:
            yield
        except DataError as first:
            try:
                with self.stage("crops"):
                    self.crops().complete(self.decoding)
            except DataError as every:
                raise every from first
            raise

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
            log = self.log_path("probe")
            with self._sharing_host("the output check"):
                # The graph as it is, not as the target's compiler changed it.
                session = open_on_cpu(source, log=log, factor=self.bench.settings.deadline_factor)
                with contextlib.closing(session):
                    (outputs,) = session.stream([images])
            np.save(staging / "outputs.npy", outputs, allow_pickle=False)
            return ""

        entry = self._build("probe", inputs, build)
        return images, np.load(entry.file("outputs.npy"), allow_pickle=False)

    def prepare(self) -> Prepared:
        """Build everything that the case's check needs, before a device is leased."""
        settings = self.bench.settings
        if self.case.check == "accuracy":
            # First: wrong labels are found in seconds, and a compiler can take hours.
            self.images()
        compiled, facts = self.compiled()
        source = self.simplified()
        if self.case.check == "accuracy":
            feed, reference = self.feed(), self._reference()
            if not self.bench.target.runs_on_host:
                with self.stage("verify images"):
                    feed.crops.verify_present()
            return Prepared(compiled, source, facts, feed=feed, reference=reference)
        weights = self.checkpoint() if settings.rehearsal else None
        return Prepared(compiled, source, facts, probe=self.probe(), rival=weights)

    def prepare_ahead(self) -> None:
        """Build what can be built while other cases use the device. Compiling on it would take it
        from them, or wait until it may: then the rest is built, and the case compiles in its turn.
        """
        if not self.compiles_on_device:
            self.prepare()
            return
        self.simplified()
        if self.case.check == "accuracy":
            self._reference()
        else:
            self.probe()

    def _reference(self) -> Predictions | None:
        """Eager's predictions where they are what a score is held against.

        The whole data set is held against the published figure: an eager pass over it would take
        a CPU hours. Where the ONNX file was given there are no weights for an eager pass.
        """
        settings = self.bench.settings
        part = not settings.stand_ins and len(self.images()) != verdicts.WHOLE_SET
        if settings.stand_ins or (part and self.model.id not in dict(settings.onnx)):
            return self.eager()
        return None

    # Sessions of eager PyTorch -----------------------------------------------------------

    def eager_rival(self, weights: Checkpoint) -> contextlib.AbstractContextManager[Session]:
        """Eager PyTorch at the case's batch size, execution `i` in format `i % 2`."""
        return self.open_eager(
            weights, self.case.batch_size, self.log_path("eager-speed"), both_formats=True
        )

    @contextlib.contextmanager
    def open_eager(
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
                pass_fds=self.lease_fds,
            )
        except LoadError as error:
            raise EagerError(
                f"{self.model.id}: eager PyTorch could not be opened: {error.message}",
                remedy=error.remedy,
                log=error.log,
            ) from error
        with contextlib.closing(session):
            yield session

    def returned(self) -> None:
        """The lease is no longer held; which device it was stays known."""
        self.lease_fds = ()

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
            "library": library.library_version(self.model.network.source),
            "torch": required_version("torch"),
        }

    def _export_inputs(self) -> dict[str, Any]:
        return {
            "onnx_version": required_version("onnx"),
            "opset": OPSET,
            **self._tensors,
            "recipe": source_digest(
                "harness.stages.export",
                "harness.networks.layouts",
                "harness.networks.library",
                "harness.networks.weights",
            ),
        }

    def _standin_inputs(self) -> dict[str, Any]:
        return {
            "layout": self.model.checkpoint.layout,
            "file": self.model.checkpoint.file,
            "network": self.model.network.source,
            "arguments": dict(self.model.network.arguments),
            "library": library.library_version(self.model.network.source),
            "torch": required_version("torch"),
            "preprocessing": self.model.preprocessing.model_dump(),
            "classes": self.model.classes,
            "label_offset": self.model.label_offset,
            "recipe": source_digest(
                "harness.stages.standin",
                "harness.images.generated",
                "harness.images.preprocess",
                "harness.images.steps",
                "harness.networks.layouts",
                "harness.networks.library",
                "harness.networks.weights",
            ),
            "pillow": required_version("pillow"),
            "numpy": required_version("numpy"),
        }

    def _make_standin(self, staging: Path) -> str:
        return self._job(
            "standin",
            "harness.stages.standin:make_standin",
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
        self.checkpoint_info = {"source": f"{GIVEN_FILE} {given}", "sha256": sha256}
        inputs = {
            "given": sha256,
            **self._tensors,
            "recipe": source_digest("harness.stages.export"),
        }

        def build(staging: Path) -> str:
            copy = staging / "model.onnx"
            shutil.copyfile(given, copy)
            if file_digest(copy) != sha256:
                raise ExportError(f"{given} changed while it was read", remedy="run again")
            return self._job(
                "export",
                "harness.stages.export:check_onnx",
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

    def _job(
        self,
        stage: str,
        function: str,
        arguments: Mapping[str, Any],
        error: type[HarnessError],
        deadline_s: float,
    ) -> str:
        log = self.log_path(stage)
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

    def log_path(self, stage: str) -> Path:
        path = self.bench.run_dir / "logs" / f"{self.case.check}-{self.case.id}-{stage}.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _sharing_host(self, what: str) -> contextlib.AbstractContextManager[leases.Lease]:
        return self.bench.share_host(f"{what} of {self.case.id}")

    def decoding(self) -> contextlib.AbstractContextManager[object]:
        # A lease of the host that the session holds already covers decoding: a second one would
        # wait behind a measurement that waits for the first.
        if self.lease_fds and self.device == self.bench.host():
            return contextlib.nullcontext()
        return self._sharing_host("decoding")

    def _build(self, kind: str, inputs: Mapping[str, Any], build: Callable[[Path], str]) -> Entry:
        with self.stage(kind) as note:
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
    def stage(self, name: str) -> Iterator[_StageNote]:
        note = _StageNote()
        begin = time.monotonic()
        with self.bench.progress.stage(self.case.id, name):
            try:
                yield note
            except LoadError as error:
                if name == "open":
                    error.remedy = "; ".join(filter(None, [error.remedy, self._compile_anew()]))
                raise
            finally:
                seconds = time.monotonic() - begin
                self._add_time(name, seconds, note.cached)

    def _compile_anew(self) -> str:
        """How to be rid of a compiled file that no runtime takes: its key never goes stale."""
        key = next((one.key for one in reversed(self.artifacts) if one.kind == "compiled"), None)
        if key is None:
            return ""
        store = shlex.quote(f"--store={self.bench.settings.store}")
        return (
            f"where the compiled file may be damaged: python -m harness cache gc --key={key} "
            f"{store}, and the next run compiles it anew"
        )

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
    return last_text(log, 20_000)  # the end alone: atc may write gigabytes


def _text_digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
