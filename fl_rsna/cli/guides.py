"""Write the --help of every command that takes settings: what it does, its main settings, examples, and where more is.

Meaning, type, default and range of a setting come from its declaration in fl_rsna/settings/.
"""

import textwrap
from dataclasses import dataclass
from typing import Any

from fl_rsna.evaluation.settings import EnsembleConfig, EvaluateConfig, ExportConfig
from fl_rsna.settings.config import Config
from fl_rsna.settings.reference import Described, describe_settings, list_default_choices, list_groups
from fl_rsna.settings.suggest import find_near, suggest_key

WIDTH, LEFT = 100, 30  # columns of a page, and of the settings in it
CHOICES = {  # the groups of which a file is chosen, with what the choice is about
    "task": "what is learned",
    "partition": "how patients are assigned to sites",
    "strategy": "how models are combined, and how sites train",
    "model": "the network",
    "experiment": "a whole set-up",
    "train": "a set-up of training",
    "engine": "where sites run",
    "tracking": "where numbers go besides the run folder",
    "data": "a set-up of the data",
    "faults": "what goes wrong on purpose",
    "network": "the simulated network",
}
SHOWN = ("task", "partition", "strategy", "model", "experiment")  # in the help of a run


@dataclass(frozen=True, slots=True, kw_only=True)
class Guide:
    """What the help of a command says. `main` are the keys it shows; `--help all` shows those of `schema`, which has all of them."""

    about: str
    main: tuple[str, ...]
    examples: tuple[str, ...]
    page: str
    schema: type[Any] = Config
    groups: tuple[str, ...] = ()
    more: str = "Exit codes: 0 done, 1 it failed, 2 the request cannot be met (one sentence on stderr)."


RUN = (
    *("data.name", "partition.num_sites", "partition.test", "rounds", "train.local_epochs", "train.batch_size"),
    *("train.learning_rate", "train.optimizer", "train.device", "model.image_size", "strategy.fraction", "baseline", "stage"),
    *("engine.workers", "seed", "start", "run.name", "resume"),
)  # fmt: skip
SCORE = ("data.dicom", "data.name", "data.labels", "site", "part", "shift", "out", "train.device", "seed")
GUIDES = {
    "simulate": Guide(
        about="Run a whole federation on this machine, and write its report to runs/<name>/. Without data.name it runs on synthetic head CT.",
        main=RUN,
        groups=SHOWN,
        examples=(
            "rounds=5 run.name=first",
            "data.name=mine partition.num_sites=8 partition=dirichlet partition.alpha=0.3",
            "--multirun strategy=fedavg,fedprox seed=0,1,2 run.name=kinds",
        ),
        page="docs/settings.md",
    ),
    "doctor": Guide(
        about="Check whether a run with these settings can work here, and say what to change. Nothing is written; no network is used.",
        main=RUN,
        groups=SHOWN,
        examples=("", "rounds=5 model=efficientnet_b3", "data.name=mine partition.num_sites=8 train.device=cuda"),
        page="docs/settings.md",
        more="Exit codes: 0 no problem, 1 at least one, 2 the settings cannot be read.",
    ),
    "coordinate": Guide(
        about="Run a federation between machines, from beside the SuperLink, and write its report. All settings are those of simulate.",
        main=(
            *(
                "deploy.superlink",
                "deploy.ca",
                "deploy.authorized",
                "deploy.first_timeout_s",
                "partition.name",
                "rounds",
            ),
            *("strategy.timeout_s", "strategy.lost", "strategy.quorum", "privacy.min_count", "train.local_epochs"),
            *("train.batch_size", "train.learning_rate", "run.name", "resume"),
        ),
        groups=SHOWN,
        examples=(
            "rounds=10 run.name=first",
            "partition.name=stroke-2026 strategy=fedprox strategy.lost=wait",
            "run.name=first resume=true",
        ),
        page="docs/deploy.md",
    ),
    "prepare": Guide(
        about="Convert DICOM files and their labels to prepared/<name>/: one PNG a slice and an index. The same command goes on after a kill.",
        main=(
            *("data.dicom", "data.labels", "data.name", "data.size", "data.image", "data.hash_ids", "data.salt"),
            *(
                "data.max_rejected",
                "data.unlabelled",
                "data.unannotated",
                "data.test_set",
                "prepare.workers",
                "paths.prepared",
            ),
        ),
        groups=("task",),
        examples=(
            "data.dicom=scans/ data.labels=labels.csv data.name=mine",
            "data.dicom=rsna.zip data.name=rsna data.size=256",
            "data.dicom=films/ data.labels=study.csv data.name=films task=covid_cxr",
        ),
        page="docs/preparation.md",
    ),
    "partition": Guide(
        about="Assign the patients of prepared data to sites, in site_data/<cohort>/.",
        main=(
            *("data.name", "partition.num_sites", "partition.alpha", "partition.test", "partition.validation"),
            *(
                "partition.group",
                "partition.name",
                "partition.assignment",
                "partition.folds",
            ),
            *("partition.fold", "partition.layout", "seed"),
        ),
        groups=("partition",),
        examples=(
            "data.name=mine partition.num_sites=4",
            "data.name=mine partition=dirichlet partition.alpha=0.5",
            "data.name=mine partition=explicit partition.assignment=sites.csv",
        ),
        page="docs/settings.md",
    ),
    "evaluate": Guide(
        about="Score scans with a saved model, slice by slice and exam by exam. Research use, not for diagnosis.",
        main=("model", *SCORE, "page.exams"),
        schema=EvaluateConfig,
        examples=(
            "model=runs/first data.dicom=scans/",
            "model=runs/first data.name=mine shift=true",
            "model=runs/first/model.safetensors site=site_data/demo/site-1 part=validation",
        ),
        page="docs/commands.md",
    ),
    "ensemble": Guide(
        about="Score scans with several saved models together. Research use, not for diagnosis.",
        main=("models", "weights", *SCORE, "page.exams"),
        schema=EnsembleConfig,
        examples=(
            "models=[runs/a,runs/b] data.dicom=scans/",
            "models=[runs/a,runs/b] data.name=mine shift=true",
            "models=[a.safetensors,b.safetensors] weights=[0.6,0.4] site=site_data/demo/site-1",
        ),
        page="docs/commands.md",
    ),
    "export": Guide(
        about="Write a saved model as ONNX, compared with torch, and its model card. It needs pip install 'fl-rsna[export]'.",
        main=("model", "site", "out", "seed"),
        schema=ExportConfig,
        examples=(
            "model=runs/first",
            "model=runs/first/model.safetensors out=first-onnx",
            "model=runs/first site=site_data/demo/site-1",
        ),
        page="docs/commands.md",
    ),
}


