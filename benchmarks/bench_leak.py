"""How much of a test set is already in training when a split ignores patients.

    python benchmarks/bench_leak.py --series-table <csv> --slice-table <csv>

The first table has one row a slice with PatientID, SeriesInstanceUID and SOPInstanceUID (RSNA's stage 1 test headers), the
second with PatientID and Image_ID (a sample of the slices of its stage 2 training set). A further table of the size of
that training set is synthesized: patients with STUDIES studies each, one series a study, 20 to 60 slices a series (normal,
mean 35.5, standard deviation 5.9, as in the stage 1 test set). With the second table the number of studies a patient is
estimated from it, without tables STUDIES and 2,000 patients are all there is.

Splits, 80% to 20%: by slice, by series, by patient (the control, nothing may be shared), and shards, the training series
of a split by series in the order of their ids, cut into 10 sites. Who is shared is what the audit finds. Prints a table of
medians and ranges over seeds and, as the last line, one JSON object.
"""

import argparse
import json
import statistics
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table
from scipy.stats import poisson

from fl_rsna.cohort.audit.overlap import find_shared, judge
from fl_rsna.cohort.audit.slices import Kind, Slices

TEST, SITES = 0.2, 10
SLICES_A_SERIES = (35.5, 5.9, 20, 60)  # mean, standard deviation, least, most
TRAINING = {"slices": 752_803, "studies": 21_744, "patients": 18_938}  # RSNA's stage 2 training set
STUDIES = {1: 0.915, 2: 0.051, 3: 0.0247, 4: 0.0027, 6: 0.0057, 10: 0.0009}  # share of patients, by studies_a_patient
COLUMNS = {
    "PatientID": Kind.patient,
    "SeriesInstanceUID": Kind.series,
    "SOPInstanceUID": Kind.image,
    "Image_ID": Kind.image,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--series-table", type=Path, help="patients, series and slices")
    parser.add_argument("--slice-table", type=Path, help="patients and slices, sampled from the training set")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--patients", type=int, help="synthesized; default: 18,938 beside a slice table, else 2,000")
    arguments = parser.parse_args()
    rows = [
        {"table": name, **figures}
        for name, table in tables(arguments.series_table, arguments.slice_table, arguments.patients)
        for figures in measure(table, arguments.seeds)
    ]
    report(rows, arguments.seeds)


def tables(series: Path | None, slices: Path | None, patients: int | None) -> Iterator[tuple[str, pd.DataFrame]]:
    """The tables to split, each with its name; columns are Kinds."""
    if series is not None:
        yield series.name.partition(".")[0], read(series)
    shares = STUDIES
    if slices is not None:
        table = read(slices)
        yield slices.name.partition(".")[0], table
        shares = studies_a_patient(table)
    patients = patients or (2_000 if slices is None else TRAINING["patients"])
    several = ", ".join(f"{count}: {share:.4f}" for count, share in shares.items() if share >= 0.00005)
    print(f"synthesized: {patients} patients; share of patients by number of studies {several}")
    yield f"synthesized, {patients} patients", synthesized(shares, patients)


def read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype=str, usecols=lambda name: name in COLUMNS).rename(columns=COLUMNS)


def studies_a_patient(sample: pd.DataFrame) -> dict[int, float]:
    """Share of patients with 1 to 20 studies, estimated from how many sampled slices each has.

    Maximum likelihood by expectation maximisation: with n studies a patient has Poisson(n m) sampled slices, m being
    the slices of a study times the share of slices sampled. Patients without a sampled slice are counted in.
    """
    counts = sample[Kind.patient].value_counts().to_numpy()
    counts = np.append(counts, np.zeros(max(0, TRAINING["patients"] - len(counts)), int))
    studies = np.arange(1, 21)
    likely = poisson.pmf(counts[:, None], studies * len(sample) / TRAINING["studies"])
    shares = np.full(len(studies), 1 / len(studies))
    for _ in range(2_000):
        whose = likely * shares
        shares = (whose / whose.sum(axis=1, keepdims=True)).mean(axis=0)
    return dict(zip(studies.tolist(), shares.tolist(), strict=True))


