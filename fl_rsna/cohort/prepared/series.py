"""Find, for each series as a whole, which slices belong to it, where each lies, and what orders them from the feet to the head.

A file is checked alone when it is converted. Only the whole series shows that one UID names two stacks of slices, that a position is missing,
or that InstanceNumber agrees with the known positions. In the DICOM standard SliceLocation and InstanceNumber have no direction; here both
are taken to grow towards the head, as they usually do.
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

# Positions that differ by less count as one. Written to two decimals they differ by up to 0.015 mm in a tilted plane, to six by
# 3e-6 mm; no scanner steps by less than 0.1 mm.
SAME_MM = 0.02
FARTHEST = 1e6  # larger absolute values are damaged

SERIES = ["patient_id", "series_id"]
STATED = {"study_id": object, "frame_id": object, "image_id": object, "normal": object, "corner": object}
STATED |= {"position_mm": np.float64, "slice_location": np.float64, "instance_number": np.float64}
SAME_DIRECTION = float(
    np.cos(np.radians(1.0))
)  # cosine of the angle between normals that count as one: headers round to 4 digits, gantries tilt by more
HASH = re.compile(r"[0-9a-f]{16}")  # a hashed id, see hash_id in cohort/prepared/index.py
UP = np.array([0.0, 0.0, 1.0])

Floats = NDArray[np.float64]
Names = NDArray[np.object_]
Rows = NDArray[np.intp]


class Order(StrEnum):
    """The header tag by which slices are ordered, as the column `order` of the index has it."""

    position = "position"
    slice_location = "slice_location"
    instance_number = "instance_number"
    unknown = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """The places of n slices. `place` grows towards the head and is NaN where unknown.

    `position_mm` is NaN unless `order` is position. `filled` says where a missing value was filled in.
    """

    order: Order
    place: Floats
    position_mm: Floats
    filled: NDArray[np.bool_]


def find_placed_rows(index: pd.DataFrame) -> NDArray[np.bool_]:
    """Find the rows of an index that have a place in their series, and so neighbours; all rows where the index has no column `order`."""
    if "order" not in index:
        return np.ones(len(index), np.bool_)
    return np.asarray(index["order"].to_numpy() != Order.unknown.value, np.bool_)


def places(position: Floats, location: Floats, number: Floats) -> Places:
    """Place the n slices of a stack by their positions in mm, SliceLocation and InstanceNumber, each [n], NaN where missing.

    Positions are used where more than half of the slices have one, known or filled in, and they tell the slices apart or SliceLocation does
    not. They are also used where the other two tags tell no slices apart. Otherwise the one of SliceLocation and InstanceNumber with more
    values is used. Missing values are filled in from the other tags.
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
    """Say whether values tell slices apart: there are two or more, and none is much more frequent than the others.

    A frequent value is a default that was written where the true one was unknown.
    """
    counts = np.unique(np.round(values[np.isfinite(values)], 2), return_counts=True)[1]
    return len(counts) > 1 and bool(counts.max() <= 2 * np.median(counts))


def _fill_missing(values: Floats, keys: Sequence[Floats]) -> Floats:
    """Fill in missing values by the keys, where all keys that give a value put the slice between the same two slices."""
    guesses = [guess for key in keys if (guess := _between(values, key)) is not None]
    found = values.copy()
    for row in np.flatnonzero(np.isnan(values)):
        told = [float(guess[row]) for guess in guesses if np.isfinite(guess[row])]
        spans = [  # how many known values lie below the place, those at it not counted and counted
            (int((values < place - SAME_MM).sum()), int((values <= place + SAME_MM).sum())) for place in told
        ]
        if told and max(low for low, _ in spans) <= min(high for _, high in spans):
            found[row] = told[0]
    return found


