"""Who and which study: the source's own elements, carried over byte for byte.

One policy for every attribute of patient and study. What the source has is copied as bytes,
together with its character set declaration, valid or not, and is never decoded on the way
(unless a destination wants UTF-8: `charset` then prepares the source first).
What the standard requires to be present but may be empty (type 2) and the source lacks is
present and empty. What cannot be written (longer than 64 KB, a sequence that cannot be read) is
left out, or empty where it is of type 2. Nothing is invented, nothing raises; `remarks` lists
what was not valid.

Our own text is ASCII, which reads the same under every character set of PS3.3 C.12.1.1.2.
"""

import re
import struct
import warnings
from datetime import timedelta, timezone
from typing import Literal

from pydicom.charset import default_encoding
from pydicom.config import IGNORE, RAISE
from pydicom.datadict import dictionary_has_tag, dictionary_VM, dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_data_element
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag, Tag
from pydicom.uid import ComputedRadiographyImageStorage
from pydicom.valuerep import validate_value
from pydicom.values import convert_SQ

REQUIRED_EMPTY = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
)
"""Type 2 in the Patient and General Study modules (PS3.3 C.7.1.1, C.7.2.1)."""

CARRIED = (
    "SpecificCharacterSet",
    "TimezoneOffsetFromUTC",
    "StudyInstanceUID",
    *REQUIRED_EMPTY,
    # Patient, PS3.3 C.7.1.1
    "IssuerOfPatientID",
    "IssuerOfPatientIDQualifiersSequence",
    "TypeOfPatientID",
    "OtherPatientIDs",
    "OtherPatientIDsSequence",
    "OtherPatientNames",
    "PatientBirthTime",
    "EthnicGroup",
    "PatientComments",
    "PatientSpeciesDescription",
    "PatientSpeciesCodeSequence",
    "PatientBreedDescription",
    "PatientBreedCodeSequence",
    "BreedRegistrationSequence",
    "ResponsiblePerson",
    "ResponsiblePersonRole",
    "ResponsibleOrganization",
    "PatientIdentityRemoved",
    "DeidentificationMethod",
    "DeidentificationMethodCodeSequence",
    # Clinical Trial Subject and Study, C.7.1.3, C.7.2.3
    "ClinicalTrialSponsorName",
    "ClinicalTrialProtocolID",
    "ClinicalTrialProtocolName",
    "ClinicalTrialSiteID",
    "ClinicalTrialSiteName",
    "ClinicalTrialSubjectID",
    "ClinicalTrialSubjectReadingID",
    "ClinicalTrialTimePointID",
    "ClinicalTrialTimePointDescription",
    # General Study, C.7.2.1
    "StudyDescription",
    "PhysiciansOfRecord",
    "NameOfPhysiciansReadingStudy",
    "IssuerOfAccessionNumberSequence",
    "ProcedureCodeSequence",
    "ReferencedStudySequence",
    "LongitudinalTemporalInformationModified",
    # Patient Study, C.7.2.2
    "PatientAge",
    "PatientSize",
    "PatientWeight",
    "PatientSexNeutered",
    "AdmissionID",
    "IssuerOfAdmissionIDSequence",
    "Occupation",
    "AdditionalPatientHistory",
    "MedicalAlerts",
    "Allergies",
    "AdmittingDiagnosesDescription",
)
"""All that a result takes over of patient and study."""

_TEXT = frozenset(("AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM",
                   "UC", "UI", "UR", "UT"))  # fmt: skip
NAMED_CHARSET = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})
"""Value representations that Specific Character Set governs (PS3.3 C.12.1.1.2)."""
_LONG = frozenset({"UC", "UR", "UT", "SQ"})
"""Value representations whose length field has 32 bits (PS3.5 7.1.2)."""
_SHORT_LIMIT = 0xFFFE
_BINARY = frozenset({"OB", "OF", "OW"})
_ITEM = struct.pack("<HH", 0xFFFE, 0xE000)
UNREADABLE = (ValueError, LookupError, TypeError, AttributeError, EOFError, OSError, struct.error,
               ArithmeticError, BytesLengthException, NotImplementedError,
               RecursionError)  # fmt: skip
"""What pydicom raises on broken bytes; each means only that this element cannot be carried."""
_DEEPEST = 8
_CHECKED = frozenset({"AS", "CS", "DA", "DS", "IS", "TM", "UI"})
"""Value representations that can be judged without knowing the character set."""


STAND_INS = {
    "StudyInstanceUID": "2.25.1",
    "SeriesInstanceUID": "2.25.2",
    "SOPInstanceUID": "2.25.3",
    "SOPClassUID": ComputedRadiographyImageStorage,
}
"""What results are built with in place of the source's UIDs, which real sources write with
leading zeros and worse. `transplant` puts the true ones in. (The class is one highdicom knows.)"""


