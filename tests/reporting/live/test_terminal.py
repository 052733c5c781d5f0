"""The terminal shows rounds and sites, a log gets a line a round, and text of others is never markup."""

import io
import json
from pathlib import Path

from logs import answer, played, roll_call, round_end, stamped, whole_run
from rich.console import Console

from fl_rsna.federation.site.heartbeat import FOLDER, Beat, keep_heartbeat
from fl_rsna.reporting.live.state import State, reduce_events
from fl_rsna.reporting.live.terminal import FEW, Display, rounds_view


def shown(state: State, beats: dict[str, Beat], width: int = 80) -> list[str]:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    console.print(rounds_view(state, beats, 1.0))
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined, no-any-return]


def test_a_few_sites_have_a_line_each_within_80_columns() -> None:
    state = reduce_events(State(), stamped([roll_call(), round_end(0), *played(1), *played(2)[:2]]))
    lines = shown(state, {"site-2": Beat(round=2, batch=17, batches=20)})
    assert any("round 2 of 3" in line and "training: 1 of 2 sites done" in line for line in lines)
    assert any(line.endswith("0:18 remaining") for line in lines)
    assert any("AUROC any (test site) 0.600 (round 0: 0.500)" in line for line in lines)
    (first,) = [line for line in lines if line.startswith("site-1")]
    (second,) = [line for line in lines if line.startswith("site-2")]
    assert "trained in 1.5 s" in first
    assert "17/20" in second
    assert max(map(len, lines)) <= 80


def test_many_sites_are_summed_up() -> None:
    state = reduce_events(State(), stamped([roll_call(100), round_end(0)]))
    state = reduce_events(state, stamped([{"event": "round_start", "round": 1, "sites": list(state.sites)}], 2))
    state = reduce_events(state, stamped([answer("site_failed", 1, "train", "site-5")], 3))
    lines = shown(state, {"site-9": Beat(round=1, batch=1, batches=2), "site-10": Beat(round=1, batch=1, batches=2)})
    assert "100 sites: 97 waiting, 2 training, 1 failed" in lines
    assert [line.split()[0] for line in lines if line.startswith("site-")] == ["site-9", "site-10"]
    assert len(shown(state, {f"site-{i}": Beat(round=1, batch=1, batches=2) for i in range(6, 99)})) < FEW + 6


def test_a_beat_of_an_earlier_round_is_not_shown() -> None:
    state = reduce_events(State(), stamped([roll_call(), round_end(0), *played(1), played(2)[0]]))
    assert not any("19/20" in line for line in shown(state, {"site-1": Beat(round=1, batch=19, batches=20)}))


def said(events: list[dict[str, object]], *, terminal: bool, run: Path | None = None) -> str:
    file = io.StringIO()
    console = Console(file=file, width=140, force_terminal=terminal, color_system=None)
    with Display(console, run) as display:
        display.step("drawing", 1, 2)
        for event in events:
            display.event(str(event["event"]), {key: value for key, value in event.items() if key != "event"})
            display.view()
        display.step("drawing", 2, 2)
    return file.getvalue()


def test_a_log_gets_a_line_a_round_and_nothing_is_drawn_over() -> None:
    text = said(whole_run(), terminal=False)
    assert "\x1b" not in text
    assert text.splitlines() == [
        "drawing: going on after 1 of 2",
        "roll call: 2 sites, 30 training slices",
        "round 0/3, AUROC any (test site) 0.500, 1.0 s",
        "round 1/3, train loss 1.000, validation loss 2.000, AUROC any (test site) 0.600, 10.0 s",
        "round 2: site-2 failed in train: ValueError: <b>no</b>",
        "round 2/3, train loss 0.500, validation loss 1.000, AUROC any (test site) 0.700, 10.0 s",
        "round 3/3, train loss 0.333, validation loss 0.667, AUROC any (test site) 0.800, 10.0 s",
        text.splitlines()[-1],
    ]
    assert text.splitlines()[-1].startswith("drawing: 2 done")


def test_brackets_in_an_error_stay_as_they_are() -> None:
    failure = {**answer("site_failed", 1, "train", "site-1"), "error": "KeyError: [red]x[/bold]"}
    assert "KeyError: [red]x[/bold]" in said([roll_call(), failure], terminal=False)


def test_a_terminal_sees_heartbeats_of_the_run_and_of_its_parts(tmp_path: Path) -> None:
    for folder, site in ((tmp_path, "site-1"), (tmp_path / "federated", "site-2")):
        (folder / "heartbeat").mkdir(parents=True)
        (folder / "heartbeat" / site).write_text(json.dumps({"round": 1, "batch": 3, "batches": 7}))
    console = Console(file=io.StringIO(), width=100, force_terminal=True, color_system=None)
    with Display(console, tmp_path) as display:
        for event in [roll_call(), round_end(0), played(1)[0]]:
            display.event(str(event["event"]), {key: value for key, value in event.items() if key != "event"})
        plain = Console(file=io.StringIO(), width=100)
        plain.print(display.view())
    assert plain.file.getvalue().count("3/7") == 2  # type: ignore[attr-defined]


def test_before_the_first_round_it_says_who_packs_how_much(tmp_path: Path) -> None:
    with keep_heartbeat(tmp_path / FOLDER, "test-site", 0, packing=True) as on_packed:
        on_packed(10, 300)
        for terminal in (False, True):
            file = io.StringIO()
            with Display(
                Console(file=file, width=100, force_terminal=terminal, color_system=None), tmp_path
            ) as display:
                display.say_packing()
            assert "packing images: test-site 10 of 300" in file.getvalue()