def _between(values: Floats, key: Floats) -> Floats | None:
    """Interpolate values linearly at every key; None where the known values do not rise or fall with the key.

    Beyond the known keys values are extrapolated, but no farther than all slices would reach at the mean step of the known ones.
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
    """Give every slice its study_id and series_id, and its place in the series.

    `facts` has a row for each slice with the columns that a file gives (cohort/prepared/index.py). Added or changed are `position_mm`, `order`,
    `place_filled`, and `place`, which grows towards the head and is missing where the order is unknown. Slices whose files state no ids are
    not grouped where they may be apart.
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
    """List the rows of each series that is not clearly one stack with known, different positions. Most series are."""
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
    """The columns of the table, which `judge` corrects for one series after the other."""

    def __init__(self, table: pd.DataFrame) -> None:
        self._columns = {name: table[name].to_numpy(kind) for name, kind in STATED.items()}
        self._taken = set(table["series_id"])
        self.study, self.series = (table[name].to_numpy(object).copy() for name in ("study_id", "series_id"))
        self.position = table["position_mm"].to_numpy(np.float64).copy()
        self.place = self.position.copy()
        self.filled = np.zeros(len(table), np.bool_)
        self.order = np.full(len(table), Order.position.value, object)

    def judge(self, rows: Rows) -> None:
        """Split the rows of one series into stacks, name each stack, and place its slices."""
        stated = _Stated.of({name: values[rows] for name, values in self._columns.items()})
        for stack, name in zip(_stacks(stated), self._names(self.series[rows[0]]), strict=False):
            here, found = rows[stack], _places(stated, stack)
            self.study[here], self.series[here] = _commonest(stated.study[stack], stated.image[stack]), name
            self.position[here], self.place[here], self.filled[here] = found.position_mm, found.place, found.filled
            self.order[here] = np.where(np.isnan(found.place), Order.unknown.value, found.order.value)

    def _names(self, series: str) -> Iterator[str]:
        """Yield the series' own id for its largest stack, then unused ids made of it: UID-2, hashed where the series' id is a hash."""
        yield series
        number = 1
        while True:
            number += 1
            name = f"{series}-{number}"
            if HASH.fullmatch(series):
                name = hashlib.sha256(name.encode()).hexdigest()[:16]
            if name not in self._taken:
                self._taken.add(name)
                yield name


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stated:
    """The headers of n slices of one series; missing numbers are NaN."""

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
        """Take the columns STATED, and parse the vectors."""
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
    """Group slices of one study, frame of reference and direction, which lie one above the other; the largest stack comes first.

    A slice that does not state one of these belongs to the largest group. Frames of reference are ignored where every image has one of its
    own, as some anonymisers write them.
    """
    known = stated.frame[stated.frame != ""]
    frames = stated.frame if len(set(known)) < len(known) else np.full(len(stated.frame), "", object)
    stacks = [np.arange(len(stated.image))]
    for names in (stated.study, frames):
        stacks = [rows[here] for rows in stacks for here in _by_name(names[rows], stated.image[rows])]
    stacks = [rows[here] for rows in stacks for here in _by_direction(stated.normal[rows])]
    return sorted(stacks, key=lambda rows: (-len(rows), min(stated.image[rows])))


def _by_name(names: Names, images: Names) -> list[Rows]:
    """Group rows by name; those without one belong to the commonest."""
    filled = np.where(names == "", _commonest(names, images), names)
    return [np.flatnonzero(filled == name) for name in sorted(set(filled))]


def _commonest(names: Names, images: Names) -> str:
    """Find the commonest name; of equally common ones the one with the first image id; empty where all are empty."""
    known = sorted(set(names[names != ""]), key=lambda name: (-(names == name).sum(), min(images[names == name])))
    return str(known[0]) if known else ""


def _by_direction(normals: Floats) -> list[Rows]:
    """Group rows by the direction of their normals [n, 3], the commonest first; rows without a normal belong to it."""
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
    """Compute the mean [3], of length 1, of the normals [n, 3] that are the commonest to three decimals."""
    _, kind, counts = np.unique(np.round(normals, 3) + 0.0, axis=0, return_inverse=True, return_counts=True)
    mean = normals[kind.reshape(-1) == np.argmax(counts)].mean(axis=0)
    return np.asarray(mean / np.linalg.norm(mean))


def _places(stated: _Stated, rows: Rows) -> Places:
    """Place the slices of one stack along one normal."""
    normals, corners, position = stated.normal[rows], stated.corner[rows], stated.position[rows]
    known = normals[~np.isnan(normals).any(axis=1)]
    if not len(known):  # along the patient's axis, from which a gantry tilts by 30 degrees at most
        position = corners @ UP
        if len(rows) > 1 and not np.nanmax(position, initial=-np.inf) - np.nanmin(position, initial=np.inf) > SAME_MM:
            position = np.full(len(rows), np.nan)  # these positions do not tell slices apart
    elif len(known) < len(rows) or np.ptp(known, axis=0).any():  # heights along different normals cannot be compared
        position = corners @ _common(known)
    if len(rows) > 1 and (corners == 0).all():  # zeros that were written where the position was unknown
        position = np.full(len(rows), np.nan)
    return places(position, stated.location[rows], stated.number[rows])


def _vectors(texts: Names) -> Floats:
    """Parse n texts of three numbers to [n, 3]; NaN where a text is empty."""
    return np.array([text.split("\\") if text else [np.nan] * 3 for text in texts], np.float64).reshape(-1, 3)
