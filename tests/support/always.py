"""Which cases of a test are always run: the others are marked extra, beyond the time that .ci/run has."""

from collections.abc import Collection, Iterable
from typing import TypeVar

import pytest
from _pytest.mark import ParameterSet

Case = TypeVar("Case")


def always(first: Collection[Case], of: Iterable[Case]) -> list[Case | ParameterSet]:
    """All cases in their order; those that are not among `first` are marked extra."""
    return [case if case in first else pytest.param(case, marks=pytest.mark.extra) for case in of]
