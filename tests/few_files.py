"""A few files for tests of inputs, as a folder or an archive, and what reading them gives."""

import zipfile
from pathlib import Path

from fl_rsna.imaging.files import File, read_file
from fl_rsna.imaging.rejections import Reason, Rejected

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
