"""Several catalogs in one run, and `--models` by family and pattern."""

import pytest

from harness.base.errors import CatalogError, ConfigError
from harness.catalog.load import load_catalog, load_catalogs
from harness.plan import make_plan
from harness.settings import resolve
from tests.selftest.running import ROOT, TINY


@pytest.fixture
def second(tmp_path):
    """A catalog beside the tiny one: the same sources, the model under two names of a family."""
    head, block = TINY.read_text().split("  tiny:\n")
    block = block.partition("\nknown_failures")[0]
    entries = [f"  {name}:\n    family: tinies\n{block}" for name in ("other_a", "other_b")]
    path = tmp_path / "second.yaml"
    path.write_text(head + "\n".join(entries))
    return path


def planned(*catalogs, **given):
    options = {"catalog": [str(path) for path in catalogs], "rehearsal": True, "batch_sizes": "1"}
    settings = resolve(options | given, environment={})
    cases = make_plan(load_catalogs(settings.catalog), settings).of("accuracy")
    return [case.model for case in cases]


@pytest.mark.parametrize(
    "words, models",
    [
        (None, ["tiny", "other_a", "other_b"]),
        ("tinies", ["other_a", "other_b"]),
        ("other_*", ["other_a", "other_b"]),
        ("other_b,tinies", ["other_b", "other_a"]),
        ("t*,other_[a]", ["tiny", "other_a"]),
    ],
)
def test_models_of_all_catalogs_are_chosen_by_name_family_or_pattern(second, words, models):
    assert planned(TINY, second, models=words) == models


@pytest.mark.parametrize("word", ["tinis", "x*", "other_c"])
def test_a_word_that_means_no_model_is_one_sentence(second, word):
    with pytest.raises(ConfigError, match="no model is named") as raised:
        planned(TINY, second, models=word)
    assert "models: tiny, other_a, other_b" in str(raised.value)


def test_ids_are_unique_over_all_catalogs(second, tmp_path):
    again = tmp_path / "again.yaml"
    again.write_bytes(second.read_bytes())
    with pytest.raises(CatalogError, match="the model other_a stands in another catalog"):
        planned(second, again)
    (tmp_path / "changed.yaml").write_text(
        TINY.read_text().replace("  tiny:\n", "  third:\n").replace("title: ", "title: Another ", 1)
    )
    with pytest.raises(CatalogError, match=r"the source \w+ stands in another catalog"):
        planned(second, tmp_path / "changed.yaml")


def test_the_order_of_files_is_part_of_what_a_run_is_of(second):
    both, other = load_catalogs([TINY, second]), load_catalogs([second, TINY])
    assert len({one.digest for one in (load_catalog(TINY), both, other)}) == 3
    assert load_catalogs([TINY]) == load_catalog(TINY)


def test_a_variable_names_several_as_path_does(second):
    settings = resolve({}, environment={"HARNESS_CATALOG": f"{TINY}:{second}"})
    assert settings.catalog == (TINY, second)


def test_the_zoo_goes_with_the_guides_catalog_and_says_what_was_checked():
    files = [ROOT / "baselines.yaml", ROOT / "catalogs" / "modelzoo.yaml"]
    zoo = load_catalog(files[1])
    assert len(zoo.models) >= 40
    for model in zoo.models.values():
        assert {"network", "preprocessing", "figures"} <= model.checked.keys()
        assert model.family
        # What was not checked of the weights is told to whoever reads a result.
        assert "weights" in model.checked or any("Weights:" in one for one in model.assumed)
    models = planned(*files, models="squeezenet1_1,resnet")
    assert models == ["squeezenet1_1", "moco_v2", "resnet101", "resnet152", "resnet18", "resnet34"]
