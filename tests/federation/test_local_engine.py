"""The worker processes of the local engine do not outlive their run."""

import os
import select
import subprocess
import sys

import pytest

START = """
import os, sys
from fl_rsna.federation.engines.local import start_pool

pool = start_pool(1)
print(pool.submit(os.getpid).result(), flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="waits for a process by its pidfd, which Linux has")
def test_workers_end_when_their_run_is_killed() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", START], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as run:
        assert run.stdout is not None
        worker = os.pidfd_open(int(run.stdout.readline()))
        try:
            run.kill()
            ended, _, _ = select.select([worker], [], [], 30)
            assert ended, "the worker is still there 30 s after its run was killed"
        finally:
            os.close(worker)
