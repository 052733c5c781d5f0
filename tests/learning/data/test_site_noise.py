"""A noisy site opens its true files and sees another scanner and some wrong labels, the same ones every time."""

import json
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from tiny import CHEST, SIZE, tiny_cohort, tiny_index

from fl_rsna.cohort.sites.noise import SiteNoise
from fl_rsna.cohort.sites.site_folders import Cohort
from fl_rsna.imaging.png_store import fit_square, read_png
from fl_rsna.learning.data.dataset import SiteData, open_site
from fl_rsna.learning.data.site_noise import scan_of, with_label_noise, wrong_rows
from fl_rsna.task import ICH, Task


def table(task: Task = ICH, patients: int = 25) -> pd.DataFrame:
    """100 slices, 16 of them for validation."""
    index = tiny_index(task, patients=patients)
    return index.assign(split=np.where(index["patient_id"] < "p04", "validation", "train"))


def changed_rows(labels: float, task: Task = ICH, seed: int = 0, site: str = "site-1") -> pd.Series:
    """Which slices of `table` have another label row, by image."""
    true = table(task)
    found = with_label_noise(true, SiteNoise(labels=labels, seed=seed), site, task)
    return pd.Series((found[list(task.labels)] != true[list(task.labels)]).any(axis=1).to_numpy(), true["image_id"])


@pytest.mark.parametrize("task", [ICH, CHEST], ids=lambda task: task.name)
@pytest.mark.parametrize("share", [0.0, 0.1, 0.4, 1.0])
def test_exactly_the_share_of_training_slices_is_wrong(task: Task, share: float) -> None:
    wrong = changed_rows(share, task)
    assert wrong.sum() == round(share * 84)
    assert not wrong[wrong.index < "p04"].any()


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_a_wrong_row_is_one_a_slice_could_have(share: float) -> None:
    true, found = table(), with_label_noise(table(), SiteNoise(labels=share), "site-1", ICH)
    subtypes = found[list(ICH.specific_labels)]
    np.testing.assert_array_equal(found["any"], subtypes.max(axis=1))
    flipped = true["any"] != found["any"]
    np.testing.assert_array_equal(flipped.to_numpy(), changed_rows(share).to_numpy())
    assert set(map(tuple, subtypes.to_numpy())) <= set(map(tuple, true[list(ICH.specific_labels)].to_numpy()))
    classes = with_label_noise(table(CHEST), SiteNoise(labels=share), "site-1", CHEST)[list(CHEST.labels)]
    assert (classes.sum(axis=1) == 1).all()


def test_findings_are_missed_and_imagined_at_the_same_rate() -> None:
    rows, ids = np.zeros((2000, 6), np.int64), np.array([f"i{n}" for n in range(2000)], object)
    rows[:400, [0, 1, 5]] = 1
    wrong = wrong_rows(rows, ids, SiteNoise(labels=0.3), "site-1", ICH)
    assert abs((wrong[:400, 0] == 0).mean() - 0.3) < 0.07
    assert abs((wrong[400:, 0] == 1).mean() - 0.3) < 0.04
    np.testing.assert_array_equal(wrong[:, 0], wrong[:, 5])  # they occur together as they do


def test_a_site_without_findings_imagines_one_at_a_time() -> None:
    rows, ids = np.zeros((50, 6), np.int64), np.array([f"i{n}" for n in range(50)], object)
    wrong = wrong_rows(rows, ids, SiteNoise(labels=1.0), "site-1", ICH)
    assert (wrong[:, 0] == 1).all()
    assert (wrong[:, 1:].sum(axis=1) == 1).all()
    assert (wrong.sum(axis=0) > 0).all()


def test_wrong_labels_follow_from_seed_site_and_image_not_from_order() -> None:
    noise, true = SiteNoise(labels=0.3, seed=4), table()
    found = with_label_noise(true, noise, "site-1", ICH)
    again = with_label_noise(true[::-1].reset_index(drop=True), noise, "site-1", ICH)[::-1].reset_index(drop=True)
    pd.testing.assert_frame_equal(found, again)
    drawn = [changed_rows(0.3, seed=4), changed_rows(0.3, seed=5), changed_rows(0.3, seed=4, site="site-2")]
    assert all((drawn[0] != other).any() for other in drawn[1:])


