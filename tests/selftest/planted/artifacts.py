"""Faults in weights and artifacts: other weights, other files, old, damaged and half ones."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from harness.base.stages import Stage
from harness.base.store import Entry, Store, file_digest
from harness.images.crops import Crops
from harness.networks import library, weights
from harness.records.measurements import ProblemCode
from harness.stages import checkpoint, export, onnx_file, simplify
from harness.stages.pipeline import CasePipeline
from harness.stages.weights import Checkpoint
from tests.selftest.planted.graphs import exchange, perturb, rewritten, small_onnx
from tests.selftest.planted.rows import Fault, Found, Row, judged, said
from tests.selftest.planted.world import BATCH, World

# Weights -----------------------------------------------------------------------------------


def _state(world: World) -> dict[str, Any]:
    """The stand-in's weights under the network's own names."""
    case, _ = world.prepared("odd")
    library.import_torch()
    return dict(weights.load_state(case.checkpoint().path, "plain"))


def _load(world: World, state: dict[str, Any]) -> Found:
    model = world.prepared("odd")[0].model
    network = library.build_network(model.network.source, dict(model.network.arguments))
    weights.load_into(network, state, name="odd")
    return said("accepted", f"{len(state)} tensors loaded", "loading")


def _dropped_statistics(world: World, planted: bool) -> Found:
    """Batch-norm statistics left out of the checkpoint."""
    state = _state(world)
    if planted:
        state = {k: v for k, v in state.items() if not k.endswith(("running_mean", "running_var"))}
    return _load(world, state)


def _weights_of_another(world: World, planted: bool) -> Found:
    if not planted:
        return _load(world, _state(world))
    library.import_torch()
    network = library.build_network("torchvision:squeezenet1_1", {})
    return _load(world, dict(network.state_dict()))


def _written(world: World, change: Callable[[dict[str, Any]], None] | None) -> Path:
    """A folder with the model's checkpoint, altered or not."""
    folder = world.new_folder()
    state = _state(world)
    if change is not None:
        change(state)
    weights.save_checkpoint(state, "plain", folder / "odd.pth")
    return folder


def _forget_statistics(state: dict[str, Any]) -> None:
    """As a network has them before any training: it loads strictly all the same."""
    for name in state:
        if name.endswith("running_mean"):
            state[name].zero_()
        if name.endswith("running_var"):
            state[name].fill_(1.0)


def _built_from(world: World, folder: Path) -> CasePipeline:
    return world.bench("odd", target="cpu", checkpoints=str(folder))


def _reset_statistics(world: World, planted: bool) -> Found:
    """The compiled model made from a checkpoint whose statistics were reset."""
    folder = _written(world, _forget_statistics if planted else None)
    compiled = _built_from(world, folder).compiled()
    return judged(world.judge_file("odd", compiled.path))


def _old_weights(world: World, planted: bool) -> Found:
    """A checkpoint replaced between two runs by one of the same name and size."""
    folder = _written(world, None)
    file = folder / "odd.pth"
    before, first = file.stat(), _built_from(world, folder).compiled().path
    shutil.copyfile(_written(world, _forget_statistics if planted else None) / "odd.pth", file)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_size == before.st_size
    second = _built_from(world, folder).compiled().path
    if second == first:
        return said("from the store", f"{first.parent.name} for both", "build")
    return said("rebuilt", f"{second.parent.name} for the new weights", "build")


def _changed_meanwhile(world: World, planted: bool) -> Found:
    """A checkpoint replaced while the export reads it."""
    file = _written(world, None) / "odd.pth"
    used = Checkpoint(file, file_digest(file))
    if planted:
        file.write_bytes(file.read_bytes()[::-1])
    used.require_unchanged()
    return said("accepted", "the file is what it was", "loading")


def _other_file(world: World, planted: bool) -> Found:
    """A checkpoint of the right name whose digest is not the published one."""
    spec = world.catalog("squeezenet1_1").models["seresnext101"].checkpoint
    file = world.new_folder() / spec.file
    file.write_bytes(b"right weights")
    right = hashlib.md5(b"right weights", usedforsecurity=False).hexdigest()
    if planted:
        file.write_bytes(b"other weights")
    checkpoint.verify_digest(file, spec.model_copy(update={"md5": right}))
    return said("accepted", "the digest is the published one", "loading")


