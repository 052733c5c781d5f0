"""Coordinate a run between machines: admit the sites, ask the SuperLink for a run, follow it to its end, and report it.

A SuperLink admits the nodes whose public keys lie in the coordinator's folder. Flower keeps a key that was unregistered on record and
refuses it from then on, so a site that comes back makes a new one.
"""

import contextlib
import json
import secrets
import shlex
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import httpx
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_public_key
from flwr.cli.build import build_fab_from_disk

from fl_rsna.checks.request import Request, check_on_cohort, check_request
from fl_rsna.cohort.sites.site_folders import Cohort, read_cohort
from fl_rsna.common.command_end import ERROR_LOG, EndKind, RunFailed, end_of, goes_on_in
from fl_rsna.common.console_log import CONSOLE_LOG, console_log, keep_log
from fl_rsna.common.ownership import drop, hold_lock, take_back
from fl_rsna.deployment.flower_internals import UNREGISTERED, FlowerRun, as_flower_writes, control
from fl_rsna.deployment.keys.key_folder import key_fingerprint
from fl_rsna.deployment.known_app import APP
from fl_rsna.deployment.server_app import TOKEN, WITHOUT_EFFECT, check_deployable, describe_beside, refusal
from fl_rsna.federation.server.run_log import STATE
from fl_rsna.federation.stages import stages
from fl_rsna.reporting.record.console import console
from fl_rsna.reporting.record.events import EVENTS, Event, EventLog, sentence
from fl_rsna.run_folder.run_end import guard_report
from fl_rsna.run_folder.run_folder import (
    BOTH,
    MANIFEST,
    SLICE_STAGE,
    UNTRAINED,
    RunFolder,
    default_run_name,
    is_begun,
    is_finished,
    is_new,
    kind_of,
    kinds_of,
    refuse_existing,
    take_run,
)
from fl_rsna.settings.compose import list_arguments, quote_value
from fl_rsna.settings.config import Config
from fl_rsna.settings.effects import parse_typed_keys, without_effect
from fl_rsna.settings.fields import Asked, Command
from fl_rsna.settings.runtime import DeployConfig
from fl_rsna.settings.stages import Baseline, Stage
from fl_rsna.simulation.simulation import report_run, say_alone, say_report, say_result


def sync_keys(superlink: str, ca: Path, folder: Path) -> list[str]:
    """Register the keys in the folder, unregister those that are gone from it, and return one sentence for each change.

    `superlink` is `host:port` of this machine, `ca` the authority of its certificate. Raises ValueError, with nothing changed, when the
    folder's keys cannot be read or a key was unregistered before, and when the SuperLink cannot be asked.
    """
    keys = read_keys(folder)
    try:
        with control(superlink, ca.read_bytes()) as api:
            known = {node.public_key: node for node in api.nodes()}
            for name, key in keys.items():
                if key in known and known[key].status == UNREGISTERED:
                    raise ValueError(
                        f"{folder / name}.pub: expected a new key, got one that was unregistered before, which is refused for good; "
                        "have the site make another, or take the file away"
                    )
            new = {name: key for name, key in keys.items() if key not in known}
            gone = [
                node for node in known.values() if node.status != UNREGISTERED and node.public_key not in keys.values()
            ]
            for node in gone:
                api.unregister(node.node_id)
            for name, key in new.items():
                api.register(name, key)
    except httpx.HTTPStatusError as error:
        status, body = error.response.status_code, error.response.text[:200]
        said = f"expected an answer of a SuperLink, got HTTP {status}: {body!r}"
        if status == 403:
            said = "expected the SuperLink of this machine, got one that refuses; run the coordinator beside it, at 127.0.0.1"
        raise ValueError(f"{superlink}: {said}") from None
    except (httpx.HTTPError, OSError) as error:
        raise ValueError(
            f"{superlink}: expected a SuperLink whose certificate {ca} vouches for, got {error}; start it, or name it as its certificate does"
        ) from None
    prints = {name: key_fingerprint((folder / f"{name}.pub").read_bytes()) for name in new}
    return [
        *(
            f"unregistered {node.name or node.node_id}: its key is no longer in {folder}, and cannot come back"
            for node in gone
        ),
        *(f"registered {name}: {prints[name]}" for name in new),
    ]


def read_keys(folder: Path) -> dict[str, bytes]:
    """Read the public keys `<folder>/<site>.pub`, by site.

    Raises ValueError when there is none, when two are the same, and when one cannot be read.
    """
    paths = sorted(folder.glob("*.pub"))
    if not paths:
        raise ValueError(
            f"{folder}: expected the sites' public keys, <site>.pub, got none; collect them, or stop the SuperLink to close the federation"
        )
    keys: dict[str, bytes] = {}
    for path in paths:
        key = _read_key(path)
        if key in keys.values():
            raise ValueError(f"{path}: expected a key of its own, got that of another site; have the site send its own")
        keys[path.stem] = key
    return keys


def _read_key(path: Path) -> bytes:
    try:
        key = load_ssh_public_key(path.read_bytes())
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise ValueError(
            f"{path}: expected the public key that python -m fl_rsna.keys makes at a site, got something else; have it sent again"
        )
    return as_flower_writes(key)


