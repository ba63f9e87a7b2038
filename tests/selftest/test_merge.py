"""Joining runs: nothing is lost, nothing that disagrees is joined, no name leads elsewhere."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from harness.base.errors import RecordError
from harness.base.stages import Stage
from harness.base.terms import OUTCOMES, Check
from harness.catalog.load import load_catalog
from harness.cli import history as history_commands
from harness.records import reader, writer
from harness.records.lines import CaseLine, CheckName, RunCheckLine
from harness.records.observed import ArtifactRef
from harness.records.writer import RESULTS
from harness.report import render_html, write_report
from harness.run.merge import merge
from tests.selftest import history_samples as nights
from tests.selftest import report_samples as samples
from tests.selftest.running import ROOT


def speed(batch: int, run: str, **changes: Any) -> CaseLine:
    return nights.speed(500 + batch, batch=batch, run=run, **changes)


def one_run(tmp_path: Path, cases: list[CaseLine], **changes: Any) -> Path:
    return nights.write_run(tmp_path, cases, name=cases[0].run, **changes)


def shards(tmp_path: Path, **changes: Any) -> list[Path]:
    """Two shards of one acceptance, three cases."""
    failed = speed(8, "b", outcome="failed")
    return [
        one_run(tmp_path, [speed(1, "a"), speed(4, "a")], **changes),
        one_run(tmp_path, [failed], exit_status=1, **changes),
    ]


def exit_status(directory: Path) -> int:
    return reader.read(directory).exit_status


def outcomes(directory: Path) -> dict[tuple[str, str], str]:
    return {(str(check.name), check.subject): check.outcome for check in checks(directory)}


def checks(directory: Path) -> tuple[RunCheckLine, ...]:
    return reader.read(directory).checks


# Cases ------------------------------------------------------------------------------------


def test_shards_become_one_run_whose_counts_add_up(tmp_path):
    parts = shards(tmp_path)
    made = merge(parts, tmp_path / "both")
    found = reader.read(made.directory)
    assert [case.batch_size for case in found.cases] == [1, 4, 8]
    assert sum(found.counts().values()) == len(found.plan) == 3
    assert (found.counts()["passed"], found.counts()["failed"]) == (2, 1)
    assert found.end is not None
    assert found.end.counts == found.counts() == made.counts
    assert found.end.complete
    assert found.exit_status == made.exit_status == 1
    assert found.run is not None
    assert found.run.provenance == "real"
    assert [text.partition(",")[0] for text in found.run.merged] == [
        "a: 2 of 2 cases",
        "b: 1 of 1 cases",
    ]
    assert found.cases == tuple(case for part in parts for case in reader.read(part).cases)
    write_report(made.directory)
    assert "3 planned = 2 passed + 1 failed" in render_html(found)


def test_the_same_run_twice_is_one_run(tmp_path):
    parts = shards(tmp_path)
    shutil.copytree(parts[0], tmp_path / "copy of a")
    made = merge([*parts, tmp_path / "copy of a", parts[0]], tmp_path / "both")
    assert made.duplicates == 2
    (note,) = (note for note in made.notes if "named before" in note)
    assert str(parts[0]) in note
    # And once more with what was merged.
    again = merge([made.directory, *parts], tmp_path / "again")
    assert len(reader.read(again.directory).cases) == 3
    assert again.duplicates == 3


def test_every_outcome_survives(tmp_path):
    whole = [samples.case("m", n, outcome=outcome, run="a") for n, outcome in enumerate(OUTCOMES)]
    made = merge([one_run(tmp_path, whole)], tmp_path / "one")
    assert set(made.counts.values()) == {1}
    assert reader.read(made.directory).cases == tuple(whole)


def test_a_case_that_no_part_ran_stays_not_run(tmp_path):
    parts = [
        one_run(tmp_path, [speed(1, "a")], lost=[speed(4, "a")]),
        one_run(tmp_path, [speed(8, "b")], end=False),
    ]
    made = merge(parts, tmp_path / "both")
    assert made.counts["not_run"] == 1
    assert made.exit_status == 7  # one of them was killed: the machine, no model
    parts.append(one_run(tmp_path, [speed(4, "c")]))
    assert merge(parts, tmp_path / "three").counts["not_run"] == 0


@pytest.mark.parametrize(
    "change", [{"outcome": "failed"}, {"sentence": "Another."}, {"run": "x"}, {"seconds": 1.0}]
)
def test_an_overlap_that_disagrees_is_refused(tmp_path, change):
    parts = shards(tmp_path)
    shutil.copytree(parts[0], tmp_path / "other")
    nights.rewrite(tmp_path / "other", change)
    with pytest.raises(RecordError, match=r"disagree about 2 cases: .*bs1.*bs4"):
        merge([*parts, tmp_path / "other"], tmp_path / "both")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "other"]


MEASURED = "a and b both measured throughput of resnest50-bs4-ascend310p3"


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        ({}, {"measured": 388.1}, f"{MEASURED}: 410.2 fps and 388.1 fps"),
        (
            {},
            {"outcome": "failed", "measured": 388.1},
            "resnest50-bs4-ascend310p3 (throughput): a says passed, b says failed",
        ),
        (
            {},
            {"started": "later", "measured": 410.2000001},
            f"{MEASURED}: 410.2 fps each, but their lines differ in ",
        ),
        (
            {"outcome": "error", "sentence": "a says so"},
            {"outcome": "error", "sentence": "b says so"},
            "resnest50-bs4-ascend310p3 (throughput): both say error (a, b), but their lines "
            "differ in run, sentence",
        ),
    ],
)
def test_a_disagreement_says_in_what(tmp_path, first, second, said):
    for name, changes in (("a", first), ("b", second)):
        measured = changes.get("measured", 410.2)
        others = {key: value for key, value in changes.items() if key != "measured"}
        one_run(tmp_path, [nights.speed(measured, batch=4, run=name, **others)])
    with pytest.raises(RecordError, match="disagree about 1 case: ") as caught:
        merge([tmp_path / "a", tmp_path / "b"], tmp_path / "both")
    assert caught.value.message.partition(": ")[2].startswith(said)


def test_a_changed_copy_is_named_by_its_place(tmp_path):
    part = one_run(tmp_path, [speed(1, "a")])
    shutil.copytree(part, tmp_path / "copy")
    nights.rewrite(tmp_path / "copy", {"outcome": "failed"})
    with pytest.raises(RecordError) as caught:
        merge([part, tmp_path / "copy"], tmp_path / "both")
    said = f"a in {part} says passed, a in {tmp_path / 'copy'} says failed"
    assert said in caught.value.message


# What is refused --------------------------------------------------------------------------


def test_a_plan_that_disagrees_is_refused(tmp_path):
    parts = shards(tmp_path)
    shutil.copytree(parts[0], tmp_path / "other")
    plan = [samples.planned(speed(1, "a")).model_dump() | {"batch_size": 7}]
    nights.rewrite(tmp_path / "other", {"cases": plan}, "plan")
    with pytest.raises(RecordError, match="disagree about what"):
        merge([*parts, tmp_path / "other"], tmp_path / "both")


def test_provenances_are_not_mixed(tmp_path):
    real = one_run(tmp_path, [speed(1, "a")])
    simulated = one_run(tmp_path, [speed(4, "b", provenance="simulated")])
    # Also where only a line of a run says otherwise.
    mixed = one_run(tmp_path, [speed(8, "c"), speed(16, "c", provenance="rehearsal")])
    judged = one_run(tmp_path, [speed(2, "d")], raw=[checked("passed", provenance="simulated")])
    for parts in ([real, simulated], [mixed], [judged]):
        with pytest.raises(RecordError, match="mix provenances"):
            merge(parts, tmp_path / "both")


def test_other_catalogs_need_a_word(tmp_path):
    parts = [
        one_run(tmp_path, [speed(1, "a")]),
        one_run(tmp_path, [speed(4, "b")], catalog_digest="d5" * 32),
    ]
    with pytest.raises(RecordError, match="different catalogs") as caught:
        merge(parts, tmp_path / "both")
    assert "--allow-other-catalog" in caught.value.remedy
    run = reader.read(merge(parts, tmp_path / "both", allow_other_catalog=True).directory).run
    assert run is not None
    assert run.catalog_digest == f"{'c4' * 32}, {'d5' * 32}"


def test_places_that_cannot_be_are_refused(tmp_path):
    parts = shards(tmp_path)
    (tmp_path / "x").symlink_to("y")
    (tmp_path / "y").symlink_to("x")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for runs, output, said in (
        ([*parts, tmp_path / "x"], "both", "cannot be followed"),
        (parts, "x/both", "cannot be followed"),
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
    said = "lost 1 case" if kind == "case" else "do not add up"
    with pytest.raises(RecordError, match=said):
        merge([part], tmp_path / "one")
    assert not (tmp_path / "one").exists()


@pytest.mark.parametrize(("outcome", "status"), [("passed", 7), ("inconclusive", 7), ("failed", 1)])
def test_a_killed_run_counts_as_the_machine(tmp_path, outcome, status):
    """Every case has its line, but the run has no end: what the part lost is not known."""
    parts = [
        one_run(tmp_path, [speed(1, "a")]),
        one_run(tmp_path, [speed(4, "b", outcome=outcome)], end=False),
    ]
    for number, order in enumerate((parts, parts[::-1])):
        made = merge(order, tmp_path / f"both {number}")
        assert made.exit_status == exit_status(made.directory) == status
        (note,) = (note for note in made.notes if "killed" in note)
        assert note.startswith("b was killed or still goes on")


def test_damaged_lines_are_told_and_not_green(tmp_path):
    half = speed(4, "a").model_dump_json()[:500]
    part = one_run(tmp_path, [speed(1, "a")], raw=[half, '{"kind":"plan","cases":7}'])
    made = merge([part], tmp_path / "one")
    assert made.exit_status == 7
    run = reader.read(made.directory).run
    assert run is not None
    assert any("damaged lines in its records (2), so" in note for note in run.notes)


def test_a_line_that_is_gone_is_not_green(tmp_path):
    part = one_run(tmp_path, [speed(1, "a"), speed(4, "a")])
    other = one_run(tmp_path, [speed(4, "b")])  # the joined plan is complete
    kept = [
        line
        for line in (part / RESULTS).read_text().splitlines(keepends=True)
        if json.loads(line).get("batch_size") != 4
    ]
    (part / RESULTS).write_text("".join(kept))
    made = merge([part, other], tmp_path / "both")
    assert (made.counts["not_run"], made.exit_status) == (0, 7)
    assert any("counts what its records lack" in note for note in made.notes)


# The exit code ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statuses", "joined"),
    [
        ((1, 7), 1),
        ((7, 4), 7),
        ((6, 4), 4),
        ((0, 6), 6),
        ((0, 0), 0),
        ((2, 7), 2),
        ((3, 1), 1),
        ((7, 137), 7),
        ((-9, 1), 1),
        ((-9, 6), 7),
    ],
)
def test_the_exit_code_follows_the_order_of_the_readme(tmp_path, statuses, joined):
    parts = [
        one_run(tmp_path, [speed(batch, run)], exit_status=status)
        for batch, run, status in zip((1, 4), "ab", statuses, strict=True)
    ]
    for number, order in enumerate((parts, parts[::-1])):
        assert merge(order, tmp_path / f"both {number}").exit_status == joined


def test_a_red_case_or_check_counts_whatever_its_run_ended_with(tmp_path):
    for number, (outcome, raw, status) in enumerate(
        (
            ("failed", [], 1),
            ("passed", ["failed"], 1),
            ("passed", ["inconclusive"], 6),
        )
    ):
        case = speed(1, f"r{number}", outcome=outcome)
        part = one_run(tmp_path, [case], exit_status=0, raw=[checked(text) for text in raw])
        assert merge([part], tmp_path / f"merged {number}").exit_status == status


def test_what_a_part_was_told_to_leave_out_is_not_lost(tmp_path):
    wrong = speed(1, "a", outcome="inconclusive")
    left = one_run(tmp_path, [wrong], lost=[speed(4, "a")], exit_status=6, stopped="early")
    # Another part lost a case of its own: that one is the machine's.
    lost = one_run(tmp_path, [speed(8, "b")], lost=[speed(16, "b")])
    rest = one_run(tmp_path, [speed(4, "c")])
    for parts, ended in (
        ([left], (6, "early", False)),
        ([left, lost], (7, "", False)),
        ([left, rest], (6, "", True)),  # it ran elsewhere
    ):
        output = tmp_path / f"{len(list(tmp_path.iterdir()))} merged"
        end = reader.read(merge(parts, output).directory).end
        assert end is not None
        assert (end.exit_status, end.stopped, end.complete) == ended


def test_inconclusive_is_allowed_where_every_run_allowed_it(tmp_path):
    undecided = checked("inconclusive")
    one = one_run(tmp_path, [speed(1, "a")], raw=[undecided], allow_inconclusive=True)
    other = one_run(tmp_path, [speed(4, "b")])
    assert merge([one], tmp_path / "one").exit_status == 0
    assert merge([one, other], tmp_path / "both").exit_status == 6


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
    (directory / "predictions").mkdir()
    for batch, best in predicted.items():
        rows = [f"i{n},{n % 3},,{b},1.0" for n, b in enumerate(best)]
        text = "\n".join(["image,label,eager,top1,logit1", *rows]) + "\n"
        (directory / "predictions" / f"bs{batch}.csv").write_text(text)
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
    made = merge([parts[i] for i in order], tmp_path / "both").directory
    assert outcomes(made) == {OTHER: "failed"}
    assert exit_status(made) == 1
    assert "a says so" in render_html(reader.read(made))


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
    assert outcomes(made.directory) == {BATCHES: outcome}
    assert made.exit_status == status
    assert "says so" not in checks(made.directory)[0].sentence


def test_missing_predictions_do_not_turn_a_comparison_green(tmp_path):
    parts = [
        shard(tmp_path, "a", {1: RIGHT, 4: RIGHT}, raw=[batches("passed")]),
        shard(tmp_path, "b", {8: RIGHT}),
    ]
    (parts[1] / "predictions" / "bs8.csv").unlink()
    made = merge(parts, tmp_path / "both").directory
    (check,) = checks(made)
    assert check.outcome == "failed"
    assert "predictions/bs8.csv" in check.sentence
    assert exit_status(made) == 1


@pytest.mark.parametrize("outcome", ["passed", "failed"])
def test_a_run_that_compared_all_itself_keeps_its_word(tmp_path, outcome):
    part = shard(tmp_path, "a", {1: RIGHT, 4: RIGHT}, raw=[batches(outcome)])
    shutil.rmtree(part / "predictions")
    assert outcomes(merge([part], tmp_path / "one").directory) == {BATCHES: outcome}


def test_nothing_to_compare_clears_nobody(tmp_path):
    """The failed run's case left no predictions behind; what it said stays."""
    part = shard(tmp_path, "a", {1: RIGHT, 4: RIGHT}, raw=[batches("failed")])
    text = (part / RESULTS).read_text()
    (part / RESULTS).write_text(text.replace("predictions/bs4.csv", ""))
    assert outcomes(merge([part], tmp_path / "one").directory) == {BATCHES: "failed"}


