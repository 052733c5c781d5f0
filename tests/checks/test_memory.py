"""What a machine has, by what it says and by what it does."""

import os
import socket
from pathlib import Path

import psutil
import pytest

from fl_rsna.checks.memory import (
    find_existing_ancestor,
    find_taken_ports,
    free_disk,
    free_memory,
    refuses_writing,
    usable_cores,
)


def test_cores_are_some_of_the_machines() -> None:
    assert 0 < usable_cores() <= (os.cpu_count() or 1)


def test_a_containers_limit_counts_and_no_limit_does_not(tmp_path: Path) -> None:
    limit, used = tmp_path / "max", tmp_path / "current"
    limit.write_text("5000\n")
    used.write_text("2000\n")
    assert free_memory(((limit, used),)) == 3000
    used.write_text("6000\n")
    assert free_memory(((limit, used),)) == 0
    limit.write_text("max\n")
    assert 3000 < free_memory(((limit, used), (tmp_path / "none", tmp_path / "none"))) <= psutil.virtual_memory().total


def test_a_folder_is_tried_and_left_as_it_is(tmp_path: Path) -> None:
    assert refuses_writing(tmp_path / "not" / "yet") == ""
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    assert refuses_writing(tmp_path / "file" / "below") == f"{tmp_path / 'file'} is no folder"
    assert find_existing_ancestor(tmp_path / "a" / "b") == tmp_path
    assert free_disk(tmp_path / "a")[0] == tmp_path.stat().st_dev


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="no folder that refuses everybody")
def test_a_folder_nobody_can_write_into_says_why() -> None:
    assert refuses_writing(Path("/proc/self")).startswith("/proc/self: ")


def test_a_port_is_taken_while_somebody_listens() -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port = listening.getsockname()[1]
        assert find_taken_ports((port,)) == [port]
    assert find_taken_ports((port,)) == []
