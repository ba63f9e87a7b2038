"""Joining runs: nothing is lost, nothing that disagrees is joined, no name leads elsewhere."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from harness.__main__ import app
from harness.base.errors import RecordError
from harness.base.stages import Stage
from harness.base.terms import Check
from harness.catalog.load import load_catalog
from harness.records import reader, writer
from harness.records.lines import CaseLine, CheckName, RunCheckLine
from harness.records.observed import ArtifactRef
from harness.records.reader import RunRecords
from harness.records.writer import RESULTS
from harness.report.render import render_html
from harness.run.merge import merge
from tests.selftest import history_samples as nights
from tests.selftest import report_samples as samples
from tests.selftest.judge_samples import put_predictions
from tests.selftest.running import ROOT

one_run = nights.write_run


def speed(batch: int, run: str, **changes: Any) -> CaseLine:
    return nights.speed(500 + batch, batch=batch, run=run, **changes)


def shards(tmp_path: Path) -> list[Path]:
    """Two shards of one acceptance, three cases."""
    failed = speed(8, "b", outcome="failed")
    return [
        one_run(tmp_path, [speed(1, "a"), speed(4, "a")]),
        one_run(tmp_path, [failed], exit_status=1),
    ]


def notes(records: RunRecords) -> tuple[str, ...]:
    assert records.run is not None
    return records.run.notes


def outcomes(records: RunRecords) -> dict[tuple[str, str], str]:
    return {(str(check.name), check.subject): check.outcome for check in records.checks}


# Cases ------------------------------------------------------------------------------------


def test_shards_become_one_run_whose_counts_add_up(tmp_path):
    parts = shards(tmp_path)
    made = merge(parts, tmp_path / "both")
    assert made == reader.read(tmp_path / "both")
    assert made.cases == tuple(case for part in parts for case in reader.read(part).cases)
    assert made.end and made.end.counts == made.counts()
    assert (made.end.planned, made.end.complete, made.exit_status) == (3, True, 1)
    assert made.end.seconds == 2 * 723
    assert made.run and made.run.provenance == "real"
    assert [text.partition(",")[0] for text in made.run.merged] == [
        "a: 2 of 2 cases",
        "b: 1 of 1 cases",
    ]
    assert "3 planned = 2 passed + 1 failed" in render_html(made)


def test_the_same_run_twice_is_one_run(tmp_path):
    parts = shards(tmp_path)
    shutil.copytree(parts[0], tmp_path / "copy of a")
    (tmp_path / "latest").symlink_to(parts[0])
    runs = [*parts, tmp_path / "copy of a", tmp_path / "latest", parts[0] / RESULTS]
    made = merge(runs, tmp_path / "both")
    assert made.run is not None
    assert (len(made.cases), len(made.run.merged)) == (3, 3)
    # And once more with what was merged.
    assert len(merge([made.directory, *parts], tmp_path / "again").cases) == 3


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"outcome": "failed"}, "a says passed, 504 fps, {copy} says failed, 504 fps; they differ"),
        ({"sentence": "Another."}, "says passed, 504 fps; they differ in sentence"),
        ({"seconds": 1.0}, "they differ in seconds"),
    ],
)
def test_an_overlap_that_disagrees_is_refused(tmp_path, changes, said):
    parts = shards(tmp_path)
    copy = shutil.copytree(parts[0], tmp_path / "copy")
    nights.rewrite(copy, changes)
    with pytest.raises(RecordError, match=r"disagree about 2 cases: .*bs1.*bs4") as caught:
        merge([*parts, copy], tmp_path / "both")
    assert said.format(copy=copy) in caught.value.message
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "copy"]


def test_a_case_is_the_same_wherever_pytest_has_its_root(tmp_path):
    parts = shards(tmp_path)
    copy = shutil.copytree(parts[0], tmp_path / "copy")
    text = (copy / RESULTS).read_text()
    assert "tests/acceptance/" in text
    text = text.replace("tests/acceptance/", "acceptance/").replace('"passed"', '"failed"')
    (copy / RESULTS).write_text(text)
    with pytest.raises(RecordError, match=r"disagree about 2 cases: .*bs1.*bs4"):
        merge([*parts, copy], tmp_path / "both")


# What is refused --------------------------------------------------------------------------


def test_provenances_are_not_mixed_and_other_catalogs_need_a_word(tmp_path):
    real = one_run(tmp_path, [speed(1, "a")])
    simulated = one_run(tmp_path, [speed(4, "b", provenance="simulated")])
    with pytest.raises(RecordError, match=r"mix provenances: .*a is real, .*b is simulated"):
        merge([real, simulated], tmp_path / "both")
    other = one_run(tmp_path, [speed(8, "c")], catalog_digest="d5" * 32)
    with pytest.raises(RecordError, match="different catalogs") as caught:
        merge([real, other], tmp_path / "both")
    assert "--allow-other-catalog" in caught.value.remedy
    run = merge([real, other], tmp_path / "both", allow_other_catalog=True).run
    assert run and run.catalog_digest == f"{'c4' * 32}, {'d5' * 32}"


def test_places_that_cannot_be_are_refused(tmp_path):
    parts = shards(tmp_path)
    (tmp_path / "x").symlink_to("y")
    (tmp_path / "y").symlink_to("x")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for runs, output, said in (
        ([*parts, tmp_path / "x"], "both", "no records"),
        (parts, "x/both", "cannot make"),
        (parts, "a", "exists already"),
        (parts, "dangling", "exists already"),
        (parts, "a/both", "lies inside"),
        (parts, "b/../a/deep/er", "lies inside"),
        ([tmp_path / "nothing"], "both", "no records"),
        ([], "both", "no run to merge"),
    ):
        with pytest.raises(RecordError, match=said):
            merge(runs, tmp_path / output)
    lines = (parts[0] / RESULTS).read_text().splitlines(keepends=True)
    (parts[0] / RESULTS).write_text("".join(lines[1:]))
    with pytest.raises(RecordError, match="no run line"):
        merge(parts, tmp_path / "both")
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"a", "b", "x", "y", "dangling"}


# What was lost on the way -----------------------------------------------------------------


@pytest.mark.parametrize("kind", ["case", "check"])
def test_what_a_merge_loses_is_found(tmp_path, monkeypatch, kind):
    """The fault that reading back what was written exists to catch."""
    append = writer.append

    def losing(directory: Path, *lines: Any) -> None:
        append(directory, *(line for line in lines if line.kind != kind))

    part = one_run(tmp_path, [speed(1, "a")], raw=[checked("failed")])
    monkeypatch.setattr(writer, "append", losing)
    with pytest.raises(RecordError, match=f"lost {int(kind == 'case')} cases"):
        merge([part], tmp_path / "one")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_records_that_are_not_whole_are_told_and_not_green(tmp_path):
    def cut(part: Path) -> None:
        lines = (part / RESULTS).read_text().splitlines(keepends=True)
        kept = [line for line in lines if json.loads(line).get("batch_size") != 4]
        (part / RESULTS).write_text("".join(kept))

    half = speed(4, "d").model_dump_json()[:500]
    whole = one_run(tmp_path, [speed(4, "whole")])
    gone = one_run(tmp_path, [speed(1, "c"), speed(4, "c")])
    cut(gone)
    for part, note, status in (
        (one_run(tmp_path, [speed(1, "a")], end=False), "killed or still goes on", 7),
        (one_run(tmp_path, [speed(1, "b", outcome="failed")], end=False), "killed", 1),
        (one_run(tmp_path, [speed(1, "e", outcome="inconclusive")], end=False), "killed", 7),
        (gone, "counts what its records lack", 7),
        (
            one_run(tmp_path, [speed(1, "d")], raw=[half, "{}"]),
            "damaged lines in its records (2)",
            7,
        ),
    ):
        for number, order in enumerate(([whole, part], [part, whole])):
            made = merge(order, tmp_path / f"{part.name} {number}")
            assert (made.counts()["not_run"], made.exit_status) == (0, status)
            assert any(one.startswith(str(part)) and note in one for one in notes(made))


# The exit code ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parts", "joined"),
    [
        *(
            (tuple({"exit_status": status} for status in statuses), joined)
            for *statuses, joined in (
                (1, 7, 1),
                (7, 4, 7),
                (6, 4, 4),
                (0, 6, 6),
                (0, 0, 0),
                (2, 7, 2),
                (3, 1, 1),
                (7, 137, 7),
                (-9, 1, 1),
                (-9, 6, 7),
            )
        ),
        # A red case or check counts whatever its run ended with.
        (({"outcome": "failed"},), 1),
        (({"check": "failed"},), 1),
        (({"check": "inconclusive"},), 6),
        # Inconclusive is allowed where every run allowed it.
        (({"check": "inconclusive", "allow_inconclusive": True},), 0),
        (({"check": "inconclusive", "allow_inconclusive": True}, {}), 6),
    ],
)
def test_the_exit_code_follows_the_order_of_the_readme(tmp_path, parts, joined):
    runs = []
    for batch, run, changes in zip((1, 4), "ab", parts, strict=False):
        given = {"exit_status": 0, "outcome": "passed", "check": "", **changes}
        case = speed(batch, run, outcome=given.pop("outcome"))
        outcome = given.pop("check")
        runs.append(one_run(tmp_path, [case], raw=[checked(outcome)] if outcome else [], **given))
    assert merge(runs, tmp_path / "joined").exit_status == joined


def test_what_a_part_was_told_to_leave_out_is_not_lost(tmp_path):
    wrong = speed(1, "a", outcome="inconclusive")
    left = one_run(tmp_path, [wrong], lost=[speed(4, "a")], exit_status=6, stopped="early")
    # Another part lost a case of its own: that one is the machine's.
    lost = one_run(tmp_path, [speed(8, "b")], lost=[speed(16, "b")], exit_status=7)
    rest = one_run(tmp_path, [speed(4, "c")])
    for name, parts, ended in (
        ("left", [left], (6, "early", False)),
        ("lost", [left, lost], (7, "early", False)),
        ("rest", [left, rest], (6, "early", True)),  # it ran elsewhere
        ("other", [rest, lost], (7, "", False)),
    ):
        end = merge(parts, tmp_path / name).end
        assert end is not None
        assert (end.exit_status, end.stopped, end.complete) == ended


# Checks over the cases --------------------------------------------------------------------

BATCHES = ("batch sizes", "resnest50 on cpu")
OTHER = ("planted fault", "resnest50 on cpu")  # nothing judges it again
RIGHT = [n % 3 for n in range(300)]
WRONG = [7] * 30 + RIGHT[30:]


def checked(outcome: str, run: str = "a", *, name: str = OTHER[0], **changes: Any) -> str:
    values: dict[str, Any] = {"subject": BATCHES[1], "model": "resnest50", "target": "cpu"}
    values |= {"provenance": "real", "sentence": f"{run} says so", **changes}
    line = RunCheckLine(run=run, name=CheckName(name), outcome=outcome, **values)  # type: ignore[arg-type]
    return line.model_dump_json()


def batches(outcome: str, run: str = "a") -> str:
    return checked(outcome, run, name=BATCHES[0])


def shard(tmp_path: Path, run: str, predicted: dict[int, list[int]], **changes: Any) -> Path:
    """A run whose accuracy cases left these best classes by batch size."""
    cases = [accuracy(run, batch, f"predictions/bs{batch}.csv") for batch in predicted]
    directory = nights.write_run(tmp_path, cases, name=run, **changes)
    for batch, best in predicted.items():
        put_predictions(directory, batch, best)
    return directory


def accuracy(run: str, batch: int, predictions: str) -> CaseLine:
    measured = samples.accuracy_measurement(
        len(RIGHT), provenance="real", predictions_file=predictions, fidelity=None
    )
    return samples.case(
        "resnest50", batch, run=run, provenance="real", artifacts=(), measurement=measured
    )


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_failed_check_of_one_run_outlives_the_passed_one_of_another(tmp_path, order):
    parts = [
        one_run(tmp_path, [speed(1, "a")], exit_status=1, raw=[checked("failed")]),
        one_run(tmp_path, [speed(4, "b")], raw=[checked("passed", "b")]),
    ]
    made = merge([parts[i] for i in order], tmp_path / "both")
    assert outcomes(made) == {OTHER: "failed"}
    assert made.exit_status == 1
    assert "a says so" in render_html(made)


ONE_OTHER = [7, *RIGHT[1:]]


@pytest.mark.parametrize(
    ("first", "other", "outcome", "status"),
    [
        ({1: RIGHT}, {4: RIGHT}, "recorded", 0),
        ({1: RIGHT}, {4: WRONG}, "failed", 1),
        # Shards that each passed fail together; what together is not decided clears no shard.
        ({1: RIGHT, 4: RIGHT}, {8: WRONG, 16: WRONG}, "failed", 1),
        ({1: RIGHT, 4: RIGHT}, {8: ONE_OTHER}, "recorded", 0),
    ],
)
def test_batch_sizes_of_different_hosts_are_compared(tmp_path, first, other, outcome, status):
    parts = [
        shard(tmp_path, run, sizes, raw=[batches("passed", run)] if len(sizes) > 1 else [])
        for run, sizes in (("a", first), ("b", other))
    ]
    made = merge(parts, tmp_path / "both")
    assert outcomes(made) == {BATCHES: outcome}
    assert made.exit_status == status
    assert "says so" not in made.checks[0].sentence


def test_missing_predictions_do_not_turn_a_comparison_green(tmp_path):
    parts = [
        shard(tmp_path, "a", {1: RIGHT, 4: RIGHT}, raw=[batches("passed")]),
        shard(tmp_path, "b", {8: RIGHT}),
    ]
    (parts[1] / "predictions" / "bs8.csv").unlink()
    made = merge(parts, tmp_path / "both")
    (check,) = made.checks
    assert check.outcome == "failed"
    assert "predictions/bs8.csv" in check.sentence
    assert made.exit_status == 1


def test_nothing_to_compare_clears_nobody(tmp_path):
    part = shard(tmp_path, "a", {1: RIGHT, 4: RIGHT}, raw=[batches("failed")])
    text = (part / RESULTS).read_text()
    (part / RESULTS).write_text(text.replace("predictions/bs4.csv", ""))
    assert outcomes(merge([part], tmp_path / "one")) == {BATCHES: "failed"}


def test_the_same_case_on_two_hosts_must_have_run_one_file(tmp_path):
    kinds: tuple[tuple[str, Check], ...] = (("a", "accuracy"), ("b", "throughput"))
    for run, check in kinds:
        ran = ArtifactRef(Stage.COMPILE, "k", digest=run)
        one_run(tmp_path, [samples.case("resnest50", 1, check, run=run, artifacts=(ran,))])
    made = merge([tmp_path / "a", tmp_path / "b"], tmp_path / "both")
    assert outcomes(made) == {("same artifact", "resnest50-bs1-cpu"): "failed"}


def test_ratios_are_judged_again_by_the_same_catalog_only(tmp_path):
    """Guide 001's pass line, 1.2 times 733.052 fps: batch 1 misses it and batch 4 reaches it."""
    path = ROOT / "baselines.yaml"
    key = ("ratio", "fixres on ascend310p3 to ascend310")
    about = {"subject": key[1], "model": "fixres", "target": "ascend310p3", "name": key[0]}

    def parts(folder: str, digest: str) -> list[Path]:
        return [
            nights.write_run(
                tmp_path / folder,
                [nights.speed(fps, model="fixres", batch=batch, run=run,
                              measurement={"timing": timing(fps, batch)})],
                name=run,
                catalog_digest=digest,
                raw=[checked(outcome, run, **about)],
            )
            for run, batch, fps, outcome in (("a", 1, 800.0, "failed"), ("b", 4, 900.0, "passed"))
        ]  # fmt: skip

    def timing(fps: float, batch: int) -> Any:
        return samples.timing(batch, [1000 * batch / fps] * 40)

    catalog = load_catalog(path)
    made = merge(parts("s", catalog.digest), tmp_path / "same", catalog=catalog)
    assert outcomes(made)[key] == "passed"
    assert not any("ratios" in note for note in notes(made))
    older = parts("o", nights.CATALOG_DIGEST)
    for number, present in enumerate((catalog, None)):
        made = merge(older, tmp_path / f"other {number}", catalog=present)
        assert outcomes(made) == {key: "failed"}
        assert "ratios were not judged again" in notes(made)[0]


