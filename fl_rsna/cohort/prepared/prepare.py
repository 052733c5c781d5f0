"""Convert files and their labels to a prepared folder, which appears only when it is complete and can be resumed when killed.

After its conversion each file is accepted or rejected: its PNG gets its name or is deleted, and the journal gets a line.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from fl_rsna.cohort.prepared.index import (
    HASHED,
    PREPARE_AGAIN,
    STORED,
    Changes,
    Prepared,
    build_index,
    check_stored,
    hash_id,
    read_prepared,
    series_by_order,
)
from fl_rsna.cohort.prepared.input_files import (
    INPUTS,
    Finished,
    Listing,
    fields_of,
    is_as_known,
    list_inputs,
    plan,
    read_finished,
    read_inputs,
)
from fl_rsna.cohort.prepared.journal import Row, Unfinished, open_unfinished, part_of
from fl_rsna.cohort.prepared.label_ids import Fit, LabelIds, check_labels_fit, label_ids, of_images
from fl_rsna.cohort.prepared.label_rules import check_exams
from fl_rsna.cohort.prepared.outcome import REJECTED, settle
from fl_rsna.cohort.prepared.patients import by_placeholder, of_several_issuers, patient_of
from fl_rsna.common.atomic import link_kept
from fl_rsna.common.hashes import table_sha256
from fl_rsna.common.id_scheme import id_scheme
from fl_rsna.common.ownership import clear_killed, drop, is_clear
from fl_rsna.common.reading import dump_hashed_json, file_sha256, read_csv, read_json
from fl_rsna.imaging.convert import Conversion, Converted, Refused, Unchanged
from fl_rsna.imaging.dicom.rejections import Reason
from fl_rsna.imaging.sources import File
from fl_rsna.imaging.workers import Converter, chunks_from
from fl_rsna.settings.data import ImageKind, kinds_of
from fl_rsna.task import Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Decisions:
    """Decides which converted files are accepted.

    `wanted` are the ids of the label table, None to prepare without labels. `places` has the place in the input of the first file of each id.
    """

    building: Unfinished
    wanted: LabelIds | None
    salt: str | None  # None: ids are not hashed
    places: dict[str, int] = field(default_factory=dict)

    def claim(self, image_id: str, place: int) -> bool:
        """Give an id to the file at `place`, unless a file before it in the input has it. Returns whether it was given."""
        if self.places.get(image_id, place) < place:
            return False
        self.places[image_id] = place
        return True

    def row(self, place: int, key: str, file: File, result: Converted | Refused) -> Row:
        """Accept or reject a file and return its line of the journal. Identifiers are hashed before they reach the disk.

        Raises ValueError where rows of the label table contradict each other about the image.
        """
        known = {"file": key, "bytes": file.size, "stamp": file.stamp, "site": file.origin, "checksum": result.checksum}
        if isinstance(result, Refused):
            return known | _build_refusal(result.image_id, result.reason, result.tag, result.detail)
        png, image_id = self.building.incoming / result.written, result.header.image_id
        if self.wanted is not None and self.wanted.row_of(image_id) is None:
            drop(png)
            return known | _build_refusal(image_id, Reason.no_label, "", "no row in data.labels")
        if not self.claim(image_id, place):
            drop(png)
            copy = _build_refusal(image_id, Reason.duplicate_id, "SOPInstanceUID", "")
            return known | copy | {"png_sha256": result.png_sha256}
        os.replace(png, self.building.images / f"{image_id}.png")
        header = asdict(result.header)
        patient = patient_of(
            header["patient_id"], issuer=header.pop("issuer"), site=file.origin, institution=header["origin"]
        )
        facts: dict[str, Any] = {**header, **asdict(patient), **asdict(result.statistics)}
        if self.salt is not None:
            facts |= {column: hash_id(facts[column], self.salt) for column in HASHED if facts.get(column)}
        facts["origin"] = file.origin or facts["origin"]
        return facts | known | {"png_sha256": result.png_sha256, "png_bytes": result.png_bytes, "reason": ""}


def _build_refusal(image_id: str, reason: Reason, tag: str, detail: str) -> Row:
    return {"image_id": image_id, "reason": reason, "tag": tag, "detail": detail}


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request to prepare data. The same request of the same files gives the same folder, byte for byte."""

    task: Task
    image: ImageKind
    size: int
    hash_ids: bool
    salt: str

    def check(self) -> None:
        """Raise ValueError when images of the task cannot be stored as `image`."""
        kinds = kinds_of(self.task.rendering)
        if self.image not in kinds:
            raise ValueError(
                f"data.image: expected {' or '.join(kinds)} for task {self.task.name}, got {self.image}; say data.image={kinds[0]}"
            )

    def identity(self, labels: pd.DataFrame | None) -> dict[str, Any]:
        """Return the settings and the hash of the labels that prepare.json records; input files may change without changing these."""
        return {
            "task": self.task.name,
            "image": self.image.value,
            "size": self.size,
            "hash_ids": self.hash_ids,
            "ids": id_scheme(self.hash_ids, self.salt),
            "labels_sha256": None if labels is None else table_sha256(labels.reset_index()),
        }


