"""Nothing that could identify a patient passes between the server and a site: every byte of whole runs is searched."""

import hashlib
import json
import re
import shutil
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, RecordDict
from numpy.typing import NDArray
from package import ROOT
from tiny import LITE0, rewrite_site, tiny_cohort, tiny_config
from wiretap import FROM, TO, Secrets, Tapped, documented, keys_of, shipped, tapped_run

from fl_rsna.cohort.sites.site_folders import Cohort
from fl_rsna.federation.protocol.codec import pack, unpack
from fl_rsna.federation.protocol.failures import IDS
from fl_rsna.federation.site.stage_data import OUT_OF_FOLD
from fl_rsna.federation.stages import stages
from fl_rsna.imaging.png_store import read_png
from fl_rsna.learning.data.dataset import gather, open_site
from fl_rsna.learning.inference.predict import probabilities_in
from fl_rsna.learning.inference.stacking import GRID, clip_logits, stack_features
from fl_rsna.learning.models.classifier import InputStage, build_model
from fl_rsna.learning.models.saved import write_saved
from fl_rsna.settings.federation import Precision
from fl_rsna.settings.model import ModelConfig
from fl_rsna.settings.stages import Stacker, Stage
from fl_rsna.task import COVID_CXR, ICH

PAGE = ROOT / "docs" / "threat-model.md"
PIXELS = 24  # a side of what the network sees: not that of the PNGs, so that the packed rows are others
VALUES = 8  # of a row of pixels, which are enough to know it by


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    return long_cohort(tmp_path_factory.mktemp("tapped"))


def long_cohort(folder: Path) -> Cohort:
    """Two sites whose ids are as long as real ones; one of them lacks a label and has a patient whose id stands for nobody."""
    cohort = tiny_cohort(folder, num_sites=2, patients=16)
    for site in (*cohort.sites, "test-site"):
        folder = cohort.site_folder(site)
        index = pd.read_csv(folder / "index.csv", dtype=str, keep_default_na=False)
        for image in index["image_id"]:
            (folder / "images" / f"{image}.png").rename(folder / "images" / f"{long(image)}.png")
        index[list(IDS)] = index[list(IDS)].map(long)
        nobody = (index["patient_id"] == index["patient_id"][0]) & (site == "site-2")
        rewrite_site(folder, index.assign(placeholder=nobody.map({True: "ANONYMOUS", False: ""})))
    rewrite_site(cohort.site_folder("site-2"), noise={"unannotated": ["epidural"]})
    return cohort


def long(name: str) -> str:
    return f"ID_{hashlib.sha256(name.encode()).hexdigest()[:12]}"


@pytest.fixture(scope="module")
def secrets(cohort: Cohort) -> Secrets:
    """Ids with and without prefix, the folder, and the first pixels of every row of every image however it is stored."""
    found = Secrets()
    for site in cohort.sites:
        folder = cohort.site_folder(site)
        data = open_site(folder, image_size=PIXELS)
        found.add(f"folder of {site}", str(folder).encode(), str(folder.parent).encode())
        found.add(f"packed file of {site}", *(path.name.encode() for path in (folder / "packed").iterdir()))
        for column in IDS:
            for value in data.index[column].unique():
                found.add(f"{column} {value}", value.encode(), value.removeprefix("ID_").encode())
        pixels = gather(data.images, np.arange(len(data.index)), torch.device("cpu"))
        seen = InputStage(data.image)(pixels).numpy()
        for place, image in enumerate(data.index["image_id"]):
            found.add(f"file of {image}", (folder / "images" / f"{image}.png").read_bytes()[64:96])
            plane = read_png(folder / "images" / f"{image}.png")
            rows = [*plane, *plane.astype(">u2"), *np.asarray(data.images[place])]  # type: ignore[index]
            rows += [*pixels[place, 0].numpy(), *(pixels[place, 0] - 1024).numpy(), *seen[place].reshape(-1, PIXELS)]
            for row in rows:
                if len(np.unique(row[:VALUES])) > VALUES // 2:  # not what a window cut off
                    found.add(f"pixels of {image}", row[:VALUES].tobytes())
    return found


