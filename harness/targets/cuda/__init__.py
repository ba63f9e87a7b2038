"""NVIDIA GPUs, by ONNX Runtime."""
