"""What a pass predicted for each image, kept as CSV in a run's directory.

Columns: `image`, `label`, `eager` (the reference's best class), `top1`..`top5` and `logit1`..
`logit5`; label and classes are indices of the network's outputs.
"""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path

from harness.base.errors import RecordError
from harness.base.files import open_regular


@dataclass(frozen=True, slots=True)
class Prediction:
    """What one pass said of one image: indices of the network's outputs."""

    label: int
    best: int
    score: float | None = None  # the best class's logit, where it was kept
    eager: int | None = None  # eager PyTorch's best class, where there was an eager pass

    @property
    def right(self) -> bool:
        return self.label == self.best


def read_predictions(directory: Path, file: str) -> dict[str, Prediction]:
    """Read the predictions of a case, by the image's name. Raises `RecordError`: the file is
    absent, empty, outside of the run, or no such file.
    """
    path = directory / file
    # A NUL is in the name of no file; `resolve` would raise ValueError.
    if "\0" in file or not path.resolve().is_relative_to(directory.resolve()):
        raise RecordError(f"predictions outside of the run: {file!r}")
    predictions: dict[str, Prediction] = {}
    remedy = "run the case again; its score is in the records"
    try:
        with open(open_regular(path), newline="", encoding="utf-8") as stream:
            for row in csv.DictReader(stream, strict=True):
                image = row["image"]
                if image is None or image in predictions:
                    raise RecordError(f"{file}: {image!r} is there twice", remedy=remedy)
                score = float(row.get("logit1") or "nan")
                predictions[image] = Prediction(
                    label=int(row["label"]),
                    best=int(row["top1"]),
                    score=score if math.isfinite(score) else None,
                    eager=int(row["eager"]) if row.get("eager") else None,
                )
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise RecordError(f"{file}: {why}", remedy=remedy) from error
    except (KeyError, ValueError, TypeError, csv.Error) as error:
        line = len(predictions) + 2
        raise RecordError(
            f"{file}: line {line} is no prediction: {error}", remedy=remedy
        ) from error
    if not predictions:
        raise RecordError(f"{file}: no predictions", remedy=remedy)
    return predictions
