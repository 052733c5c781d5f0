"""Settings that keep state obey, in every pair, the law that each obeys alone.

The server's half of every strategy is tried with three sites on five numbers; whole runs are in test_whole_pairs.py.
"""

import gc
import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from composed import strategy_config
from flwr.supercore.task_identity import TaskIdentity
from numpy.typing import NDArray

from fl_rsna.federation.server.aggregation import Sent, Sums
from fl_rsna.federation.server.checkpoint import Progress, load_progress, save_progress
from fl_rsna.learning.models.flat import FlatModel
from fl_rsna.learning.training.train import schedule_factor
from fl_rsna.settings.strategy import Averaging, StrategyConfig, Weighting
from fl_rsna.settings.training import Schedule, TrainConfig
from fl_rsna.strategies.find import STRATEGIES
from fl_rsna.strategies.strategy import Step, take_step

TaskIdentity.run_id, TaskIdentity.task_id, TaskIdentity.node_id = 1, 1, 1

ROUNDS = 12  # window.10 and window.9 sort otherwise as texts
STEPPED = np.array(
    [True, True, True, False, False]
)  # three shared parameters, a variance, a layer that stays at its site
OPTIMA = np.array([[1.0, -2.0, 0.5], [3.0, 0.0, -1.0], [-1.0, 1.0, 2.0]])
EXAMPLES, STEPS = (10, 30, 20), (1, 4, 2)
EQUAL = ("scaffold", "feddyn")
ROBUST = [name for name, strategy in STRATEGIES.items() if strategy.robust]

Vector = NDArray[np.float32]


@pytest.fixture(scope="module", autouse=True)
def quick_collections() -> Iterator[None]:
    """Flower's Bulyan and q-FedAvg collect garbage at every reply, which takes 0.2 s among the objects of all imports."""
    gc.freeze()
    yield
    gc.unfreeze()


def sent_by(site: int, x: Vector, round_: int) -> Vector:
    """What a site makes of x: its parameters on the way to its optimum, its variance and its layer of its own alone."""
    parameters = x[:3] + 0.1 * STEPS[site] * (OPTIMA[site] - x[:3])
    return np.array([*parameters, 1000.0 + 100 * site + round_, -5.0 * site + round_], np.float32)


def play(folder: Path, config: StrategyConfig, killed_after: tuple[int, ...] = ()) -> list[Progress]:
    """The checkpoint of every round, 0 first; after each of `killed_after` the run goes on from its file."""
    start = FlatModel(np.array([0.3, 0.2, 0.1, 900, 1], np.float32), np.array([0], np.int64))
    progress = Progress(model=start, shown=start, best=start, run_id="r")
    save_progress(folder / "round-0", progress)
    for round_ in range(1, ROUNDS + 1):
        x = progress.model.floats
        strategy = STRATEGIES[config.name]
        second = None if strategy.second is None else strategy.second(progress.memory, 3)
        sums = Sums(x, strategy, config.weighting, TrainConfig(), STEPPED)
        for site in range(3):
            beside = None if second is None else (np.float32(0.1 * site) * (x[:3] - second)).astype(np.float32)
            model = FlatModel(sent_by(site, x, round_), np.array([round_], np.int64))
            metrics = {"num-examples": EXAMPLES[site], "steps": STEPS[site], "loss": 0.5 + site / round_}
            sums.add(Sent(model=model, second=beside), metrics)
        factor = schedule_factor(config.server_schedule, round_, ROUNDS)
        step = Step(
            config=config, rate=config.server_learning_rate * factor, round=round_, x=x, aggregate=sums.aggregate(), num_sites=4,
            stepped=STEPPED, trained=STEPPED,
        )  # fmt: skip
        floats, progress.memory = take_step(strategy, step, progress.memory)
        progress.model, progress.round = FlatModel(floats, np.array([round_], np.int64)), round_
        progress.average(config)
        save_progress(folder / f"round-{round_}", progress)
        if round_ in killed_after:
            progress = load_progress(folder / f"round-{round_}")
    return [load_progress(folder / f"round-{round_}") for round_ in range(ROUNDS + 1)]


def config_of(name: str, **arguments: object) -> StrategyConfig:
    weighting = Weighting.equal if name in EQUAL else Weighting.examples
    none = {"malicious": 0} if "malicious" in STRATEGIES[name].settings.__dataclass_fields__ else {}
    return strategy_config(name, **{"weighting": weighting, "ema_decay": 0.7, **none, **arguments})


