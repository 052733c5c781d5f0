"""An exam is positive when any slice is, and its probability does not depend on the order of slices."""

import numpy as np

from fl_rsna.learning.metrics.exams import Aggregate, aggregates, exam_probabilities, group_exams
from fl_rsna.task import LabelKind

PATIENTS = np.array(["a", "b", "a", "a", "b"])
SERIES = np.array(["s1", "s1", "s1", "s2", "s1"])  # two patients use the name s1
LABELS = np.array([[0, 0], [0, 1], [1, 0], [0, 0], [0, 0]], np.float32)
FOUND = np.array([[0.5, 0.1], [0.2, 0.9], [0.5, 0.2], [0.3, 0.0], [0.4, 0.0]], np.float32)


def test_exams_by_hand() -> None:
    exams = group_exams(LABELS, PATIENTS, SERIES)
    assert exams.patients.tolist() == ["a", "a", "b"]
    np.testing.assert_array_equal(exams.labels, [[1, 0], [0, 0], [0, 1]])
    np.testing.assert_allclose(exam_probabilities(FOUND, exams, Aggregate.max), [[0.5, 0.2], [0.3, 0], [0.4, 0.9]])
    np.testing.assert_allclose(
        exam_probabilities(FOUND, exams, Aggregate.noisy_or), [[0.75, 0.28], [0.3, 0], [0.52, 0.9]], rtol=1e-6
    )


def test_an_exam_without_a_positive_slice_is_negative_only_where_all_are_known() -> None:
    labels = np.array([[0, 0], [0, 1], [np.nan, 0], [np.nan, np.nan], [np.nan, np.nan]], np.float32)
    found = group_exams(labels, PATIENTS, SERIES).labels
    np.testing.assert_array_equal(found, [[np.nan, 0], [np.nan, np.nan], [np.nan, 1]])


def test_one_image_of_known_class_tells_the_class_of_its_exam() -> None:
    nobody = [np.nan, np.nan]
    labels = np.array([nobody, [0, 1], [1, 0], nobody, nobody], np.float32)
    found = group_exams(labels, PATIENTS, SERIES, LabelKind.multi_class).labels
    np.testing.assert_array_equal(found, [[1, 0], nobody, [0, 1]])


def test_classes_of_an_exam_are_the_mean_of_its_images_and_add_up() -> None:
    found = np.array([[0.7, 0.3], [0.2, 0.8], [0.1, 0.9], [0.5, 0.5], [0.6, 0.4]], np.float32)
    exams = group_exams(LABELS, PATIENTS, SERIES)
    mean = exam_probabilities(found, exams, Aggregate.mean)
    np.testing.assert_allclose(mean, [[0.4, 0.6], [0.5, 0.5], [0.4, 0.6]], rtol=1e-6)
    np.testing.assert_allclose(mean.sum(1), 1, rtol=1e-6)


def test_findings_of_images_are_not_averaged_and_classes_are_not_alarms() -> None:
    assert aggregates(LabelKind.multi_label) == (Aggregate.max, Aggregate.noisy_or)
    assert aggregates(LabelKind.multi_class) == (Aggregate.mean,)


def test_noisy_or_is_at_least_the_max_and_keeps_small_probabilities() -> None:
    one = group_exams(np.zeros((1000, 1), np.float32), np.zeros(1000), np.zeros(1000))
    tiny = np.full((1000, 1), 1e-12)
    np.testing.assert_allclose(exam_probabilities(tiny, one, Aggregate.noisy_or), [[1e-9]], rtol=1e-6)
    assert exam_probabilities(tiny, one, Aggregate.max)[0, 0] == 1e-12
    certain = np.r_[tiny[:-1], [[1.0]]]
    assert exam_probabilities(certain, one, Aggregate.noisy_or)[0, 0] == 1.0
