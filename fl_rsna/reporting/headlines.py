"""What a reader wants first: the AUROC, the gap to pooling, the worst site."""

from typing import Any

from fl_rsna.reporting.cells import Kind, said
from fl_rsna.reporting.site_scores import by_site, defined_areas, spread
from fl_rsna.reporting.tables import RunRecord

Headline = dict[str, Any]  # name, text, note, and the estimate or number the text states


def headlines(run: RunRecord) -> list[Headline]:
    """The headline figures of a run that has a final model, the most important first."""
    if not run.finished:
        return []
    if run.test_site is None:
        return _alone(run)
    test = run.test_site
    area = test["slice"][run.headline]["auroc"]
    resting = f"95% interval over {test['patients']} patients, {area['positives']} of {test['slices']} slices positive"
    found = [_headline(f"test-site AUROC, {run.headline}", area, Kind.score, resting)]
    found += [_gap(name, by_label[run.headline]["difference"]) for name, by_label in _gaps(run).items()]
    found += _worst(run)
    control = test["controls"]["position"][run.headline]["auroc"]
    found.append(
        _headline(
            "from slice position alone", control, Kind.score, "what a model must beat to have looked at the image"
        )
    )
    return [*found, _headline("weighted log loss", test["log_loss"], Kind.score, _chosen(run))]


def _gaps(run: RunRecord) -> dict[str, Any]:
    return {name: found for name, found in run.gap.items() if name in ("central", "local")}


def _gap(name: str, difference: dict[str, Any]) -> Headline:
    match name:
        case "central":
            return _headline(
                "gap to pooled data",
                difference,
                Kind.signed,
                "AUROC minus that of all sites' data in one place, paired",
            )
        case _:
            return _headline(
                "gain over the sites alone",
                difference,
                Kind.signed,
                "AUROC minus the mean of the sites' own models, paired",
            )


def _worst(run: RunRecord) -> list[Headline]:
    """The worst site's AUROC: of the final model with its interval, or, of an older run, of its last round."""
    found = spread(defined_areas(run))
    if found is None:
        return []
    if cards := by_site(run):
        area = cards[found["worst"]]["auroc"]
        note = f"{found['worst']}, its validation part: {area['positives']} slices positive"
        return [_headline("worst site, AUROC", area, Kind.score, note)]
    note = f"{found['worst']}, its validation part in the last round"
    return [_headline("worst site, AUROC", found["least"], Kind.score, note)]


def _alone(run: RunRecord) -> list[Headline]:
    """Of sites alone: the best and the worst of their models on the test site."""
    alone = (run.summary or {}).get("alone", {})
    areas = {site: of["test_site"]["slice"][run.headline]["auroc"] for site, of in alone.items()}
    order = sorted(
        (site for site in areas if areas[site]["value"] is not None), key=lambda site: float(areas[site]["value"])
    )
    return [
        _headline(f"{name} site's own model, test-site AUROC, {run.headline}", areas[site], Kind.score, site)
        for name, site in (zip(("best", "worst"), (order[-1], order[0]), strict=True) if order else ())
    ]


def _chosen(run: RunRecord) -> str:
    summary = run.summary or {}
    anew = "; BatchNorm statistics estimated anew for it" if summary.get("recalibrated") else ""
    return f"round {summary.get('selected_round')} of {summary.get('rounds')}, chosen by {summary.get('selected_by')}{anew}"


def _headline(name: str, cell: Any, kind: Kind, note: str) -> Headline:
    return {"name": name, "text": said(cell, kind), "note": note, "value": cell}
