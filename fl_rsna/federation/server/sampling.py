"""Sample the sites of a round."""

import numpy as np

from fl_rsna.common.seeds import derive_seed
from fl_rsna.federation.server.roll_call import Site
from fl_rsna.settings.strategy import StrategyConfig


def sample_sites(sites: list[Site], config: StrategyConfig, seed: int, round_: int) -> list[Site]:
    """Sample round(fraction * n) of n sites, at least `min_sites`, by seed and round; they keep their order."""
    count = compute_sample_size(len(sites), config)
    chosen = np.random.default_rng(derive_seed(seed, "sample", round_)).choice(len(sites), count, replace=False)
    return [sites[i] for i in sorted(chosen)]


def compute_sample_size(sites: int, config: StrategyConfig) -> int:
    """Compute how many of `sites` sites take part in a round."""
    return min(sites, max(1, config.min_sites, round(config.fraction * sites)))
