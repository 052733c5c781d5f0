"""With privacy.min_count=k no count between 1 and k - 1 leaves a site, nor one that gives such a count away."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from composed import compose_config
from flwr.app import Context, Message, MessageType, RecordDict
from flwr.supercore.task_identity import TaskIdentity
from tiny import tiny_cohort, tiny_config
from wiretap import FROM, Tapped, tapped_run

from fl_rsna.cohort.sites.site_folders import Cohort
from fl_rsna.federation.protocol.codec import unpack
from fl_rsna.federation.protocol.messages import failure_of
from fl_rsna.federation.protocol.minimum_count import (
    check_floor,
    coarsen_table,
    groups,
    pad_hashes,
    rests_on_enough,
    suppress_card,
    suppress_controls,
    suppress_counts,
    suppress_sums,
)
from fl_rsna.federation.server.roll_call import Site, prior_of
from fl_rsna.federation.site.client_app import _locate_by_node, make_client_app
from fl_rsna.learning.inference.blending import GRIDS
from fl_rsna.learning.metrics.operating_points import EDGES, LOSS, SLICE, choose, choose_points, site_sums
from fl_rsna.learning.metrics.scorecard import scorecard
from fl_rsna.reporting.pages.run_page import write_report
from fl_rsna.reporting.record.run_record import read_run
from fl_rsna.reporting.sections.cohort import cohort_table
from fl_rsna.settings.config import Config
from fl_rsna.task import COVID_CXR, ICH

K = 3


def column(*values: int) -> np.ndarray:
    return np.array(values, np.int64)[:, None]


@pytest.mark.parametrize(
    ("cells", "k", "found"),
    [
        ([0, 4, 0, 5], 3, [(0, 1), (1, 2), (2, 3), (3, 4)]),
        ([1, 1, 1, 9], 3, [(0, 3), (3, 4)]),
        ([5, 1, 0, 1], 3, [(0, 4)]),  # what is left over joins those before it
        ([5, 0, 7, 0, 2], 3, [(0, 1), (1, 2), (2, 5)]),
        ([1, 1, 0], 3, [(0, 3)]),  # all together are few
        ([1, 2, 3], 0, [(0, 1), (1, 2), (2, 3)]),
        ([1, 2, 3], 1, [(0, 1), (1, 2), (2, 3)]),
    ],
)
def test_neighbours_are_added_up_until_they_are_enough(cells: list[int], k: int, found: list[tuple[int, int]]) -> None:
    assert groups(column(*cells), k) == found


def test_every_column_must_be_enough() -> None:
    assert groups(np.array([[5, 1], [5, 2], [5, 0]], np.int64), 3) == [(0, 2), (2, 3)]


def test_a_group_stands_at_the_mean_place_of_its_rows() -> None:
    table = column(0, 2, 0, 1, 4)
    assert coarsen_table(table, table, 3).ravel().tolist() == [0, 0, 3, 0, 4]  # (2 * 1 + 1 * 3) / 3 = 1.67
    assert coarsen_table(table, table, 0).tolist() == table.tolist()


def held(slices: int = 50, patients: int = 9, **positives: int) -> dict[str, Any]:
    return {"patients": patients, "slices": slices, "positives": positives}


def test_small_counts_and_small_rests_are_withheld() -> None:
    told = suppress_counts({"train": held(patients=2, a=0, b=2, c=3, d=47, e=48, f=50)}, K, exclusive=False)
    assert told == {
        "train": {"patients": None, "slices": 50, "positives": {"a": 0, "b": None, "c": 3, "d": 47, "e": None, "f": 50}}
    }


def test_of_classes_that_add_up_another_is_withheld_with_the_small_one() -> None:
    told = suppress_counts({"train": held(a=1, b=30, c=19, d=0)}, K, exclusive=True)
    assert told["train"]["positives"] == {"a": None, "b": 30, "c": None, "d": None}
    told = suppress_counts({"train": held(a=20, b=30)}, K, exclusive=True)
    assert told["train"]["positives"] == {"a": 20, "b": 30}


def test_a_site_of_too_few_slices_stays_out() -> None:
    with pytest.raises(ValueError, match=r"privacy.min_count: expected at least 3 validation images at every site"):
        suppress_counts({"train": held(), "validation": held(slices=2)}, K, exclusive=False)


def test_hashes_are_filled_up_to_a_multiple() -> None:
    hashes = [f"{i:016x}" for i in range(4)]
    told = pad_hashes(hashes, K)
    assert len(told) == len(set(told)) == 6
    assert set(hashes) < set(told)
    assert told == sorted(told)
    assert all(len(value) == 16 for value in told)
    assert pad_hashes(hashes, 2) == pad_hashes(hashes, 0) == hashes


def test_controls_have_no_small_cell_and_no_small_rest() -> None:
    table = np.array([[4, 1, 0], [4, 3, 0], [9, 0, 1], [0, 0, 0], [5, 0, 0], [6, 3, 0]], np.int64)
    told = suppress_controls(table, K)
    # of the first label 1 + 3 of 4 + 4 slices go together; of the second there is one: it is absent
    assert told.tolist() == [[8, 4, 0], [0, 0, 0], [9, 0, 0], [0, 0, 0], [5, 0, 0], [6, 3, 0]]
    assert suppress_controls(table, 0) is table


def sums(slices: int = 40) -> dict[str, np.ndarray]:
    """Slices of 10 patients; the first label is on half of them, the last on one, and probabilities are spread."""
    random = np.random.default_rng(0)
    labels = np.zeros((slices, len(ICH.labels)), np.float32)
    labels[: slices // 2, 0], labels[0, -1] = 1, 1
    found = np.clip(0.3 + 0.3 * labels + random.normal(0, 0.1, labels.shape), 0.01, 0.99)
    patients = np.arange(slices) // 4
    return site_sums(labels, found, patients, patients, ICH)


def test_histograms_have_no_small_cell_and_keep_their_sums() -> None:
    before = sums()
    told = suppress_sums(before, K)
    for name, counts in told.items():
        if name != LOSS:
            assert not ((counts > 0) & (counts < K)).any()
    assert told[SLICE][0].sum(1).tolist() == before[SLICE][0].sum(1).tolist() == [20, 20]
    assert not told[SLICE][-1].any()  # one positive
    assert not told[LOSS][-1].any()
    assert (told[LOSS][0] == before[LOSS][0]).all()
    assert suppress_sums(before, 0) is before


def test_losses_by_weight_and_width_are_withheld_with_the_label() -> None:
    counts = sums()
    before = {SLICE: counts[SLICE], **{name: np.ones((len(ICH.labels), grid)) for name, grid in GRIDS.items()}}
    told = suppress_sums(before, K)
    for name, grid in GRIDS.items():
        assert told[name][0].tolist() == [1.0] * grid
        assert not told[name][-1].any()  # one positive


def test_a_threshold_from_coarse_counts_is_near_that_from_all() -> None:
    plain, coarse = (choose_points(suppress_sums(sums(400), k)[SLICE], ICH.labels)["any"] for k in (0, 10))
    for point, threshold in plain.items():
        assert threshold is not None
        assert coarse[point] == pytest.approx(threshold, abs=0.05)
    assert choose_points(suppress_sums(sums(), K)[SLICE], ICH.labels)["subdural"]["youden"] is None
    assert len(EDGES) == 1024


def test_a_score_rests_on_patients() -> None:
    labels = np.array([[1, 1, 0], [1, 1, 0], [1, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0]], np.float32)
    assert rests_on_enough(labels, np.array(["a", "b", "c", "d", "d", "d"]), K) == [True, False, False]
    assert rests_on_enough(labels, np.array(["a", "a", "c", "d", "d", "d"]), K) == [False, False, False]
    assert rests_on_enough(labels, np.array(["a"] * 6), 0) == [True, True, True]


def ints(value: object) -> Iterator[int]:
    """All whole numbers of a nest of plain values, which in a scorecard are counts."""
    if isinstance(value, dict):
        for inner in value.values():
            yield from ints(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from ints(inner)
    elif isinstance(value, int) and not isinstance(value, bool):
        yield value


@pytest.fixture(scope="module")
def card() -> dict[str, Any]:
    random = np.random.default_rng(1)
    labels = np.zeros((60, len(ICH.labels)), np.float32)
    labels[:24, 0], labels[:4, 1] = 1, 1
    found = np.clip(0.3 + 0.4 * labels + random.normal(0, 0.2, labels.shape), 0.01, 0.99)
    patients = np.arange(60) // 4
    counts = site_sums(labels, found, patients, patients, ICH)
    return scorecard(labels, found, patients, patients, task=ICH, settings=choose(counts, ICH), seed=0, resamples=20)


def test_a_scorecard_has_no_small_count(card: dict[str, Any]) -> None:
    assert [n for n in ints(card) if 0 < n < K]  # or this test could not fail
    told = suppress_card(card, K)
    assert [n for n in ints(told) if 0 < n < K] == []
    assert told["slice"]["any"]["auroc"] == card["slice"]["any"]["auroc"]
    few = told["slice"][ICH.labels[1]]  # of one patient
    assert set(few["auroc"].values()) == {None}
    assert set(few["points"].values()) == {None}
    assert few["temperature"] == card["slice"][ICH.labels[1]]["temperature"]
    assert told["log_loss"]["value"] == card["log_loss"]["value"]
    assert suppress_card(card, 0) == card


def test_a_confusion_table_withholds_what_a_small_count_could_be_read_from(card: dict[str, Any]) -> None:
    for k in range(2, 12):
        for label, of in suppress_card(card, k)["slice"].items():
            for name, point in of["points"].items():
                before = card["slice"][label]["points"][name]
                for pair, ratio in ((("tp", "fn"), "sensitivity"), (("fp", "tn"), "specificity")):
                    small = before and any(0 < before[cell] < k for cell in pair)
                    if point and small:
                        assert [point[cell] for cell in pair] == [None, None]
                        assert point[ratio]["value"] is None
                        assert point["ppv"]["value"] is point["npv"]["value"] is point["f1"]["value"] is None
                    elif point:
                        assert [point[cell] for cell in pair] == [before[cell] for cell in pair]


def test_bins_of_a_curve_keep_their_slices_and_their_mean(card: dict[str, Any]) -> None:
    before = card["slice"]["any"]["calibration"]["before"]["bins"]
    told = suppress_card(card, K)["slice"]["any"]["calibration"]["before"]["bins"]
    assert len(told) < len(before)
    assert (told[0]["low"], told[-1]["high"]) == (0, 1)
    assert [one["high"] for one in told[:-1]] == [one["low"] for one in told[1:]]
    for bins in (before, told):
        assert sum(one["count"] for one in bins) == 60
        assert sum(one["count"] * (one["share"] or 0) for one in bins) == pytest.approx(24)
    means = [sum(one["count"] * (one["mean"] or 0) for one in bins) for bins in (before, told)]
    assert means[0] == pytest.approx(means[1])
    for one in told:
        positives = round(one["count"] * (one["share"] or 0))
        assert not {positives, one["count"] - positives} & {1, 2}


CLASSES = COVID_CXR.labels


def of_classes(*patients: int, wrong: int = 12) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One-hot labels, probabilities and patients: so many patients of each class with two slices each; every so manyth is taken for another."""
    kind = np.repeat(np.arange(4), 2 * np.array(patients))
    labels, random = np.eye(4, dtype=np.float32)[kind], np.random.default_rng(0)
    found = labels + 0.1 * random.random(labels.shape)
    found[::wrong] = np.roll(found[::wrong], 1, axis=1)
    return labels, found / found.sum(1, keepdims=True), np.arange(len(kind)) // 2


