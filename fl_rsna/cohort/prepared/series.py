"""Judge each series as a whole: what belongs to it, where each slice lies, and by what its slices are ordered from the feet to the head.

A file is judged alone when it is converted. Only its series shows that one UID names two stacks of slices, that a position
is missing, or that InstanceNumber agrees with the positions there. SliceLocation and InstanceNumber have no direction in the
standard: both usually grow towards the head, and are taken to.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

# Positions as near as this are one. Written to two decimals they differ by up to 0.015 mm in a tilted plane, to six by 3e-6;
# no scanner steps by less than 0.1 mm.
SAME_MM = 0.02
FARTHEST = 1e6  # a number beyond this is a damaged one

SERIES = ["patient_id", "series_id"]
STATED = {"study_id": object, "frame_id": object, "image_id": object, "normal": object, "corner": object}
STATED |= {"position_mm": np.float64, "slice_location": np.float64, "instance_number": np.float64}
SAME_DIRECTION = float(np.cos(np.radians(1.0)))  # of normals: headers round cosines to 4 digits, gantries tilt by more
HASH = re.compile(r"[0-9a-f]{16}")  # as cohort/prepared/index.py makes them
UP = np.array([0.0, 0.0, 1.0])

Floats = NDArray[np.float64]
Names = NDArray[np.object_]
Rows = NDArray[np.intp]


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


def find_placed_rows(index: pd.DataFrame) -> NDArray[np.bool_]:
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
    found, nothing = _fill_missing(position, [location, number]), np.full(len(position), np.nan)
    most = 2 * np.isfinite(found).sum() > len(found) and (_tells(found) or Order.slice_location not in usable)
    if most or (not usable and np.isfinite(found).any()):
        return Places(
            order=Order.position, place=found, position_mm=found, filled=np.isnan(position) & ~np.isnan(found)
        )
    if not usable:
        return Places(order=Order.unknown, place=nothing, position_mm=nothing, filled=np.zeros(len(found), np.bool_))
    order = max(usable, key=lambda order: np.isfinite(told[order]).sum())  # of two with as many, the first
    place = _fill_missing(told[order], [values for other, values in told.items() if other is not order])
    return Places(order=order, place=place, position_mm=nothing, filled=np.isnan(told[order]) & ~np.isnan(place))


def _tells(values: Floats) -> bool:
    """Whether values tell slices apart: two or more of them, and none that most slices without one were given."""
    counts = np.unique(np.round(values[np.isfinite(values)], 2), return_counts=True)[1]
    return len(counts) > 1 and bool(counts.max() <= 2 * np.median(counts))


def _fill_missing(values: Floats, keys: Sequence[Floats]) -> Floats:
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


def judge_series(facts: pd.DataFrame) -> pd.DataFrame:
    """What files give (cohort/prepared/index.py), with study_id and series_id of every slice, and where it lies in its series.

    New or changed: `position_mm`, `order`, `place_filled` and `place`, which grows towards the head and is missing where the
    order is unknown. Ids that a file does not state group nothing that may be apart.
    """
    alone = facts["frame_id"].where(facts["frame_id"] != "", facts["lone_id"])
    named = facts["series_id"].where(facts["series_id"] != "", facts["study_id"])
    table = facts.assign(series_id=named.where(named != "", alone))
    judged = _Judged(table)
    for rows in _uneven(table):
        judged.judge(rows)
    study = pd.Series(judged.study, index=table.index)
    return table.assign(
        study_id=study.where(study != "", table["series_id"]),
        series_id=judged.series,
        position_mm=judged.position,
        order=judged.order,
        place_filled=judged.filled,
        place=judged.place,
    )


def _uneven(table: pd.DataFrame) -> list[Rows]:
    """Rows of each series that is not plainly one stack with its positions, all of them apart; few series are not."""
    member = table.groupby(SERIES, sort=True).ngroup().to_numpy()
    first = np.zeros(member.max(initial=-1) + 1, np.intp)
    first[member[::-1]] = np.arange(len(table))[::-1]
    heights = pd.DataFrame({"member": member, "height": table["position_mm"].round(2)})
    odd = table["position_mm"].isna().to_numpy() | heights.duplicated(keep=False).to_numpy()
    for name in ("study_id", "frame_id", "orientation"):
        codes = pd.factorize(table[name])[0]
        odd |= codes != codes[first[member]]
    wanted = np.flatnonzero(np.isin(member, member[odd]))
    order = wanted[np.argsort(member[wanted], kind="stable")]
    return np.split(order, np.flatnonzero(np.diff(member[order])) + 1) if len(order) else []


class _Judged:
    """What is known of every row of the table, to which the judgement of one series after the other is added."""

    def __init__(self, table: pd.DataFrame) -> None:
        self._columns = {name: table[name].to_numpy(kind) for name, kind in STATED.items()}
        self._taken = set(table["series_id"])
        self.study, self.series = (table[name].to_numpy(object).copy() for name in ("study_id", "series_id"))
        self.position = table["position_mm"].to_numpy(np.float64).copy()
        self.place = self.position.copy()
        self.filled = np.zeros(len(table), np.bool_)
        self.order = np.full(len(table), Order.position.value, object)

    def judge(self, rows: Rows) -> None:
        """Find out what rows of one series make of each other: its stacks, each with a name, and the place of each slice."""
        stated = _Stated.of({name: values[rows] for name, values in self._columns.items()})
        for stack, name in zip(_stacks(stated), self._names(self.series[rows[0]]), strict=False):
            here, found = rows[stack], _places(stated, stack)
            self.study[here], self.series[here] = _commonest(stated.study[stack], stated.image[stack]), name
            self.position[here], self.place[here], self.filled[here] = found.position_mm, found.place, found.filled
            self.order[here] = np.where(np.isnan(found.place), Order.unknown.value, found.order.value)

    def _names(self, series: str) -> Iterator[str]:
        """The name of a series, for its largest stack, and then others that nothing has."""
        yield series
        number = 1
        while True:
            number += 1
            name = _build_series_id(series, number)
            if name not in self._taken:
                self._taken.add(name)
                yield name


def _build_series_id(series: str, number: int) -> str:
    """An id made of another; of a hash a hash, so that a set's ids stay of one kind."""
    name = f"{series}-{number}"
    return hashlib.sha256(name.encode()).hexdigest()[:16] if HASH.fullmatch(series) else name


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stated:
    """What n slices of one series state; numbers that they do not are NaN."""

    study: Names
    frame: Names
    image: Names
    normal: Floats  # [n, 3]
    corner: Floats  # [n, 3]
    position: Floats
    location: Floats
    number: Floats

    @classmethod
    def of(cls, columns: Mapping[str, NDArray[Any]]) -> "_Stated":
        return cls(
            study=columns["study_id"],
            frame=columns["frame_id"],
            image=columns["image_id"],
            normal=_vectors(columns["normal"]),
            corner=_vectors(columns["corner"]),
            position=columns["position_mm"],
            location=columns["slice_location"],
            number=columns["instance_number"],
        )


