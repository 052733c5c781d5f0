"""An event of a run as one line for people."""

from collections.abc import Mapping
from typing import Any

from fl_rsna.command_end import EndKind
from fl_rsna.reporting.task_words import area_name, plural
from fl_rsna.runs import REST
from fl_rsna.task import TaskName, named_task

DONE = {
    "train": "trained",
    "validation": "validated",
    "recalibration": "recalibrated",
    "encoding": "made features",
    "operating points": "counted for the operating points",
    "scorecard": "scored the final model",
}


def sentence(event: Mapping[str, Any]) -> str:
    """What an event says; of one that lacks what its kind has, its name alone."""
    try:
        return _sentence(event)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError):
        return str(event["event"])


def _sentence(event: Mapping[str, Any]) -> str:
    match event["event"]:
        case "waiting":
            return f"waiting for sites: {event['sites']} of {event['expected']} are there"
        case "answered":
            return f"roll call: {event['sites']} of {event['expected']} sites answered, the others pack their images"
        case "roll_call":
            here = [parts["train"]["slices"] for parts in event["sites"].values() if "train" in parts]
            return f"roll call: {len(here)} sites, {sum(here)} training {plural(picture_of(event))}"
        case "resumed":
            return f"resumed after round {event['round']}"
        case "warning":
            return str(event["text"])
        case "encoded":
            return f"{event['sites']} sites have features under the slice model, {event['computed']} made them now"
        case "round_start":
            return f"round {event['round']}: {len(event['sites'])} sites train"
        case "site_done":
            return _site_line(event)
        case "site_failed":
            return f"round {event['round']}: {event['site']} failed in {event['phase']}: {event['error']}"
        case "worker_died":
            return f"round {event['round']}: a worker died under {event['site']} ({event['how']})"
        case "round_end":
            return round_line(event, None)
        case "stopped_early":
            return f"stopped early after round {event['round']}: none was better than round {event['best_round']}"
        case "site_alone_done":
            return f"{event['site']} alone: its own model is done"
        case "fold_start":
            return f"fold {event['fold']} of {event['folds']}: a model that every site leaves it out of"
        case "fold_end":
            return f"fold {event['fold']} of {event['folds']}: its model is done"
        case "tracker_failed":
            return f"tracking with {event['tracker']} ended, the run goes on: {event['error']}"
        case "run_failed":
            words = failed_words(event)
            return f"the run {words}" if words.startswith("failed") else f"the run was {words}"
        case "run_end":
            chosen = (
                ""
                if whole_choice(event.get("selected_on"))
                else f"; round {event['selected_round']} was chosen {choice_rests(event['selected_on'])}"
            )
            return f"the run is finished, {event['wall_s']:.0f} s in all rounds{chosen}"
        case other:
            return str(other)


def failed_words(event: Mapping[str, Any]) -> str:
    """How a run ended that is not finished: `failed: why`, `refused: why`, or what interrupted it."""
    reason = str(event.get("reason", "no reason given"))
    match event.get("kind"):
        case EndKind.interrupted | EndKind.stopped:
            return reason
        case EndKind.refused:
            return f"refused: {reason}"
        case _:
            return f"failed: {reason}"


def _site_line(event: Mapping[str, Any]) -> str:
    metrics = event["metrics"]
    parts = [f"round {event['round']}: {event['site']} {DONE.get(event['phase'], event['phase'])}"]
    if metrics.get("loss") is not None:
        parts.append(f"loss {metrics['loss']:.3f}")
    if metrics.get("seconds") is not None:
        parts.append(f"{metrics['seconds']:.1f} s")
    return ", ".join(parts)


def _rests(row: Mapping[str, Any]) -> str:
    """On how many sites a round's validation rests, where it is not on fresh answers of all."""
    sites, carried, unknown = (row.get(name) or 0 for name in REST)
    if not carried and not unknown:
        return ""
    return f" on {sites:.0f} of {sites + unknown:.0f} sites" + (
        f" ({carried:.0f} by an earlier answer)" if carried else ""
    )


def whole_choice(rests: Mapping[str, Any] | None) -> bool:
    """Whether a choice of round, as summary.json tells it, needs no word: it rests on fresh answers of all sites, or on none."""
    return not rests or not (rests["carried"] or rests["unknown"])


def choice_rests(rests: Mapping[str, Any]) -> str:
    """On whose answers the choice of round rests, in words."""
    carried = [f"{site} by its answer of round {round_}" for site, round_ in rests["carried"].items()]
    unknown = [f"{', '.join(rests['unknown'])} never answered by then"] if rests["unknown"] else []
    return "; ".join([f"on {rests['sites']} of {rests['of']} sites", *carried, *unknown])


def picture_of(roll_call: Mapping[str, Any]) -> str:
    """What a run's task calls an image, by the event of its roll call."""
    return named_task(TaskName(roll_call.get("task", TaskName.ich))).picture


def round_line(row: Mapping[str, Any], rounds: int | None) -> str:
    """A row of rounds.csv with the AUROC it is judged by, of `rounds`."""
    name, test = area_name(row["headline"]), row[f"test_auroc_{row['headline']}"]
    parts = [f"round {row['round']}" + ("" if rounds is None else f"/{rounds}")]
    validation = row["validation_loss"]
    if row["train_loss"] is not None:
        parts.append(f"train loss {row['train_loss']:.3f}")
    if row["train_loss"] is not None or validation is not None:
        parts.append(
            f"validation loss {validation:.3f}{_rests(row)}" if validation is not None else "validation failed"
        )
    parts.append(f"test {name} {test:.3f}" if test is not None else f"test {name} undefined")
    return ", ".join([*parts, f"{row['seconds']:.1f} s"])
