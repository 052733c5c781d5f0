"""From which side a chest film was taken, as its header says: ViewPosition, and the View Code Sequence that DX files must have.

Codes are those of DICOM PS3.16 CID 4010 in SNOMED CT, and as older files have them in SNOMED RT.
"""

import re
from dataclasses import dataclass

from fl_rsna.imaging.rejections import Reason, Rejected

POSITION, CODE = "ViewPosition", "ViewCodeSequence"
FRONTAL = {  # code -> the word of ViewPosition for it; a frontal view that does not say from which side has none
    "272479007": "PA", "R-10214": "PA", "R-40888": "PA", "399348003": "AP", "R-10206": "AP", "399033003": "", "R-10202": "",
}  # fmt: skip
OTHER_CODES = frozenset({  # lateral, sagittal and oblique ones
    "399067008", "R-102CD", "399173006", "R-10236", "399198007", "R-10232", "399352003", "R-10228", "399260004", "R-10224",
    "30730003", "G-A145", "399182000", "R-102C1", "260427002", "R-40783", "260426006", "R-40782", "399184004", "R-10238",
    "399236003", "R-10234", "399135007", "R-10220", "399356000", "R-40985", "399006002", "R-10212", "399038007", "R-10210",
    "399312000", "R-10208", "399059000", "R-10216", "399160007", "R-10204", "399099002", "R-10230", "399368009", "R-10226",
})  # fmt: skip
# Words for other views than a frontal one: ViewPosition's defined terms for CR and DX, what is written for them, and
# those of a code's meaning.
OTHER_VIEWS = frozenset({"LL", "RL", "LLD", "RLD", "LLO", "RLO", "LPO", "RPO", "LAO", "RAO", "LAT", "LATERAL"})
OTHER_VIEWS |= {"DECUB", "DECUBITUS", "OBL", "OBLIQUE", "SAGITTAL"}


@dataclass(frozen=True, slots=True)
class ViewCode:
    """The first item of the View Code Sequence."""

    value: str
    meaning: str


def frontal_view(position: str, code: ViewCode | None) -> str:
    """ViewPosition as it is written or, where it is empty, PA or AP by the code; empty where neither tells.

    Raises `Rejected` where either says that the view is no frontal one; what neither says is not guessed.
    """
    if _says_other(position):
        raise Rejected(Reason.not_frontal, POSITION, position)
    if code is None:
        return position
    if code.value in OTHER_CODES or _says_other(code.meaning):
        raise Rejected(Reason.not_frontal, CODE, f"{code.value} {code.meaning}".strip())
    return position or FRONTAL.get(code.value, "")


def _says_other(words: str) -> bool:
    return bool(OTHER_VIEWS.intersection(re.findall(r"[A-Z]+", words.upper())))
