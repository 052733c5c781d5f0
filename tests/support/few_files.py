"""A few files for tests of inputs, as a folder or an archive, and what reading them gives."""

import zipfile
from pathlib import Path

from fl_rsna.imaging.convert import Conversion, Converted, Refused, convert_files
from fl_rsna.imaging.dicom.rejections import Reason, Rejected
from fl_rsna.imaging.sources import File, find_files, read_file
from fl_rsna.settings.data import ImageKind
from fl_rsna.task import Rendering

CONTENTS = {"a": b"A" * 1000, "b/c": bytes(range(256)) * 40, "b/d/e": b"", "ü z": b"two words"}


def read(found: list[File]) -> dict[str, bytes | Reason]:
    def content(file: File) -> bytes | Reason:
        try:
            return read_file(file)
        except Rejected as why:
            return why.reason if why.detail else b"a reason without a word"

    return {file.name: content(file) for file in found}


def zipped(path: Path, method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.mkdir("b")
        for name, content in CONTENTS.items():
            archive.writestr(name, content)
    return path


def conversion(incoming: Path, kind: ImageKind = ImageKind.hu, size: int = 4) -> Conversion:
    incoming.mkdir(exist_ok=True)
    return Conversion(incoming=incoming, rendering=Rendering.hounsfield, modalities=("CT",), kind=kind, size=size)


def converted(folder: Path, incoming: Path, **changes: object) -> list[Converted | Refused]:
    return convert_files(conversion(incoming, **changes), 0, find_files(folder))  # type: ignore[arg-type]


def only(folder: Path, incoming: Path, **changes: object) -> Converted:
    (result,) = converted(folder, incoming, **changes)
    assert isinstance(result, Converted)
    return result
