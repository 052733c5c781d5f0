"""A site that goes away under a message is asked again when it is back, or left out, as the run says."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import ClassVar

import pytest
from flwr.app import Context, Error, Message, MessageType, RecordDict
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode
from tiny import tiny_cohort, tiny_config

from fl_rsna.cohort.sites.site_folders import Cohort
from fl_rsna.federation.engines.local import FIRST_NODE_ID, LocalGrid, identify
from fl_rsna.federation.server.ask import BelowQuorum
from fl_rsna.federation.server_app import make_server_app
from fl_rsna.federation.site.client_app import app_for_cohort
from fl_rsna.reporting.record.events import sentence
from fl_rsna.run_folder.run_folder import RunFolder, start_run
from fl_rsna.settings.config import Config
from fl_rsna.settings.runtime import EngineName
from fl_rsna.settings.strategy import Lost


class Unsteady(LocalGrid):
    """The second node goes away under its first message of every kind, and is gone from the list for a while."""

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        self.kinds, self.looks = Counter[str](), 0

    def get_node_ids(self) -> Iterable[int]:
        self.looks += 1
        return [node for node in super().get_node_ids() if node != FIRST_NODE_ID + 1 or self.looks % 3]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterator[Message]:
        messages = list(messages)
        for message in messages:
            kind, here = message.metadata.message_type, message.metadata.dst_node_id == FIRST_NODE_ID + 1
            self.kinds[kind] += here
            if here and self.kinds[kind] == 1:
                message.metadata.__dict__["_message_id"] = "lost"
                reply = Message(Error(ErrorCode.NODE_UNAVAILABLE, "Node Unavailable"), reply_to=message)
                reply.metadata.__dict__["_src_node_id"] = SUPERLINK_NODE_ID  # which says so in the node's place
                yield reply
            else:
                yield from super().send_and_receive([message], timeout=timeout)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits between two looks at who is there."""
    monkeypatch.setattr("fl_rsna.federation.protocol.delivery.POLL_S", 0.0)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    return tiny_cohort(tmp_path_factory.mktemp("small"), patients=9, slices=3)


def summary_of(cohort: Cohort, folder: Path, config: Config, grid: type[LocalGrid]) -> dict[str, object]:
    server = make_server_app(lambda context: (config, cohort, start_run(folder, config, cohort, "cpu", ())))
    client = partial(app_for_cohort, cohort.folder, folder / "site_memory")
    identify()
    server(grid(client, len(cohort.sites), 0), Context(1, 1, {}, RecordDict(), {}))
    found: dict[str, object] = RunFolder(folder).read_json("summary.json")
    return found


def test_one_that_waits_gives_the_model_of_an_undisturbed_run(small: Cohort, tmp_path: Path) -> None:
    calm = summary_of(small, tmp_path / "calm", tiny_config(rounds=2), LocalGrid)
    waited = summary_of(small, tmp_path / "waited", tiny_config(rounds=2, strategy__lost=Lost.wait), Unsteady)
    assert waited["model_sha256"] == calm["model_sha256"]
    assert waited["site_failures"] == 0


def test_one_that_goes_on_names_the_site_and_has_another_model(small: Cohort, tmp_path: Path) -> None:
    calm = summary_of(small, tmp_path / "calm", tiny_config(rounds=2), LocalGrid)
    went_on = summary_of(small, tmp_path / "on", tiny_config(rounds=2), Unsteady)
    assert went_on["model_sha256"] != calm["model_sha256"]
    lines = [json.loads(line) for line in (tmp_path / "on" / "events.jsonl").read_text().splitlines()]
    failed = [(line["site"], line["phase"], line["round"]) for line in lines if line["event"] == "site_failed"]
    assert failed == [("site-2", "train", 1), ("site-2", "validation", 1), ("site-2", "operating points", 3)]


def test_too_few_are_too_few(small: Cohort, tmp_path: Path) -> None:
    with pytest.raises(BelowQuorum, match=r"site-2: Node Unavailable"):
        summary_of(small, tmp_path / "run", tiny_config(rounds=2, strategy__quorum=1.0), Unsteady)


class Clocked(LocalGrid):
    """Remembers for how long messages of every kind are waited for and kept."""

    waited: ClassVar[dict[str, set[float | None]]] = {}
    kept: ClassVar[set[float]] = set()

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterator[Message]:
        messages = list(messages)
        for message in messages:
            self.waited.setdefault(message.metadata.message_type, set()).add(timeout)
            self.kept.add(message.metadata.ttl)
        yield from super().send_and_receive(messages, timeout=timeout)


@pytest.fixture
def clocked(monkeypatch: pytest.MonkeyPatch) -> type[Clocked]:
    monkeypatch.setattr(Clocked, "waited", {})
    monkeypatch.setattr(Clocked, "kept", set())
    return Clocked


def test_no_phase_of_a_simulation_has_a_limit(small: Cohort, tmp_path: Path, clocked: type[Clocked]) -> None:
    summary_of(small, tmp_path / "run", tiny_config(rounds=1, strategy__timeout_s=1e-9), clocked)
    assert set().union(*clocked.waited.values()) == {None}
    assert min(clocked.kept) > 365 * 86400  # nor does Flower drop a message that is a day old


def test_between_machines_the_first_message_has_a_longer_limit(
    small: Cohort, tmp_path: Path, clocked: type[Clocked]
) -> None:
    config = tiny_config(rounds=1, strategy__timeout_s=1e4, deploy__first_timeout_s=1e9)
    config.engine.name = EngineName.deployment
    summary_of(small, tmp_path / "run", config, clocked)
    for kind, limits in clocked.waited.items():
        least, most = (1e4, 1e9) if kind == MessageType.QUERY else (0.0, 1e4)
        assert all(limit is not None and least < limit <= most for limit in limits), kind
    lines = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    answered = [line for line in lines if line["event"] == "answered"]
    assert [(line["sites"], line["expected"]) for line in answered] == [(1, 3), (2, 3)]
    assert sentence(answered[0]) == "roll call: 1 of 3 sites answered, the others pack their images"


class Gone(LocalGrid):
    """The second node is in no list after the first look, and cannot be asked."""

    looks = 0

    def get_node_ids(self) -> Iterable[int]:
        self.looks += 1
        return [node for node in super().get_node_ids() if node != FIRST_NODE_ID + 1 or self.looks == 1]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterator[Message]:
        for message in messages:
            if message.metadata.dst_node_id == FIRST_NODE_ID + 1:
                message.metadata.__dict__["_message_id"] = "lost"
                yield Message(Error(ErrorCode.NODE_UNAVAILABLE, "Node Unavailable"), reply_to=message)
            else:
                yield from super().send_and_receive([message], timeout=timeout)


def test_one_that_goes_away_during_the_roll_call_is_not_waited_for_as_one_that_packs(
    small: Cohort, tmp_path: Path
) -> None:
    config = tiny_config(rounds=1, strategy__timeout_s=1e-9, deploy__first_timeout_s=1e9)
    config.engine.name = EngineName.deployment
    with pytest.raises(ValueError, match=r"node 1001 cannot take part: Node Unavailable"):
        summary_of(small, tmp_path / "run", config, Gone)
