"""What a run goes on from is read back as it was written, or refused by name: cut, emptied, changed or of something else."""

import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fl_rsna.common.hashes import (
    array_written,
    is_whole,
    map_array,
    read_record,
    read_table,
    read_vectors,
    write_record,
    write_table,
    write_vectors,
)
from fl_rsna.common.reading import UnreadableFile

DO = "bring it back"
FACTS = {"run_id": "r1", "site": "site-1", "round": 3}
VECTORS = {"control": np.arange(6, dtype=np.float32), "norm": np.array([[1, 2], [3, 4]], np.int64)}
TABLE = pd.DataFrame(
    {"image_id": ["a", "b", "c"], "label": [0.0, 1.0, np.nan], "rank": [1, 2, 3], "own": [True, False, True]}
)


def read_facts(path: Path, facts: dict[str, object]) -> object:
    return {name: value for name, value in read_record(path, DO, facts).items() if name != "losses"}


def read_numbers(path: Path, facts: dict[str, object]) -> object:
    return {name: vector.tolist() for name, vector in read_vectors(path, DO, facts)[0].items()}


def read_rows(path: Path, facts: dict[str, object]) -> object:
    return read_table(path, DO, facts).to_csv()


Case = tuple[Callable[[Path], None], Callable[[Path, dict[str, object]], object]]
CASES: dict[str, Case] = {
    "record": (lambda path: write_record(path, {**FACTS, "losses": [0.5, float("inf")]}), read_facts),
    "vectors": (lambda path: write_vectors(path, VECTORS, {**FACTS, "best": float("inf")}), read_numbers),
    "table": (lambda path: write_table(path, TABLE, FACTS), read_rows),
}


@pytest.mark.parametrize("case", CASES)
def test_no_cut_and_no_flipped_bit_is_read_as_something_else(case: str, tmp_path: Path) -> None:
    write, read = CASES[case]
    path = tmp_path / "state"
    write(path)
    whole, expected = path.read_bytes(), read(path, FACTS)
    step = max(1, len(whole) // 400)
    changed = [whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :] for at in range(0, len(whole), step)]
    for content in (b"", whole[: len(whole) // 2], whole[:-1], *changed):
        path.write_bytes(content)
        try:
            assert read(path, FACTS) == expected
        except UnreadableFile as error:
            assert str(path) in str(error)  # noqa: PT017
            assert str(error).endswith(DO)  # noqa: PT017


@pytest.mark.parametrize("name", FACTS)
@pytest.mark.parametrize("case", CASES)
def test_a_whole_file_of_another_run_site_or_round_is_refused(case: str, name: str, tmp_path: Path) -> None:
    write, read = CASES[case]
    path = tmp_path / "state"
    write(path)
    read(path, {})
    with pytest.raises(UnreadableFile, match=f"expected {name} other in .*state.*another one's"):
        read(path, {**FACTS, name: "other"})


def test_what_another_program_wrote_has_no_hash_and_is_taken_only_where_it_may(tmp_path: Path) -> None:
    TABLE.to_parquet(tmp_path / "t.parquet")
    assert read_table(tmp_path / "t.parquet", DO, hashed=False)["rank"].tolist() == [1, 2, 3]
    with pytest.raises(UnreadableFile, match="changed or damaged"):
        read_table(tmp_path / "t.parquet", DO)


def write_array(path: Path) -> None:
    with array_written(path, np.uint16, (4, 3, 3)) as array:
        array[:] = np.arange(36).reshape(4, 3, 3)


def test_an_array_is_mapped_as_it_was_filled(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    assert not is_whole(path)
    write_array(path)
    assert is_whole(path)
    found = map_array(path)
    np.testing.assert_array_equal(found, np.arange(36).reshape(4, 3, 3))
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(np.load(path), found)
    assert list(tmp_path.iterdir()) == [path]


def test_an_array_that_was_not_filled_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), array_written(tmp_path / "a.npy", np.float32, (5,)):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_no_cut_and_no_flipped_bit_of_an_array_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    write_array(path)
    whole = path.read_bytes()
    for number, at in enumerate(range(len(whole))):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])
        os.utime(path, ns=(number, number))  # two changes in one tick of the clock are one to a process
        assert not is_whole(path)
    for left in (0, 1, 31, 32, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:left])
        assert not is_whole(path)


FILL = """
import resource, signal, sys
import numpy as np
from pathlib import Path
from fl_rsna.common.hashes import array_written
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    with array_written(Path(sys.argv[1]) / "a.npy", np.uint8, (200_000,)) as array:
        array[:] = 1
except OSError as error:
    print("refused", error.errno)
"""


def test_a_disk_without_room_is_an_error_before_anything_is_mapped(tmp_path: Path) -> None:
    """RLIMIT_FSIZE stands for it: it stops a file from growing where a full disk does."""
    found = subprocess.run([sys.executable, "-c", FILL, str(tmp_path)], capture_output=True, text=True, check=True)
    assert found.stdout.startswith("refused")
    assert list(tmp_path.iterdir()) == []
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY  # of this process it is not
