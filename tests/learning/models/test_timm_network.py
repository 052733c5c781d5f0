"""Networks of timm: the seeds' own and any other, treated like ours; and clear words where timm is not to be had."""

import importlib.util
import sys

import pytest
import torch
from composed import compose_config
from torchvision_operators import make_importable

from fl_rsna.learning.inference.gradcam import heat, last_maps
from fl_rsna.learning.models.backbone import DroppedLinear, normalisation, parts_of, stages_below_head
from fl_rsna.learning.models.classifier import Classifier, build_model, norm_layers, set_training
from fl_rsna.learning.models.flat import flatten, unflatten
from fl_rsna.learning.training.local_rule import list_trainable_parameters
from fl_rsna.learning.training.memory_estimate import footprint
from fl_rsna.learning.training.train import layer_rates
from fl_rsna.settings.data import ImageKind
from fl_rsna.settings.model import ModelConfig, ModelName, Norm, Trainable, Window
from fl_rsna.settings.reference import conf_folder
from fl_rsna.settings.training import TrainConfig
from fl_rsna.task import ICH

SEEDS = (
    "seresnext50", "seresnext101", "senet154", "densenet121", "densenet169", "densenet201",
    "inception_v3", "inception_v4", "inception_resnet_v2", "xception",
)  # fmt: skip
QUICK = ("seresnext50", "densenet121", "inception_v3")  # one of each family's ways with names, stages and norms
SIDE = 96  # Inception's least is 75
HU = ImageKind.hu

needs_timm = pytest.mark.skipif(importlib.util.find_spec("timm") is None, reason="timm is not installed")


@pytest.fixture(scope="module", autouse=True)
def _operators() -> None:
    make_importable()


def named(choice: str) -> ModelConfig:
    """What model=<choice> says, small."""
    config = compose_config([f"model={choice}"]).model
    config.image_size = SIDE
    return config


def built(config: ModelConfig, seed: int = 0) -> Classifier:
    return build_model(config, ICH, HU, seed=seed)


