"""Digests that decide whether an image came before: by its pixels and by its identity.

Two objects with the same digests give the same results. Transfer syntax, padding of values,
order of elements and the character set that equal text is written in make no difference.
"""

import hashlib
from collections.abc import Iterable, Iterator

import numpy as np
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag, Tag

from covidnet_node.imaging.compressed import Stored
from covidnet_node.imaging.header import BROKEN_HEADER, quiet
from covidnet_node.imaging.lut import read_lut

_PATIENT = """
    PatientName PatientID IssuerOfPatientID IssuerOfPatientIDQualifiersSequence TypeOfPatientID
    PatientBirthDate PatientBirthTime PatientSex PatientSexNeutered OtherPatientIDs
    OtherPatientIDsSequence OtherPatientNames EthnicGroup PatientComments QualityControlSubject
    PatientSpeciesDescription PatientSpeciesCodeSequence PatientBreedDescription
    ResponsiblePerson ResponsiblePersonRole ResponsibleOrganization PatientIdentityRemoved
    DeidentificationMethod DeidentificationMethodCodeSequence ReferencedPatientSequence
    PatientAge PatientSize PatientWeight Occupation AdditionalPatientHistory MedicalAlerts
    Allergies SmokingStatus PregnancyStatus PatientState SpecialNeeds AdmissionID
    IssuerOfAdmissionIDSequence AdmittingDiagnosesDescription AdmittingDiagnosesCodeSequence
    ClinicalTrialSponsorName ClinicalTrialProtocolID ClinicalTrialProtocolName
    ClinicalTrialSiteID ClinicalTrialSiteName ClinicalTrialSubjectID
    ClinicalTrialSubjectReadingID ClinicalTrialTimePointID
"""
_STUDY = """
    StudyInstanceUID StudyDate StudyTime StudyID StudyDescription AccessionNumber
    IssuerOfAccessionNumberSequence ReferringPhysicianName
    ReferringPhysicianIdentificationSequence ConsultingPhysicianName PhysiciansOfRecord
    NameOfPhysiciansReadingStudy RequestingService ReferencedStudySequence
    ProcedureCodeSequence ReasonForPerformedProcedureCodeSequence TimezoneOffsetFromUTC
"""
_IMAGE = """
    SOPClassUID SOPInstanceUID InstanceNumber ImageType Modality SeriesInstanceUID SeriesNumber
    SeriesDescription SeriesDate SeriesTime AcquisitionDate AcquisitionTime ContentDate
    ContentTime ProtocolName BodyPartExamined AnatomicRegionSequence Laterality ImageLaterality
    ViewPosition ViewCodeSequence PatientOrientation PresentationIntentType
    ReferencedPerformedProcedureStepSequence RequestAttributesSequence BurnedInAnnotation
    RecognizableVisualFeatures LossyImageCompression LossyImageCompressionRatio
    LossyImageCompressionMethod PixelSpacing ImagerPixelSpacing PixelAspectRatio
    DetectorType Manufacturer ManufacturerModelName
"""
_DISPLAY = """
    PhotometricInterpretation PresentationLUTShape ModalityLUTSequence RescaleSlope
    RescaleIntercept RescaleType VOILUTSequence WindowCenter WindowWidth VOILUTFunction
    PixelPaddingValue PixelPaddingRangeLimit BitsStored
"""
IDENTITY_KEYWORDS = tuple(
    keyword
    for keyword in f"{_PATIENT} {_STUDY} {_IMAGE}".split()
    if not keyword.endswith("Sequence")
)
"""Of whom and of what an image is, in plain values."""
_COVERED = tuple(sorted(f"{_PATIENT} {_STUDY} {_IMAGE} {_DISPLAY}".split()))

_SPECIFIC_CHARACTER_SET = Tag(0x0008, 0x0005)
_LUT_DATA = Tag(0x0028, 0x3006)
_PHOTOMETRIC = Tag(0x0028, 0x0004)
_PATIENT_NAMES = frozenset({"PN"})
_NUMBERS = frozenset({"DS", "IS", "FL", "FD", "US", "SS", "UL", "SL", "US or SS", "UV", "SV"})
_VALUE, _LIST, _ITEM = b"\x1e", b"\x1d", b"\x1c"
"""Separators that no DICOM text may contain."""


