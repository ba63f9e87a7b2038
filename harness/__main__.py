"""`npu-accept`, or `python -m harness`: what can be known and done without running pytest."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

try:
    import typer

    from harness import __version__
    from harness.cli import cache, catalog, history
    from harness.cli.doctor import doctor
    from harness.cli.fan_out import fan_out
    from harness.cli.options import takes_settings
    from harness.cli.plan import plan
    from harness.cli.reference import options
    from harness.cli.report import report, why
    from harness.cli.rules import rules
    from harness.judge.causes import Exit
except ModuleNotFoundError as error:
    # Of the harness' own modules none is absent: that would be a fault, with its traceback.
    if (error.name or "harness").partition(".")[0] == "harness":
        raise
    sys.stderr.write(
        f"{error.name} is not installed in {sys.executable}\n"
        "  what to do: . .venv/bin/activate, or python -m pip install -r requirements.txt\n"
    )
    raise SystemExit(4) from None  # `causes.Exit.INPUT_ERROR`, which cannot be imported here


def _commands(text: str, **options: Any) -> typer.Typer:
    return typer.Typer(help=text, no_args_is_help=True, pretty_exceptions_enable=False, **options)


app = _commands(
    "Acceptance tests for image classifiers deployed on Ascend NPUs. "
    "The tests themselves are run by pytest.",
    name="harness",
    add_completion=False,
)


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"npu-acceptance {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_show_version, help="show the version"),
    ] = False,
) -> None:
    pass


app.command()(takes_settings(plan))
app.command()(takes_settings(doctor))
app.command()(takes_settings(fan_out))
app.command()(takes_settings(report, ("lang",)))
app.command()(takes_settings(why, ()))
app.command()(rules)
app.command()(options)
_store = _commands("Look at, fill and tidy the artifact store.")
_store.command()(takes_settings(cache.ls, ("store", "catalog")))
_store.command()(takes_settings(cache.explain))
_store.command()(takes_settings(cache.build))
_store.command()(takes_settings(cache.gc, ("store",)))
_store.command()(takes_settings(cache.pins, ("store",)))
app.add_typer(_store, name="cache")
_catalog = _commands("Write catalogs.")
_catalog.command()(
    takes_settings(
        catalog.own,
        (
            "imagenet",
            "labels",
            "model_file",
            "network",
            "image_size",
            "trust_network",
            "trust_checkpoint",
            "store",
        ),
    )
)
_catalog.command("draft")(catalog.from_guide)
app.add_typer(_catalog, name="catalog")
app.command()(takes_settings(history.trend, ("runs", "catalog")))
app.command()(takes_settings(history.merge, ("catalog", "lang")))
_baselines = _commands("Figures of baselines.yaml against measurements.")
_baselines.command()(takes_settings(history.propose, ("catalog", "lang")))
_baselines.command()(takes_settings(history.check, ("runs", "catalog")))
app.add_typer(_baselines, name="baselines")
# Click's own 2 is that of a run that was interrupted. The class of all errors of usage has no
# public name in typer, but it is that of a bad parameter, less the parameter.
_usage_error: Any = typer.BadParameter.__base__
_usage_error.exit_code = int(Exit.INPUT_ERROR)


def main() -> None:
    """Entry of the command."""
    installed = Path(sys.argv[0]).stem == "npu-accept"
    app(prog_name="npu-accept" if installed else "python -m harness")


if __name__ == "__main__":
    main()
