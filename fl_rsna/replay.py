"""python -m fl_rsna.replay run=<run> site=<site> round=<n>: repeat one site's part in a round and compare it, bit by bit."""

if __name__ == "__main__":
    from fl_rsna.cli.start import start_command

    start_command("replay", loads="PyTorch and Flower")

import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is loaded, as in the run

from fl_rsna.cli.arguments import Parser, create_parser
from fl_rsna.cli.guess import read_arguments
from fl_rsna.common.command_end import RunFailed, end_command

if TYPE_CHECKING:
    from fl_rsna.cohort.sites.site_folders import Cohort

KEYS = ("run", "site", "round")
ABOUT = """Repeat one site's part in a round of a run and compare its update with the recorded one, bit by bit.

run    the folder of a run, runs/<name>
site   the name of one of its sites, e.g. site-1
round  the number of a round that the site finished, 1 or more"""
EXAMPLES = """examples:
  fl-rsna replay run=runs/first site=site-1 round=3
  fl-rsna replay runs/first site-1 3
  fl-rsna replay run=runs/sizes/partition.num_sites=2 site=site-2 round=1
more: docs/reproducibility.md
exit codes: 0 the same, 1 it came out differently, 2 the request cannot be met"""


def replay(settings: list[str]) -> None:
    """Repeat a site's part in a round and compare its hash with the recorded one; raises RunFailed when they differ.

    Raises ValueError for settings that cannot be read and for a run whose rounds cannot be repeated.
    """
    asked = {key: strip_quotes(value) for key, _, value in (setting.partition("=") for setting in settings)}
    if sorted(asked) != sorted(KEYS) or not asked["round"].isdigit():
        raise ValueError(
            f"expected run=<run folder> site=<site> round=<number>, got {' '.join(settings) or 'nothing'}; give all three"
        )
    from fl_rsna.federation.server.replay import repeat_round  # loads torch, which a refused setting need not wait for
    from fl_rsna.reporting.record.console import console
    from fl_rsna.run_folder.repeatable import not_kept, of_its_kind, site_memory_of
    from fl_rsna.run_folder.run_folder import RunFolder

    run, site, round_ = RunFolder(Path(asked["run"])), asked["site"], int(asked["round"])
    reason = of_its_kind(run.folder)
    if reason is not None:
        raise ValueError(reason)
    recorded = read_update_sha256(run.folder, site, round_)
    reason = not_kept(run.folder)
    if reason is not None:
        raise ValueError(reason)
    cohort = cohort_of(run.folder)
    with tempfile.TemporaryDirectory(prefix="fl_rsna-") as memory:  # work on a copy, so that the run stays as it is
        kept = site_memory_of(run.folder)
        if kept.exists():
            shutil.copytree(kept, memory, dirs_exist_ok=True)
        repeated = repeat_round(run, cohort, site, round_, Path(memory))
    console.print(f"{site}, round {round_}: recorded {recorded}", soft_wrap=True)
    console.print(f"{site}, round {round_}: repeated {repeated}", soft_wrap=True)
    if recorded != repeated:
        raise RunFailed(
            f"{site} in round {round_} came out differently; compare this machine with {run.folder / 'manifest.json'}"
        )
    console.print("the same, bit by bit")


def strip_quotes(value: str) -> str:
    """Remove the quotes that other commands need around special characters; a path may stand here without them."""
    quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
    return value[1:-1] if quoted and not Path(value).exists() else value


def cohort_of(run: Path) -> "Cohort":
    """Read the cohort that a run was trained on, where it was or beside the run; raises ValueError when it is missing or has changed."""
    from fl_rsna.cohort.prepared.index import read_facts
    from fl_rsna.cohort.sites import provenance as took_part
    from fl_rsna.cohort.sites.site_folders import read_cohort
    from fl_rsna.run_folder.run_folder import MANIFEST

    facts = read_facts(run / MANIFEST, f"run: no {MANIFEST} in {run}; copy the run again")
    cohort = read_cohort(took_part.cohort_of(run) or Path(str(facts.get("cohort"))))
    if cohort.sha256 != facts.get("cohort_sha256"):
        raise ValueError(
            f"run: expected the cohort of {run}, got another one in {cohort.folder}; partition the run's own data again"
        )
    return cohort


def read_update_sha256(folder: Path, site: str, round_: int) -> str:
    """Read the hash of the site's update in that round from the run's events; of a round played twice, the last one counts.

    Raises ValueError when the site did not finish that round.
    """
    from fl_rsna.reporting.record.events import EVENTS, describe_damage, read_log

    if not (folder / EVENTS).is_file():
        raise ValueError(f"run: expected a run folder with {EVENTS}, got {folder}; give runs/<name>")
    events, damaged = read_log(folder / EVENTS)
    trained = [event for event in events if event["event"] == "site_done" and "update_sha256" in event]
    found = [event for event in trained if event.get("round") == round_]
    for event in reversed(found):
        if event.get("site") == site:
            return str(event["update_sha256"])
    there = ", ".join(sorted({str(event.get("site")) for event in found})) or "none"
    also = f"; {describe_damage(damaged, folder / EVENTS)}" if damaged else ""
    raise ValueError(
        f"round: expected a round that {site} finished in {folder}, got {round_}, which was finished by: {there}; see its sites.csv{also}"
    )


def declare_arguments() -> Parser:
    """Declare the options and paths of this command; --help shows them and the shell completes them."""
    parser = create_parser("replay", ABOUT, EXAMPLES)
    parser.add_argument("settings", nargs="*", metavar="key=value", help="run=, site= and round=, in any order")
    return parser


def parse_arguments() -> list[str]:
    return list(declare_arguments().parse_args(read_arguments("replay", sys.argv[1:], KEYS)).settings)


if __name__ == "__main__":
    end_command(lambda: replay(parse_arguments()))
