"""The shared store: what one host compiled another one takes, and nothing of it ends a run."""

from __future__ import annotations

import functools
import io
import secrets
import shutil
import tarfile
import threading
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from harness.base.errors import ConfigError
from harness.base.stages import Stage
from harness.base.store import Store
from harness.plan import Case
from harness.run.engine import Run
from harness.settings import resolve
from harness.stages.compile import Compile
from harness.stages.shared import SharedStore, read_pins
from tests.selftest.builders import INPUTS, KIND, files_below, forbidden, writes
from tests.selftest.fakes import workbench
from tests.selftest.running import TINY

OM = Stage.COMPILE
Host = Callable[..., tuple[Store, list[str]]]


@pytest.fixture(autouse=True)
def empty() -> Iterator[None]:
    yield
    MemoryFileSystem.store.clear()


@pytest.fixture(scope="session")
def s3() -> Iterator[None]:
    """A server on this machine that speaks S3."""
    pytest.importorskip("s3fs", reason="s3fs is not installed: make hosts-test")
    server = pytest.importorskip("moto.server").ThreadedMotoServer(port=0, verbose=False)
    server.start()
    address, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{address}:{port}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "of-the-test")
        yield
    server.stop()


@pytest.fixture(params=["file", "memory", "s3"])
def url(request, tmp_path) -> str:
    if request.param == "file":
        return f"file://{tmp_path}/shared"
    if request.param == "memory":
        return "memory://shared"
    request.getfixturevalue("s3")
    bucket = f"s3://b{secrets.token_hex(8)}"
    fsspec.url_to_fs(bucket)[0].mkdir(bucket)
    return f"{bucket}/shared"


@pytest.fixture
def host(tmp_path) -> Host:
    """The store of a host in a run of its own, and what people were told."""

    def host(url: str, name: str, pins: dict[str, str] | None = None, answer_s: float = 60.0):
        notes: list[str] = []
        store = Store(tmp_path / name)
        store.second = SharedStore(url, pins, tmp_path / f"run {name}", notes.append, answer_s)
        return store, notes

    return host


def objects(url: str) -> list[tuple[Any, str]]:
    system, root = fsspec.url_to_fs(url)
    return [(system, path) for path in system.find(root)]


def test_what_one_host_built_another_one_takes(url, host):
    (one, said), (two, also) = host(url, "one"), host(url, "two")
    built = one.get_or_build(OM, INPUTS, writes(), about="tiny")
    taken = two.get_or_build(OM, INPUTS, forbidden, about="tiny")
    assert (built.cached, built.shared, taken.cached, taken.shared) == (False, False, True, True)
    assert (taken.digest, taken.log, taken.seconds) == (built.digest, built.log, built.seconds)
    assert taken.file().stat().st_mode & 0o222 == 0
    again = Store(two.root).get(OM, INPUTS)
    assert again and again.shared
    assert len(objects(url)) == 1 and said == also == []
    two.get_or_build(KIND, INPUTS, writes())  # what belongs to a host stays there
    assert len(objects(url)) == 1


def spoil_bytes(data: bytes) -> bytes:
    return data.replace(b"weights!", b"Weights!")


def half(data: bytes) -> bytes:
    return data[: len(data) // 2]


def other_key(data: bytes) -> bytes:
    return data.replace(b'"batch_size": 4', b'"batch_size": 8')


def with_link(data: bytes) -> bytes:
    """The same files and a link."""
    made = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(data)) as old,
        tarfile.open(fileobj=made, mode="w") as archive,
    ):
        for one in old.getmembers():
            content = old.extractfile(one) if one.isreg() else None
            archive.addfile(one, content)
            if one.name.endswith(".onnx"):
                one.name, one.linkname, one.size = f"{one.name}.link", "model.onnx", 0
                one.type = tarfile.SYMTYPE
                archive.addfile(one)
    return made.getvalue()


