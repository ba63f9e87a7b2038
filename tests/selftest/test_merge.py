"""Joining runs: nothing is lost, nothing that disagrees is joined, no name leads elsewhere."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from harness import merge as merging
from harness.base.errors import RecordError
from harness.base.terms import OUTCOMES, Check
from harness.catalog.load import load_catalog
from harness.cli import history as history_commands
from harness.merge import merge
from harness.records import reader
from harness.records.lines import RunCheckLine
from harness.records.values import ArtifactRef
from harness.records.writer import RESULTS
from harness.report import render_html, write_report
from tests.selftest import history_samples as nights
from tests.selftest import report_samples as samples
from tests.selftest.running import ROOT


def speed(batch: int, run: str, **changes):
    return nights.speed(500 + batch, batch=batch, run=run, **changes)


def shards(tmp_path: Path, **changes) -> list[Path]:
    """Two shards of one acceptance, three cases."""
    return [
        nights.write_run(tmp_path, [speed(1, "a"), speed(4, "a")], name="a", **changes),
        nights.write_run(
            tmp_path, [speed(8, "b", outcome="failed")], name="b", exit_status=1, **changes
        ),
    ]


def names(directory: Path) -> list[str]:
    return [case.case for case in reader.read(directory).cases]


def test_shards_become_one_run_whose_counts_add_up(tmp_path):
    parts = shards(tmp_path)
    made = merge(parts, tmp_path / "both")
    found = reader.read(made.directory)
    assert [case.batch_size for case in found.cases] == [1, 4, 8]
    assert found.counts()["passed"] == 2
    assert found.counts()["failed"] == 1
    assert sum(found.counts().values()) == len(found.plan) == 3
    assert found.end is not None
    assert found.end.counts == found.counts() == made.counts
    assert found.end.complete
    assert found.end.exit_status == 1
    assert found.run is not None
    assert found.run.provenance == "real"
    assert "a" in str(found.run.settings["merged"])
    assert found.damaged == ()
    write_report(made.directory)
    assert "3 planned = 2 passed + 1 failed" in render_html(found)


def test_a_line_is_taken_over_as_it_was_written(tmp_path):
    part = nights.write_run(tmp_path, [speed(1, "a")], name="a")
    text = (part / RESULTS).read_text()
    (part / RESULTS).write_text(
        text.replace('"kind":"case"', '"of_a_later_harness":[1],"kind":"case"')
    )
    merge([part], tmp_path / "one")
    assert '"of_a_later_harness":[1]' in (tmp_path / "one" / RESULTS).read_text()


def test_the_same_run_twice_is_one_run(tmp_path):
    parts = shards(tmp_path)
    shutil.copytree(parts[0], tmp_path / "copy of a")
    made = merge([*parts, tmp_path / "copy of a", parts[0]], tmp_path / "both")
    assert made.duplicates == 2
    (note,) = (note for note in made.notes if "named before" in note)
    assert str(parts[0]) in note
    assert len(names(made.directory)) == 3
    # And once more with what was merged.
    again = merge([made.directory, *parts], tmp_path / "again")
    assert len(names(again.directory)) == 3
    assert again.duplicates == 3


def test_a_link_that_leads_round_is_an_error_of_input(tmp_path):
    parts = shards(tmp_path)
    (tmp_path / "x").symlink_to("y")
    (tmp_path / "y").symlink_to("x")
    with pytest.raises(RecordError, match="cannot be followed"):
        merge([*parts, tmp_path / "x"], tmp_path / "both")
    with pytest.raises(RecordError, match="cannot be followed"):
        merge(parts, tmp_path / "x" / "both")


@pytest.mark.parametrize("inside", ["both", "deep/er/both", "../a/both"])
def test_a_merge_is_not_written_into_a_run_that_it_joins(tmp_path, inside):
    parts = shards(tmp_path)
    before = sorted(parts[0].rglob("*"))
    with pytest.raises(RecordError, match="lies inside"):
        merge(parts, parts[0] / inside)
    assert sorted(parts[0].rglob("*")) == before


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_records_that_never_end_are_not_waited_for(tmp_path, make):
    parts = shards(tmp_path)
    (parts[1] / RESULTS).unlink()
    make(parts[1] / RESULTS)
    with pytest.raises(RecordError, match="not a regular file"):
        merge(parts, tmp_path / "both")


@pytest.mark.parametrize(
    "change", [{"measured": 1.0}, {"outcome": "failed"}, {"sentence": "Another."}, {"run": "x"}]
)
def test_an_overlap_that_disagrees_is_refused(tmp_path, change):
    parts = shards(tmp_path)
    shutil.copytree(parts[0], tmp_path / "other")
    nights.rewrite(tmp_path / "other", change)
    with pytest.raises(RecordError, match=r"disagree about 2 cases: .*bs1.*bs4"):
        merge([*parts, tmp_path / "other"], tmp_path / "both")
    assert not (tmp_path / "both").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "other"]


def disagreement(tmp_path: Path, **change: Any) -> str:
    """What is said of one case that two runs have, when the second one's line is changed."""
    one = nights.write_run(tmp_path, [speed(4, "a", measured=410.2)], name="a")
    other = nights.write_run(tmp_path, [speed(4, "b", measured=410.2)], name="b")
    nights.rewrite(one, {"run": "a"})
    nights.rewrite(other, {"run": "a", **change})
    with pytest.raises(RecordError, match="disagree about 1 case: ") as caught:
        merge([one, other], tmp_path / "both")
    return caught.value.message.partition(": ")[2]


