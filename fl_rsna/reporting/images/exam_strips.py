"""Show one exam as a strip: its slices from the lowest to the highest, with the model's probability of one label below each.

A strip is plain values, so that a page is given it from memory or from a JSON file. templates/strips.html.j2 draws it: a slice that
is chosen by mouse or arrow keys is shown large, alone and with its Grad-CAM heat where it has one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fl_rsna.reporting.images.contact_sheets import as_uri, evenly
from fl_rsna.reporting.record.wording import format_count

SIDE = 176  # pixels of a slice on a page


@dataclass(frozen=True, slots=True, kw_only=True)
class StripSlice:
    """A slice of a strip. `picture` and `heat` are data URIs; `truth` is None where the label is unknown."""

    image_id: str
    number: int  # its place in the exam, from 1
    picture: str
    heat: str | None
    probability: float
    is_above: bool  # at or above the threshold
    truth: bool | None
    alt: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExamStrip:
    """An exam's slices, the lowest first. `key` is unique on a page; `chosen` is the position in `slices` that is shown first."""

    key: str
    title: str
    label: str
    picture: str  # what a slice is called
    threshold: float | None
    summary: str
    chosen: int
    slices: tuple[StripSlice, ...]


def choose_slices(probabilities: NDArray[np.floating], most: int) -> list[int]:
    """Choose at most `most` positions of an exam's slices [N], in their order, at even steps; the most probable slice is among them."""
    if len(probabilities) <= most:
        return list(range(len(probabilities)))
    chosen = evenly(np.arange(len(probabilities), dtype=np.float64), most)
    highest = int(np.argmax(probabilities))
    nearest = min(range(len(chosen)), key=lambda place: abs(chosen[place] - highest))
    return sorted({*(int(place) for i, place in enumerate(chosen) if i != nearest), highest})


def build_strip(
    *,
    key: str,
    title: str,
    label: str,
    picture: str,
    image_ids: Sequence[str],
    probabilities: NDArray[np.floating],
    truth: Sequence[bool | None],
    threshold: float | None,
    pictures: Mapping[int, NDArray[np.uint8]],
    heats: Mapping[int, str],
) -> ExamStrip:
    """Build the strip of an exam of N slices, which `image_ids`, `probabilities` and `truth` list from the lowest to the highest.

    `pictures` holds by position those slices that are shown, uint8 [S, S] or [S, S, 3]; `heats` holds by position the data URIs of
    their heat, as far as there is any.
    """
    above = np.zeros(len(probabilities), bool) if threshold is None else probabilities >= threshold
    shown = sorted(pictures)
    slices = tuple(
        StripSlice(
            image_id=image_ids[place],
            number=place + 1,
            picture=as_uri(pictures[place]),
            heat=heats.get(place),
            probability=float(probabilities[place]),
            is_above=bool(above[place]),
            truth=truth[place],
            alt=f"{picture} {place + 1} of {len(probabilities)}{_say_truth(truth[place], label)}",
        )
        for place in shown
    )
    highest = int(np.argmax(probabilities))
    words = [f"highest probability of {label} {probabilities[highest]:.2f}, at {picture} {highest + 1}"]
    if threshold is not None:
        words.append(f"{format_count(int(above.sum()), picture)} at or above the threshold {threshold:.2g}")
    if any(found is not None for found in truth):
        words.append(f"{format_count(sum(found is True for found in truth), picture)} labelled {label}")
    if len(shown) < len(probabilities):
        words.append(f"{len(shown)} of {format_count(len(probabilities), picture)} shown")
    return ExamStrip(
        key=key,
        title=title,
        label=label,
        picture=picture,
        threshold=threshold,
        summary="; ".join(words),
        chosen=min(range(len(shown)), key=lambda i: abs(shown[i] - highest)),
        slices=slices,
    )


def _say_truth(truth: bool | None, label: str) -> str:
    return "" if truth is None else f", labelled {label}" if truth else f", labelled without {label}"
