"""python -m fl_rsna.replay run=<run> site=<site> round=<n>: repeat one site's part in a round and compare it, bit by bit."""

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is loaded, as in the run

from fl_rsna.cohort.sites import read_cohort
from fl_rsna.command import RunFailed, ending
from fl_rsna.federation.replay import repeat_round
from fl_rsna.reporting.console import console
from fl_rsna.runs import RunFolder

WORDS = ("run", "site", "round")


def replay(words: list[str]) -> None:
    asked = dict(word.partition("=")[::2] for word in words)
    if sorted(asked) != sorted(WORDS) or not asked["round"].isdigit():
        raise ValueError(
            f"expected run=<run folder> site=<site> round=<number>, got {' '.join(words) or 'nothing'}; give all three"
        )
    run, site, round_ = RunFolder(Path(asked["run"])), asked["site"], int(asked["round"])
    recorded = recorded_sha256(run.folder, site, round_)
    cohort = read_cohort(Path(json.loads((run.folder / "manifest.json").read_text())["cohort"]))
    with tempfile.TemporaryDirectory(prefix="fl_rsna-") as memory:  # a copy: a replay leaves the run as it is
        if run.site_memory.exists():
            shutil.copytree(run.site_memory, memory, dirs_exist_ok=True)
        repeated = repeat_round(run, cohort, site, round_, Path(memory))
    console.print(f"{site}, round {round_}: recorded {recorded}", soft_wrap=True)
    console.print(f"{site}, round {round_}: repeated {repeated}", soft_wrap=True)
    if recorded != repeated:
        raise RunFailed(
            f"{site} in round {round_} came out differently; compare this machine with {run.folder / 'manifest.json'}"
        )
    console.print("the same, bit by bit")


def recorded_sha256(folder: Path, site: str, round_: int) -> str:
    """The hash of what the site sent in that round, by the run's events; a round played twice counts as played last."""
    events = folder / "events.jsonl"
    if not events.exists():
        raise ValueError(f"run: expected a run folder with events.jsonl, got {folder}; give runs/<name>")
    wanted = {"event": "site_done", "phase": "train", "site": site, "round": round_}
    for line in reversed(events.read_text().splitlines()):
        event = json.loads(line) if line.endswith("}") else {}
        if wanted.items() <= event.items():
            return str(event["update_sha256"])
    raise ValueError(f"round: expected a round that {site} finished in {folder}, got {round_}; see its sites.csv")


if __name__ == "__main__":
    ending(lambda: replay(sys.argv[1:]))
