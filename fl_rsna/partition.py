"""python -m fl_rsna.partition: the patients of prepared data are dealt to sites in site_data/<cohort>/."""

if __name__ == "__main__":
    from fl_rsna.command_end import begin_command

    begin_command()

from fl_rsna.command import run_command
from fl_rsna.compose import words_given
from fl_rsna.config import Config
from fl_rsna.effects import Asked, Command, typed_keys
from fl_rsna.reporting.console import console, say_cohort, say_without_effect
from fl_rsna.reporting.pages import write_partition_page
from fl_rsna.steps import partition_step
from fl_rsna.task import named_task


def partition(config: Config) -> None:
    say_without_effect(Asked(config=config, command=Command.deal, image=config.data.image), typed_keys(words_given()))
    cohort = partition_step(config)
    say_cohort(cohort)
    console.print(f"page: {write_partition_page(cohort, named_task(config.data.task))}", soft_wrap=True)


if __name__ == "__main__":
    run_command(partition, makes_runs=False)
