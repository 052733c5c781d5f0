"""What the folder of public keys says, before a SuperLink is asked; what one does with it is in test_superlink.py."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
    load_ssh_public_key,
)

from fl_rsna.deployment.coordinator import read_keys, sync_keys
from fl_rsna.deployment.keys.key_folder import CA, server_files, site_files, write_new


def test_keys_are_read_by_site(tmp_path: Path) -> None:
    for name in ("site-1", "St. Mary"):
        write_new(tmp_path, site_files(name))
    keys = read_keys(tmp_path / "authorized")
    assert sorted(keys) == ["St. Mary", "site-1"]
    for name, key in keys.items():
        line = (tmp_path / "authorized" / f"{name}.pub").read_bytes()
        assert load_pem_public_key(key) == load_ssh_public_key(line)


def test_no_keys_at_all_are_a_mistake(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(ValueError, match="public keys"):
            read_keys(folder)


def test_one_key_is_one_site(tmp_path: Path) -> None:
    write_new(tmp_path, site_files("site-1"))
    line = (tmp_path / "authorized/site-1.pub").read_bytes().split()
    (tmp_path / "authorized/site-2.pub").write_bytes(b" ".join([*line[:2], b"another-comment"]))
    with pytest.raises(ValueError, match=r"site-2.pub: expected a key of its own"):
        read_keys(tmp_path / "authorized")


def test_what_is_no_key_of_a_node_is_named(tmp_path: Path) -> None:
    other = ed25519.Ed25519PrivateKey.generate().public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    for content in (b"", b"hello", b"ecdsa-sha2-nistp384 AAAA x", b"\xff\xfe", other):
        (tmp_path / "site-1.pub").write_bytes(content)
        with pytest.raises(ValueError, match=r"site-1.pub: expected the public key"):
            read_keys(tmp_path)


def test_a_superlink_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    write_new(tmp_path, {**server_files(tmp_path, []), **site_files("site-1")})
    with pytest.raises(ValueError, match=r"127\.0\.0\.1:1: expected a SuperLink"):
        sync_keys("127.0.0.1:1", tmp_path / CA, tmp_path / "authorized")
    with pytest.raises(ValueError, match="expected a SuperLink"):
        sync_keys("127.0.0.1:1", tmp_path / "no.crt", tmp_path / "authorized")
    (tmp_path / CA).write_text("no certificate")
    with pytest.raises(ValueError, match="expected a SuperLink"):
        sync_keys("127.0.0.1:1", tmp_path / CA, tmp_path / "authorized")
