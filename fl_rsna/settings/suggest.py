"""Suggest the key, option or value that was meant by one that does not exist.

Names that people know from other programs have a table. The rest is found by the closeness of letters (difflib).
"""

import functools
from collections.abc import Collection, Iterable
from dataclasses import fields, is_dataclass
from difflib import get_close_matches

from fl_rsna.settings.config import Config
from fl_rsna.settings.fields import list_settings

SYNONYMS = {  # what other programs call a setting -> its key
    "lr": "train.learning_rate",
    "eta": "train.learning_rate",
    "epochs": "train.local_epochs",
    "epoch": "train.local_epochs",
    "num_epochs": "train.local_epochs",
    "steps": "train.local_steps",
    "bs": "train.batch_size",
    "batch": "train.batch_size",
    "gpu": "train.device",
    "cuda": "train.device",
    "clients": "partition.num_sites",
    "num_clients": "partition.num_sites",
    "nodes": "partition.num_sites",
    "hospitals": "partition.num_sites",
    "sites": "partition.num_sites",
    "dirichlet_alpha": "partition.alpha",
    "aggregator": "strategy",
    "aggregation": "strategy",
    "algorithm": "strategy",
    "algo": "strategy",
    "server_lr": "strategy.server_learning_rate",
    "fraction_fit": "strategy.fraction",
    "participation": "strategy.fraction",
    "num_rounds": "rounds",
    "n_rounds": "rounds",
    "global_rounds": "rounds",
    "random_seed": "seed",
    "workers": "engine.workers",
    "num_workers": "engine.workers",
    "jobs": "engine.workers",
    "backbone": "model",
    "arch": "model",
    "net": "model",
    "input_size": "model.image_size",
    "resolution": "model.image_size",
    "dataset": "data.name",
    "dicom_dir": "data.dicom",
    "images": "data.dicom",
    "csv": "data.labels",
    "output": "run.name",
    "name": "run.name",
    "out_dir": "paths.runs",
    "output_dir": "paths.runs",
    "tracker": "tracking",
    "logger": "tracking",
    "continue": "resume",
    "checkpoint": "start",
    "init": "start",
    "pretrained_model": "start",
}
ALL_SETTINGS = "python -m fl_rsna.simulate --help all lists them"
NEAR = 0.7  # least share of equal letters, as difflib counts them


@functools.cache
def list_keys() -> tuple[str, ...]:
    """List what a run's settings may begin with: every setting's key, and the groups of which a file is chosen."""
    config = Config()
    groups = [item.name for item in fields(config) if is_dataclass(getattr(config, item.name))]
    return (*(key for key, _, _ in list_settings(config)), *groups, "task", "experiment")


def find_near(given: str, known: Iterable[str], near: float = NEAR) -> str | None:
    """Find the known name that is nearest to `given`: the same but for case and hyphens, the only one it ends or begins, or a close one."""
    plain = {_fold(one): one for one in known}
    folded = _fold(given)
    if folded in plain:
        return plain[folded]
    parts = [one for one in plain if len(folded) > 1 and (one.endswith(f"_{folded}") or one.startswith(f"{folded}_"))]
    if len(parts) == 1:
        return plain[parts[0]]
    close = get_close_matches(folded, plain, n=1, cutoff=near)
    return plain[close[0]] if close else None


def find_key(key: str, known: Collection[str]) -> str | None:
    """Find the known key that `key` stands for: by a synonym, by its last part alone, or by its letters."""
    folded, last = _fold(key.lstrip("+~")), _fold(key).rpartition(".")[2]
    for name in (folded, last):
        if SYNONYMS.get(name) in known:
            return SYNONYMS[name]
    ends = [one for one in known if one.rpartition(".")[2] == last]
    ends = [one for one in ends if one.startswith("train.")] or ends  # of several the usual one
    if len(ends) == 1:
        return ends[0]
    if (near := find_near(folded, known, 0.8)) is not None:
        return near
    group = folded.rpartition(".")[0]
    inside = {one.rpartition(".")[2]: one for one in known if one.rpartition(".")[0] == group}
    by_end = inside if group else {one.rpartition(".")[2]: one for one in known}
    found = find_near(last, by_end)
    return by_end[found] if found is not None else find_near(folded, known)


def suggest_key(key: str, known: Collection[str], value: str | None = None, *, otherwise: str = "") -> str:
    """Write `; did you mean rounds=5?` for a key that does not exist, or `; ` and `otherwise` where nothing is near."""
    found = find_key(key, known)
    if found is None:
        return f"; {otherwise}" if otherwise else ""
    return f"; did you mean {found}{'' if value is None else f'={value}'}?"


def suggest_value(key: str, value: str, choices: Collection[str]) -> str:
    """Write `; did you mean strategy=fedavg?` for a value that is no choice, or nothing where no choice is near."""
    found = find_near(value, choices, 0.5)
    return "" if found is None else f"; did you mean {key}={found}?"


def _fold(name: str) -> str:
    """Write a name without the differences that nobody means: case, and hyphens for underscores."""
    return name.lower().replace("-", "_")
