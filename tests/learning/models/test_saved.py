"""A model file is enough by itself, and nothing else passes for one."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from fl_rsna.learning.models.classifier import Classifier, build_model
from fl_rsna.learning.models.flat import flatten, layout_sha256, model_sha256
from fl_rsna.learning.models.saved import facts_in, metadata_sha256, read_saved, write_saved
from fl_rsna.settings.data import ImageKind
from fl_rsna.settings.model import ModelConfig, ModelName, Norm, RunModel, to_run_model
from fl_rsna.task import ICH

LITE = ModelConfig(image_size=32, pretrained=False)


def written(path: Path, config: ModelConfig = LITE, image: ImageKind = ImageKind.hu, **facts: object) -> Classifier:
    network = build_model(config, ICH, image, seed=5)
    write_saved(path, network, task="ich", image=image, png_size=32, config=config, facts=facts)
    return network.eval()


@pytest.mark.parametrize(
    ("config", "image"),
    [
        (LITE, ImageKind.hu),
        (ModelConfig(image_size=32, pretrained=False, norm=Norm.group), ImageKind.windows),
        (ModelConfig(image_size=32, pretrained=False, name=ModelName.efficientnet_b0), ImageKind.hu),
    ],
)
def test_what_is_read_says_what_was_written(tmp_path: Path, config: ModelConfig, image: ImageKind) -> None:
    network = written(tmp_path / "m.safetensors", config, image, round=3)
    saved = read_saved(tmp_path / "m.safetensors")
    images = torch.rand(2, 1 if image is ImageKind.hu else 3, 32, 32) * 1100
    with torch.inference_mode():
        assert torch.equal(saved.network(images), network(images))
    assert (saved.config, saved.image, saved.task, saved.facts) == (to_run_model(config), image, ICH, {"round": 3})
    assert saved.sha256 == model_sha256(flatten(network), layout_sha256(network))


def changed(path: Path, **metadata: str) -> None:
    """The same tensors under other metadata."""
    network = build_model(LITE, ICH, ImageKind.hu, seed=5)
    said = {"format": "1", "stored_size": "32", "task": "ich", "image": "hu", "model": "{}", "facts": "{}"} | metadata
    said |= {"metadata_sha256": metadata_sha256(said)}
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, path, metadata=said)


PLAIN = '{"name": "efficientnet_lite0", "norm": "average", "image_size": 32}'


@pytest.mark.parametrize(
    ("metadata", "sentence"),
    [
        ({"model": PLAIN, "task": "chess"}, "task, image and model in its metadata"),
        ({"model": "{}"}, "task, image and model in its metadata"),
        ({"model": PLAIN.replace("32", '32, "wings": 2')}, "unknown setting wings of a newer version"),
        ({"model": PLAIN.replace("average", "group")}, "does not hold the weights of the network it names"),
        ({"model": PLAIN, "facts": '{"model_sha256": "00ff"}'}, "not those it was written with"),
    ],
)
def test_a_file_that_is_not_what_it_says_is_refused(tmp_path: Path, metadata: dict[str, str], sentence: str) -> None:
    changed(tmp_path / "m.safetensors", **metadata)
    with pytest.raises(ValueError, match=sentence):
        read_saved(tmp_path / "m.safetensors")


def test_a_setting_younger_than_the_file_has_its_default(tmp_path: Path) -> None:
    changed(tmp_path / "m.safetensors", model=PLAIN)
    assert read_saved(tmp_path / "m.safetensors").config == RunModel(**json.loads(PLAIN))


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        (
            {"format": "2"},
            r"^model: expected a model file of format 1, got 2 in .*m\.safetensors: it is of another version",
        ),
        ({"format": None}, r"^model: expected a model file of format 1, got none in .* older version"),
        ({"stored_size": None}, r"^model: expected a model file .*KeyError: 'stored_size'"),
    ],
)
def test_a_file_of_another_version_or_without_what_a_prediction_needs_is_refused(
    tmp_path: Path, said: dict[str, str | None], sentence: str
) -> None:
    written(tmp_path / "m.safetensors")
    with safe_open(tmp_path / "m.safetensors", "pt") as file:
        metadata = {name: text for name, text in (file.metadata() | said).items() if text is not None}
    metadata["metadata_sha256"] = metadata_sha256(metadata)
    save_file(load_file(tmp_path / "m.safetensors"), tmp_path / "m.safetensors", metadata=metadata)
    with pytest.raises(ValueError, match=sentence):
        read_saved(tmp_path / "m.safetensors")


def test_a_changed_word_of_what_a_file_says_is_seen(tmp_path: Path) -> None:
    written(tmp_path / "m.safetensors", operating_points={"temperatures": {"any": 2.5}})
    assert facts_in(tmp_path / "m.safetensors") == {"operating_points": {"temperatures": {"any": 2.5}}}
    content = (tmp_path / "m.safetensors").read_bytes()
    assert content.count(b"2.5") == 1
    (tmp_path / "m.safetensors").write_bytes(content.replace(b"2.5", b"2.4"))
    with pytest.raises(ValueError, match=r"m\.safetensors says of its model is not what was written"):
        read_saved(tmp_path / "m.safetensors")


@pytest.mark.parametrize("content", [None, b"", b"no tensors here", "half"])
def test_a_missing_or_damaged_file_is_refused(tmp_path: Path, content: bytes | str | None) -> None:
    path = tmp_path / "m.safetensors"
    if content == "half":
        written(path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif content is not None:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(ValueError, match=r"^model: .*m\.safetensors"):
        read_saved(path)


def test_weights_that_changed_on_the_way_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    network = build_model(LITE, ICH, ImageKind.hu, seed=5)
    sha256 = model_sha256(flatten(network), layout_sha256(network))
    written(path, model_sha256=sha256)
    assert read_saved(path).sha256 == sha256
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)
    assert load_file(path)  # still a file of tensors
    with pytest.raises(ValueError, match="not what was written there, by its hash"):
        read_saved(path)
