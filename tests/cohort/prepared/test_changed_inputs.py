"""Prepared again, a folder is what its files give now: what changed is converted again, what is new or mended comes, what is gone goes."""

import os
import random
import shutil
import signal
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from copies import Copy, copies_of
from dicom_files import write_tiny
from run_always import run_always

from fl_rsna.cohort.prepared.index import Changes, Prepared, hash_id
from fl_rsna.cohort.prepared.prepare import Request, prepare_folder
from fl_rsna.imaging import workers
from fl_rsna.imaging.png_store import read_png
from fl_rsna.imaging.sources import find_files
from fl_rsna.imaging.workers import convert_here
from fl_rsna.settings.data import ImageKind
from fl_rsna.task import ICH


def prepare(
    folder: Path,
    dicom: Path,
    wanted: list[str] | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    **changes: object,
) -> Prepared:
    settings = {"image": ImageKind.hu, "size": 4, "hash_ids": True, "salt": "s"}
    request = Request(task=ICH, **{**settings, **changes})  # type: ignore[arg-type]
    labels = None
    if wanted is not None:
        labels = pd.DataFrame(0, index=pd.Index(wanted, name="image_id"), columns=list(ICH.labels))
    files = find_files(dicom)
    return prepare_folder(
        folder, request, files, labels, max_rejected=1.0, convert=convert_here, on_progress=on_progress
    )


def write(path: Path, image_id: str, hu: int, patient: str = "P1") -> Path:
    """A slice of one value; slices of the same id's length are files of the same size."""
    return write_tiny(path, image_id, patient, z=float(hu), hu=np.full((4, 4), hu, np.int16))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def value(prepared: Prepared, image_id: str) -> int:
    return int(read_png(prepared.folder / "images" / f"{image_id}.png")[0, 0]) - 1024


@pytest.fixture
def dicom(tmp_path: Path) -> Path:
    for n in range(4):
        write(tmp_path / "dicom" / f"{n}.dcm", f"ID_{n}", 10 * n)
    return tmp_path / "dicom"


@pytest.mark.parametrize("time", ["of the copy", "of the file it replaces"])
def test_a_corrected_file_of_the_same_size_is_converted_again(dicom: Path, tmp_path: Path, time: str) -> None:
    first = prepare(tmp_path / "new", dicom)
    before = (dicom / "1.dcm").stat()
    write(dicom / "1.dcm", "ID_1", 77, "P2")
    if time != "of the copy":
        os.utime(dicom / "1.dcm", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (dicom / "1.dcm").stat().st_size == before.st_size
    second = prepare(tmp_path / "new", dicom)
    assert second.changes == Changes(kept=3, again=1, new=0, gone=0)
    assert (value(first, "ID_0"), value(second, "ID_1")) == (0, 77)
    patients = second.index.set_index("image_id")["patient_id"]
    assert (patients["ID_1"], patients["ID_0"]) == (hash_id("P2", "s"), hash_id("P1", "s"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dicom", "new"]


def test_files_that_come_go_and_are_mended(dicom: Path, tmp_path: Path) -> None:
    whole = (dicom / "2.dcm").read_bytes()
    (dicom / "2.dcm").write_bytes(whole[:-8])
    (dicom / "gone").symlink_to(tmp_path / "nowhere")
    assert len(prepare(tmp_path / "new", dicom).index) == 3
    (dicom / "2.dcm").write_bytes(whole)
    (dicom / "0.dcm").unlink()
    write(tmp_path / "nowhere", "ID_4", 40)
    write(dicom / "5.dcm", "ID_5", 50)
    again = prepare(tmp_path / "new", dicom)
    assert again.changes == Changes(kept=2, again=2, new=1, gone=1)
    assert sorted(again.index["image_id"]) == ["ID_1", "ID_2", "ID_3", "ID_4", "ID_5"]
    assert sorted(path.stem for path in (tmp_path / "new" / "images").iterdir()) == sorted(again.index["image_id"])
    assert len(pd.read_csv(tmp_path / "new" / "rejected.csv")) == 0


def test_a_file_that_was_only_touched_is_kept_and_not_read_a_third_time(dicom: Path, tmp_path: Path) -> None:
    first = prepare(tmp_path / "new", dicom)
    for path in dicom.iterdir():
        os.utime(path, ns=(1, 1))
    (tmp_path / "new" / "images" / "ID_0.png").stat()
    assert prepare(tmp_path / "new", dicom).changes == Changes(kept=4, again=0, new=0, gone=0)
    third = prepare(tmp_path / "new", dicom, on_progress=lambda done, total: pytest.fail("looked into files"))
    assert third.index_sha256 == first.index_sha256


def test_rejections_that_stay_leave_the_folder_as_it_is(dicom: Path, tmp_path: Path) -> None:
    (dicom / "gone").symlink_to(tmp_path / "nowhere")
    (dicom / "notes").write_text("no DICOM")
    prepare(tmp_path / "new", dicom)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "new").rglob("*")}
    assert prepare(tmp_path / "new", dicom).changes == Changes(kept=5, again=1, new=0, gone=0)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "new").rglob("*")} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dicom", "new"]


