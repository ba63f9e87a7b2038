"""`harness.records.lines`: nothing that was written is lost, and what cannot be read is said."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

from harness.base.errors import RecordError
from harness.base.host import Machine
from harness.base.terms import OUTCOMES, Outcome
from harness.records.lines import CaseLine, EndLine, Line, PlanLine, PlannedCase, RunLine
from harness.records.reader import read
from harness.records.values import ArtifactRef, ErrorInfo, Reference, StageTime, Verdict
from harness.records.writer import RESULTS, append, new_run_id

ROOT = Path(__file__).parents[2]


def a_case(number: int = 0, outcome: Outcome = "passed", **more: Any) -> CaseLine:
    given: dict[str, Any] = {
        "run": "r",
        "nodeid": f"test_accuracy.py::test[{number}]",
        "case": f"tiny-bs{number}-cpu",
        "model": "tiny",
        "batch_size": number,
        "target": "cpu",
        "check": "accuracy",
        "provenance": "rehearsal",
        "outcome": outcome,
        "sentence": "It passed.",
        **more,
    }
    return CaseLine(**given)


def planned(number: int = 0) -> PlannedCase:
    line = a_case(number)
    return PlannedCase(
        nodeid=line.nodeid,
        case=line.case,
        model=line.model,
        batch_size=line.batch_size,
        target=line.target,
        check=line.check,
    )


RUN = RunLine(
    run="r",
    provenance="rehearsal",
    started="2026-11-20T07:30:00+00:00",
    command=["pytest", "-k", "a b"],
    machine=Machine(hostname="h", cores=2, memory_gib=7.5),
    versions={"python": "3.11"},
    settings={"rehearsal": True, "limit": None},
)
FULL = a_case(
    4,
    "failed",
    unit="%",
    measured=69.25,
    reference=Reference(kind="published", value=70.5, unit="%", source="paper"),
    difference_percent=-1.77,
    verdict=Verdict(kind="FAIL", sentence="too low", figures={"flips": ["a", "b"]}),
    error=ErrorInfo(type="InferError", stage="infer", message="died", log="one\ntwo\n"),
    measurement={"top": [1.5, 2], "nested": {"deep": None}},
    artifacts=[ArtifactRef(kind="onnx", key="k", digest="d", bytes=7, cached=True)],
    stages=[StageTime(stage="export", seconds=1.5)],
    repeat=["pytest -k tiny"],
)
END = EndLine(run="r", finished="later", planned=1, counts={"failed": 1}, complete=True)


def append_raw(directory: Path, text: str | bytes) -> None:
    with (directory / RESULTS).open("ab") as stream:
        stream.write(text if isinstance(text, bytes) else text.encode())


def test_what_was_appended_is_read_in_order(tmp_path: Path) -> None:
    lines: list[Line] = [RUN, PlanLine(run="r", cases=[planned(4), planned(1)]), FULL, END]
    for line in lines:
        append(tmp_path, line)
    found = read(tmp_path)
    assert found.directory == tmp_path
    assert (found.run, found.end) == (RUN, END)
    assert found.plan == (planned(4), planned(1))
    assert found.cases == (FULL,)
    assert found.damaged == ()
    assert (tmp_path / RESULTS).read_bytes().count(b"\n") == len(lines)


def test_the_file_itself_can_be_named(tmp_path: Path) -> None:
    append(tmp_path, RUN)
    assert read(tmp_path / RESULTS).run == RUN
    assert read(tmp_path / RESULTS).directory == tmp_path


def test_no_other_file_is_taken_for_records(tmp_path: Path) -> None:
    append(tmp_path, RUN)
    other = (tmp_path / RESULTS).rename(tmp_path / "notes.txt")
    with pytest.raises(RecordError, match="Not a directory"):
        read(other)


@pytest.mark.parametrize(
    "text",
    ["line\nfeed\r\n", "paragraph\u2028and\u2029next\x85line", "\x0b\x0c\x1c\x1d\x1e\x00", "é😀"],
    ids=ascii,
)
def test_any_text_stays_in_its_line(text: str, tmp_path: Path) -> None:
    line = a_case(sentence=text)
    append(tmp_path, line)
    append(tmp_path, a_case(1))
    found = read(tmp_path)
    assert found.cases == (line, a_case(1))
    assert found.damaged == ()


def test_names_that_are_not_utf8_do_not_stop_a_record(tmp_path: Path) -> None:
    name = b"caf\xe9.pth".decode("utf-8", "surrogateescape")
    append(tmp_path, a_case(sentence=name, measurement={"file": name}))
    (found,) = read(tmp_path).cases
    assert found.sentence == found.measurement["file"] == "caf?.pth"


def test_a_measurement_that_is_no_number_can_be_read_back(tmp_path: Path) -> None:
    append(tmp_path, a_case(measured=math.nan, measurement={"fps": math.inf}))
    (found,) = read(tmp_path).cases
    assert found.measured is None
    assert read(tmp_path).damaged == ()


# Kills and several writers.


def test_half_a_line_left_by_a_kill_does_not_glue(tmp_path: Path) -> None:
    append(tmp_path, RUN)
    append_raw(tmp_path, a_case(1).model_dump_json()[:40])
    append(tmp_path, a_case(2))
    append(tmp_path, a_case(3))
    found = read(tmp_path)
    assert [case.batch_size for case in found.cases] == [2, 3]
    (damaged,) = found.damaged
    assert damaged.startswith("line 2: ")
    assert (tmp_path / RESULTS).read_bytes().count(b"\n") == 4


def test_half_a_line_at_the_end_is_reported(tmp_path: Path) -> None:
    append(tmp_path, a_case(1))
    append_raw(tmp_path, a_case(2).model_dump_json()[:-1])
    found = read(tmp_path)
    assert [case.batch_size for case in found.cases] == [1]
    assert len(found.damaged) == 1


def test_half_a_character_is_only_a_damaged_line(tmp_path: Path) -> None:
    append_raw(tmp_path, '{"kind": "run", "run": "é'.encode()[:-1])
    append(tmp_path, a_case(1))
    assert len(read(tmp_path).cases) == len(read(tmp_path).damaged) == 1


def test_several_processes_lose_nothing(tmp_path: Path) -> None:
    code = f"""
        import sys, time
        from pathlib import Path
        from harness.records import lines
        from harness.records import writer
        directory, writer = Path({str(tmp_path)!r}), int(sys.argv[1])
        line = lines.CaseLine.model_validate_json({a_case().model_dump_json()!r})
        (directory / f"ready-{{writer}}").touch()
        while not (directory / "go").exists():
            time.sleep(0.001)
        for number in range(40):
            padding = "x" * (97 * number)
            writer.append(
                directory,
                line.model_copy(update={{"nodeid": f"{{writer}}-{{number}}", "sentence": padding}}),
            )
        """
    writers = [
        subprocess.Popen([sys.executable, "-c", textwrap.dedent(code), str(writer)], cwd=ROOT)
        for writer in range(3)
    ]
    while len(list(tmp_path.glob("ready-*"))) < len(writers):
        assert all(writer.poll() is None for writer in writers)
        time.sleep(0.005)
    (tmp_path / "go").touch()
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    found = read(tmp_path)
    assert found.damaged == ()
    assert {case.nodeid: len(case.sentence) for case in found.cases} == {
        f"{writer}-{number}": 97 * number for writer in range(3) for number in range(40)
    }


# Lines that are not what they should be.


@pytest.mark.parametrize(
    "raw",
    [
        "not JSON",
        "[]",
        "7",
        "null",
        "{}",
        '{"kind": "note", "text": "of a later version"}',
        '{"kind": ["case"]}',
        '{"kind": "case", "run": "r"}',
        a_case().model_dump_json().replace('"passed"', '"perhaps"'),
        "[" * 100_000,
        '{"kind": "run", "run": ' + "9" * 5000 + "}",
        b"\xff\xfe\x00",
    ],
    ids=lambda raw: str(raw)[:24],
)
def test_a_damaged_line_is_reported_and_costs_no_other(raw: str | bytes, tmp_path: Path) -> None:
    append(tmp_path, a_case(1))
    append_raw(tmp_path, raw)
    append(tmp_path, a_case(2))
    found = read(tmp_path)
    assert [case.batch_size for case in found.cases] == [1, 2]
    (damaged,) = found.damaged
    assert damaged.startswith("line 2: ")
    assert "\n" not in damaged
    assert len(damaged) < 200


def test_empty_lines_are_no_damage(tmp_path: Path) -> None:
    append(tmp_path, a_case(1))
    append_raw(tmp_path, "\n  \n\r\n")
    append(tmp_path, a_case(2))
    found = read(tmp_path)
    assert len(found.cases) == 2
    assert found.damaged == ()


def test_unknown_keys_of_a_newer_version_are_left_out(tmp_path: Path) -> None:
    data = json.loads(FULL.model_dump_json())
    data["invented"] = {"later": 1}
    data["schema_version"] = 2
    data["verdict"]["confidence"] = 0.5
    data["artifacts"][0]["signature"] = "x"
    append_raw(tmp_path, json.dumps(data) + "\n")
    found = read(tmp_path)
    assert found.damaged == ()
    assert found.cases == (FULL.model_copy(update={"schema_version": 2}),)


def test_keys_that_an_older_version_did_not_write_have_defaults(tmp_path: Path) -> None:
    data = {k: v for k, v in json.loads(a_case().model_dump_json()).items() if v}
    del data["schema_version"]
    append_raw(tmp_path, json.dumps({**data, "batch_size": 1}) + "\n")
    (found,) = read(tmp_path).cases
    assert (found.stages, found.error, found.measured) == ([], None, None)


def test_a_case_that_was_written_twice_keeps_its_first_line(tmp_path: Path) -> None:
    append(tmp_path, a_case(1, "crashed"))
    append(tmp_path, a_case(2))
    append(tmp_path, a_case(1, "passed"))
    found = read(tmp_path)
    assert [(case.batch_size, case.outcome) for case in found.cases] == [
        (1, "crashed"),
        (2, "passed"),
    ]
    assert found.damaged == ()


def test_the_first_run_line_and_the_last_end_line_hold(tmp_path: Path) -> None:
    append(tmp_path, RUN)
    append(tmp_path, RUN.model_copy(update={"run": "second"}))
    append(tmp_path, END)
    append(tmp_path, END.model_copy(update={"exit_status": 1}))
    found = read(tmp_path)
    assert found.run == RUN
    assert found.end is not None
    assert found.end.exit_status == 1


def test_plans_of_several_lines_are_joined(tmp_path: Path) -> None:
    append(tmp_path, PlanLine(run="r", cases=[planned(1), planned(2)]))
    append(tmp_path, PlanLine(run="r", cases=[planned(2), planned(3)]))
    assert read(tmp_path).plan == (planned(1), planned(2), planned(3))


# Sums.


def test_the_counts_sum_to_the_plan(tmp_path: Path) -> None:
    append(tmp_path, PlanLine(run="r", cases=[planned(n) for n in range(12)]))
    for number, outcome in enumerate(OUTCOMES):
        append(tmp_path, a_case(number, outcome))
    append(tmp_path, a_case(0, "failed"))  # again: not counted
    counts = read(tmp_path).counts()
    assert sum(counts.values()) == 12
    assert set(counts) == set(OUTCOMES)
    lost = 12 - len(OUTCOMES)
    assert counts == {**dict.fromkeys(OUTCOMES, 1), "not_run": 1 + lost}


def test_a_case_that_was_not_planned_makes_the_sum_wrong(tmp_path: Path) -> None:
    append(tmp_path, PlanLine(run="r", cases=[planned(1)]))
    append(tmp_path, a_case(2))
    counts = read(tmp_path).counts()
    assert (counts["passed"], counts["not_run"]) == (1, 1)


# Files that are not there.


def test_a_run_without_records(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"no records of a run at .*No such file") as caught:
        read(tmp_path)
    assert str(tmp_path / RESULTS) in caught.value.message
    assert caught.value.remedy
    with pytest.raises(RecordError, match="no records"):
        read(tmp_path / "absent")


def test_records_that_are_a_folder(tmp_path: Path) -> None:
    (tmp_path / RESULTS).mkdir()
    with pytest.raises(RecordError, match="Is a directory"):
        read(tmp_path)
    with pytest.raises(RecordError, match="cannot append") as caught:
        append(tmp_path, RUN)
    assert "--runs" in caught.value.remedy


def test_appending_to_a_run_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="cannot append"):
        append(tmp_path / "absent", RUN)


def test_an_empty_file_is_a_run_that_wrote_nothing(tmp_path: Path) -> None:
    append_raw(tmp_path, "")
    found = read(tmp_path)
    assert (found.run, found.plan, found.cases, found.end) == (None, (), (), None)


def test_a_run_id_begins_with_its_time() -> None:
    assert re.fullmatch(r"\d{8}-\d{6}-[0-9a-f]{4}", new_run_id())


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_records_that_never_end_are_refused(tmp_path: Path, make: Any) -> None:
    make(tmp_path / RESULTS)
    with pytest.raises(RecordError, match="not a regular file"):
        read(tmp_path)
    with pytest.raises(RecordError, match="no records"):
        read(tmp_path / RESULTS)


def test_records_behind_a_link_that_leads_round(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(RecordError, match="no records"):
        read(tmp_path / "a")
