"""What can go wrong between containers, done on purpose: one row a scenario, exit code 0 when all ended as expected.

Run by compose_e2e.sh, in a folder that holds docker-compose.yml, .env and the cohorts, with superlink and sites up. The words after -- are
the runs'; --model is the hash they end with when nothing goes wrong.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
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


def fenced_in(words: list[str], model: str) -> Row:
    """What code that runs at a site could do there, by trying it."""
    seen = json.loads(compose("exec", "-T", "site-1", "python", "-c", LOOK_AROUND.read_text()))
    return Row(
        "code at a site looks around",
        "docker compose exec site-1 python",
        "is not root, writes to /state and /tmp only, reaches the superlink only and starts no run there",
        ", ".join(f"{what}: {found}" for what, found in seen.items()),
        seen == {"user": "not root", "writes": ["/state", "/tmp"], "reaches": ["superlink"], "control": 403},
    )


def killed_site(words: list[str], model: str) -> Row:
    run = start("killed-site", [*words, "strategy.lost=go_on"])
    wait_for(run, "round_start", round=1)
    time.sleep(1)
    kill("site-2")
    went_on = wait_for(run, "round_end", round=1)
    call("docker", "start", container("site-2"))
    last, failed, back = ending(run), events(run.name, "site_failed"), events(run.name, "site_done", site="site-2")
    errors = sorted({f"{event['site']}: {event['error']}" for event in failed})
    return Row(
        "a site dies in round 1 and is started again when the round is over",
        "docker kill -s KILL site-2; docker start; strategy.lost=go_on",
        "round 1 ends with the rest and names site-2, which takes part again under its name",
        f"exit code {last.code}; {'; '.join(errors)}; then {len(back)} answers of site-2",
        went_on and bool(back) and last.code == 0 and {event["site"] for event in failed} == {"site-2"},
    )


def waited_for(words: list[str], model: str) -> Row:
    run = start("waited-for", [*words, "strategy.lost=wait"])
    wait_for(run, "round_start", round=1)
    time.sleep(1)
    kill("site-1")
    call("docker", "start", container("site-1"))
    return unharmed(
        run,
        "a site dies in round 1 and is started again",
        "docker kill -s KILL site-1; docker start; strategy.lost=wait",
        model,
    )


def cut_off(words: list[str], model: str) -> Row:
    run = start("cut-off", [*words, "strategy.lost=wait"])
    wait_for(run, "round_start", round=1)
    network, site = f"{PROJECT}_federation", container("site-3")
    call("docker", "network", "disconnect", network, site)
    time.sleep(CUT_OFF_S)
    call("docker", "network", "connect", "--alias", "site-3", network, site)
    how = "docker network disconnect site-3; connect; strategy.lost=wait"
    return unharmed(run, f"a site has no network for {CUT_OFF_S} s", how, model)


def unharmed(run: Run, what: str, how: str, model: str) -> Row:
    """A run that only takes longer."""
    last, failures, found = ending(run), events(run.name, "site_failed"), model_of(run.name)
    seen = f"exit code {last.code}; {len(failures)} failures, model {found}"
    return Row(
        what, how, f"the round waits for it, model {model}", seen, last.code == 0 and not failures and found == model
    )


def full_disk(words: list[str], model: str) -> Row:
    with instead("site-1", {"volumes": ["tiny:/state"]}, {"tiny": TINY}):
        run = start("full-disk", [*words, "strategy.lost=go_on"])
        wait_for(run, "round_start", round=1)
        call("docker", "exec", container("site-1"), "sh", "-c", "dd if=/dev/zero of=/state/full bs=1M 2>&1 || true")
        last = ending(run)
    errors = sorted({str(event["error"]) for event in events(run.name, "site_failed", site="site-1")})
    others = [event for event in events(run.name, "site_failed") if event["site"] != "site-1"]
    return Row(
        "a site's disk fills up in round 1",
        "site-1's state is a volume of 600 MB, and something writes until it is full",
        "ends with the rest, and names site-1 and its full disk",
        f"exit code {last.code}; site-1: {'; '.join(errors) or 'no failure'}",
        last.code == 0 and not others and any("space" in error for error in errors),
    )


def refused(name: str, words: list[str], what: str, said: dict[str, object], reason: str) -> Row:
    with instead("site-3", said):
        run = start(name, words)
        last = ending(run)
    return Row(
        f"a site with another {what}",
        f"site-3 with another {what}",
        f"refused at the roll call: {reason}",
        f"exit code {last.code}; {last.said}",
        last.code in (1, 2) and reason in last.said and not events(name, "round_start"),
    )


def other_cohort(words: list[str], model: str) -> Row:
    folder = {"type": "bind", "source": f"./site_data/{OTHER_COHORT}/site-3", "target": "/site", "read_only": True}
    return refused("other-cohort", words, "cohort", {"volumes": [folder]}, "copy the same cohort")


def other_version(words: list[str], model: str) -> Row:
    return refused("other-version", words, "version of fl_rsna", {"image": OTHER_IMAGE}, "same version everywhere")


def killed_server(words: list[str], model: str) -> Row:
    """The superlink alone, whose run the coordinator takes up again; then, in the next round, both."""
    run = start("killed-server", words)
    wait_for(run, "round_start", round=1)
    kill("superlink")
    call("docker", "start", container("superlink"))
    alone = wait_for(run, "round_end", round=1)
    how = "docker kill -s KILL superlink in round 1; in round 2 superlink and coordinator"
    return resumed(
        run,
        words,
        model,
        f"superlink dies ({'the run went on' if alone else 'the run was over'}); then both",
        how,
        kill_both,
    )


def kill_both() -> None:
    kill("superlink", "coordinator")


def taken_down(words: list[str], model: str) -> Row:
    run = start("taken-down", words)
    return resumed(
        run,
        words,
        model,
        "everything is taken down",
        "docker compose down in round 2",
        lambda: compose("down", "--timeout", "5"),
    )


def resumed(run: Run, words: list[str], model: str, what: str, how: str, stop: Callable[[], object]) -> Row:
    """Stop it all in round 2, and start it again."""
    wait_for(run, "round_start", round=2)
    reported = events(run.name, "round_end")
    stop()
    ending(run)
    compose("up", "-d")
    last = ending(start(run.name, [*words, "resume=true"]))
    kept = events(run.name, "round_end")[: len(reported)] == reported
    after = [event["round"] for event in events(run.name, "resumed")]
    return Row(
        what,
        f"{how}; up; coordinator with resume=true",
        f"goes on after round 1, model {model}",
        f"exit code {last.code}; taken up after rounds {after}, {'all' if kept else 'not all'} kept, model {model_of(run.name)}",
        last.code == 0 and bool(reported) and kept and model_of(run.name) == model,
    )


SCENARIOS = {
    scenario.__name__.replace("_", "-"): scenario
    for scenario in (
        fenced_in,
        killed_site,
        waited_for,
        cut_off,
        full_disk,
        other_cohort,
        other_version,
        killed_server,
        taken_down,
    )
}


def played(name: str, words: list[str], model: str) -> Row:
    """One scenario; what the engine refuses to do is a row, too."""
    try:
        return SCENARIOS[name](words, model)
    except (RuntimeError, IndexError) as error:
        return Row(name, "", "", str(error), False)


def table(rows: list[Row]) -> str:
    lines = ["| scenario | what was done | expected | seen | ok |", "|---|---|---|---|---|"]
    for row in rows:
        cells = (row.scenario, row.done, row.expected, row.seen, "yes" if row.ok else "NO")
        lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    return "\n".join(lines)


def main(names: list[str], words: list[str], model: str) -> int:
    rows = []
    for name in names:
        started = time.monotonic()
        rows.append(played(name, words, model))
        print(
            f"{time.monotonic() - started:5.0f}s  {'ok' if rows[-1].ok else 'NOT AS EXPECTED'}: {rows[-1].scenario}",
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
    parser.add_argument("words", nargs="*", help="of the runs, as for the coordinator")
    told = parser.parse_args()
    sys.exit(main(told.only, told.words, told.model[:12]))
