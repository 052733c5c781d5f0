"""python -m fl_rsna.report runs/<name>: write the page of a run, finished or not."""

import argparse
import sys
from pathlib import Path

from fl_rsna.command import ending
from fl_rsna.reporting.console import console
from fl_rsna.reporting.report import write_report
from fl_rsna.runs import EXPLANATIONS, MODEL


def report(folders: list[Path]) -> None:
    for folder in folders:
        if (folder / MODEL).exists() and not (folder / EXPLANATIONS).exists():
            from fl_rsna.reporting.explained import explain  # loads torch: not for a page alone

            explain(folder)
        console.print(f"report: {write_report(folder)}", soft_wrap=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m fl_rsna.report", description="Write report.html into run folders.")
    parser.add_argument("runs", nargs="+", type=Path, metavar="runs/<name>")
    words = parser.parse_args()
    ending(lambda: report(words.runs))
    sys.exit(0)
