"""A run killed at any moment goes on and ends with the model of a run that was not; a site's round can be repeated."""

import functools
import json
import os
import re
import shlex
import shutil
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from edited import edit_config
from replaying import replayed
from run_always import run_always
from tiny import tiny_config

from fl_rsna.cohort.sites.site_folders import Cohort, read_site_files
from fl_rsna.common.process import create_worker_context
from fl_rsna.common.reading import dump_hashed_json
from fl_rsna.federation.engines.local import run_local
from fl_rsna.federation.engines.ray import run_ray
from fl_rsna.federation.server_app import make_server_app
from fl_rsna.federation.site.client_app import app_for_cohort
from fl_rsna.replay import read_update_sha256, replay, strip_quotes
from fl_rsna.reporting.sections.provenance import format_replay_command
from fl_rsna.run_folder.run_folder import RunFolder, start_run
from fl_rsna.settings.config import Config
from fl_rsna.settings.federation import Precision
from fl_rsna.settings.model import Norm
from fl_rsna.settings.runtime import Keep
from fl_rsna.settings.strategy import Averaging, Weighting


def run(cohort: Cohort, folder: Path, config: Config, *, workers: int = 0, ray: bool = False, die_at: str = "") -> None:
    """A run that kills its own process at its n-th event or when it opens its n-th file, if told so: `event 3`, `file 7`."""
    what, _, number = die_at.partition(" ")
    counts = {"event": 0, "file": 0}

    def count(kind: str) -> None:
        counts[kind] += 1
        if kind == what and counts[kind] == int(number):
            os.kill(os.getpid(), signal.SIGKILL)

    def listen(kind: str, fields: Mapping[str, Any]) -> None:
        count("event")

    def audit(name: str, arguments: tuple[Any, ...]) -> None:
        if name == "open" and str(arguments[0]).startswith(str(folder)):
            count("file")

    if what == "file":
        sys.addaudithook(audit)

    server = make_server_app(lambda context: (config, cohort, start_run(folder, config, cohort, "cpu", (listen,))))
    client = functools.partial(app_for_cohort, cohort.folder, folder / "site_memory")
    if ray:
        run_ray(server, client, num_sites=len(cohort.sites), workers=1, gpus_per_worker=0)
    else:
        run_local(server, client, num_sites=len(cohort.sites), workers=workers)


def killed(cohort: Cohort, folder: Path, config: Config, die_at: str, **engine: Any) -> None:
    """The same in a process of its own, which must have died of SIGKILL."""
    process = create_worker_context().Process(
        target=run, args=(cohort, folder, config), kwargs={"die_at": die_at, **engine}
    )
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL


def sha256(folder: Path) -> str:
    return str(json.loads((folder / "summary.json").read_text())["model_sha256"])


# Everything that outlives a round: control variates at both ends, personal layers, a mean over rounds, a fraction.
RICH = {
    "strategy__name": "scaffold",
    "strategy__weighting": Weighting.equal,
    "strategy__averaging": Averaging.ema,
    "strategy__fraction": 0.67,
    "model__norm": Norm.local,
    "network__precision_down": Precision.bf16,
    "network__precision_up": Precision.int8,
    "rounds": 3,
}
EVENTS = 1 + 3 * (1 + 2 + 3 + 1)  # roll call; a round: start, two sites train, three validate, end