# What the stages make of them --------------------------------------------------------------


def _compiled(change: Callable[[Any], None]) -> Row:
    """Weights of the compiled file changed; names and shapes are right."""

    def row(world: World, planted: bool) -> Found:
        case, _ = world.prepared("odd")
        file = world.new_folder() / "model.onnx"
        rewritten(case.simplified(), file, change if planted else None)
        return judged(world.judge_file("odd", file))

    return row


def _simplifier(world: World, planted: bool) -> Found:
    """onnxsim changes a weight on the way."""
    import onnxsim

    case, _ = world.prepared("odd")
    real = onnxsim.simplify

    def changing(*arguments: Any, **options: Any) -> Any:
        model, same = real(*arguments, **options)
        perturb(model)
        return model, same

    with mock.patch.object(onnxsim, "simplify", changing) if planted else contextlib.nullcontext():
        done = simplify.simplify_onnx(
            source=str(case.onnx()),
            tensors=case.tensors,
            batch_size=BATCH,
            output=str(world.new_folder() / "model.onnx"),
        )
    return said("accepted", f"relative L2 {done['relative_l2']:.1e}", "build")


def _exporter(world: World, planted: bool) -> Found:
    """PyTorch's exporter changes a weight on the way."""
    torch = library.import_torch()
    case, _ = world.prepared("odd")
    real = torch.onnx.export

    def changing(module: Any, arguments: Any, output: str, **options: Any) -> None:
        real(module, arguments, output, **options)
        rewritten(Path(output), Path(output), perturb)

    with contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")  # as in the child process that exports for a run
        if planted:
            stack.enter_context(mock.patch.object(torch.onnx, "export", changing))
        done = export.export_onnx(
            **case.network,
            checkpoint=str(case.checkpoint().path),
            trust=False,
            tensors=case.tensors,
            output=str(world.new_folder() / "model.onnx"),
        )
    return said("accepted", f"relative L2 {done['relative_l2']:.1e}", "build")


def _given_onnx(world: World, planted: bool) -> Found:
    """`--onnx` with the file of a model that has another number of classes."""
    case, _ = world.prepared("odd")
    file = case.onnx()
    if planted:
        file = small_onnx(world.new_folder() / "model.onnx", batch=None, side=64, classes=1000)
    done = onnx_file.check_onnx(str(file), case.tensors, None)
    return said("accepted", f"opset {done['opset']}", "build")


def _compiled_of(*, batch: int) -> Row:
    """The compiled file of another network with the same tensors but for the batch size."""

    def row(world: World, planted: bool) -> Found:
        file = world.prepared("odd")[1].compiled
        if planted:
            file = world.new_folder() / "model.onnx"
            small_onnx(file, batch=batch, side=64, classes=1001)
        return judged(world.judge_file("odd", file))

    return row


# The store ---------------------------------------------------------------------------------

_INPUTS = {"checkpoint": "a" * 64, "batch_size": 4}


def _stored(damage: Callable[[Store, Entry], None]) -> Row:
    """An artifact, damaged or not, read by the next run."""

    def row(world: World, planted: bool) -> Found:
        root = world.new_folder()
        told: list[str] = []

        def build(staging: Path) -> str:
            (staging / "model.om").write_bytes(bytes(range(256)) * 64)
            return "built"

        first = Store(root).get_or_build(Stage.COMPILE, _INPUTS, build)
        if planted:
            damage(Store(root), first)
        second = Store(root, on_damage=told.append).get_or_build(Stage.COMPILE, _INPUTS, build)
        assert second.file().read_bytes() == bytes(range(256)) * 64
        if second.cached:
            return said("from the store", "the entry is whole", "build")
        return said("rebuilt", "; ".join(told), "build")

    return row


def _damaged(change: Callable[[bytes], bytes]) -> Row:
    def damage(store: Store, entry: Entry) -> None:
        file = entry.file()
        file.chmod(0o644)
        file.write_bytes(change(file.read_bytes()))

    return _stored(damage)


