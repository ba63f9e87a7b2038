"""Faults in the records of a run, and in what is made of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest import mock

from harness.base.stages import Stage
from harness.judge import causes, run_checks
from harness.records import reader, writer
from harness.records.lines import CaseLine, Line
from harness.records.observed import ArtifactRef
from harness.records.writer import RESULTS
from harness.report.terminal import summary_lines
from harness.run import merge
from tests.selftest import history_samples as nights
from tests.selftest import report_samples as samples
from tests.selftest.planted.rows import Fault, Found, said
from tests.selftest.planted.world import World


def _case(batch: int, run: str = "a", **changes: Any) -> CaseLine:
    return nights.speed(500.0 + batch, batch=batch, run=run, **changes)


def _read(directory: Path) -> Found:
    """What a run ends with, and what its first screen says."""
    records = reader.read(directory)
    counts = records.counts()
    complete = len(records.cases) == len(records.plan) and not counts["not_run"]
    code = causes.exit_code(
        records.cases, records.checks, complete=complete, allow_inconclusive=False
    )
    unsound = bool(code or records.damaged or not records.end_agrees())
    text = f"exit code {int(code)}; {'; '.join(summary_lines(records))}"
    return said("FAIL" if unsound else "PASS", text, "records")


def _lost_case(world: World, planted: bool) -> Found:
    """A planned case without a line."""
    cases = [_case(1), _case(4), _case(8)]
    lost = [cases.pop(1)] if planted else []
    return _read(nights.write_run(world.new_folder(), cases, lost=lost))


def _undecided(world: World, planted: bool) -> Found:
    """One case of which nothing is known."""
    cases = [_case(1), _case(4, outcome="inconclusive" if planted else "passed")]
    return _read(nights.write_run(world.new_folder(), cases))


def _half_a_line(world: World, planted: bool) -> Found:
    """The last case's line cut, as by a full disk."""
    run = nights.write_run(world.new_folder(), [_case(1), _case(4)], end=not planted)
    file = run / RESULTS
    text = file.read_text(encoding="utf-8")
    file.write_text(text[:-400] if planted else text, encoding="utf-8")
    return _read(run)


def _merge_that_loses(world: World, planted: bool) -> Found:
    folder = world.new_folder()
    parts = [
        nights.write_run(folder, [_case(1), _case(4)], name="a"),
        nights.write_run(folder, [_case(8, "b")], name="b"),
    ]
    real = writer.append

    def losing(directory: Path, *lines: Line) -> None:
        real(directory, *(x for x in lines if not (isinstance(x, CaseLine) and x.batch_size == 4)))

    with mock.patch.object(writer, "append", losing if planted else real):
        made = merge.merge(parts, folder / "both")
    return said("PASS", f"{sum(made.counts().values())} cases", "records")


def _merge_that_disagrees(world: World, planted: bool) -> Found:
    """The same case passed in one run and failed in the other."""
    folder = world.new_folder()
    other = {"outcome": "failed"} if planted else {}
    parts = [
        nights.write_run(folder, [_case(1), _case(4)], name="a"),
        nights.write_run(folder, [_case(4, **other)], name="b"),
    ]
    made = merge.merge(parts, folder / "both")
    return said("PASS", f"{len(made.cases)} cases, one of them twice", "records")


def _rehearsal_among_real(world: World, planted: bool) -> Found:
    """Rehearsed figures joined with real ones."""
    folder = world.new_folder()
    parts = [
        nights.write_run(folder, [_case(1)], name="a"),
        nights.write_run(
            folder, [_case(4, "b", provenance="rehearsal" if planted else "real")], name="b"
        ),
    ]
    made = merge.merge(parts, folder / "both")
    return said("PASS", f"{sum(made.counts().values())} cases", "records")


def _two_artifacts(world: World, planted: bool) -> Found:
    """The accuracy of one compiled file beside the throughput of another, of one case."""

    def compiled(digest: str) -> tuple[ArtifactRef, ...]:
        return (ArtifactRef(Stage.COMPILE, key="k", digest=digest * 64),)

    speed = _case(4, artifacts=compiled("b" if planted else "a"))
    score = samples.case("resnest50", 4, "accuracy", target=speed.target, run=speed.run).model_copy(
        update={"artifacts": compiled("a"), "provenance": "real"}
    )
    run = nights.write_run(world.new_folder(), [score, speed])
    found = run_checks.run_checks(reader.read(run), world.catalog("resnest50"))
    bad = [line.sentence for line in found if line.outcome == "failed"]
    return said("FAIL" if bad else "PASS", "; ".join(bad), "records")


FAULTS = (
    Fault("A report that lost a case", "the records", "records", "FAIL",
          "1 of 3 cases did not run", _lost_case),
    Fault("An inconclusive case in a run that ends green", "the records", "records", "FAIL",
          "exit code 6", _undecided),
    Fault("Half a line at the records' end", "the records", "records", "FAIL",
          "1 damaged line", _half_a_line),
    Fault("A merge that lost a case", "`merge`", "records", "error", "lost 1 case",
          _merge_that_loses),
    Fault("Two runs that disagree about a case", "`merge`", "records", "error",
          "the runs disagree about 1 case", _merge_that_disagrees),
    Fault("A rehearsal joined with a real run", "`merge`", "records", "error",
          "mix provenances", _rehearsal_among_real),
    Fault("Accuracy of one artifact beside the throughput of another", "the records", "records",
          "FAIL", "different compiled files", _two_artifacts),
)  # fmt: skip
