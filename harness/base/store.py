"""The artifact store: content-addressed, one builder under a lock, verified when read.

An entry is a folder `<root>/v1/<kind>/<key>/` with its files and a `manifest.json`. The key is a
hash over *everything* that can change the bytes, so that an entry is never stale; who changes an
input gets another key. An entry is built in a staging folder and published by one rename, so that
no reader ever sees half of it. It is verified when it is read: a damaged entry is set aside,
reported and built again. A failed build is remembered for the run, so that six batch sizes do not
wait for the same failure six times.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.base import locks, processes
from harness.base.errors import HarnessError, StoreError, from_json
from harness.base.files import now, regular_text

FORMAT = 1
MANIFEST = "manifest.json"
LOCK_TIMEOUT_S = 3600.0
_GC_GRACE_S = 3600.0
# What reading a manifest of any content can raise.
_UNUSABLE = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)

Inputs = Mapping[str, Any]
Builder = Callable[[Path], str]
_Signature = tuple[int, int, int, str]


def canonical(inputs: Inputs) -> str:
    """The inputs of a key as JSON with sorted names: equal inputs give equal text."""
    return json.dumps(inputs, sort_keys=True, ensure_ascii=True, separators=(",", ":"))


def key_of(kind: str, inputs: Inputs) -> str:
    """The key of an entry: 32 hex digits over kind, format and every input."""
    text = canonical({"format": FORMAT, "kind": kind, "inputs": dict(inputs)})
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def file_digest(path: Path) -> str:
    """sha256 of a file's bytes, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def source_digest(*modules: str) -> str:
    """sha256 over the source of the modules that make an artifact: a key's `recipe`.

    Without importing them: a build's code is part of what can change its bytes, and importing
    it may cost seconds.
    """
    root = Path(__file__).resolve().parents[1]
    sha = hashlib.sha256()
    for module in modules:
        path = root.joinpath(*module.split(".")[1:]).with_suffix(".py")
        sha.update(path.read_bytes())
    return sha.hexdigest()[:16]


@dataclass(frozen=True)
class Entry:
    """One published artifact."""

    kind: str
    key: str
    directory: Path
    inputs: Mapping[str, Any]
    files: Mapping[str, Mapping[str, Any]]  # name -> {"sha256", "bytes"}
    seconds: float  # what building it took
    created: str
    log: str
    cached: bool

    def file(self, name: str | None = None) -> Path:
        """A file of the entry; without a name, its only or first one."""
        return self.directory / (name if name is not None else next(iter(self.files)))

    @property
    def digest(self) -> str:
        """sha256 of the only file; of the names and digests when there are several."""
        if len(self.files) == 1:
            return str(next(iter(self.files.values()))["sha256"])
        text = canonical({name: info["sha256"] for name, info in self.files.items()})
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def bytes(self) -> int:
        """Size of all files, in bytes."""
        return sum(int(info["bytes"]) for info in self.files.values())


@dataclass(frozen=True)
class Explanation:
    """Why a key is in the store or not: the inputs that differ from the nearest entry."""

    kind: str
    key: str
    present: bool
    nearest: str | None
    differences: tuple[tuple[str, Any, Any], ...]  # (input, wanted, in the nearest entry)


@dataclass(frozen=True)
class Tidied:
    """What `gc` removed, with the reason, and what it left although it was asked to remove it."""

    removed: tuple[tuple[Entry, str], ...]
    recent: tuple[Entry, ...]  # used within the last hour
    held: tuple[Entry, ...]  # somebody is building it
    failed: tuple[tuple[Path, OSError], ...]  # entries and leftovers that cannot be removed


