"""The lungs' box is found in grey alone, whatever frames the body; where there are no two lungs it is the whole film."""

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from fl_rsna.imaging.statistics import lung_box

WHITE, TISSUE, LUNG = 65535, 50000, 14000
LEFT, RIGHT = (170, 230), (342, 230)  # centres (x, y) of the two ellipses
AXES = (70, 130)
TRUE = (100, 100, 360, 412)  # top, left, bottom, right of both


def chest(height: int = 512, width: int = 512, lung: int = LUNG, tissue: int = TISSUE) -> NDArray[np.uint16]:
    """Two dark ellipses on a bright body that fills the film."""
    film = np.full((height, width), tissue, np.uint16)
    for centre in (LEFT, RIGHT):
        cv2.ellipse(film, centre, AXES, 0, 0, 360, lung, -1)
    return film


def holds(box: tuple[int, int, int, int], inner: tuple[int, int, int, int]) -> bool:
    return box[0] <= inner[0] and box[1] <= inner[1] and box[2] >= inner[2] and box[3] >= inner[3]


def area(box: tuple[int, int, int, int]) -> int:
    return (box[2] - box[0]) * (box[3] - box[1])


def check(film: NDArray[np.uint16], inner: tuple[int, int, int, int] = TRUE) -> None:
    box = lung_box(film)
    assert holds((0, 0, *film.shape), box)
    assert holds(box, inner)
    assert area(box) < 2 * area(inner)  # a margin of 12% on every side is 1.54


def test_both_lungs_are_in_the_box_and_little_else() -> None:
    check(chest())


@pytest.mark.parametrize(("lung", "tissue"), [(1000, 65535), (30000, 50000), (8000, 20000), (45000, 60000)])
def test_any_exposure(lung: int, tissue: int) -> None:
    check(chest(lung=lung, tissue=tissue))


@pytest.mark.parametrize("scale", [0.5, 1, 3])
def test_a_larger_film_has_the_same_box(scale: float) -> None:
    film = cv2.resize(chest(), None, fx=scale, fy=scale, interpolation=cv2.INTER_NEAREST)
    box, expected = lung_box(film), lung_box(chest())
    np.testing.assert_allclose(np.array(box) / scale, expected, atol=6)


@pytest.mark.parametrize("border", [0, WHITE])
@pytest.mark.parametrize("margins", [(40, 40, 40, 40), (0, 60, 0, 60), (90, 0, 90, 0), (10, 80, 70, 20)])
def test_collimation_of_either_colour_is_no_lung(margins: tuple[int, int, int, int], border: int) -> None:
    top, left, bottom, right = margins
    film = cv2.copyMakeBorder(chest(), top, bottom, left, right, cv2.BORDER_CONSTANT, value=border)
    check(film, (TRUE[0] + top, TRUE[1] + left, TRUE[2] + top, TRUE[3] + left))


def test_air_beside_the_body_is_no_lung() -> None:
    film = chest(width=512)
    film[:, :30], film[:, 482:], film[:40, :140], film[:40, 372:] = 0, 0, 0, 0
    check(film)


def test_noise_ribs_and_a_marker_do_not_matter() -> None:
    film = chest().astype(float) + np.random.default_rng(0).normal(0, 3000, (512, 512))
    film[110:360:28] += 6000
    film[20:60, 440:480] = WHITE
    check(np.clip(film, 0, WHITE).astype(np.uint16))


def test_a_stomach_bubble_is_no_lung() -> None:
    film = chest()
    cv2.circle(film, (340, 430), 30, 12000, -1)
    check(film)


def test_dense_bases_do_not_cut_the_box_at_the_top_of_the_lungs() -> None:
    film = chest()
    film[250:] = TISSUE  # the lower half of both lungs is white
    top, left, bottom, right = lung_box(film)
    assert top <= TRUE[0]
    assert bottom >= TRUE[2] - 20
    assert holds((0, left, 512, right), (0, TRUE[1], 512, TRUE[3]))


@pytest.mark.parametrize(
    "film",
    [
        np.zeros((300, 200), np.uint16),
        np.full((300, 200), WHITE, np.uint16),
        np.full((20, 20), 5, np.uint16),
        np.tile(np.linspace(0, WHITE, 256).astype(np.uint16), (256, 1)),
        np.random.default_rng(0).integers(0, WHITE, (256, 256)).astype(np.uint16),
        WHITE - chest(),  # two bright ellipses
    ],
    ids=["black", "white", "tiny", "ramp", "noise", "negative"],
)
def test_without_two_lungs_it_is_the_whole_film(film: NDArray[np.uint16]) -> None:
    assert lung_box(film) == (0, 0, *film.shape)


def test_one_lung_alone_is_no_pair() -> None:
    film = chest()
    film[:, 256:] = TISSUE
    assert lung_box(film) == (0, 0, 512, 512)
