"""What a report calls stages and artifacts, its parts of time, and the ticks of its axes."""

from __future__ import annotations

import re
from html import unescape

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.records.values import ArtifactRef, StageTime
from harness.report import charts, render_html, stages
from tests.selftest import report_samples as samples
from tests.selftest.running import ROOT

NOW = "2026-11-20T07:42:05+00:00"


def text_of(html: str) -> str:
    """The words of a page, with single spaces."""
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", html)).split())


def test_a_stage_is_named_by_what_was_done() -> None:
    recorded = ("standin", "onnx", "simplified", "compiled", "eager", "lease", "open", "accuracy")
    one = samples.case(
        stages=[StageTime(stage=name, seconds=2.0) for name in (*recorded, "of a later harness")]
    )
    text = text_of(render_html(samples.run_records([one]), now=NOW))
    said = ("make stand-in weights", "export", "simplify", "compile", "run eager PyTorch",
            "wait for the device", "load", "infer images", "of a later harness")  # fmt: skip
    for name in said:
        assert f"{name} 2.00 s" in text
    for name in ("standin", "simplified", "compiled"):
        assert f"{name} 2.00 s" not in text


def test_artifacts_are_named_by_what_they_are() -> None:
    kinds = ("standin", "onnx", "simplified", "compiled", "crops", "odd")
    one = samples.case(artifacts=[ArtifactRef(kind=k, key=k, digest="d") for k in kinds])
    html = render_html(samples.run_records([one]), now=NOW)
    table = html[html.index('aria-label="Artifacts of') :]
    names = re.findall(r'<th scope="row">(.*?)</th>', table[: table.index("</table>")])
    assert names == ["stand-in weights", "ONNX file", "simplified ONNX file", "compiled model",
                     "cropped images", "odd"]  # fmt: skip


def test_every_stage_and_artifact_that_the_workbench_has_is_named() -> None:
    text = "".join(
        (ROOT / "harness" / name).read_text(encoding="utf-8")
        for name in ("stages/pipeline.py", "measure/attempt.py", "diagnosis/diagnose.py")
    )
    used = set(re.findall(r'\.stage\("([a-z ]+)"\)', text))
    used |= set(re.findall(r'_add_time\("([a-z ]+)"', text))
    built = set(re.findall(r'_build\("([a-z]+)"', text))
    assert len(used) >= 8
    assert len(built) >= 6
    assert used | built <= set(stages.STAGES)
    assert built <= set(stages.ARTIFACTS)


def test_the_longest_stage_comes_first_and_what_nobody_sees_is_one_part() -> None:
    times = {"onnx": 1.0, "compiled": 900.0, "lease": 0.01, "open": 0.02, "accuracy": 60.0}
    one = samples.case(stages=[StageTime(stage=k, seconds=v) for k, v in times.items()])
    html = render_html(samples.run_records([one]), now=NOW)
    legend = html[html.index('<section id="time"') :]
    text = text_of(legend[: legend.index("</section>")])
    places = [text.index(part) for part in ("compile ", "infer images ", "all others 1.03 s")]
    assert places == sorted(places)
    assert "export, load, wait for the device" in text
    assert "16 min 01 s" in text


@pytest.mark.parametrize(
    ("low", "high", "texts"),
    [
        (0.0, 325.0, ["0", "100", "200", "300", "400"]),
        (596.4, 653.4, ["580", "600", "620", "640", "660"]),
        (81.06, 81.15, ["81.05", "81.10", "81.15"]),
        (41.0, 53.0, ["40", "45", "50", "55"]),
        (-3.0, 4.0, ["−4", "−2", "0", "2", "4"]),
        (5.0, 5.0, ["4.95", "5.00", "5.05"]),
        (0.0, 1e300, ["0", "1"]),
    ],
)
def test_ticks_are_round(low: float, high: float, texts: list[str]) -> None:
    assert [text for _, text in charts.ticks(low, high)] == texts


@given(st.floats(-1e9, 1e9), st.floats(0, 1e9), st.integers(2, 6))
def test_ticks_hold_what_they_are_for(low: float, width: float, most: int) -> None:
    found = charts.ticks(low, low + width, most)
    values = [value for value, _ in found]
    slack = 1e-6 * (abs(low) + width) + 1e-8
    assert values[0] <= low + slack
    assert values[-1] >= low + width - slack
    assert 2 <= len(found) <= most + 3
    assert values == sorted(set(values))
    assert len({text for _, text in found}) == len(found)
