"""Choose the best round by comparing rounds on the same sites: each site's last validation scores are kept.

A site that does not answer in a round keeps its last answer, so two rounds differ only by sites that answered in between. A later
round is compared with the best round so far on the sites that had answered by both. Where these sites hold no more than half of the
validation slices of all sites that have answered by now, too little is known of the earlier round, and the later one is taken.
Otherwise a round could stay the best by the loss of a few sites that answered first.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypedDict

from fl_rsna.federation.server.ask import SiteReply
from fl_rsna.run_folder.run_folder import REST
from fl_rsna.run_folder.summary import Rests

LOSS, EXAMPLES = "loss", "num-examples"  # among a reply's metrics


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A site's last validation scores, and the round whose model they are of."""

    round: int
    metrics: dict[str, float]


Answers = dict[str, Answer]  # by site, those that have answered


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The best round so far; 0 before there is one."""

    round: int = 0
    answers: Answers = field(default_factory=dict)  # the sites' last answers by then, with the metric it was chosen by


class PlainAnswer(TypedDict):
    """An answer in a checkpoint's JSON."""

    round: int
    metrics: dict[str, float]


class PlainChoice(TypedDict):
    """A choice in a checkpoint's JSON."""

    round: int
    answers: dict[str, PlainAnswer]


def read_answers(plain: Mapping[str, PlainAnswer]) -> Answers:
    """Read answers from a checkpoint's JSON, which `asdict` made."""
    return {site: Answer(round=answer["round"], metrics=answer["metrics"]) for site, answer in plain.items()}


def read_choice(plain: PlainChoice) -> Choice:
    """Read a choice from a checkpoint's JSON, which `asdict` made."""
    return Choice(round=plain["round"], answers=read_answers(plain["answers"]))


def with_answers(known: Answers, replies: list[SiteReply], round_: int) -> Answers:
    """Update the answers `known` with a round's replies; failures and validation parts without a slice change nothing."""
    return known | {
        reply.site: Answer(round=round_, metrics=dict(reply.metrics))
        for reply in replies
        if not reply.error and reply.metrics.get(EXAMPLES, 0) > 0
    }


def has_news(known: Answers, round_: int) -> bool:
    """Tell whether any site answered in the round, so that it can be compared."""
    return any(answer.round == round_ for answer in known.values())


def choose(before: Choice, known: Answers, round_: int, metric: str = LOSS) -> Choice:
    """Choose the round just played if its `metric` is lower than the best round's, else the best round; a round without answers is not chosen."""
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
    """Average the sites' last answers for columns of rounds.csv (column -> metric); None in a round that no site answered."""
    news = has_news(known, round_)
    found = [answer.metrics for answer in known.values()]
    return {column: average_metric(found, metric) if news else None for column, metric in metrics.items()}


def count_answers(known: Answers, sites: Iterable[str], round_: int) -> dict[str, int]:
    """Count for rounds.csv the sites that the means rest on, those of them with an earlier answer, and those of `sites` without any."""
    on = [answer.round for answer in known.values()] if has_news(known, round_) else []
    unknown = sum(site not in known for site in sites)
    return dict(zip(REST, (len(on), sum(answered < round_ for answered in on), unknown), strict=True))


def rests_on(choice: Choice, sites: Iterable[str]) -> Rests:
    """Describe for summary.json the answers that a choice among `sites` rests on."""
    names = list(sites)
    return {
        "sites": len(choice.answers),
        "of": len(names),
        "carried": {site: answer.round for site, answer in choice.answers.items() if answer.round < choice.round},
        "unknown": [site for site in names if site not in choice.answers],
    }


def average_metric(found: Iterable[Mapping[str, float]], metric: str) -> float | None:
    """Average a metric over the sites that have it, weighted by their numbers of examples; None where no site has it."""
    pairs = [(metrics[metric], metrics["num-examples"]) for metrics in found if metric in metrics]
    weight = sum(examples for _, examples in pairs)
    return sum(value * examples for value, examples in pairs) / weight if weight else None
