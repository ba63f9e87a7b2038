"""Stand-ins for CANN's `atc` and `aoe`: check their arguments as the real ones do; an `.om`.

Known of the real one: what it prints, its return codes (0, 255), its error codes' forms in three
generations, the place of its output. Which checks come first is not known.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from harness.simulator import aipp, om
from harness.simulator.config import CHIPS, SimulatorConfig, major_minor
from harness.simulator.host import Host, ToolError, hang, parse_flags

FAILED = 255  # -1, as a shell sees it
_REQUIRED = ("framework", "model", "output", "soc_version")
_NOT_SIMULATED = ("dynamic_image_size", "dynamic_dims")
_KEEPS_FLOAT32 = {"force_fp32", "must_keep_origin_dtype", "origin"}
_MODULES = "numpy, decorator, attr, psutil, cffi, sympy, scipy, google.protobuf"
_CHOICES: Mapping[str, str] = {
    "framework": "5",  # ONNX
    "soc_version": " ".join(f"Ascend{chip}" for chip in CHIPS),
    "log": "debug info warning error null",
    "input_format": "NCHW NHWC ND NCDHW NDHWC",
    "precision_mode": "force_fp16 force_fp32 cube_fp16in_fp32out allow_fp32_to_fp16 "
    "must_keep_origin_dtype allow_mix_precision",
    "precision_mode_v2": "fp16 origin cube_fp16in_fp32out mixed_float16 mixed_bfloat16 mixed_hif8",
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
_AOE_FLAGS = "dynamic_batch_size framework input_format input_shape job_type model output"
_PATH = re.compile(r"[A-Za-z0-9_./\-一-龥]+")


class AtcError(ToolError):
    """What atc refuses, with its error code."""

    def __init__(self, error_code: str, text: str) -> None:
        super().__init__(text, FAILED)
        self.error_code = error_code


def main(argv: Sequence[str], host: Host) -> int:
    """Compile as the arguments say; everything is printed to stdout."""
    try:
        flags = parse_flags(argv, _FLAGS, FAILED)
        print("ATC start working now, please wait for a moment.", flush=True)
        if host.strikes("atc-hang"):
            hang()
        began = time.monotonic()
        _check(flags, host.config)
        if host.config.atc_python:
            _import_modules(host.config)
        if host.strikes("unsupported-operator"):
            raise AtcError(
                "EZ3002",
                "Optype [EyeLike] of Ops kernel [AIcoreEngine] is unsupported. "
                "Reason: [dynamic shape check]: op type EyeLike is not found in this op store.",
            )
        _compile(flags, host)
        time.sleep(max(0.0, host.config.atc_seconds - (time.monotonic() - began)))
    except ToolError as error:
        text = _coded(error, host.config) if isinstance(error, AtcError) else str(error)
        raise ToolError(
            "ATC run failed, Please check the detail log, Try 'atc --help' for more information\n"
            + text,
            FAILED,
        ) from None
    print("...\nATC run success, welcome to the next use.")
    return 0


def _coded(error: AtcError, config: SimulatorConfig) -> str:
    """Return an error as this generation of the toolkit prints it."""
    code, cann = error.error_code, major_minor(config.cann)
    if cann >= (8, 5):
        title = "Unsupported_Operator" if code.startswith("EZ") else "Invalid_Argument"
        return f"{title}({code}): {error}"
    if cann >= (8, 0):
        moment = datetime.now().strftime("%Y-%m-%d-%H:%M:%S.%f")
        return f"{code}: [PID: {os.getpid()}] {moment[:-3]}.{moment[-3:]} {error}"
    return f"{code}: {error}"


def _invalid(flag: str, value: str, reason: str) -> AtcError:
    return AtcError(
        "E10001", f"Value [{value}] for parameter [{flag}] is invalid. Reason: {reason}"
    )


def _check(flags: Mapping[str, str], config: SimulatorConfig) -> None:
    for name in _REQUIRED:
        if not flags.get(name):
            raise AtcError(
                "E10007",
                f"[--{name}] is required. Possible Cause: The parameter [--{name}] is not set.",
            )
    output = Path(flags["output"])
    for name, wrong, reason in (
        ("model", not _PATH.fullmatch(flags["model"]), "it may have letters, digits, _ . / -"),
        ("output", not _PATH.fullmatch(flags["output"]), "it may have letters, digits, _ . / -"),
        ("model", not Path(flags["model"]).is_file(), "the file does not exist"),
        ("output", output.is_dir(), "it names a folder, not a file"),
        ("output", not output.absolute().parent.is_dir(), "the folder does not exist"),
    ):
        if wrong:
            raise _invalid(f"--{name}", flags[name], reason)
    if "auto_tune_mode" in flags and major_minor(config.cann)[0] != 5:
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


def _import_modules(config: SimulatorConfig) -> None:
    """Import what the real one needs of the first `python3` on PATH. Its words: users' reports."""
    lines = f"import {_MODULES}" + "\nnumpy.float_" * (major_minor(config.cann) < (8, 5))
    python = shutil.which("python3")
    if python is None:
        raise AtcError("EC0010", "Failed to import Python module [there is no python3.].")
    done = subprocess.run([python, "-c", lines], capture_output=True, text=True, timeout=60)
    if done.returncode:
        reason = done.stderr.strip().rpartition("\n")[2]
        raise AtcError("EC0010", f"Failed to import Python module [{reason}.].")


