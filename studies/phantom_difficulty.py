"""How far slice position or mean brightness alone get on the phantom, and how fast it is made.

    python studies/phantom_difficulty.py --patients 200 --size 128
    python studies/phantom_difficulty.py --patients 400 --chest

`--chest` asks the same of the chest films: what brightness, vendor and whatever else a header or a picture's form tells
say of each class, one against the rest. Prints a table and, as the last line, one JSON object. Patients are split in two halves; what is learned (the
prevalence at each relative position, the direction of a brightness) is learned on one and scored on the other.
Intervals come from resampling patients.
"""

import argparse
import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from fl_rsna.phantom.chest.cohort import render_film, studies_of, write_chest_cohort
from fl_rsna.phantom.chest.vendors import VENDORS
from fl_rsna.phantom.head.cohort import Quirks, render_patient, write_cohort
from fl_rsna.task import COVID_CXR

Floats = NDArray[np.float64]
POSITION_BINS = 12
BRAIN_HU = (0.0, 80.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Slices:
    """One row a slice: whether it bleeds, who it belongs to, and the three features."""

    positive: NDArray[np.bool_]
    patient: NDArray[np.int64]
    features: dict[str, Floats]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=int, default=200)
    parser.add_argument("--size", type=int, default=128, help="pixels a side for the two baselines")
    parser.add_argument("--slices", type=int, default=20, help="slices a series")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--speed-patients", type=int, default=10, help="patients written at 256 pixels for the speed")
    parser.add_argument("--chest", action="store_true", help="chest films instead of head CT")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    if options.chest:
        report_films(options.patients, options.seed, options.size, options.speed_patients)
        return
    slices = gather(options.patients, options.seed, options.size, options.slices)
    figures = {name: score(name, slices, options.patients, options.seed) for name in slices.features}
    print(f"{'feature alone':<22}{'AUROC of any':>14}{'95% interval':>18}{'positives':>11}{'slices':>8}")
    for name, figure in figures.items():
        interval = f"{figure['low']:.3f} .. {figure['high']:.3f}"
        print(f"{name:<22}{figure['value']:>14.3f}{interval:>18}{figure['positives']:>11}{figure['slices']:>8}")
    speed = slices_per_second(options.speed_patients, options.seed)
    print(f"written at 256 px: {speed:.1f} slices a second and core")
    result = {"patients": options.patients, "prevalence": float(slices.positive.mean()), **figures}
    print(json.dumps({**result, "slices_per_second_256": speed}))


def report_films(patients: int, seed: int, size: int, speed_patients: int) -> None:
    """Print how far each feature alone gets on each class of chest film."""
    features, classes = gather_films(patients, seed, size)
    owner, figures = np.arange(patients), {}
    print(f"{'feature alone':<22}{'class':<16}{'AUROC':>8}{'95% interval':>18}{'positives':>11}{'films':>8}")
    for name, values in features.items():
        for place, label in enumerate(COVID_CXR.labels):
            films = Slices(positive=classes == place, patient=owner, features={name: values})
            figure = figures[f"{name} {label}"] = score(name, films, patients, seed)
            interval = f"{figure['low']:.3f} .. {figure['high']:.3f}"
            print(
                f"{name:<22}{label:<16}{figure['value']:>8.3f}{interval:>18}{figure['positives']:>11}{figure['slices']:>8}"
            )
    speed = films_per_second(speed_patients, seed)
    print(f"written at 256 px: {speed:.1f} films a second and core")
    shares = {label: float((classes == place).mean()) for place, label in enumerate(COVID_CXR.labels)}
    print(json.dumps({"patients": patients, "shares": shares, **figures, "films_per_second_256": speed}))


def gather_films(patients: int, seed: int, size: int) -> tuple[dict[str, Floats], NDArray[np.int64]]:
    """The first film of every patient: features that should say nothing of the class, and the class."""
    rows: list[tuple[float, ...]] = []
    classes = []
    for number in range(patients):
        film = render_film(seed, number, size=size)
        names = [vendor.name for vendor in VENDORS]
        high, wide = film.picture.shape
        counts = studies_of(seed, number)
        rows.append(
            (
                float(film.picture.mean()),
                float(film.picture.std()),
                names.index(film.vendor.name),
                film.vendor.bits,
                film.vendor.inverted,
                film.view == "AP",
                wide / high,
                sum(counts),
            )
        )
        classes.append(int(film.appearance))
    table = np.array(rows, dtype=np.float64).T
    titles = ("mean_grey", "deviation", "vendor", "bits", "monochrome1", "view", "aspect", "images")
    return dict(zip(titles, table, strict=True)), np.array(classes)