@pytest.mark.parametrize("harm", ["no PNG", "short PNG"])
def test_an_image_that_is_gone_is_made_again(dicom: Path, tmp_path: Path, harm: str) -> None:
    prepare(tmp_path / "new", dicom)
    before = contents(tmp_path / "new")
    png = tmp_path / "new" / "images" / "ID_1.png"
    png.unlink() if harm == "no PNG" else png.write_bytes(b"")
    assert prepare(tmp_path / "new", dicom).changes == Changes(kept=3, again=1, new=0, gone=0)
    assert contents(tmp_path / "new") == before


def test_the_first_copy_of_an_id_is_the_image_whatever_comes_and_goes(dicom: Path, tmp_path: Path) -> None:
    write(dicom / "b.dcm", "ID_x", 1)
    write(dicom / "c.dcm", "ID_x", 2)
    assert value(prepare(tmp_path / "new", dicom), "ID_x") == 1
    write(dicom / "a.dcm", "ID_x", 3)
    assert value(prepare(tmp_path / "new", dicom), "ID_x") == 3
    for name in "ab":
        (dicom / f"{name}.dcm").unlink()
    assert value(prepare(tmp_path / "new", dicom), "ID_x") == 2
    prepare(tmp_path / "fresh", dicom)
    assert contents(tmp_path / "new") == contents(tmp_path / "fresh")


def change(rng: random.Random, dicom: Path) -> None:
    """Something happens to a file: it comes, is corrected, cut, mended, touched, renamed or goes. Ids are few, so copies are many."""
    name = dicom / f"{rng.randrange(8)}.dcm"
    match rng.randrange(6):
        case 0 | 1 | 2:
            write(name, f"ID_{rng.randrange(5)}", rng.randrange(10, 13), f"P{rng.randrange(2)}")
        case 3 if name.exists():
            name.write_bytes(name.read_bytes()[: rng.choice([0, 100, -8])])
        case 4 if name.exists():
            rng.choice([lambda: name.unlink(), lambda: name.rename(dicom / "renamed"), lambda: os.utime(name)])()
        case _:
            (dicom / "notes").write_text(str(rng.random()))