def _flip(data: bytes) -> bytes:
    return data[:700] + bytes([data[700] ^ 1]) + data[701:]


def _under_another_key(store: Store, entry: Entry) -> None:
    """The entry of old weights, whole, where that of these weights belongs."""

    def build(staging: Path) -> str:
        (staging / "model.om").write_bytes(b"of old weights")
        return "built"

    old = store.get_or_build(Stage.COMPILE, {**_INPUTS, "checkpoint": "b" * 64}, build)
    shutil.rmtree(entry.directory)
    shutil.copytree(old.directory, entry.directory)
    manifest = entry.directory / "manifest.json"
    manifest.write_text(manifest.read_text().replace(old.key, entry.key))


def _crops(world: World, planted: bool) -> Found:
    """Crops in the store of another resize than the one that is asked for now."""
    case, ready = world.prepared("odd")
    assert ready.feed is not None
    steps = case.model.preprocessing
    if planted:
        resize = steps.resize.model_copy(update={"interpolation": "bilinear"})
        steps = steps.model_copy(update={"resize": resize})
    asked = Crops(case.bench.store, case.images(), steps)
    if asked.keys() == ready.feed.crops.keys():
        return said("from the store", "the same chunks", "build")
    return said("rebuilt", "other chunks", "build")


_STORE = "the artifact store"
_OM = "the compiled file"

FAULTS = (
    Fault("BN statistics dropped", "the checkpoint", "loading", "error", "running_mean",
          _dropped_statistics, "accepted"),
    Fault("BN statistics reset", "the compiled model's checkpoint", "fidelity", "FAIL",
          ProblemCode.LOGITS_DIFFER, _reset_statistics),
    Fault("Weights of another network", "the checkpoint", "loading", "error",
          "does not take these weights", _weights_of_another, "accepted"),
    Fault("Weights that are not the published file", "the checkpoint", "loading", "error",
          "is not the file that the catalog means", _other_file, "accepted"),
    Fault("Weights replaced while they are exported", "the checkpoint", "loading", "error",
          "changed while it was used", _changed_meanwhile, "accepted"),
    Fault("One weight tensor perturbed", _OM, "fidelity", "FAIL", ProblemCode.LOGITS_DIFFER,
          _compiled(perturb)),
    Fault("Two layers' weights exchanged", _OM, "fidelity", "FAIL", ProblemCode.LOGITS_DIFFER,
          _compiled(exchange)),
    Fault("One weight tensor perturbed by the exporter", "`torch.onnx.export`", "build", "error",
          "computes something else than eager PyTorch", _exporter, "accepted"),
    Fault("One weight tensor perturbed by the simplifier", "`onnxsim.simplify`", "build", "error",
          "computes something else", _simplifier, "accepted"),
    Fault("ONNX file of another model", "`--onnx`", "build", "error", "has shape [None, 1000]",
          _given_onnx, "accepted"),
    Fault("Compiled file of another model with the same tensors", _OM, "fidelity", "FAIL",
          ProblemCode.LOGITS_DIFFER, _compiled_of(batch=BATCH)),
    Fault("Compiled file of another batch size", _OM, "session", "error",
          "another batch size's", _compiled_of(batch=16)),
    Fault("A cached artifact of old weights", "the checkpoint, between two runs", "build",
          "rebuilt", "for the new weights", _old_weights, "from the store"),
    Fault("A cached artifact of old weights under the key of the new", _STORE, "build", "rebuilt",
          "other inputs than its key", _stored(_under_another_key), "from the store"),
    Fault("A truncated artifact", _STORE, "build", "rebuilt", "has 5000 bytes instead of",
          _damaged(lambda data: data[:5000]), "from the store"),
    Fault("Cached crops of another resize", "`baselines.yaml`, between two runs", "build",
          "rebuilt", "other chunks", _crops, "from the store"),
    Fault("One bit of an artifact turned", _STORE, "build", "rebuilt",
          "not those that were published", _damaged(_flip), "from the store"),
)  # fmt: skip
