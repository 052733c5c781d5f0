"""Cohorts that were dealt before: taken by name or by settings, never another in silence."""

from collections.abc import Collection
from dataclasses import fields
from pathlib import Path

from fl_rsna.choices import Group, Layout, PartitionKind
from fl_rsna.cohort.index import Prepared
from fl_rsna.cohort.sites import Cohort, read_cohort
from fl_rsna.cohort_name import FILES, cohort_name, partition_settings
from fl_rsna.config import Config, PartitionConfig, is_demo


def adopt_cohort(config: Config) -> None:
    """With no word about how to deal, take partition.name or the one cohort dealt from data.name, with its settings.

    `partition` with settings, then `simulate data.name=<name>`, must not deal another cohort in silence. Raises
    ValueError when there are several to choose from.
    """
    named, sites = config.partition.name, Path(config.paths.sites)
    if named is None and (is_demo(config) or (sites / cohort_name(config)).exists()):
        return
    paths = [path.parent for path in sorted(sites.glob(f"{named or '*'}/cohort.json"))]
    found = [read_cohort(path) for path in paths if path.suffix != ".part"]
    dealt = [cohort for cohort in found if named or cohort.facts["settings"].get("data") == config.data.name]
    if len(dealt) > 1:
        names = ", ".join(cohort.name for cohort in dealt)
        raise ValueError(
            f"partition.name: expected one cohort of {config.data.name} to take, got {names}; choose one with partition.name="
        )
    for cohort in dealt:
        known = {field.name for field in fields(PartitionConfig)}
        settings = {key: value for key, value in cohort.facts["settings"].items() if key in known}
        choices = {
            "kind": PartitionKind(settings["kind"]),
            "group": Group(settings.get("group", Group.patient)),
            "layout": Layout(settings.get("layout", Layout.standard)),
        }
        config.partition = PartitionConfig(**{**settings, **choices, "name": cohort.name})


def existing_cohort(folder: Path, config: Config, prepared: Prepared) -> Cohort:
    """The cohort in `folder`, which must have been dealt from the same data with the same settings, or it is refused."""
    cohort = read_cohort(folder)
    if cohort.facts["prepared"]["index_sha256"] != prepared.index_sha256:
        raise ValueError(
            f"partition.name: {folder} was dealt from other data than {prepared.folder} holds now; delete it to deal again, or choose "
            "another partition.name"
        )
    check_dealt(cohort, config)
    return cohort


def check_dealt(cohort: Cohort, config: Config, but: Collection[str] = ()) -> None:
    """Refuse a cohort that was dealt with other settings than are asked for, `but` for some."""
    asked, dealt = partition_settings(config), {**partition_settings(Config()), **cohort.facts["settings"]}

    def same(key: str) -> bool:
        """By content where both are files; a setting younger than the cohort had its default."""
        both_files = key in asked[FILES] and key in dealt[FILES]
        return bool(asked[FILES][key] == dealt[FILES][key] if both_files else asked[key] == dealt[key])

    changed = sorted(key for key in asked if key not in ("name", FILES, *but) and not same(key))
    if changed:
        raise ValueError(
            f"partition.name: {cohort.folder} was dealt with other settings ({', '.join('partition.' + key for key in changed)} differ); "
            "choose another partition.name or delete it"
        )
