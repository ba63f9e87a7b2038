"""doctor: what is there, what lacks, what can run; never a hang, nothing heavy."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import shutil
import time
from collections.abc import Iterable

import pytest
from typer.testing import CliRunner

from harness import doctor
from harness.__main__ import app
from harness.base.errors import DeviceError
from harness.base.host import package_version
from harness.base.store import Store, source_digest
from harness.catalog.load import load_catalog
from harness.cli import options as command_options
from harness.doctor import SUBJECTS, Finding, examine
from harness.images.dataset import FIRST_LABELS
from harness.settings import ROOT, resolve
from tests.selftest.running import TINY, run_python
from tests.selftest.simulated import make_host

MACHINE = ("_ascend", "_cuda", "_simulation")


@contextlib.contextmanager
def machine_looks(*names):
    """Within the block these of `MACHINE` are looked at alone: each starts processes."""
    with pytest.MonkeyPatch.context() as patch:
        for name in set(MACHINE) - set(names):
            patch.setattr(doctor, name, lambda settings: ())
        yield


@pytest.fixture
def look(tmp_path):
    def look(*machine, **options):
        given = {"catalog": str(TINY), "store": str(tmp_path / "store"), **options}
        given |= {"runs": str(tmp_path / "runs"), "leases": str(tmp_path / "leases")}
        settings = resolve(given, {})
        with machine_looks(*machine):
            found = examine(settings, load_catalog(settings.catalog))
        answers = {answer.target: answer for answer in found.answers}
        assert tuple(answers) == SUBJECTS
        return found.findings, answers

    return look


@pytest.fixture
def simulated(look):
    def simulated(text="", *machine):
        return look(*(machine or ("_ascend",)), simulate_ascend=True, simulator=text)

    return simulated


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Run `doctor` in this process: exit code and output."""
    for name in os.environ:
        if name.startswith(("HARNESS_", "IMAGENET_", "GITHUB_")):
            monkeypatch.delenv(name)
    for name in ("RUNS", "LEASES", "STORE"):
        monkeypatch.setenv(f"HARNESS_{name}", str(tmp_path / name.lower()))
    monkeypatch.setattr(command_options, "INI", tmp_path / "pytest.ini")

    def run(*words, **environment):
        done = CliRunner().invoke(app, ["doctor", *map(str, words)], env=environment)
        return done.exit_code, done.output

    return run


def named(findings: Iterable[Finding], words: str) -> Finding:
    (found,) = [one for one in findings if words in one.what]
    return found


def test_a_simulated_host_can_run_on_its_chip_alone(simulated):
    findings, answers = simulated("cards=2")
    assert answers["ascend310p3"].can == "yes"
    assert answers["ascend310"].can == "no"
    assert "no Ascend310 here" in answers["ascend310"].because
    assert answers["ascend310"].code == 7
    assert "8.0.RC2" in named(findings, "CANN and its environment").found
    assert "driver 23.0.0, firmware 7.1" in named(findings, "driver and firmware").found
    assert named(findings, "atc").state == "ok"
    for device in (0, 1):
        chip = named(findings, f"--device={device}")
        assert chip.state == "ok"
        assert "health OK, idle" in chip.found
    assert {named(findings, f"driver {name}").state for name in ("api", "cli", "benchmark")} == {
        "ok"
    }
    assert all("SIMULATED" in one.group for one in findings if one.group.startswith("Ascend"))


@pytest.mark.parametrize(
    ("text", "what", "state", "words", "code"),
    [
        ("fault=busy", "--device=0", "note", "in use", 0),
        ("fault=unhealthy", "--device=0", "lacks", "health Alarm", 7),
        ("fault=npu-smi-fails", "npu-smi", "lacks", "-8005", 7),
        ("without=npu-smi", "npu-smi", "lacks", "neither on PATH", 7),
        ("without=atc", "atc", "lacks", "neither on PATH", 4),
        ("without=ais_bench,without=benchmark", "a driver that runs models", "lacks", "none", 4),
        ("without=ais_bench", "driver api", "note", "aclruntime", 0),
    ],
)
def test_each_fault_of_a_host_is_found(simulated, text, what, state, words, code):
    findings, answers = simulated(text)
    found = named(findings, what)
    assert found.state == state
    assert words in found.found
    assert answers["ascend310p3"].code == code
    if state == "lacks":
        assert found.remedy
        assert answers["ascend310p3"].can == "no"


