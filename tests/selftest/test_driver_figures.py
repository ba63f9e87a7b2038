"""What the tools of the Ascend drivers say of their times: read, and held against itself."""

from __future__ import annotations

import json
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.base.errors import InferError
from harness.targets.ascend.cli import Summary, execution_times, parse_throughput
from harness.targets.ascend.legacy import parse_average, parse_interface


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
        (1000.0, {"npu_compute_time_list": None}, ""),
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
        expected = [1.0, 2.0, 3.0] if not changes else [2.0]
        assert execution_times("x", printed, summary, batch=2, loops=3) == expected
        return
    with pytest.raises(InferError, match=message):
        execution_times("x", printed, summary, batch=2, loops=3)


_JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


@given(_JSON, _JSON, _JSON, _JSON)
def test_any_summary_is_read_or_refused(mean, times, count, fps):
    data = {
        "NPU_compute_time": {"mean": mean, "count": count},
        "npu_compute_time_list": times,
        "throughput": fps,
    }
    try:
        summary = Summary.model_validate_json(json.dumps(data))
    except ValueError:
        return
    assert all(math.isfinite(ms) for ms in [*summary.times, summary.throughput])


# As guide 003 prints it, and as other builds name the step.
PERF = """[e2e] throughputRate: 456.712, latency: 109478
[preprocess] throughputRate: 461.364, moduleLatency: 2.16749
[infer] throughputRate: 461.934, Interface throughputRate: 1147.43, moduleLatency: 1.40221
[post] throughputRate: 461.931, moduleLatency: 2.16483
"""


def test_the_figure_of_a_data_set_run():
    assert parse_interface(PERF) == 1147.43
    assert parse_interface(PERF.replace("[infer]", "[inference]")) == 1147.43
    assert parse_interface(PERF.replace("Interface ", "")) == 0


@pytest.mark.parametrize(
    ("fps", "latency", "agrees"),
    [
        ("1.67129", "599.028", True),
        ("22.37", "44.7", True),
        ("2702.7", "0.4", True),  # 0.37 ms, as builds print it that cut digits
        ("2702.7", "0", True),
        ("2702.7", "0.74", True),  # a few long rounds
        # Public outputs: a mean of rates times a mean of latencies is never below 1000.
        ("244.742", "4.15733", True),
        ("2.72028", "367.701", True),
        ("38.4344", "26.1589", True),
        ("140.0", "7.35671", True),  # 1030, as far above as some
        ("132.0", "7.35671", False),  # 971: no times have such means
        ("22.37", "134.1", False),
        ("0", "44.7", False),
    ],
)
def test_a_rate_and_a_latency_are_of_one_measurement(fps, latency, agrees):
    for line in (
        "[INFO] ave_throughputRate: {}samples/s, ave_latency: {}ms",
        "ave_throughputRate = {}samples/s, ave_latency = {}ms",
    ):
        average = parse_average(line.format(1, 1) + "\n" + line.format(fps, latency))
        assert average is not None
        assert (average[:2], average.agrees) == ((float(fps), float(latency)), agrees)
    assert parse_average(f"ave_throughputRate = nansamples/s, ave_latency = {latency}ms") is None
