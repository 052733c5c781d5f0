"""The page of all settings is the one that the declarations give."""

import importlib

import pytest
from package import ROOT


def test_the_page_of_all_settings_is_written_from_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    script = importlib.import_module("describe_settings")
    assert script.PAGE.read_text() == script.describe_page(), "run python scripts/describe_settings.py"
