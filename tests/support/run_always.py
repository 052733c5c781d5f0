"""Choose which cases of a test every run has: the others are marked extra, beyond the time that .ci/run has."""

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def run_always(first: Collection[Any], of: Iterable[Any]) -> list[Any]:
    """List all cases in their order, as `parametrize` takes them; those that are not among `first` are marked extra."""
    return [case if case in first else pytest.param(case, marks=pytest.mark.extra) for case in of]
