"""python -m fl_rsna.ensemble: what several saved models say of slices together, one by one and exam by exam.

    python -m fl_rsna.ensemble models=[runs/a,runs/b] data.dicom=<folder, zip or CSV list>
    python -m fl_rsna.ensemble models=[runs/a,runs/b] data.name=<prepared set> shift=true
    python -m fl_rsna.ensemble models=[a.safetensors,b.safetensors] weights=[0.6,0.4] site=site_data/<cohort>/<site>

models   two or more runs' folders or model files, of one task and kind of images
weights  by default convex ones, a label at a time, of least log loss on the validation slices of the sites: the runs
         must be simulated on one cohort, and their sites remember what each model said. equal, or a share for each
         model, where that is not at hand, as between real machines
out      the new folder, by default ensembles/<date-time>: all that evaluate writes, and ensemble.json

data, site, part, shift, seed and the rest: as in python -m fl_rsna.evaluate. Research use, not for diagnosis.
Exit codes: 0 done, 1 a model cannot score, 2 the request cannot be met (one sentence on stderr).
"""

if __name__ == "__main__":
    from fl_rsna.cli.start import start_command

    start_command("ensemble", loads="PyTorch")

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is loaded, as in the run

from fl_rsna.cli.command import run_own_command
from fl_rsna.cli.own_settings import OwnSettings
from fl_rsna.evaluation.settings import EnsembleConfig


def main(asked: EnsembleConfig) -> None:
    """Score what the settings ask for, write it to a new folder and print the scores."""
    from fl_rsna.evaluation.ensemble import ensemble  # loads torch, which a refused setting need not wait for
    from fl_rsna.reporting.live.terminal import Display
    from fl_rsna.reporting.pages.console_summary import say_ensemble, say_evaluation

    with Display() as display:
        out = ensemble(asked, display.step)
    say_ensemble(out)
    say_evaluation(out)


if __name__ == "__main__":
    run_own_command(main, OwnSettings(command="ensemble", schema=EnsembleConfig))
