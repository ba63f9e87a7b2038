"""The list of rules: what prints it, the page that explains it, and the verdicts that name it."""

import re

from typer.testing import CliRunner

from harness.__main__ import app
from harness.judge.rules import RULES
from tests.selftest.running import ROOT, imported_by

PAGE = (ROOT / "docs" / "judging.md").read_text(encoding="utf-8")


def test_the_page_has_a_section_for_each_rule_in_the_order_of_the_list():
    sections = re.findall(r"^## (.+)\n\n`(.+)`, from (.+)\.\n", PAGE, re.MULTILINE)
    assert sections == [(rule.title, rule.name, rule.source) for rule in RULES]


def test_the_command_prints_them_in_that_order():
    done = CliRunner().invoke(app, ["rules"])
    assert done.exit_code == 0, done.output
    assert re.findall(r"^([\w-]+): (.+)$", done.output, re.MULTILINE) == [
        (rule.name, rule.title) for rule in RULES
    ]
    for rule in RULES:
        assert rule.source in done.output
        assert f"{rule.function.__module__}.{rule.function.__name__}" in done.output


def test_judging_imports_no_distribution_before_one_is_used():
    modules = ("rules", "run_checks", "causes")
    assert "scipy" not in imported_by("\n".join(f"import harness.judge.{m}" for m in modules))
