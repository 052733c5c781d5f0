"""The pages of prepared data and of a cohort: true, offline, the same every time, and made for odd sets too."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pictures import pixels_of
from tiny import tiny_cohort, tiny_prepared, with_facts

from fl_rsna.cohort.audit.heterogeneity import PATIENTS, heterogeneity
from fl_rsna.cohort.audit.on_disk import read_on_disk
from fl_rsna.cohort.partition.split import SitePatients
from fl_rsna.cohort.prepared.index import Prepared
from fl_rsna.cohort.sites.site_folders import Cohort, read_cohort, write_cohort
from fl_rsna.reporting.pages.data_pages import SITES_SHOWN, cohort_view, write_partition_page, write_prepare_page
from fl_rsna.settings.data import ImageKind
from fl_rsna.task import COVID_CXR, ICH

Write = Callable[[], Path]


def page_of(prepared: Prepared) -> str:
    return write_prepare_page(prepared, ICH).read_text()


def outside(page: str) -> list[str]:
    """Everything a browser would fetch."""
    return re.findall(r"""(?:src|href)=["']?(?!data:|#)[^"'> ]+""", page) + re.findall(
        r"@import|url\((?!#)|<script", page
    )


def test_prepare_page_states_the_counts(tmp_path: Path) -> None:
    page = page_of(with_facts(tiny_prepared(tmp_path / "mine"), labels_without_image=7))
    assert re.findall(r"<b>([\d,.%]+)</b>(\w+)", page)[:3] == [("72", "slices"), ("18", "series"), ("18", "patients")]
    assert "<b>41.7%</b>of slices positive (any)" in page  # 30 of 72
    assert "<b>7</b>labels without an image" in page
    assert "None: every file became a slice." in page
    for label in (*ICH.labels, "none"):
        assert f"<h3>{label}<small>" in page


def test_pages_ask_for_nothing_from_outside(tmp_path: Path, own_cohort: Cohort) -> None:
    prepared = with_facts(tiny_prepared(tmp_path / "mine"))
    for page in (page_of(prepared), write_partition_page(own_cohort, ICH).read_text()):
        assert outside(page) == []
        assert "data:image/jpeg" in page
        assert len(page) < 3_000_000
        assert "color-scheme: light dark" in page


def test_the_same_folder_gives_the_same_bytes(tmp_path: Path, own_cohort: Cohort) -> None:
    prepared = with_facts(tiny_prepared(tmp_path / "mine"))
    writers: list[Write] = [
        lambda: write_prepare_page(prepared, ICH),
        lambda: write_partition_page(own_cohort, ICH),
    ]
    for write in writers:
        first = write().read_bytes()
        assert write().read_bytes() == first
    assert not list(tmp_path.rglob("*.part"))


def test_what_files_hold_cannot_become_markup(tmp_path: Path) -> None:
    bad = {"path": "<img src=x>.dcm", "reason": "bad_header", "tag": "Rows", "detail": "<script>alert(1)</script>"}
    page = page_of(with_facts(tiny_prepared(tmp_path / "mine"), [bad]))
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "&lt;img src=x&gt;.dcm" in page
    assert "the header is damaged" in page  # what bad_header means


def test_a_reason_of_another_version_is_shown(tmp_path: Path) -> None:
    page = page_of(with_facts(tiny_prepared(tmp_path / "mine"), [{"path": "a", "reason": "moon_phase"}]))
    assert "moon_phase" in page


def test_without_labels_the_page_goes_by_height(tmp_path: Path) -> None:
    labelled = tiny_prepared(tmp_path / "mine")
    prepared = replace(labelled, labels=(), index=labelled.index.drop(columns=list(ICH.labels)))
    page = page_of(with_facts(prepared))
    assert "These slices have no labels" in page
    assert "Slices by height" in page
    assert "middle fifth" in page
    assert "epidural" not in page


def test_films_without_labels_go_by_their_view(tmp_path: Path) -> None:
    """A film has no height; its header says from which side it was taken, or nothing."""
    labelled = tiny_prepared(tmp_path / "mine", COVID_CXR, ImageKind.grey)
    index = labelled.index.drop(columns=list(COVID_CXR.labels))
    views = np.where(np.arange(len(index)) % 3 == 0, "AP", np.where(np.arange(len(index)) % 3 == 1, "PA", ""))
    prepared = with_facts(replace(labelled, labels=(), index=index.assign(view=views)))
    page = write_prepare_page(prepared, COVID_CXR).read_text()
    assert "Images by view" in page
    assert all(f"<h3>{name}<small>" in page for name in ("AP", "PA", "not stated"))
    assert "fifth" not in page
    assert "slice" not in page.lower().split("provenance")[0]


