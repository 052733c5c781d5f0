"""Shares of heat in lesions, on maps that one can count."""

import numpy as np
import pytest

from fl_rsna.imaging.dicom.hounsfield import HU_OFFSET
from fl_rsna.reporting.images.explanations import head_of, lesion_of
from fl_rsna.reporting.images.heat_shares import shares, summarize_shares

SIDE = 10
PATIENTS = ("a", "a", "b")


def squares(*corners: tuple[int, int, int]) -> np.ndarray:
    """bool [N, SIDE, SIDE] with a square of a side at each (row, column, side)."""
    drawn = np.zeros((len(corners), SIDE, SIDE), bool)
    for place, (row, column, side) in enumerate(corners):
        drawn[place, row : row + side, column : column + side] = True
    return drawn


LESIONS = squares((1, 1, 2), (1, 1, 2), (6, 6, 3))
HEADS = squares((0, 0, 10), (0, 0, 5), (0, 0, 10))


def test_shares_by_hand() -> None:
    heat = squares((1, 1, 4), (5, 5, 5), (6, 6, 3)).astype(np.float32)
    found = shares(heat, LESIONS, HEADS, PATIENTS)
    assert found.share.tolist() == pytest.approx([4 / 16, 0, 1])
    assert found.uniform.tolist() == pytest.approx([4 / 100, 4 / 25, 9 / 100])
    assert found.outside.tolist() == pytest.approx([0, 1, 0])
    assert found.others.tolist() == pytest.approx([0, 0, (0 + 9 / 25) / 2])


def test_even_heat_over_the_head_has_the_uniform_share() -> None:
    found = shares(3 * HEADS.astype(np.float32), LESIONS, HEADS, PATIENTS)
    np.testing.assert_allclose(found.share, found.uniform)
    summary = summarize_shares(found, PATIENTS, seed=0)
    assert summary["times_uniform"]["value"] == pytest.approx(1)
    assert (summary["slices"], summary["patients"]) == (3, 2)


def test_no_heat_has_no_share() -> None:
    found = shares(np.zeros((3, SIDE, SIDE), np.float32), LESIONS, HEADS, PATIENTS)
    assert not found.share.any()
    assert not found.outside.any()


def test_one_patient_has_no_other() -> None:
    summary = summarize_shares(
        shares(HEADS.astype(np.float32), LESIONS, HEADS, ("a", "a", "a")), ("a", "a", "a"), seed=0
    )
    assert summary["others"] == {"value": None, "low": None, "high": None}
    assert summary["share"]["value"] > 0


def test_intervals_need_five_patients_and_hold_the_mean() -> None:
    rng = np.random.default_rng(0)
    heat, patients = rng.random((12, SIDE, SIDE), np.float32), [f"p{number // 2}" for number in range(12)]
    found = shares(heat, np.tile(LESIONS, (4, 1, 1)), np.tile(HEADS, (4, 1, 1)), patients)
    enough, few = (summarize_shares(found, names, seed=0)["share"] for names in (patients, [*"aabbccddaabb"]))
    assert enough["value"] == few["value"] == pytest.approx(found.share.mean())
    assert enough["low"] < enough["value"] < enough["high"]
    assert (few["low"], few["high"]) == (None, None)


@pytest.mark.parametrize("windows", [False, True])
def test_the_head_is_the_largest_piece_without_headrest_and_with_its_holes(windows: bool) -> None:
    hu = np.full((40, 40), -1000)
    hu[8:30, 10:30] = 30
    hu[15:20, 15:20] = -1000  # air inside
    hu[35, :] = 200  # a thin headrest
    image = np.stack([np.where(hu > -150, 200, 0)] * 3, axis=2).astype(np.uint8) if windows else hu + HU_OFFSET
    expected = np.zeros((40, 40), bool)
    expected[8:30, 10:30] = True
    np.testing.assert_array_equal(head_of(image.astype(np.uint8 if windows else np.uint16)), expected)


def test_the_union_has_all_blood() -> None:
    lesions = {"epidural": LESIONS[0], "subdural": LESIONS[2]}
    assert lesion_of(lesions, "subdural") is lesions["subdural"]
    np.testing.assert_array_equal(lesion_of(lesions, "any"), LESIONS[0] | LESIONS[2])