@pytest.mark.parametrize(
    "damage", [spoil_bytes, half, other_key, with_link, lambda data: b"no tar", lambda data: b""]
)
def test_a_damaged_object_is_not_used(url, host, damage):
    one, _ = host(url, "one")
    one.get_or_build(OM, INPUTS, writes("weights!"))
    ((system, path),) = objects(url)
    whole = system.cat_file(path)
    assert damage(whole) != whole
    system.pipe_file(path, damage(whole))
    two, notes = host(url, "two")
    entry = two.get_or_build(OM, INPUTS, writes("weights!"))
    assert not entry.shared and entry.file().read_text() == "weights!"
    assert len(notes) == 1 and "is not used" in notes[0]
    three, notes = host(url, "three")  # who built it wrote it again
    assert three.get_or_build(OM, INPUTS, forbidden).shared and notes == []
    assert all(name.startswith(("v1/", "run ")) for name in files_below(two.root))


def test_a_server_that_only_serves_is_read_from(host, tmp_path):
    pytest.importorskip("aiohttp", reason="aiohttp is not installed: make hosts-test")
    host(f"file://{tmp_path}/shared", "one")[0].get_or_build(OM, INPUTS, writes())
    folder = functools.partial(Served, directory=str(tmp_path / "shared"))
    with ThreadingHTTPServer(("127.0.0.1", 0), folder) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        two, notes = host(f"http://127.0.0.1:{server.server_port}", "two")
        for size in range(5, 7):  # the second is not even tried
            assert not two.get_or_build(OM, {**INPUTS, "batch_size": size}, writes()).shared
        assert len(notes) == 1 and "cannot be written" in notes[0]
        assert two.get_or_build(OM, INPUTS, forbidden).shared
        server.shutdown()


