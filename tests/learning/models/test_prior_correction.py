"""What counted more in the loss is given back exactly, whatever the probabilities are."""

import numpy as np
import torch

from fl_rsna.learning.models.classifier import ClassCorrection, build_model, probabilities
from fl_rsna.learning.training.loss import rare_label_weights, task_loss
from fl_rsna.settings.data import ImageKind
from fl_rsna.settings.model import ModelConfig, RunModel
from fl_rsna.task import COVID_CXR

PRIOR = (0.28, 0.47, 0.17, 0.08)


def test_the_weighted_loss_is_least_where_the_corrected_classes_are_the_true_ones() -> None:
    """Of images that all look alike, of which 28, 47, 17 and 8 of 100 are of each class."""
    weights = rare_label_weights(COVID_CXR, PRIOR)
    labels = torch.eye(4).repeat_interleave(torch.tensor([28, 47, 17, 8]), dim=0)
    logits = torch.zeros(4, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], max_iter=200, tolerance_change=1e-12)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = task_loss(logits.expand(100, 4), labels, COVID_CXR, weights=weights)
        loss.backward()
        return loss

    optimizer.step(closure)
    learned = logits.detach()[None]
    np.testing.assert_allclose(probabilities(ClassCorrection(weights)(learned), COVID_CXR)[0], PRIOR, atol=1e-4)
    assert probabilities(learned, COVID_CXR)[0, 3] > 1.5 * PRIOR[3]  # what it learned leans to the rare class


def test_a_network_predicts_corrected_and_learns_as_drawn() -> None:
    plain = ModelConfig(image_size=32)
    weighted = RunModel(image_size=32, class_weights=[0.5, 1.0, 1.5, 2.0])
    one, other = (build_model(config, COVID_CXR, ImageKind.grey, seed=0).eval() for config in (plain, weighted))
    image = torch.rand(2, 1, 32, 32) * 65535
    assert one.state_dict().keys() == other.state_dict().keys()
    torch.testing.assert_close(one(image), other.raw_logits(image))
    torch.testing.assert_close(other(image), one(image) - torch.tensor([0.5, 1.0, 1.5, 2.0]).log())
