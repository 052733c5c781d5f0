"""Settings that mean something for Hounsfield slices, or for radiographs, only."""

from fl_rsna.choices import kinds_of
from fl_rsna.config import Config
from fl_rsna.task import Rendering, named_task

OF_SLICES = (  # settings, and what they are where there are neither series nor Hounsfield units
    ("model.neighbours", 0),
    ("train.smooth_z", 1),
    ("train.hu_shift", 0),
    ("train.hu_noise", 0),
)


def check_rendering(config: Config) -> None:
    """Raises ValueError with the key's path."""
    task = named_task(config.data.task)
    kinds = kinds_of(task.rendering)
    if config.data.image not in kinds:
        raise ValueError(
            f"data.image: expected {' or '.join(kinds)} for task {task.name}, got {config.data.image}; say task={task.name}, "
            "which chooses it"
        )
    match task.rendering:
        case Rendering.hounsfield:
            return
        case Rendering.radiograph:
            for key, off in OF_SLICES:
                group, name = key.split(".")
                if (asked := getattr(getattr(config, group), name)) != off:
                    raise ValueError(
                        f"{key}: expected {off} for task {task.name}, whose images are no slices, got {asked}"
                        + ("; say train.brightness and train.contrast" if key.startswith("train.hu_") else "")
                    )
