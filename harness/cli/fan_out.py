"""`fan-out`: a run whose cases go to the hosts of a Ray cluster."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from harness.base.errors import ConfigError
from harness.base.progress import Progress
from harness.cli.options import CheckOption, say
from harness.fanout.driver import fan_out as drive
from harness.fanout.ray_hosts import Needs, RayHosts
from harness.run.case_record import nodeid_of
from harness.run.engine import Run
from harness.settings import Settings
from harness.targets import registry


def fan_out(
    settings: Settings,
    *,
    ray: Annotated[str, typer.Option(metavar="ADDRESS", help="the cluster, e.g. 10.0.0.1:6379")],
    check: CheckOption = None,
    parts: Annotated[
        int | None,
        typer.Option(min=1, max=9999, metavar="N", help="how many (default: one for each model)"),
    ] = None,
    need: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=N",
            help="what a part takes of a host, by Ray's names (repeatable; default: one device of "
            "the target)",
        ),
    ] = None,
    cpus: Annotated[float, typer.Option(min=0, metavar="N", help="CPUs of a part")] = 1.0,
    memory_gb: Annotated[float, typer.Option(min=0, metavar="GB", help="memory of a part")] = 0.0,
    build_cpus: Annotated[
        float,
        typer.Option(
            min=0, metavar="N", help="build apart, on any host with so many CPUs (default: 0, not)"
        ),
    ] = 0.0,
) -> None:
    """Run the cases of a command line on the hosts of a Ray cluster, into one run directory here.

    Ends with the exit code that pytest would have.
    """
    run = Run(settings, progress=Progress.on_stderr())
    cases = [case for case in run.plan.cases if check in (None, case.check)]
    if run.left is None:
        cases = list(run.shard_of(cases))
    else:
        cases = [case for case in cases if nodeid_of(case) in run.left]
    if run.settings.target is None or not cases:
        what = "no case was selected" if run.settings.target else "no target is named"
        raise ConfigError(what, remedy="--target=NAME, and other models or batch sizes")
    resources = dict(registry.provider_of(run.settings).cluster_needs(run.settings))
    for text in need or ():
        given = re.fullmatch(r"([^=\s]+)=(\d{1,6}(?:\.\d{1,6})?)", text)
        if given is None:
            raise ConfigError(f"--need={text} is not NAME=N", remedy="--need=NPU=2")
        resources[given[1]] = float(given[2])
    needs = Needs(resources, cpus, int(memory_gb * 1e9), build_cpus)
    records = drive(run, cases, RayHosts(ray, needs, run.directory / "logs" / "ray.log"), parts)
    for line in run.summary():
        say(line)
    raise typer.Exit(records.exit_status)
