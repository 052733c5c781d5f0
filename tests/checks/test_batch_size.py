"""train.batch_size=auto becomes a number once, that fits, and stays the same for a run that goes on."""

from pathlib import Path

import pytest
import yaml
from tiny import LITE0, tiny_config

from fl_rsna.checks import batch_size as batch
from fl_rsna.checks.batch_size import AUTO, MOST, settle_batch
from fl_rsna.checks.memory import footprint_of, memory_needed


def test_the_largest_power_of_two_that_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    network, needed = {**LITE0, "model__pretrained": False, "model__image_size": 64}, {}
    for size in (8, 16):
        config = tiny_config(train__batch_size=size, **network)
        memory = memory_needed(config, footprint_of(config), cuda=False)
        needed[size] = memory.command + memory.worker
    between = (needed[8] + needed[16]) // 2
    monkeypatch.setattr(batch, "free_memory", lambda: int(between / batch.SPARE))
    asked = tiny_config(train__batch_size=AUTO, **network)
    settle_batch(asked, None)
    assert asked.train.batch_size == 8


def test_plenty_of_memory_is_not_filled_and_a_number_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "free_memory", lambda: 10**13)
    config = tiny_config(train__batch_size=AUTO)
    settle_batch(config, None)
    assert config.train.batch_size == MOST
    config.train.batch_size = 5
    settle_batch(config, None)
    assert config.train.batch_size == 5


def test_no_room_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "free_memory", lambda: 10**6)
    with pytest.raises(ValueError, match=r"^train\.batch_size: expected memory for two images of 32 px and "):
        settle_batch(tiny_config(train__batch_size=AUTO), None)


@pytest.mark.parametrize("part", ["", "slice", "federated"])
def test_a_run_that_goes_on_keeps_its_number(tmp_path: Path, part: str) -> None:
    """Of two stages the slice model's, not the head's, which lies in the folder itself."""
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"train": {"batch_size": 4}}))
    (tmp_path / part).mkdir(exist_ok=True)
    (tmp_path / part / "config.yaml").write_text(yaml.safe_dump({"train": {"batch_size": 12}}))
    config = tiny_config(train__batch_size=AUTO, resume=True)
    settle_batch(config, tmp_path)
    assert config.train.batch_size == 12