def test_runs_that_differ_in_the_figure_are_told_by_their_figures(tmp_path):
    said = disagreement(tmp_path, measured=388.1)
    assert said == (
        "a and b both measured throughput of resnest50-bs4-ascend310p3: "
        "410.2\N{NO-BREAK SPACE}fps and 388.1\N{NO-BREAK SPACE}fps"
    )


def test_runs_that_differ_in_the_outcome_are_told_by_their_outcomes(tmp_path):
    said = disagreement(tmp_path, outcome="failed", measured=388.1)
    assert said == "resnest50-bs4-ascend310p3 (throughput): a says passed, b says failed"


def test_runs_that_differ_elsewhere_say_where(tmp_path):
    said = disagreement(tmp_path, started="2027-01-01T00:00:00+00:00", measured=410.2000001)
    assert "410.2\N{NO-BREAK SPACE}fps each, but their lines differ in measured, started" in said


def test_runs_without_a_figure_that_differ_say_where(tmp_path):
    for name in "ab":
        line = speed(4, "a", outcome="error", measured=None, sentence=f"{name} says so")
        nights.write_run(tmp_path, [line], name=name)
    with pytest.raises(RecordError) as caught:
        merge([tmp_path / "a", tmp_path / "b"], tmp_path / "both")
    assert "both say error (a, b), but their lines differ in sentence" in caught.value.message


def test_a_changed_copy_is_named_by_its_place(tmp_path):
    part = nights.write_run(tmp_path, [speed(1, "a")], name="a")
    shutil.copytree(part, tmp_path / "copy")
    nights.rewrite(tmp_path / "copy", {"measured": 1.5})
    with pytest.raises(RecordError) as caught:
        merge([part, tmp_path / "copy"], tmp_path / "both")
    assert f"a in {part} and a in {tmp_path / 'copy'} both measured" in caught.value.message


@pytest.mark.parametrize(("outcome", "status"), [("passed", 7), ("inconclusive", 7), ("failed", 1)])
def test_a_killed_run_counts_as_the_machine(tmp_path, outcome, status):
    """Every case has its line, but the run has no end: what the part lost is not known."""
    parts = [
        nights.write_run(tmp_path, [speed(1, "a")], name="a"),
        nights.write_run(tmp_path, [speed(4, "b", outcome=outcome)], name="b", end=False),
    ]
    for number, order in enumerate((parts, parts[::-1])):
        made = merge(order, tmp_path / f"both {number}")
        assert made.exit_status == exit_status(made.directory) == status
        said = [note for note in made.notes if "killed" in note]
        assert len(said) == 1
        assert said[0].startswith("b was killed or still goes on")


