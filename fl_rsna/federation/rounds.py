"""The story of a run: roll call, rounds of training and evaluation, and the final model with its scores."""

import json
import secrets
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from flwr.app import MessageType
from flwr.serverapp import Grid
from safetensors.torch import save

from fl_rsna.cohort.sites import Cohort, counts
from fl_rsna.cohort.split import TEST_SITE
from fl_rsna.cohort.whole import write_whole
from fl_rsna.config import Config, Select
from fl_rsna.federation.held_out import HeldOut
from fl_rsna.federation.messages import (
    FlatModel,
    Instructions,
    flatten,
    instruct,
    layout_sha256,
    model_sha256,
    unflatten,
)
from fl_rsna.federation.rollcall import Site, call_roll, check_roll, hashed_patients, summed_controls
from fl_rsna.federation.strategies import (
    BelowQuorum,
    SiteReply,
    address,
    aggregate,
    flower_strategy,
    read_evaluations,
    sample_sites,
    weighted_mean,
)
from fl_rsna.learning.dataset import open_site
from fl_rsna.learning.model import Classifier, build_model
from fl_rsna.learning.seeds import derive_seed
from fl_rsna.learning.train import learning_rate_of
from fl_rsna.runs import RunFolder
from fl_rsna.task import named_task


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What stays the same in every round."""

    grid: Grid
    config: Config
    cohort: Cohort
    sites: list[Site]
    told: Instructions
    test: HeldOut
    run: RunFolder
    network: Classifier  # for its names and shapes; models are flat vectors everywhere else


@dataclass(slots=True)
class Progress:
    """What changes from round to round."""

    model: FlatModel
    best: FlatModel
    best_round: int = 0
    best_loss: float = float("inf")
    bytes_down: int = 0
    bytes_up: int = 0
    failures: int = 0


def run_rounds(grid: Grid, config: Config, cohort: Cohort, run: RunFolder) -> None:
    """Train a global model over the sites behind `grid` and write the whole run folder.

    Raises ValueError before round 1 when the roll call refuses; BelowQuorum when too few sites reply and
    FloatingPointError when the model diverges: then summary.json says failed and there is no model file.
    """
    start = time.perf_counter()
    setting = _call_sites(grid, config, cohort, run)
    initial = flatten(setting.network)
    progress = Progress(model=initial, best=initial)
    _write_round(setting, 0, {**setting.test.curve_point(initial), "seconds": time.perf_counter() - start})
    try:
        for round_ in range(1, config.rounds + 1):
            _play_round(setting, progress, round_)
    except (BelowQuorum, FloatingPointError) as error:
        run.event("run_failed", reason=str(error))
        run.write_json("summary.json", {"status": "failed", "reason": str(error), "rounds": config.rounds})
        raise
    _finish(setting, progress, start)


def _call_sites(grid: Grid, config: Config, cohort: Cohort, run: RunFolder) -> Setting:
    """Roll call and everything that must be right before a site trains."""
    task = named_task(config.data.task)
    network = build_model(config.model, task, cohort.image, seed=derive_seed(config.seed, "initial model"))
    told = Instructions(
        task=task.name,
        model=config.model,
        train=config.train,
        seed=config.seed,
        round=0,
        learning_rate=config.train.learning_rate,
        layout_sha256=layout_sha256(network),
        salt=secrets.token_hex(16),
        group_key=cohort.facts["disjoint"]["by"],
    )
    held_out = open_site(cohort.site_folder(TEST_SITE), image_size=config.model.image_size)
    sites = call_roll(grid, told, expected=len(cohort.sites), timeout_s=config.strategy.timeout_s)
    strangers = hashed_patients(held_out.index[told.group_key], told.salt)
    check_roll(sites, cohort_sha256=cohort.sha256, task=task.name, test_patients=strangers)
    held = {**{site.name: site.counts for site in sites}, TEST_SITE: counts(held_out.index, task)}
    known = {"leaky": cohort.facts.get("leaky", False), "noise": cohort.facts.get("noise", {})}
    run.event("roll_call", sites=held, rounds=config.rounds, **known)
    test = HeldOut(held_out, task, config.model, config.train)
    return Setting(grid=grid, config=config, cohort=cohort, sites=sites, told=told, test=test, run=run, network=network)


def _play_round(setting: Setting, progress: Progress, round_: int) -> None:
    start = time.perf_counter()
    chosen = sample_sites(setting.sites, setting.config.strategy.fraction, setting.config.seed, round_)
    setting.run.event("round_start", round=round_, sites=[site.name for site in chosen])
    rate = learning_rate_of(setting.config.train, round_, setting.config.rounds)
    told = replace(setting.told, round=round_, learning_rate=rate)
    trained = _train(setting, progress, told, chosen)
    trained_at = time.perf_counter()
    evaluated = _validate(setting, progress, told)
    validated_at = time.perf_counter()
    _keep(setting, progress, round_, weighted_mean(evaluated, "loss"))
    point = setting.test.curve_point(progress.model)
    headline = setting.test.task.headline
    replies = trained + evaluated
    row: dict[str, Any] = {
        "train_loss": weighted_mean(trained, "loss"),
        "validation_loss": weighted_mean(evaluated, "loss"),
        f"validation_auroc_{headline}": weighted_mean(evaluated, f"auroc/{headline}"),
        **point,
        "sites": len(chosen),
        "failed": sum(bool(reply.error) for reply in replies),
        "bytes_down": sum(reply.bytes_down for reply in replies),
        "bytes_up": sum(reply.bytes_up for reply in replies),
        "train_s": trained_at - start,
        "validation_s": validated_at - trained_at,
        "test_s": time.perf_counter() - validated_at,
        "seconds": time.perf_counter() - start,
    }
    progress.bytes_down += row["bytes_down"]
    progress.bytes_up += row["bytes_up"]
    progress.failures += row["failed"]
    _write_round(setting, round_, row)


def _train(setting: Setting, progress: Progress, told: Instructions, chosen: list[Site]) -> list[SiteReply]:
    """Send the global model to the chosen sites and replace it with the strategy's aggregate."""
    messages, down = address(chosen, MessageType.TRAIN, progress.model, instruct(told), told.round)
    progress.model, replies = aggregate(
        flower_strategy(setting.config.strategy),
        told.round,
        progress.model,
        chosen,
        setting.grid.send_and_receive(messages, timeout=setting.config.strategy.timeout_s),
        quorum=setting.config.strategy.quorum,
        bytes_down=down,
        on_reply=_recorder(setting.run, "train", told.round),
    )
    return replies


