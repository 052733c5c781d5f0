"""Where each slice of one stack lies, by its position or by what else its header says of order.

SliceLocation and InstanceNumber have no direction in the standard: both usually grow towards the head, and are taken to.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import pandas as pd
from numpy.typing import NDArray

# Positions as near as this are one. Written to two decimals they differ by up to 0.015 mm in a tilted plane, to six by 3e-6;
# no scanner steps by less than 0.1 mm.
SAME_MM = 0.02
FARTHEST = 1e6  # a number beyond this is a damaged one

Floats = NDArray[np.float64]


class Order(StrEnum):
    """By what a slice has its place; the values stand in the index."""

    position = "position"
    slice_location = "slice_location"
    instance_number = "instance_number"
    unknown = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Of n slices: `place` grows towards the head, NaN where unknown; `position_mm` is NaN unless `order` is position."""

    order: Order
    place: Floats
    position_mm: Floats
    filled: NDArray[np.bool_]


def known_places(index: pd.DataFrame) -> NDArray[np.bool_]:
    """Which rows of an index have a place in their series, and so neighbours; all of one that does not say."""
    if "order" not in index:
        return np.ones(len(index), np.bool_)
    return np.asarray(index["order"].to_numpy() != Order.unknown.value, np.bool_)


def places(position: Floats, location: Floats, number: Floats) -> Places:
    """Places of the n slices of a stack from their heights in mm, SliceLocation and InstanceNumber, NaN where missing.

    Positions count where they are known, or filled in, for more than half of the slices and tell them apart as well as
    SliceLocation does; then SliceLocation, then InstanceNumber. What is missing is filled in from the others.
    """
    location, number = (np.where(np.abs(values) <= FARTHEST, values, np.nan) for values in (location, number))
    told = {Order.slice_location: location, Order.instance_number: number}
    usable = [order for order, values in told.items() if _tells(values)]
    found, nothing = _filled(position, [location, number]), np.full(len(position), np.nan)
    most = 2 * np.isfinite(found).sum() > len(found) and (_tells(found) or Order.slice_location not in usable)
    if most or (not usable and np.isfinite(found).any()):
        return Places(
            order=Order.position, place=found, position_mm=found, filled=np.isnan(position) & ~np.isnan(found)
        )
    if not usable:
        return Places(order=Order.unknown, place=nothing, position_mm=nothing, filled=np.zeros(len(found), np.bool_))
    order = max(usable, key=lambda order: np.isfinite(told[order]).sum())  # of two with as many, the first
    place = _filled(told[order], [values for other, values in told.items() if other is not order])
    return Places(order=order, place=place, position_mm=nothing, filled=np.isnan(told[order]) & ~np.isnan(place))


def _tells(values: Floats) -> bool:
    """Whether values tell slices apart: two or more of them, and none that most slices without one were given."""
    counts = np.unique(np.round(values[np.isfinite(values)], 2), return_counts=True)[1]
    return len(counts) > 1 and bool(counts.max() <= 2 * np.median(counts))


def _filled(values: Floats, keys: Sequence[Floats]) -> Floats:
    """`values` with those missing that the keys tell: each key that tells one puts it between the same two slices."""
    guesses = [guess for key in keys if (guess := _between(values, key)) is not None]
    found = values.copy()
    for row in np.flatnonzero(np.isnan(values)):
        told = [float(guess[row]) for guess in guesses if np.isfinite(guess[row])]
        spans = [_span(values, place) for place in told]
        if told and max(low for low, _ in spans) <= min(high for _, high in spans):
            found[row] = told[0]
    return found


def _span(values: Floats, place: float) -> tuple[int, int]:
    """How many known values lie below a place, those at the place not counted and counted."""
    return int((values < place - SAME_MM).sum()), int((values <= place + SAME_MM).sum())


def _between(values: Floats, key: Floats) -> Floats | None:
    """Values at every key, in a straight line between known ones; None where known values do not rise or fall with the key.

    Beyond the known ones it goes no farther than all slices would reach at the mean step of the known ones.
    """
    known = np.isfinite(values) & np.isfinite(key)
    at, where = np.unique(key[known], return_inverse=True)
    if len(at) < 2:
        return None
    low, high = np.full(len(at), np.inf), np.full(len(at), -np.inf)
    np.minimum.at(low, where, values[known])
    np.maximum.at(high, where, values[known])
    steps = np.diff(low)
    monotone = (steps >= -SAME_MM).all() or (steps <= SAME_MM).all()
    if (high - low > SAME_MM).any() or not monotone or np.ptp(low) <= SAME_MM:
        return None
    found = np.interp(key, at, low)
    found = np.where(key < at[0], low[0] + (key - at[0]) * steps[0] / (at[1] - at[0]), found)
    found = np.where(key > at[-1], low[-1] + (key - at[-1]) * steps[-1] / (at[-1] - at[-2]), found)
    reach = len(values) * (at[-1] - at[0]) / (len(at) - 1)
    return np.where((key < at[0] - reach) | (key > at[-1] + reach), np.nan, found)
