"""The simulation of the rules: it runs, repeats itself, and its tables are those of the docs."""

import re

import numpy as np
import pytest

from benchmarks import judging
from benchmarks.judging import Artifact
from harness.base.terms import WHOLE_SET as WHOLE
from harness.catalog.load import load_catalog
from tests.selftest.running import ROOT

DOCS = (ROOT / "docs" / "judging-tables.md").read_text(encoding="utf-8")


def drawn(artifact, images, samples=200, seed=1):
    return list(judging.draw(artifact, 78.26, images, samples, np.random.default_rng(seed)))


def test_what_is_drawn_has_the_rates_that_it_stands_for():
    pairs = drawn(Artifact("x", flips=2, drop=1), 5000)
    assert {one.n for one in pairs} == {5000}
    lost = sum(one.only_reference for one in pairs) / len(pairs) / 50  # in percent
    gained = sum(one.only_compiled for one in pairs) / len(pairs) / 50
    right = sum(one.reference_correct for one in pairs) / len(pairs) / 50
    assert (lost, gained, right) == pytest.approx((2.0, 1.0, 78.26), abs=0.1)


def test_the_whole_set_is_drawn_whole_and_a_reference_that_is_off_is_off_on_both_sides():
    for artifact, right in (
        (Artifact("x", drop=1), (39_130, 38_630)),
        (Artifact("x", reference_off=5), (36_630, 36_630)),
    ):
        for one in drawn(artifact, WHOLE, samples=3):
            assert (one.reference_correct, one.compiled_correct) == right


def test_the_simulation_prints_its_tables_and_repeats_itself(capsys, tmp_path):
    table = tmp_path / "table.md"
    assert judging.main(["--quick", f"--output={table}"]) == 0
    first = capsys.readouterr().out
    assert table.read_text(encoding="utf-8") == first
    for words in ("drop of 2 points", "Device: steady.", "-5 %", "each size flips 0.3 %"):
        assert words in first
    assert judging.main(["--quick", "--only=accuracy"]) == 0
    assert first.startswith(capsys.readouterr().out)


# The tables of the document, which are the script's own output ----------------------------


def rows(name):
    """Cells of every row of the documents' tables that begins with `name`."""
    found = [
        [cell.strip() for cell in line.strip().strip("|").split("|")][1:]
        for line in DOCS.splitlines()
        if re.match(rf"\| {re.escape(name)} \|", line)
    ]
    assert found, name
    return found


def percent(text):
    return float(text.strip("<>"))


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("healthy, no flips", 1),
        ("healthy, 1 % of flips", 1),
        ("healthy, 2 % of flips", 1),
        ("drop of 2 points", 0),
        ("drop of 2 points among 1 % of flips", 0),
        ("no size flips an image", 1),
        ("each size flips 0.1 %", 1),
    ],
)
def test_healthy_artifacts_fail_and_bad_ones_pass_in_less_than_one_percent(name, column):
    for row in rows(name):
        assert len(row) == 4
        assert all(percent(cell.split("/")[column].strip()) < 1 for cell in row)


def test_a_batch_size_that_is_worse_is_drawn_so():
    artifact = Artifact("x", flips=0.1, drop=1)
    passes = judging.draw_passes(artifact, 78.26, WHOLE, np.random.default_rng(1))
    right = {size: sum(a.right for a in one.predictions.values()) for size, one in passes.items()}
    *others, last = right.values()
    assert others == pytest.approx([39_130] * 5, abs=50)
    assert last == pytest.approx(38_630, abs=50)


def test_the_documents_cells_are_those_of_the_script():
    # The cheapest ones again, with the command's own seed and number of samples.
    for name, published in (("seresnext101", 0), ("squeezenet1_1", 1)):
        spec = load_catalog(judging.CATALOG).models[name].stated
        for row, artifact in enumerate(judging.ARTIFACTS):
            if artifact.name in ("healthy, no flips", "drop of 2 points"):
                cell = judging.accuracy_cell(
                    spec.published, spec.rule, row, 0, samples=10_000, seed=2026
                )
                assert rows(artifact.name)[published][0] == cell
    spec = load_catalog(judging.CATALOG).models["seresnext101"].stated
    worst = len(judging.BATCH_ARTIFACTS) - 1
    cell = judging.batch_cell(spec.published, worst, 0, samples=500, seed=2026)
    assert rows(judging.BATCH_ARTIFACTS[worst].name)[0][0] == cell