def test_a_plan_that_disagrees_is_refused(tmp_path):
    parts = shards(tmp_path)
    shutil.copytree(parts[0], tmp_path / "other")
    plan = [samples.planned(speed(1, "a")).model_dump() | {"batch_size": 7}]
    nights.rewrite(tmp_path / "other", {"cases": plan}, "plan")
    with pytest.raises(RecordError, match="disagree about what"):
        merge([*parts, tmp_path / "other"], tmp_path / "both")


def test_provenances_are_not_mixed(tmp_path):
    parts = [
        nights.write_run(tmp_path, [speed(1, "a")], name="a"),
        nights.write_run(tmp_path, [speed(4, "b", provenance="simulated")], name="b"),
    ]
    with pytest.raises(RecordError, match="mix provenances"):
        merge(parts, tmp_path / "both")
    # Also where only a line of a run says otherwise.
    mixed = nights.write_run(
        tmp_path, [speed(8, "c"), speed(16, "c", provenance="rehearsal")], name="c"
    )
    with pytest.raises(RecordError, match="mix provenances"):
        merge([mixed], tmp_path / "both")


def test_other_catalogs_need_a_word(tmp_path):
    parts = [
        nights.write_run(tmp_path, [speed(1, "a")], name="a"),
        nights.write_run(tmp_path, [speed(4, "b")], name="b", catalog_digest="d5" * 32),
    ]
    with pytest.raises(RecordError, match="different catalogs") as caught:
        merge(parts, tmp_path / "both")
    assert "--allow-other-catalog" in caught.value.remedy
    made = merge(parts, tmp_path / "both", allow_other_catalog=True)
    found = reader.read(made.directory)
    assert found.run is not None
    assert "c4c4" in found.run.catalog_digest
    assert "d5d5" in found.run.catalog_digest


def test_a_case_that_no_part_ran_stays_not_run(tmp_path):
    parts = [
        nights.write_run(tmp_path, [speed(1, "a")], lost=[speed(4, "a")], name="a"),
        nights.write_run(tmp_path, [speed(8, "b")], name="b", end=False),
    ]
    found = reader.read(merge(parts, tmp_path / "both").directory)
    assert found.counts()["not_run"] == 1
    assert found.end is not None
    assert not found.end.complete
    assert found.end.exit_status == 7  # one of them was killed: the machine, no model
    # A part that ran it completes the plan.
    parts.append(nights.write_run(tmp_path, [speed(4, "c")], name="c"))
    found = reader.read(merge(parts, tmp_path / "three").directory)
    assert found.counts()["not_run"] == 0
    assert found.end is not None
    assert found.end.complete


def test_a_lost_case_is_found(tmp_path, monkeypatch):
    """The fault that the check after writing exists to catch."""
    real = merging._write

    def losing(path, lines):
        real(path, (line for line in lines if not ('"kind":"case"' in line and "-bs4-" in line)))

    parts = shards(tmp_path)
    monkeypatch.setattr(merging, "_write", losing)
    with pytest.raises(RecordError, match="lost 1 case"):
        merge(parts, tmp_path / "both")
    assert not (tmp_path / "both").exists()


def test_damaged_lines_stay_counted(tmp_path):
    half = speed(4, "a").model_dump_json()[:500]
    part = nights.write_run(tmp_path, [speed(1, "a")], raw=[half, '{"kind":"plan","cases":7}'])
    assert len(reader.read(part).damaged) == 2
    made = merge([part], tmp_path / "one")
    assert len(reader.read(made.directory).damaged) == 2
    assert (made.exit_status, exit_status(made.directory)) == (7, 7)
    assert any("damaged lines in its records (2), so" in note for note in made.notes)


def test_a_line_that_is_gone_is_not_green(tmp_path):
    part = nights.write_run(tmp_path, [speed(1, "a"), speed(4, "a")], name="a")
    other = nights.write_run(tmp_path, [speed(4, "b")], name="b")  # the joined plan is complete
    lines = (part / RESULTS).read_text().splitlines(keepends=True)
    (part / RESULTS).write_text(
        "".join(
            line
            for line in lines
            if '"nodeid"' not in line or '"kind":"plan"' in line or "-bs1-" in line
        )
    )
    made = merge([part, other], tmp_path / "both")
    assert reader.read(made.directory).counts()["not_run"] == 0
    assert made.exit_status == 7
    assert any("counts what its records lack" in note for note in made.notes)


