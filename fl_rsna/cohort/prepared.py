"""Files and their labels become a prepared folder: whole or not at all, and resumable when killed."""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.json

from fl_rsna.cohort.columns import HASHED, stated_of
from fl_rsna.cohort.id_scheme import id_scheme
from fl_rsna.cohort.index import (
    ANEW,
    STORED,
    Prepared,
    build_index,
    check_stored,
    hash_id,
    read_facts,
    read_prepared,
    table_sha256,
)
from fl_rsna.cohort.label_check import check_labels_fit
from fl_rsna.cohort.label_ids import Fit, LabelIds, label_ids, of_images
from fl_rsna.cohort.label_rules import check_exams
from fl_rsna.cohort.patients import by_placeholder, of_several_issuers, patient_of
from fl_rsna.cohort.rows import series_by_order
from fl_rsna.cohort.unfinished import Row, Unfinished, being_prepared, unfinished
from fl_rsna.imaging.convert import Conversion, Converted, Refused, facts_of_a_file
from fl_rsna.imaging.files import File
from fl_rsna.imaging.rejections import Reason
from fl_rsna.imaging.store import ImageKind, kinds_of
from fl_rsna.imaging.workers import Converter, chunks_from
from fl_rsna.ownership import drop
from fl_rsna.reading import file_sha256, hashed_json, read_csv, read_json
from fl_rsna.task import Rendering, Task