@dataclass
class Store:
    """A store below `root`. `failures` is a folder of the run that remembers failed builds."""

    root: Path
    failures: Path | None = None
    on_wait: Callable[[str], None] | None = None
    on_damage: Callable[[str], None] | None = None
    _verified: dict[Path, tuple[_Signature, ...]] = field(default_factory=dict)

    # Reading -----------------------------------------------------------------------------

    def get(self, kind: str, inputs: Inputs) -> Entry | None:
        """The verified entry for these inputs; None where there is none, or a damaged one."""
        found = self._look(kind, key_of(kind, inputs))
        return found if isinstance(found, Entry) else None

    def _directory(self, kind: str, key: str) -> Path:
        return self.root / f"v{FORMAT}" / kind / key

    def _lock_path(self, name: str) -> Path:
        return self.root / "locks" / f"{name}.lock"

    def _look(self, kind: str, key: str) -> Entry | str | None:
        """The verified entry, or what is wrong with it, or None where there is none."""
        directory = self._directory(kind, key)
        if not os.path.isdir(directory):  # false, not an error, where nothing may be read
            return None
        try:
            entry = _load(kind, key, directory)
            problem = self._verify(entry)
        except _UNUSABLE as error:
            return f"its manifest cannot be used ({type(error).__name__}: {error})"
        if problem:
            return problem
        # The time of last use decides what `gc` removes first.
        _touch(directory / MANIFEST)
        return entry

    def _verify(self, entry: Entry) -> str:
        """What is wrong with an entry's bytes; empty when nothing is."""
        if key_of(entry.kind, entry.inputs) != entry.key:
            return "its manifest names other inputs than its key"
        stats = []
        for name, info in entry.files.items():
            path = entry.directory / name
            if not path.is_file():
                return f"{name} is missing"
            stat = path.stat()
            stats.append(_signature(stat, info))
            if stat.st_size != info["bytes"]:
                return f"{name} has {stat.st_size} bytes instead of {info['bytes']}"
        signature = tuple(stats)
        # Once in a process for unchanged files: crops of a whole data set are gigabytes.
        if self._verified.get(entry.directory) == signature:
            return ""
        for name, info in entry.files.items():
            if file_digest(entry.directory / name) != info["sha256"]:
                return f"the bytes of {name} are not those that were published"
        self._verified[entry.directory] = signature
        return ""

    def _set_aside(self, directory: Path, problem: str) -> None:
        """Only under the entry's lock: another process may have built it again meanwhile."""
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

    def get_or_build(self, kind: str, inputs: Inputs, build: Builder) -> Entry:
        """The entry for these inputs, built by `build(staging)` when it is not there.

        `build` writes its files into the staging folder and returns its log. One process builds,
        the others wait for it.

        Raises:
            HarnessError: what `build` raised, now or earlier in this run.
            StoreError: the store cannot be written.
        """
        key = key_of(kind, inputs)
        found = self._look(kind, key)
        if isinstance(found, Entry):
            return found
        self._raise_remembered(kind, key)
        try:
            with locks.locked(
                self._lock_path(f"{kind}-{key}"),
                timeout_s=LOCK_TIMEOUT_S,
                what=f"building {kind} {key}",
                on_wait=self.on_wait,
            ):
                found = self._look(kind, key)
                if isinstance(found, Entry):
                    return found
                if found is not None:
                    self._set_aside(self._directory(kind, key), found)
                self._raise_remembered(kind, key)
                return self._build(kind, key, inputs, build)
        except locks.LockTimeout as error:
            raise StoreError(
                f"waited {LOCK_TIMEOUT_S:.0f} s for another process to build {kind} {key}: {error}",
                remedy="end the process that holds the lock, then run again",
            ) from error
        except OSError as error:
            raise self._unwritable(kind, key, error) from error

    def _build(self, kind: str, key: str, inputs: Inputs, build: Builder) -> Entry:
        staging = self.root / "staging" / f"{kind}-{key}-{os.getpid()}-{secrets.token_hex(4)}"
        try:
            staging.mkdir(parents=True)
            started = time.monotonic()
            try:
                log = build(staging)
            except HarnessError as error:
                if not processes.ending.is_set():  # a build that we end did not fail
                    self._remember(kind, key, error)
                raise
            entry = self._publish(kind, key, inputs, staging, log, time.monotonic() - started)
        except OSError as error:
            raise self._unwritable(kind, key, error) from error
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        return entry

    def _unwritable(self, kind: str, key: str, error: OSError) -> StoreError:
        return StoreError(
            f"cannot write the {kind} entry {key}: {error}",
            remedy=f"check space and rights of {self.root}, or choose --store=DIR",
        )

    def _publish(
        self, kind: str, key: str, inputs: Inputs, staging: Path, log: str, seconds: float
    ) -> Entry:
        files: dict[str, dict[str, Any]] = {}
        for path in sorted(p for p in staging.rglob("*") if p.is_file()):
            with path.open("rb") as stream:
                os.fsync(stream.fileno())
            files[path.relative_to(staging).as_posix()] = {
                "sha256": file_digest(path),
                "bytes": path.stat().st_size,
            }
            path.chmod(0o444)
        if not files:
            raise StoreError(f"building {kind} {key} left no file", log=log)
        manifest = {
            "format": FORMAT,
            "kind": kind,
            "key": key,
            "inputs": dict(inputs),
            "files": files,
            "seconds": round(seconds, 3),
            "created": now(),
            "host": socket.gethostname(),
            "log": log[-20000:],
        }
        with (staging / MANIFEST).open("w", encoding="utf-8") as stream:
            json.dump(manifest, stream, indent=1)
            stream.flush()
            os.fsync(stream.fileno())
        directory = self._directory(kind, key)
        directory.parent.mkdir(parents=True, exist_ok=True)
        staging.rename(directory)
        entry = _load(kind, key, directory, cached=False)
        # The bytes were hashed a moment ago: the first reader of this process trusts that.
        self._verified[directory] = tuple(
            _signature((directory / name).stat(), info) for name, info in entry.files.items()
        )
        return entry

    def _failure_file(self, kind: str, key: str) -> Path | None:
        return None if self.failures is None else self.failures / f"{kind}-{key}.json"

    def _remember(self, kind: str, key: str, error: HarnessError) -> None:
        path = self._failure_file(kind, key)
        if path is None:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(error.to_json()), encoding="utf-8")
        except OSError:
            pass  # it is only tried again; the failure itself must be seen

    def _raise_remembered(self, kind: str, key: str) -> None:
        path = self._failure_file(kind, key)
        if path is None or not path.is_file():
            return
        try:
            error = from_json(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, AttributeError):
            return
        error.message += " (failed earlier in this run; not tried again)"
        raise error

    # Looking after it --------------------------------------------------------------------

    def entries(self) -> Iterator[Entry]:
        """Every entry with a readable manifest, not verified."""
        base = self.root / f"v{FORMAT}"
        for manifest in sorted(base.glob(f"*/*/{MANIFEST}")):
            directory = manifest.parent
            try:
                yield _load(directory.parent.name, directory.name, directory)
            except _UNUSABLE:
                continue

    def explain(self, kind: str, inputs: Inputs) -> Explanation:
        """Which input keeps a key from being in the store."""
        key = key_of(kind, inputs)
        wanted = _flatten(json.loads(canonical(inputs)))  # as a manifest holds them
        best: tuple[int, str, tuple[tuple[str, Any, Any], ...]] | None = None
        for entry in self.entries():
            if entry.kind != kind:
                continue
            if entry.key == key:
                return Explanation(kind, key, True, key, ())
            have = _flatten(entry.inputs)
            names = sorted(wanted.keys() | have.keys())
            differing = tuple(
                (name, wanted.get(name), have.get(name))
                for name in names
                if wanted.get(name) != have.get(name)
            )
            if best is None or len(differing) < best[0]:
                best = (len(differing), entry.key, differing)
        if best is None:
            return Explanation(kind, key, False, None, ())
        return Explanation(kind, key, False, best[1], best[2])

    def last_used(self, entry: Entry) -> float:
        """When an entry was last read, seconds since the epoch; 0 for one that is gone."""
        return _mtime(entry.directory / MANIFEST)

    def gc(
        self,
        *,
        max_bytes: int | None = None,
        older_than_s: float | None = None,
        key: str = "",
    ) -> Tidied:
        """Remove entries: those not used for `older_than_s`, then the least recently used until
        at most `max_bytes` remain. Leftovers of dead builds and damaged entries go as well.
        Entries used within the last hour stay: a run may be about to open them. `key`: its first
        digits name entries that go whenever they were used.
        """
        removed: list[tuple[Entry, str]] = []
        recent: list[Entry] = []
        held: list[Entry] = []
        failed: list[tuple[Path, OSError]] = []
        moment = time.time()
        for leftover in self._leftovers(moment):
            try:
                if leftover.parent.name == "staging":
                    self._remove(leftover.name.rsplit("-", 2)[0], leftover)
                else:  # nobody opens it
                    shutil.rmtree(leftover)
            except (locks.LockTimeout, FileNotFoundError):
                continue
            except OSError as error:
                failed.append((leftover, error))
        entries = sorted(self.entries(), key=self.last_used)
        total = sum(entry.bytes for entry in entries)
        for entry in entries:
            age = moment - self.last_used(entry)
            named = bool(key) and entry.key.startswith(key)
            if named:
                reason = "its key was named"
            elif older_than_s is not None and age > older_than_s:
                reason = f"not used for {age / 86400:.1f} days"
            elif max_bytes is not None and total > max_bytes:
                reason = "least recently used, over the size limit"
            else:
                continue
            if age <= _GC_GRACE_S and not named:
                recent.append(entry)
                continue
            try:
                gone = self._remove(f"{entry.kind}-{entry.key}", entry.directory)
            except locks.LockTimeout:
                held.append(entry)
            except OSError as error:
                failed.append((entry.directory, error))
            else:
                total -= entry.bytes
                removed += [(entry, reason)] * gone
        return Tidied(tuple(removed), tuple(recent), tuple(held), tuple(failed))

    def _leftovers(self, moment: float) -> Iterator[Path]:
        for name in ("damaged", "staging"):
            for leftover in sorted((self.root / name).glob("*")):
                if moment - _mtime(leftover) > _GC_GRACE_S:
                    yield leftover

    def _remove(self, name: str, directory: Path) -> bool:
        """Remove an entry or a leftover of `name`; false where it is gone already.

        Raises:
            locks.LockTimeout: somebody is building it.
            OSError: it cannot be removed.
        """
        grave = self.root / "staging" / f"{name}-gc-{secrets.token_hex(4)}"
        with locks.locked(self._lock_path(name), timeout_s=0.0, what="gc"):
            # Renamed first: a reader sees the whole entry or none of it.
            grave.parent.mkdir(parents=True, exist_ok=True)
            try:
                directory.rename(grave)
            except FileNotFoundError:
                return False
            shutil.rmtree(grave)
        return True