@pytest.mark.parametrize("seed", run_always(range(5), range(12)))
def test_whatever_happened_the_folder_is_as_if_prepared_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Byte for byte; also where some tries ended early and files changed before the next."""
    monkeypatch.setattr(workers, "CHUNK_FILES", 1)
    rng, dicom, folder = random.Random(seed), tmp_path / "dicom", tmp_path / "new"
    wanted = [f"ID_{n}" for n in range(4)] + ["ID_stays"] if seed % 2 else None
    write(dicom / "stays.dcm", "ID_stays", 5)

    def end(done: int, total: int) -> None:
        if rng.random() < 0.3:
            raise KeyboardInterrupt

    for step in range(6):
        for _ in range(rng.randrange(1, 4)):
            change(rng, dicom)
        if rng.random() < 0.5:
            try:
                prepare(folder, dicom, wanted, on_progress=end)
            except KeyboardInterrupt:
                continue
        else:
            prepare(folder, dicom, wanted)
        prepare(tmp_path / str(step), dicom, wanted)
        assert contents(folder) == contents(tmp_path / str(step))
    assert not {path.name for path in tmp_path.iterdir()} - {"dicom", "new", "new.part", *map(str, range(6))}


AGAIN = """
from pathlib import Path
from fl_rsna.cohort.prepared.prepare import Request, prepare_folder
from fl_rsna.imaging.sources import find_files
from fl_rsna.settings.data import ImageKind
from fl_rsna.imaging.workers import convert_here
from fl_rsna.task import ICH
def act(folder, dicom, last):
    happened = 0
    def count(event, _):
        nonlocal happened
        if event in ("os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree"):
            happened += 1
            if happened == int(last):  # nothing is tidied up
                os.kill(os.getpid(), signal.SIGKILL)
    request = Request(task=ICH, image=ImageKind.hu, size=4, hash_ids=True, salt="s")
    files = find_files(Path(dicom))
    sys.addaudithook(count)
    prepare_folder(Path(folder), request, files, None, max_rejected=1.0, convert=convert_here)
    return happened
