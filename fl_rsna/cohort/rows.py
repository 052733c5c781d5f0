"""What rows of the index say of their neighbours, and their headers in one word: slices in a series, films in a study."""

import numpy as np
import pandas as pd

from fl_rsna.cohort.series import SERIES, judged_series
from fl_rsna.cohort.slice_places import SAME_MM, Order
from fl_rsna.imaging.windows import HU_MIN

STUDY = ["patient_id", "study_id"]
DEEP_PADDING_HU = -2500.0
NOISE_RANGE_HU, NOISE_SHARE = 60.0, 0.02  # the competitors' rules for slices without brain


def slice_rows(facts: pd.DataFrame) -> pd.DataFrame:
    """Slices by patient, series and place from the feet up, with the columns that a file alone does not give."""
    table = judged_series(facts).sort_values([*SERIES, "place", "image_id"], kind="stable").reset_index(drop=True)
    table["level"] = _levels(table)
    table = table.sort_values([*SERIES, "level", "image_id"], kind="stable").reset_index(drop=True)
    table = _with_places(table)
    table["noise"] = (table["brain_range_hu"] <= NOISE_RANGE_HU) | (table["brain_share"] < NOISE_SHARE)
    return _with_fingerprint(table)


def series_by_order(index: pd.DataFrame) -> dict[str, int]:
    """How many series of an index are ordered by what; a film has no order in space."""
    if "order" not in index:
        return {}
    counts = index.loc[index["rank"] == 0, "order"].value_counts()
    return {order.value: int(counts[order.value]) for order in Order if order.value in counts}


def film_rows(facts: pd.DataFrame) -> pd.DataFrame:
    """Films by patient, study, series and id, with the columns that a file alone does not give.

    A film of a study has no place in space; its rank is there because every image of an exam has one.
    """
    table = facts.sort_values([*STUDY, "series_id", "image_id"], kind="stable").reset_index(drop=True)
    films = table.groupby(STUDY, sort=False)
    rank, count = films.cumcount(), films["image_id"].transform("size")
    sign = np.where(table["signed"], "s ", "u ")
    bits = table["bits_stored"].astype(str) + sign + table["photometric"]
    padding = np.where(table["padding_share"] > 0, "padded", "none")
    return table.assign(
        rank=rank,
        slices=count,
        relative_position=_relative(rank, count),
        fingerprint=table["scanner"] + "|" + bits + "|" + padding + "|" + table["voi"],
    )


def _relative(rank: pd.Series, count: pd.Series) -> pd.Series:
    """From 0 for the first to 1 for the last of so many; 0.5 for one alone and where `rank` is missing."""
    return (rank / (count - 1).where(count > 1)).fillna(0.5)


def _levels(table: pd.DataFrame) -> pd.Series:
    """The lowest place of the slices that lie in one plane, for each of them; `table` is sorted by place in its series."""
    place = table["place"]
    apart = table.groupby(SERIES, sort=False)["place"].diff().gt(SAME_MM)
    first = ~table.duplicated(SERIES)
    return place.groupby((apart | first).cumsum()).transform("min").where(place.notna())


def _with_places(table: pd.DataFrame) -> pd.DataFrame:
    """Ranks, steps and ranges inside each series; `table` is sorted by level."""
    known = table["level"].notna()
    series = table.assign(height=table["level"].where(table["position_mm"].notna())).groupby(SERIES, sort=False)
    rank, below, height = series.cumcount(), series["height"].diff(), series["height"]
    same = table["level"].where(table["order"] != Order.instance_number)
    return table.assign(
        rank=rank,
        slices=series["image_id"].transform("size"),
        relative_position=_relative(
            rank.where(known), known.groupby([table[name] for name in SERIES]).transform("sum")
        ),
        step_below_mm=below,
        step_above_mm=-height.diff(-1) + 0.0,  # no negative zero
        range_mm=height.transform("max") - height.transform("min"),
        repeated_position=table.assign(same=same).duplicated([*SERIES, "same"], keep=False) & same.notna(),
    )


def _with_fingerprint(table: pd.DataFrame) -> pd.DataFrame:
    """Words for what a scanner's headers look like; few different ones, so built once for each."""
    keys = ["bits_stored", "signed", "intercept", "scanner", "window_center", "window_width"]
    padding_hu = table["padding_hu"]
    known = [padding_hu.isna(), padding_hu <= DEEP_PADDING_HU, padding_hu > HU_MIN]
    padding = np.select(known, ["none", "deep", "high"], "low")
    combined = table[keys].assign(padding_group=padding)
    kinds = combined.drop_duplicates()
    bit_type = [
        f"{bits}{'s' if signed else 'u'}{intercept:+g}"
        for bits, signed, intercept in zip(kinds["bits_stored"], kinds["signed"], kinds["intercept"], strict=True)
    ]
    window = [
        f"{a:g}/{b:g}" if a == a and b == b else ""
        for a, b in zip(kinds["window_center"], kinds["window_width"], strict=True)
    ]
    words = kinds.assign(bit_type=bit_type, window=window)
    parts = zip(words["scanner"], words["bit_type"], words["padding_group"], words["window"], strict=True)
    words["fingerprint"] = ["|".join(part) for part in parts]
    found = combined.merge(words, how="left", on=[*keys, "padding_group"])
    return table.assign(**{name: found[name].to_numpy() for name in ("bit_type", "padding_group", "fingerprint")})
