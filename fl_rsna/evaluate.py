"""python -m fl_rsna.evaluate: what a saved model says about slices, one by one and exam by exam.

    python -m fl_rsna.evaluate model=runs/<name> data.dicom=<folder, zip or CSV list>
    python -m fl_rsna.evaluate model=runs/<name> data.name=<prepared set>
    python -m fl_rsna.evaluate model=<file>.safetensors site=site_data/<cohort>/<site>

model   a run's folder, or a model file, which is enough by itself; with its run beside it the thresholds and
        temperatures that the run chose are applied unchanged
data    data.dicom prepares every slice as the model's own were, labelled or not, and forgets that afterwards, or
        with data.name= keeps it; data.labels=<csv>, data.test_set=true, data.size=, data.hash_ids=, data.salt=,
        data.max_rejected=, prepare.workers= as in prepare
site    a site of any cohort; part=test, validation, train or all, by default test where there is one
shift   true: two readings side by side. safe is what the model says, as its run calibrated it; risky is matched to how
        common each label seems to be in what is scored, estimated without its labels (Saerens et al. 2002): columns
        safe_<label> and risky_<label>, submission_safe.csv and submission_risky.csv, a scorecard of each, and the
        match.prevalence= settings that have a federation train for that prevalence
out     the new folder, by default evaluations/<date-time>: predictions.parquet and .csv, exams.csv, submission.csv
        (Kaggle's long form; of classes SIIM's), rejected.csv, evaluation.json and, where labels are known, scorecard.json;
        evaluation.html: exams sorted by probability, their slices, thresholds, Grad-CAM heat, and the scores
page    page.exams=30 exams have images on that page, the most probable ones, page.slices=48 of each at most, page.heats=8
        of these with heat; page.exams=0 writes no page. The page holds images and ids: keep it where these may be kept

Also train.device=, paths.prepared=, seed= (of the bootstrap). Research use, not for diagnosis.
Exit codes: 0 done, 1 the model cannot score, 2 the request cannot be met (one sentence on stderr).
"""

if __name__ == "__main__":
    from fl_rsna.cli.start import start_command

    start_command("evaluate", loads="PyTorch")

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is loaded, as in the run

from fl_rsna.cli.command import run_own_command
from fl_rsna.cli.own_settings import OwnSettings
from fl_rsna.evaluation.settings import EvaluateConfig


def main(asked: EvaluateConfig) -> None:
    """Score what the settings ask for, write it to a new folder and print the scores."""
    from fl_rsna.evaluation.evaluate import evaluate  # loads torch, which a refused setting need not wait for
    from fl_rsna.reporting.live.terminal import Display
    from fl_rsna.reporting.pages.console_summary import say_evaluation

    with Display() as display:
        out = evaluate(asked, display.step)
    say_evaluation(out)


if __name__ == "__main__":
    run_own_command(main, OwnSettings(command="evaluate", schema=EvaluateConfig))