def test_a_tool_that_hangs_is_ended_and_said(simulated, monkeypatch):
    monkeypatch.setattr(doctor, "QUERY_DEADLINE_S", 0.5)
    findings, answers = simulated("fault=npu-smi-hang")
    assert "deadline" in named(findings, "npu-smi").found
    assert answers["ascend310p3"].code == 7


def test_a_look_that_never_ends_is_left_and_said(look, monkeypatch):
    def forever(settings, catalog):
        yield Finding("disk", "before", "ok", "seen")
        time.sleep(60)

    monkeypatch.setattr(doctor, "_disk", forever)
    monkeypatch.setattr(doctor, "LOOK_DEADLINE_S", 1.0)
    findings, answers = look()
    assert named(findings, "before").found == "seen"
    assert "no answer in 1 s" in [one.found for one in findings if one.group == "disk"]
    assert answers["rehearsal"].code == 7


def test_leases_that_cannot_be_written_are_said_and_the_rest_is_looked_at(tmp_path):
    (tmp_path / "leases").write_text("a file")
    settings = resolve({"leases": str(tmp_path / "leases"), "catalog": str(TINY)}, {})
    host = make_host(tmp_path / "host")
    folder = tmp_path / "work"
    findings = list(doctor._npu_host(settings, host.env, folder, "Ascend"))
    assert "its lock" in named(findings, "npu-smi").found
    assert named(findings, "driver api").state == "ok"


def test_an_error_of_a_look_is_a_finding(look, monkeypatch):
    def broken(settings):
        raise DeviceError("the bus is gone", remedy="find it")

    monkeypatch.setattr(doctor, "_ascend", broken)
    findings, answers = look("_ascend")
    (found,) = [one for one in findings if one.group == "Ascend"]
    assert (found.found, found.remedy) == ("the bus is gone", "find it")
    assert answers["ascend310p3"].because.startswith("looking at it: the bus is gone")
    assert answers["rehearsal"].can == "yes"


def test_inputs_decide_what_real_targets_can(look, tmp_path):
    _, answers = look()
    assert answers["rehearsal"].can == "yes"
    assert answers["cpu"].can == "no"
    assert "original checkpoints are absent" in answers["cpu"].because
    (tmp_path / "tiny.pth").write_bytes(b"PK")
    findings, answers = look(checkpoints=str(tmp_path))
    assert "not verified: no digest is published" in named(findings, "checkpoint of").found
    assert answers["cpu"].can == "throughput only"
    assert answers["cpu"].code == 4
    (tmp_path / "none").mkdir()
    findings, answers = look(checkpoints=str(tmp_path), imagenet=str(tmp_path / "none"))
    assert named(findings, "ImageNet").state == "lacks"
    onnx = tmp_path / "tiny.onnx"
    onnx.write_bytes(b"")
    findings, _ = look(onnx=[f"tiny={onnx}"])
    assert named(findings, "ONNX file of tiny").state == "ok"
    findings, _ = look(onnx=[f"tiny={tmp_path / 'absent.onnx'}"])
    assert named(findings, "ONNX file of tiny").state == "lacks"


def test_a_checkpoint_cache_fetches_what_is_absent_but_not_offline(tmp_path):
    catalog = load_catalog(ROOT / "baselines.yaml")
    cache = {"checkpoint_cache": str(tmp_path), "models": ["squeezenet1_1"]}
    settings = resolve(cache, {})
    (one,) = [f for f in doctor._weights(settings, catalog) if "checkpoint of" in f.what]
    assert one.state == "note"
    settings = resolve({**cache, "offline": True}, {})
    (one,) = [f for f in doctor._weights(settings, catalog) if "checkpoint of" in f.what]
    assert one.state == "lacks"


def test_packages_with_the_name_of_another_are_found(simulated, look, monkeypatch):
    versions = {"ais_bench_benchmark": "3.0", "onnxruntime": "1.2", "onnxruntime-gpu": "1.2"}
    monkeypatch.setattr(doctor, "_version", lambda name: versions.get(name, ""))
    findings, _ = simulated("", "_ascend", "_cuda")
    found = named(findings, "another package named ais_bench")
    assert "ais_bench_benchmark 3.0" in found.found
    assert "--ais-python" in found.remedy
    found = named(findings, "ONNX Runtime with the CUDA provider")
    assert found.state == "lacks"
    assert "both are one module" in found.found