def pixel_digest(stored: Stored) -> str:
    """SHA-256 in hex over shape and stored values.

    Equal values digest equally whatever their dtype's width or byte order, so that an image is
    recognized in another transfer syntax.
    """
    canonical = np.ascontiguousarray(stored, dtype=_canonical_type(stored))
    digest = hashlib.sha256(f"{canonical.dtype.str}{canonical.shape}".encode())
    digest.update(canonical.data)
    return digest.hexdigest()


def identity_digest(dataset: Dataset) -> str:
    """SHA-256 in hex over every header attribute, pixels aside, that shapes a result.

    Patient and study as reports copy them, series and instance, view, laterality and display
    attributes. An empty attribute counts as absent. Broken values count by their bytes.
    """
    digest = hashlib.sha256()
    for keyword in _COVERED:
        tag = tag_for_keyword(keyword)
        value = _element(dataset, Tag(tag)) if tag is not None else b""
        if value:
            digest.update(_VALUE + keyword.encode() + _VALUE + value)
    return digest.hexdigest()


def _canonical_type(stored: Stored) -> str:
    """The narrowest of a fixed set of types that holds the values: a matter of content only."""
    if np.issubdtype(stored.dtype, np.floating) or stored.size == 0:
        return "<f8"
    low, high = int(stored.min()), int(stored.max())
    for name in ("<u1", "<u2", "<i2"):
        limits = np.iinfo(name)
        if limits.min <= low and high <= limits.max:
            return name
    return "<i8"


def _element(dataset: Dataset, tag: BaseTag) -> bytes:
    """One element in canonical bytes, empty if it is absent or empty; never raises."""
    try:
        if tag not in dataset:
            return b""
        if tag == _LUT_DATA and (lut := read_lut(dataset)) is not None:
            return lut.entries.astype("<u2").tobytes()
        with quiet():
            return _canonical(dataset[tag])
    except BROKEN_HEADER:
        return _raw(dataset, tag)


def _raw(dataset: Dataset, tag: BaseTag) -> bytes:
    try:
        element = dataset.get_item(tag)
    except BROKEN_HEADER:
        return b"unreadable"
    value = element.value if isinstance(element, RawDataElement | DataElement) else None
    return value.rstrip(b" \0") if isinstance(value, bytes) else b"unreadable"


def _canonical(element: DataElement) -> bytes:
    value = element.value
    if value is None:
        return b""
    if isinstance(value, Sequence):
        return _ITEM.join(_ITEM + b"".join(_item(item)) for item in value)
    if isinstance(value, bytes | bytearray):
        return bytes(value).rstrip(b"\0 ")
    many = value if isinstance(value, Iterable) and not isinstance(value, str) else [value]
    if element.VR in _PATIENT_NAMES and hasattr(value, "components"):
        many = [value]
    return _LIST.join(_text(element, part) for part in many)


def _item(item: Dataset) -> Iterator[bytes]:
    """Elements of a sequence item by rising tag, which is the only order DICOM knows."""
    for tag in sorted(item.keys()):
        if tag == _SPECIFIC_CHARACTER_SET or tag.element == 0:
            continue
        if value := _element(item, tag):
            yield _VALUE + f"{tag:08x}".encode() + _VALUE + value


def _text(element: DataElement, part: object) -> bytes:
    if part is None:
        return b""
    if element.VR in _NUMBERS and part != "":
        return repr(float(str(part))).encode()
    words = str(part).strip(" \0")
    if element.VR in _PATIENT_NAMES:
        words = "=".join(group.rstrip("^ ") for group in words.split("=")).rstrip("=")
    if element.tag == _PHOTOMETRIC and words.startswith(("RGB", "YBR")):
        # Decoded to RGB either way; compression changes the name.
        words = "RGB"
    return words.encode("utf-8", "surrogatepass")
