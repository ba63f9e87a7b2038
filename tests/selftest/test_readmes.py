"""Chinese pages say what the English ones say, and the commands of both READMEs work.

`test_docs.py` holds the English pages against the code; here each Chinese one is held against its
English one, block by block, and every command of both READMEs is run. A command that `attempt`
does not know fails: a new command in a README needs a way to run it here.
"""

from __future__ import annotations

import json
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest
from typer.testing import CliRunner

from harness.__main__ import app
from harness.networks import library
from tests.selftest import own_model
from tests.selftest.running import ROOT, TINY, Finished, dry_make, last_json, run_python

ENGLISH = ROOT / "README.md"
CHINESE = ROOT / "README.zh.md"
PROGRAMS = ("make", "pip", "pytest", "python")
ENVIRONMENTS = ("env", "env-run")  # targets of make that install and run nothing
REAL = "pytest --rehearsal -m accuracy"

PAGES = [CHINESE, *sorted((ROOT / "docs").glob("*.zh.md"))]

_LANGUAGES = re.compile(r"^(English|\[English\]\(\S+\.md\)) \| .*$", re.M)
_FENCE = re.compile(r"```(\w*)\n(.*?)```", re.S)
_SPAN = re.compile(r"`([^`]+)`")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*(?:e-?\d+)?")
_FORM = re.compile(r"^(#+ |- |\d+\. |\|)", re.M)
_HAN = re.compile(r"[一-鿿]")


# Documents -------------------------------------------------------------------------------


def blocks(document: str) -> list[str]:
    """What blank lines part, without the line that leads to the other language."""
    text = _FENCE.sub(lambda fence: fence[0].replace("\n\n", "\n \n"), document)
    return re.split(r"\n{2,}", _LANGUAGES.sub("", text).strip())


def differences(english: str, other: str) -> list[str]:
    """Return what a translation lacks or has besides, one line each."""
    ours, theirs = blocks(english), blocks(other)
    if len(ours) != len(theirs):
        return [f"{len(ours)} blocks became {len(theirs)}"]
    problems = []
    for one, two in zip(ours, theirs, strict=True):
        before, after = _fixed(one), _fixed(two)
        if before != after:
            lacks, has = sorted(before - after), sorted(after - before)
            problems.append(f"{one[:60]!r}: lacks {lacks}, has besides {has}")
        words = re.findall(r"[A-Za-z]{2,}", _plain(two))
        if len(words) > 2 and not _HAN.search(two):
            problems.append(f"{two[:60]!r} is not translated")
    return problems


def _fixed(block: str) -> Counter[str]:
    """Count what a translation must not change: form, code without comments, links, figures."""
    code = [_code(line) for _, lines in _FENCE.findall(block) for line in lines.splitlines()]
    prose = _FENCE.sub("", block)
    columns = [f"columns {line.count('|')}" for line in prose.splitlines() if line[:1] == "|"]
    links = [f"links {target}" for target in map(_page, _LINK.findall(prose))]
    figures = [f"figures {number}" for number in _NUMBER.findall(_plain(prose))]
    return Counter([*code, *columns, *links, *figures, *_spans(prose), *_FORM.findall(prose)])


def _page(target: str) -> str:
    """Return what a link leads to in either language: headings are translated, with anchors."""
    return target if "://" in target else target.partition("#")[0].replace(".zh.md", ".md")


def _code(line: str) -> str:
    """Return a line of code without its comment or description."""
    return re.split(r"(?<=\S)\s{2,}|(?:^|\s+)#", line)[0]


def _spans(prose: str) -> list[str]:
    return [" ".join(span.split()) for span in _SPAN.findall(prose)]


def _plain(text: str) -> str:
    return _LINK.sub("]", _SPAN.sub("", _FENCE.sub("", text)))


def commands(document: str) -> list[str]:
    """Every command: the lines of the shell blocks, and code in the text that is a command."""
    found = []
    for language, text in _FENCE.findall(document):
        if language == "shell":
            lines = text.replace("\\\n", " ").splitlines()
            found += [code for line in lines if (code := re.sub(r"(^|\s+)#.*", "", line).strip())]
    for span in _spans(_FENCE.sub("", document)):
        words = span.removeprefix("time ").split()
        if words[0] in PROGRAMS and len(words) > 1:
            found.append(" ".join(words))
    return list(dict.fromkeys(found))


# Commands --------------------------------------------------------------------------------

# Collect for each list of arguments, in one process: exit code and the end of what was printed.
COLLECT = """
import contextlib, io, json, sys
import pytest
results = []
for arguments in json.loads(sys.argv[1]):
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        code = int(pytest.main(["--collect-only", "-q", *arguments]))
    results.append([code, printed.getvalue()[-600:]])
print(json.dumps(results))
"""


def words_of(command: str, run: Path) -> list[str]:
    """Return the words of a command, with the directory of a small run where one is asked for.

    Raises:
        LookupError: nothing is known for a placeholder.
        ValueError: a quotation that does not end.
    """
    real = {"RUN": str(run), "runs/latest": str(run)}
    words = [real.get(word, word) for word in shlex.split(command)]
    for value in (word.rpartition("=")[2] for word in words):
        if re.fullmatch(r"[A-Z][A-Z_]+", value) or re.search(r"<\w+>", value):
            raise LookupError(f"nothing is known for {value}")
    return words


