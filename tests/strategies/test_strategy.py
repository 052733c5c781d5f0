"""What every strategy makes of the replies, against numbers worked out by hand."""

import numpy as np
import pytest
from composed import strategy_config
from flwr.serverapp.strategy import FedAvg
from flwr.supercore.task_identity import TaskIdentity

from fl_rsna.federation.server.aggregation import Sent, Sums
from fl_rsna.learning.models.flat import FlatModel
from fl_rsna.settings.strategy import StrategyConfig, Weighting
from fl_rsna.settings.training import Optimizer, TrainConfig
from fl_rsna.strategies.feddyn import CORRECTION
from fl_rsna.strategies.fednova import count_steps
from fl_rsna.strategies.find import STRATEGIES
from fl_rsna.strategies.flower import MOMENTUM, make_reply, of_every_update
from fl_rsna.strategies.strategy import RoundAggregate, Step, Update, take_step

TaskIdentity.run_id, TaskIdentity.task_id, TaskIdentity.node_id = 1, 1, 1

X = np.array([1.0, 2.0, 10.0], np.float32)  # two parameters and a running statistic
PARAMETERS = np.array([True, True, False])
SITES = (  # y_i, training slices, steps, loss
    ([2.0, 2.0, 20.0], 10, 1, 0.5),
    ([4.0, 0.0, 40.0], 30, 3, 2.0),
)


ROBUST = [name for name, strategy in STRATEGIES.items() if strategy.robust]


def folded(config: StrategyConfig, sites=SITES, train: TrainConfig | None = None, second=None) -> RoundAggregate:  # type: ignore[no-untyped-def]
    sums = Sums(X, STRATEGIES[config.name], config.weighting, train or TrainConfig(), PARAMETERS)
    for values, examples, steps, loss in sites:
        sent = Sent(model=FlatModel(np.array(values, np.float32), np.zeros(1, np.int64)), second=second)
        sums.add(sent, {"num-examples": examples, "steps": steps, "loss": loss})
    return sums.aggregate()


def step(name: str, *, rate: float = 1.0, rounds: int = 1, sites=SITES, train=None, second=None, **words):  # type: ignore[no-untyped-def]
    """The model after `rounds` rounds in which the sites always send the same, and the server's memory."""
    config, now, memory = strategy_config(name, **words), X, {}
    for round_ in range(1, rounds + 1):
        asked = Step(
            config=config, rate=rate, round=round_, x=now, aggregate=folded(config, sites, train, second),
            num_sites=4, stepped=PARAMETERS, trained=PARAMETERS,
        )  # fmt: skip
        now, memory = take_step(STRATEGIES[name], asked, memory)
    assert now.dtype == np.float32
    return now, memory


MEAN = np.array([3.5, 0.5, 35.0])  # (10 y_1 + 30 y_2) / 40


def test_fedavg_and_its_relatives_are_the_weighted_mean() -> None:
    for name in ("fedavg", "fedprox", "moon", "ditto"):
        np.testing.assert_allclose(step(name)[0], MEAN)
    np.testing.assert_allclose(step("fedavg", weighting=Weighting.equal)[0], [3, 1, 30])


def test_fedavg_is_flower_s() -> None:
    updates = tuple(Update(change=np.array(y, np.float32), examples=n, loss=0.0) for y, n, _, _ in SITES)
    theirs = of_every_update(FedAvg(weighted_by_key="num-examples"), 1, updates)
    np.testing.assert_allclose(step("fedavg")[0], theirs, rtol=1e-7)


def test_server_rate_scales_the_change_of_parameters_only() -> None:
    np.testing.assert_allclose(step("fedavg", rate=0.5)[0], [1 + 0.5 * 2.5, 2 - 0.5 * 1.5, 35])


def test_fedavgm_remembers_its_momentum() -> None:
    first, memory = step("fedavgm", rate=0.5, server_momentum=0.9)
    np.testing.assert_allclose(memory[MOMENTUM], [-2.5, 1.5])  # x - mean
    np.testing.assert_allclose(first, [2.25, 1.25, 35])
    second, memory = step("fedavgm", rate=0.5, rounds=2, server_momentum=0.9)
    np.testing.assert_allclose(memory[MOMENTUM], [0.9 * -2.5 + 2.25 - 3.5, 0.9 * 1.5 + 1.25 - 0.5])
    np.testing.assert_allclose(second, [2.25 + 0.5 * 3.5, 1.25 - 0.5 * 2.1, 35], rtol=1e-6)


def test_fedavgm_without_momentum_is_fedavg() -> None:
    np.testing.assert_allclose(step("fedavgm", server_momentum=0.0, rounds=3)[0], MEAN)


