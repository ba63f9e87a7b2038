"""The family `cpu`: ONNX Runtime on the host's processor."""

from harness.base.families import Family

FAMILY = Family("harness.targets.cpu", "cpu", ("cpu",), rehearses=True, ignores=("device",))
