"""How far a wrong model moves the outputs that a throughput's output check compares.

    python benchmarks/output_check.py [--models NAME,...] [--store DIR]

Each model's stand-in computes four images of the output check, and four of white noise: as they
are, and with red and blue exchanged, which is what a first convolution in BGR order does. Another
input's outputs are given besides: nearer to it no bound sees a wrong row.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness.catalog.load import load_catalogs
from harness.catalog.steps import Preprocessing
from harness.images import preprocess
from harness.plan import Case
from harness.settings import resolve
from harness.stages import eager, probe
from harness.stages.inference import outputs_of
from harness.stages.pipeline import Workbench
from harness.targets.protocol import Float32

IMAGES = 4
ROW = "| {model} | {inputs} | {swapped:.3f} | {nearest:.3f} to {farthest:.3f} |"


def inputs_of(steps: Preprocessing) -> dict[str, Float32]:
    """Return `float32[4, 3, S, S]` of each kind of input."""
    crops = probe.draw(steps, IMAGES)
    images = preprocess.normalize(crops, preprocess.normalization_table(steps.normalize))
    noise = np.random.default_rng(probe.SEED).standard_normal(images.shape, np.float32)
    return {"noise": noise, "images": images}


def main() -> None:
    """Run the stand-ins and print a Markdown table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", help="of baselines.yaml (default: all)")
    parser.add_argument("--store", help="an artifact store (default: a new one)")
    given = parser.parse_args()
    print("| model | inputs | channels exchanged, relative L2 | another input's outputs |")
    print("| --- | --- | ---: | ---: |")
    with tempfile.TemporaryDirectory(prefix="harness-benchmark-") as work:
        store = {"store": given.store or f"{work}/store", "leases": f"{work}/leases"}
        chosen = resolve({"rehearsal": True, **store}, environment={})
        catalog = load_catalogs(chosen.catalog)
        bench = Workbench(chosen, catalog, Path(work) / "run")
        for model in given.models.split(",") if given.models else catalog.models:
            case = bench.for_case(Case(model, IMAGES, "cpu", "throughput"))
            weights, log = case.checkpoint(), Path(work) / "log"
            with eager.open_eager(case, weights, IMAGES, log, lease_fds=()) as session:
                for kind, images in inputs_of(case.model.preprocessing).items():
                    right = outputs_of(session, images).astype(np.float64)
                    wrong = outputs_of(session, np.ascontiguousarray(images[:, ::-1]))
                    apart = np.linalg.norm(right[:, None] - right, axis=2)
                    apart = (apart / np.linalg.norm(right, axis=1))[~np.eye(IMAGES, dtype=bool)]
                    swapped = float(np.linalg.norm(wrong - right) / np.linalg.norm(right))
                    ends = {"nearest": apart.min(), "farthest": apart.max()}
                    print(ROW.format(model=model, inputs=kind, swapped=swapped, **ends))


if __name__ == "__main__":
    main()
