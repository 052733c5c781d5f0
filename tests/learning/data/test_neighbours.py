"""A slice is seen with the slices next to it along its series, and with nobody else's."""

import numpy as np
import pandas as pd
import pytest
import torch
from tiny import SIZE

from fl_rsna.cohort.sites.site_folders import Cohort
from fl_rsna.learning.data.augment import augment
from fl_rsna.learning.data.dataset import Stacked, gather, open_pooled, open_site
from fl_rsna.learning.data.series import join_tables, neighbour_table
from fl_rsna.settings.data import ImageKind
from fl_rsna.settings.model import Crop, ModelConfig
from fl_rsna.settings.training import TrainConfig

CPU = torch.device("cpu")
MIXED = pd.DataFrame(  # in the order of image ids, which is not that of the slices
    {
        "image_id": ["a", "b", "c", "d", "e", "f"],
        "patient_id": ["p", "p", "q", "p", "q", "p"],
        "series_id": ["s", "s", "s", "s", "s", "t"],
        "split": "train",
        "rank": [2, 0, 1, 1, 0, 0],
    }
)


def test_neighbours_by_hand() -> None:
    """p's series s is b d a, q's series of the same name e c, and t has one slice."""
    found = neighbour_table(MIXED, 1)
    assert found.tolist() == [[3, 0, 0], [1, 1, 3], [4, 2, 2], [1, 3, 0], [4, 4, 2], [5, 5, 5]]
    assert neighbour_table(MIXED, 2)[3].tolist() == [1, 1, 3, 0, 0]
    assert (neighbour_table(MIXED, 0)[:, 0] == np.arange(6)).all()


def test_a_series_split_in_two_has_neighbours_in_its_own_part_only() -> None:
    parted = MIXED.assign(split=["train", "train", "test", "validation", "train", "train"])
    assert neighbour_table(parted, 1).tolist() == [[1, 0, 0], [1, 1, 0], [2, 2, 2], [3, 3, 3], [4, 4, 4], [5, 5, 5]]


def test_the_order_of_rows_does_not_matter() -> None:
    order = np.random.default_rng(0).permutation(len(MIXED))
    shuffled = MIXED.iloc[order].reset_index(drop=True)
    found = neighbour_table(shuffled, 1)
    names = shuffled["image_id"].to_numpy()[found]
    expected = MIXED["image_id"].to_numpy()[neighbour_table(MIXED, 1)]
    assert (names == expected[order]).all()


def test_without_ranks_it_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^model\.neighbours: expected the rank"):
        neighbour_table(MIXED.drop(columns="rank"), 1)


def test_a_stack_is_the_slices_of_a_series_in_their_order(cohort: Cohort) -> None:
    folder = cohort.site_folder("site-1")
    plain, stacked = (open_site(folder, image_size=SIZE, neighbours=k) for k in (0, 1))
    rows = np.arange(len(plain.index))
    batch = gather(stacked.images, rows, CPU)
    assert batch.shape == (len(rows), 3, SIZE, SIZE)
    single = gather(plain.images, rows, CPU)[:, 0]
    assert torch.equal(batch[:, 1], single)
    for row, facts in plain.index.iterrows():
        same = plain.index[plain.index["series_id"] == facts["series_id"]]
        for place, rank in ((0, facts["rank"] - 1), (2, facts["rank"] + 1)):
            near = same.index[same["rank"] == np.clip(rank, 0, same["rank"].max())][0]
            assert torch.equal(batch[row, place], single[near])


def test_pooled_sites_are_not_each_others_neighbours(cohort: Cohort) -> None:
    folders = [cohort.site_folder(site) for site in cohort.sites]
    pooled = open_pooled(ModelConfig(image_size=SIZE, neighbours=2), folders)
    alone = [open_site(folder, image_size=SIZE, neighbours=2) for folder in folders]
    whole = gather(pooled.images, np.arange(len(pooled.index)), CPU)
    parts = [gather(site.images, np.arange(len(site.index)), CPU) for site in alone]
    assert torch.equal(whole, torch.cat(parts))
    assert join_tables([np.array([[0, 0]]), np.array([[0, 1], [1, 1]])]).tolist() == [[0, 0], [1, 2], [2, 2]]


def test_colour_channels_of_one_slice_stay_together() -> None:
    images = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)
    batch = gather(Stacked(images, np.array([[1, 0]])), np.array([0]), CPU)
    assert batch.shape == (1, 6, 4, 4)
    for place, channel in enumerate([*np.moveaxis(images[1], 2, 0), *np.moveaxis(images[0], 2, 0)]):
        assert (batch[0, place].numpy() == channel).all()


def test_a_stack_moves_and_shifts_as_one() -> None:
    one = torch.randint(900, 1200, (4, 1, 16, 16), generator=torch.Generator().manual_seed(0)).float()
    draws = [torch.Generator().manual_seed(1) for _ in range(2)]
    single = augment(one, TrainConfig(), image=ImageKind.hu, generator=draws[0])
    stack = augment(one.expand(4, 3, 16, 16), TrainConfig(), image=ImageKind.hu, generator=draws[1])
    for place in range(3):
        torch.testing.assert_close(stack[:, place : place + 1], single)
    assert not torch.equal(single, one)


def test_plain_slices_are_taken_as_before(cohort: Cohort) -> None:
    data = open_site(cohort.site_folder("site-1"), image_size=SIZE, neighbours=0, crop=Crop.none)
    assert isinstance(data.images, np.memmap)


def test_a_slice_of_unknown_order_has_no_neighbours_and_is_nobodys() -> None:
    """b, d, a are p's series s by rank; nothing says where d lies, nor where the slices of q lie."""
    found = neighbour_table(MIXED.assign(order=["position"] * 2 + ["unknown"] * 3 + ["slice_location"]), 1)
    assert found.tolist() == [[1, 0, 0], [1, 1, 0], [2, 2, 2], [3, 3, 3], [4, 4, 4], [5, 5, 5]]
