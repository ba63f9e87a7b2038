"""The family `cuda`: ONNX Runtime on an NVIDIA GPU."""

from harness.base.families import Family, GuideColumn

FAMILY = Family(
    "harness.targets.cuda",
    "cuda",
    ("cuda",),
    guide_columns=(GuideColumn("cuda", "T4", 1, product="T4"),),
)
