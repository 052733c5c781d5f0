"""The packed array holds exactly what the PNGs hold, and is redone when the site changes."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from tiny import SIZE, rewrite_site, tiny_cohort

from fl_rsna.cohort.sites.site_folders import Cohort
from fl_rsna.imaging.png_store import read_png
from fl_rsna.learning.data.dataset import count_batches, gather, open_site, train_batches
from fl_rsna.settings.data import ImageKind


def test_pack_is_the_images_in_index_order(cohort: Cohort) -> None:
    folder = cohort.site_folder("site-1")
    data = open_site(folder, image_size=SIZE)
    index = pd.read_csv(folder / "index.csv")
    assert len(data.images) == len(index) == len(data.labels)
    for row, image_id in enumerate(index["image_id"]):
        np.testing.assert_array_equal(data.images[row], read_png(folder / "images" / f"{image_id}.png"))
    np.testing.assert_array_equal(data.labels, index[list(cohort.labels)].to_numpy(np.float32))
    assert sorted([*data.rows("train"), *data.rows("validation")]) == list(range(len(index)))


def test_pack_is_made_once_and_again_when_the_index_changes(own_cohort: Cohort) -> None:
    folder = own_cohort.site_folder("site-2")
    open_site(folder, image_size=SIZE)
    [packed] = (folder / "packed").iterdir()
    made = packed.stat().st_mtime_ns
    open_site(folder, image_size=SIZE)
    assert packed.stat().st_mtime_ns == made
    index = pd.read_csv(folder / "index.csv").iloc[1:]
    rewrite_site(folder, index)
    assert len(open_site(folder, image_size=SIZE).images) == len(index)
    assert len(list((folder / "packed").iterdir())) == 2, "another run may use the old one"
    assert packed.exists()


def test_cache_elsewhere_leaves_the_site_folder_alone(own_cohort: Cohort, tmp_path: Path) -> None:
    folder = own_cohort.site_folder("site-3")
    open_site(folder, image_size=SIZE, cache=tmp_path / "cache")
    assert not (folder / "packed").exists()
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_missing_image_and_missing_site_are_one_sentence(own_cohort: Cohort, tmp_path: Path) -> None:
    folder = own_cohort.site_folder("site-1")
    next((folder / "images").iterdir()).unlink()
    with pytest.raises(ValueError, match="prepare the data again"):
        open_site(folder, image_size=SIZE)
    assert list((folder / "packed").iterdir()) == []
    with pytest.raises(ValueError, match="partition again"):
        open_site(tmp_path, image_size=SIZE)


def test_empty_site_is_refused(own_cohort: Cohort) -> None:
    path = own_cohort.site_folder("site-1") / "index.csv"
    path.write_text(path.read_text().splitlines()[0] + "\n")
    rewrite_site(path.parent)
    with pytest.raises(ValueError, match="site-1, got an empty"):
        open_site(path.parent, image_size=SIZE)


@pytest.mark.parametrize(("rows", "batch"), [(10, 3), (17, 16), (1, 8), (33, 16)])
def test_batches_are_a_permutation_of_even_size(rows: int, batch: int) -> None:
    batches = list(train_batches(np.arange(rows) * 2, batch, np.random.default_rng(0)))
    assert sorted(np.concatenate(batches)) == [2 * row for row in range(rows)]
    assert max(map(len, batches)) - min(map(len, batches)) <= 1
    again = list(train_batches(np.arange(rows) * 2, batch, np.random.default_rng(0)))
    assert all((a == b).all() for a, b in zip(batches, again, strict=True))


def test_no_batch_is_of_one_slice_and_no_other_number_of_batches_changed() -> None:
    for slices in range(2, 501):
        for batch in range(2, 65):
            evenly = max(1, round(slices / batch))
            count = count_batches(slices, batch)
            least, most = slices // count, -(-slices // count)
            assert most - least <= 1
            assert least >= 2
            assert count == evenly or slices // evenly == 1


def test_batches_of_one_series_are_batches_of_one_where_asked_for() -> None:
    """A head along series has no BatchNorm."""
    assert [count_batches(series, 1) for series in (1, 2, 7)] == [1, 2, 7]


def test_gather_gives_stored_values(tmp_path: Path, cohort: Cohort) -> None:
    data = open_site(cohort.site_folder("site-1"), image_size=SIZE)
    batch = gather(data.images, np.array([2, 0]), torch.device("cpu"))
    assert batch.shape == (2, 1, SIZE, SIZE)
    np.testing.assert_array_equal(batch[:, 0].numpy(), data.images[[2, 0]].astype(np.float32))
    windowed = tiny_cohort(tmp_path, image=ImageKind.windows)
    colour = open_site(windowed.site_folder("site-1"), image_size=SIZE)
    batch = gather(colour.images, np.array([1]), torch.device("cpu"))
    assert batch.shape == (1, 3, SIZE, SIZE)
    np.testing.assert_array_equal(batch[0].permute(1, 2, 0).numpy(), colour.images[1].astype(np.float32))


def test_all_of_sixteen_bits_are_read() -> None:
    stored = np.array([[[0, 4095], [40000, 65535]]], np.uint16)
    found = gather(stored, np.array([0]), torch.device("cpu"))
    np.testing.assert_array_equal(found, [[[[0, 4095], [40000, 65535]]]])


def test_an_empty_series_is_no_exam_of_its_own(own_cohort: Cohort) -> None:
    """Its slices are of their study or, without one, each by itself."""
    folder = own_cohort.site_folder("site-1")
    index = pd.read_csv(folder / "index.csv", dtype=str)
    one, other = index["patient_id"].unique()[:2]
    index.loc[index["patient_id"].isin([one, other]), "series_id"] = ""
    index.loc[index["patient_id"] == other, "study_id"] = ""
    rewrite_site(folder, index)
    found = open_site(folder, image_size=SIZE).index
    of_one, of_other = found[found["patient_id"] == one], found[found["patient_id"] == other]
    assert (of_one["series_id"] == of_one["study_id"]).all()
    assert (of_other["series_id"] == of_other["image_id"]).all()
