"""The first lines of a report: what the model finds on what, in words, and how many exams it finds and calls by mistake."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from made_runs import estimate, made_run

from fl_rsna.reporting.pages.run_page import write_report
from fl_rsna.reporting.record.run_record import read_run
from fl_rsna.reporting.sections.headline import detect_exams

UNDEFINED = estimate(None)


def with_point(folder: Path, exams: int = 52, **change: Any) -> Path:
    """A finished run whose exam-level point of greatest sensitivity + specificity has other counts; None for no threshold."""
    run = made_run(folder)
    path = run / "scorecards.json"
    found = json.loads(path.read_text())
    found["test_site"]["exams"] = exams
    points = found["test_site"]["exam"]["max"]["any"]["points"]
    for name in points if change.get("threshold", 0) is None else ("youden",):
        points[name] = None if change.get("threshold", 0) is None else {**points[name], **change}
    path.write_text(json.dumps(found))
    return run


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            {},
            "Finds 36 of 40 exams with hemorrhage (sensitivity 0.900 [0.850, 0.950]); "
            "16 false alarms in 160 without (specificity 0.900 [0.850, 0.950]).",
        ),
        ({"exams": 50, "tp": 8, "fn": 1, "fp": 1, "tn": 10}, "Finds 8 of 9 patients with hemorrhage (*); 1 false alarm in 11 without (*)."),
        ({"tp": 0, "fn": 9, "fp": 0, "tn": 11}, "Finds none of 9 exams with hemorrhage (*); no false alarm in 11 without (*)."),
        (
            {"tp": 0, "fn": 0, "fp": 2, "tn": 9, "sensitivity": UNDEFINED},
            "The test site has no exams with hemorrhage: sensitivity cannot be known; 2 false alarms in 11 without (*).",
        ),
        (
            {"tp": 9, "fn": 0, "fp": 0, "tn": 0, "specificity": UNDEFINED},
            "Finds 9 of 9 exams with hemorrhage (*); no exams without it, so specificity cannot be known.",
        ),
        ({"threshold": None}, "How many exams with hemorrhage the model finds is not known: no threshold could be chosen."),
    ],
)  # fmt: skip
def test_exams_are_counted_in_words(tmp_path: Path, change: Mapping[str, Any], text: str) -> None:
    found = detect_exams(read_run(with_point(tmp_path / "run", **change)))
    assert found is not None
    rates = ("(sensitivity 0.900 [0.850, 0.950])", "(specificity 0.900 [0.850, 0.950])")
    said = found.text
    for rate in rates if "*" in text else ():
        said = said.replace(rate, "(*)")
    assert said == text
    assert (found.counts is None) == ("threshold" in change)


def with_validation(folder: Path, calls_all: tuple[str, ...], positive_patients: int = 1) -> Path:
    """A finished run of three sites at which these points call every exam of validation positive."""
    run = made_run(folder)
    path = run / "scorecards.json"
    found = json.loads(path.read_text())
    for card in found["sites"].values():
        of = card["exam"]["max"]["any"]
        of["auroc"]["positive_patients"] = positive_patients
        for name in calls_all:
            of["points"][name] |= {"tp": 4, "fp": 12, "tn": 0, "fn": 0}
    path.write_text(json.dumps(found))
    return run


def test_a_threshold_that_calls_every_exam_positive_is_not_quoted(tmp_path: Path) -> None:
    found = detect_exams(read_run(with_validation(tmp_path / "run", ("youden",))))
    assert found is not None
    assert found.text.startswith("Finds 36 of 40 exams")
    assert found.how == (
        "An exam is positive when its highest slice reaches 0.125: sensitivity of at least 0.95, chosen on validation data and never on "
        "test data. Greatest sensitivity + specificity (Youden) is not quoted: its threshold calls every exam of validation positive."
    )


def test_where_every_threshold_calls_all_exams_alike_the_page_says_so(tmp_path: Path) -> None:
    run = with_validation(tmp_path / "run", ("youden", "sensitivity_95", "specificity_90"))
    found = detect_exams(read_run(run))
    assert found is not None
    assert found.text == (
        "The threshold chosen on validation (3 positive patients) calls every exam there positive; "
        "sensitivity and specificity at it say nothing about the model."
    )
    assert found.counts is not None
    assert found.text in write_report(run).read_text()


def test_a_run_without_a_final_model_counts_nothing(tmp_path: Path) -> None:
    (made_run(tmp_path / "run") / "summary.json").unlink()
    assert detect_exams(read_run(tmp_path / "run")) is None


@pytest.mark.parametrize(
    ("settings", "title", "synthetic"),
    [
        ({"data__name": "mine"}, "Intracranial hemorrhage on head CT, federated over 3 sites", False),
        ({"baseline": "central"}, "Intracranial hemorrhage on head CT, data of 3 sites pooled", True),
        ({"data__dicom": "/data"}, "Intracranial hemorrhage on head CT, federated over 3 sites", False),
    ],
)
def test_the_title_says_what_is_found_and_whether_data_are_synthetic(
    tmp_path: Path, settings: dict[str, Any], title: str, synthetic: bool
) -> None:
    page = write_report(made_run(tmp_path / "run", **settings)).read_text()
    assert f"<h1>{title}</h1>" in page
    assert ("SYNTHETIC DATA" in page) == synthetic
    assert f"<title>{'SYNTHETIC DATA: ' if synthetic else ''}{title}: run</title>" in page