def test_more_noise_keeps_what_was_wrong_with_less() -> None:
    less, more = (with_label_noise(table(), SiteNoise(labels=share), "site-1", ICH) for share in (0.2, 0.4))
    was_wrong = changed_rows(0.2).to_numpy()
    pd.testing.assert_frame_equal(less[was_wrong], more[was_wrong])


@pytest.fixture
def noisy(own_cohort: Cohort) -> Iterator[Path]:
    """Site 1 with both kinds of noise set in its site.json."""
    path = own_cohort.site_folder("site-1") / "site.json"
    record = {"labels": 0.5, "hu_shift": 15, "hu_noise": 5, "blur": 0, "seed": 2}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"noise": record}))
    yield path.parent
    assert {file.name for file in path.parent.iterdir()} == {"images", "index.csv", "site.json", "packed"}


def same(one: SiteData, other: SiteData) -> bool:
    return np.array_equal(one.images, other.images) and np.array_equal(one.labels, other.labels)


def test_removing_the_setting_gives_the_true_data_back(noisy: Path, cohort: Cohort) -> None:
    true = open_site(cohort.site_folder("site-1"), image_size=SIZE)
    first = open_site(noisy, image_size=SIZE)
    assert not same(first, true)
    path = noisy / "site.json"
    facts = json.loads(path.read_text())
    path.write_text(json.dumps({key: value for key, value in facts.items() if key != "noise"}))
    assert same(open_site(noisy, image_size=SIZE), true)
    path.write_text(json.dumps(facts))
    assert same(open_site(noisy, image_size=SIZE), first)


def test_the_index_of_an_open_site_holds_what_it_believes(noisy: Path, cohort: Cohort) -> None:
    data, true = open_site(noisy, image_size=SIZE), open_site(cohort.site_folder("site-1"), image_size=SIZE)
    np.testing.assert_array_equal(data.index[list(ICH.labels)].to_numpy(), data.labels)
    wrong = (data.labels != true.labels).any(axis=1)
    assert wrong.sum() == round(0.5 * len(data.rows("train")))
    assert not wrong[data.rows("validation")].any()


def test_every_size_of_pack_and_every_part_is_of_the_same_scanned_image(noisy: Path) -> None:
    noise = SiteNoise(labels=0.5, hu_shift=15, hu_noise=5, seed=2)
    for size in (SIZE, SIZE // 2):
        data = open_site(noisy, image_size=size)
        for place, row in enumerate(data.index.to_dict("records")):
            image = scan_of(noise, "site-1")(read_png(noisy / "images" / f"{row['image_id']}.png"), row)  # type: ignore[arg-type]
            np.testing.assert_array_equal(data.images[place], fit_square(image, size))


def test_blur_is_in_millimetres_of_the_slice() -> None:
    """A 64 x 32 slice of 0.5 x 2 mm pixels prepared at 32 px has pixels of 1 mm down and 4 mm across."""
    image = np.full((32, 32), 1000, np.uint16)
    image[16, 16] = 3000
    row = {"image_id": "i", "rows": 64, "columns": 32, "row_spacing_mm": 0.5, "column_spacing_mm": 2.0}
    expected = cv2.GaussianBlur(image.astype(np.float32), (0, 0), sigmaX=0.5, sigmaY=2.0)
    np.testing.assert_array_equal(scan_of(SiteNoise(blur=2.0), "site-1")(image, row), np.rint(expected))


def test_another_site_is_another_scanner(tmp_path: Path) -> None:
    cohort = tiny_cohort(tmp_path)
    image = read_png(next((cohort.site_folder("site-1") / "images").iterdir()))
    one, other = (scan_of(SiteNoise(hu_noise=5), site)(image, {"image_id": "i"}) for site in ("site-1", "site-2"))
    assert (one != other).mean() > 0.5
