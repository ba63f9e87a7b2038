"""What the documents say is what the code does."""

from __future__ import annotations

import re

import pytest

from harness.catalog import parse_catalog
from harness.settings import OPTIONS
from tests.selftest.running import ROOT, run_python

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_recipe_for_a_sixth_model_is_valid_as_it_stands(tmp_path):
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    match = re.search(r"```yaml\nsources:\n(.*?)\nmodels:\n(.*?)```", text, re.S)
    assert match is not None
    catalog = (ROOT / "baselines.yaml").read_text(encoding="utf-8")
    catalog = catalog.replace("sources:\n", "sources:\n" + match[1], 1)
    catalog = catalog.replace("known_failures:", match[2] + "\nknown_failures:", 1)
    found = parse_catalog(catalog.encode(), tmp_path / "catalog.yaml")
    assert list(found.models)[-1] == "mobilenetv3"
    path = tmp_path / "catalog.yaml"
    path.write_text(catalog, encoding="utf-8")
    code, output = run_python(
        ["-m", "harness", "plan", "--rehearsal", "--models", "mobilenetv3", "--catalog", str(path)]
    )
    assert code == 0, output
    assert "mobilenetv3-bs4-cpu" in output


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_the_readme_names_every_option_and_its_variable(option):
    row = next((line for line in README.splitlines() if line.startswith(f"| `{option.flag}")), "")
    assert f"`{option.environment}`" in row


def test_links_and_pictures_of_the_documents_are_there():
    for document in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#\s]+)\)", document.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_the_commands_of_the_readme_exist():
    names = set(re.findall(r"python -m harness (cache \w+|\w+)", README))
    assert names >= {"plan", "doctor", "report", "cache ls", "cache explain", "cache gc"}
    for name in names:
        code, output = run_python(["-m", "harness", *name.split(), "--help"])
        assert code == 0, output
