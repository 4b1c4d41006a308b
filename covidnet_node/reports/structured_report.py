"""The Structured Report: Comprehensive 3D SR, TID 1500 (PS3.16), one for every image.

The same tree answers all three outcomes. The first measurement group holds outcome, reason and
quality figures; a group per class follows where there are probabilities. The report is built
over a placeholder identity, because highdicom refuses what real sources contain; `results`
transplants the true one.
"""

from highdicom.sr import (
    AlgorithmIdentification,
    CodeContentItem,
    CodedConcept,
    Comprehensive3DSR,
    ContainerContentItem,
    ContentItem,
    ContentSequence,
    DeviceObserverIdentifyingAttributes,
    FindingSite,
    ImageContentItem,
    LanguageOfContentItemAndDescendants,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    NumContentItem,
    ObservationContext,
    ObserverContext,
    QualitativeEvaluation,
    RelationshipTypeValues,
    SourceImageForMeasurementGroup,
    TextContentItem,
    TrackingIdentifier,
)
from pydicom.dataset import Dataset

from covidnet_node.case import Algorithm, Outcome, ResultKind
from covidnet_node.intended_use import CLASSES, MANUFACTURER, PRODUCT
from covidnet_node.reports import codes, narrative, uids
from covidnet_node.reports.identity import STAND_INS, count, remarks, text
from covidnet_node.reports.order import Order, Reference
from covidnet_node.reports.series import Series

_CONTAINS = RelationshipTypeValues.CONTAINS
_ACQUISITION = RelationshipTypeValues.HAS_ACQ_CONTEXT


def build_report(order: Order, series: Series) -> Dataset:
    """Build the report with an empty identity."""
    evidence = _evidence(order.source)
    report = Comprehensive3DSR(
        evidence=[evidence],
        content=_tree(order, evidence)[0],
        series_instance_uid=series.uid,
        series_number=series.number,
        sop_instance_uid=uids.instance_uid(order, ResultKind.REPORT),
        instance_number=uids.instance_number(order, ResultKind.REPORT),
        manufacturer=MANUFACTURER,
        is_complete=True,
        is_verified=False,
        previous_versions=_previous(order.predecessor),
        series_description=series.description,
        coding_schemes=[codes.private_scheme()],
    )
    plain = Dataset()
    plain.update(report)
    # highdicom signs here with the time of day, which would make every repeat another object.
    del plain.ContributingEquipmentSequence
    return plain


def _evidence(source: Dataset) -> Dataset:
    """Reduce the source to its size and kind: all that highdicom may see of it."""
    evidence = Dataset()
    for keyword, stand_in in STAND_INS.items():
        setattr(evidence, keyword, stand_in)
    for keyword in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex",
                    "AccessionNumber", "StudyID", "StudyDate", "StudyTime"):  # fmt: skip
        setattr(evidence, keyword, None)
    for keyword in ("Rows", "Columns"):
        setattr(evidence, keyword, count(source, keyword))
    modality = text(source, "Modality")
    evidence.Modality = modality if modality in codes.MODALITIES else None
    return evidence


def _previous(predecessor: Reference | None) -> list[Dataset] | None:
    if predecessor is None:
        return None
    item = Dataset()
    # The predecessor answers an image of the same study.
    item.StudyInstanceUID = STAND_INS["StudyInstanceUID"]
    item.SeriesInstanceUID = predecessor.series_uid
    item.SOPClassUID = predecessor.sop_class_uid
    item.SOPInstanceUID = predecessor.sop_uid
    return [item]


def _tree(order: Order, evidence: Dataset) -> MeasurementReport:
    analyzed = order.analysis.outcome is not Outcome.NOT_ANALYZED
    report = MeasurementReport(
        observation_context=_observer(order.algorithm),
        procedure_reported=codes.CHEST_XRAY if analyzed else codes.IMAGING,
        imaging_measurements=[_result(order, evidence), *_classes(order, evidence)],
        title=codes.TITLE,
        language_of_content_item_and_descendants=LanguageOfContentItemAndDescendants(codes.ENGLISH),
    )
    content = report[0].ContentSequence
    # Before the measurements: TID 1500 is extensible, and a reader starts at the top.
    for item in (*_texts(order), _library(evidence)):
        content.insert(len(content) - 1, item)
    return report


def _observer(algorithm: Algorithm | None) -> ObservationContext:
    device = DeviceObserverIdentifyingAttributes(
        uid=uids.device_uid(algorithm),
        name=PRODUCT,
        manufacturer_name=MANUFACTURER,
        model_name=PRODUCT,
        serial_number=uids.algorithm_digest(algorithm)[:16],
    )
    return ObservationContext(
        observer_device_context=ObserverContext(
            observer_type=codes.DEVICE, observer_identifying_attributes=device
        )
    )


def _texts(order: Order) -> list[TextContentItem]:
    words = [(codes.SUMMARY, narrative.summary(order))]
    words += [(codes.COMMENT, line) for line in narrative.comments(order, remarks(order.source))]
    return [TextContentItem(name=name, value=line, relationship_type=_CONTAINS)
            for name, line in words]  # fmt: skip


