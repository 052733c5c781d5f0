"""What the packages call their parts, and what is done to them the same way everywhere."""

import pytest
import torch
from tiny import SIZE

from fl_rsna.learning.models.backbone import build_backbone, head_of, parts_of, stages_below_head
from fl_rsna.learning.models.classifier import Classifier, build_model, set_training
from fl_rsna.learning.training.local_rule import list_trainable_parameters
from fl_rsna.learning.training.train import layer_rates, make_optimizer
from fl_rsna.settings.data import ImageKind
from fl_rsna.settings.model import ModelConfig, ModelName, Trainable, Window
from fl_rsna.settings.training import Optimizer, TrainConfig
from fl_rsna.task import ICH

IMAGES = 1000 + 100 * torch.rand(3, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
DECAYED = TrainConfig(layer_decay=0.5)


def built(**words: object) -> Classifier:
    model = build_model(ModelConfig(image_size=SIZE, **words), ICH, ImageKind.hu, seed=0)  # type: ignore[arg-type]
    torch.manual_seed(1)
    torch.nn.init.normal_(model.head.weight)
    return model.eval()


@pytest.mark.parametrize("neighbours", [1, 2])
@pytest.mark.parametrize("window", list(Window))
def test_equal_neighbours_give_what_the_slice_alone_gives(neighbours: int, window: Window) -> None:
    alone, among = built(window=window), built(window=window, neighbours=neighbours)
    stack = IMAGES.expand(3, 1 + 2 * neighbours, SIZE, SIZE)
    with torch.inference_mode():
        torch.testing.assert_close(among(stack), alone(IMAGES), atol=1e-4, rtol=1e-4)
        other = stack.clone()
        other[:, 0] += 50
        assert not torch.allclose(among(other), alone(IMAGES), atol=1e-3)


def test_only_the_first_convolution_grows_with_neighbours() -> None:
    alone, among = built().state_dict(), built(neighbours=1).state_dict()
    grown = [name for name in alone if alone[name].shape != among[name].shape]
    assert grown == ["backbone._conv_stem.weight"]
    assert all(torch.equal(alone[name], among[name]) for name in alone if name not in grown)


@pytest.mark.parametrize(
    "name", [ModelName.efficientnet_lite0, ModelName.efficientnet_lite2, ModelName.efficientnet_b0]
)
def test_stages_of_an_efficientnet(name: ModelName) -> None:
    """Last layer 0, last convolution 1, seven groups of blocks, and the stem, with none in between left out."""
    with torch.device("meta"):
        network = build_backbone(ModelConfig(name=name, pretrained=False, image_size=SIZE), 6)
    stages = stages_below_head(network)
    assert list(stages) == [parameter for parameter, _ in network.named_parameters()]
    assert [stages[f"_{part}"] for part in ("fc.bias", "conv_head.weight", "bn1.bias")] == [0, 1, 1]
    assert [stages["_conv_stem.weight"], stages["_blocks.0._bn1.weight"]] == [9, 8]
    assert sorted(set(stages.values())) == list(range(10))
    order = [stage for part, stage in stages.items() if part.startswith("_blocks.")]
    assert order == sorted(order, reverse=True)
    widths = {
        stage: {
            network.get_submodule(part.removesuffix(".weight")).weight.shape[0]
            for part, of in stages.items()
            if of == stage and part.endswith("_project_conv.weight")
        }
        for stage in range(2, 9)
    }
    assert all(len(width) == 1 for width in widths.values())  # blocks of a group are equally wide


def test_rates_fall_by_the_factor_a_stage() -> None:
    model = built(window=Window.learned)
    set_training(model, ModelConfig().norm, Trainable.all)
    trained = list_trainable_parameters(model)
    groups = layer_rates(model, trained, 0.8, 0.5)
    of = {id(value): group["lr"] for group in groups for value in group["params"]}  # type: ignore[index, call-overload]
    assert len(of) == sum(len(group["params"]) for group in groups) == len(trained)  # type: ignore[index, call-overload]
    rates = {name: of[id(value)] for name, value in model.named_parameters()}
    assert rates["backbone._fc.weight"] == 0.8
    assert rates["backbone._conv_head.weight"] == 0.4
    assert rates["backbone._conv_stem.weight"] == pytest.approx(0.8 * 0.5**9)
    assert rates["input_stage.bias"] == pytest.approx(0.8 * 0.5**10)
    assert layer_rates(model, trained, 0.8, 1.0) is trained


@pytest.mark.parametrize("kind", list(Optimizer))
def test_every_optimizer_steps_by_its_groups_rate(kind: Optimizer) -> None:
    model = built()
    set_training(model, ModelConfig().norm, Trainable.all)
    trained, config = list_trainable_parameters(model), TrainConfig(optimizer=kind, weight_decay=0)
    before = [value.detach().clone() for value in trained]
    optimizer = make_optimizer(layer_rates(model, trained, 0.5, 0.5), config, 0.5)
    for value in trained:
        value.grad = torch.ones_like(value)
    optimizer.step()
    moved = {id(value): float((old - value).detach().mean()) for old, value in zip(before, trained, strict=True)}
    assert moved[id(model.head.weight)] == pytest.approx(0.5, rel=1e-3)
    assert moved[id(model.backbone._conv_stem.weight)] == pytest.approx(0.5**10, rel=1e-2)


def test_features_are_before_dropout_and_the_last_layer() -> None:
    model = built(dropout=0.9).train()
    logits, features = model.with_features(IMAGES)
    assert not torch.allclose(model.head(features), logits)  # dropout is between them
    model.eval()
    logits, features = model.with_features(IMAGES)
    torch.testing.assert_close(model.head(features), logits)
    assert parts_of(model.backbone).head == "_fc"
    assert head_of(model.backbone) is model.backbone._fc
