"""The story of a run: roll call, rounds of training and evaluation, and the final model with its scores."""

import secrets
import time
from dataclasses import replace
from typing import Any

from flwr.app import MessageType
from flwr.serverapp import Grid

from fl_rsna.cohort.sites.site_folders import Cohort
from fl_rsna.federation.protocol.messages import Instructions, instruct
from fl_rsna.federation.protocol.simulated import drops_out, site_seconds, slowdown
from fl_rsna.federation.rules.server_rules import Step, next_floats, second_vector
from fl_rsna.federation.server.checkpoint import Progress, load_checkpoint, save_progress
from fl_rsna.federation.server.context import RunContext, call_sites
from fl_rsna.federation.server.finish import finish, read_best, write_best, write_last
from fl_rsna.federation.server.replies import (
    Asked,
    BelowQuorum,
    SiteReply,
    address,
    aggregate_replies,
    average_metric,
    read_evaluations,
    sample_sites,
)
from fl_rsna.federation.server.roll_call import Site
from fl_rsna.federation.server.run_log import STATE, keep_round, recorder, write_round
from fl_rsna.federation.server.same_sites import choose, count_answers, has_news, of_round, with_answers
from fl_rsna.federation.server.sequence import with_features
from fl_rsna.federation.site.memory import check_memories
from fl_rsna.learning.training.train import compute_learning_rate, schedule_factor
from fl_rsna.run_folder.run_folder import TABLES, RunFolder
from fl_rsna.settings.choices import Norm, StrategyName
from fl_rsna.settings.config import Config


def run_rounds(grid: Grid, config: Config, cohort: Cohort, run: RunFolder) -> None:
    """Train a global model over the sites behind `grid` and write the whole run folder.

    A run folder with a checkpoint goes on after the round it holds. Raises ValueError before round 1 when the roll call
    refuses; BelowQuorum when too few sites reply and FloatingPointError when the model diverges: then there is no model
    file, and the checkpoint of the last good round stays. What is raised is told in the folder by `end_in_folder`.
    """
    setting = call_sites(grid, config, cohort, run)
    progress = begin(setting)
    try:
        setting = with_features(setting, progress)
        play_rounds(setting, progress)
        finish(setting, progress)
    except (BelowQuorum, FloatingPointError):
        write_last(setting, progress)
        raise


def begin(setting: RunContext) -> Progress:
    """The state to go on from: the folder's checkpoint, or round 0."""
    path = setting.run.checkpoints / STATE
    if path.exists():
        progress, facts = load_checkpoint(path, setting.run.identity())
        if 0 < progress.best_round < progress.round:
            progress.best = read_best(setting, progress)
        check_memories(setting.run.site_memory, progress.run_id, progress.accepted)
        changed = setting.run.rewind(progress.round, facts.get(TABLES))
        setting.run.event("resumed", round=progress.round)
        for text in changed:
            setting.run.event("warning", text=text)
        return progress
    setting.run.rewind(-1)
    start = time.perf_counter()
    initial = setting.initial
    progress = Progress(model=initial, shown=initial, best=initial, run_id=secrets.token_hex(8))
    point = setting.test.curve_point(initial)
    write_round(setting.run, setting.test.task, 0, {**point, "seconds": time.perf_counter() - start})
    save(setting, progress)
    return progress


def save(setting: RunContext, progress: Progress) -> None:
    """Write the checkpoint, with whose it is and how far the tables were."""
    run = setting.run
    save_progress(run.checkpoints / STATE, progress, {**run.identity(), TABLES: run.table_hashes()})


def play_rounds(setting: RunContext, progress: Progress) -> None:
    """All rounds that are left, until the last or until train.patience rounds that could be compared were no better."""
    start, before, patience = time.perf_counter(), progress.seconds, setting.config.train.patience
    while progress.round < setting.config.rounds:
        if patience is not None and progress.best_round and progress.no_better >= patience:
            setting.run.event("stopped_early", round=progress.round, best_round=progress.best_round)
            return
        _play_round(setting, progress, progress.round + 1)
        progress.seconds = before + time.perf_counter() - start
        save(setting, progress)