def prepare_folder(
    folder: Path,
    request: Request,
    files: Sequence[File],
    labels: pd.DataFrame | None,
    *,
    max_rejected: float,
    convert: Converter,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Prepared:
    """Convert `files`; with `labels` only those that have a row there.

    A folder that the same request already made of the same files is returned as it is. Where files changed, came or went, only those are
    converted, and the folder is replaced as a whole. An unfinished folder is finished; one that another process makes is waited for.
    `on_progress` gets the numbers of files done and of all files. Raises ValueError when images of the task cannot be stored as requested,
    the folder holds something else, no image can be prepared, more than the share `max_rejected` of the files is rejected, or the disk is
    full. After the last two, converted files stay in `<folder>.part` for the next try.
    """
    request.check()
    identity = request.identity(labels)
    listing = list_inputs(files, request.salt if request.hash_ids else "")
    if os.path.lexists(folder) and not os.path.lexists(part_of(folder)) and is_clear(folder):
        finished = read_finished(folder, identity, request.task)
        if is_as_known(listing, finished.known):
            return finished.as_it_is()
    try:
        with open_unfinished(folder, identity) as building:
            clear_killed(folder)
            before = read_finished(folder, identity, request.task) if os.path.lexists(folder) else None
            if before is not None and is_as_known(listing, before.known):
                building.forget()  # another process made it while this one waited
                return before.as_it_is()
            known = None if labels is None else label_ids(labels)
            changes = _convert_rest(building, request, listing, before, known, convert, on_progress)
            stated = [] if before is None else [read_inputs(folder, before.facts)]
            rendering = request.task.rendering
            settled = settle(listing, [*stated, *building.tables(fields_of(rendering))], rendering)
            if before is not None and before.is_whole and settled.inputs.equals(stated[0]):
                building.forget()
                return replace(before.prepared, changes=changes)
            facts, rejected = settled.facts, settled.rejected
            fits: dict[Fit, int] = {}
            if known is not None:
                with _forget_on_refusal(building):
                    labels, fits = of_images(known, facts["image_id"])
            _check_rejected(building, rejected, len(files), max_rejected)
            index = build_index(facts, labels, rendering)
            if labels is not None:
                with _forget_on_refusal(building):
                    check_exams(index, index, request.task)
            if before is not None:
                earlier = set(settled.facts.loc[settled.sources == 0, "image_id"])
                link_kept(sorted(earlier & set(index["image_id"])), before.images, building.images)
            index.to_parquet(building.part / "index.parquet", index=False)
            rejected.to_csv(building.part / "rejected.csv", index=False)
            pq.write_table(settled.inputs, building.part / INPUTS)
            record = _record(index, rejected, labels, request.task, identity) | {"label_ids": fits}
            stored = ("index.parquet", "rejected.csv", INPUTS)
            record[STORED] = {name: file_sha256(building.part / name) for name in stored}
            (building.part / "prepare.json").write_bytes(dump_hashed_json(record))
            building.finish(folder, index["image_id"], () if before is None else before.known["image_id"])
    except OSError as error:
        raise ValueError(
            f"data.name: cannot write {error.filename or folder}: {error.strerror or error}; mend that and run the same "
            "command again: what is done is kept and valid"
        ) from None
    return replace(read_prepared(folder, request.task), changes=changes)


def read_rejected(folder: Path) -> pd.DataFrame:
    """Read rejected.csv of a prepared folder, as text. Raises ValueError when it is damaged or was changed."""
    path, facts = folder / "rejected.csv", folder / "prepare.json"
    found = read_csv(path, PREPARE_AGAIN, columns=REJECTED, dtype=str, keep_default_na=False)
    check_stored(folder, read_json(facts) if facts.exists() else {}, path.name)
    return found


def _convert_rest(
    building: Unfinished,
    request: Request,
    listing: Listing,
    before: Finished | None,
    wanted: LabelIds | None,
    convert: Converter,
    on_progress: Callable[[int, int], None],
) -> Changes:
    """Convert, in input order, the files that cannot be kept from the existing folder and earlier tries, and count the changes.

    Raises ValueError when the folder was made of other files, or the labels are of other images.
    """
    work = Conversion(
        incoming=building.incoming.absolute(),
        rendering=request.task.rendering,
        modalities=request.task.modalities,
        kind=request.image,
        size=request.size,
    )
    files, keys = listing.files, listing.table["file"].to_list()
    known = pd.concat([*([] if before is None else [before.known]), building.known])
    planned = plan(listing, known.drop_duplicates("file", keep="last"))
    if len(known) and not planned.known.any():
        made = building.part if before is None else before.prepared.folder
        raise ValueError(
            f"data.name: expected the files that {made} was prepared from, or some of them, got others in data.dicom, none of which has "
            "a name of those; choose another data.name or delete the folder"
        )
    decisions = Decisions(building=building, wanted=wanted, salt=request.salt if request.hash_ids else None)
    for place, image_id in planned.images():
        decisions.claim(image_id, place)
    places, to_read = planned.to_read(files)
    at, new, again = 0, 0, 0
    done = len(files) - len(places)
    on_progress(done, len(files))
    if wanted is not None and not len(known):
        with _forget_on_refusal(building):
            check_labels_fit(wanted, files)
    with closing(convert(work, chunks_from(to_read, 0))) as results:  # on an error the workers stop writing
        for chunk in results:
            rows = []
            for place, result in zip(places[at : at + len(chunk)], chunk, strict=True):
                if isinstance(result, Unchanged):
                    if image_id := planned.image_ids[place]:
                        decisions.claim(image_id, place)
                    continue
                with _forget_on_refusal(building):
                    rows.append(decisions.row(place, keys[place], files[place], result))
                new += not planned.known[place]
                again += bool(planned.known[place])
            building.append(rows)
            at, done = at + len(chunk), done + len(chunk)
            on_progress(done, len(files))
    return Changes(kept=len(files) - new - again, again=again, new=new, gone=planned.gone)


@contextmanager
def _forget_on_refusal(building: Unfinished) -> Iterator[None]:
    """Drop the converted files where the body raises ValueError for the labels: with a mended table it is another request."""
    try:
        yield
    except ValueError:
        building.forget()
        raise


def _check_rejected(building: Unfinished, rejected: pd.DataFrame, files: int, tolerated: float) -> None:
    """Raise ValueError when all files were rejected, or more than the share `tolerated` of them; the message counts the reasons."""
    counts = ", ".join(f"{count} {reason}" for reason, count in sorted(Counter(rejected["reason"]).items()))
    if len(rejected) == files:
        first = rejected.iloc[0]
        building.forget()
        raise ValueError(
            f"data.dicom: expected at least one usable image for {building.part.stem}, got none in {files} files ({counts}; the first: "
            f"{first['path']}: {first['reason']} {first['tag']} {first['detail']}); give other files or labels"
        )
    if len(rejected) > tolerated * files:
        path = building.part / "rejected.csv"
        rejected.to_csv(path, index=False)
        raise ValueError(
            f"data.max_rejected: expected at most {tolerated:g} of the files to be rejected, got {len(rejected)} of {files} "
            f"({counts}); see {path}, then mend the files or raise data.max_rejected: what is converted is kept"
        )


def _record(
    index: pd.DataFrame, rejected: pd.DataFrame, labels: pd.DataFrame | None, task: Task, identity: dict[str, Any]
) -> dict[str, Any]:
    """Build the content of prepare.json."""
    without_image = 0
    if labels is not None:  # a rejected file counts by its id or, unreadable, by its name
        named = rejected["path"].map(lambda path: Path(path).stem)
        without_image = len(set(labels.index) - set(index["image_id"]) - set(rejected["image_id"]) - set(named))
    names = list(task.labels) if labels is not None else []
    return {
        "task": task.name,
        "labels": names,
        "image": identity["image"],
        "size": identity["size"],
        "ids": identity["ids"],
        "slices": len(index),
        "series": len(index[["patient_id", "series_id"]].drop_duplicates()),
        "series_by_order": series_by_order(index),
        "patients": int(index["patient_id"].nunique()),
        "placeholders": by_placeholder(index),
        "patient_ids_of_several_issuers": of_several_issuers(index),
        "positives": {label: int(index[label].sum()) for label in names},
        "rejected": dict(sorted(Counter(rejected["reason"]).items())),
        "labels_without_image": without_image,
        "index_sha256": table_sha256(index),
        "request": identity,
    }
