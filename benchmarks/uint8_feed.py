"""How fast crops come to a model that normalises by itself (AIPP), beside a bare memory copy.

    python benchmarks/uint8_feed.py [--images 2000] [--rounds 9]

Crops in the store go as they lie into the three inputs of a session, `uint8[B, 224, 224, 3]`;
nothing is inferred. The other side copies as many bytes from memory to the same place, one batch
after another, in one thread. Both in turns, in this call. 22,500 a second is more than the fastest
figure of any edition of a guide (SqueezeNet1_1 on a 310P3).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.feed import STEPS, Table, image_set
from benchmarks.photos import write_photos
from harness.base.store import Store
from harness.images.crops import Crops
from harness.images.feed import Feed

BATCH_SIZES = (1, 16, 64)
GOAL = 22_500


def rate(images: int, step: Callable[[], None]) -> float:
    """Images a second."""
    began = time.perf_counter()
    step()
    return images / (time.perf_counter() - began)


def measure(table: Table, feed: Feed, rounds: int) -> None:
    """Add the rows of one batch size."""
    images, size, batch = feed.images, feed.crops.size, feed.batch_size
    slots = [np.zeros((batch, size, size, 3), np.uint8) for _ in range(3)]
    source = np.random.default_rng(1).integers(0, 256, (images, size, size, 3), np.uint8)

    def fed() -> None:
        with feed.running():
            for number, one in enumerate(feed):
                one.fill(slots[number % 3])

    def bare() -> None:
        for number, start in enumerate(range(0, images, batch)):
            rows = source[start : start + batch]
            np.copyto(slots[number % 3][: len(rows)], rows)

    fed()  # decodes and verifies
    pairs = []
    for number in range(rounds):
        steps = (fed, bare) if number % 2 else (bare, fed)
        rates = {step: rate(images, step) for step in steps}
        pairs.append((rates[fed], rates[bare]))
    what = f"warm feed of crops at batch {batch}"
    table.add(f"{what}; a bare copy", pairs, "images/s", "")
    table.add(f"{what}; {GOAL:,}", [(one, GOAL) for one, _ in pairs], "images/s", "≥ 1")


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--photos", type=Path, default=Path(tempfile.gettempdir()) / "photos")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    images = image_set(args.photos, write_photos(args.photos, args.images))
    table = Table()
    table.row("what; beside what | the harness | the other | ratio, median | range | goal")
    table.row("--- | ---: | ---: | ---: | --- | ---")
    with tempfile.TemporaryDirectory() as store:
        for batch in BATCH_SIZES:
            crops = Crops(Store(Path(store)), images, STEPS)
            measure(table, Feed(crops, STEPS.normalize, batch), args.rounds)


if __name__ == "__main__":
    main()
