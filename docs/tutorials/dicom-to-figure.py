# %% [markdown]
# # From DICOM to a federated comparison and a figure for a paper
#
# This tutorial starts with a folder of DICOM files and ends with a figure that compares two strategies, with intervals. It uses synthetic patients, so
# that it runs anywhere in a few minutes. Replace the first step by your own files and the rest stays the same.
#
# Run it in the environment of fl_rsna, in an empty folder.

# %%
import json
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

from fl_rsna.phantom.head.cohort import write_cohort


def run(command: str, *arguments: str) -> None:
    """Run a command as a terminal would: python -m fl_rsna.<command> <arguments>."""
    subprocess.run([sys.executable, "-m", f"fl_rsna.{command}", *arguments], check=True)


# %% [markdown]
# ## 1. The size of the experiment
#
# These values give a run of some minutes. More patients and rounds give a better model.

# %% tags=["parameters"]
PATIENTS, SLICES, SIDE, ROUNDS = 60, 12, 96, 5
MORE: list[str] = []  # further settings of both runs

# %% [markdown]
# ## 2. DICOM files and labels
#
# `write_cohort` draws valid head CT files of patients who do not exist, and a table of labels. With your own data, skip this cell and
# let `FOLDER` and `LABELS` be your folder and table.

# %%
FOLDER = Path("dicom")
write_cohort(FOLDER, patients=PATIENTS, slices_per_series=SLICES, size=SIDE, seed=2019)
LABELS = FOLDER / "stage_2_train.csv"
print(LABELS.read_text()[:120])

# %% [markdown]
# ## 3. Prepare
#
# `prepare` converts every file to one PNG and one row of the index, or to one row of `rejected.csv`. Look at `prepared/tutorial/prepare.html`.

# %%
run("prepare", f"data.dicom={FOLDER}", f"data.labels={LABELS}", "data.name=tutorial", "data.size=96")
index = pd.read_parquet("prepared/tutorial/index.parquet")
print(f"{len(index)} slices of {index.patient_id.nunique()} patients, {index['any'].sum():.0f} with hemorrhage")

# %% [markdown]
# ## 4. Split the patients into sites
#
# Three training sites get different shares of the labels (Dirichlet with alpha 0.5), and a fifth of the patients becomes the test site.
# A rare label may have no patient in small sets; `partition` then names it in a warning, and says what cannot be known.

# %%
SPLIT = ["data.name=tutorial", "data.size=96", "partition=dirichlet", "partition.num_sites=3"]
run("partition", *SPLIT)

# %% [markdown]
# ## 5. Train with two strategies
#
# Both runs use the same sites, the same seed and the same number of rounds. Each writes its report into its folder.

# %%
NAMES = ["fedavg", "fedprox"]
TRAINING = ["model.image_size=64", "train.select=last", f"rounds={ROUNDS}"]
for name in NAMES:
    run("simulate", *SPLIT, *TRAINING, f"strategy={name}", f"run.name={name}", *MORE)

# %% [markdown]
# Open `runs/fedavg/report.html` and read it with [Reading the report](../reading-the-report.md).
#
# ## 6. Compare
#
# `report` writes `runs/compare.html`. It draws the same test patients for both models. An interval of the difference that contains 0 shows no difference.

# %%
run("report", *[f"runs/{name}" for name in NAMES])

# %% [markdown]
# ## 7. A figure for a paper
#
# `summary.json` has every score with its interval. The figure is 85 mm wide, one column of most journals, and is saved as PDF and SVG.

# %%
figure, axis = plt.subplots(figsize=(85 / 25.4, 45 / 25.4), layout="constrained")
for row, name in enumerate(NAMES):
    found = json.loads(Path("runs", name, "summary.json").read_text())["test_site"]["slice"]["any"]["auroc"]
    if found["value"] is None:  # the test site has no positive slice
        continue
    axis.plot(found["value"], row, "o", color="black")
    if found["low"] is not None:  # no interval with fewer than five positive patients
        axis.plot([found["low"], found["high"]], [row, row], color="black")
axis.axvline(0.5, color="grey", linewidth=0.8, linestyle=":")
axis.set(xlabel="AUROC, any hemorrhage (test site, slices)", yticks=range(len(NAMES)), yticklabels=NAMES, xlim=(0, 1))
axis.margins(y=0.4)
for suffix in ("pdf", "svg"):
    figure.savefig(f"figure.{suffix}")

# %% [markdown]
# For a table, take `runs/fedavg/paper.tex`. For a claim, repeat the runs with several seeds: [Sweep settings](../sweeps.md), [Statistics](../statistics.md).