POLL_S, LOOK_S = 1.0, 5.0  # seconds between two looks at the events, and at Flower's run
T = TypeVar("T")


@console_log()
def coordinate(config: Config) -> dict[str, Any]:
    """Run the federation at the sites behind deploy.superlink; a finished run is only reported.

    Raises RunFailed when the run cannot finish. Raises ValueError when it cannot begin, and leaves nothing of it.
    """
    check_deployable(config)
    cohort, folder, deploy = cohort_asked(config), folder_asked(config), config.deploy
    config.run.name = folder.name
    goes_on_in(folder)
    typed = parse_typed_keys(list_arguments(), config)
    request = Request(config=config, command=Command.coordinate, typed=typed, cohort=cohort)
    check_request(request)
    check_on_cohort(request, cohort)
    named = without_effect(Asked(config=config, command=Command.coordinate, image=cohort.image), typed)
    parts = stages(config, folder)
    last, whole = parts[-1][0], None
    kinds = kinds_of(kind_of(config), last, folder)
    new = is_new(folder, kinds, resume=config.resume, begun=is_begun(folder))
    if new and len(parts) > 1:  # the server makes a run of each part; this is the folder that holds them
        with hold_lock(folder):
            whole = take_run(folder, last, cohort, kind=BOTH, resume=config.resume)
    if len(parts) > 1 and not is_finished(folder):
        keep_log(folder)
    try:
        for part, where in parts:
            if not is_finished(where):
                arguments = overrides(part, where.name)
                asked = {"cohort": str(cohort.folder), "runs": str(where.parent), "overrides": arguments}
                asked[WITHOUT_EFFECT] = json.dumps(named)
                log = EventLog(where / EVENTS)
                log.new()  # skip the events that an earlier coordinator has said
                admit(deploy)
                see_to_the_end(deploy, asked, where, log, secrets.token_hex(16))
    except ValueError:
        if whole is not None:
            take_back(folder, whole, (CONSOLE_LOG,))
        raise
    with guard_report(folder, describe_beside(cohort, folder)):
        report = report_run(folder, cohort)
        found = say_alone(folder) if config.baseline is Baseline.local else say_result(folder)
        say_report(report)
        return found


def admit(deploy: DeployConfig) -> None:
    """Admit exactly the sites whose keys lie in deploy.authorized, and say each change."""
    ca = authority(deploy)
    for said in patiently(deploy, lambda: sync_keys(deploy.superlink, ca, Path(deploy.authorized))):
        say(said)


def cohort_asked(config: Config) -> Cohort:
    """Read the server's cohort folder (cohort.json and test-site/): partition.name, or the only one under paths.sites.

    Raises ValueError when partition.name is not given and paths.sites holds no cohort or several.
    """
    sites = Path(config.paths.sites).resolve()
    if config.partition.name is not None:
        return read_cohort(sites / config.partition.name)
    found = sorted(path.parent for path in sites.glob("*/cohort.json") if path.parent.suffix != ".part")
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise ValueError(
            f"partition.name: expected the name of the cohort under {sites}, where there is {names}; say which"
        )
    return read_cohort(found[0])


def folder_asked(config: Config) -> Path:
    """Find the run's folder; raises ValueError when it exists and is not to be resumed."""
    folder = Path(config.paths.runs).resolve() / (config.run.name or default_run_name())
    refuse_existing(folder, resume=config.resume)
    return folder


def authority(deploy: DeployConfig) -> Path:
    """Find the certificate of the authority that signed the SuperLink's. Raises ValueError when deploy.ca is no file."""
    if not Path(deploy.ca).is_file():
        raise ValueError(f"deploy.ca: expected the authority's certificate, got no file {deploy.ca}; copy it here")
    return Path(deploy.ca)


def overrides(part: Config, name: str) -> str:
    """Turn the settings of this command line into those of the server: one stage, the run's name `name`, and resume=true."""
    own = ("run.name", "resume", "stage", "sequence.encoder")
    arguments = [argument for argument in list_arguments() if argument.lstrip("+").split("=")[0] not in own]
    if part.stage is Stage.sequence:
        encoder = str(Path(str(part.sequence.encoder)).resolve())
        arguments += ["stage=sequence", f"sequence.encoder={quote_value(encoder)}"]
    elif part.stage is Stage.stacking:
        arguments += ["stage=stacking"]
    else:
        arguments += ["stage=slice"] if any(argument.startswith("experiment=") for argument in arguments) else []
    return shlex.join([*arguments, f"run.name={quote_value(name)}", "resume=true"])


def see_to_the_end(deploy: DeployConfig, asked: dict[str, str], folder: Path, log: EventLog, token: str) -> None:
    """Ask for the run and follow it until it is finished. A run whose server died is asked for again and goes on from its checkpoint.

    The server writes `token` into a folder that it makes, which proves that the folder was made for this coordinator. Raises
    ValueError for a run that was refused, RunFailed for one that failed, or whose server died more than deploy.attempts times in
    one round.
    """
    lost, last = 0, -1
    while not is_finished(folder):
        run_id = patiently(deploy, lambda: take_up(deploy, asked, token))
        round_ = follow(deploy, run_id, folder, log, token)
        if is_finished(folder):
            return
        lost, last = (1, round_) if round_ > last else (lost + 1, last)
        if lost > deploy.attempts:
            raise RunFailed(
                f"the server's part of {folder} was lost {lost} times in round {last + 1} and left no reason; see the SuperLink's log"
            )
        say("the server's part was lost, and goes on from its last checkpoint")