def card_of_classes(*patients: int, wrong: int = 12) -> dict[str, Any]:
    labels, found, of = of_classes(*patients, wrong=wrong)
    points = choose(site_sums(labels, found, of, of, COVID_CXR), COVID_CXR)
    return scorecard(labels, found, of, of, task=COVID_CXR, settings=points, seed=0, resamples=20)


def withheld(cards: dict[str, Any]) -> set[str]:
    return {label for label, of in cards.items() if of["auroc"]["positives"] is None}


def test_with_a_class_of_few_go_those_that_give_it_away_at_every_level() -> None:
    """One patient of the third class; the first is the next smallest, and with it they are enough."""
    card = card_of_classes(6, 20, 1, 9)
    told = suppress_card(card, K)
    assert [n for n in ints(told) if 0 < n < K] == []
    for cards in (told["slice"], told["exam"]["mean"]):
        assert withheld(cards) == {CLASSES[0], CLASSES[2]}
    assert set(told["log_loss"].values()) == {None, told["log_loss"]["value"]}
    for level in ("slice", "exam"):
        found, before = told["classes"][level], card["classes"][level]
        for name in ("accuracy", "balanced_accuracy", "macro_auroc", "mean_average_precision"):
            assert set(found[name].values()) == {None}
        for i, label in enumerate(CLASSES):
            gone = i in (0, 2) or any(0 < cell["count"] < K for cell in before["confusion"][label].values())
            if gone:
                assert {cell["count"] for cell in found["confusion"][label].values()} == {None}
                assert found["classes"][label]["accuracy"]["value"] is None
            else:
                assert found["confusion"][label] == before["confusion"][label]
    assert suppress_card(card, 0) == card


