"""A stand-in for CANN's `atc`: checks its arguments as the real one does, and writes an `.om`.

Known of the real one: what it prints, its return codes (0, 255), its error codes' forms in three
generations, the place of its output. Which checks come first is not known.
"""

from __future__ import annotations

import os
import platform
import re
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from harness.simulator import om
from harness.simulator.config import SimulatorConfig
from harness.simulator.host import Host, hang

FAILED = 255  # -1, as a shell sees it
_REQUIRED = ("framework", "model", "output", "soc_version")
_NOT_SIMULATED = ("dynamic_batch_size", "dynamic_image_size", "dynamic_dims", "insert_op_conf")
_KEEPS_FLOAT32 = ("force_fp32", "must_keep_origin_dtype")
_CHOICES: Mapping[str, str] = {
    "framework": "5",  # ONNX
    "soc_version": "Ascend310 Ascend310P1 Ascend310P3 Ascend910A Ascend910B3",
    "log": "debug info warning error null",
    "input_format": "NCHW NHWC ND NCDHW NDHWC",
    "precision_mode": "force_fp16 force_fp32 cube_fp16in_fp32out allow_fp32_to_fp16 "
    "must_keep_origin_dtype allow_mix_precision",
    "enable_small_channel": "0 1",
    "auto_tune_mode": "RL,GA RL GA",
}
_FLAGS = (
    "aicore_num auto_tune_mode buffer_optimize compression_optimize_conf core_type "
    "customize_dtypes debug_dir deterministic disable_reuse_memory display_model_info "
    "dynamic_batch_size dynamic_dims dynamic_image_size enable_compress_weight "
    "enable_scope_fusion_passes enable_single_stream enable_small_channel framework "
    "fusion_switch_file help host_env_cpu host_env_os input_format input_fp16_nodes "
    "input_shape input_shape_range insert_op_conf is_input_adjust_hw_layout "
    "is_output_adjust_hw_layout json keep_dtype log mdl_bank_path mode model modify_mixlist "
    "om op_bank_path op_bank_update op_compiler_cache_dir op_compiler_cache_mode "
    "op_debug_level op_name_map op_precision_mode op_select_implmode optypelist_for_implmode "
    "out_nodes output output_type precision_mode precision_mode_v2 save_original_model "
    "singleop soc_version sparsity status_check tiling_mode weight"
)
_HELP = """usage: atc <args>
generate offline model example:
atc --model=./model.onnx --framework=5 --output=./model --soc_version=<soc_version>
"""


