"""Artifacts: the store, and the stages that make ONNX files and stand-ins."""
