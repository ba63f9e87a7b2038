"""Chains the stages of a case, each built through the store, and keeps their notes and the clock.

The order is fixed: everything is built, then a device is leased, then a session is opened. No lock
of the store is waited for while a lease is held, but those of chunks of images, which are decoded
as they are fed: see `harness.images.crops`.
"""

from __future__ import annotations

import contextlib
import functools
import json
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness.base import processes
from harness.base.errors import (
    ConfigError,
    DataError,
    EagerError,
    HarnessError,
    InferError,
    some,
)
from harness.base.stages import Stage
from harness.base.store import Entry, remove_tree
from harness.base.terms import WHOLE_SET
from harness.images.crops import Crops, UsingHost
from harness.images.dataset import ImageSet
from harness.images.feed import Feed
from harness.images.preprocess import UInt8
from harness.networks.library import ONNX
from harness.plan import Case, given_onnx, held_against_weights
from harness.records.observed import ArtifactRef, Attempt, CheckpointInfo, Observed, StageTime
from harness.stages import images as run_images
from harness.stages import weights
from harness.stages.compile import Compile, Compiled
from harness.stages.context import Bench, Build, CaseContext
from harness.stages.eager import Eager, check_rehearsal
from harness.stages.export import Export, GivenOnnx
from harness.stages.inference import Predictions
from harness.stages.onnx_file import FILE, FOREIGN
from harness.stages.probe import Probe
from harness.stages.simplify import Simplify
from harness.stages.standin import Standin
from harness.stages.weights import Checkpoint
from harness.targets import host
from harness.targets.protocol import Device, EagerOnDevice, Float32

LOG_KEPT = 4000  # characters of a build's log in a record


@dataclass(frozen=True)
class Prepared:
    """What a check needs: built, verified, and on disk."""

    compiled: Path
    simplified: Path
    facts: Mapping[str, str] = field(default_factory=dict)  # see `compile.Compiled`
    feed: Feed | None = None
    reference: Predictions | None = None
    probe: tuple[UInt8, Float32] | None = None  # seeded crops, and the ONNX file's outputs
    rival: Checkpoint | None = None


class Workbench(Bench):
    """What the cases of one process of a run share."""

    def for_case(self, case: Case) -> CasePipeline:
        """Return the pipeline of one case."""
        return CasePipeline(self, case, self.catalog.models[case.model])

    def take_given(self, cases: Iterable[Case]) -> None:
        """Check the ONNX files that these cases are given, and keep copies of them.
        Raises `ConfigError`: one cannot be used.
        """
        for case in {case.model: case for case in cases}.values():
            if case.model in given_onnx(self.catalog, self.settings):
                self.for_case(case).onnx()


