"""The last look before an object may leave: fail closed, with the reason kept.

Checks the finished object against the header it answers, independently of how it was built.
"""

from collections.abc import Callable, Iterator

from pydicom.dataset import Dataset
from pydicom.uid import UID, Comprehensive3DSRStorage, SecondaryCaptureImageStorage

from covidnet_node.case import Outcome, Reason
from covidnet_node.errors import Park
from covidnet_node.reports import codes
from covidnet_node.reports.identity import (
    REQUIRED_EMPTY,
    count,
    items,
    text,
    undecoded,
    value_bytes,
)

_IDENTITY = ("SpecificCharacterSet", "StudyInstanceUID", *REQUIRED_EMPTY, "IssuerOfPatientID")
_REQUIRED = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID",
             "SeriesNumber", "Modality", "InstanceNumber", "Manufacturer")  # fmt: skip
_REPORT_REQUIRED = (
    "ManufacturerModelName",
    "DeviceSerialNumber",
    "SoftwareVersions",
    "CompletionFlag",
    "VerificationFlag",
    "ContentDate",
    "ContentTime",
    "ValueType",
    "ConceptNameCodeSequence",
    "ContentTemplateSequence",
    "ContentSequence",
    "CodingSchemeIdentificationSequence",
)
_REPORT_EMPTY = ("ReferencedPerformedProcedureStepSequence", "PerformedProcedureCodeSequence")
_IMAGE_REQUIRED = ("ConversionType", "ImageType", "Rows", "Columns", "DerivationDescription")
_IMAGE_FORBIDDEN = (
    "WindowCenter",
    "WindowWidth",
    "RescaleSlope",
    "RescaleIntercept",
    "VOILUTSequence",
    "ModalityLUTSequence",
    "PresentationLUTShape",
    "PixelSpacing",
    "ImagerPixelSpacing",
    "NominalScannedPixelSpacing",
)
_IMAGE_FORMAT = {
    "SamplesPerPixel": 3,
    "PlanarConfiguration": 0,
    "BitsAllocated": 8,
    "BitsStored": 8,
    "HighBit": 7,
    "PixelRepresentation": 0,
}
_PROBABILITIES = (codes.CERTAINTY.value, codes.MEMBER_CERTAINTY.value)


def check(result: Dataset, source: Dataset) -> None:
    """Let `result` pass if it is whole and belongs to `source`; raise Park(INVALID_RESULT) else.

    The words of the verdict name attributes, never their values.
    """
    look = _KINDS.get(text(result, "SOPClassUID"))
    wrong = [*_identity(result, source), *_missing(result, _REQUIRED)]
    wrong += ["not a class that this node sends"] if look is None else look(result, source)
    if wrong:
        raise Park(Reason.INVALID_RESULT, "; ".join(wrong))


def _identity(result: Dataset, source: Dataset) -> Iterator[str]:
    for keyword in _IDENTITY:
        given, expected = value_bytes(result, keyword), value_bytes(source, keyword)
        if (given or b"") != (expected or b""):
            yield f"{keyword} is not the source's"
    for keyword in REQUIRED_EMPTY:
        if keyword not in result:
            yield f"{keyword} is missing"
    for keyword in ("SeriesInstanceUID", "SOPInstanceUID"):
        own = text(result, keyword)
        if not UID(own).is_valid or own == text(source, keyword):
            yield f"{keyword} is not our own"


def _report(result: Dataset, source: Dataset) -> Iterator[str]:
    yield from _missing(result, _REPORT_REQUIRED)
    yield from (f"{keyword} is missing" for keyword in _REPORT_EMPTY if keyword not in result)
    if text(result, "CompletionFlag") != "COMPLETE":
        yield "CompletionFlag is not COMPLETE"
    if text(result, "VerificationFlag") != "UNVERIFIED":
        yield "VerificationFlag is not UNVERIFIED"
    listed = set(_evidence(result))
    itself = _names(source)
    if itself not in listed:
        yield "evidence does not list the source"
    tree = list(_content(result))
    for item in tree:
        for reference in items(item, "ReferencedSOPSequence"):
            if text(reference, "ReferencedSOPInstanceUID") not in {sop for _, _, sop in listed}:
                yield "content refers to an instance that the evidence does not list"
    yield from _findings(tree)


