"""The last look before an object may leave: fail closed, with the reason kept.

Checks the finished object against the header it answers, independently of how it was built.
"""

import re
import warnings
from collections.abc import Callable, Iterator

from pydicom.charset import decode_bytes, default_encoding, python_encoding
from pydicom.datadict import dictionary_VR, keyword_for_tag
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    Comprehensive3DSRStorage,
    GrayscaleSoftcopyPresentationStateStorage,
    ParametricMapStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)
from pydicom.valuerep import TEXT_VR_DELIMS

from covidnet_node.case import Analysis, Reason
from covidnet_node.config import Results
from covidnet_node.errors import Park
from covidnet_node.intended_use import NOTICE
from covidnet_node.reports import codes
from covidnet_node.reports.charset import UTF8
from covidnet_node.reports.checks import code, missing
from covidnet_node.reports.gate_answer import answer_faults
from covidnet_node.reports.gate_pictures import (
    look_at_contours,
    look_at_evidence_map,
    look_at_picture,
    look_at_segmentation,
)
from covidnet_node.reports.gate_report import report_faults
from covidnet_node.reports.identity import (
    NAMED_CHARSET,
    REQUIRED_EMPTY,
    items,
    tag_of,
    text,
    value_bytes,
)
from covidnet_node.reports.order import REPORT_CLASS_UIDS

_IDENTITY = ("SpecificCharacterSet", "StudyInstanceUID", *REQUIRED_EMPTY, "IssuerOfPatientID")
_OWN_TEXT = ("SeriesDescription", "Manufacturer", "ManufacturerModelName", "SoftwareVersions",
             "ContentLabel", "ContentDescription", "ImageComments",
             "DerivationDescription")  # fmt: skip
_REQUIRED = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID",
             "SeriesNumber", "Modality", "InstanceNumber", "Manufacturer")  # fmt: skip
REPORT_CLASSES = frozenset(REPORT_CLASS_UIDS.values())
_MODALITIES: dict[str, str] = {
    **dict.fromkeys(REPORT_CLASSES, "SR"),
    SecondaryCaptureImageStorage: "OT",
    GrayscaleSoftcopyPresentationStateStorage: "PR",
    SegmentationStorage: "SEG",
    ParametricMapStorage: "OT",
}
_PATIENT = 0x0010
_STUDY = frozenset(
    tag_of(keyword)
    for keyword in ("TimezoneOffsetFromUTC", "StudyDescription", "IssuerOfAccessionNumberSequence",
                    "PhysiciansOfRecord", "ProcedureCodeSequence", "AdmissionID")
)  # fmt: skip
_FALLBACK = Comprehensive3DSRStorage
"""Class of a report that no profile asked for: "not analyzed" is always reported."""
_ESCAPE = re.compile(r"\x1b[ -/]*[0-~]")


def check(
    result: Dataset,
    source: Dataset,
    profile: Results | None = None,
    analysis: Analysis | None = None,
) -> None:
    """Let `result` pass if it is whole and belongs to `source`; raise Park(INVALID_RESULT) else.

    With an analysis it must also show what that said.

    With a profile it must also be of the class that the profile asks for. The identity must have
    the source's bytes; only where the profile asks for UTF-8 may it be converted, and then it must
    read the same. The words of the verdict name attributes, never their values.
    """
    look = _KINDS.get(text(result, "SOPClassUID"))
    same = _reads_the_same if _is_converted(result, source, profile) else _same_bytes
    wrong = [*_identity(result, source, same), *missing(result, _REQUIRED), *_equipment(result)]
    wrong += _labels(result, source)
    if profile is not None:
        wrong += _unwanted(result, profile)
    wrong += ["not a class that this node sends"] if look is None else look(result, source)
    if not wrong and analysis is not None:
        wrong += answer_faults(result, analysis)
    if wrong:
        raise Park(Reason.INVALID_RESULT, "; ".join(wrong))


def _is_converted(result: Dataset, source: Dataset, profile: Results | None) -> bool:
    wanted = profile is not None and profile.character_set == "utf8"
    before, after = (text(each, "SpecificCharacterSet") for each in (source, result))
    return wanted and before != UTF8 and after == UTF8