@dataclass
class CasePipeline(CaseContext):
    """The stages of one case; `observed` fills as they are used."""

    bench: Workbench
    observed: Observed = field(default_factory=Observed)
    device: Device | None = None  # leased now, or the last that was
    lease_fds: tuple[int, ...] = ()  # of the lease that is held
    _crops: Crops | None = None

    # The chain ---------------------------------------------------------------------------

    def checkpoint(self) -> Checkpoint:
        """Return the weights: the original file, verified, or a stand-in in its layout."""
        if self.bench.settings.stand_ins:
            entry = self._made(Standin(self))
            checkpoint = Checkpoint(entry.file(), entry.digest)
            layout = self.model.checkpoint.layout
            info = CheckpointInfo("stand-in", entry.file().name, entry.digest, layout=layout)
        else:
            with self.stage(Stage.CHECKPOINT) as note:
                note.cached = weights.key(self.model) in self.bench.known
                checkpoint, info = weights.obtain(self.bench, self.model)
        if self.given_onnx is None:  # else what runs is that file
            self.observed.checkpoint = info
        return checkpoint

    def onnx(self) -> Path:
        """Return the ONNX file: exported from the checkpoint, or the one that was given."""
        return self._exported().file(FILE)

    def simplified(self) -> Path:
        """Return the ONNX file simplified at the case's batch size."""
        return self._simplified().file(FILE)

    def compiled(self) -> Compiled:
        """Return the compiled model of the case."""
        return Compiled.read(self._made(Compile(self, self._simplified())))

    @contextlib.contextmanager
    def host_alone(self, error: HarnessError) -> Iterator[None]:
        """Within the block, do once more what ended in `error`, with nothing else of ours beside.

        The host is taken where its share would be: a device, and a lock of the store, come before.
        """
        why = "retried once with nothing else running on this host"
        self.bench.progress.note(f"{self.case.name}: {error.message}: {why}")
        place = host.NAME if self.device is None else self.device.id
        attempt = Attempt(place, error.stage, error.message, why, aside=False)
        self.observed.attempts.append(attempt)
        self.alone = True
        try:
            yield
        finally:
            self.alone = False

    def compiled_again(self, why: str) -> Compiled | None:
        """Set aside the compiled model, which the runtime does not load, and compile it anew; None
        where this run has done so before, the same came out, or another process uses it.
        """
        build = Compile(self, self._simplified())
        with self.stage(Stage.COMPILE):
            (refused,) = (one for one in self.observed.artifacts if one.stage is build.stage)
            entry = self.bench.store.build_again(
                build.stage,
                build.inputs(),
                functools.partial(self._built, build),
                refused=refused.digest,
                why=why,
                about=self.about(build.stage),
            )
        if entry is None:
            return None
        self.observed.artifacts.remove(refused)
        self._note(entry, instead_of=refused.digest)
        return Compiled.read(entry)

    def images(self) -> ImageSet:
        """Return the run's images; cases of other models use the same."""
        with self.stage(Stage.DATA):
            images, info = run_images.find(self.bench)
        self.observed.images = info
        if self.bench.settings.stand_ins:
            return images
        return images.of_classes(
            self.model.class_names, self.model.classes, self.model.label_offset
        )

    def crops(self) -> Crops:
        """Return the model's crops of the run's images, which are decoded when they are fed."""
        if self._crops is None:
            self._crops = Crops(self.bench.store, self.images(), self.model.preprocessing)
        return self._crops

    def feed(self) -> Feed:
        """Return batches of the case's size."""
        return Feed(self.crops(), self.model.preprocessing.normalize, self.case.batch_size)

    def eager(self) -> Predictions:
        """Return the logits of eager PyTorch on the run's images.
        Raises `RehearsalError`: stand-in weights or images that could not tell good from bad.
        """
        predictions, images = self._eager_on_device() or self._eager(None), self.images()
        if self.bench.settings.stand_ins:
            check_rehearsal(self, predictions, images)
        return predictions

    def _eager(self, on: EagerOnDevice | None) -> Predictions:
        checkpoint, crops = self.checkpoint(), self.crops()
        with self.all_unusable():
            return Eager.read(self._made(Eager(self, checkpoint, crops, self.feeding, on)), on)

    def _eager_on_device(self) -> Predictions | None:
        """Return the logits of eager PyTorch on the target's device; None where it has no say."""
        on = self.bench.target.eager() if self.model.network.source != ONNX else None
        if on is None:
            return None
        try:
            return self._eager(on)
        except (EagerError, InferError) as error:  # e.g. a chip that computes in float16
            why = f"{self.model.id}: {on.about} makes no reference: {error.message}"
            self.bench.once(why, functools.partial(self.bench.progress.note, why))
            return None

    def probe(self) -> tuple[UInt8, Float32]:
        """Return seeded crops `uint8[N, S, S, 3]` and the outputs for them of the simplified file,
        or of the weights where a given file has operators that only the target's compiler knows.
        Raises `ConfigError`: there are no weights.
        """
        simplified, exported = self._simplified(), self._exported()
        if FOREIGN in exported.files:
            settings = self.bench.settings
            folders = (settings.checkpoints, settings.checkpoint_cache)
            if not settings.stand_ins and folders == (None, None):
                raise _needs_weights(exported, self.given_onnx)
            simplified = self._made(Simplify(self, self._of_weights()))
        return Probe.read(self._made(Probe(self, simplified)))

    def _exported(self) -> Entry:
        if self.given_onnx is None:
            return self._of_weights()
        given = GivenOnnx.of(self, self.given_onnx)
        self.observed.checkpoint = CheckpointInfo("onnx", str(given.file), given.sha256)
        return self._made(given)

    def _of_weights(self) -> Entry:
        checkpoint = self.checkpoint()
        if self.model.network.source != ONNX:
            return self._made(Export(self, checkpoint))
        entry = self._made(GivenOnnx.of(self, checkpoint.path))
        if FOREIGN in entry.files:
            raise _needs_weights(entry, checkpoint.path)
        return entry

    def _simplified(self) -> Entry:
        return self._made(Simplify(self, self._exported()))

    # What a check needs ------------------------------------------------------------------

    def prepare(self) -> Prepared:
        """Build everything that the case's check needs, before a device is leased."""
        if self.case.check == "accuracy":
            # First: wrong labels are found in seconds, and a compiler can take hours.
            self.images()
        compiled, simplified = self.compiled(), self.simplified()
        if self.case.check == "throughput":
            rival = self.checkpoint() if self.bench.settings.rehearsal else None
            return Prepared(
                compiled.path, simplified, compiled.facts, probe=self.probe(), rival=rival
            )
        feed, reference = self.feed(), self._reference()
        if not self.bench.target.traits.runs_on_host:
            with self.stage(Stage.VERIFY):
                feed.crops.verify_present()
        return Prepared(compiled.path, simplified, compiled.facts, feed=feed, reference=reference)

    def prepare_ahead(self) -> None:
        """Build what can be built while other cases use the device. Compiling on it would take it
        from them, or wait until it may: then the rest is built, and the case compiles in its turn.
        """
        accuracy = self.case.check == "accuracy"
        on_device = Compile(self, self._simplified()).on_device
        if accuracy and self.bench.target.eager() is not None:  # the eager pass is on the device
            if not on_device:
                self.compiled()
        elif not on_device:
            self.prepare()
        elif accuracy:
            self._reference()
        else:
            self.probe()

    def _reference(self) -> Predictions | None:
        """Return eager's predictions where they are what a score is held against.

        The whole data set is held against the published figure: an eager pass over it would take
        a CPU hours. A device that does it in minutes adds fidelity. Where the ONNX file was given
        there may be no weights for it.
        """
        if self.bench.settings.provenance != "real":
            return self.eager()
        images, own = self.images(), self.model.published is None
        part = own or images.own_set or len(images) != WHOLE_SET
        if not held_against_weights(self.model, self.bench.settings):
            return None
        return self.eager() if part else self._eager_on_device()

    # Feeding -----------------------------------------------------------------------------

    @contextlib.contextmanager
    def feeding(self, feed: Feed, using_host: UsingHost) -> Iterator[None]:
        """Run the feed within the block; note what it decoded or found in the store."""
        waited = feed.crops.waited_s
        try:
            with feed.running(using_host, lambda n: self.bench.progress.say(f"{n} images decoded")):
                yield
        finally:
            entries = feed.crops.entries
            for entry in entries:
                self._note(entry)
            cached = all(entry.cached for entry in entries)
            self._add_time(Stage.FEED, feed.crops.waited_s - waited, cached)

    @contextlib.contextmanager
    def all_unusable(self) -> Iterator[None]:
        """End the block with the names of all images that cannot be used.

        The first chunk of them ends a case at once, for it may hold a device. A set of 50,000 is
        decoded for minutes or hours: whoever mends it wants to know of every file. What else is
        decoded on the way is not decoded again.
        """
        key = f"complete {self.model.preprocessing.model_dump_json()}"
        if isinstance(known := self.bench.known.get(key), DataError):
            raise known
        try:
            yield
        except DataError as first:
            try:
                with self.stage(Stage.CROPS):
                    self.bench.once(key, lambda: self.crops().complete(self.decoding))
            except DataError as every:
                raise every from first
            raise

    def decoding(self) -> contextlib.AbstractContextManager[object]:
        """Hold a share of the host while images are decoded."""
        # A lease of the host that the session holds already covers decoding: a second one would
        # wait behind a measurement that waits for the first.
        if self.lease_fds and (self.alone or self.device == host.device()):
            return contextlib.nullcontext()
        return self.share_host("decoding")

    # Notes and the clock -----------------------------------------------------------------

    @contextlib.contextmanager
    def unrecorded(self) -> Iterator[None]:
        """Keep what is done within the block out of the case's record."""
        kept, self.observed = self.observed, Observed()
        try:
            yield
        finally:
            self.observed = kept

    def _made(self, build: Build) -> Entry:
        with self.stage(build.stage) as note:
            entry = self.bench.store.get_or_build(
                build.stage,
                build.inputs(),
                functools.partial(self._built, build),
                about=self.about(build.stage),
            )
            note.cached = entry.cached
        self._note(entry)
        return entry

    def _built(self, build: Build, staging: Path) -> str:
        """Build; once more where the machine ended the first try."""
        try:
            return build.build(staging)
        except HarnessError as error:
            if not error.killed or processes.ending.is_set():
                raise
            for path in staging.iterdir():
                remove_tree(path)
            with self.host_alone(error):
                return build.build(staging)

    def _note(self, entry: Entry, instead_of: str = "") -> None:
        stage = Stage(entry.kind)
        if any((ref.stage, ref.key) == (stage, entry.key) for ref in self.observed.artifacts):
            return
        log = self.log_path(stage)
        self.observed.artifacts.append(
            ArtifactRef(
                stage=stage,
                key=entry.key,
                digest=entry.digest,
                bytes=entry.bytes,
                cached=entry.cached,
                shared=entry.shared,
                log=entry.log[-LOG_KEPT:],
                log_file=log.relative_to(self.bench.run_dir).as_posix() if log.is_file() else "",
                instead_of=instead_of,
            )
        )

    @contextlib.contextmanager
    def stage(self, stage: Stage) -> Iterator[StageNote]:
        """Show a stage of the case, and take its time."""
        note = StageNote()
        begin = time.monotonic()
        with self.bench.progress.stage(self.case.id, stage):
            try:
                yield note
            finally:
                self._add_time(stage, time.monotonic() - begin, note.cached)

    def _add_time(self, stage: Stage, seconds: float, cached: bool) -> None:
        times = self.observed.stages
        for index, one in enumerate(times):
            if one.stage is stage:
                total = round(one.seconds + seconds, 3)
                times[index] = replace(one, seconds=total, cached=one.cached and cached)
                return
        times.append(StageTime(stage, round(seconds, 3), cached))


def _needs_weights(onnx: Entry, file: Path | None) -> ConfigError:
    operators = json.loads(onnx.file(FOREIGN).read_text(encoding="utf-8"))
    return ConfigError(
        f"{file}: ONNX Runtime has no {some(operators)}: nothing here says what it computes",
        remedy="give it by --onnx=MODEL=FILE, and beside it what its outputs are held against: the "
        "weights (--checkpoints=DIR or --model-file=FILE), or as --model-file AMCT's fake_quant "
        "file",
    )


@dataclass
class StageNote:
    """What a stage says of itself while it runs: whether the store had what it makes."""

    cached: bool = False