def list_command_keys(name: str) -> tuple[str, ...]:
    """List the keys that a command of GUIDES takes."""
    return tuple(_describe_schema(GUIDES[name].schema))


def write_help(name: str, topic: str = "") -> str:
    """Write the help of a command, or of a `topic`: all, a group of settings, or one key. Raises ValueError for a topic that is none."""
    guide = GUIDES[name]
    if topic:
        return "\n".join(_write_topic(guide, topic)) + "\n"
    described = _describe_schema(guide.schema)
    lines = [
        f"fl-rsna {name} [key=value ...]",
        "",
        *textwrap.wrap(guide.about, WIDTH),
        "",
        "Main settings, with their defaults:",
    ]
    for key in guide.main:
        lines += _write_setting(described[key])
    if guide.groups:
        lines += ["", "Choices:"]
        for group in guide.groups:
            lines += _write_choice(group, longest=8)
    lines += ["", "Examples:", *(f"  fl-rsna {name} {arguments}".rstrip() for arguments in guide.examples), ""]
    topics = f"every setting: fl-rsna {name} --help all" + (
        "; of a group: --help train" if guide.schema is Config else ""
    )
    lines += textwrap.wrap(f"More: {topics}; {guide.page}.", WIDTH)
    return "\n".join([*lines, *textwrap.wrap(guide.more, WIDTH)]) + "\n"


def _write_topic(guide: Guide, topic: str) -> list[str]:
    described, groups = _describe_schema(guide.schema), list_groups() if guide.schema is Config else {}
    lines = _write_choice(topic) if topic in groups else []
    if topic == "all":
        chosen = list(described)
    elif topic in described:
        chosen = [topic]
    else:
        chosen = [key for key in described if key.startswith(f"{topic}.")]
    if not chosen and not lines:
        tops = {key.partition(".")[0] for key in described}
        near = find_near(topic, [*tops, *groups, "all"])
        said = (
            f"; did you mean --help {near}?"
            if near
            else suggest_key(topic, described, otherwise="--help all shows every setting")
        )
        raise ValueError(f"--help {topic}: expected a group of settings, a key or all{said}")
    for key in chosen:
        lines += _write_setting(described[key])
    if topic in ("all", "strategy") and guide.schema is Config:
        lines += _write_strategies()
    return lines


def _write_strategies() -> list[str]:
    """Write the settings that single strategies have of their own."""
    from fl_rsna.strategies.find import STRATEGIES

    common, lines = _describe_schema(Config), list[str]()
    for name, strategy in STRATEGIES.items():
        own = [one for one in describe_settings(strategy.settings(), "strategy.") if one.key not in common]
        if own:
            lines += ["", f"Of strategy={name}:", *(line for one in own for line in _write_setting(one))]
    return lines


def _write_setting(one: Described) -> list[str]:
    return _two_columns(f"{one.key}={one.value}", f"{one.meaning} ({one.values})")


def _write_choice(group: str, longest: int = 1000) -> list[str]:
    names = list_groups()[group]
    said = ", ".join(names[:longest]) + (f", ... ({len(names)}; --help {group})" if len(names) > longest else "")
    return _two_columns(
        f"{group}={list_default_choices().get(group, 'null')}", f"{CHOICES.get(group, 'a choice of settings')}: {said}"
    )


def _two_columns(left: str, right: str) -> list[str]:
    """Write a line with `left` in the first column and `right` wrapped in the second, which begins a line lower where `left` is long."""
    wrapped = textwrap.wrap(right, WIDTH - LEFT - 4, break_long_words=False)
    above = [f"  {left}"] if len(left) > LEFT else []
    first = "" if above else left
    return [*above, *(f"  {first if not number else '':<{LEFT}}  {line}" for number, line in enumerate(wrapped))]


def _describe_schema(schema: type[Any]) -> dict[str, Described]:
    return {one.key: one for one in describe_settings(schema())}
