"""Settle the outcome for all input files, once each is converted or known: the images, and why other files gave none."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from fl_rsna.cohort.prepared.input_files import INPUT, Listing, fields_of
from fl_rsna.imaging.dicom.rejections import Reason
from fl_rsna.task import Rendering

REJECTED = ["path", "image_id", "reason", "tag", "detail"]
OF_A_COPY = ("image_id", "png_sha256")  # facts that are kept of a rejected file that was converted


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """The outcome: `facts` has a row for each image, `rejected` the columns REJECTED, `inputs` a row for each file in input order.

    `sources` has, for each row of `facts`, the number of the table it came from.
    """

    facts: pd.DataFrame
    rejected: pd.DataFrame
    inputs: pa.Table
    sources: NDArray[np.int64]


def settle(listing: Listing, tables: Sequence[pa.Table], rendering: Rendering) -> Settled:
    """Take each file's last row in `tables`. Of several files with one id, the first in input order is the image.

    The result does not depend on which files were converted now and which before.
    """
    schema = fields_of(rendering)
    everything = pa.concat_tables([table.select(schema.names).cast(schema) for table in tables])
    last = pd.Series(np.arange(len(everything)), index=everything["file"].to_pandas()).groupby(level=0).last()
    chosen = last.reindex(listing.table["file"]).to_numpy(np.int64)
    rows = _with_copies_named(everything.take(pa.array(chosen)))
    for name in (
        "bytes",
        "stamp",
        "site",
    ):  # as they are now: a file with the same bytes may have been renamed or touched
        rows = _with(rows, name, pa.array(listing.table[name], schema.field(name).type))
    rows = _with_only_true_facts(rows).combine_chunks()
    kept = np.array(pc.equal(rows["reason"], ""))
    refused = rows.select([name for name in REJECTED if name != "path"]).to_pandas()
    refused.insert(0, "path", [file.name for file in listing.files])
    facts = [name for name in schema.names if name in _facts(schema)]
    starts = np.cumsum([len(table) for table in tables])
    return Settled(
        facts=rows.filter(pa.array(kept)).select(facts).to_pandas(),
        rejected=refused.loc[~kept, REJECTED].reset_index(drop=True),
        inputs=rows,
        sources=np.searchsorted(starts, chosen[kept], side="right"),
    )


def _facts(schema: pa.Schema) -> list[str]:
    """List the columns that hold facts of a file's image."""
    return [name for name in schema.names if name not in (*INPUT, "png_bytes", "reason", "tag", "detail")]


def _with_copies_named(rows: pa.Table) -> pa.Table:
    """Reject all rows with one id but the first as copies, and say whether their pixels are the same."""
    slim = rows.select(["image_id", "png_sha256", "reason", "tag", "detail"]).to_pandas()
    converted = slim.loc[slim["reason"].isin(["", Reason.duplicate_id])]
    first = converted.drop_duplicates("image_id").set_index("image_id")
    assert not len(first) or (first["reason"] == "").all(), "an image that was thrown away as a copy is needed"
    copies = converted.loc[converted.duplicated("image_id")]
    same = copies["png_sha256"].to_numpy() == first["png_sha256"].reindex(copies["image_id"]).to_numpy()
    slim.loc[copies.index, "reason"] = Reason.duplicate_id.value
    slim.loc[copies.index, "tag"] = "SOPInstanceUID"
    slim.loc[copies.index, "detail"] = [
        f"{'the same' if one else 'OTHER'} pixels as the file that is kept" for one in same
    ]
    for name in ("reason", "tag", "detail"):
        rows = _with(rows, name, pa.array(slim[name], pa.string(), from_pandas=True))
    return rows


def _with_only_true_facts(rows: pa.Table) -> pa.Table:
    """Replace NaN by null, and remove the facts of an image from rows of rejected files."""
    refused = pc.not_equal(rows["reason"], "")
    for name in [*_facts(rows.schema), "png_bytes"]:
        values = rows[name]
        if pa.types.is_floating(values.type):
            values = pc.if_else(pc.is_nan(values), pa.scalar(None, values.type), values)
        if name not in OF_A_COPY:
            values = pc.if_else(refused, pa.scalar(None, values.type), values)
        rows = _with(rows, name, values)
    for name in ("tag", "detail"):
        rows = _with(rows, name, pc.if_else(refused, rows[name], pa.scalar(None, pa.string())))
    return rows


def _with(rows: pa.Table, name: str, values: pa.Array | pa.ChunkedArray) -> pa.Table:
    """Replace a column."""
    return rows.set_column(rows.schema.get_field_index(name), rows.schema.field(name), values)