def mean_over(kept: list[Vector], config: StrategyConfig) -> Vector:
    """What is to be shown after the last of `kept`, the models of rounds 1, 2, ..., in float64."""
    models = np.array(kept, np.float64)
    match config.averaging:
        case Averaging.none:
            return kept[-1]
        case Averaging.window:
            return models[-config.window :].mean(0).astype(np.float32)
        case Averaging.ema:
            ages = np.arange(len(models))[::-1]
            weights = (1 - config.ema_decay) * config.ema_decay**ages
            weights[0] = config.ema_decay ** ages[0]  # what round 1 left is where the mean begins
            return (weights @ models).astype(np.float32)


@pytest.mark.parametrize("name", list(STRATEGIES))
@pytest.mark.parametrize("schedule", list(Schedule))
def test_every_strategy_with_every_mean_over_rounds(tmp_path: Path, name: str, schedule: Schedule) -> None:
    """What is shown is the mean of the models that were kept; sites train as without a mean; a kill changes nothing."""
    rate = 1.0 if name == "feddyn" else 0.3
    alone: list[Progress] = []
    for averaging, killed_after in zip(Averaging, ((), (1, 10), (2, 11)), strict=True):
        config = config_of(name, averaging=averaging, server_schedule=schedule, server_learning_rate=rate)
        (tmp_path / averaging).mkdir()
        rounds = play(tmp_path / averaging, config, killed_after)
        alone = alone or rounds
        for played, plain in zip(rounds, alone, strict=True):
            np.testing.assert_array_equal(played.model.floats, plain.model.floats)
            assert set(played.memory) == set(plain.memory)
        for round_ in range(1, ROUNDS + 1):
            kept = [played.model.floats for played in rounds[1 : round_ + 1]]
            np.testing.assert_allclose(rounds[round_].shown.floats, mean_over(kept, config), rtol=2e-6, atol=1e-7)
            assert rounds[round_].shown.integers.tolist() == [round_]


@pytest.mark.parametrize("name", [name for name in STRATEGIES if name not in ROBUST])
@pytest.mark.parametrize("weighting", list(Weighting))
def test_what_no_step_reaches_is_the_sites_mean(tmp_path: Path, name: str, weighting: Weighting) -> None:
    """Statistics and layers that stay at their sites, by slices or alike, under any strategy, rate and schedule."""
    arguments = {"server_schedule": Schedule.cosine, "server_learning_rate": 0.3, "weighting": weighting}
    rounds = play(tmp_path, config_of(name, **arguments))
    weights = EXAMPLES if weighting is Weighting.examples else None
    for before, after in itertools.pairwise(rounds):
        sent = [sent_by(site, before.model.floats, after.round) for site in range(3)]
        expected = np.average(sent, axis=0, weights=weights)[~STEPPED]
        np.testing.assert_allclose(after.model.floats[~STEPPED], expected, rtol=1e-6)


@pytest.mark.parametrize("name", list(STRATEGIES))
def test_a_constant_schedule_is_none(tmp_path: Path, name: str) -> None:
    found = []
    for number, arguments in enumerate(({}, {"server_schedule": Schedule.constant})):
        (tmp_path / f"{number}").mkdir()
        found.append([played.model.floats for played in play(tmp_path / f"{number}", config_of(name, **arguments))])
    np.testing.assert_array_equal(found[0], found[1])


@pytest.mark.parametrize("name", [name for name in STRATEGIES if name != "feddyn"])
def test_a_schedule_s_last_step_is_small_under_every_strategy(tmp_path: Path, name: str) -> None:
    """At the end of a cosine the rate is nearly 0; a round then moves parameters less than at a constant rate."""
    moved = {}
    for schedule in Schedule:
        (tmp_path / schedule).mkdir()
        rounds = play(tmp_path / schedule, config_of(name, server_schedule=schedule, server_learning_rate=0.3))
        moved[schedule] = float(np.abs(rounds[-1].model.floats - rounds[-2].model.floats)[STEPPED].max())
    assert moved[Schedule.cosine] < 0.2 * moved[Schedule.constant] or moved[Schedule.constant] < 1e-3
