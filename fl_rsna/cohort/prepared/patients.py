"""Identify patients by PatientID together with its issuer, and recognise ids that stand for nobody.

A number that a hospital gives is unique only in that hospital. IssuerOfPatientID names the issuer, else the site that a list of files
declares. Without both, the id is PatientID alone. Number and issuer are written as in HL7 (data type CX): 12345^^^ISSUER. An id depends
only on its own file and list, so two machines that read the same patient write the same id.
"""

import re
import unicodedata
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fl_rsna.cohort.prepared.index import LOCAL_ID, PLACEHOLDER

ISSUED = "^^^"  # between a number and its issuer; the two components of CX between them are empty

# Texts that anonymisers, scanners and people write instead of a PatientID, without accents, blanks and punctuation.
PLACEHOLDERS = frozenset({
    "ANON", "ANONYM", "ANONYME", "ANONYMISE", "ANONIMO", "ANONYMISED", "ANONYMISIERT", "ANONYMIZED", "ANONYMOUS", "ANONYMOUSPATIENT",
    "ANONYMOUSSUBJECT", "ANONPATIENT", "BLANK", "DEFAULT", "DEID", "DEIDENTIFIED", "DELETED", "DEMO", "DESCONOCIDO", "DUMMY",
    "EMPTY", "HIDDEN", "ID", "INCONNU", "JANEDOE", "JOHNDOE", "MASKED", "MISSING", "NA", "NAN", "NIL", "NN", "NOID", "NONAME",
    "NONE", "NOPATIENT", "NOPATIENTID", "NOTAPPLICABLE", "NOTAVAILABLE", "NOTKNOWN", "NULL", "PATIENT", "PATIENTID", "PHANTOM",
    "REDACTED", "REMOVED", "SCONOSCIUTO", "SUBJECT", "TBD", "TEST", "TESTPATIENT", "UNBEKANNT", "UNDEFINED", "UNIDENTIFIED",
    "UNK", "UNKNOWN", "UNKNOWNPATIENT", "UNSPECIFIED", "X",
})  # fmt: skip
LONGEST = 16  # characters of a placeholder that are shown
# Zeros, one letter three times or more, XX, or one digit six times or more.
REPEATED = re.compile(r"0+|([^\W\d])\1\1+|XX|(\d)\2{5,}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Patient:
    """A patient of the index. `local_id` is PatientID alone where `patient_id` has an issuer, too, else empty.

    `placeholder` is the placeholder that PatientID is; empty for a patient's own id.
    """

    patient_id: str
    local_id: str
    placeholder: str


def patient_of(number: str, *, issuer: str, site: str, institution: str) -> Patient:
    """Identify the patient of a file whose PatientID is `number`.

    `institution` is no issuer, since one hospital writes it in many ways. It only keeps placeholders apart: to take two patients for one is
    worse there than to take one for two. An `issuer` such as UNKNOWN counts as none.
    """
    placeholder = placeholder_in(number)
    stated = [issuer.strip() if not placeholder_in(issuer) else "", site.strip()]
    domain = next(filter(None, [*stated, " ".join(institution.casefold().split()) if placeholder else ""]), "")
    if not domain:
        return Patient(patient_id=number, local_id="", placeholder=placeholder)
    return Patient(patient_id=f"{number}{ISSUED}{domain}", local_id=number, placeholder=placeholder)


def placeholder_in(number: str) -> str:
    """Return the placeholder that an id is, in capital letters without accents, blanks and punctuation; empty for any other id."""
    text = unicodedata.normalize("NFKD", number)
    bare = "".join(letter for letter in text if letter.isalnum()).upper()
    if not bare:
        return (number.strip() if number.isprintable() else "-")[:LONGEST]
    return bare[:LONGEST] if bare in PLACEHOLDERS or REPEATED.fullmatch(bare) else ""


def are_placeholders(table: pd.DataFrame) -> NDArray[np.bool_]:
    """Find the rows of an index whose PatientID is a placeholder; none where the index lacks that column."""
    if PLACEHOLDER not in table:
        return np.zeros(len(table), bool)
    return np.asarray(table[PLACEHOLDER].fillna("").ne(""))


def stand_for_nobody(ids: pd.Series) -> NDArray[np.bool_]:
    """Find the PatientIDs of a table that are placeholders. Where a patient 1 exists, 0 is a patient, too."""
    known = set(ids.dropna().unique())
    placeholders = {number for number in known if placeholder_in(number)} - ({"0"} if "1" in known else set())
    return np.asarray(ids.isin(placeholders))


def patients_of_numbers(index: pd.DataFrame) -> dict[str, list[str]]:
    """Map every PatientID whose issuer is known to its patients, both as the index writes them."""
    if LOCAL_ID not in index:
        return {}
    known = index.loc[index[LOCAL_ID] != "", ["patient_id", LOCAL_ID]].drop_duplicates()
    return {str(number): list(group) for number, group in known.groupby(LOCAL_ID)["patient_id"]}


def comparable(index: pd.DataFrame, key: str) -> pd.Series:
    """Return the ids of a column that can be compared with other places: patients without placeholders, other columns complete."""
    return index.loc[~are_placeholders(index), key] if key == "patient_id" else index[key]


def of_several_issuers(index: pd.DataFrame) -> int:
    """Count the PatientIDs that several patients of an index have, from different issuers or with and without one; no placeholders."""
    known = index.loc[~are_placeholders(index), ["patient_id", LOCAL_ID]].drop_duplicates()
    numbers = known[LOCAL_ID].where(known[LOCAL_ID] != "", known["patient_id"])
    return int((known.groupby(numbers).size() > 1).sum())


def by_placeholder(index: pd.DataFrame) -> dict[str, dict[str, int]]:
    """Count the images, studies and patients of every placeholder in an index."""
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
