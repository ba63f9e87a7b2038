"""The report in a real browser: no errors, no sideways scrolling on a phone, filters that work.

One start of headless Chromium loads a page of frames. Each frame holds a copy of a report with a
probe in it, which measures and clicks and posts what it found; two frames hold planted faults.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from harness.base.terms import WHOLE_SET
from harness.history.trend import write_trend
from harness.report.render import render_html
from tests.selftest import history_samples as nights
from tests.selftest import report_samples as samples
from tests.selftest.pages import NOW
from tests.selftest.test_report_file import hostile_run

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PHONE = 390
HEIGHT, LOW = 800, 400
CLEAN = ("phone", "desktop", "hostile", "empty", "real_phone", "real_desktop")
DEADLINE_SECONDS = 90

# Runs in the copy of a report: what a reader would do, one step after the other.
PROBE = """
<script>
addEventListener("load", () => setTimeout(async () => {
  const settle = () => new Promise((done) => setTimeout(done, 20));
  const root = document.documentElement;
  const wide = [...document.body.querySelectorAll("*")].filter((item) =>
    !item.closest(".scroll, pre, svg, .sr, .skip") &&
    item.getBoundingClientRect().right > innerWidth + 0.5);
  const found = {
    name: NAME, width: innerWidth, scroll: root.scrollWidth,
    wide: wide.slice(0, 5).map((item) => item.outerHTML.slice(0, 80)),
    planted: window.planted || 0,
    // How much of the window stays covered while a reader scrolls.
    covered: [...document.querySelectorAll("*")]
      .filter((one) => ["sticky", "fixed"].includes(getComputedStyle(one).position))
      .reduce((sum, one) => sum + one.getBoundingClientRect().height, 0) / innerHeight,
  };
  const folds = ["#environment details", "#checks details", ".case > details[open] .fold",
    ".case > details"];
  const closed = () => folds.map((name) =>
    [...document.querySelectorAll(name)].filter((one) => !one.open).length);
  found.on_screen = closed();
  dispatchEvent(new Event("beforeprint"));
  found.on_paper = closed();
  dispatchEvent(new Event("afterprint"));
  found.after_paper = closed();
  const unfold = () => {
    for (const fold of document.querySelectorAll("details")) fold.open = true;
  };
  unfold();
  await settle();
  unfold();  // what the first made
  await settle();
  found.left = document.querySelectorAll("[data-node]").length;
  const drawn = [...document.querySelectorAll("svg.plot")];
  found.charts = drawn.length;
  found.flat_charts = drawn.filter((one) => {
    const box = one.getBoundingClientRect();
    return box.width < 100 || box.height < 20;
  }).length;
  // The labels of an axis stay on the page.
  found.outside = [...document.querySelectorAll(".x-axis span, .y-axis span")]
    .filter((one) => {
      const box = one.getBoundingClientRect();
      return box.left < 0 || box.right > innerWidth;
    }).map((one) => one.textContent);
  const shown = () => [...document.querySelectorAll("article.case")]
    .filter((item) => item.offsetParent !== null || item.getClientRects().length);
  const form = document.getElementById("filter");
  if (form) {
    found.visible_form = form.getClientRects().length > 0;
    found.all = shown().length;
    const box = form.querySelector("input[value=passed]");
    box.focus();
    found.focused = document.activeElement === box;
    box.click();
    found.without_passed = shown().map((item) => item.dataset.outcome);
    found.said = document.getElementById("shown").textContent;
    form.querySelector("button[type=reset]").click();
    await settle();
    found.after_reset = shown().length;
    const pick = (name, value) => {
      form.elements[name].value = value;
      form.elements[name].dispatchEvent(new Event("input", {bubbles: true}));
    };
    // A head sorts by the difference from the reference; what has none comes last.
    const models = () => [...document.querySelector(".matrix").querySelectorAll("tbody tr")]
      .filter((row) => row.getClientRects().length).map((row) => row.cells[0].textContent);
    const heads = document.querySelectorAll(".matrix thead button");
    heads[2].click();
    found.worst = models()[0];
    heads[0].click();
    found.by_name = models().map((name) => name.slice(0, 3));
    pick("model", "ResNeSt");
    found.rows = models();
    pick("check", "throughput");
    found.picked = shown().map((item) => item.id);
    // A link into a case that is filtered out and folded shows it and opens it.
    location.hash = "#case-squeezenet1_1-bs1-cpu-accuracy";
    await settle();
    const target = document.getElementById("case-squeezenet1_1-bs1-cpu-accuracy");
    found.followed = target ? [!target.hidden, target.querySelector("details").open] : null;
    document.getElementById("fold").click();
    found.open = document.querySelectorAll("article.case > details[open]").length;
    document.getElementById("unfold").click();
    found.closed = document.querySelectorAll("article.case > details:not([open])").length;
    await settle();
    found.scroll_unfolded = root.scrollWidth;
  }
  parent.postMessage(JSON.stringify(found), "*");
}, 50));
</script>
"""
WALL = """<!doctype html><meta charset="utf-8"><body><pre id="found"></pre>
<script>
const found = {};
addEventListener("message", (event) => {
  const one = JSON.parse(event.data);
  found[one.name] = one;
  document.getElementById("found").textContent = JSON.stringify(found);
});
</script>
"""


def _probed(html: str, name: str) -> str:
    """A copy of a report that lets the probe run; the page's own policy would stop it."""
    free = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", html)
    assert free != html
    probe = PROBE.replace("NAME", json.dumps(name))
    return free.replace("</body>", f"{probe}</body>")