def test_every_column_finds_its_place(tmp_path: Path) -> None:
    made = tiny_prepared(tmp_path / "mine")
    index = made.index.assign(
        fingerprint="ACME <One>|12u-1024|deep|36/80",
        transfer_syntax="1.2.840.10008.1.2.1",
        noise=made.index["rank"] == 3,
        crop_top=2, crop_left=2, crop_bottom=30, crop_right=30, rows=32, columns=32,
    )  # fmt: skip
    page = page_of(with_facts(replace(made, index=index)))
    for text in (
        "ACME &lt;One&gt;",
        "36/80",
        "explicit little endian",
        "smallest to largest",
        "77%",
        "no brain to see",
    ):
        assert text in page
    plain = page_of(with_facts(made))
    assert not any(text in plain for text in ("smallest to largest", "Scanner fingerprints", "no brain to see"))


def test_windows_images_are_shown_in_their_colours(tmp_path: Path) -> None:
    page = page_of(with_facts(tiny_prepared(tmp_path / "rgb", image=ImageKind.windows)))
    assert "8-bit RGB" in page
    assert "stored RGB" in page
    assert "<h3>bone" not in page


def test_partition_page_states_the_cohorts_own_facts(own_cohort: Cohort) -> None:
    page = write_partition_page(own_cohort, ICH).read_text()
    assert page == (own_cohort.folder / "partition.html").read_text()
    for site in (*own_cohort.sites, "test-site"):
        for part in own_cohort.facts["sites"][site].values():
            numbers = "".join(f"<td>{part[name]}</td>" for name in ("patients", "slices"))
            assert numbers in page
    assert own_cohort.sha256 in page
    assert "yes, by patient_id: no two parts share one of the 18 patients" in page
    assert "leaks" not in page
    assert page.count("<svg") == 1


def changed(cohort: Cohort, **facts: Any) -> Cohort:
    """The cohort with other facts in its cohort.json."""
    path = cohort.folder / "cohort.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | facts))
    return read_cohort(cohort.folder)


def test_a_leaky_cohort_is_called_one(own_cohort: Cohort) -> None:
    proof = {"by": "series_id", "shared_patients": {"a and b": 2}, "patients_in_two_places": 2, "patients": 18}
    page = write_partition_page(changed(own_cohort, leaky=True, group="series", disjoint=proof), ICH).read_text()
    assert "This cohort leaks." in page
    assert "split by series" in page
    assert "no: 1 pair of parts share patients" in page


def test_a_noisy_site_is_shown_as_its_scanner_sees_and_said_to_be(own_cohort: Cohort) -> None:
    brighter = changed(own_cohort, noise={"site-2": {"hu_shift": 25.0}})
    true, noisy = (cohort_view(cohort)["matrix"] for cohort in (own_cohort, brighter))
    for before, after in zip(true, noisy, strict=True):
        if before["site"] != "site-2":
            assert after == before
            continue
        for one, other in zip(before["cells"], after["cells"], strict=True):
            assert one["slices"] == other["slices"]
            assert one["uri"] is None or np.mean(pixels_of(other["uri"])) > np.mean(pixels_of(one["uri"])) + 20
    page = write_partition_page(brighter, ICH).read_text()
    assert "<td>site-2</td><td>+25 HU</td>" in page


def test_only_settings_that_decided_are_told(own_cohort: Cohort) -> None:
    settings = {"kind": "dirichlet", "name": None, "alpha": 0.3, "sigma": 1.0, "folds": 5, "fold": 2, "test": 0.2}
    files = {"layout": "s0", "validation": 0.3, "files_sha256": {"assignment": "abcd"}}
    page = write_partition_page(changed(own_cohort, settings=settings | files), ICH).read_text()
    told = dict(re.findall(r"<td>([\w ]+)</td><td><code>(.*?)</code>", page))
    decided = {"kind": "dirichlet", "alpha": "0.3", "folds": "5", "fold": "2", "layout": "s0"}
    decided |= {"validation": "0.3", "assignment sha256": "abcd"}
    assert {name: value for name, value in told.items() if "sha256" not in name or name in decided} == decided