"""


@pytest.fixture
def again() -> Iterator[Copy]:
    """A process that prepares and is killed when it links, renames or deletes the n-th time: folder, dicom, n."""
    with copies_of(AGAIN) as call:
        yield call


@pytest.mark.slow
def test_killed_anywhere_while_it_is_exchanged_it_is_the_old_or_the_new_one(
    dicom: Path, tmp_path: Path, again: Copy
) -> None:
    prepare(tmp_path / "first", dicom)
    (tmp_path / "first" / "notes.txt").write_text("mine")
    old = contents(tmp_path / "first")
    write(dicom / "1.dcm", "ID_1", 77)
    (dicom / "0.dcm").unlink()
    prepare(tmp_path / "fresh", dicom)
    new = contents(tmp_path / "fresh") | {"notes.txt": b"mine"}
    shutil.copytree(tmp_path / "first", tmp_path / "whole")
    steps = int(again(tmp_path / "whole", dicom, -1)[1])
    assert contents(tmp_path / "whole") == new
    left = 0
    for last in range(2, steps + 1, 3):
        place = tmp_path / str(last)
        shutil.copytree(tmp_path / "first", place / "new")
        assert again(place / "new", dicom, last)[0] == -signal.SIGKILL
        left += (place / "new.part").exists()
        if (place / "new" / "prepare.json").exists():
            found = {
                name: content
                for name, content in contents(place / "new").items()
                if name not in ("notes.txt", "owner.json")
            }
            assert found in ({name: old[name] for name in old if name != "notes.txt"}, contents(tmp_path / "fresh"))
        else:
            assert (place / "new.part" / "prepare.json").exists()
        prepare(place / "new", dicom)
        assert {name: content for name, content in contents(place / "new").items() if name != "owner.json"} == new
        assert sorted(path.name for path in place.iterdir()) == ["new"]
    assert left


def test_images_that_others_share_by_hard_links_keep_their_bytes(dicom: Path, tmp_path: Path) -> None:
    prepare(tmp_path / "new", dicom)
    for path in (tmp_path / "new" / "images").iterdir():
        os.link(path, tmp_path / f"linked-{path.name}")
    before = {path: path.read_bytes() for path in tmp_path.glob("linked-*")}
    for n in range(3):
        write(dicom / f"{n}.dcm", f"ID_{n}", 99 + n)
    prepare(tmp_path / "new", dicom)
    assert {path: path.read_bytes() for path in before} == before
    assert os.path.samefile(tmp_path / "new" / "images" / "ID_3.png", tmp_path / "linked-ID_3.png")


def test_files_of_somebody_else_in_the_folder_stay(dicom: Path, tmp_path: Path) -> None:
    prepare(tmp_path / "new", dicom)
    for name in ("notes.txt", "images/drawing.png"):
        (tmp_path / "new" / name).write_text("mine")
    (tmp_path / "new" / "mine").mkdir()
    write(dicom / "1.dcm", "ID_1", 77)
    prepare(tmp_path / "new", dicom)
    for name in ("notes.txt", "images/drawing.png"):
        assert (tmp_path / "new" / name).read_text() == "mine"
    assert (tmp_path / "new" / "mine").is_dir()


def test_files_none_of_which_was_there_are_another_data_set(dicom: Path, tmp_path: Path) -> None:
    prepare(tmp_path / "new", dicom)
    before = contents(tmp_path / "new")
    write(tmp_path / "others" / "x.dcm", "ID_0", 0)
    with pytest.raises(
        ValueError, match=r"^data\.name: expected the files that .*new was prepared from, or some of them"
    ):
        prepare(tmp_path / "new", tmp_path / "others")
    assert contents(tmp_path / "new") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dicom", "new", "others"]


def test_a_member_of_an_archive_is_known_by_its_checksum(dicom: Path, tmp_path: Path) -> None:
    def packed() -> Path:
        with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
            for path in sorted(dicom.iterdir()):
                archive.write(path, path.name)
        return tmp_path / "all.zip"

    prepare(tmp_path / "new", packed())
    nothing = Changes(kept=4, again=0, new=0, gone=0)
    assert prepare(tmp_path / "new", packed()).changes == nothing
    assert prepare(tmp_path / "new", dicom).changes == nothing, "the same bytes, unpacked"
    write(dicom / "1.dcm", "ID_1", 77)
    changed = prepare(tmp_path / "new", packed())
    assert (value(changed, "ID_1"), changed.changes) == (77, Changes(kept=3, again=1, new=0, gone=0))


def test_another_site_in_a_list_is_another_origin(dicom: Path, tmp_path: Path) -> None:
    def listed(sites: str) -> Path:
        paths = [str(path) for path in sorted(dicom.iterdir())]
        pd.DataFrame({"path": [*paths, paths[0]], "site": list(sites)}).to_csv(tmp_path / "list.csv", index=False)
        return tmp_path / "list.csv"

    prepare(tmp_path / "new", listed("aabba"))
    index = prepare(tmp_path / "new", listed("abbba")).index
    assert dict(zip(index["image_id"], index["origin"], strict=True)) == dict(
        zip([f"ID_{n}" for n in range(4)], "abbb", strict=True)
    )


def test_a_try_that_ended_early_is_finished_with_the_files_as_they_are_now(
    dicom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One file was still being copied, another is corrected in between."""
    monkeypatch.setattr(workers, "CHUNK_FILES", 1)
    whole = (dicom / "0.dcm").read_bytes()
    (dicom / "0.dcm").write_bytes(whole[:-8])

    def end(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(tmp_path / "new", dicom, on_progress=end)
    (dicom / "0.dcm").write_bytes(whole)
    write(dicom / "1.dcm", "ID_1", 77)
    found = prepare(tmp_path / "new", dicom)
    assert found.changes == Changes(kept=1, again=2, new=1, gone=0)
    assert [value(found, f"ID_{n}") for n in range(4)] == [0, 77, 20, 30]


def test_names_of_files_do_not_stand_in_the_folder(dicom: Path, tmp_path: Path) -> None:
    write(dicom / "AnnaAdams" / "scan.dcm", "ID_9", 90)
    prepare(tmp_path / "new", dicom)
    table = pd.read_parquet(tmp_path / "new" / "inputs.parquet")
    assert "AnnaAdams" not in table.to_csv()
    assert len(table) == 5