def test_a_small_cell_takes_its_row_and_what_adds_up_over_rows() -> None:
    """All classes are of enough; some are taken for others once."""
    card = card_of_classes(10, 10, 10, 10, wrong=30)
    before, found = card["classes"]["slice"], suppress_card(card, K)["classes"]["slice"]
    small = {label: any(0 < cell["count"] < K for cell in row.values()) for label, row in before["confusion"].items()}
    assert any(small.values())
    assert not all(small.values())
    for label, row in before["confusion"].items():
        expected = {None} if small[label] else {cell["count"] for cell in row.values()}
        assert {cell["count"] for cell in found["confusion"][label].values()} == expected
        assert (found["classes"][label]["accuracy"]["value"] is None) == small[label]
        assert found["classes"][label]["voc_average_precision"] == before["classes"][label]["voc_average_precision"]
    assert found["accuracy"]["value"] is found["balanced_accuracy"]["value"] is None
    assert found["macro_auroc"] == before["macro_auroc"]


def test_no_count_of_a_class_is_what_the_others_leave() -> None:
    """Of the scorecard, of what sites add up, and of the controls: what is not told is nothing or at least k."""
    random = np.random.default_rng(3)
    hidden = 0
    for _ in range(40):
        patients = random.integers(0, 6, 4) + np.array([0, 0, 5, 5])
        labels, found, of = of_classes(*patients)
        sums_ = site_sums(labels, found, of, of, COVID_CXR)
        told = suppress_sums(sums_, K, exclusive=True)
        for name, rows in ((SLICE, len(labels)), ("mean", int(patients.sum()))):
            left = rows - int(told[name][:, 1].sum())
            absent = [i for i in range(4) if not told[name][i].any() and patients[i]]
            assert not 0 < left < K
            assert len(absent) != 1
            hidden += len(absent)
        shown = suppress_card(card_of_classes(*patients), K)
        for cards in (shown["slice"], shown["exam"]["mean"]):
            gone = [i for i in range(4) if CLASSES[i] in withheld(cards) and patients[i]]
            assert len(gone) != 1
            assert not 0 < sum(patients[gone]) < K
        place = np.arange(len(labels)) % 5
        table = np.stack([np.bincount(place, column, 5) for column in (np.ones(len(labels)), *labels.T)], axis=1)
        controls = suppress_controls(table.astype(np.int64), K, exclusive=True)
        left = controls[:, 0] - controls[:, 1:].sum(1)
        assert not ((left > 0) & (left < K)).any()
    assert hidden


