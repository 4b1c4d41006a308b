"""The Structured Report: TID 1500 (PS3.16), one for every image.

The same tree answers all three outcomes, in every SR class that a destination may want. The
first measurement group holds outcome and reason, the second what the input was worth; a group
per class follows where there are probabilities, then the heatmap's peaks as planar regions
(TID 1410). The report is built over a placeholder identity, because highdicom refuses what real
sources contain; `results` transplants the true one.
"""

from highdicom.sr import (
    AlgorithmIdentification,
    CodeContentItem,
    CodedConcept,
    Comprehensive3DSR,
    ComprehensiveSR,
    ContainerContentItem,
    ContentItem,
    ContentSequence,
    DeviceObserverIdentifyingAttributes,
    EnhancedSR,
    FindingSite,
    GraphicTypeValues,
    ImageContentItem,
    ImageRegion,
    LanguageOfContentItemAndDescendants,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    NumContentItem,
    ObservationContext,
    ObserverContext,
    PlanarROIMeasurementsAndQualitativeEvaluations,
    QualitativeEvaluation,
    RelationshipTypeValues,
    SourceImageForMeasurementGroup,
    SourceImageForRegion,
    TextContentItem,
    TrackingIdentifier,
)
from pydicom.dataset import Dataset

from covidnet_node.case import Algorithm, Outcome, ResultKind
from covidnet_node.intended_use import CLASSES, MANUFACTURER, PRODUCT
from covidnet_node.reports import codes, narrative, uids
from covidnet_node.reports.identity import STAND_INS, count, remarks, text
from covidnet_node.reports.order import Order, class_called, report_class
from covidnet_node.reports.regions import PEAK_SHARE, Region, patient_side, pointed_at
from covidnet_node.reports.series import Series

_CONTAINS = RelationshipTypeValues.CONTAINS
_ACQUISITION = RelationshipTypeValues.HAS_ACQ_CONTEXT

_Groups = list[
    MeasurementsAndQualitativeEvaluations | PlanarROIMeasurementsAndQualitativeEvaluations
]


def build_report(order: Order, series: Series) -> Dataset:
    """Build the report with an empty identity; raises ValueError if the profile wants none."""
    evidence = _evidence(order.source)
    report = _class_of(order)(
        evidence=[evidence],
        content=_tree(order, evidence)[0],
        series_instance_uid=series.uid,
        series_number=series.number,
        sop_instance_uid=uids.instance_uid(order, ResultKind.REPORT),
        instance_number=uids.instance_number(order, ResultKind.REPORT),
        manufacturer=MANUFACTURER,
        is_complete=True,
        is_verified=False,
        previous_versions=_previous(order),
        series_description=series.description,
        coding_schemes=[codes.private_scheme()],
    )
    plain = Dataset()
    plain.update(report)
    # highdicom signs here with the time of day, which would make every repeat another object.
    del plain.ContributingEquipmentSequence
    return plain


def _class_of(order: Order) -> type[Comprehensive3DSR | ComprehensiveSR | EnhancedSR]:
    match report_class(order):
        case "comprehensive_3d":
            return Comprehensive3DSR
        case "comprehensive":
            return ComprehensiveSR
        case "enhanced":
            return EnhancedSR
        case None:
            raise ValueError("the profile wants no report")


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


def _previous(order: Order) -> list[Dataset] | None:
    """Name the report that this one replaces, in the class of this one: what its reader has."""
    predecessor, own = order.predecessor, report_class(order)
    if predecessor is None or own is None or class_called(predecessor.sop_class_uid) is None:
        return None
    predecessor = uids.in_class(predecessor, own)
    item = Dataset()
    # The predecessor answers an image of the same study.
    item.StudyInstanceUID = STAND_INS["StudyInstanceUID"]
    item.SeriesInstanceUID = predecessor.series_uid
    item.SOPClassUID = predecessor.sop_class_uid
    item.SOPInstanceUID = predecessor.sop_uid
    return [item]


def _tree(order: Order, evidence: Dataset) -> MeasurementReport:
    analyzed = order.analysis.outcome is not Outcome.NOT_ANALYZED
    regions = pointed_at(order.analysis, evidence.Rows, evidence.Columns)
    groups: _Groups = [_result(order, evidence), *_quality(order, evidence)]
    groups += _classes(order, evidence)
    groups += [_peak(order, evidence, number, one) for number, one in enumerate(regions, 1)]
    report = MeasurementReport(
        observation_context=_observer(order.algorithm),
        procedure_reported=codes.CHEST_XRAY if analyzed else codes.IMAGING,
        imaging_measurements=groups,
        title=codes.TITLE,
        language_of_content_item_and_descendants=LanguageOfContentItemAndDescendants(codes.ENGLISH),
    )
    content = report[0].ContentSequence
    # Before the measurements: TID 1500 is extensible, and a reader starts at the top.
    for item in (*_texts(order, regions), _library(evidence)):
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


