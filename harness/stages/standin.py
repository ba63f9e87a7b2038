"""Stage STANDIN: seeded weights in the original layout, made useful without a download.

A network with random weights predicts one class for every image and would hide most mistakes.
A stand-in gets He initialisation (fan-in), batch-norm statistics from generated images, and a
last layer fitted in closed form (ridge regression on standardised penultimate features), so that
it tells the generated classes apart; residual branches get a small gain where `_damp` says so. It
says nothing about any published figure. The middle of an image is enough to fit it: the classes
are textures.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from harness.base.errors import RehearsalError
from harness.base.host import required_version
from harness.base.stages import Stage
from harness.base.store import source_digest

if TYPE_CHECKING:  # the job below runs in a child process that needs none of these
    from harness.stages.context import CaseContext

SEED = 2012
IMAGES_PER_CLASS = 3
CALIBRATION_IMAGES = 32
# Of an image of S pixels a side, the middle 3/4 S are used, but at least and at most so many.
# InceptionV4 takes statistics from the edges, too: at half a side its stand-in knows one class.
SIDES = (160, 224)
_BATCH = 8
_RIDGE = 0.1
# Scores of a fit to one-hot targets lie between 0 and 1; logits of classifiers are wider.
_LOGIT_SCALE = 10.0
_RESIDUAL_GAIN = 0.25
# With a bias fewer units sit at the edge of their ReLU: a deep network without residual branches
# (InceptionV4) amplifies rounding less.
_NORM_BIAS = 0.5


@dataclass(frozen=True)
class Standin:
    """A stand-in checkpoint, called as the original one is."""

    case: CaseContext
    stage: ClassVar[Stage] = Stage.STANDIN

    def inputs(self) -> Mapping[str, Any]:
        from harness.networks import library

        return {
            **self._arguments(),
            "file": self.case.model.checkpoint.file,
            "library": library.library_version(self.case.model.network.source),
            "torch": required_version("torch"),
            "pillow": required_version("pillow"),
            "numpy": required_version("numpy"),
            "recipe": source_digest(
                "harness.stages.standin",
                "harness.images.generated",
                "harness.images.preprocess",
                "harness.catalog.steps",
                "harness.networks.layouts",
                "harness.networks.library",
                "harness.networks.weights",
            ),
        }

    def build(self, staging: Path) -> str:
        output = str(staging / self.case.model.checkpoint.file)
        return self.case.job(
            Stage.STANDIN,
            "harness.stages.standin:make_standin",
            {**self._arguments(), "output": output},
            RehearsalError,
            1200.0,
        )

    def _arguments(self) -> dict[str, Any]:
        model = self.case.model
        return {
            **self.case.network,
            "preprocessing": model.preprocessing.model_dump(),
            "classes": model.classes,
            "label_offset": model.label_offset,
        }


def make_standin(
    *,
    network: str,
    arguments: Mapping[str, Any],
    layout: str,
    preprocessing: Mapping[str, Any],
    classes: int,
    label_offset: int,
    output: str,
) -> dict[str, Any]:
    """Job: write a stand-in checkpoint for one model to `output`, in the original layout.

    Raises `RehearsalError`: the network has no last layer that could be fitted.
    """
    import numpy as np

    from harness.catalog.steps import Preprocessing
    from harness.images import generated, preprocess
    from harness.networks import library, weights

    torch = library.import_torch()
    torch.manual_seed(SEED)
    torch.use_deterministic_algorithms(True, warn_only=True)
    # It would fill every fresh tensor with NaN first; nothing here reads one.
    torch.utils.deterministic.fill_uninitialized_memory = False
    module: Any = library.build_network(network, arguments)
    _initialise(torch, module)
    head_name, head = _head(torch, module, classes)

    steps = Preprocessing.model_validate(preprocessing)
    table = preprocess.normalization_table(steps.normalize)
    crops, labels = [], []
    for image, label in generated.training_images(IMAGES_PER_CLASS, SEED):
        crops.append(preprocess.crop(image, steps))
        labels.append(label)
    order = np.random.default_rng(SEED).permutation(len(crops))
    pixels, targets = np.stack(crops)[order], np.asarray(labels)[order]
    module = module.to(memory_format=torch.channels_last).eval()

    def batches(images: Any) -> Iterator[Any]:
        for start in range(0, len(images), _BATCH):
            normal = preprocess.normalize(images[start : start + _BATCH], table)
            yield torch.from_numpy(normal).contiguous(memory_format=torch.channels_last)

    with torch.no_grad():  # what a network keeps of it must do for `_damp`, which needs gradients
        pixels = _middle(pixels) if _takes(module, next(batches(_middle(pixels[:1])))) else pixels
    _damp(torch, module, next(batches(pixels[:1])))
    with torch.inference_mode():
        _calibrate(torch, module, batches(pixels[:CALIBRATION_IMAGES]))
        features, floor = _fit_head(torch, module, head, batches(pixels), targets, label_offset)
    state = {name: value.contiguous() for name, value in module.state_dict().items()}
    weights.save_checkpoint(state, layout, Path(output))
    return {"head": head_name, "features": features, "shift": floor, "images": len(pixels)}


def _initialise(torch: Any, module: Any) -> None:
    for part in module.modules():
        if isinstance(part, torch.nn.Conv2d | torch.nn.Linear):
            torch.nn.init.kaiming_normal_(part.weight, mode="fan_in", nonlinearity="relu")
            if part.bias is not None:
                torch.nn.init.zeros_(part.bias)
        elif isinstance(part, torch.nn.modules.batchnorm._BatchNorm):
            # timm starts residual branches at zero: they would not matter then. At one, a deep
            # network amplifies rounding until float32 and float64 disagree (SE-ResNeXt101).
            starts_at_zero = bool((part.weight == 0).all())
            torch.nn.init.constant_(part.weight, _RESIDUAL_GAIN if starts_at_zero else 1.0)
            torch.nn.init.constant_(part.bias, _NORM_BIAS)


def _damp(torch: Any, module: Any, images: Any) -> None:
    """Give a residual branch its gain where the sum goes on without an activation.

    Such trunks (linear bottlenecks: MNASNet, EfficientNet) lose what an image shows to a random
    branch of equal weight, or amplify rounding. The graph of gradients says what feeds what.
    """
    for node in _graph(module(images).grad_fn):
        added = node.next_functions[0][0] if node.name().startswith("Convolution") else None
        if added is None or added.name() != "AddBackward0":
            continue
        one, other = (end for end, _ in added.next_functions)
        for branch, trunk in ((one, other), (other, one)):
            if branch and branch.name().startswith("NativeBatchNorm") and trunk in _graph(branch):
                gain = branch.next_functions[1][0]
                if gain is not None:  # else the network has frozen it
                    torch.nn.init.constant_(gain.variable, _RESIDUAL_GAIN)


def _graph(node: Any) -> set[Any]:
    """Return a node of the graph of gradients with all that it depends on."""
    found, todo = set(), [node]
    while todo:
        one = todo.pop()
        if one is not None and one not in found:
            found.add(one)
            todo += [source for source, _ in one.next_functions]
    return found


def _head(torch: Any, module: Any, classes: int) -> tuple[str, Any]:
    """The last layer with one output for each class: a Linear or a 1x1 convolution."""
    heads = [
        (name, part)
        for name, part in module.named_modules()
        if isinstance(part, torch.nn.Linear | torch.nn.Conv2d) and len(part.weight) == classes
    ]
    if not heads:
        raise RehearsalError(
            f"the network has no Linear or Conv2d layer with {classes} outputs",
            remedy="`classes` in baselines.yaml must be the number of the network's outputs",
        )
    return heads[-1]


def _middle(pixels: Any) -> Any:
    """Return the middle of crops `uint8[N, S, S, 3]`, see `SIDES`."""
    size = pixels.shape[1]
    side = min(size, SIDES[1], max(SIDES[0], 3 * size // 4))
    edge = (size - side) // 2
    return pixels[:, edge : edge + side, edge : edge + side]


def _takes(module: Any, images: Any) -> bool:
    """Return whether a network takes images of this size: a transformer has one size alone."""
    try:
        module(images)
    except Exception:  # whatever a library's network says of it
        return False
    return True


def _calibrate(torch: Any, module: Any, batches: Iterator[Any]) -> None:
    """Set the statistics of batch norms to the plain mean over the batches."""
    norms = [m for m in module.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean
        norm.train()
    for images in batches if norms else ():
        module(images)
    module.eval()


def _fit_head(
    torch: Any, module: Any, head: Any, batches: Iterator[Any], targets: Any, label_offset: int
) -> tuple[int, float]:
    """Ridge regression of one-hot targets on pooled, standardised inputs of the last layer."""
    import numpy as np

    if head.bias is None:
        raise RehearsalError("the network's last layer has no bias; a stand-in cannot be fitted")
    pooled: list[Any] = []
    last: list[Any] = []

    def keep_input(_module: Any, inputs: tuple[Any, ...], _output: Any) -> None:
        value = inputs[0]
        last[:] = [value.clone()]
        pooled.append(value.mean(dim=(2, 3)) if value.dim() == 4 else value.clone())

    handle = head.register_forward_hook(keep_input)
    logits = [module(images) for images in batches]
    handle.remove()
    features = torch.cat(pooled).double()
    kinds, column = np.unique(targets, return_inverse=True)
    wanted = torch.nn.functional.one_hot(torch.from_numpy(column)).double()
    mean, std = features.mean(0), features.std(0)
    # A feature that hardly varies must not get a weight that amplifies rounding.
    scale = std + 0.1 * std.mean()
    scaled = (features - mean) / scale
    gram = scaled @ scaled.T / scaled.shape[1]
    ridge = _RIDGE * torch.eye(len(gram), dtype=torch.float64)
    dual = torch.linalg.solve(gram + ridge, wanted - wanted.mean(0))
    weights = (scaled.T @ dual / scaled.shape[1]).T / scale
    bias = wanted.mean(0) - weights @ mean
    head.weight.zero_()
    head.bias.zero_()
    rows = (kinds + label_offset).tolist()
    shape = (len(rows), *head.weight.shape[1:])
    head.weight[rows] = (_LOGIT_SCALE * weights).float().reshape(shape)
    head.bias[rows] = (_LOGIT_SCALE * bias).float()
    # SqueezeNet clips the last layer at zero before it pools: without a shift, most scores
    # would be lost. A network without such a clip shows negative logits and gets none.
    lowest = float(torch.quantile(head(last[0])[:, rows].flatten(), 0.05))
    clips = all(float(one.min()) >= 0.0 for one in logits)
    shift = max(0.0, -lowest) if clips else 0.0
    head.bias[rows] += shift
    return int(features.shape[1]), shift
