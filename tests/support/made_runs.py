"""Run folders as a federation leaves them, made without training: numbers one can recognise, of any number of sites and rounds."""

import csv
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from fl_rsna.run_folder.sweep_folder import Asked, Job, JobState, write_asked, write_job
from fl_rsna.run_folder.sweep_settings import folder_name
from fl_rsna.settings.config import Config
from fl_rsna.task import ICH

LABELS = ICH.labels
POINTS = ("sensitivity_95", "specificity_90", "youden")


def estimate(
    value: float | None, *, reach: float | None = 0.05, positives: int = 40, negatives: int = 160
) -> dict[str, Any]:
    """An estimate `reach` to either side; None for no interval."""
    sides = (None, None) if value is None or reach is None else (max(0.0, value - reach), min(1.0, value + reach))
    counts = {"positives": positives, "negatives": negatives, "positive_patients": max(0, positives // 4)}
    return {"value": value, "low": sides[0], "high": sides[1], **counts}


def card(auroc: float | None, positives: int = 40) -> dict[str, Any]:
    """A label's scores; without positives nothing is defined that rests on them."""

    def of(value: float) -> dict[str, Any]:
        return estimate(value if positives else None, reach=0.05 if positives >= 20 else None, positives=positives)

    point = {"threshold": 0.125, "tp": positives - positives // 10, "fp": 16, "tn": 144, "fn": positives // 10}
    rates = {"sensitivity": of(0.9), "specificity": estimate(0.9), "ppv": of(0.692), "npv": of(0.973), "f1": of(0.783)}
    bins = [
        {"low": p / 10, "high": p / 10 + 0.1, "count": 40 - 3 * p, "mean": p / 10 + 0.05, "share": p / 11}
        | {"share_low": p / 15, "share_high": min(1, p / 9)}
        for p in range(10)
    ]
    curve = {"ece": of(0.061), "brier": of(0.085), "bins": bins}
    return {
        "auroc": of(auroc) if auroc is not None else estimate(None, positives=positives),
        "average_precision": of(0.7), "partial_auroc": of(0.8), "log_loss": of(0.2), "brier": of(0.085), "ece": of(0.061),
        "points": {name: {**point, **rates, "false_negative_rate": of(0.1)} if positives else None for name in POINTS},
        "calibration": {"before": curve, "after": {**curve, "ece": of(0.031)} if positives else None},
        "temperature": 1.375 if positives else None,
    }  # fmt: skip


def scorecard(auroc: float | None, positives: int = 40, slices: int = 200) -> dict[str, Any]:
    """A scorecard whose labels are each a little harder than the one before; the second has too few positives."""
    counts = [positives if i != 1 else min(positives, 8) for i in range(len(LABELS))]
    values = [None if auroc is None else auroc - 0.01 * i for i in range(len(LABELS))]
    cards = {label: card(value, count) for label, value, count in zip(LABELS, values, counts, strict=True)}
    return {
        "slices": slices, "patients": 50, "exams": 52, "resamples": 2000, "log_loss": estimate(0.2),
        "slice": cards, "exam": {"max": cards, "noisy_or": cards},
    }  # fmt: skip


def made_run(folder: Path, *, sites: int = 3, rounds: int = 2, auroc: float = 0.9, **changes: Any) -> Path:
    """Write a finished run. `changes` of the config, as group__key."""
    folder.mkdir(parents=True)
    names = [f"site-{n + 1}" for n in range(sites)]
    (folder / "config.yaml").write_text(yaml.safe_dump(_config(sites, rounds, changes), sort_keys=False))
    manifest = {
        "command": ["simulate.py", f"rounds={rounds}", "run.name=a b"], "versions": {"fl-rsna": "0.1.0", "ray": None}, "python": "3.11.7",
        "machine": "Linux x86_64", "device": "cpu", "git_commit": "abc", "cohort": "site_data/made", "cohort_sha256": "c" * 64, "seed": 0,
        "started": "2020-01-01T00:00:00+00:00",
    }  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(manifest))
    areas = {name: 0.6 + 0.35 * (n + 1) / sites for n, name in enumerate(names)}
    _write_rounds(folder, areas, rounds)
    _write_events(folder, names, rounds)
    _write_predictions(folder, auroc)
    summary = _summary(areas, rounds, auroc)
    (folder / "scorecards.json").write_text(json.dumps({name: summary[name] for name in ("test_site", "sites")}))
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def _config(sites: int, rounds: int, changes: dict[str, Any]) -> dict[str, Any]:
    config = json.loads(json.dumps(asdict(Config(rounds=rounds))))
    config["partition"]["num_sites"] = sites
    for path, value in changes.items():
        group, _, key = path.rpartition("__")
        (config[group] if group else config)[key] = value
    return dict(config)


def _write_rounds(folder: Path, areas: dict[str, float], rounds: int) -> None:
    tested = [f"test_auroc_{label}" for label in LABELS]
    seconds = ["train_s", "validation_s", "test_s", "seconds"]
    heads = ["round", "train_loss", "validation_loss", "validation_auroc_any", "test_loss", *tested]
    with (
        (folder / "rounds.csv").open("w", newline="") as file,
        (folder / "sites.csv").open("w", newline="") as of_sites,
    ):
        table, by_site = csv.writer(file, lineterminator="\n"), csv.writer(of_sites, lineterminator="\n")
        table.writerow([*heads, "bytes_down", "bytes_up", *seconds])
        by_site.writerow(["round", "phase", "site", "loss", "seconds", "bytes_down", "bytes_up", "error", "aurocs"])
        for n in range(rounds + 1):
            trained = [0.6 - 0.3 * n / rounds, 0.62 - 0.3 * n / rounds, 0.5 + 0.4 * n / rounds] if n else [""] * 3
            moved = [1000 * len(areas), 900 * len(areas), 4.5, 0.5, 0.25, 5.25] if n else ["", "", "", "", "", 0.25]
            table.writerow(
                [n, *trained, 0.64 - 0.3 * n / rounds, *[0.5 + 0.4 * n / rounds - 0.01 * i for i in range(6)], *moved]
            )
            for site, area in areas.items() if n else ():
                found = json.dumps({f"auroc_{label}": 0.5 + (area - 0.5) * n / rounds for label in LABELS})
                by_site.writerow([n, "train", site, 0.6 - 0.3 * n / rounds, 1.5, 1000, 900, "", ""])
                by_site.writerow([n, "validation", site, 0.62 - 0.3 * n / rounds, 0.2, 0, 0, "", found])


def _write_events(folder: Path, names: list[str], rounds: int) -> None:
    def held(slices: int) -> dict[str, Any]:
        return {
            "patients": slices // 20,
            "slices": slices,
            "positives": {label: slices // (5 + i) for i, label in enumerate(LABELS)},
        }

    sites = {name: {"train": held(300 + n), "validation": held(80)} for n, name in enumerate(names)}
    roll = {
        "event": "roll_call",
        "sites": {**sites, "test-site": {"test": held(200)}},
        "rounds": rounds,
        "leaky": False,
        "noise": {},
    }
    events = [roll, *({"event": "round_start", "round": n + 1, "sites": names} for n in range(rounds))]
    lines = [json.dumps({"time": "2020-01-01T00:00:00.000+00:00", **event}) for event in events]
    (folder / "events.jsonl").write_text("".join(line + "\n" for line in lines))


def _write_predictions(folder: Path, auroc: float, slices: int = 200) -> None:
    """Two hundred slices of fifty patients, scored the better the higher `auroc`."""
    draw = np.random.default_rng(7)
    place = np.arange(slices)
    ids = {
        "image_id": [f"i{n}" for n in place],
        **{f"{of}_id": [f"{of}{n // 4}" for n in place] for of in ("patient", "study", "series")},
    }
    table = pd.DataFrame({**ids, "rank": place % 4})
    for label in LABELS:
        truth = (place // 4) % 5 == 0
        score = np.clip(0.3 + (auroc - 0.5) * truth + draw.normal(0, 0.15, slices), 0.001, 0.999)
        table = table.assign(
            **{f"label_{label}": truth.astype(np.int8), f"probability_{label}": score.astype(np.float32)}
        )
    table.to_parquet(folder / "predictions.parquet", index=False)


def _summary(areas: dict[str, float], rounds: int, auroc: float) -> dict[str, Any]:
    card = scorecard(auroc)
    alone = {label: {"auroc": estimate(0.65)} for label in LABELS}
    controls = {"position": alone, "brightness": alone}
    summary: dict[str, Any] = {
        "status": "finished", "baseline": "none", "model_sha256": "a" * 64, "rounds": rounds, "selected_round": rounds, "recalibrated": True,
        "selected_by": "validation loss", "seed": 0, "task": "ich", "strategy": "fedavg", "engine": "local",
        "cohort": {"name": "made", "sha256": "c" * 64, "sites": len(areas)}, "leaky": False, "wall_s": 60.5, "virtual_s": 7200.0, "usd": 1.5,
        "bytes_down": 1000 * len(areas) * rounds, "bytes_up": 900 * len(areas) * rounds, "site_failures": 0,
        "test_site": {**card, "log_loss": 0.2, "log_loss_interval": estimate(0.2), "controls": controls},
    }  # fmt: skip
    by_label = {label: dict.fromkeys(POINTS, 0.125) for label in LABELS}
    operating = {
        "chosen_on": "validation parts of the sites", "slice": by_label, "exam": {"max": by_label, "noisy_or": by_label},
        "temperatures": dict.fromkeys(LABELS, 1.375),
    }  # fmt: skip
    return {
        **summary,
        "operating_points": operating,
        "sites": {site: scorecard(area, 16 + n) for n, (site, area) in enumerate(areas.items())},
    }


def made_gap(folder: Path, *, sites: int = 3) -> Path:
    """A gap experiment: federated, central and local below `folder`, and the summary with the gaps; returns the federated run."""
    federated = made_run(folder / "federated", sites=sites)
    made_run(folder / "central", sites=sites, auroc=0.92, baseline="central")
    local = made_run(folder / "local", sites=sites, auroc=0.8, baseline="local")
    names = [f"site-{n + 1}" for n in range(sites)]
    summary = json.loads((local / "summary.json").read_text())
    matrix = {a: {b: {"auroc/any": 0.7 + 0.1 * (a == b), "loss": 0.3} for b in names} for a in names}
    for name in names:
        made_run(local / "alone" / name, sites=sites, auroc=0.8)
    alone = {name: {"model_sha256": "b" * 64, "test_site": summary["test_site"]} for name in names}
    kept = {
        key: summary[key]
        for key in ("status", "rounds", "seed", "task", "strategy", "engine", "leaky", "cohort", "wall_s")
    }
    (local / "summary.json").write_text(json.dumps({**kept, "baseline": "local", "alone": alone, "matrix": matrix}))
    for name in ("rounds.csv", "sites.csv", "predictions.parquet", "scorecards.json"):
        (local / name).unlink()
    both = {
        label: {"difference": estimate(-0.02, reach=None) | {"low": -0.05, "high": 0.01}, "ratio": estimate(0.98)}
        for label in LABELS
    }
    gained = {label: {"difference": estimate(0.1), "ratio": estimate(1.1)} for label in LABELS}
    ours = json.loads((federated / "summary.json").read_text())
    (folder / "summary.json").write_text(
        json.dumps({**ours, "baseline": "gap", "gap": {"central": both, "local": gained}})
    )
    return federated


def made_sweep(folder: Path, jobs: list[tuple[str, ...]], failed: tuple[str, ...] = ()) -> Path:
    """A sweep of runs that do not differ but in their settings, and one job that was refused."""
    for number, words in enumerate(jobs):
        made_run(folder / folder_name(words))
        write_job(folder, made_job(words, number, JobState.finished))
    if failed:
        write_job(folder, made_job(failed, len(jobs), JobState.failed, "it was refused"))
    write_asked(folder, Asked(words=(), fixed=(), typed={}, attempt="one"))
    return folder


def made_job(words: tuple[str, ...], number: int, state: JobState, sentence: str = "") -> Job:
    return Job(name=folder_name(words), words=words, number=number, attempt="one", state=state, sentence=sentence)
