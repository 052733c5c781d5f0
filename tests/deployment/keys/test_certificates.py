"""Keys and certificates hold what they promise: to Flower's loader, to Python's TLS, and to the next person who types the command."""

import ipaddress
import ssl
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_ssh_private_key, load_ssh_public_key

from fl_rsna.deployment.keys.certificates import (
    as_name,
    certificate_pem,
    make_authority,
    make_server,
    new_key,
    private_pem,
    public_openssh,
)
from fl_rsna.deployment.keys.key_folder import (
    CA,
    CA_KEY,
    SERVER,
    SERVER_KEY,
    demo_files,
    describe_files,
    key_fingerprint,
    server_files,
    site_files,
    write_new,
)


def shake_hands(ca: bytes, certificate: bytes, key: bytes, host: str, folder: Path) -> None:
    """A TLS handshake in memory, client and server in turn; raises ssl.SSLError when the client does not trust the server."""
    (folder / "c.pem").write_bytes(certificate + key)
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.load_cert_chain(folder / "c.pem")
    client_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client_context.verify_flags |= ssl.VERIFY_X509_STRICT
    client_context.load_verify_locations(cadata=ca.decode())
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(down, up, server_hostname=host)
    server = server_context.wrap_bio(up, down, server_side=True)
    waiting = [client, server]
    for _ in range(6):
        for side in list(waiting):
            try:
                side.do_handshake()
                waiting.remove(side)
            except ssl.SSLWantReadError:
                pass
    assert not waiting


@pytest.mark.parametrize("host", ["superlink", "10.1.2.3", "localhost", "127.0.0.1", "::1"])
def test_a_client_with_the_ca_trusts_the_superlink_by_each_of_its_names(host: str, tmp_path: Path) -> None:
    files = server_files(tmp_path, ["superlink", "10.1.2.3"])
    shake_hands(files[CA], files[SERVER], files[SERVER_KEY], host, tmp_path)


@pytest.mark.parametrize("host", ["elsewhere", "10.1.2.4"])
def test_no_other_name_is_trusted(host: str, tmp_path: Path) -> None:
    files = server_files(tmp_path, ["superlink", "10.1.2.3"])
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(files[CA], files[SERVER], files[SERVER_KEY], host, tmp_path)


def test_another_authority_is_not_trusted(tmp_path: Path) -> None:
    files, others = server_files(tmp_path, []), server_files(tmp_path, [])
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(others[CA], files[SERVER], files[SERVER_KEY], "localhost", tmp_path)


def test_a_stolen_authority_can_sign_for_no_other_host(tmp_path: Path) -> None:
    """The name constraint holds in the client: the same authority's certificate for another host is refused."""
    narrow = make_authority("ours", ["superlink"])
    wide = make_authority("ours", ["superlink", "bank"])
    forged = make_server(type(narrow)(key=narrow.key, certificate=wide.certificate), "forged", ["bank"])
    with pytest.raises(ssl.SSLCertVerificationError, match="permitted subtree"):
        shake_hands(
            certificate_pem(narrow.certificate),
            certificate_pem(forged.certificate),
            private_pem(forged.key),
            "bank",
            tmp_path,
        )


def test_an_authority_signs_certificates_and_a_certificate_signs_none(tmp_path: Path) -> None:
    files = server_files(tmp_path, ["superlink"])
    ca, server = (x509.load_pem_x509_certificate(files[name]) for name in (CA, SERVER))
    for certificate, is_ca in ((ca, True), (server, False)):
        basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage)
        assert (basic.critical, usage.critical) == (True, True)
        assert (basic.value.ca, basic.value.path_length) == ((True, 0) if is_ca else (False, None))
        assert (usage.value.key_cert_sign, usage.value.digital_signature) == (is_ca, not is_ca)
    server.verify_directly_issued_by(ca)


