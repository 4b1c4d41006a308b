"""No damaged result leaves the node."""

from collections.abc import Callable

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    DigitalXRayImageStorageForPresentation,
)

from covidnet_node.case import (
    Analysis,
    Outcome,
    Reason,
)
from covidnet_node.errors import Park
from covidnet_node.reports import codes, gate
from covidnet_node.reports.results import build_results, encode
from tests.orders import OUTCOMES, header, named, order, reread

# The gate


def _no_evidence(document: Dataset) -> None:
    del document.CurrentRequestedProcedureEvidenceSequence


def _other_evidence(document: Dataset) -> None:
    study = document.CurrentRequestedProcedureEvidenceSequence[0]
    study.ReferencedSeriesSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID = "1.9.9"


def _impossible_probability(document: Dataset) -> None:
    named(document, codes.CERTAINTY.value)[0].MeasuredValueSequence[0].NumericValue = "130"


def _lost_probability(document: Dataset) -> None:
    named(document, codes.CERTAINTY.value)[0].ConceptNameCodeSequence[0].CodeValue = "X"


def _says_not_analyzed(document: Dataset) -> None:
    said = named(document, codes.OUTCOME.value)[0].ConceptCodeSequence[0]
    said.CodeValue = codes.OUTCOMES[Outcome.NOT_ANALYZED].value


def _setting(keyword: str, value: object) -> Callable[[Dataset], None]:
    return lambda dataset: setattr(dataset, keyword, value)


def _without(keyword: str) -> Callable[[Dataset], None]:
    return lambda dataset: delattr(dataset, keyword)


EITHER = {
    "other patient id": _setting("PatientID", "PH-2"),
    "other name": _setting("PatientName", "Else^Somebody"),
    "other study": _setting("StudyInstanceUID", "1.2.3.5"),
    "source's series": _setting("SeriesInstanceUID", "1.2.3.4.1"),
    "source's uid": _setting("SOPInstanceUID", "1.2.3.4.1.1"),
    "other character set": _setting("SpecificCharacterSet", "ISO_IR 192"),
    "no birth date": _without("PatientBirthDate"),
    "no modality": _without("Modality"),
    "no manufacturer": _setting("Manufacturer", ""),
    "other class": _setting("SOPClassUID", DigitalXRayImageStorageForPresentation),
}
REPORT_ONLY = {
    "no evidence": _no_evidence,
    "other evidence": _other_evidence,
    "impossible probability": _impossible_probability,
    "lost probability": _lost_probability,
    "probability though not analyzed": _says_not_analyzed,
    "partial": _setting("CompletionFlag", "PARTIAL"),
    "verified": _setting("VerificationFlag", "VERIFIED"),
    "no content": _without("ContentSequence"),
    "no step sequence": _without("ReferencedPerformedProcedureStepSequence"),
    "undeclared codes": _without("CodingSchemeIdentificationSequence"),
}
HEATMAP_ONLY = {
    "window": _setting("WindowCenter", "100"),
    "pixel spacing": _setting("PixelSpacing", ["0.1", "0.1"]),
    "rows": _setting("Rows", 60),
    "constant": _setting("PixelData", b"\x07" * (61 * 49 * 3 + 1)),
    "planes": _setting("PlanarConfiguration", 1),
    "no source": _without("SourceImageSequence"),
    "no reference": _without("ReferencedSeriesSequence"),
    "gray": _setting("PhotometricInterpretation", "MONOCHROME2"),
}


@OUTCOMES
def test_the_gate_lets_whole_results_pass(analysis: Analysis) -> None:
    source = header()
    for built in build_results(order(source, analysis=analysis)):
        gate.check(built.dataset, source)
        gate.check(reread(encode(built.dataset)), source)


@pytest.mark.parametrize(
    ("kind", "damage"),
    [(0, one) for one in EITHER | REPORT_ONLY] + [(1, one) for one in EITHER | HEATMAP_ONLY],
)
def test_the_gate_stops_damaged_results(kind: int, damage: str) -> None:
    source = header()
    dataset = reread(encode(build_results(order(source))[kind].dataset))
    (EITHER | REPORT_ONLY | HEATMAP_ONLY)[damage](dataset)
    with pytest.raises(Park) as parked:
        gate.check(dataset, source)
    assert parked.value.reason is Reason.INVALID_RESULT
    assert "Somebody" not in str(parked.value)