def _texts(order: Order, regions: tuple[Region, ...]) -> list[TextContentItem]:
    return [
        TextContentItem(name=name, value=words, relationship_type=_CONTAINS)
        for name, words in narrative.paragraphs(order, regions, remarks(order.source))
    ]


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
    """Say how the analysis ended, why, and how far the networks agreed."""
    analysis = order.analysis
    said = [QualitativeEvaluation(codes.OUTCOME, codes.OUTCOMES[analysis.outcome])]
    if analysis.reason is not None:
        said.append(QualitativeEvaluation(codes.REASON, codes.reason_code(analysis.reason)))
    measured = []
    if analysis.outcome is not Outcome.NOT_ANALYZED:
        inside = None if analysis.explanation is None else analysis.explanation.energy_in_lungs
        measured = _known((codes.DISAGREEMENT, analysis.disagreement), (codes.ENERGY, inside))
    return _group(order, evidence, title="AI result", finding=_conclusion(order),
                  measured=measured, said=said)  # fmt: skip


def _quality(order: Order, evidence: Dataset) -> list[MeasurementsAndQualitativeEvaluations]:
    """What is known of the input; its size stands in the image library, remarks are text."""
    analysis = order.analysis
    measured = _known(
        (codes.LUNG_AREA, analysis.lung_area_fraction),
        (codes.DISTANCE, analysis.out_of_distribution),
    )
    if not measured:
        return []
    return [_group(order, evidence, title="Input quality", finding=codes.QUALITY,
                   measured=measured, said=[])]  # fmt: skip


def _known(*figures: tuple[CodedConcept, float | None]) -> list[Measurement]:
    return [_percentage(name, value) for name, value in figures if value is not None]


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
        algorithm_id=_algorithm(order),
        measurements=measured,
        qualitative_evaluations=said,
        source_images=[
            SourceImageForMeasurementGroup(
                referenced_sop_class_uid=evidence.SOPClassUID,
                referenced_sop_instance_uid=evidence.SOPInstanceUID,
            )
        ],
    )


def _peak(
    order: Order, evidence: Dataset, number: int, region: Region
) -> PlanarROIMeasurementsAndQualitativeEvaluations:
    """Outline one peak of the heatmap (TID 1410); it is evidence for a class, not a finding."""
    title = f"Heatmap peak {number}"
    explained = order.analysis.explanation
    target = [] if explained is None else [
        QualitativeEvaluation(codes.EXPLAINED, codes.CLASSES[explained.target])
    ]  # fmt: skip
    return PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(
            uid=uids.tracking_uid(order, title), identifier=title
        ),
        referenced_region=ImageRegion(
            graphic_type=GraphicTypeValues.POLYLINE,
            graphic_data=region.outline,
            source_image=SourceImageForRegion(
                referenced_sop_class_uid=evidence.SOPClassUID,
                referenced_sop_instance_uid=evidence.SOPInstanceUID,
            ),
        ),
        finding_type=codes.PEAK,
        finding_sites=[_site(order, region)],
        algorithm_id=_algorithm(order, explains=True),
        measurements=[
            Measurement(
                name=codes.GRAD_CAM,
                value=round(region.peak, 4),
                unit=codes.NO_UNITS,
                derivation=codes.MAXIMUM,
            ),
            _percentage(codes.REGION_SHARE, region.share),
        ],
        qualitative_evaluations=[
            *target,
            QualitativeEvaluation(codes.PLACE, codes.place(region.side, region.zone)),
        ],
    )


def _site(order: Order, region: Region) -> FindingSite:
    """Name zone and side of the lung where the source says how the patient lies in it."""
    side = patient_side(region.side, text(order.source, "PatientOrientation"))
    if side is None:
        return FindingSite(codes.LUNG)
    return FindingSite(codes.ZONES[region.zone], laterality=codes.SIDES[side])


def _algorithm(order: Order, *, explains: bool = False) -> AlgorithmIdentification | None:
    """Name the weights (TID 4019): digest, threshold, calibration and members are parameters."""
    algorithm = order.algorithm
    if algorithm is None:
        return None
    members = ", ".join(narrative.ascii_text(member.name) for member in order.analysis.members)
    method = (
        f"Gradient-weighted class activation (130403, DCM) of all members, outlined at "
        f"{narrative.percent(PEAK_SHARE)} of its maximum in the lungs"
    )
    return AlgorithmIdentification(
        name=narrative.ascii_text(algorithm.name),
        version=narrative.ascii_text(algorithm.version),
        parameters=[
            f"weights manifest SHA-256 {algorithm.digest}",
            f"COVID-19 threshold {algorithm.covid19_threshold:.4f}",
            f"calibration {narrative.ascii_text(algorithm.calibration) or 'not stated'}",
            *([f"members {members}"] if members else []),
            *([method] if explains else []),
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
