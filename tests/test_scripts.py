"""The scripts a README figure comes from run, and end with the JSON they promise; what they measure is not asserted."""

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from composed import compose_config
from dicom_files import write_tiny
from package import ROOT

from fl_rsna.cohort.prepared.prepare import Request, prepare_folder
from fl_rsna.imaging.png_store import read_png, write_png
from fl_rsna.imaging.sources import find_files
from fl_rsna.imaging.workers import convert_here
from fl_rsna.settings.data import ImageKind
from fl_rsna.task import COVID_CXR, ICH


def last_line(script: str, *arguments: str) -> dict[str, object]:
    done = subprocess.run([sys.executable, script, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    assert isinstance(figures, dict)
    return figures


TINY = [
    "--sites",
    "2",
    "--slices",
    "8",
    "--rounds",
    "2",
    "--repeats",
    "1",
    "--size",
    "32",
    "--model",
    "efficientnet_lite0",
]


@pytest.mark.extra
@pytest.mark.slow
def test_bench_federation() -> None:
    """Ours and Flower's own runtime take the steps of the bare loop; pfl is left out in one line, or does the same."""
    figures = last_line("benchmarks/bench_federation.py", *TINY, "--engines", "local, workers=2")
    assert figures["ratio"]["bare loop"] == 1.0  # type: ignore[index]
    flower = "Flower on Ray, as its examples do it"
    assert {"bare loop", "local, workers=2", flower} <= set(figures["round_s"])  # type: ignore[call-overload]
    assert {*figures["steps"].values()} == {2}  # type: ignore[attr-defined]
    assert {"bare", "local", flower} <= set(figures["first_step_s"])  # type: ignore[call-overload]
    assert set(figures["second_job_s"]) == {"local"}  # type: ignore[call-overload]


@pytest.mark.slow
def test_bench_federation_with_nothing_to_train() -> None:
    arguments = ["--empty", "2", "--rounds", "3", "--repeats", "1", "--no-flower", "--engines", "local, workers=0"]
    figures = last_line("benchmarks/bench_federation.py", *arguments)
    written, round_s = (figures[name]["local, workers=0"]["2"] for name in ("writing_s", "round_s"))  # type: ignore[index]
    assert 0 < written < round_s


@pytest.mark.extra
@pytest.mark.slow
def test_bench_scale() -> None:
    arguments = ["--sites", "2", "4", "--workers", "0", "--rounds", "2", "--large", "--fold", "2"]
    figures = last_line("benchmarks/bench_scale.py", *arguments)
    assert [run["sites"] for run in figures["runs"]] == [2, 4]  # type: ignore[attr-defined]
    assert figures["runs"][0]["memory_ratio"] == figures["runs"][0]["site_ratio"] == 1.0  # type: ignore[index]
    assert [row["rule"] for row in figures["folds"]] == ["ours", "flower"]  # type: ignore[attr-defined]


@pytest.mark.extra
@pytest.mark.slow
def test_bench_gpu_can_be_rehearsed_without_one() -> None:
    figures = last_line("benchmarks/bench_gpu.py", "--cpu", "--workers", "1", "--model", "efficientnet_lite0")
    assert figures["rehearsal"] is True
    assert figures["workers"]["1"]["ratio"] > 0  # type: ignore[index]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU to measure")
def test_bench_gpu_wants_one() -> None:
    done = subprocess.run([sys.executable, "benchmarks/bench_gpu.py"], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)


@pytest.mark.slow
def test_phantom_difficulty() -> None:
    assert last_line("studies/phantom_difficulty.py", "--patients", "30")


def test_bench_leak() -> None:
    figures = last_line("benchmarks/bench_leak.py", "--patients", "60", "--seeds", "2")
    assert [row["split"] for row in figures["rows"]] == ["by slice", "by series", "by patient", "10 shards of series"]  # type: ignore[attr-defined]
    assert figures["rows"][2]["test slices"] == [0.0, 0.0, 0.0]  # type: ignore[index]


@pytest.mark.slow
@pytest.mark.extra
def test_fuzz_prepare() -> None:
    figures = last_line("tests/e2e/fuzz_prepare.py", "--seconds", "0", "--files", "120", "--seed", "1")
    assert figures["violations"] == 0
    assert {"slice", "no_pixels", "truncated_pixels"} <= set(figures["outcomes"])  # type: ignore[call-overload]
    assert sum(figures["outcomes"].values()) == figures["files"] >= 120  # type: ignore[attr-defined, operator]


@pytest.mark.slow
@pytest.mark.extra
def test_fuzz_prepare_of_films() -> None:
    figures = last_line("tests/e2e/fuzz_prepare.py", "--chest", "--seconds", "0", "--files", "120", "--seed", "1")
    assert figures["violations"] == 0
    assert {"image", "image, only decoded", "no_pixels"} <= set(figures["outcomes"])  # type: ignore[call-overload]


def test_check_pixels(tmp_path: Path) -> None:
    """Slices of two sizes and one id twice; of one the header names padding, of another negative values were wrapped."""
    ramp = np.arange(-1000, 3096).reshape(64, 64).astype(np.int16)
    write_tiny(tmp_path / "dicom" / "a", "ID_a", z=0, hu=ramp)
    write_tiny(tmp_path / "dicom" / "b", "ID_b", z=5, hu=np.roll(ramp, 5)[:, :40], PixelPaddingValue=-1000)
    write_tiny(tmp_path / "dicom" / "c", "ID_b", z=5, hu=(ramp % 4096).astype(np.uint16), BitsStored=12)
    write_tiny(tmp_path / "dicom" / "d", "ID_d", z=9, hu=ramp[:32, :32])
    figures = last_line("tests/e2e/check_pixels.py", "--dicom", str(tmp_path / "dicom"))["dicom"]
    assert (figures["files"], figures["slices"], figures["pixels that differ"]) == (4, 4, 0)  # type: ignore[index]
    assert (figures["pixels"], figures["slices out of order"]) == (2 * 64 * 64 + 64 * 40 + 32 * 32, 0)  # type: ignore[index]


def test_fuzz_prepare_sees_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One pixel, one PNG too many, one row too few: each is a violation that names its file."""
    monkeypatch.syspath_prepend(str(ROOT / "tests/e2e"))
    checked = importlib.import_module("fuzz_prepare").checked
    for name in ("a", "b"):
        write_tiny(tmp_path / "dicom" / name, f"ID_{name}", hu=np.full((256, 256), 30, np.int16))
    (tmp_path / "dicom" / "c").write_bytes(b"no DICOM")
    request = Request(task=ICH, image=ImageKind.hu, size=256, hash_ids=False, salt="")
    out = tmp_path / "out"
    prepare_folder(out, request, find_files(tmp_path / "dicom"), None, max_rejected=1, convert=convert_here)
    outcomes = [("a", "slice", ""), ("b", "slice", ""), ("c", "not_dicom", "")]
    assert sorted(checked(tmp_path / "dicom", out)) == outcomes
    png = out / "images" / "ID_b.png"
    image = read_png(png)
    image[3, 4] += 1
    write_png(png, image)
    (out / "images" / "ID_d.png").write_bytes(png.read_bytes())
    (out / "rejected.csv").write_text("path,image_id,reason,tag,detail\n")
    wrong = {file: why for file, _, why in checked(tmp_path / "dicom", out) if why}
    assert wrong.keys() == {"", "b", "c"}
    assert wrong["b"] == "1 pixels differ"


@pytest.mark.extra
@pytest.mark.slow
def test_undersampling_calibration(tmp_path: Path) -> None:
    """Nine patients' phantoms: corrected probabilities mean the share of positives, uncorrected ones more."""
    arguments = ["demo.patients=24", "demo.slices_per_series=6", "demo.size=64", "data.size=64", "model.image_size=32"]
    arguments += ["partition.num_sites=2", "rounds=1", "engine.workers=0"]
    paths = [f"paths.{name}={tmp_path / name}" for name in ("prepared", "sites")]
    options = ["--seeds", "0", "--negatives", "0.3", "--runs", str(tmp_path / "runs")]
    figures = last_line("studies/undersampling_calibration.py", *options, *arguments, *paths)
    for reading in ("as the model says", "at the run's temperatures"):
        facts: Any = figures[reading]
        assert set(facts["values"]) == {"all slices", "under, prior", "under, none"}
        assert set(facts["corrected_not_worse"]) == {
            f"{of} {measure}" for of in ("any", "weighted") for measure in ("log_loss", "brier", "ece")
        }
    values: Any = figures["as the model says"]
    means = {name: of["any mean_over_share"]["value"] for name, of in values["values"].items()}
    assert means["under, prior"] < means["under, none"]


def test_an_ablation_is_the_recipe_without_one_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "studies"))
    ablate = importlib.import_module("ablate")
    for name, arguments in ablate.VARIANTS.items():
        compose_config(arguments)
        if name.startswith("without "):
            part = ablate.RECIPE[name.removeprefix("without ")]
            assert sorted([*arguments, *part]) == sorted(ablate.VARIANTS[ablate.WHOLE])
        if name.startswith("with "):
            assert arguments == (ablate.RECIPE | ablate.STAGES)[name.removeprefix("with ")]
    assert ablate.VARIANTS[ablate.PLAIN] == []
    assert {name for names in ablate.TABLES.values() for name in names} == set(ablate.VARIANTS)


