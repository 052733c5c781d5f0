"""What a cohort is called, and what it records of the settings that made it."""

import hashlib
import json
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Any

from fl_rsna.choices import PartitionKind
from fl_rsna.config import Config, PartitionConfig

FILES = "files_sha256"  # the place of file hashes among the settings of a cohort


def cohort_name(config: Config) -> str:
    """The cohort's folder: partition.name, or a name that changes with every setting that changes the partition."""
    part = config.partition
    if part.name is not None:
        return part.name
    settings = partition_settings(config)
    plain = PartitionConfig()  # settings younger than the first cohorts count where they are used: old names stay
    younger = {key for key in ("noise", "layout") if getattr(part, key) == getattr(plain, key)}
    left_out = {"name", FILES, *younger}
    what = {key: value for key, value in settings.items() if key not in left_out} | settings[FILES]
    digest = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:6]
    count = "" if part.kind is PartitionKind.explicit else f"{part.num_sites}-"
    return f"{config.data.name}-{part.kind}-{count}{digest}"


def partition_settings(config: Config) -> dict[str, Any]:
    """What cohort.json records of the configuration; a file counts by its content's hash, wherever it lies."""
    part = config.partition
    plain = {key: str(value) if isinstance(value, StrEnum) else value for key, value in asdict(part).items()}
    files = {
        key: path for key in ("assignment", "test") if isinstance(path := plain[key], str) and Path(path).is_file()
    }
    digests = {key: hashlib.sha256(Path(path).read_bytes()).hexdigest() for key, path in files.items()}
    return {"data": config.data.name, **plain, FILES: digests}
