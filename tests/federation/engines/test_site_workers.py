"""Worker processes: one device each, replaced when dead or busy, and gone with the run that started them."""

import os
import select
import signal
import subprocess
import sys

import pytest

from fl_rsna.federation.engines.workers import DEVICES, Worker, WorkerDied, device_of, hire, workers_for

START = """
import os, signal, sys
from fl_rsna.federation.engines.workers import hire

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
    worker = hire(1)[0]
    worker.send(os.getpid)
    print(worker.receive(), flush=True)
    sys.stdin.read()
"""


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="waits for a process by its pidfd, which Linux has")
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_when_their_run_is_stopped(end: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", START],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as run:
        assert run.stdout is not None
        worker = os.pidfd_open(int(run.stdout.readline()))
        try:
            run.send_signal(end)
            ended, _, _ = select.select([worker], [], [], 30)
            assert ended, "the worker is still there 30 s after its run was stopped"
        finally:
            os.close(worker)


def test_ctrl_c_is_left_to_the_run() -> None:
    worker = hire(1)[0]
    worker.send(signal.pthread_sigmask, signal.SIG_BLOCK, ())
    assert signal.SIGINT in worker.receive()


def test_devices_are_assigned_in_turn() -> None:
    assert [device_of(position, 2, None) for position in range(5)] == ["0", "1", "0", "1", "0"]
    assert [device_of(position, 1, None) for position in range(2)] == ["0", "0"]  # side by side on one card
    assert [device_of(position, 2, "3, 1") for position in range(3)] == ["3", "1", "3"]
    assert [device_of(position, 2, "GPU-8f,GPU-2a,7") for position in range(3)] == ["GPU-8f", "GPU-2a", "GPU-8f"]
    assert device_of(0, 0, None) is None
    assert device_of(0, 0, "") is None  # hidden on purpose: nothing to assign


def test_as_many_workers_as_asked_for_else_one_a_device_else_two() -> None:
    assert [workers_for(asked, 4) for asked in (None, 0, 1, 6)] == [4, 0, 1, 6]
    assert workers_for(None, 0) == 2


def test_a_worker_sees_only_its_own_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.delenv(DEVICES, raising=False)
    workers = [Worker(position) for position in range(3)]
    try:
        for worker in workers:
            worker.send(os.getenv, DEVICES)
        assert [worker.receive() for worker in workers] == ["0", "1", "0"]
    finally:
        for worker in workers:
            worker.end()


def test_a_busy_or_dead_worker_is_not_hired_again() -> None:
    idle, busy = hire(2)
    kept, left = idle.process.pid, busy.process.pid
    busy.send(signal.pause)
    assert [worker.process.pid for worker in hire(1)] == [kept]
    fresh = hire(2)[1]
    assert fresh.process.pid != left
    fresh.send(os._exit, 3)
    with pytest.raises(WorkerDied, match="exit code 3"):
        fresh.receive()
    assert hire(2)[1].is_ready()
