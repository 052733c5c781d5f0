"""A preparation that was killed is finished by the same request, to the same bytes; two at once are not possible."""

import errno
import hashlib
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from copies import Copy, copies_of
from dicom_files import write_tiny

from fl_rsna.cohort.prepared.journal import Unfinished, open_unfinished

FILES = 250  # eight chunks
PREPARE = """
import resource
from pathlib import Path
from fl_rsna.cohort.prepared.inputs import find_inputs
from fl_rsna.cohort.prepared.prepare import Request, prepare_folder
from fl_rsna.settings.data import ImageKind
from fl_rsna.imaging.workers import convert_here
from fl_rsna.task import ICH
def act(folder, dicom, last, file_bytes=resource.RLIM_INFINITY):
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(file_bytes), resource.RLIM_INFINITY))
    opened = 0
    def count(event, _):
        nonlocal opened
        if event == "open":
            opened += 1
            if opened == int(last):  # nothing is tidied up
                os.kill(os.getpid(), signal.SIGKILL)
    files = find_inputs(Path(dicom), None, ICH, unlabelled=True, test_set=False).files
    request = Request(task=ICH, image=ImageKind.hu, size=32, hash_ids=True, salt="")
    sys.addaudithook(count)
    prepare_folder(
        Path(folder), request, files, None, max_rejected=1.0, convert=convert_here, on_progress=lambda done, total: None
    )
    return opened
"""


@pytest.fixture(scope="module")
def dicom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of which some are broken, some repeat an id, and the rest are slices of five patients."""
    folder = tmp_path_factory.mktemp("dicom")
    for n in range(FILES):
        hu = np.random.default_rng(n).normal(30, 20, (32, 32)).astype(np.int16)
        path = write_tiny(folder / f"{n:03d}.dcm", f"ID_{n % 230}", f"P{n % 5}", f"S{n % 5}", float(n), hu=hu)
        if n % 13 == 0:
            path.write_bytes(path.read_bytes()[:-100])
    return folder


@pytest.fixture(scope="module")
def prepare() -> Iterator[Copy]:
    """A process that prepares, and is killed when it opens its n-th file: no clock decides where that is. Folder, dicom, n, bytes a file."""
    with copies_of(PREPARE) as call:
        yield call


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_killed_anywhere_and_repeated_it_ends_with_the_same_bytes(dicom: Path, tmp_path: Path, prepare: Copy) -> None:
    opened = int(prepare(tmp_path / "whole", dicom, -1)[1])
    rng, left = random.Random(0), set()
    for _ in range(12):
        if (tmp_path / "killed").exists():
            break
        code, said = prepare(tmp_path / "killed", dicom, rng.randrange(opened // 20, opened // 3))
        assert code in (0, -signal.SIGKILL), said
        journal = tmp_path / "killed.part" / "journal.jsonl"
        left.add(len(journal.read_text().splitlines()) if journal.exists() else None)
    assert len(left) > 1, "the process was killed at one point only"
    assert prepare(tmp_path / "killed", dicom, -1)[0] == 0
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["killed", "whole"]


def test_what_is_done_is_not_done_again(dicom: Path, tmp_path: Path) -> None:
    with open_unfinished(tmp_path / "new", {"size": 4}) as building:
        (building.images / "a.png").write_bytes(b"1234")
        building.append([line("a"), line("e", "empty_file")])
    with open_unfinished(tmp_path / "new", {"size": 4}) as building:
        assert known(building) == {"a": True, "e": False}


def line(name: str, reason: str = "") -> dict[str, object]:
    """What the journal says of a file that gave the image of that name, of the bytes 1234, or none."""
    sha256 = hashlib.sha256(b"1234").hexdigest()[:16]
    image = {"png_sha256": sha256, "png_bytes": 4} if not reason else {}
    said = {"file": name, "bytes": 1, "stamp": "1 1", "site": "", "checksum": 0, "reason": reason, **image}
    return {**said, "image_id": "" if reason else name}


def known(building: Unfinished) -> dict[str, bool]:
    """The files that are known, and whether their image is there."""
    return dict(zip(building.known["file"], building.known["has_png"], strict=True))


@pytest.mark.parametrize("harm", ["half a line", "no line", "short PNG", "other PNG", "no PNG"])
def test_only_what_is_whole_counts_as_done(tmp_path: Path, harm: str) -> None:
    part = tmp_path / "new.part"
    with open_unfinished(tmp_path / "new", {}) as building:
        for name in "ab":
            (building.images / f"{name}.png").write_bytes(b"1234")
            building.append([line(name)])
    journal = part / "journal.jsonl"
    match harm:
        case "half a line":
            journal.write_bytes(journal.read_bytes()[:-3])
        case "no line":
            journal.write_bytes(journal.read_bytes()[:-1] + b"\0\0\n")
        case "short PNG":
            (part / "images" / "b.png").write_bytes(b"12")
        case "other PNG":
            (part / "images" / "b.png").write_bytes(b"1235")
        case "no PNG":
            (part / "images" / "b.png").unlink()
    with open_unfinished(tmp_path / "new", {}) as building:
        assert known(building) == {"a": True} | ({"b": False} if "PNG" in harm else {})
        building.append([line("c", "empty_file")])
    with open_unfinished(tmp_path / "new", {}) as building:
        assert set(known(building)) == {"a", "c"} | ({"b"} if "PNG" in harm else set())


SECOND = """
import json, sys
from pathlib import Path
from fl_rsna.cohort.prepared.journal import open_unfinished
try:
    with open_unfinished(Path(sys.argv[1]), json.loads(sys.argv[2])):
        print("its turn")