def _findings(tree: list[Dataset]) -> Iterator[str]:
    """Hold the outcome against what is claimed."""
    outcomes = [_value_code(item) for item in tree if _name(item) == codes.OUTCOME.value]
    known = {concept.value: outcome for outcome, concept in codes.OUTCOMES.items()}
    if len(outcomes) != 1 or outcomes[0] not in known:
        yield "outcome is not stated once"
        return
    shares = [item for item in tree if _name(item) in _PROBABILITIES]
    reasons = [item for item in tree if _name(item) == codes.REASON.value]
    outcome = known[outcomes[0]]
    if outcome is Outcome.NOT_ANALYZED and shares:
        yield "a probability in a report that says not analyzed"
    if outcome is not Outcome.NOT_ANALYZED:
        certain = [item for item in shares if _name(item) == codes.CERTAINTY.value]
        if len(certain) != len(codes.CLASSES):
            yield "not one probability for each class"
    if (outcome is Outcome.ANALYZED) == bool(reasons):
        yield "reason and outcome do not fit"
    if not all(0 <= _number(item) <= 100 for item in shares):
        yield "a probability outside 0 to 100 %"


def _image(result: Dataset, source: Dataset) -> Iterator[str]:
    yield from _missing(result, _IMAGE_REQUIRED)
    yield from (f"{keyword} must not be there" for keyword in _IMAGE_FORBIDDEN if keyword in result)
    if text(result, "PhotometricInterpretation") != "RGB":
        yield "PhotometricInterpretation is not RGB"
    for keyword, value in _IMAGE_FORMAT.items():
        if count(result, keyword) != value:
            yield f"{keyword} is not {value}"
    yield from _pixels(result)
    _, series_uid, sop_uid = _names(source)
    origins = [text(item, "ReferencedSOPInstanceUID")
               for item in items(result, "SourceImageSequence")]  # fmt: skip
    if origins != [sop_uid]:
        yield "SourceImageSequence does not name the source"
    listed = [(text(series, "SeriesInstanceUID"), text(item, "ReferencedSOPInstanceUID"))
              for series in items(result, "ReferencedSeriesSequence")
              for item in items(series, "ReferencedInstanceSequence")]  # fmt: skip
    if listed != [(series_uid, sop_uid)]:
        yield "ReferencedSeriesSequence does not name the source"


def _pixels(result: Dataset) -> Iterator[str]:
    data = undecoded(result, "PixelData") or b""
    length = 3 * (count(result, "Rows") or 0) * (count(result, "Columns") or 0)
    if not length or len(data) != length + length % 2:
        yield "PixelData has not the stated size"
    elif data[:length] == data[:1] * length:
        yield "PixelData is constant"


_KINDS: dict[str, Callable[[Dataset, Dataset], Iterator[str]]] = {
    Comprehensive3DSRStorage: _report,
    SecondaryCaptureImageStorage: _image,
}


def _missing(result: Dataset, keywords: tuple[str, ...]) -> Iterator[str]:
    for keyword in keywords:
        if undecoded(result, keyword) is None and count(result, keyword) is None:
            yield f"{keyword} is missing"


def _names(source: Dataset) -> tuple[str, str, str]:
    return (
        text(source, "StudyInstanceUID"),
        text(source, "SeriesInstanceUID"),
        text(source, "SOPInstanceUID"),
    )


def _evidence(result: Dataset) -> Iterator[tuple[str, str, str]]:
    for study in items(result, "CurrentRequestedProcedureEvidenceSequence"):
        for series in items(study, "ReferencedSeriesSequence"):
            for item in items(series, "ReferencedSOPSequence"):
                yield (
                    text(study, "StudyInstanceUID"),
                    text(series, "SeriesInstanceUID"),
                    text(item, "ReferencedSOPInstanceUID"),
                )


def _content(item: Dataset) -> Iterator[Dataset]:
    for child in items(item, "ContentSequence"):
        yield child
        yield from _content(child)


def _name(item: Dataset) -> str:
    return _code(item, "ConceptNameCodeSequence")


def _value_code(item: Dataset) -> str:
    return _code(item, "ConceptCodeSequence")


def _code(item: Dataset, keyword: str) -> str:
    named = items(item, keyword)
    return text(named[0], "CodeValue") if named else ""


def _number(item: Dataset) -> float:
    """Measured value; not a number where there is none, so that every bound rejects it."""
    measured = items(item, "MeasuredValueSequence")
    try:
        return float(text(measured[0], "NumericValue")) if measured else float("nan")
    except ValueError:
        return float("nan")
