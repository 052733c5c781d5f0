"""Whatever ends a command leaves one sentence, an exit code, and, where it had a run, a traceback and an event in its folder."""

import ast
import errno
import functools
import io
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path

import cv2
import jinja2
import pandas as pd
import pytest
import torch
import yaml
from package import COMMANDS, PACKAGE
from PIL import Image
from safetensors.torch import load
from tiny import tiny_config

from fl_rsna.common.command_end import (
    ERROR_LOG,
    EndKind,
    RunFailed,
    Stopped,
    begin_command,
    command_again,
    end_of,
    run_to_end,
)
from fl_rsna.common.console_log import CONSOLE_LOG
from fl_rsna.federation.server.ask import BelowQuorum
from fl_rsna.reporting.live.state import State, Status, phase_of, reduce_events
from fl_rsna.reporting.record.events import EVENTS, EventLog
from fl_rsna.run_folder.run_end import end_in_folder, end_of_parts, guard_report
from fl_rsna.run_folder.run_folder import RunFolder

LOOK = threading.Event()  # never set: between two looks at what another process has written, which needs the core


class Panic(BaseException):
    """What a library in Rust raises: no Exception."""


class Speechless(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even that")


def raising(error: BaseException) -> Callable[[], object]:
    def act() -> None:
        raise error

    return act


def endless() -> None:
    endless()


def test_windows_is_answered_by_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(SystemExit) as left:
        begin_command()
    monkeypatch.undo()
    said = capsys.readouterr().err
    assert (left.value.code, said.count("\n")) == (2, 1)
    assert said.startswith("error: fl_rsna needs Linux or macOS, got Windows; install WSL2")


def of_no_use(folder: Path) -> Path:
    path = folder / "broken"
    path.write_bytes(b"no such format")
    return path


ENDS: dict[str, tuple[Callable[[Path], object], EndKind]] = {
    "ours": (lambda folder: raising(ValueError("rounds: expected 1 or more, got 0"))(), EndKind.refused),
    "a file that is not there": (lambda folder: (folder / "none").read_text(), EndKind.refused),
    "a folder where a file should be": (lambda folder: folder.read_text(), EndKind.refused),
    "failed": (lambda folder: raising(RunFailed("the model diverged"))(), EndKind.failed),
    "below quorum": (lambda folder: raising(BelowQuorum("1 of 3 replied"))(), EndKind.failed),
    "diverged": (lambda folder: raising(FloatingPointError("not finite"))(), EndKind.failed),
    "too many files": (lambda folder: raising(OSError(errno.EMFILE, "Too many open files"))(), EndKind.failed),
    "ctrl-c": (lambda folder: raising(KeyboardInterrupt())(), EndKind.interrupted),
    "signal": (lambda folder: raising(Stopped("SIGTERM"))(), EndKind.stopped),
    "full": (lambda folder: Path("/dev/full").write_text("x"), EndKind.disk_full),
    "quota": (lambda folder: raising(OSError(errno.EDQUOT, "Disk quota exceeded", "x"))(), EndKind.disk_full),
    "full, in sqlite": (
        lambda folder: raising(sqlite3.OperationalError("database or disk is full"))(),
        EndKind.disk_full,
    ),
    "memory": (lambda folder: bytearray(1 << 62), EndKind.out_of_memory),
    "memory of torch": (lambda folder: torch.empty(1 << 60), EndKind.out_of_memory),
    "memory of a GPU": (
        lambda folder: raising(torch.OutOfMemoryError("CUDA out of memory. Tried"))(),
        EndKind.out_of_memory,
    ),
    "ValueError of Python": (lambda folder: int("x"), EndKind.unexpected),
    "text": (lambda folder: b"\xff".decode(), EndKind.unexpected),
    "json": (lambda folder: json.loads("{"), EndKind.unexpected),
    "yaml": (lambda folder: yaml.safe_load("a: [1"), EndKind.unexpected),
    "arrow": (lambda folder: pd.read_parquet(of_no_use(folder)), EndKind.unexpected),
    "pandas": (lambda folder: pd.read_csv(io.StringIO("a\n1,2\n1,2,3,4")), EndKind.unexpected),
    "safetensors": (lambda folder: load(b"no such format"), EndKind.unexpected),
    "pickle": (lambda folder: torch.load(of_no_use(folder)), EndKind.unexpected),
    "opencv": (lambda folder: cv2.resize(None, (1, 1)), EndKind.unexpected),  # type: ignore[call-overload]
    "pillow": (lambda folder: Image.open(of_no_use(folder)), EndKind.unexpected),
    "torch": (lambda folder: torch.zeros(2) @ torch.zeros(3), EndKind.unexpected),
    "jinja": (lambda folder: jinja2.Template("{% if"), EndKind.unexpected),
    "key": (lambda folder: {}["view"], EndKind.unexpected),
    "assertion": (lambda folder: raising(AssertionError())(), EndKind.unexpected),
    "recursion": (lambda folder: endless(), EndKind.unexpected),
    "import": (lambda folder: __import__("no_such_package"), EndKind.unexpected),
    "input": (lambda folder: raising(OSError(errno.EIO, "Input/output error"))(), EndKind.unexpected),
    "pipe": (lambda folder: raising(BrokenPipeError(errno.EPIPE, "Broken pipe"))(), EndKind.unexpected),
    "several": (lambda folder: raising(ExceptionGroup("two", [KeyError(1), KeyError(2)]))(), EndKind.unexpected),
    "panic": (lambda folder: raising(Panic("index out of bounds"))(), EndKind.unexpected),
    "generator": (lambda folder: raising(GeneratorExit())(), EndKind.unexpected),
    "speechless": (lambda folder: raising(Speechless())(), EndKind.unexpected),
    "many lines": (lambda folder: raising(RuntimeError("first\nsecond\n\nthird"))(), EndKind.unexpected),
}


def events(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / EVENTS).read_text().splitlines()]


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    (tmp_path / "run").mkdir()
    return RunFolder(tmp_path / "run")


