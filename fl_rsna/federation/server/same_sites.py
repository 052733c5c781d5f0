"""Rounds are compared on the same sites: what each site's validation part said last, and which round is chosen by it.

A site that does not answer in a round is taken to say what it said last, so two rounds differ only by sites that answered in
between. A later round is compared with the best so far on the sites that had answered by both. Where these hold no more than
half of the validation slices of all that have answered by now, too little is known of the earlier round, and the later one is
taken: no round stays the best for the loss of a few sites that were heard first.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from fl_rsna.federation.server.ask import SiteReply
from fl_rsna.run_folder.run_folder import REST

LOSS, EXAMPLES = "loss", "num-examples"  # among a reply's metrics


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a site said last of its validation part, and of which round's model."""

    round: int
    metrics: dict[str, float]


Answers = dict[str, Answer]  # by site, those that have answered


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The best round so far; 0 before there is one."""

    round: int = 0
    answers: Answers = field(default_factory=dict)  # the sites' last by then, of what it was chosen by


def read_answers(plain: dict[str, Any]) -> Answers:
    """What `asdict` made of answers, read from JSON."""
    return {site: Answer(**answer) for site, answer in plain.items()}


def read_choice(plain: dict[str, Any]) -> Choice:
    """The same of a choice."""
    return Choice(round=plain["round"], answers=read_answers(plain["answers"]))


def with_answers(known: Answers, replies: list[SiteReply], round_: int) -> Answers:
    """`known` after a round. Failures and validation parts without a slice say nothing."""
    return known | {
        reply.site: Answer(round=round_, metrics=dict(reply.metrics))
        for reply in replies
        if not reply.error and reply.metrics.get(EXAMPLES, 0) > 0
    }


def has_news(known: Answers, round_: int) -> bool:
    """Whether any site answered in the round; else there is nothing to compare it by."""
    return any(answer.round == round_ for answer in known.values())


def choose(before: Choice, known: Answers, round_: int, metric: str = LOSS) -> Choice:
    """The round just played where it is better than the best before, else that. One that no site answered is never better."""
    told = {
        site: replace(answer, metrics={name: answer.metrics[name] for name in (metric, EXAMPLES)})
        for site, answer in known.items()
        if metric in answer.metrics
    }
    if not has_news(told, round_):
        return before
    now = [answer.metrics for site, answer in told.items() if site in before.answers]
    then = [before.answers[site].metrics for site in told if site in before.answers]
    if 2 * _examples(now) > _examples(answer.metrics for answer in told.values()):
        loss, least = average_metric(now, metric), average_metric(then, metric)
        assert loss is not None
        assert least is not None
        if not loss < least:
            return before
    return Choice(round=round_, answers=told)


def _examples(found: Iterable[Mapping[str, float]]) -> float:
    return sum(metrics[EXAMPLES] for metrics in found)


def of_round(known: Answers, round_: int, metrics: Mapping[str, str]) -> dict[str, float | None]:
    """Columns of rounds.csv: the mean of the sites' last answers, a metric, or None in a round that no site answered."""
    news = has_news(known, round_)
    found = [answer.metrics for answer in known.values()]
    return {column: average_metric(found, metric) if news else None for column, metric in metrics.items()}


def count_answers(known: Answers, sites: Iterable[str], round_: int) -> dict[str, int]:
    """Columns of rounds.csv: how many of `sites` these means rest on, how many of them by an earlier answer, how many never answered."""
    on = [answer.round for answer in known.values()] if has_news(known, round_) else []
    unknown = sum(site not in known for site in sites)
    return dict(zip(REST, (len(on), sum(answered < round_ for answered in on), unknown), strict=True))


def rests_on(choice: Choice, sites: Iterable[str]) -> dict[str, Any]:
    """What summary.json says of a choice: of how many sites it rests on, whose answers are of which earlier round, and who had not answered."""
    names = list(sites)
    return {
        "sites": len(choice.answers),
        "of": len(names),
        "carried": {site: answer.round for site, answer in choice.answers.items() if answer.round < choice.round},
        "unknown": [site for site in names if site not in choice.answers],
    }


def average_metric(found: Iterable[Mapping[str, float]], metric: str) -> float | None:
    """A metric over the sites that have it among what they `found`, weighted by their examples."""
    pairs = [(metrics[metric], metrics["num-examples"]) for metrics in found if metric in metrics]
    weight = sum(examples for _, examples in pairs)
    return sum(value * examples for value, examples in pairs) / weight if weight else None
