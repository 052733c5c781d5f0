"""What DICOM to PNG costs: the reference implementation (S0), ours, and the limit, on the same files in one run.

    python benchmarks/bench_prepare.py [--dicom <folder>] [--repeats 5] [--scaling 6000]

Without --dicom it draws synthetic slices of 512 px. Figures are medians over repeats of CPU time a file; each is taken in
a process of its own, and the ways take turns. `seed` reads the headers once, then computes each window in float64 with
boolean masks, shifts and stretches it to the slice's own range, and writes with cv2.imwrite. `limit` reads the bytes,
looks stored values up in one table, deflates the PNG and writes it: no parsing, no checks, no facts. Ours is everything
`prepare` does for a file. Then two worker processes against one, by the clock, on --scaling files with ids of their own:
true on an idle machine only; and the peak memory of `prepare` for a quarter of those files and for all of them. The last
line is one JSON object with the same figures.
"""

import argparse
import contextlib
import functools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pydicom
from PIL import Image

from fl_rsna.cohort.prepared.prepare import Request, prepare_folder
from fl_rsna.common.process import keep_freed_memory
from fl_rsna.imaging.convert import Conversion, convert_files
from fl_rsna.imaging.dicom.hounsfield import WINDOWS_HU, Rescale, hu_table, window_table
from fl_rsna.imaging.dicom.reader import read_slice
from fl_rsna.imaging.dicom.rejections import Rejected
from fl_rsna.imaging.png_store import encode_png, fit_square, render
from fl_rsna.imaging.sources import File, find_files
from fl_rsna.imaging.workers import convert_local
from fl_rsna.phantom.head.cohort import Quirks, write_cohort
from fl_rsna.settings.data import ImageKind
from fl_rsna.task import ICH, Rendering

WAYS = ((ImageKind.windows, 512), (ImageKind.hu, 256))


def seed_way(paths: Sequence[str], out: Path) -> None:
    """Headers first, then windows one by one in float64 on masks: what most published notebooks do."""
    for path in paths:
        header = pydicom.dcmread(path, stop_before_pixels=True)
        _ = {element.keyword: str(element.value) for element in header}
    for path in paths:
        ds = pydicom.dcmread(path)
        channels = []
        for centre, width in WINDOWS_HU:
            grey = ds.pixel_array * float(ds.RescaleSlope) + float(ds.RescaleIntercept)
            low, high = centre - width / 2, centre + width / 2
            grey[grey < low] = low
            grey[grey > high] = high
            grey = grey - grey.min()
            channels.append((grey / max(grey.max(), 1.0) * 255.0).astype(np.uint8))
        cv2.imwrite(str(out / f"{Path(path).stem}.png"), np.dstack(channels))


def our_way(files: Sequence[File], out: Path, kind: ImageKind, size: int) -> None:
    convert_files(
        Conversion(incoming=out, rendering=Rendering.hounsfield, modalities=("CT",), kind=kind, size=size), 0, files
    )


def limit_way(
    facts: Sequence[tuple[str, int, tuple[int, int], Rescale]], out: Path, kind: ImageKind, size: int
) -> None:
    """Where the pixels lie and which table they need is known beforehand."""
    for number, (path, offset, shape, rescale) in enumerate(facts):
        with open(path, "rb", buffering=0) as file:
            stored = np.frombuffer(file.read(), np.uint16, shape[0] * shape[1], offset).reshape(shape)
        if kind is ImageKind.hu:
            image = cv2.LUT(stored, hu_table(rescale))
        else:
            packed = cv2.LUT(stored, window_table(rescale))
            image = cv2.cvtColor(packed.view(np.uint8).reshape(*shape, 4), cv2.COLOR_RGBA2RGB)
        (out / f"{number}.png").write_bytes(encode_png(fit_square(image, size)))


def usable(files: Sequence[File]) -> list[File]:
    """Files that become slices and hold plain pixels at their end."""
    kept = []
    for file in files:
        data = Path(file.path).read_bytes()
        with contextlib.suppress(Rejected):
            if data.endswith(read_slice(data, modalities=("CT",)).stored.tobytes()):
                kept.append(file)
    return kept


def known(files: Sequence[File]) -> list[tuple[str, int, tuple[int, int], Rescale]]:
    """What the limit may know beforehand of a file: its path, where its pixels begin, their shape and rescale."""
    facts = []
    for file in files:
        data = Path(file.path).read_bytes()
        slice_ = read_slice(data, modalities=("CT",))
        facts.append((file.path, len(data) - slice_.stored.nbytes, slice_.stored.shape, slice_.rescale))
    return facts


def sizes(files: Sequence[File]) -> dict[str, float]:
    """PNG bytes against cv2.imwrite's of the same array, after checking that two readers give the array back."""
    ratios = {}
    for kind, size in (*WAYS, (ImageKind.windows, 256), (ImageKind.hu, 512)):
        ours = theirs = 0
        for file in files:
            slice_ = read_slice(Path(file.path).read_bytes(), modalities=("CT",))
            image = render(slice_.stored, slice_.rescale, kind=kind, size=size)
            bgr = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
            png = encode_png(image)
            assert np.array_equal(cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED), bgr)
            with tempfile.SpooledTemporaryFile() as stream:
                stream.write(png)
                assert np.array_equal(np.asarray(Image.open(stream)).astype(image.dtype), image)
            ours += len(png)
            theirs += len(cv2.imencode(".png", bgr)[1])
        ratios[f"{kind} {size} bytes/cv2"] = ours / theirs
    return ratios


