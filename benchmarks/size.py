"""A catalog of a thousand models, and the report of a thousand cases: time, memory and bytes.

Makes a catalog of the sixth model under other names, collects all of its cases as pytest does,
writes records of invented cases, and makes their report and exports as `python -m harness report`
does.
Where there is a Chromium, opens the page, filters and sorts it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness.base.environment import ROOT
from harness.records import writer
from harness.records.measurements import Samples
from harness.records.reader import RunRecords
from tests.selftest import report_samples as samples

FAMILIES = ("resnet", "vgg", "densenet", "mobilenet", "regnet", "swin", "vit", "convnext")
SIZES = (1, 4, 8, 16, 32, 64)
# Runs in a copy of the page: what a reader waits for, in milliseconds.
PROBE = """<script>addEventListener("load", () => {
  const drawn = () => document.body.getBoundingClientRect();
  drawn();
  const found = {open: performance.now()};
  const model = document.getElementById("filter").elements.model;
  const filter = (text) => {
    model.value = text;
    model.dispatchEvent(new Event("input", {bubbles: true}));
  };
  const sort = () => document.querySelectorAll(".matrix thead button")[1].click();
  for (const [name, act] of [["filter", () => filter("swin")], ["all", () => filter("")],
    ["sort", sort]]) {
    const begin = performance.now();
    act();
    drawn();
    found[name] = performance.now() - begin;
  }
  document.title = JSON.stringify(found);
});</script>"""


def write_catalog(path: Path, models: int) -> None:
    """Write the sixth model so many times, each under a name of its own."""
    text = (ROOT / "examples/sixth_model/efficientnet_lite0.yaml").read_text(encoding="utf-8")
    head, key, block = text.partition("  efficientnet_lite0:")
    names = (f"  {FAMILIES[n % len(FAMILIES)]}{n:04d}:" for n in range(models))
    path.write_text(head + "".join(name + block for name in names), encoding="utf-8")
    assert key


def write_records(directory: Path, count: int) -> RunRecords:
    """Write a real run of so many cases, no two with the same figures; one of 50 failed."""
    draw = random.Random(count)
    cases = []
    for number in range(count):
        model = f"{FAMILIES[number // 12 % len(FAMILIES)]}{number // 12:04d}"
        check, batch = ("accuracy", "throughput")[number % 2], SIZES[number // 2 % 6]
        changes: dict[str, Any] = {"target": "ascend310p3", "provenance": "real"}
        if check == "throughput":
            times = [draw.gauss(3.1 * batch, 0.1 * batch) for _ in range(400)]
            timing = samples.timing(batch, times)
            changes |= {"timing": timing, "measured": timing.fps, "setup": samples.SETUP}
            changes |= {"conditions": samples.conditions()}
        else:
            right = draw.randrange(380, 420)
            changes |= {"measured": right / 5.12, "scores": samples.scores(512, right)}
        outcome: Any = "passed" if draw.random() < 0.98 else "failed"
        case = samples.case(model, batch, check, outcome, device=samples.DEVICE, **changes)  # type: ignore[arg-type]
        keys = tuple(replace(one, key=f"{draw.getrandbits(256):x}") for one in case.artifacts)
        cases.append(case.model_copy(update={"artifacts": keys}))
        if case.throughput is not None:
            rounds = tuple(tuple(times[start::8]) for start in range(8))
            writer.write_samples(directory, f"{case.case}", Samples(rounds))
    records = samples.run_records(cases, provenance="real", exit_status=1)
    samples.write(directory, records)
    return replace(records, directory=directory)


def child(*arguments: str) -> tuple[float, float]:
    """CPU seconds of `python ARGUMENTS`, whatever else the host does, and MB of memory at most."""
    process = subprocess.Popen(
        [sys.executable, *arguments], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{arguments} ended with {process.returncode}: {said.decode()[-2000:]}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1000


def browse(browser: str, page: Path, folder: Path) -> dict[str, float]:
    """Milliseconds that a reader waits for the page, a filter and a sort."""
    html = page.read_text(encoding="utf-8")
    html = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", html)
    copy = folder / "page.html"
    copy.write_text(html.replace("</body>", f"{PROBE}</body>"), encoding="utf-8")
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    command.append(f"--user-data-dir={folder / 'profile'}")
    done = subprocess.run(
        [*command, copy.as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    title = re.search(r"<title>(\{.*?\})</title>", done.stdout)
    assert title is not None, done.stderr[-2000:]
    found: dict[str, float] = json.loads(title[1])
    return found


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=1000, help="models of the catalog")
    parser.add_argument("--cases", type=int, default=1000, help="cases of the report")
    parser.add_argument("--browser", default=shutil.which("chromium") or "", help="a Chromium")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        catalog = folder / "catalog.yaml"
        write_catalog(catalog, chosen.models)
        (folder / "run").mkdir()
        write_records(folder / "run", chosen.cases)
        sizes = ",".join(map(str, SIZES))
        selection = (f"--catalog={catalog}", f"--batch-sizes={sizes}", "--target=cpu")
        quiet = ("-q", "-p", "no:cacheprovider", "-n", "0")
        planned, reported = f"{12 * chosen.models:,}", f"{chosen.cases:,}"
        steps = {
            f"collect {planned} cases": ("pytest", "--collect-only", *quiet, *selection),
            f"`plan` of {planned} cases": ("harness", "plan", *selection),
            f"report and exports of {reported} cases": ("harness", "report", str(folder / "run")),
        }
        print("| step | CPU seconds | MB of memory |\n| --- | ---: | ---: |")
        for step, arguments in steps.items():
            seconds, memory = child("-m", *arguments)
            print(f"| {step} | {seconds:.2f} | {memory:.0f} |")
        page = folder / "run" / "report.html"
        size = page.stat().st_size
        print(f"\nThe page has {size / 1e6:.2f} MB, {size / chosen.cases:,.0f} bytes a case.")
        if chosen.browser:
            found = browse(chosen.browser, page, folder)
            waits = ", ".join(f"{what} {ms:.0f} ms" for what, ms in found.items())
            print(f"In a browser: {waits}.")


if __name__ == "__main__":
    main()
