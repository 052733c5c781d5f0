"""The held-out test site: scored once a round for the curve and once at the end, never asked for a choice."""

from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fl_rsna.config import ModelConfig, TrainConfig
from fl_rsna.learning.controls import Control, control_scores
from fl_rsna.learning.dataset import SiteData
from fl_rsna.learning.flat import FlatModel, unflatten
from fl_rsna.learning.metrics import auroc, auroc_with_interval, average_precision, log_loss
from fl_rsna.learning.model import build_model
from fl_rsna.learning.seeds import derive_seed
from fl_rsna.learning.train import EVALUATION_BATCH, choose_device, predict
from fl_rsna.task import Task


class HeldOut:
    """The test site's slices and a network to score models with."""

    def __init__(self, data: SiteData, task: Task, model: ModelConfig, train: TrainConfig) -> None:
        self.data, self.task = data, task
        self._rows = data.rows("test")
        self._labels = data.labels[self._rows]
        self._network = build_model(
            model, task, data.image, seed=0
        )  # its weights are overwritten by every model scored
        self._device = choose_device(train.device)

    def probabilities(self, flat: FlatModel) -> NDArray[np.float32]:
        """[N, L] of the test slices, in the order of the site's index."""
        unflatten(flat, self._network)
        return predict(
            self._network, self.data, self._rows, task=self.task, batch_size=EVALUATION_BATCH, device=self._device
        )

    def curve_point(self, flat: FlatModel) -> dict[str, float | None]:
        """Log loss and AUROC a label, as one round's row has them; None where a label has one class only."""
        found = self.probabilities(flat)
        areas = {
            f"test_auroc_{label}": auroc(self._labels[:, i], found[:, i]) for i, label in enumerate(self.task.labels)
        }
        return {"test_loss": log_loss(self._labels, found, self.task), **areas}

    def scores(
        self, found: NDArray[np.float32], controls: dict[Control, NDArray[np.int64]], seed: int
    ) -> dict[str, Any]:
        """Final numbers: AUROC with patient-bootstrap intervals and average precision a label, and the controls' AUROC."""
        table = self.data.index.iloc[self._rows]
        patients = table[self.task.group_key].to_numpy()
        control_found = {control: control_scores(counted, table, control) for control, counted in controls.items()}

        def area(scores: NDArray[np.float32], label: int) -> dict[str, Any]:
            drawn = derive_seed(
                seed, "bootstrap", self.task.labels[label]
            )  # one draw of patients for model and controls
            return asdict(auroc_with_interval(self._labels[:, label], scores[:, label], patients, seed=drawn))

        return {
            "slices": len(table),
            "patients": len(np.unique(patients)),
            "log_loss": log_loss(self._labels, found, self.task),
            "slice": {
                label: {
                    "auroc": area(found, i),
                    "average_precision": average_precision(self._labels[:, i], found[:, i]),
                }
                for i, label in enumerate(self.task.labels)
            },
            "controls": {
                control.value: {label: {"auroc": area(scores, i)} for i, label in enumerate(self.task.labels)}
                for control, scores in control_found.items()
            },
        }

    def predictions(self, found: NDArray[np.float32]) -> pd.DataFrame:
        """One row a test slice: ids, labels as `label_<name>`, probabilities as `probability_<name>`."""
        table = self.data.index.iloc[self._rows][
            ["image_id", "patient_id", "study_id", "series_id", "rank"]
        ].reset_index(drop=True)
        labels = {f"label_{name}": self._labels[:, i].astype(np.int8) for i, name in enumerate(self.task.labels)}
        return table.assign(**labels, **{f"probability_{name}": found[:, i] for i, name in enumerate(self.task.labels)})
