"""What can go wrong between containers, done on purpose: one row a scenario, exit code 0 when all ended as expected.

Run by compose_e2e.sh, in a folder that holds docker-compose.yml, .env and the cohorts, with superlink and sites up. The arguments after -- are
the runs'; --model is the hash they end with when nothing goes wrong.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from compose_run import PROJECT, Run, call, compose, container, ending, events, instead, kill, model_of, start, wait_for

OTHER_COHORT, OTHER_IMAGE = "other", f"{PROJECT}:other"  # made by compose_e2e.sh
CUT_OFF_S = 10
TINY = {"driver": "local", "driver_opts": {"type": "tmpfs", "device": "tmpfs", "o": "size=600m,mode=1777"}}
LOOK_AROUND = Path(__file__).with_name("compose_look_around.py")


@dataclass(frozen=True)
class Row:
    scenario: str
    done: str
    expected: str
    seen: str
    ok: bool


def fenced_in(arguments: list[str], model: str) -> Iterator[Row]:
    """What code that runs at a site could do there, by trying it."""
    seen = json.loads(compose("exec", "-T", "site-1", "python", "-c", LOOK_AROUND.read_text()))
    yield Row(
        "code at a site looks around",
        "docker compose exec site-1 python",
        "is not root, writes to /state and /tmp only, reaches the superlink only and starts no run there",
        ", ".join(f"{what}: {found}" for what, found in seen.items()),
        seen == {"user": "not root", "writes": ["/state", "/tmp"], "reaches": ["superlink"], "control": 403},
    )


def went_on(arguments: list[str], model: str) -> Iterator[Row]:
    """One run that goes on without lost sites: in round 1 a site dies, and another's disk fills up."""
    with instead("site-1", {"volumes": ["tiny:/state"]}, {"tiny": TINY}):
        run = start("went-on", [*arguments, "strategy.lost=go_on"])
        wait_for(run, "round_start", round=1)
        call("docker", "exec", container("site-1"), "sh", "-c", "dd if=/dev/zero of=/state/full bs=1M 2>&1 || true")
        kill("site-2")
        over = wait_for(run, "round_end", round=1)
        call("docker", "start", container("site-2"))
        last, failed, back = ending(run), failures_of(run), events(run.name, "site_done", site="site-2")
    yield Row(
        "a site dies in round 1 and is started again when the round is over",
        "docker kill -s KILL site-2; docker start; strategy.lost=go_on",
        "round 1 ends with the rest and names site-2, which takes part again under its name",
        f"site-2: {failed.get('site-2')}; then {len(back)} answers of site-2",
        over and bool(back) and "site-2" in failed,
    )
    yield Row(
        "a site's disk fills up in the same run",
        "site-1's state is a volume of 600 MB, and something writes until it is full",
        "the run ends with the rest, and names site-1 and its full disk",
        f"exit code {last.code}: {last.said}; site-1: {failed.get('site-1')}",
        last.code == 0 and "space" in failed.get("site-1", "") and "site-3" not in failed,
    )


def failures_of(run: Run) -> dict[str, str]:
    """What each site that failed said last, or was said of it."""
    return {event["site"]: str(event["error"]) for event in events(run.name, "site_failed")}


def waited_for(arguments: list[str], model: str) -> Iterator[Row]:
    """One run that waits for lost sites: in round 1 a site dies, in round 2 another loses its network."""
    run = start("waited-for", [*arguments, "strategy.lost=wait"])
    wait_for(run, "round_start", round=1)
    time.sleep(1)
    kill("site-1")
    call("docker", "start", container("site-1"))
    how = "docker kill -s KILL site-1; docker start; strategy.lost=wait"
    yield unharmed(run, 1, "a site dies and is started again", how)
    network, site = f"{PROJECT}_federation", container("site-3")
    call("docker", "network", "disconnect", network, site)
    time.sleep(CUT_OFF_S)
    call("docker", "network", "connect", "--alias", "site-3", network, site)
    how = "docker network disconnect site-3; connect; strategy.lost=wait"
    yield unharmed(run, 2, f"a site has no network for {CUT_OFF_S} s", how)
    yield same_model(run, "the run of both", model)


def unharmed(run: Run, round_: int, what: str, how: str) -> Row:
    """A round that only takes longer."""
    ended, failures = wait_for(run, "round_end", round=round_), events(run.name, "site_failed", round=round_)
    seen = f"{'over' if ended else 'not over'}, {len(failures)} failures"
    return Row(what, how, f"round {round_} waits for it", seen, ended and not failures)


def same_model(run: Run, what: str, model: str) -> Row:
    last, found = ending(run), model_of(run.name)
    seen = f"exit code {last.code}, model {found}"
    return Row(what, "nothing more", f"model {model}, as undisturbed", seen, last.code == 0 and found == model)


