"""The chips that are targets, one row each, and the versions of CANN."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

SERIES_ONLY = ("Ascend910",)
"""What npu-smi's table names of a chip whose name is told by `npu-smi info -t board` alone."""


@dataclass(frozen=True)
class Kind:
    """A kind of chip, as atc calls it (`--soc_version`).

    npu-smi calls it the same without `Ascend`; those of Atlas A3 by series and NPU name, which atc
    takes as `ChipName_NPUName`. `card`: a usual one, with so many `chips`. `since` and `gone`: the
    first CANN that is known to list it and the first that is known not to (empty: none is).
    """

    soc_version: str
    card: str
    chips: int = 1
    since: str = ""
    gone: str = ""

    @property
    def target(self) -> str:
        return self.soc_version.lower()

    def not_listed(self, cann: str) -> str:
        """Say why a CANN may not know the chip; empty where it lists it, or is not known."""
        if self.gone and version(cann) >= version(self.gone):
            return f"CANN {self.gone} and later do not list {self.soc_version}"
        if cann and self.since and version(cann) < version(self.since):
            return f"{self.soc_version} is listed from CANN {self.since} on"
        return ""


# Sources of the versions: the guides and their editions, and atc's page of `--soc_version` of 8.1
# to 9.0. The page of 8.2 lists the series of the 310, that of 8.3 no longer does.
_A3 = ("9362", "9372", "9381", "9382", "9391", "9392")
KINDS: Mapping[str, Kind] = {
    kind.target: kind
    for kind in (
        Kind("Ascend310P3", "Atlas 300I Pro", since="5.1"),
        Kind("Ascend310", "Atlas 300I", 4, since="5.0", gone="8.3"),
        Kind("Ascend310B1", "Atlas 500 A2", since="6.0"),
        Kind("Ascend310B4", "Atlas 200I DK A2", since="6.0"),
        *(Kind(f"Ascend910B{grade}", "Atlas A2") for grade in (1, 2, 3, 4)),
        *(Kind(f"Ascend910_{npu}", "Atlas A3", 2, since="8.1") for npu in _A3),
    )
}
"""By target, the usual one first."""
CHIPS: Mapping[str, str] = {name: kind.soc_version for name, kind in KINDS.items()}


RELEASES = (
    *("5.0", "5.1", "6.0", "6.2", "6.3", "7.0", "8.0", "8.1", "8.2", "8.3", "8.5"),
    *("9.0", "9.1", "9.2"),
)
"""The version periods of CANN, as its documents are named; one that is newer counts as the last."""
PERIODS = 4
"""A compiled model runs on the CANN that compiled it and so many later periods (atc's manual)."""


def age(compiled: str, running: str) -> int | None:
    """Return how many version periods a CANN is behind another: of a model that it compiled, on the
    one that runs it. Below 0 where it is newer; None where one of them is not known.
    """
    one, other = version(compiled)[:2], version(running)[:2]
    if not one or not other:
        return None
    periods = [version(release) for release in RELEASES]
    return sum(period <= other for period in periods) - sum(period <= one for period in periods)


def version(text: str) -> tuple[int, ...]:
    """Return the numbers of a version: `8.0.RC2` is (8, 0), a part that is none ends them."""
    numbers = re.match(r"\d{1,6}(?:\.\d{1,6})*", text)
    return tuple(map(int, numbers[0].split("."))) if numbers else ()
