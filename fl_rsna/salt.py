"""python -m fl_rsna.salt: the secret under which all hospitals of a federation hash their ids.

    fl-rsna salt --out stroke-2026.salt     one hospital makes it: 128 random bits, in a file that its user alone can read
    fl-rsna salt --of stroke-2026.salt      every hospital reads the fingerprint of what it got, to compare by telephone
    fl-rsna prepare data.dicom=scans data.labels=labels.csv data.name=ours data.salt="$(cat stroke-2026.salt)"

The file goes from hospital to hospital on a way that others cannot read, and not to the coordinator. Prepare takes it as
data.salt="$(cat stroke-2026.salt)". More: docs/deploy.md. Exit codes: 0 done, 2 the request cannot be met (one sentence on stderr).
"""

if __name__ == "__main__":
    from fl_rsna.cli.start import start_command

    start_command("salt")

import argparse
import os
import secrets
from pathlib import Path

from fl_rsna.cli.arguments import Parser, create_parser
from fl_rsna.common.command_end import end_command
from fl_rsna.common.id_scheme import SALT_BYTES, can_be_guessed, describe_scheme, id_scheme

LONGEST = 1024  # bytes of a salt's file


def salt(arguments: argparse.Namespace) -> None:
    """Make a salt or read one, and print its fingerprint, never the salt. Raises ValueError."""
    if arguments.out is not None:
        made = secrets.token_hex(SALT_BYTES)
        _write_new(arguments.out, made)
        print(
            f"{arguments.out}: {SALT_BYTES * 8} random bits, readable by you alone; hand it to the other hospitals, not to the coordinator"
        )
    else:
        made = _read(arguments.of)
    print(f"ids {describe_scheme(id_scheme(True, made))}: everybody must read the same")


def _write_new(path: Path, content: str) -> None:
    """Write one line to a new file that only its owner can read from its first byte on. Raises ValueError where a file exists."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise ValueError(
            f"--out: expected a new file, got the existing {path}; ids hashed under the salt in it need it, choose another name"
        ) from None
    except OSError as error:
        raise ValueError(
            f"--out: cannot write {path}: {error.strerror}; give a file in a folder that can be written"
        ) from None
    with os.fdopen(descriptor, "w") as stream:
        stream.write(content + "\n")


def _read(path: Path) -> str:
    from fl_rsna.common.reading import refuse_unreadable  # loads pandas, which --help need not wait for

    with refuse_unreadable(path, "a salt's file", "have it sent again", key="--of: "), path.open("rb") as stream:
        found = stream.read(LONGEST + 1).decode().strip()
    if len(found) > LONGEST or can_be_guessed(found):
        raise ValueError(
            f"--of: expected {2 * SALT_BYTES} random hexadecimal digits in {path}, got something that can be guessed or is no salt; "
            "make one by python -m fl_rsna.salt --out <file>"
        )
    return found


def declare_arguments() -> Parser:
    """Declare the options and paths of this command; --help shows them and the shell completes them."""
    parser = create_parser("salt", __doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--out", type=Path, metavar="FILE", help="make a salt and write it to a new file")
    what.add_argument("--of", type=Path, metavar="FILE", help="say the fingerprint of the salt in a file")
    return parser


if __name__ == "__main__":
    end_command(lambda: salt(declare_arguments().parse_args()))
