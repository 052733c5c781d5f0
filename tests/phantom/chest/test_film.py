"""What a chest film shows: the heart on its side, opacities where the boxes are, and pixels that mean what the tags say."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.pixels import apply_modality_lut, apply_voi_lut

from fl_rsna.imaging.dicom.reader import write_slice
from fl_rsna.phantom.chest.findings import Appearance, Consolidation, Effusion, FreeAir, Haze, draw_findings
from fl_rsna.phantom.chest.render import Film, appearance_of, render_film
from fl_rsna.phantom.chest.vendors import VENDORS, Curve, Vendor

SIZE = 96


def films_of(appearance: Appearance, count: int, *, seed: int = 2) -> list[Film]:
    numbers = (number for number in range(1000) if appearance_of(seed, number) is appearance)
    return [render_film(seed, number, size=SIZE) for number, _ in zip(numbers, range(count), strict=False)]


@pytest.fixture(scope="module")
def films() -> dict[Appearance, list[Film]]:
    return {appearance: films_of(appearance, 12) for appearance in Appearance}


def every(films: dict[Appearance, list[Film]]) -> Iterable[Film]:
    return (film for some in films.values() for film in some)


def read_back(folder: Path, film: Film) -> pydicom.Dataset:
    write_slice(folder / "film.dcm", film.stored, film.tags, sop_class=film.vendor.storage)
    return pydicom.dcmread(folder / "film.dcm")


def middle(mask: np.ndarray) -> float:
    """The column in which a mask's centre lies."""
    return float(np.nonzero(mask)[1].mean())


def test_the_heart_lies_on_the_right_of_the_picture(films: dict[Appearance, list[Film]]) -> None:
    for film in every(films):
        right, left = (middle(lung) for lung in film.lungs)
        assert right < left  # the patient's right lung is on the picture's left
        assert middle(film.heart) > (right + left) / 2 + 0.01 * film.picture.shape[1]


def test_the_picture_is_bright_where_the_heart_is_and_dark_across(films: dict[Appearance, list[Film]]) -> None:
    for film in films[Appearance.negative]:
        axis = sum(middle(lung) for lung in film.lungs)
        rows, columns = np.nonzero(film.heart & (np.arange(film.picture.shape[1]) > axis / 2 + 0.12 * SIZE))
        across = np.rint(axis - columns).astype(int)
        assert film.picture[rows, columns].mean() > film.picture[rows, across].mean() + 0.05


def test_lungs_are_darker_than_heart_and_belly(films: dict[Appearance, list[Film]]) -> None:
    for film in films[Appearance.negative]:
        lungs = film.lungs.any(axis=0) & ~film.heart
        assert film.picture[lungs].mean() < film.picture[film.heart].mean() - 0.15


def test_a_film_without_opacity_has_no_box_and_every_other_box_is_tight_and_in_a_lung(
    films: dict[Appearance, list[Film]],
) -> None:
    assert not any(film.boxes or film.opacity.any() for film in films[Appearance.negative])
    for appearance in (Appearance.typical, Appearance.indeterminate):
        assert all(film.boxes for film in films[appearance])
    for film in every(films):
        assert not (film.opacity & ~film.lungs.any(axis=0)).any()
        for box in film.boxes:
            rows, columns = slice(int(box.y), int(box.y + box.height)), slice(int(box.x), int(box.x + box.width))
            inside = film.opacity[rows, columns]
            assert inside.shape == (box.height, box.width)
            assert inside[0].any() and inside[-1].any() and inside[:, 0].any() and inside[:, -1].any()  # noqa: PT018


def test_opacities_are_brighter_than_the_same_film_without_them() -> None:
    for appearance in (Appearance.typical, Appearance.indeterminate, Appearance.atypical):
        numbers = [number for number in range(60) if appearance_of(2, number) is appearance][:6]
        for number in numbers:
            ill, healthy = (render_film(2, number, size=SIZE, healthy=healthy) for healthy in (False, True))
            assert not healthy.boxes
            added = ill.picture - healthy.picture
            if ill.opacity.any():
                assert added[ill.opacity].mean() > 0.02
                assert added[ill.opacity].mean() > added[~ill.opacity].mean() + 0.03


def test_a_typical_film_is_opaque_on_both_sides(films: dict[Appearance, list[Film]]) -> None:
    assert all((film.opacity & lung).any() for film in films[Appearance.typical] for lung in film.lungs)


