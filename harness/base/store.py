"""The artifact store: content-addressed, one builder under a lock, verified when read.

An entry is a folder `<root>/v1/<kind>/<key>/` with its files and a `manifest.json`; its kind is the
stage that makes it. The key is a hash over *everything* that can change the bytes, so an entry is
never stale. An entry is built in a staging folder and published by one rename, so no reader sees
half of it. A damaged entry is set aside, reported and built again. A failed build is remembered
for the run, so that six batch sizes do not wait for the same failure six times.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import socket
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from pydantic import TypeAdapter, ValidationError

from harness.base import locks, processes
from harness.base.errors import HarnessError, StoreError, from_json
from harness.base.files import now, open_binary, open_regular, regular_text
from harness.base.stages import Stage
from harness.base.uses import Uses

FORMAT = 1
MANIFEST = "manifest.json"
LOCK_TIMEOUT_S = 3600.0
LOG_CHARACTERS = 20_000  # of a build's log, its end, in the manifest
_UNUSABLE = (OSError, ValueError, TypeError, RecursionError)  # of any bytes as a manifest

Inputs = Mapping[str, Any]
Builder = Callable[[Path], str]
_Signature = tuple[int, int, int, str]


def canonical(inputs: Inputs) -> str:
    """Return the inputs of a key as JSON with sorted names: equal inputs give equal text."""
    return json.dumps(inputs, sort_keys=True, ensure_ascii=True, separators=(",", ":"))


def key_of(kind: str, inputs: Inputs) -> str:
    """Return the key of an entry: 32 hex digits over kind, format and every input."""
    text = canonical({"format": FORMAT, "kind": kind, "inputs": dict(inputs)})
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def file_digest(path: Path) -> str:
    """Return the sha256 of a file's bytes, in hex."""
    with open_binary(path) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def source_digest(*modules: str) -> str:
    """Return a sha256 over the source of the modules that make an artifact: a key's `recipe`.

    The modules are not imported, which may cost seconds.
    """
    root = Path(__file__).resolve().parents[1]
    sha = hashlib.sha256()
    for module in modules:
        path = root.joinpath(*module.split(".")[1:]).with_suffix(".py")
        sha.update(path.read_bytes())
    return sha.hexdigest()[:16]


