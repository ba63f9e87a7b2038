"""The parts of a selection that several hosts run, each the shard I of N.

Every host splits the same selection in the same way, with nobody to ask: by what its options say
and by the records of one run that all of them name, never by what this host measured.
"""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from harness.estimates import work_s
from harness.plan import Case, share_builds
from harness.records import reader
from harness.records.reader import RunRecords
from harness.settings import Settings


def of_settings(cases: Sequence[Case], settings: Settings) -> tuple[Case, ...]:
    """Return which of the selected cases are this host's: all where there is no `--shard`. Raises
    `RecordError`: the run of `--shard-by` has no records.
    """
    if settings.part is None:
        return tuple(cases)
    number, count = settings.part
    times = {} if settings.shard_by is None else times_of(settings.shard_by)
    return split(cases, count, times)[number - 1]


def groups_of(cases: Iterable[Case]) -> list[list[Case]]:
    """Return the cases in groups that share builds."""
    groups: list[list[Case]] = []
    for case in cases:
        mine = next((one for one in groups if share_builds(one[0], case)), None)
        if mine is None:
            groups.append(mine := [])
        mine.append(case)
    return groups


def split(
    cases: Sequence[Case], count: int, times: Mapping[str, float]
) -> tuple[tuple[Case, ...], ...]:
    """Deal out the groups of cases to `count` shards: the longest first, to the one with the least.

    Args:
        times: seconds by the names of cases; one that is not known counts as their median.
    """
    usual = statistics.median(times.values()) if times else 1.0
    seconds = {case: times.get(case.name, usual) for case in cases}
    shards: list[list[Case]] = [[] for _ in range(count)]
    groups = [(sum(seconds[case] for case in group), group) for group in groups_of(sorted(cases))]
    totals = [0.0] * count
    for total, group in sorted(groups, key=lambda one: (-one[0], one[1][0])):
        least = totals.index(min(totals))
        totals[least] += total
        shards[least] += group
    places = {case: place for place, case in enumerate(cases)}
    return tuple(tuple(sorted(shard, key=places.__getitem__)) for shard in shards)


def times_of(run: Path) -> dict[str, float]:
    """Return the seconds that each case of a run worked, by its name. Raises `RecordError`: there
    are no records of it.
    """
    return {f"{one.check} of {one.case}": work_s(one, None) for one in reader.read(run).cases}


def digest(names: Iterable[str]) -> str:
    """Return what names a selection, by the names of its cases."""
    return hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()[:16]


def lacking(runs: Sequence[RunRecords]) -> list[str]:
    """Return what is missing of the selections of which these runs are shards. Raises
    `ConfigError`: a run's records name no part that can be.
    """
    shards: dict[int, list[tuple[int, RunRecords]]] = {}
    for one in runs:
        shard = one.run.settings.get("shard") if one.run is not None else None
        if part := Settings(shard=shard and str(shard)).part:
            number, count = part
            shards.setdefault(count, []).append((number, one))
    found = []
    for count, parts in shards.items():
        numbers = {number for number, _ in parts}
        if absent := [f"{n}/{count}" for n in range(1, count + 1) if n not in numbers]:
            found.append(f"shards are missing: {', '.join(absent)}")
            continue
        selections = {one.run.selection for _, one in parts if one.run is not None}
        names = {f"{case.check} of {case.case}" for _, one in parts for case in one.plan}
        if selections != {digest(names)}:
            found.append(
                f"the {count} shards are not of one selection: they were started with other "
                "options, another catalog or another --shard-by"
            )
    return found