def transplant(source: Dataset, target: Dataset) -> None:
    """Replace patient, study and stand-in UIDs of `target` by the source's own bytes."""
    true = {fake: value_bytes(source, keyword) or b"" for keyword, fake in STAND_INS.items()}
    _restore(target, true)
    for keyword in CARRIED:
        carry(source, target, keyword)
        tag = tag_of(keyword)
        if keyword in REQUIRED_EMPTY and tag not in target:
            target[tag] = raw_element(tag, b"")


def carry(source: Dataset, target: Dataset, keyword: str) -> None:
    """Set one attribute to the source's bytes; remove it where the source has none to give."""
    tag = tag_of(keyword)
    if tag in target:
        del target[tag]
    value = value_bytes(source, keyword)
    if value is not None:
        target[tag] = raw_element(tag, value)


def value_bytes(source: Dataset, keyword: str) -> bytes | None:
    """Encoded value, little endian, as it would be written; None if absent or unwritable."""
    return _value(source, tag_of(keyword), 0)


def text(source: Dataset, keyword: str) -> str:
    """Value as ASCII without padding; "" if absent. For UIDs, codes, dates and numbers."""
    value = value_bytes(source, keyword) or b""
    return value.decode("ascii", "replace").strip(" \0")


def count(source: Dataset, keyword: str) -> int | None:
    """Value of a US element, such as Rows; None if absent or malformed."""
    tag = tag_of(keyword)
    element: DataElement | RawDataElement | None = source.get_item(tag) if tag in source else None
    if isinstance(element, RawDataElement):
        value = element.value or b""
        order: Literal["little", "big"] = "little" if element.is_little_endian else "big"
        return int.from_bytes(value, order) if len(value) == 2 else None
    return element.value if element is not None and isinstance(element.value, int) else None


def zone(source: Dataset) -> timezone | None:
    """Timezone Offset From UTC (0008,0201) of the source, None if absent or not valid."""
    found = re.fullmatch(r"([+-])(\d\d)([0-5]\d)", text(source, "TimezoneOffsetFromUTC"))
    if found is None or int(found[2]) > 14:
        return None
    offset = timedelta(hours=int(found[2]), minutes=int(found[3]))
    return timezone(-offset if found[1] == "-" else offset)


def remarks(source: Dataset) -> tuple[str, ...]:
    """Say which attributes of the source are not valid, by keyword, without their values."""
    present = [word for word in CARRIED if tag_of(word) in source]
    invalid = [word for word in present if not _valid(source, word)]
    lost = [word for word in present if value_bytes(source, word) is None]
    found = []
    if invalid:
        found.append("Not valid in the source, carried over unchanged: " + ", ".join(invalid))
    if lost:
        found.append("Unreadable in the source, not carried over: " + ", ".join(lost))
    return tuple(found)


def items(dataset: Dataset, keyword: str) -> tuple[Dataset, ...]:
    """Items of a sequence, none if it is absent or unreadable; no value in them is decoded."""
    try:
        return tuple(_items(dataset, tag_of(keyword)))
    except UNREADABLE:
        return ()


def undecoded(dataset: Dataset, keyword: str) -> bytes | None:
    """Bytes of an element of any kind as they stand in the data set; None if absent or empty."""
    tag = tag_of(keyword)
    element: DataElement | RawDataElement | None = dataset.get_item(tag) if tag in dataset else None
    if isinstance(element, RawDataElement) or (element is not None and element.VR in _BINARY):
        return element.value or None
    return value_bytes(dataset, keyword) or None


def raw_element(tag: BaseTag, value: bytes) -> RawDataElement:
    """Wrap little endian bytes as an element of a public tag."""
    return RawDataElement(
        tag,
        dictionary_VR(tag),
        len(value),
        value,
        value_tell=0,
        is_implicit_VR=False,
        is_little_endian=True,
    )


def pack_item(elements: bytes) -> bytes:
    """Wrap encoded elements as one item of defined length (PS3.5 7.5)."""
    return _ITEM + struct.pack("<L", len(elements)) + elements


def refer_to_requests(source: Dataset, target: Dataset) -> None:
    """Set Referenced Request Sequence (0040,A370) from the source's Request Attributes.

    One item per request (PS3.3 C.17.2); absent if the source names no request.
    """
    requests = items(source, "RequestAttributesSequence")
    encoded = b"".join(pack_item(_pack(_request(source, request))) for request in requests)
    if encoded:
        tag = tag_of("ReferencedRequestSequence")
        target[tag] = raw_element(tag, encoded)


