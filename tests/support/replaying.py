"""The law of replay: of every run a site's part in a round is repeated bit by bit, or one sentence says why it cannot be."""

from pathlib import Path

import pytest

from fl_rsna.replay import replay
from fl_rsna.reporting.record.events import EVENTS, read_events
from fl_rsna.run_folder.repeatable import unrepeatable


def replayed(run: Path, round_: int | None = None) -> str | None:
    """Repeat the part of the last site that trained in a round, the last one unless said; the reason where that cannot be."""
    reason = unrepeatable(run)
    if reason is not None:
        assert reason.startswith("run: ")
        with pytest.raises(ValueError, match=r"^run: "):
            replay([f"run={run}", "site=site-1", "round=1"])
        return reason
    trained = [
        event for event in read_events(run / EVENTS) if event["event"] == "site_done" and event["phase"] == "train"
    ]
    last = [event for event in trained if event["round"] == (trained[-1]["round"] if round_ is None else round_)][-1]
    replay([f"run={run}", f"site={last['site']}", f"round={last['round']}"])
    return None