# What is supplied is looked into -----------------------------------------------------------


@pytest.fixture
def image_folder(tmp_path):
    """Write a set of the first images of ImageNet, with any labels: its folder."""

    def image_folder(labels=FIRST_LABELS):
        folder = tmp_path / "imagenet"
        folder.mkdir(exist_ok=True)
        names = [f"ILSVRC2012_val_{number:08d}.JPEG" for number in range(1, len(labels) + 1)]
        for name in names:
            (folder / name).write_bytes(b"JPEG")
        lines = (f"{name} {label}\n" for name, label in zip(names, labels, strict=True))
        (folder / "val_label.txt").write_text("".join(lines))
        return folder

    return image_folder


@pytest.fixture
def wrong_labels(image_folder):
    return image_folder([label + 1 for label in FIRST_LABELS])


def test_labels_that_count_from_1_are_never_ok(look, image_folder, wrong_labels):
    findings, answers = look(imagenet=str(wrong_labels))
    found = named(findings, "ImageNet")
    assert (found.state, found.for_accuracy) == ("lacks", True)
    assert "not in ImageNet's class order" in found.found
    assert "subtract one" in found.remedy
    assert "ImageNet" not in answers["rehearsal"].because
    findings, _ = look(imagenet=str(image_folder()))
    found = named(findings, "ImageNet")
    assert found.state == "note"  # a part
    assert "right for the 15 whose class is known" in found.found


def test_files_that_cannot_be_images_are_never_ok(look, image_folder):
    folder = image_folder()
    (folder / "ILSVRC2012_val_00000007.JPEG").write_bytes(b"")
    findings, _ = look(imagenet=str(folder))
    assert named(findings, "ImageNet").state == "lacks"
    assert "00000007.JPEG (empty, 0 bytes)" in named(findings, "ImageNet").found
    # What a run would not use does not stop it.
    findings, _ = look(imagenet=str(folder), limit="5")
    assert named(findings, "ImageNet").state == "note"
    assert "used: the first 5 by name, 5 of them" in named(findings, "ImageNet").found


@pytest.fixture
def digested(tmp_path):
    """A catalog whose checkpoint has a digest, and that checkpoint's bytes."""
    weights = b"PK\x03\x04 weights"
    path = tmp_path / "digested.yaml"
    lines = "      file: tiny.pth\n"
    digest = hashlib.md5(weights, usedforsecurity=False).hexdigest()
    more = f"      md5: '{digest}'\n      url: https://example.org/tiny.pth\n"
    text = TINY.read_text(encoding="utf-8")
    assert lines in text
    path.write_text(text.replace(lines, lines + more), encoding="utf-8")
    return path, weights


def test_a_file_of_the_right_name_is_not_yet_the_checkpoint(look, digested, tmp_path):
    catalog, weights = digested
    folder = tmp_path / "weights"
    folder.mkdir()
    file = folder / "tiny.pth"
    mine = {"catalog": str(catalog), "checkpoints": str(folder)}
    file.write_bytes(weights)
    findings, _ = look(**mine)
    found = named(findings, "checkpoint of tiny")
    assert (found.state, found.found) == ("ok", f"{file}; digest as published")
    file.write_bytes(b"others' weights")
    findings, answers = look(**mine)
    found = named(findings, "checkpoint of tiny")
    assert found.state == "lacks"
    assert "its md5 is" in found.found
    assert "fetch it again" in found.remedy
    assert answers["cpu"].can == "no"
    assert file.read_bytes() == b"others' weights"
    # In a cache it is fetched again, where that is allowed.
    cached = {"catalog": str(catalog), "checkpoint_cache": str(folder)}
    found = named(look(**cached)[0], "checkpoint of tiny")
    assert found.state == "note"
    assert "its md5 is" in found.found
    assert "another is fetched" in found.found
    assert named(look(**cached, offline=True)[0], "checkpoint of tiny").state == "lacks"


