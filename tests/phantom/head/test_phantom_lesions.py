"""The lesions of a prepared demo slice are those of the very slice that was prepared."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fl_rsna.cohort.prepared.prepare import Request, prepare_folder
from fl_rsna.imaging.dicom.hounsfield import HU_OFFSET
from fl_rsna.imaging.png_store import read_png
from fl_rsna.imaging.sources import find_files
from fl_rsna.imaging.workers import convert_here
from fl_rsna.phantom.head.cohort import Drawn, draw_again, write_cohort
from fl_rsna.phantom.head.hemorrhage import SUBTYPES
from fl_rsna.settings.data import ImageKind, kinds_of
from fl_rsna.task import ICH, Rendering

SETTINGS = {"patients": 4, "seed": 11, "size": 96, "slices_per_series": 9}
SIDE = 64  # smaller than the phantom: masks take the images' way through padding and resizing


@pytest.fixture(scope="module", params=kinds_of(Rendering.hounsfield))
def prepared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, kind = tmp_path_factory.mktemp("demo"), request.param
    write_cohort(folder / "dicom", **SETTINGS)
    asked = Request(task=ICH, image=kind, size=SIDE, hash_ids=True, salt="s")
    files = find_files(folder / "dicom" / "stage_2_train")
    prepare_folder(folder / kind.value, asked, files, None, max_rejected=0, convert=convert_here)
    return folder / kind.value


def again(prepared: Path, **changes: int) -> list[Drawn]:
    ids = pd.read_parquet(prepared / "index.parquet")["image_id"]
    return list(draw_again([*ids, "ID_of_another"], **SETTINGS | changes, kind=ImageKind(prepared.name), side=SIDE))


def test_every_prepared_slice_is_drawn_again_to_the_last_bit(prepared: Path) -> None:
    drawn = again(prepared)
    assert {slice_.image_id for slice_ in drawn} == {path.stem for path in (prepared / "images").glob("*.png")}
    for slice_ in drawn:
        np.testing.assert_array_equal(slice_.image, read_png(prepared / "images" / f"{slice_.image_id}.png"))
    lesions = np.stack([slice_.lesions[name] for slice_ in drawn for name in SUBTYPES])
    assert lesions.any()
    assert not lesions.all(axis=0).any()
    assert all(slice_.lesions[name].shape == (SIDE, SIDE) for slice_ in drawn for name in SUBTYPES)


def test_blood_lies_inside_the_lesions(prepared: Path) -> None:
    """Wherever the lesion is, the slice is brighter than the brain usually is, and no bone."""
    if prepared.name == ImageKind.windows:
        pytest.skip("windows hold no HU")
    inside = [slice_.image[mask] for slice_ in again(prepared) for mask in slice_.lesions.values() if mask.any()]
    hu = np.concatenate(inside).astype(np.int64) - HU_OFFSET
    assert 48 < np.median(hu) < 80


def test_another_seed_has_none_of_these_slices(prepared: Path) -> None:
    assert again(prepared, seed=12) == []


def test_fewer_patients_give_theirs_alone(prepared: Path) -> None:
    every, some = again(prepared), again(prepared, patients=2)
    assert 0 < len(some) < len(every)
    by_id = {slice_.image_id: slice_ for slice_ in every}
    assert all(np.array_equal(slice_.image, by_id[slice_.image_id].image) for slice_ in some)
