"""The family `ascend`: chips of Ascend cards through CANN's tools, and their simulation."""

from harness.base.families import Family, GuideColumn, Simulation
from harness.targets.ascend.chips import CHIPS
from harness.targets.ascend.options import GROUP, AscendOptions

FAMILY = Family(
    "harness.targets.ascend",
    "ascend",
    tuple(CHIPS),
    short_names={chip.removeprefix("ascend"): chip for chip in CHIPS},
    options=AscendOptions,
    spelt={"cann": "CANN"},
    group=GROUP,
    simulation=Simulation("simulate_ascend", tuple(CHIPS)),
    section="harness.targets.ascend.spec:AscendSpec",
    guide_columns=(GuideColumn("ascend310", "310", 0), GuideColumn("ascend310p3", "310P", 2)),
)
