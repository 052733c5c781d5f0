"""Sites that exist already: patients grouped by what their slices say of the scanner or of the place."""

import pandas as pd

NaturalSite = tuple[tuple[str, ...], list[str]]
"""The values of the column that make a site, and its patients, sorted."""


def natural_sites(index: pd.DataFrame, key: str, column: str, num_sites: int) -> list[NaturalSite]:
    """The `num_sites` - 1 largest groups of patients with the same `column`, and the rest as the last site.

    With no more groups than sites, every group is a site. Largest first; equal ones in alphabetical order. Raises
    ValueError when the column is missing, empty for a patient, or has one value only.
    """
    values = _most_frequent(index, key, column)
    groups: list[NaturalSite] = [((str(value),), sorted(part.index)) for value, part in values.groupby(values)]
    groups.sort(key=lambda group: (-len(group[1]), group[0]))
    if len(groups) < 2:
        raise ValueError(
            f"partition.kind: expected 2 or more values of {column} to make sites of, got only {groups[0][0][0]!r}; "
            "use another partition"
        )
    if num_sites < 2:
        raise ValueError(
            f"partition.num_sites: expected 2 or more sites by {column}, got {num_sites}, which would put all {len(groups)} "
            "groups into one; raise it"
        )
    if len(groups) <= num_sites:
        return groups
    rest = groups[num_sites - 1 :]
    joined = (
        tuple(sorted(value for made_of, _ in rest for value in made_of)),
        sorted(patient for _, part in rest for patient in part),
    )
    return [*groups[: num_sites - 1], joined]


def _most_frequent(index: pd.DataFrame, key: str, column: str) -> pd.Series:
    """The value on most of a patient's slices, empty ones aside; ties go to the first in alphabetical order."""
    if column not in index:
        raise ValueError(
            f"partition.kind: expected the column {column} in index.parquet, got none; prepare the data again"
        )
    said = index.loc[index[column].notna() & (index[column] != ""), [key, column]].astype({column: str})
    counted = said.groupby([key, column], sort=True).size().rename("slices").reset_index()
    ordered = counted.sort_values([key, "slices", column], ascending=[True, False, True], kind="stable")
    values = ordered.drop_duplicates(key).set_index(key)[column]
    silent = sorted(set(index[key]) - set(values.index))
    if silent:
        raise ValueError(
            f"partition.kind: expected {column} of every patient, got none for {len(silent)} of {index[key].nunique()} "
            f"(first: {silent[0]}); use another partition, or say where each patient is with partition=explicit"
        )
    return values
