"""Before the rounds of the second stage: every site has features under the frozen encoder, or gets it once and makes them."""

import math
from collections.abc import Callable
from dataclasses import replace

from flwr.app import Message, RecordDict

from fl_rsna.federation.encoder import Encoder
from fl_rsna.federation.messages import CONFIG, ENCODE, FEATURES, Instructions, instruct, num_bytes
from fl_rsna.federation.progress import Progress
from fl_rsna.federation.records import recorder
from fl_rsna.federation.replies import BelowQuorum, SiteReply, address, read_evaluations
from fl_rsna.federation.rollcall import Site
from fl_rsna.federation.setting import Setting
from fl_rsna.federation.site_encoding import THERE


def with_features(setting: Setting, progress: Progress) -> Setting:
    """The setting with those sites that have features now; one that failed is a named event. Counts bytes and failures.

    In the first stage the setting as it is. Raises BelowQuorum when fewer than strategy.quorum of the sites have any.
    """
    encoder = setting.encoder
    if encoder is None:
        return setting
    told = replace(setting.told, run_id=progress.run_id)
    content = RecordDict({CONFIG: instruct(told)})
    messages = [Message(content, site.node_id, FEATURES, group_id="0") for site in setting.sites]
    write = recorder(setting.run, "features", 0)
    asked = read_evaluations(
        setting.sites, setting.deliver(messages), bytes_down=num_bytes(content), on_reply=_failures_only(write)
    )
    lacking = [site for site, reply in zip(setting.sites, asked, strict=True) if reply.metrics.get(THERE) == 0.0]
    made = _encode(setting, encoder, lacking, told) if lacking else []
    failed = {reply.site for reply in [*asked, *made] if reply.error}
    progress.bytes_down += sum(reply.bytes_down for reply in [*asked, *made])
    progress.bytes_up += sum(reply.bytes_up for reply in [*asked, *made])
    progress.failures += len(failed)
    here = [site for site in setting.sites if site.name not in failed]
    needed = math.ceil(setting.config.strategy.quorum * len(setting.sites))
    if len(here) < max(1, needed):
        said = "; ".join(f"{reply.site}: {reply.error}" for reply in [*asked, *made] if reply.error)
        raise BelowQuorum(
            f"encoding: {len(here)} of {len(setting.sites)} sites have features, {needed} needed by strategy.quorum ({said})"
        )
    setting.run.event("encoded", sites=len(here), computed=len(lacking), encoder=encoder.told.encoder_id)
    return replace(setting, sites=here)


def _encode(setting: Setting, encoder: Encoder, sites: list[Site], told: Instructions) -> list[SiteReply]:
    """Send the encoder to these sites, in full precision: its hash is what their features are called by."""
    messages, down = address(sites, ENCODE, encoder.flat, instruct(told), 0)
    write = recorder(setting.run, "encoding", 0)
    return read_evaluations(sites, setting.deliver(messages), bytes_down=down, on_reply=write)


def _failures_only(write: Callable[[SiteReply], None]) -> Callable[[SiteReply], None]:
    return lambda reply: write(reply) if reply.error else None
