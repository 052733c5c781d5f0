"""A model survives the trip as two vectors, bit by bit; a failure survives as a reply."""

import numpy as np
import pytest
from composed import strategy_config
from flwr.app import ConfigRecord, Message, MessageType, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from fl_rsna.federation.protocol.failures import Failure
from fl_rsna.federation.protocol.messages import (
    CONFIG,
    Instructions,
    failure_of,
    from_arrays,
    instruct,
    num_bytes,
    read_instructions,
    reply_failure,
    to_arrays,
)
from fl_rsna.learning.models.flat import FlatModel
from fl_rsna.settings.federation import FaultsConfig, Precision
from fl_rsna.settings.model import Norm, RunModel
from fl_rsna.settings.training import Device, TrainConfig


@pytest.fixture(autouse=True)
def identity() -> None:
    TaskIdentity.run_id, TaskIdentity.task_id, TaskIdentity.node_id = 1, 1, 1


def test_the_trip_through_records_keeps_every_bit() -> None:
    flat = FlatModel(np.array([0.1, -0.0, np.pi], np.float32), np.array([2**62], np.int64))
    record = to_arrays(flat)
    back = from_arrays(record)
    assert back.floats.tobytes() == flat.floats.tobytes()
    assert back.integers.tolist() == [2**62]
    assert num_bytes(RecordDict({"arrays": record})) > flat.floats.nbytes + flat.integers.nbytes


def test_instructions_come_back_as_they_were_sent() -> None:
    told = Instructions(
        task="ich",
        model=RunModel(norm=Norm.frozen),
        train=TrainConfig(device=Device.cpu),
        strategy=strategy_config("ditto"),
        faults=FaultsConfig(sites={"site-1": "nan@2"}),
        precision_up=Precision.int8,
        seed=3,
        run_id="0af3",
        round=2,
        learning_rate=0.5,
        layout_sha256="x",
        salt="s",
        accepted={"site-1": 1},
        prior=(0.5, 0.25),
    )
    message = Message(RecordDict({CONFIG: instruct(told)}), 5, MessageType.TRAIN)
    back = read_instructions(message)
    assert back == told
    assert back.model.norm is Norm.frozen
    assert back.train.device is Device.cpu


def test_a_failure_survives_as_a_reply() -> None:
    message = Message(RecordDict({CONFIG: ConfigRecord()}), 5, MessageType.TRAIN)
    failure = failure_of(reply_failure(message, Failure(error="KeyError: 'lost'", traceback="Traceback ...")))
    assert failure == ("KeyError: 'lost'", "Traceback ...")
    assert failure_of(Message(RecordDict(), reply_to=message)) is None


def test_a_run_id_that_is_a_path_is_refused() -> None:
    message = Message(
        RecordDict({CONFIG: ConfigRecord({"instructions": '{"run_id": "../elsewhere"}'})}), 5, MessageType.TRAIN
    )
    with pytest.raises(ValueError, match="expected a run id"):
        read_instructions(message)