def failures(commands: Iterable[str], env: Mapping[str, str], run: Path) -> dict[str, str]:
    """Do commands in a form that is quick; return what went wrong, by command."""
    problems: dict[str, str] = {}
    steps: dict[str, list[str]] = {}
    for command in commands:
        try:
            words = words_of(command, run)
            arguments = pytest_arguments(words)
        except (LookupError, ValueError) as error:
            problems[command] = str(error)
            continue
        if arguments is None:
            problems[command] = attempt(words, env)
        else:
            steps[command] = arguments
    if steps:
        code, output = run_python(["-c", COLLECT, json.dumps([*steps.values()])], {**env})
        assert code == 0, output
        for command, (status, said) in zip(steps, last_json(output), strict=True):
            wrong = status or not said.strip() or "Traceback (most recent" in said
            problems[command] = f"exit code {status}: {said}" if wrong else ""
    return {command: problem for command, problem in problems.items() if problem}


def pytest_arguments(words: list[str]) -> list[str] | None:
    """Return what a command gives to pytest; None for one that starts no pytest.

    Raises:
        ValueError: a target of make that does not exist, or starts another number of test runs.
    """
    match words:
        case ["make", *arguments] if arguments[0] not in ENVIRONMENTS:
            code, output = dry_make(*arguments)
            runs = re.findall(r"^\S+/python -m pytest\b(.*)$", output, re.M)
            if code or len(runs) != 1:
                raise ValueError(f"exit code {code}, {len(runs)} test runs: {output.strip()}")
            # Collecting all of this project's own tests takes long: one module stands for them.
            own = Path(__file__).relative_to(ROOT)
            return [str(own) if w == str(own.parent) else w for w in shlex.split(runs[0])]
        case ["pytest", *arguments]:
            return arguments
    return None


def attempt(words: list[str], env: Mapping[str, str]) -> str:
    """Do a command that starts no pytest; return what went wrong, or nothing."""
    match words:
        case ["make", *arguments]:
            code, output = dry_make(*arguments)
            return f"exit code {code}: {output.strip()}" if code else ""
        case [".", ".venv/bin/activate"]:
            return ""
        case ["pip", "install", "-r", name]:
            return "" if (ROOT / name).is_file() else f"{name} is not there"
        case ["python", "-m", "harness", *arguments]:
            done = CliRunner().invoke(app, arguments, env={**env})
            wrong = done.exit_code or not done.output.strip()
            return f"exit code {done.exit_code}: {done.output[-600:].strip()}" if wrong else ""
        case ["python", "-m", "tests.selftest.planted_table"]:
            return ""  # test_planted runs it
    return "the test does not know how to run this: teach it"


# The documents as they are ---------------------------------------------------------------


@pytest.fixture(scope="module")
def documents() -> tuple[str, str]:
    return ENGLISH.read_text(encoding="utf-8"), CHINESE.read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_chinese_page_says_what_the_english_one_says_and_each_leads_to_the_other(page):
    english = page.with_name(page.name.replace(".zh.md", ".md"))
    texts = english.read_text(encoding="utf-8"), page.read_text(encoding="utf-8")
    assert differences(*texts) == []
    for text, other in zip(texts, (page, english), strict=True):
        (line,) = (line for line in text.splitlines()[:4] if _LANGUAGES.match(line))
        assert f"]({other.name})" in line


def test_every_path_of_the_house_is_there():
    document = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    house = document.partition("## The house")[2].partition("\n## ")[0]
    house = re.sub(r"```.*?```", "", house, flags=re.S)
    paths = re.findall(r"`([\w/]+(?:/|\.py))`", house)
    assert len(paths) > 30
    for path in paths:
        assert (ROOT / path).exists() or (ROOT / "harness" / path).exists(), path
    rooms = {path.name for path in (ROOT / "harness").iterdir() if (path / "__init__.py").is_file()}
    assert rooms <= {path.rstrip("/") for path in paths}


@pytest.fixture
def env(shared, tmp_path) -> dict[str, str]:
    """Variables with which a command leaves nothing in the project's own folders."""
    return {
        "HARNESS_STORE": str(shared / "store"),
        "HARNESS_RUNS": str(tmp_path / "runs"),
        "HARNESS_LEASES": str(tmp_path / "leases"),
        "PYTEST_ADDOPTS": "-p no:cacheprovider",
    }


def _of_both(documents: tuple[str, str], *, about_runs: bool) -> list[str]:
    both = [command for document in documents for command in commands(document)]
    return [
        command
        for command in dict.fromkeys(both)
        if command.startswith("python -m harness ") == about_runs
        and "--resume=" not in command  # test_resume.py does it
    ]


def test_commands_of_both_readmes_that_start_runs_work(documents, env, tmp_path):
    found = _of_both(documents, about_runs=False)
    assert {"make accept", "make test", REAL} <= {*found}
    data, file = own_model.put_images(tmp_path / "flowers"), tmp_path / "net.pth"
    library.import_torch().save(own_model.trained(own_model.NAMES).state_dict(), file)
    here = {"/data/flowers": data, "/data/net.pth": file, "timm:resnet50": own_model.NETWORK}
    for name, ours in here.items():
        assert any(name in command for command in found)
        found = [command.replace(name, str(ours)) for command in found]
    assert failures(found, env, tmp_path / "none") == {}


def test_commands_of_both_readmes_that_look_at_runs_work(
    documents, env, built, tmp_path, monkeypatch
):
    # One command is run as it stands, on a small network; the others look at what it left.
    monkeypatch.chdir(ROOT)
    small = {**env, "HARNESS_CATALOG": str(TINY), "HARNESS_BATCH_SIZES": "1"}
    done = Finished(*run_python(["-m", *REAL.split()], small), tmp_path / "runs")
    assert done.code == 0, done.output
    assert done.outcomes() == {"accuracy tiny-bs1-cpu": "passed"}
    report = done.run_dir / "report.html"
    report.unlink()
    found = _of_both(documents, about_runs=True)
    assert "python -m harness report runs/latest" in found
    assert failures(found, env, done.run_dir) == {}
    assert report.is_file()
    assert (tmp_path / "runs" / "trend-rehearsal.html").is_file()