def _browser() -> str:
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"needs a Chromium to look at the page: none of {', '.join(NAMES)} on PATH")
    return found


def _dump(browser: str, page: Path, profile: Path) -> tuple[str, str]:
    """The page's DOM when its scripts have ended, and the browser's log."""
    command = [
        browser,
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--no-first-run",
        f"--user-data-dir={profile}",
        "--window-size=1400,1000",
        "--enable-logging=stderr",
        "--v=0",
        "--virtual-time-budget=10000",
        "--dump-dom",
        page.as_uri(),
    ]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    try:
        output, log = process.communicate(timeout=DEADLINE_SECONDS)
    except subprocess.TimeoutExpired:
        pytest.fail(f"{browser} did not end within {DEADLINE_SECONDS} s")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=10)
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
    return output.decode(errors="replace"), log.decode(errors="replace")


class Seen:
    """What the probes found in each frame, and the lines that the console wrote for it."""

    def __init__(self, found: dict[str, dict[str, Any]], log: str) -> None:
        self.found = found
        self.log = log

    def console(self, name: str) -> list[str]:
        return [line for line in self.log.splitlines() if "CONSOLE" in line and f"/{name}" in line]


def trend(folder: Path) -> str:
    """A trend page with the longest words that stand beside a chart."""
    nights.write_nights(folder, [600 * 0.99**n for n in range(20)])
    nights.write_nights(folder, [500.0, 480.0], first=20, toolchain="CANN " + "9" * 150)
    nights.write_nights(folder, [500.0], first=24, outcome="inconclusive")
    whole = samples.accuracy_measurement(WHOLE_SET, 40_000, provenance="real")
    changes: dict[str, Any] = {"measurement": whole, "run": "r", "started": nights.night(25)}
    nights.write_run(folder, [samples.case("inceptionv4", 1, provenance="real", **changes)])
    return write_trend(folder, catalog=samples.catalog()).path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def seen() -> Iterator[Seen]:
    browser = _browser()
    everything = render_html(samples.all_outcomes(), now=NOW)
    green = render_html(samples.run_records([samples.case()]), now=NOW)
    # A short path of its own: a profile holds a socket, whose path must be short.
    with tempfile.TemporaryDirectory(prefix="report-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        real = render_html(samples.write_samples(folder, samples.real_run(folder)), now=NOW)
        trends = trend(folder / "trend")
        pages = {
            "trend_phone": (PHONE, _probed(trends, "trend_phone")),
            "trend_small": (320, _probed(trends, "trend_small")),
            "trend_untouched": (PHONE, trends),
            "real_phone": (PHONE, _probed(real, "real_phone")),
            "real_desktop": (1280, _probed(real, "real_desktop")),
            "real_untouched": (PHONE, real),
            "phone": (PHONE, _probed(everything, "phone")),
            "desktop": (1280, _probed(everything, "desktop")),
            "hostile": (PHONE, _probed(render_html(hostile_run("real"), now=NOW), "hostile")),
            "empty": (PHONE, _probed(render_html(samples.run_records([]), now=NOW), "empty")),
            "low": (HEIGHT, _probed(green, "low")),
            "untouched": (PHONE, green),
            "planted_wide": (
                PHONE,
                _probed(green, "planted_wide").replace(
                    "<main>", "<main><div style='width:900px'>wide</div>"
                ),
            ),
            "planted_banner": (
                PHONE,
                _probed(green, "planted_banner").replace(
                    "<main>", "<style>.banner p { padding: 25px }</style><main>"
                ),
            ),
            "planted_error": (
                PHONE,
                _probed(green, "planted_error").replace(
                    "<main>", "<script>nobody()</script><main>"
                ),
            ),
            "planted_policy": (PHONE, green.replace('"use strict";', '"use strict"; nobody();')),
        }
        frames = ""
        for title, (width, html) in pages.items():
            (folder / f"{title}.html").write_text(html, encoding="utf-8")
            style = f"width:{width}px;height:{LOW if title == 'low' else HEIGHT}px"
            frames += f'<iframe src="{title}.html" style="{style}"></iframe>\n'
        wall = folder / "wall.html"
        wall.write_text(WALL + frames, encoding="utf-8")
        dom, log = _dump(browser, wall, folder / "profile")
    text = re.search(r'<pre id="found">(.*?)</pre>', dom, re.DOTALL)
    if text is None or not text[1]:
        pytest.fail(f"no probe reported; the browser's log ends:\n{log[-3000:]}")
    yield Seen(json.loads(unescape(text[1])), log)


def test_the_page_loads_without_an_error(seen: Seen) -> None:
    for name in (*CLEAN, "untouched", "real_untouched", "trend_phone", "trend_untouched"):
        assert seen.console(name) == []
    assert seen.console("planted_error") != []
    assert seen.console("planted_policy") != []


def test_a_phone_does_not_scroll_sideways(seen: Seen) -> None:
    names = ("phone", "hostile", "empty", "real_phone", "trend_phone", "trend_small")
    for found in map(seen.found.__getitem__, names):
        assert found["width"] == (320 if found["name"] == "trend_small" else PHONE)
        assert found["scroll"] <= found["width"], found["wide"]
        assert found["wide"] == found["outside"] == []
        assert found.get("scroll_unfolded", 0) <= PHONE
    assert seen.found["planted_wide"]["scroll"] > PHONE
    assert seen.found["planted_wide"]["wide"] != []


def test_banners_leave_the_window_to_the_page(seen: Seen) -> None:
    for name, most in (("phone", 0.06), ("desktop", 0.04), ("low", 0.0), ("real_phone", 0.0)):
        assert seen.found[name]["covered"] <= most, name
    assert seen.found["phone"]["covered"] > 0  # it is still there
    assert seen.found["planted_banner"]["covered"] > 0.06


def test_paper_has_the_environment_and_all_of_an_open_case(seen: Seen) -> None:
    for name in CLEAN:
        found = seen.found[name]
        assert found["left"] == 0
        folded = found["on_screen"][-1]
        assert found["on_screen"][0] == 1
        assert found["on_paper"] == [0, 0, 0, folded], name  # a case that is good stays a line
        assert found["after_paper"] == found["on_screen"]
    assert min(seen.found["real_desktop"]["on_screen"][:2]) > 0


def test_nothing_planted_in_the_records_runs(seen: Seen) -> None:
    assert seen.found["hostile"]["planted"] == 0


def test_charts_have_a_size(seen: Seen) -> None:
    for name in ("real_phone", "real_desktop"):
        found = seen.found[name]
        assert found["flat_charts"] == 0
        assert found["charts"] == 7
        assert found["outside"] == []


@pytest.mark.parametrize("name", ["desktop", "phone"])
def test_the_filters_work(seen: Seen, name: str) -> None:
    found = seen.found[name]
    assert found["visible_form"]
    assert found["all"] == 20
    assert found["focused"]
    assert len(found["without_passed"]) == 7
    assert "passed" not in found["without_passed"]
    assert found["said"] == "7 of 20 cases shown"
    assert found["after_reset"] == 20
    assert found["picked"] == [
        "case-resnest50-bs1-cpu-throughput",
        "case-resnest50-bs4-cpu-throughput",
    ]
    assert found["worst"].startswith("squeezenet1_1")  # 9 % below its reference
    assert found["by_name"] == ["fix", "inc", "res", "ser", "squ"]
    assert [name[:9] for name in found["rows"]] == ["resnest50"]
    assert found["followed"] == [True, True]
    assert found["open"] == 0
    assert found["closed"] == 0