@pytest.fixture(scope="module")
def plain(cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> list[Tapped]:
    """Ditto, whose sites score a model of their own, too, in float32, with new BatchNorm statistics at the end."""
    config = tiny_config(**LITE0, rounds=1, strategy__name="ditto", model__image_size=PIXELS, model__recalibrate=True)
    return tapped_run(cohort, tmp_path_factory.mktemp("plain") / "run", config, lambda kind, fields: None)


@pytest.fixture(scope="module")
def broken(
    cohort: Cohort, secrets: Secrets, plain: list[Tapped], tmp_path_factory: pytest.TempPathFactory
) -> list[Tapped]:
    """SCAFFOLD in int8 up and float16 down; after the roll call an image of site-2 is damaged.

    `secrets` and `plain` need the images whole, so they come first in any order of tests.
    """
    config = tiny_config(**LITE0, rounds=1, strategy__name="scaffold", model__image_size=PIXELS)
    config.network.precision_up, config.network.precision_down = Precision.int8, Precision.fp16

    def damage(kind: str, fields: object) -> None:
        if kind == "roll_call":
            folder = cohort.site_folder("site-2")
            index = pd.read_csv(folder / "index.csv", dtype=str)
            (folder / "images" / f"{index['image_id'][3]}.png").write_bytes(b"\x89PNG")
            rewrite_site(folder, index.iloc[::-1])  # which packs the images again

    return tapped_run(cohort, tmp_path_factory.mktemp("broken") / "run", config, damage)


@pytest.fixture(scope="module")
def staged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Cohort, list[Tapped]]:
    """The second stage, under a model that nobody trained; site-2 is lost before it has features."""
    folder = tmp_path_factory.mktemp("staged")
    cohort, encoder = long_cohort(folder), folder / "encoder.safetensors"
    model = ModelConfig(image_size=PIXELS)
    write_saved(
        encoder, build_model(model, ICH, cohort.image, seed=0), task="ich", image=cohort.image, png_size=32,
        config=model, facts={},
    )  # fmt: skip
    config = tiny_config(
        rounds=1, stage=Stage.sequence, sequence__encoder=str(encoder), sequence__width=16, allow_unknown_patients=True
    )
    ((config, run),) = stages(config, folder / "run")

    def lose(kind: str, fields: object) -> None:
        if kind == "roll_call":
            (cohort.site_folder("site-2") / "index.csv").unlink()

    return cohort, tapped_run(cohort, run, config, lose)


@pytest.fixture(scope="module")
def stacked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Tapped]]:
    """A run of each stacker, on the same models of folds; and its folder, with what the sites keep."""
    folder = tmp_path_factory.mktemp("stacked")
    cohort, trees, network = long_cohort(folder), folder / "trees", folder / "network"
    small = {"rounds": 1, "model__image_size": PIXELS, "stage": Stage.stacking, "stacking__folds": 2}
    config = tiny_config(**small, stacking__rounds=2, stacking__min_child_weight=0.1)
    tapped = tapped_run(cohort, trees, config, lambda kind, fields: None)
    for part in ("fold-1", "fold-2", "site_memory"):
        shutil.copytree(trees / part, network / part)
    shutil.copy(trees / "owner.json", network / "owner.json")
    config = tiny_config(**small, stacking__stacker=Stacker.cnn, sequence__rounds=1, sequence__width=8, resume=True)
    return trees, tapped + tapped_run(cohort, network, config, lambda kind, fields: None)


@pytest.fixture(scope="module")
def of_classes(tmp_path_factory: pytest.TempPathFactory) -> list[Tapped]:
    """A run of a task whose labels exclude each other, every one of which is in every validation part."""
    folder = tmp_path_factory.mktemp("classes")
    cohort = tiny_cohort(folder, COVID_CXR, num_sites=2, patients=60, slices=2)
    config = tiny_config(rounds=1, data__task="covid_cxr", strategy__name="ditto")
    return tapped_run(cohort, folder / "run", config, lambda kind, fields: None)


@pytest.fixture(scope="module")
def everything(secrets: Secrets, plain: list[Tapped], broken: list[Tapped]) -> list[Tapped]:
    """In this order: the secrets are read before an image is damaged."""
    return plain + broken