def test_classes_of_enough_lose_nothing_to_their_kind() -> None:
    labels, found, of = of_classes(10, 10, 10, 10)
    sums_ = site_sums(labels, found, of, of, COVID_CXR)
    for name, counts in suppress_sums(sums_, K, exclusive=True).items():
        assert (counts == suppress_sums(sums_, K)[name]).all()


def test_the_common_prior_is_of_those_that_tell(cohort: Cohort) -> None:
    counted = dict.fromkeys(ICH.labels, 5)
    sites = [
        Site(
            name=f"site-{i}", node_id=i, version="", cohort_sha256="", task="ich", controls={}, patients=frozenset(),
            counts={"train": {"patients": 3, "slices": 9, "positives": {**counted, "any": positives}}},
        )
        for i, positives in enumerate((None, 4))
    ]  # fmt: skip
    prior = dict(zip(ICH.labels, prior_of(sites, ICH), strict=True))
    assert prior["any"] == (4 + 0.5) / (9 + 1)
    assert prior[ICH.labels[1]] == (10 + 0.5) / (18 + 1)


def test_a_floor_is_named_with_what_was_asked_for() -> None:
    check_floor(5, 5)
    with pytest.raises(ValueError, match=r"privacy.min_count: expected at least 5, this site's floor, got 2"):
        check_floor(2, 5)