def test_the_same_case_on_two_hosts_must_have_run_one_file(tmp_path):
    kinds: tuple[tuple[str, Check], ...] = (("a", "accuracy"), ("b", "throughput"))
    for run, check in kinds:
        ran = ArtifactRef(Stage.COMPILE, "k", digest=run)
        one_run(tmp_path, [samples.case("resnest50", 1, check, run=run, artifacts=(ran,))])
    made = merge([tmp_path / "a", tmp_path / "b"], tmp_path / "both").directory
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

    made = merge(parts("s", load_catalog(path).digest), tmp_path / "same", catalog=path)
    assert outcomes(made.directory)[key] == "passed"
    assert not any("ratios" in note for note in made.notes)
    older = parts("o", nights.CATALOG_DIGEST)
    for number, present in enumerate((path, tmp_path / "no such file")):
        made = merge(older, tmp_path / f"other {number}", catalog=present)
        assert outcomes(made.directory) == {key: "failed"}
        assert "ratios were not judged again" in made.notes[0]


# Files ------------------------------------------------------------------------------------

NAMED = (
    "logs/accuracy-squeezenet1_1-bs4-cpu-session.log",
    "logs/squeezenet1_1-compile.log",
    "predictions/squeezenet1_1-bs4-cpu.csv",
)


