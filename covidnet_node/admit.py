"""Decide from the header alone: admitted (perhaps outside intended use), or refused with a reason.

Pure: no pixels, no clock, no journal. Headers lie and are broken, so nothing here raises:
what cannot be read counts as absent. Never puts patient data into a detail or a note.
"""

import re
from collections.abc import Iterable
from datetime import date

from pydicom.dataset import Dataset

from covidnet_node.case import Admission, Reason
from covidnet_node.config import Admit, Rule
from covidnet_node.header_values import PROCEDURE, PROCEDURE_CODES, Header
from covidnet_node.intended_use import (
    FRONTAL_VIEWS,
    LATERAL_VIEWS,
    MANUFACTURER,
    MINIMUM_AGE_YEARS,
    MINIMUM_SIDE,
    PRODUCT,
)

CR = "1.2.840.10008.5.1.4.1.1.1"
DX_FOR_PRESENTATION = "1.2.840.10008.5.1.4.1.1.1.1"
DX_FOR_PROCESSING = "1.2.840.10008.5.1.4.1.1.1.1.1"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
RADIOGRAPHS = frozenset({CR, DX_FOR_PRESENTATION, DX_FOR_PROCESSING})
"""Every other class needs a rule that names it."""

RESULT_CLASSES = frozenset(
    {
        "1.2.840.10008.5.1.4.1.1.88.34",  # Comprehensive 3D SR
        "1.2.840.10008.5.1.4.1.1.88.33",  # Comprehensive SR
        "1.2.840.10008.5.1.4.1.1.88.22",  # Enhanced SR
        "1.2.840.10008.5.1.4.1.1.66.4",  # Segmentation
        "1.2.840.10008.5.1.4.1.1.30",  # Parametric Map
        "1.2.840.10008.5.1.4.1.1.11.1",  # Grayscale Softcopy Presentation State
    }
)
"""What the node itself sends, and a PACS with auto-routing sends back."""

_DESCRIPTION = ("StudyDescription", "SeriesDescription")
_DATES = ("StudyDate", "AcquisitionDate", "AcquisitionDateTime", "SeriesDate", "ContentDate")

HEADER_KEYWORDS = (
    *("SpecificCharacterSet", "Modality", "Manufacturer", "ManufacturerModelName"),
    *("BodyPartExamined", "AnatomicRegionSequence", "ViewPosition", "ViewCodeSequence"),
    *("PatientOrientation", "PresentationIntentType", "Rows", "Columns", "NumberOfFrames"),
    *("PatientAge", "PatientBirthDate", "PatientSpeciesDescription"),
    *("RequestAttributesSequence", *PROCEDURE, *PROCEDURE_CODES),
    *(*_DESCRIPTION, *_DATES),
)
"""All that admission reads; a reader of files may skip the rest."""


def admit(
    header: Dataset, sop_class_uid: str, calling_ae: str, rules: Admit, today: date
) -> Admission:
    """Judge one image by its header.

    Refused: not our kind of image. Admitted with a reason: ours, but outside intended use.
    `today` stands in where the image has no date of its own.
    """
    about = Header(header)
    refusal = _not_an_image(about, sop_class_uid)
    if refusal is not None:
        return refusal
    rule = _first_match(about, sop_class_uid, calling_ae, rules.rules)
    if rule is None:
        return _unmatched(about, sop_class_uid)
    if rule.action == "refuse":
        return _refused(Reason.RULE_REFUSES, f"rule {rule.name!r}")
    return _intended_use(about, rules, today)


def is_own_heatmap(header: Dataset) -> bool:
    """Whether this secondary capture is a heatmap that this product made."""
    about = Header(header)
    return (
        about.first("Manufacturer").casefold() == MANUFACTURER.casefold()
        and about.first("ManufacturerModelName").casefold() == PRODUCT.casefold()
    )


def text_of(header: Dataset, keyword: str) -> str:
    """First value of a text attribute without padding; empty if absent or unreadable."""
    return Header(header).first(keyword)


def _refused(reason: Reason, detail: str) -> Admission:
    return Admission(admitted=False, reason=reason, detail=detail)


