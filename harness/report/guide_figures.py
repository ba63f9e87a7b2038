"""What the guides published for a run's models, as the records keep it for later reports.

A report is rendered years later, without `baselines.yaml`: the figures that its tables show
beside the measured ones travel in the `run` line (`guide_figures`). A run that is not real
carries none, so that no page of it could show one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.report import figures

if TYPE_CHECKING:
    from harness.base.terms import Provenance
    from harness.catalog.schema import Baseline, Catalog, Model
    from harness.records.lines import RunLine

MOST_MODELS = 200
MOST_FIGURES = 200


def guide_figures(
    catalog: Catalog, models: Iterable[str], provenance: Provenance
) -> dict[str, Any]:
    """The published figures of `models`, by model; empty for a run that is not real.

    Percent for accuracy, frames a second of one `unit` for throughput. Models that the catalog
    does not know are left out.
    """
    if provenance != "real":
        return {}
    known = [catalog.models[name] for name in dict.fromkeys(models) if name in catalog.models]
    return {model.id: _of_model(catalog, model) for model in known}


def _of_model(catalog: Catalog, model: Model) -> dict[str, Any]:
    accuracy = model.accuracy
    guide = catalog.sources.get(model.guide)
    return {
        "title": model.title,
        "guide": model.guide if guide is None else guide.title,
        "accuracy": {
            "top1": accuracy.published.top1,
            "source": accuracy.published.source,
            "note": accuracy.published.note,
            "tolerance_percent": accuracy.rule.tolerance_percent,
            "side": accuracy.rule.side,
        },
        "throughput": [
            _of_baseline(baseline)
            for target in dict.fromkeys(table.target for table in model.throughput)
            for baseline in model.baselines(target).values()
            if baseline.provenance == "real"
        ],
    }


def _of_baseline(baseline: Baseline) -> dict[str, Any]:
    return {
        "target": baseline.target,
        "batch_size": baseline.batch_size,
        "fps": baseline.fps,
        "unit": baseline.unit,
        "chips": baseline.factor,
        "chip": baseline.chip,
        "source": baseline.source,
        "judged": baseline.judged,
        "not_comparable": baseline.not_comparable,
    }


# Reading them back ---------------------------------------------------------------------------


@dataclass(frozen=True)
class PublishedSpeed:
    """One throughput figure. `chips`: how many one `unit` adds up."""

    target: str
    batch_size: int
    fps: float
    unit: str
    chips: int
    source: str
    not_comparable: str


@dataclass(frozen=True)
class ModelFigures:
    """What is published for one model; `top1` in percent."""

    guide: str
    top1: float | None
    tolerance_percent: float | None
    side: str
    speeds: tuple[PublishedSpeed, ...]


def read_figures(run: RunLine | None) -> Mapping[str, ModelFigures]:
    """The figures in a run line; none where an older harness kept none, or for a run not real."""
    if run is None or run.provenance != "real":
        return {}
    # Any JSON may stand there: a record is read, not trusted.
    found = figures.mapping(getattr(run, "guide_figures", None))
    return {
        name: _read_model(figures.mapping(value))
        for name, value in list(found.items())[:MOST_MODELS]
    }


def _read_model(data: Mapping[str, Any]) -> ModelFigures:
    accuracy = figures.mapping(data.get("accuracy"))
    throughput = data.get("throughput")
    return ModelFigures(
        guide=figures.line(str(data.get("guide") or ""), 120),
        top1=figures.number(accuracy.get("top1")),
        tolerance_percent=figures.number(accuracy.get("tolerance_percent")),
        side=str(accuracy.get("side") or "both"),
        speeds=tuple(
            speed
            for item in (throughput if isinstance(throughput, list) else [])[:MOST_FIGURES]
            if (speed := _read_speed(figures.mapping(item))) is not None
        ),
    )


def _read_speed(data: Mapping[str, Any]) -> PublishedSpeed | None:
    fps, size = figures.number(data.get("fps")), figures.number(data.get("batch_size"))
    if fps is None or size is None or fps <= 0:
        return None
    return PublishedSpeed(
        target=figures.line(str(data.get("target") or ""), 60),
        batch_size=int(size),
        fps=fps,
        unit=figures.line(str(data.get("unit") or "chip"), 20),
        chips=max(1, int(figures.number(data.get("chips")) or 1)),
        source=figures.line(str(data.get("source") or ""), 60),
        not_comparable=figures.line(str(data.get("not_comparable") or ""), 300),
    )
