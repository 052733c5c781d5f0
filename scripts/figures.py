"""The measured figures: docs/measured.json holds each with its command, commit, date and machine, and docs/measured.md is written from it.

    python scripts/figures.py write                        write docs/measured.md
    python scripts/figures.py check                        list figures that are older than the code they measure; exits 1 if there are any
    python scripts/figures.py run bootstrap-speed          repeat a cheap measurement and print it below the recorded figure
    python scripts/figures.py record bootstrap-speed --figure "8.4 s of CPU, 306 MB" --machine "2 shared CPU cores"

`record` takes the commit of the checkout and today's date, and refuses a checkout with changes, whose commit would not be what was measured.
"""

import argparse
import json
import shlex
import subprocess
import sys
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DATA, PAGE = ROOT / "docs" / "measured.json", ROOT / "docs" / "measured.md"
BEGIN = """# Measured figures

Written by `scripts/figures.py` from `docs/measured.json`. Every AUROC is of *any hemorrhage* over the slices of the test site, with a 95% interval
over patients, unless the row says otherwise. The commit is the one whose code was measured, or the one that recorded the figure. Figures of speed
depend on the machine. `make figures-check` lists the rows whose code has changed since.

"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A row of the page. `paths` are what the figure depends on; `rerun` says whether the command is cheap and needs no data."""

    id: str
    title: str
    what: str
    figure: str
    command: str
    rerun: bool
    paths: tuple[str, ...]
    commit: str
    date: str
    machine: str


def read_figures(path: Path = DATA) -> list[Figure]:
    return [Figure(**{**row, "paths": tuple(row["paths"])}) for row in json.loads(path.read_text())]


def render_page(figures: list[Figure]) -> str:
    """The whole page: a section per figure, so that a long row needs no wide table."""
    parts = [
        f"## {one.title}\n\n{one.what}.\n\n{one.figure}\n\n    {one.command}\n\n`{one.id}`, commit `{one.commit}`, {one.date}, {one.machine}.\n"
        for one in figures
    ]
    return BEGIN + "\n".join(parts)


def list_changes(figure: Figure, root: Path = ROOT) -> list[str]:
    """The commits since the figure's own that changed what it measures, newest first. Raises ValueError for an unknown commit."""
    arguments = ["git", "log", "--oneline", f"{figure.commit}..HEAD", "--", *figure.paths]
    done = subprocess.run(arguments, cwd=root, capture_output=True, text=True)
    if done.returncode:
        raise ValueError(f"{figure.id}: git does not know commit {figure.commit}; fetch the whole history")
    return done.stdout.splitlines()


def check_figures(figures: list[Figure]) -> int:
    """Print each figure that is older than its code; return 1 where there is one."""
    older = [(one, changes) for one in figures if (changes := list_changes(one))]
    for one, changes in older:
        print(f"{one.id:<20} {one.date}  {len(changes):>3} commits since {one.commit}, last: {changes[0]}")
    print(f"{len(older)} of {len(figures)} figures are older than the code they measure")
    return int(bool(older))


def run_again(figure: Figure) -> int:
    """Run a figure's command and print what was recorded before it; return the command's exit code."""
    if not figure.rerun:
        raise ValueError(
            f"{figure.id}: expected a cheap measurement, got one that needs data or hours; run it yourself: {figure.command}"
        )
    print(f"recorded {figure.date} at {figure.commit}: {figure.figure}\n{figure.command}", flush=True)
    return subprocess.run([sys.executable, *shlex.split(figure.command)[1:]], cwd=ROOT).returncode


def record_figure(figures: list[Figure], chosen: Figure, text: str, machine: str) -> None:
    """Replace a figure in the file, with the checkout's commit and today's date, and write the page."""

    def ask_git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()

    if changed := ask_git("status", "--porcelain", "--", *chosen.paths):
        raise ValueError(
            f"{chosen.id}: expected a checkout without changes to what is measured, got {changed}; commit first"
        )
    today = datetime.now(UTC).date().isoformat()
    new = replace(chosen, figure=text, machine=machine, date=today, commit=ask_git("rev-parse", "--short", "HEAD"))
    rows = [new if one.id == chosen.id else one for one in figures]
    DATA.write_text(json.dumps([asdict(one) for one in rows], indent=2, ensure_ascii=False) + "\n")
    PAGE.write_text(render_page(rows))


def main() -> int:
    figures = read_figures()
    known = {one.id: one for one in figures}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = parser.add_subparsers(dest="action", required=True)
    actions.add_parser("write")
    actions.add_parser("check")
    for action in ("run", "record"):
        actions.add_parser(action).add_argument("id", choices=known)
    recording = actions.choices["record"]
    recording.add_argument("--figure", required=True, help="the figure as the page shows it")
    recording.add_argument("--machine", required=True, help="what it was measured on")
    arguments = parser.parse_args()
    match arguments.action:
        case "write":
            PAGE.write_text(render_page(figures))
        case "check":
            return check_figures(figures)
        case "run":
            return run_again(known[arguments.id])
        case "record":
            record_figure(figures, known[arguments.id], arguments.figure, arguments.machine)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ValueError as error:
        sys.exit(f"error: {error}")
