"""Tables say what the index holds, counted by hand here."""

import pandas as pd
from tiny import tiny_index

from fl_rsna.cohort.prepared.series import Order
from fl_rsna.imaging.dicom.rejections import Reason
from fl_rsna.reporting.pages.data_pages import (
    ORDERS,
    REJECTS_SHOWN,
    count_file_values,
    fingerprints,
    flags,
    measures,
    positives,
    reject_reasons,
    reject_rows,
    site_facts,
)
from fl_rsna.task import ICH


def full_index() -> pd.DataFrame:
    """Two patients of four slices: an older scanner with an 11-degree tilt, and one that states no window."""
    index = tiny_index(patients=2)
    second = index["patient_id"] == "p01"
    return index.assign(
        fingerprint=second.map({False: "ACME One|12u-1024|deep|36/80", True: "|16s+0|none|"}),
        transfer_syntax=second.map({False: "1.2.840.10008.1.2.4.70", True: "1.2.3"}),
        rows=512,
        columns=second.map({False: 512, True: 666}),
        slices=4,
        range_mm=second.map({False: 15.0, True: 0.0}),
        tilt_deg=second.map({False: 11.0, True: float("nan")}),
        position_mm=[0.0, 5, 10, 15, 1, 1, 1, float("nan")],
        step_above_mm=[5.0, 5, 5, None, -0.0, -0.0, None, None],
        repeated_position=[False] * 4 + [True, True, True, False],
        noise=[True] + [False] * 7,
        wrapped_12_bit=False,
        png_sha256=["a", "b", "c", "d", "e", "e", "f", "g"],
    )


def test_positives_count_slices_series_and_patients() -> None:
    rows = {row["label"]: row for row in positives(tiny_index(patients=6), ICH.labels)}
    assert rows["any"] == {"label": "any", "slices": 10, "share": 10 / 24, "series": 5, "patients": 5}
    assert rows["epidural"]["slices"] == 2
    assert (rows["none"]["slices"], rows["none"]["patients"]) == (14, 6)
    assert positives(tiny_index().drop(columns=list(ICH.labels)), ()) == []


def test_fingerprints_are_taken_apart() -> None:
    rows = fingerprints(full_index().head(7)).to_dict("records")
    assert rows == [
        {"slices": 4, "patients": 1, "share": 4 / 7, "scanner": "ACME One", "bit type": "12u-1024", "padding": "deep", "header window": "36/80"},
        {"slices": 3, "patients": 1, "share": 3 / 7, "scanner": "not stated", "bit type": "16s+0", "padding": "none", "header window": "not stated"},
    ]  # fmt: skip


def test_a_scanner_may_have_the_bar_in_its_name() -> None:
    [row] = fingerprints(tiny_index(patients=1).assign(fingerprint="A|B|12u-1024|none|40/80")).to_dict("records")
    assert (row["scanner"], row["header window"]) == ("A|B", "40/80")


def test_files_are_counted_by_what_they_say() -> None:
    assert [(row["what"], row["value"], row["slices"]) for row in count_file_values(full_index())] == [
        ("transfer syntax", "1.2.3", 4),
        ("transfer syntax", "JPEG lossless", 4),
        ("rows × columns", "512 × 512", 4),
        ("rows × columns", "512 × 666", 4),
    ]


def test_rare_values_are_counted_as_one() -> None:
    index = tiny_index(patients=10).assign(transfer_syntax=[str(number // 2) for number in range(40)])
    rows = count_file_values(index)
    assert len(rows) == 7
    assert (rows[-1]["value"], rows[-1]["slices"]) == ("14 more", 28)


def test_measures_say_what_is_missing() -> None:
    rows = {row["what"]: row for row in measures(full_index())}
    assert rows["images a series"] == {
        "what": "images a series",
        "least": "4",
        "median": "4",
        "most": "4",
        "missing": 0,
    }
    assert rows["height of a series, mm"]["median"] == "7.5"  # of two series, not of eight slices
    assert (rows["gantry tilt, degrees"]["most"], rows["gantry tilt, degrees"]["missing"]) == ("11.0", 4)
    step = rows["step between slices, mm"]
    assert (step["least"], step["missing"]) == ("0.00", 1)  # above the highest slice of a series there is none to miss


def test_flags_count_what_is_marked() -> None:
    counts = {row["what"]: row["count"] for row in flags(full_index())}
    assert counts == {
        "noise": 1,
        "repeated position": 3,
        "wrapped 12 bit": 0,
        "no geometry": 1,
        "equal pixels": 2,
        "uneven steps": 0,
    }
    uneven = full_index().assign(step_above_mm=[5.0, 2.5, 5, None, 5, 5, 5, None])
    assert {row["what"]: row["count"] for row in flags(uneven)}["uneven steps"] == 1


def test_series_are_counted_by_what_orders_them() -> None:
    index = full_index().assign(order=["position"] * 4 + ["unknown"] * 4, rank=[0, 1, 2, 3] * 2)
    counts = {row["what"]: row["count"] for row in flags(index)}
    assert (counts["order: position"], counts["order: unknown"]) == (1, 1)
    assert "order: slice location" not in counts
    assert set(ORDERS) == set(Order)


def test_a_sites_facts_are_the_commonest_and_the_range() -> None:
    facts = site_facts(full_index())
    assert facts["scanner"] == ["ACME One 50%", "not stated 50%"]
    assert facts["images a series"] == ["4"]
    assert facts["step between slices, mm"] == ["5.00", "0.00–5.00"]
    assert facts["noise"] == ["12.5%"]
    three = full_index().assign(fingerprint=["a||none|", "b||none|", "c||none|", *["a||none|"] * 5])
    assert site_facts(three)["scanner"] == ["a 75%", "b 12%", "1 more"]
    films = full_index().assign(view=["AP"] * 4 + ["PA"] * 3 + [""])
    assert site_facts(films)["view"] == ["AP 50%", "PA 38%", "1 more"]
    assert [(row["value"], row["slices"]) for row in count_file_values(films) if row["what"] == "view"][-1] == (
        "not stated",
        1,
    )


def test_an_index_of_the_least_columns_gives_empty_tables() -> None:
    bare = tiny_index(patients=2)
    assert (len(fingerprints(bare)), count_file_values(bare), flags(bare), set(site_facts(bare))) == (0, [], [], set())
    assert [row["what"] for row in measures(bare)] == ["mean brain HU"]
    assert site_facts(full_index().head(0)).keys() == site_facts(full_index()).keys()


def test_every_reason_has_its_meaning() -> None:
    rows = reject_reasons({reason.value: number for number, reason in enumerate(Reason)})
    assert all(row["meaning"] for row in rows)
    assert [row["files"] for row in rows] == sorted(range(len(Reason)), reverse=True)


def test_a_rare_reason_is_not_lost_among_many_files() -> None:
    table = pd.DataFrame({"path": [f"{n:04}" for n in range(1000)], "reason": ["no_label"] * 999 + ["not_dicom"]})
    rows = reject_rows(table)
    assert len(rows) == REJECTS_SHOWN
    assert [row["path"] for row in rows if row["reason"] == "not_dicom"] == ["0999"]
    assert reject_rows(table.head(3)) == table.head(3).to_dict("records")
    assert reject_rows(table.head(0)) == []
