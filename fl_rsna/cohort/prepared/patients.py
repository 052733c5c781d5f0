"""Who a patient is: PatientID together with who issued it, and which ids stand for nobody.

A number that a hospital gives is unique in that hospital alone. IssuerOfPatientID says whose number it is, else the site that a
list of files declares. With neither the id is PatientID alone. Both together are written as in HL7 (data type CX): 12345^^^ISSUER.
An id follows from its own file and list alone, so two machines that read the same patient write the same id.
"""

import re
import unicodedata
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fl_rsna.cohort.prepared.index import LOCAL_ID, PLACEHOLDER

ISSUED = "^^^"  # between a number and its issuer: two components of CX between them are left empty

# What anonymisers, scanners and people write where no PatientID is known, without accents, blanks and punctuation.
PLACEHOLDERS = frozenset({
    "ANON", "ANONYM", "ANONYME", "ANONYMISE", "ANONIMO", "ANONYMISED", "ANONYMISIERT", "ANONYMIZED", "ANONYMOUS", "ANONYMOUSPATIENT",
    "ANONYMOUSSUBJECT", "ANONPATIENT", "BLANK", "DEFAULT", "DEID", "DEIDENTIFIED", "DELETED", "DEMO", "DESCONOCIDO", "DUMMY",
    "EMPTY", "HIDDEN", "ID", "INCONNU", "JANEDOE", "JOHNDOE", "MASKED", "MISSING", "NA", "NAN", "NIL", "NN", "NOID", "NONAME",
    "NONE", "NOPATIENT", "NOPATIENTID", "NOTAPPLICABLE", "NOTAVAILABLE", "NOTKNOWN", "NULL", "PATIENT", "PATIENTID", "PHANTOM",
    "REDACTED", "REMOVED", "SCONOSCIUTO", "SUBJECT", "TBD", "TEST", "TESTPATIENT", "UNBEKANNT", "UNDEFINED", "UNIDENTIFIED",
    "UNK", "UNKNOWN", "UNKNOWNPATIENT", "UNSPECIFIED", "X",
})  # fmt: skip
LONGEST = 16  # characters of a placeholder that are shown
REPEATED = re.compile(
    r"0+|([^\W\d])\1\1+|XX|(\d)\2{5,}"
)  # zeros, one letter three times or more, one digit six times or more


@dataclass(frozen=True, slots=True, kw_only=True)
class Patient:
    """One patient of the index: `local_id` where `patient_id` is of an issuer, too, `placeholder` where it stands for nobody."""

    patient_id: str
    local_id: str
    placeholder: str


def patient_of(number: str, *, issuer: str, site: str, institution: str) -> Patient:
    """The patient of a file whose PatientID is `number`.

    `institution` has many spellings in one hospital and is no issuer. It keeps placeholders apart, though: to take two patients for one
    is worse there than to take one for two. An issuer such as UNKNOWN is none.
    """
    placeholder = placeholder_in(number)
    stated = [issuer.strip() if not placeholder_in(issuer) else "", site.strip()]
    domain = next(filter(None, [*stated, " ".join(institution.casefold().split()) if placeholder else ""]), "")
    if not domain:
        return Patient(patient_id=number, local_id="", placeholder=placeholder)
    return Patient(patient_id=f"{number}{ISSUED}{domain}", local_id=number, placeholder=placeholder)


def placeholder_in(number: str) -> str:
    """The placeholder that an id is, in capital letters without accents, blanks and punctuation; empty for any other id."""
    text = unicodedata.normalize("NFKD", number)
    bare = "".join(letter for letter in text if letter.isalnum()).upper()
    if not bare:
        return (number.strip() if number.isprintable() else "-")[:LONGEST]
    return bare[:LONGEST] if bare in PLACEHOLDERS or REPEATED.fullmatch(bare) else ""


def are_placeholders(table: pd.DataFrame) -> NDArray[np.bool_]:
    """Which rows of an index are of a placeholder; none where it does not say."""
    if PLACEHOLDER not in table:
        return np.zeros(len(table), bool)
    return np.asarray(table[PLACEHOLDER].fillna("").ne(""))


def stand_for_nobody(ids: pd.Series) -> NDArray[np.bool_]:
    """Which PatientIDs of a table are placeholders; where patients are numbered, 0 is the one before 1."""
    known = set(ids.dropna().unique())
    placeholders = {number for number in known if placeholder_in(number)} - ({"0"} if "1" in known else set())
    return np.asarray(ids.isin(placeholders))


def patients_of_numbers(index: pd.DataFrame) -> dict[str, list[str]]:
    """The patients of every PatientID whose issuer is known, as the index writes both."""
    if LOCAL_ID not in index:
        return {}
    known = index.loc[index[LOCAL_ID] != "", ["patient_id", LOCAL_ID]].drop_duplicates()
    return {str(number): list(group) for number, group in known.groupby(LOCAL_ID)["patient_id"]}


def comparable(index: pd.DataFrame, key: str) -> pd.Series:
    """The ids of a column that can be looked for at other places: patients without placeholders, whatever else whole."""
    return index.loc[~are_placeholders(index), key] if key == "patient_id" else index[key]


def of_several_issuers(index: pd.DataFrame) -> int:
    """How many PatientIDs more than one patient of an index has, by different issuers or with and without one; no placeholders."""
    known = index.loc[~are_placeholders(index), ["patient_id", LOCAL_ID]].drop_duplicates()
    numbers = known[LOCAL_ID].where(known[LOCAL_ID] != "", known["patient_id"])
    return int((known.groupby(numbers).size() > 1).sum())


def by_placeholder(index: pd.DataFrame) -> dict[str, dict[str, int]]:
    """Of every placeholder in an index: its images, studies, and the patients that it is kept apart as."""
    rows = index[are_placeholders(index)]
    if rows.empty:
        return {}
    return {
        str(name): {
            "images": len(group),
            "studies": len(group[["patient_id", "study_id"]].drop_duplicates()),
            "patients": int(group["patient_id"].nunique()),
        }
        for name, group in rows.groupby(PLACEHOLDER)
    }
