"""Eager PyTorch on an NPU, with the vendor's torch_npu; run in the worker of the eager pass."""

from importlib import import_module


def use() -> str:
    """Load torch_npu; returns PyTorch's name of the one NPU that this process sees.

    Convolutions compute in hf32 otherwise, with the mantissa of float16 (torch_npu's manual:
    `conv.allow_hf32` is True by default): that would be no reference of float16.
    """
    npu = import_module("torch_npu").npu
    npu.set_compile_mode(jit_compile=False)  # else each operator is compiled for minutes
    npu.conv.allow_hf32 = False
    npu.matmul.allow_hf32 = False
    return "npu:0"
