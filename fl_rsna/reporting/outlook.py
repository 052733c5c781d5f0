"""What a run is at, how long it may still take, and whether it seems to have stopped."""

from collections.abc import Mapping

from fl_rsna.federation.heartbeat import Beat
from fl_rsna.reporting.live import State, Status, by_number
from fl_rsna.reporting.sentences import failed_words

RECENT = 5  # rounds by which the rest is estimated
PATIENCE_S, FIRST_PATIENCE_S = 120.0, 600.0  # without an event, before a run may have stalled; before round 1 is over
MOST = 6  # sites in the line about packing
PATIENCE = 3  # times the longest silence so far


def phase_of(state: State) -> str:
    """What the run is at, in a few words."""
    match state.status:
        case Status.waiting:
            return "waiting for the run to begin"
        case Status.finished:
            return "finished"
        case Status.failed:
            return failed_words(state.end)
    if not state.curve and not state.open:
        return (
            f"sites on their own: {len(state.alone)} of {len(state.sites)} done" if state.alone else "scoring the start"
        )
    if not state.open:
        over = bool(state.curve) and state.curve[-1]["round"] >= state.rounds
        recalibrated = state.answered.get("recalibration", 0)
        if recalibrated or over:
            at = f": {recalibrated} of {len(state.sites)} sites recalibrated" if recalibrated else ""
            return f"the final model{at}"
        return "between rounds"
    trained, validated = state.answered.get("train", 0), state.answered.get("validation", 0)
    if trained < len(state.asked):
        return f"training: {trained} of {len(state.asked)} sites done"
    return f"validation: {validated} of {len(state.sites)} sites done" if validated < len(state.sites) else "scoring"


def packing_line(beats: Mapping[str, Beat]) -> str:
    """How far the sites are that pack their images, as they do before a run's first message is answered; "" where none does."""
    packing = {site: beat for site, beat in beats.items() if beat.packing}
    shown = [
        f"{site} {packing[site].batch:,} of {packing[site].batches:,}" for site in sorted(packing, key=by_number)[:MOST]
    ]
    more = f" and {len(packing) - MOST} sites more" if len(packing) > MOST else ""
    return f"packing images: {', '.join(shown)}{more}" if packing else ""


def seconds_left(state: State, silent_s: float) -> tuple[float, float] | None:
    """At least and at most how long the rest takes if it goes as the last rounds went; None before round 1 is over.

    `silent_s` is how long ago the last event was. The final model and its scores come on top.
    """
    took = [row["seconds"] for row in state.curve if row["round"] > 0 and row["seconds"] is not None][-RECENT:]
    left = state.rounds - (state.round - 1 if state.open else state.round)
    if not took or left <= 0 or state.status is not Status.running:
        return None
    gone = (state.last or 0.0) - (state.round_began or 0.0) + silent_s if state.open else 0.0
    others = left - 1 if state.open else left
    fewest, most = min(took), max(took)
    here = (max(0.0, fewest - gone), max(0.0, most - gone)) if state.open else (0.0, 0.0)
    return fewest * others + here[0], most * others + here[1]


def is_stalled(state: State, silent_s: float) -> bool:
    """Whether a running run has been silent for much longer than ever before: killed, perhaps, or its machine is off."""
    least = PATIENCE_S if any(row["round"] > 0 for row in state.curve) else FIRST_PATIENCE_S
    return state.status is Status.running and silent_s > max(least, PATIENCE * state.silence)


def left_words(state: State, silent_s: float) -> str:
    """How long the rest may take, as far as the last rounds tell."""
    if state.status is not Status.running:
        return state.status.value
    left = seconds_left(state, silent_s)
    if left is None:
        return "time left after round 1" if not any(row["round"] for row in state.curve) else "nearly done"
    low, high = (clock(value) for value in left)
    return f"about {high} left" if low == high or left[1] - left[0] < 0.1 * left[1] else f"{low} to {high} left"


def clock(seconds: float) -> str:
    """0:42, 12:05, 1:05:10."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
