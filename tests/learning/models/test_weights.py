"""A state dict on disk as the start of a network: by names and shapes, or not at all."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tiny import SIZE

from fl_rsna.common.reading import file_sha256
from fl_rsna.learning.models.backbone import build_backbone
from fl_rsna.learning.models.classifier import build_model
from fl_rsna.settings.data import ImageKind
from fl_rsna.settings.model import ModelConfig, Norm
from fl_rsna.task import ICH

RANDOM = ModelConfig(image_size=SIZE, pretrained=False)


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    """ImageNet's weights of lite0, as their own package has them, with a head of 1000 classes."""
    found = build_backbone(ModelConfig(image_size=SIZE), 1000).state_dict()
    return {name: value.clone() for name, value in found.items()}


@pytest.mark.parametrize("kind", ["safetensors", "pth", "checkpoint"])
def test_the_file_is_the_start(tmp_path: Path, state: dict[str, torch.Tensor], kind: str) -> None:
    path = tmp_path / f"w.{'safetensors' if kind == 'safetensors' else 'pth'}"
    if kind == "safetensors":
        save_file(state, path)
    else:
        torch.save({"state_dict": state, "epoch": 3} if kind == "checkpoint" else state, path)
    started = build_model(RANDOM, ICH, ImageKind.hu, seed=1, weights=path).state_dict()
    packaged = build_model(ModelConfig(image_size=SIZE), ICH, ImageKind.hu, seed=1).state_dict()
    differing = [name for name in packaged if not torch.equal(started[name], packaged[name])]
    assert differing == []
    assert started["backbone._fc.weight"].shape[0] == len(ICH.labels)
    assert len(file_sha256(path)) == 64


def test_neighbours_and_groups_are_made_of_what_was_loaded(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    save_file(state, tmp_path / "w.safetensors")
    config = ModelConfig(image_size=SIZE, pretrained=False, neighbours=1, norm=Norm.group)
    model = build_model(config, ICH, ImageKind.hu, seed=0, weights=tmp_path / "w.safetensors")
    stem = state["_conv_stem.weight"]
    torch.testing.assert_close(model.backbone._conv_stem.weight.detach(), torch.cat([stem] * 3, 1) / 3)
    assert torch.equal(model.backbone._bn0.weight, state["_bn0.weight"])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda state: state.pop("_bn0.weight"), r"with 1 missing \(_bn0\.weight\); give"),
        (lambda state: state.update(extra=torch.zeros(1)), r"with 1 unknown \(extra\); give"),
        (lambda state: state.update({"_bn0.bias": torch.zeros(3)}), r"with 1 of another shape \(_bn0\.bias\); give"),
        (lambda state: state.update(note="text"), "expected a state dict of tensors"),
    ],
)
def test_another_networks_weights_are_refused(tmp_path: Path, state, change, sentence: str) -> None:  # type: ignore[no-untyped-def]
    changed = dict(state)
    change(changed)
    torch.save(changed, tmp_path / "w.pt")
    with pytest.raises(ValueError, match=rf"^model\.weights: .*{sentence}"):
        build_model(RANDOM, ICH, ImageKind.hu, seed=0, weights=tmp_path / "w.pt")


def test_older_files_without_counters_will_do(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    torch.save({name: value for name, value in state.items() if "num_batches" not in name}, tmp_path / "w.pt")
    build_model(RANDOM, ICH, ImageKind.hu, seed=0, weights=tmp_path / "w.pt")


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
@pytest.mark.parametrize("content", [b"", b"not weights", b"PK\x03\x04 cut"])
def test_a_file_that_is_none_is_one_sentence(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=r"^model\.weights: expected a state dict in") as refused:
        build_model(RANDOM, ICH, ImageKind.hu, seed=0, weights=tmp_path / name)
    assert "\n" not in str(refused.value)