def scaling(files: Sequence[File], count: int, folder: Path, repeats: int) -> dict[str, float]:
    """Seconds of prepare_folder with one and two workers on `count` files, copies with ids of their own."""
    dicom = folder / "many"
    dicom.mkdir()
    for number in range(count):
        data = Path(files[number % len(files)].path).read_bytes()
        image_id = read_slice(data, modalities=("CT",)).header.image_id.encode()
        new = f"{number:0{len(image_id)}d}".encode()
        (dicom / f"{number:06d}.dcm").write_bytes(data.replace(image_id, new))
    listed = find_files(dicom)
    request = Request(task=ICH, image=ImageKind.hu, size=256, hash_ids=True, salt="")
    seconds: dict[int, list[float]] = {1: [], 2: []}
    for repeat in range(repeats):
        for workers, taken in seconds.items():
            began = time.perf_counter()
            convert = functools.partial(convert_local, workers=workers)
            made = prepare_folder(
                folder / f"{repeat}-{workers}", request, listed, None, max_rejected=0.0, convert=convert
            )
            taken.append(time.perf_counter() - began)
            assert len(made.index) == count
    one, two = (statistics.median(taken) for taken in seconds.values())
    (folder / "few").mkdir()
    for file in listed[: count // 4]:
        os.link(file.path, folder / "few" / file.name)
    return {
        "one worker, files/s": count / one,
        "two workers, files/s": count / two,
        "two workers/one": one / two,
        f"peak MB, {count // 4} files": peak_mb(folder / "few", folder),
        f"peak MB, {count} files": peak_mb(dicom, folder),
    }


def peak_mb(dicom: Path, folder: Path) -> float:
    """Largest resident memory of any process of the command."""
    arguments = [
        sys.executable,
        "-m",
        "fl_rsna.prepare",
        f"data.dicom={dicom}",
        "data.unlabelled=true",
        "prepare.workers=1",
    ]
    running = subprocess.Popen(
        [*arguments, f"data.name={dicom.name}", f"paths.prepared={folder / 'prepared'}"], stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(running.pid, 0)
    assert status == 0
    return usage.ru_maxrss / 1024


def run_way(way: str, files: Sequence[File], out: Path) -> float:
    """CPU microseconds a file, after a first pass that fills caches and tables."""
    name, _, what = way.partition(" ")
    if name == "seed":
        act = functools.partial(seed_way, [file.path for file in files], out)
    else:
        keep_freed_memory()  # as prepare does
        kind, size = {f"{kind} {size}": (kind, size) for kind, size in WAYS}[what]
        act = functools.partial(our_way, files, out, kind, size)
        if name == "limit":
            act = functools.partial(limit_way, known(files), out, kind, size)
    act()
    began = time.process_time()
    act()
    return (time.process_time() - began) / len(files) * 1e6


def measured(dicom: Path, repeats: int, out: Path) -> dict[str, float]:
    """Medians over repeats; every measurement is a process of its own, and the ways take turns."""
    ways = ["seed", *(f"{name} {kind} {size}" for kind, size in WAYS for name in ("ours", "limit"))]
    taken: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(repeats):
        for way in ways:
            command = [sys.executable, __file__, "--dicom", str(dicom), "--way", way, "--out", str(out)]
            taken[way].append(float(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    median = {way: statistics.median(values) for way, values in taken.items()}
    figures = {f"{way}, us a file": value for way, value in median.items()}
    for kind, size in WAYS:
        figures[f"seed/ours {kind} {size}"] = median["seed"] / median[f"ours {kind} {size}"]
        figures[f"ours/limit {kind} {size}"] = median[f"ours {kind} {size}"] / median[f"limit {kind} {size}"]
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dicom", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--scaling",
        type=int,
        default=6000,
        help="files for the comparison of workers, starting them included; 0 leaves it out",
    )
    parser.add_argument("--way", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.way:
        print(run_way(arguments.way, usable(find_files(arguments.dicom)), arguments.out))
        return
    with tempfile.TemporaryDirectory() as name:
        folder, dicom = Path(name), arguments.dicom
        if dicom is None:
            dicom = folder / "phantom" / "stage_2_train"
            write_cohort(folder / "phantom", patients=4, seed=0, size=512, slices_per_series=12, quirks=Quirks())
        (folder / "out").mkdir()
        files = usable(find_files(dicom))
        figures = measured(dicom, arguments.repeats, folder / "out") | sizes(files)
        if arguments.scaling:
            figures |= scaling(files, arguments.scaling, folder, min(3, arguments.repeats))
    print(
        f"{len(files)} files of {arguments.dicom or 'synthetic slices, 512 px'}, {arguments.repeats} repeats, medians"
    )
    for figure, value in figures.items():
        print(f"{figure:<28} {value:10.2f}")
    print(json.dumps({figure: round(value, 3) for figure, value in figures.items()}))


if __name__ == "__main__":
    main()
