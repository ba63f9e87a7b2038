"""doctor: what is there, what lacks, what can run; never a hang, nothing heavy."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Iterable
from types import SimpleNamespace

import pytest

from harness.base.environment import ROOT
from harness.base.errors import DeviceError
from harness.base.stages import Stage
from harness.base.store import Store
from harness.catalog.load import load_catalog, load_catalogs
from harness.cli import examination as doctor
from harness.cli.examination import SUBJECTS, examine
from harness.images.dataset import FIRST_LABELS
from harness.settings import resolve
from harness.targets.ascend import doctor as npu
from harness.targets.ascend.chips import CHIPS
from harness.targets.ascend.provider import PROVIDER as ASCEND
from harness.targets.ascend.toolkit import Toolkit
from harness.targets.cuda import provider as cuda
from harness.targets.provider import Finding, Findings, Look
from tests.selftest import image_folders
from tests.selftest.image_folders import lines, put_images, put_text
from tests.selftest.running import TINY, imported_by

NPU = frozenset(CHIPS)


@pytest.fixture
def machine(monkeypatch):
    """The looks that start processes, by family; none of them where they are not named."""

    def only(*names):
        for name, module in (("ascend", ASCEND), ("cuda", cuda.PROVIDER)):
            kept = type(module).looks

            def looks(settings, name=name, module=module, kept=kept):
                wanted = [n for n in names if n in (name, f"{name} simulation")]
                every = list(kept(module, settings)) if wanted else []
                return [look for n in wanted for look in every[n.endswith("simulation") :][:1]]

            monkeypatch.setattr(module, "looks", looks)

    return only


@pytest.fixture
def look(tmp_path, machine):
    def look(*looks, **options):
        machine(*looks)
        given = {"catalog": str(TINY), "store": str(tmp_path / "store"), **options}
        given |= {"runs": str(tmp_path / "runs"), "leases": str(tmp_path / "leases")}
        settings = resolve(given, {})
        found = examine(settings, load_catalogs(settings.catalog))
        answers = {answer.target: answer for answer in found.answers}
        assert tuple(answers) == SUBJECTS
        return found.findings, answers

    return look


@pytest.fixture
def simulated(look):
    def simulated(text="", *looks):
        return look(*(looks or ("ascend",)), simulate_ascend=True, simulator=text)

    return simulated


@pytest.fixture
def run(command, machine):
    """Run `doctor`: exit code and output."""

    def run(*words, looks=(), **environment):
        machine(*looks)
        done = command("doctor", *words, **environment)
        return done.exit_code, done.output

    return run


def named(findings: Iterable[Finding], words: str) -> Finding:
    (found,) = [one for one in findings if words in one.what]
    return found


# Hosts with devices ------------------------------------------------------------------------


def test_a_simulated_host_can_run_on_its_chip_alone(simulated):
    findings, answers = simulated("cards=2")
    assert answers["ascend310p3"].can == "yes"
    assert answers["ascend310p3"].because == "pytest --target=ascend310p3 --simulate-ascend"
    assert (answers["ascend310"].can, answers["ascend310"].code) == ("no", 7)
    assert "npu-smi shows Ascend310P3" in answers["ascend310"].because
    assert "8.0.RC2" in named(findings, "CANN and its environment").found
    assert "driver 23.0.0, firmware 7.1" in named(findings, "driver and firmware").found
    for device in (0, 1):
        chip = named(findings, f"--device={device}")
        assert (chip.state, "health OK, idle" in chip.found) == ("ok", True)
    assert named(findings, "a driver").state == "ok"
    assert all("SIMULATED" in one.group for one in findings if one.concerns == NPU)


@pytest.mark.parametrize(
    ("text", "state", "words"),
    [
        ("chip=310,chips_per_card=3", "note", "fewer chips than the 4 of an Atlas 300I: npu-0: 3"),
        ("chips_per_card=2", "ok", "2 of 2 healthy"),
    ],
)
def test_a_card_that_lacks_a_chip_is_said(simulated, text, state, words):
    found = named(simulated(text)[0], "devices of")
    assert (found.state, words in found.found) == (state, True)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("chip=310,cann=9.1.0", "CANN 8.3 and later do not list Ascend310; this is 9.1.0"),
        ("chip=910_9391,cann=8.0.RC2", "Ascend910_9391 is listed from CANN 8.1 on"),
        ("chip=910B3,cann=5.1.RC2", ""),  # nobody knows since when
    ],
)
def test_a_cann_that_does_not_list_the_chip_is_said(simulated, text, words):
    found = [one.found for one in simulated(text)[0] if one.what.startswith("CANN for")]
    assert (len(found), words in "".join(found)) == (bool(words), True)


def test_an_atc_newer_than_what_runs_its_models_is_said(tmp_path):
    settings = resolve({"store": str(tmp_path)}, {})
    for cann, runtime, said in (("9.1.0", "8.5.0", 1), ("8.5.0", "9.1.0", 0), ("7.0", "9.1.0", 1)):
        tools = Toolkit({}, "python3", versions={"cann": cann, "runtime": runtime})
        found = list(npu._kept(settings, tools, Findings("Ascend", NPU)))
        assert [one.what for one in found] == ["atc and runtime"] * said


def test_compiled_models_that_are_too_old_are_said(simulated, tmp_path):
    def build(staging):
        (staging / "model.om").write_bytes(b"om")
        return ""

    store = Store(tmp_path / "store")
    for cann, played in (("7.0.0", True), ("8.2.RC1", True), ("5.1.RC2", False)):
        store.get_or_build(Stage.COMPILE, {"cann": cann, "simulated": played}, build)
    store.get_or_build(Stage.EXPORT, {"model": "tiny"}, build)
    found = named(simulated("cann=9.0.0")[0], "compiled models in the store")
    assert (found.state, found.found[:17]) == ("note", "1 of CANN 7.0.0; ")
    assert not [one for one in simulated("")[0] if one.what.startswith("compiled models")]


@pytest.mark.parametrize(
    ("text", "what", "state", "words", "code"),
    [
        ("fault=busy", "--device=0", "note", "in use", 0),
        ("fault=unhealthy", "--device=0", "lacks", "health Alarm", 7),
        ("fault=npu-smi-fails", "npu-smi", "lacks", "-8005", 7),
        ("without=npu-smi", "npu-smi", "lacks", "neither on PATH", 7),
        ("without=atc", "atc", "lacks", "neither on PATH", 4),
        ("without=ais_bench", "a driver that runs models", "lacks", "aclruntime", 4),
    ],
)
def test_each_fault_of_a_host_is_found(simulated, text, what, state, words, code):
    findings, answers = simulated(text)
    found = named(findings, what)
    assert (found.state, words in found.found) == (state, True)
    assert answers["ascend310p3"].code == code
    if state == "lacks":
        assert found.remedy
        assert answers["ascend310p3"].can == "no"


def test_a_tool_that_hangs_is_ended_and_said(simulated, monkeypatch):
    monkeypatch.setattr(npu, "QUERY_S", 0.5)
    findings, answers = simulated("fault=npu-smi-hang")
    assert "deadline" in named(findings, "npu-smi").found
    assert answers["ascend310p3"].code == 7


def test_locks_that_other_users_do_not_see_are_said(tmp_path):
    folder = tmp_path / "leases"
    folder.mkdir(mode=0o700)
    say = Findings("Ascend", NPU, "machine")
    found = say.locks(folder)
    assert (found.state, str(folder) in found.found) == ("note", True)
    assert "install -d" in found.remedy
    folder.chmod(0o1777)
    assert say.locks(folder).state == "ok"


# Looks -------------------------------------------------------------------------------------


def test_a_look_that_never_ends_is_left_and_said(look, monkeypatch):
    def forever(settings, models):
        yield Findings("disk", frozenset()).ok("before", "seen")
        time.sleep(60)

    monkeypatch.setattr(doctor, "_disk", forever)
    monkeypatch.setattr(doctor, "LOOK_DEADLINE_S", 1.0)
    findings, answers = look()
    assert named(findings, "before").found == "seen"
    assert "no answer in 1 s" in [one.found for one in findings if one.group == "disk"]
    assert answers["rehearsal"].code == 7


def test_an_error_of_a_look_is_a_finding(look, monkeypatch):
    def broken():
        raise DeviceError("the bus is gone", remedy="find it")

    looks = [Look("Ascend", 60.0, NPU, broken)]
    monkeypatch.setattr(type(ASCEND), "looks", lambda self, settings: looks)
    findings, answers = look("ascend")
    (found,) = [one for one in findings if one.group == "Ascend"]
    assert (found.found, found.remedy) == ("the bus is gone", "find it")
    assert answers["ascend310p3"].because.startswith("looking at it: the bus is gone")
    assert answers["rehearsal"].can == "yes"


# What is supplied is looked into -----------------------------------------------------------


def test_inputs_decide_what_real_targets_can(look, tmp_path):
    _, answers = look()
    assert answers["rehearsal"].can == "yes"
    assert answers["cpu"].can == "no"
    assert "original checkpoints are absent" in answers["cpu"].because
    (tmp_path / "tiny.pth").write_bytes(b"PK")
    findings, answers = look(checkpoints=str(tmp_path))
    assert "not verified: no digest is published" in named(findings, "checkpoint of").found
    assert (answers["cpu"].can, answers["cpu"].code) == ("throughput only", 4)
    (tmp_path / "none").mkdir()
    assert named(look(imagenet=str(tmp_path / "none"))[0], "ImageNet").state == "lacks"
    onnx = tmp_path / "tiny.onnx"
    assert named(look(onnx=[f"tiny={onnx}"])[0], "ONNX file of tiny").state == "lacks"
    onnx.write_bytes(b"")
    assert named(look(onnx=[f"tiny={onnx}"])[0], "ONNX file of tiny").state == "ok"


def first_images(folder, labels=FIRST_LABELS):
    """Write the first images of ImageNet, with any labels, into a folder: its name."""
    put_images(folder, range(1, len(labels) + 1))
    put_text(folder / "val_label.txt", lines(labels))
    return str(folder)


def test_labels_that_count_from_1_are_never_ok(look, tmp_path):
    folder = tmp_path / "imagenet"
    findings, answers = look(imagenet=first_images(folder, [one + 1 for one in FIRST_LABELS]))
    found = named(findings, "ImageNet")
    assert (found.state, found.for_accuracy) == ("lacks", True)
    assert "not in ImageNet's class order" in found.found
    assert "subtract one" in found.remedy
    assert "ImageNet" not in answers["rehearsal"].because
    found = named(look(imagenet=first_images(folder))[0], "ImageNet")
    assert found.state == "note"  # a part
    assert "right for the 15 whose class is known" in found.found


def test_files_that_cannot_be_images_are_never_ok(look, tmp_path):
    folder = first_images(tmp_path)
    (tmp_path / image_folders.name(7)).write_bytes(b"")
    found = named(look(imagenet=folder)[0], "ImageNet")
    assert (found.state, "00000007.JPEG (empty, 0 bytes)" in found.found) == ("lacks", True)
    # What a run would not use does not stop it.
    found = named(look(imagenet=folder, limit="5")[0], "ImageNet")
    assert found.state == "note"
    assert "used: the first 5 by name, 5 of them" in found.found


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
    given = {"catalog": str(catalog), "checkpoints": str(folder)}
    file.write_bytes(weights)
    found = named(look(**given)[0], "checkpoint of tiny")
    assert (found.state, found.found) == ("ok", f"{file}; digest as published")
    file.write_bytes(b"others' weights")
    findings, answers = look(**given)
    found = named(findings, "checkpoint of tiny")
    assert (found.state, "its md5 is" in found.found) == ("lacks", True)
    assert "fetch it again" in found.remedy
    assert answers["cpu"].can == "no"
    assert file.read_bytes() == b"others' weights"
    # In a cache it is fetched again, where that is allowed.
    cached = {"catalog": str(catalog), "checkpoint_cache": str(folder)}
    found = named(look(**cached)[0], "checkpoint of tiny")
    assert (found.state, "another is fetched" in found.found) == ("note", True)
    assert named(look(**cached, offline=True)[0], "checkpoint of tiny").state == "lacks"


def test_an_absent_checkpoint_is_named_with_its_folder(digested, tmp_path):
    folder, none = tmp_path / "weights", tmp_path / "none"
    folder.mkdir()
    bare, offered = (load_catalog(path).models["tiny"] for path in (TINY, digested[0]))
    fetch = ", or --checkpoint-cache=DIR fetches it"

    def absent(model, **given):
        settings = resolve({"store": str(tmp_path), **given}, {})
        found = doctor._checkpoint(settings, model)
        return found.state, found.found, found.remedy

    by_hand = f"get tiny.pth from its publisher into {folder}"
    download = f"download https://example.org/tiny.pth into {folder}"
    assert absent(bare, checkpoints=str(folder)) == ("lacks", f"not in {folder}", by_hand)
    assert absent(offered, checkpoints=str(folder))[2] == download + fetch
    both = {"checkpoints": str(folder), "checkpoint_cache": str(none)}
    places = f"not in {folder} or {none} (no such folder)"
    assert absent(offered, **both, offline=True) == ("lacks", places, download)
    assert absent(offered, **both) == ("note", f"{places}; fetched when it is needed", "")
    assert absent(bare, **both) == ("lacks", places, by_hand)


def test_absent_checkpoints_are_one_line_and_an_empty_one_is_never_ok(look, tmp_path):
    found = named(look(catalog=str(ROOT / "baselines.yaml"), models="fixres,resnest50")[0], "origi")
    assert (found.state, found.found) == ("lacks", "absent: fixres, resnest50; no folder given")
    assert "--checkpoints=DIR, or --checkpoint-cache=DIR" in found.remedy
    (tmp_path / "tiny.pth").write_bytes(b"")
    found = named(look(checkpoints=str(tmp_path))[0], "checkpoint of")
    assert (found.state, "empty (0 bytes)" in found.found) == ("lacks", True)


# Disk --------------------------------------------------------------------------------------


def test_crops_of_all_models_are_held_against_the_disk_together(tmp_path, monkeypatch):
    models = list(load_catalog(ROOT / "baselines.yaml").models.values())
    settings = resolve({"store": str(tmp_path / "store"), "runs": str(tmp_path / "runs")}, {})
    usage = shutil.disk_usage(tmp_path)

    def crops(free_gb, **decoded_gb):
        entries = [SimpleNamespace(kind=kind, bytes=gb * 1e9) for kind, gb in decoded_gb.items()]
        monkeypatch.setattr(Store, "entries", lambda self: entries)
        disk = usage._replace(free=int(free_gb * 1e9))
        monkeypatch.setattr(shutil, "disk_usage", lambda place: disk)
        return named(doctor._disk(settings, models), "crops")

    # The largest alone takes 22 GB.
    found = crops(30, export=22)
    assert found.what == "crops of 50,000 images, all together: 50.6 GB"
    assert found.found == "50.6 GB are still to be written, 30.0 GB are free"
    assert (found.state, "cache gc --max-gb=N" in found.remedy) == ("note", True)
    assert crops(51).state == "ok"
    found = crops(30, crops=22)
    assert (found.state, found.found[:7]) == ("ok", "28.6 GB")


def test_the_store_says_what_is_in_it_and_what_it_needs(look, tmp_path, monkeypatch):
    def build(staging):
        (staging / "model.onnx").write_bytes(bytes(3_000_000))
        return ""

    Store(tmp_path / "store").get_or_build(Stage.EXPORT, {"a": 1}, build)
    full = shutil.disk_usage(tmp_path)._replace(free=0)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: full)
    monkeypatch.setattr(doctor, "MODEL_GB", 0.0025)
    found = named(look()[0], "store: a rehearsal of 1 model fills")
    assert found.state == "ok"  # it is full, and what it needs is in it
    assert found.found.startswith("0.0 GB in it, 0.0 GB free at ")
    monkeypatch.setattr(doctor, "MODEL_GB", 0.5)
    found = named(look()[0], "store: a rehearsal of 1 model fills about 0.5 GB")
    assert (found.state, found.needed_by) == ("lacks", frozenset())
    assert "--store=DIR" in found.remedy


# In short ----------------------------------------------------------------------------------


def test_what_a_machine_has_nothing_of_is_one_line():
    say, gpu = Findings("Ascend", NPU), Findings("CUDA", frozenset({"cuda"}))
    every = Findings("disk", frozenset(SUBJECTS))
    missing, _ = ASCEND.nothing_here()
    findings = [say.lacks(short, "absent", "supply it", short=short) for short in missing]
    findings += [say.note("CANN", "version not known", "install it"), say.note("a driver", "no")]
    shorts, _ = cuda.PROVIDER.nothing_here()
    parts = [gpu.lacks(short, "absent", "supply it", short=short) for short in shorts]
    inputs = Findings("real inputs", frozenset({"cpu", "cuda", *NPU}))
    weights = inputs.lacks("original checkpoints", "absent: a", "get it")
    other = [every.ok("store", "much"), every.note("crops", "little", "a larger disk")]
    python = every.lacks("Python", "3.9", "supply it")
    whole = doctor.Examination((*findings, *parts, weights, *other, python), ())
    short = doctor.brief(whole)
    assert [one.what for one in short] == [
        "Python",  # it stops everything
        "original checkpoints",
        "an NPU, its driver, CANN and ais_bench",
        "a GPU and its ONNX Runtime",
        "crops",  # a mere note
    ]
    assert "--simulate-ascend" in short[2].remedy
    # A part that is missing where the others are there is named.
    some = doctor.Examination((findings[0], parts[1]), ())
    assert {one.what for one in doctor.brief(some)} == {findings[0].what, parts[1].what}


def test_of_one_target_what_others_need_is_left_out(simulated):
    looks = ("ascend", "ascend simulation")
    found = doctor.Examination(tuple(simulated("without=atc,fault=busy", *looks)[0]), ())
    assert {"atc: CANN's compiler", "NPU 0 chip 0, --device=0"} == {
        one.what for one in doctor.brief(found, "ascend310p3")
    }
    inputs = {"original checkpoints", "ImageNet validation set"}
    assert {one.what for one in doctor.brief(found, "cpu")} == inputs
    assert doctor.brief(found, "rehearsal") == []
    assert [one.found for one in doctor.brief(found, "simulate-ascend")] == [
        "the simulated Ascend host has no atc, which compiles the models"
    ]


# The command -------------------------------------------------------------------------------


def test_the_command_is_short_and_all_is_there_on_request(run):
    looks = ("ascend", "ascend simulation", "cuda")
    code, short = run(COLUMNS="80", looks=looks)
    assert code == 0
    assert len(short.splitlines()) < 40
    assert max(map(len, short.splitlines())) <= 80
    assert "original checkpoints" in short
    assert "lacks" not in short  # a rehearsal needs none of what is absent
    assert "proves nothing" in " ".join(short.split())
    code, everything = run("--all", COLUMNS="100")
    assert code == 0
    assert "ascend310p3, ascend310, ascend310b1" in " ".join(everything.split())
    assert "onnxruntime: runs the compiled models" in everything


def test_a_catalog_that_cannot_be_read_is_a_finding(run, tmp_path):
    path = tmp_path / "catalog.yaml"
    path.write_text("models: [")
    code, output = run(f"--catalog={path}")
    assert (code, "the catalog" in output, "Traceback" in output) == (0, True, False)


def test_strict_ends_with_the_code_of_what_lacks(run):
    tiny = f"--catalog={TINY}"
    code, output = run(tiny, "--strict", "rehearsal")
    assert code == 0
    assert output.splitlines()[-1] == "exit code 0: rehearsal can run both checks here"
    code, output = run(tiny, "--strict", "cpu")
    assert code == 4
    assert output.splitlines()[-1] == (
        "exit code 4 (something to supply): cpu cannot run here: original checkpoints are absent"
    )
    code, output = run(tiny, "--strict", "ascend910")
    assert (code, "ascend310p3" in output) == (4, True)
    assert run(tiny, "--simulate-ascend", "--strict", "ascend310", looks=("ascend",))[0] == 7


def test_nothing_heavy_is_imported():
    code = (
        "from harness.catalog.load import load_catalogs; "
        "from harness import settings; from harness.cli import examination; "
        "s = settings.resolve({}); examination.examine(s, load_catalogs(s.catalog))"
    )
    assert not {"torch", "timm", "onnx", "onnxruntime", "pytest"} & imported_by(code)
