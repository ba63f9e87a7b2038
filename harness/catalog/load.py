"""A catalog file -> typed, validated values.

Three steps, each with one kind of fault: the text becomes plain data with lines
(`yaml_document`), the data becomes values (`schema`), and the values are compared with each other
(`checks`). All faults are reported at once in one `CatalogError`, whose first line names the
first. Nothing here imports torch, timm or onnx.
"""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from pydantic import ValidationError

from harness.base.errors import CatalogError
from harness.catalog.checks import problems_between
from harness.catalog.schema import Catalog, Contents
from harness.catalog.yaml_document import (
    BLANK,
    Document,
    KeyPath,
    Problem,
    SyntaxFault,
    problem_of,
    read_document,
)

# What is read at all: 5,000 models as those of the guides, which take 15 kB. What costs is values,
# of which there is a limit too (`yaml_document`).
MAX_BYTES = 1 << 24
GUIDE_DOC = "docs/baselines.md says what each key means"
_MOST_PROBLEMS = 100
_MOST_LISTED = 20


def load_catalog(path: Path) -> Catalog:
    """Read the catalog in a file. Raises `CatalogError`: the file cannot be read, or is not what it
    must be. The message names the file, the line, the path of keys, what was found and what is
    expected; `log` lists what else is wrong.
    """
    try:
        # A pipe or a device might never end.
        if not stat.S_ISREG(path.stat().st_mode):
            raise CatalogError(f"{path}: this is not a regular file", remedy="name a YAML file")
        with path.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = error.strerror if isinstance(error, OSError) else None
        raise CatalogError(
            f"{path}: cannot be read: {reason or error}",
            remedy="name the baselines.yaml of the harness, or restore it",
        ) from error
    return parse_catalog(content, path)


def load_catalogs(paths: Sequence[Path]) -> Catalog:
    """Read the catalogs in several files as one; each is complete in itself. Raises `CatalogError`:
    as `load_catalog`; or two of them have a model of one id, or sources of one name that differ.
    """
    first, *others = [load_catalog(path) for path in paths]
    if not others:
        return first
    models, sources = dict(first.models), dict(first.sources)
    for other in others:
        twice = [f"the model {name}" for name in other.models if name in models]
        twice += [
            f"the source {n}" for n, one in other.sources.items() if sources.get(n, one) != one
        ]
        if twice:
            raise CatalogError(
                f"{other.path}: {twice[0]} stands in another catalog of this run, too",
                remedy="give one of them another name, or leave out a catalog",
            )
        models |= other.models
        sources |= other.sources
    digests = "".join(one.digest for one in (first, *others))
    return first.model_copy(
        update={
            "models": models,
            "sources": sources,
            "known_failures": sum((one.known_failures for one in others), first.known_failures),
            "digest": hashlib.sha256(digests.encode()).hexdigest(),
        }
    )


def parse_catalog(content: bytes, path: Path) -> Catalog:
    """Parse a file's bytes; `path` is for messages alone. Raises as `load_catalog`."""
    if len(content) > MAX_BYTES:
        raise CatalogError(f"{path}: more than {MAX_BYTES} bytes", remedy="name another file")
    try:
        document = read_document(content, expected="version, sources and models")
    except SyntaxFault as fault:
        raise CatalogError(
            f"{path}:{fault.line}: {fault.text}", remedy=fault.hint or GUIDE_DOC
        ) from fault
    if document.blanks:
        text = f"{BLANK} is what the draft could not know; its comment says what is wanted"
        hint = "write the value, or remove the key where it need not be there"
        raise _catalog_error(path, document, [Problem(p, text, hint) for p in document.blanks])
    try:
        contents = Contents.model_validate(document.data)
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False)[:_MOST_PROBLEMS]
        raise _catalog_error(path, document, [problem_of(document, d) for d in details]) from error
    problems = list(islice(problems_between(contents), _MOST_PROBLEMS))
    if problems:
        raise _catalog_error(path, document, problems)
    digest = hashlib.sha256(content).hexdigest()
    return Catalog.model_construct(**dict(contents), path=path, digest=digest)


def _catalog_error(path: Path, document: Document, problems: Sequence[Problem]) -> CatalogError:
    """One error out of all that is wrong: unknown keys first, then by line, once for a path."""
    once: dict[KeyPath, Problem] = {}
    for problem in sorted(problems, key=lambda p: (not p.first, document.line(p.path))):
        once.setdefault(problem.path, problem)
    first, *others = [
        f"{path}:{document.line(p.path)}: {document.written(p.path) or 'the file'}: {p.text}"
        for p in once.values()
    ]
    if len(others) >= _MOST_LISTED:
        others[_MOST_LISTED - 1 :] = [f"and {len(others) - _MOST_LISTED + 1} more"]
    log = "\n".join(["also wrong:", *others]) if others else ""
    return CatalogError(first, remedy=next(iter(once.values())).hint or GUIDE_DOC, log=log)
