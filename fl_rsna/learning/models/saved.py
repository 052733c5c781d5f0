"""Models as files: weights with everything needed to build and read them, so that the file alone is enough."""

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

ALONE = "head_alone"  # key of the shape of a head without encoder
FORMAT = 1  # of the metadata: a file of another is refused


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedModel:
    """A model as read from its file, in evaluation mode on the CPU."""

    path: Path
    network: Classifier  # of two stages the encoder
    task: Task
    image: ImageKind
    config: RunModel
    facts: dict[str, Any]  # what the run said of it: its round, its hash
    sha256: str  # of the weights as they are in the file, comparable with a run's model_sha256
    png_size: int  # pixels a side of the PNGs it was trained on
    two_stage: TwoStage | None = None  # with the encoder in it


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
    """Write a model as safetensors with all that a prediction needs in its metadata; `config` is the slice model's.

    `png_size` is pixels a side of the PNGs it was trained on; `facts` are what its run says of it: operating points,
    ancestry, strategy.
    """
    metadata = {
        "format": str(FORMAT),
        "stored_size": str(png_size),
        "task": task,
        "image": image.value,
        "model": json.dumps(
            asdict(replace(config, weights=None))
        ),  # a path of where it was trained, of no use elsewhere
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
    """The model in a file that `write_saved` wrote.

    Raises ValueError when it is missing or damaged, belongs to another version, or is not the model it says it is.
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
    """What a run said of the model in a file, without its weights; None of a file that is none of ours, such as a state dict."""
    try:
        with safe_open(path, "pt") as file:
            said = (file.metadata() or {}).get("facts")
        facts = None if said is None else json.loads(said)
    except (SafetensorError, OSError, ValueError):
        return None
    return facts if isinstance(facts, dict) else None


def read_head(path: Path) -> tuple[SeriesHead, dict[str, Any], str]:
    """A head that `write_saved` wrote alone, what its run said of it, and the hash of its weights; raises as `read_saved`."""
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
    """Give a network its weights, in evaluation mode; their hash, which must be the one they were written with."""
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
    """Metadata and weights of a file that `write_saved` wrote; raises ValueError when it is missing or not as it was written."""
    metadata, tensors, stated = _read(path)
    _check_content(path, metadata, tensors, stated)
    return metadata, tensors


def _read(path: Path) -> tuple[dict[str, str], dict[str, torch.Tensor], str | None]:
    """Metadata, weights, and the hash of both that the file states."""
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
    """The hash of all that a file says but of this itself, and of the hash of its whole content."""
    said = {name: text for name, text in metadata.items() if name not in ("metadata_sha256", HASH)}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def _check_format(metadata: Mapping[str, str], path: Path) -> None:
    """Refuse a model file of fl_rsna whose metadata are of another version; any other file is refused by what it lacks."""
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
    """The network's settings; one that this version does not know is refused, a younger one has its default.

    Raises KeyError without those that every version wrote.
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