# Files ------------------------------------------------------------------------------------

NAMED = (
    "logs/accuracy-squeezenet1_1-bs4-cpu-session.log",
    "logs/squeezenet1_1-compile.log",
    "predictions/squeezenet1_1-bs4-cpu.csv",
    "samples/squeezenet1_1-bs4-cpu.json",
)


def with_files(tmp_path: Path, run: str = "a") -> Path:
    speed = samples.case("squeezenet1_1", 4, "throughput", run=run, artifacts=())
    part = one_run(tmp_path, [samples.case("squeezenet1_1", 4, run=run), speed])
    for name in (*NAMED, "logs/unrelated.log", "report.html", "predictions/unnamed.csv"):
        (part / name).parent.mkdir(exist_ok=True)
        (part / name).write_text(f"{name} of {run}")
    return part


def files_of(directory: Path) -> list[str]:
    return sorted(
        str(path.relative_to(directory))
        for path in directory.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    )


def test_the_files_that_records_name_come_along(tmp_path):
    made = merge([with_files(tmp_path)], tmp_path / "one")
    assert files_of(made.directory) == sorted([*NAMED, RESULTS])
    # The records also name a log that is not there.
    missing = "'logs/squeezenet1_1-simplify.log' of a: No such file or directory"
    assert notes(made) == (f"left out: {missing}",)


