"""A site's part in each strategy: the limits where it is FedAvg, and what it remembers."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from composed import strategy_config
from tiny import SIZE

from fl_rsna.cohort.sites.site_folders import Cohort
from fl_rsna.learning.data.dataset import open_site
from fl_rsna.learning.models.classifier import Classifier, build_model
from fl_rsna.learning.models.flat import FlatModel, flatten, positions, unflatten
from fl_rsna.learning.training.client_update import PERSONAL, Round, train_site
from fl_rsna.learning.training.local_rule import list_trainable_parameters, vector_of
from fl_rsna.learning.training.objectives import build_slice_objective
from fl_rsna.learning.training.sampling import positive_share
from fl_rsna.settings.model import ModelConfig, Norm
from fl_rsna.settings.strategy import StrategyConfig
from fl_rsna.settings.training import Optimizer, TrainConfig
from fl_rsna.strategies.feddyn import GRADIENT
from fl_rsna.strategies.find import STRATEGIES
from fl_rsna.strategies.moon import PREVIOUS
from fl_rsna.strategies.scaffold import CONTROL
from fl_rsna.task import ICH

START = build_model(ModelConfig(image_size=SIZE), ICH, "hu", seed=0)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def plain(cohort: Cohort) -> Round[Any]:
    data, config, device = (
        open_site(cohort.site_folder("site-1"), image_size=SIZE),
        TrainConfig(batch_size=8),
        torch.device("cpu"),
    )
    return Round(
        data=data,
        objective=build_slice_objective(data, ICH, config, device),
        task=ICH,
        norm=Norm.frozen,
        train=config,
        strategy=StrategyConfig(),
        learning_rate=1e-3,
        seed=5,
        device=device,
    )


def model() -> Classifier:
    fresh = build_model(ModelConfig(image_size=SIZE), ICH, "hu", seed=0)  # type: ignore[arg-type]
    unflatten(flatten(START), fresh)
    return fresh


def play(plain: Round[Any], name: str, remembered: dict | None = None, **arguments):  # type: ignore[no-untyped-def,type-arg]
    """The trained model and the site's part in a round of a strategy."""
    second = arguments.pop("second", None)
    own = {key: value for key, value in arguments.items() if key in STRATEGIES[name].settings.__dataclass_fields__}
    now = dataclasses.replace(plain, strategy=strategy_config(name, **own), second=second, prior=(0.3,) * 6)
    trained = model()
    part = train_site(trained, now, remembered or {}, STRATEGIES[name].train)
    return flatten(trained).floats, part


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("fedprox", {"mu": 0.0}),
        ("scaffold", {}),  # control variates begin at zero
        ("feddyn", {"alpha": 1e-12}),
        ("moon", {"mu": 1.0}),  # no model of its own to stay away from yet
        ("ditto", {"personal": 1.0}),  # the shared model is plain
        ("fedavg_logit_adjusted", {"adjustment": 0.0}),
        ("fednova", {}),
    ],
)
def test_at_its_limit_a_strategy_trains_as_fedavg(plain: Round[Any], name: str, arguments: dict[str, float]) -> None:
    expected, _ = play(plain, "fedavg")
    np.testing.assert_allclose(play(plain, name, **arguments)[0], expected, atol=1e-7)


def test_a_strong_proximal_term_keeps_the_site_near(plain: Round[Any]) -> None:
    start = flatten(model()).floats
    moved = [float(np.linalg.norm(play(plain, "fedprox", mu=mu)[0] - start)) for mu in (0.0, 1000.0)]
    assert moved[1] < 0.9 * moved[0]


def test_scaffold_sends_the_change_of_its_control_variate(plain: Round[Any]) -> None:
    size = vector_of(list_trainable_parameters(model())).numel()
    own = np.full(size, 0.01, np.float32)
    _, part = play(plain, "scaffold", {CONTROL: own}, second=np.zeros(size, np.float32))
    assert part.second is not None
    np.testing.assert_allclose(part.remembered[CONTROL], own + part.second, rtol=1e-5, atol=1e-7)


def test_feddyn_remembers_minus_alpha_times_the_way_it_went(plain: Round[Any]) -> None:
    start = vector_of(list_trainable_parameters(model())).numpy()
    trained, part = play(plain, "feddyn", alpha=0.1)
    now = model()
    unflatten(FlatModel(trained, flatten(now).integers), now)
    way = vector_of(list_trainable_parameters(now)).numpy() - start
    np.testing.assert_allclose(part.remembered[GRADIENT], -0.1 * way, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize(("name", "slot"), [("scaffold", CONTROL), ("feddyn", GRADIENT)])
def test_what_stays_at_the_site_follows_its_own_loss_alone(plain: Round[Any], name: str, slot: str) -> None:
    """After one step of SGD, in which layers do not yet meet: shared ones are corrected, personal ones are as plain."""
    head = frozenset(f"backbone.{name}" for name, _ in model().backbone.named_parameters() if name.startswith("_fc"))
    assert head
    one = dataclasses.replace(plain.train, local_steps=1, optimizer=Optimizer.sgd)
    now = dataclasses.replace(plain, train=one, personal=head)
    own = positions(model(), head)
    shared = vector_of(list_trainable_parameters(model())).numel() - int(own.sum())
    expected, _ = play(now, "fedavg")
    found, part = play(now, name, {slot: np.full(shared, 0.5, np.float32)}, alpha=0.1)
    np.testing.assert_array_equal(found[own], expected[own])
    assert not np.allclose(found[~own], expected[~own], atol=1e-6)
    assert part.remembered[slot].size == shared


def test_moon_differs_once_the_site_has_a_model_of_its_own(plain: Round[Any]) -> None:
    first, part = play(plain, "moon", mu=5.0)
    np.testing.assert_array_equal(part.remembered[PREVIOUS], first)
    again, _ = play(plain, "moon", part.remembered, mu=5.0)
    assert not np.allclose(again, first, atol=1e-6)


def test_ditto_keeps_a_personal_model_between_plain_and_shared(plain: Round[Any]) -> None:
    shared, part = play(plain, "ditto", personal=0.0)
    np.testing.assert_allclose(part.remembered[PERSONAL], shared, atol=1e-7)  # same start, same batches, no pull
    start = flatten(model()).floats
    pulled = play(plain, "ditto", personal=100.0)[1].remembered[PERSONAL]
    assert np.linalg.norm(pulled - start) < np.linalg.norm(shared - start)


def test_positive_share_is_never_0_or_1() -> None:
    np.testing.assert_allclose(positive_share(np.array([0.0, 9, 4]), 9), [0.05, 0.95, 0.45])
