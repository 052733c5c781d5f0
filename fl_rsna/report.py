"""Write the report of each run, and a comparison of several runs: python -m fl_rsna.report runs/<name> ..."""

if __name__ == "__main__":
    from fl_rsna.cli.start import start_command

    start_command("report", loads="what draws the pages")

from collections.abc import Sequence
from pathlib import Path

from fl_rsna.cli.arguments import Parser, create_parser
from fl_rsna.common.command_end import end_command

ABOUT = """Write report.html, report.json, paper.md and paper.tex into run folders, finished or not.
With two runs or more also compare.html, .json, .csv, .md and .tex: side by side, with paired differences in AUROC and curves
over every setting that differs among them; runs that differ in seeds only are one point's repeats. A run that cannot be read,
or learned other labels than the first, is named there and left out."""
HOW = """a path may be
  runs/<name>         a run
  runs                a folder of runs: all of them
  runs/<gap>          an experiment=gap: its federated, central and local run
  runs/<sweep>        a --multirun: the runs of its jobs

examples:
  fl-rsna report runs/first
  fl-rsna report runs/a runs/b --out both.html
  fl-rsna report runs/sizes
  fl-rsna report runs/first figures=true    # runs/first/figures/<plot>.svg and .pdf, 85 or 175 mm wide
The first run named is the one others are compared with. More: docs/commands.md"""


def report(runs: Sequence[Path], out: Path | None = None, *, figures: bool = False) -> None:
    """Write the report of every run in `runs`, and of two or more a comparison at `out`; with `figures` every plot for a paper.

    Raises ValueError for a path without a run, and for a single run that cannot be read.
    """
    from fl_rsna.reporting.pages.comparison import DAMAGE, damage, read_left_out, write_comparison
    from fl_rsna.reporting.pages.find_runs import common_folder, failures_in, find_runs, is_run
    from fl_rsna.reporting.record.console import console

    folders = list({folder.absolute(): folder for path in runs for folder in find_runs(path)}.values())
    failed = [job for path in runs if not is_run(path) for job in failures_in(path)]
    if out is not None and len(folders) < 2:
        raise ValueError(f"--out: expected two runs or more to compare, got one in {folders[0]}; leave --out away")
    for folder in folders:
        try:
            console.print(f"report: {_report(folder, figures)}", soft_wrap=True, markup=False)
        except DAMAGE as error:
            if len(folders) == 1:
                raise ValueError(damage(folder, error)) from error
            console.print(f"no report: {damage(folder, error)}", soft_wrap=True, markup=False, style="red")
    if len(folders) > 1 or failed:
        beside = runs[0] if len(runs) == 1 else common_folder(folders)
        page = write_comparison(folders, out or beside / "compare.html", failed, figures=figures)
        for name, why in read_left_out(page):
            console.print(f"not compared: {name}: {why}", soft_wrap=True, markup=False, style="red")
        console.print(f"compare: {page}", soft_wrap=True, markup=False)


def _report(folder: Path, figures: bool) -> Path:
    from fl_rsna.reporting.pages.run_page import write_report
    from fl_rsna.run_folder.run_folder import EXPLANATIONS, MODEL

    if (folder / MODEL).exists() and not (folder / EXPLANATIONS).exists():
        from fl_rsna.reporting.images.explanations import explain  # loads torch, which the page alone does not need

        explain(folder)
    return write_report(folder, figures=figures)


def declare_arguments() -> Parser:
    """Declare the options and paths of this command; --help shows them and the shell completes them."""
    parser = create_parser("report", ABOUT, HOW)
    parser.add_argument("runs", nargs="+", type=Path, metavar="PATH", help="a run, or a folder that stands for several")
    parser.add_argument("--out", type=Path, help="where compare.html goes; default: the folder that holds all the runs")
    parser.add_argument(
        "--figures",
        action="store_true",
        help="also write every plot as SVG and PDF for a paper, to figures/",
    )
    return parser


if __name__ == "__main__":
    end_command(lambda: report(**vars(declare_arguments().parse_args())))