except ValueError as error:
    print(error)
"""


def second(folder: Path, request: str) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", SECOND, str(folder), request]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_second_process_waits_for_the_first_and_says_so(tmp_path: Path) -> None:
    with open_unfinished(tmp_path / "new", {"size": 4}):
        process = second(tmp_path / "new", '{"size": 4}')
        assert process.stderr is not None
        assert process.stderr.readline() == f"waiting for another process, which is making {tmp_path / 'new'}\n"
        assert process.poll() is None
    assert process.communicate(timeout=60) == ("its turn\n", "")


def test_a_second_process_with_another_request_is_refused_at_once(tmp_path: Path) -> None:
    with open_unfinished(tmp_path / "new", {"size": 4}):
        said, _ = second(tmp_path / "new", '{"size": 8}').communicate(timeout=60)
    assert "unfinished preparation of another request (size differ)" in said


@pytest.mark.parametrize("holds", ["nothing", "notes", "a journal"])
def test_a_folder_of_that_name_that_is_somebody_else_s_is_refused_and_left(tmp_path: Path, holds: str) -> None:
    part = tmp_path / "new.part"
    part.mkdir()
    if holds != "nothing":
        (part / ("notes.txt" if holds == "notes" else "journal.jsonl")).write_text("mine")
    before = contents(tmp_path)
    with pytest.raises(ValueError, match="or one that fl_rsna made"), open_unfinished(tmp_path / "new", {}):
        pass
    assert contents(tmp_path) == before
    assert part.is_dir()


def test_another_request_does_not_take_what_was_begun(tmp_path: Path) -> None:
    with open_unfinished(tmp_path / "new", {"size": 4, "salt": "s"}) as building:
        building.append([line("e", "empty_file")])
    another = r"unfinished preparation of another request \(size differ\)"
    with pytest.raises(ValueError, match=another), open_unfinished(tmp_path / "new", {"size": 8, "salt": "s"}):
        pass
    assert (tmp_path / "new.part" / "journal.jsonl").exists()


def test_nothing_begun_is_nothing_left(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), open_unfinished(tmp_path / "new", {"size": 4}):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_one_sentence_and_loses_nothing(dicom: Path, tmp_path: Path, prepare: Copy) -> None:
    """A limit on file sizes stands for the disk: the journal reaches it after some files."""
    _, last = prepare(tmp_path / "new", dicom, -1, 40_000)
    assert last.startswith("ValueError: data.name: cannot write ")
    assert os.strerror(errno.EFBIG) in last
    assert "run the same command again: what is done is kept" in last
    assert prepare(tmp_path / "whole", dicom, -1)[0] == 0
    images = {path.name: path.read_bytes() for path in (tmp_path / "new.part" / "images").iterdir()}
    assert images
    assert images.items() <= {p.name: p.read_bytes() for p in (tmp_path / "whole" / "images").iterdir()}.items()
    assert prepare(tmp_path / "new", dicom, -1)[0] == 0
    assert contents(tmp_path / "new") == contents(tmp_path / "whole")
