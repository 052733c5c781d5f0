"""What travels between server and sites: a model as one float32 and one int64 vector, and the small records around it.

Flower's records are made and taken apart here only. A message to a site holds `arrays` (the global model) and
`config` (what to do); a reply holds `arrays` and `metrics`, or `failure` when the site raised. In the second stage the
instructions also say which features, which head and which blend; for a network that stacks, whose predictions and which shape.
"""

import json
import re
from dataclasses import asdict, dataclass, field, fields, replace
from enum import EnumType
from typing import Any, TypeVar, get_origin

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from numpy.typing import NDArray

from fl_rsna.common.plugins import MODELS, TASKS, versions_of
from fl_rsna.common.plugins import STRATEGIES as STRATEGY_GROUP
from fl_rsna.federation.protocol.codec import decode, encode, pack, unpack
from fl_rsna.federation.protocol.failures import Failure
from fl_rsna.learning.inference.features import Views, views_of
from fl_rsna.learning.models.flat import FlatModel
from fl_rsna.learning.models.series_head import HeadShape
from fl_rsna.settings.config import Config
from fl_rsna.settings.federation import FaultsConfig, Precision
from fl_rsna.settings.model import RunModel, Trainable
from fl_rsna.settings.stages import HeadName, SequenceConfig, StackingConfig
from fl_rsna.settings.strategy import StrategyConfig
from fl_rsna.settings.training import Sampling, TrainConfig
from fl_rsna.strategies.find import STRATEGIES
from fl_rsna.task import Task
from fl_rsna.version import code_version

T = TypeVar("T")
ARRAYS, CONFIG, METRICS, FAILURE, SITE, SCORE = "arrays", "config", "metrics", "failure", "site", "score"
COUNTS, SCORECARD = f"{MessageType.EVALUATE}.counts", f"{MessageType.EVALUATE}.scorecard"  # of the final model
FEATURES, ENCODE = f"{MessageType.EVALUATE}.features", f"{MessageType.EVALUATE}.encode"  # of the second stage, before
BLEND = f"{MessageType.EVALUATE}.blend"  # and after its rounds
OUT_OF_FOLD = f"{MessageType.EVALUATE}.out_of_fold"  # of a fold's final model, on the patients it never saw
GROW, GROWN = f"{MessageType.TRAIN}.trees", f"{MessageType.EVALUATE}.trees"  # one more tree; validation of all
TREE_COUNTS = f"{MessageType.EVALUATE}.tree_counts"  # as COUNTS
RUN_ID = re.compile(r"[0-9a-f]{0,64}")
INTEGERS = "integers"
VERSION = "version"  # of the code, at the roll call
SECOND = "second"  # a vector beside the model: SCAFFOLD's control variate, or its change


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceInstructions:
    """Plain values, for they travel as JSON."""

    encoder_id: str
    encoder_layout: str  # hash of the encoder's layout
    copies: int
    features: int  # numbers a slice
    head: HeadName
    width: int
    layers: int
    dropout: float
    weights: tuple[float, ...] = ()  # of the head in the final blend, a label; without them it is scored alone


def build_sequence_instructions(
    config: SequenceConfig, encoder_id: str, layout: str, features: int
) -> SequenceInstructions:
    return SequenceInstructions(
        encoder_id=encoder_id,
        encoder_layout=layout,
        copies=config.copies,
        features=features,
        head=config.head,
        width=config.width,
        layers=config.layers,
        dropout=config.dropout,
    )


def shape_of(instructions: SequenceInstructions, task: Task) -> HeadShape:
    return HeadShape(
        head=instructions.head,
        width=instructions.width,
        layers=instructions.layers,
        dropout=instructions.dropout,
        features=instructions.features,
        labels=len(task.labels),
    )


def to_views(instructions: SequenceInstructions, train: TrainConfig) -> Views:
    """The features a site has, or is to make."""
    return views_of(instructions.encoder_id, instructions.copies, train)


