"""What the guides published for a run's models: kept in the `run` line for later reports.

A report is rendered years later, without `baselines.yaml`. A run that is not real carries no
published figure, so that no page of it can show one.
"""

from __future__ import annotations

from collections.abc import Iterable

from harness.base.terms import Provenance
from harness.catalog.schema import Baseline, Catalog, Model, Published
from harness.records.lines import GuideFigures, PublishedSpeed


def guide_figures(
    catalog: Catalog, models: Iterable[str], provenance: Provenance
) -> dict[str, GuideFigures]:
    """Return the published figures of `models`, by model; none for a run that is not real.

    Models that the catalog does not know are left out.
    """
    if provenance != "real":
        return {}
    known = [catalog.models[name] for name in dict.fromkeys(models) if name in catalog.models]
    pairs = [(model, model.published) for model in known]
    return {one.id: _of_model(catalog, one, found) for one, found in pairs if found is not None}


def _of_model(catalog: Catalog, model: Model, published: Published) -> GuideFigures:
    rule = model.accuracy_rule
    speeds = tuple(
        _of_baseline(baseline)
        for target in dict.fromkeys(table.target for table in model.throughput)
        for baseline in model.baselines(target).values()
        if baseline.provenance == "real"
    )
    # The guide, and the editions of it that some figure is from.
    editions = {one.source for one in speeds if catalog.sources[one.source].edition_of}
    named = (model.guide, *sorted(editions))
    titles = [catalog.sources[name].title for name in named if name in catalog.sources]
    return GuideFigures(
        title=model.title,
        guide="; ".join(titles),
        top1=published.top1,
        source=published.source,
        note=published.note,
        tolerance_percent=rule.tolerance_percent,
        side=rule.side,
        speeds=speeds,
    )


def _of_baseline(baseline: Baseline) -> PublishedSpeed:
    return PublishedSpeed(
        target=baseline.target,
        batch_size=baseline.batch_size,
        fps=baseline.fps,
        unit=baseline.unit,
        chips=baseline.factor,
        chip=baseline.chip,
        source=baseline.source,
        judged=baseline.judged,
        not_comparable=baseline.not_comparable,
    )
