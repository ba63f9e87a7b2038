"""What every session does with a batch that it is given."""

from __future__ import annotations

import numpy as np

from harness.base.errors import InferError
from harness.targets.protocol import Images, TensorSpec


def copy_batch(name: str, spec: TensorSpec, batch: Images, view: Images) -> None:
    """Copy a batch into a session's input.

    Raises:
        InferError: another shape or dtype than the input's.
    """
    if batch.shape != spec.shape or batch.dtype != spec.dtype:
        raise InferError(
            f"{name}: a batch of {batch.dtype}{list(batch.shape)} for the input {spec.name!r}, "
            f"which is {spec.dtype}{list(spec.shape)}",
            remedy="fill the last batch up to the model's batch size",
        )
    np.copyto(view, batch)
