"""Run a federation over all sites of a cohort on this machine, and write its report: python -m fl_rsna.simulate."""

import os

if __name__ == "__main__":  # slow imports come after begin_loading, which loads the workers' server on another core
    from fl_rsna.cli.start import start_command

    start_command("simulate", goes_on=True, loads="PyTorch and Flower")
    os.environ.setdefault(
        "OMP_NUM_THREADS", "1"
    )  # set before torch is loaded: sites run in parallel, with one thread each
    from fl_rsna.common.process import begin_loading

    begin_loading()

    from fl_rsna.cli.command import run_command
    from fl_rsna.simulation.simulation import simulate

    run_command(simulate)