def _load(kind: str, key: str, directory: Path, *, cached: bool = True) -> Entry:
    data = json.loads(regular_text(directory / MANIFEST))
    if data["kind"] != kind or data["key"] != key:
        raise ValueError(f"it is the manifest of {data['kind']} {data['key']}")
    files: dict[str, dict[str, Any]] = data["files"]
    for name in files:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise ValueError(f"it names a file outside the entry: {name!r}")
        info = files[name]
        if not isinstance(info["sha256"], str) or type(info["bytes"]) is not int:
            raise ValueError(f"it does not say what {name!r} is")
    if not files:
        raise ValueError("it names no file")
    if not isinstance(data["inputs"], dict):
        raise ValueError("its inputs are no object")
    return Entry(
        kind=kind,
        key=key,
        directory=directory,
        inputs=data["inputs"],
        files=files,
        seconds=float(data["seconds"]),
        created=str(data["created"]),
        log=str(data.get("log", "")),
        cached=cached,
    )


def _signature(stat: os.stat_result, info: Mapping[str, Any]) -> _Signature:
    # The time of change of the inode cannot be set back, as that of the contents can.
    return stat.st_ino, stat.st_size, stat.st_ctime_ns, str(info["sha256"])


def _mtime(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _touch(path: Path) -> None:
    try:
        os.utime(path)
    except OSError:
        pass  # a read-only store is fine to read from


def _flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, Mapping):
        flat: dict[str, Any] = {}
        for name, inner in value.items():
            flat.update(_flatten(inner, f"{prefix}.{name}" if prefix else str(name)))
        return flat
    return {prefix: value}
