"""The stages of a case, as one enum: errors, timings, logs, artifacts and causes use its members.

`doing` is what a terminal or a page says while the stage runs, `makes` what it leaves in the store.
"""

from __future__ import annotations

from enum import StrEnum


class Stage(StrEnum):
    """One step of a case, or the part of the harness that an error came from.

    The value is what records, log files, store folders and `known_failures` contain.
    """

    doing: str
    makes: str

    def __new__(cls, value: str, doing: str = "", makes: str = "") -> Stage:
        member = str.__new__(cls, value)
        member._value_ = value
        member.doing = doing
        member.makes = makes
        return member

    # Before there is a case.
    CONFIGURATION = "configuration", "read the options"
    CATALOG = "catalog", "read the catalog"
    NETWORK = "network", "find the network"
    # Inputs.
    DATA = "data", "find images", "generated images"
    CHECKPOINT = "checkpoint", "get the checkpoint", "checkpoint"
    STANDIN = "standin", "make stand-in weights", "stand-in weights"
    CROPS = "crops", "decode images", "cropped images"
    # The chain.
    EXPORT = "export", "export", "ONNX file"
    SIMPLIFY = "simplify", "simplify", "simplified ONNX file"
    COMPILE = "compile", "compile", "compiled model"
    # References.
    EAGER = "eager", "run eager PyTorch", "predictions of eager PyTorch"
    PROBE = "probe", "run the ONNX model", "outputs of the ONNX model"
    # On the device.
    DEVICE = "device", "wait for the device"
    LOAD = "load", "load"
    LOAD_EAGER = "load-eager", "load eager PyTorch"
    FEED = "feed", "wait for images"
    VERIFY = "verify", "verify images", "digests of images"
    INFER = "infer", "infer images"
    TIME = "time", "time executions"
    # Afterwards.
    VERDICT = "verdict", "judge"
    DIAGNOSE = "diagnose", "diagnose"
    # The machinery.
    REHEARSAL = "rehearsal", "check the stand-ins"
    STORE = "store", "use the store"
    RECORDS = "records", "write records"
    WORKER = "worker", "run a pytest worker"
    HARNESS = "harness", "run the harness"
