"""What a site says of its own failure: where and what went wrong, and nothing that names a patient, a file or a value.

An exception's words may quote a path with an image's id, a cell of a table or an array. The ids of the site's index, its
folders and whatever looks like a path, a DICOM UID or a row of numbers are taken out before a word leaves; the whole
traceback goes to the site's own log. Without a readable index nobody knows what to take out, and only the type travels.
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
LOCAL_ID = "local_id"  # PatientID alone, where patient_id is of an issuer, too
SHORT = 6  # an id of fewer characters is only taken out where it stands alone: it is in every other word
LONGEST = 20_000  # characters of a traceback that travel: the last ones
ELSEWHERE = "what it says stays at the site; look at the site's log"

CODE = re.compile(r'File "(?:[^"\n]*/(?=(?:site-packages|dist-packages|fl_rsna|python3\.\d+)/)|[^"\n]*/)?([^"\n]+)"')
QUOTED_PATH = re.compile(r"""(?P<quote>['"])(?:~|[A-Za-z]:)?/(?:(?!(?P=quote))[^\n])*(?P=quote)""")
PATH = re.compile(r"""(?<![\w>/.])(?:~|[A-Za-z]:)?/[^\s'":;,()]+""")
UID = re.compile(r"(?<![\d.])\d+(?:\.\d+){4,}")
NUMBERS = re.compile(r"(?:[-+]?(?:\d+\.?\d*(?:e[-+]?\d+)?|nan|inf)[\s,;()\[\]]+){8,}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """One line, and a traceback, that may leave a site."""

    error: str
    traceback: str


def describe(error: BaseException) -> str:
    """An exception in one line: our own sentences as they are, others with their type."""
    return str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"


def scrub_failure(error: BaseException, folders: Iterable[Path], memory: Path) -> Failure:
    """The failure of a site whose data lies in `folders`, without anything that names what it holds."""
    text = "".join(traceback.format_exception(error))
    try:
        ids: dict[str, str] = {}
        for folder in folders:
            ids |= _ids_of(folder)
        places = {**_spellings(memory, "<site memory>"), **_each(folders)}
        if not ids and not _is_ours(error):
            return _withhold_text(error)
        return Failure(
            error=scrub(describe(error), ids, places)[-LONGEST:], traceback=scrub(text, ids, places)[-LONGEST:]
        )
    except Exception:  # whatever it is, it must not let the text through
        return _withhold_text(error)


def _is_ours(error: BaseException) -> bool:
    """Whether it is a sentence of our own code; of an index without a row, such as that it has none."""
    frames = traceback.extract_tb(error.__traceback__)
    return isinstance(error, ValueError) and bool(frames) and Path(frames[-1].filename).is_relative_to(PACKAGE)


def without_data(error: Exception) -> Failure:
    """The failure of a node that has not opened any site's folder: a sentence of ours names what the server told it."""
    if not isinstance(error, ValueError):
        return _withhold_text(error)
    return Failure(error=str(error), traceback=str(error))


def scrub(text: str, ids: Mapping[str, str], places: Mapping[str, str]) -> str:
    """`text` with `ids` (id -> `<patient>`) and `places` (path -> `<site folder>`) replaced, and paths, UIDs and rows of numbers."""
    for path in sorted(places, key=len, reverse=True):
        text = re.sub(re.escape(path) + r"(?![\w-])", places[path], text)
    text = CODE.sub(r'File "\1"', text)
    text = _replace_ids(text, ids)
    text = QUOTED_PATH.sub(r"\g<quote><path>\g<quote>", text)
    text = PATH.sub("<path>", text)
    return NUMBERS.sub("<numbers> ", UID.sub("<uid>", text))


def log_failure(error: Exception, asked: str, log: Path | None) -> None:
    """The whole traceback for the engineer at the site: appended to `log`, or on stderr, which is a SuperNode's log."""
    when = datetime.now(UTC).isoformat(timespec="seconds")
    entry = f"{when} could not answer: {asked}\n{''.join(traceback.format_exception(error))}"
    if log is not None:
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("a") as file:
                file.write(entry)
            return
        except OSError:
            pass  # a full disk is perhaps what failed
    print(entry, end="", file=sys.stderr, flush=True)


def _withhold_text(error: BaseException) -> Failure:
    said = f"{type(error).__name__}: {ELSEWHERE}"
    return Failure(error=said, traceback=said)


def _ids_of(folder: Path) -> dict[str, str]:
    """Every form an id of the site's index may have in a text, with what stands for it. Raises when it cannot be read."""
    wanted = (*IDS, LOCAL_ID)
    table = pd.read_csv(folder / "index.csv", usecols=lambda name: name in wanted, dtype=str, keep_default_na=False)
    found: dict[str, str] = {}
    for column in (*IDS, *[LOCAL_ID] * (LOCAL_ID in table)):
        for value in table[column].unique():
            found |= dict.fromkeys(_forms(str(value)), f"<{column.removesuffix('_id')}>")
    return found


def _forms(value: str) -> set[str]:
    """An id as it is, as Python and JSON quote it, and without its prefix: ID_12ab34 is in a text as 12ab34, too."""
    bare = value.partition("_")[2]
    return {form for form in (value, repr(value)[1:-1], json.dumps(value)[1:-1]) if form.strip()} | (
        {bare} if len(bare) >= SHORT else set()
    )


def _replace_ids(text: str, ids: Mapping[str, str]) -> str:
    """In one pass, longest first, whatever the case, so that nothing that was put in is looked at again."""
    seen = text.lower()
    there = {value.lower(): word for value, word in ids.items() if value.lower() in seen}
    if not there:
        return text
    forms = [
        re.escape(value) if len(value) >= SHORT else rf"(?<![0-9a-z]){re.escape(value)}(?![0-9a-z])"
        for value in sorted(there, key=len, reverse=True)
    ]
    return re.sub("|".join(forms), lambda found: there.get(found[0].lower(), "<id>"), text, flags=re.IGNORECASE)


def _each(folders: Iterable[Path]) -> dict[str, str]:
    return {path: word for folder in folders for path, word in _spellings(folder, "<site folder>").items()}


def _spellings(folder: Path, word: str) -> dict[str, str]:
    """A folder's path as given, absolute and without links; a name without a slash could be any word."""
    return {path: word for path in map(str, (folder, folder.absolute(), folder.resolve())) if "/" in path}