def test_natural_sites_are_told_in_words(own_cohort: Cohort) -> None:
    made_of = {"site-1": ["|12u-1024|none|40/80", "GE Optima|16s+0|deep|"]}
    page = write_partition_page(changed(own_cohort, made_of=made_of), ICH).read_text()
    assert "<div>not stated · 12u-1024 · none · 40/80</div><div>GE Optima · 16s+0 · deep · not stated</div>" in page


def test_what_prepare_rejected_is_told_again(own_cohort: Cohort) -> None:
    prepared = {**own_cohort.facts["prepared"], "rejected": {"no_label": 3}}
    page = write_partition_page(changed(own_cohort, prepared=prepared), ICH).read_text()
    assert "<td>no_label</td><td>3</td>" in page


def test_cohort_json_takes_over_the_counts_of_rejected_files(tmp_path: Path) -> None:
    prepared = with_facts(tiny_prepared(tmp_path / "prepared"), [{"path": "a", "reason": "no_label"}])
    everyone = sorted(prepared.index["patient_id"].unique())
    sites = [
        SitePatients(name="site-1", train=tuple(everyone[:9]), validation=tuple(everyone[9:12])),
        SitePatients(name="test-site", test=tuple(everyone[12:])),
    ]
    cohort = write_cohort(tmp_path / "sites", prepared, sites, ICH, {})
    assert cohort.facts["prepared"]["rejected"] == {"no_label": 1}


def test_a_site_without_positives_has_empty_cells(own_cohort: Cohort) -> None:
    path = own_cohort.site_folder("site-2") / "index.csv"
    index = pd.read_csv(path, dtype={"image_id": str})
    index[list(ICH.labels)] = 0
    index.to_csv(path, index=False)
    row = next(row for row in cohort_view(own_cohort)["matrix"] if row["site"] == "site-2")
    assert [cell["uri"] is None for cell in row["cells"]] == [True] * 6 + [False]
    assert "no slice" in write_partition_page(own_cohort, ICH).read_text()


def test_of_many_sites_some_are_shown_and_all_are_counted(tmp_path: Path) -> None:
    cohort = tiny_cohort(tmp_path, num_sites=20, patients=60)
    view = cohort_view(cohort)
    shown = [row["site"] for row in view["matrix"]]
    assert len(shown) == SITES_SHOWN
    assert (shown[0], shown[-2:]) == ("site-1", ["site-20", "test-site"])
    assert view["hidden"] == 21 - SITES_SHOWN
    assert len(view["census"]) == 21
    page = write_partition_page(cohort, ICH).read_text()
    assert f"{21 - SITES_SHOWN} sites of 21 are not shown" in page


def test_a_view_survives_json(own_cohort: Cohort) -> None:
    view = cohort_view(own_cohort)
    assert json.loads(json.dumps(view)) == view
    assert all(len(row["cells"]) == len(view["columns"]) for row in view["matrix"])


def test_label_shift_is_told_of_the_training_sites(own_cohort: Cohort, tmp_path: Path) -> None:
    """As an audit of the same folder has it; sites that share no label are 1 apart; a site that does not annotate a label is left out."""
    view = cohort_view(own_cohort)["label_shift"]
    audited = heterogeneity(read_on_disk(own_cohort.folder, pixels=False, on_progress=lambda *_: None).slices)
    assert view["mean"] == pytest.approx(audited.distances[PATIENTS].mean)
    assert tuple(view["farthest"]) == audited.distances[PATIENTS].farthest
    page = write_partition_page(own_cohort, ICH).read_text()
    assert f"<b>{view['mean']:.3f}</b> on average" in page

    cohort = tiny_cohort(tmp_path, COVID_CXR, num_sites=2, patients=24)
    for site, label in zip(cohort.sites, ("negative", "typical"), strict=True):
        path = cohort.site_folder(site) / "index.csv"
        table = pd.read_csv(path, dtype=str, keep_default_na=False).assign(**dict.fromkeys(COVID_CXR.labels, "0"))
        table.assign(**{label: "1"}).to_csv(path, index=False)
    assert cohort_view(cohort)["label_shift"]["mean"] == pytest.approx(1.0)
    table.drop(columns="typical").to_csv(path, index=False)
    assert cohort_view(cohort)["label_shift"]["mean"] is None


def test_tiles_of_positives_are_brighter_than_those_of_none(own_cohort: Cohort) -> None:
    for row in cohort_view(own_cohort)["matrix"]:
        for cell in row["cells"]:
            if cell["uri"]:
                grey = np.mean(pixels_of(cell["uri"])[60:80, 60:80])
                assert (grey > 180) == (cell["label"] != "none")
