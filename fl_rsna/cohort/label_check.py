"""Labels of other images are told by the headers of a few files, before any file is converted.

Looked at are the first files, then those that are called as a row, then files spread evenly over all. The first image with a row
ends the search. Without any it ends after FIRST files where rows that are spread over all files would have been met ENOUGH times;
a table of few images among many may be right, and is looked for in all headers.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from fl_rsna.cohort.label_ids import LabelIds, fold, stem
from fl_rsna.imaging.dicom import read_image_id
from fl_rsna.imaging.files import File, read_file
from fl_rsna.imaging.rejections import Rejected

FIRST = 1000  # files
ENOUGH = 20  # images with a row among those looked at, if all rows were of these files: none is then no chance
BEGIN = 10  # files that are looked at before any name is


def check_labels_fit(labels: LabelIds, files: Sequence[File]) -> None:
    """Raise ValueError where no image of `files` has a row. Files that are no DICOM say nothing."""
    strangers: list[str] = []
    for seen, place in enumerate(_order(labels, files), 1):
        image_id = _image_id(files[place])
        if image_id and labels.row_of(image_id):
            return
        strangers += [image_id] * bool(image_id)
        if seen == len(files) or (seen >= FIRST and len(strangers) * len(labels.ids) >= ENOUGH * len(files)):
            break
    if not strangers:  # why none of the files is an image, their conversion says
        return
    called = fold(stem(Path(files[place].name).name)) in {fold(stem(row)) for row in labels.ids}
    names = ", which are names of files and not SOPInstanceUIDs" if called else ""
    raise ValueError(
        f"data.labels: expected labels of these images, got none for {seen} of {len(files)} files: the images are called "
        f"{strangers[0]} and so on, the labels are of {min(labels.ids)} and so on{names}; give the label table of these files"
    )


def _order(labels: LabelIds, files: Sequence[File]) -> Iterator[int]:
    """Places of all files, each once, in the order in which they are looked at."""
    yield from range(min(BEGIN, len(files)))
    called = {fold(stem(row)) for row in labels.ids}
    named = [place for place, file in enumerate(files) if fold(stem(file.name)) in called]
    step = -(-len(files) // FIRST)
    spread = [*range(0, len(files), step), *(place for place in range(len(files)) if place % step)]
    yield from (place for place in dict.fromkeys([*named, *spread]) if place >= BEGIN)


def _image_id(file: File) -> str:
    try:
        return read_image_id(read_file(file))
    except Rejected:
        return ""
