"""A catalog file -> typed, validated values.

Three steps, each with one kind of fault: the text becomes plain data with lines
(`yaml_document`), the data becomes values (`schema`), and the values are compared with each other
(`checks`). All faults are reported at once in one `CatalogError`, whose first line names the
first. Nothing here imports torch, timm or onnx.
"""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Collection, Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from harness.base.errors import CatalogError
from harness.catalog.checks import problems_between
from harness.catalog.schema import Catalog, Contents, Sections
from harness.catalog.yaml_document import (
    Document,
    KeyPath,
    Problem,
    SyntaxFault,
    problem_of,
    read_document,
)
from harness.images.steps import (
    CenterCrop,
    Normalize,
    Preprocessing,
    ResizeHeight,
    ResizeShort,
    ResizeSquare,
)

_OWN_KEYS = {"id": "the key above it is the id", "sections": "remove it"}
MAX_BYTES = 1 << 18  # what is read at all; the five models take 15 kB
GUIDE_DOC = "docs/baselines.md says what each key means"

_RESIZES: Mapping[str, type[BaseModel]] = {
    "resize_short": ResizeShort,
    "resize_height": ResizeHeight,
    "resize_square": ResizeSquare,
}
_STEPS: Mapping[str, type[BaseModel]] = {
    "preprocessing": Preprocessing,
    "crop": CenterCrop,
    "normalize": Normalize,
    **_RESIZES,
}
# The steps are no `_Section`s: what pydantic does not tell of them, for `problem_of`.
_STEP_NAMES: Mapping[str, Collection[str]] = {
    "op": tuple(_RESIZES),
    **{name: tuple(step.model_fields) for name, step in _STEPS.items()},
}


def load_catalog(path: Path) -> Catalog:
    """Read the catalog in a file.

    Raises:
        CatalogError: the file cannot be read, or is not what it must be. The message names the
            file, the line, the path of keys, what was found and what is expected; `log` lists
            what else is wrong.
    """
    try:
        # A pipe or a device might never end.
        if not stat.S_ISREG(path.stat().st_mode):
            kind = "a directory" if path.is_dir() else "not a regular file"
            raise CatalogError(f"{path}: this is {kind}", remedy="name a YAML file")
        with path.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = error.strerror if isinstance(error, OSError) else None
        raise CatalogError(
            f"{path}: cannot be read: {reason or error}",
            remedy="name the baselines.yaml of the harness, or restore it",
        ) from error
    return parse_catalog(content, path)


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
    problems: list[Problem] = []
    contents: Contents | None = None
    try:
        contents = Contents.model_validate(_with_ids(document.data, problems))
    except ValidationError as error:
        details = error.errors(include_url=False)
        problems += [problem_of(document, detail, _STEP_NAMES) for detail in details]
    if contents is not None and not problems:
        problems += islice(problems_between(contents), 100)
    if contents is None or problems:
        raise _catalog_error(path, document, problems)
    return Catalog(
        path=path,
        digest=hashlib.sha256(content).hexdigest(),
        version=contents.version,
        sources=contents.sources,
        models=contents.models,
        known_failures=contents.known_failures,
    )


def _with_ids(data: dict[str | int, Any], problems: list[Problem]) -> dict[str | int, Any]:
    """The data with every model's key as its `id`, and what families of targets have in it as its
    `sections`; an `id` or `sections` in the file is an unknown key.
    """
    models = data.get("models")
    if not isinstance(models, dict):
        return data
    named = {}
    for name, entry in models.items():
        if isinstance(entry, dict):
            for key, hint in _OWN_KEYS.items():
                if key in entry:
                    path: KeyPath = ("models", name, key)
                    problems.append(Problem(path, "unknown key", hint, first=True))
            sections = {key: entry[key] for key in Sections.known_keys() if key in entry}
            rest = {key: value for key, value in entry.items() if key not in sections}
            entry = {**rest, "id": str(name), "sections": sections}
        named[name] = entry
    return {**data, "models": named}


def _catalog_error(path: Path, document: Document, problems: Iterable[Problem]) -> CatalogError:
    """One error out of all that is wrong: unknown keys first, then by line, once for a path."""
    ordered = sorted(problems, key=lambda p: (not p.first, document.line(p.path)))
    once: dict[KeyPath, Problem] = {}
    for problem in ordered:
        once.setdefault(problem.path, problem)
    texts = [
        f"{path}:{document.line(p.path)}: {document.written(p.path) or 'the file'}: {p.text}"
        for p in once.values()
    ]
    first = next(iter(once.values()))
    others = texts[1:20]
    if len(texts) > 20:
        others.append(f"and {len(texts) - 20} more")
    log = "\n".join(["also wrong:", *others]) if others else ""
    return CatalogError(texts[0], remedy=first.hint or GUIDE_DOC, log=log)
