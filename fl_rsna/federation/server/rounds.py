"""Run a federated training: roll call, rounds of training and evaluation, and the final model with its scores."""

import secrets
import time
from dataclasses import replace

from flwr.app import MessageType
from flwr.serverapp import Grid

from fl_rsna.cohort.sites.site_folders import Cohort
from fl_rsna.federation.protocol.messages import Instructions, instruct, num_bytes
from fl_rsna.federation.protocol.simulated import drops_out, site_seconds, slowdown
from fl_rsna.federation.server.aggregation import Asked, aggregate_replies
from fl_rsna.federation.server.ask import BelowQuorum, SiteReply, ask, count_traffic, model_content, recorder, send
from fl_rsna.federation.server.checkpoint import Progress, load_checkpoint, save_progress
from fl_rsna.federation.server.context import RunContext, call_sites
from fl_rsna.federation.server.finish import finish, read_best, write_best, write_last
from fl_rsna.federation.server.roll_call import Site
from fl_rsna.federation.server.run_log import STATE, keep_round, write_round
from fl_rsna.federation.server.same_sites import average_metric, choose, count_answers, has_news, of_round, with_answers
from fl_rsna.federation.server.sampling import sample_sites
from fl_rsna.federation.server.sequence import with_features
from fl_rsna.federation.site.memory import check_memories
from fl_rsna.learning.training.train import compute_learning_rate, schedule_factor
from fl_rsna.run_folder.run_folder import RunFolder
from fl_rsna.settings.config import Config
from fl_rsna.settings.model import Norm
from fl_rsna.strategies.find import find_strategy
from fl_rsna.strategies.strategy import Step, take_step


def run_rounds(grid: Grid, config: Config, cohort: Cohort, run: RunFolder) -> None:
    """Train a global model over the sites behind `grid` and write the whole run folder.

    A run folder with a checkpoint goes on after the checkpoint's round. Raises ValueError before round 1 when the roll call
    refuses, BelowQuorum when too few sites reply, and FloatingPointError when the model diverges: then there is no model
    file, and the checkpoint of the last good round stays. `end_in_folder` records the error in the folder.
    """
    context = call_sites(grid, config, cohort, run)
    progress = begin(context)
    try:
        context = with_features(context, progress)
        play_rounds(context, progress)
        finish(context, progress)
    except (BelowQuorum, FloatingPointError):
        write_last(context, progress)
        raise


def begin(context: RunContext) -> Progress:
    """Read the state from the folder's checkpoint, or make and save that of round 0."""
    path = context.run.checkpoints / STATE
    if path.exists():
        progress, tables = load_checkpoint(path, context.run.identity())
        if 0 < progress.best_round < progress.round:
            progress.best = read_best(context, progress)
        check_memories(context.run.site_memory, progress.run_id, progress.accepted)
        changed = context.run.rewind(progress.round, tables)
        context.run.event("resumed", round=progress.round)
        for text in changed:
            context.run.event("warning", text=text)
        return progress
    context.run.rewind(-1)
    start = time.perf_counter()
    initial = context.initial
    progress = Progress(model=initial, shown=initial, best=initial, run_id=secrets.token_hex(8))
    point = context.test.curve_point(initial)
    write_round(context.run, context.test.task, 0, {**point, "seconds": time.perf_counter() - start})
    save(context, progress)
    return progress


def save(context: RunContext, progress: Progress) -> None:
    """Write the checkpoint, with the run it is of and the hashes of its tables."""
    run = context.run
    save_progress(run.checkpoints / STATE, progress, run.identity(), run.table_hashes())


def play_rounds(context: RunContext, progress: Progress) -> None:
    """Play the rounds that are left, until the last, or until train.patience comparable rounds in a row were no better."""
    start, before, patience = time.perf_counter(), progress.seconds, context.config.train.patience
    while progress.round < context.config.rounds:
        if patience is not None and progress.best_round and progress.no_better >= patience:
            context.run.event("stopped_early", round=progress.round, best_round=progress.best_round)
            return
        _play_round(context, progress, progress.round + 1)
        progress.seconds = before + time.perf_counter() - start
        save(context, progress)


