"""Write and read model files, which hold the weights and everything needed to build the network."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from enum import EnumType
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as save_tensors
from torch import nn

from fl_rsna.common.atomic import write_whole
from fl_rsna.common.hashes import vectors_sha256
from fl_rsna.common.reading import HASH, UNREADABLE, refuse_unreadable
from fl_rsna.learning.models.classifier import Classifier, build_model
from fl_rsna.learning.models.flat import flatten, layout_sha256, model_sha256
from fl_rsna.learning.models.series_head import HeadShape, SeriesHead, TwoStage, build_head
from fl_rsna.settings.data import ImageKind
from fl_rsna.settings.model import ModelConfig, RunModel
from fl_rsna.settings.stages import HeadName
from fl_rsna.task import Task, find_task

ALONE = "head_alone"  # metadata key of the shape of a head without encoder
FORMAT = 1  # version of the metadata; a file of another version is refused


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedModel:
    """A model as read from its file, in evaluation mode on the CPU."""

    path: Path
    network: Classifier  # the encoder of a two-stage model
    task: Task
    image: ImageKind
    config: RunModel
    facts: dict[str, Any]  # facts that the run recorded about it, such as its round and hash
    sha256: str  # hash of the weights in the file, comparable with a run's model_sha256
    png_size: int  # side in pixels of the PNGs on which it was trained
    two_stage: TwoStage | None = None  # contains the encoder, too


def write_saved(
    path: Path,
    network: nn.Module,
    *,
    task: str,
    image: ImageKind,
    png_size: int,
    config: ModelConfig,
    facts: Mapping[str, Any],
) -> None:
    """Write a model as safetensors, with everything that a prediction needs in the metadata; `config` is the slice model's.

    `png_size` is the side in pixels of the PNGs on which it was trained; `facts` are what its run records about it: operating
    points, ancestry, strategy.
    """
    metadata = {
        "format": str(FORMAT),
        "stored_size": str(png_size),
        "task": task,
        "image": image.value,
        # `weights` is a path on the machine that trained the model, of no use elsewhere.
        "model": json.dumps(asdict(replace(config, weights=None))),
        "facts": json.dumps(dict(facts)),
    }
    if isinstance(network, TwoStage):
        metadata["head"] = json.dumps(asdict(network.head.shape))
    if isinstance(network, SeriesHead):
        metadata[ALONE] = json.dumps(asdict(network.shape))
    metadata["metadata_sha256"] = metadata_sha256(metadata)
    tensors = {key: tensor.contiguous() for key, tensor in network.state_dict().items()}
    metadata[HASH] = _sha256(tensors, metadata)
    write_whole(path, save_tensors(tensors, metadata=metadata))


def read_saved(path: Path) -> SavedModel:
    """Read the model in a file that `write_saved` wrote.

    Raises ValueError when the file is missing or damaged, is of another version, or does not hold the model that it names.
    """
    metadata, tensors, stated = _read(path)
    _check_format(metadata, path)
    try:
        task, image = find_task(metadata["task"]), ImageKind(metadata["image"])
        png_size = int(metadata["stored_size"])
        config, facts = _config(json.loads(metadata["model"])), json.loads(metadata["facts"])
        shape = _shape(json.loads(metadata["head"])) if "head" in metadata else None
    except UNREADABLE as error:
        raise ValueError(
            f"model: expected a model file of fl_rsna with task, image and model in its metadata, got {path} "
            f"({type(error).__name__}: {error}); give the model.safetensors of a run"
        ) from None
    _check_content(path, metadata, tensors, stated)
    network = build_model(replace(config, pretrained=False), task, image, seed=0)  # the file's weights take their place
    two_stage = None if shape is None else TwoStage(network, build_head(shape, seed=0))
    sha256 = _fill(network if two_stage is None else two_stage, tensors, facts, path)
    return SavedModel(
        path=path, network=network, task=task, image=image, config=config, facts=facts, sha256=sha256,
        png_size=png_size, two_stage=two_stage,
    )  # fmt: skip


def facts_in(path: Path) -> dict[str, Any] | None:
    """Read what a run recorded about the model in a file, without its weights; None for a file of another kind, such as a state dict."""
    try:
        with safe_open(path, "pt") as file:
            said = (file.metadata() or {}).get("facts")
        facts = None if said is None else json.loads(said)
    except (SafetensorError, OSError, ValueError):
        return None
    return facts if isinstance(facts, dict) else None


def read_head(path: Path) -> tuple[SeriesHead, dict[str, Any], str]:
    """Read a head that `write_saved` wrote alone: the head, what its run recorded about it, and the hash of its weights.

    Raises ValueError when the file is missing or damaged, is of another version, or does not hold the head that it names.
    """
    metadata, tensors, stated = _read(path)
    _check_format(metadata, path)
    try:
        shape, facts = _shape(json.loads(metadata[ALONE])), json.loads(metadata["facts"])
    except UNREADABLE as error:
        raise ValueError(
            f"model: expected a network along the series with its shape in its metadata, got {path} "
            f"({type(error).__name__}: {error}); take it from a run of this version"
        ) from None
    _check_content(path, metadata, tensors, stated)
    head = build_head(shape, seed=0)
    return head, facts, _fill(head, tensors, facts, path)


def _fill(network: nn.Module, tensors: Mapping[str, torch.Tensor], facts: Mapping[str, Any], path: Path) -> str:
    """Load the weights into a network, in evaluation mode, and return their hash; raises ValueError when `facts` states another."""
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        detail = str(error).splitlines()[-1].strip()
        raise ValueError(f"model: {path} does not hold the weights of the network it names: {detail}") from None
    network.eval()
    sha256 = model_sha256(flatten(network), layout_sha256(network))
    if facts.get("model_sha256", sha256) != sha256:
        raise ValueError(
            f"model: the weights in {path} are not those it was written with: their hash is {sha256[:12]}, "
            f"not {facts['model_sha256'][:12]}; copy the file again"
        )
    return sha256


def read_tensors(path: Path) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    """Read the metadata and weights of a file that `write_saved` wrote; raises ValueError when it is missing or was changed."""
    metadata, tensors, stated = _read(path)
    _check_content(path, metadata, tensors, stated)
    return metadata, tensors


def _read(path: Path) -> tuple[dict[str, str], dict[str, torch.Tensor], str | None]:
    """Read the metadata, the weights, and the hash of both that the file states."""
    if not path.is_file():
        raise ValueError(f"model: no model at {path}; give a run folder or its model.safetensors")
    with refuse_unreadable(path, "a .safetensors file", "copy it again", key="model: "), safe_open(path, "pt") as file:
        metadata, tensors = file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    stated = metadata.pop(HASH, None)
    return metadata, tensors, stated


def _check_content(
    path: Path, metadata: Mapping[str, str], tensors: Mapping[str, torch.Tensor], stated: str | None
) -> None:
    if stated is not None and stated != _sha256(tensors, metadata):
        raise ValueError(
            f"model: {path} was changed or damaged: its content is not what was written there, by its hash; copy it again"
        )


def _sha256(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> str:
    return vectors_sha256({name: tensor.cpu().numpy() for name, tensor in tensors.items()}, metadata)


def metadata_sha256(metadata: Mapping[str, str]) -> str:
    """Hash a file's metadata, without this hash itself and without the hash of the whole content."""
    said = {name: text for name, text in metadata.items() if name not in ("metadata_sha256", HASH)}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def _check_format(metadata: Mapping[str, str], path: Path) -> None:
    """Refuse a model file of fl_rsna whose metadata are of another version or were changed; pass any other file."""
    said = metadata.get("format")
    if "model" not in metadata:
        return
    if said == str(FORMAT):
        if metadata.get("metadata_sha256") != metadata_sha256(metadata):
            raise ValueError(
                f"model: what {path} says of its model is not what was written: its hash is another; copy the file again"
            )
        return
    whose = "an older version, which did not say all that a prediction needs" if said is None else "another version"
    raise ValueError(
        f"model: expected a model file of format {FORMAT}, got {'none' if said is None else said} in {path}: it is of {whose}; "
        "use that version of fl_rsna, or train it again"
    )


def _config(said: dict[str, Any]) -> RunModel:
    """Convert the network's settings from JSON; a setting that the file lacks gets its default.

    Raises ValueError for a setting that this version does not know, and KeyError without one that every version wrote.
    """
    unknown = sorted(set(said) - {field.name for field in fields(RunModel)})
    if unknown:
        raise ValueError(f"unknown setting {', '.join(unknown)} of a newer version")
    if missing := {"name", "norm"} - set(said):
        raise KeyError(*sorted(missing))
    choices = {field.name: field.type for field in fields(RunModel) if isinstance(field.type, EnumType)}
    return RunModel(**{name: choices[name](value) if name in choices else value for name, value in said.items()})


def _shape(said: dict[str, Any]) -> HeadShape:
    return HeadShape(**{**said, "head": HeadName(said["head"])})
