"""Many DICOM files to PNGs: one small row of facts a file, in the order of the paths, read by several threads."""

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fl_rsna.imaging.dicom import Reason, Rejected, Slice, read_slice
from fl_rsna.imaging.store import ImageKind, render, write_png
from fl_rsna.imaging.windows import HU_MAX, HU_MIN, HU_OFFSET, to_hu16

BRAIN_HU = (0, 80)  # the brain window's range: what "brain" means in the share and the mean below


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted:
    """Facts about one written slice; HU statistics are of the clipped, unresized slice."""

    path: Path
    image_id: str
    patient_id: str
    study_id: str
    series_id: str
    position_mm: float | None
    tilt_deg: float | None
    row_spacing_mm: float | None
    column_spacing_mm: float | None
    rows: int
    columns: int
    hu_mean: float
    hu_std: float
    brain_share: float  # of pixels with 0 <= HU <= 80
    brain_hu_mean: float  # of those pixels; 0 when there are none


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A file that gave no slice, and why."""

    path: Path
    image_id: str  # empty when the file did not say
    reason: Reason
    tag: str
    detail: str


def convert_files(
    paths: Sequence[Path],
    images: Path,
    *,
    modality: str,
    kind: ImageKind,
    size: int,
    workers: int,
    wanted: Callable[[str], bool],
) -> Generator[Converted | Refused, None, None]:
    """Write `images`/<image id>.png for each readable file whose id is `wanted`; results come in the order of `paths`.

    Of files that share an id the first is kept. Memory is that of 32 slices a worker, whatever the number of files.
    """
    seen: set[str] = set()
    queue = iter(paths)
    with ThreadPoolExecutor(workers) as pool:
        while batch := list(islice(queue, 32 * workers)):
            read = list(pool.map(lambda path: _read(path, modality), batch))
            decided = [_decide(path, result, seen, wanted) for path, result in zip(batch, read, strict=True)]
            yield from pool.map(lambda path, result: _finish(path, result, images, kind, size), batch, decided)


def _read(path: Path, modality: str) -> Slice | Refused:
    try:
        return read_slice(path, modality=modality)
    except Rejected as why:
        return Refused(path=path, image_id="", reason=why.reason, tag=why.tag, detail=why.detail)


def _decide(path: Path, result: Slice | Refused, seen: set[str], wanted: Callable[[str], bool]) -> Slice | Refused:
    if isinstance(result, Refused):
        return result
    image_id = result.image_id
    if image_id in seen:
        return Refused(path=path, image_id=image_id, reason=Reason.duplicate_id, tag="SOPInstanceUID", detail=image_id)
    if not wanted(image_id):
        return Refused(path=path, image_id=image_id, reason=Reason.no_label, tag="", detail="no row in data.labels")
    seen.add(image_id)
    return result


def _finish(path: Path, result: Slice | Refused, images: Path, kind: ImageKind, size: int) -> Converted | Refused:
    if isinstance(result, Refused):
        return result
    write_png(images / f"{result.image_id}.png", render(result.stored, result.rescale, kind=kind, size=size))
    return Converted(
        path=path,
        image_id=result.image_id,
        patient_id=result.patient_id,
        study_id=result.study_id,
        series_id=result.series_id,
        position_mm=result.position_mm,
        tilt_deg=result.tilt_deg,
        row_spacing_mm=result.spacing_mm[0] if result.spacing_mm else None,
        column_spacing_mm=result.spacing_mm[1] if result.spacing_mm else None,
        rows=result.stored.shape[0],
        columns=result.stored.shape[1],
        **_statistics(result),
    )


def _statistics(slice_: Slice) -> dict[str, float]:
    levels = np.bincount(to_hu16(slice_.stored, slice_.rescale).ravel(), minlength=HU_MAX + HU_OFFSET + 1)
    hu = np.arange(HU_MIN, HU_MAX + 1)
    mean = _weighted_mean(hu, levels)
    brain = (hu >= BRAIN_HU[0]) & (hu <= BRAIN_HU[1])
    return {
        "hu_mean": mean,
        "hu_std": float(np.sqrt(_weighted_mean((hu - mean) ** 2, levels))),
        "brain_share": float(levels[brain].sum() / levels.sum()),
        "brain_hu_mean": _weighted_mean(hu[brain], levels[brain]),
    }


def _weighted_mean(values: NDArray[np.number], counts: NDArray[np.integer]) -> float:
    total = counts.sum()
    return float(np.dot(values.astype(np.float64), counts) / total) if total else 0.0
