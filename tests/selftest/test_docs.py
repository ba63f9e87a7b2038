"""What the documents say is what the code does."""

from __future__ import annotations

import re

import pytest
from typer.testing import CliRunner

from harness import plan as cases
from harness import settings
from harness.__main__ import app
from harness.base.errors import CheckpointError
from harness.base.terms import WHOLE_SET
from harness.catalog.load import load_catalog
from harness.settings import DEFAULT_BATCH_SIZES, OPTIONS
from harness.stages import checkpoint as checkpoints
from harness.stages.pipeline import Workbench
from harness.targets.ascend import target as ascend
from tests.selftest.running import ROOT, TINY

README = (ROOT / "README.md").read_text(encoding="utf-8")
ASCEND = (ROOT / "docs" / "ascend.md").read_text(encoding="utf-8")
CATALOG = load_catalog(ROOT / "baselines.yaml")


def test_the_page_of_options_is_what_the_command_prints():
    page = (ROOT / "docs" / "options.md").read_text(encoding="utf-8")
    assert CliRunner().invoke(app, ["options"]).output == page
    for option in OPTIONS:
        assert f"| `{option.flag}" in page


# What is judged ----------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["ascend310p3", "ascend310", "ascend310b1"])
def test_the_page_says_which_figures_are_judged(target):
    # Models that follow those of the guides change no page.
    models = [one for one in CATALOG.models.values() if one.guide.startswith("guide-")]
    for model in models:
        figures = model.baselines(target)
        if target == "ascend310b1" and not figures:
            continue  # of a chip besides those of the guides, the page has what is published
        judged = sorted(at for at, one in figures.items() if one.judged and one.comparable)
        recorded = sorted(set(figures or DEFAULT_BATCH_SIZES) - set(judged))
        cells = (
            f"`{target}`",
            f"`{model.id}`",
            f"{model.stated.published.top1} %",
            ", ".join(map(str, judged)) or "**none**: no figure is published",
            ", ".join(map(str, recorded)),
        )
        row = f"| {' | '.join(cells)} |"
        assert f"\n{row}" in ASCEND, f"docs/ascend.md has not this row: {row}"
    assert len(models) == 5


def test_the_readme_leads_to_the_guides_that_the_figures_are_from():
    links = dict(re.findall(r"\[([\w-]+)\]\((https://github\.com/Ascend/[^)]+)\)", README))
    guides = [source for name, source in CATALOG.sources.items() if name.startswith("guide-")]
    assert len(links) == len(guides) == 5
    for source in guides:
        repository, rest = source.where.split(", ", 1)
        path, commit = rest.split(" at ")
        link = links[source.title.split(", ")[1]]
        assert link.startswith(f"https://github.com/{repository}/blob/{commit}"), source.title
        assert link.endswith(f"/{path}"), source.title


def test_the_page_says_the_deadlines():
    said = (
        f"Compiling {ascend.COMPILE_DEADLINE_S / 60:g} minutes, "
        f"with tuning {ascend.TUNED_DEADLINE_S / 3600:g} hours; "
        f"loading a model {ascend.OPEN_DEADLINE_S:g} s; "
        f"one answer of the device {ascend.RUN_DEADLINE_S:g} s."
    )
    assert said in " ".join(ASCEND.split())


# Crops and weights -------------------------------------------------------------------------


def text(name):
    return " ".join((ROOT / name).read_text(encoding="utf-8").split())


def crops_gb():
    """GB of the whole set's crops for each geometry of the guides, with the models it serves."""
    found: dict[object, tuple[int, list[str]]] = {}
    for model in CATALOG.models.values():
        if not model.guide.startswith("guide-"):
            continue  # the pages speak of the five guides' models; more may follow them
        steps = model.preprocessing
        entry = found.setdefault((steps.resize, steps.crop), (steps.size, []))
        entry[1].append(model.id)
    return [(WHOLE_SET * 3 * size**2 / 1e9, size, models) for size, models in found.values()]


def test_the_disk_of_the_crops_is_what_the_catalog_makes_it():
    wanted = sorted(
        [*(f"{gb:.1f}" for gb, *_ in crops_gb()), f"{sum(c[0] for c in crops_gb()):.1f}"]
    )
    page = text("docs/imagenet.md")
    (part,) = re.findall(r"\| models \| crops .*?until the store is no larger", page)
    assert sorted(re.findall(r"(\d+\.\d) GB", part)) == wanted
    assert "cache gc --max-gb" in part


def test_who_shares_crops_stands_in_one_row():
    table = (ROOT / "docs" / "imagenet.md").read_text(encoding="utf-8").splitlines()
    for gb, size, models in crops_gb():
        (row,) = (line for line in table if line.startswith(f"| `{models[0]}`"))
        assert f"{size} x {size} | {gb:.1f} GB |" in row
        assert all(f"`{model}`" in row for model in models)


def test_where_weights_are_taken_from_is_as_the_page_says(tmp_path, monkeypatch):
    page = text("docs/checkpoints.md")
    assert "With neither of the two options pytest ends with code 4" in page
    assert "with `--checkpoints` alone it is `checkpoints` in the artifact store" in page
    given = {"target": "cpu", "store": str(tmp_path / "store"), "catalog": str(TINY)}
    catalog = load_catalog(TINY)
    case = cases.Case("tiny", 4, "cpu", "throughput")
    neither = settings.resolve(given, environment={})
    (missing,) = cases.missing(neither, [case])
    assert "checkpoints" in missing.thing
    asked = []

    def obtain(spec, folder, cache, **others):
        asked.append((folder, cache))
        raise CheckpointError("planted")

    monkeypatch.setattr(checkpoints, "obtain_checkpoint", obtain)
    for name in ("checkpoints", "checkpoint_cache"):
        chosen = settings.resolve({**given, name: str(tmp_path)}, environment={})
        assert cases.missing(chosen, [case]) == ()
        bench = Workbench(chosen, catalog, tmp_path / "run")
        with pytest.raises(CheckpointError, match="planted"):
            bench.for_case(case).prepare()
    assert asked == [(tmp_path, tmp_path / "store" / "checkpoints"), (None, tmp_path)]


# Commands ----------------------------------------------------------------------------------

PAGES = [ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_pages_give_pytest_options_that_it_has(page):
    known = {flag for option in OPTIONS for flag in option.flags} | {
        "--html",
        "--collect-only",
        "--help",
    }
    blocks = re.findall(r"```shell\n(.*?)```", page.read_text(encoding="utf-8"), re.S)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    commands = [line for line in lines if re.match(r"\s*pytest ", line)]
    assert {word for line in commands for word in re.findall(r"(?<=\s)--[\w-]+", line)} <= known


@pytest.mark.parametrize(
    "page", [*sorted(ROOT.glob("README*.md")), *PAGES], ids=lambda page: page.name
)
def test_links_of_the_documents_lead_to_files_and_headings(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        file = page.parent / name if name else page
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.M)
            anchors = {re.sub(r"[^\w -]", "", one.lower()).replace(" ", "-") for one in headings}
            assert anchor in anchors, target