def test_an_absent_checkpoint_is_named_with_its_folder(look, digested, tmp_path):
    folder = tmp_path / "weights"
    folder.mkdir()
    found = named(look(checkpoints=str(folder))[0], "checkpoint of tiny: tiny.pth")
    assert (found.state, found.found) == ("lacks", f"not in {folder}")
    assert found.remedy == f"get tiny.pth from its publisher and put it into {folder}"
    offered = {"catalog": str(digested[0]), "checkpoints": str(folder)}
    found = named(look(**offered)[0], "checkpoint of tiny")
    assert found.remedy == (
        f"download https://example.org/tiny.pth into {folder}, or --checkpoint-cache=DIR fetches it"
    )
    found = named(look(**offered, checkpoint_cache=str(tmp_path), offline=True)[0], "checkpoint of")
    assert found.found == f"not in {folder} or {tmp_path}"
    assert "fetches" not in found.remedy
    found = named(look(checkpoints=str(tmp_path / "none"))[0], "checkpoint of tiny")
    assert found.found == f"not in {tmp_path / 'none'} (no such folder)"
    found = named(look()[0], "checkpoint of tiny")
    assert (found.found, found.remedy) == ("no folder given", "--checkpoints=DIR")


def test_an_empty_checkpoint_and_one_that_no_option_names_are_never_ok(look, tmp_path):
    (tmp_path / "tiny.pth").write_bytes(b"")
    found = named(look(checkpoints=str(tmp_path))[0], "checkpoint of")
    assert (found.state, "empty (0 bytes)" in found.found) == ("lacks", True)
    cache = tmp_path / "store" / "checkpoints"
    cache.mkdir(parents=True)
    (cache / "tiny.pth").write_bytes(b"PK")
    found = named(look()[0], "checkpoint of")  # pytest would ask for an option, too
    assert (found.state, found.remedy) == ("lacks", f"--checkpoint-cache={cache}")
    assert named(look(checkpoint_cache=str(cache))[0], "checkpoint of").state == "ok"


def test_crops_of_all_models_are_held_against_the_disk_together(tmp_path, monkeypatch):
    catalog = load_catalog(ROOT / "baselines.yaml")
    settings = resolve({"store": str(tmp_path / "store"), "runs": str(tmp_path / "runs")}, {})
    usage = shutil.disk_usage(tmp_path)

    def crops_of_all(free_gb):
        disk = usage._replace(free=int(free_gb * 1e9))
        monkeypatch.setattr(shutil, "disk_usage", lambda place: disk)
        found = [one for one in doctor._disk(settings, catalog) if one.what.startswith("crops")]
        assert {one.state for one in found[:-1]} == {"ok"}
        return found[-1]

    # The largest alone takes 22 GB.
    found = crops_of_all(30)
    assert found.what == "crops of 50,000 images, all together: 50.6 GB"
    assert found.found == "50.6 GB are still to be written, 30.0 GB are free"
    assert found.state == "note"
    assert "cache gc --max-gb=N" in found.remedy
    assert crops_of_all(51).state == "ok"

    # What is decoded already needs no room, but not what an older Pillow decoded.
    sizes = {one.preprocessing.size: one.preprocessing for one in catalog.models.values()}
    largest = sizes[max(sizes)].model_dump(mode="json", include={"resize", "crop"})
    now = {
        "count": 50_000,
        "geometry": largest,
        "pillow": package_version("pillow"),
        "recipe": source_digest("harness.images.preprocess", "harness.images.steps"),
    }

    def build(staging):
        (staging / "crops.npy").write_bytes(b"")
        return ""

    assert doctor._decoded(settings.store) == []
    Store(settings.store).get_or_build("crops", {**now, "pillow": "0.9"}, build)
    assert crops_of_all(30).state == "note"
    Store(settings.store).get_or_build("crops", now, build)
    found = crops_of_all(30)
    assert found.found == "28.5 GB are still to be written, 30.0 GB are free"
    assert found.state == "ok"


def test_crops_that_a_run_decoded_are_counted(tmp_path):
    from harness.images import dataset, generated
    from harness.images.crops import Crops

    (tmp_path / "images").mkdir()
    generated.write_set(tmp_path / "images", 2, 1, workers=1)
    preprocessing = load_catalog(TINY).models["tiny"].preprocessing
    store = Store(tmp_path / "store")
    Crops(store, dataset.find_image_set(tmp_path / "images"), preprocessing).complete()
    inputs = preprocessing.model_dump(mode="json", include={"resize", "crop"})
    assert doctor._decoded(store.root) == [(inputs, 2)]


# In short ----------------------------------------------------------------------------------


def lacking(what: str, *, short: str = "", group: str = "Ascend", **more) -> Finding:
    return Finding(group, what, "lacks", "absent", "supply it", short=short, **more)


