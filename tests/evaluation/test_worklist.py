"""The page of new scans: every exam in the order of its probability, the first ones with images, and nothing from elsewhere."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from dicom_files import write_tiny
from saved_runs import SETTINGS, write_tiny_model, write_tiny_run
from tiny import tiny_cohort

from fl_rsna.cohort.sites.site_folders import Cohort
from fl_rsna.evaluation.ensemble import ensemble
from fl_rsna.evaluation.evaluate import evaluate
from fl_rsna.evaluation.inputs import Scored, score
from fl_rsna.evaluation.load_model import read_named_model
from fl_rsna.evaluation.settings import EnsembleConfig, EvaluateConfig, PageConfig, ScansConfig, check_request
from fl_rsna.evaluation.worklist import mean_heat
from fl_rsna.settings.data import ImageKind, PrepareConfig
from fl_rsna.settings.partition import TEST_SITE
from fl_rsna.task import COVID_CXR


def ignore(what: str, done: int, total: int) -> None:
    pass


def rows_of(page: str) -> list[list[str]]:
    """The cells of the worklist as text, a list a row; the patient stands below the exam and is left out."""
    table = page[page.index("<tbody>") : page.index("</tbody>")]
    return [
        [re.sub("<small>.*?</small>|<[^>]+>", "", cell).strip() for cell in re.findall(r"<td.*?</td>", row, re.S)]
        for row in table.split("<tr>")[1:]
    ]


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The evaluation of the test site of a tiny cohort, with images of two exams, and its page."""
    folder = tmp_path_factory.mktemp("worklist")
    cohort = tiny_cohort(folder / "tiny")
    run = write_tiny_run(folder / "run", cohort, SETTINGS)
    asked = EvaluateConfig(
        model=str(run),
        site=str(cohort.site_folder(TEST_SITE)),
        out=str(folder / "out"),
        page=PageConfig(exams=2, slices=3, heats=1),
    )
    out = evaluate(asked, ignore)
    return out, (out / "evaluation.html").read_text()


def test_the_worklist_holds_every_exam_by_falling_probability(labelled: tuple[Path, str]) -> None:
    out, page = labelled
    exams, rows = pd.read_csv(out / "exams.csv"), rows_of(page)
    falling = exams.sort_values("max_any", ascending=False, kind="stable")
    assert [row[1] for row in rows] == list(falling["series_id"])
    assert [row[3] for row in rows] == [f"{value:.3f}" for value in falling["max_any"]]
    assert [row[4] == "yes" for row in rows] == list(falling["max_any"] >= 0.2)  # Youden has no threshold in SETTINGS


def test_the_first_exams_have_images_and_few_slices_have_heat(labelled: tuple[Path, str]) -> None:
    _, page = labelled
    assert page.count('<figure class="strip"') == 2
    assert page.count('type="radio"') == 2 * 3
    assert page.count("data-heat=") == 2 * 1
    assert "Images of the first 2 of" in page


def test_the_page_says_what_it_is_and_loads_nothing(labelled: tuple[Path, str]) -> None:
    out, page = labelled
    assert "For research, not for diagnosis." in page
    assert "This page holds images" in page
    body = page.partition("<script")[0]
    for source in re.findall(r'src="([^"]*)"', body):
        assert source.startswith("data:image/")
    for link in re.findall(r'href="([^"#][^"]*)"', page.partition('<script type="text/plain"')[0]):
        assert (out / link).exists(), link


def test_with_labels_the_page_has_the_sections_on_scores(labelled: tuple[Path, str]) -> None:
    _, page = labelled
    for anchor in ("scorecard", "points", "calibration"):
        assert f'<h2 id="{anchor}">' in page
    assert "Final model on these exams" in page
    assert "test site" not in page.partition('<script type="application/json"')[0]


def test_scans_that_are_forgotten_afterwards_have_their_images_on_the_page(tmp_path: Path) -> None:
    """Two models on DICOM files without labels: a worklist, no scores, no plots, and no prepared folder is left."""
    for exam, heights in {"SE1": (0, 5, 10), "SE2": (0, 5)}.items():
        for z in heights:
            write_tiny(tmp_path / "scans" / f"{exam}-{z}.dcm", f"{exam}-{z}", f"P{exam}", exam, float(z))
    asked = EnsembleConfig(
        models=[str(write_tiny_model(tmp_path / f"{n}.safetensors", seed=n)) for n in (1, 2)],
        weights="equal",
        out=str(tmp_path / "out"),
        data=ScansConfig(dicom=str(tmp_path / "scans"), hash_ids=False),
        prepare=PrepareConfig(workers=1),
    )
    out = ensemble(asked, ignore)
    assert not (out / "prepared").exists()
    page = (out / "evaluation.html").read_text()
    assert {row[1]: row[2] for row in rows_of(page)} == {"SE1": "3", "SE2": "2"}
    assert page.count('type="radio"') == 5
    assert page.count("data-heat=") == 5
    assert '<h2 id="scorecard">' not in page
    assert "labelled" not in page.partition("</thead>")[0]
    assert 'id="plotly"' not in page
    assert "The model has no threshold" in page
    assert 'href="ensemble.json"' in page


def test_films_have_a_page_as_well(tmp_path: Path) -> None:
    cohort = tiny_cohort(tmp_path / "films", COVID_CXR, ImageKind.grey, patients=24, slices=2)
    model = write_tiny_model(tmp_path / "model.safetensors", ImageKind.grey, task=COVID_CXR)
    site = str(cohort.site_folder(TEST_SITE))
    out = evaluate(EvaluateConfig(model=str(model), site=site, out=str(tmp_path / "out")), ignore)
    page = (out / "evaluation.html").read_text()
    typical = pd.read_csv(out / "exams.csv")["mean_typical"].sort_values(ascending=False)
    assert [row[3] for row in rows_of(page)] == [f"{value:.3f}" for value in typical]
    assert '<h2 id="classes">' in page
    assert "from the feet to the head" not in page


def test_no_page_is_written_where_none_is_asked_for(tmp_path: Path, cohort: Cohort) -> None:
    model, site = write_tiny_model(tmp_path / "model.safetensors"), str(cohort.site_folder(TEST_SITE))
    asked = EvaluateConfig(model=str(model), site=site, out=str(tmp_path / "out"), page=PageConfig(exams=0))
    assert not (evaluate(asked, ignore) / "evaluation.html").exists()


@pytest.mark.parametrize("changes", [{"exams": -1}, {"slices": 0}, {"heats": -1}])
def test_settings_of_the_page_out_of_range_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"page\.exams"):
        check_request(EvaluateConfig(model="m", site="s", page=PageConfig(**changes)))


def test_the_heat_of_two_models_is_their_mean_and_that_of_a_slice_is_its_own(tmp_path: Path, cohort: Cohort) -> None:
    """Whatever slices it is computed with."""
    models = [read_named_model(str(write_tiny_model(tmp_path / f"{n}.safetensors", seed=n))) for n in (1, 2)]
    device = torch.device("cpu")
    asked = EvaluateConfig(site=str(cohort.site_folder(TEST_SITE)))
    scored: Scored = score(asked, models[0], device, tmp_path, ignore)
    rows = np.array([5, 2])
    one, other, both = (
        mean_heat(scored, [model.saved for model in of], rows, "any", device) for of in (models[:1], models[1:], models)
    )
    np.testing.assert_allclose(both, (one + other) / 2, atol=1e-6)
    alone = mean_heat(scored, [models[0].saved], rows[1:], "any", device)
    np.testing.assert_allclose(alone[0], one[1], atol=1e-6)
