"""A node finds its site in the cohort as it lies on disk now."""

import json
from pathlib import Path

import pytest
from tiny import tiny_cohort

from fl_rsna.common.reading import dump_hashed_json
from fl_rsna.federation.site.client_app import _site_of


def test_nodes_follow_the_cohort_on_disk(tmp_path: Path) -> None:
    cohort = tiny_cohort(tmp_path)
    assert [_site_of(cohort.folder, position).name for position in range(3)] == ["site-1", "site-2", "site-3"]
    facts = json.loads((cohort.folder / "cohort.json").read_text())
    facts["sites"] = {"site-7": facts["sites"]["site-1"]}
    (cohort.folder / "cohort.json").write_bytes(dump_hashed_json(facts))
    assert _site_of(cohort.folder, 0).name == "site-7"
    with pytest.raises(ValueError, match="expected at most 1 nodes"):
        _site_of(cohort.folder, 1)
    (cohort.folder / "cohort.json").unlink()
    with pytest.raises(ValueError, match="no cohort at"):
        _site_of(cohort.folder, 0)