def refused(name: str, arguments: list[str], what: str, said: dict[str, object], reason: str) -> Row:
    with instead("site-3", said):
        run = start(name, arguments)
        last = ending(run)
    return Row(
        f"a site with another {what}",
        f"site-3 with another {what}",
        f"refused at the roll call: {reason}",
        f"exit code {last.code}; {last.said}",
        last.code in (1, 2) and reason in last.said and not events(name, "round_start"),
    )


def other_cohort(arguments: list[str], model: str) -> Iterator[Row]:
    folder = {"type": "bind", "source": f"./site_data/{OTHER_COHORT}/site-3", "target": "/site", "read_only": True}
    yield refused("other-cohort", arguments, "cohort", {"volumes": [folder]}, "copy the same cohort")


def other_version(arguments: list[str], model: str) -> Iterator[Row]:
    yield refused("other-version", arguments, "version of fl_rsna", {"image": OTHER_IMAGE}, "same version everywhere")


def killed_server(arguments: list[str], model: str) -> Iterator[Row]:
    """One run: its superlink dies in round 1; in round 2 the coordinator, too; then everything is taken down."""
    run = start("killed-server", arguments)
    wait_for(run, "round_start", round=1)
    kill("superlink")
    call("docker", "start", container("superlink"))
    over = wait_for(run, "round_end", round=1)
    seen = f"round 1 is {'over' if over else 'not over'}, taken up {len(events(run.name, 'resumed'))} times"
    expected = "the coordinator takes the run up again"
    yield Row("the superlink dies", "docker kill -s KILL superlink; docker start", expected, seen, over)
    run, row = resumed(run, arguments, "superlink and coordinator die", "docker kill -s KILL", kill_both)
    yield row
    run, row = resumed(run, arguments, "everything is taken down", "docker compose down", take_down)
    yield row
    yield same_model(run, "the run of all three", model)


def kill_both() -> None:
    kill("superlink", "coordinator")


def take_down() -> None:
    compose("down", "--timeout", "5")


def resumed(run: Run, arguments: list[str], what: str, how: str, stop: Callable[[], None]) -> tuple[Run, Row]:
    """Stop it all in round 2, and start it again."""
    before = len(events(run.name, "resumed"))
    wait_for(run, "round_start", round=2)
    reported = events(run.name, "round_end")
    stop()
    ending(run)
    compose("up", "-d")
    run = start(run.name, [*arguments, "resume=true"])
    wait_for(run, "resumed", more_than=before)
    kept = events(run.name, "round_end")[: len(reported)] == reported
    after = [event["round"] for event in events(run.name, "resumed")][before:]
    seen = f"goes on after round {after}, {'all' if kept else 'not all'} rounds kept"
    how = f"{how} in round 2; up; coordinator with resume=true"
    return run, Row(what, how, "loses no round that was reported", seen, kept and after == [1])


SCENARIOS: dict[str, Callable[[list[str], str], Iterator[Row]]] = {
    scenario.__name__.replace("_", "-"): scenario
    for scenario in (fenced_in, went_on, waited_for, other_cohort, other_version, killed_server)
}


def played(name: str, arguments: list[str], model: str) -> Iterator[Row]:
    """A scenario's rows; what the engine refuses to do is a row, too."""
    try:
        yield from SCENARIOS[name](arguments, model)
    except (RuntimeError, IndexError) as error:
        yield Row(name, "", "", str(error), False)


def table(rows: list[Row]) -> str:
    lines = ["| scenario | what was done | expected | seen | ok |", "|---|---|---|---|---|"]
    for row in rows:
        cells = (row.scenario, row.done, row.expected, row.seen, "yes" if row.ok else "NO")
        lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    return "\n".join(lines)


def main(names: list[str], arguments: list[str], model: str) -> int:
    rows = []
    started = time.monotonic()
    for name in names:
        for row in played(name, arguments, model):
            rows.append(row)
            print(
                f"{time.monotonic() - started:5.0f}s  {'ok' if row.ok else 'NOT AS EXPECTED'}: {row.scenario}",
                flush=True,
            )
    print(table(rows))
    good = sum(row.ok for row in rows)
    print(json.dumps({"scenarios": len(rows), "as_expected": good, "model_sha256": model}))
    return 0 if good == len(rows) else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Faults between containers, and what came of them.")
    parser.add_argument("--model", required=True, help="the model's hash when nothing goes wrong")
    parser.add_argument("--only", nargs="+", choices=SCENARIOS, default=list(SCENARIOS))
    parser.add_argument("arguments", nargs="*", help="of the runs, as for the coordinator")
    told = parser.parse_args()
    sys.exit(main(told.only, told.arguments, told.model[:12]))
