"""Make and read the messages between server and sites: a model as one float32 and one int64 vector, and small records beside it.

Only this module makes Flower's records and takes them apart. A message to a site holds `arrays` (the global model) and `config`
(the instructions). A reply holds `arrays` and `metrics`, or `failure` when the site raised. Instructions of the second stage also
name the features, the head and the blend; those of a network that stacks name the folds' runs and the network's shape.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from enum import EnumType
from typing import Any, TypedDict, TypeVar, get_origin

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
FEATURES, ENCODE = (
    f"{MessageType.EVALUATE}.features",
    f"{MessageType.EVALUATE}.encode",
)  # before the second stage's rounds
BLEND = f"{MessageType.EVALUATE}.blend"  # after the second stage's rounds
OUT_OF_FOLD = (
    f"{MessageType.EVALUATE}.out_of_fold"  # a fold's final model predicts the patients that its training left out
)
GROW, GROWN = f"{MessageType.TRAIN}.trees", f"{MessageType.EVALUATE}.trees"  # grow one more tree; validate all trees
TREE_COUNTS = f"{MessageType.EVALUATE}.tree_counts"  # COUNTS for a stacker of trees
RUN_ID = re.compile(r"[0-9a-f]{0,64}")
INTEGERS = "integers"
VERSION = "version"  # the version of the code, in the roll call
SECOND = "second"  # a vector beside the model, such as SCAFFOLD's control variate or its change


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceInstructions:
    """Instructions of the second stage: the encoder's features and the head over a series. All values are plain, because they travel as JSON."""

    encoder_id: str
    encoder_layout: str  # hash of the encoder's layout
    copies: int
    features: int  # numbers a slice
    head: HeadName
    width: int
    layers: int
    dropout: float
    weights: tuple[float, ...] = ()  # the head's weight in the final blend, by label; if empty the head is scored alone


def build_sequence_instructions(
    config: SequenceConfig, encoder_id: str, layout: str, features: int
) -> SequenceInstructions:
    """Make the instructions of a second stage whose encoder makes `features` numbers a slice."""
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
    """Return the shape of the head that the instructions describe."""
    return HeadShape(
        head=instructions.head,
        width=instructions.width,
        layers=instructions.layers,
        dropout=instructions.dropout,
        features=instructions.features,
        labels=len(task.labels),
    )


def to_views(instructions: SequenceInstructions, train: TrainConfig) -> Views:
    """Return the views that identify the features of the second stage."""
    return views_of(instructions.encoder_id, instructions.copies, train)


def head_training(config: Config) -> TrainConfig:
    """Return the training settings of a head over series: those of `sequence`, without sampling, mixup and other settings of slice models."""
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
    """Instructions for a network that stacks: the ids of the folds' runs and its shape. All values are plain, because they travel as JSON."""

    runs: tuple[str, ...]
    width: int
    layers: int
    dropout: float


def stack_shape(instructions: StackInstructions, task: Task) -> HeadShape:
    """Return the shape of the network that stacks: its one feature a slice is the logit that the folds' models give."""
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
    """The instructions to a site in one message, beside the model."""

    task: str
    model: RunModel
    train: TrainConfig
    strategy: StrategyConfig
    faults: FaultsConfig
    precision_up: Precision
    seed: int
    run_id: str  # a site keeps one memory for each run
    round: int
    learning_rate: float
    layout_sha256: str
    salt: str  # salts the hashes by which the server finds shared patients; new in every run
    group_key: str = "patient_id"  # the index column that is hashed; another one in a cohort that may leak
    accepted: dict[str, int] = field(default_factory=dict)  # by site: its last round that entered a model
    prior: tuple[float, ...] = ()  # by label: share of positive training slices over all sites
    target: tuple[float, ...] = ()  # by label: the prevalence to train for; if empty the prior
    kept: float = 1.0  # share of the slices without the union label that an epoch draws, the same at every site
    estimate: bool = False  # estimate BatchNorm's statistics instead of training
    min_count: int = 0  # no count from 1 to min_count - 1 leaves a site
    keep_all: bool = False  # sites keep their memory of every round, so that any round can be repeated
    sequence: SequenceInstructions | None = None  # in the second stage: the model is a head on an encoder's features
    stacking: StackingConfig | None = None  # where a stacking divides the training part into folds
    plugins: dict[str, str] = field(default_factory=dict)  # by package that provides strategy, model or task: version
    stack: StackInstructions | None = None  # the model is a network on the predictions of the folds' models


def to_arrays(
    flat: FlatModel,
    second: NDArray[np.float32] | None = None,
    precision: Precision = Precision.fp32,
    exact: NDArray[np.bool_] | None = None,
) -> ArrayRecord:
    """Encode a model, with its floats in `precision` except those at `exact` [N], and, where there is one, a second vector in float32."""
    arrays = {**encode(flat.floats, precision, exact), INTEGERS: pack(flat.integers)}
    return ArrayRecord(arrays if second is None else {**arrays, SECOND: pack(second)})


def from_arrays(arrays: ArrayRecord) -> FlatModel:
    """Decode the model of `to_arrays`. Raises KeyError or ValueError for other arrays."""
    return FlatModel(decode(arrays), unpack(arrays[INTEGERS]))


def instruct(instructions: Instructions) -> ConfigRecord:
    """Write instructions as Flower's record; those that are None, such as the second stage's in the first stage, are left out."""
    plain = {name: value for name, value in asdict(instructions).items() if value is not None}
    return ConfigRecord({"instructions": json.dumps(plain)})


