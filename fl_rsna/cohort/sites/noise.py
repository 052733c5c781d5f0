"""A site made worse on purpose: training labels are wrong or were never given, and its scanner drifts, is noisy or blurs.

These are settings of a site, recorded beside its data in site.json and applied when the site opens it
(learning/data/site_noise.py). index.csv and the images stay true: a cohort without the setting is the same cohort without noise.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import pandas as pd

from fl_rsna.settings.data import ImageKind
from fl_rsna.settings.partition import NOISE, TEST_SITE, UNANNOTATED, check_noise

ALL = "all"  # every training site; what a site's own entry says counts before it
PIXEL_SIZE = ("column_spacing_mm", "row_spacing_mm", "rows", "columns")  # columns of an index that tell it


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteNoise:
    """What is wrong at one site; nothing by default. `seed` is the cohort's.

    `labels` is the share of training slices whose label row is wrong. The others are its scanner's, in all parts of the
    site, at the prepared resolution: `hu_shift` HU added (calibration drift), `hu_noise` SD in HU of white Gaussian
    noise, `blur` SD in mm of a Gaussian point spread function. `unannotated` labels are unknown of all its slices: nobody
    there looks for them.
    """

    labels: float = 0.0
    hu_shift: float = 0.0
    hu_noise: float = 0.0
    blur: float = 0.0
    seed: int = 0
    unannotated: tuple[str, ...] = field(default=(), repr=False)  # not in the name of a pack, which holds pixels

    @property
    def of_labels(self) -> bool:
        """Whether the site believes other labels than its index holds."""
        return self.labels > 0 or bool(self.unannotated)

    @property
    def of_scanner(self) -> bool:
        """Whether the site sees other pixels than its images hold."""
        return any((self.hu_shift, self.hu_noise, self.blur))

    @property
    def any(self) -> bool:
        return self.of_scanner or self.of_labels


def noise_of_sites(asked: Mapping[str, Any], sites: Sequence[str], image: ImageKind, seed: int) -> dict[str, SiteNoise]:
    """The noise of every one of `sites` that has any; raises ValueError for an unknown site and for 8-bit images."""
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
    """What cohort.json says of each noisy site; raises ValueError for blur, in mm, of slices whose pixels have no known size."""
    for site, settings in noise.items():
        table = tables[site]
        known = table[list(PIXEL_SIZE)].gt(0).all(axis=1) if {*PIXEL_SIZE} <= set(table) else table["image_id"].isna()
        if settings.blur and not known.all():
            raise ValueError(
                f"{NOISE}.{site}.blur: expected the pixel spacing of every slice, which blur in mm needs, but "
                f"{int((~known).sum())} of {len(table)} have none; leave it out"
            )
    return {site: _to_json(settings) for site, settings in noise.items()}


def _to_json(noise: SiteNoise) -> dict[str, Any]:
    """As JSON has it; what is younger than the first cohorts only where it is used, so that their hashes stay."""
    found = {**asdict(noise), UNANNOTATED: list(noise.unannotated)}
    return {name: value for name, value in found.items() if name != UNANNOTATED or value}


def read_noise(facts: Mapping[str, Any]) -> SiteNoise:
    """The noise that site.json records; none without a record. Raises ValueError for one that cannot be."""
    recorded = facts.get("noise", {})
    said = {name: value for name, value in recorded.items() if name != "seed"}
    check_noise({facts["site"]: said}, "site.json noise", facts.get("labels", ()))
    return noise_from(recorded)


def noise_from(record: Mapping[str, Any]) -> SiteNoise:
    """The noise of one site's record."""
    return SiteNoise(**{**record, UNANNOTATED: tuple(record.get(UNANNOTATED, ()))})


def describe_noise(noise: Mapping[str, Any]) -> str:
    """A record of noise in words: `20% of training labels wrong, +15 HU, noise 10 HU, blur 1 mm, no label epidural`."""
    words = {
        "labels": "{:.3g}% of training labels wrong",
        "hu_shift": "{:+g} HU",
        "hu_noise": "noise of {:g} HU",
        "blur": "blur of {:g} mm",
    }
    shown = {**noise, "labels": 100 * noise.get("labels", 0)}
    lacks = [f"no label {', '.join(noise[UNANNOTATED])}"] if noise.get(UNANNOTATED) else []
    return ", ".join([*(text.format(shown[name]) for name, text in words.items() if shown.get(name)), *lacks])
