"""SIGKILL at random moments of `prepare`, and the same request again: is it the same content as without a kill?

    python tests/e2e/kill_prepare.py [--files 2000] [--kills 20] [--workers 2] [--seed 0] [--update]

Slices of noise are written and prepared once without a kill. Then, --kills times, it is begun again in an empty folder, killed
when a random part of the files stands in its journal and a random moment later, and repeated to its end. With --update every fresh folder
is first prepared from files of which half are others or missing, so that the one that is killed brings a folder up to date.
Checked: it was killed before its end, the index hash and the hash of every image are those of the first, and nothing is left beside it.

It prints a row a kill and, as the last line, one JSON object; exit code 1 unless all are the same.
"""

import argparse
import functools
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from fl_rsna.cohort.prepared.prepare import Request, prepare_folder
from fl_rsna.imaging.dicom.reader import write_slice
from fl_rsna.imaging.sources import find_files
from fl_rsna.imaging.workers import convert_local
from fl_rsna.settings.data import ImageKind
from fl_rsna.task import ICH

SIZE = 256  # pixels a side
SLICES = 40  # a series


def write(path: Path, number: int, seed: int) -> None:
    """One slice of noise; files of all numbers and seeds are of one size."""
    series = number // SLICES
    tags = {
        "Modality": "CT",
        "SOPInstanceUID": f"ID_{number:06d}",
        "PatientID": f"P{series:04d}",
        "StudyInstanceUID": f"ST{series:04d}",
        "SeriesInstanceUID": f"SE{series:04d}",
        "ImagePositionPatient": [0, 0, 5 * (number % SLICES)],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "PixelSpacing": [0.5, 0.5],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 1,
        "RescaleSlope": 1,
        "RescaleIntercept": 0,
    }
    noise = np.random.default_rng([seed, number]).normal(30, 20, (SIZE, SIZE)).astype(np.int16)
    write_slice(path, noise, tags)


def lines(journal: Path) -> int:
    try:
        return journal.read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


def content(folder: Path) -> tuple[str, str]:
    """The index hash, and one of all images with their names."""
    digest = hashlib.sha256()
    for path in sorted((folder / "images").iterdir()):
        digest.update(path.name.encode() + path.read_bytes())
    return json.loads((folder / "prepare.json").read_text())["index_sha256"], digest.hexdigest()


def prepare(place: Path, dicom: Path, workers: int) -> subprocess.Popen[str]:
    """What the command does, in a process that loads no more than that needs."""
    command = [sys.executable, __file__, "--place", str(place), "--dicom", str(dicom), "--workers", str(workers)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def prepare_here(place: Path, dicom: Path, workers: int) -> None:
    request = Request(task=ICH, image=ImageKind.hu, size=256, hash_ids=True, salt="")
    convert = functools.partial(convert_local, workers=workers)
    prepare_folder(place / "set", request, find_files(dicom), None, max_rejected=0.0, convert=convert)


def finished(place: Path, dicom: Path, workers: int) -> tuple[str, str]:
    running = prepare(place, dicom, workers)
    said = running.communicate()[1]
    if running.returncode:
        raise SystemExit(f"prepare ended with {running.returncode}: {said}")
    return content(place / "set")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--update", action="store_true")
    parser.add_argument("--place", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--dicom", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.place:
        prepare_here(arguments.place, arguments.dicom, arguments.workers)
        return 0
    rng, same, began = random.Random(arguments.seed), 0, time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        dicom, earlier = root / "dicom", root / "earlier"
        for folder, seed in ((dicom, 0), (earlier, 1)):
            folder.mkdir()
            for number in range(arguments.files if seed == 0 else arguments.files // 2):
                kept = seed == 1 and number % 2
                path = folder / f"{number:06d}.dcm"
                os.link(dicom / path.name, path) if kept else write(path, number, seed)
        expected = finished(root / "whole", dicom, arguments.workers)
        to_convert = arguments.files - (arguments.files // 4 if arguments.update else 0)
        print(f"{'kill':>4} {'journalled':>10} {'of':>6}  same")
        for kill in range(arguments.kills):
            place = root / str(kill)
            if arguments.update:
                finished(place, earlier, arguments.workers)
            part, wanted = place / "set.part", rng.randrange(1, max(2, int(0.95 * to_convert)))
            running = prepare(place, dicom, arguments.workers)
            while running.poll() is None and lines(part / "journal.jsonl") < wanted:
                time.sleep(0.002)
            time.sleep(rng.random() * 0.03)
            running.send_signal(signal.SIGKILL)
            running.communicate()
            was = lines(part / "journal.jsonl")
            found = finished(place, dicom, arguments.workers)
            good = running.returncode == -signal.SIGKILL and found == expected and os.listdir(place) == ["set"]
            same += good
            print(f"{kill:>4} {was:>10} {to_convert:>6}  {'yes' if good else 'NO'}", flush=True)
    seconds = round(time.monotonic() - began)
    result = {
        "files": arguments.files,
        "workers": arguments.workers,
        "seed": arguments.seed,
        "update": arguments.update,
    }
    print(
        json.dumps({**result, "kills": arguments.kills, "same": same, "index_sha256": expected[0], "seconds": seconds})
    )
    return int(same < arguments.kills)


if __name__ == "__main__":
    sys.exit(main())
