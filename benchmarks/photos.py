"""Generated JPEGs of the size that ImageNet's have: 500 x 375 pixels, about 100 kB.

    python benchmarks/photos.py FOLDER [--count 2000]

Shading, textures of several scales and noise: what a decoder works on, and what compresses as a
photograph does. A file that is there already is kept. The order and the number of processes
change no byte.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (500, 375)  # every fourth one stands upright
QUALITY = 92
# Side of a cell in pixels, and strength in grey levels.
_SCALES = ((125, 60.0), (25, 30.0), (5, 16.0))
_NOISE = 10.0


def name_of(index: int) -> str:
    """File name of image `index`, counted from 0, as in ImageNet's validation set."""
    return f"ILSVRC2012_val_{index + 1:08d}.JPEG"


def photo(index: int) -> Image.Image:
    """Image `index`."""
    rng = np.random.default_rng((20, index))
    width, height = SIZE if index % 4 else SIZE[::-1]
    total = np.full((height, width, 3), 128.0, np.float32)
    for cell, strength in _SCALES:
        shape = (height // cell + 2, width // cell + 2, 3)
        cells = np.clip(rng.normal(128, strength, shape), 0, 255).astype(np.uint8)
        smooth = Image.fromarray(cells).resize((width, height), Image.Resampling.BICUBIC)
        total += np.asarray(smooth, np.float32) - 128
    # The same noise in every channel, as a sensor's mostly is.
    total += rng.normal(0, _NOISE, (height, width, 1)).astype(np.float32)
    return Image.fromarray(np.clip(total, 0, 255).astype(np.uint8))


def _write(job: tuple[Path, Iterable[int]]) -> int:
    folder, indices = job
    size = 0
    for index in indices:
        file = folder / name_of(index)
        if not file.exists():
            part = file.with_suffix(".part")
            photo(index).save(part, "JPEG", quality=QUALITY)
            part.rename(file)
        size += file.stat().st_size
    return size


def write_photos(folder: Path, count: int) -> list[Path]:
    """The first `count` images in `folder`, made where they are missing."""
    folder.mkdir(parents=True, exist_ok=True)
    workers = len(os.sched_getaffinity(0))
    with ProcessPoolExecutor(workers) as pool:
        size = sum(pool.map(_write, [(folder, range(i, count, workers)) for i in range(workers)]))
    print(f"{count} images of {size / count / 1000:.0f} kB on average in {folder}", flush=True)
    return [folder / name_of(index) for index in range(count)]


def main() -> None:
    """Write the images that the command line asks for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=2000)
    args = parser.parse_args()
    write_photos(args.folder, args.count)


if __name__ == "__main__":
    main()
