"""Every code that results use, in one table.

Standard codes were checked against PS3.16 as pydicom ships it; those of SNOMED CT that DICOM
does not list, against SNOMED International's COVID-19 pages. What has no standard code is
private, scheme 99COVIDNET, which each report declares (PS3.3 C.12.1.1.5).
"""

from highdicom.coding_schemes import CodingSchemeIdentificationItem
from highdicom.sr import CodedConcept
from pydicom.dataset import Dataset

from covidnet_node.case import Outcome, Reason
from covidnet_node.intended_use import FINDINGS, MANUFACTURER
from covidnet_node.reports.regions import Side, Zone

SCHEME = "99COVIDNET"


def _private(value: str, meaning: str) -> CodedConcept:
    return CodedConcept(value=value, scheme_designator=SCHEME, meaning=meaning)


def _dicom(value: str, meaning: str) -> CodedConcept:
    return CodedConcept(value=value, scheme_designator="DCM", meaning=meaning)


def _snomed(value: str, meaning: str) -> CodedConcept:
    return CodedConcept(value=value, scheme_designator="SCT", meaning=meaning)


def _unit(value: str, meaning: str) -> CodedConcept:
    return CodedConcept(value=value, scheme_designator="UCUM", meaning=meaning)


# A title outside CID 7021, which is extensible. Under 126000 (Imaging Measurement Report) OHIF
# looks for regions to draw and shows a black viewport where there are none; under any other
# title it shows the tree as text. A title of our own also keeps a reader from taking this for
# the radiologist's report.
TITLE = _private("AIRESULT", "AI chest X-ray result, research use only")

ENGLISH = CodedConcept(
    value="en-US", scheme_designator="RFC5646", meaning="English (United States)"
)
DEVICE = _dicom("121007", "Device")
SUMMARY = _dicom("121111", "Summary")
COMMENT = _dicom("121106", "Comment")
CHEST_XRAY = _snomed("399208008", "Plain X-ray of chest")
IMAGING = _snomed("363679005", "Imaging procedure")
LUNG = _snomed("39607008", "Lung")
ZONES = {
    Zone.UPPER: _snomed("281392002", "Upper zone of lung"),
    Zone.MIDDLE: _snomed("281393007", "Middle zone of lung"),
    Zone.LOWER: _snomed("281394001", "Lower zone of lung"),
}
SIDES = {Side.LEFT: _snomed("7771000", "Left"), Side.RIGHT: _snomed("24028007", "Right")}
MAXIMUM = _snomed("56851009", "Maximum")
ARTIFICIAL_INTELLIGENCE = _dicom("123110", "Artificial Intelligence")
PROCESSING_EQUIPMENT = _dicom("109102", "Processing Equipment")
GRAD_CAM = _dicom("130403", "Gradient-weighted class activation")
SOURCE_IMAGE = _dicom("121322", "Source image for image processing operation")
IMAGE_LIBRARY = _dicom("111028", "Image Library")
IMAGE_LIBRARY_GROUP = _dicom("126200", "Image Library Group")
SOURCE = _snomed("260753009", "Source")
MODALITY = _dicom("121139", "Modality")
PIXEL_ROWS = _dicom("110910", "Pixel Data Rows")
PIXEL_COLUMNS = _dicom("110911", "Pixel Data Columns")

CERTAINTY = _dicom("111012", "Certainty of Finding")
MEMBER_CERTAINTY = _private("MEMBERCERT", "Certainty of finding by one member network")
DISAGREEMENT = _private("DISAGREEMENT", "Disagreement of the member networks")
DISTANCE = _private("OUTOFDIST", "Distance from the training data")
LUNG_AREA = _private("LUNGAREA", "Lung area as fraction of the image")
ENERGY = _private("ENERGYINLUNGS", "Share of the heatmap inside the lungs")
THRESHOLD = _private("THRESHOLD", "Probability from which the finding is called")
PEAK = _private("HEATMAPPEAK", "Peak of the heatmap, not the outline of a lesion")
EXPLAINED = _private("EXPLAINEDCLASS", "Class that the heatmap explains")
PLACE = _private("PLACEINIMAGE", "Place in the image as stored")
REGION_SHARE = _private("REGIONSHARE", "Share of the heatmap within the region")
IMAGE_READ = _private("IMAGEREAD", "Image that the result is about")
WHERE = _private("WHERE", "Where the networks looked")
TRUST = _private("TRUST", "How far the result can be trusted")
METHOD = _private("METHOD", "What made this result")
REMARK = _private("INPUTREMARK", "Remark on the input")
QUALITY = _private("INPUTQUALITY", "Quality of the input")
OUTCOME = _private("OUTCOME", "Outcome of the analysis")
REASON = _private("REASON", "Reason of the outcome")

