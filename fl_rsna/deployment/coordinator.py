"""The story of a coordinated run: admit the sites, ask the SuperLink for a run, follow it to its end, report.

A SuperLink admits the nodes whose public keys lie in the coordinator's folder. A key that was unregistered is refused for good (Flower keeps
it on record), so a site that comes back makes a new one.
"""

import contextlib
import json
import secrets
import shlex
import time
from collections.abc import Callable, Mapping
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
from fl_rsna.common.ownership import drop, hold_lock, take_back
from fl_rsna.deployment.flower_internals import UNREGISTERED, FlowerRun, Node, as_flower_writes, control
from fl_rsna.deployment.keys.key_folder import key_fingerprint
from fl_rsna.deployment.known_app import APP
from fl_rsna.deployment.server_app import TOKEN, WITHOUT_EFFECT, check_deployable, refusal, words_beside
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
from fl_rsna.settings.compose import quote_value, words_given
from fl_rsna.settings.config import Config
from fl_rsna.settings.effects import parse_typed_keys, without_effect
from fl_rsna.settings.fields import Asked, Command
from fl_rsna.settings.runtime import DeployConfig
from fl_rsna.settings.stages import Baseline, Stage
from fl_rsna.simulation.simulation import report_run, say_alone, say_result


def sync_keys(superlink: str, ca: Path, folder: Path) -> list[str]:
    """Register what is in the folder, unregister what is gone from it; a sentence a change.

    `superlink` is `host:port` of this machine, `ca` the authority of its certificate. Raises ValueError, with nothing changed, when the
    folder's keys cannot be read or a key was unregistered before, and when the SuperLink cannot be asked.
    """
    keys = read_keys(folder)
    try:
        with control(superlink, ca.read_bytes()) as api:
            known = {node.public_key: node for node in api.nodes()}
            _check_none_is_back(keys, known, folder)
            new = {name: key for name, key in keys.items() if key not in known}
            gone = [
                node for node in known.values() if node.status != UNREGISTERED and node.public_key not in keys.values()
            ]
            for node in gone:
                api.unregister(node.node_id)
            for name, key in new.items():
                api.register(name, key)
    except httpx.HTTPStatusError as error:
        raise ValueError(f"{superlink}: {_refusal(error.response)}") from None
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
    """The public keys of `<folder>/<site>.pub` by site. Raises ValueError for none, for two that are the same, and for an unreadable one."""
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
            f"{path}: expected the public key scripts/make_certificates.py makes at a site, got something else; have it sent again"
        )
    return as_flower_writes(key)


def _check_none_is_back(keys: Mapping[str, bytes], known: Mapping[bytes, Node], folder: Path) -> None:
    for name, key in keys.items():
        if key in known and known[key].status == UNREGISTERED:
            raise ValueError(
                f"{folder / name}.pub: expected a new key, got one that was unregistered before, which is refused for good; "
                "have the site make another, or take the file away"
            )


def _refusal(response: httpx.Response) -> str:
    if response.status_code == 403:
        return (
            "expected the SuperLink of this machine, got one that refuses; run the coordinator beside it, at 127.0.0.1"
        )
    return f"expected an answer of a SuperLink, got HTTP {response.status_code}: {response.text[:200]!r}"


POLL_S, LOOK_S = 1.0, 5.0  # between looks at the events, and at Flower's run
T = TypeVar("T")


def coordinate(config: Config) -> dict[str, Any]:
    """Run the federation at the sites behind deploy.superlink; a finished run is only reported.

    Raises RunFailed when it cannot finish, ValueError when it cannot begin; then nothing of it is left.
    """
    check_deployable(config)
    cohort, folder, deploy = cohort_asked(config), folder_asked(config), config.deploy
    config.run.name = folder.name
    goes_on_in(folder)
    typed = parse_typed_keys(words_given(), config)
    request = Request(config=config, command=Command.coordinate, typed=typed, cohort=cohort)
    check_request(request)
    check_on_cohort(request, cohort)
    named = without_effect(Asked(config=config, command=Command.coordinate, image=cohort.image), typed)
    parts = stages(config, folder)
    last, whole = parts[-1][0], None
    kinds = kinds_of(kind_of(config), last, folder)
    new = is_new(folder, kinds, resume=config.resume, begun=is_begun(folder))
    if new and len(parts) > 1:  # the server's parts make the runs; this is the folder around them
        with hold_lock(folder):
            whole = take_run(folder, last, cohort, kind=BOTH, resume=config.resume)
    try:
        for part, where in parts:
            if not is_finished(where):
                _see_to(deploy, part, cohort, where, named)
    except ValueError:
        if whole is not None:
            take_back(folder, whole, ())
        raise
    with guard_report(folder, words_beside(cohort, folder)):
        report = report_run(folder, cohort)
        return say_alone(folder, report) if config.baseline is Baseline.local else say_result(folder, report)


