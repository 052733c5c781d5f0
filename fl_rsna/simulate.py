"""python -m fl_rsna.simulate: a federated run over all sites of a cohort on this machine, and its report."""

import os

if __name__ == "__main__":  # everything slow is imported below, on one core while the workers' server loads on another
    from fl_rsna.common.command_end import begin_command

    begin_command(goes_on=True)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is loaded: parallel over sites, not inside one
    from fl_rsna.common.process import begin_loading

    begin_loading()

    from fl_rsna.cli.command import run_command
    from fl_rsna.simulation.simulation import simulate

    run_command(simulate)