def _validate(setting: Setting, progress: Progress, told: Instructions) -> list[SiteReply]:
    """Score the global model on every site's own validation part."""
    messages, down = address(setting.sites, MessageType.EVALUATE, progress.model, instruct(told), told.round)
    replies = setting.grid.send_and_receive(messages, timeout=setting.config.strategy.timeout_s)
    return read_evaluations(
        setting.sites, replies, bytes_down=down, on_reply=_recorder(setting.run, "validation", told.round)
    )


def _recorder(run: RunFolder, phase: str, round_: int) -> Callable[[SiteReply], None]:
    """Write each site's part as it comes: an event, and a row of sites.csv."""

    def record(reply: SiteReply) -> None:
        if reply.error:
            run.event(
                "site_failed", round=round_, phase=phase, site=reply.site, error=reply.error, traceback=reply.traceback
            )
        else:
            run.event("site_done", round=round_, phase=phase, site=reply.site, metrics=reply.metrics)
        kept = {name: reply.metrics.get(name) for name in ("num-examples", "steps", "loss", "seconds")}
        areas = {
            name.replace("auroc/", "auroc_"): value
            for name, value in reply.metrics.items()
            if name.startswith("auroc/")
        }
        row = {
            "round": round_,
            "phase": phase,
            "site": reply.site,
            **kept,
            "bytes_down": reply.bytes_down,
            "bytes_up": reply.bytes_up,
        }
        run.append_row("sites", {**row, "error": reply.error, "aurocs": json.dumps(areas) if areas else ""})

    return record


def _keep(setting: Setting, progress: Progress, round_: int, validation_loss: float | None) -> None:
    """Write the last and, when the sites' validation says so, the best checkpoint."""
    if validation_loss is not None and validation_loss < progress.best_loss:
        progress.best, progress.best_round, progress.best_loss = progress.model, round_, validation_loss
        _save_model(setting, progress.best, "checkpoints/best.safetensors", {"round": round_})
    _save_model(setting, progress.model, "checkpoints/last.safetensors", {"round": round_})


def _write_round(setting: Setting, round_: int, row: dict[str, Any]) -> None:
    headline = setting.test.task.headline
    columns = ["round", "train_loss", "validation_loss", f"validation_auroc_{headline}", "test_loss"]
    columns += [f"test_auroc_{label}" for label in setting.test.task.labels]
    columns += ["sites", "failed", "bytes_down", "bytes_up", "train_s", "validation_s", "test_s", "seconds"]
    full = {name: row.get(name) for name in columns} | {"round": round_}
    setting.run.append_row("rounds", full)
    setting.run.event("round_end", headline=headline, **full)


def _finish(setting: Setting, progress: Progress, start: float) -> None:
    """Score the selected model with intervals, and write it, its predictions and summary.json."""
    last = setting.config.train.select is Select.last or progress.best_round == 0
    final, selected = (progress.model, setting.config.rounds) if last else (progress.best, progress.best_round)
    found = setting.test.probabilities(final)
    scores = setting.test.scores(found, summed_controls(setting.sites), setting.config.seed)
    setting.test.predictions(found).to_parquet(setting.run.folder / "predictions.parquet", index=False)
    sha256 = model_sha256(final, setting.told.layout_sha256)
    _save_model(setting, final, "model.safetensors", {"round": selected, "model_sha256": sha256})
    summary = {
        "status": "finished",
        "model_sha256": sha256,
        "rounds": setting.config.rounds,
        "selected_round": selected,
        "selected_by": "last round" if last else "validation loss",
        "seed": setting.config.seed,
        "strategy": setting.config.strategy.name.value,
        "engine": setting.config.engine.name.value,
        "cohort": {"name": setting.cohort.name, "sha256": setting.cohort.sha256, "sites": len(setting.sites)},
        "leaky": setting.cohort.facts.get("leaky", False),
        "wall_s": time.perf_counter() - start,
        "bytes_down": progress.bytes_down,
        "bytes_up": progress.bytes_up,
        "site_failures": progress.failures,
        "test_site": scores,
    }
    setting.run.write_json("summary.json", summary)
    setting.run.event("run_end", model_sha256=sha256, selected_round=selected, wall_s=summary["wall_s"])


def _save_model(setting: Setting, model: FlatModel, name: str, facts: dict[str, Any]) -> None:
    """Write a model as safetensors, with what is needed to build and read it in its metadata."""
    unflatten(model, setting.network)
    told = setting.told
    metadata = {
        "task": told.task,
        "image": setting.cohort.image.value,
        "model": json.dumps(asdict(told.model)),
        "facts": json.dumps(facts),
    }
    tensors = {key: tensor.contiguous() for key, tensor in setting.network.state_dict().items()}
    write_whole(setting.run.folder / name, save(tensors, metadata=metadata))