@pytest.mark.parametrize("number", range(60))
def test_findings_are_what_the_class_is_named_for(number: int) -> None:
    draw = {appearance: draw_findings(np.random.default_rng(number), appearance) for appearance in Appearance}
    assert draw[Appearance.negative] == ()
    typical = [finding for finding in draw[Appearance.typical] if isinstance(finding, Haze)]
    assert {haze.side for haze in typical} == {-1, 1}
    assert all(haze.u >= 0.5 and haze.v >= 0.4 for haze in typical)
    other = [finding for finding in draw[Appearance.indeterminate] if isinstance(finding, Haze)]
    assert len(other) == len(draw[Appearance.indeterminate]) > 0
    alone = len({haze.side for haze in other}) == 1
    assert alone or all(haze.v < 0.35 for haze in other) or all(haze.u < 0.5 for haze in other)
    assert not any(isinstance(finding, Haze) for finding in draw[Appearance.atypical])


def test_only_fluid_and_free_air_leave_an_atypical_film_without_a_box() -> None:
    seen = set()
    for number in range(60):
        findings = draw_findings(np.random.default_rng(number), Appearance.atypical)
        seen.add(all(isinstance(finding, Effusion | FreeAir) for finding in findings))
        assert len([finding for finding in findings if isinstance(finding, Consolidation)]) <= 1
    assert seen == {True, False}


@pytest.mark.parametrize("vendor", VENDORS, ids=lambda vendor: vendor.name)
def test_shown_by_its_tags_a_file_is_the_picture(vendor: Vendor, tmp_path: Path) -> None:
    film = render_film(0, 3, size=SIZE, vendor=vendor)
    ds = read_back(tmp_path, film)
    stored = ds.pixel_array
    assert np.array_equal(stored, film.stored)
    assert (ds.BitsStored, ds.PixelRepresentation) == (vendor.bits, int(vendor.signed))
    assert ds.file_meta.MediaStorageSOPClassUID == vendor.storage
    values = apply_modality_lut(stored, ds)
    low, high = float(vendor.lowest), float(vendor.highest)
    if vendor.curve is Curve.table:
        low, high = 0.0, 4095.0
    elif "RescaleSlope" in ds:
        low, high = (edge * vendor.slope + vendor.intercept for edge in (low, high))
    if vendor.curve is Curve.none:  # whoever shows it finds the window
        shown = values / (vendor.highest * vendor.span) - vendor.base / vendor.span
        shown = np.clip(shown, 0, 1)
    else:
        shown = (apply_voi_lut(values, ds, index=0) - low) / (high - low)
    if ds.PhotometricInterpretation == "MONOCHROME1":
        shown = 1 - shown
    assert np.abs(shown - film.picture).max() < 2 / (1 << min(vendor.bits, 10)) + 0.001


@pytest.mark.parametrize("vendor", VENDORS, ids=lambda vendor: vendor.name)
def test_a_monochrome1_film_is_its_twin_turned_over(vendor: Vendor) -> None:
    one, two = (render_film(0, 5, size=48, vendor=replace(vendor, inverted=turned)) for turned in (True, False))
    assert (one.tags["PhotometricInterpretation"], two.tags["PhotometricInterpretation"]) == (
        "MONOCHROME1",
        "MONOCHROME2",
    )
    assert (one.stored.astype(int) + two.stored.astype(int) == vendor.lowest + vendor.highest).all()
    assert np.array_equal(one.picture, two.picture)


def test_vendors_cover_what_a_reader_must_know() -> None:
    assert {vendor.curve for vendor in VENDORS} == set(Curve)
    assert {vendor.bits for vendor in VENDORS} == {8, 10, 12, 14, 16}
    for facts in (
        [vendor.inverted for vendor in VENDORS],
        [vendor.signed for vendor in VENDORS],
        [vendor.padding for vendor in VENDORS],
        [vendor.slope != 1 for vendor in VENDORS],
        [vendor.modality == "DX" for vendor in VENDORS],
    ):
        assert set(facts) == {True, False}


def test_padding_lies_behind_the_shutters_and_shows_black() -> None:
    vendor = next(vendor for vendor in VENDORS if vendor.padding)
    padded = [
        film
        for number in range(8)
        if "PixelPaddingValue" in (film := render_film(0, number, size=64, vendor=vendor)).tags
    ]
    assert padded
    for film in padded:
        seen = film.stored != film.tags["PixelPaddingValue"]
        assert np.array_equal(seen, np.outer(seen.any(axis=1), seen.any(axis=0)))  # a rectangle
        assert 0.5 < seen.mean() < 1
        assert film.picture[~seen].max() == 0


def test_a_repeated_film_shows_the_same_findings_in_another_pose() -> None:
    number = next(number for number in range(100) if appearance_of(1, number) is Appearance.typical)
    first, again = (render_film(1, number, size=64, image=image) for image in (0, 1))
    assert first.appearance == again.appearance
    assert first.vendor is again.vendor
    assert again.boxes
    assert first.picture.shape != again.picture.shape or not np.allclose(first.picture, again.picture, atol=0.02)