def absent_checkpoint(name: str, found: str = "not in /w", url: str = "", **more) -> Finding:
    words = {"group": "real inputs", "short": doctor._NO_CHECKPOINTS, "file": f"{name}.pth"}
    one = lacking(f"checkpoint of {name}: {name}.pth", url=url, **words, **more)
    return dataclasses.replace(one, found=found)


def test_absent_checkpoints_name_files_and_folder_and_promise_no_fetch_without_a_url():
    def line(*findings: Finding) -> Finding:
        (found,) = doctor.brief(doctor.Examination(findings, ()))
        return found

    none = {"found": doctor._NO_FOLDER}
    found = line(absent_checkpoint("one", **none), absent_checkpoint("two", **none))
    assert found.found == "absent: one, two"
    assert found.remedy.endswith(": --checkpoints=DIR (docs/checkpoints.md)")
    both = (absent_checkpoint("one", **none), absent_checkpoint("two", **none, url="https://x"))
    assert "--checkpoint-cache=DIR fetches that of two (" in line(*both).remedy
    found = line(absent_checkpoint("one"), absent_checkpoint("two"))
    assert found.found == "absent: one.pth, two.pth; not in /w"
    assert found.remedy.endswith(": put them there (docs/checkpoints.md)")
    found = line(absent_checkpoint("one"))
    assert (found.what, found.found) == ("checkpoint of one: one.pth", "not in /w")


def test_what_a_machine_has_nothing_of_is_one_line(look):
    npu = [
        lacking("atc", short=doctor._NO_ATC, needed_by=doctor._NPU),
        lacking("npu-smi", short=doctor._NO_NPU_SMI, needed_by=doctor._NPU),
        lacking("driver", short=doctor._NO_DRIVER, needed_by=doctor._NPU),
        Finding("Ascend", "CANN", "note", "version not known", "install it"),
    ]
    gpu = [
        lacking("GPUs", short=doctor._NO_GPU, group="CUDA", needed_by=frozenset({"cuda"})),
        lacking("provider", short=doctor._NO_CUDA_RUNTIME, group="CUDA"),
    ]
    weights = [
        absent_checkpoint(name, found=doctor._NO_FOLDER, url="https://example.org/x.pth")
        for name in ("one", "two", "three")
    ]
    told = [
        Finding("disk", "store", "ok", "much"),
        Finding("Ascend", "driver api", "note", "no aclruntime"),
        Finding("disk", "crops", "note", "little", "a larger disk"),
        lacking("Python", group="Python", needed_by=doctor._EVERY),
    ]
    short = doctor.brief(doctor.Examination((*npu, *gpu, *weights, *told), ()))
    assert [one.what for one in short] == [
        "Python",  # it stops everything
        "an NPU, its driver, CANN and ais_bench",
        "a GPU and its ONNX Runtime",
        "original checkpoints",
        "crops",  # a mere note
    ]
    assert short[3].found == "absent: one, two, three"
    assert "only needed for published accuracy" in short[3].remedy
    assert "--simulate-ascend" in short[1].remedy
    # Who names a target is not told whom it concerns.
    every = doctor.Examination((*npu, *gpu, *weights, *told), ())
    for target in ("ascend310p3", "cuda", "cpu"):
        assert "only" in "".join(one.remedy for one in short)
        assert not [one for one in doctor.brief(every, target) if "only " in one.remedy]
    # A part that is missing where the others are there is named.
    short = doctor.brief(doctor.Examination((npu[0], gpu[1], *told), ()))
    assert {"atc", "provider"} <= {one.what for one in short}


def test_of_one_target_what_others_need_is_left_out(simulated):
    looks = ("_ascend", "_simulation")
    found = doctor.Examination(tuple(simulated("without=atc,fault=busy", *looks)[0]), ())
    assert {"atc: CANN's compiler", "NPU 0 chip 0, --device=0"} == {
        one.what for one in doctor.brief(found, "ascend310p3")
    }
    (one, *others) = doctor.brief(found, "cpu")
    assert (one.what, others[0].what) == ("original checkpoints", "ImageNet validation set")
    assert doctor.brief(found, "rehearsal") == []
    assert [one.found for one in doctor.brief(found, "simulate-ascend")] == [
        "atc: CANN's compiler: neither on PATH nor in a known place"
    ]


