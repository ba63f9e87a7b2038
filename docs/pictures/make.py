"""Make the pictures of the documents from real runs: `python docs/pictures/make.py`.

Each picture is what a run, a command or a page of this checkout shows. Nothing is drawn by hand but
`chain.svg`. Takes about three minutes; needs Chromium.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image, ImageChops
from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
SMALL = ("--catalog=tests/selftest/tiny.yaml", "--batch-sizes=1")
PAGE = """<body style="margin:0"><iframe src="{source}" scrolling="no"
 style="border:0;width:{width}px;height:{height}px"></iframe>"""


class Pictures:
    """Runs in a folder of their own, and pictures of what they leave."""

    def __init__(self, folder: Path, chromium: str) -> None:
        self.folder, self.chromium = folder, chromium
        self.env = {
            **os.environ,
            "HARNESS_STORE": str(folder / "store"),
            "HARNESS_LEASES": str(folder / "leases"),
            "COLUMNS": "112",
            "FORCE_COLOR": "1",
        }

    def command(self, *arguments: str, runs: str) -> str:
        """Run `python -m ARGUMENTS` over a folder of runs; return what it prints."""
        done = subprocess.run(
            [sys.executable, "-m", *arguments],
            cwd=ROOT,
            env={**self.env, "HARNESS_RUNS": str(self.folder / runs)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=900,
        )
        return self.neutral(done.stdout)

    def neutral(self, text: str) -> str:
        """Return a text in which no folder of this machine is named."""
        return text.replace(str(self.folder), "/srv/npu-acceptance").replace(f"{ROOT}/", "")

    def run(self, *arguments: str, runs: str) -> str:
        """Run the acceptance with pytest."""
        plain = ("-p", "no:cacheprovider", "--no-header", "-q")
        return self.command("pytest", *plain, *arguments, runs=runs)

    def terminal(self, name: str, title: str, text: str) -> None:
        """Save what a command printed as an SVG."""
        console = Console(record=True, width=112, file=io.StringIO())
        console.print(Text.from_ansi(text.strip()))
        svg = console.export_svg(title=title)
        # No font from elsewhere: the reader's own monospace does.
        svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.S)
        (HERE / f"{name}.svg").write_text(svg, encoding="utf-8")

    def page(self, name: str, source: Path, width: int, height: int, anchor: str = "") -> Path:
        """Save a part of a page, from an anchor on, without the empty space below."""
        frame, copy = self.folder / "frame.html", self.folder / "copy.html"
        text = self.neutral(source.read_text(encoding="utf-8"))
        if anchor:
            text = re.sub(rf'(id="{anchor}"[^>]*>\s*<details)>', r"\1 open>", text)
        copy.write_text(text, encoding="utf-8")
        where = copy.as_uri() + (f"#{anchor}" if anchor else "")
        frame.write_text(PAGE.format(source=where, width=width, height=height), encoding="utf-8")
        picture = HERE / f"{name}.png"
        subprocess.run(
            [
                *(self.chromium, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
                *("--disable-background-networking", "--allow-file-access-from-files"),
                f"--user-data-dir={self.folder / 'chromium'}",
                *(f"--window-size={width},{height}", f"--screenshot={picture}", frame.as_uri()),
            ],
            check=True,
            timeout=120,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        with Image.open(picture) as image:
            shown = image.convert("RGB")
        empty = Image.new("RGB", shown.size, shown.getpixel((width - 1, height - 1)))
        box = ImageChops.difference(shown, empty).getbbox()
        if box is not None:
            shown = shown.crop((0, 0, width, min(height, box[3] + 12)))
        _save(shown, picture)
        return picture


def _save(image: Image.Image, path: Path) -> None:
    image.quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)


def side_by_side(name: str, left: Path, right: Path) -> None:
    """Put two pictures of pages next to each other, and remove them."""
    with Image.open(left) as one, Image.open(right) as two:
        images = one.convert("RGB"), two.convert("RGB")
    height = min(max(image.height for image in images), 900)
    both = Image.new("RGB", (sum(image.width for image in images) + 16, height), "white")
    both.paste(images[0], (0, 0))
    both.paste(images[1], (images[0].width + 16, 0))
    _save(both, HERE / f"{name}.png")
    left.unlink()
    right.unlink()


def main() -> None:
    """Make them all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chromium", default="chromium")
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help=f"default: {[*PARTS]}")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        pictures = Pictures(Path(folder), chosen.chromium)
        for part in chosen.parts or PARTS:
            PARTS[part](pictures)


def of_runs(pictures: Pictures) -> None:
    """A green run and a red one: terminal, reports, a case, `why`, `doctor`."""
    green = ("--rehearsal", "--models=squeezenet1_1", "--batch-sizes=1")
    printed = pictures.run(*green, runs="green")
    pictures.terminal("run", f"pytest {' '.join(green)}", printed)
    red = ("--simulate-ascend", *SMALL, "--simulator=fault=nan,time=spin:5")
    pictures.run(*red, runs="red")
    for name, arguments in (("why", ("why",)), ("doctor", ("doctor", "--target=ascend310p3"))):
        printed = pictures.command("harness", *arguments, runs="red")
        pictures.terminal(name, f"python -m harness {' '.join(arguments)}", printed)
    reports = [pictures.folder / runs / "latest" / "report.html" for runs in ("green", "red")]
    side_by_side(
        "reports",
        pictures.page("green", reports[0], 760, 900),
        pictures.page("red", reports[1], 760, 900),
    )
    pictures.page("case", reports[0], 900, 900, "case-squeezenet1_1-bs1-cpu-throughput")


def of_nights(pictures: Pictures) -> None:
    """Twelve steady nights, then a device that gets slower by 4 % each night."""
    for night in range(18):
        simulator = f"--simulator=time=spin:{20 * 1.04 ** max(0, night - 11):.3f}"
        pictures.run("--simulate-ascend", "-m", "throughput", *SMALL, simulator, runs="nights")
    pictures.command("harness", "trend", runs="nights")
    page = pictures.folder / "nights" / "trend-simulated.html"
    pictures.page("trend", page, 900, 900)


PARTS = {"runs": of_runs, "nights": of_nights}


if __name__ == "__main__":
    main()
