"""python -m fl_rsna.report runs/<name> ...: write the report of each run, and of several how they compare."""

if __name__ == "__main__":
    from fl_rsna.common.command_end import begin_command

    begin_command()

import argparse
from collections.abc import Sequence
from pathlib import Path

from fl_rsna.common.command_end import Parser, end_command
from fl_rsna.reporting.pages.comparison import DAMAGE, damage, read_left_out, write_comparison
from fl_rsna.reporting.pages.find_runs import common_folder, failures_in, find_runs, is_run
from fl_rsna.reporting.pages.run_page import write_report
from fl_rsna.reporting.record.console import console
from fl_rsna.run_folder.run_folder import EXPLANATIONS, MODEL

ABOUT = """Write report.html, report.json, paper.md and paper.tex into run folders, finished or not.
With two runs or more also compare.html and compare.json: side by side, with paired differences in AUROC and curves
over every setting that differs among them; runs that differ in seeds only are one point's repeats. A run that cannot be read,
or learned other labels than the first, is named there and left out."""
HOW = """a path may be
  runs/<name>         a run
  runs                a folder of runs: all of them
  runs/<gap>          an experiment=gap: its federated, central and local run
  runs/<sweep>        a --multirun: the runs of its jobs

  python -m fl_rsna.report runs/a runs/b
  python -m fl_rsna.simulate -m run.name=sizes partition.num_sites=2,4,8 seed=0,1,2 && python -m fl_rsna.report runs/sizes
The first run named is the one others are compared with."""


def report(paths: Sequence[Path], out: Path | None = None) -> None:
    folders = list({folder.absolute(): folder for path in paths for folder in find_runs(path)}.values())
    failed = [job for path in paths if not is_run(path) for job in failures_in(path)]
    if out is not None and len(folders) < 2:
        raise ValueError(f"--out: expected two runs or more to compare, got one in {folders[0]}; leave --out away")
    for folder in folders:
        try:
            console.print(f"report: {_report(folder)}", soft_wrap=True, markup=False)
        except DAMAGE as error:
            if len(folders) == 1:
                raise ValueError(damage(folder, error)) from error
            console.print(f"no report: {damage(folder, error)}", soft_wrap=True, markup=False, style="red")
    if len(folders) > 1 or failed:
        beside = paths[0] if len(paths) == 1 else common_folder(folders)
        page = write_comparison(folders, out or beside / "compare.html", failed)
        for name, why in read_left_out(page):
            console.print(f"not compared: {name}: {why}", soft_wrap=True, markup=False, style="red")
        console.print(f"compare: {page}", soft_wrap=True, markup=False)


def _report(folder: Path) -> Path:
    if (folder / MODEL).exists() and not (folder / EXPLANATIONS).exists():
        from fl_rsna.reporting.images.explanations import explain  # loads torch: not for a page alone

        explain(folder)
    return write_report(folder)


if __name__ == "__main__":
    parser = Parser(
        prog="python -m fl_rsna.report",
        description=ABOUT,
        epilog=HOW,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="PATH", help="a run, or a folder that stands for several")
    parser.add_argument("--out", type=Path, help="where compare.html goes; default: the folder that holds all the runs")
    words = parser.parse_args()
    end_command(lambda: report(words.runs, words.out))