# --- What is judged over all cases ----------------------------------------------------------

BATCHES = ("batch sizes", "resnest50 on cpu")


def checked(outcome: str, run: str = "a", *, name: str = BATCHES[0], **changes) -> str:
    values: dict[str, Any] = {"subject": BATCHES[1], "model": "resnest50", "target": "cpu"}
    values |= {"provenance": "real", "sentence": f"{run} says so", **changes}
    values |= {"run": run, "name": name, "outcome": outcome}
    return RunCheckLine(**values).model_dump_json()


def shard(tmp_path: Path, run: str, predicted: dict[int, list[int]], **changes) -> Path:
    """A run whose accuracy cases left these best classes by batch size."""
    cases = [
        samples.case("resnest50", batch, run=run, provenance="real", artifacts=[],
                     measurement={"predictions_file": f"predictions/bs{batch}.csv"})
        for batch in predicted
    ]  # fmt: skip
    directory = nights.write_run(tmp_path, cases, name=run, **changes)
    (directory / "predictions").mkdir()
    for batch, best in predicted.items():
        rows = [f"i{n},{n % 3},,{b},1.0" for n, b in enumerate(best)]
        text = "\n".join(["image,label,eager,top1,logit1", *rows]) + "\n"
        (directory / "predictions" / f"bs{batch}.csv").write_text(text)
    return directory


RIGHT = [n % 3 for n in range(300)]
WRONG = [7] * 30 + RIGHT[30:]


def outcomes(directory: Path) -> dict[tuple[str, str], str]:
    found = reader.read(directory)
    assert found.damaged == ()
    return {(check.name, check.subject): check.outcome for check in found.checks}


def exit_status(directory: Path) -> int:
    end = reader.read(directory).end
    assert end is not None
    return end.exit_status


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_failed_check_of_one_run_outlives_the_passed_one_of_another(tmp_path, order):
    """Nothing to judge again: the cases are of throughput, and the check is an unknown one."""
    parts = [
        nights.write_run(tmp_path, [speed(1, "a")], name="a", exit_status=1,
                         raw=[checked("failed", name="of a later harness")]),
        nights.write_run(tmp_path, [speed(4, "b")], name="b",
                         raw=[checked("passed", "b", name="of a later harness")]),
    ]  # fmt: skip
    made = merge([parts[i] for i in order], tmp_path / "both").directory
    assert outcomes(made) == {("of a later harness", BATCHES[1]): "failed"}
    assert exit_status(made) == 1
    assert "a says so" in render_html(reader.read(made))


def test_a_failed_check_alone_makes_the_exit_status(tmp_path):
    part = nights.write_run(tmp_path, [speed(1, "a")], raw=[checked("failed")])
    assert exit_status(merge([part], tmp_path / "one").directory) == 1
    other = nights.write_run(tmp_path, [speed(1, "a")], name="b", raw=[checked("inconclusive")])
    assert exit_status(merge([other], tmp_path / "two").directory) == 6


def test_allow_inconclusive_holds_where_every_run_allowed_it(tmp_path):
    allowed: dict[str, Any] = {"settings": {"allow_inconclusive": True}}
    one = nights.write_run(
        tmp_path, [speed(1, "a")], name="a", raw=[checked("inconclusive")], **allowed
    )
    other = nights.write_run(tmp_path, [speed(4, "b")], name="b")
    assert exit_status(merge([one], tmp_path / "one").directory) == 0
    assert exit_status(merge([one, other], tmp_path / "both").directory) == 6


@pytest.mark.parametrize(("other", "outcome", "status"), [(RIGHT, "recorded", 0),
                                                          (WRONG, "failed", 1)])  # fmt: skip
def test_batch_sizes_of_different_hosts_are_compared(tmp_path, other, outcome, status):
    parts = [shard(tmp_path, "a", {1: RIGHT}), shard(tmp_path, "b", {4: other})]
    made = merge(parts, tmp_path / "both").directory
    assert outcomes(made) == {BATCHES: outcome}
    assert exit_status(made) == status


