"""Driver `benchmark`: the closed tool `benchmark.<arch>` of guides 001 and 003, over files.

Each image is an input file that a line of an `.info` file names; outputs are numbered from 1 and
lie in `result/` below the folder that the tool runs in. Its figures are means: a session's `time`
returns one value, 1000 * batch / (frames a second), in ms of an execution of a whole batch.

The guides take batch sizes 1 and 16 from a run over the data set (`Interface throughputRate`) and
the others from a pure inference. Here the data set is `TIMED_IMAGES` seeded images: the interface's
rate counts neither reading nor writing, so that more of them only narrow the mean. It is not the
guides' data set all the same, and `method` says so.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.base import processes
from harness.base.errors import InferError, LoadError
from harness.records.measurements import Scalar
from harness.targets.ascend import drivers
from harness.targets.ascend.exchange import FileSession, open_tool
from harness.targets.ascend.filetool import ROUND_S, Chunk, FileTool, Opening, check_files
from harness.targets.ascend.workspace import Workspace, own_copy, remove, write_file
from harness.targets.protocol import SessionInfo

DATASET_BATCHES = (1, 16)
"""Batch sizes whose figure the guides take from a run over the data set."""
TIMED_IMAGES = 1024
DISTINCT_IMAGES = 32  # the others are further names of these: less to write, as much to read
SEED = 20220516
LEAST_ROUNDS = 20  # what the guides take
MOST_ROUNDS = 1000
AGREEMENT = 0.01  # of two figures of the tool that say the same
_NUMBER = r"([0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]{1,3})?)"
_INTERFACE = re.compile(rf"^\[infer(?:ence)?\].*\bInterface throughputRate:\s*{_NUMBER}", re.M)
_AVERAGE = re.compile(
    rf"ave_throughputRate\s*[:=]\s*{_NUMBER}\s*samples/s,\s*ave_latency\s*[:=]\s*{_NUMBER}\s*ms"
)


def open_legacy(opening: Opening, timed_images: int = TIMED_IMAGES) -> FileSession:
    """Open an `.om` file: execute it once, on zeros.

    Raises:
        LoadError: no tool, no model, or the tool cannot execute it.
        DeviceError: the device cannot be opened.
        ConfigError: the folder for files cannot be used.
    """
    opening.check()
    if len(opening.input.shape) != 4:
        raise LoadError(
            f"{opening.name}: the input has shape {list(opening.input.shape)}, not [B, 3, S, S]"
        )
    program = opening.toolkit.benchmark
    if program is None:
        raise LoadError(
            f"{opening.name} cannot be run: {drivers.NO_BENCHMARK}",
            remedy="name it, or choose another driver",
        )
    batch = opening.input.shape[0]
    images = -(-timed_images // batch) * batch if batch in DATASET_BATCHES else 0

    def make(workspace: Workspace) -> Benchmark:
        return Benchmark(
            tool=program.name,
            opening=opening,
            workspace=workspace,
            launcher=opening.launcher(opening.toolkit.env),
            model=own_copy(opening.file, workspace),
            about=_about(program.name, opening.device_id, images),
            rows_per_file=1,
            program=program.absolute(),
            timed_images=images,
        )

    return open_tool(opening, make)


def _about(tool: str, device_id: int, images: int) -> SessionInfo:
    timed = f"-round of {LEAST_ROUNDS} and more, on the tool's own data"
    method = "pure-inference"
    if images:
        timed = f"{images} seeded images, {DISTINCT_IMAGES} distinct"
        # Never the guides' `whole-dataset`, which is ImageNet's 50,000 images.
        method = f"dataset of {images} seeded images"
    runtime: dict[str, Scalar] = {
        "tool": tool,
        "device": device_id,
        "timed": timed,
        "warmup": "the tool's own",
    }
    return SessionInfo(driver="benchmark", runtime=runtime, round_s=ROUND_S, method=method)


# --- what the tool says -----------------------------------------------------------------------


def parse_interface(text: str) -> float | None:
    """`Interface throughputRate` of a `perf_vision_...` file in frames a second, or None."""
    rates = _INTERFACE.findall(text.replace("\r", "\n"))
    return float(rates[-1]) if rates else None


@dataclass(frozen=True)
class Average:
    """What a pure inference says of itself.

    The latency is that of one image, the inverse of the rate, whatever the batch size (guide 001).
    """

    fps: float
    latency_ms: float
    rounding_ms: float = 0.0
    """Half of the last digit that the latency was printed with: of `44.7` it is 0.05."""

    @property
    def agrees(self) -> bool:
        """Whether rate and latency are of one measurement, but for what printing cut off.

        A model of 2,100 frames a second takes 0.476 ms, and `0.5` is all that one decimal says.
        """
        off = abs(self.fps * self.latency_ms - 1000.0)
        allowed = 1000.0 * AGREEMENT + self.fps * self.rounding_ms
        return self.fps > 0 and math.isfinite(allowed) and off <= allowed


def parse_average(text: str) -> Average | None:
    """The last average of a pure inference, or None."""
    averages = _AVERAGE.findall(text.replace("\r", "\n"))
    if not averages:
        return None
    rate, latency = averages[-1]
    return Average(float(rate), float(latency), _rounding(latency))


def _rounding(number: str) -> float:
    """Half of the last digit of a number as it was printed."""
    mantissa, _, power = number.lower().partition("e")
    decimals = len(mantissa.partition(".")[2])
    return float(f"5e{int(power or 0) - decimals - 1}")


# --- the tool ---------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Benchmark(FileTool):
    """`benchmark.<arch>`; a file is an image. `timed_images`: seeded images that it is timed over;
    0: a pure inference.
    """

    program: Path
    timed_images: int

    def start(self, chunk: Chunk) -> processes.Running:
        height, width = self.opening.input.shape[2:]
        info = chunk.folder / "inputs.info"
        lines = (
            f"{index} {chunk.inputs / stem}.bin {width} {height}\n"
            for index, stem in enumerate(chunk.stems)
        )
        try:
            write_file(info, "".join(lines).encode("ascii"))
        except OSError as error:
            raise InferError(
                f"{self.what}: its list of files cannot be written: {error.strerror or error}",
                remedy="free disk space there, or choose another folder for the run",
            ) from error
        arguments = [
            str(self.program),
            "-model_type=vision",
            f"-device_id={self.opening.device_id}",
            f"-batch_size={self.batch}",
            f"-om_path={self.model}",
            f"-input_text_path={info}",
            f"-input_width={width}",
            f"-input_height={height}",
            "-output_binary=True",
            "-useDvpp=False",
        ]
        return self.launcher.start(arguments, cwd=chunk.results)

    def outputs(self, chunk: Chunk, done: processes.Completed) -> Sequence[Path]:
        folder = chunk.results / "result" / f"dumpOutput_device{self.opening.device_id}"
        suffix, size = ".bin", 4 * math.prod(self.opening.output.shape[1:])
        if next(folder.glob("*.bin"), None) is None and next(folder.glob("*.txt"), None):
            suffix, size = ".txt", -1  # some builds write text whatever they are told
        names = [f"{stem}_1{suffix}" for stem in chunk.stems]
        check_files(self.what, folder, dict.fromkeys(names, size), log=done.tail())
        return [folder / name for name in names]

    def time(self, loops: int, warmup: int) -> list[float]:
        """One value: the mean in ms of an execution of a whole batch.

        `loops` counts for a pure inference, of `LEAST_ROUNDS` to `MOST_ROUNDS`; a run over the
        data set has as many as its images take. The warm-up is the tool's own.
        """
        fps = self._dataset_fps() if self.timed_images else self._pure_fps(self.executions(loops))
        return [1000.0 * self.batch / fps]

    def executions(self, loops: int) -> int:
        """See `time`: those of a run over the data set are what its images take."""
        if self.timed_images:
            return self.timed_images // self.batch
        return min(max(loops, LEAST_ROUNDS), MOST_ROUNDS)

    def try_once(self) -> None:
        try:
            self._pure_fps(1)
        except InferError as error:
            raise LoadError(
                error.message, remedy=error.remedy, log=error.log, hung=error.hung
            ) from error

    def _pure_fps(self, rounds: int) -> float:
        folder = self.workspace.folder()
        try:
            done = self.launcher.run(
                [
                    str(self.program),
                    f"-round={rounds}",
                    f"-om_path={self.model}",
                    f"-device_id={self.opening.device_id}",
                    f"-batch_size={self.batch}",
                ],
                cwd=folder,
            )
            self.finished(done)
            pattern = f"PureInfer_perf_of_*_in_device_{self.opening.device_id}.txt"
            written = parse_average(self._text(folder / "result", pattern, done))
            printed = parse_average(done.output())
        finally:
            remove(folder)
        if written is None:
            raise self._no_figure("its PureInfer_perf file has no ave_throughputRate", done)
        if printed is not None and not _near(printed.fps, written.fps):
            raise self._no_figure(
                f"it printed {printed.fps:g} samples/s and wrote {written.fps:g}", done
            )
        # Both: one of them may have printed more digits.
        for average in (written, printed or written):
            if not average.agrees:
                raise self._no_figure(
                    f"{average.fps:g} samples/s and {average.latency_ms:g} ms for each contradict "
                    "each other",
                    done,
                )
        return written.fps

    def _dataset_fps(self) -> float:
        chunk = self._seeded_images()
        try:
            done = self.start(chunk).finish()
            self.finished(done)
            self.outputs(chunk, done)
            name = f"perf_vision_batchsize_{self.batch}_device_{self.opening.device_id}.txt"
            fps = parse_interface(self._text(chunk.results / "result", name, done))
        finally:
            remove(chunk.folder)
        if fps is None:
            raise self._no_figure(f"{name} has no Interface throughputRate", done)
        if fps <= 0:
            raise self._no_figure(f"{name} has a rate of {fps:g}", done)
        return fps

    def _seeded_images(self) -> Chunk:
        folder = self.workspace.folder()
        stems = tuple(f"t{index:06d}" for index in range(self.timed_images))
        chunk = Chunk(folder, stems)
        shape = self.opening.input.shape[1:]
        random = np.random.default_rng(SEED)
        try:
            chunk.make()
            for index, stem in enumerate(stems):
                path = chunk.inputs / f"{stem}.bin"
                if index < DISTINCT_IMAGES:
                    image = random.standard_normal(shape, dtype=np.float32)
                    write_file(path, image.data.cast("B"))
                else:
                    os.link(chunk.inputs / f"{stems[index % DISTINCT_IMAGES]}.bin", path)
        except OSError as error:
            remove(folder)
            raise InferError(
                f"{self.what}: images to time cannot be written: {error.strerror or error}",
                remedy="free disk space there, or choose another folder for the run",
            ) from error
        return chunk

    def _text(self, folder: Path, pattern: str, done: processes.Completed) -> str:
        """The one file of that name. Raises `InferError`."""
        files = sorted(folder.glob(pattern))
        if len(files) != 1:
            raise self._no_figure(f"it wrote {len(files)} files {pattern}", done)
        return files[0].read_text(encoding="utf-8", errors="replace")

    def _no_figure(self, why: str, done: processes.Completed) -> InferError:
        return InferError(
            f"{self.what} gave no usable figure: {why}",
            remedy="see the tool's log",
            log=done.tail(),
        )


def _near(one: float, other: float) -> bool:
    """Equal but for the few digits that the tool prints: guide 001 has 1.67129 and 599.028."""
    return abs(one - other) <= AGREEMENT * abs(other)
