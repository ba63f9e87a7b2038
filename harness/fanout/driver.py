"""The host that begins and ends a run of which others run the cases."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from harness import shards
from harness.base import files, signals
from harness.base.environment import code_digest
from harness.base.errors import DeviceError, RecordError
from harness.fanout.node import Ended, Task
from harness.judge.causes import Exit
from harness.plan import Case
from harness.records import reader, writer
from harness.records.lines import CaseLine
from harness.records.reader import RunRecords
from harness.run.case_record import nodeid_of, typed_options
from harness.run.engine import Run
from harness.run.merged_files import is_name

TRIES = 2  # of a case with which a host or its process died


@dataclasses.dataclass
class Part:
    """A task that a host runs now, and which of its cases have not ended."""

    task: Task
    left: list[Case]


class Hosts(Protocol):
    """Where tasks run."""

    def start(self, task: Task) -> Any:
        """Run a task on some host that has what it needs; return its handle, any hashable."""

    def events(self) -> Iterator[tuple[Any, Ended | None, str]]:
        """Yield what happens until no task runs: a task's handle with a case that ended; or None
        when the task is over, with the reason where it did not end by itself.

        Raises `DeviceError` where no host is left that has what the tasks need.
        """

    def stop(self) -> None:
        """End what still runs."""


def fan_out(run: Run, cases: Sequence[Case], hosts: Hosts, count: int | None = None) -> RunRecords:
    """Run cases on hosts, in `count` parts (default: one for each group that shares builds).

    The run's directory is here. A line is kept as its case ends; what a dead host had left goes to
    another one. A case with which hosts died twice is recorded as crashed. Raises `HarnessError`:
    the run cannot begin, or no host is left; then `--resume` goes on with it.
    """
    times = {case.name: known for case, known in run.expected_s.items() if known}
    parts = shards.split(cases, count or len(shards.groups_of(cases)), times)
    whole = Task(
        run.id,
        "",
        typed_options(run.settings),
        run.settings.target,
        run.catalog.digest,
        code_digest(),
        tuple(cases),
    )
    run.begin([(nodeid_of(case), case) for case in cases], here=False)
    running: dict[Any, Part] = {}
    deaths: Counter[Case] = Counter()

    def start(task: Task) -> None:
        running[hosts.start(task)] = Part(task, list(task.cases))

    try:
        with signals.listening():
            for number, chosen in enumerate(parts, 1):
                if chosen:
                    start(dataclasses.replace(whole, shard=f"{number}/{len(parts)}").of(chosen))
            for handle, ended, why in hosts.events():
                if ended is not None:
                    _keep(run, running[handle], ended)
                    continue
                part = running.pop(handle)
                if part.left and (again := _after_death(run, part, why, deaths)):
                    start(part.task.of(again))
    except KeyboardInterrupt:
        run.interrupted = True
    except DeviceError as error:
        kept = reader.read(run.directory)
        if len(kept.cases) < len(kept.plan):
            raise DeviceError(
                f"{error.message}; {len(kept.cases)} of {len(kept.plan)} cases are recorded",
                remedy=f"{error.remedy}; then fan-out --ray=ADDRESS --resume={run.directory}",
            ) from None
    finally:
        with signals.uninterrupted():
            try:
                hosts.stop()
            finally:  # a cluster that is gone must not cost the report
                records = run.finish(
                    decide=lambda code: int(Exit.INTERRUPTED if run.interrupted else code)
                )
    return records


def _keep(run: Run, part: Part, ended: Ended) -> None:
    """Write a case's line and its files into the run's directory."""
    line = CaseLine.model_validate_json(ended.line)
    case = run.planned.get(line.nodeid)
    if case not in part.left:
        raise RecordError(
            f"a host sent {line.check} of {line.case}, which is not of its part",
            remedy="give every host the same version of the harness",
        )
    if line.provenance != run.settings.provenance:
        raise RecordError(
            f"a host sent {line.check} of {line.case} as {line.provenance}, "
            f"and this run is {run.settings.provenance}",
            remedy="unset HARNESS_SIMULATE_ASCEND and HARNESS_REHEARSAL on every host",
        )
    for name, data in ended.files.items():
        if is_name(name):
            path = run.directory / name
            path.parent.mkdir(exist_ok=True)
            files.replace_file(path, data)
    writer.append(run.directory, line)
    part.left.remove(case)
    run.progress.ended(line.nodeid)


def _after_death(run: Run, part: Part, why: str, deaths: Counter[Case]) -> list[Case]:
    """Return which cases of a part to start again; the first of them was running."""
    first, *others = part.left
    deaths[first] += 1
    run.progress.note(f"shard {part.task.shard} goes on elsewhere: {why}")
    if deaths[first] < TRIES:
        return part.left
    run.crashed(nodeid_of(first), f"its host or its process died {TRIES} times: {why}")
    return others
