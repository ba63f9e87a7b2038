"""Paths of many files, kept as their names and a few folders: a `Path` takes half a kilobyte."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import overload


class FilePaths(Sequence[Path]):
    """Paths in order; each is made when it is asked for. Equal to any sequence of equal paths."""

    def __init__(self, paths: Iterable[Path], names: Sequence[str] = ()) -> None:
        """`names` are the files' names where the caller keeps them anyway: they are shared."""
        folders: dict[Path, int] = {}
        own: list[str] = []
        self._of = array("I")
        for position, path in enumerate(paths):
            self._of.append(folders.setdefault(path.parent, len(folders)))
            name = path.name
            shared = position < len(names) and names[position] == name
            own.append(names[position] if shared else name)
        self._names = tuple(own)
        self._folders = tuple(folders)

    def __len__(self) -> int:
        return len(self._names)

    @overload
    def __getitem__(self, index: int) -> Path: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Path, ...]: ...
    def __getitem__(self, index: int | slice) -> Path | tuple[Path, ...]:
        if isinstance(index, slice):
            return tuple(self[one] for one in range(*index.indices(len(self))))
        return self._folders[self._of[index]] / self._names[index]

    def __iter__(self) -> Iterator[Path]:
        for folder, name in zip(self._of, self._names, strict=True):
            yield self._folders[folder] / name

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or len(other) != len(self):
            return NotImplemented if not isinstance(other, Sequence) else False
        return all(mine == theirs for mine, theirs in zip(self, other, strict=True))

    def __hash__(self) -> int:
        return hash((self._folders, self._names))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({list(self)!r})"