def test_links_are_not_followed(tmp_path):
    secret = tmp_path / "secret"
    secret.mkdir()
    for name in ("x.log", Path(NAMED[2]).name):
        (secret / name).write_text("secret")
    part = with_files(tmp_path)
    for name in NAMED[:2]:
        (part / name).unlink()
    os.mkfifo(part / NAMED[0])
    (part / NAMED[1]).symlink_to(secret / "x.log")
    shutil.rmtree(part / "predictions")
    (part / "predictions").symlink_to(secret)
    made = merge([part], tmp_path / "one")
    assert files_of(made.directory) == [RESULTS, NAMED[3]]
    whys = ("no regular file", "it leads elsewhere", "it leads elsewhere")
    for name, why in zip(NAMED[:3], whys, strict=True):
        assert f"left out: {name!r} of a: {why}" in notes(made)


@pytest.mark.parametrize(
    "name",
    [
        *("/etc/passwd", "../secret/x.log", "logs/../../secret/x.log", "logs//x.log", "logs/."),
        *("report.html", "results.jsonl", "logs/x\x00.log", "logs", "logs/" + "x" * 300),
    ],
)
def test_a_name_that_leads_elsewhere_is_left_out(tmp_path, name):
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "x.log").write_text("secret")
    part = one_run(tmp_path, [accuracy("a", 1, name)])
    (part / "logs").mkdir()
    (part / "report.html").write_text("report")
    made = merge([part], tmp_path / "one")
    assert files_of(made.directory) == [RESULTS]
    assert len(notes(made)) == 1


def test_the_command(tmp_path):
    parts = [str(path) for path in shards(tmp_path)]
    done = CliRunner().invoke(app, ["merge", *parts, "--output", str(tmp_path / "both")])
    assert done.exit_code == 0, done.output
    assert "2 passed, 1 failed; exit code 1" in done.output
    made = set(files_of(tmp_path / "both"))
    assert {RESULTS, "report.html", "summary.json", "junit.xml"} <= made and len(made) == 7
    done = CliRunner().invoke(app, ["merge", *parts, "--output", str(tmp_path / "both")])
    assert done.exit_code == 4
    assert "exists already" in done.output
