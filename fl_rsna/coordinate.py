"""Coordinate a federated run between machines: python -m fl_rsna.coordinate <the settings of simulate> deploy.*=...

The command is started beside the SuperLink (python -m fl_rsna.superlink), which accepts runs from its own machine only. It admits the
sites whose keys are in deploy.authorized, prints a line an event, goes on with a run whose server died, and writes the report.
"""

import os

if __name__ == "__main__":
    from fl_rsna.cli.start import start_command

    start_command("coordinate", goes_on=True, loads="PyTorch and Flower")
    os.environ.setdefault("OMP_NUM_THREADS", "1")

    from fl_rsna.cli.command import run_command
    from fl_rsna.deployment.coordinator import coordinate

    run_command(coordinate)