def test_shards_that_each_passed_fail_together(tmp_path):
    parts = [
        shard(tmp_path, "a", {1: RIGHT, 4: RIGHT}, raw=[checked("passed")]),
        shard(tmp_path, "b", {8: WRONG, 16: WRONG}, raw=[checked("passed", "b")]),
    ]
    made = merge(parts, tmp_path / "both").directory
    assert outcomes(made) == {BATCHES: "failed"}
    assert exit_status(made) == 1
    (found,) = reader.read(made).checks
    assert "i0" in found.sentence + str(found.verdict)


def test_what_the_joined_sizes_do_not_decide_is_said_in_place_of_a_shards_word(tmp_path):
    parts = [
        shard(tmp_path, "a", {1: RIGHT, 4: RIGHT}, raw=[checked("passed")]),
        shard(tmp_path, "b", {8: [7, *RIGHT[1:]]}),
    ]
    made = merge(parts, tmp_path / "both").directory
    (found,) = reader.read(made).checks
    assert found.outcome == "recorded"
    assert "batch sizes 1, 4, 8 are not decided on 300 images" in found.sentence


def test_missing_predictions_do_not_turn_a_comparison_green(tmp_path):
    parts = [
        shard(tmp_path, "a", {1: RIGHT, 4: RIGHT}, raw=[checked("passed")]),
        shard(tmp_path, "b", {8: RIGHT}),
    ]
    (parts[1] / "predictions" / "bs8.csv").unlink()
    made = merge(parts, tmp_path / "both").directory
    assert outcomes(made) == {BATCHES: "failed"}
    (found,) = reader.read(made).checks
    assert found.sentence.startswith("could not be judged: predictions/bs8.csv")
    assert exit_status(made) == 1


@pytest.mark.parametrize("outcome", ["passed", "failed"])
def test_a_run_that_compared_all_itself_keeps_its_word(tmp_path, outcome):
    part = shard(tmp_path, "a", {1: RIGHT, 4: RIGHT}, raw=[checked(outcome)])
    shutil.rmtree(part / "predictions")
    assert outcomes(merge([part], tmp_path / "one").directory) == {BATCHES: outcome}


def test_nothing_to_compare_clears_nobody(tmp_path):
    """The failed run's cases left no predictions behind; what it said stays."""
    part = shard(tmp_path, "a", {1: RIGHT, 4: RIGHT}, raw=[checked("failed")])
    text = (part / RESULTS).read_text()
    (part / RESULTS).write_text(text.replace("predictions/bs4.csv", ""))
    assert outcomes(merge([part], tmp_path / "one").directory) == {BATCHES: "failed"}


def test_the_same_case_on_two_hosts_must_have_run_one_file(tmp_path):
    checks: tuple[tuple[str, Check], ...] = (("a", "accuracy"), ("b", "throughput"))
    parts = [
        nights.write_run(
            tmp_path,
            [samples.case("resnest50", 1, check, run=run, measurement={},
                          artifacts=[ArtifactRef(kind="compiled", key="k", digest=run)])],
            name=run,
        )
        for run, check in checks
    ]  # fmt: skip
    made = merge(parts, tmp_path / "both").directory
    assert outcomes(made) == {("same artifact", "resnest50-bs1-cpu"): "failed"}


def chip_runs(tmp_path: Path, digest: str) -> list[Path]:
    """Guide 001's pass line, 1.2 times 733.052 fps: batch 1 misses it and batch 4 reaches it."""
    subject = "fixres on ascend310p3 to ascend310"
    about = {"subject": subject, "model": "fixres", "target": "ascend310p3", "name": "ratio"}
    return [
        nights.write_run(
            tmp_path,
            [nights.speed(fps, model="fixres", batch=batch, run=run)],
            name=run,
            catalog_digest=digest,
            raw=[checked(outcome, run, **about)],
        )
        for run, batch, fps, outcome in (("a", 1, 800.0, "failed"), ("b", 4, 900.0, "passed"))
    ]


