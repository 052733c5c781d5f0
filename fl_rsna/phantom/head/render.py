"""Render one synthetic patient's head CT: anatomy, bleeds and scanner put together slice by slice."""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from fl_rsna.phantom.head.anatomy import Anatomy, at_height, draw_anatomy, over_image
from fl_rsna.phantom.head.brain import draw_brain
from fl_rsna.phantom.head.geometry import Box, Field, Plane, blend, make_plane, ramp
from fl_rsna.phantom.head.hemorrhage import SUBTYPES, Bleed, displace_plane, draw_bleeds, paint_bleeds
from fl_rsna.phantom.head.scanner import Scan, Vendor, draw_scan, draw_vendor, expose, lay_headrest
from fl_rsna.phantom.head.skull import BASE_TOP, paint_base, paint_scalp, paint_skull, shape_shell

SEEN_AREA_MM2 = 45.0  # a subtype is labelled on a slice when at least this much of it is visible
BONE_HU = 130.0


class Purpose(IntEnum):
    """The purpose of a patient's random numbers; each purpose has its own generator."""

    anatomy = 1
    bleeds = 2
    scan = 3
    noise = 4
    names = 5
    quirks = 6
    findings = 7
    film = 8
    classes = 9
    counts = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Patient:
    """A rendered series, base first.

    `volume_hu` [Z, H, W]; `labels` [Z, 6] of 0 and 1: any and the five SUBTYPES; `masks` [5, Z, H, W]: where each
    subtype is visible.
    """

    volume_hu: Field
    labels: NDArray[np.uint8]
    masks: NDArray[np.bool_]
    vendor: Vendor
    scan: Scan


def generator(seed: int, purpose: Purpose, patient: int, study: int = 0) -> np.random.Generator:
    """Make the generator of one patient's random numbers for one purpose."""
    return np.random.default_rng([seed, int(purpose), patient, study])


def render_patient(
    seed: int, patient: int, *, size: int = 256, slices: int = 20, study: int = 0, vendor: Vendor | None = None
) -> Patient:
    """Render patient number `patient` of the cohort `seed`; a later `study` shows the same head and bleeds scanned again.

    `size` is pixels a side; `slices` is about the number of slices, which the scanner varies. `vendor` replaces the one
    that is drawn.
    """
    anatomy = draw_anatomy(generator(seed, Purpose.anatomy, patient))
    bleeds = draw_bleeds(generator(seed, Purpose.bleeds, patient))
    rng = generator(seed, Purpose.scan, patient, study)
    drawn = draw_vendor(rng)
    scan = draw_scan(rng, anatomy, size=size, slices=slices, vendor=vendor or drawn)
    noise = generator(seed, Purpose.noise, patient, study)
    count = len(scan.positions_mm)
    volume = np.empty((count, size, size), dtype=np.float32)
    masks = np.zeros((len(SUBTYPES), count, size, size), dtype=np.bool_)
    for index in range(count):
        true_hu, masks[:, index] = _draw_slice(anatomy, bleeds, scan, index)
        volume[index] = expose(true_hu, scan, noise, index)
    seen = masks.sum(axis=(2, 3)).T * scan.spacing_mm**2 >= SEEN_AREA_MM2
    labels = np.concatenate([seen.any(axis=1, keepdims=True), seen], axis=1).astype(np.uint8)
    return Patient(volume_hu=volume, labels=labels, masks=masks, vendor=scan.vendor, scan=scan)


def _draw_slice(anatomy: Anatomy, bleeds: tuple[Bleed, ...], scan: Scan, index: int) -> tuple[Field, NDArray[np.bool_]]:
    """Draw the true densities of one slice in HU [H, W], and where each subtype is visible, bool [5, H, W]."""
    height = index / max(1, len(scan.positions_mm) - 1)
    hu = lay_headrest(scan, height)
    seen = np.zeros((len(SUBTYPES), scan.size, scan.size), dtype=np.bool_)
    if not (crop := _find_head_crop(scan, index, anatomy)):
        return hu, seen
    texture = over_image(at_height(anatomy.middle, height), scan.size)[crop]
    bundles = over_image(at_height(anatomy.coarse, height), scan.size)[crop] + 0.35 * texture
    plane, inner = _make_planes(scan, index, crop, anatomy, height, texture)
    shell = shape_shell(plane, inner, anatomy)
    head = hu[crop]
    paint_scalp(head, plane, anatomy, shell, texture, bundles)
    brain = draw_brain(displace_plane(inner, bleeds), anatomy, shell, texture)
    found = paint_bleeds(brain, inner, shell, bleeds, texture, bundles)
    paint_skull(head, shell)
    blend(head, brain.hu, ramp(shell.cavity, shell.blur))
    if plane.level < BASE_TOP:
        paint_base(head, plane, anatomy, over_image(at_height(anatomy.fine, height), scan.size)[crop], texture)
    seen[:, *crop] = found & (head < BONE_HU)
    return hu, seen


def _make_planes(
    scan: Scan, index: int, crop: Box, anatomy: Anatomy, height: float, texture: Field
) -> tuple[Plane, Plane]:
    """Make the crop's plane in head coordinates, and the same plane with the brain's own gentle deformation."""
    first = scan.to_head @ (scan.positions_mm[index] - scan.head_mm)
    steps = scan.to_head @ np.stack([scan.orientation[:3], scan.orientation[3:]], axis=1) * scan.spacing_mm
    top, left = crop[0].start, crop[1].start
    origin = first + steps @ (left, top)
    rows = np.arange(crop[0].stop - top, dtype=np.float32)[:, None]
    columns = np.arange(crop[1].stop - left, dtype=np.float32)[None, :]
    x, y, z = (
        np.float32(origin[axis]) + columns * np.float32(steps[axis, 0]) + rows * np.float32(steps[axis, 1])
        for axis in range(3)
    )
    sway = over_image(at_height(anatomy.sway, height), scan.size)[crop]
    plane = make_plane(x, y, z, origin, steps)
    return plane, make_plane(x + sway[..., 0] + 0.9 * texture, y + sway[..., 1] - 0.9 * texture[::-1], z, origin, steps)


def _find_head_crop(scan: Scan, index: int, anatomy: Anatomy) -> Box | None:
    """Find the pixels that the head can touch on this slice; None where it touches none."""
    first = scan.to_head @ (scan.positions_mm[index] - scan.head_mm)
    steps = scan.to_head @ np.stack([scan.orientation[:3], scan.orientation[3:]], axis=1) * scan.spacing_mm
    middle = scan.size / 2
    level = float((first + steps @ (middle, middle))[2])
    shrink = float(np.sqrt(np.clip(1 - ((level - 27 - 12) / 95) ** 2, 0, 1))) if level > 39 else 1.0
    if not shrink:
        return None
    wide = 97 if level < 40 else 90 * shrink
    front, back = (-124 if level < 40 else -108 * shrink - 6), 108 * shrink + 6
    corners = np.array([[x, y, level] for x in (-wide, wide) for y in (front, back)])
    places = (np.linalg.pinv(steps) @ (corners - first).T).T
    left, top = np.clip(np.floor(places.min(axis=0)), 0, scan.size).astype(int)
    right, bottom = np.clip(np.ceil(places.max(axis=0)) + 1, 0, scan.size).astype(int)
    return (slice(int(top), int(bottom)), slice(int(left), int(right))) if top < bottom and left < right else None
