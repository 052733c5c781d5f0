"""Assign the patients of prepared data to sites in site_data/<cohort>/: python -m fl_rsna.partition."""

if __name__ == "__main__":
    from fl_rsna.cli.start import start_command

    start_command("partition", loads="pandas")

from fl_rsna.cli.command import run_command
from fl_rsna.cohort.steps import partition_step
from fl_rsna.reporting.pages.data_pages import write_partition_page
from fl_rsna.reporting.record.console import console, say_cohort, say_without_effect
from fl_rsna.settings.compose import list_arguments
from fl_rsna.settings.config import Config
from fl_rsna.settings.effects import parse_typed_keys
from fl_rsna.settings.fields import Asked, Command
from fl_rsna.task import find_task


def partition(config: Config) -> None:
    """Assign the patients of prepared data to sites, and write the cohort and its page. Raises ValueError."""
    say_without_effect(
        Asked(config=config, command=Command.assign, image=config.data.image),
        parse_typed_keys(list_arguments(), config),
    )
    cohort = partition_step(config)
    say_cohort(cohort)
    console.print(f"page: {write_partition_page(cohort, find_task(config.data.task))}", soft_wrap=True)


if __name__ == "__main__":
    run_command(partition, makes_runs=False)