class Served(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.mark.parametrize("away", ["nothing://there", "file:///proc/nowhere/at/all"])
def test_a_medium_that_is_away_is_said_once_in_a_run(host, away):
    (one, notes), (same_run, others) = host(away, "one"), host(away, "one")
    for size in range(3):
        for store in (one, same_run):
            entry = store.get_or_build(OM, {**INPUTS, "size": size}, writes())
            assert not entry.shared
    assert len(notes) == 1 and "cannot be" in notes[0] and others == []


@pytest.mark.parametrize("call", ["info", "cat_file", "pipe_file"])
def test_a_medium_that_hangs_stops_no_run_and_is_asked_once(host, monkeypatch, call):
    host("memory://shared", "one")[0].get_or_build(OM, INPUTS, writes())
    freed, asked = threading.Event(), []

    def hang(*arguments: Any, **more: Any) -> None:
        asked.append(arguments)
        freed.wait(60)

    monkeypatch.setattr(MemoryFileSystem, call, hang)
    two, notes = host("memory://shared", "two", answer_s=0.5)
    for size in range(4, 8):  # the first one is there
        two.get_or_build(OM, {**INPUTS, "batch_size": size}, writes())
    freed.set()
    assert len(asked) == len(notes) == 1 and "no answer" in notes[0]


def test_only_what_is_pinned_is_taken_and_nothing_written(url, host, tmp_path, command):
    one, _ = host(url, "one")
    built = one.get_or_build(OM, INPUTS, writes(), about="tiny")
    printed = command("cache", "pins", f"--store={one.root}")
    assert printed.exit_code == 0, printed.output
    (tmp_path / "pins").write_text(f"# of the night\n\n{printed.stdout}")
    pins = read_pins(tmp_path / "pins")
    assert pins == {built.key: built.digest}
    assert host(url, "two", pins)[0].get_or_build(OM, INPUTS, forbidden).shared

    before = [system.cat_file(path) for system, path in objects(url)]
    for name, other, told in (("three", {}, 0), ("four", {built.key: "0" * 64}, 1)):
        store, notes = host(url, name, other)
        assert not store.get_or_build(OM, INPUTS, writes("mine")).shared
        assert len(notes) == told
    assert [system.cat_file(path) for system, path in objects(url)] == before


@pytest.mark.parametrize("text", ["abc", f"{'0' * 32} {'0' * 63}", None])
def test_a_file_without_pins_is_refused(tmp_path, text):
    if text is not None:
        (tmp_path / "pins").write_text(text)
    with pytest.raises(ConfigError, match="pin"):
        read_pins(tmp_path / "pins")


@pytest.mark.parametrize("here", [True, False])
def test_a_run_with_a_file_without_pins_does_not_begin(tmp_path, here):
    (tmp_path / "pins").write_text("abc")
    places = {"runs": str(tmp_path / "runs"), "shared_store_pins": str(tmp_path / "pins")}
    run = Run(resolve({"rehearsal": True, "catalog": str(TINY), **places}, {}))
    with pytest.raises(ConfigError, match="pins, line 1: no pin"):
        run.begin([("", case) for case in run.plan.cases], here=here)
    assert not run.directory.exists()


def test_two_hosts_publish_at_once(url, host):
    begin = threading.Barrier(2, timeout=30)

    def build(staging: Path) -> str:
        begin.wait()
        return writes()(staging)

    hosts = [host(url, name) for name in ("one", "two")]
    threads = [
        threading.Thread(target=store.get_or_build, args=(OM, INPUTS, build)) for store, _ in hosts
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(objects(url)) == 1 and [notes for _, notes in hosts] == [[], []]
    assert host(url, "three")[0].get_or_build(OM, INPUTS, forbidden).shared


def test_a_model_that_does_not_load_is_built_not_taken_again(url, host, tmp_path):
    one, _ = host(url, "one")
    built = one.get_or_build(OM, INPUTS, writes("bad"))
    two, _ = host(url, "two")
    two.failures = tmp_path / "failures"
    assert two.get_or_build(OM, INPUTS, forbidden).shared
    fresh = two.build_again(OM, INPUTS, writes("good"), refused=built.digest, why="")
    assert fresh and not fresh.shared and fresh.file().read_text() == "good"
    assert host(url, "three")[0].get_or_build(OM, INPUTS, forbidden).digest == fresh.digest


# Of a run ----------------------------------------------------------------------------------


def test_a_second_host_takes_the_compiled_model_of_the_first(tmp_path, shared, monkeypatch):
    given: dict[str, Any] = {"simulate_ascend": True, "shared_store": f"file://{tmp_path}/shared"}
    case = Case("tiny", 4, "ascend310p3", "throughput")
    workbench(tmp_path, simulate_ascend=True, store=str(shared / "store")).for_case(
        case
    ).simplified()
    digests = []
    for name in ("one", "two"):
        bench = workbench(tmp_path / name, **given)
        for kind in (Stage.STANDIN, Stage.EXPORT, Stage.SIMPLIFY):
            shutil.copytree(shared / "store/v1" / kind, bench.store.root / "v1" / kind)
        pipeline = bench.for_case(case)
        assert pipeline.compiled().path.is_file()
        artifact = pipeline.observed.artifacts[-1]
        assert (artifact.stage, artifact.shared, artifact.cached) == (OM, *[name == "two"] * 2)
        digests.append(artifact.digest)
        monkeypatch.setattr(Compile, "build", lambda self, staging: forbidden(staging))
    assert digests[0] == digests[1]


def test_a_model_for_the_hosts_processor_is_never_shared(tmp_path):
    assert workbench(tmp_path, rehearsal=True, shared_store="memory://x").store.second is None


@pytest.mark.parametrize(
    "secret",
    ["s3://key:hidden@host/b", "https://hidden@host/b", "https://host/b?sig=hidden"],
)
def test_a_url_with_a_secret_is_refused_and_not_shown(secret):
    for given in ({"shared_store": secret}, {}):
        environment = {} if given else {"HARNESS_SHARED_STORE": secret}
        with pytest.raises(ConfigError) as caught:
            resolve(given, environment)
        assert "hidden" not in caught.value.message + caught.value.remedy
    for url in ("s3://bucket/a", "abfs://box@account.dfs.core.windows.net/a", "sftp://host:22/a"):
        assert resolve({"shared_store": url}, {}).shared_store == url
