"""A slice or film whose values vary is an image of them, or is named; real heads, bare air and phantoms pass."""

from pathlib import Path

import numpy as np
import pytest
from dicom_files import write_tiny
from few_files import converted
from film_files import film_bytes, film_of, film_rejection, grey_of, with_table
from numpy.typing import NDArray

from fl_rsna.imaging.convert import Refused
from fl_rsna.imaging.dicom.rejections import Reason

pytestmark = pytest.mark.filterwarnings("ignore:::pydicom")  # pytest resets the filter that dicom.py sets
SIZE = 64
DISTANCE = np.hypot(*(np.mgrid[:SIZE, :SIZE] - 31.5))
NOISE = np.random.default_rng(0).normal(0, 8, (SIZE, SIZE))
HEAD = np.rint(np.select([DISTANCE < 20, DISTANCE < 24], [30, 1200], -1000) + NOISE).astype(np.int16)


def reason(folder: Path, stored: NDArray[np.integer], **tags: object) -> tuple[Reason, str] | None:
    write_tiny(folder / "in" / "a", hu=stored, **tags)  # type: ignore[arg-type]
    (result,) = converted(folder / "in", folder / "out")
    return (result.reason, result.tag) if isinstance(result, Refused) else None


@pytest.mark.parametrize(
    ("stored", "tags", "tag"),
    [
        (HEAD, {"RescaleSlope": 0.0001}, "RescaleSlope"),
        (HEAD, {"RescaleSlope": 0.0001, "RescaleIntercept": -1024}, "RescaleSlope"),
        (HEAD, {"RescaleSlope": 0.002}, "RescaleSlope"),  # four HU in all
        (HEAD, {"RescaleIntercept": 5000}, "RescaleSlope"),  # all beyond 3071
        (HEAD, {"RescaleIntercept": -8000}, "RescaleSlope"),  # all below -1024
        (HEAD, {"RescaleIntercept": 2048}, "RescaleIntercept"),  # air is bone
        (-HEAD, {"RescaleIntercept": 0}, "RescaleIntercept"),  # turned over
        (np.where(DISTANCE > 31.5, 4000, HEAD), {}, "RescaleIntercept"),  # padding that nobody names
        (np.where(DISTANCE > 40, 1500, HEAD), {}, "RescaleIntercept"),  # in the corners alone
    ],
)
def test_values_that_cannot_be_true_are_named(
    tmp_path: Path, stored: NDArray[np.int16], tags: dict[str, object], tag: str
) -> None:
    assert reason(tmp_path, stored.astype(np.int16), **tags) == (Reason.implausible, tag)


@pytest.mark.parametrize(
    "stored",
    [
        HEAD,
        np.full((SIZE, SIZE), 30),
        np.full((SIZE, SIZE), 3500),
        np.full((SIZE, SIZE), -1024),
        np.rint(-1000 + NOISE),  # bare air
        np.rint(-1060 + NOISE),  # and where its values lie below the scale
        np.where(DISTANCE > 31.5, -3024, -1024),  # bare air in a round field of view
        np.where(DISTANCE > 31.5, -3024, np.rint(-1060 + NOISE)),
        np.rint(NOISE),  # a phantom of water that fills the picture
        np.where(DISTANCE < 40, 1200, -1000),  # a skull that leaves the corners alone
        np.where(np.arange(SIZE) < 20, 3000, HEAD),  # metal that fills a side
    ],
)
def test_what_can_be_true_passes(tmp_path: Path, stored: NDArray[np.floating]) -> None:
    assert reason(tmp_path, stored.astype(np.int16)) is None


def test_a_pair_of_corners_at_odds_is_no_rejection(tmp_path: Path) -> None:
    stored = HEAD.copy()
    stored[:4, :4] = stored[:4, -4:] = stored[-4:, :4] = 3000
    assert reason(tmp_path, stored) is None


RAMP = np.arange(4096, dtype=np.uint16).reshape(SIZE, SIZE)


@pytest.mark.parametrize("keyword", ["VOILUTSequence", "ModalityLUTSequence"])
def test_a_table_that_makes_one_grey_of_a_film_is_named(tmp_path: Path, keyword: str) -> None:
    for data in (
        with_table(film_bytes(tmp_path, RAMP), keyword, 0, 12, [7] * 4096),
        with_table(film_bytes(tmp_path, RAMP + 6000), keyword, 0, 12, [0] * 10 + [4095] * 10),
    ):
        assert film_rejection(data) == (Reason.bad_lut, keyword)


@pytest.mark.parametrize("tags", [{}, {"RescaleSlope": 1, "RescaleIntercept": -30000}])
def test_a_window_that_shows_nothing_is_none(tmp_path: Path, tags: dict[str, object]) -> None:
    data = film_bytes(tmp_path, RAMP, WindowCenter=20000, WindowWidth=100, **tags)
    assert film_of(data).header.voi == "percentiles"
    np.testing.assert_array_equal(grey_of(data), grey_of(film_bytes(tmp_path, RAMP)))


def test_few_pixels_on_one_ground_are_shown(tmp_path: Path) -> None:
    """Less than half a percent of a film differs, so that both percentiles are the ground."""
    stored = np.full((SIZE, SIZE), 1000, np.uint16)
    stored[0, :4] = 2000
    assert np.unique(grey_of(film_bytes(tmp_path, stored))).tolist() == [0, 65535]


def test_a_film_of_one_value_stays_one(tmp_path: Path) -> None:
    stored = np.full((SIZE, SIZE), 1000, np.uint16)
    film = film_of(film_bytes(tmp_path, stored, WindowCenter=20000, WindowWidth=100))
    assert film.header.voi == "window"
