"""One synthetic chest film: anatomy, findings, devices and exposure put together."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fl_rsna.phantom.chest.anatomy import View, draw_pose, draw_thorax, outline_chest
from fl_rsna.phantom.chest.devices import device_shadow
from fl_rsna.phantom.chest.film import (
    Stored,
    burn_marker,
    draw_exposure,
    expose,
    hold,
    lay_frame,
    mask_shutters,
    pixel_tags,
    show,
    to_stored,
)
from fl_rsna.phantom.chest.findings import Appearance, Box, draw_findings, lay_findings
from fl_rsna.phantom.chest.geometry import Field
from fl_rsna.phantom.chest.tissue import draw_tree, lay_tissue
from fl_rsna.phantom.chest.vendors import Vendor, draw_vendor
from fl_rsna.phantom.head.render import Purpose, generator

AP_SHARE = 0.45
MIXTURE = (0.30, 0.35, 0.20, 0.15)  # of the appearances; SIIM's 6,054 studies: 0.277, 0.472, 0.173, 0.078
BLOCK = 20  # so many patients in a row hold the mixture exactly


@dataclass(frozen=True, slots=True, kw_only=True)
class Film:
    """A rendered film.

    `picture` [H, W] is what is meant to be seen, 0 black to 1 white (dense); `stored` [H, W] what the file holds and `tags`
    how to show it. `lungs` [2, H, W] are the patient's right and left lung, `heart` [H, W] the heart, `opacity` [H, W] where
    a lung is opaque; `boxes` enclose that in pixels.
    """

    picture: Field
    stored: Stored
    tags: dict[str, object]
    appearance: Appearance
    boxes: tuple[Box, ...]
    lungs: NDArray[np.bool_]
    heart: NDArray[np.bool_]
    opacity: NDArray[np.bool_]
    vendor: Vendor
    view: View
    female: bool


def appearance_of(seed: int, patient: int, study: int = 0) -> Appearance:
    """The class of a study: every BLOCK patients in a row hold MIXTURE in random order, later studies are drawn freely."""
    if study:
        return Appearance(int(generator(seed, Purpose.findings, patient, study).choice(len(MIXTURE), p=MIXTURE)))
    counts = [round(share * BLOCK) for share in MIXTURE]
    order = generator(seed, Purpose.classes, patient // BLOCK).permutation(np.repeat(np.arange(len(MIXTURE)), counts))
    return Appearance(int(order[patient % BLOCK]))


def render_film(
    seed: int,
    patient: int,
    *,
    size: int = 256,
    study: int = 0,
    image: int = 0,
    vendor: Vendor | None = None,
    healthy: bool = False,
) -> Film:
    """Film number `image` of a study of patient number `patient` in the cohort `seed`; `size` is its longer side.

    Another image shows the same findings in another pose; another study is of the same chest with findings of its own.
    `healthy` is the very film as it would be without any finding.
    """
    patients = generator(seed, Purpose.anatomy, patient)
    thorax = draw_thorax(patients)
    trees = (draw_tree(patients, -1), draw_tree(patients, 1))
    studies = generator(seed, Purpose.scan, patient, study)
    drawn = draw_vendor(studies)
    used, view = vendor or drawn, View.ap if studies.random() < AP_SHARE else View.pa
    films = generator(seed, Purpose.film, patient, study << 4 | image)
    pose, exposure = draw_pose(films, view), draw_exposure(films, used, view)
    rows, columns = _shape(size, used.aspect[int(films.integers(len(used.aspect)))])
    frame, chest = lay_frame(thorax, pose, rows, columns), outline_chest(thorax, pose)
    appearance = Appearance.negative if healthy else appearance_of(seed, patient, study)
    noise = generator(seed, Purpose.noise, patient, study << 4 | image)
    tissue = lay_tissue(chest, trees, frame, noise)
    findings = draw_findings(generator(seed, Purpose.findings, patient, study + 1), appearance)
    disease = lay_findings(findings, chest, tissue, trees, frame)
    water = tissue.solid + tissue.vessels * disease.kept + disease.water_cm + device_shadow(chest, frame, noise)
    grey = expose(water, exposure, used, frame, noise)
    burn_marker(grey, exposure)
    shut = mask_shutters(exposure, pose, rows, columns)
    grey = hold(grey, used, exposure.speed, shut)
    return Film(
        picture=show(grey, used),
        stored=to_stored(grey, used, exposure.speed),
        tags=pixel_tags(used, exposure.speed, shut) | _build_spacing_tags(pose.field_mm, rows, columns),
        appearance=appearance,
        boxes=disease.boxes,
        lungs=tissue.lungs > 0.5,
        heart=tissue.heart,
        opacity=disease.opacity,
        vendor=used,
        view=view,
        female=thorax.female,
    )


def _shape(size: int, aspect: float) -> tuple[int, int]:
    """Rows and columns of a film whose longer side is `size`."""
    return (size, round(size * aspect)) if aspect <= 1 else (round(size / aspect), size)


def _build_spacing_tags(field_mm: float, rows: int, columns: int) -> dict[str, object]:
    return {"ImagerPixelSpacing": [f"{field_mm / min(rows, columns):.6f}"] * 2}