@pytest.mark.parametrize("name", ENDS)
def test_every_end_of_a_run(
    name: str, tmp_path: Path, run: RunFolder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    act, kind = ENDS[name]

    def story() -> None:
        with end_in_folder(run, tiny_config(rounds=3)):
            act(tmp_path)

    with pytest.raises(SystemExit) as left:
        run_to_end(story)
    said = capsys.readouterr().err
    assert (said.startswith("error: "), said.count("\n")) == (True, 1)
    assert left.value.code == (2 if kind is EndKind.refused else 1)
    (last,) = events(run.folder)
    assert (last["event"], last["kind"]) == ("run_failed", kind)
    summary = run.read_json("summary.json")
    assert (summary["status"], summary["kind"], summary["reason"]) == ("failed", kind, last["reason"])
    log = (run.folder / ERROR_LOG).read_text()
    assert "Traceback (most recent call last)" in log
    if kind is EndKind.unexpected:
        assert f"the traceback is in {run.folder / ERROR_LOG}" in said
        assert str(last["reason"]).partition(":")[0] in log
    state = reduce_events(State(), [{**last, "time": "2020-01-01T00:00:00+00:00"}])
    assert (state.status, str(last["reason"]) in phase_of(state)) == (Status.failed, True)


@pytest.mark.parametrize("name", ENDS)
def test_every_end_of_a_command_without_a_run(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    act, kind = ENDS[name]
    with pytest.raises(SystemExit) as left:
        run_to_end(lambda: act(tmp_path))
    said = capsys.readouterr().err
    assert (said.startswith("error: "), said.count("\n")) == (True, 1)
    assert left.value.code == (2 if kind is EndKind.refused else 1)
    logs = [log for log in tmp_path.glob("fl_rsna-error-*.log") if str(log) in said]
    assert len(logs) == (kind in (EndKind.unexpected, EndKind.out_of_memory))
    assert all("Traceback" in log.read_text() for log in logs)


def test_system_exit_passes() -> None:
    with pytest.raises(SystemExit) as left:
        run_to_end(lambda: sys.exit(7))
    assert left.value.code == 7


def test_a_full_disk_hides_no_end(
    tmp_path: Path, run: RunFolder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing can be written into the run's folder: the sentence comes, and the traceback lies elsewhere."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for name in (EVENTS, ERROR_LOG):
        (run.folder / name).symlink_to("/dev/full")

    def story() -> None:
        with end_in_folder(run, tiny_config()):
            raise KeyError("view")

    with pytest.raises(SystemExit):
        run_to_end(story)
    said = capsys.readouterr().err
    (log,) = tmp_path.glob("fl_rsna-error-*.log")
    assert said == f"error: unexpected KeyError: 'view'; the traceback is in {log}\n"


def test_an_end_is_told_once_and_a_finished_run_stays_finished(run: RunFolder) -> None:
    with pytest.raises(KeyError), end_in_folder(run, tiny_config()), end_in_folder(run, tiny_config()):
        raise KeyError
    assert [event["event"] for event in events(run.folder)] == ["run_failed"]
    finished = RunFolder(run.folder)
    finished.write_json("summary.json", {"status": "finished"})
    finished.event("run_end", wall_s=1.0)
    with pytest.raises(KeyError), end_in_folder(finished, tiny_config()):
        raise KeyError
    assert [event["event"] for event in events(run.folder)] == ["run_failed", "run_end"]
    assert finished.read_json("summary.json") == {"status": "finished"}


def test_a_folder_of_runs_says_what_none_of_them_does(tmp_path: Path) -> None:
    """What ends a part stands in the part; what ends the whole after its parts, in the whole; a folder of others is left alone."""

    def whole(*, part_fails: bool, whole_fails: bool, begins: bool = True) -> None:
        with end_of_parts(tmp_path, tiny_config()):
            if begins:
                with end_in_folder(RunFolder(tmp_path / "part"), tiny_config()):
                    if part_fails:
                        raise KeyError
            if whole_fails:
                raise KeyError

    (tmp_path / "part").mkdir()
    for arguments, where in (
        ({"part_fails": False, "whole_fails": True, "begins": False}, None),
        ({"part_fails": True, "whole_fails": False}, tmp_path / "part"),
        ({"part_fails": False, "whole_fails": True}, tmp_path),
    ):
        for log in tmp_path.rglob(EVENTS):
            log.unlink()
        with pytest.raises(SystemExit):
            run_to_end(lambda arguments=arguments: whole(**arguments))  # type: ignore[misc]
        assert list(tmp_path.rglob(EVENTS)) == ([where / EVENTS] if where else [])


def test_a_report_that_fails_is_told_with_what_writes_it_again(
    run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    def story() -> None:
        with guard_report(run.folder):
            raise KeyError("view")

    with pytest.raises(SystemExit) as left:
        run_to_end(story)
    said = capsys.readouterr().err
    assert (left.value.code, said.count("\n")) == (1, 1)
    assert f"KeyError: 'view'); write it with: python -m fl_rsna.report {run.folder}; the traceback is in" in said
    assert not (run.folder / EVENTS).exists()


def test_a_torn_line_costs_no_event(run: RunFolder) -> None:
    run.event("first")
    with (run.folder / EVENTS).open("a") as file:
        file.write('{"time": "2020-01-01T00:00:00.000+00:00", "event": "to')
    run.event("last")
    lines = (run.folder / EVENTS).read_text().splitlines()
    assert (len(lines), json.loads(lines[-1])["event"]) == (3, "last")
    assert [event["event"] for event in EventLog(run.folder / EVENTS).new()] == ["first", "last"]


def test_a_listener_that_fails_is_asked_no_more_and_costs_nobody_an_event(run: RunFolder) -> None:
    heard: list[str] = []

    def broken(kind: str, fields: object) -> None:
        heard.append(f"broken: {kind}")
        raise BrokenPipeError("nobody reads")

    run.listen(broken)
    run.listen(lambda kind, fields: heard.append(kind))
    for kind in ("first", "second"):
        run.event(kind)
    assert [event["event"] for event in events(run.folder)] == ["first", "warning", "second"]
    assert "nobody reads" in str(events(run.folder)[1]["text"])
    assert heard == ["broken: first", "warning", "first", "second"]


def test_the_words_that_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["run.name=a b", "data.dicom=it's here", "resume=false", "+rounds=2"]
    monkeypatch.setattr(sys, "argv", ["/where/fl_rsna/simulate.py", *arguments])
    monkeypatch.setattr(sys, "orig_argv", ["python3", "-m", "fl_rsna.simulate", *arguments])
    assert command_again() == (
        """python3 -m fl_rsna.simulate 'run.name=a b' 'data.dicom=it'"'"'s here' resume=false +rounds=2"""
    )
    assert command_again("run.name=x", "resume=true", "rounds=3") == (
        """python3 -m fl_rsna.simulate 'data.dicom=it'"'"'s here' run.name=x resume=true rounds=3"""
    )


@pytest.mark.parametrize(
    ("typed", "program"),
    [
        (["python3", "-m", "fl_rsna", "simulate", "rounds=2"], "python3 -m fl_rsna simulate"),
        (["/env/bin/python3", "/env/bin/fl-rsna", "simulate", "rounds=2"], "/env/bin/fl-rsna simulate"),
        (["python3", "-m", "fl_rsna.simulate", "-m", "rounds=2"], "python3 -m fl_rsna.simulate"),
        (["python3", "-c", "..."], "python -m fl_rsna.simulate"),
    ],
)
def test_the_command_that_goes_on_begins_as_it_was_typed(
    typed: list[str], program: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The arguments may have been put in another order meanwhile."""
    monkeypatch.setattr(sys, "argv", ["/where/fl_rsna/simulate.py", "rounds=2"])
    monkeypatch.setattr(sys, "orig_argv", typed)
    assert command_again("resume=true") == f"{program} rounds=2 resume=true"


def test_an_error_of_a_worker_process_keeps_its_meaning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "refusing.py").write_text("def refuse(said):\n    raise ValueError(said)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    refuse = import_module("refusing").refuse
    with ProcessPoolExecutor(1, get_context("forkserver")) as pool:
        for act, kind in ((refuse, EndKind.refused), (int, EndKind.unexpected)):
            error = pool.submit(act, "x").exception()
            assert isinstance(error, ValueError)
            with pytest.raises(ValueError, match="x") as raised:
                raise error
            assert end_of(raised.value).kind is kind


# a command of its own, in a process

BEGIN = """import os, signal, sys, time
for heard in (signal.SIGINT, signal.SIGQUIT):  # ignored where the tests run in the background
    signal.signal(heard, signal.SIG_DFL)
from fl_rsna.common.command_end import begin_command, end_command
begin_command(goes_on=True)
"""


def command(code: str, **more: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", BEGIN + code], capture_output=True, text=True, **more)  # type: ignore[call-overload, no-any-return]


def test_the_garbage_collector_passes_over_what_was_loaded() -> None:
    done = command(
        "import gc; before = gc.isenabled(); end_command(lambda: print(before, gc.isenabled(), gc.get_freeze_count() > 1000))"
    )
    assert done.stdout == "False True True\n"


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGXCPU"])
def test_a_signal_is_one_sentence(name: str) -> None:
    heard = functools.partial(signal.signal, getattr(signal, name), signal.SIG_DFL)  # nohup ignores SIGHUP
    done = command(f"end_command(lambda: (os.kill(os.getpid(), signal.{name}), time.sleep(60)))", preexec_fn=heard)
    said = "interrupted" if name == "SIGINT" else f"stopped by {name}"
    assert (done.returncode, done.stderr.startswith(f"error: {said}; go on with: ")) == (1, True)
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "code",
    [
        "os.kill(os.getpid(), signal.SIGINT)",  # before the story, while something is imported
        "end_command(lambda: [os.kill(os.getpid(), signal.SIGINT) for _ in range(9)])",
        """
class Deaf:
    def __del__(self): os.kill(os.getpid(), signal.SIGINT); time.sleep(60)
def story():
    Deaf()
    time.sleep(60)
end_command(story)
""",
        """
def translated():
    try: os.kill(os.getpid(), signal.SIGINT); time.sleep(60)
    except BaseException: raise AttributeError("of a library that catches everything")
end_command(translated)
""",
        """
def cleaning_up():
    try: os.kill(os.getpid(), signal.SIGINT); time.sleep(60)
    finally: os.kill(os.getpid(), signal.SIGINT); time.sleep(60)
end_command(cleaning_up)
""",
        """
import threading
threading.Thread(target=time.sleep, args=(600,)).start()
end_command(lambda: os.kill(os.getpid(), signal.SIGINT))
""",
    ],
)
def test_an_interruption_is_one_sentence_wherever_it_comes(code: str) -> None:
    done = command(code)
    assert (done.returncode, done.stderr.startswith("error: interrupted")) == (1, True)
    assert done.stderr.count("\n") == 1


def test_what_the_system_ignores_stays_ignored() -> None:
    """As under nohup."""
    code = "end_command(lambda: (os.kill(os.getpid(), signal.SIGHUP), print('goes on')))"
    done = command(code, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    assert (done.returncode, done.stdout, done.stderr) == (0, "goes on\n", "")


SHOWS = """
from fl_rsna.common.screen import explain_loss
def shows():
    for _ in range(3): print("a box: \\u2501", flush=True)
    open("made", "w").write(f"{explain_loss('stdout')}"); os.write(2, b"kept")
end_command(shows)
"""


@pytest.mark.parametrize(
    ("shell", "why"),
    [(">/dev/full", "No space left on device"), ("| true", "Broken pipe"), (">&-", "it is closed"), ("| cat", "None")],
)
def test_a_screen_that_fails_ends_nothing(shell: str, why: str, tmp_path: Path) -> None:
    (tmp_path / "shows.py").write_text(BEGIN + SHOWS.replace("def shows():", "def shows():\n    time.sleep(0.5)"))
    line = f"{{ {sys.executable} shows.py; echo $? >&2; }} {shell}"
    done = subprocess.run(
        ["bash", "-c", line], cwd=tmp_path, stderr=subprocess.PIPE, text=True, env=ascii_environment()
    )
    assert ((tmp_path / "made").read_text(), done.stderr) == (why, "kept0\n")


def test_a_closed_stderr_is_no_file_that_is_opened_later(tmp_path: Path) -> None:
    (tmp_path / "shows.py").write_text(
        BEGIN + "open('made', 'w').write(f'{open(\"other\", \"w\").fileno()}'); end_command(lambda: {}['x'])"
    )
    done = subprocess.run(["bash", "-c", f"{sys.executable} shows.py 0<&- 1>&- 2>&-"], cwd=tmp_path)
    assert done.returncode == 1
    assert int((tmp_path / "made").read_text()) > 2
    assert (tmp_path / "other").read_bytes() == b""


def ascii_environment() -> dict[str, str]:
    return {**os.environ, "PYTHONIOENCODING": "ascii", "LANG": "C", "LC_ALL": "C"}


# all commands


@pytest.mark.parametrize("name", sorted(COMMANDS - {"__main__"}))
def test_no_command_bypasses_the_end(name: str) -> None:
    """It begins before anything is imported that takes time, and its last line is a call that ends it."""
    body = ast.parse((PACKAGE / f"{name}.py").read_text()).body
    blocks = [node for node in body if isinstance(node, ast.If) and "__main__" in ast.unparse(node.test)]
    first, last = blocks[0].body, blocks[-1].body
    begins = next(
        index for index, node in enumerate(first) if ast.unparse(node).startswith(("begin_command(", "start_command("))
    )
    before = body[: body.index(blocks[0])] + first[:begins]
    modules = {name for node in before for name in ast.unparse(node).split("\n") if name.startswith(("import", "from"))}
    begin = {"from fl_rsna.common.command_end import begin_command", "from fl_rsna.cli.start import start_command"}
    assert modules <= {"import sys", "import os", *begin}
    assert body[-1] is blocks[-1]
    assert ast.unparse(last[-1]).startswith(("run_command(", "run_own_command(", "end_command("))


def test_every_command_line_is_refused_alike() -> None:
    """Nobody else's parser prints a usage, and nobody else installs handlers of signals."""
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text()
        assert "ArgumentParser(" not in text.replace("class Parser(argparse.ArgumentParser)", ""), path
        if path.name not in ("command_end.py", "superlink.py"):  # uvicorn's own are there
            assert "signal.signal(" not in text, path


def test_the_page_names_every_kind_of_end() -> None:
    page = (PACKAGE.parent / "docs" / "endings.md").read_text()
    assert {f"| `{kind}` |" for kind in EndKind} == {
        f"{line[: line.index('` |') + 3]}" for line in page.splitlines() if line.startswith("| `")
    }


DEMO = [
    *("demo.patients=12", "demo.slices_per_series=4", "demo.size=64", "data.size=64", "model.image_size=32", "tracking=none"),
    *("partition.num_sites=2", "train.batch_size=8", "engine.workers=2"),
]  # fmt: skip


@pytest.mark.slow
def test_ctrl_c_prints_the_command_that_goes_on(tmp_path: Path) -> None:
    """In a group of its own, as of a terminal: nobody in it says a word more, or lives on."""
    arguments = [sys.executable, "-m", "fl_rsna.simulate", *DEMO, "rounds=2"]
    with subprocess.Popen(
        arguments,
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(
            signal.SIGINT, signal.SIG_DFL
        ),  # ignored where the tests run in the background
    ) as running:
        while running.poll() is None and not any(
            "round_start" in log.read_text() for log in tmp_path.glob(f"runs/*/{EVENTS}")
        ):
            LOOK.wait(0.05)
        os.killpg(running.pid, signal.SIGINT)
        said = running.communicate()[1]  # ends when nobody holds the pipe any more
    assert (running.returncode, said.count("\n")) == (1, 1)
    (folder,) = [path for path in (tmp_path / "runs").iterdir() if path.is_dir()]
    assert events(folder)[-1]["kind"] == "interrupted"
    again = said.removeprefix("error: interrupted; go on with: ").strip()
    assert again.endswith(f" run.name={folder.name} resume=true")
    done = subprocess.run(
        ["bash", "-c", f"{again} | head -1; exit ${{PIPESTATUS[0]}}"], cwd=tmp_path, capture_output=True
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert events(folder)[-1]["event"] == "run_end"
    assert (folder / "report.html").exists()
    log = (folder / CONSOLE_LOG).read_text()
    assert (log.count("\n--- "), f"\n{said}--- " in log) == (
        1,
        True,
    )  # the sentence ends the first part, the resumed run appended
    assert log.splitlines()[-1].startswith("report: ")
