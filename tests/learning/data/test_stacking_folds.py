"""Folds are whole patients of the training part, and one that is left out is in no part."""

import numpy as np
import pytest

from fl_rsna.cohort.partition.partitioners import rarest_labels
from fl_rsna.cohort.sites.site_folders import Cohort
from fl_rsna.learning.data.dataset import SiteData, open_site
from fl_rsna.learning.data.folds import fold_of, without_fold
from fl_rsna.task import ICH


@pytest.fixture(scope="module", params=["site-1", "site-2", "site-3"])
def data(cohort: Cohort, request: pytest.FixtureRequest) -> SiteData:
    return open_site(cohort.site_folder(request.param), image_size=24)


def test_every_training_patient_is_in_one_fold_and_nobody_else_in_any(data: SiteData) -> None:
    fold, train = fold_of(data, ICH, 2, seed=0), data.rows("train")
    assert set(fold[train]) == {0, 1}
    assert set(np.delete(fold, train)) == {-1}
    assert (data.index.iloc[train].groupby("patient_id")["patient_id"].size() > 0).all()
    by_patient = data.index.assign(fold=fold).iloc[train].groupby("patient_id")["fold"].nunique()
    assert (by_patient == 1).all()


def test_no_fold_has_two_more_of_a_rarest_label_than_another(data: SiteData) -> None:
    fold, train = fold_of(data, ICH, 2, seed=0), data.rows("train")
    of_patient = data.index.assign(fold=fold).iloc[train].groupby("patient_id")["fold"].first()
    counts = of_patient.groupby(rarest_labels(data.index.iloc[train], ICH)).value_counts().unstack(fill_value=0)
    assert (counts.max(axis=1) - counts.min(axis=1)).max() <= 1


def test_what_is_left_out_is_in_no_part_and_the_rest_is_as_it_was(data: SiteData) -> None:
    fold, rest = fold_of(data, ICH, 2, seed=0), without_fold(data, ICH, 2, 1, seed=0)
    assert list(rest.rows("train")) == list(np.flatnonzero(fold == 0))
    assert list(rest.rows("validation")) == list(data.rows("validation"))
    assert list(data.rows("train")) == list(np.flatnonzero(fold >= 0))  # the site itself is not changed


def test_another_seed_splits_otherwise_and_the_same_the_same(cohort: Cohort) -> None:
    data = open_site(cohort.site_folder("site-1"), image_size=24)
    folds = [tuple(fold_of(data, ICH, 2, seed=seed)) for seed in range(8)]
    assert len(set(folds)) > 1
    assert folds[0] == tuple(fold_of(data, ICH, 2, seed=0))


def test_more_folds_than_patients_are_refused_by_name(cohort: Cohort) -> None:
    data = open_site(cohort.site_folder("site-1"), image_size=24)
    with pytest.raises(ValueError, match=r"stacking.folds: expected at least 9 training patients at site-1, got \d"):
        fold_of(data, ICH, 9, seed=0)
