"""Whole runs of every strategy with every mean over rounds, beside norms, precisions and sampled sites, killed on the way.

test_pairs.py tries the server's half alone, quickly and in more pairs.
"""

import functools
import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file
from test_pairs import mean_over
from tiny import tiny_cohort, tiny_config

from fl_rsna.cohort.sites.site_folders import Cohort
from fl_rsna.federation.engines.local import run_local
from fl_rsna.federation.server.checkpoint import Progress, load_progress
from fl_rsna.federation.server.run_log import read_model
from fl_rsna.federation.server_app import make_server_app
from fl_rsna.federation.site.client_app import app_for_cohort
from fl_rsna.learning.models.classifier import build_model, personal_names
from fl_rsna.learning.models.flat import positions
from fl_rsna.replay import replay
from fl_rsna.run_folder.run_folder import start_run
from fl_rsna.settings.config import Config
from fl_rsna.settings.data import ImageKind
from fl_rsna.settings.federation import Precision
from fl_rsna.settings.model import Norm
from fl_rsna.settings.strategy import Averaging, Weighting
from fl_rsna.settings.training import Schedule, Select
from fl_rsna.strategies.find import STRATEGIES
from fl_rsna.task import ICH

ROUNDS = 2
REMEMBERING = (  # the other strategies keep nothing from round to round: beyond what there is time for
    "fedavgm", "fedadam", "scaffold", "feddyn", "moon", "ditto",
)  # fmt: skip


class Killed(KeyboardInterrupt):
    """Instead of a signal."""


def run(cohort: Cohort, folder: Path, config: Config, die_at: int = 0) -> None:
    """A run that ends at the start of round `die_at`, if told so."""

    def listen(kind: str, fields: Mapping[str, Any]) -> None:
        if kind == "round_start" and fields["round"] == die_at:
            raise Killed

    server = make_server_app(lambda context: (config, cohort, start_run(folder, config, cohort, "cpu", (listen,))))
    client = functools.partial(app_for_cohort, cohort.folder, folder / "site_memory")
    run_local(server, client, num_sites=len(cohort.sites), workers=0)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    """Three sites with hardly a batch each."""
    return tiny_cohort(tmp_path_factory.mktemp("small"), patients=9, slices=2)


def config_of(name: str, norm: Norm, **changes: Any) -> Config:
    """Sampled sites where the strategy can do with two."""
    strategy = {"ema_decay": 0.6, "window": 2, "server_learning_rate": 0.5}
    if name in ("scaffold", "feddyn"):
        strategy["weighting"] = Weighting.equal
    if name in ("fedadagrad", "fedadam", "fedyogi"):
        strategy["server_learning_rate"] = 1e-3
    if name == "feddyn":
        strategy["server_learning_rate"] = 1.0
    else:
        strategy["server_schedule"] = Schedule.cosine
    if "malicious" in STRATEGIES[name].settings.__dataclass_fields__:
        strategy["malicious"] = 0
    config = tiny_config(rounds=ROUNDS, train__select=Select.last, strategy__name=name)
    for key, value in (strategy | {"fraction": 0.67}).items():
        setattr(config.strategy, key, value)
    if STRATEGIES[name].fewest_sites(config.strategy) > 2:
        config.strategy.fraction = 1.0
    config.model.norm, config.model.pretrained = norm, False
    for path, value in changes.items():
        group, _, key = path.rpartition("__")
        setattr(getattr(config, group) if group else config, key, value)
    return config


def states(folder: Path) -> list[Progress]:
    """The checkpoint after every round, 0 first: of each but the last it is what was kept before the next."""
    kept = [folder / "checkpoints" / f"round-{round_:05d}.safetensors" for round_ in range(1, ROUNDS + 1)]
    return [load_progress(path) for path in (*kept, folder / "checkpoints" / "state.safetensors")]


CASES = [
    *zip(STRATEGIES, itertools.cycle(Norm), itertools.cycle(Precision), strict=False),
    ("fedavg", Norm.local, Precision.fp16),  # strategy=fedbn
    ("fedavg", Norm.local_stats, Precision.int8),  # strategy=silobn
    ("scaffold", Norm.local, Precision.bf16),
    ("feddyn", Norm.local, Precision.int8),
    ("fedadam", Norm.local_stats, Precision.fp16),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "norm", "precision"),
    [case if case[0] in REMEMBERING else pytest.param(*case, marks=pytest.mark.extra) for case in CASES],
)
def test_what_is_shown_is_the_mean_of_what_was_kept(
    small: Cohort, tmp_path: Path, name: str, norm: Norm, precision: Precision
) -> None:
    """Sites train as without a mean over rounds, and as if nobody had been killed; what stays at sites is their mean."""
    down = Precision.bf16 if precision is Precision.int8 else precision
    arguments = {"network__precision_up": precision, "network__precision_down": down}
    plain: list[Progress] = []
    for averaging, die_at in zip(Averaging, (0, 2, 2), strict=True):
        config, folder = config_of(name, norm, strategy__averaging=averaging, **arguments), tmp_path / averaging
        if die_at:
            with pytest.raises(Killed):
                run(small, folder, config, die_at)
            config.resume = True
        run(small, folder, config)
        found = states(folder)
        plain = plain or found
        for played, alone in zip(found, plain, strict=True):
            np.testing.assert_array_equal(played.model.floats, alone.model.floats)
            np.testing.assert_array_equal(played.model.integers, alone.model.integers)
        for round_ in range(1, ROUNDS + 1):
            expected = mean_over([played.model.floats for played in found[1 : round_ + 1]], config.strategy)
            np.testing.assert_allclose(found[round_].shown.floats, expected, rtol=1e-5, atol=1e-7)
        kept = read_model(
            folder / "checkpoints" / "last.safetensors", build_model(config.model, ICH, small.image, seed=0)
        )
        np.testing.assert_array_equal(kept.floats, found[-1].shown.floats)
        assert json.loads((folder / "summary.json").read_text())["site_failures"] == 0
    if not STRATEGIES[name].robust:
        check_personal(tmp_path / Averaging.none, config, plain)
    if name != "scaffold":
        return
    sites = pd.read_csv(tmp_path / Averaging.window / "sites.csv")
    last = sites[sites["phase"] == "train"].iloc[-1]
    replay([f"run={tmp_path / Averaging.window}", f"site={last['site']}", f"round={last['round']}"])


def check_personal(folder: Path, config: Config, found: list[Progress]) -> None:
    """What stays at sites is, in the server's model, the mean of what they keep, whatever else was done to it."""
    model = build_model(config.model, ICH, ImageKind.hu, seed=0)
    own, sites = positions(model, personal_names(model, config.model)), pd.read_csv(folder / "sites.csv")
    for round_ in range(1, ROUNDS + 1) if own.any() else ():
        part = sites[(sites["phase"] == "train") & (sites["round"] == round_)]
        kept = [
            load_file(folder / "site_memory" / site / found[-1].run_id / f"round-{round_:05d}.safetensors")["norm"]
            for site in part["site"]
        ]
        weights = None if config.strategy.weighting is Weighting.equal else part["num-examples"]
        expected = np.average(kept, axis=0, weights=weights)
        np.testing.assert_allclose(found[round_].model.floats[own], expected, rtol=1e-4, atol=1e-6)
