"""The story of doctor: every check, said as it is found, and a verdict."""

from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table

from fl_rsna.checks.batch_size import settle_batch
from fl_rsna.checks.check import Check, State
from fl_rsna.checks.data import as_problem
from fl_rsna.checks.request import Request, refusals
from fl_rsna.checks.run import check_run
from fl_rsna.cohort.steps import adopt_cohort
from fl_rsna.common.command_end import RunFailed
from fl_rsna.reporting.record.console import console
from fl_rsna.settings.compose import partition_asked, words_given
from fl_rsna.settings.config import Config
from fl_rsna.settings.effects import list_optimizer_warnings, list_salt_warnings, parse_typed_keys

COLOUR = {State.ok: "green", State.warning: "yellow", State.problem: "red"}


def examine(config: Config, first: Sequence[Check]) -> None:
    """Say what is wrong with a run of these settings here; raises RunFailed when there is a problem."""
    adopted = _check_adoption(config)
    request = Request(config=config, typed=parse_typed_keys(words_given(), config))
    refused_ones = [as_problem(what, error) for what, error in refusals(request)]
    checks = [*first, *adopted, *_apart(refused_ones), *_cautious(config), *_check_resources(config, refused_ones)]
    say_checks(checks)
    counts = {state: sum(check.state is state for check in checks) for state in State}
    if counts[State.problem]:
        wrong = ", ".join(check.what for check in checks if check.state is State.problem)
        raise RunFailed(f"a run with these settings would not work here: {wrong}")
    console.print(f"no problem, {counts[State.warning]} to think about", soft_wrap=True)


def _apart(checks: Sequence[Check]) -> list[Check]:
    """Each sentence once."""
    return list({(check.found, check.change): check for check in checks}.values())


def _cautious(config: Config) -> list[Check]:
    said = {"strategy": list_optimizer_warnings(config), "data.salt": list_salt_warnings(config)}
    return [Check(what=what, state=State.warning, found=text) for what, texts in said.items() for text in texts]


def _check_resources(config: Config, known: Sequence[Check]) -> list[Check]:
    """The machine, disk and data; what was refused already is not said twice."""
    try:
        settle_batch(config, None)
    except ValueError as error:
        return [as_problem("train.batch_size", error)]
    told = {(check.found, check.change) for check in known}
    return [check for check in check_run(config) if (check.found, check.change) not in told]


def _check_adoption(config: Config) -> list[Check]:
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
