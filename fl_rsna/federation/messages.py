"""What travels: a model as one float32 and one int64 vector, and the small records around it.

Flower's records are made and taken apart here only. A message to a site holds `arrays` (the global model) and
`config` (what to do); a reply holds `arrays` and `metrics`, or `failure` when the site raised.
"""

import hashlib
import json
import traceback
from dataclasses import asdict, dataclass, fields
from enum import EnumType
from typing import Any, TypeVar

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from numpy.typing import NDArray
from torch import nn

from fl_rsna.config import ModelConfig, TrainConfig

T = TypeVar("T")

ARRAYS, CONFIG, METRICS, FAILURE, SITE = "arrays", "config", "metrics", "failure", "site"


@dataclass(frozen=True, slots=True, eq=False)
class FlatModel:
    """A model's state as two vectors: `floats` float32 [P] and `integers` int64 [Q], in state-dict order."""

    floats: NDArray[np.float32]
    integers: NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Instructions:
    """All a site is told besides the model."""

    task: str
    model: ModelConfig
    train: TrainConfig
    seed: int
    round: int
    learning_rate: float
    layout_sha256: str
    salt: str  # of the hashes that let the server see shared patients; new in every run
    group_key: str = "patient_id"  # the index column they are of; another one in a cohort that was asked to leak


def flatten(model: nn.Module) -> FlatModel:
    """Copy a model's state into two vectors."""
    floats, integers = _split(model)
    return FlatModel(
        torch.cat([tensor.detach().reshape(-1).float().cpu() for tensor in floats]).numpy(),
        torch.cat(
            [tensor.reshape(-1).long().cpu() for tensor in integers] or [torch.zeros(0, dtype=torch.long)]
        ).numpy(),
    )


@torch.no_grad()
def unflatten(flat: FlatModel, model: nn.Module) -> None:
    """Copy two vectors into a model's state; raises ValueError when their lengths do not fit it."""
    vectors: tuple[NDArray[np.generic], NDArray[np.generic]] = (flat.floats, flat.integers)
    for vector, tensors in zip(vectors, _split(model), strict=True):
        expected = sum(tensor.numel() for tensor in tensors)
        if vector.size != expected:
            raise ValueError(
                f"expected a model of {expected} values, got {vector.size}; the sites run another model configuration"
            )
        source, offset = torch.from_numpy(np.ascontiguousarray(vector)), 0
        for tensor in tensors:
            tensor.copy_(source[offset : offset + tensor.numel()].view(tensor.shape))
            offset += tensor.numel()


def layout_sha256(model: nn.Module) -> str:
    """Hash of the names, types and shapes that give the vectors their meaning."""
    layout = [(name, str(tensor.dtype), list(tensor.shape)) for name, tensor in model.state_dict().items()]
    return hashlib.sha256(json.dumps(layout).encode()).hexdigest()


def model_sha256(flat: FlatModel, layout: str) -> str:
    """Hash of a model: its layout's hash and its values, bit by bit."""
    digest = hashlib.sha256(layout.encode())
    digest.update(flat.floats.astype("<f4", copy=False).tobytes())
    digest.update(flat.integers.astype("<i8", copy=False).tobytes())
    return digest.hexdigest()


def to_arrays(flat: FlatModel) -> ArrayRecord:
    return ArrayRecord({"floats": Array(flat.floats), "integers": Array(flat.integers)})


def from_arrays(arrays: ArrayRecord) -> FlatModel:
    return FlatModel(arrays["floats"].numpy(), arrays["integers"].numpy())


def instruct(instructions: Instructions) -> ConfigRecord:
    return ConfigRecord({"instructions": json.dumps(asdict(instructions))})


def read_instructions(message: Message) -> Instructions:
    told: dict[str, Any] = json.loads(str(message.content.config_records[CONFIG]["instructions"]))
    told["model"], told["train"] = typed(ModelConfig, told["model"]), typed(TrainConfig, told["train"])
    return Instructions(**told)


def reply_with(message: Message, *, metrics: dict[str, float], model: FlatModel | None = None) -> Message:
    content = RecordDict({METRICS: MetricRecord(dict(metrics))})
    if model is not None:
        content[ARRAYS] = to_arrays(model)
    return Message(content, reply_to=message)


def reply_failure(message: Message, error: Exception) -> Message:
    """A site's own exception as a reply, with its traceback, the same in every engine."""
    text = "".join(traceback.format_exception(error))
    return Message(RecordDict({FAILURE: ConfigRecord({"error": describe(error), "traceback": text})}), reply_to=message)


def failure_of(message: Message) -> tuple[str, str] | None:
    """(one line, traceback) when the reply is a failure of the site or of what carried it, else None."""
    if message.has_error():
        reason = message.error.reason or "no reason given"
        return reason.splitlines()[0], reason
    failure = message.content.config_records.get(FAILURE)
    return (str(failure["error"]), str(failure["traceback"])) if failure is not None else None


def describe(error: Exception) -> str:
    return str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"


def num_bytes(content: RecordDict) -> int:
    """Bytes of the arrays a message carries, as serialised."""
    return sum(len(array.data) for record in content.array_records.values() for array in record.values())


def typed(config: type[T], values: dict[str, Any]) -> T:
    """A configuration record from JSON, where choices came as plain strings."""
    kinds = {field.name: field.type for field in fields(config)}  # type: ignore[arg-type]
    return config(
        **{name: kind(value) if isinstance(kind := kinds[name], EnumType) else value for name, value in values.items()}
    )


def _split(model: nn.Module) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    state = list(model.state_dict().values())
    return [tensor for tensor in state if tensor.is_floating_point()], [
        tensor for tensor in state if not tensor.is_floating_point()
    ]
