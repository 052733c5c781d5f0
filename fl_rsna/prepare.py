"""Convert DICOM files and their labels to prepared/<name>/: python -m fl_rsna.prepare."""

if __name__ == "__main__":
    from fl_rsna.cli.start import start_command

    start_command("prepare", goes_on=True, loads="the readers of DICOM")

from fl_rsna.cli.command import run_command
from fl_rsna.cohort.prepared.index import read_facts
from fl_rsna.cohort.steps import check_named, prepare_step
from fl_rsna.reporting.live.terminal import Display
from fl_rsna.reporting.pages.data_pages import write_prepare_page
from fl_rsna.reporting.record.console import console, say_prepared, say_without_effect
from fl_rsna.settings.compose import list_arguments
from fl_rsna.settings.config import Config
from fl_rsna.settings.data import PrepareEngine
from fl_rsna.settings.effects import list_salt_warnings, parse_typed_keys
from fl_rsna.settings.fields import Asked, Command
from fl_rsna.settings.runtime import check_ray
from fl_rsna.task import find_task


def prepare(config: Config) -> None:
    """Convert data.dicom to prepared data, and write the page of each prepared set. Raises ValueError."""
    say_without_effect(
        Asked(config=config, command=Command.prepare, image=config.data.image),
        parse_typed_keys(list_arguments(), config),
    )
    check_named(config)
    if config.prepare.engine is PrepareEngine.ray and config.data.dicom is not None:
        check_ray("prepare.engine")
    for text in list_salt_warnings(config):
        console.print(f"warning: {text}", soft_wrap=True, markup=False)
    with Display() as display:
        for prepared in prepare_step(config, display.step):
            say_prepared(prepared, read_facts(prepared.folder / "prepare.json", "just written"))
            console.print(f"page: {write_prepare_page(prepared, find_task(config.data.task))}", soft_wrap=True)


if __name__ == "__main__":
    run_command(prepare, makes_runs=False)