@pytest.mark.parametrize(
    ("node", "variable", "floor"), [({}, "", 0), ({"min-count": 4}, "", 4), ({"min-count": "4"}, "7", 7), ({}, "2", 2)]
)
def test_a_node_may_have_a_floor(
    node: dict[str, Any], variable: str, floor: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FL_RSNA_MIN_COUNT", variable)
    context = Context(1, 2, {"site-folder": "/x", **node}, RecordDict(), {})
    assert _locate_by_node(context).min_count == floor


@pytest.mark.parametrize("stated", [-1, 2.5, "many"])
def test_a_floor_that_is_no_number_is_refused(stated: object) -> None:
    context = Context(1, 2, {"site-folder": "/x", "min-count": stated}, RecordDict(), {})  # type: ignore[dict-item]
    with pytest.raises(ValueError, match="min-count: expected a whole number of 0 or more"):
        _locate_by_node(context)


@pytest.mark.parametrize("settings", ["privacy.min_count=-1", "privacy.min_count=2.5", "privacy.min_count=few"])
def test_other_settings_are_refused(settings: str) -> None:
    with pytest.raises(Exception, match="min_count"):
        compose_config([settings])
    assert compose_config(["privacy.min_count=5"]).privacy.min_count == 5


def config_of(min_count: int) -> Config:
    return tiny_config(rounds=1, privacy__min_count=min_count)


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Cohort, list[Tapped]]:
    """A run in which a site has too few patients with any one kind of bleeding."""
    folder = tmp_path_factory.mktemp("few")
    cohort = tiny_cohort(folder, num_sites=2, patients=30)
    return folder / "run", cohort, tapped_run(cohort, folder / "run", config_of(K), lambda kind, fields: None)


def test_in_a_whole_run_no_small_count_leaves(few: tuple[Path, Cohort, list[Tapped]]) -> None:
    small, withheld = list[Any](), 0
    for way, message in few[2]:
        for record, content in message.content.items() if way == FROM else ():
            for name, value in content.items():
                if record == "metrics":
                    counted = [value] if name == "num-examples" else []
                elif isinstance(value, str) and value.startswith("{"):
                    counted, withheld = list(ints(json.loads(value))), withheld + value.count("null")
                else:
                    counted = unpack(value).tolist() if record == "score" and name != LOSS else []
                small += [(record, name, n) for n in counted if 0 < n < K]
    assert small == []
    assert withheld > 10
    hashes = [message.content["site"]["patients"] for way, message in few[2] if "site" in message.content]
    assert all(len(of_site) % K == 0 for of_site in hashes)  # type: ignore[arg-type]


def test_a_run_that_withholds_has_a_report_that_says_so(few: tuple[Path, Cohort, list[Tapped]]) -> None:
    folder, cohort, _ = few
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["status"] == "finished"
    run = read_run(folder)
    parts = [part for site in cohort.sites for part in run.cohort[site].values()]
    assert any(None in part["positives"].values() for part in parts)
    assert f"<{K}" in [cell for row in cohort_table(run).rows for cell in row]
    page = write_report(folder).read_text()
    assert f"&lt;{K}" in page
    assert "withheld" in page


def test_the_same_model_whether_counts_are_withheld_or_not(
    few: tuple[Path, Cohort, list[Tapped]], tmp_path: Path
) -> None:
    folder, cohort, _ = few
    tapped_run(cohort, tmp_path / "plain", config_of(0), lambda kind, fields: None)
    found = [json.loads((path / "summary.json").read_text())["model_sha256"] for path in (folder, tmp_path / "plain")]
    assert found[0] == found[1]


def test_a_site_refuses_a_run_below_its_floor(few: tuple[Path, Cohort, list[Tapped]]) -> None:
    _, cohort, heard = few
    TaskIdentity.run_id, TaskIdentity.task_id, TaskIdentity.node_id = 1, 1, 1
    asked = next(message for _, message in heard if message.metadata.message_type == MessageType.QUERY)
    folder = cohort.site_folder("site-1")
    for floor in (K, K + 1):
        node = {"site-folder": str(folder), "memory-folder": str(folder / "memory"), "min-count": floor}
        message = Message(asked.content, 2, MessageType.QUERY)
        reply = make_client_app(_locate_by_node)(message, Context(1, 2, node, RecordDict(), {}))
        said = "privacy.min_count: expected at least 4, this site's floor, got 3; say privacy.min_count=4"
        assert failure_of(reply) == (None if floor == K else (said, said))
