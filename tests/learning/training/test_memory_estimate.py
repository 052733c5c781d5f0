"""Memory foretold without taking any, against memory taken."""

import importlib.util
import sys
from dataclasses import replace

import pytest
from package import ROOT

from fl_rsna.learning.models.classifier import build_model
from fl_rsna.learning.training.memory_estimate import Footprint, footprint
from fl_rsna.settings.data import ImageKind
from fl_rsna.settings.model import ModelConfig, ModelName, Norm, Trainable
from fl_rsna.settings.training import Optimizer, TrainConfig
from fl_rsna.task import ICH

MODEL, TRAIN = ModelConfig(image_size=64, pretrained=False), TrainConfig(batch_size=8)
SCRIPT = ROOT / "benchmarks" / "bench_memory.py"


def of(model: ModelConfig = MODEL, train: TrainConfig = TRAIN) -> Footprint:
    return footprint(model, train, ICH, ImageKind.hu)


def test_the_model_is_its_tensors_and_training_keeps_four_of_them_at_least() -> None:
    real = build_model(MODEL, ICH, ImageKind.hu, seed=0)
    held = sum(tensor.nbytes for tensor in real.state_dict().values())
    weights = sum(parameter.nbytes for parameter in real.parameters())
    found = of()
    assert found.model == held
    assert found.training > held + 3 * weights  # gradients and AdamW's two moments
    assert held < found.scoring < found.training


@pytest.mark.slow
def test_activations_grow_with_batch_and_area_and_weights_do_not() -> None:
    def training(batch: int, image_size: int = 64) -> int:
        return of(replace(MODEL, image_size=image_size), replace(TRAIN, batch_size=batch)).training

    first, second, third = training(24), training(48), training(72)
    assert third - second == pytest.approx(second - first, rel=0.01)
    area = training(24, 128) - training(12, 128)  # half as many slices more, each of four times the area
    assert area == pytest.approx(2 * (second - first), rel=0.15)  # but for padding


def test_what_trains_less_takes_less() -> None:
    whole = of()
    weights = whole.model
    plain = of(train=replace(TRAIN, optimizer=Optimizer.sgd))
    assert whole.training - plain.training == pytest.approx(2 * weights, rel=0.05)
    assert of(train=replace(TRAIN, trainable=Trainable.head)).training < plain.training / 2
    assert of(replace(MODEL, norm=Norm.group)).training > 0


def test_no_memory_is_taken_to_find_out() -> None:
    """A step that would need more than 100 GB is foretold all the same."""
    huge = of(replace(MODEL, image_size=1024), replace(TRAIN, batch_size=1024))
    assert huge.training > 100e9


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the peak of resident memory is read from /proc")
@pytest.mark.parametrize("setup", ["efficientnet_lite0:96:16", "efficientnet_b0:128:8"])
def test_a_step_takes_what_is_foretold_within_a_third(setup: str) -> None:
    spec = importlib.util.spec_from_file_location("bench_memory", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    bench = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench)
    assert ModelName(setup.split(":")[0])
    assert bench.estimated(setup) / bench.measured(setup) == pytest.approx(1, abs=1 / 3)