def synthesized(shares: dict[int, float], patients: int) -> pd.DataFrame:
    """A table of patients, series and slices; the same for the same arguments."""
    rng, weights = np.random.default_rng(2019), np.array(list(shares.values()))
    studies = rng.choice(list(shares), patients, p=weights / weights.sum())
    series_patient = np.repeat(np.arange(patients), studies)
    mean, deviation, least, most = SLICES_A_SERIES
    lengths = np.clip(rng.normal(mean, deviation, len(series_patient)).round().astype(int), least, most)
    series = rng.permutation(len(series_patient))  # ids say nothing about patients, as in the real tables
    named = {
        Kind.patient: np.repeat(series_patient, lengths),
        Kind.series: np.repeat(series, lengths),
        Kind.image: np.arange(lengths.sum()),
    }
    return pd.DataFrame({kind: [f"{kind}-{number:07d}" for number in numbers] for kind, numbers in named.items()})


def measure(table: pd.DataFrame, seeds: int) -> Iterator[dict[str, object]]:
    """Figures of each split of one table: name -> [median, least, greatest] over seeds, in shares."""
    by_series = Kind.series in table
    for kind in (Kind.image, *([Kind.series] if by_series else []), Kind.patient):
        found = [leak(table, kind, seed) for seed in range(seeds)]
        yield {"split": f"by {'slice' if kind is Kind.image else kind}", **spread(found)}
    if by_series:
        yield {"split": f"{SITES} shards of series", **spread([shards(table, seed) for seed in range(seeds)])}


def spread(found: list[dict[str, float]]) -> dict[str, list[float]]:
    columns = {name: [figures[name] for figures in found] for name in found[0]}
    return {name: [statistics.median(values), min(values), max(values)] for name, values in columns.items()}


def held_out(table: pd.DataFrame, kind: Kind, seed: int) -> pd.Series:
    """Which rows are test: a random fifth of the ids of one kind."""
    names = np.sort(table[kind].unique())
    test = np.random.default_rng(seed).permutation(names)[: round(TEST * len(names))]
    return table[kind].isin(test)


def shared_patients(table: pd.DataFrame, place: pd.Series) -> set[str]:
    """Patients in more than one place, found by the audit; also checks that its verdict says so."""
    blank = pd.DataFrame(index=table.index)
    sharing = find_shared(Slices(places=place.to_frame("place"), ids=table, labels=blank, site=None, part="place"))
    assert judge(sharing).code == int(bool(sharing.patients))
    return set(sharing.patients)


def leak(table: pd.DataFrame, kind: Kind, seed: int) -> dict[str, float]:
    """Shares of the test part's patients, series and slices whose patient is in training too."""
    test = held_out(table, kind, seed)
    shared = shared_patients(table, test.map({True: "test", False: "train"}))
    tested = table[test]
    known = tested[tested[Kind.patient].isin(shared)]
    names = {Kind.patient: "test patients", Kind.series: "test series", Kind.image: "test slices"}
    return {name: known[kind].nunique() / tested[kind].nunique() for kind, name in names.items() if kind in table}


def shards(table: pd.DataFrame, seed: int) -> dict[str, float]:
    """Shares of training patients, and of those with two series or more, that are at more than one site."""
    training = table[~held_out(table, Kind.series, seed)]
    ids = np.sort(training[Kind.series].unique())
    site = {name: f"site-{number + 1}" for number, part in enumerate(np.array_split(ids, SITES)) for name in part}
    shared = shared_patients(training, training[Kind.series].map(site))
    series = training.groupby(Kind.patient)[Kind.series].nunique()
    return {
        "patients at two sites": len(shared) / len(series),
        "of those with two series": len(shared) / max(1, int((series > 1).sum())),
    }


def report(rows: list[dict[str, object]], seeds: int) -> None:
    figures = list(dict.fromkeys(name for row in rows for name in row if name not in ("table", "split")))
    table = Table(title=f"share whose patient is in training too, or at two sites; median (range) of {seeds} seeds")
    for name in ("table", "split", *figures):
        table.add_column(name, justify="left" if name in ("table", "split") else "right", no_wrap=name == "split")
    for row in rows:
        table.add_row(str(row["table"]), str(row["split"]), *(cell(row.get(name)) for name in figures))
    Console(width=140).print(table)
    print(json.dumps({"seeds": seeds, "rows": rows}))


def cell(values: object) -> str:
    if not isinstance(values, list):
        return ""
    median, low, high = (f"{100 * value:.1f}" for value in values)
    return f"{median}%\n{low} to {high}"


if __name__ == "__main__":
    main()
