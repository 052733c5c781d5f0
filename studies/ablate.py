"""What each part of the slice recipe is worth: the recipe with one part off, and the plain pipeline with one part on.

Same seeds, same patients, same number of steps. Every variant is one federated run of the package for every seed, and is
compared slice by slice on the same test patients, with the recipe or with the plain pipeline (nothing on): weighted log loss
and AUROC `any`, paired, with 95% intervals over patients. The second stage (`stage=both`: smoothing, sequence
head, blend) and stacking are variants, too. Runs are kept and resumed, so the study can be stopped, and repeated with more seeds;
it reports all it finds in its folder. `--write docs` puts its tables into docs/ablations.md.

    python studies/ablate.py [rounds=6 ...] [--data demo ct_ich] [--seeds 0 1 2] [--only "without 2.5D" "with mixup" ...] [--write docs]

Settings for every run come first: after a list of names they would be taken for one more.
"""

import argparse
import os
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is loaded: workers load it again

from ablate_report import Found, report, write

from fl_rsna.cohort.steps import cohort_for_run
from fl_rsna.common.process import begin_loading
from fl_rsna.run_folder.run_folder import is_finished
from fl_rsna.settings.compose import compose_config
from fl_rsna.simulation.simulation import run_federation
from fl_rsna.strategies.find import STRATEGIES

# By cohort: the settings of every run, and what a seed changes. The demo keeps its split, CT-ICH's few patients are assigned again.
# Smaller images and fewer rounds than by default, so that some two hundred runs end in hours; and as many steps as the plain
# pipeline takes in a pass, for a pass over under-sampled slices has a third of them.
DATA = {
    "demo": (["data.name=demo", "model.image_size=64", "rounds=8", "train.local_steps=20"], ["seed={}"]),
    "ct_ich": (
        ["experiment=ct_ich", "model.image_size=96", "train.local_steps=15"],
        ["seed={}", "partition.seed={}"],
    ),
}
RECIPE = {
    "2.5D": ["model.neighbours=1"],
    "learned window": ["model.window=learned"],
    "crop to the head": ["model.crop=head"],
    "mirrored at test time": ["model.tta=2"],
    "mixup": ["train.mixup=0.3"],
    "cutout": ["train.cutout=0.3"],
    "HU noise": ["train.hu_noise=0.02"],
    "labels smoothed over z": ["train.smooth_z=3"],
    "soft labels between": ["train.soft_between=0.3"],
    "layer-wise rates": ["train.layer_decay=0.8"],
    "EMA over rounds": ["strategy.averaging=ema", "strategy.ema_decay=0.5"],
    "under-sampling": ["train.sampling=under", "train.negatives=1.5"],
    "label weights": ["train.label_weights=prevalence"],
}
OTHERWISE = {  # a part in another form
    "personal window": {"learned window": ["model.window=personal"]},
    "weighted sampling": {"under-sampling": ["train.sampling=weighted"]},
    "focal loss": {"label weights": ["train.label_weights=prevalence", "train.loss=focal"]},
    "under-sampling uncorrected": {"under-sampling": [*RECIPE["under-sampling"], "train.correction=none"]},
}
STAGES = {"sequence stage": ["stage=both"], "stacking": ["stage=stacking"]}  # after the slice model, or around it
WHOLE, PLAIN = "the recipe", "plain"


def settings_of(parts: dict[str, list[str]]) -> list[str]:
    return [setting for settings in parts.values() for setting in settings]


def off() -> dict[str, list[str]]:
    """Settings by name: the plain pipeline, the recipe without each part, and with a part in another form."""
    found = {PLAIN: {}}
    found |= {
        f"without {part}": {name: settings for name, settings in RECIPE.items() if name != part} for part in RECIPE
    }
    found |= {name: RECIPE | other for name, other in OTHERWISE.items()}
    return {name: settings_of(parts) for name, parts in found.items()} | {
        "sequence stage": [*settings_of(RECIPE), *STAGES["sequence stage"]]
    }


OFF, ON = off(), {f"with {part}": settings for part, settings in (RECIPE | STAGES).items()}
VARIANTS = {WHOLE: settings_of(RECIPE)} | OFF | ON
TABLES = {WHOLE: (WHOLE, *OFF), PLAIN: (PLAIN, *ON)}  # what is compared with what


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", choices=DATA, default=list(DATA))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--runs", type=Path, default=Path("runs/ablations"))
    parser.add_argument("--write", type=Path, help="a folder with an ablations.md to put the tables into")
    parser.add_argument("settings", nargs="*", help="settings for every run, e.g. rounds=6 paths.prepared=...")
    asked = parser.parse_args()
    begin_loading()
    for data in asked.data:
        for seed in asked.seeds:
            for name in dict.fromkeys([WHOLE, PLAIN, *asked.only]):
                run(asked, data, name, seed)
    found = finished(asked.runs)
    report(found, TABLES)
    if asked.write:
        write(found, TABLES, asked.write)


def run(asked: argparse.Namespace, data: str, name: str, seed: int) -> None:
    """One variant, now or earlier."""
    always, seeded = DATA[data]
    seeds = [setting.format(seed) for setting in seeded]
    config = compose_config(
        [*always, *VARIANTS[name], *seeds, "resume=true", "run.keep=last", *asked.settings], STRATEGIES
    )
    cohort = cohort_for_run(config, lambda what, done, total: None)
    run_federation(config, cohort, folder_of(asked.runs, data, name, seed), ())
    print(f"{data}, {name}, seed {seed}: done", flush=True)


def folder_of(runs: Path, data: str, name: str, seed: int) -> Path:
    return runs / data / f"{name.replace(' ', '_')}-{seed}"


def finished(runs: Path) -> Found:
    """By cohort and variant, the folders of all finished runs by seed."""
    found: Found = {}
    for data in DATA:
        for name in VARIANTS:
            for folder in sorted((runs / data).glob("*")):
                seed = folder.name.rpartition("-")[2]
                if seed.isdigit() and folder_of(runs, data, name, int(seed)) == folder and is_finished(folder):
                    found.setdefault(data, {}).setdefault(name, {})[int(seed)] = folder
    return found


if __name__ == "__main__":
    main()