REJECTED = ["path", "image_id", "reason", "tag", "detail"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is asked for; the same request gives the same folder, byte for byte."""

    task: Task
    image: ImageKind
    size: int
    hash_ids: bool
    salt: str

    def check(self) -> None:
        """Raise ValueError when images of the task cannot be stored so."""
        kinds = kinds_of(self.task.rendering)
        if self.image not in kinds:
            raise ValueError(
                f"data.image: expected {' or '.join(kinds)} for task {self.task.name}, got {self.image}; say data.image={kinds[0]}"
            )

    def identity(self, files: Sequence[File], labels: pd.DataFrame | None) -> dict[str, Any]:
        """What prepare.json records: settings, names and sizes of the files, and the labels; nothing of where they lie."""
        listing = hashlib.sha256()
        for file in files:
            listing.update(f"{file.name}\0{file.size}\0{file.origin}\n".encode())
        return {
            "task": self.task.name,
            "image": self.image.value,
            "size": self.size,
            "hash_ids": self.hash_ids,
            "ids": id_scheme(self.hash_ids, self.salt),
            "files": len(files),
            "files_sha256": listing.hexdigest(),
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
    """Convert `files`, all of them without `labels` and otherwise those that have a row there.

    A folder that the same request already made is returned as it is; one that it began is finished; one that another
    process makes is waited for. `on_progress` gets files done and files in all. Raises ValueError when images of the task are
    not stored as the request says, when the folder holds something else, when nothing can be prepared, when more than the
    share `max_rejected` of the files is rejected, and when the disk does not take it; then all that is done stays in
    `<folder>.part` for the next try.
    """
    request.check()
    identity = request.identity(files, labels)
    if os.path.lexists(folder):
        return _already(folder, identity, request.task)
    try:
        with being_prepared(folder, identity):
            if os.path.lexists(folder):  # another process made it while this one waited
                return _already(folder, identity, request.task)
            with unfinished(folder, identity) as building:
                known = None if labels is None else label_ids(labels)
                _convert_rest(building, request, files, known, convert, on_progress)
                facts, rejected = _read_back(building, request.task.rendering)
                fits: dict[Fit, int] = {}
                if known is not None:
                    with _mended_anew(building):
                        labels, fits = of_images(known, facts["image_id"])
                _check_rejected(building, rejected, len(files), max_rejected)
                index = build_index(facts, labels, request.task.rendering)
                if labels is not None:
                    with _mended_anew(building):
                        check_exams(index, index, request.task)
                index.to_parquet(building.part / "index.parquet", index=False)
                rejected.to_csv(building.part / "rejected.csv", index=False)
                record = _record(index, rejected, labels, request.task, identity) | {"label_ids": fits}
                record[STORED] = {name: file_sha256(building.part / name) for name in ("index.parquet", "rejected.csv")}
                (building.part / "prepare.json").write_bytes(hashed_json(record))
                building.finish(folder)
    except OSError as error:
        raise ValueError(
            f"data.name: cannot write {error.filename or folder}: {error.strerror or error}; mend that and run the same "
            "command again: what is done is kept and valid"
        ) from None
    return read_prepared(folder, request.task)


def read_rejected(folder: Path) -> pd.DataFrame:
    """What a prepared folder rejected, as text; raises ValueError when rejected.csv is damaged or not the one it wrote."""
    path, facts = folder / "rejected.csv", folder / "prepare.json"
    found = read_csv(path, ANEW, columns=REJECTED, dtype=str, keep_default_na=False)
    check_stored(folder, read_json(facts) if facts.exists() else {}, path.name)
    return found


def _convert_rest(
    building: Unfinished,
    request: Request,
    files: Sequence[File],
    wanted: LabelIds | None,
    convert: Converter,
    on_progress: Callable[[int, int], None],
) -> None:
    work = Conversion(
        incoming=building.incoming.absolute(),
        rendering=request.task.rendering,
        modalities=request.task.modalities,
        kind=request.image,
        size=request.size,
    )
    on_progress(building.done, len(files))
    if wanted is not None and not building.ids:
        with _mended_anew(building):
            check_labels_fit(wanted, files)
    with closing(convert(work, chunks_from(files, building.done))) as results:  # on an error, nobody writes any more
        for chunk in results:
            here = files[building.done : building.done + len(chunk)]
            with _mended_anew(building):
                decided = [_decide(building, wanted, file, result) for file, result in zip(here, chunk, strict=True)]
            building.append([_row(file, result, request) for file, result in zip(here, decided, strict=True)])
            on_progress(building.done, len(files))


@contextmanager
def _mended_anew(building: Unfinished) -> Iterator[None]:
    """Keep nothing where the body refuses the labels: with a mended table it is another request."""
    try:
        yield
    except ValueError:
        building.forget()
        raise


def _decide(
    building: Unfinished, wanted: LabelIds | None, file: File, result: Converted | Refused
) -> Converted | Refused:
    """Decide on one file in its turn: its PNG gets its name, or goes."""
    if isinstance(result, Refused):
        return result
    png, image_id = building.incoming / result.written, result.header.image_id
    target = building.images / f"{image_id}.png"
    if image_id not in building.ids and (wanted is None or wanted.row_of(image_id)):
        os.replace(png, target)
        building.ids.add(image_id)
        return result
    drop(png)
    if image_id not in building.ids:
        return Refused(
            path=file.name, image_id=image_id, reason=Reason.no_label, tag="", detail="no row in data.labels"
        )
    same = hashlib.sha256(target.read_bytes()).hexdigest().startswith(result.png_sha256)
    return Refused(
        path=file.name,
        image_id=image_id,
        reason=Reason.duplicate_id,
        tag="SOPInstanceUID",
        detail=f"{'the same' if same else 'OTHER'} pixels as the file that is kept",
    )


def _row(file: File, result: Converted | Refused, request: Request) -> Row:
    """One line of the journal; identifiers are hashed before they reach the disk."""
    if isinstance(result, Refused):
        return asdict(result)
    header = asdict(result.header)
    patient = patient_of(
        header["patient_id"], issuer=header.pop("issuer"), site=file.origin, institution=header["origin"]
    )
    facts = {**header, **asdict(patient), **asdict(result.statistics)}
    if request.hash_ids:
        stated = [column for column in HASHED if facts.get(column)]
        facts |= {column: hash_id(facts[column], request.salt) for column in stated}
    facts["origin"] = file.origin or facts["origin"]
    return {**facts, "png_sha256": result.png_sha256, "png_bytes": result.png_bytes, "reason": ""}


def _read_back(building: Unfinished, rendering: Rendering) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The journal as a table of converted images and one of rejected files."""
    kinds = {"float64": pa.float64(), "int32": pa.int32(), "bool": pa.bool_(), "str": pa.string()}
    columns, of_a_file = stated_of(rendering), facts_of_a_file(rendering)
    stated = [name for name in columns if name in of_a_file]
    fields = {**{name: kinds[columns[name].dtype] for name in stated}, **dict.fromkeys(REJECTED, pa.string())}
    options = pa.json.ParseOptions(explicit_schema=pa.schema(fields), unexpected_field_behavior="ignore")
    rows = pa.json.read_json(building.journal, pa.json.ReadOptions(block_size=16 << 20), options).to_pandas()
    kept = rows["reason"] == ""
    return rows.loc[kept, stated].reset_index(drop=True), rows.loc[~kept, REJECTED].reset_index(drop=True)


def _check_rejected(building: Unfinished, rejected: pd.DataFrame, files: int, tolerated: float) -> None:
    """Refuse a request of which too little is left; the counts say why."""
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


def _already(folder: Path, identity: dict[str, Any], task: Task) -> Prepared:
    facts = read_facts(
        folder / "prepare.json", f"data.name: {folder} exists but holds no prepared data; choose another data.name"
    )
    earlier = facts.get("request", {})
    changed = sorted(key for key, value in identity.items() if earlier.get(key) != value)
    if changed:
        raise ValueError(
            f"data.name: {folder} was prepared from another request ({', '.join(changed)} differ); "
            "choose another data.name or delete the folder"
        )
    return read_prepared(folder, task)


def _record(
    index: pd.DataFrame, rejected: pd.DataFrame, labels: pd.DataFrame | None, task: Task, identity: dict[str, Any]
) -> dict[str, Any]:
    """What prepare.json holds."""
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
