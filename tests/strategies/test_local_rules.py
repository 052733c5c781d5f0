"""What strategies add to local training, against gradients worked out by hand."""

import math

import pytest
import torch
from tiny import SIZE

from fl_rsna.learning.models.classifier import Classifier, build_model
from fl_rsna.learning.training.local_rule import frozen_copy, list_trainable_parameters, proximal, vector_of, views_of
from fl_rsna.settings.data import ImageKind
from fl_rsna.settings.model import ModelConfig
from fl_rsna.strategies.fedavg_logit_adjusted import prior_shift
from fl_rsna.strategies.feddyn import dynamic
from fl_rsna.strategies.moon import contrastive
from fl_rsna.strategies.scaffold import ControlVariates
from fl_rsna.task import ICH


def weights(*values: float) -> list[torch.nn.Parameter]:
    """Two parameters of different shapes that hold the three values."""
    a, b, c = values
    return [torch.nn.Parameter(torch.tensor([[float(a), b]])), torch.nn.Parameter(torch.tensor([float(c)]))]


def set_gradients(parameters: list[torch.nn.Parameter], *values: float) -> None:
    for parameter, piece in zip(parameters, views_of(torch.tensor(values), parameters), strict=True):
        parameter.grad = piece.clone().float()


def gradients(parameters: list[torch.nn.Parameter]) -> list[float]:
    return vector_of([parameter.grad for parameter in parameters]).tolist()  # type: ignore[misc]


def move(parameters: list[torch.nn.Parameter], *values: float) -> None:
    for parameter, piece in zip(parameters, views_of(torch.tensor(values), parameters), strict=True):
        parameter.data = piece.clone().float()


def test_vectors_and_views_are_inverse() -> None:
    parameters = weights(1, 2, 3)
    vector = vector_of(parameters)
    views = views_of(vector, parameters)
    assert [view.shape for view in views] == [parameter.shape for parameter in parameters]
    views[0][0, 1] = 9
    assert vector.tolist() == [1, 9, 3]
    assert vector_of(parameters).tolist() == [1, 2, 3]  # a copy


def test_proximal_term_is_the_gradient_of_half_mu_times_the_squared_distance() -> None:
    parameters = weights(1, 2, 3)
    rule = proximal(parameters, mu=0.5)
    move(parameters, 3, 2, 0)
    set_gradients(parameters, 10, 20, 30)
    assert rule.correct is not None
    rule.correct(parameters)
    assert gradients(parameters) == [10 + 0.5 * 2, 20, 30 - 0.5 * 3]


def test_control_variates_shift_gradients_and_are_renewed_by_their_mean() -> None:
    parameters = weights(0, 0, 0)
    variates = ControlVariates(site=torch.tensor([1.0, 0, 2]), server=torch.tensor([0.5, 1, 2]))
    for values in ((4.0, 0, 1), (2.0, 2, 0)):
        set_gradients(parameters, *values)
        variates.correct(parameters)
    assert gradients(parameters) == [2 - 1 + 0.5, 2 - 0 + 1, 0 - 2 + 2]
    assert variates.compute_variate().tolist() == [3, 1, 0.5]


def test_renewed_control_variate_is_option_ii_under_plain_sgd() -> None:
    """c_i - c + (w_t - w) / (K r), eq. 4 of the paper, for steps on a quadratic."""
    torch.manual_seed(0)
    site, server, rate, steps = torch.randn(3), torch.randn(3), 0.1, 5
    parameters = weights(1, -2, 3)
    start, optimizer = vector_of(parameters), torch.optim.SGD(parameters, lr=rate)
    variates = ControlVariates(site, server)
    for _ in range(steps):
        optimizer.zero_grad()
        sum(((parameter - 1) ** 2).sum() for parameter in parameters).backward()  # type: ignore[union-attr]
        variates.correct(parameters)
        optimizer.step()
    option_ii = site - server + (start - vector_of(parameters)) / (steps * rate)
    torch.testing.assert_close(variates.compute_variate(), option_ii)


def test_dynamic_regularisation_by_hand() -> None:
    parameters = weights(1, 2, 3)
    rule = dynamic(parameters, memory=torch.tensor([0.5, -0.5, 0]), alpha=0.1)
    move(parameters, 2, 2, 1)
    set_gradients(parameters, 1, 1, 1)
    assert rule.correct is not None
    rule.correct(parameters)
    assert gradients(parameters) == pytest.approx([1 - 0.5 + 0.1, 1 + 0.5, 1 - 0.2])


class Fixed(Classifier):
    """A model whose features are the same two numbers for every image."""

    def __init__(self, *values: float) -> None:
        torch.nn.Module.__init__(self)
        self._values = torch.tensor([values])

    def features(self, images: torch.Tensor) -> torch.Tensor:
        return self._values.expand(len(images), -1)


def test_contrastive_loss_by_hand() -> None:
    received, previous = Fixed(1.0, 0.0), Fixed(0.0, 1.0)
    rule = contrastive(received, previous, mu=2.0, temperature=0.5)
    assert rule.penalty is not None
    features = torch.tensor([[3.0, 4.0]])  # cosines 0.6 to the received, 0.8 to the previous model
    near, far = math.exp(0.6 / 0.5), math.exp(0.8 / 0.5)
    expected = -2.0 * math.log(near / (near + far))
    assert float(rule.penalty(torch.zeros(1, 1, 4, 4), features)) == pytest.approx(expected)


def test_features_are_before_dropout_and_make_the_logits() -> None:
    model = build_model(ModelConfig(image_size=SIZE), ICH, ImageKind.hu, seed=0).eval()
    images = torch.rand(3, 1, SIZE, SIZE) * 100 + 1000
    logits, features = model.with_features(images)
    torch.testing.assert_close(logits, model(images))
    torch.testing.assert_close(model.backbone._fc(features), logits)
    assert not model.backbone._dropout._forward_pre_hooks


def test_a_frozen_copy_stays_behind() -> None:
    model = build_model(ModelConfig(image_size=SIZE), ICH, ImageKind.hu, seed=0)
    kept = frozen_copy(model)
    with torch.no_grad():
        model.backbone._fc.bias += 1
    assert not torch.equal(model.backbone._fc.bias, kept.backbone._fc.bias)
    assert not list_trainable_parameters(kept)
    assert not kept.training


def test_prior_shift_is_the_difference_of_log_odds_and_nothing_at_equal_priors() -> None:
    shift = prior_shift(torch.tensor([0.5, 0.2]), torch.tensor([0.2, 0.2]), strength=2.0).logit_shift
    assert shift is not None
    assert shift.tolist() == pytest.approx([2 * math.log(4), 0])
