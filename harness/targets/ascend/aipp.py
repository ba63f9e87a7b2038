"""The file that lets atc compile the normalisation into a model (AIPP), so that it takes crops.

The form is that of public guides of `--insert_op_conf` (SqueezeNet1_1 of CANN 6.0, msit's example
of a resnet18). The chip computes `(pixel - min_chn) * var_reci_chn` of each channel, counted after
`rbuv_swap_switch`; `mean_chn` is subtracted, too, and takes whole numbers alone.
"""

from __future__ import annotations

from harness.catalog.steps import Normalize

FILE = "aipp.config"
FLAG = f"--insert_op_conf={FILE}"


def config(normalize: Normalize, size: int) -> str:
    """Return the file for crops `uint8[B, size, size, 3]`, RGB: static, without a crop."""
    lines = [
        "aipp_mode: static",
        "input_format: RGB888_U8",
        f"src_image_size_w: {size}",
        f"src_image_size_h: {size}",
        "crop: false",
        "csc_switch: false",
        "rbuv_swap_switch: false",
        *(f"min_chn_{i}: {255 * mean:.15g}" for i, mean in enumerate(normalize.mean)),
        *(f"var_reci_chn_{i}: {1 / (255 * std):.15g}" for i, std in enumerate(normalize.std)),
    ]
    return "\n".join(["aipp_op{", *(f"    {line}" for line in lines), "}", ""])
