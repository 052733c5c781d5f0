"""What a command deletes or overwrites, it made itself and can prove it; everything else is refused and stays as it is."""

import ast
import copy
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_runs import made_run
from package import PACKAGE
from run_always import run_always
from tiny import SIZE, tiny_config

from fl_rsna.cohort.sites.site_folders import Cohort
from fl_rsna.cohort.steps import demo_step
from fl_rsna.common.atomic import build_whole, replace_whole
from fl_rsna.common.hashes import array_written
from fl_rsna.common.ownership import BUILDING, RECORD, hold_lock, make_folder, take_back, what_is
from fl_rsna.federation.stages import stages
from fl_rsna.learning.data.dataset import open_site
from fl_rsna.reporting.pages.comparison import write_comparison
from fl_rsna.run_folder.run_folder import BOTH, UNTRAINED, start_run, take_folder, take_run
from fl_rsna.settings.config import Config
from fl_rsna.settings.stages import Baseline, Stacker, Stage
from fl_rsna.simulation.simulation import run_federation, run_gap


def tree(folder: Path) -> dict[str, str]:
    """Everything below a folder, and the hash of every file's content."""
    return {
        str(path.relative_to(folder)): (
            os.readlink(path) if path.is_symlink()
            else hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        )
        for path in sorted(folder.rglob("*"))
    }  # fmt: skip


# which folders go on as what

ASKED: dict[str, dict[str, object]] = {
    "slice": {},
    "gap": {"baseline": Baseline.gap},
    "local": {"baseline": Baseline.local},
    "central": {"baseline": Baseline.central},
    "both": {"stage": Stage.both},
    "stacking": {"stage": Stage.stacking, "stacking__stacker": Stacker.cnn, "stacking__folds": 2},
}


def ask(cohort: Cohort, folder: Path, kind: str, *, resume: bool, listener: Any = None, **arguments: object) -> None:
    config = tiny_config(**ASKED[kind], **arguments)
    config.resume, config.run.name = resume, folder.name
    listeners = () if listener is None else (listener,)
    if kind == "gap":
        run_gap(config, cohort, folder, listeners)
    else:
        run_federation(config, cohort, folder, listeners)


def lay(cohort: Cohort, folder: Path, kind: str) -> None:
    """What a command of this kind leaves when it is killed early, or what somebody else keeps."""
    config = tiny_config(**ASKED.get(kind, {}))
    config.run.name = folder.name
    match kind:
        case "gap":
            take_folder(folder, ("gap",), resume=False)
            for part, baseline in (("federated", Baseline.none), ("central", Baseline.central)):
                begun = copy.deepcopy(config)
                begun.baseline = baseline
                start_run(folder / part, begun, cohort, "cpu", ())
            (folder / "notes.txt").write_text("mine")
            (folder / "summary.json").write_text('{"status": "finished"}')
        case "both":
            parts = stages_of(config, folder)
            take_run(folder, parts[-1], cohort, kind=BOTH, resume=False)
            start_run(folder / "slice", parts[0], cohort, "cpu", ())
        case "sweep":
            (folder / "0").mkdir(parents=True)
            (folder / "multirun.yaml").write_text("run: {name: null}")
        case "files":
            (folder / "checkpoints").mkdir(parents=True)
            for name in ("summary.json", "config.yaml", "checkpoints/state.safetensors", "report.html"):
                (folder / name).write_text("mine")
        case "a file":
            folder.write_text("mine")
        case "a dead link":
            folder.symlink_to(folder.with_name("nowhere"))
        case _:
            start_run(folder, config, cohort, "cpu", ())
            (folder / "summary.json").write_text('{"status": "failed"}')


def stages_of(config: Config, folder: Path) -> list[Config]:
    return [part for part, _ in stages(config, folder)]