PERCENT = _unit("%", "Percent")
PIXELS = _unit("{pixels}", "Pixels")
NO_UNITS = _unit("1", "no units")

MODALITIES = {
    "CR": _dicom("CR", "Computed Radiography"),
    "DX": _dicom("DX", "Digital Radiography"),
    "RG": _dicom("RG", "Radiographic imaging"),
}

CLASSES = {
    "covid19": _snomed("840539006", "COVID-19"),
    "pneumonia": _snomed("233604007", "Pneumonia"),
    "normal": _private("NOPATTERN", "No COVID-19 or pneumonia pattern found"),
}
"""Finding of each class. SNOMED CT's "normal" would promise more than was looked for; its
"pneumonia caused by SARS-CoV-2" has 18 digits, more than Code Value (SH) holds."""

CONCLUSIONS = {
    "covid19": _private("COMPATCOVID", FINDINGS["covid19"]),
    "pneumonia": _private("COMPATPNEUMONIA", FINDINGS["pneumonia"]),
    "normal": CLASSES["normal"],
}
NO_CONCLUSION = _private("NOCONCLUSION", "Inconclusive: no conclusion")
NOTHING_FOUND = _private("NOTASSESSED", "Not analyzed: nothing was assessed")

OUTCOMES = {
    Outcome.ANALYZED: _private("ANALYZED", "Analyzed"),
    Outcome.INCONCLUSIVE: _private("INCONCLUSIVE", "Inconclusive: no conclusion"),
    Outcome.NOT_ANALYZED: _private("NOTANALYZED", "Not analyzed"),
}

_REASONS = {
    Reason.LATERAL: "Lateral view, outside intended use",
    Reason.UNDER_18: "Patient under 18, outside intended use",
    Reason.AGE_UNKNOWN: "Age of the patient unknown, outside intended use",
    Reason.TOO_SMALL: "Image too small to read",
    Reason.NOT_A_CHEST: "Not a chest radiograph",
    Reason.NO_PLAUSIBLE_LUNGS: "No plausible lungs found",
    Reason.UNDECODABLE: "Pixels cannot be decoded",
    Reason.PIXELS_CHANGED: "Other pixels under a known instance UID",
    Reason.TECHNICAL_FAILURE: "Technical failure",
    Reason.MEMBERS_DISAGREE: "Member networks disagree",
    Reason.OUT_OF_DISTRIBUTION: "Image is far from the training data",
    Reason.LOW_CONFIDENCE: "No class is likely enough",
}


SHORTENED = {Reason.OUT_OF_DISTRIBUTION: "OUTOFDISTRIB"}
"""Names longer than a Code Value may be (SH, 16)."""


def reason_words(reason: Reason) -> str:
    """Say a reason in words for a reader, at most 64 characters (LO)."""
    return _REASONS.get(reason, reason.value.replace("_", " ").capitalize())


def reason_code(reason: Reason) -> CodedConcept:
    """Code a reason; its value is the reason's name without underscores, or its short form."""
    value = SHORTENED.get(reason) or reason.name.replace("_", "")
    return _private(value, reason_words(reason))


def plain(concept: CodedConcept) -> Dataset:
    """Copy a code as an item for a sequence outside the content tree."""
    item = Dataset()
    item.update(concept)
    return item


def place(side: Side, zone: Zone) -> CodedConcept:
    """Code half and third of the image; of the patient's side it says nothing."""
    return _private(
        f"IMG{side.name}{zone.name}", f"{side.value.capitalize()} of the image, {zone.value} third"
    )


def private_scheme() -> CodingSchemeIdentificationItem:
    """Declare 99COVIDNET for Coding Scheme Identification Sequence (0008,0110)."""
    return CodingSchemeIdentificationItem(
        designator=SCHEME,
        name="CovidNet Node private codes",
        responsible_organization=MANUFACTURER,
    )
