"""A model survives the trip as two vectors, bit by bit; a failure survives as a reply."""

import numpy as np
import pytest
import torch
from flwr.app import ConfigRecord, Message, MessageType, RecordDict
from flwr.supercore.task_identity import TaskIdentity
from torch import nn

from fl_rsna.config import Device, ModelConfig, Norm, TrainConfig
from fl_rsna.federation.messages import (
    CONFIG,
    FlatModel,
    Instructions,
    failure_of,
    flatten,
    from_arrays,
    instruct,
    layout_sha256,
    model_sha256,
    num_bytes,
    read_instructions,
    reply_failure,
    to_arrays,
    unflatten,
)


@pytest.fixture(autouse=True)
def identity() -> None:
    TaskIdentity.run_id, TaskIdentity.task_id, TaskIdentity.node_id = 1, 1, 1


def small() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))


def test_flatten_and_unflatten_are_inverse() -> None:
    one, two = small(), small()
    one[1].num_batches_tracked += 7
    flat = flatten(one)
    assert (flat.floats.dtype, flat.integers.tolist()) == (np.float32, [7])
    unflatten(flat, two)
    for name, value in one.state_dict().items():
        assert torch.equal(value, two.state_dict()[name])
        assert value.dtype == two.state_dict()[name].dtype


def test_the_trip_through_records_keeps_every_bit() -> None:
    flat = FlatModel(np.array([0.1, -0.0, np.pi], np.float32), np.array([2**62], np.int64))
    record = to_arrays(flat)
    back = from_arrays(record)
    assert back.floats.tobytes() == flat.floats.tobytes()
    assert back.integers.tolist() == [2**62]
    assert num_bytes(RecordDict({"arrays": record})) > flat.floats.nbytes + flat.integers.nbytes


def test_wrong_length_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a model of 28 values, got 3"):
        unflatten(FlatModel(np.zeros(3, np.float32), np.zeros(1, np.int64)), small())


def test_hashes_see_every_bit_and_every_shape() -> None:
    model = small()
    flat, layout = flatten(model), layout_sha256(model)
    nudged = FlatModel(flat.floats.copy(), flat.integers)
    nudged.floats[-1] = np.nextafter(nudged.floats[-1], np.float32(9))
    assert model_sha256(flat, layout) != model_sha256(nudged, layout)
    assert model_sha256(flat, layout) != model_sha256(flat, layout_sha256(nn.Conv2d(1, 2, 3)))
    assert layout == layout_sha256(small())


def test_instructions_come_back_as_they_were_sent() -> None:
    told = Instructions(
        task="ich",
        model=ModelConfig(norm=Norm.frozen),
        train=TrainConfig(device=Device.cpu),
        seed=3,
        round=2,
        learning_rate=0.5,
        layout_sha256="x",
        salt="s",
    )
    message = Message(RecordDict({CONFIG: instruct(told)}), 5, MessageType.TRAIN)
    back = read_instructions(message)
    assert back == told
    assert back.model.norm is Norm.frozen
    assert back.train.device is Device.cpu


def test_failures_keep_their_sentence_and_their_traceback() -> None:
    message = Message(RecordDict({CONFIG: ConfigRecord()}), 5, MessageType.TRAIN)
    try:
        raise KeyError("lost")
    except KeyError as error:
        failure = failure_of(reply_failure(message, error))
    assert failure is not None
    assert failure[0] == "KeyError: 'lost'"
    assert "Traceback" in failure[1]
    assert failure_of(Message(RecordDict(), reply_to=message)) is None