def with_files(tmp_path: Path, run: str = "a") -> Path:
    part = one_run(tmp_path, [samples.case("squeezenet1_1", 4, run=run)])
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
    assert files_of(made.directory) == [*NAMED, RESULTS]
    assert made.files == 3
    # The records also name a log that is not there.
    assert made.notes == ("left out: logs/squeezenet1_1-simplify.log of a is missing",)


def test_samples_come_along(tmp_path):
    case = samples.case("squeezenet1_1", 4, "throughput", run="a", artifacts=())
    part = one_run(tmp_path, [case])
    assert case.throughput is not None
    (part / case.throughput.samples_file).parent.mkdir()
    (part / case.throughput.samples_file).write_text("{}")
    made = merge([part], tmp_path / "one").directory
    assert files_of(made) == [RESULTS, case.throughput.samples_file]


def test_equal_names_of_different_files_are_kept_apart(tmp_path):
    one = with_files(tmp_path, "a")
    case = samples.case("squeezenet1_1", 8, run="b", artifacts=())
    assert case.accuracy is not None
    measured = replace(case.accuracy, predictions_file=NAMED[2])
    other = one_run(tmp_path, [case.model_copy(update={"measurement": measured})])
    (other / "predictions").mkdir()
    (other / NAMED[2]).write_text("of b")
    made = merge([one, other], tmp_path / "both").directory
    texts = {
        case.batch_size: (made / case.accuracy.predictions_file).read_text()
        for case in reader.read(made).cases
        if case.accuracy is not None
    }
    assert texts == {4: f"{NAMED[2]} of a", 8: "of b"}


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
    assert files_of(made.directory) == [RESULTS]
    for name, why in (
        (NAMED[0], "is no regular file"),
        (NAMED[1], "is or lies behind a symbolic link"),
        (NAMED[2], "is or lies behind a symbolic link"),
    ):
        assert f"left out: {name} of a {why}" in made.notes


@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd",
        "../secret/x.log",
        "logs/../../secret/x.log",
        "logs//x.log",
        "logs/.",
        "report.html",
        "results.jsonl",
        "logs/a/b/c/d.log",
        "logs\\x.log",
        "logs/x\x00.log",
        "logs",
        "C:/logs/x",
        "logs/" + "x" * 300,
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
    assert len(made.notes) == 1


def test_the_command(tmp_path):
    app = typer.Typer()
    history_commands.register(app)
    parts = [str(path) for path in shards(tmp_path)]
    done = CliRunner().invoke(app, ["merge", *parts, "--output", str(tmp_path / "both")])
    assert done.exit_code == 0, done.output
    assert "2 passed, 1 failed; exit code 1; 0 files copied" in done.output
    assert set(files_of(tmp_path / "both")) == {
        *("report.html", RESULTS, "results.csv", "summary.json", "summary.md", "junit.xml")
    }
    done = CliRunner().invoke(app, ["merge", *parts, "--output", str(tmp_path / "both")])
    assert done.exit_code == 4
    assert "exists already" in done.output