def stacks(slices: int, count: int = 2) -> torch.Tensor:
    one = 1000 + 100 * torch.rand(count, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    return one.expand(count, slices, SIDE, SIDE)


def every_seed() -> list[object]:
    return [choice if choice in QUICK else pytest.param(choice, marks=pytest.mark.slow) for choice in SEEDS]


@needs_timm
@pytest.mark.parametrize("choice", every_seed())
def test_a_seeds_network_is_one_of_ours(choice: str) -> None:
    """It learns from stacks, has features, heat, stages, and the same output for equal neighbours."""
    config = named(choice)
    config.neighbours = 1
    model = built(config)
    torch.nn.init.normal_(model.head.weight, generator=torch.Generator().manual_seed(1))
    set_training(model, Norm.average, Trainable.all)
    logits, features = model.with_features(stacks(3))
    logits.sum().backward()
    assert logits.shape == (2, 6)
    assert features.shape == (2, model.head.in_features)
    assert [name for name, value in model.named_parameters() if value.grad is None] == []
    found = heat(model, stacks(3), 0)
    assert found.shape == (2, SIDE, SIDE)
    assert bool(found.isfinite().all())
    assert min(last_maps(model.eval(), stacks(3), 6)[1].shape[2:]) >= 6
    stages = stages_below_head(model.backbone)
    head, first = parts_of(model.backbone).head, parts_of(model.backbone).first[0]
    assert {name for name, stage in stages.items() if stage == 0} == {f"{head}.weight", f"{head}.bias"}
    assert stages[f"{first}.weight"] == max(stages.values()) >= 4
    config.neighbours = 0
    alone = built(config)
    widened = {name: value for name, value in model.state_dict().items() if name != f"backbone.{first}.weight"}
    stem = model.backbone.get_submodule(first).weight.detach()
    alone.load_state_dict({**widened, f"backbone.{first}.weight": stem[:, :3] * 3})
    with torch.inference_mode():
        torch.testing.assert_close(alone.eval()(stacks(1)), model.eval()(stacks(3)), atol=1e-3, rtol=1e-3)


@needs_timm
@pytest.mark.parametrize("choice", SEEDS)
def test_what_conf_says_is_a_network_of_timm_and_of_the_seeds(choice: str) -> None:
    import timm

    config = compose_config([f"model={choice}"]).model
    assert timm.is_model(config.backbone)
    assert config.name == ModelName.timm
    assert config.image_size == timm.models.get_pretrained_cfg(config.backbone).input_size[-1]


def test_there_is_a_file_for_every_seeds_network() -> None:
    assert {path.stem for path in (conf_folder() / "model").glob("*.yaml")} >= {*SEEDS, "timm"}


@needs_timm
@pytest.mark.parametrize("norm", list(Norm))
@pytest.mark.parametrize("choice", ["seresnext50", "densenet121"])
def test_every_norm_and_its_activation(choice: str, norm: Norm) -> None:
    """DenseNet's BatchNorm holds its activation, which GroupNorm in its place keeps."""
    config = named(choice)
    config.norm = norm
    model = built(config)
    layers = norm_layers(model)
    assert (layers == []) == (norm is Norm.group)
    set_training(model, norm, Trainable.all)
    assert not any(layer.training for layer in layers) or norm not in (Norm.frozen, Norm.adapted)
    if choice == "densenet121":
        maps: list[torch.Tensor] = []
        model.backbone.features.norm0.register_forward_hook(lambda layer, given, output: maps.append(output))
        model(stacks(1))
        assert float(maps[0].detach().min()) == 0


@needs_timm
def test_dropout_is_before_the_last_layer_and_only_in_training() -> None:
    config = named("seresnext50")
    config.dropout = 0.9
    model = built(config)
    assert isinstance(model.head, DroppedLinear)
    set_training(model, Norm.average, Trainable.head)
    logits, features = model.with_features(stacks(1))
    plain = torch.nn.functional.linear(features, model.head.weight, model.head.bias)
    assert not torch.allclose(logits, plain)
    assert [name for name, value in model.named_parameters() if value.requires_grad] == [
        "backbone.last_linear.weight",
        "backbone.last_linear.bias",
    ]
    model.eval()
    logits, features = model.with_features(stacks(1))
    torch.testing.assert_close(logits, torch.nn.functional.linear(features, model.head.weight, model.head.bias))


@needs_timm
def test_what_goes_with_ours_goes_with_theirs() -> None:
    """Seeds, flat vectors, footprint, layer rates, learned windows, and the values the network was designed for."""
    config = named("xception")
    config.window, config.neighbours = Window.learned, 1
    one, two, other = built(config), built(config), built(config, seed=1)
    assert (flatten(one).floats == flatten(two).floats).all()
    assert (flatten(one).floats != flatten(other).floats).any()
    unflatten(flatten(other), two)
    assert (flatten(two).floats == flatten(other).floats).all()
    assert normalisation(one.backbone)[0] == (0.5, 0.5, 0.5)
    assert one.input_stage.mean.flatten().tolist() == [0.5] * 3
    set_training(one, Norm.average, Trainable.all)
    trained = list_trainable_parameters(one)
    groups = layer_rates(one, trained, 1.0, 0.9)
    assert sum(len(group["params"]) for group in groups) == len(trained)  # type: ignore[index, call-overload]
    found = footprint(config, TrainConfig(batch_size=2, layer_decay=0.9), ICH, HU)
    assert found.model == sum(value.nbytes for value in one.state_dict().values())


@needs_timm
@pytest.mark.parametrize(
    ("backbone", "size", "sentence"),
    [
        (
            "densenet212",
            64,
            r"^model\.backbone: expected a name of timm\.list_models\(\), got densenet212; there is densenet",
        ),
        ("hf-hub:timm/resnet18", 64, r"^model\.backbone: expected a name"),
        ("inception_v3", 32, r"^model\.image_size: expected what inception_v3 can take, got 32"),
        ("deit_tiny_distilled_patch16_224", 224, r"^model\.backbone: expected a network that ends in one linear layer"),
    ],
)
def test_what_timm_cannot_give_is_one_sentence(backbone: str, size: int, sentence: str) -> None:
    config = ModelConfig(name=ModelName.timm, backbone=backbone, pretrained=False, image_size=size)
    with pytest.raises(ValueError, match=sentence) as refused:
        built(config)
    assert "\n" not in str(refused.value)


@needs_timm
def test_a_transformer_takes_the_size_it_is_given() -> None:
    config = ModelConfig(name=ModelName.timm, backbone="vit_tiny_patch16_224", pretrained=False, image_size=SIDE)
    assert built(config).eval()(stacks(1)).shape == (2, 6)


@pytest.mark.parametrize(
    ("package", "error", "sentence"),
    [
        ("timm", None, "timm networks need timm, not installed here; pip install 'fl-rsna[timm]'"),
        ("torchvision", None, "timm networks need torchvision, not installed here; pip install 'fl-rsna[timm]'"),
        (
            "torchvision",
            RuntimeError("operator torchvision::nms does not exist"),
            "torchvision under it cannot be imported (operator torchvision::nms does not exist); install the torchvision",
        ),
    ],
)
@needs_timm
def test_a_package_that_cannot_be_imported_is_one_sentence(
    package: str, error: Exception | None, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] in ("timm", "torchvision")]:
        monkeypatch.delitem(sys.modules, name)
    lacking = error or ModuleNotFoundError(f"No module named {package!r}", name=package)
    monkeypatch.setattr(sys, "meta_path", [Refuses(package, lacking), *sys.meta_path])
    with pytest.raises(ValueError, match=r"^model\.name: ") as refused:
        built(ModelConfig(name=ModelName.timm, backbone="densenet121", pretrained=False))
    assert sentence in str(refused.value)
    assert "\n" not in str(refused.value)


class Refuses:
    """A finder through which a package cannot be had."""

    def __init__(self, package: str, error: Exception) -> None:
        self.package, self.error = package, error

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name.partition(".")[0] == self.package:
            raise self.error
