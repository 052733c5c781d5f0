"""A server's three files are looked at before anything listens, and each fault is one sentence that names the file."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from fl_rsna.deployment.keys import certificates
from fl_rsna.deployment.keys.certificates import (
    ServerFiles,
    certificate_pem,
    make_authority,
    new_key,
    private_pem,
    server_files,
)
from fl_rsna.deployment.keys.key_folder import server_files as made
from fl_rsna.deployment.keys.key_folder import write_new


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_new(tmp_path, made(tmp_path, ["superlink"]))
    return tmp_path / "superlink"


def read(folder: Path) -> ServerFiles:
    return server_files(folder / "ca.crt", folder / "server.crt", folder / "server.key")


def test_good_files_tell_whose_they_are_and_until_when(folder: Path) -> None:
    files = read(folder)
    assert (files.subject, files.hosts) == ("CN=fl_rsna SuperLink", ("superlink", "localhost", "127.0.0.1", "::1"))
    assert abs(files.ends - datetime.now(UTC) - timedelta(days=397)) < timedelta(minutes=5)


@pytest.mark.parametrize("name", ["ca.crt", "server.crt", "server.key"])
def test_a_missing_file_is_named(name: str, folder: Path) -> None:
    (folder / name).unlink()
    with pytest.raises(ValueError, match=f"{name}: expected a file that can be read, got No such file"):
        read(folder)


@pytest.mark.parametrize("name", ["ca.crt", "server.crt", "server.key"])
def test_what_is_no_pem_is_named(name: str, folder: Path) -> None:
    (folder / name).write_bytes(b"\x00 nothing")
    with pytest.raises(ValueError, match=f"{name}: expected a .* in PEM"):
        read(folder)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o620, 0o777])
def test_a_key_that_others_can_touch_is_refused(mode: int, folder: Path) -> None:
    (folder / "server.key").chmod(mode)
    with pytest.raises(ValueError, match=r"owner alone .* chmod 600"):
        read(folder)


def test_a_key_may_be_read_only(folder: Path) -> None:
    (folder / "server.key").chmod(0o400)
    assert read(folder).key == folder / "server.key"


def test_another_key_and_another_authority_are_refused(folder: Path) -> None:
    ca = (folder / "ca.crt").read_bytes()
    (folder / "ca.crt").write_bytes(certificate_pem(make_authority("fl_rsna federation", ["superlink"]).certificate))
    with pytest.raises(ValueError, match=r"server.crt: expected a certificate that ca.crt signed"):
        read(folder)
    (folder / "ca.crt").write_bytes(ca)
    (folder / "server.key").write_bytes(private_pem(new_key()))
    with pytest.raises(ValueError, match=r"server.key: expected the key of .*server.crt, got another's"):
        read(folder)


@pytest.mark.parametrize(("shift", "words"), [(-10, "got one that ended on"), (+10, "got one from .* clock")])
def test_a_certificate_out_of_its_time_is_refused(
    shift: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Clock(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
            return datetime.now(UTC) + timedelta(days=shift)

    monkeypatch.setattr(certificates, "datetime", Clock)
    files = made(tmp_path, ["superlink"], ca_days=5, days=5)
    monkeypatch.undo()
    write_new(tmp_path, files)
    with pytest.raises(ValueError, match=words):
        read(tmp_path / "superlink")


def test_flowers_own_processes_must_be_able_to_trust_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificates, "LOOPBACK", ("localhost",))
    authority = make_authority("ours", ["superlink"])
    own = certificates.make_server(authority, "own", ["superlink"])
    assert isinstance(own.certificate, x509.Certificate)
    (folder / "ca.crt").write_bytes(certificate_pem(authority.certificate))
    (folder / "server.crt").write_bytes(certificate_pem(own.certificate))
    (folder / "server.key").write_bytes(private_pem(own.key))
    with pytest.raises(ValueError, match=r"good for 127\.0\.0\.1"):
        read(folder)