@pytest.mark.parametrize("name", ["fedadam", "fedyogi", "fedadagrad"])
def test_adaptive_servers_take_the_papers_step_and_leave_statistics_to_the_mean(name: str) -> None:
    betas = {} if name == "fedadagrad" else {"beta_1": 0.9, "beta_2": 0.99}
    now, _ = step(name, rate=0.1, tau=0.001, **betas)
    change = MEAN[:2] - X[:2]
    match name:
        case "fedadam":  # Flower's bias correction counts rounds from 2
            rate, m, v = 0.1 * np.sqrt(1 - 0.99**2) / (1 - 0.9**2), 0.1 * change, 0.01 * change**2
        case "fedyogi":
            rate, m, v = 0.1, 0.1 * change, 0.01 * change**2
        case _:
            rate, m, v = 0.1, change, change**2
    np.testing.assert_allclose(now, [*(X[:2] + rate * m / (np.sqrt(v) + 0.001)), 35], rtol=1e-5)


def test_adaptive_servers_go_on_from_their_memory() -> None:
    """Two rounds with the memory handed over equal Flower's own object kept for two rounds."""
    from flwr.app import Array, ArrayRecord
    from flwr.serverapp.strategy import FedAdam

    kept, now = FedAdam(eta=0.1, beta_1=0.9, beta_2=0.99, tau=0.001), X[:2]
    for round_ in (1, 2):
        kept.current_arrays = {"floats": now}
        arrays, _ = kept.aggregate_train(round_, [make_reply(MEAN[:2].astype(np.float32), 40.0, 0.0)])
        assert isinstance(arrays, ArrayRecord)
        assert isinstance(arrays["floats"], Array)
        now = arrays["floats"].numpy().astype(np.float32)
    np.testing.assert_allclose(step("fedadam", rate=0.1, rounds=2, beta_1=0.9, beta_2=0.99, tau=0.001)[0][:2], now)


def test_fednova_divides_changes_by_the_steps_that_made_them() -> None:
    # d_1 / 1 = (1, 0), d_2 / 3 = (1, -2/3); shares 1/4, 3/4; effective steps 1/4 + 9/4 = 2.5
    np.testing.assert_allclose(step("fednova")[0][:2], [1 + 2.5 * 1, 2 - 2.5 * 0.5], rtol=1e-6)


@pytest.mark.parametrize("name", [name for name in STRATEGIES if name not in ROBUST])
@pytest.mark.parametrize("rounds", [1, 2])
def test_statistics_are_the_sites_mean_by_slices_whatever_the_strategy_does_with_parameters(
    name: str, rounds: int
) -> None:
    second = np.zeros(2, np.float32) if name == "scaffold" else None
    now, _ = step(name, rate=0.3, rounds=rounds, second=second)
    np.testing.assert_allclose(now[2], MEAN[2], rtol=1e-6)
    equal, _ = step(name, rate=0.3, rounds=rounds, second=second, weighting=Weighting.equal)
    np.testing.assert_allclose(equal[2], 30, rtol=1e-6)


@pytest.mark.parametrize("name", ROBUST)
def test_the_server_s_rate_scales_a_robust_step_of_parameters_and_not_the_statistics(name: str) -> None:
    seven = [*FIVE, *FIVE[:2]]
    whole, half = (step(name, rate=rate, sites=seven)[0] for rate in (1.0, 0.5))
    np.testing.assert_allclose(half, [*(X[:2] + 0.5 * (whole[:2] - X[:2])), whole[2]], rtol=1e-6)


def test_fednova_with_equal_steps_is_fedavg() -> None:
    sites = [(values, examples, 3, loss) for values, examples, _, loss in SITES]
    np.testing.assert_allclose(step("fednova", sites=sites)[0], MEAN, rtol=1e-6)


def test_steps_under_momentum_are_the_sum_of_what_each_gradient_weighs() -> None:
    rho, steps = 0.9, 4
    by_hand = sum((1 - rho**k) / (1 - rho) for k in range(1, steps + 1))  # gradient k is taken 1 + rho + ... times
    sgd = TrainConfig(optimizer=Optimizer.sgd, momentum=rho)
    assert count_steps(sgd, steps) == pytest.approx(by_hand)
    assert count_steps(TrainConfig(), steps) == steps


def test_scaffold_moves_x_and_its_control_variate() -> None:
    second = np.array([0.5, -1.0], np.float32)
    now, memory = step("scaffold", rate=0.5, weighting=Weighting.equal, second=second)
    np.testing.assert_allclose(now, [1 + 0.5 * 2, 2 - 0.5 * 1, 30])
    np.testing.assert_allclose(memory["control"], 2 / 4 * second)  # two of four sites took part


