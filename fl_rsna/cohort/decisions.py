"""Decide what becomes of each converted file: its PNG gets its name or is deleted, and the journal gets a line."""

import os
from dataclasses import asdict, dataclass, field
from typing import Any

from fl_rsna.cohort.columns import HASHED
from fl_rsna.cohort.index import hash_id
from fl_rsna.cohort.label_ids import LabelIds
from fl_rsna.cohort.patients import patient_of
from fl_rsna.cohort.unfinished import Row, Unfinished
from fl_rsna.imaging.convert import Converted, Refused
from fl_rsna.imaging.files import File
from fl_rsna.imaging.rejections import Reason
from fl_rsna.ownership import drop


@dataclass(frozen=True, slots=True, kw_only=True)
class Decisions:
    """`wanted` are the ids of the label table, None where nobody asks; `places` the first file of each id, by its place in the input."""

    building: Unfinished
    wanted: LabelIds | None
    salt: str | None  # None: identifiers stay as they are
    places: dict[str, int] = field(default_factory=dict)

    def claim(self, image_id: str, place: int) -> bool:
        """Give an id to the file at `place`, unless a file before it in the input has it; return whether it was given."""
        if self.places.get(image_id, place) < place:
            return False
        self.places[image_id] = place
        return True

    def row(self, place: int, key: str, file: File, result: Converted | Refused) -> Row:
        """Decide on one file; identifiers are hashed before they reach the disk. Raises ValueError where its labels contradict each other."""
        known = {"file": key, "bytes": file.size, "stamp": file.stamp, "site": file.origin, "checksum": result.checksum}
        if isinstance(result, Refused):
            return known | _refused(result.image_id, result.reason, result.tag, result.detail)
        png, image_id = self.building.incoming / result.written, result.header.image_id
        if self.wanted is not None and self.wanted.row_of(image_id) is None:
            drop(png)
            return known | _refused(image_id, Reason.no_label, "", "no row in data.labels")
        if not self.claim(image_id, place):
            drop(png)
            copy = _refused(image_id, Reason.duplicate_id, "SOPInstanceUID", "")
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


def _refused(image_id: str, reason: Reason, tag: str, detail: str) -> Row:
    return {"image_id": image_id, "reason": reason, "tag": tag, "detail": detail}
