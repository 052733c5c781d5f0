"""Files of a run, a cohort or a prepared folder with other content, as if they had been written so."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from fl_rsna.common.reading import dump_hashed_json, read_json
from fl_rsna.run_folder.manifest import settings_sha256
from fl_rsna.run_folder.run_folder import CONFIG, MANIFEST


def write_hashed(path: Path, content: Mapping[str, Any]) -> None:
    """A JSON object with its hash."""
    path.write_bytes(dump_hashed_json(content))


def edit_json(path: Path, changes: Mapping[str, Any]) -> None:
    """Other values of these keys; None takes a key out."""
    content = {**read_json(path), **changes}
    write_hashed(path, {key: value for key, value in content.items() if value is not None})


def edit_config(run: Path, old: str, new: str) -> None:
    """Another text in config.yaml, whose hash stands in the manifest."""
    text = (run / CONFIG).read_text()
    assert old in text
    write_config(run, yaml.safe_load(text.replace(old, new)))


def write_config(run: Path, config: Mapping[str, Any]) -> None:
    (run / CONFIG).write_text(yaml.safe_dump(config, sort_keys=False))
    manifest = json.loads((run / MANIFEST).read_text())
    if "config_sha256" in manifest:
        edit_json(run / MANIFEST, {"config_sha256": settings_sha256(config)})
