"""What the words of two stages may say together."""

from fl_rsna.choices import Baseline, Stage
from fl_rsna.config import Config
from fl_rsna.task import LabelKind, named_task


def check_stage(config: Config) -> None:
    """Refuse a second stage on nothing, an encoder that nobody asks, and what has no second stage."""
    encoder, stage = config.sequence.encoder, config.stage
    if stage is Stage.sequence and not encoder:
        raise ValueError(
            "sequence.encoder: expected a run or model file for stage=sequence, got nothing; "
            "say sequence.encoder=runs/<name>, or stage=both"
        )
    if stage is not Stage.sequence and encoder:
        raise ValueError(
            f"sequence.encoder: expected nothing with stage={stage}, got {encoder}; say stage=sequence or leave it out"
        )
    if stage is Stage.sequence and config.start is not None:
        raise ValueError(
            f"start: expected nothing with stage=sequence, whose head begins as its slice model, got {config.start}; leave it out"
        )
    if config.start is not None and (stage is Stage.stacking or config.stacking.left_out is not None):
        asked = "stage=stacking" if stage is Stage.stacking else "stacking.left_out"
        raise ValueError(
            f"start: expected nothing with {asked}, whose model may have seen no patient of the fold it leaves out, "
            f"got {config.start}; leave it out"
        )
    if stage is not Stage.slice and config.baseline not in (Baseline.none, Baseline.central):
        raise ValueError(
            f"baseline: expected none or central with stage={stage}, got {config.baseline}; every site alone has no second stage"
        )
    if stage in (Stage.sequence, Stage.both) and named_task(config.data.task).kind is not LabelKind.multi_label:
        raise ValueError(f"stage: expected slice for classes, got {stage}: blends are chosen label by label")
