"""A stacking's second model is asked in its own run alone: evaluate and export say so, and name a slice model to take."""

from pathlib import Path

import pytest

from fl_rsna.runs import STACK_NETWORK, STACKER
from fl_rsna.using.trained import trained_model


@pytest.mark.parametrize("name", [STACKER, STACK_NETWORK])
def test_a_stacking_is_refused_with_the_name_of_a_model_that_can_be_asked(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    (tmp_path / "fold-1").mkdir()
    with pytest.raises(ValueError, match=r"model: .* got the stacking in .*; give one of its slice models, .*fold-1"):
        trained_model(str(tmp_path))
