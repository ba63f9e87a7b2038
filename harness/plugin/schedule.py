"""Which worker of xdist runs which case next: long ones first, those that share builds together."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from xdist.scheduler import LoadScheduling

from harness.plan import Case, share_builds

NEARLY = 0.5  # of the longest that is left: as good a choice, where it shares builds
LOOKED_AT = 100  # cases, and turns of workers: thousands are dealt out in no time


class CaseScheduling(LoadScheduling):  # type: ignore[misc]  # xdist's types are not exported
    """xdist's load scheduling, which chooses what it sends by how long cases are expected to take.

    A worker begins an item when it knows the next one, and nobody can take that from it. So the
    next one is what it would begin were the rest dealt out now, each to the first worker that is
    free; a worker that would get none ends after the item that it has.
    """

    collection: list[str] | None

    def __init__(
        self,
        config: Any,
        log: Any,
        cases: Mapping[str, Case],
        expected_s: Mapping[Case, float | None],
    ) -> None:
        """`cases`: by the name of their test, which is the end of its node id. `expected_s`: in
        seconds; what nobody knows is taken for long.
        """
        super().__init__(config, log)
        self._cases = cases
        longest = max((known for known in expected_s.values() if known), default=1.0)
        self._expected_s = {
            case: longest if known is None else known for case, known in expected_s.items()
        }
        self._began: dict[Any, float] = {}  # when a worker began what it runs
        self._case_at: list[Case | None] = []  # by place in the collection

    def schedule(self) -> None:
        """Send each worker its first item, then its next one."""
        if self.collection is None:
            if not self._check_nodes_have_same_collection():
                return
            self.collection = items = list(next(iter(self.node2collection.values())))
            self._case_at = [self._cases.get(item.rpartition("::")[2]) for item in items]
            self.pending[:] = sorted(
                range(len(items)), key=lambda index: (self._is_alone(index), -self._seconds(index))
            )
            for node in self.nodes:
                self._send_next(node)
        for node in self.nodes:
            self.check_schedule(node)

    def check_schedule(self, node: Any, duration: float = 0) -> None:
        """Send a worker its next item, two to one that has none, or end it."""
        while len(self.node2pending[node]) < 2 and not node.shutting_down:
            self._began[node] = time.monotonic()
            if not self._send_next(node):
                node.shutdown()

    def _send_next(self, node: Any) -> bool:
        if (index := self._next_of(node)) is None:
            return False
        self.pending.remove(index)
        self.pending.insert(0, index)
        self._send_tests(node, 1)
        return True

    def _next_of(self, node: Any) -> int | None:
        """Deal out what is pending until it is the worker's turn; None if that never comes."""
        now = time.monotonic()
        free, last = {}, {}
        for one, items in self.node2pending.items():
            if one is node or not one.shutting_down:
                ran = now - self._began.get(one, now)
                free[one] = max(0.0, sum(map(self._seconds, items)) - ran)
                last[one] = [self._case_at[index] for index in items[-1:]]
        left: list[int] = list(self.pending)
        for turns in range(len(left)):
            turn = min(free, key=lambda one: free[one])
            chosen = left[0]
            if turns < LOOKED_AT:
                others = [case for one, cases in last.items() if one is not turn for case in cases]
                chosen = self._choose(left[:LOOKED_AT], last[turn], others)
            if turn is node:
                return chosen
            left.remove(chosen)
            free[turn] += self._seconds(chosen)
            last[turn] = [self._case_at[chosen]]
        return None

    def _choose(self, left: Sequence[int], mine: Sequence[Any], others: Sequence[Any]) -> int:
        """Choose the longest; of some that are nearly as long, one whose builds the worker has
        made, else one whose builds nobody makes now.
        """
        if self._case_at[left[0]] is None:
            return left[0]
        enough = NEARLY * self._seconds(left[0])

        def costs(index: int) -> int:
            case = self._case_at[index]
            if any(share_builds(case, one) for one in mine):
                return 0
            return 1 + sum(share_builds(case, one) for one in others)

        first = self._is_alone(left[0])
        near = [
            one for one in left if self._seconds(one) >= enough and self._is_alone(one) == first
        ]
        return min(near, key=costs)

    def _seconds(self, index: int) -> float:
        case = self._case_at[index]
        return 1.0 if case is None else self._expected_s[case]

    def _is_alone(self, index: int) -> bool:
        """Throughput takes a card: whoever waits for all of its chips keeps none from accuracy."""
        case = self._case_at[index]
        return case is not None and case.check == "throughput"