@pytest.fixture(scope="module")
def undisturbed(cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "whole"
    run(cohort, folder, tiny_config(**RICH))
    return folder


DEATHS = [*(f"event {n}" for n in (2, 10, 14, 21)), *(f"file {n}" for n in range(5, 65, 10))]
ALWAYS = ("event 10", "file 25", "file 55")  # the others are beyond what .ci/run has time for


@pytest.mark.parametrize("die_at", run_always(ALWAYS, DEATHS))
def test_killed_and_resumed_is_as_if_nothing_happened(
    cohort: Cohort, tmp_path: Path, undisturbed: Path, die_at: str
) -> None:
    folder = tmp_path / "run"
    killed(cohort, folder, tiny_config(**RICH), die_at)
    run(cohort, folder, tiny_config(**RICH, resume=True))
    assert sha256(folder) == sha256(undisturbed)
    whole, again = (pd.read_csv(path / "rounds.csv") for path in (undisturbed, folder))
    timeless = [name for name in whole.columns if not name.endswith("_s") and name != "seconds"]
    pd.testing.assert_frame_equal(whole[timeless], again[timeless])
    sites = [pd.read_csv(path / "sites.csv") for path in (undisturbed, folder)]
    assert sites[0][["round", "phase", "site"]].equals(sites[1][["round", "phase", "site"]])


@pytest.mark.slow
@pytest.mark.parametrize("engine", [{"workers": 2}, pytest.param({"ray": True}, marks=pytest.mark.extra)])
def test_killed_in_other_engines_too(cohort: Cohort, tmp_path: Path, undisturbed: Path, engine: dict[str, Any]) -> None:
    killed(cohort, tmp_path / "run", tiny_config(**RICH), "event 12", **engine)
    run(cohort, tmp_path / "run", tiny_config(**RICH, resume=True), **engine)
    assert sha256(tmp_path / "run") == sha256(undisturbed)


def test_resuming_with_other_settings_names_them(cohort: Cohort, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    start_run(folder, tiny_config(), cohort, "cpu", ())
    changed = tiny_config(seed=1, train__learning_rate=0.5, engine__workers=2, resume=True)
    with pytest.raises(ValueError, match=r"other settings \(seed, train\.learning_rate differ\)"):
        start_run(folder, changed, cohort, "cpu", ())
    with pytest.raises(ValueError, match="expected a new run"):
        start_run(folder, tiny_config(), cohort, "cpu", ())
    start_run(folder, tiny_config(engine__workers=2, resume=True), cohort, "cpu", ())


def test_resuming_what_was_never_begun_begins_it(cohort: Cohort, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()  # killed before anything was written
    run(cohort, tmp_path / "run", tiny_config(rounds=1, resume=True))
    assert (tmp_path / "run" / "model.safetensors").exists()


@pytest.mark.parametrize("which", [0, 3, -1])
def test_replay_repeats_a_site_s_round_bit_by_bit(
    undisturbed: Path, which: int, capsys: pytest.CaptureFixture[str]
) -> None:
    sites = pd.read_csv(undisturbed / "sites.csv")
    trained = sites[sites["phase"] == "train"].iloc[which]
    recorded = read_update_sha256(undisturbed, trained["site"], trained["round"])
    before = {path: path.stat().st_mtime_ns for path in undisturbed.rglob("*")}
    replay([f"run={undisturbed}", f"site={trained['site']}", f"round={trained['round']}"])
    assert recorded in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in undisturbed.rglob("*")} == before


def test_what_lies_with_hospitals_or_was_begun_on_other_data_is_one_sentence(
    own_cohort: Cohort, tmp_path: Path
) -> None:
    config = tiny_config(rounds=1)
    run(own_cohort, tmp_path / "run", config)
    assert replayed(tmp_path / "run") is None
    manifest = tmp_path / "run" / "manifest.json"
    whole = manifest.read_text()
    manifest.write_bytes(dump_hashed_json(json.loads(whole.replace(own_cohort.sha256, "0" * 64))))
    with pytest.raises(ValueError, match="expected the cohort of"):
        replayed(tmp_path / "run")
    manifest.write_text(whole)
    settings = tmp_path / "run" / "config.yaml"
    edit_config(tmp_path / "run", "engine:\n  name: local", "engine:\n  name: deployment")
    assert "between real machines" in str(replayed(tmp_path / "run"))
    settings.write_text(settings.read_text()[:40])
    with pytest.raises(ValueError, match=r"config\.yaml, got .*bring the file back"):
        replay([f"run={tmp_path / 'run'}", "site=site-1", "round=1"])


@pytest.mark.parametrize("name", ["a b", "a=b,c", "it's", "[x] $HOME", "Charité"])
def test_a_path_of_any_signs_is_replayed_as_the_report_says_it(undisturbed: Path, tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.symlink_to(undisturbed)
    said = shlex.split(format_replay_command(folder))[3:]
    last = pd.read_csv(undisturbed / "sites.csv").query("phase == 'train'").iloc[-1]
    replay([said[0], f"site={last['site']}", f"round={last['round']}"])
    assert (said[0], said[1:]) == (f"run={folder}", ["site=<site>", "round=<number>"])
    assert strip_quotes(f'"{folder}"') == strip_quotes(f"'{folder}'") == strip_quotes(str(folder)) == str(folder)


def test_replay_refuses_what_the_run_did_not_keep(cohort: Cohort, tmp_path: Path) -> None:
    config = tiny_config(rounds=2, run__keep=Keep.last, model__norm=Norm.local)
    run(cohort, tmp_path / "run", config)
    assert not list((tmp_path / "run" / "checkpoints").glob("round-*"))
    for arguments, said in [
        ([f"run={tmp_path / 'run'}", "site=site-1", "round=2"], "run.keep=all"),
        ([f"run={tmp_path / 'run'}", "site=site-9", "round=2"], "site-9 finished"),
        ([f"run={tmp_path / 'none'}", "site=site-1", "round=2"], "expected a run folder"),
        (["site=site-1"], "give all three"),
    ]:
        with pytest.raises(ValueError, match=said):
            replay(arguments)


def linked(source: Path, target: Path) -> Path:
    """A copy of a run that shares its files; a test puts others in their places, and what is appended to is copied."""

    def copy(from_: str, to: str) -> None:
        (os.link if from_.endswith((".safetensors", ".parquet")) else shutil.copyfile)(from_, to)

    return Path(shutil.copytree(source, target, copy_function=copy))


def replaced(path: Path, content: bytes) -> None:
    path.unlink()
    path.write_bytes(content)


def flipped(raw: bytes, at: int) -> bytes:
    return raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]


STATE = "checkpoints/state.safetensors"
MEMORY = "site_memory/site-1/*/round-00003.safetensors"
DAMAGES = {
    "cut": (STATE, lambda raw: raw[:-1000]),
    "emptied": (STATE, lambda raw: b""),
    "one bit of a weight": (STATE, lambda raw: flipped(raw, len(raw) // 2)),
    "one bit of a fact": (STATE, lambda raw: flipped(raw, raw.index(b"bytes_up") + 12)),
    "a site's memory cut": (MEMORY, lambda raw: raw[:100]),
    "one bit of a site's memory": (MEMORY, lambda raw: flipped(raw, len(raw) - 3)),
    "settings": ("config.yaml", lambda raw: raw.replace(b"batch_size: 8", b"batch_size: 9")),
    "half the settings": ("config.yaml", lambda raw: raw[: len(raw) // 2]),
    "half a manifest": ("manifest.json", lambda raw: raw[: len(raw) // 2]),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_state_is_named_and_nothing_is_trained_from_it(
    cohort: Cohort, tmp_path: Path, undisturbed: Path, damage: str
) -> None:
    name, change = DAMAGES[damage]
    folder = linked(undisturbed, tmp_path / "run")
    (path,) = folder.glob(name)
    replaced(path, change(path.read_bytes()))
    rounds = (folder / "rounds.csv").read_bytes()
    with pytest.raises(ValueError, match=re.escape(str(path))) as caught:
        run(cohort, folder, tiny_config(**RICH, resume=True))
    assert "bring" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert (folder / "rounds.csv").read_bytes() == rounds


@pytest.mark.parametrize("of", ["another run", "another site"])
def test_a_whole_state_of_something_else_is_refused(cohort: Cohort, tmp_path: Path, undisturbed: Path, of: str) -> None:
    folder = linked(undisturbed, tmp_path / "run")
    if of == "another run":
        begun = RunFolder(folder).read_json("manifest.json")
        RunFolder(folder).write_json("manifest.json", {**begun, "id": "0" * 16})
    else:
        mine, other = (next(folder.glob(MEMORY.replace("site-1", site))) for site in ("site-1", "site-2"))
        replaced(mine, other.read_bytes())
    with pytest.raises(ValueError, match="another one's"):
        run(cohort, folder, tiny_config(**RICH, resume=True))


def test_a_damaged_table_is_a_warning_for_no_model_rests_on_it(
    cohort: Cohort, tmp_path: Path, undisturbed: Path
) -> None:
    folder = linked(undisturbed, tmp_path / "run")
    text = (folder / "rounds.csv").read_text()
    (folder / "rounds.csv").write_text(text.replace("\n1,", "\n1e,"))
    (folder / "summary.json").unlink()
    run(cohort, folder, tiny_config(**RICH, resume=True))
    assert sha256(folder) == sha256(undisturbed)
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    assert [event["text"] for event in events if event["event"] == "warning" and "rounds.csv" in event["text"]]
    assert list(pd.read_csv(folder / "rounds.csv")["round"]) == [0, 2, 3]


def test_a_damaged_round_that_was_kept_is_not_repeated(undisturbed: Path, tmp_path: Path) -> None:
    folder, sites = linked(undisturbed, tmp_path / "run"), pd.read_csv(undisturbed / "sites.csv")
    site = sites.query("phase == 'train' and round == 2")["site"].iloc[0]
    for name in ("round-00002.json", "round-00002.safetensors"):
        path = folder / "checkpoints" / name
        whole = path.read_bytes()
        replaced(path, flipped(whole, len(whole) // 2))
        with pytest.raises(ValueError, match=name):
            replay([f"run={folder}", f"site={site}", "round=2"])
        replaced(path, (folder / "checkpoints" / name.replace("2", "3")).read_bytes())
        with pytest.raises(ValueError, match="another one's"):
            replay([f"run={folder}", f"site={site}", "round=2"])
        replaced(path, whole)


@pytest.mark.parametrize("name", ["cohort.json", "site-2/site.json", "site-2/index.csv", "test-site/index.csv"])
def test_a_run_does_not_go_on_over_other_data(own_cohort: Cohort, tmp_path: Path, name: str) -> None:
    """What people change by hand is a warning where a run begins, and refused where one goes on."""
    start_run(tmp_path / "run", tiny_config(), own_cohort, "cpu", ())
    path = own_cohort.folder / name
    path.write_bytes(path.read_bytes().replace(b"1", b"0", 1))
    with pytest.raises(ValueError, match=rf"{name} was changed or damaged: .* was begun with another"):
        start_run(tmp_path / "run", tiny_config(resume=True), own_cohort, "cpu", ())


def test_a_site_s_table_that_is_not_as_it_was_written_is_a_warning(own_cohort: Cohort) -> None:
    path = own_cohort.site_folder("site-2") / "index.csv"
    read_site_files(path.parent)
    path.write_bytes(path.read_bytes().replace(b",1,", b",0,", 1))
    with pytest.warns(UserWarning, match=r"site-2/index\.csv was changed or damaged"):
        read_site_files(path.parent)