def _library(evidence: Dataset) -> ContainerContentItem:
    """List the source in the image library (TID 1600), with what is sure about it."""
    image = ImageContentItem(
        name=codes.SOURCE,
        referenced_sop_class_uid=evidence.SOPClassUID,
        referenced_sop_instance_uid=evidence.SOPInstanceUID,
        relationship_type=_CONTAINS,
    )
    facts: list[ContentItem] = []
    if evidence.Modality in codes.MODALITIES:
        modality = codes.MODALITIES[evidence.Modality]
        facts.append(CodeContentItem(codes.MODALITY, modality, _ACQUISITION))
    for name, side in ((codes.PIXEL_ROWS, evidence.Rows), (codes.PIXEL_COLUMNS, evidence.Columns)):
        if side is not None:
            facts.append(NumContentItem(name, side, codes.PIXELS, relationship_type=_ACQUISITION))
    if facts:
        image.ContentSequence = ContentSequence(facts)
    group = ContainerContentItem(codes.IMAGE_LIBRARY_GROUP, relationship_type=_CONTAINS)
    group.ContentSequence = ContentSequence([image])
    library = ContainerContentItem(codes.IMAGE_LIBRARY, relationship_type=_CONTAINS)
    library.ContentSequence = ContentSequence([group])
    return library


def _result(order: Order, evidence: Dataset) -> MeasurementsAndQualitativeEvaluations:
    """Say how the analysis ended, why, and on what quality of input."""
    analysis = order.analysis
    said = [QualitativeEvaluation(codes.OUTCOME, codes.OUTCOMES[analysis.outcome])]
    if analysis.reason is not None:
        said.append(QualitativeEvaluation(codes.REASON, codes.reason_code(analysis.reason)))
    inside = None if analysis.explanation is None else analysis.explanation.energy_in_lungs
    figures = [
        (codes.LUNG_AREA, analysis.lung_area_fraction),
        (codes.DISTANCE, analysis.out_of_distribution),
    ]
    if analysis.outcome is not Outcome.NOT_ANALYZED:
        figures += [(codes.DISAGREEMENT, analysis.disagreement), (codes.ENERGY, inside)]
    measured = [_percentage(name, value) for name, value in figures if value is not None]
    return _group(order, evidence, title="AI result", finding=_conclusion(order),
                  measured=measured, said=said)  # fmt: skip


def _conclusion(order: Order) -> CodedConcept:
    if order.analysis.outcome is Outcome.NOT_ANALYZED:
        return codes.NOTHING_FOUND
    name = None if order.algorithm is None else narrative.called(order.analysis, order.algorithm)
    return codes.NO_CONCLUSION if name is None else codes.CONCLUSIONS[name]


def _classes(order: Order, evidence: Dataset) -> list[MeasurementsAndQualitativeEvaluations]:
    """One group per class: the calibrated probability, and what each member said."""
    analysis = order.analysis
    if analysis.outcome is Outcome.NOT_ANALYZED or analysis.probabilities is None:
        return []
    groups = []
    for name in CLASSES:
        share = analysis.probabilities.of(name)
        measured = [_percentage(codes.CERTAINTY, share)]
        for member in analysis.members:
            share = member.probabilities.of(name)
            version = "" if order.algorithm is None else order.algorithm.version
            who = AlgorithmIdentification(
                name=narrative.ascii_text(member.name), version=version or "unknown"
            )
            measured.append(_percentage(codes.MEMBER_CERTAINTY, share, who))
        if name == "covid19" and order.algorithm is not None:
            measured.append(_percentage(codes.THRESHOLD, order.algorithm.covid19_threshold))
        title = f"Probability of {narrative.CLASS_WORDS[name]}"
        group = _group(order, evidence, title=title, finding=codes.CLASSES[name],
                       measured=measured, said=[])  # fmt: skip
        groups.append(group)
    return groups


def _group(
    order: Order,
    evidence: Dataset,
    *,
    title: str,
    finding: CodedConcept,
    measured: list[Measurement],
    said: list[QualitativeEvaluation],
) -> MeasurementsAndQualitativeEvaluations:
    return MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(
            uid=uids.tracking_uid(order, title), identifier=title
        ),
        finding_type=finding,
        finding_sites=[FindingSite(codes.LUNG)],
        algorithm_id=_algorithm(order.algorithm),
        measurements=measured,
        qualitative_evaluations=said,
        source_images=[
            SourceImageForMeasurementGroup(
                referenced_sop_class_uid=evidence.SOPClassUID,
                referenced_sop_instance_uid=evidence.SOPInstanceUID,
            )
        ],
    )


def _algorithm(algorithm: Algorithm | None) -> AlgorithmIdentification | None:
    """Name the weights (TID 4019): digest, threshold and calibration are its parameters."""
    if algorithm is None:
        return None
    return AlgorithmIdentification(
        name=narrative.ascii_text(algorithm.name),
        version=narrative.ascii_text(algorithm.version),
        parameters=[
            f"weights manifest SHA-256 {algorithm.digest}",
            f"COVID-19 threshold {algorithm.covid19_threshold:.4f}",
            f"calibration {narrative.ascii_text(algorithm.calibration) or 'not stated'}",
        ],
        family=codes.ARTIFICIAL_INTELLIGENCE,
        manufacturer=MANUFACTURER,
    )


def _percentage(
    name: CodedConcept, share: float, algorithm: AlgorithmIdentification | None = None
) -> Measurement:
    return Measurement(
        name=name, value=round(100 * share, 2), unit=codes.PERCENT, algorithm_id=algorithm
    )
