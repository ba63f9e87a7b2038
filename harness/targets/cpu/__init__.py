"""The host CPU, by ONNX Runtime."""
