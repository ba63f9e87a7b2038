"""Driver `cli`: ais_bench's command line, or `ais_infer.py` of CANN 5.1, over files.

Forms of May 2022 to December 2025 are taken; what a tool can do is read from its `--help`. Each
batch is one input file with the bytes of the model's input, so the tool groups and pads nothing,
and each output file is one batch of logits.

The tool's `--batchsize` only scales the throughput that it prints, whatever the model's batch size
is. The figure is therefore computed here, from the times of the executions, and compared with the
printed one. A model of another batch size shows in the sizes of its files.
"""

from __future__ import annotations

import json
import math
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness.base import processes
from harness.base.errors import InferError, LoadError
from harness.targets.ascend import drivers
from harness.targets.ascend.drivers import LEAST_WARMUP
from harness.targets.ascend.exchange import FileSession
from harness.targets.ascend.filetool import Chunk, Opening, check_files
from harness.targets.ascend.workspace import Workspace

AGREEMENT = 1e-3
"""Relative difference between a printed figure and ours that printing may explain."""

_DIRNAME = "run"  # without a slash at its end, which would move the summary into it
_FLAG = re.compile(r"(?<![\w-])--([A-Za-z][\w-]*)")
_LOADED = re.compile(r"load model .* success")
_HELP_WIDTH = "240"  # columns: some forms of --help cut names that do not fit
_GROUPS = re.compile(r"filesperbatch:(\d+) runcount:(\d+)")
_THROUGHPUT = re.compile(r"^\[INFO\] [Tt]hroughput\s*(.*):\s*([0-9.eE+-]+|nan|inf)\s*$", re.M)


# --- what the tool says -----------------------------------------------------------------------


@dataclass(frozen=True)
class Printed:
    """The line with the throughput: its figure."""

    fps: float
    inverted: bool = False
    """Whether it is the first form, of May 2022, which divided by the batch size."""


def parse_throughput(text: str) -> Printed | None:
    """The last throughput that the tool printed, in frames a second; None when it printed none."""
    matches = _THROUGHPUT.findall(text.replace("\r", "\n"))
    if not matches:
        return None
    formula, value = matches[-1]
    try:
        fps = float(value)
    except ValueError:
        fps = math.nan
    return Printed(fps, inverted="1000/NPU_compute_time/batchsize" in formula)


@dataclass(frozen=True)
class Summary:
    """What a summary file says of the executions, in ms; None for what a generation leaves out."""

    times: tuple[float, ...] | None
    mean_ms: float
    count: int | None
    throughput: float


