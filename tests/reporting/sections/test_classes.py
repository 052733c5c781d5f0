"""A run of classes is judged by all of them together: on its page, in report.json, in the paper, and beside other runs."""

import functools
import html
import json
import re
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from edited import write_hashed
from made_runs import made_run
from tiny import tiny_cohort, tiny_config

from fl_rsna.cohort.sites.site_folders import Cohort, read_cohort
from fl_rsna.federation.engines.local import run_local
from fl_rsna.federation.protocol.minimum_count import suppress_card
from fl_rsna.federation.server_app import make_server_app
from fl_rsna.federation.site.client_app import app_for_cohort
from fl_rsna.learning.inference.predict import labels_in, probabilities_in
from fl_rsna.reporting.pages.comparison import compare_runs, readable_runs
from fl_rsna.reporting.pages.run_page import write_report
from fl_rsna.reporting.record.run_record import read_run
from fl_rsna.reporting.record.wording import plural
from fl_rsna.reporting.sections.classes import initials
from fl_rsna.reporting.sections.sites import find_site_aurocs
from fl_rsna.run_folder.run_folder import start_run
from fl_rsna.task import COVID_CXR, ICH

FIGURES = ("accuracy", "balanced_accuracy", "macro_auroc", "mean_average_precision")


@pytest.fixture(scope="module")
def chest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of four classes, and beside it another seed's."""
    folder = tmp_path_factory.mktemp("chest")
    cohort = tiny_cohort(folder, COVID_CXR, num_sites=2, patients=60, slices=2)
    return run(cohort, folder / "runs" / "a", seed=0)


def run(cohort: Cohort, folder: Path, seed: int) -> Path:
    config = tiny_config(rounds=1, data__task="covid_cxr", seed=seed)
    server = make_server_app(lambda context: (config, cohort, start_run(folder, config, cohort, "cpu", ())))
    run_local(server, functools.partial(app_for_cohort, cohort.folder, folder / "site_memory"), num_sites=2, workers=0)
    return folder


@pytest.fixture(scope="module")
def page(chest: Path) -> str:
    """What a browser shows of the report."""
    found = re.sub(r"<(script|style)\b.*?</\1>", "", write_report(chest).read_text(), flags=re.DOTALL)
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", found)))


def told(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "report.json").read_text()))


def table_of(found: dict[str, Any]) -> list[dict[str, Any]]:
    names = [column["name"] for column in found["columns"]]
    return [dict(zip(names, row, strict=True)) for row in found["rows"]]


def test_the_summary_holds_figures_and_the_scorecards_all(chest: Path) -> None:
    summary, cards = (json.loads((chest / name).read_text()) for name in ("summary.json", "scorecards.json"))
    for brief, card in [
        (summary["test_site"], cards["test_site"]),
        *((summary["sites"][site], cards["sites"][site]) for site in ("site-1", "site-2")),
    ]:
        for level in ("slice", "exam"):
            assert set(brief["classes"][level]) == set(FIGURES)
            assert brief["classes"][level].items() <= card["classes"][level].items()
            assert set(card["classes"][level]["confusion"]) == set(COVID_CXR.labels)
    table = pd.read_parquet(chest / "predictions.parquet")
    right = labels_in(table, COVID_CXR.labels).argmax(1) == probabilities_in(table, COVID_CXR.labels).argmax(1)
    assert summary["test_site"]["classes"]["slice"]["accuracy"]["value"] == pytest.approx(right.mean())


def test_the_page_begins_with_all_classes(chest: Path, page: str) -> None:
    found, classes = told(chest), read_run(chest).test_site["classes"]  # type: ignore[index]
    lines = {line["name"]: line["value"] for line in found["headlines"]}
    assert list(lines)[:3] == ["macro AUROC (test site, images)", "balanced accuracy", "study mAP"]
    assert lines["macro AUROC (test site, images)"] == classes["slice"]["macro_auroc"]
    assert lines["study mAP"] == classes["exam"]["mean_average_precision"]
    for name in list(lines)[:3]:
        assert name in page
    assert f"{classes['slice']['macro_auroc']['value']:.3f}" in page


