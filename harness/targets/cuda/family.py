"""The family `cuda`: ONNX Runtime on an NVIDIA GPU."""

from harness.base.families import Family

FAMILY = Family("harness.targets.cuda", "cuda", "CUDA", ("cuda",))
