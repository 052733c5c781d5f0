"""Simulate errors of a site: training labels are wrong or missing, and its scanner drifts, is noisy or blurs.

These settings are recorded in site.json and applied when the site opens its data (learning/data/site_noise.py). index.csv and the images
are not changed, so a cohort without the setting is the same cohort without errors.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import pandas as pd

from fl_rsna.settings.data import ImageKind
from fl_rsna.settings.partition import NOISE, TEST_SITE, UNANNOTATED, check_noise

ALL = "all"  # key of the settings of every training site; a site's own settings override them
PIXEL_SIZE = ("column_spacing_mm", "row_spacing_mm", "rows", "columns")  # columns of an index that a blur in mm needs


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteNoise:
    """The simulated errors of one site, none by default. `seed` is the cohort's.

    `labels` is the share of training slices whose labels are wrong. The scanner's errors apply to all parts of the site, at the prepared
    resolution: `hu_shift` is added in HU (calibration drift), `hu_noise` is the SD in HU of white Gaussian noise, and `blur` the SD in mm
    of a Gaussian point spread function. `unannotated` labels are unknown for all slices of the site.
    """

    labels: float = 0.0
    hu_shift: float = 0.0
    hu_noise: float = 0.0
    blur: float = 0.0
    seed: int = 0
    unannotated: tuple[str, ...] = field(
        default=(), repr=False
    )  # left out of the name of a pack, which holds only pixels

    @property
    def of_labels(self) -> bool:
        """Say whether the site trains on other labels than those of its index."""
        return self.labels > 0 or bool(self.unannotated)

    @property
    def of_scanner(self) -> bool:
        """Say whether the site sees other pixels than those of its images."""
        return any((self.hu_shift, self.hu_noise, self.blur))

    @property
    def any(self) -> bool:
        """Say whether the site has any simulated error."""
        return self.of_scanner or self.of_labels


def noise_of_sites(asked: Mapping[str, Any], sites: Sequence[str], image: ImageKind, seed: int) -> dict[str, SiteNoise]:
    """Collect the simulated errors of those `sites` that have any.

    Raises ValueError for an unknown site, and for a scanner's errors on images that hold no HU.
    """
    check_noise(asked)
    unknown = [site for site in asked if site not in (*sites, ALL)]
    if unknown:
        known = ", ".join(sites[:10]) + (", ..." if len(sites) > 10 else "")
        raise ValueError(f"{NOISE}.{unknown[0]}: no such site; expected {ALL} or one of {known}")
    found = {}
    for site in sites:
        said = {**(asked.get(ALL, {}) if site != TEST_SITE else {}), **asked.get(site, {})}
        lacks = tuple(said.pop(UNANNOTATED, ()))
        noise = SiteNoise(**{name: float(value) for name, value in said.items()}, unannotated=lacks, seed=seed)
        if noise.of_scanner and image is not ImageKind.hu:
            raise ValueError(
                f"{NOISE}.{site}: expected labels alone with {image} images, which hold no HU to shift, got "
                f"{', '.join(name for name in said if name != 'labels')}; prepare the data with data.image=hu"
            )
        if noise.any:
            found[site] = noise
    return found


def noise_record(noise: Mapping[str, SiteNoise], tables: Mapping[str, pd.DataFrame]) -> dict[str, dict[str, Any]]:
    """Build the record in cohort.json of each site with errors. Raises ValueError for blur of slices whose pixel spacing is unknown."""
    record = {}
    for site, settings in noise.items():
        table = tables[site]
        known = table[list(PIXEL_SIZE)].gt(0).all(axis=1) if {*PIXEL_SIZE} <= set(table) else table["image_id"].isna()
        if settings.blur and not known.all():
            raise ValueError(
                f"{NOISE}.{site}.blur: expected the pixel spacing of every slice, which blur in mm needs, but "
                f"{int((~known).sum())} of {len(table)} have none; leave it out"
            )
        # An empty `unannotated` is left out: the cohort's hash covers this record.
        plain = {**asdict(settings), UNANNOTATED: list(settings.unannotated)}
        record[site] = {name: value for name, value in plain.items() if name != UNANNOTATED or value}
    return record


def read_noise(facts: Mapping[str, Any]) -> SiteNoise:
    """Read the simulated errors of site.json; none without a record. Raises ValueError for values out of range."""
    recorded = facts.get("noise", {})
    said = {name: value for name, value in recorded.items() if name != "seed"}
    check_noise({facts["site"]: said}, "site.json noise", facts.get("labels", ()))
    return noise_from(recorded)


def noise_from(record: Mapping[str, Any]) -> SiteNoise:
    """Build the simulated errors from the record of one site."""
    return SiteNoise(**{**record, UNANNOTATED: tuple(record.get(UNANNOTATED, ()))})


def describe_noise(noise: Mapping[str, Any]) -> str:
    """Describe a record of errors: `20% of training labels wrong, +15 HU, noise of 10 HU, blur of 1 mm, no label epidural`."""
    words = {
        "labels": "{:.3g}% of training labels wrong",
        "hu_shift": "{:+g} HU",
        "hu_noise": "noise of {:g} HU",
        "blur": "blur of {:g} mm",
    }
    shown = {**noise, "labels": 100 * noise.get("labels", 0)}
    lacks = [f"no label {', '.join(noise[UNANNOTATED])}"] if noise.get(UNANNOTATED) else []
    return ", ".join([*(text.format(shown[name]) for name, text in words.items() if shown.get(name)), *lacks])
