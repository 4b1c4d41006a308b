"""Decide from the header alone: admitted (perhaps outside intended use), or refused with a reason.

Pure: no pixels, no clock, no journal. Headers lie and are broken, so nothing here raises:
what cannot be read counts as absent. Never puts patient data into a detail or a note.
"""

import re
import struct
from collections.abc import Iterable, MutableSequence
from datetime import date
from typing import Literal, cast

from pydicom.charset import python_encoding
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset

from covidnet_node.case import Admission, Reason
from covidnet_node.config import Admit, Rule
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

_PROCEDURE = (
    *("RequestedProcedureDescription", "PerformedProcedureStepDescription"),
    *("ScheduledProcedureStepDescription", "ProtocolName"),
)
_PROCEDURE_CODES = (
    *("ProcedureCodeSequence", "RequestedProcedureCodeSequence"),
    *("PerformedProtocolCodeSequence", "ScheduledProtocolCodeSequence"),
)
_DESCRIPTION = ("StudyDescription", "SeriesDescription")
_DATES = ("StudyDate", "AcquisitionDate", "AcquisitionDateTime", "SeriesDate", "ContentDate")

HEADER_KEYWORDS = (
    *("SpecificCharacterSet", "Modality", "Manufacturer", "ManufacturerModelName"),
    *("BodyPartExamined", "AnatomicRegionSequence", "ViewPosition", "ViewCodeSequence"),
    *("PatientOrientation", "PresentationIntentType", "Rows", "Columns", "NumberOfFrames"),
    *("PatientAge", "PatientBirthDate", "PatientSpeciesDescription"),
    *("RequestAttributesSequence", *_PROCEDURE, *_PROCEDURE_CODES),
    *(*_DESCRIPTION, *_DATES),
)
"""All that admission reads; a reader of files may skip the rest."""

_BROKEN = (
    *(AttributeError, LookupError, TypeError, ValueError, ArithmeticError, RuntimeError),
    *(EOFError, OSError, struct.error),
)
"""What pydicom raises on sequences that are damaged, or nested without end."""


def admit(
    header: Dataset, sop_class_uid: str, calling_ae: str, rules: Admit, today: date
) -> Admission:
    """Judge one image by its header.

    Refused: not our kind of image. Admitted with a reason: ours, but outside intended use.
    `today` stands in where the image has no date of its own.
    """
    about = _Header(header)
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
    about = _Header(header)
    return (
        about.first("Manufacturer").casefold() == MANUFACTURER.casefold()
        and about.first("ManufacturerModelName").casefold() == PRODUCT.casefold()
    )


def text_of(header: Dataset, keyword: str) -> str:
    """First value of a text attribute without padding; empty if absent or unreadable."""
    return _Header(header).first(keyword)


def _refused(reason: Reason, detail: str) -> Admission:
    return Admission(admitted=False, reason=reason, detail=detail)


def _not_an_image(about: "_Header", sop_class_uid: str) -> Admission | None:
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


def _unmatched(about: "_Header", sop_class_uid: str) -> Admission:
    """Say most plainly why no rule admits it."""
    if sop_class_uid == SECONDARY_CAPTURE:
        return _refused(Reason.SECONDARY_CAPTURE, "no matching rule names its SOP class")
    if _for_processing(about, sop_class_uid):
        return _refused(Reason.FOR_PROCESSING, "no matching rule names its presentation intent")
    return _refused(Reason.NO_RULE, "no rule matches")


# Rules


