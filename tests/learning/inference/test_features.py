"""Features are what the encoder says of each slice, made once, kept beside the pack, and never taken for others."""

import itertools
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import rewrite_site

from fl_rsna.cohort.sites.site_folders import Cohort
from fl_rsna.learning.data.dataset import SiteData, open_pooled, open_site
from fl_rsna.learning.inference.features import (
    KEPT,
    UNUSED_S,
    Views,
    encode_site,
    encoder_id,
    is_encoded,
    open_encoded,
    views_of,
)
from fl_rsna.learning.models.classifier import Classifier, build_model
from fl_rsna.learning.models.series_head import as_probabilities
from fl_rsna.learning.training.train import ignore_progress, predict
from fl_rsna.settings.data import ImageKind
from fl_rsna.settings.model import RunModel
from fl_rsna.settings.training import TrainConfig
from fl_rsna.task import ICH

SIDE, CPU, TRAIN = 24, torch.device("cpu"), TrainConfig()
MODEL = RunModel(image_size=SIDE)


@pytest.fixture(scope="module")
def network() -> Classifier:
    return build_model(MODEL, ICH, ImageKind.hu, seed=1)


def encode(network: Classifier, data: SiteData, views: Views) -> int:
    return encode_site(network, data, views, ICH, TRAIN, CPU, ignore_progress)


def at(own_cohort: Cohort, site: str = "site-1") -> SiteData:
    return open_site(own_cohort.site_folder(site), image_size=SIDE)


def test_the_first_copy_is_what_the_slice_model_says(own_cohort: Cohort, network: Classifier) -> None:
    data, views = at(own_cohort), views_of("a" * 32, 3, TRAIN)
    rows = data.rows("train")
    assert encode(network, data, views) == len(data.index) + 2 * len(rows)
    found = open_encoded(data, views)
    everything = np.arange(len(data.index))
    features, logits = found.take(0, everything)
    said = predict(network, data, everything, task=ICH, batch_size=64, device=CPU)
    np.testing.assert_array_equal(as_probabilities(logits, ICH), said)
    assert (features.shape, features.dtype) == ((len(everything), 1280), np.float16)
    copies = [found.take(copy, rows[::-1])[1] for copy in range(3)]
    assert copies[1].shape == copies[0].shape
    assert all(not np.array_equal(one, other) for one, other in itertools.pairwise(copies))


def test_what_is_there_is_not_made_again_and_more_copies_only_add(own_cohort: Cohort, network: Classifier) -> None:
    data, one, two = at(own_cohort), views_of("a" * 32, 1, TRAIN), views_of("a" * 32, 2, TRAIN)
    assert not is_encoded(data, one)
    with pytest.raises(ValueError, match="expected features of encoder aaaaaaaaaaaa at site site-1, found none"):
        open_encoded(data, one)
    encode(network, data, one)
    assert is_encoded(data, one)
    assert encode(network, data, one) == 0
    assert encode(network, data, two) == len(data.rows("train"))
    other = views_of("a" * 32, 2, TrainConfig(rotate_deg=1.0))  # whose copies are others
    assert not is_encoded(data, other)
    assert encode(network, data, other) == len(data.rows("train"))
    assert not is_encoded(data, views_of("b" * 32, 1, TRAIN))


def test_the_same_features_come_again_and_pooled_sites_take_those_of_their_sites(
    own_cohort: Cohort, network: Classifier
) -> None:
    views = views_of("a" * 32, 2, TRAIN)
    sites = [at(own_cohort, name) for name in own_cohort.sites]
    for data in sites:
        encode(network, data, views)
    pooled = open_pooled(MODEL, [own_cohort.site_folder(name) for name in own_cohort.sites])
    assert encode(network, pooled, views) == 0
    found = open_encoded(pooled, views)
    alone = [open_encoded(data, views) for data in sites]
    for copy in (0, 1):
        rows = [np.arange(len(data.index)) if copy == 0 else data.rows("train") for data in sites]
        expected = np.concatenate([of.take(copy, at)[0] for of, at in zip(alone, rows, strict=True)])
        together = np.arange(len(pooled.index)) if copy == 0 else pooled.rows("train")
        np.testing.assert_array_equal(found.take(copy, together)[0], expected)
    before = alone[0].take(1, sites[0].rows("train"))[0]
    shutil.rmtree(folder_of(sites[0]))
    encode(network, sites[0], views)
    np.testing.assert_array_equal(open_encoded(sites[0], views).take(1, sites[0].rows("train"))[0], before)