def take_up(deploy: DeployConfig, asked: dict[str, str], token: str) -> int:
    """Return the id of Flower's run with the settings `asked`: one that an earlier coordinator started and that still runs, else a new one."""
    with control(deploy.superlink, authority(deploy).read_bytes()) as api:
        for run in api.runs():
            if not run.ended and all(run.config.get(key) == value for key, value in asked.items()):
                say(f"following Flower's run {run.run_id}, which plays it already")
                return run.run_id
        return api.start(build_fab_from_disk(APP), {**asked, TOKEN: token})


def follow(deploy: DeployConfig, run_id: int, folder: Path, log: EventLog, token: str) -> int:
    """Say every event until Flower's run is over, and return the last round that ended, -1 for none.

    Raises ValueError or RunFailed for an event that ends the run (raise_for). When it is interrupted, it stops the run, which can be
    resumed, and writes that to its events.
    """
    round_, over, looked = -1, False, 0.0
    try:
        while True:
            for event in log.new():
                say(sentence(event))
                round_ = max(round_, event["round"]) if event["event"] in ("round_end", "resumed") else round_
                if event.get("kind") != EndKind.refused:
                    keep_log(folder)
                raise_for(event, folder, token)
            if over:
                raise_refusal(refusal(folder, token))
                return round_
            if time.monotonic() - looked > LOOK_S:
                run = patiently(deploy, lambda: state_of(deploy, run_id))
                over, looked = run.ended, time.monotonic()
                if over and not (folder / EVENTS).exists():
                    raise_refusal(refusal(folder, token))
                    raise RunFailed(
                        f"the server's part ended before it began: {run.details or 'Flower says no reason'}"
                    )
            time.sleep(0.0 if over else POLL_S)
    except KeyboardInterrupt as error:
        stop(deploy, run_id)
        if (folder / MANIFEST).exists():
            end = end_of(error)
            RunFolder(folder).event("run_failed", kind=end.kind.value, reason=end.reason)
        raise


def raise_for(event: Event, folder: Path, token: str) -> None:
    """Raise ValueError for an event that says that the run was refused, RunFailed for one that says that it failed.

    A run that was refused before its first round is deleted, if `token` proves that its folder was made for this coordinator. Any
    other folder stays as it is.
    """
    match event["event"]:
        case "run_failed" if event.get("kind") == EndKind.unexpected:
            raise RunFailed(f"unexpected {event['reason']}; the traceback is in {folder / ERROR_LOG}")
        case "run_failed" if event.get("kind") != EndKind.refused:
            raise RunFailed(f"{event['reason']}; see {folder / EVENTS}")
        case "run_failed":
            if not (folder / "checkpoints" / STATE).exists() and not (folder / SLICE_STAGE).exists():
                take_back(folder, token, UNTRAINED)
            raise ValueError(event["reason"])


def raise_refusal(path: Path) -> None:
    """Raise ValueError with the reason that the server wrote at `path`, if it did: it writes there when the run's folder is another's."""
    if path.exists():
        reason = path.read_text()
        drop(path)
        raise ValueError(reason)


def state_of(deploy: DeployConfig, run_id: int) -> FlowerRun:
    """Ask the SuperLink for the state of a run; one that it does not know counts as ended."""
    with control(deploy.superlink, authority(deploy).read_bytes()) as api:
        found = [run for run in api.runs() if run.run_id == run_id]
    return (
        found[0] if found else FlowerRun(run_id=run_id, ended=True, details="the SuperLink does not know it", config={})
    )


def stop(deploy: DeployConfig, run_id: int) -> None:
    """Ask the SuperLink to stop a run; nothing happens where it cannot be reached."""
    with contextlib.suppress(httpx.HTTPError), control(deploy.superlink, authority(deploy).read_bytes()) as api:
        api.stop(run_id)


def patiently(deploy: DeployConfig, ask: Callable[[], T]) -> T:
    """Return what `ask` returns. While the SuperLink cannot be reached, ask again for deploy.patience_s seconds, then raise RunFailed."""
    end, said = time.monotonic() + deploy.patience_s, False
    while True:
        try:
            return ask()
        except (httpx.TransportError, ConnectionError) as error:
            if time.monotonic() > end:
                raise RunFailed(
                    f"deploy.superlink: no SuperLink at {deploy.superlink} for {deploy.patience_s:g} s ({error}); start it beside this command"
                ) from None
            if not said:
                say(f"waiting for the SuperLink at {deploy.superlink}: {error}")
            said = True
            time.sleep(POLL_S)


def say(text: str) -> None:
    """Print a line with the time of day in front."""
    console.print(f"{datetime.now():%H:%M:%S}  {text}", soft_wrap=True, markup=False)