def films_per_second(patients: int, seed: int) -> float:
    """Chest films made and written at 256 pixels a second of one core's time."""
    with tempfile.TemporaryDirectory() as folder:
        write_chest_cohort(Path(folder) / "warm", patients=1, seed=seed, size=64)
        start = time.process_time()
        write_chest_cohort(Path(folder) / "timed", patients=patients, seed=seed)
        seconds = time.process_time() - start
        return len(list((Path(folder) / "timed").rglob("*.dcm"))) / seconds


def gather(patients: int, seed: int, size: int, slices: int) -> Slices:
    """Render every patient and keep its labels and features."""
    positive, owner, position, mean, soft = [], [], [], [], []
    for number in range(patients):
        patient = render_patient(seed, number, size=size, slices=slices)
        count = len(patient.volume_hu)
        positive.append(patient.labels[:, 0] == 1)
        owner.append(np.full(count, number))
        position.append(np.arange(count) / max(1, count - 1))
        mean.append(patient.volume_hu.mean(axis=(1, 2), dtype=np.float64))
        soft.append([_brain_mean(hu) for hu in patient.volume_hu.astype(np.float64)])
    features = {"position": position, "mean_hu": mean, "mean_hu_0_to_80": soft}
    return Slices(
        positive=np.concatenate(positive),
        patient=np.concatenate(owner),
        features={name: np.concatenate(values) for name, values in features.items()},
    )


def _brain_mean(hu: Floats) -> float:
    inside = hu[(hu >= BRAIN_HU[0]) & (hu <= BRAIN_HU[1])]
    return float(inside.mean()) if inside.size else 0.0


def score(name: str, slices: Slices, patients: int, seed: int) -> dict[str, float]:
    """AUROC on the second half of what the first half teaches, with a patient bootstrap."""
    learn = slices.patient < patients // 2
    values, positive = slices.features[name], slices.positive
    edges = np.quantile(values[learn], np.linspace(0, 1, POSITION_BINS + 1)[1:-1])
    bins = np.searchsorted(edges, values)
    hits = np.bincount(bins[learn], weights=positive[learn], minlength=POSITION_BINS)
    risk = ((hits + 0.5) / (np.bincount(bins[learn], minlength=POSITION_BINS) + 1))[bins]
    held, owner = ~learn, slices.patient[~learn]
    risk, positive = risk[held], positive[held]
    rows = [np.flatnonzero(owner == number) for number in np.unique(owner)]
    rng = np.random.default_rng([seed, 1])
    draws = [np.concatenate([rows[k] for k in rng.integers(0, len(rows), len(rows))]) for _ in range(500)]
    low, high = np.quantile([auroc(risk[draw], positive[draw]) for draw in draws], [0.025, 0.975])
    return {
        "value": auroc(risk, positive),
        "low": float(low),
        "high": float(high),
        "positives": int(positive.sum()),
        "slices": len(positive),
    }


def auroc(scores: Floats, positive: NDArray[np.bool_]) -> float:
    """Area under the ROC curve; a tie counts half."""
    values, inverse = np.unique(scores, return_inverse=True)
    yes = np.bincount(inverse[positive], minlength=len(values))
    no = np.bincount(inverse[~positive], minlength=len(values))
    below = np.cumsum(no) - no
    return float(((below + 0.5 * no) * yes).sum() / max(1, yes.sum() * no.sum()))


def slices_per_second(patients: int, seed: int) -> float:
    """Slices made and written at 256 pixels a second of one core's time."""
    with tempfile.TemporaryDirectory() as folder:
        write_cohort(Path(folder) / "warm", patients=1, seed=seed, slices_per_series=2)
        start = time.process_time()
        write_cohort(Path(folder) / "timed", patients=patients, seed=seed, quirks=Quirks())
        seconds = time.process_time() - start
        return len(list((Path(folder) / "timed").rglob("*.dcm"))) / seconds


if __name__ == "__main__":
    main()
