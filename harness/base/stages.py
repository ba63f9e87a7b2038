"""What a reader calls the stages of a case and the artifacts that they make.

Records name a timed stage after the artifact that it made, or after the call that was timed. Pages
and terminals say for each stage what is done, in one form, and for each artifact what it is.
"""

from __future__ import annotations

from collections.abc import Mapping

STAGES: Mapping[str, str] = {
    "checkpoint": "get the checkpoint",
    "standin": "make stand-in weights",
    "onnx": "export",
    "simplified": "simplify",
    "compiled": "compile",
    "images": "find images",
    "crops": "decode images",
    "decode": "decode images",
    "wait for images": "wait for images",
    "verify images": "verify images",
    "eager": "run eager PyTorch",
    "probe": "run the ONNX model",
    "lease": "wait for the device",
    "open": "load",
    "open eager": "load eager PyTorch",
    "accuracy": "infer images",
    "throughput": "time executions",
    "diagnosis": "diagnose",
}
ARTIFACTS: Mapping[str, str] = {
    "checkpoint": "checkpoint",
    "standin": "stand-in weights",
    "onnx": "ONNX file",
    "simplified": "simplified ONNX file",
    "compiled": "compiled model",
    "eager": "predictions of eager PyTorch",
    "probe": "outputs of the ONNX model",
    "crops": "cropped images",
    "images": "generated images",
}
