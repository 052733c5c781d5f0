"""What was meant by a key, a choice or a value that does not exist."""

import pytest
from composed import compose_config
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from fl_rsna.settings.compose import say_plainly
from fl_rsna.settings.reference import list_groups
from fl_rsna.settings.suggest import SYNONYMS, find_near, list_keys

TYPOS = {  # what is typed -> the whole suggestion
    "round=5": "rounds=5",
    "rouns=5": "rounds=5",
    "num_rounds=5": "rounds=5",
    "train.lr=0.1": "train.learning_rate=0.1",
    "lr=0.1": "train.learning_rate=0.1",
    "train.learningrate=0.1": "train.learning_rate=0.1",
    "train.learning-rate=0.1": "train.learning_rate=0.1",
    "learning_rate=0.1": "train.learning_rate=0.1",
    "epochs=3": "train.local_epochs=3",
    "train.epochs=3": "train.local_epochs=3",
    "train.batchsize=8": "train.batch_size=8",
    "batch_size=8": "train.batch_size=8",
    "clients=8": "partition.num_sites=8",
    "num_sites=8": "partition.num_sites=8",
    "partition.sites=8": "partition.num_sites=8",
    "partiton.num_sites=8": "partition.num_sites=8",
    "partition.num_site=8": "partition.num_sites=8",
    "stratgy=fedavg": "strategy=fedavg",
    "data.dicm=x": "data.dicom=x",
    "workers=2": "engine.workers=2",
    "run.nam=x": "run.name=x",
    "resum=true": "resume=true",
    "strategy.fracton=0.5": "strategy.fraction=0.5",
    "strategy.muu=0.1": "strategy.mu=0.1",
    "strategy=fedavgg": "strategy=fedavg",
    "strategy=FedProx": "strategy=fedprox",
    "strategy.name=fedavgg": "strategy=fedavg",
    "model=efficentnet_b0": "model=efficientnet_b0",
    "model=b3": "model=efficientnet_b3",
    "experiment=ct-ich": "experiment=ct_ich",
    "partition=dirichelet": "partition=dirichlet",
    "task=covid": "task=covid_cxr",
    "tracking=tensorbord": "tracking=tensorboard",
    "train.optimizer=adam": "train.optimizer=adamw",
    "train.device=gpu0": None,
    "baseline=centralised": "baseline=central",
    "stage=slices": "stage=slice",
}


@pytest.mark.parametrize("typed", sorted(TYPOS))
def test_the_setting_that_was_meant_is_named(typed: str) -> None:
    with pytest.raises(ValueError, match=": ") as refused, say_plainly():
        compose_config([typed])
    assert not isinstance(refused.value, HydraException | OmegaConfBaseException)
    meant = TYPOS[typed]
    assert (f"; did you mean {meant}?" in str(refused.value)) is (meant is not None)
    assert "\n" not in str(refused.value)


def test_what_is_near_nothing_has_no_suggestion() -> None:
    with (
        pytest.raises(ValueError, match=r"xyzzy: no such setting; python -m fl_rsna.simulate --help all lists"),
        say_plainly(),
    ):
        compose_config(["xyzzy=1"])


def test_every_synonym_stands_for_a_key_and_is_none_itself() -> None:
    keys = set(list_keys())
    assert set(SYNONYMS.values()) <= keys
    assert not set(SYNONYMS) & keys


def test_the_groups_that_one_chooses_from_are_keys() -> None:
    assert set(list_groups()) <= set(list_keys())


@pytest.mark.parametrize(
    ("argument", "known", "found"),
    [
        ("CT-ICH", ["ct_ich", "gap"], "ct_ich"),
        ("b0", ["efficientnet_b0", "efficientnet_b1"], "efficientnet_b0"),
        ("efficientnet", ["efficientnet_b0", "efficientnet_b1"], "efficientnet_b1"),
        ("qqq", ["ct_ich", "gap"], None),
    ],
)
def test_case_hyphens_and_parts_count_less_than_letters(argument: str, known: list[str], found: str | None) -> None:
    assert find_near(argument, known, 0.8) == found
