"""The story of doctor: every check, said as it is found, and a verdict."""

from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table

from fl_rsna.checkup.batch import settle_batch
from fl_rsna.checkup.checks import Check, State
from fl_rsna.checkup.run_checks import check_run
from fl_rsna.command import RunFailed, partition_asked
from fl_rsna.config import Config
from fl_rsna.existing import adopt_cohort
from fl_rsna.reporting.console import console

COLOUR = {State.ok: "green", State.warning: "yellow", State.problem: "red"}


def examine(config: Config, first: Sequence[Check]) -> None:
    """Say what is wrong with a run of these settings here; raises RunFailed when there is a problem."""
    settle_batch(config, None)
    checks = [*first, *_adopted(config), *check_run(config)]
    say_checks(checks)
    counts = {state: sum(check.state is state for check in checks) for state in State}
    if counts[State.problem]:
        wrong = ", ".join(check.what for check in checks if check.state is State.problem)
        raise RunFailed(f"a run with these settings would not work here: {wrong}")
    console.print(f"no problem, {counts[State.warning]} to think about", soft_wrap=True)


def _adopted(config: Config) -> list[Check]:
    """Take the cohort that simulate would take; several to choose from are a problem."""
    try:
        if not partition_asked(config):
            adopt_cohort(config)
    except ValueError as error:
        return [Check(what="cohort", state=State.problem, found=str(error))]
    return []


def say_checks(checks: Sequence[Check]) -> None:
    """A table in a terminal, plain lines elsewhere."""
    if not console.is_terminal:
        for check in checks:
            console.print(escape(_line(check)), soft_wrap=True)
        return
    table = Table(show_header=True)
    for name in ("", "check", "found", "change"):
        table.add_column(name)
    for check in checks:
        colour = COLOUR[check.state]
        table.add_row(f"[{colour}]{check.state}[/{colour}]", check.what, escape(check.found), escape(check.change))
    console.print(table)


def _line(check: Check) -> str:
    return f"{check.state:<9}{check.what}: {check.found}" + (f"; {check.change}" if check.change else "")