def _stacks(stated: _Stated) -> list[Rows]:
    """Slices that lie one above the other: of one study, frame of reference and direction; the largest stack first.

    A slice that does not state one of these belongs to the most that do.
    """
    frames = stated.frame if _group_something(stated.frame) else np.full(len(stated.frame), "", object)
    stacks = [np.arange(len(stated.image))]
    for names in (stated.study, frames):
        stacks = [rows[here] for rows in stacks for here in _by_name(names[rows], stated.image[rows])]
    stacks = [rows[here] for rows in stacks for here in _by_direction(stated.normal[rows])]
    return sorted(stacks, key=lambda rows: (-len(rows), min(stated.image[rows])))


def _group_something(frames: Names) -> bool:
    """Whether frames of reference tell stacks apart: some anonymisers give every image one of its own."""
    known = frames[frames != ""]
    return len(set(known)) < len(known)


def _by_name(names: Names, images: Names) -> list[Rows]:
    filled = np.where(names == "", _commonest(names, images), names)
    return [np.flatnonzero(filled == name) for name in sorted(set(filled))]


def _commonest(names: Names, images: Names) -> str:
    """The name that most have, of two the one whose first image comes first; empty where none has one."""
    known = sorted(set(names[names != ""]), key=lambda name: (-(names == name).sum(), min(images[names == name])))
    return str(known[0]) if known else ""


def _by_direction(normals: Floats) -> list[Rows]:
    """Rows by the direction of their normals [n, 3], the commonest first; those without one go with it."""
    left = ~np.isnan(normals).any(axis=1)
    unknown, found = np.flatnonzero(~left), []
    while left.any():
        near = left & (normals @ _common(normals[left]) >= SAME_DIRECTION)
        found.append(np.flatnonzero(near))
        left &= ~near
    if not found:
        return [unknown]
    return [np.sort(np.concatenate([found[0], unknown])), *found[1:]]


def _common(normals: Floats) -> Floats:
    """The mean of those normals [n, 3] that are the commonest to three decimals."""
    _, kind, counts = np.unique(np.round(normals, 3) + 0.0, axis=0, return_inverse=True, return_counts=True)
    mean = normals[kind.reshape(-1) == np.argmax(counts)].mean(axis=0)
    return np.asarray(mean / np.linalg.norm(mean))


def _places(stated: _Stated, rows: Rows) -> Places:
    """Where the slices of one stack lie, along one normal."""
    normals, corners, position = stated.normal[rows], stated.corner[rows], stated.position[rows]
    known = normals[~np.isnan(normals).any(axis=1)]
    if not len(known):  # along the axis of the patient, which a gantry leaves by 30 degrees at most
        position = corners @ UP
        if len(rows) > 1 and not np.nanmax(position, initial=-np.inf) - np.nanmin(position, initial=np.inf) > SAME_MM:
            position = np.full(len(rows), np.nan)  # other numbers than these must tell them apart
    elif len(known) < len(rows) or np.ptp(known, axis=0).any():  # heights along different normals do not compare
        position = corners @ _common(known)
    if len(rows) > 1 and (corners == 0).all():  # written for want of a true one
        position = np.full(len(rows), np.nan)
    return places(position, stated.location[rows], stated.number[rows])


def _vectors(texts: Names) -> Floats:
    """Texts of three numbers as [n, 3]; NaN where there are none."""
    return np.array([text.split("\\") if text else [np.nan] * 3 for text in texts], np.float64).reshape(-1, 3)
