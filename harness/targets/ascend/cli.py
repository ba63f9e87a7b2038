"""Driver `cli`: ais_bench's command line, or `ais_infer.py` of CANN 5.1, over files.

Forms of September 2022 to December 2025 are taken; what a tool can do is read from its `--help`.
Each batch is one input file with the bytes of the model's input, so the tool groups and pads
nothing, and each output file is one batch of logits.

The tool's `--batchsize` only scales the throughput that it prints, whatever the model's batch size
is. The figure is therefore computed here, from the times of the executions, and compared with the
printed one. A model of another batch size shows in the sizes of its files.
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydantic import BaseModel, FiniteFloat, ValidationError

from harness.base import processes
from harness.base.errors import HarnessError, InferError, LoadError, NoSession
from harness.targets.ascend import drivers
from harness.targets.ascend.drivers import LEAST_WARMUP
from harness.targets.ascend.file_session import Chunk, FileSession, Opening, check_files
from harness.targets.ascend.workspace import Workspace

AGREEMENT = 1e-3
"""Relative difference between a printed figure and ours that printing may explain."""

_DIRNAME = "run"  # without a slash at its end, which would move the summary into it
_FLAG = re.compile(r"(?<![\w-])--([A-Za-z][\w-]*)")
_LOADED = re.compile(r"load model .* success")
_HELP_WIDTH = "240"  # columns: some forms of --help cut names that do not fit
_GROUPS = re.compile(r"filesperbatch:(\d+) runcount:(\d+)")
# aclruntime 0.0.3 writes its levels in lower case where its log library came compiled.
_THROUGHPUT = re.compile(
    r"^\[INFO\] throughput\s*.*:\s*([0-9.e+-]+|nan|inf)\s*$", re.MULTILINE | re.IGNORECASE
)
_TIMES_ARE_NO_PAIRS = re.compile(r"TypeError: cannot unpack non-iterable float")
_OTHER_YEARS = (
    "--driver=api reads the times of both; or install ais_bench and aclruntime of one release"
)


# --- what the tool says -----------------------------------------------------------------------


def parse_throughput(text: str) -> float | None:
    """Return the last throughput that the tool printed, in frames a second; None without one."""
    values = _THROUGHPUT.findall(text.replace("\r", "\n"))
    try:
        return float(values[-1]) if values else None
    except ValueError:
        return math.nan


class ComputeTime(BaseModel):
    """Milliseconds of the executions."""

    mean: FiniteFloat
    count: int | None = None


class Summary(BaseModel):
    """A summary file; a generation that keeps nothing but the mean leaves out the rest."""

    NPU_compute_time: ComputeTime
    npu_compute_time_list: list[FiniteFloat | tuple[FiniteFloat, FiniteFloat]] | None = None
    throughput: FiniteFloat

    @property
    def times(self) -> list[float]:
        """Milliseconds of each execution, or their mean alone."""
        if self.npu_compute_time_list is None:
            return [self.NPU_compute_time.mean]
        entries = self.npu_compute_time_list
        return [one if isinstance(one, float) else one[1] - one[0] for one in entries]

    @property
    def took_clock_for_times(self) -> bool:
        """Return whether the tool's mean is that of starts and ends: aclruntime gives pairs since
        2024, which an older ais_bench takes for durations.
        """
        pairs = [one for one in self.npu_compute_time_list or () if isinstance(one, tuple)]
        ends = [end for pair in pairs for end in pair]
        return bool(ends) and _agree(statistics.fmean(ends), self.NPU_compute_time.mean)


def execution_times(
    what: str, printed: float | None, summary: Summary, *, batch: int, loops: int
) -> list[float]:
    """Milliseconds of each execution, or their mean alone where the tool keeps no more.

    Raises:
        InferError: nothing was printed, the number of executions is another one, or the figures
            contradict each other.
    """
    if printed is None:
        raise InferError(f"{what} printed no throughput", remedy="see the tool's log")
    times, told = summary.times, summary.NPU_compute_time
    listed = len(times) if summary.npu_compute_time_list is not None else None
    for count in (told.count, listed):
        if count not in (None, loops):
            raise InferError(f"{what} timed {count} executions, {loops} were asked for")
    mean = statistics.fmean(times)
    if min(times) < 0 or mean <= 0:
        raise InferError(f"{what} reports impossible times: {min(times):g} ms, mean {mean:g} ms")
    if not _agree(mean, told.mean):
        if summary.took_clock_for_times:
            raise InferError(
                f"{what} is older than 2024 and its aclruntime is not: it takes the start and the "
                "end of an execution for two times",
                remedy=_OTHER_YEARS,
            )
        raise InferError(
            f"{what} contradicts itself: a mean of {told.mean:g} ms, and times whose mean is "
            f"{mean:g} ms",
            remedy="look at the summary file in the log's folder; time it again",
        )
    fps = 1000.0 * batch / mean
    for source, value in (("printed", printed), ("wrote", summary.throughput)):
        if not _agree(value, fps):
            raise InferError(
                f"{what} {source} a throughput of {value:g}, its times give {fps:g} frames a "
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
                f"size is {int(groups[1]) * self.batch}, or its input not {self.inputs[0].dtype}",
                remedy="compile the model for this batch size, with the catalog's `aipp`",
                log=done.tail(),
            )
        return self._checked(chunk.results, [f"{stem}_0.bin" for stem in chunk.stems], done)

    def timed(self, loops: int, warmup: int) -> list[float]:
        results, done = self._pure(loops, max(warmup, LEAST_WARMUP))
        self.check_end(done)
        try:
            # Beside the folder of outputs or in it, under a name of its generation.
            file = next(results.rglob("*su*mary.json"), None)
            if file is None:
                raise InferError(f"{self.what} wrote no summary file", remedy="see the tool's log")
            summary = Summary.model_validate_json(file.read_bytes())
            printed = parse_throughput(done.output())
            return execution_times(self.what, printed, summary, batch=self.batch, loops=loops)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "as a whole"
            raise InferError(
                f"{self.what} wrote a summary that cannot be read: {where}: {first['msg']}",
                remedy="see the tool's log",
                log=done.tail(),
            ) from error
        except InferError as error:
            error.log = error.log or done.tail()
            raise

    def check_end(self, done: processes.Completed, error: type[HarnessError] = InferError) -> None:
        if not done.ok and _TIMES_ARE_NO_PAIRS.search(done.tail()):
            raise error(
                f"{self.what} is of 2024 or later and its aclruntime is older: its times are no "
                "pairs of start and end",
                remedy=_OTHER_YEARS,
                log=done.tail(),
            )
        super().check_end(done, error)

    def try_once(self) -> None:
        """Execute on zeros, and check the output: the whole batch comes back as one file, whose
        size says which batch size the model has. What goes wrong once may go wrong here, and nobody
        else looks at this output.
        """
        results, done = self._pure(1, 0)
        # What it prints says whether it failed before or after loading.
        self.check_end(done, InferError if _LOADED.search(done.output()) else LoadError)
        try:
            (file,) = self._checked(results, ["pure_infer_data_0.bin"], done)
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
        folder = results / _DIRNAME
        expected = dict.fromkeys(names, 4 * math.prod(self.outputs[0].shape))
        ignore = frozenset({"sumary.json", "_summary.json"})
        check_files(self.what, folder, expected, ignore=ignore, log=done.tail())
        return [folder / name for name in names]

    def _arguments(self, results: Path, *, loops: int) -> list[str]:
        arguments = [*self._command, "--model", str(self.model), "--output", str(results)]
        arguments += [self._spelled("output_dirname"), _DIRNAME, "--outfmt", "BIN"]
        arguments += ["--device", str(self.opening.device_id)]
        return [*arguments, "--batchsize", str(self.batch), "--loop", str(loops)]

    def _read_options(self) -> frozenset[str]:
        """Read from the tool's help what it takes. Raises `NoSession` when it is not ais_bench."""
        done = self.run([*self._command, "--help"], cwd=self.workspace.path)
        options = frozenset(name.replace("-", "_") for name in _FLAG.findall(done.output()))
        self._dashes = "--output-dirname" in done.output()
        if done.ok and {"model", "outfmt", "loop", "output_dirname"} <= options:
            return options
        raise NoSession(
            f"{self.name} cannot be run: no ais_bench answers to {' '.join(self._command)}",
            remedy="install the wheels ais_bench and aclruntime in that interpreter, or name "
            "another interpreter (--ais-python) or ais_infer.py (--ais-infer)",
            log=done.tail(),
        )

    def _spelled(self, name: str) -> str:
        """Return an option as this form of the tool spells it, or nothing when it has none."""
        if name not in self._options:
            return ""
        return f"--{name.replace('_', '-') if self._dashes else name}"
