"""Score models on the held-out test site: once a round for the curve and once at the end; no choice depends on it."""

import math

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fl_rsna.common.seeds import derive_seed
from fl_rsna.federation.protocol.messages import Instructions
from fl_rsna.federation.site.stage_data import StageData, build_stage_data, new_network
from fl_rsna.learning.data.dataset import SiteData
from fl_rsna.learning.inference.predict import prediction_table
from fl_rsna.learning.metrics.classification import compare_macro_aurocs, macro_auroc
from fl_rsna.learning.metrics.controls import Control, control_scores
from fl_rsna.learning.metrics.figures import EstimateFigures
from fl_rsna.learning.metrics.metrics import auroc_with_interval, aurocs, compare_aurocs, log_loss
from fl_rsna.learning.metrics.operating_points import OperatingPoints
from fl_rsna.learning.metrics.scorecard import AreaFigures, HeldOutFigures, scorecard
from fl_rsna.learning.models.flat import FlatModel, unflatten
from fl_rsna.settings.partition import TEST_SITE
from fl_rsna.task import MACRO, LabelKind, Task


class HeldOut:
    """The test site's slices and a network to score models with."""

    def __init__(
        self, data: SiteData, task: Task, instructions: Instructions, stage_data: StageData | None = None
    ) -> None:
        """Take the test slices of the site's data. Raises ValueError in the second stage when the encoder's features are missing."""
        self.data, self.task = data, task
        self.rows = data.rows("test")
        self.labels = data.labels[self.rows]
        self._stage_data = stage_data or build_stage_data(data, task, instructions)
        self._network = new_network(instructions, task, data.image)  # its weights are overwritten by every model scored

    @property
    def slices(self) -> pd.DataFrame:
        """Return the index of the test slices."""
        return self.data.index.iloc[self.rows].reset_index(drop=True)

    def probabilities(self, flat: FlatModel) -> NDArray[np.float32]:
        """Predict the test slices: probabilities [N, L] in the order of the site's index."""
        unflatten(flat, self._network)
        return self._stage_data.predict(self._network, self.rows)

    def curve_point(self, flat: FlatModel) -> dict[str, float | None]:
        """Score a model for one row of rounds.csv: log loss, and AUROC by label, None where all labels are equal."""
        return self.point(self.probabilities(flat))

    def point(self, found: NDArray[np.float32]) -> dict[str, float | None]:
        """Score probabilities [N, L] for one row of rounds.csv: log loss, and AUROC by label, None where all labels are equal."""
        areas = aurocs(self.labels, found, self.task).items()
        return {
            "test_loss": log_loss(self.labels, found, self.task),
            **{f"test_auroc_{name}": area for name, area in areas},
        }

    def scores(
        self,
        found: NDArray[np.float32],
        controls: dict[Control, NDArray[np.int64]],
        seed: int,
        points: OperatingPoints | None,
    ) -> HeldOutFigures:
        """Make the scorecard of probabilities `found` [N, L] at `points`, in one set of draws of patients.

        The controls' AUROCs, and the model's minus theirs, are estimated in the same draws.
        """
        table = self.data.index.iloc[self.rows]
        patients, drawn = table[self.task.group_key].to_numpy(), derive_seed(seed, "bootstrap", TEST_SITE)
        exams = table[self.task.exam_key].to_numpy()
        card = scorecard(self.labels, found, patients, exams, task=self.task, settings=points, seed=drawn)

        def areas(scores: NDArray[np.float32]) -> dict[str, AreaFigures]:
            found = {
                label: auroc_with_interval(self.labels[:, i], scores[:, i], patients, seed=drawn)
                for i, label in enumerate(self.task.labels)
            }
            if self.task.kind is LabelKind.multi_class:
                found[MACRO] = macro_auroc(self.labels, scores, patients, seed=drawn)
            return {label: {"auroc": area.to_json()} for label, area in found.items()}

        def difference(scores: NDArray[np.float32]) -> EstimateFigures:
            if self.task.kind is LabelKind.multi_class:
                compared = compare_macro_aurocs(self.labels, found, [scores], patients, seed=drawn)
            else:
                at = self.task.labels.index(self.task.headline)
                compared = compare_aurocs(self.labels[:, at], found[:, at], [scores[:, at]], patients, seed=drawn)
            return compared.difference.to_json()

        alone = {control.value: control_scores(counted, table, control) for control, counted in controls.items()}
        loss = card["log_loss"]["value"]
        return {
            **card,
            "log_loss": math.nan if loss is None else loss,
            "log_loss_interval": card["log_loss"],
            "controls": {control: areas(scores) for control, scores in alone.items()},
            "minus_controls": {control: difference(scores) for control, scores in alone.items()},
        }

    def predictions(self, found: NDArray[np.float32]) -> pd.DataFrame:
        """Make the table of predictions, one row for each test slice."""
        return prediction_table(self.data, self.rows, found, self.task)