def _compile(flags: Mapping[str, str], host: Host) -> None:
    config = host.config
    source = Path(flags["model"])
    wanted, sizes = _input_shape(flags)
    model, input, outputs = load_model(source, wanted)
    if conf := flags.get("insert_op_conf"):
        try:
            shape = aipp.insert(model, aipp.parse(Path(conf).read_text(encoding="ascii")))
        except (OSError, ValueError) as error:
            raise _invalid("--insert_op_conf", conf, str(error)) from None
        input = om.Tensor(input.name, shape, "uint8")
    modes = {flags.get("precision_mode"), flags.get("precision_mode_v2")}
    if config.float16 and not modes & _KEEPS_FLOAT32:
        from onnxruntime.transformers.float16 import convert_float_to_float16

        model = convert_float_to_float16(model, keep_io_types=True, disable_shape_infer=True)
    if sizes:
        input = om.Tensor(input.name, (-1, *input.shape[1:]), input.dtype)
        _open_batch_axis(model.graph)
    output = Path(flags["output"] + ".om")
    if host.strikes("stale-files"):
        return
    om.write(
        output,
        model.SerializeToString(),
        inputs=(input,),
        outputs=outputs,
        soc_version=flags["soc_version"],
        batch_sizes=sizes,
    )
    if host.strikes("truncated-om"):
        os.truncate(output, output.stat().st_size * 3 // 5)


def _input_shape(flags: Mapping[str, str]) -> tuple[str, tuple[int, ...]]:
    """Return `--input_shape`, at the largest of the batch sizes of `--dynamic_batch_size`, and
    these; none where the flag is not given.
    """
    shape, text = flags.get("input_shape", ""), flags.get("dynamic_batch_size")
    if text is None:
        return shape, ()
    sizes = tuple(int(one) if one.isdigit() else 0 for one in text.split(","))
    for wrong, reason in (
        (not 2 <= len(set(sizes)) <= 100, "it must have 2 to 100 different batch sizes"),
        (min(sizes) < 1, "a batch size is a whole number of at least 1"),
        (":-1," not in shape, "the first side in [--input_shape] must be -1"),
    ):
        if wrong:
            raise _invalid("--dynamic_batch_size", text, reason)
    return shape.replace(":-1,", f":{max(sizes)},"), sizes


def _open_batch_axis(graph: Any) -> None:
    """Let the model run at any batch size; the runtime takes no other than it was compiled for."""
    del graph.value_info[:]  # of one batch size
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "N"


def load_model(source: Path, shape: str) -> tuple[Any, om.Tensor, tuple[om.Tensor, ...]]:
    """Return the model with its input's sides as `--input_shape` says, its input and outputs.
    Raises `AtcError`: it cannot be read, or the shape does not fit it.
    """
    import onnx

    try:
        model = onnx.load(str(source))
        weights = {weight.name for weight in model.graph.initializer}
        (value,) = (value for value in model.graph.input if value.name not in weights)
    except Exception as error:
        raise AtcError("E16004", f"Failed to parse the ONNX model: {error}") from None
    sides = value.type.tensor_type.shape.dim
    have = [side.dim_value if side.HasField("dim_value") else -1 for side in sides]
    for side, want in zip(sides, _wanted(shape, value.name, have), strict=True):
        side.dim_value = want
    if -1 in have:
        for output in model.graph.output:  # their batch is the input's now
            for side in output.type.tensor_type.shape.dim:
                if not side.HasField("dim_value"):
                    side.Clear()
        model = onnx.shape_inference.infer_shapes(model)
    return model, _tensor(value), tuple(_tensor(output) for output in model.graph.output)


def _wanted(text: str, name: str, have: Sequence[int]) -> list[int]:
    """Return the input's sides; `have` are the model's, -1 where it leaves one open."""
    flag = "--input_shape"
    given = re.fullmatch(r"(.+):(\d+(?:,\d+)*)", text)
    if given is None or given[1] != name:
        raise _invalid(flag, text, f'it must be like "{name}:n1,c1,h1,w1"; no such input, or side')
    wanted = [int(side) for side in given[2].split(",")]
    if len(wanted) != len(have) or any(a not in (-1, b) for a, b in zip(have, wanted, strict=True)):
        raise _invalid(flag, text, f"the shape of input [{name}] in the model is {[*have]}")
    return wanted


def _tensor(value: Any) -> om.Tensor:
    import numpy as np
    import onnx

    tensor = value.type.tensor_type
    dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)).name
    return om.Tensor(value.name, tuple(side.dim_value for side in tensor.shape.dim), dtype)


# --- aoe --------------------------------------------------------------------------------------


def tune(argv: Sequence[str], host: Host) -> int:
    """Play `aoe`, the tuner that replaced `--auto_tune_mode`: leave an entry in its bank.

    Known of the real one: its arguments, that it needs a device, and that it takes hours. What it
    prints is not known, so this one says no more than that it ended. It tunes nothing.
    """
    flags = parse_flags(argv, _AOE_FLAGS, FAILED)
    if not host.chips() or not flags.get("output") or flags.get("job_type") not in ("1", "2"):
        raise ToolError("Aoe process failed: no device, --output or --job_type", FAILED)
    load_model(Path(flags.get("model", "")), _input_shape(flags)[0])
    # $TUNE_BANK_PATH is where the real one keeps its knowledge bank.
    Path(os.environ["TUNE_BANK_PATH"], f"job{flags['job_type']}.json").write_text("{}")
    print("Aoe process finished")
    return 0
