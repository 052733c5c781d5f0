"""The command that makes a federation's salt: random, for its user alone, never over another, and told by its fingerprint."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fl_rsna.common.id_scheme import can_be_guessed, describe_scheme, id_scheme


def salt(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "fl_rsna.salt", *arguments], capture_output=True, text=True)


def test_a_salt_is_made_once_and_only_its_fingerprint_is_said(tmp_path: Path) -> None:
    file = tmp_path / "stroke.salt"
    made = salt("--out", str(file))
    content = file.read_text()
    assert made.returncode == 0, made.stderr
    assert not can_be_guessed(content.strip())
    assert file.stat().st_mode & 0o777 == 0o600
    assert content.strip() not in made.stdout
    assert describe_scheme(id_scheme(True, content.strip())) in made.stdout
    again = salt("--out", str(file))
    assert (again.returncode, file.read_text()) == (2, content)
    assert again.stderr.startswith("error: --out: expected a new file")
    read = salt("--of", str(file))
    assert (read.returncode, read.stdout) == (0, made.stdout.splitlines(keepends=True)[1])


@pytest.mark.parametrize("content", [b"a secret", b"", b"\xff\xfe", b"0" * 5000])
def test_what_is_no_salt_is_refused_in_one_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    refused = salt("--of", str(tmp_path / "x"))
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith("error: --of: expected")
    assert len(refused.stderr.splitlines()) == 1


def test_a_file_that_is_not_there_and_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    for arguments in (["--of", str(tmp_path / "none")], ["--out", str(tmp_path / "none" / "x")]):
        refused = salt(*arguments)
        assert (refused.returncode, len(refused.stderr.splitlines())) == (2, 1)
    assert os.listdir(tmp_path) == []
