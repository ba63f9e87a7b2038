"""Both READMEs say the same, and what they tell a person to type works.

`test_docs.py` holds the English README against the code; here the Chinese one is held against the
English one, block by block, and every command of both is run. A command that `attempt` does not
know fails: a new command in a README needs a way to run it here.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from typer.testing import CliRunner

from harness.__main__ import app
from tests.selftest.running import ROOT, TINY, Finished, last_json, run_python

ENGLISH = ROOT / "README.md"
CHINESE = ROOT / "README.zh.md"
PROGRAMS = ("make", "pip", "pytest", "python")
REAL = "pytest --rehearsal -m accuracy"

_LANGUAGES = re.compile(r"(English|\[English\]\(README\.md\)) \| ")
_FENCE = re.compile(r"```(\w*)$")
_SPAN = re.compile(r"`([^`]+)`")
_TARGET = re.compile(r"\]\(([^)\s]+)\)")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*(?:e-?\d+)?")
_HAN = re.compile(r"[一-鿿]")
_COMMENT = re.compile(r"(?:^|\s+)#.*$")
# What a comment or a description names: files, folders, commands. It is not translated.
_NAMES = re.compile(
    r"pip install -r [\w./-]+|python -m \w+|<\([^)]*\)"
    r"|[\w<>.-]*/[\w<>./-]*|\w+\.(?:py|txt|html|yaml|ini)",
    re.ASCII,
)


# Documents -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Block:
    """A heading, paragraph, item, row of a table, or code (`kind`: its level or its language)."""

    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.kind} {self.text.splitlines()[0][:60]!r}" if self.text else self.kind


def blocks(document: str) -> list[Block]:
    """The blocks of a document, without the line that leads to the other language.

    Raises:
        ValueError: code that does not end.
    """
    found: list[Block] = []
    open_block = False
    lines = iter(document.splitlines())
    for line in lines:
        if fence := _FENCE.match(line):
            code = []
            for inner in lines:
                if inner == "```":
                    break
                code.append(inner)
            else:
                raise ValueError(f"code does not end: {code[:1]}")
            found.append(Block(f"code {fence[1]}".strip(), "\n".join(code)))
            open_block = False
        elif not line.strip() or _LANGUAGES.match(line):
            open_block = False
        elif heading := re.match(r"(#+) (.*)", line):
            found.append(Block(f"heading {len(heading[1])}", heading[2]))
            open_block = False
        elif line.startswith("|"):
            found.append(Block("row", line))
            open_block = False
        elif item := re.match(r"(?:-|\d+\.) (.*)", line):
            found.append(Block("item", item[1]))
            open_block = True
        elif open_block:
            found[-1] = Block(found[-1].kind, f"{found[-1].text}\n{line.strip()}")
        else:
            found.append(Block("paragraph", line))
            open_block = True
    return found


def differences(english: str, other: str) -> list[str]:
    """Return what a translation lacks or has besides, one line each."""
    ours, theirs = blocks(english), blocks(other)
    for at, (one, two) in enumerate(zip(ours, theirs, strict=False)):
        if one.kind != two.kind:
            return [f"block {at}: {one} became {two}"]
    if len(ours) != len(theirs):
        rest = (ours if len(ours) > len(theirs) else theirs)[min(len(ours), len(theirs))]
        return [f"{len(ours)} blocks became {len(theirs)}: {rest} is in one document only"]
    problems = []
    for one, two in zip(ours, theirs, strict=True):
        before, after = Counter(_fixed(one)), Counter(_fixed(two))
        if before != after:
            lacks, has = sorted(before - after), sorted(after - before)
            problems.append(f"{one}: lacks {lacks}, has besides {has}")
        words = re.findall(r"[A-Za-z]{2,}", _plain(two.text))
        if not one.kind.startswith("code") and len(words) > 2 and not _HAN.search(two.text):
            problems.append(f"{one}: is not translated: {two}")
    return problems


def _fixed(block: Block) -> list[str]:
    """Return what a translation must not change: code, links, figures, names in comments."""
    if not block.kind.startswith("code"):
        place = block.text.count("|") if block.kind == "row" else ""
        links = [f"links {target}" for target in _TARGET.findall(block.text)]
        figures = [f"figures {number}" for number in _NUMBER.findall(_plain(block.text))]
        return [*_spans(block.text), *links, *figures, f"columns {place}"]
    fixed = []
    for number, line in enumerate(block.text.splitlines()):
        code = _command(line) if block.kind == "code shell" else _path(line)
        names = " ".join(sorted(_NAMES.findall(line[len(code) :])))
        fixed.append(f"line {number}: {code} # {names}")
    return fixed


def _command(line: str) -> str:
    """Return a line of a shell block without its comment."""
    return _COMMENT.sub("", line)


def _path(line: str) -> str:
    """Return a path of the tree with its indentation, without its description."""
    match = re.match(r"\s*\S+(?: \S+)*", line)
    return match[0] if match else line


def _spans(text: str) -> list[str]:
    return [" ".join(span.split()) for span in _SPAN.findall(text)]


def _plain(text: str) -> str:
    return _TARGET.sub("]", _SPAN.sub("", text))


def commands(document: str) -> list[str]:
    """Every command: the lines of the shell blocks, and code in the text that is a command."""
    found = []
    for block in blocks(document):
        if block.kind == "code shell":
            lines = block.text.replace("\\\n", " ").splitlines()
            found += [code for line in lines if (code := _command(line).strip())]
        elif not block.kind.startswith("code"):
            for span in _spans(block.text):
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


@dataclass(frozen=True)
class Place:
    """Where commands run: variables, the directory of a small run, what pytest said already."""

    env: Mapping[str, str]
    run: Path
    collected: dict[tuple[str, ...], str] = field(default_factory=dict)

    def fill(self, word: str) -> str:
        """Return a word of a command with real paths for what stands for one.

        Raises:
            LookupError: nothing is known for a placeholder.
        """
        word = {"RUN": str(self.run), "runs/latest": str(self.run)}.get(word, word)
        value = word.rpartition("=")[2]
        if re.fullmatch(r"[A-Z][A-Z_]+", value) or re.search(r"<\w+>", value):
            raise LookupError(f"nothing is known for {value}")
        return word

    def words(self, command: str) -> list[str]:
        """Return the words of a command. Raises `LookupError`, `ValueError`."""
        return [self.fill(word) for word in shlex.split(command)]

    def collect(self, *lists: Sequence[str]) -> None:
        """Note whether pytest takes each list of arguments and finds tests; run none."""
        code, output = run_python(["-c", COLLECT, json.dumps(lists)], {**self.env})
        assert code == 0, output
        for arguments, (status, said) in zip(lists, last_json(output), strict=True):
            wrong = status or not said.strip() or "Traceback (most recent" in said
            self.collected[tuple(arguments)] = f"exit code {status}: {said}" if wrong else ""


def failures(commands: Iterable[str], place: Place) -> dict[str, str]:
    """Do commands in a form that is quick; return what went wrong, by command."""
    problems: dict[str, str] = {}
    steps: dict[str, list[str]] = {}
    for command in commands:
        try:
            words = place.words(command)
            arguments = pytest_arguments(words)
        except (LookupError, ValueError) as error:
            problems[command] = str(error)
            continue
        if arguments is None:
            problems[command] = attempt(words, place)
        else:
            steps[command] = arguments
    if steps:
        place.collect(*steps.values())
    problems |= {command: place.collected[tuple(words)] for command, words in steps.items()}
    return {command: problem for command, problem in problems.items() if problem}


def pytest_arguments(words: list[str]) -> list[str] | None:
    """Return what a command gives to pytest; None for one that starts no pytest.

    Raises:
        ValueError: a target of make that does not exist, or starts another number of test runs.
    """
    match words:
        case ["make", "env"]:
            return None
        case ["make", *arguments]:
            code, output = _dry_make(*arguments)
            if code:
                raise ValueError(f"exit code {code}: {output.strip()}")
            runs = re.findall(r"^\S+/python -m pytest\b(.*)$", output, re.M)
            if len(runs) != 1:
                raise ValueError(f"it starts {len(runs)} test runs: {output.strip()}")
            # Collecting all of this project's own tests takes long: one module stands for them.
            own = Path(__file__).relative_to(ROOT)
            return [str(own) if w == str(own.parent) else w for w in shlex.split(runs[0])]
        case ["pytest", *arguments]:
            return arguments
    return None


def attempt(words: list[str], place: Place) -> str:
    """Do a command that starts no pytest; return what went wrong, or nothing."""
    match words:
        case ["make", "env"]:
            code, output = _dry_make("-B", "env")
            wrong = code or "-m venv " not in output or "-m pytest" in output
            return f"exit code {code}: {output.strip()}" if wrong else ""
        case [".", script]:
            code, output = _dry_make("-B", "test")
            made = re.search(r"-m venv (\S+)$", output, re.M)
            activates = "" if code or made is None else f"{made[1]}/bin/activate"
            return "" if script == activates else f"make makes {activates}"
        case ["pip", "install", "-r", name]:
            return _requirements(Path(name))
        case ["python", "-m", "harness", *arguments]:
            return _harness(arguments, place)
        case ["python", "-m", "tests.selftest.planted_table"]:
            return ""  # test_planted runs it
    return "the test does not know how to run this: teach it"


def _harness(arguments: list[str], place: Place) -> str:
    done = CliRunner().invoke(app, arguments, env={**place.env})
    wrong = done.exit_code or not done.output.strip()
    return f"exit code {done.exit_code}: {done.output[-600:].strip()}" if wrong else ""


def _dry_make(*arguments: str) -> tuple[int, str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    env.pop("MFLAGS", None)
    done = subprocess.run(
        ["make", "-n", *arguments],
        cwd=ROOT,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout


def _requirements(name: Path) -> str:
    """Return whether a file of requirements is there, with the files that it names."""
    path = ROOT / name
    if not path.is_file():
        return f"{name} is not there"
    text = path.read_text(encoding="utf-8")
    nested = re.findall(r"^-[rc]\s+(\S+)", text, re.M)
    problems = [_requirements(name.parent / other) for other in nested]
    if not nested and not re.search(r"^\w[\w.-]*==", text, re.M):
        problems.append(f"{name} pins nothing")
    return "; ".join(filter(None, problems))


# The documents as they are ---------------------------------------------------------------


@pytest.fixture(scope="module")
def documents() -> tuple[str, str]:
    return ENGLISH.read_text(encoding="utf-8"), CHINESE.read_text(encoding="utf-8")


def test_the_chinese_readme_says_what_the_english_one_says(documents):
    assert differences(*documents) == []


def test_each_readme_leads_to_the_other(documents):
    english, chinese = (text.splitlines()[:4] for text in documents)
    assert any(_LANGUAGES.match(line) and "](README.zh.md)" in line for line in english)
    assert any(_LANGUAGES.match(line) and "](README.md)" in line for line in chinese)


def test_every_path_of_the_tree_is_there(documents):
    (tree,) = (block.text for block in blocks(documents[0]) if block.kind == "code")
    folder = ROOT
    for line in tree.splitlines():
        code = _path(line)
        base = folder if code.startswith("  ") else ROOT
        for name in code.strip().split(", "):
            assert (base / name).exists(), line
            assert (base / name).is_dir() == name.endswith("/"), line
        if base is ROOT:
            folder = ROOT / code.strip()


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
    ]


def test_commands_of_both_readmes_that_start_runs_work(documents, env, tmp_path):
    found = _of_both(documents, about_runs=False)
    assert {"make accept", "make test", REAL} <= {*found}
    assert failures(found, Place(env, tmp_path / "none")) == {}


def test_commands_of_both_readmes_that_look_at_runs_work(documents, env, tmp_path, monkeypatch):
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
    assert failures(found, Place(env, done.run_dir)) == {}
    assert report.is_file()
    assert (tmp_path / "runs" / "trend-rehearsal.html").is_file()


# Planted ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("\npytest --rehearsal\n", "\npytest --rehearse\n", "pytest --rehearse"),
        ("\npytest --rehearsal\n", "\n", "lacks"),
        ("cache gc --max-gb 20", "cache gc --max-gb 2", "--max-gb 2"),
        ("\n## ", "\n### ", "heading 2"),
        ("\n## ", "\n", "heading 2"),
        ("| `--sample=N`", "| `--samples=N`", "--samples=N"),
        ("`HARNESS_SAMPLE`", "`HARNESS_SAMPLES`", "HARNESS_SAMPLES"),
        ("](docs/judging.md)", "](docs/judging.zh.md)", "links"),
        ("](docs/report.png)", "](docs/reports.png)", "links"),
        ("50,000", "5,000", "50,000"),
        ("| 7 | ", "| 8 | ", "figures"),
        ("  settings.py ", "  setting.py ", "setting.py"),
        ("runs/latest/report.html\n", "runs/latest/index.html\n", "index.html"),
        ("- `report.html`", "`report.html`", "became"),
    ],
)
def test_a_planted_difference_is_found(documents, old, new, said):
    chinese = documents[1]
    assert old in chinese
    assert said in "\n".join(differences(chinese, chinese.replace(old, new, 1)))


@pytest.mark.parametrize("kind", ["heading 2", "paragraph", "item", "row"])
def test_a_planted_block_that_is_absent_or_not_translated_is_found(documents, kind):
    chinese = documents[1]
    translated = [block for block in blocks(chinese) if block.kind == kind]
    translated = [block for block in translated if len(_HAN.findall(block.text)) > 5]
    assert translated
    for block in translated:
        absent = _changed(chinese, block.text, None)
        assert "became" in differences(chinese, absent)[0]
        other = _changed(chinese, block.text, _HAN.sub(" more words ", block.text))
        (found,) = differences(chinese, other)
        assert "is not translated" in found


def _changed(document: str, text: str, other: str | None) -> str:
    """The document with another text in the one block that has this one, or without the block."""
    lines = document.splitlines()
    (at,) = (at for at, line in enumerate(lines) if re.sub(r"^(#+|-) ", "", line) == text)
    lines[at : at + 1] = [] if other is None else [lines[at].replace(text, other)]
    return "\n".join(lines)


BROKEN = {
    "docker run acceptance": "does not know",
    "make acept": "No rule",
    "make lint": "0 test runs",
    ". venv/bin/activate": ".venv",
    "pip install -r requirements/runs.txt": "not there",
    "pytest --rehersal": "unrecognized arguments",
    "pytest --rehearsal --models squeezenet": "squeezenet1_1",
    "python -m harness pln --target cpu": "No such command",
    "python -m harness report nowhere": "nowhere",
    "python -m harness report --store=DIR": "nothing is known for DIR",
    "python -m harness 'report": "quotation",
}


def test_planted_commands_that_do_not_work_are_found(tmp_path):
    env = {"HARNESS_RUNS": str(tmp_path), "PYTEST_ADDOPTS": "-p no:cacheprovider"}
    found = failures(BROKEN, Place(env, tmp_path / "run"))
    assert {
        command for command, said in BROKEN.items() if said not in found.get(command, "")
    } == set()


def test_commands_are_read_from_blocks_and_from_the_text():
    text = (
        "Type `time make accept`, `make` or `--limit=N`.\n\n```shell\na \\\n  b   # c\n# d\n"
        "e '#f'\n```\n\n```\ng\n```\n- `pytest -m\n  x`\n"
    )
    assert commands(text) == ["make accept", "a    b", "e '#f'", "pytest -m x"]
