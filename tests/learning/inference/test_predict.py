"""Slices scored from their PNGs, and exams made of slices."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from fl_rsna.cohort.sites.site_folders import Cohort
from fl_rsna.learning.data.dataset import open_site
from fl_rsna.learning.inference.predict import exam_table, score_images
from fl_rsna.learning.models.classifier import build_model
from fl_rsna.learning.models.saved import SavedModel, read_saved, write_saved
from fl_rsna.learning.training.train import predict
from fl_rsna.settings.data import ImageKind
from fl_rsna.settings.model import ModelConfig
from fl_rsna.task import COVID_CXR, ICH

CPU = torch.device("cpu")


@pytest.fixture
def saved(tmp_path: Path) -> SavedModel:
    config = ModelConfig(image_size=32)  # ImageNet's weights: an untrained network sees no difference at all
    network = build_model(config, ICH, ImageKind.hu, seed=1)
    torch.nn.init.normal_(network.backbone._fc.weight)  # so that slices differ
    write_saved(
        tmp_path / "m.safetensors", network, task="ich", image=ImageKind.hu, png_size=32, config=config, facts={}
    )
    return read_saved(tmp_path / "m.safetensors")


def test_a_png_gets_the_probabilities_it_has_at_its_site(cohort: Cohort, saved: SavedModel) -> None:
    folder, told = cohort.site_folder("site-1"), []
    data = open_site(folder, image_size=32)
    expected = predict(saved.network, data, np.arange(len(data.index)), task=ICH, batch_size=64, device=CPU)
    found = score_images(saved, folder / "images", data.index, CPU, lambda done, total: told.append((done, total)))
    np.testing.assert_array_equal(found, expected)
    assert np.ptp(found, axis=0).min() > 0
    assert told == [(0, len(data.index)), (len(data.index), len(data.index))]


def test_a_model_that_diverged_is_named(saved: SavedModel, cohort: Cohort) -> None:
    torch.nn.init.constant_(saved.network.backbone._fc.bias, float("nan"))
    folder = cohort.site_folder("site-1")
    index = open_site(folder, image_size=32).index[:1]
    with pytest.raises(FloatingPointError, match="not finite"):
        score_images(saved, folder / "images", index, CPU, lambda done, total: None)


INDEX = pd.DataFrame(
    {"patient_id": ["a", "b", "a", "b"], "study_id": ["t", "u", "t", "u"], "series_id": ["s", "s", "s", "s"]}
)
FOUND = np.array([[0.5], [0.1], [0.2], [0.0]])
ONE = replace(ICH, labels=("any",), published=("any",), label_weights=(1.0,))


def test_exams_by_hand() -> None:
    """One name of a series at two patients is two exams."""
    table = exam_table(INDEX, FOUND, None, ONE)
    assert list(table.columns) == ["patient_id", "study_id", "series_id", "slices", "max_any", "noisy_or_any"]
    assert table["patient_id"].tolist() == ["a", "b"]
    np.testing.assert_allclose(table["max_any"], [0.5, 0.1])
    np.testing.assert_allclose(table["noisy_or_any"], [1 - 0.5 * 0.8, 0.1])


@pytest.mark.parametrize(
    ("known", "expected"),
    [([1, 0, 0, 0], [1, 0]), ([1, 0, np.nan, 0], [1, 0]), ([0, 0, np.nan, 0], [np.nan, 0])],
)
def test_an_exam_is_positive_when_a_slice_is_and_unknown_when_one_may_be(known: list[float], expected: list) -> None:
    table = exam_table(INDEX, FOUND, np.array(known, np.float32)[:, None], ONE)
    np.testing.assert_array_equal(table["label_any"].to_numpy(float), expected)


def test_an_exam_of_classes_is_a_study_with_the_mean_of_its_images() -> None:
    index = INDEX.assign(series_id=["1", "2", "3", "4"])
    found = np.array([[0.7, 0.1, 0.1, 0.1], [0.25] * 4, [0.1, 0.7, 0.1, 0.1], [0.25] * 4])
    table = exam_table(index, found, None, COVID_CXR)
    assert list(table.columns[:3]) == ["patient_id", "study_id", "slices"]
    assert list(table.columns[3:]) == [f"mean_{label}" for label in COVID_CXR.labels]
    np.testing.assert_allclose(table.iloc[:, 3:].to_numpy(float), [[0.4, 0.4, 0.1, 0.1], [0.25] * 4])


def test_a_certain_slice_makes_its_exam_certain() -> None:
    table = exam_table(INDEX, np.array([[1.0], [0.1], [0.2], [0.0]]), None, ONE)
    assert table["noisy_or_any"].tolist()[0] == 1.0