def folder_of(data: SiteData, encoder: str = "") -> Path:
    (found,) = Path(data.images.filename).parent.glob(f"features-*{encoder * 16}")  # type: ignore[union-attr]
    return found


def grow_old(folder: Path) -> None:
    """Nobody opened the features below `folder` for two days; the order in which they were used stays."""
    for path in folder.glob("features-*"):
        used = path.stat().st_mtime_ns - int(2 * UNUSED_S * 1e9)
        os.utime(path, ns=(used, used))


def test_features_that_a_run_may_go_on_with_stay(own_cohort: Cohort, network: Classifier) -> None:
    data = at(own_cohort)
    for letter in "abcdef":
        encode(network, data, views_of(letter * 32, 1, TRAIN))
    assert all(is_encoded(data, views_of(letter * 32, 1, TRAIN)) for letter in "abcdef")


def test_what_somebody_else_keeps_beside_a_pack_stays(own_cohort: Cohort, network: Classifier) -> None:
    data = at(own_cohort)
    packed = own_cohort.site_folder("site-1") / "packed"
    mine = packed / "features-of-mine-1"
    mine.mkdir()
    (mine / "features-0.npy").write_text("mine")
    for letter in "abcdef":
        encode(network, data, views_of(letter * 32, 1, TRAIN))
        (folder_of(data, letter) / "notes.txt").write_text("mine")
        grow_old(packed)
    assert (mine / "features-0.npy").read_text() == "mine"
    assert [(folder_of(data, letter) / "notes.txt").read_text() for letter in "abcdef"] == ["mine"] * 6
    assert not is_encoded(data, views_of("a" * 32, 1, TRAIN))


def test_a_changed_index_and_all_but_the_last_encoders_are_forgotten(own_cohort: Cohort, network: Classifier) -> None:
    data = at(own_cohort)
    packed = own_cohort.site_folder("site-1") / "packed"
    for letter in "abcdef":
        encode(network, data, views_of(letter * 32, 1, TRAIN))
        grow_old(packed)
    assert [is_encoded(data, views_of(letter * 32, 1, TRAIN)) for letter in "abcdef"] == [False] * (6 - KEPT) + [
        True
    ] * KEPT
    for pack in packed.glob("*.npy"):
        pack.unlink()
    index = own_cohort.site_folder("site-1") / "index.csv"
    index.write_text(index.read_text() + "\n")
    rewrite_site(index.parent)
    changed = at(own_cohort)
    assert not is_encoded(changed, views_of("f" * 32, 1, TRAIN))
    grow_old(packed)
    encode(network, changed, views_of("f" * 32, 1, TRAIN))
    assert len(list(packed.glob("features-*"))) == 1


def test_a_copy_half_written_is_none(own_cohort: Cohort, network: Classifier) -> None:
    data, views = at(own_cohort), views_of("a" * 32, 1, TRAIN)

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encode_site(network, data, views, ICH, TRAIN, CPU, stop)
    assert not is_encoded(data, views)
    assert [path.name for path in folder_of(data).iterdir()] == ["owner.json"]


def test_an_encoder_is_known_by_weights_settings_task_and_images() -> None:
    first = encoder_id("w", MODEL, "ich", ImageKind.hu)
    others = [
        encoder_id("v", MODEL, "ich", ImageKind.hu),
        encoder_id("w", replace(MODEL, image_size=32), "ich", ImageKind.hu),
        encoder_id("w", MODEL, "chest", ImageKind.hu),
        encoder_id("w", MODEL, "ich", ImageKind.windows),
    ]
    assert len({first, *others}) == 5
    assert first == encoder_id("w", replace(MODEL), "ich", ImageKind.hu)