def parse_summary(text: str) -> Summary:
    """Read a summary file of any generation. Raises `ValueError` for anything else."""
    try:
        data = json.loads(text)
        compute = data["NPU_compute_time"]
        entries = data.get("npu_compute_time_list")
        return Summary(
            None if entries is None else tuple(_duration(entry) for entry in entries),
            _finite(compute["mean"]),
            None if compute.get("count") is None else int(compute["count"]),
            _finite(data["throughput"]),
        )
    except (KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error


def _finite(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value!r} is no number")
    return float(value)


def _duration(entry: Any) -> float:
    """Milliseconds of one entry: a duration, or a start and an end."""
    if isinstance(entry, list):
        start, end = (_finite(value) for value in entry)
        if end < start:
            raise ValueError(f"an execution ends before it starts: {entry}")
        return end - start
    return _finite(entry)


def execution_times(
    what: str, printed: Printed | None, summary: Summary, *, batch: int, loops: int
) -> list[float]:
    """Milliseconds of each execution, or their mean alone where the tool keeps no more.

    Raises:
        InferError: nothing was printed, the number of executions is another one, or the figures
            contradict each other.
    """
    if printed is None:
        raise InferError(f"{what} printed no throughput", remedy="see the tool's log")
    if summary.count is not None and summary.count != loops:
        raise InferError(f"{what} timed {summary.count} executions, {loops} were asked for")
    times = [summary.mean_ms] if summary.times is None else list(summary.times)
    if summary.times is not None and len(times) != loops:
        raise InferError(f"{what} lists {len(times)} times, {loops} executions were asked for")
    mean = statistics.fmean(times)
    if min(times) < 0 or mean <= 0:
        raise InferError(f"{what} reports impossible times: {min(times):g} ms, mean {mean:g} ms")
    if not _agree(mean, summary.mean_ms):
        raise InferError(
            f"{what} contradicts itself: a mean of {summary.mean_ms:g} ms, and times whose mean "
            f"is {mean:g} ms",
            remedy="look at the summary file in the log's folder; time it again",
        )
    fps = 1000.0 * batch / mean
    for source, value in (("printed", printed.fps), ("wrote", summary.throughput)):
        wanted = 1000.0 / mean / batch if printed.inverted else fps
        if not _agree(value, wanted):
            raise InferError(
                f"{what} {source} a throughput of {value:g}, its times give {wanted:g} frames a "
                f"second at batch size {batch}",
                remedy="the tool and its summary contradict each other: trust neither",
            )
    return times


def _agree(one: float, other: float) -> bool:
    return math.isfinite(one) and abs(one - other) <= AGREEMENT * abs(other)


# --- the tool ---------------------------------------------------------------------------------


class AisBench(FileSession):
    """ais_bench's command line; a file is a whole batch."""

    driver, tool = "cli", "ais_bench"

    def __init__(self, opening: Opening, workspace: Workspace) -> None:
        super().__init__(opening, workspace)
        toolkit = opening.toolkit
        self.rows_per_file = self.batch
        self.env = {**toolkit.env, "COLUMNS": _HELP_WIDTH}
        self._command = drivers.tool_command(toolkit.python, toolkit.ais_infer)
        self._options = self._read_options()
        takes_warmup = self._spelled("warmup_count")
        self.about = self.info(
            {
                **drivers.probe(toolkit, log=opening.log).versions,
                "tool": " ".join(self._command[1:]),
                "warmup": f"at least {LEAST_WARMUP}" if takes_warmup else "1, the tool's own",
            }
        )

    def start(self, chunk: Chunk) -> processes.Running:
        arguments = self._arguments(chunk.results, loops=1)
        return self.call([*arguments, "--input", str(chunk.inputs)], cwd=chunk.folder)

    def output_files(self, chunk: Chunk, done: processes.Completed) -> Sequence[Path]:
        groups = _GROUPS.search(done.output())
        if groups is not None and int(groups[1]) != 1:
            raise InferError(
                f"{self.what} takes {groups[1]} batches of {self.batch} at once: the model's batch "
                f"size is {int(groups[1]) * self.batch}",
                remedy="compile the model for this batch size",
                log=done.tail(),
            )
        return self._checked(chunk.results, [f"{stem}_0.bin" for stem in chunk.stems], done)

    def timed(self, loops: int, warmup: int) -> list[float]:
        results, done = self._pure(loops, max(warmup, LEAST_WARMUP))
        self.check_end(done)
        # Beside the folder of outputs or in it, under a name of its generation.
        file = next(results.rglob("*su*mary.json"), None)
        if file is None:
            raise InferError(
                f"{self.what} wrote no summary file", remedy="see the tool's log", log=done.tail()
            )
        try:
            summary = parse_summary(file.read_text(encoding="utf-8", errors="replace"))
            printed = parse_throughput(done.output())
            return execution_times(self.what, printed, summary, batch=self.batch, loops=loops)
        except (OSError, ValueError) as error:
            raise InferError(
                f"{self.what} wrote a summary that cannot be read: {error}",
                remedy="see the tool's log",
                log=done.tail(),
            ) from error
        except InferError as error:
            error.log = error.log or done.tail()
            raise

    def try_once(self) -> None:
        """Execute on zeros, and check the output: the whole batch comes back as one file, whose
        size says which batch size the model has. What goes wrong once may go wrong here, and nobody
        else looks at this output.
        """
        results, done = self._pure(1, 0)
        # What it prints says whether it failed before or after loading.
        self.check_end(done, InferError if _LOADED.search(done.output()) else LoadError)
        names = sorted(path.name for path in self._folder(results).glob("*_0.bin"))
        try:
            (file,) = self._checked(results, [*names, "pure_infer_data_0.bin"][:1], done)
        except InferError as error:
            raise LoadError(error.message, remedy=error.remedy, log=error.log) from error
        if not np.isfinite(np.fromfile(file, np.float32)).all():
            raise InferError(
                f"{self.what} gives NaN or infinity for zeros",
                remedy="run the case again: where it stays so, a value leaves float16's range in "
                "the model; where it does not, the device made the mistake",
                log=done.tail(),
            )

    def _pure(self, loops: int, warmup: int) -> tuple[Path, processes.Completed]:
        """Execute on the tool's own zeros: the folder of what it writes, and how it ended."""
        results = self.workspace.folder()
        arguments = self._arguments(results, loops=loops)
        option = self._spelled("warmup_count")
        if option and warmup:
            arguments += [option, str(warmup)]
        return results, self.run(arguments, cwd=results)

    def _checked(
        self, results: Path, names: Sequence[str], done: processes.Completed
    ) -> list[Path]:
        folder = self._folder(results)
        expected = dict.fromkeys(names, 4 * math.prod(self.outputs[0].shape))
        ignore = frozenset({"sumary.json", "_summary.json"})
        check_files(self.what, folder, expected, ignore=ignore, log=done.tail())
        return [folder / name for name in names]

    def _arguments(self, results: Path, *, loops: int) -> list[str]:
        arguments = [*self._command, "--model", str(self.model), "--output", str(results)]
        arguments += ["--outfmt", "BIN", "--device", str(self.opening.device_id)]
        arguments += ["--batchsize", str(self.batch), "--loop", str(loops)]
        option = self._spelled("output_dirname")
        return [*arguments, option, _DIRNAME] if option else arguments

    def _folder(self, results: Path) -> Path:
        """Where the tool put its outputs: the oldest form chooses a name itself."""
        return next((path for path in results.iterdir() if path.is_dir()), results / _DIRNAME)

    def _read_options(self) -> frozenset[str]:
        """Read from the tool's help what it takes. Raises `LoadError` when it is not ais_bench."""
        done = self.run([*self._command, "--help"], cwd=self.workspace.path)
        options = frozenset(_FLAG.findall(done.output()))
        if done.ok and {"model", "outfmt", "loop"} <= options:
            return options
        raise LoadError(
            f"{self.name} cannot be run: no ais_bench answers to {' '.join(self._command)}",
            remedy="install the wheels ais_bench and aclruntime in that interpreter, or name "
            "another interpreter (--ais-python) or ais_infer.py (--ais-infer)",
            log=done.tail(),
        )

    def _spelled(self, name: str) -> str:
        """Return an option as this form of the tool spells it, or nothing when it has none.

        Forms with dashes speak of the other spelling in their help.
        """
        spellings = (name.replace("_", "-"), name)
        return next((f"--{one}" for one in spellings if one in self._options), "")