def _play_round(setting: RunContext, progress: Progress, round_: int) -> None:
    start = time.perf_counter()
    config, task = setting.config, setting.test.task
    chosen = sample_sites(setting.sites, config.strategy, config.seed, round_)
    out = {site.name for site in setting.sites if drops_out(config.faults, config.seed, site.name, round_)}
    setting.run.event("round_start", round=round_, sites=[site.name for site in chosen])
    rate = compute_learning_rate(config.train, round_, config.rounds)
    told = replace(
        setting.told,
        run_id=progress.run_id,
        round=round_,
        learning_rate=rate,
        accepted=dict(progress.accepted),
        estimate=config.model.norm is Norm.adapted
        and setting.encoder is None
        and round_ == 1,  # a head has no BatchNorm
    )
    trained = _train(setting, progress, told, chosen, out)
    progress.round = round_
    progress.average(config.strategy)
    trained_at = time.perf_counter()
    reachable = [site for site in setting.sites if site.name not in out]
    evaluated = validate(setting, progress, replace(told, accepted=dict(progress.accepted)), reachable)
    validated_at = time.perf_counter()
    progress.answers = with_answers(progress.answers, evaluated, round_)
    _keep(setting, progress)
    point = setting.test.curve_point(progress.shown)
    replies = trained + evaluated
    row: dict[str, Any] = {
        "train_loss": average_metric((reply.metrics for reply in trained), "loss"),
        **of_round(
            progress.answers,
            round_,
            {"validation_loss": "loss", f"validation_auroc_{task.primary_label}": f"auroc/{task.primary_label}"},
        ),
        **count_answers(progress.answers, [site.name for site in setting.sites], round_),
        **point,
        "sites": len(chosen),
        "failed": sum(bool(reply.error) for reply in replies),
        "bytes_down": sum(reply.bytes_down for reply in replies),
        "bytes_up": sum(reply.bytes_up for reply in replies),
        "virtual_s": max(reply.metrics.get("virtual_s", config.faults.deadline_s or 0.0) for reply in trained),
        "train_s": trained_at - start,
        "validation_s": validated_at - trained_at,
        "test_s": time.perf_counter() - validated_at,
        "seconds": time.perf_counter() - start,
    }
    progress.bytes_down += row["bytes_down"]
    progress.bytes_up += row["bytes_up"]
    progress.failures += row["failed"]
    progress.virtual_s += row["virtual_s"]
    write_round(setting.run, task, round_, row)


def _train(
    setting: RunContext, progress: Progress, told: Instructions, chosen: list[Site], out: set[str]
) -> list[SiteReply]:
    """Send the global model to the chosen sites and replace it with what the strategy makes of their replies."""
    strategy, round_ = setting.config.strategy, told.round
    second_size = int(setting.trained.sum()) if strategy.name is StrategyName.scaffold else 0
    precision = setting.config.network.precision_down
    if told.keep_all:
        keep_round(setting.run, told, precision, second_size)
    second = second_vector(progress.memory, second_size)
    asked = [site for site in chosen if site.name not in out]
    messages, down = address(
        asked, MessageType.TRAIN, progress.model, instruct(told), round_, second, precision, setting.exact
    )
    expected = Asked(
        sites=chosen,
        model=progress.model,
        strategy=strategy,
        train=setting.config.train,
        round=round_,
        bytes_down=down,
        second_size=second_size,
        timed=lambda reply: _virtual_seconds(setting, reply, round_),
        deadline_s=setting.config.faults.deadline_s,
        absent=out,
        stepped=setting.stepped,
    )
    arriving = setting.deliver(messages)
    folded, integers, replies = aggregate_replies(expected, arriving, recorder(setting.run, "train", round_))
    factor = schedule_factor(strategy.server_schedule, round_, setting.config.rounds)
    step = Step(
        strategy=strategy,
        rate=strategy.server_learning_rate * factor,
        round=round_,
        x=progress.model.floats,
        folded=folded,
        num_sites=len(setting.sites),
        stepped=setting.stepped,
        trained=setting.trained,
    )
    floats, progress.memory = next_floats(step, progress.memory)
    progress.model = replace(progress.model, floats=floats, integers=integers)
    progress.accepted |= {reply.site: round_ for reply in replies if not reply.error}
    return replies


def _virtual_seconds(setting: RunContext, reply: SiteReply, round_: int) -> float:
    config = setting.config
    return site_seconds(
        config.network,
        reply.site,
        bytes_down=reply.bytes_down,
        bytes_up=reply.bytes_up,
        steps=reply.metrics.get("steps", 0.0),
        slowdown=slowdown(config.faults, config.seed, reply.site, round_),
    )


def validate(setting: RunContext, progress: Progress, told: Instructions, sites: list[Site]) -> list[SiteReply]:
    """Score the model that is shown on the validation part of each of `sites`."""
    messages, down = address(
        sites,
        MessageType.EVALUATE,
        progress.shown,
        instruct(told),
        told.round,
        None,
        setting.config.network.precision_down,
        setting.exact,
    )
    replies = setting.deliver(messages)
    return read_evaluations(sites, replies, bytes_down=down, on_reply=recorder(setting.run, "validation", told.round))


def _keep(setting: RunContext, progress: Progress) -> None:
    """Take the round's model for the best when the sites' validation says so: federation/server/same_sites.py.

    A round that no site answered is compared with none. The best model gets its own file when a later round is no better:
    until then it is in the checkpoint. That comes before the later round's checkpoint, so a run killed in between finds the
    file or does not need it.
    """
    progress.choice = choose(progress.choice, progress.answers, progress.round)
    if progress.best_round == progress.round:
        progress.best, progress.no_better = progress.shown, 0
        return
    progress.no_better += has_news(progress.answers, progress.round)
    if 0 < progress.best_round == progress.round - 1:
        write_best(setting, progress)
