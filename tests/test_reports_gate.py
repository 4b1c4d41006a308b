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
    ResultKind,
)
from covidnet_node.config import Results
from covidnet_node.errors import Park
from covidnet_node.reports import codes, gate
from covidnet_node.reports.encode import encode
from covidnet_node.reports.results import build_results
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


def _region(document: Dataset) -> Dataset:
    return named(document, "111030")[0]


def _drawing(change: Callable[[list[float]], list[float]]) -> Callable[[Dataset], None]:
    def draw(document: Dataset) -> None:
        region = _region(document)
        region.GraphicData = change([float(number) for number in region.GraphicData])

    return draw


def _region_elsewhere(document: Dataset) -> None:
    _region(document).ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID = "1.9"


def _region_of_other_class(document: Dataset) -> None:
    said = named(document, codes.EXPLAINED.value)[0].ConceptCodeSequence[0]
    said.CodeValue = codes.CLASSES["pneumonia"].value


def _second_evidence(document: Dataset) -> None:
    listed = document.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0]
    more = Dataset()
    more.ReferencedSOPClassUID, more.ReferencedSOPInstanceUID = "1.2.3", "1.9.9"
    listed.ReferencedSOPSequence.append(more)


def _other_observer(document: Dataset) -> None:
    named(document, "121012")[0].UID = "2.25.1"


def _other_device(document: Dataset) -> None:
    document.ContributingEquipmentSequence[0].DeviceUID = "2.25.1"


def _made_up_purpose(document: Dataset) -> None:
    purpose = document.ContributingEquipmentSequence[0].PurposeOfReferenceCodeSequence[0]
    purpose.CodeValue = "Newcode1"


def _undeclared_code(document: Dataset) -> None:
    named(document, codes.OUTCOME.value)[0].ConceptNameCodeSequence[
        0
    ].CodingSchemeDesignator = "99OTHER"


def _no_summary(document: Dataset) -> None:
    named(document, codes.SUMMARY.value)[0].TextValue = ""


def _no_notice(document: Dataset) -> None:
    summary = named(document, codes.SUMMARY.value)[0]
    summary.TextValue = summary.TextValue.replace("not for diagnosis", "")


def _predecessor(study: str, instance: str | None) -> Callable[[Dataset], None]:
    def add(document: Dataset) -> None:
        item, series, earlier = Dataset(), Dataset(), Dataset()
        item.ReferencedSOPClassUID = document.SOPClassUID
        item.ReferencedSOPInstanceUID = instance or document.SOPInstanceUID
        series.SeriesInstanceUID, series.ReferencedSOPSequence = "2.25.7", [item]
        earlier.StudyInstanceUID, earlier.ReferencedSeriesSequence = study, [series]
        document.PredecessorDocumentsSequence = [earlier]

    return add


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
    "no equipment": _without("ContributingEquipmentSequence"),
    "made-up purpose": _made_up_purpose,
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
    "undeclared code": _undeclared_code,
    "more evidence": _second_evidence,
    "other observer": _other_observer,
    "other device": _other_device,
    "no summary": _no_summary,
    "no notice": _no_notice,
    "predecessor of another study": _predecessor("1.2.9", "2.25.8"),
    "replaces itself": _predecessor("1.2.3.4", None),
    "region left of the image": _drawing(lambda line: [-1.0, *line[1:-2], -1.0, line[-1]]),
    "region below the image": _drawing(lambda line: [*line[:3], 61.5, *line[4:]]),
    "region right of the image": _drawing(lambda line: [*line[:2], 49.5, *line[3:]]),
    "region open": _drawing(lambda line: line[:-2]),
    "region without a pair": _drawing(lambda line: line[:-1]),
    "region a line": _drawing(lambda line: [*line[:4], *line[:2]]),
    "region nowhere": _drawing(lambda line: [float("nan")] * len(line)),
    "region of another image": _region_elsewhere,
    "region of an unlikely class": _region_of_other_class,
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


def test_a_predecessor_of_the_same_study_passes() -> None:
    source = header()
    dataset = reread(encode(build_results(order(source))[0].dataset))
    _predecessor("1.2.3.4", "2.25.8")(dataset)
    gate.check(dataset, source)


@pytest.mark.parametrize("wanted", ["comprehensive_3d", "comprehensive", "enhanced", "none"])
@OUTCOMES
def test_the_gate_knows_which_class_was_asked_for(analysis: Analysis, wanted: str) -> None:
    source = header()
    profile = Results(report=wanted, page=True)
    for built in build_results(order(source, analysis=analysis, profile=profile)):
        gate.check(built.dataset, source, profile)
        other = Results(report="enhanced" if wanted != "enhanced" else "comprehensive")
        if built.kind is ResultKind.REPORT:
            with pytest.raises(Park, match="class that the profile asks for"):
                gate.check(built.dataset, source, other)


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