def _not_an_image(about: Header, sop_class_uid: str) -> Admission | None:
    """Refuse what no rule could make readable."""
    if sop_class_uid in RESULT_CLASSES:
        return _refused(Reason.NO_RULE, "a class of result objects")
    if about.number("Rows") < 1 or about.number("Columns") < 1:
        return _refused(Reason.NO_PIXELS, "the header has no rows and columns")
    if sop_class_uid == SECONDARY_CAPTURE and is_own_heatmap(about.dataset):
        return _refused(Reason.SECONDARY_CAPTURE, "a heatmap of this product")
    if about.number("NumberOfFrames") > 1:
        return _refused(Reason.MULTI_FRAME, "more than one frame")
    return None


def _unmatched(about: Header, sop_class_uid: str) -> Admission:
    """Say most plainly why no rule admits it."""
    if sop_class_uid == SECONDARY_CAPTURE:
        return _refused(Reason.SECONDARY_CAPTURE, "no matching rule names its SOP class")
    if _for_processing(about, sop_class_uid):
        return _refused(Reason.FOR_PROCESSING, "no matching rule names its presentation intent")
    return _refused(Reason.NO_RULE, "no rule matches")


# Rules


def _first_match(
    about: Header, sop_class_uid: str, calling_ae: str, rules: Iterable[Rule]
) -> Rule | None:
    """Return the first rule that decides about this image."""
    for rule in rules:
        named = sop_class_uid in rule.sop_class
        if rule.action == "admit":
            if sop_class_uid not in RADIOGRAPHS and not named:
                continue
            if _for_processing(about, sop_class_uid) and not rule.presentation_intent:
                continue
        if _matches(rule, about, sop_class_uid, calling_ae):
            return rule
    return None


def _for_processing(about: Header, sop_class_uid: str) -> bool:
    """Raw detector values: they look unlike anything the networks were trained on."""
    intent = about.first("PresentationIntentType").casefold()
    return sop_class_uid == DX_FOR_PROCESSING or intent == "for processing"


def _matches(rule: Rule, about: Header, sop_class_uid: str, calling_ae: str) -> bool:
    """Every given field of the rule must match."""
    intent = about.first("PresentationIntentType")
    if not intent and sop_class_uid == DX_FOR_PROCESSING:
        intent = "FOR PROCESSING"
    words = (
        (rule.sop_class, sop_class_uid),
        (rule.modality, about.first("Modality")),
        (rule.calling_ae, calling_ae.strip()),
        (rule.presentation_intent, intent),
    )
    part = (*about.texts("BodyPartExamined"), *about.meanings("AnatomicRegionSequence"))
    patterns = (
        (rule.body_part, part),
        (rule.procedure, about.procedure()),
        (rule.description, about.texts(*_DESCRIPTION)),
        (rule.view, (*about.texts("ViewPosition"), *about.meanings("ViewCodeSequence"))),
    )
    return (
        all(_listed(wanted, found) for wanted, found in words)
        and all(_found(pattern, texts) for pattern, texts in patterns)
        and about.number("Rows") >= rule.min_rows
        and about.number("Columns") >= rule.min_columns
    )


def _listed(wanted: tuple[str, ...], found: str) -> bool:
    return not wanted or found.casefold() in {word.strip().casefold() for word in wanted}


def _found(pattern: str | None, texts: Iterable[str]) -> bool:
    return pattern is None or any(re.search(pattern, text, re.IGNORECASE) for text in texts)


# Intended use


def _intended_use(about: Header, rules: Admit, today: date) -> Admission:
    """Compare with the intended-use table: frontal, adult, large enough."""
    age, age_detail = _age(about, today)
    notes: list[str] = []
    if age is None:
        notes.append("The age of the patient is not known; intended use is adults.")
    if not _is_frontal(about):
        notes.append("The header does not state a frontal view (PA or AP).")
    reason, detail = _outside(about, age, age_detail, rules)
    return Admission(admitted=True, reason=reason, detail=detail, notes=tuple(notes))


