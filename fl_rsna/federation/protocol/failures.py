"""Report a site's own failure: where and what went wrong, without anything that names a patient, a file or a value.

The text of an exception may quote a path with an image's id, a cell of a table or an array. The ids of the site's index, its
folders and all text that looks like a path, a DICOM UID or a row of numbers are removed before the text leaves the site; the whole
traceback goes to the site's own log. Without a readable index the ids are unknown, and only the exception's type leaves the site.
"""

import json
import re
import sys
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from fl_rsna.version import PACKAGE

IDS = ("patient_id", "study_id", "series_id", "image_id")
LOCAL_ID = "local_id"  # PatientID alone, where patient_id is made of it and of its issuer
SHORT = 6  # an id of fewer characters is part of many words, so it is only removed where it stands alone
LONGEST = 20_000  # characters of a traceback that leave the site, from its end
ELSEWHERE = "what it says stays at the site; look at the site's log"

CODE = re.compile(r'File "(?:[^"\n]*/(?=(?:site-packages|dist-packages|fl_rsna|python3\.\d+)/)|[^"\n]*/)?([^"\n]+)"')
QUOTED_PATH = re.compile(r"""(?P<quote>['"])(?:~|[A-Za-z]:)?/(?:(?!(?P=quote))[^\n])*(?P=quote)""")
PATH = re.compile(r"""(?<![\w>/.])(?:~|[A-Za-z]:)?/[^\s'":;,()]+""")
UID = re.compile(r"(?<![\d.])\d+(?:\.\d+){4,}")
NUMBERS = re.compile(r"(?:[-+]?(?:\d+\.?\d*(?:e[-+]?\d+)?|nan|inf)[\s,;()\[\]]+){8,}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """The one line and the traceback of a failure that may leave a site."""

    error: str
    traceback: str


def describe(error: BaseException) -> str:
    """Describe an exception in one line: a ValueError, which is this package's own sentence, unchanged; others with their type."""
    return str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"


def scrub_failure(error: BaseException, folders: Iterable[Path], memory: Path) -> Failure:
    """Make the failure of a site whose data are in `folders`, without ids, paths and rows of numbers."""
    text = "".join(traceback.format_exception(error))
    try:
        ids: dict[str, str] = {}
        for folder in folders:
            ids |= _ids_of(folder)
        places = _spellings(memory, "<site memory>")
        for folder in folders:
            places |= _spellings(folder, "<site folder>")
        if not ids and not _is_ours(error):
            return _withhold_text(error)
        return Failure(
            error=scrub(describe(error), ids, places)[-LONGEST:], traceback=scrub(text, ids, places)[-LONGEST:]
        )
    except Exception:  # no text leaves the site unscrubbed
        return _withhold_text(error)


def _is_ours(error: BaseException) -> bool:
    """Tell whether the exception is a ValueError that this package's own code raised."""
    frames = traceback.extract_tb(error.__traceback__)
    return isinstance(error, ValueError) and bool(frames) and Path(frames[-1].filename).is_relative_to(PACKAGE)


def without_data(error: Exception) -> Failure:
    """Make the failure of a node that has not opened a site's folder: its ValueErrors can only quote the server's message."""
    if not isinstance(error, ValueError):
        return _withhold_text(error)
    return Failure(error=str(error), traceback=str(error))


def scrub(text: str, ids: Mapping[str, str], places: Mapping[str, str]) -> str:
    """Replace `ids` (id -> `<patient>`) and `places` (path -> `<site folder>`) in `text`, and then paths, UIDs and rows of numbers."""
    for path in sorted(places, key=len, reverse=True):
        text = re.sub(re.escape(path) + r"(?![\w-])", places[path], text)
    text = CODE.sub(r'File "\1"', text)
    text = _replace_ids(text, ids)
    text = QUOTED_PATH.sub(r"\g<quote><path>\g<quote>", text)
    text = PATH.sub("<path>", text)
    return NUMBERS.sub("<numbers> ", UID.sub("<uid>", text))


def log_failure(error: Exception, asked: str, log: Path | None) -> None:
    """Append the whole traceback, for the engineer at the site, to `log`, or print it on stderr, which is a SuperNode's log."""
    when = datetime.now(UTC).isoformat(timespec="seconds")
    entry = f"{when} could not answer: {asked}\n{''.join(traceback.format_exception(error))}"
    if log is not None:
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("a") as file:
                file.write(entry)
            return
        except OSError:
            pass  # perhaps the disk is full
    print(entry, end="", file=sys.stderr, flush=True)


def _withhold_text(error: BaseException) -> Failure:
    said = f"{type(error).__name__}: {ELSEWHERE}"
    return Failure(error=said, traceback=said)


def _ids_of(folder: Path) -> dict[str, str]:
    """Return each form that an id of the site's index may have in a text, with its replacement. Raises when the index cannot be read."""
    wanted = (*IDS, LOCAL_ID)
    table = pd.read_csv(folder / "index.csv", usecols=lambda name: name in wanted, dtype=str, keep_default_na=False)
    found: dict[str, str] = {}
    for column in (*IDS, *[LOCAL_ID] * (LOCAL_ID in table)):
        for value in table[column].unique():
            found |= dict.fromkeys(_forms(str(value)), f"<{column.removesuffix('_id')}>")
    return found


def _forms(value: str) -> set[str]:
    """Return an id as it is, as Python and JSON quote it, and without its prefix: a text may name ID_12ab34 as 12ab34."""
    bare = value.partition("_")[2]
    return {form for form in (value, repr(value)[1:-1], json.dumps(value)[1:-1]) if form.strip()} | (
        {bare} if len(bare) >= SHORT else set()
    )


def _replace_ids(text: str, ids: Mapping[str, str]) -> str:
    """Replace ids in one pass, the longest first and ignoring case, so that no replacement is searched again."""
    seen = text.lower()
    there = {value.lower(): word for value, word in ids.items() if value.lower() in seen}
    if not there:
        return text
    forms = [
        re.escape(value) if len(value) >= SHORT else rf"(?<![0-9a-z]){re.escape(value)}(?![0-9a-z])"
        for value in sorted(there, key=len, reverse=True)
    ]
    return re.sub("|".join(forms), lambda found: there.get(found[0].lower(), "<id>"), text, flags=re.IGNORECASE)


def _spellings(folder: Path, word: str) -> dict[str, str]:
    """Return a folder's path as given, absolute, and with links resolved; a name without a slash is left out: it could be any word."""
    return {path: word for path in map(str, (folder, folder.absolute(), folder.resolve())) if "/" in path}