def test_accuracy_by_class_has_initials_and_a_total(chest: Path, page: str) -> None:
    classes = read_run(chest).test_site["classes"]  # type: ignore[index]
    for level, found in zip(("slice", "exam"), told(chest)["classes"]["by_class"], strict=True):
        rows = table_of(found)
        assert [row["class"] for row in rows] == ["AA", "IA", "NFP", "TA", "total"]
        assert [*rows[0]] == ["class", "n", "accuracy, %", "95% interval"]
        assert rows[-1]["n"] == sum(row["n"] for row in rows[:-1])
        assert rows[-1]["accuracy, %"] == classes[level]["accuracy"]["value"]
        assert rows[0]["accuracy, %"] == classes[level]["classes"]["atypical"]["accuracy"]["value"]
        weighted = sum(row["n"] * row["accuracy, %"] for row in rows[:-1]) / rows[-1]["n"]
        assert weighted == pytest.approx(rows[-1]["accuracy, %"])
    low, high = (100 * classes["slice"]["accuracy"][side] for side in ("low", "high"))
    assert f"{low:.1f} to {high:.1f}" in page
    assert "AA : Atypical Appearance" in page or "AA: Atypical Appearance" in page


@pytest.mark.usefixtures("page")
def test_the_confusion_matrix_is_a_plot_with_its_numbers(chest: Path) -> None:
    """Two levels to choose from; shares of a row add up to 1 and counts to what there is."""
    (plot,) = told(chest)["classes"]["plots"]
    assert plot["choices"] == ["Images", "Studies"] == [trace["meta"]["choice"] for trace in plot["data"]]
    summary = json.loads((chest / "summary.json").read_text())["test_site"]
    for trace, rows in zip(plot["data"], (summary["slices"], summary["exams"]), strict=True):
        shown = table_of(
            {**plot["table"], "rows": [r for r in plot["table"]["rows"] if r[0] == trace["meta"]["choice"]]}
        )
        assert trace["y"] == [row["true class"] for row in shown] == trace["x"]
        counts = [[row[f"as {name}"] for name in trace["x"]] for row in shown]
        assert sum(map(sum, counts)) == rows
        assert [[row[f"% as {name}"] for name in trace["x"]] for row in shown] == trace["z"]
        np.testing.assert_allclose(np.sum(trace["z"], axis=1), 1)
        assert [[int(text.split("<br>")[0].replace(",", "")) for text in texts] for texts in trace["text"]] == counts


def test_a_page_of_radiographs_speaks_of_images_and_studies(page: str) -> None:
    said = page.split("Every setting")[0]  # settings keep their names
    assert not re.findall(r"\b(slices?|exams?|blood|HU)\b", said, flags=re.IGNORECASE)
    assert "Study level (mean)" in page


def test_the_paper_has_the_same_tables(chest: Path, page: str) -> None:
    found, tex = ((chest / name).read_text() for name in ("paper.md", "paper.tex"))
    for title in ("Accuracy by class. Studies", "Confusion matrix. Images", "All classes together, on the test site"):
        assert f"## {title}" in found
        assert rf"\caption{{{title}}}" in tex
    assert "| class | n | accuracy, % | 95% interval |" in found
    assert r"class & n & accuracy, \% & 95\% interval" in tex
    assert "slice" not in found


def test_runs_of_classes_are_compared_by_all_of_them(chest: Path) -> None:
    """Against itself nothing differs; the curve by round is the mean of the classes' own."""
    other = run(read_cohort(chest.parents[1] / "sites"), chest.parent / "b", seed=1)
    found = asdict(compare_runs(readable_runs([chest, other])[0]))
    assert found["headline"] == "macro"
    rows = table_of(found["differences"])
    areas = [read_run(folder).test_site["classes"]["slice"]["macro_auroc"] for folder in (chest, other)]  # type: ignore[index]
    assert [row["AUROC"]["value"] for row in rows] == [area["value"] for area in areas]
    assert rows[1]["minus a"]["value"] == pytest.approx(areas[1]["value"] - areas[0]["value"])
    assert rows[1]["minus a"]["paired"]
    rounds = read_run(chest).rounds
    expected = rounds[[f"test_auroc_{label}" for label in COVID_CXR.labels]].mean(axis=1)
    (plot,) = [plot for plot in found["plots"] if plot["name"] == "rounds"]
    assert [row["a"] for row in table_of(plot["table"])] == pytest.approx(expected.tolist())
    assert rounds["test_auroc_macro"].iloc[-1] == pytest.approx(areas[0]["value"])