def read_instructions(message: Message) -> Instructions:
    """Read the instructions in a message.

    Raises ValueError for a server of another version, whose instructions may mean something else here, and for a run id that is
    not hexadecimal: the site names a folder by it.
    """
    record = record_in(message.content, CONFIG, ConfigRecord)
    version = str(record.get(VERSION, code_version()))
    if version != code_version():
        raise ValueError(
            f"expected fl_rsna {version} as at the server, got {code_version()} here; install the same version everywhere"
        )
    said: dict[str, Any] = json.loads(str(record["instructions"]))
    check_run_id(said["run_id"])
    check_plugins(
        said.get("plugins", {}), strategy=said["strategy"]["name"], model=said["model"]["name"], task=said["task"]
    )
    said["strategy"] = parse_strategy(said["strategy"])
    for name, kind in RECORDS.items():
        said |= {name: parse_record(kind, said[name])} if said.get(name) is not None else {}
    said["precision_up"] = Precision(said["precision_up"])
    said["prior"], said["target"] = tuple(said["prior"]), tuple(said.get("target", ()))
    return Instructions(**said)


def check_plugins(asked: Mapping[str, str], *, strategy: str, model: str, task: str) -> None:
    """Refuse instructions whose strategy, model or task comes from a package that is not installed here in the version `asked` for.

    Raises ValueError.
    """
    here = versions_of({STRATEGY_GROUP: str(strategy), MODELS: str(model), TASKS: str(task)})
    if asked != here:
        theirs, ours = (
            " and ".join(f"{package} {version}" for package, version in found.items()) for found in (asked, here)
        )
        raise ValueError(
            f"expected {theirs or 'no other package than fl_rsna'} as at the server, got {ours or 'none'} here; install the same "
            "versions everywhere"
        )


def parse_strategy(said: dict[str, Any]) -> StrategyConfig:
    """Read the settings of the server's strategy from JSON; raises ValueError for a strategy that is not installed here."""
    name = str(said["name"])
    if name not in STRATEGIES:
        raise ValueError(f"expected a strategy that is installed here, got {name!r}; install what has it")
    found: StrategyConfig = parse_record(STRATEGIES[name].settings, said)
    return found


def check_run_id(name: object) -> str:
    """Return a run id as text; raises ValueError for one that is not hexadecimal and so could name another folder."""
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
    """Answer a message with metrics and, where there is one, a model and a second vector, encoded as `to_arrays` does."""
    content = RecordDict({METRICS: MetricRecord(dict(metrics))})
    if model is not None:
        content[ARRAYS] = to_arrays(model, second, precision, exact)
    return Message(content, reply_to=message)


def reply_failure(message: Message, failure: Failure, site: str = "") -> Message:
    """Answer a message with a site's failure, the same in every engine; `site` is the site's name, if it is known."""
    told = ConfigRecord({"error": failure.error, "traceback": failure.traceback, **({"site": site} if site else {})})
    return Message(RecordDict({FAILURE: told}), reply_to=message)


def failure_of(message: Message) -> tuple[str, str] | None:
    """Return one line and a traceback when the reply reports a failure of the site or of its delivery, else None."""
    if message.has_error():
        reason = message.error.reason or "no reason given"
        return reason.splitlines()[0], reason
    failure = message.content.get(FAILURE)
    return (str(failure["error"]), str(failure["traceback"])) if isinstance(failure, ConfigRecord) else None


class Phase(TypedDict):
    """The round and phase of a message, as the run's events name them; the round of the roll call is 0."""

    round: int
    phase: str


def phase_of(message: Message) -> Phase:
    """Return the round and the phase that a message to a site belongs to."""
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
    """Name the phase and the round of a message in words, for a site's log."""
    phase = phase_of(message)
    return f"{phase['phase']} of round {phase['round']}" if phase["round"] else phase["phase"]


def action_of(kind: str) -> str:
    """Return the action under which a ClientApp registers messages of this kind; Flower writes `<category>.<action>`."""
    return kind.partition(".")[2]


def record_in(content: RecordDict, name: str, kind: type[T]) -> T:
    """Return the record of that name; raises KeyError when there is none of that kind.

    Flower's views (`content.array_records` and the like) hold the content in a reference cycle: a model that was read
    through one stays in memory until the garbage collector happens to run, and a round's replies pile up.
    """
    record = content[name]
    if not isinstance(record, kind):
        raise KeyError(name)
    return record


def num_bytes(content: RecordDict) -> int:
    """Count the bytes of a message's content as Flower sends it: the data of its arrays, and the objects around them."""
    data, around = 0, RecordDict()
    for name, record in content.items():
        if isinstance(record, ArrayRecord):
            data += sum(len(array.data) for array in record.values())
            record = ArrayRecord({key: Array(a.dtype, a.shape, a.stype, b"") for key, a in record.items()})
        around[name] = record
    return data + _count_bytes(around)


def _count_bytes(item: Any) -> int:
    """Count the bytes of one of Flower's objects and of all objects in it, each of which is sent by itself."""
    return len(item.deflate()) + sum(_count_bytes(child) for child in (item.children or {}).values())


def parse_record(config: type[T], values: dict[str, Any]) -> T:
    """Make a configuration record from JSON, in which choices are plain strings and tuples are lists."""
    kinds = {item.name: item.type for item in fields(config)}  # type: ignore[arg-type]

    def read(kind: Any, value: Any) -> Any:
        return kind(value) if isinstance(kind, EnumType) else tuple(value) if get_origin(kind) is tuple else value

    return config(**{name: read(kinds[name], value) for name, value in values.items()})
