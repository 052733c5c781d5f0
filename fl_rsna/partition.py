"""python -m fl_rsna.partition: the patients of prepared data are dealt to sites in site_data/<cohort>/."""

from fl_rsna.command import run_command
from fl_rsna.config import Config
from fl_rsna.reporting.console import say_cohort
from fl_rsna.steps import partition_step


def partition(config: Config) -> None:
    say_cohort(partition_step(config))


if __name__ == "__main__":
    run_command(partition)