@dataclass(frozen=True)
class StoredFile:
    """What the manifest says of one file."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class Entry:
    """One published artifact.

    `kind` is a `Stage`'s value, or another word in a store that an earlier version filled.
    """

    kind: str
    key: str
    directory: Path
    inputs: Mapping[str, Any]
    files: Mapping[str, StoredFile]
    seconds: float  # what building it took
    created: str
    cached: bool
    log: str = ""
    about: str = ""  # what it is, for people; a case of another name may use it as well
    shared: bool = False  # it was built by another host and taken from the second level

    def file(self, name: str | None = None) -> Path:
        """Return the path of a file; without a name, of the only or first one."""
        return self.directory / (name if name is not None else next(iter(self.files)))

    @property
    def digest(self) -> str:
        """sha256 of the only file; of the names and digests when there are several."""
        if len(self.files) == 1:
            return next(iter(self.files.values())).sha256
        text = canonical({name: file.sha256 for name, file in self.files.items()})
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def bytes(self) -> int:
        """Size of all files, in bytes."""
        return sum(file.bytes for file in self.files.values())


class Second(Protocol):
    """A second level of the store, which several hosts share. It raises no error of its own."""

    def take(self, kind: str, key: str, staging: Path) -> Entry | None:
        """Put the files of an entry into `staging` and return it; None where it is not taken."""
        ...

    def give(self, entry: Entry) -> None:
        """Offer an entry that was built here."""
        ...


@dataclass
class Store:
    """A store below `root`. `failures` is a folder of the run that remembers failed builds."""

    root: Path
    failures: Path | None = None
    on_wait: Callable[[str], None] | None = None
    on_damage: Callable[[str], None] | None = None
    second: Second | None = None
    _verified: dict[Path, tuple[_Signature, ...]] = field(default_factory=dict)

    @cached_property
    def uses(self) -> Uses:
        """What this store uses: nobody removes it."""
        return Uses(self.root / "locks" / "in-use.lock")

    # Reading -----------------------------------------------------------------------------

    def get(self, kind: Stage, inputs: Inputs) -> Entry | None:
        """Return the verified entry for these inputs; None for none or a damaged one."""
        entry = self._read(kind, key_of(kind, inputs))
        return entry if isinstance(entry, Entry) else None

    def _directory(self, kind: str, key: str) -> Path:
        return self.root / f"v{FORMAT}" / kind / key

    def _lock_path(self, name: str) -> Path:
        return self.root / "locks" / f"{name}.lock"

    def _read(self, kind: str, key: str) -> Entry | str | None:
        """Return the verified entry, or what is wrong with it, or None where there is none."""
        directory = self._directory(kind, key)
        if os.path.isdir(self.root):  # nothing is made where nobody builds
            self.uses.hold(f"{kind}-{key}")
        if not os.path.isdir(directory):  # false, not an error, where nothing may be read
            return None
        try:
            entry = _load(directory)
            problem = self._verify(entry)
        except _UNUSABLE as error:
            return f"its manifest cannot be used ({type(error).__name__}: {error})"
        if problem:
            return problem
        with contextlib.suppress(OSError):  # a read-only store is fine to read from
            os.utime(directory / MANIFEST)  # the time of last use decides what `gc` removes first
        return entry

    def _verify(self, entry: Entry) -> str:
        """Return what is wrong with an entry's bytes; empty when nothing is."""
        if key_of(entry.kind, entry.inputs) != entry.key:
            return "its manifest names other inputs than its key"
        for name, stored in entry.files.items():
            path = entry.directory / name
            if not path.is_file():
                return f"{name} is missing"
            size = path.stat().st_size
            if size != stored.bytes:
                return f"{name} has {size} bytes instead of {stored.bytes}"
        signature = _signature(entry)
        # Once in a process for unchanged files: crops of a whole data set are gigabytes.
        if self._verified.get(entry.directory) == signature:
            return ""
        for name, stored in entry.files.items():
            if file_digest(entry.directory / name) != stored.sha256:
                return f"the bytes of {name} are not those that were published"
        self._verified[entry.directory] = signature
        return ""

    def _set_aside(self, directory: Path, problem: str) -> None:
        """Move a damaged entry away.

        Only under the entry's lock: another process may have built it again meanwhile.
        """
        target = self.root / "damaged" / f"{directory.parent.name}-{directory.name}"
        target = target.with_name(f"{target.name}-{secrets.token_hex(4)}")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            directory.rename(target)
        except OSError as error:
            raise StoreError(
                f"the entry {directory} is damaged ({problem}) and cannot be set aside: {error}",
                remedy=f"remove {directory} by hand",
            ) from error
        if self.on_damage is not None:
            self.on_damage(f"{directory}: {problem}; set aside as {target}, building it again")

    # Building ----------------------------------------------------------------------------

    def get_or_build(
        self, kind: Stage, inputs: Inputs, build: Builder, *, about: str = ""
    ) -> Entry:
        """Return the entry for these inputs; call `build(staging)` when it is not there.

        `build` writes its files into the staging folder and returns its log. One process builds,
        the others wait for it.

        Raises:
            HarnessError: what `build` raised; now or (`remembered`) earlier in this run.
            StoreError: the store cannot be written.
        """
        return self._get_or_build(kind, inputs, build, about, take=True)

    def _get_or_build(
        self, kind: Stage, inputs: Inputs, build: Builder, about: str, *, take: bool
    ) -> Entry:
        key = key_of(kind, inputs)
        entry = self._read(kind, key)
        if isinstance(entry, Entry):
            return entry
        self._raise_remembered(kind, key)
        with self._locked(kind, key):
            entry = self._read(kind, key)
            if isinstance(entry, Entry):
                return entry
            if entry is not None:
                self._set_aside(self._directory(kind, key), entry)
            self._raise_remembered(kind, key)
            made = self._build(kind, key, inputs, build, about, take)
        if self.second is not None and not made.shared:
            self.second.give(made)
        return made

    def build_again(
        self,
        kind: Stage,
        inputs: Inputs,
        build: Builder,
        *,
        refused: str,
        why: str,
        about: str = "",
    ) -> Entry | None:
        """Build an entry again, once in a run, that has the bytes that were published (`refused` is
        its digest) and yet cannot be used. Return what is there now; None where it is the same, or
        where another process uses it: its path must stay.
        Raises `HarnessError`, `StoreError`: as `get_or_build`.
        """
        key = key_of(kind, inputs)
        with self._locked(kind, key):
            had = self._verified.get(self._directory(kind, key))
            entry = self._read(kind, key)
            if isinstance(entry, Entry) and entry.digest == refused:
                if had not in (None, self._verified[entry.directory]):
                    return entry  # built again meanwhile, as the same bytes
                if self.failures is None:
                    return None
                try:
                    with self.uses.none_of(f"{kind}-{key}"):
                        self.failures.mkdir(parents=True, exist_ok=True)
                        (self.failures / f"{kind}-{key}.again").touch(exist_ok=False)
                        self._set_aside(entry.directory, why)
                except FileExistsError:
                    return None
                except locks.LockTimeout:
                    self.uses.drop(f"{kind}-{key}")  # the other process may then build it again
                    return None
        fresh = self._get_or_build(kind, inputs, build, about, take=False)
        return None if fresh.digest == refused else fresh

    @contextlib.contextmanager
    def _locked(self, kind: Stage, key: str) -> Iterator[None]:
        """Be the one who builds an entry. Raises `StoreError`."""
        try:
            with locks.locked(
                self._lock_path(f"{kind}-{key}"),
                timeout_s=LOCK_TIMEOUT_S,
                what=f"building {kind} {key}",
                on_wait=self.on_wait,
            ):
                yield
        except locks.LockTimeout as error:
            raise StoreError(
                f"waited {LOCK_TIMEOUT_S:.0f} s for another process to build {kind} {key}: {error}",
                remedy="end the process that holds the lock, then run again",
            ) from error
        except OSError as error:
            raise StoreError(
                f"cannot write the {kind} entry {key}: {error}",
                remedy=f"check space and rights of {self.root}, or choose --store=DIR",
            ) from error

    def _build(
        self, kind: Stage, key: str, inputs: Inputs, build: Builder, about: str, take: bool
    ) -> Entry:
        staging = self.root / "staging" / f"{kind}-{key}-{os.getpid()}-{secrets.token_hex(4)}"
        try:
            staging.mkdir(parents=True)
            began = time.monotonic()
            taken = self.second.take(kind, key, staging) if self.second and take else None
            try:
                log = taken.log if taken else build(staging)
            except HarnessError as error:
                # A build that we end did not fail; one that others end may succeed the next time;
                # and names of files are in no key: another chunk may hold the same bad bytes.
                if not (error.killed or error.files or processes.ending.is_set()):
                    self._remember(kind, key, error)
                raise
            entry = Entry(
                kind=str(kind),
                key=key,
                directory=self._directory(kind, key),
                inputs=json.loads(canonical(inputs)),
                files={},
                seconds=taken.seconds if taken else round(time.monotonic() - began, 3),
                created=now(),
                log=log[-LOG_CHARACTERS:],
                cached=taken is not None,
                about=about,
                shared=taken is not None,
            )
            return self._publish(entry, staging)
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    def _publish(self, entry: Entry, staging: Path) -> Entry:
        files: dict[str, StoredFile] = {}
        for path in sorted(staging.rglob("*")):
            if stat.S_ISDIR(path.lstat().st_mode):
                continue
            name = path.relative_to(staging).as_posix()
            try:
                fd = open_regular(path, own=True)
            except OSError as error:
                raise StoreError(
                    f"building {entry.kind} {entry.key} left {name}, which is a link or no plain "
                    "file: it is not published",
                    remedy="the tool must write files of its own: see its log",
                    log=entry.log,
                ) from error
            with open(fd, "rb") as stream:
                os.fsync(fd)  # before its name tells anybody that the bytes are there
                sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
                files[name] = StoredFile(sha256, os.fstat(fd).st_size)
                os.fchmod(fd, 0o444)
        if not files:
            raise StoreError(f"building {entry.kind} {entry.key} left no file", log=entry.log)
        entry = replace(entry, files=files)
        manifest = {"format": FORMAT, "host": socket.gethostname(), **asdict(entry)}
        del manifest["directory"], manifest["cached"]
        with (staging / MANIFEST).open("x", encoding="utf-8") as out:
            out.write(json.dumps(manifest, indent=1))
            out.flush()
            os.fsync(out.fileno())
        entry.directory.parent.mkdir(parents=True, exist_ok=True)
        staging.rename(entry.directory)
        # The bytes were hashed a moment ago: the first reader of this process trusts that.
        self._verified[entry.directory] = _signature(entry)
        return entry

    def _remember(self, kind: Stage, key: str, error: HarnessError) -> None:
        if self.failures is None:
            return
        with contextlib.suppress(OSError):  # at worst it is tried again
            self.failures.mkdir(parents=True, exist_ok=True)
            path = self.failures / f"{kind}-{key}.json"
            path.write_text(json.dumps(error.to_json()), encoding="utf-8")

    def _raise_remembered(self, kind: Stage, key: str) -> None:
        if self.failures is None:
            return
        try:
            text = regular_text(self.failures / f"{kind}-{key}.json")
            error = from_json(json.loads(text))
        except (OSError, ValueError, AttributeError):
            return
        error.remembered = True
        raise error

    # What is in it (`store_care` explains and tidies) ---------------------------------------

    def entries(self) -> Iterator[Entry]:
        """Yield every entry with a readable manifest, unverified, those of earlier versions too."""
        for manifest in sorted((self.root / f"v{FORMAT}").glob(f"*/*/{MANIFEST}")):
            try:
                yield _load(manifest.parent)
            except _UNUSABLE:
                continue

    def last_used(self, entry: Entry) -> float:
        """Return when an entry was last read, seconds since the epoch; 0 for one that is gone."""
        return mtime(entry.directory / MANIFEST)

    def remove(self, name: str, directory: Path) -> bool:
        """Remove an entry or a leftover of `name`; return False where it is gone already.

        Raises:
            locks.LockTimeout: somebody is building it, or uses it.
            OSError: it cannot be removed.
        """
        grave = self.root / "staging" / f"{name}-gc-{secrets.token_hex(4)}"
        with locks.locked(self._lock_path(name), timeout_s=0.0, what="gc"):
            # Renamed first: a reader sees the whole entry or none of it.
            grave.parent.mkdir(parents=True, exist_ok=True)
            staged = directory.parent == grave.parent
            try:
                with contextlib.nullcontext() if staged else self.uses.none_of(name):
                    directory.rename(grave)
            except FileNotFoundError:
                return False
            remove_tree(grave)
        return True


