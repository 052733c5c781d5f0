"""One line a message in a deployed site's log: what was done here, in words for who looks after the site."""

import json
from collections.abc import Mapping
from pathlib import Path

from flwr.app import Message, MessageType, MetricRecord

from fl_rsna.federation.messages import METRICS, failure_of, phase_of


def line_of(message: Message, reply: Message, site: str) -> str:
    """What became of a message at `site`, e.g. `site-1  round 2  trained on 245 images in 7.5 s, loss 0.226`."""
    said = phase_of(message)
    round_, phase = said["round"], str(said["phase"])
    where = f"{site}  round {round_}  " if round_ else f"{site}  "
    failed = failure_of(reply)
    if failed is not None:
        return f"{where}{phase} failed: {failed[0]}"
    metrics = reply.content.get(METRICS)
    return where + _done(phase, metrics if isinstance(metrics, MetricRecord) else {})


def _done(phase: str, found: Mapping[str, object]) -> str:
    images, loss, seconds = found.get("num-examples"), found.get("loss"), found.get("seconds")
    of = f" {images} images" if images is not None else ""
    taken = f" in {seconds:.1f} s" if isinstance(seconds, float) else ""
    said = f", loss {loss:.3f}" if isinstance(loss, float) else ""
    match phase:
        case MessageType.TRAIN:
            return f"trained on{of}{taken}{said}"
        case "validation":
            return f"validated on{of}{said}"
        case "roll call":
            return "answered the roll call"
        case "operating points":
            return f"counted for the operating points on{of}"
    return f"{phase} of{of} made"


def site_name(folder: Path) -> str:
    """What a site folder calls its site; the folder's own name where it does not say."""
    return stated_name(folder) or folder.name


def stated_name(folder: Path) -> str:
    """What a site folder calls its site; nothing where it does not say."""
    try:
        return str(json.loads((folder / "site.json").read_text())["site"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