def test_every_kind_of_message_was_heard(everything: list[Tapped]) -> None:
    kinds = {"query", "train", "evaluate", "evaluate.counts", "evaluate.scorecard"}
    assert {(way, message.metadata.message_type) for way, message in everything} == {
        (way, kind) for way in (TO, FROM) for kind in kinds
    }


def test_no_id_no_folder_and_no_pixel_passes(secrets: Secrets, everything: list[Tapped]) -> None:
    blobs = shipped(message for _, message in everything)
    assert sum(map(len, blobs.values())) > 100e6  # models are among them
    assert [found for blob in blobs.values() for found in secrets.found_in(blob)] == []


def test_the_failure_was_of_a_named_file_and_names_none(broken: list[Tapped]) -> None:
    failed = [message.content["failure"] for _, message in broken if "failure" in (message.content or {})]
    assert len(failed) == 3  # training, validation, counts
    for failure in failed:
        said = "expected a PNG image, got an unreadable file: <site folder>/images/<image>.png; prepare the data again"
        assert failure["error"] == said  # type: ignore[index]
        assert 'File "fl_rsna/learning/data/dataset.py", line' in str(failure["traceback"])  # type: ignore[index]


@pytest.mark.parametrize(
    ("what", "planted"),
    [
        ("patient_id", lambda data: ConfigRecord({"note": f"<{data.index['patient_id'][0]}>"})),
        ("image_id", lambda data: ConfigRecord({"note": data.index["image_id"][5].removeprefix("ID_")})),
        ("pixels", lambda data: ArrayRecord({"floats": pack(np.r_[np.float32(1), data.images[3, 7].astype("f4")])})),
        ("pixels", lambda data: ConfigRecord({"note": b"x" + data.images[3, 7].tobytes()})),
    ],
    ids=["an id", "an id without its prefix", "pixels among weights", "pixels at an odd place"],
)
def test_what_is_planted_is_found(secrets: Secrets, everything: list[Tapped], cohort: Cohort, what, planted) -> None:  # type: ignore[no-untyped-def]
    data = open_site(cohort.site_folder("site-1"), image_size=PIXELS)
    message = Message(RecordDict({"metrics": planted(data)}), 5, MessageType.TRAIN)
    found = set[str]().union(*map(secrets.found_in, shipped([message]).values()))
    assert {name.split()[0] for name in found} == {what}


def test_no_feature_of_a_slice_passes(staged: tuple[Cohort, list[Tapped]]) -> None:
    """As they are kept, in float16, and as a head reads them; nor the slice model's logits."""
    cohort, tapped = staged
    found, (folder,) = Secrets(), (cohort.site_folder("site-1") / "packed").glob("features-*")
    for name in ("features-0", "logits-0"):
        for row in np.load(folder / f"{name}.npy"):
            for kind in (np.float16, np.float32):
                found.add(name, telling(row).astype(kind).tobytes())
    assert len(found.known) > 50
    blobs = shipped(message for _, message in tapped)
    assert {name for blob in blobs.values() for name in found.found_in(blob)} == set()
    planted = ArrayRecord({"x": pack(np.load(folder / "features-0.npy")[3])})
    message = Message(RecordDict({"score": planted}), 5, MessageType.TRAIN)
    assert any(found.found_in(blob) for blob in shipped([message]).values())


def telling(row: NDArray[np.generic]) -> NDArray[np.generic]:
    """The values of a row, few of them in a row, that are most unlike each other: most features are 0."""
    windows = [row[start : start + 2 * VALUES] for start in range(max(1, len(row) - 2 * VALUES))]
    return max(windows, key=lambda window: len(np.unique(window)))


def test_the_second_stage_has_messages_of_its_own(staged: tuple[Cohort, list[Tapped]]) -> None:
    kinds = [message.metadata.message_type for way, message in staged[1] if way == FROM]
    assert {"evaluate.features", "evaluate.encode", "evaluate.blend"} < set(kinds)
    assert kinds.count("evaluate.encode") == 1  # to the site that said it has none


