"""What ais_bench says of its times: its printed line and its summary, held against each other.

The tool's `--batchsize` only scales the throughput that it prints, whatever the model's batch size
is. The figure is therefore computed from the times of the executions.
"""

from __future__ import annotations

import math
import re
import statistics

from pydantic import BaseModel, FiniteFloat

from harness.base.errors import InferError

AGREEMENT = 1e-3
"""Relative difference between a printed figure and ours that printing may explain."""
OTHER_YEARS = (
    "--driver=api reads the times of both; or install ais_bench and aclruntime of one release"
)
# aclruntime 0.0.3 writes its levels in lower case where its log library came compiled.
_THROUGHPUT = re.compile(
    r"^\[INFO\] throughput\s*.*:\s*([0-9.e+-]+|nan|inf)\s*$", re.MULTILINE | re.IGNORECASE
)


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
    """A summary file: of each execution its time, or since 2024 its start and its end, in ms."""

    NPU_compute_time: ComputeTime
    npu_compute_time_list: list[FiniteFloat | tuple[FiniteFloat, FiniteFloat]]
    throughput: FiniteFloat

    @property
    def times(self) -> list[float]:
        """Milliseconds of each execution."""
        entries = self.npu_compute_time_list
        return [one if isinstance(one, float) else one[1] - one[0] for one in entries]

    @property
    def took_clock_for_times(self) -> bool:
        """Return whether the tool's mean is that of starts and ends: an older ais_bench takes the
        pairs of a newer aclruntime for durations.
        """
        pairs = [one for one in self.npu_compute_time_list if isinstance(one, tuple)]
        ends = [end for pair in pairs for end in pair]
        return bool(ends) and _agree(statistics.fmean(ends), self.NPU_compute_time.mean)


def execution_times(
    what: str, printed: float | None, summary: Summary, *, batch: int, loops: int
) -> list[float]:
    """Return the milliseconds of each of `loops` executions of a `batch`. Raises `InferError`:
    nothing was printed, the number of executions is another one, or the figures contradict each
    other.
    """
    if printed is None:
        raise InferError(f"{what} printed no throughput", remedy="see the tool's log")
    times, told = summary.times, summary.NPU_compute_time
    for count in (told.count, len(times)):
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
                remedy=OTHER_YEARS,
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