LAID = [*ASKED, "sweep", "files", "a file", "a dead link"]


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("laid", LAID)
def test_a_folder_of_another_kind_is_refused_and_nothing_in_it_changes(
    cohort: Cohort, tmp_path: Path, laid: str, resume: bool
) -> None:
    lay(cohort, tmp_path / "run", laid)
    before = tree(tmp_path)
    for kind in ASKED:
        if resume and kind == laid:
            continue
        with pytest.raises(ValueError, match=r"run\.name: expected|resume: .* was begun with other settings"):
            ask(cohort, tmp_path / "run", kind, resume=resume)
        assert tree(tmp_path) == before, kind


def test_a_run_of_other_settings_is_refused_under_every_name_of_its_folder(
    cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lay(cohort, tmp_path / "run", "slice")
    (tmp_path / "link").symlink_to(tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    before = tree(tmp_path)
    for folder in (tmp_path / "run", tmp_path / "link", Path("run"), Path("../" + tmp_path.name) / "run"):
        for arguments in ({"seed": 1}, {"rounds": 3}):
            with pytest.raises(ValueError, match="was begun with other settings"):
                ask(cohort, folder, "slice", resume=True, **arguments)
        with hold_lock(tmp_path / "run"):
            done = subprocess.run([sys.executable, "-c", TRY, str(folder)], capture_output=True, text=True, check=True)
        assert "another process is making it" in done.stdout
    assert tree(tmp_path) == before


# refusals

STRANGER = {"site-9": "crash@1"}  # refused at the roll call


@pytest.mark.parametrize("kind", ["slice", "both", "gap"])
@pytest.mark.parametrize("was", ["nothing", "an empty folder"])
def test_a_refusal_at_the_roll_call_leaves_what_it_found(cohort: Cohort, tmp_path: Path, kind: str, was: str) -> None:
    if was == "an empty folder":
        (tmp_path / "run").mkdir()
    before = tree(tmp_path)
    with pytest.raises(ValueError, match=r"faults\.sites"):
        ask(cohort, tmp_path / "run", kind, resume=was != "nothing", faults__sites=STRANGER)
    assert tree(tmp_path) == before


def test_what_somebody_puts_into_a_run_before_it_is_refused_stays(cohort: Cohort, tmp_path: Path) -> None:
    run = start_run(tmp_path / "run", tiny_config(), cohort, "cpu", ())
    run.event("waiting", sites=1, expected=3)
    assert run.token is not None
    for name in ("notes.txt", "checkpoints/mine.txt"):
        (run.folder / name).write_text("mine")
    take_back(run.folder, run.token, UNTRAINED)
    assert sorted(tree(run.folder)) == ["checkpoints", "checkpoints/mine.txt", "notes.txt", RECORD]


def test_a_resume_that_is_refused_at_the_roll_call_keeps_how_the_run_ended(cohort: Cohort, tmp_path: Path) -> None:
    folder, config = tmp_path / "run", tiny_config(faults__sites=STRANGER)
    start_run(folder, config, cohort, "cpu", ())
    (folder / "summary.json").write_text('{"status": "failed"}')
    before = tree(folder)
    with pytest.raises(ValueError, match=r"faults\.sites"):
        ask(cohort, folder, "slice", resume=True, faults__sites=STRANGER)
    logs = {"events.jsonl", "error.log"}  # which tell of the refusal
    after = tree(folder)
    assert {name: after[name] for name in after.keys() - logs} == {name: before[name] for name in before.keys() - logs}


# runs that were copied and renamed


def stop_at_round_1(kind: str, fields: Mapping[str, Any]) -> None:
    if kind == "round_start":
        raise KeyboardInterrupt


def sha256(folder: Path) -> str:
    return str(json.loads((folder / "summary.json").read_text())["model_sha256"])


def test_a_copy_goes_on_under_its_own_name_and_the_original_stays(cohort: Cohort, tmp_path: Path) -> None:
    first = tmp_path / "first"
    with pytest.raises(KeyboardInterrupt):
        ask(cohort, first, "slice", resume=False, listener=stop_at_round_1, rounds=1)
    shutil.copytree(first, tmp_path / "elsewhere" / "copy")
    before = tree(first)
    ask(cohort, tmp_path / "elsewhere" / "copy", "slice", resume=True, rounds=1)
    assert tree(first) == before
    first.rename(tmp_path / "renamed")
    ask(cohort, tmp_path / "renamed", "slice", resume=True, rounds=1)
    assert sha256(tmp_path / "renamed") == sha256(tmp_path / "elsewhere" / "copy")
    finished = tree(tmp_path / "renamed")
    ask(cohort, tmp_path / "renamed", "slice", resume=True, rounds=1)  # what is finished stays as it is
    assert tree(tmp_path / "renamed") == finished


@pytest.mark.slow
@pytest.mark.parametrize("kind", run_always(["both"], ["both", "gap", "stacking", "local"]))
def test_a_copy_of_several_runs_in_one_goes_on_too(cohort: Cohort, tmp_path: Path, kind: str) -> None:
    arguments = {"rounds": 1, "sequence__width": 16}
    first, done = tmp_path / "first", 0

    def listen(event: str, fields: Mapping[str, Any]) -> None:
        nonlocal done
        done += event in ("round_end", "site_alone_done")
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ask(cohort, first, kind, resume=False, listener=listen, **arguments)
    shutil.copytree(first, tmp_path / "elsewhere" / "copy")
    shutil.rmtree(first)  # nothing is read where it was
    ask(cohort, tmp_path / "elsewhere" / "copy", kind, resume=True, **arguments)
    ask(cohort, tmp_path / "whole", kind, resume=False, **arguments)
    copied, whole = (json.loads((tmp_path / name / "summary.json").read_text()) for name in ("elsewhere/copy", "whole"))
    assert copied.get("model_sha256") == whole.get("model_sha256")
    if kind == "local":
        assert {site: card["model_sha256"] for site, card in copied["alone"].items()} == {
            site: card["model_sha256"] for site, card in whole["alone"].items()
        }


# what is built

PLANTED = ("{}.part", "{}.lock", "{}.dicom", ".{}.fl_rsna.lock", ".{}.0123456789abcdef.part", "{}-test")


def plant(folder: Path, name: str) -> None:
    """A user's files and folders under every name that a command may use beside `name`, but not under its own."""
    for number, pattern in enumerate(PLANTED):
        place = folder / pattern.format(name)
        if number % 2:
            place.write_text("mine")
        else:
            place.mkdir(parents=True)
            for inside in ("notes.txt", "journal.jsonl", "request.json", "cohort.json"):
                (place / inside).write_text("mine")


@pytest.mark.parametrize("fails", [False, True])
def test_what_lies_beside_a_folder_that_is_built_stays(tmp_path: Path, fails: bool) -> None:
    plant(tmp_path, "new")
    before = tree(tmp_path)
    try:
        with build_whole(tmp_path / "new") as building:
            (building / "a").write_text("ours")
            if fails:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    assert tree(tmp_path) == before | ({} if fails else {"new": "folder", "new/a": hashlib.sha256(b"ours").hexdigest()})


def test_a_file_is_written_beside_what_has_a_similar_name(tmp_path: Path) -> None:
    (tmp_path / f"a.{os.getpid()}.part").write_text("mine")
    (tmp_path / "a.part").write_text("mine")
    with replace_whole(tmp_path / "a") as part:
        part.write_text("ours")
    assert sorted(path.read_text() for path in tmp_path.iterdir()) == ["mine", "mine", "ours"]


def test_a_killed_build_does_not_block_the_next_and_goes_with_it(tmp_path: Path) -> None:
    for token, of in (("0" * 16, "new"), ("1" * 16, "other")):
        left = tmp_path / f".new.{token}.part"
        left.mkdir()
        (left / RECORD).write_text(json.dumps({"fl_rsna": BUILDING, "of": of, "token": "t"}))
        (left / "half").write_text("a thing")
    with build_whole(tmp_path / "new"):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == [f".new.{'1' * 16}.part", "new"]


def test_only_the_token_of_a_folder_takes_it_back(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    token = make_folder(folder, "slice")
    (folder / "config.yaml").write_text("ours")
    before = tree(tmp_path)
    take_back(folder, "another", UNTRAINED)
    assert tree(tmp_path) == before
    moved = folder.rename(tmp_path / "moved")
    folder.mkdir()
    (folder / "config.yaml").write_text("somebody else's, of the same name")
    take_back(folder, token, UNTRAINED)
    assert (folder / "config.yaml").exists()
    take_back(moved, token, UNTRAINED)
    assert not moved.exists()


@pytest.mark.parametrize("content", ["", "{}", "[]", "{torn", '{"fl_rsna": 1, "token": "t"}', '{"fl_rsna": "slice"}'])
def test_a_file_of_that_name_proves_nothing_by_itself(tmp_path: Path, content: str) -> None:
    (tmp_path / RECORD).write_text(content)
    assert what_is(tmp_path) is None


def small_demo(folder: Path) -> Config:
    config = tiny_config()
    config.paths.prepared, config.data.name, config.data.size = str(folder), "synthetic", SIZE
    config.demo.patients, config.demo.slices_per_series, config.demo.size, config.prepare.workers = 3, 2, 32, 1
    return config


@pytest.mark.parametrize("blocked", [True, False])
def test_a_user_s_files_beside_the_demo_stay(tmp_path: Path, blocked: bool) -> None:
    """Only a folder <name>.part, where the preparation would be, stands in its way."""
    plant(tmp_path, "synthetic")
    if not blocked:
        shutil.rmtree(tmp_path / "synthetic.part")
    before = tree(tmp_path)
    if blocked:
        with pytest.raises(ValueError, match=r"data\.name: .*synthetic\.part or one that fl_rsna made"):
            demo_step(small_demo(tmp_path), lambda *_: None)
        assert tree(tmp_path) == before
        return
    demo_step(small_demo(tmp_path), lambda *_: None)
    assert {name: of for name, of in tree(tmp_path).items() if not name.startswith("synthetic/")} == {
        **before,
        "synthetic": "folder",
    }


@pytest.mark.parametrize("name", ["compare.html", "compare.json"])
def test_a_comparison_replaces_comparisons_alone(tmp_path: Path, name: str) -> None:
    runs = [made_run(tmp_path / letter) for letter in "ab"]
    (tmp_path / name).write_text('{"mine": true}')
    before = tree(tmp_path)
    with pytest.raises(ValueError, match="expected no such file or one that fl_rsna wrote"):
        write_comparison(runs, tmp_path / "compare.html")
    assert tree(tmp_path) == before
    (tmp_path / name).unlink()
    first = write_comparison(runs, tmp_path / "compare.html").read_bytes()
    assert write_comparison(runs, tmp_path / "compare.html").read_bytes() == first


# several processes

TRY = """
import sys
from pathlib import Path
from fl_rsna.common.ownership import hold_lock
try:
    with hold_lock(Path(sys.argv[1])):
        print("its turn")
except ValueError as error:
    print(error)
"""
HOLD = """
import shutil, sys
from pathlib import Path
from fl_rsna.common.ownership import hold_lock
with hold_lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
    shutil.copyfile(sys.argv[2], sys.argv[1])
"""


def test_a_lock_is_one_process_s_and_free_when_that_is_killed(tmp_path: Path) -> None:
    def tried() -> str:
        return subprocess.run([sys.executable, "-c", TRY, str(tmp_path / "a")], capture_output=True, text=True).stdout

    with hold_lock(tmp_path / "a"), hold_lock(tmp_path / "a"):  # nested calls are one
        assert "another process is making it" in tried()
        assert len(os.listdir(tmp_path)) == 1
    assert (tried(), os.listdir(tmp_path)) == ("its turn\n", [])
    arguments = [sys.executable, "-c", HOLD, str(tmp_path / "a"), ""]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        assert "another process is making it" in tried()
        process.kill()
        process.wait()
    assert (tried(), os.listdir(tmp_path)) == ("its turn\n", [])


def test_a_pack_that_another_process_makes_is_waited_for_and_used(cohort: Cohort, tmp_path: Path) -> None:
    site = cohort.site_folder("site-1")
    made = open_site(site, image_size=SIZE, cache=tmp_path / "one").images
    assert isinstance(made, np.memmap)
    name = Path(str(made.filename)).name
    with array_written(tmp_path / "theirs.npy", made.dtype, made.shape) as theirs:
        theirs[:] = 0
    arguments = [sys.executable, "-c", HOLD, str(tmp_path / "two" / name), str(tmp_path / "theirs.npy")]
    found: list[Any] = []
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "held\n"
        waits = threading.Thread(
            target=lambda: found.append(open_site(site, image_size=SIZE, cache=tmp_path / "two").images)
        )
        waits.start()
        process.stdin.write("make it\n")
        process.stdin.flush()
        waits.join(60)
    assert not np.asarray(found[0]).any(), "the other one's"
    assert os.listdir(tmp_path / "two") == [name]


@pytest.mark.slow
def test_three_first_commands_at_once_all_finish(tmp_path: Path) -> None:
    """One draws the patients, prepares and partitions them; of two with one name one runs, and loses nothing."""
    arguments = "demo.patients=12 demo.slices_per_series=6 demo.size=32 data.size=32 model.image_size=32 rounds=1 engine.workers=0"
    arguments += " partition.num_sites=2 train.batch_size=4 tracking=none prepare.workers=1"
    command = [sys.executable, "-m", "fl_rsna.simulate", *arguments.split()]
    started = [
        subprocess.Popen(
            [*command, f"run.name={name}"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for name in ("one", "two", "two")
    ]
    said = [process.communicate(timeout=300)[1] for process in started]
    assert started[0].returncode == 0, said
    assert sorted(process.returncode for process in started[1:]) == [0, 2], said
    refused = said[1 if started[1].returncode else 2].splitlines()
    assert refused[-1].startswith("error: "), said
    assert sha256(tmp_path / "runs" / "one") == sha256(tmp_path / "runs" / "two")
    left = [path.name for place in ("runs", "prepared", "site_data") for path in (tmp_path / place).iterdir()]
    assert not [name for name in left if name.endswith((".part", ".lock", ".dicom"))], left


# one place

DELETES = {"rmtree", "unlink", "rmdir", "remove", "removedirs", "replace", "rename", "move", "renames", "truncate"}
MODULES_OF_FILES = {"os", "shutil", "Path", "path", "file", "folder", "part", "target", "building", "png"}
ALLOWED = {  # where a file or folder goes or is replaced outside ownership.py, and why that is the module's own
    "cohort/prepared/prepare.py": "an image in the preparation's own folder gets its name",
    "common/atomic.py": "a file that is complete takes the place of its earlier version",
    "federation/engines/shared_memory.py": "a folder of this process gets the name by which others look for it",
    "federation/site/heartbeat.py": "a site's own beat takes the place of its last one",
    "imaging/png_store.py": "an image that is complete gets its name",
    "learning/data/dataset.py": "a pack that is complete gets its name, under its lock",
}


def deletions(path: Path) -> list[str]:
    """Calls that delete, move or replace files; `text.replace` and pandas' `rename(columns=...)` are none."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute) or node.func.attr not in DELETES:
            continue
        of, keywords = node.func.value, {keyword.arg for keyword in node.keywords}
        of_text = isinstance(of, ast.Constant) or (
            len(node.args) > 1 and not (isinstance(of, ast.Name) and of.id == "os")
        )
        of_table = bool(keywords & {"columns", "index", "axis"}) or (
            node.args and isinstance(node.args[0], ast.Constant)
        )
        if node.func.attr in ("replace", "rename", "remove", "truncate", "move") and (
            of_text
            or of_table
            or isinstance(of, ast.Call)
            or (isinstance(of, ast.Name) and of.id not in MODULES_OF_FILES)
        ):
            continue
        found.append(f"{node.lineno}: {ast.unparse(node)}")
    return found


def test_files_are_deleted_in_one_place() -> None:
    found = {
        str(path.relative_to(PACKAGE)): calls for path in sorted(PACKAGE.rglob("*.py")) if (calls := deletions(path))
    }
    assert found.pop("common/ownership.py")
    assert {name: calls for name, calls in found.items() if name not in ALLOWED} == {}
    assert set(found) == set(ALLOWED), "a reason that is no longer needed"
