"""A stand-in CANN toolchain: atc, npu-smi, ais_bench and aclruntime, for hosts without.

`install` writes executables and Python modules into a folder, `environment` is that of a host that
"has" them; whatever drives the real tools then drives these, by the same code. They honour
the contracts that are known of several generations of the real tools (argument checks, messages,
files, permissions, exit codes), compute with ONNX Runtime, and can be told to misbehave.

What is not known of the real tools is not made up here to look known: docs/simulator.md
says where. Nothing that these tools measure says anything about an Ascend chip.
"""

from harness.simulator.config import SimulatorConfig, parse_config
from harness.simulator.host import never_struck
from harness.simulator.install import environment, install

__all__ = [
    "SimulatorConfig",
    "environment",
    "install",
    "never_struck",
    "parse_config",
]