def head_training(config: Config) -> TrainConfig:
    """How a head over series trains: as `sequence` says, without what only a slice model's training has."""
    own = config.sequence
    return replace(
        config.train,
        trainable=Trainable.all,
        local_epochs=own.local_epochs,
        local_steps=None,
        batch_size=own.batch_size,
        sampling=Sampling.all,
        mixup=0.0,
        layer_decay=1.0,
        learning_rate=own.learning_rate,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class StackInstructions:
    """Plain values, for they travel as JSON."""

    runs: tuple[str, ...]  # of the folds
    width: int
    layers: int
    dropout: float


def stack_shape(instructions: StackInstructions, task: Task) -> HeadShape:
    return HeadShape(
        head=HeadName.cnn,
        width=instructions.width,
        layers=instructions.layers,
        dropout=instructions.dropout,
        features=1,
        labels=len(task.labels),
    )


RECORDS: dict[str, type[Any]] = {
    "model": RunModel,
    "train": TrainConfig,
    "faults": FaultsConfig,
    "sequence": SequenceInstructions,
    "stacking": StackingConfig,
    "stack": StackInstructions,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Instructions:
    """All a site is told besides the model."""

    task: str
    model: RunModel
    train: TrainConfig
    strategy: StrategyConfig
    faults: FaultsConfig
    precision_up: Precision
    seed: int
    run_id: str  # what a site remembers belongs to one run
    round: int
    learning_rate: float
    layout_sha256: str
    salt: str  # of the hashes that let the server see shared patients; new in every run
    group_key: str = "patient_id"  # the index column they are of; another one in a cohort that was asked to leak
    accepted: dict[str, int] = field(default_factory=dict)  # a site's last round that entered a model
    prior: tuple[float, ...] = ()  # share of positive training slices of all sites, a label
    target: tuple[float, ...] = ()  # the prevalence to train for, a label; empty: the prior
    kept: float = 1.0  # share of the slices without the union label that a pass draws, the same at every site
    estimate: bool = False  # BatchNorm's statistics anew, instead of training
    min_count: int = 0  # no smaller count, but 0, leaves a site
    keep_all: bool = False  # sites keep what they remember of every round, so that any can be repeated
    sequence: SequenceInstructions | None = None  # of the second stage: the model is a head on an encoder's features
    stacking: StackingConfig | None = None  # where a fold of the training part is left out, or was
    plugins: dict[str, str] = field(default_factory=dict)  # version by package that the strategy comes from
    stack: StackInstructions | None = None  # the model is a network on what the folds' models say of slices


def to_arrays(
    flat: FlatModel,
    second: NDArray[np.float32] | None = None,
    precision: Precision = Precision.fp32,
    exact: NDArray[np.bool_] | None = None,
) -> ArrayRecord:
    """A model, its floats in `precision` but for those at `exact`, and perhaps a second vector, always in float32."""
    arrays = {**encode(flat.floats, precision, exact), INTEGERS: pack(flat.integers)}
    return ArrayRecord(arrays if second is None else {**arrays, SECOND: pack(second)})


def from_arrays(arrays: ArrayRecord) -> FlatModel:
    return FlatModel(decode(arrays), unpack(arrays[INTEGERS]))


def instruct(instructions: Instructions) -> ConfigRecord:
    """What is only of the second stage is not said in the first."""
    plain = {name: value for name, value in asdict(instructions).items() if value is not None}
    return ConfigRecord({"instructions": json.dumps(plain)})


def read_instructions(message: Message) -> Instructions:
    """Raises ValueError for a server of another version, which may say what is not known here, and for a run id that could name

    another folder: at the site it names one.
    """
    record = record_in(message.content, CONFIG, ConfigRecord)
    version = str(record.get(VERSION, code_version()))
    if version != code_version():
        raise ValueError(
            f"expected fl_rsna {version} as at the server, got {code_version()} here; install the same version everywhere"
        )
    said: dict[str, Any] = json.loads(str(record["instructions"]))
    check_run_id(said["run_id"])
    check_plugins(said)
    said["strategy"] = parse_strategy(said["strategy"])
    for name, kind in RECORDS.items():
        said |= {name: parse_record(kind, said[name])} if said.get(name) is not None else {}
    said["precision_up"] = Precision(said["precision_up"])
    said["prior"], said["target"] = tuple(said["prior"]), tuple(said.get("target", ()))
    return Instructions(**said)


def check_plugins(said: dict[str, Any]) -> None:
    """Refuse instructions that rest on a package which is not installed here, or in another version; raises ValueError."""
    named = {STRATEGY_GROUP: said["strategy"]["name"], MODELS: said["model"]["name"], TASKS: said["task"]}
    asked, here = said.get("plugins", {}), versions_of({group: str(name) for group, name in named.items()})
    if asked != here:
        theirs, ours = (
            " and ".join(f"{package} {version}" for package, version in found.items()) for found in (asked, here)
        )
        raise ValueError(
            f"expected {theirs or 'no other package than fl_rsna'} as at the server, got {ours or 'none'} here; install the same "
            "versions everywhere"
        )


def parse_strategy(said: dict[str, Any]) -> StrategyConfig:
    """The settings of the server's strategy; raises ValueError for one that is not known here."""
    name = str(said["name"])
    if name not in STRATEGIES:
        raise ValueError(f"expected a strategy that is installed here, got {name!r}; install what has it")
    found: StrategyConfig = parse_record(STRATEGIES[name].settings, said)
    return found


def check_run_id(name: object) -> str:
    """A run id as it is sent; raises ValueError for one that could name another folder."""
    if not RUN_ID.fullmatch(str(name)):
        raise ValueError(f"expected a run id of hexadecimal digits, got {name!r}; the server is not one of ours")
    return str(name)


def reply_with(
    message: Message,
    *,
    metrics: dict[str, float],
    model: FlatModel | None = None,
    second: NDArray[np.float32] | None = None,
    precision: Precision = Precision.fp32,
    exact: NDArray[np.bool_] | None = None,
) -> Message:
    content = RecordDict({METRICS: MetricRecord(dict(metrics))})
    if model is not None:
        content[ARRAYS] = to_arrays(model, second, precision, exact)
    return Message(content, reply_to=message)


def reply_failure(message: Message, failure: Failure, site: str = "") -> Message:
    """A site's own exception as a reply, the same in every engine; federation/protocol/failures.py says what of it may leave.

    `site` is its name, as far as it knows it.
    """
    told = ConfigRecord({"error": failure.error, "traceback": failure.traceback, **({"site": site} if site else {})})
    return Message(RecordDict({FAILURE: told}), reply_to=message)


def failure_of(message: Message) -> tuple[str, str] | None:
    """(one line, traceback) when the reply is a failure of the site or of what carried it, else None."""
    if message.has_error():
        reason = message.error.reason or "no reason given"
        return reason.splitlines()[0], reason
    failure = message.content.get(FAILURE)
    return (str(failure["error"]), str(failure["traceback"])) if isinstance(failure, ConfigRecord) else None


def phase_of(message: Message) -> dict[str, Any]:
    """The round and phase a message to a site belongs to, as the run's events name them; the roll call has no round."""
    group, kind = message.metadata.group_id, message.metadata.message_type
    phase = {
        MessageType.QUERY: "roll call",
        MessageType.EVALUATE: "validation",
        COUNTS: "operating points",
        SCORECARD: "scorecard",
        FEATURES: "features",
        ENCODE: "encoding",
        BLEND: "blend",
        OUT_OF_FOLD: "out of fold",
        GROW: "trees",
        GROWN: "validation",
        TREE_COUNTS: "operating points",
    }.get(kind, kind)
    return {"round": int(group) if group else 0, "phase": phase}


def describe_phase(message: Message) -> str:
    """The same in words, for a site's log."""
    phase = phase_of(message)
    return f"{phase['phase']} of round {phase['round']}" if phase["round"] else str(phase["phase"])


def action_of(kind: str) -> str:
    """What a ClientApp registers for messages of this kind: Flower writes `<category>.<action>`."""
    return kind.partition(".")[2]


def record_in(content: RecordDict, name: str, kind: type[T]) -> T:
    """The record of that name; raises KeyError when there is none of that kind.

    Flower's views (`content.array_records` and the like) hold the content in a reference cycle: a model that was read
    through one stays in memory until the garbage collector happens to run, and a round's replies pile up.
    """
    record = content[name]
    if not isinstance(record, kind):
        raise KeyError(name)
    return record


def num_bytes(content: RecordDict) -> int:
    """Bytes of a message's content as Flower ships it: its arrays' data, and the objects around them as it writes them."""
    data, around = 0, RecordDict()
    for name, record in content.items():
        if isinstance(record, ArrayRecord):
            data += sum(len(array.data) for array in record.values())
            record = ArrayRecord({key: Array(a.dtype, a.shape, a.stype, b"") for key, a in record.items()})
        around[name] = record
    return data + _count_bytes(around)


def _count_bytes(item: Any) -> int:
    """Bytes of one of Flower's objects and of all it holds, each of which travels by itself."""
    return len(item.deflate()) + sum(_count_bytes(child) for child in (item.children or {}).values())


def parse_record(config: type[T], values: dict[str, Any]) -> T:
    """A configuration record from JSON, where choices came as plain strings and tuples as lists."""
    kinds = {item.name: item.type for item in fields(config)}  # type: ignore[arg-type]

    def read(kind: Any, value: Any) -> Any:
        return kind(value) if isinstance(kind, EnumType) else tuple(value) if get_origin(kind) is tuple else value

    return config(**{name: read(kinds[name], value) for name, value in values.items()})
