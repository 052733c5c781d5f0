"""Which nodes a SuperLink admits: those whose public keys lie in the coordinator's folder.

A key that was unregistered is refused for good (Flower keeps it on record), so a site that comes back makes a new one.
"""

from collections.abc import Mapping
from pathlib import Path

import httpx
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_public_key

from fl_rsna.deployment.flower_internals import UNREGISTERED, Node, as_flower_writes, control
from fl_rsna.deployment.keys.key_folder import key_fingerprint


def sync_keys(superlink: str, ca: Path, folder: Path) -> list[str]:
    """Register what is in the folder, unregister what is gone from it; a sentence a change.

    `superlink` is `host:port` of this machine, `ca` the authority of its certificate. Raises ValueError, with nothing changed, when the
    folder's keys cannot be read or a key was unregistered before, and when the SuperLink cannot be asked.
    """
    keys = read_keys(folder)
    try:
        with control(superlink, ca.read_bytes()) as api:
            known = {node.public_key: node for node in api.nodes()}
            _check_none_is_back(keys, known, folder)
            new = {name: key for name, key in keys.items() if key not in known}
            gone = [
                node for node in known.values() if node.status != UNREGISTERED and node.public_key not in keys.values()
            ]
            for node in gone:
                api.unregister(node.node_id)
            for name, key in new.items():
                api.register(name, key)
    except httpx.HTTPStatusError as error:
        raise ValueError(f"{superlink}: {_refusal(error.response)}") from None
    except (httpx.HTTPError, OSError) as error:
        raise ValueError(
            f"{superlink}: expected a SuperLink whose certificate {ca} vouches for, got {error}; start it, or name it as its certificate does"
        ) from None
    prints = {name: key_fingerprint((folder / f"{name}.pub").read_bytes()) for name in new}
    return [
        *(
            f"unregistered {node.name or node.node_id}: its key is no longer in {folder}, and cannot come back"
            for node in gone
        ),
        *(f"registered {name}: {prints[name]}" for name in new),
    ]


def read_keys(folder: Path) -> dict[str, bytes]:
    """The public keys of `<folder>/<site>.pub` by site. Raises ValueError for none, for two that are the same, and for an unreadable one."""
    paths = sorted(folder.glob("*.pub"))
    if not paths:
        raise ValueError(
            f"{folder}: expected the sites' public keys, <site>.pub, got none; collect them, or stop the SuperLink to close the federation"
        )
    keys: dict[str, bytes] = {}
    for path in paths:
        key = _read_key(path)
        if key in keys.values():
            raise ValueError(f"{path}: expected a key of its own, got that of another site; have the site send its own")
        keys[path.stem] = key
    return keys


def _read_key(path: Path) -> bytes:
    try:
        key = load_ssh_public_key(path.read_bytes())
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise ValueError(
            f"{path}: expected the public key scripts/make_certificates.py makes at a site, got something else; have it sent again"
        )
    return as_flower_writes(key)


def _check_none_is_back(keys: Mapping[str, bytes], known: Mapping[bytes, Node], folder: Path) -> None:
    for name, key in keys.items():
        if key in known and known[key].status == UNREGISTERED:
            raise ValueError(
                f"{folder / name}.pub: expected a new key, got one that was unregistered before, which is refused for good; "
                "have the site make another, or take the file away"
            )


def _refusal(response: httpx.Response) -> str:
    if response.status_code == 403:
        return (
            "expected the SuperLink of this machine, got one that refuses; run the coordinator beside it, at 127.0.0.1"
        )
    return f"expected an answer of a SuperLink, got HTTP {response.status_code}: {response.text[:200]!r}"