def _first_match(
    about: "_Header", sop_class_uid: str, calling_ae: str, rules: Iterable[Rule]
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


def _for_processing(about: "_Header", sop_class_uid: str) -> bool:
    """Raw detector values: they look unlike anything the networks were trained on."""
    intent = about.first("PresentationIntentType").casefold()
    return sop_class_uid == DX_FOR_PROCESSING or intent == "for processing"


def _matches(rule: Rule, about: "_Header", sop_class_uid: str, calling_ae: str) -> bool:
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


def _intended_use(about: "_Header", rules: Admit, today: date) -> Admission:
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
    about: "_Header", age: float | None, age_detail: str, rules: Admit
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


def _is_frontal(about: "_Header") -> bool:
    meanings = " ".join(about.meanings("ViewCodeSequence")).casefold()
    coded = re.search(r"\b(postero-? ?anterior|antero-? ?posterior|frontal)\b", meanings)
    return bool(_tokens(about.texts("ViewPosition")) & FRONTAL_VIEWS) or coded is not None


def _lateral_evidence(about: "_Header") -> str:
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


def _age(about: "_Header", today: date) -> tuple[float | None, str]:
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


def _dated_age(about: "_Header", today: date) -> float | None:
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


# Reading


class _Header:
    """Small typed readers over a header of which nothing can be trusted.

    Raw elements are read as bytes, past pydicom's conversion: that raises or warns (with
    the value, which may be patient data) on wrong VRs, lengths and character sets.
    """

    def __init__(self, dataset: Dataset, encodings: tuple[str, ...] = ()) -> None:
        self.dataset = dataset
        self._encodings: tuple[str, ...] = ()
        # PS3.3 C.12.1.1.2; an item of a sequence inherits from the data set around it.
        terms = self.texts("SpecificCharacterSet")
        self._encodings = (
            tuple(codec for term in terms if (codec := python_encoding.get(term)) is not None)
            or encodings
        )

    def first(self, keyword: str) -> str:
        """First value that is not empty."""
        return next(iter(self.texts(keyword)), "")

    def texts(self, *keywords: str) -> tuple[str, ...]:
        """Values that are not empty, runs of white space collapsed."""
        parts = (part for key in keywords for part in self._plain(key).split("\\"))
        tidy = (" ".join(part.replace("\0", " ").split()) for part in parts)
        return tuple(part for part in tidy if part)

    def number(self, keyword: str) -> int:
        """First value as a whole number; 0 if absent, negative or unreadable."""
        match = re.match(r"[0-9]{1,9}", self.first(keyword))
        return int(match[0]) if match else 0

    def items(self, keyword: str) -> "tuple[_Header, ...]":
        """Items of a sequence."""
        try:
            value = self.dataset[keyword].value if keyword in self.dataset else ()
            items = [item for item in value or () if isinstance(item, Dataset)]
            return tuple(_Header(item, self._encodings) for item in items)
        except _BROKEN:
            return ()

    def meanings(self, *keywords: str) -> tuple[str, ...]:
        """Code meanings of code sequences."""
        codes = (item for keyword in keywords for item in self.items(keyword))
        return tuple(text for item in codes for text in item.texts("CodeMeaning"))

    def procedure(self) -> tuple[str, ...]:
        """Procedure as requested and as performed, in words and code meanings."""
        levels = (self, *self.items("RequestAttributesSequence"))
        return tuple(
            text
            for level in levels
            for text in (*level.texts(*_PROCEDURE), *level.meanings(*_PROCEDURE_CODES))
        )

    def _plain(self, keyword: str) -> str:
        """Value as text; several values stay joined by backslashes."""
        try:
            element = cast("DataElement | RawDataElement | None", self.dataset.get_item(keyword))
            value = None if element is None else element.value
            if isinstance(element, RawDataElement) and isinstance(value, bytes):
                return self._from_raw(element, value)
            if isinstance(value, MutableSequence):
                return "\\".join(str(part) for part in value if not isinstance(part, Dataset))
            return "" if value is None else str(value)
        except _BROKEN:
            return ""

    def _from_raw(self, element: RawDataElement, value: bytes) -> str:
        """Read encoded bytes by their VR, or the dictionary's; Latin-1 if nothing else fits."""
        vr = element.VR or dictionary_VR(element.tag)
        if vr in {"US", "UL"}:
            size = 2 if vr == "US" else 4
            order: Literal["little", "big"] = "little" if element.is_little_endian else "big"
            return str(int.from_bytes(value[:size], order)) if len(value) >= size else ""
        for codec in () if vr == "SQ" else self._encodings:
            try:
                return value.decode(codec)
            except (UnicodeError, LookupError):
                continue
        return "" if vr == "SQ" else value.decode("latin-1")