def _outside(
    about: Header, age: float | None, age_detail: str, rules: Admit
) -> tuple[Reason | None, str]:
    lateral = _lateral_evidence(about)
    if lateral:
        return Reason.LATERAL, f"{lateral} shows a lateral view"
    species = about.first("PatientSpeciesDescription").casefold()
    if species and "homo sapiens" not in species and "human" not in species:
        return Reason.NOT_A_CHEST, "the patient species is not human"
    if age is not None and age < MINIMUM_AGE_YEARS:
        return Reason.UNDER_18, age_detail
    if age is None and rules.age_unknown == "not_analyzed":
        return Reason.AGE_UNKNOWN, "neither age nor dates tell it"
    if min(about.number("Rows"), about.number("Columns")) < MINIMUM_SIDE:
        return Reason.TOO_SMALL, f"a side is shorter than {MINIMUM_SIDE} pixels"
    return None, ""


def _tokens(texts: Iterable[str]) -> set[str]:
    """Split into upper-case words."""
    return {word for text in texts for word in re.split(r"[^A-Z0-9]+", text.upper()) if word}


def _is_frontal(about: Header) -> bool:
    meanings = " ".join(about.meanings("ViewCodeSequence")).casefold()
    coded = re.search(r"\b(postero-? ?anterior|antero-? ?posterior|frontal)\b", meanings)
    return bool(_tokens(about.texts("ViewPosition")) & FRONTAL_VIEWS) or coded is not None


def _lateral_evidence(about: Header) -> str:
    """Name the attribute that shows a lateral view; any one is enough.

    ViewPosition (PS3.3 C.8.7.1), View Code Sequence (CID 4010), Patient Orientation
    (PS3.3 C.7.6.1.1.1: a sagittal plane runs along A-P and F-H). Series description and
    protocol count only where nothing states a frontal view: "PA and lateral" names both.
    """
    view = _tokens(about.texts("ViewPosition"))
    if view & (LATERAL_VIEWS - {"L"}) or view == {"L"}:
        return "ViewPosition"
    if any(
        re.search(r"\blateral", text, re.IGNORECASE) for text in about.meanings("ViewCodeSequence")
    ):
        return "ViewCodeSequence"
    axes = {text[0].upper() for text in about.texts("PatientOrientation")}
    if axes & {"A", "P"} and axes & {"F", "H"}:
        return "PatientOrientation"
    if not _is_frontal(about):
        for keyword in ("SeriesDescription", "ProtocolName"):
            words = _tokens(about.texts(keyword))
            if words & {"LAT", "LATERAL"} and not words & FRONTAL_VIEWS:
                return keyword
    return ""


def _age(about: Header, today: date) -> tuple[float | None, str]:
    """Age in years, and which attribute told it.

    PatientAge (AS) first. A plain zero there is as often a default as a newborn, so dates
    may correct it. Where age and dates disagree about 18 years, the younger counts.
    """
    stated = _stated_age(about.first("PatientAge"))
    dated = _dated_age(about, today)
    if stated is None or (stated == 0 and dated is not None):
        return dated, "PatientBirthDate"
    if dated is not None and dated < MINIMUM_AGE_YEARS:
        return min(stated, dated), "PatientAge and PatientBirthDate"
    return stated, "PatientAge"


_AGE = re.compile(r"(\d{1,4})\s*([DWMY]?)", re.IGNORECASE)
_YEARS_PER = {"D": 1 / 365.2425, "W": 7 / 365.2425, "M": 1 / 12, "Y": 1.0, "": 1.0}
_OLDEST = 130


def _stated_age(text: str) -> float | None:
    """Read an AS value (PS3.5 6.2); without a unit it means years."""
    match = _AGE.match(text)
    if match is None:
        return None
    years = int(match[1]) * _YEARS_PER[match[2].upper()]
    return years if years <= _OLDEST else None


def _dated_age(about: Header, today: date) -> float | None:
    """Whole years from birth to the image; None where dates are absent or impossible."""
    born = _date(about.first("PatientBirthDate"))
    if born is None:
        return None
    taken = next((found for key in _DATES if (found := _date(about.first(key)))), today)
    birthday_to_come = (taken.month, taken.day) < (born.month, born.day)
    years = taken.year - born.year - birthday_to_come
    return float(years) if 0 <= years <= _OLDEST else None


_DATE = re.compile(r"(\d{4})[-./]?(\d{2})[-./]?(\d{2})")


def _date(text: str) -> date | None:
    """Read DA or the start of DT; dots (ACR-NEMA) and dashes are forgiven."""
    match = _DATE.match(text)
    if match is None:
        return None
    try:
        return date(int(match[1]), int(match[2]), int(match[3]))
    except ValueError:
        return None