def test_ratios_are_judged_again_by_the_same_catalog_only(tmp_path):
    path = ROOT / "baselines.yaml"
    key = ("ratio", "fixres on ascend310p3 to ascend310")
    parts = chip_runs(tmp_path, load_catalog(path).digest)
    made = merge(parts, tmp_path / "same", catalog=path)
    assert outcomes(made.directory)[key] == "passed"
    assert not any("ratios" in note for note in made.notes)
    (tmp_path / "older").mkdir()
    older = chip_runs(tmp_path / "older", nights.CATALOG_DIGEST)
    for number, present in enumerate((path, tmp_path / "no such file")):
        made = merge(older, tmp_path / f"other {number}", catalog=present)
        assert outcomes(made.directory) == {key: "failed"}
        assert "ratios were not judged again" in made.notes[0]


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
def test_the_exit_status_follows_the_order_of_the_readme(tmp_path, statuses, joined):
    parts = [
        nights.write_run(tmp_path, [speed(batch, run)], name=run, exit_status=status)
        for batch, run, status in zip((1, 4), "ab", statuses, strict=True)
    ]
    for number, order in enumerate((parts, parts[::-1])):
        assert exit_status(merge(order, tmp_path / f"both {number}").directory) == joined


def test_a_case_that_failed_counts_whatever_its_run_ended_with(tmp_path):
    part = nights.write_run(tmp_path, [speed(1, "a", outcome="failed")], exit_status=0)
    assert exit_status(merge([part], tmp_path / "one").directory) == 1


def test_a_check_of_another_provenance_is_not_joined(tmp_path):
    part = nights.write_run(
        tmp_path, [speed(1, "a")], raw=[checked("passed", provenance="simulated")]
    )
    with pytest.raises(RecordError, match="mix provenances"):
        merge([part], tmp_path / "one")


def test_a_lost_check_is_found(tmp_path, monkeypatch):
    real = merging._write
    monkeypatch.setattr(
        merging,
        "_write",
        lambda path, lines: real(path, (line for line in lines if '"kind":"check"' not in line)),
    )
    part = nights.write_run(tmp_path, [speed(1, "a")], raw=[checked("failed")])
    with pytest.raises(RecordError, match="do not add up"):
        merge([part], tmp_path / "one")
    assert not (tmp_path / "one").exists()


# --- Files ----------------------------------------------------------------------------------


def accuracy(run: str, **changes):
    return samples.case("resnest50", 1, run=run, artifacts=[], **changes)


def with_files(tmp_path: Path, run: str = "a") -> Path:
    case = samples.case("squeezenet1_1", 4, run=run)
    part = nights.write_run(tmp_path, [case], name=run)
    for name in ("predictions/squeezenet1_1-bs4-cpu.csv", "logs/squeezenet1_1-compiled.log",
                 "logs/accuracy-squeezenet1_1-bs4-cpu-session.log", "logs/unrelated.log",
                 "report.html", "predictions/unnamed.csv"):  # fmt: skip
        (part / name).parent.mkdir(exist_ok=True)
        (part / name).write_text(f"{name} of {run}")
    return part


def files_of(directory: Path) -> list[str]:
    return sorted(
        str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()
    )


def test_the_files_that_records_name_come_along(tmp_path):
    made = merge([with_files(tmp_path)], tmp_path / "one")
    assert files_of(made.directory) == [
        "logs/accuracy-squeezenet1_1-bs4-cpu-session.log",
        "logs/squeezenet1_1-compiled.log",
        "predictions/squeezenet1_1-bs4-cpu.csv",
        RESULTS,
    ]
    assert made.files == 3
    # The records also name a log that is not there.
    assert made.notes == ("left out: logs/squeezenet1_1-simplified.log of a is missing",)


def test_equal_names_of_different_files_are_kept_apart(tmp_path):
    one = with_files(tmp_path, "a")
    other = nights.write_run(
        tmp_path,
        [samples.case("squeezenet1_1", 8, run="b",
                      measurement={"predictions_file": "predictions/squeezenet1_1-bs4-cpu.csv"})],
        name="b",
    )  # fmt: skip
    (other / "predictions").mkdir()
    (other / "predictions" / "squeezenet1_1-bs4-cpu.csv").write_text("of b")
    made = merge([one, other], tmp_path / "both")
    by_batch = {case.batch_size: case for case in reader.read(made.directory).cases}
    for batch, text in ((4, "predictions/squeezenet1_1-bs4-cpu.csv of a"), (8, "of b")):
        name = by_batch[batch].measurement["predictions_file"]
        assert (made.directory / name).read_text() == text