def test_feddyn_by_hand() -> None:
    now, memory = step("feddyn", alpha=0.1, weighting=Weighting.equal)
    correction = -0.1 * 2 / 4 * np.array([2.0, -1.0])  # mean change (2, -1), two of four sites
    np.testing.assert_allclose(memory[CORRECTION], correction, rtol=1e-6)
    np.testing.assert_allclose(now, [*(np.array([3.0, 1.0]) - correction / 0.1), 30], rtol=1e-6)


FIVE = [([1.0, 2.0, 1.0], 1, 1, 1.0), ([1.1, 2.0, 1.0], 1, 1, 1.0), ([0.9, 2.1, 1.0], 1, 1, 1.0)]
FIVE += [([1.05, 1.9, 1.0], 1, 1, 1.0), ([900.0, -900.0, 900.0], 50, 1, 1.0)]


def test_robust_rules_survive_a_site_that_the_mean_does_not() -> None:
    np.testing.assert_allclose(step("fedmedian", sites=FIVE)[0], [1.05, 2.0, 1.0], rtol=1e-6)
    trimmed = [np.mean([1.0, 1.05, 1.1]), np.mean([1.9, 2.0, 2.0]), 1.0]
    np.testing.assert_allclose(step("fedtrimmedavg", sites=FIVE, trim=0.2)[0], trimmed, rtol=1e-6)
    np.testing.assert_allclose(step("krum", sites=FIVE)[0], [1.0, 2.0, 1.0], rtol=1e-6)
    assert np.abs(step("multikrum", sites=FIVE, chosen=3)[0] - [1, 2, 1]).max() < 0.1
    seven = [*FIVE[:4], *FIVE[:2], FIVE[4]]
    assert np.abs(step("bulyan", sites=seven)[0] - [1, 2, 1]).max() < 0.1
    assert np.abs(step("fedavg", sites=FIVE)[0] - [1, 2, 1]).max() > 100


def test_qfedavg_weighs_by_loss() -> None:
    q, lipschitz = 1.0, 1 / 0.5
    changes = np.array([[1.0, 0], [3.0, -2]])  # of parameters
    losses = np.array([0.5, 2.0])
    gradients = -lipschitz * changes
    deltas = losses[:, None] ** q * gradients
    h = q * losses ** (q - 1) * (gradients**2).sum(1) + lipschitz * losses**q
    expected = [*(X[:2] - deltas.sum(0) / h.sum()), MEAN[2]]
    np.testing.assert_allclose(step("qfedavg", rate=0.5, q=q)[0], expected, rtol=1e-5)


def test_fedexp_steps_farther_where_changes_point_apart() -> None:
    # changes (1, 0), (0, 1), (0, -1), (0, 0): mean square 3/4, mean (1/4, 0)
    apart = [([2.0, 2.0, 20.0], 10, 1, 0.5), ([1.0, 3.0, 40.0], 10, 1, 0.5)]
    apart += [([1.0, 1.0, 20.0], 10, 1, 0.5), ([1.0, 2.0, 40.0], 10, 1, 0.5)]
    factor = 0.75 / (2 * (0.25**2 + 0.001))
    np.testing.assert_allclose(step("fedexp", sites=apart)[0], [1 + factor / 4, 2, 30], rtol=1e-5)
    np.testing.assert_allclose(step("fedexp", sites=apart, epsilon=1e6)[0], [1 + 1 / 4, 2, 30], rtol=1e-5)  # FedAvg
    # changes (1, 0) and (3, -2), weighted 1 to 3: mean square 10, mean (2.5, -1.5), so a factor below 1
    np.testing.assert_allclose(step("fedexp")[0], MEAN, rtol=1e-6)


def test_fewest_sites_are_the_papers() -> None:
    needs = {"krum": 5, "multikrum": 5, "bulyan": 7, "fedavg": 1}
    assert {name: STRATEGIES[name].fewest_sites(strategy_config(name)) for name in needs} == needs


@pytest.mark.parametrize("name", list(STRATEGIES))
def test_sites_that_change_nothing_leave_the_model_as_it_is(name: str) -> None:
    still = [(X.tolist(), examples, 2, 0.7) for examples in (10, 20, 30, 40, 50, 60, 70)]
    second = np.zeros(2, np.float32) if name == "scaffold" else None
    np.testing.assert_allclose(step(name, sites=still, second=second, rounds=2)[0], X, rtol=1e-6)