def test_no_prediction_and_no_stacked_feature_of_a_slice_passes(stacked: tuple[Path, list[Tapped]]) -> None:
    """As they are kept, as logits, and as a stacker sees them: neighbours in one row, and one column of a series."""
    folder, tapped = stacked
    found, tables = Secrets(), [pd.read_parquet(path) for path in folder.glob(f"site_memory/*/*/{OUT_OF_FOLD}")]
    for table in tables:
        said = probabilities_in(table, ICH.labels)
        seen = stack_features(table, said)
        for row in (*said, *clip_logits(said), *clip_logits(said).astype(np.float32), *seen):
            found.add("row", row[:VALUES].tobytes())
        for name in IDS:
            found.add("id", *(value.removeprefix("ID_").encode() for value in table[name].unique()))
        for column in said.T:
            found.add("column", *(column[place : place + 4].tobytes() for place in range(len(column) - 3)))
    assert len(tables) == 4
    assert len(found.known) > 500
    blobs = shipped(message for _, message in tapped)
    assert {name for blob in blobs.values() for name in found.found_in(blob)} == set()
    planted = Message(RecordDict({"score": ArrayRecord({"x": pack(seen[3])})}), 5, MessageType.TRAIN)
    assert any(found.found_in(blob) for blob in shipped([planted]).values())


def test_trees_leave_without_sums_and_with_thresholds_on_the_public_grid(stacked: tuple[Path, list[Tapped]]) -> None:
    sent = [
        message.content["arrays"]
        for way, message in stacked[1]
        if message.metadata.message_type == "train.trees" and way == FROM
    ]
    splits = 0
    for arrays in sent:
        for packed in arrays.values():  # type: ignore[union-attr]
            plain = json.loads(zlib.decompress(unpack(packed).tobytes()))
            for tree in plain["learner"]["gradient_booster"]["model"]["trees"]:
                assert not any(tree["sum_hessian"] + tree["base_weights"] + tree["loss_changes"])
                inner = [
                    value
                    for value, left in zip(tree["split_conditions"], tree["left_children"], strict=True)
                    if left >= 0
                ]
                assert all((value * GRID).is_integer() for value in inner)
                splits += len(inner)
    assert splits


def test_what_travels_is_what_the_threat_model_lists(
    everything: list[Tapped],
    staged: tuple[Cohort, list[Tapped]],
    stacked: tuple[Path, list[Tapped]],
    of_classes: list[Tapped],
    cohort: Cohort,
) -> None:
    """Nothing more; and nothing is listed that does not travel, but for scores that this little data may not define."""
    labels, listed = {*ICH.labels, *COVID_CXR.labels}, documented(PAGE)
    seen = keys_of([*everything, *staged[1], *stacked[1], *of_classes], labels, cohort.sites)
    package = "instructions.plugins.tiny-network"  # of whose version the page speaks beside its tables
    seen -= {row for row in seen if row[3] == package}
    assert seen - listed == set()
    assert {row for row in listed - seen if not row[3].startswith("scorecard.")} == set()


def test_scores_of_classes_together_leave_as_listed(of_classes: list[Tapped]) -> None:
    seen = keys_of(of_classes, COVID_CXR.labels, ["site-1", "site-2"])
    told = {key for way, _, _, key in seen if way == FROM and key.startswith("scorecard.classes.")}
    assert told == {key for _, _, _, key in documented(PAGE) if key.startswith("scorecard.classes.")}


def test_a_key_nobody_wrote_down_is_noticed(cohort: Cohort) -> None:
    message = Message(RecordDict({"metrics": ConfigRecord({"note": '{"slices": [1, 2]}'})}), 5, MessageType.TRAIN)
    found = keys_of([(FROM, message)], ICH.labels, cohort.sites)
    assert found == {(FROM, "train", "metrics", "note.slices")}
    assert not found & documented(PAGE)


def test_metadata_of_a_message_names_nobody(everything: list[Tapped]) -> None:
    """Round numbers and Flower's own numbers of nodes and runs; the salted hashes of the roll call are of the run's salt."""
    assert {message.metadata.group_id for _, message in everything} == {"", "1", "2"}
    hashes = [message.content["site"]["patients"] for way, message in everything if "site" in message.content]  # type: ignore[index]
    assert all(re.fullmatch("[0-9a-f]{16}", value) for of_site in hashes for value in of_site)
    assert len({tuple(of_site) for of_site in hashes}) == len(hashes) == 4  # two runs of two sites, none alike
