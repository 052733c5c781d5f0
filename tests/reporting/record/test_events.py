"""A growing log gives every event once, whole, whatever a kill did to its last line."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from logs import resumed_run, whole_run, write_log

from fl_rsna.common.reading import FORMAT, FORMAT_VERSION, HASH, dump_checked_line
from fl_rsna.reporting.live.server import Seen, page
from fl_rsna.reporting.live.state import State, reduce_events
from fl_rsna.reporting.record import events as event_log
from fl_rsna.reporting.record.events import EventLog, drop_stale_events, read_log, sentence
from fl_rsna.reporting.trackers.points import points
from fl_rsna.run_folder.run_folder import RunFolder


@pytest.mark.parametrize("at_once", [7, 100, 10**6])
@pytest.mark.parametrize("step", [1, 13, 100_000])
def test_every_event_comes_once_however_the_file_grows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int, at_once: int
) -> None:
    monkeypatch.setattr(event_log, "AT_ONCE", at_once)
    events = whole_run()[:6]
    content = "".join(json.dumps(event) + "\n" for event in events).encode()
    path, found = tmp_path / "events.jsonl", []
    log = EventLog(path)
    assert log.new() == []  # not there yet
    for start in range(0, len(content), step):
        with path.open("ab") as file:
            file.write(content[start : start + step])
        while events_now := log.new():
            found += events_now
    assert found == events


def test_a_torn_line_is_left_out_and_the_event_behind_it_is_not(tmp_path: Path) -> None:
    first, second, third = whole_run()[:3]
    lines = [json.dumps(event) for event in (first, second, third)]
    path = tmp_path / "events.jsonl"
    path.write_text(f"{lines[0]}\n{lines[1][:40]}")
    log = EventLog(path)
    assert log.new() == [first]
    with path.open("a") as file:  # the run goes on
        file.write(f"{lines[2]}\n[1]\n\nnothing\n")
    assert log.new() == [third]


def test_lines_that_are_no_events_are_counted_and_the_others_come(tmp_path: Path) -> None:
    path, events = tmp_path / "events.jsonl", whole_run()[:4]
    lines = [dump_checked_line(event).encode() for event in events]
    lines[1] = lines[1].replace(b"round", b"rounb", 1)
    strange = [b"17\n", b"null\n", b'{"event": 3}\n', b'{"time": "2020"}\n', b"\xff\xfe\n", b"[" * 10_000 + b"\n"]
    path.write_bytes(b"".join([*lines, *strange, lines[2][:30]]))
    found, damaged = read_log(path)
    assert found == [events[0], events[2], events[3]]
    assert damaged == 1 + len(strange)


def test_a_display_survives_events_that_lack_something() -> None:
    for number, event in enumerate(whole_run()):
        for name in set(event) - {"event", "time"}:
            lacking = {key: value for key, value in event.items() if key != name}
            assert reduce_events(State(), [*whole_run()[:number], lacking, *whole_run()[number + 1 :]]).tail
    seen = Seen(
        name="r", state=reduce_events(State(), whole_run()), beats={}, silent_s=0.0, part="", parts=(), damaged=2
    )
    assert "2 of its lines cannot be read" in page(seen)


def test_another_file_under_the_name_is_read_from_its_beginning(tmp_path: Path) -> None:
    path = write_log(tmp_path, whole_run())
    log = EventLog(path)
    assert len(log.new()) == len(whole_run())
    assert not log.replaced
    path.unlink()
    write_log(tmp_path, whole_run()[:2])
    assert log.new() == whole_run()[:2]
    assert log.replaced


def test_kept_events_of_a_resumed_run_are_those_of_one_never_killed() -> None:
    def content(events: list[dict[str, object]]) -> list[dict[str, object]]:
        return [
            {key: value for key, value in event.items() if key != "time"}
            for event in events
            if event["event"] not in ("roll_call", "resumed")
        ]

    assert content(drop_stale_events(resumed_run())) == content(whole_run())


def longer(events: list[dict[str, object]]) -> list[dict[str, object]]:
    """The events of another run of the same kind, an hour later and with longer lines."""
    return [{**event, "time": str(event["time"]).replace("T00", "T01"), "also": "x" * 500} for event in events]


def test_a_file_that_grew_over_the_old_one_is_known_by_its_content(tmp_path: Path) -> None:
    """The system may give a new file the number of the one that was deleted: overwritten in place, it always has it."""
    path = write_log(tmp_path, whole_run()[:5])
    log = EventLog(path)
    assert log.new() == whole_run()[:5]
    number = path.stat().st_ino
    write_log(tmp_path, longer(whole_run()))
    assert path.stat().st_ino == number
    assert log.new() == longer(whole_run())
    assert (log.replaced, log.begun) == (True, 1)
    assert log.new() == []
    assert not log.replaced


def test_a_run_begun_alike_and_gone_on_otherwise_is_another_one(tmp_path: Path) -> None:
    """A copy that was resumed elsewhere: the same first events, then its own."""
    events = whole_run()
    log = EventLog(write_log(tmp_path, events[:8]))
    log.new()
    other = [*events[:4], *longer(events[4:])]
    write_log(tmp_path, other)
    assert log.new() == other


def test_a_copy_of_what_was_read_goes_on_where_it_was(tmp_path: Path) -> None:
    events = whole_run()
    path = write_log(tmp_path / "run", events[:4])
    log = EventLog(path)
    log.new()
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    shutil.rmtree(tmp_path / "run")
    (tmp_path / "copy").rename(tmp_path / "run")
    with path.open("a") as file:
        file.write(json.dumps(events[4]) + "\n")
    assert log.new() == [events[4]]


@pytest.mark.parametrize(
    "error", [PermissionError(13, "Permission denied"), OSError(116, "Stale file handle"), OSError(5, "I/O")]
)
def test_a_disk_that_fails_for_a_moment_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    log = EventLog(write_log(tmp_path, whole_run()[:4]))
    log.new()
    with monkeypatch.context() as broken:
        broken.setattr(Path, "open", lambda *words, **more: (_ for _ in ()).throw(error))
        assert log.new() == []
        assert log.trouble == f"events.jsonl cannot be read: {error.strerror}"
    write_log(tmp_path, whole_run()[:5])
    assert log.new() == whole_run()[4:5]
    assert (log.trouble, log.begun) == (None, 0)


def test_a_folder_or_a_file_in_the_place_is_trouble_and_no_end(tmp_path: Path) -> None:
    path = write_log(tmp_path / "run", whole_run()[:4])
    log = EventLog(path)
    log.new()
    path.unlink()
    path.mkdir()
    assert log.new() == []
    assert "cannot be read" in str(log.trouble)
    shutil.rmtree(tmp_path / "run")
    (tmp_path / "run").write_text("a file")
    assert log.new() == []
    assert "cannot be read" in str(log.trouble)
    (tmp_path / "run").unlink()
    write_log(tmp_path / "run", whole_run()[:3])
    assert log.new() == whole_run()[:3]


@pytest.mark.parametrize("cut", range(1, 5))
def test_a_sign_of_several_bytes_may_be_half_written(tmp_path: Path, cut: int) -> None:
    line = json.dumps({"time": "", "event": "warning", "text": "Charité, 東京"}, ensure_ascii=False).encode()
    (tmp_path / "events.jsonl").write_bytes(line[:-cut])
    log = EventLog(tmp_path / "events.jsonl")
    assert log.new() == []
    (tmp_path / "events.jsonl").write_bytes(
        line + b"\n" + b'{"time": "", "event": "\xe6\x9d"}\n[' + b"[" * 100_000 + b"\n"
    )
    assert [event["text"] for event in log.new()] == ["Charité, 東京"]


def test_what_a_run_writes_is_json_that_anybody_reads_and_can_be_said(tmp_path: Path) -> None:
    """A number that is none or infinite, at any depth, is null: in the log, for listeners, and in summary.json."""
    heard: list[dict[str, Any]] = []
    run = RunFolder(tmp_path, (lambda kind, fields: heard.append({"event": kind, **fields}),))
    metrics = {"loss": float("nan"), "seconds": 1.0, "auroc/any": [float("inf"), 0.5]}
    run.event("site_done", round=1, phase="train", site="site-1", metrics=metrics)
    run.write_json("summary.json", {"virtual_s": float("inf"), "parts": ({"usd": -float("inf")},)})

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    (event,) = (
        json.loads(line, parse_constant=refuse) for line in (tmp_path / "events.jsonl").read_text().splitlines()
    )
    assert event["metrics"] == {"loss": None, "seconds": 1.0, "auroc/any": [None, 0.5]}
    assert heard[0]["metrics"] == event["metrics"]
    summary = json.loads((tmp_path / "summary.json").read_text(), parse_constant=refuse)
    assert summary == {"virtual_s": None, "parts": [{"usd": None}], FORMAT_VERSION: FORMAT, HASH: summary[HASH]}
    assert sentence(event).endswith("1.0 s")
    assert points(event) == {"site_train/site-1/seconds": 1.0}
