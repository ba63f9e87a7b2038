"""The fixed words of pages: every one of them has its Chinese, and a page speaks one language."""

from __future__ import annotations

import json
import re
import string
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from harness.__main__ import app
from harness.base.environment import ROOT
from harness.base.stages import Stage
from harness.judge import causes
from harness.judge.wording import clause
from harness.pages import looks, words
from harness.records.lines import CheckName
from harness.records.reader import RunRecords
from harness.records.verdicts import FigureName
from harness.report import findings
from harness.report.markdown import summary_markdown
from harness.report.render import render_html
from harness.run.ending import publish
from tests.selftest import report_samples as samples
from tests.selftest.pages import Tree, unfolded

TEMPLATES = [
    (ROOT / "harness" / name).read_text(encoding="utf-8")
    for name in ("report/template.html.j2", "pages/macros.html.j2")
]


@pytest.mark.parametrize("template", TEMPLATES, ids=["report", "macros"])
def test_a_template_says_nothing_that_the_table_does_not_have(template: str) -> None:
    keys = re.findall(r'_\("((?:[^"])*)"', template)
    assert [key for key in keys if key not in words.chinese()] == []
    # Nor anything past the table: what is left between the tags is no word.
    text = re.sub(r"\{#.*?#\}|\{%.*?%\}|\{\{.*?\}\}", "", template, flags=re.S)
    text = re.sub(r"<(title|symbol)\b.*?</\1>|<[^>]*>", " ", text, flags=re.S)
    assert set(re.findall(r"[A-Za-z]{2,}", text)) <= {"git", "top", "results", "jsonl", "samples"}


def fixed() -> Iterator[str]:
    """Words that stand in tables of other rooms."""
    for look in looks.LOOKS.values():
        yield from (look.word, look.meaning)
    for banner in looks.banners({"rehearsal", "simulated"}):
        yield from (banner.word, banner.noun, banner.sentence, f"{banner.noun} report")
    yield from filter(None, (text for stage in Stage for text in (stage.doing, stage.makes)))
    yield from (name.label for name in FigureName)
    yield from CheckName
    yield from findings.EXITS.values()
    facts = tuple(vars(causes).values())
    tables = [value for value in facts if isinstance(value, dict)]
    reasons = [one for table in tables for one in table.values()]
    for reason in (*reasons, *facts):
        if isinstance(reason, causes.Reason):
            yield reason.why


def test_tables_of_other_rooms_are_translated() -> None:
    assert [text for text in fixed() if text not in words.chinese()] == []


def test_values_keep_their_places() -> None:
    def places(text: str) -> set[str | None]:
        return {name for _, name, _, _ in string.Formatter().parse(text) if name}

    assert [key for key, text in words.chinese().items() if places(key) != places(text)] == []


def strings(value: Any) -> Iterator[str]:
    """Every string of some JSON."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from value
        for one in value.values():
            yield from strings(one)
    elif isinstance(value, list):
        for one in value:
            yield from strings(one)


REAL = samples.real_run()
RECORDS = {
    "all outcomes": samples.all_outcomes(),
    "real": REAL,
    "lost": samples.run_records([], lost=REAL.plan, end=False, damaged=("x",)),
    "check": samples.run_records([samples.case()], checks=[samples.batch_check(outcome="failed")]),
}


@pytest.mark.parametrize("name", RECORDS)
def test_whatever_a_report_says_of_its_own_is_in_the_table(name, tmp_path, monkeypatch):
    table, missed = words.chinese(), set()

    class Table(dict[str, str]):
        def get(self, key: str, default: Any = None) -> Any:
            if key not in table and key.isascii():  # what is Chinese already is said as it is
                missed.add(key)
            return table.get(key, default)

    monkeypatch.setattr(words, "chinese", Table)
    records = samples.write_samples(tmp_path, RECORDS[name])
    with words.spoken("zh"):
        render_html(records)
        summary_markdown(records)
    lines = (records.run, *records.cases, *records.checks)
    foreign = {text for line in lines if line for text in strings(line.model_dump(mode="json"))}
    foreign |= {clause(text) for text in foreign}
    foreign |= {text.rstrip(".") for text in foreign}
    assert missed - foreign == set()


def chinese(records: RunRecords) -> Tree:
    with words.spoken("zh"):
        return Tree(unfolded(render_html(records)))


def test_a_page_in_chinese() -> None:
    tree = chinese(samples.all_outcomes())
    assert '<html lang="zh">' in tree.html
    assert tree.text("h1").startswith("演练：运行不完整，20 个用例中 1 个没有运行。失败 1，")
    for said in ("工具链失败", "怎么办", "重跑命令", "吞吐率", "未判定", "eager PyTorch"):
        assert said in tree.text()
    assert not {"failed", "passed", "Cases", "Measured"} & set(tree.text().split())
    real = chinese(samples.run_records([samples.real_accuracy("fixres", 1)], provenance="real"))
    assert "验收通过" in real.text()
    # The next page is English again.
    assert '<html lang="en">' in render_html(samples.all_outcomes())


@pytest.mark.parametrize(
    ("variables", "language"),
    [
        ({"LANG": "zh_CN.UTF-8"}, "zh"),
        ({"LANG": "zh_CN.UTF-8", "LC_ALL": "C"}, "en"),
        ({"LANG": "C.UTF-8", "LC_MESSAGES": "zh_TW"}, "zh"),
        ({"LANG": "de_DE.UTF-8"}, "en"),
        ({"LC_ALL": "", "LANG": "zh"}, "zh"),
        ({}, "en"),
    ],
)
def test_the_locale_chooses_where_nobody_does(variables: dict[str, str], language: str) -> None:
    assert words.preferred(variables) == language


def test_the_command_and_the_run_take_the_language(tmp_path: Path) -> None:
    run = samples.write(tmp_path / "run", samples.all_outcomes())
    done = CliRunner().invoke(app, ["report", str(run), "--lang=zh"])
    assert done.exit_code == 0, done.output
    assert "演练报告" in (run / "report.html").read_text(encoding="utf-8")
    assert "需要处理" in (run / "summary.md").read_text(encoding="utf-8")
    # What programs read stays as it is.
    assert "Rehearsal" in json.loads((run / "summary.json").read_text())["verdict"]
    done = CliRunner().invoke(app, ["report", str(run), "--lang=fr"])
    assert done.exit_code == 4
    records = samples.write_samples(tmp_path / "run", samples.all_outcomes())
    publish(records, "en")
    assert "Rehearsal report" in (run / "report.html").read_text(encoding="utf-8")
    publish(records, "zh")
    assert "演练报告" in (run / "report.html").read_text(encoding="utf-8")