def test_an_ablation_is_compared_slice_by_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of probabilities nearer to the truth by a known step; the same patients in two seeds are drawn once."""
    monkeypatch.syspath_prepend(str(ROOT / "studies"))
    report = importlib.import_module("ablate_report")
    truth = np.tile([0, 0, 1, 1], 12)
    table = pd.DataFrame({"image_id": np.arange(48).astype(str), "patient_id": np.repeat(np.arange(12), 4).astype(str)})
    for label in ICH.labels:
        table[f"label_{label}"], table[f"probability_{label}"] = truth, np.where(truth, 0.6, 0.4)
    better = table.assign(**{f"probability_{label}": np.where(truth, 0.8, 0.2) for label in ICH.labels})
    same, _ = report.compared([(table, table)])
    assert (same.value, same.low, same.high) == (0, 0, 0)
    losses, areas = report.compared([(better, table), (better, table)])
    assert losses.value == pytest.approx(np.log(0.6) - np.log(0.8))
    assert losses.low == pytest.approx(losses.high)  # every slice gains the same
    assert (areas.value, losses.positives) == (0, 48)


def test_guess_inversion() -> None:
    """The tag is never wrong on films that are made to fit it; the counts add up."""
    figures = last_line("studies/guess_inversion.py", "--films", "2", "--side", "64")
    assert (figures["films"], figures["tag_wrong"]) == (2 * 2 * 4 * 2 * 3, 0)
    rows = figures["kinds"].values()  # type: ignore[attr-defined]
    assert sum(row[tag][0] for row in rows for tag in ("MONOCHROME1", "MONOCHROME2")) == figures["guess_wrong"]


def test_a_leaky_crop_is_compared_film_by_film(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twelve patients a class. A model that knows each class has macro AUROC 1; one that gives all the same has 0.5; one that knows

    class 0 alone has (1 + 3 * 2/3) / 4: of each other class, a film ties with the 24 of the others and beats the 12 of class 0.
    """
    monkeypatch.syspath_prepend(str(ROOT / "studies"))
    script = importlib.import_module("leaky_crop")
    classes = np.repeat(np.arange(4), 12)
    ids = {"image_id": np.arange(48).astype(str), "patient_id": np.arange(48).astype(str)}

    def table(knows: Any) -> pd.DataFrame:
        of = pd.DataFrame(ids)
        for number, label in enumerate(COVID_CXR.labels):
            of[f"label_{label}"], of[f"probability_{label}"] = classes == number, knows(number)
        return of

    nothing, all_of_it = (
        table(lambda number: np.full(48, 0.25)),
        table(lambda number: np.where(classes == number, 0.7, 0.1)),
    )
    one = table(lambda number: np.where(classes == 0, float(number == 0), float(number != 0) / 3))
    values = [script.macro_auroc({0: of}, None, COVID_CXR).value for of in (nothing, all_of_it, one)]
    assert values == pytest.approx([0.5, 1.0, (1 + 3 * 2 / 3) / 4])
    apart = script.macro_auroc({0: one, 1: all_of_it}, {0: nothing, 1: nothing}, COVID_CXR)
    assert apart.value == pytest.approx((0.25 + 0.5) / 2)
    assert 0 < apart.low < apart.value < apart.high
    same = script.macro_auroc({0: one}, {0: one}, COVID_CXR)
    assert (same.value, same.low, same.high) == (0, 0, 0)
    found = script.figures(
        {crop: {0: of} for crop, of in zip(script.CROPS, (nothing, one, all_of_it), strict=True)}, COVID_CXR
    )
    assert [of["minus_none"] and of["minus_none"]["value"] for of in found.values()] == pytest.approx([None, 0.25, 0.5])


@pytest.mark.slow
def test_no_damage_breaks_a_command_or_changes_what_it_says() -> None:
    """Of 300 in docs/decisions.md, two a command."""
    figures = last_line(
        "tests/e2e/damage_files.py", "--count", "12", "--kinds", "scaffold", "--workers", "1", "--seed", "7"
    )
    assert figures["damages"] == 12
    assert figures["violations"] == 0