def _see_to(deploy: DeployConfig, config: Config, cohort: Cohort, folder: Path, without: Mapping[str, str]) -> None:
    """One run from the words for the server's part to its end."""
    asked = {"cohort": str(cohort.folder), "runs": str(folder.parent), "overrides": overrides(config, folder.name)}
    asked[WITHOUT_EFFECT] = json.dumps(without)
    log = EventLog(folder / EVENTS)
    log.new()  # told by whoever coordinated it before
    admit(deploy)
    see_to_the_end(deploy, asked, folder, log, secrets.token_hex(16))


def admit(deploy: DeployConfig) -> None:
    """Let in the sites whose keys are authorized, and nobody else."""
    ca = authority(deploy)
    for said in patiently(deploy, lambda: sync_keys(deploy.superlink, ca, Path(deploy.authorized))):
        say(said)


def cohort_asked(config: Config) -> Cohort:
    """The cohort folder of the server, cohort.json and test-site/: partition.name, or the only one under paths.sites."""
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
    """Where the run will be; raises ValueError when it is there already and is not to be resumed."""
    folder = Path(config.paths.runs).resolve() / (config.run.name or default_run_name())
    refuse_existing(folder, resume=config.resume)
    return folder


def authority(deploy: DeployConfig) -> Path:
    """The certificate that vouches for the SuperLink's."""
    if not Path(deploy.ca).is_file():
        raise ValueError(f"deploy.ca: expected the authority's certificate, got no file {deploy.ca}; copy it here")
    return Path(deploy.ca)


def overrides(part: Config, name: str) -> str:
    """The words of this command line for the server's part: one stage, under this run's name, and ready to go on where one was lost."""
    own = ("run.name", "resume", "stage", "sequence.encoder")
    words = [word for word in words_given() if word.lstrip("+").split("=")[0] not in own]
    if part.stage is Stage.sequence:
        encoder = str(Path(str(part.sequence.encoder)).resolve())
        words += ["stage=sequence", f"sequence.encoder={quote_value(encoder)}"]
    elif part.stage is Stage.stacking:
        words += ["stage=stacking"]
    else:
        words += ["stage=slice"] if any(word.startswith("experiment=") for word in words) else []
    return shlex.join([*words, f"run.name={quote_value(name)}", "resume=true"])


def see_to_the_end(deploy: DeployConfig, asked: dict[str, str], folder: Path, log: EventLog, token: str) -> None:
    """Ask for the run and follow it; where the server's part is lost without a word, ask again, and it goes on from its checkpoint.

    `token` proves a folder that the server's part makes for this very coordinator, and no other.

    Raises ValueError for a run that was refused, RunFailed for one that failed or was lost too often without a new round.
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
                f"the server's part of {folder} was lost {lost} times in round {last + 1} without a word; see the SuperLink's log"
            )
        say("the server's part was lost, and goes on from its last checkpoint")


def take_up(deploy: DeployConfig, asked: dict[str, str], token: str) -> int:
    """The Flower run that plays this very run already, for somebody who coordinated it before, or a new one."""
    with control(deploy.superlink, authority(deploy).read_bytes()) as api:
        for run in api.runs():
            if not run.ended and all(run.config.get(key) == value for key, value in asked.items()):
                say(f"following Flower's run {run.run_id}, which plays it already")
                return run.run_id
        return api.start(build_fab_from_disk(APP), {**asked, TOKEN: token})


def follow(deploy: DeployConfig, run_id: int, folder: Path, log: EventLog, token: str) -> int:
    """Say every event until Flower's run is over; the last round that ended, -1 for none.

    Raises ValueError and RunFailed as the events do. Interrupted, it stops the run, which can be resumed, and says so in its events.
    """
    round_, over, looked = -1, False, 0.0
    try:
        while True:
            for event in log.new():
                say(sentence(event))
                round_ = max(round_, event["round"]) if event["event"] in ("round_end", "resumed") else round_
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
    """What an event that ends a run means here. A run that was refused before its first round leaves nothing of a folder that

    was made for this coordinator, as its token proves; any other stays as it is.
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
    """Raise what the server's part wrote at `path`, if it did, because it would not touch the run's folder."""
    if path.exists():
        reason = path.read_text()
        drop(path)
        raise ValueError(reason)


def state_of(deploy: DeployConfig, run_id: int) -> FlowerRun:
    """As the SuperLink knows it; over, where it knows it no more."""
    with control(deploy.superlink, authority(deploy).read_bytes()) as api:
        found = [run for run in api.runs() if run.run_id == run_id]
    return (
        found[0] if found else FlowerRun(run_id=run_id, ended=True, details="the SuperLink does not know it", config={})
    )


def stop(deploy: DeployConfig, run_id: int) -> None:
    with contextlib.suppress(httpx.HTTPError), control(deploy.superlink, authority(deploy).read_bytes()) as api:
        api.stop(run_id)


def patiently(deploy: DeployConfig, ask: Callable[[], T]) -> T:
    """Ask the SuperLink, again while it cannot be reached, for deploy.patience_s. Raises RunFailed."""
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
    """One line, with the time in front."""
    console.print(f"{datetime.now():%H:%M:%S}  {text}", soft_wrap=True, markup=False)