def test_the_simulation_is_tried_and_claims_nothing(look, simulated):
    _, answers = look("_simulation")
    answer = answers["simulate-ascend"]
    assert (answer.can, answer.code) == ("yes", 0)
    assert answer.because == "plays Ascend310P3; proves nothing of a device"
    _, answers = simulated("chip=310", "_simulation")
    assert "plays Ascend310;" in answers["simulate-ascend"].because
    _, answers = look("_simulation", target="cpu")  # what a run asks for does not matter to it
    assert "plays Ascend310P3;" in answers["simulate-ascend"].because
    _, answers = simulated("without=npu-smi", "_simulation")
    assert (answers["simulate-ascend"].can, answers["simulate-ascend"].code) == ("no", 7)
    assert answers["rehearsal"].can == "yes"


def test_the_store_says_what_is_in_it_and_what_it_needs(look, tmp_path, monkeypatch):
    def build(staging):
        (staging / "model.onnx").write_bytes(bytes(3_000_000))
        return ""

    Store(tmp_path / "store").get_or_build("onnx", {"a": 1}, build)
    monkeypatch.setattr(doctor, "_MODEL_GB", 0.0025)
    full = shutil.disk_usage(tmp_path)._replace(free=0)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: full)
    found = named(look()[0], "store: a rehearsal of 1 model fills")
    assert found.state == "ok"  # it is full, and what it needs is in it
    assert found.found.startswith("0.0 GB in it, 0.0 GB free at ")
    monkeypatch.setattr(doctor, "_MODEL_GB", 0.5)
    found = named(look()[0], "store: a rehearsal of 1 model fills about 0.5 GB")
    assert (found.state, found.needed_by) == ("lacks", frozenset())
    assert "--store=DIR" in found.remedy


def test_the_command_is_short_and_all_is_there_on_request(run):
    code, short = run(COLUMNS="80")
    assert code == 0
    assert len(short.splitlines()) < 40
    assert max(map(len, short.splitlines())) <= 80
    assert "original checkpoints" in short
    assert "lacks" not in short  # a rehearsal needs none of what is absent
    assert "proves nothing" in " ".join(short.split())
    with machine_looks():
        code, everything = run("--all", COLUMNS="100")
    assert code == 0
    assert len(everything.splitlines()) > len(short.splitlines())
    assert "onnxruntime: runs the compiled models" in everything


def test_what_was_supplied_and_is_wrong_is_not_said_to_be_absent(run, wrong_labels):
    with machine_looks():
        code, output = run(f"--imagenet={wrong_labels}", f"--catalog={TINY}", COLUMNS="200")
    assert code == 0
    (line,) = [line for line in output.splitlines() if "ImageNet validation set" in line]
    assert line.startswith("lacks")
    (line,) = [line for line in output.splitlines() if "original checkpoints  " in line]
    assert line.startswith("not here")


def test_a_catalog_that_cannot_be_read_is_a_finding(run, tmp_path):
    path = tmp_path / "catalog.yaml"
    path.write_text("models: [")
    with machine_looks():
        code, output = run(f"--catalog={path}")
    assert code == 0
    assert "the catalog" in output
    assert "Traceback" not in output


def test_strict_ends_with_the_code_of_what_lacks(run, tmp_path):
    tiny = f"--catalog={TINY}"
    with machine_looks():
        code, output = run(tiny, "--strict", "rehearsal")
        assert code == 0
        assert output.splitlines()[-1] == "exit code 0: rehearsal can run both checks here"
        code, output = run(tiny, "--strict", "cpu")
        assert code == 4
        assert output.splitlines()[-1] == (
            "exit code 4 (something to supply): cpu cannot run here: original checkpoints are "
            "absent"
        )
        code, output = run(tiny, "--strict", "ascend910")
        assert code == 4
        assert "ascend310p3" in output
    with machine_looks("_ascend"):
        assert run(tiny, "--simulate-ascend", "--strict", "ascend310")[0] == 7


def test_nothing_heavy_is_imported():
    code, output = run_python(
        [
            "-c",
            "import sys; from harness.catalog.load import load_catalog; "
            "from harness import doctor, settings; s = settings.resolve({}); "
            "doctor.examine(s, load_catalog(s.catalog)); "
            "print(sorted({'torch', 'timm', 'onnx', 'onnxruntime', 'pytest'} & set(sys.modules)))",
        ]
    )
    assert code == 0, output
    assert output.strip() == "[]"
