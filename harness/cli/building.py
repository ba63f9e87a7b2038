"""`cache build`: makes what the cases of a command line need, and runs none of them.

A failed build is reported once, and the cases after it are built all the same.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from harness.base.errors import HarnessError
from harness.base.progress import Progress
from harness.base.stages import Stage
from harness.catalog.schema import Catalog
from harness.cli.options import say
from harness.images.crops import CHUNK
from harness.judge.causes import Exit, cause_of_error, exit_of_causes
from harness.pages.formats import plural
from harness.plan import Case
from harness.run.case_record import error_info
from harness.settings import Settings
from harness.stages.pipeline import CasePipeline, Workbench


def build_all(settings: Settings, catalog: Catalog, folder: Path, cases: Sequence[Case]) -> Exit:
    """Make everything in the order of the cases; say what is made as it is made.

    Logs and notes of failures lie in `folder`. Returns the exit code of a run whose cases fail so.
    """
    progress = Progress(sys.stderr.fileno(), terminal=True) if sys.stderr.isatty() else None
    bench = Workbench(settings, catalog, folder, progress)
    with_images = settings.stand_ins or settings.imagenet is not None
    versions = [f"{name} {value}" for name, value in bench.target.identity().items() if value]
    say(f"built for {', '.join(versions)}")
    seen: set[tuple[Stage, str]] = set()
    errors: list[HarnessError] = []
    built = 0
    for case in cases:
        pipeline = bench.for_case(case)
        error = None
        try:
            _prepare(pipeline, with_images=with_images)
        except HarnessError as raised:
            error = raised
        for made in pipeline.observed.artifacts:
            if (made.stage, made.key) not in seen:
                seen.add((made.stage, made.key))
                built += not made.cached
                how = "was there" if made.cached else "built"
                say(f"{case.id}: {made.stage} {made.key[:8]}, {made.bytes / 1e6:.1f} MB, {how}")
        if error is not None:
            repeated = any((error.stage, error.message) == (e.stage, e.message) for e in errors)
            errors.append(error)
            said = f"{case.name}: failed at the stage {error.stage}"
            say(said + (", as before" if repeated else ""))
            if not repeated:
                sys.stderr.write(f"{error}\n")
    of = f"{len(errors)} of {plural(len(cases), 'case')} failed"
    say(f"{plural(len(seen), 'artifact')}, {built} of them built now; {of}")
    if not with_images and any(case.check == "accuracy" for case in cases):
        say("without a data set no crops and no references are made")
    return exit_of_causes(cause_of_error(error_info(error))[0] for error in errors)


def _prepare(pipeline: CasePipeline, *, with_images: bool) -> None:
    if pipeline.case.check == "accuracy" and not with_images:
        pipeline.compiled()
        return
    feed = pipeline.prepare().feed
    if feed is not None:  # a check takes images as it feeds them
        with (
            pipeline.all_unusable(),
            pipeline.stage(Stage.CROPS),
            pipeline.feeding(feed, pipeline.decoding),
        ):
            for start in range(0, len(feed.crops), CHUNK):
                feed.crops.rows(start, start + 1)