def test_links_are_not_followed(tmp_path):
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "x.log").write_text("secret")
    part = with_files(tmp_path)
    log = part / "logs" / "squeezenet1_1-compiled.log"
    log.unlink()
    log.symlink_to(secret / "x.log")
    session = part / "logs" / "accuracy-squeezenet1_1-bs4-cpu-session.log"
    session.unlink()
    os.mkfifo(session)
    shutil.rmtree(part / "predictions")
    (secret / "squeezenet1_1-bs4-cpu.csv").write_text("secret")
    (part / "predictions").symlink_to(secret)
    made = merge([part], tmp_path / "one")
    assert files_of(made.directory) == [RESULTS]
    assert any("compiled.log of a is or lies behind a symbolic link" in n for n in made.notes)
    assert any("session.log of a is no regular file" in n for n in made.notes)
    assert any("bs4-cpu.csv of a is or lies behind a symbolic link" in n for n in made.notes)


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
        "",
        "C:/logs/x",
        "logs/" + "x" * 300,
    ],
)
def test_a_name_that_leads_elsewhere_is_left_out(tmp_path, name):
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "x.log").write_text("secret")
    part = nights.write_run(
        tmp_path, [accuracy("a", measurement={"predictions_file": name})], name="a"
    )
    (part / "logs").mkdir()
    (part / "report.html").write_text("report")
    made = merge([part], tmp_path / "one")
    assert files_of(made.directory) == [RESULTS]
    assert len(made.notes) == 1


def test_an_output_that_exists_is_not_touched(tmp_path):
    part = shards(tmp_path)[0]
    for output in (tmp_path / "a", tmp_path / "dangling"):
        if not output.exists():
            output.symlink_to(tmp_path / "nowhere")
        with pytest.raises(RecordError, match="exists already"):
            merge([part], output)


def test_a_run_without_a_first_line_is_refused(tmp_path):
    part = shards(tmp_path)[0]
    lines = (part / RESULTS).read_text().splitlines(keepends=True)
    (part / RESULTS).write_text("".join(lines[1:]))
    with pytest.raises(RecordError, match="no run line"):
        merge([part], tmp_path / "one")
    with pytest.raises(RecordError, match="no records"):
        merge([tmp_path / "nothing"], tmp_path / "one")
    with pytest.raises(RecordError, match="no run to merge"):
        merge([], tmp_path / "one")


def test_every_outcome_survives(tmp_path):
    whole = samples.all_outcomes()
    part = nights.write_run(tmp_path, whole.cases, name="a", provenance="rehearsal")
    found = reader.read(merge([part], tmp_path / "one").directory)
    assert found.cases == whole.cases
    assert set(OUTCOMES) == {name for name, count in found.counts().items() if count}


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
    assert json.loads((tmp_path / "both" / "summary.json").read_text())["counts"]["passed"] == 2
    done = CliRunner().invoke(app, ["merge", *parts, "--output", str(tmp_path / "both")])
    assert done.exit_code == 4
    assert "exists already" in done.output


def test_what_a_part_was_told_to_leave_out_is_not_lost(tmp_path):
    wrong = speed(1, "a", outcome="inconclusive")
    left = nights.write_run(
        tmp_path, [wrong], name="a", lost=[speed(4, "a")], exit_status=6, stopped="early"
    )
    made = merge([left], tmp_path / "one").directory
    end = reader.read(made).end
    assert end is not None
    assert (end.exit_status, end.stopped, end.complete) == (6, "early", False)
    # Another part lost a case of its own: that one is the machine's.
    lost = nights.write_run(tmp_path, [speed(8, "b")], name="b", lost=[speed(16, "b")])
    assert exit_status(merge([left, lost], tmp_path / "two").directory) == 7
    # It ran elsewhere: nothing is left out.
    rest = nights.write_run(tmp_path, [speed(4, "c")], name="c")
    end = reader.read(merge([left, rest], tmp_path / "three").directory).end
    assert end is not None
    assert (end.exit_status, end.stopped, end.complete) == (6, "", True)