def test_names_of_the_superlink(tmp_path: Path) -> None:
    server = x509.load_pem_x509_certificate(server_files(tmp_path, ["SuperLink", "10.1.2.3", "127.0.0.1"])[SERVER])
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["superlink", "localhost"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["10.1.2.3", "127.0.0.1", "::1"]


@pytest.mark.parametrize(("ca_days", "days", "lives"), [(1826, 397, 397), (10, 397, 10)])
def test_lifetimes_are_as_asked_and_a_certificate_ends_with_its_authority(
    ca_days: int, days: int, lives: int, tmp_path: Path
) -> None:
    files, now = server_files(tmp_path, [], ca_days, days), datetime.now(UTC)
    for name, expected in ((CA, ca_days), (SERVER, lives)):
        certificate = x509.load_pem_x509_certificate(files[name])
        assert abs(certificate.not_valid_after_utc - now - timedelta(days=expected)) < timedelta(minutes=5)
        assert certificate.not_valid_before_utc < now


def test_a_sites_keys_are_those_flower_loads_and_its_own_port_is_trusted(tmp_path: Path) -> None:
    files = site_files("site-1")
    key = load_ssh_private_key(files["sites/site-1/node.key"], None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert isinstance(key.curve, ec.SECP384R1)
    assert load_ssh_public_key(files["authorized/site-1.pub"]) == key.public_key()
    ca, certificate, private = (files[f"sites/site-1/runtime{end}"] for end in ("-ca.crt", ".crt", ".key"))
    shake_hands(ca, certificate, private, "127.0.0.1", tmp_path)


def test_every_private_key_is_another_one(tmp_path: Path) -> None:
    files = demo_files(tmp_path, ["superlink"], ["site-1", "site-2"])
    keys = [
        (load_ssh_private_key if name.endswith("node.key") else load_pem_private_key)(content, None)
        for name, content in files.items()
        if name.endswith(".key")
    ]
    assert len({key.private_numbers().private_value for key in keys}) == 6  # type: ignore[union-attr]


def test_private_keys_are_their_owners_alone(tmp_path: Path) -> None:
    write_new(tmp_path, demo_files(tmp_path, ["superlink"], ["site-1"]))
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*") if path.is_file()}
    assert {name for name in modes if name.endswith(".key")} == {"ca.key", "server.key", "node.key", "runtime.key"}
    assert {mode for name, mode in modes.items() if name.endswith(".key")} == {0o600}
    assert (tmp_path / "sites/site-1/ca.crt").read_bytes() == (tmp_path / CA).read_bytes()


def test_what_is_there_stays_and_nothing_new_is_left(tmp_path: Path) -> None:
    write_new(tmp_path, site_files("site-1"))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match="never overwritten"):
        write_new(tmp_path, {**site_files("site-2"), **site_files("site-1")})
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_new_server_certificate_comes_from_the_same_authority(tmp_path: Path) -> None:
    write_new(tmp_path, server_files(tmp_path, ["superlink"]))
    ca = (tmp_path / CA).read_bytes()
    with pytest.raises(ValueError, match="never overwritten"):
        write_new(tmp_path, server_files(tmp_path, ["superlink"]))
    (tmp_path / SERVER_KEY).unlink()
    (tmp_path / SERVER).unlink()
    renewed = server_files(tmp_path, ["superlink"])
    assert set(renewed) == {SERVER_KEY, SERVER}
    shake_hands(ca, renewed[SERVER], renewed[SERVER_KEY], "superlink", tmp_path)


def test_an_authority_is_used_whole_and_for_its_own_hosts(tmp_path: Path) -> None:
    write_new(tmp_path, server_files(tmp_path, ["superlink"]))
    with pytest.raises(ValueError, match=r"--host elsewhere: expected one the authority was made with, superlink"):
        server_files(tmp_path, ["elsewhere"])
    (tmp_path / CA_KEY).write_bytes(private_pem(new_key()))
    with pytest.raises(ValueError, match="do not belong together"):
        server_files(tmp_path, ["superlink"])
    (tmp_path / CA_KEY).unlink()
    with pytest.raises(ValueError, match="bring it back"):
        server_files(tmp_path, ["superlink"])


@pytest.mark.parametrize("host", ["*.example.org", "host:9092", "", "a b", "1.2.3", "http://x", "-x"])
def test_what_is_no_host_is_refused(host: str) -> None:
    with pytest.raises(ValueError, match="expected a DNS name or an IP address"):
        as_name(host)


def test_hosts_are_addresses_or_lower_case_names() -> None:
    assert as_name("2001:DB8::1") == x509.IPAddress(ipaddress.ip_address("2001:db8::1"))
    assert as_name("SuperLink.Example.org") == x509.DNSName("superlink.example.org")


@pytest.mark.parametrize("name", ["../x", "", "a/b", ".", "x" * 61])
def test_what_is_no_sites_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="--name"):
        site_files(name)


def test_the_coordinators_and_the_sites_fingerprint_agree_by_the_key_alone() -> None:
    key = new_key()
    prints = {key_fingerprint(public_openssh(key, comment)) for comment in ("site-1", "x y")}
    assert len(prints) == 1
    assert key_fingerprint(public_openssh(new_key(), "site-1")) not in prints


def test_what_is_told_names_each_file_and_what_travels(tmp_path: Path) -> None:
    lines = describe_files(tmp_path, site_files("site-1"))
    assert len(lines) == 5
    assert [line.split()[0] for line in lines if " travels " in line] == [str(tmp_path / "authorized/site-1.pub")]