def test_rounds_sites_and_controls_are_judged_by_all_classes_too(chest: Path, page: str) -> None:
    """rounds.csv and sites.csv have the mean; the worst site and what never looks at the picture are measured by it."""
    rounds, sites = (pd.read_csv(chest / f"{name}.csv") for name in ("rounds", "sites"))
    assert "validation_auroc_macro" in rounds
    told_by = sites[sites["phase"] == "validation"]
    areas = [json.loads(text) for text in told_by["aurocs"]]
    for area in areas:
        assert area["auroc_macro"] == pytest.approx(np.mean([area[f"auroc_{label}"] for label in COVID_CXR.labels]))
    weights = told_by["num-examples"]
    mean = np.average([area["auroc_macro"] for area in areas], weights=weights)
    assert rounds["validation_auroc_macro"].iloc[-1] == pytest.approx(mean)

    run_, found = read_run(chest), told(chest)
    lines = {line["name"]: line for line in found["headlines"]}
    at_sites = {site: card["classes"]["slice"]["macro_auroc"] for site, card in run_.summary["sites"].items()}  # type: ignore[index]
    worst = min(at_sites, key=lambda site: at_sites[site]["value"])
    assert lines["worst site, macro AUROC"]["value"] == at_sites[worst]
    assert lines["worst site, macro AUROC"]["note"].startswith(worst)
    control = run_.test_site["controls"]["view"]  # type: ignore[index]
    assert lines["from view alone"]["value"] == control["macro"]["auroc"]
    alone = [control[label]["auroc"]["value"] for label in COVID_CXR.labels]
    assert control["macro"]["auroc"]["value"] == pytest.approx(np.mean(alone))

    (table,) = found["sites"]["tables"]
    assert {row["site"]: row["macro AUROC"] for row in table_of(table)} == at_sites
    assert "Macro AUROC by site" in page


def test_a_class_that_a_site_withholds_leaves_it_without_a_mean(chest: Path, tmp_path: Path) -> None:
    """The other site still has one; the page says withheld and not 0."""
    folder = tmp_path / "withheld"
    shutil.copytree(chest, folder)
    cards = json.loads((folder / "scorecards.json").read_text())
    card = cards["sites"]["site-1"]
    cards["sites"]["site-1"] = suppress_card(card, k=1 + card["slice"]["typical"]["auroc"]["positives"])
    write_hashed(folder / "scorecards.json", cards)
    found = read_run(folder)
    assert list(find_site_aurocs(found)) == ["site-2"]
    write_report(folder)
    rows = {row["site"]: row["macro AUROC"] for row in table_of(told(folder)["sites"]["tables"][0])}
    assert rows["site-1"] == dict.fromkeys(rows["site-1"])
    assert rows["site-2"]["value"] is not None
    assert "withheld" in (folder / "report.html").read_text()


def test_a_run_of_labels_has_no_classes(tmp_path: Path) -> None:
    folder = made_run(tmp_path / "run")
    shown = write_report(folder).read_text()
    assert told(folder)["classes"] is None
    assert 'id="classes"' not in shown
    assert read_run(folder).primary_label == "any"
    assert "Confusion" not in (folder / "paper.md").read_text()


def test_initials_are_of_the_published_names() -> None:
    assert list(initials(COVID_CXR).values()) == ["NFP", "TA", "IA", "AA"]
    alike = replace(COVID_CXR, published=("Typical One", "Typical Other", "Indeterminate", "Atypical"))
    assert list(initials(alike).values()) == list(alike.published)


def test_words_have_their_plurals() -> None:
    assert [plural(word) for word in (ICH.picture, ICH.exam, COVID_CXR.exam, "series")] == [
        "slices",
        "exams",
        "studies",
        "series",
    ]