def _play_round(context: RunContext, progress: Progress, round_: int) -> None:
    start = time.perf_counter()
    config, task = context.config, context.test.task
    chosen = sample_sites(context.sites, config.strategy, config.seed, round_)
    out = {site.name for site in context.sites if drops_out(config.faults, config.seed, site.name, round_)}
    context.run.event("round_start", round=round_, sites=[site.name for site in chosen])
    rate = compute_learning_rate(config.train, round_, config.rounds)
    instructions = replace(
        context.instructions,
        run_id=progress.run_id,
        round=round_,
        learning_rate=rate,
        accepted=dict(progress.accepted),
        estimate=config.model.norm is Norm.adapted
        and context.encoder is None
        and round_ == 1,  # a head has no BatchNorm
    )
    trained = _train(context, progress, instructions, chosen, out)
    progress.round = round_
    progress.average(config.strategy)
    trained_at = time.perf_counter()
    reachable = [site for site in context.sites if site.name not in out]
    evaluated = validate(context, progress, replace(instructions, accepted=dict(progress.accepted)), reachable)
    validated_at = time.perf_counter()
    progress.answers = with_answers(progress.answers, evaluated, round_)
    _keep(context, progress)
    point = context.test.curve_point(progress.shown)
    traffic = count_traffic(progress, trained + evaluated)
    virtual_s = max(reply.metrics.get("virtual_s", config.faults.deadline_s or 0.0) for reply in trained)
    row: dict[str, float | None] = {
        "train_loss": average_metric((reply.metrics for reply in trained), "loss"),
        **of_round(
            progress.answers,
            round_,
            {"validation_loss": "loss", f"validation_auroc_{task.primary_label}": f"auroc/{task.primary_label}"},
        ),
        **count_answers(progress.answers, [site.name for site in context.sites], round_),
        **point,
        "sites": len(chosen),
        "failed": traffic["failures"],
        "bytes_down": traffic["bytes_down"],
        "bytes_up": traffic["bytes_up"],
        "virtual_s": virtual_s,
        "train_s": trained_at - start,
        "validation_s": validated_at - trained_at,
        "test_s": time.perf_counter() - validated_at,
        "seconds": time.perf_counter() - start,
    }
    progress.virtual_s += virtual_s
    write_round(context.run, task, round_, row)


def _train(
    context: RunContext, progress: Progress, instructions: Instructions, chosen: list[Site], out: set[str]
) -> list[SiteReply]:
    """Send the global model to the chosen sites, aggregate their replies, and take the strategy's step."""
    settings, round_ = context.config.strategy, instructions.round
    strategy = find_strategy(settings)
    second_size = int(context.trained.sum()) if strategy.second is not None else 0
    precision = context.config.network.precision_down
    if instructions.keep_all:
        keep_round(context.run, instructions, precision, second_size)
    second = None if strategy.second is None else strategy.second(progress.memory, second_size)
    asked = [site for site in chosen if site.name not in out]
    content = model_content(progress.model, instruct(instructions), second, precision, context.exact)
    expected = Asked(
        sites=chosen,
        model=progress.model,
        strategy=strategy,
        settings=settings,
        train=context.config.train,
        round=round_,
        bytes_down=num_bytes(content),
        second_size=second_size,
        timed=lambda reply: _virtual_seconds(context, reply, round_),
        deadline_s=context.config.faults.deadline_s,
        absent=out,
        stepped=context.stepped,
    )
    arriving = send(context, asked, MessageType.TRAIN, content, round_)
    aggregate, integers, replies = aggregate_replies(expected, arriving, recorder(context.run, "train", round_))
    factor = schedule_factor(settings.server_schedule, round_, context.config.rounds)
    step = Step(
        config=settings,
        rate=settings.server_learning_rate * factor,
        round=round_,
        x=progress.model.floats,
        aggregate=aggregate,
        num_sites=len(context.sites),
        stepped=context.stepped,
        trained=context.trained,
    )
    floats, progress.memory = take_step(strategy, step, progress.memory)
    progress.model = replace(progress.model, floats=floats, integers=integers)
    progress.accepted |= {reply.site: round_ for reply in replies if not reply.error}
    return replies


def _virtual_seconds(context: RunContext, reply: SiteReply, round_: int) -> float:
    config = context.config
    return site_seconds(
        config.network,
        reply.site,
        bytes_down=reply.bytes_down,
        bytes_up=reply.bytes_up,
        steps=reply.metrics.get("steps", 0.0),
        slowdown=slowdown(config.faults, config.seed, reply.site, round_),
    )


def validate(context: RunContext, progress: Progress, instructions: Instructions, sites: list[Site]) -> list[SiteReply]:
    """Ask each of `sites` to score the model that is shown on its validation part."""
    network = context.config.network
    content = model_content(progress.shown, instruct(instructions), None, network.precision_down, context.exact)
    record = recorder(context.run, "validation", instructions.round)
    return ask(context, sites, MessageType.EVALUATE, content, round_=instructions.round, on_reply=record)


def _keep(context: RunContext, progress: Progress) -> None:
    """Keep the round's model as the best where the sites' validation chooses it, as federation/server/same_sites.py compares rounds.

    A round that no site answered is not compared. The best model gets its own file when a later round is no better; until then it is
    in the checkpoint. The file is written before the later round's checkpoint, so a run that is killed in between has the file or
    does not need it.
    """
    progress.choice = choose(progress.choice, progress.answers, progress.round)
    if progress.best_round == progress.round:
        progress.best, progress.no_better = progress.shown, 0
        return
    progress.no_better += has_news(progress.answers, progress.round)
    if 0 < progress.best_round == progress.round - 1:
        write_best(context, progress)
