"""Make the files in the folder of keys, and say which belong to the SuperLink, which to a site, and which of them travel.

ca.key                         the coordinator's authority; kept offline, needed again only for a new server certificate
superlink/                     ca.crt, server.crt, server.key
sites/<site>/                  node.key, runtime.crt, runtime.key, runtime-ca.crt, and the SuperLink's ca.crt
authorized/<site>.pub          the one file a site sends to the coordinator
"""

import base64
import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from fl_rsna.common.ownership import drop
from fl_rsna.deployment.keys.certificates import (
    CA_DAYS,
    LEAF_DAYS,
    Identity,
    as_name,
    certificate_pem,
    load_authority,
    make_authority,
    make_server,
    new_key,
    private_openssh,
    private_pem,
    public_openssh,
)
from fl_rsna.settings.partition import SITE_NAME

Files = dict[str, bytes]  # path below the folder -> content
CA_KEY, CA = "ca.key", "superlink/ca.crt"
SERVER_KEY, SERVER = "superlink/server.key", "superlink/server.crt"


def server_files(folder: Path, hosts: Sequence[str], ca_days: int = CA_DAYS, days: int = LEAF_DAYS) -> Files:
    """Make the SuperLink's files, and an authority's unless `folder` has one.

    Raises ValueError for a host that cannot be certified, and for an authority that cannot be read.
    """
    known = _authority(folder)
    authority = known or make_authority("fl_rsna federation", [str(as_name(host).value) for host in hosts], ca_days)
    server = make_server(authority, "fl_rsna SuperLink", hosts, days)
    own = {SERVER_KEY: private_pem(server.key), SERVER: certificate_pem(server.certificate)}
    if known:
        return own
    return {CA_KEY: private_pem(authority.key), CA: certificate_pem(authority.certificate), **own}


def site_files(name: str, days: int = LEAF_DAYS) -> Files:
    """Make the files of a site, with no key but its own. Raises ValueError for a name that cannot be a site's."""
    if not SITE_NAME.fullmatch(name):
        raise ValueError(
            f"--name: expected letters, digits, blanks, dots and dashes, 60 at most, as in site-1, got {name!r}"
        )
    node, authority = new_key(), make_authority("fl_rsna SuperNode, for itself", [], days)
    runtime = make_server(authority, "fl_rsna SuperNode", [], days)
    return {
        f"sites/{name}/node.key": private_openssh(node),
        f"sites/{name}/runtime.key": private_pem(runtime.key),
        f"sites/{name}/runtime.crt": certificate_pem(runtime.certificate),
        f"sites/{name}/runtime-ca.crt": certificate_pem(authority.certificate),
        f"authorized/{name}.pub": public_openssh(node, name),
    }


def demo_files(
    folder: Path, hosts: Sequence[str], sites: Sequence[str], ca_days: int = CA_DAYS, days: int = LEAF_DAYS
) -> Files:
    """Make the files of a whole federation on one machine; each site has its copy of ca.crt."""
    if len({site.lower() for site in sites}) < len(sites):
        raise ValueError(f"--sites: expected each name once, got {' '.join(sites)}")
    files = server_files(folder, hosts, ca_days, days)
    ca = files[CA] if CA in files else (folder / CA).read_bytes()
    for site in sites:
        files |= {**site_files(site, days), f"sites/{site}/ca.crt": ca}
    return files


def write_new(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write all files; raises ValueError, with nothing written, where one exists. Only their owner can read private keys, at any time."""
    for name in files:
        if os.path.lexists(folder / name):
            raise ValueError(
                f"{folder / name}: expected no such file; keys are never overwritten, move it away to have a new one"
            )
    written: list[Path] = []
    try:
        for name, content in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if private(name) else 0o644)
            written.append(path)
            with open(descriptor, "wb") as stream:
                stream.write(content)
    except BaseException:
        for path in written:
            drop(path)
        raise


def private(name: str) -> bool:
    """Check whether a file of this name holds a private key."""
    return PurePosixPath(name).suffix == ".key"


def describe_files(folder: Path, files: Mapping[str, bytes]) -> list[str]:
    """Write a line a file that says whether it must stay where it is or travels."""
    width = max(len(str(folder / name)) for name in files)
    return [f"{folder / name!s:<{width}}  {_advice(name, content)}" for name, content in sorted(files.items())]


def _advice(name: str, content: bytes) -> str:
    path = PurePosixPath(name)
    if name == CA_KEY:
        return "stays; keep it offline: anyone who has it can pose as the SuperLink"
    if private(name):
        owner = "the SuperLink's machine" if name == SERVER_KEY else "the site, in this folder"
        return f"stays at {owner}; readable by you alone"
    if path.suffix == ".pub":
        return f"travels to the coordinator, who asks you for {key_fingerprint(content)}"
    if name == CA:
        return "travels to every site, to lie beside its node.key as ca.crt"
    return "public, stays beside its key"


def key_fingerprint(line: bytes) -> str:
    """Compute the fingerprint of a public key in OpenSSH's format, as `ssh-keygen -l` shows it."""
    digest = hashlib.sha256(base64.b64decode(line.split()[1])).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def _authority(folder: Path) -> Identity | None:
    """Read the authority in the folder; None where there is neither key nor certificate. Raises ValueError."""
    key, certificate = folder / CA_KEY, folder / CA
    if not key.exists() and not certificate.exists():
        return None
    missing = [str(path) for path in (key, certificate) if not path.exists()]
    if missing:
        raise ValueError(
            f"{missing[0]}: expected it beside the rest of the authority; bring it back, or use a new folder"
        )
    try:
        return load_authority(key.read_bytes(), certificate.read_bytes())
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{key}: expected the key of {certificate}, got {error}; bring it back, or use a new folder"
        ) from None