def _same_bytes(result: Dataset, source: Dataset, keyword: str) -> bool:
    return (value_bytes(result, keyword) or b"") == (value_bytes(source, keyword) or b"")


def _reads_the_same(result: Dataset, source: Dataset, keyword: str) -> bool:
    """Compare as a reader would see it, decoded by pydicom, which took no part in converting."""
    if keyword == "SpecificCharacterSet":
        return True
    vr = dictionary_VR(tag_of(keyword))
    if vr == "SQ":
        return len(items(result, keyword)) == len(items(source, keyword))
    if vr not in NAMED_CHARSET:  # no text: carried over as it is, valid or not
        return _same_bytes(result, source, keyword)
    declared = [python_encoding.get(name.strip(), default_encoding)
                for name in text(source, "SpecificCharacterSet").split("\\")]  # fmt: skip
    try:
        given = (value_bytes(result, keyword) or b"").decode("utf-8")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = decode_bytes(value_bytes(source, keyword) or b"", declared, TEXT_VR_DELIMS)
    except ValueError:
        return False
    # pydicom leaves the escape sequence of ISO 2022 IR 58 in the text.
    return given.rstrip(" \0") == _ESCAPE.sub("", expected).rstrip(" \0")


def _identity(
    result: Dataset, source: Dataset, same: Callable[[Dataset, Dataset, str], bool]
) -> Iterator[str]:
    for keyword in _IDENTITY:
        if not same(result, source, keyword):
            yield f"{keyword} is not the source's"
    for keyword in REQUIRED_EMPTY:
        if keyword not in result:
            yield f"{keyword} is missing"
    # Whatever else is told of the patient, or of the study's place in time and among orders.
    for tag in result.group_dataset(_PATIENT).keys() | (_STUDY & result.keys()):
        keyword = keyword_for_tag(tag)
        if keyword not in _IDENTITY and not same(result, source, keyword):
            yield f"{keyword} is not the source's"
    for keyword in ("SeriesInstanceUID", "SOPInstanceUID"):
        own = text(result, keyword)
        if not UID(own).is_valid or own == text(source, keyword):
            yield f"{keyword} is not our own"


def _labels(result: Dataset, source: Dataset) -> Iterator[str]:
    """What viewers show in lists and corners: kind, notice, and nothing a charset may garble."""
    sop_class = text(result, "SOPClassUID")
    if text(result, "Modality") != _MODALITIES.get(sop_class):
        yield "Modality is not that of the class"
    if NOTICE not in text(result, "SeriesDescription"):
        yield "SeriesDescription is without the notice"
    if not all(text(result, keyword).isascii() for keyword in _OWN_TEXT):
        yield "a text of ours is not ASCII"
    frame = text(result, "FrameOfReferenceUID")
    if frame and frame != text(source, "FrameOfReferenceUID"):
        yield "FrameOfReferenceUID is not the source's"


def _equipment(result: Dataset) -> Iterator[str]:
    """What made it, the device first, is named by a standard purpose and a UID."""
    named = [(code(item, "PurposeOfReferenceCodeSequence"), UID(text(item, "DeviceUID")).is_valid)
             for item in items(result, "ContributingEquipmentSequence")]  # fmt: skip
    if set(named) != {(codes.PROCESSING_EQUIPMENT.value, True)}:
        yield "ContributingEquipmentSequence does not name this device"


def _unwanted(result: Dataset, profile: Results) -> Iterator[str]:
    stated = text(result, "SOPClassUID")
    if stated in REPORT_CLASSES and stated != REPORT_CLASS_UIDS.get(profile.report, _FALLBACK):
        yield "not the report class that the profile asks for"


_KINDS: dict[str, Callable[[Dataset, Dataset], Iterator[str]]] = {
    **dict.fromkeys(REPORT_CLASSES, report_faults),
    SecondaryCaptureImageStorage: look_at_picture,
    GrayscaleSoftcopyPresentationStateStorage: look_at_contours,
    SegmentationStorage: look_at_segmentation,
    ParametricMapStorage: look_at_evidence_map,
}
