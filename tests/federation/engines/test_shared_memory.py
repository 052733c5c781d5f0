"""What is in shared memory is written once, goes with its phase, and after a SIGKILL with the next run's start."""

import pickle
import subprocess
import sys
from pathlib import Path

from fl_rsna.federation.engines.shared_memory import SharedContents, forget_killed

HOLD = """
import sys
from pathlib import Path
from fl_rsna.federation.engines.shared_memory import SharedContents

with SharedContents(Path(sys.argv[1])) as shared:
    print(shared.path([1, 2, 3]), flush=True)
    sys.stdin.read()
"""


def test_a_content_is_written_once_and_gone_at_the_end(tmp_path: Path) -> None:
    content, other = [1, 2, 3], ["other"]
    with SharedContents(tmp_path) as shared:
        path = shared.path(content)
        assert shared.path(content) == path != shared.path(other)
        assert pickle.loads(path.read_bytes()) == content
        forget_killed(tmp_path)
        assert path.exists()
    assert not list(tmp_path.iterdir())


def test_what_a_killed_run_left_goes_and_what_a_live_one_holds_stays(tmp_path: Path) -> None:
    strangers = tmp_path / "fl_rsna_shared-report.txt"
    strangers.touch()
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        path = Path(run.stdout.readline().strip())
        forget_killed(tmp_path)
        assert path.exists()
        run.kill()
        run.wait()
        assert path.exists()
        forget_killed(tmp_path)
    assert list(tmp_path.iterdir()) == [strangers]
