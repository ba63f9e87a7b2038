"""`options` prints the page of all options, `docs/options.md`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import typer

from harness.base.families import families
from harness.base.options import Option
from harness.settings import GROUPS, OPTIONS

_BEGIN = """# Options

The same names work for `pytest` and for the commands of `npu-accept` (`python -m harness`). The
command line wins, then the variable, then the key in `pytest.ini`, then the default.

- Write a path after `=`, not after a space: pytest looks for its own configuration beside each path
  that it finds on the command line.
- A list that is given twice adds up (`--models=fixres --models=resnest50`). Of any other option the
  last one counts.
- An option without a value is an error, as `--sample=$N` is where N is not set; `--simulator=`
  alone may be empty. A variable or a key without a value is not set.
- An option that the run does not use is an error on the command line, as in
  `--rehearsal --driver=api`. As a variable or a key it is left aside: one profile serves all runs.
- Where another plugin of pytest has an option of the same name, put `harness-` before ours:
  `--harness-device=0`. This form always works in pytest.
- Targets have short names, too, such as {short}.

`python -m harness options` prints this page.
"""
_DEFAULT = re.compile(r"\s*\(default: ([^()]*)\)")


def options() -> None:
    """Print every option in groups, as Markdown: what it does, default, variable, key."""
    typer.echo("\n".join(page()).rstrip())


def page() -> Iterator[str]:
    """Return the lines of the page."""
    names = [pair for family in families() for pair in family.short_names.items()][:1]
    yield _BEGIN.format(short="".join(f"`{short}` for `{target}`" for short, target in names))
    for group in GROUPS:
        yield f"## {group.title.capitalize()}\n\n```shell\n{group.example}\n```\n"
        yield "| option | what it does | default | variable | key |"
        yield "| --- | --- | --- | --- | --- |"
        for row in OPTIONS:
            if row.group == group:
                yield f"| {' | '.join(_cells(row))} |"
        yield ""


def _cells(row: Option) -> tuple[str, ...]:
    value = f"={row.metavar}" if row.metavar else ""
    text = row.help.replace("%%", "%")
    default = _DEFAULT.search(text)
    text = _DEFAULT.sub("", text)
    if len(row.used_in) < 3:
        text += f" ({' and '.join(row.used_in)} runs alone)"
    return (
        _code(flag + value for flag in row.flags),
        text,
        default[1] if default else "",
        _code(row.variables),
        _code(row.keys),
    )


def _code(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