class AtcError(Exception):
    """What atc ends with: an error code (empty when it has none) and its text."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


def main(argv: Sequence[str], host: Host | None = None) -> int:
    """Compile as the arguments say; everything is printed to stdout."""
    host = host or Host.load()
    host.log_call("atc", argv)
    try:
        flags = _parse(argv)
        if "help" in flags:
            sys.stdout.write(_HELP)
            return 0
        _say("ATC start working now, please wait for a moment.")
        if host.strikes("atc-hang"):
            hang()
        began = time.monotonic()
        _check(flags, host.config)
        if host.strikes("unsupported-operator"):
            raise AtcError(
                "EZ3002",
                "Optype [EyeLike] of Ops kernel [AIcoreEngine] is unsupported. "
                "Reason: [dynamic shape check]: op type EyeLike is not found in this op store.",
            )
        _compile(flags, host)
        time.sleep(max(0.0, host.config.atc_seconds - (time.monotonic() - began)))
    except AtcError as error:
        _say(
            "ATC run failed, Please check the detail log, Try 'atc --help' for more information\n"
            + coded(error.code, error.text, host.config)
        )
        return FAILED
    _say("...\nATC run success, welcome to the next use.")
    return 0


def coded(code: str, text: str, config: SimulatorConfig) -> str:
    """An error as this generation of the toolkit prints it."""
    if not code:
        return text
    if config.cann_version >= (8, 5):
        title = "Unsupported_Operator" if code.startswith("EZ") else "Invalid_Argument"
        return f"{title}({code}): {text}"
    if config.cann_version >= (8, 0):
        now = datetime.now()
        return (
            f"{code}: [PID: {os.getpid()}] {now:%Y-%m-%d-%H:%M:%S}."
            f"{now.microsecond // 1000:03d}.{now.microsecond % 1000:03d} {text}"
        )
    return f"{code}: {text}"


def _say(text: str) -> None:
    print(text, flush=True)


def _invalid(flag: str, value: str, reason: str) -> AtcError:
    return AtcError(
        "E10001", f"Value [{value}] for parameter [{flag}] is invalid. Reason: {reason}"
    )


def _parse(argv: Sequence[str]) -> dict[str, str]:
    flags: dict[str, str] = {}
    words = list(argv)
    while words:
        word = words.pop(0)
        match = re.fullmatch(r"--?([A-Za-z_0-9]+)(=(.*))?", word, re.DOTALL)
        if not match:
            raise AtcError("", f"ERROR: unexpected argument '{word}'")
        name, value = match[1], match[3]
        if name not in _FLAGS.split():
            raise AtcError("", f"ERROR: unknown command line flag '{name}'")
        if value is None:
            if name == "help":
                value = "true"
            elif words:
                value = words.pop(0)
            else:
                raise AtcError("", f"ERROR: flag '--{name}' is missing its argument")
        flags[name] = value
    return flags


def _check(flags: Mapping[str, str], config: SimulatorConfig) -> None:
    for name in _REQUIRED:
        if not flags.get(name):
            raise AtcError(
                "E10007",
                f"[--{name}] is required. Possible Cause: The parameter [--{name}] is not set.",
            )
    for name in ("model", "output"):
        if not re.fullmatch(r"[A-Za-z0-9_./\-一-龥]+", flags[name]):
            raise _invalid(
                f"--{name}", flags[name], "the path may have letters, digits, '_', '.' and '-'"
            )
    if not Path(flags["model"]).is_file():
        raise _invalid("--model", flags["model"], "the file does not exist")
    output = Path(flags["output"])
    if flags["output"].endswith("/") or output.is_dir():
        raise _invalid("--output", flags["output"], "it names a folder, not a file")
    if not output.absolute().parent.is_dir():
        raise _invalid("--output", flags["output"], "the folder does not exist")
    if "auto_tune_mode" in flags and not config.auto_tune:
        raise _invalid(
            "--auto_tune_mode",
            flags["auto_tune_mode"],
            "The Auto Tune function has been deprecated. Please use the AOE tool for tuning.",
        )
    for name, known in _CHOICES.items():
        if name in flags and flags[name] not in known.split():
            raise _invalid(f"--{name}", flags[name], f"it must be one of: {known}")
    if "precision_mode" in flags and "precision_mode_v2" in flags:
        raise AtcError(
            "E10054", "[--precision_mode] and [--precision_mode_v2] cannot be set together."
        )
    for name in _NOT_SIMULATED:
        if name in flags:
            raise _invalid(f"--{name}", flags[name], "it is not simulated")


def _compile(flags: Mapping[str, str], host: Host) -> None:
    config = host.config
    source = Path(flags["model"])
    model, input, outputs = load_model(source, flags.get("input_shape", ""))
    precision = flags.get("precision_mode", "force_fp16")
    if config.float16 and precision not in _KEEPS_FLOAT32:
        from onnxruntime.transformers.float16 import convert_float_to_float16

        model = convert_float_to_float16(model, keep_io_types=True, disable_shape_infer=True)
    stem = flags["output"]
    suffix = f"_linux_{platform.machine()}.om" if config.om_suffix else ".om"
    output = Path(stem + suffix)
    if host.strikes("stale-files"):
        return
    om.write(
        output,
        model.SerializeToString(),
        name=Path(stem).name,
        batch=input.shape[0],
        inputs=(input,),
        outputs=outputs,
        soc_version=flags["soc_version"],
        cann=config.cann,
        precision=precision,
        tuning=flags.get("auto_tune_mode", "none"),
    )
    if host.strikes("truncated-om"):
        os.truncate(output, output.stat().st_size * 3 // 5)


def load_model(source: Path, shape: str) -> tuple[Any, om.Tensor, tuple[om.Tensor, ...]]:
    """Return the model with its input's sides as `--input_shape` says, its input and outputs.

    Raises:
        AtcError: it cannot be read, or the shape does not fit it.
    """
    import onnx

    try:
        model = onnx.load(str(source))
    except Exception as error:
        raise AtcError(
            "E16004", f"Failed to parse the ONNX model: {type(error).__name__}"
        ) from None
    weights = {weight.name for weight in model.graph.initializer}
    values = [value for value in model.graph.input if value.name not in weights]
    if len(values) != 1:
        raise AtcError("E16004", f"Failed to parse the ONNX model: it has {len(values)} inputs")
    sides = values[0].type.tensor_type.shape.dim
    have = [side.dim_value if side.HasField("dim_value") else -1 for side in sides]
    for side, want in zip(sides, _wanted(shape, values[0].name, have), strict=True):
        side.dim_value = want
    if -1 in have:
        for value in model.graph.output:  # their batch is the input's now
            for side in value.type.tensor_type.shape.dim:
                if not side.HasField("dim_value"):
                    side.Clear()
        model = onnx.shape_inference.infer_shapes(model)
    input = _tensor(values[0])
    return model, input, _outputs(model, input)


def _wanted(text: str, name: str, have: Sequence[int]) -> list[int]:
    """Return the input's sides; `have` are the model's, -1 where it leaves one open."""
    flag = "--input_shape"
    given = re.fullmatch(r"(.+):(-?\d+(?:,-?\d+)*)", text)
    if text and given is None:
        raise _invalid(flag, text, 'it must be like "input_name1:n1,c1,h1,w1"')
    if given is not None and given[1] != name:
        raise _invalid(flag, given[1], f"the model has no such input; its inputs are [{name}]")
    wanted = [int(side) for side in given[2].split(",")] if given is not None else [*have]
    if given is not None and min(wanted) <= 0:
        raise _invalid(flag, text, "-1 needs a dynamic flag")
    if len(wanted) != len(have) or any(a not in (-1, b) for a, b in zip(have, wanted, strict=True)):
        reason = f"the shape of input [{name}] in the model is {[*have]}"
        raise _invalid(flag, f"{name}:{','.join(map(str, wanted))}", reason)
    if -1 in wanted:
        raise _invalid(name, "-1", "maybe you should set input_shape to specify its shape")
    return wanted


def _tensor(value: Any) -> om.Tensor:
    import numpy as np
    import onnx

    tensor = value.type.tensor_type
    dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)).name
    return om.Tensor(value.name, tuple(side.dim_value for side in tensor.shape.dim), dtype)


def _outputs(model: Any, input: om.Tensor) -> tuple[om.Tensor, ...]:
    outputs = tuple(_tensor(value) for value in model.graph.output)
    if all(tensor.shape and 0 not in tensor.shape for tensor in outputs):
        return outputs
    # Shape inference left a side open: one execution tells.
    import numpy as np

    from harness.simulator.chip import open_onnxruntime

    session = open_onnxruntime(model.SerializeToString(), 1)
    results = session.run(None, {input.name: np.zeros(input.shape, input.dtype)})
    return tuple(
        om.Tensor(tensor.name, tuple(result.shape), tensor.dtype)
        for tensor, result in zip(outputs, results, strict=True)
    )
