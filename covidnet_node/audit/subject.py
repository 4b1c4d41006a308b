"""Whose image is it? From a header of which nothing can be trusted."""

import struct
from pathlib import Path
from typing import cast

from pydicom.charset import convert_encodings, decode_bytes
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filereader import dcmread

from covidnet_node.audit.events import Subject

KEYWORDS = (
    *("SpecificCharacterSet", "PatientID", "PatientName", "AccessionNumber"),
    *("StudyInstanceUID", "SOPClassUID", "SOPInstanceUID"),
)
"""All that is read; a reader of files may skip the rest."""

_BROKEN = (
    *(AttributeError, LookupError, TypeError, ValueError, ArithmeticError, RuntimeError),
    *(BytesLengthException, EOFError, OSError, struct.error, InvalidDicomError),
    # Where warnings are errors; elsewhere the log drops pydicom's, which quote the value.
    Warning,
)
_COMPONENTS = {ord("^"), ord("="), ord("\\")}
"""Before each of these an ISO 2022 escape ends (PS3.5 6.1.2.5.3)."""


def subject_of(header: Dataset) -> Subject:
    """Read what a header says; what it does not say, or not readably, stays empty."""
    return Subject(
        patient_id=_text(header, "PatientID"),
        patient_name=_text(header, "PatientName"),
        study_uid=_text(header, "StudyInstanceUID"),
        accession_number=_text(header, "AccessionNumber"),
        sop_class_uid=_text(header, "SOPClassUID"),
        sop_instance_uid=_text(header, "SOPInstanceUID"),
    )


def subject_in(file: Path) -> Subject:
    """Read the header of a file of ours; an empty subject if that cannot be."""
    try:
        header = dcmread(file, stop_before_pixels=True, specific_tags=list(KEYWORDS))
    except _BROKEN:
        return Subject()
    return subject_of(header)


def _text(header: Dataset, keyword: str) -> str:
    try:
        element = cast("DataElement | RawDataElement | None", header.get_item(keyword))
        value = None if element is None else element.value
        if isinstance(value, bytes):
            value = _decoded(header, value)
        return "" if value is None else str(value).strip(" \0")
    except _BROKEN:
        return ""


def _decoded(header: Dataset, value: bytes) -> str:
    """By the declared character sets, else as Latin-1, in which every byte means something."""
    try:
        terms = [term.strip() for term in _declared(header).split("\\")]
        return decode_bytes(value, convert_encodings(terms), _COMPONENTS)
    except _BROKEN:
        return value.decode("latin-1")


def _declared(header: Dataset) -> str:
    element = cast("DataElement | RawDataElement | None", header.get_item("SpecificCharacterSet"))
    value = None if element is None else element.value
    if isinstance(value, bytes):
        return value.decode("ascii", "replace")
    return "\\".join(value) if isinstance(value, list) else str(value or "")
