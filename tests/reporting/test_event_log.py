"""A growing log gives every event once, whole, whatever a kill did to its last line."""

import json
from pathlib import Path

import pytest
from logs import resumed_run, whole_run, write_log

from fl_rsna.reporting import event_log
from fl_rsna.reporting.event_log import EventLog, kept


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

    assert content(kept(resumed_run())) == content(whole_run())
