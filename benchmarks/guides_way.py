"""The accuracy pass as the deployment guides do it, well made: what the harness is compared with.

1. A script writes every image as a normalised float32 `.bin`, in as many processes as cores.
2. A tool reads these files, infers batches, and writes one text file of `%f ` for each image.
3. A script parses the text files and counts the hits.

The steps run one after the other, and everything between them goes through the disk.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime as ort
from PIL import Image

MEAN = np.array((0.485, 0.456, 0.406), np.float32)
STD = np.array((0.229, 0.224, 0.225), np.float32)


def _preprocess(job: tuple[list[str], str]) -> None:
    files, folder = job
    for file in files:
        image = Image.open(file).convert("RGB")
        width, height = image.size
        if width <= height:
            image = image.resize((256, int(256 * height / width)), Image.Resampling.BILINEAR)
        else:
            image = image.resize((int(256 * width / height), 256), Image.Resampling.BILINEAR)
        left, top = round((image.width - 224) / 2), round((image.height - 224) / 2)
        pixels = np.asarray(image.crop((left, top, left + 224, top + 224)), np.float32)
        values = ((pixels / np.float32(255) - MEAN) / STD).transpose(2, 0, 1)
        values.astype(np.float32).tofile(f"{folder}/{Path(file).stem}.bin")


def preprocess(files: list[Path], folder: Path) -> None:
    """Step 1: a `.bin` for each image."""
    folder.mkdir()
    workers = len(os.sched_getaffinity(0))
    names = [str(file) for file in files]
    parts = [(names[start : start + 32], str(folder)) for start in range(0, len(names), 32)]
    with ProcessPoolExecutor(workers) as pool:
        list(pool.map(_preprocess, parts))


def infer(model: Path, stems: list[str], source: Path, folder: Path, batch: int) -> None:
    """Step 2: a text file for each `.bin`."""
    folder.mkdir()
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = len(os.sched_getaffinity(0))
    session = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    images = np.zeros((batch, 3, 224, 224), np.float32)
    for start in range(0, len(stems), batch):
        part = stems[start : start + batch]
        for row, stem in enumerate(part):
            images[row] = np.fromfile(source / f"{stem}.bin", np.float32).reshape(3, 224, 224)
        logits = session.run(None, {name: images})[0]
        for stem, row_logits in zip(part, logits, strict=False):
            text = ("%f " * len(row_logits)) % tuple(row_logits.tolist())
            (folder / f"{stem}_1.txt").write_text(text)


def parse(labels: dict[str, int], folder: Path) -> float:
    """Step 3: top-1 in percent."""
    hits = 0
    for stem, label in labels.items():
        values = np.array((folder / f"{stem}_1.txt").read_text().split(), np.float32)
        hits += int(np.argsort(-values, kind="stable")[0]) == label
    return 100.0 * hits / len(labels)


def main() -> None:
    """All three steps; seconds, bytes on the disk and the score as JSON on the last line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("images", type=Path)
    parser.add_argument("model", type=Path, help="compiled ONNX file with a fixed batch")
    parser.add_argument("work", type=Path, help="folder for what is written")
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--batch", type=int, default=16)
    args = parser.parse_args()
    files = sorted(args.images.glob("*.JPEG"))[: args.count]
    labels = {file.stem: index % 1000 for index, file in enumerate(files)}
    times = [time.perf_counter()]
    preprocess(files, args.work / "bin")
    times.append(time.perf_counter())
    infer(args.model, list(labels), args.work / "bin", args.work / "txt", args.batch)
    times.append(time.perf_counter())
    top1 = parse(labels, args.work / "txt")
    times.append(time.perf_counter())
    written = sum(file.stat().st_size for file in args.work.rglob("*") if file.is_file())
    steps = [later - earlier for earlier, later in itertools.pairwise(times)]
    print(json.dumps({"seconds": steps, "bytes": written, "top1": top1}))


if __name__ == "__main__":
    main()
