"""The card that goes with an exported model: what it is, what it was made of, how good it is, and what it is not for.

After Mitchell et al. 2019, Model Cards for Model Reporting (arXiv:1810.03993). What a run did not write down, such as
everything when there is only a model file, is said to be unknown.
"""

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from fl_rsna.imaging.windows import WINDOWS_HU
from fl_rsna.learning.crop import TRUTH_SHOWN
from fl_rsna.learning.onnx_file import slices_of, windows_hu
from fl_rsna.learning.saved import SavedModel
from fl_rsna.reporting.class_scores import FIGURES, class_levels
from fl_rsna.reporting.event_log import EVENTS, read_events
from fl_rsna.reporting.tables import control_of, interval, is_roll_call, shown_counts
from fl_rsna.reporting.task_words import area_name, task_words
from fl_rsna.using.trained import Trained


def model_card(trained: Trained, check: dict[str, Any]) -> str:
    """Markdown about an exported model; `check` is what export found of it."""
    environment = Environment(
        loader=PackageLoader("fl_rsna.reporting"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"interval": interval, "three": lambda value: f"{value:.3f}"}
    saved = trained.saved
    assert isinstance(saved, SavedModel), "only a model of single slices is exported"
    return environment.get_template("model_card.md.j2").render(
        saved=saved,
        model=saved.config,
        check=check,
        config=trained.config,
        manifest=trained.manifest,
        summary=trained.summary,
        test=trained.summary.get("test_site"),
        sites=shown_counts(_sites(trained), (trained.config.get("privacy") or {}).get("min_count", 0)),
        words=task_words(saved.task),
        classes=class_levels(trained.summary.get("test_site"), saved.task),
        figures=FIGURES,
        quoted=area_name(saved.task.quoted),
        controls=control_of(trained.summary.get("test_site") or {}, saved.task.quoted),
        points=trained.operating_points.get("slice", {}),
        temperatures=trained.operating_points.get("temperatures", {}),
        fallback=trained.fallback,
        stored=trained.stored_size,
        network=saved.config.backbone or saved.config.name.value,
        slices=slices_of(saved),
        windows=", ".join(f"{centre:.4g}/{width:.4g}" for centre, width in windows_hu(saved) or WINDOWS_HU),
        truth_shown=TRUTH_SHOWN if saved.config.crop.shows_truth else "",
        hu=saved.image.value == "hu",
        grey=saved.image.value == "grey",
    )


def _sites(trained: Trained) -> dict[str, Any]:
    """Site -> part -> patients, slices and positives a label, as the run's roll call wrote them down."""
    if trained.run is None:
        return {}
    roll = (event for event in read_events(trained.run / EVENTS) if is_roll_call(event))
    return next((dict(event["sites"]) for event in roll), {})
