"""Any beginning of a log is a valid state; a resumed run looks like one never killed; a failure counts once."""

import json
from dataclasses import replace

import pytest
from logs import answer, played, resumed_run, roll_call, round_end, stamped, whole_run
from rich.console import Console

from fl_rsna.federation.site.heartbeat import Beat
from fl_rsna.reporting.live.server import Seen, page, sections
from fl_rsna.reporting.live.state import (
    Doing,
    State,
    Status,
    by_number,
    clock,
    describe_time_left,
    is_stalled,
    phase_of,
    reduce_events,
    seconds_left,
)
from fl_rsna.reporting.live.terminal import rounds_view


def seen(state: State, silent_s: float = 0.0, beats: dict[str, Beat] | None = None) -> Seen:
    return Seen(name="a <run>", state=state, beats=beats or {}, silent_s=silent_s, part="", parts=("",))


@pytest.mark.parametrize("events", [whole_run(), resumed_run()], ids=["whole", "resumed"])
def test_any_beginning_is_a_state_that_can_be_shown(events: list[dict[str, object]]) -> None:
    for count in range(len(events) + 1):
        state = reduce_events(State(), events[:count])
        assert state == reduce_events(reduce_events(State(), events[: count // 2]), events[count // 2 : count])
        assert 0 <= state.round <= state.rounds
        assert [row["round"] for row in state.curve] == list(range(len(state.curve)))
        assert state.status is (
            Status.waiting if count == 0 else Status.finished if count == len(events) else Status.running
        )
        left = seconds_left(state, 0.0)
        assert left is None or 0 <= left[0] <= left[1]
        assert "<b>no</b>" not in page(seen(state))
        assert rounds_view(state, {}, 0.0) is not None
        assert phase_of(state)


def test_a_resumed_run_ends_as_one_never_killed() -> None:
    whole, resumed = reduce_events(State(), whole_run()), reduce_events(State(), resumed_run())
    for name in ("status", "round", "rounds", "sites", "failures", "headline"):
        assert getattr(whole, name) == getattr(resumed, name), name
    timeless = [[{**row, "time": ""} for row in state.curve] for state in (whole, resumed)]
    assert timeless[0] == timeless[1]
    assert (whole.resumed, resumed.resumed) == ((), (1,))
    assert [(failure.round, failure.site) for failure in resumed.failures] == [(2, "site-2")]


def test_a_run_of_classes_is_shown_by_their_mean_and_in_its_own_words() -> None:
    """The roll call names the task: its images are no slices; what a round is judged by is no label."""
    asked, scored = (
        {"event": "round_start", "round": 1, "sites": ["site-1"]},
        answer("site_done", 1, "validation", "site-1"),
    )
    scored["metrics"]["auroc/macro"] = 0.875
    ended = {**round_end(1), "headline": "macro", "validation_auroc_macro": 0.75, "test_auroc_macro": 0.625}
    before = {**round_end(0), "headline": "macro", "validation_auroc_macro": None, "test_auroc_macro": 0.5}
    state = reduce_events(State(), stamped([roll_call(task="covid_cxr"), before, asked, scored, ended]))
    assert state.sites["site-1"].validation[-1].auroc == 0.875
    assert [said.text for said in state.tail if said.kind == "roll_call"] == ["roll call: 2 sites, 30 training images"]
    assert state.tail[-1].text.endswith("macro AUROC (test site) 0.625, 10.0 s")
    found = sections(seen(state))
    assert "<th>images</th>" in found["sites"]
    assert "slices" not in found["sites"]
    assert "<th>macro AUROC</th>" in found["sites"]
    assert "macro AUROC (test site" in found["head"]
    console = Console(width=120)
    with console.capture() as drawn:
        console.print(rounds_view(state, {}, 0.0))
    assert "macro AUROC (test site) 0.625 (round 0: 0.500)" in drawn.get()


def test_a_run_that_begins_anew_forgets_what_was_before() -> None:
    begun = [roll_call(), round_end(0), *played(1, failing="site-1")]
    assert reduce_events(State(), stamped([*begun, roll_call(), round_end(0)])).failures == ()
    assert reduce_events(State(), stamped([*begun, roll_call(), round_end(0)])).sites["site-2"].train == ()


def test_sites_are_where_their_last_event_left_them() -> None:
    state = reduce_events(State(), stamped([roll_call(3), round_end(0), *played(1, failing="site-2")[:-2]]))
    assert {name: site.doing for name, site in state.sites.items()} == {
        "site-1": Doing.validated,
        "site-2": Doing.failed,
        "site-3": Doing.idle,
    }
    assert phase_of(state) == "validation: 1 of 3 sites done"
    assert state.sites["site-1"].train[-1].loss == 1.1
    assert state.sites["site-1"].validation[-1].auroc == 0.7
    assert state.sites["site-3"].slices == 30


def test_a_recalibration_is_no_round_and_counts_once_when_it_is_played_again() -> None:
    events = [roll_call(2, 1), round_end(0), *played(1)]
    again = [answer("site_failed", 2, "recalibration", "site-1"), answer("site_done", 2, "recalibration", "site-2")]
    state = reduce_events(
        State(), stamped([*events, *again, roll_call(2, 1), {"event": "resumed", "round": 1}, *again])
    )
    assert state.round == 1
    assert len(state.failures) == 1
    assert state.sites["site-2"].doing is Doing.recalibrated
    assert phase_of(state) == "the final model: 2 of 2 sites recalibrated"


def test_time_left_is_what_the_last_rounds_took() -> None:
    state = reduce_events(State(), stamped([roll_call(rounds=10), round_end(0, 99.0)]))
    assert seconds_left(state, 0.0) is None
    assert describe_time_left(state, 0.0) == "remaining time is known after round 1"
    state = reduce_events(state, stamped([*played(1, seconds=10.0), *played(2, seconds=20.0)], 2))
    assert seconds_left(state, 5.0) == (80.0, 160.0)  # eight rounds
    assert describe_time_left(state, 0.0) == "1:20 to 2:40 remaining"
    state = reduce_events(state, stamped(played(3)[:2], 100))  # began a second ago
    assert seconds_left(state, 3.0) == (70.0 + 6.0, 140.0 + 16.0)
    assert seconds_left(state, 1000.0) == (70.0, 140.0)  # this one takes longer than any before


def test_silence_is_suspicious_when_it_is_much_longer_than_ever_before() -> None:
    begun = reduce_events(State(), stamped([roll_call(), round_end(0)]))
    assert not is_stalled(begun, 599.0)
    assert is_stalled(begun, 601.0)
    later = reduce_events(begun, stamped(played(1), 2))
    assert is_stalled(later, 121.0)
    assert not is_stalled(replace(later, silence=60.0), 179.0)
    assert not is_stalled(reduce_events(State(), whole_run()), 10**6)


def test_events_that_lack_something_change_only_the_tail() -> None:
    state = reduce_events(State(), stamped([roll_call(), round_end(0)]))
    strange = [{"event": "site_done"}, {"event": "round_end", "round": "x"}, {"event": "news", "round": 7}]
    after = reduce_events(state, stamped(strange, 2))
    assert replace(after, tail=state.tail, last=state.last, silence=state.silence) == state
    assert [said.kind for said in after.tail][-3:] == ["site_done", "round_end", "news"]


def test_failed_runs_say_why() -> None:
    failed = {"event": "run_failed", "kind": "failed", "reason": "<i>nobody</i> came"}
    state = reduce_events(State(), stamped([roll_call(), failed]))
    assert state.status is Status.failed
    assert "&lt;i&gt;nobody&lt;/i&gt; came" in sections(seen(state))["head"]


def test_a_stalled_run_shows_no_heartbeat() -> None:
    state = reduce_events(State(), stamped([roll_call(), round_end(0), played(1)[0]]))
    beats = {"site-1": Beat(round=1, batch=3, batches=9)}
    assert "3/9" in sections(seen(state, 1.0, beats))["sites"]
    assert "3/9" not in sections(seen(state, 10**5, beats))["sites"]


def test_of_very_many_sites_those_that_matter_are_in_the_table() -> None:
    state = reduce_events(State(), stamped([roll_call(300), answer("site_failed", 1, "train", "site-299")]))
    html = sections(seen(state, 0.0, {"site-300": Beat(round=1, batch=1, batches=2)}))["sites"]
    assert html.count("<tr><td>") == 200
    assert "site-299<" in html
    assert "site-300<" in html
    assert "300 sites" in html


def test_sites_go_by_number() -> None:
    assert sorted(["site-10", "site-2", "other", "site-1"], key=by_number) == ["other", "site-1", "site-2", "site-10"]


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0:00"), (62, "1:02"), (754, "12:34"), (3661, "1:01:01")])
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_states_hold_plain_events() -> None:
    assert json.dumps([dict(row) for row in reduce_events(State(), whole_run()).curve])
