"""What evaluate says of a set's prevalence can be said to a run, in the words it prints."""

import shlex

import numpy as np
import pytest

from fl_rsna.compose import compose_config
from fl_rsna.learning.label_shift import Shift
from fl_rsna.task import ICH
from fl_rsna.using.shifted import words_of


def shift(here: list[float], known: list[bool]) -> Shift:
    shares = np.array(here)
    return Shift(prior=shares, likely=shares, here=shares, low=shares, high=shares, known=np.array(known))


def test_the_words_that_are_printed_set_the_prevalence() -> None:
    words = words_of(shift([0.14, 0.00004, 0.2, 0.1, 0.1, 0.1], [True, True, False, True, False, False]), ICH)
    assert words is not None
    stated = compose_config(shlex.split(words)).match.prevalence
    known = {ICH.labels[1]: 4e-5, ICH.labels[3]: 0.1}
    assert stated == pytest.approx({"any": 0.14, **known})


def test_one_label_is_set_by_its_key_and_an_unknown_one_is_refused() -> None:
    assert compose_config(["+match.prevalence.any=0.14"]).match.prevalence == {"any": 0.14}
    with pytest.raises(ValueError, match=r"^match.prevalence: expected any, .*, got fracture"):
        compose_config(["match.prevalence={fracture: 0.1}"])
