"""Events of made-up runs, small enough to check by hand."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fl_rsna.run_folder.run_folder import REST
from fl_rsna.task import ICH

Event = dict[str, Any]


def stamped(events: Iterable[Event], start: int = 0) -> list[Event]:
    """One a second."""
    return [
        {"time": f"2026-01-01T{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}.000+00:00", **event}
        for second, event in enumerate(events, start)
    ]


def roll_call(sites: int = 2, rounds: int = 3, **said: str) -> Event:
    held = {f"site-{i}": {"train": {"slices": 10 * i}, "validation": {"slices": 2}} for i in range(1, sites + 1)}
    sites = {**held, "test-site": {"test": {"slices": 5}}}
    return {"event": "roll_call", "sites": sites, "rounds": rounds, "task": ICH.name, **said}


def round_end(round_: int, seconds: float = 10.0) -> Event:
    played = round_ > 0
    return {
        "event": "round_end",
        "headline": "any",
        "round": round_,
        "train_loss": 1 / round_ if played else None,
        "validation_loss": 2 / round_ if played else None,
        "validation_auroc_any": 0.6 if played else None,
        **dict(zip(REST, (2, 0, 0) if played else (None, None, None), strict=True)),
        "test_loss": 0.5,
        "test_auroc_any": 0.5 + round_ / 10,
        "test_auroc_subdural": None,
        "failed": 0 if played else None,
        "bytes_down": 100 if played else None,
        "seconds": seconds,
    }


def answer(kind: str, round_: int, phase: str, site: str, loss: float = 0.5) -> Event:
    said = {"event": kind, "round": round_, "phase": phase, "site": site}
    if kind == "site_failed":
        return {**said, "error": "ValueError: <b>no</b>", "traceback": "..."}
    return {**said, "metrics": {"num-examples": 10.0, "loss": loss, "seconds": 1.5, "auroc/any": 0.7}}


def played(round_: int, failing: str = "", seconds: float = 10.0) -> list[Event]:
    """A whole round of two sites; `failing` does not train."""
    sites = ("site-1", "site-2")
    return [
        {"event": "round_start", "round": round_, "sites": list(sites)},
        *(
            answer("site_failed" if site == failing else "site_done", round_, "train", site, round_ + 0.1)
            for site in sites
        ),
        *(answer("site_done", round_, "validation", site, round_ + 0.2) for site in sites),
        round_end(round_, seconds),
    ]


def whole_run() -> list[Event]:
    """Three rounds; site-2 fails in the second."""
    rounds = [*played(1), *played(2, failing="site-2"), *played(3)]
    end = {"event": "run_end", "model_sha256": "ab" * 32, "selected_round": 3, "wall_s": 30.0}
    return stamped([roll_call(), round_end(0, 1.0), *rounds, end])


def resumed_run() -> list[Event]:
    """The same, killed after site-2's failure in round 2 and gone on with from round 1, where that fails again."""
    killed = [roll_call(), round_end(0, 1.0), *played(1), *played(2, failing="site-2")[:3]]
    again = [roll_call(), {"event": "resumed", "round": 1}, *played(2, failing="site-2"), *played(3)]
    end = {"event": "run_end", "model_sha256": "ab" * 32, "selected_round": 3, "wall_s": 30.0}
    return stamped([*killed, *again, end])


def write_log(folder: Path, events: Iterable[Event]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "events.jsonl"
    path.write_text("".join(json.dumps(event) + "\n" for event in events))
    return path