_entry = TypeAdapter(Entry)


def _load(directory: Path) -> Entry:
    """Read an entry's manifest. Raises one of `_UNUSABLE`."""
    manifest = json.loads(regular_text(directory / MANIFEST))
    try:
        entry = _entry.validate_python({**manifest, "directory": directory, "cached": True})
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{first['msg']}: {'.'.join(map(str, first['loc']))}") from None
    if (entry.kind, entry.key) != (directory.parent.name, directory.name):
        raise ValueError(f"it is the manifest of {entry.kind} {entry.key}")
    for name in map(Path, entry.files):
        if name.is_absolute() or ".." in name.parts:
            raise ValueError(f"it names a file outside the entry: {str(name)!r}")
    if not entry.files:
        raise ValueError("it names no file")
    return entry


def read_entry(root: Path, kind: str, key: str) -> Entry:
    """Return a verified entry of a store that only the caller knows.
    Raises one of `_UNUSABLE`: it is damaged, or not there.
    """
    store = Store(root)
    entry = _load(store._directory(kind, key))
    if problem := store._verify(entry):
        raise ValueError(problem)
    return entry


def _signature(entry: Entry) -> tuple[_Signature, ...]:
    """Return what changes with the files: an inode's time of change cannot be set back."""
    stats = [((entry.directory / name).stat(), file) for name, file in entry.files.items()]
    return tuple((at.st_ino, at.st_size, at.st_ctime_ns, file.sha256) for at, file in stats)


def remove_tree(path: Path) -> None:
    """Remove a folder, or the link or file that lies in its place. Raises `OSError`."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def mtime(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
