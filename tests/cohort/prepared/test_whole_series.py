"""A series is judged as a whole: which slices it has, and by what they are ordered from the feet to the head."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from dicom_files import write_tiny

from fl_rsna.cohort.prepared.index import read_prepared
from fl_rsna.cohort.prepared.inputs import find_inputs
from fl_rsna.cohort.prepared.prepare import Request, prepare_folder
from fl_rsna.imaging.workers import convert_here
from fl_rsna.reporting.record.console import say_prepared
from fl_rsna.settings.data import ImageKind
from fl_rsna.task import ICH

Tags = Mapping[str, object]
POSITION, ORIENTATION = "ImagePositionPatient", "ImageOrientationPatient"
NO_POSITION: dict[str, object] = {"without": [POSITION]}


def tilted(degrees: float) -> list[float]:
    """ImageOrientationPatient of a gantry tilt."""
    angle = np.radians(degrees)
    return [1, 0, 0, 0, round(float(np.cos(angle)), 6), round(float(np.sin(angle)), 6)]


def prepared(folder: Path, slices: Mapping[str, Tags], *, hash_ids: bool = False) -> pd.DataFrame:
    """The index, by image_id, of tiny slices with these tags."""
    for image_id, tags in slices.items():
        write_tiny(folder / "dicom" / image_id, image_id, **tags)  # type: ignore[arg-type]
    request = Request(task=ICH, image=ImageKind.hu, size=4, hash_ids=hash_ids, salt="s")
    inputs = find_inputs(folder / "dicom", None, ICH, unlabelled=True, test_set=False)
    made = prepare_folder(folder / "set", request, inputs.files, None, max_rejected=1.0, convert=convert_here)
    return made.index.set_index("image_id")


def rejected(folder: Path) -> dict[str, tuple[str, str]]:
    table = pd.read_csv(folder / "set" / "rejected.csv")
    return {row.path: (row.reason, row.tag) for row in table.itertuples()}


ABOVE = {"a": 20.0, "b": 0.0, "c": 10.0}  # z of three slices, whose names say nothing of order


@pytest.mark.parametrize(
    "orientation",
    [
        [1, 0, 0, 0, 1, 0],  # supine, head first or feet first: the patient's coordinates are the same
        [-1, 0, 0, 0, 1, 0],  # in mirror image: the normal points to the feet
        [-1, 0, 0, 0, -1, 0],  # prone
        [1, 0, 0, 0, -1, 0],  # prone, in mirror image
        [0, 1, 0, -1, 0, 0],  # on one side
        [0, -1, 0, -1, 0, 0],  # on one side, in mirror image
        tilted(18),
        tilted(-18),
        [-1, *tilted(18)[1:]],
    ],
)
def test_rank_0_is_the_lowest_slice_whatever_way_the_normal_points(tmp_path: Path, orientation: list[float]) -> None:
    slices = {name: {ORIENTATION: orientation, POSITION: [-9, 5, z]} for name, z in ABOVE.items()}
    index = prepared(tmp_path, slices)
    assert index["rank"].to_dict() == {"b": 0, "c": 1, "a": 2}
    assert index["relative_position"].to_dict() == {"b": 0.0, "c": 0.5, "a": 1.0}
    assert (np.diff(index["position_mm"]) > 0).all()
    assert (index["order"] == "position").all()


@pytest.mark.parametrize("decimals", [2, 3, 6])
def test_slices_in_one_plane_lie_at_one_position(tmp_path: Path, decimals: int) -> None:
    """Two reconstructions of tilted planes, with other corners and pixel spacings, rounded as headers are."""
    columns = np.array(tilted(18)[3:])
    normal = np.cross([1, 0, 0], columns)
    slices: dict[str, Tags] = {}
    for n in range(3):
        for name, slid in (("b", 0.0), ("a", 22.7)):
            corner = [-120 + slid, -114, 37] + 9.5 * n * normal + slid * columns
            slices[f"{n}{name}"] = {
                ORIENTATION: tilted(18), POSITION: list(corner.round(decimals)), "PixelSpacing": [0.5 + slid, 0.5 + slid]
            }  # fmt: skip
    index = prepared(tmp_path, slices)
    assert list(index.index) == ["0a", "0b", "1a", "1b", "2a", "2b"]
    assert index["repeated_position"].all()
    assert index["step_above_mm"].to_list()[::2] == [0, 0, 0]
    assert index["step_below_mm"].to_list()[2::2] == pytest.approx([9.5, 9.5], abs=0.02)
    assert index["series_id"].nunique() == 1


def test_uneven_and_small_steps_are_no_repeated_positions(tmp_path: Path) -> None:
    slices = {name: {POSITION: [0, 0, z]} for name, z in {"a": 0, "b": 0.1, "c": 4.32, "d": 5.46}.items()}
    index = prepared(tmp_path, slices)
    assert not index["repeated_position"].any()
    assert index["step_below_mm"].to_list()[1:] == pytest.approx([0.1, 4.22, 1.14])


def test_sagittal_and_coronal_images_are_rejected_and_an_oblique_stack_is_a_series_of_its_own(tmp_path: Path) -> None:
    slices: dict[str, Tags] = {name: {POSITION: [0, 0, z]} for name, z in ABOVE.items()}
    slices |= {f"o{n}": {ORIENTATION: tilted(20), POSITION: [0, 0, 10 * n]} for n in range(2)}
    slices |= {
        "coronal": {ORIENTATION: [1, 0, 0, 0, 0, -1], "ImageType": ["DERIVED", "SECONDARY", "REFORMATTED", "AVERAGE"]},
        "sagittal": {ORIENTATION: [0, 1, 0, 0, 0, -1]},
        "steep": {ORIENTATION: tilted(46)},
    }
    index = prepared(tmp_path, slices)
    assert rejected(tmp_path) == dict.fromkeys(["coronal", "sagittal", "steep"], ("not_axial", ORIENTATION))
    assert index["series_id"].to_dict() == {**dict.fromkeys("bca", "SE1"), "o0": "SE1-2", "o1": "SE1-2"}
    assert index["rank"].to_dict() == {"b": 0, "c": 1, "a": 2, "o0": 0, "o1": 1}
    assert index["study_id"].nunique() == 1


@pytest.mark.parametrize("tag", ["StudyInstanceUID", "FrameOfReferenceUID"])
def test_one_series_of_two_studies_or_frames_is_two(tmp_path: Path, tag: str) -> None:
    slices = {f"{of}{n}": {tag: of, POSITION: [0, 0, 5 * n + len(of)]} for of in ("x", "yy") for n in range(2)}
    index = prepared(tmp_path, slices)
    assert index["series_id"].to_dict() == {"x0": "SE1", "x1": "SE1", "yy0": "SE1-2", "yy1": "SE1-2"}
    assert list(index["rank"]) == [0, 1, 0, 1]
    assert list(index["slices"]) == [2] * 4


def test_a_frame_of_reference_of_every_image_its_own_says_nothing(tmp_path: Path) -> None:
    slices = {name: {"FrameOfReferenceUID": name, POSITION: [0, 0, z]} for name, z in ABOVE.items()}
    assert list(prepared(tmp_path, slices).index) == ["b", "c", "a"]


def test_a_slice_that_does_not_state_its_study_or_direction_stays_in_its_series(tmp_path: Path) -> None:
    slices: dict[str, Tags] = {name: {POSITION: [0, 0, z]} for name, z in ABOVE.items()}
    slices |= {"d": {POSITION: [0, 0, 5], "without": ["StudyInstanceUID", ORIENTATION]}}
    index = prepared(tmp_path, slices)
    assert list(index.index) == ["b", "d", "c", "a"]
    assert (set(index["series_id"]), set(index["study_id"])) == ({"SE1"}, {"ST_SE1"})
    assert list(index["position_mm"]) == [0, 5, 10, 20]


@pytest.mark.parametrize("hash_ids", [False, True])
@pytest.mark.parametrize("empty", ["missing", ""])
def test_an_empty_id_groups_nothing_across_studies(tmp_path: Path, empty: str, hash_ids: bool) -> None:
    def tags(study: str, z: float, **more: object) -> Tags:
        known = {"StudyInstanceUID": study, "SeriesInstanceUID": empty, POSITION: [0, 0, z], **more}
        gone = [name for name in ("StudyInstanceUID", "SeriesInstanceUID") if known[name] == "missing"]
        return {**known, "without": gone}

    slices = {"a1": tags("A", 1), "a0": tags("A", 0), "b0": tags("B", 0.5), "b1": tags("B", 1.5)}
    slices |= {"c": tags(empty, 0), "d": tags(empty, 1)}  # no study either: nobody knows that they belong together
    slices |= {f"f{n}": tags(empty, n, FrameOfReferenceUID="F") for n in range(2)}
    index = prepared(tmp_path, slices, hash_ids=hash_ids)
    groups = [sorted(rows.index) for _, rows in index.groupby("series_id")]
    assert sorted(groups) == [["a0", "a1"], ["b0", "b1"], ["c"], ["d"], ["f0", "f1"]]
    assert index["study_id"].nunique() == 5
    assert index.loc[["a0", "a1", "b0", "b1"], "rank"].to_list() == [0, 1, 0, 1]
    if hash_ids:
        assert index[["study_id", "series_id"]].stack().str.fullmatch("[0-9a-f]{16}").all()


def test_a_frame_of_reference_and_made_names_leave_no_id_readable(tmp_path: Path) -> None:
    slices = {f"{of}{n}": {"FrameOfReferenceUID": f"{of}SECRET", POSITION: [0, 0, n]} for of in "xy" for n in range(2)}
    index = prepared(tmp_path, slices, hash_ids=True)
    assert "SECRET" not in index.to_csv()
    assert index["series_id"].nunique() == 2
    assert index["series_id"].str.fullmatch("[0-9a-f]{16}").all()


def test_a_missing_position_is_filled_from_what_agrees_with_the_rest(tmp_path: Path) -> None:
    """SliceLocation falls as z rises, as some tables count; steps are uneven."""
    heights = {"e": 0.0, "a": 5.0, "d": 7.0, "b": 12.0, "c": 20.0}
    slices: dict[str, Tags] = {
        name: {POSITION: [0, 0, z], "SliceLocation": 100 - z, "InstanceNumber": n + 1, **(NO_POSITION if name in "da" else {})}
        for n, (name, z) in enumerate(heights.items())
    }  # fmt: skip
    index = prepared(tmp_path, slices)
    assert index["position_mm"].to_dict() == pytest.approx(heights)
    assert list(index.index) == list(heights)
    assert index["place_filled"].to_dict() == {"e": False, "a": True, "d": True, "b": False, "c": False}
    assert (index["order"] == "position").all()


@pytest.mark.parametrize("known", ["InstanceNumber", "SliceLocation"])
def test_a_missing_position_at_the_end_is_filled(tmp_path: Path, known: str) -> None:
    slices = {f"s{9 - n}": {POSITION: [0, 0, 5 * n], known: n, **(NO_POSITION if n == 3 else {})} for n in range(4)}
    index = prepared(tmp_path, slices)
    assert list(index["position_mm"]) == [0, 5, 10, 15]
    assert list(index["rank"]) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "said",
    [
        {"InstanceNumber": [1, 3, 2, 4, 5]},  # does not rise with z
        {"InstanceNumber": [5, 5, 5, 5, 5]},
        {"SliceLocation": [0, 5, 15, 99999, 10]},  # far from all that is known
        {"SliceLocation": [0, 10, 20, 5, 30], "InstanceNumber": [1, 2, 3, 4, 5]},  # contradict each other
        {},
    ],
)
def test_a_missing_position_that_nothing_tells_stays_unknown(tmp_path: Path, said: dict[str, list[float]]) -> None:
    slices: dict[str, Tags] = {}
    for n, name in enumerate("edcba"):
        told = {tag: values[n] for tag, values in said.items()}
        slices[name] = {POSITION: [0, 0, 10 * n], **told, **(NO_POSITION if n == 3 else {})}
    index = prepared(tmp_path, slices)
    assert list(index.index) == ["e", "d", "c", "a", "b"]
    assert index.loc["b", ["order", "place_filled", "relative_position"]].to_list() == ["unknown", False, 0.5]
    assert np.isnan(index.loc["b", "position_mm"])
    assert index["relative_position"].to_list()[:4] == pytest.approx([0, 1 / 3, 2 / 3, 1])


@pytest.mark.parametrize(
    ("tags", "order"),
    [
        ({"SliceLocation": [20, 0, 10], "InstanceNumber": [3, 1, 2]}, "slice_location"),
        ({"SliceLocation": [20, 0, 10]}, "slice_location"),
        ({"SliceLocation": [0, 0, 0], "InstanceNumber": [3, 1, 2]}, "instance_number"),
        ({"InstanceNumber": [3, 1, 2]}, "instance_number"),
        ({"InstanceNumber": [1, 1, 1]}, "unknown"),
        ({}, "unknown"),
    ],
)
@pytest.mark.parametrize("without", [[POSITION], [POSITION, ORIENTATION]])
def test_a_series_without_positions_is_ordered_by_what_there_is(
    tmp_path: Path, tags: dict[str, list[float]], order: str, without: list[str]
) -> None:
    slices = {
        name: {"without": without, **{tag: values[n] for tag, values in tags.items()}} for n, name in enumerate("abc")
    }
    index = prepared(tmp_path, slices)
    assert set(index["order"]) == {order}
    assert index[["position_mm", "step_below_mm", "step_above_mm", "range_mm"]].isna().all(axis=None)
    if order == "unknown":  # listed by name, and no place is made up
        assert list(index.index) == ["a", "b", "c"]
        assert set(index["relative_position"]) == {0.5}
    else:
        assert list(index.index) == ["b", "c", "a"]
        assert list(index["relative_position"]) == [0, 0.5, 1]
    assert not index["place_filled"].any()


def test_prepare_says_how_many_series_are_ordered_by_what(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    slices: dict[str, Tags] = {"a": {"series": "S1"}}
    for n in range(2):
        slices |= {f"b{n}": {"series": "S2", "without": [POSITION], "SliceLocation": n}}
        slices |= {f"c{n}": {"series": "S3", "without": [POSITION]}}
    prepared(tmp_path, slices)
    facts = json.loads((tmp_path / "set" / "prepare.json").read_text())
    assert facts["series_by_order"] == {"position": 1, "slice_location": 1, "unknown": 1}
    say_prepared(read_prepared(tmp_path / "set", ICH), facts)
    assert (
        "series by the tag that orders their slices: position 1, slice location 1, unknown 1\n"
        in capsys.readouterr().out
    )


def test_positions_that_were_blanked_out_are_none(tmp_path: Path) -> None:
    slices = {name: {POSITION: [0, 0, 0], "InstanceNumber": n} for name, n in {"a": 3, "b": 1, "c": 2}.items()}
    index = prepared(tmp_path, slices)
    assert list(index.index) == ["b", "c", "a"]
    assert set(index["order"]) == {"instance_number"}


def test_positions_without_any_direction_are_ordered_along_the_patient(tmp_path: Path) -> None:
    slices = {name: {POSITION: [-9, 5, z], "without": [ORIENTATION]} for name, z in ABOVE.items()}
    index = prepared(tmp_path, slices)
    assert list(index.index) == ["b", "c", "a"]
    assert list(index["position_mm"]) == [0, 10, 20]
    assert set(index["order"]) == {"position"}


def test_the_order_of_files_changes_nothing(tmp_path: Path) -> None:
    slices: dict[str, Tags] = {f"s{n}": {POSITION: [0, 0, n], "StudyInstanceUID": "AB"[n % 2]} for n in range(4)}
    slices |= {"t": {"without": [POSITION]}}
    one = prepared(tmp_path / "one", slices)
    renamed = tmp_path / "other" / "dicom"
    for place, name in enumerate(reversed(slices)):
        write_tiny(renamed / f"{place}", name, **slices[name])  # type: ignore[arg-type]
    pd.testing.assert_frame_equal(prepared(tmp_path / "other", {}), one)