def _request(source: Dataset, request: Dataset) -> Dataset:
    item = Dataset()
    for keyword, holder in (
        ("StudyInstanceUID", source),
        ("ReferencedStudySequence", request),
        ("AccessionNumber", request if tag_of("AccessionNumber") in request else source),
        ("IssuerOfAccessionNumberSequence", request),
        ("PlacerOrderNumberImagingServiceRequest", request),
        ("FillerOrderNumberImagingServiceRequest", request),
        ("RequestedProcedureID", request),
        ("RequestedProcedureDescription", request),
        ("RequestedProcedureCodeSequence", request),
    ):
        tag = tag_of(keyword)
        value = _value(holder, tag, 1)
        # All but the issuer are of type 2: present, empty where unknown.
        if value is not None or keyword != "IssuerOfAccessionNumberSequence":
            item[tag] = raw_element(tag, value or b"")
    return item


def _restore(dataset: Dataset, true: dict[str, bytes]) -> None:
    for tag in list(dataset.keys()):
        element: DataElement | RawDataElement = dataset.get_item(tag)
        if isinstance(element, RawDataElement):
            continue
        if element.VR == "SQ":
            for item in element.value:
                _restore(item, true)
        elif element.VR == "UI" and element.value in true:
            dataset[tag] = raw_element(tag, true[element.value])


def _valid(source: Dataset, keyword: str) -> bool:
    tag = tag_of(keyword)
    vr = dictionary_VR(tag)
    if vr not in _CHECKED:
        return True
    values = text(source, keyword).split("\\")
    if len(values) > 1 and dictionary_VM(tag) == "1":
        return False
    try:
        for value in values:
            validate_value(vr, value.strip(" \0"), RAISE)
    except ValueError:
        return False
    return True


def tag_of(keyword: str) -> BaseTag:
    """Tag of a public keyword."""
    number = tag_for_keyword(keyword)
    if number is None:
        raise AssertionError(keyword)
    return Tag(number)


def _value(source: Dataset, tag: BaseTag, depth: int) -> bytes | None:
    """Bytes of one public text element or sequence; None if absent or not to be written."""
    if tag not in source or not dictionary_has_tag(tag):
        return None
    vr = dictionary_VR(tag)
    try:
        if vr == "SQ":
            return _sequence(source, tag, depth)
        value = _text_bytes(source, tag, vr) if vr in _TEXT else None
    except UNREADABLE:
        return None
    if value is None or (vr not in _LONG and len(value) > _SHORT_LIMIT):
        return None
    return value + (b"\0" if vr == "UI" else b" ") * (len(value) % 2)


def _text_bytes(source: Dataset, tag: BaseTag, vr: str) -> bytes | None:
    element: DataElement | RawDataElement = source.get_item(tag)
    if isinstance(element, RawDataElement):
        return element.value or b""
    # Decoded already, so it is encoded anew, under the declaration it was decoded with.
    plain = DataElement(tag, vr, element.value, validation_mode=IGNORE)
    values = plain.value if isinstance(plain.value, MultiValue) else (plain.value,)
    if vr not in NAMED_CHARSET or all(str(value).isascii() for value in values):
        # Our own text is ASCII, and so it stays under a declaration that is none, such as "utf_16".
        return _encode(plain, default_encoding)
    declared: str | list[str] = text(source, "SpecificCharacterSet").split("\\")
    try:
        return _encode(plain, declared)
    except (LookupError, ValueError):
        # No character set of that name: pydicom decoded it under the default.
        return _encode(plain, default_encoding)


def _encode(element: DataElement, charset: str | list[str]) -> bytes:
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write_data_element(buffer, element, charset)
    return buffer.getvalue()[12 if element.VR in _LONG else 8 :]


def _sequence(source: Dataset, tag: BaseTag, depth: int) -> bytes | None:
    if depth > _DEEPEST:
        return None
    return b"".join(pack_item(_pack(_plain(item, depth + 1))) for item in _items(source, tag))


def _items(source: Dataset, tag: BaseTag) -> Sequence | list[Dataset]:
    if tag not in source:
        return []
    element: DataElement | RawDataElement = source.get_item(tag)
    if not isinstance(element, RawDataElement):
        return element.value if isinstance(element.value, Sequence) else []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return convert_SQ(
            element.value or b"", element.is_implicit_VR, element.is_little_endian, None
        )


def _plain(item: Dataset, depth: int) -> Dataset:
    """Copy the public text elements of an item; private and binary ones stay behind."""
    kept = Dataset()
    for tag in item.keys():  # noqa: SIM118 - iterating a data set would decode its elements
        value = _value(item, tag, depth)
        if value is not None:
            kept[tag] = raw_element(tag, value)
    return kept


def _pack(item: Dataset) -> bytes:
    packed = []
    for tag in sorted(item.keys()):
        element = item.get_item(tag)
        value, vr = element.value, str(element.VR)
        size = struct.pack("<HL", 0, len(value)) if vr in _LONG else struct.pack("<H", len(value))
        packed.append(
            struct.pack("<HH", tag.group, tag.element) + vr.encode("ascii") + size + value
        )
    return b"".join(packed)
