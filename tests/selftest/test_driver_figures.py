"""What ais_bench says of its times: read, and held against itself."""

import math
import re

import pytest

from harness.base.errors import InferError
from harness.targets.ascend.times import Summary, execution_times, parse_throughput


@pytest.mark.parametrize(
    "line",
    [
        "[INFO] throughput (1000*batchsize/NPU_compute_time): 729.25",
        "[INFO] throughput 1000*batchsize(16)/NPU_compute_time.mean(21.9): 729.25",
        "[INFO] throughput 1000*batchsize.mean(16)/NPU_compute_time.mean(21.94005001068): 729.25",
        # Version 0.0.3 of the repository that guides 002 and 004 name.
        "[INFO] Throughput 1000*batchsize.mean(4)/NPU_compute_time.mean(2.25): 7.2925e2",
        # The same with a log library that came compiled.
        "[info] Throughput 1000*batchsize.mean(4)/NPU_compute_time.mean(2.25): 7.2925e2",
    ],
)
def test_every_form_of_the_throughput_line(line):
    text = f"loop inference exec: (1/2)\rloop inference exec: (2/2)\r{line}\n[INFO] ----\n"
    assert parse_throughput(text) == 729.25
    assert parse_throughput(re.sub(r"(?i)\[info\] ", "[DEBUG] ", line)) is None


SOUND = {
    "NPU_compute_time": {"mean": 2.0, "count": 3},
    "npu_compute_time_list": [[10.0, 11.0], [20.0, 22.0], 3.0],
    "throughput": 1000.0,
}


@pytest.mark.parametrize(
    ("printed", "changes", "message"),
    [
        (1000.0, {}, ""),
        (None, {}, "printed no throughput"),
        (4000.0, {}, r"printed a throughput of 4000, its times give 1000 frames a second at"),
        (1000.0, {"throughput": 4000.0}, "wrote a throughput of 4000, its times give 1000"),
        (math.nan, {}, "printed a throughput of nan"),
        (1000.0, {"NPU_compute_time": {"mean": 2.0, "count": 4}}, "timed 4 executions, 3 were"),
        (1000.0, {"npu_compute_time_list": [2.0, 2.0]}, "timed 2 executions, 3 were asked for"),
        (1000.0, {"npu_compute_time_list": [[2.0, 0.0], 5.0, 3.0]}, "impossible times: -2 ms"),
        (1000.0, {"NPU_compute_time": {"mean": 1.0}}, "contradicts itself: a mean of 1 ms, and"),
    ],
)
def test_times_that_contradict_each_other(printed, changes, message):
    summary = Summary(**{**SOUND, **changes})
    if not message:
        assert execution_times("x", printed, summary, batch=2, loops=3) == [1.0, 2.0, 3.0]
        return
    with pytest.raises(InferError, match=message):
        execution_times("x", printed, summary, batch=2, loops=3)


@pytest.mark.parametrize(
    "changes",
    [
        {"throughput": math.nan},
        {"npu_compute_time_list": [math.inf]},
        {"npu_compute_time_list": None},
    ],
)
def test_a_summary_that_is_none(changes):
    with pytest.raises(ValueError, match=r"\d validation errors? for Summary"):
        Summary(**{**SOUND, **changes})
