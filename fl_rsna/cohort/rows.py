"""What rows of the index say of their neighbours, and their headers in one word: slices in a series, films in a study."""

import numpy as np
import pandas as pd

SERIES, STUDY = ["patient_id", "series_id"], ["patient_id", "study_id"]
DEEP_PADDING_HU = -2500.0
NOISE_RANGE_HU, NOISE_SHARE = 60.0, 0.02  # the competitors' rules for slices without brain


def slice_rows(facts: pd.DataFrame) -> pd.DataFrame:
    """Slices by patient, series and position, with the columns that a file alone does not give."""
    table = facts.sort_values([*SERIES, "position_mm", "image_id"], kind="stable").reset_index(drop=True)
    table = _with_places(table)
    table["noise"] = (table["brain_range_hu"] <= NOISE_RANGE_HU) | (table["brain_share"] < NOISE_SHARE)
    return _with_fingerprint(table)


def film_rows(facts: pd.DataFrame) -> pd.DataFrame:
    """Films by patient, study, series and id, with the columns that a file alone does not give.

    A film of a study has no place in space; its rank is there because every image of an exam has one.
    """
    table = facts.sort_values([*STUDY, "series_id", "image_id"], kind="stable").reset_index(drop=True)
    sign = np.where(table["signed"], "s ", "u ")
    bits = table["bits_stored"].astype(str) + sign + table["photometric"]
    padding = np.where(table["padding_share"] > 0, "padded", "none")
    return _ranked(table, STUDY).assign(fingerprint=table["scanner"] + "|" + bits + "|" + padding + "|" + table["voi"])


def _ranked(table: pd.DataFrame, together: list[str]) -> pd.DataFrame:
    """Rank, number and relative position of sorted rows among those that belong together."""
    groups = table.groupby(together, sort=False)
    rank, slices = groups.cumcount(), groups["image_id"].transform("size")
    last = slices - 1
    relative = (rank / last.where(last > 0)).fillna(0.5)
    return table.assign(rank=rank, slices=slices, relative_position=relative)


def _with_places(table: pd.DataFrame) -> pd.DataFrame:
    """Ranks, steps and ranges inside each series; `table` is sorted by position."""
    series = table.groupby(SERIES, sort=False)
    position = series["position_mm"]
    below = position.diff()
    return _ranked(table, SERIES).assign(
        step_below_mm=below,
        step_above_mm=-position.diff(-1),
        range_mm=position.transform("max") - position.transform("min"),
        repeated_position=below.eq(0) | position.diff(-1).eq(0),
    )


def _with_fingerprint(table: pd.DataFrame) -> pd.DataFrame:
    """Words for what a scanner's headers look like; few different ones, so built once for each."""
    keys = ["bits_stored", "signed", "intercept", "scanner", "window_center", "window_width"]
    padding = np.select([table["padding_hu"].isna(), table["padding_hu"] <= DEEP_PADDING_HU], ["none", "deep"], "low")
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
