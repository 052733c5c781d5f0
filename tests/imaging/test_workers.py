"""Who converts does not matter to the results; a file that ends its worker is one row, and nothing else is lost."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from dicom_files import write_slow, write_tiny

from fl_rsna.imaging.convert import Conversion, Converted, Refused
from fl_rsna.imaging.dicom.rejections import Reason
from fl_rsna.imaging.sources import find_files
from fl_rsna.imaging.workers import CHUNK_FILES, Converter, chunks_from, convert_here, convert_local, convert_on_ray
from fl_rsna.settings.data import ImageKind
from fl_rsna.task import Rendering

FILES = 3 * CHUNK_FILES + 5
Outcome = tuple[object, ...]


@pytest.fixture(scope="module")
def dicom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """FILES files, more than three chunks: every tenth is no DICOM."""
    folder = tmp_path_factory.mktemp("dicom")
    for n in range(FILES):
        path = write_tiny(folder / f"{n:03d}.dcm", f"ID_{n}", z=n, hu=np.full((6, 5), n, np.int16))
        if n % 10 == 3:
            path.write_bytes(b"no DICOM")
    return folder


def run(convert: Converter, dicom: Path, incoming: Path, start: int = 0, file_cpu_s: float = 10) -> list[Outcome]:
    """What each file gave, with the PNG's bytes instead of its passing name."""
    incoming.mkdir()
    work = Conversion(
        incoming=incoming,
        rendering=Rendering.hounsfield,
        modalities=("CT",),
        kind=ImageKind.hu,
        size=4,
        file_cpu_s=file_cpu_s,
    )
    results = [result for chunk in convert(work, chunks_from(find_files(dicom), start)) for result in chunk]
    return [outcome(result, incoming) for result in results]


def outcome(result: Converted | Refused, incoming: Path) -> Outcome:
    if isinstance(result, Refused):
        return (result,)
    return replace(result, written=""), (incoming / result.written).read_bytes()


def names(outcomes: Sequence[Outcome]) -> list[str]:
    return [str(getattr(result, "reason", "")) or result.header.image_id for result, *_ in outcomes]  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def expected(dicom: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Outcome]:
    return run(convert_here, dicom, tmp_path_factory.mktemp("expected") / "incoming")


def test_results_come_in_the_order_of_the_files(expected: list[Outcome]) -> None:
    assert names(expected) == ["not_dicom" if n % 10 == 3 else f"ID_{n}" for n in range(FILES)]


@pytest.mark.parametrize("workers", [1, 3])
def test_processes_give_what_this_one_gives(dicom: Path, expected: list[Outcome], tmp_path: Path, workers: int) -> None:
    assert run(partial(convert_local, workers=workers), dicom, tmp_path / "incoming") == expected


@pytest.mark.slow
def test_ray_gives_what_this_process_gives(dicom: Path, expected: list[Outcome], tmp_path: Path) -> None:
    assert run(partial(convert_on_ray, workers=2), dicom, tmp_path / "incoming") == expected


@pytest.mark.slow
def test_ray_survives_a_file_that_ends_its_worker(tmp_path: Path) -> None:
    dicom = with_slow_file(tmp_path / "dicom", 3)
    found = names(run(partial(convert_on_ray, workers=1), dicom, tmp_path / "incoming", file_cpu_s=0.2))
    assert found == ["ID_0", "crashed", "ID_1", "ID_2"]


def test_the_rest_after_a_stop(dicom: Path, expected: list[Outcome], tmp_path: Path) -> None:
    assert run(convert_here, dicom, tmp_path / "incoming", start=50) == expected[50:]


def with_slow_file(folder: Path, count: int) -> Path:
    """`count` small files and, second among them, one that takes more than 0.2 s of processor time."""
    for n in range(count):
        write_tiny(folder / f"{n:03d}.dcm", f"ID_{n}")
    write_slow(folder / "000slow.dcm")
    return folder


def test_a_file_that_ends_its_worker_is_one_row(tmp_path: Path) -> None:
    """Two chunks are under way when it happens, and more are to come."""
    count = 5 * CHUNK_FILES
    dicom = with_slow_file(tmp_path / "dicom", count)
    outcomes = run(partial(convert_local, workers=2), dicom, tmp_path / "incoming", file_cpu_s=0.2)
    assert names(outcomes) == ["ID_0", "crashed", *(f"ID_{n}" for n in range(1, count))]
    refused = outcomes[1][0]
    assert isinstance(refused, Refused)
    assert (refused.path, refused.reason) == ("000slow.dcm", Reason.crashed)
    assert "more than 0.2 s" in refused.detail


def test_a_disk_that_takes_nothing_ends_the_work(dicom: Path, tmp_path: Path) -> None:
    def without_folder(work: Conversion, *rest: object) -> object:
        work.incoming.rmdir()
        return convert_local(work, *rest, workers=1)  # type: ignore[arg-type]

    with pytest.raises(OSError, match="incoming"):
        run(without_folder, dicom, tmp_path / "incoming")  # type: ignore[arg-type]


@pytest.mark.parametrize("convert", [convert_here, partial(convert_local, workers=1)])
def test_stopping_early_ends_the_work(dicom: Path, tmp_path: Path, convert: Callable[..., object]) -> None:
    incoming = tmp_path / "incoming"
    incoming.mkdir()
    work = Conversion(incoming=incoming, rendering=Rendering.hounsfield, modalities=("CT",), kind=ImageKind.hu, size=4)
    many = [*find_files(dicom)] * 20
    results = convert(work, chunks_from(many, 0))
    next(results)  # type: ignore[call-overload]
    results.close()  # type: ignore[attr-defined]
    after = len(list(incoming.iterdir()))
    assert after < len(many) / 2
