"""No object leaves that shows something else than what the analysis said of this image."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from io import BytesIO

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.pixels.utils import pixel_array

from covidnet_node.case import Analysis, Outcome, Probabilities, Reason, ResultKind
from covidnet_node.config import Results
from covidnet_node.errors import Park
from covidnet_node.explain.overlay import draw_overlay, draw_plain
from covidnet_node.reports import codes, gate
from covidnet_node.reports.encode import encode
from covidnet_node.reports.order import Order
from covidnet_node.reports.results import build_results
from tests.orders import ALGORITHM, INCONCLUSIVE, NOT_ANALYZED, named, report
from tests.pictures import ALL, COLUMNS, IN_SPACE, ROWS, SYNTAXES, image, lungs, seen, whole

SPECKLE = np.random.default_rng(3).integers(0, 90, (ROWS, COLUMNS))
SHOWN = (np.where(lungs(), 40, 150) + SPECKLE).astype(np.uint8)
SAID = seen(display=SHOWN)


def asked(analysis: Analysis = SAID, profile: Results = ALL) -> Order:
    drawn = {"heatmap": draw_overlay(analysis, ALGORITHM), "plain": draw_plain(analysis, ALGORITHM)}
    return whole(image(**IN_SPACE), analysis=analysis, profile=profile, **drawn)


def objects(order: Order) -> dict[ResultKind, bytes]:
    return {each.kind: encode(each.dataset) for each in build_results(order)}


@cache
def healthy(kind: ResultKind) -> bytes:
    return objects(asked())[kind]


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_whole_answers_pass(syntax: str) -> None:
    order = asked(profile=ALL.model_copy(update={"heatmap_syntax": syntax}))
    for file in objects(order).values():
        gate.check(dcmread(BytesIO(file)), order.source, order.profile, order.analysis)


@pytest.mark.parametrize(
    "share",
    [(0.005, 0.4951, 0.4999), (0.87495, 0.12505, 0.0), (0.5, 0.25, 0.25), (0.9951, 0, 0.0049)],
)
def test_numbers_near_the_limits_pass(share: tuple[float, float, float]) -> None:
    order = asked(replace(SAID, probabilities=Probabilities(*share)))
    gate.check(report(order), order.source, order.profile, order.analysis)


@pytest.mark.parametrize("analysis", [INCONCLUSIVE, NOT_ANALYZED])
def test_answers_without_a_conclusion_pass(analysis: Analysis) -> None:
    order = whole(image(**IN_SPACE), analysis=analysis)
    for each in build_results(order):
        gate.check(each.dataset, order.source, order.profile, analysis)


def test_one_mask_for_both_lungs_passes() -> None:
    order = replace(asked(), source=image(**IN_SPACE, PatientOrientation=None))
    made = {each.kind: each.dataset for each in build_results(order)}
    assert len(made[ResultKind.SEGMENTATION].SegmentSequence) == 1
    for dataset in made.values():
        gate.check(dataset, order.source, order.profile, SAID)


@pytest.mark.parametrize("character_set", ["source", "utf8"])
def test_sequences_of_the_patient_pass(character_set: str) -> None:
    other, issuer = Dataset(), Dataset()
    other.PatientID, other.TypeOfPatientID, other.IssuerOfPatientID = "B-2", "TEXT", "M\u00fcnster"
    issuer.UniversalEntityID, issuer.UniversalEntityIDType = "2.25.99", "ISO"
    source = image(
        **IN_SPACE,
        SpecificCharacterSet="ISO_IR 100",
        PatientName="M\u00fcller^J\u00f6rg".encode("latin-1"),
        OtherPatientIDsSequence=[other],
        IssuerOfPatientIDQualifiersSequence=[issuer],
        IssuerOfAccessionNumberSequence=[issuer],
        StudyDescription="Th\u00f6rax".encode("latin-1"),
    )
    profile = ALL.model_copy(update={"character_set": character_set})
    order = replace(asked(profile=profile), source=source)
    for each in build_results(order):
        gate.check(each.dataset, source, profile, SAID)


def stops(dataset: Dataset, words: str, analysis: Analysis = SAID) -> None:
    with pytest.raises(Park, match=words) as parked:
        gate.check(dataset, image(**IN_SPACE), ALL, analysis)
    assert parked.value.reason is Reason.INVALID_RESULT


# Pictures, masks and outlines


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("kind", [ResultKind.HEATMAP, ResultKind.PLAIN])
@pytest.mark.parametrize("turn", [np.fliplr, np.flipud, lambda shown: 255 - shown])
def test_a_picture_of_something_else_is_stopped(
    kind: ResultKind, syntax: str, turn: Callable[[np.ndarray], np.ndarray]
) -> None:
    profile = ALL.model_copy(update={"heatmap_syntax": syntax})
    turned = replace(SAID, display=turn(SHOWN))
    file = objects(asked(turned, profile))[kind]
    with pytest.raises(Park, match="does not show the image"):
        gate.check(dcmread(BytesIO(file)), image(**IN_SPACE), profile, SAID)


def test_a_segmentation_of_something_else_is_stopped() -> None:
    moved = replace(SAID, lungs=np.roll(lungs(), 2, axis=0))
    stops(dcmread(BytesIO(objects(asked(moved))[ResultKind.SEGMENTATION])), "mask is not that")


def test_a_segmentation_with_its_sides_exchanged_is_stopped() -> None:
    made = dcmread(BytesIO(healthy(ResultKind.SEGMENTATION)))
    first, second = made.SegmentSequence
    first.SegmentLabel, second.SegmentLabel = second.SegmentLabel, first.SegmentLabel
    stops(made, "sides of the masks")


def test_a_frame_of_another_segment_is_stopped() -> None:
    made = dcmread(BytesIO(healthy(ResultKind.SEGMENTATION)))
    groups = made.PerFrameFunctionalGroupsSequence
    groups[0].SegmentIdentificationSequence[0].ReferencedSegmentNumber = 2
    stops(made, "not of its segment")


@pytest.mark.parametrize("kind", [ResultKind.SEGMENTATION, ResultKind.EVIDENCE_MAP])
def test_a_frame_made_from_another_image_is_stopped(kind: ResultKind) -> None:
    made = dcmread(BytesIO(healthy(kind)))
    groups = (*made.SharedFunctionalGroupsSequence, *made.PerFrameFunctionalGroupsSequence)
    (derived,) = [each for group in groups if "DerivationImageSequence" in group
                  for each in group.DerivationImageSequence][:1]  # fmt: skip
    derived.SourceImageSequence[0].ReferencedSOPInstanceUID = "1.9.9"
    stops(made, "made from another image")


def test_outlines_of_something_else_are_stopped() -> None:
    turned = replace(SAID, lungs=np.fliplr(lungs()))
    stops(dcmread(BytesIO(objects(asked(turned))[ResultKind.CONTOURS])), "outlined elsewhere")


def test_a_map_of_something_else_is_stopped() -> None:
    made = dcmread(BytesIO(healthy(ResultKind.EVIDENCE_MAP)))
    made.FloatPixelData = np.flip(np.frombuffer(made.FloatPixelData, "<f4")).tobytes()
    stops(made, "map is not that")


def test_healthy_pictures_are_what_they_seem() -> None:
    made = dcmread(BytesIO(healthy(ResultKind.PLAIN)))
    assert (pixel_array(made)[-ROWS:, :, 0] == SHOWN).all()


# Words, codes and numbers


def _number(concept: str, value: str) -> Callable[[Dataset], None]:
    def change(document: Dataset) -> None:
        named(document, concept)[0].MeasuredValueSequence[0].NumericValue = value

    return change


def _summary(old: str, new: str) -> Callable[[Dataset], None]:
    def change(document: Dataset) -> None:
        (item,) = named(document, codes.SUMMARY.value)
        assert old in item.TextValue
        item.TextValue = item.TextValue.replace(old, new)

    return change


def _finding(document: Dataset) -> Dataset:
    return named(document, "121071")[0].ConceptCodeSequence[0]


def _concludes_otherwise(document: Dataset) -> None:
    _finding(document).CodeValue = codes.CONCLUSIONS["normal"].value


def _no_algorithm(document: Dataset) -> None:
    named(document, "111003")[0].ConceptNameCodeSequence[0].CodeValue = "111004"


def _no_library(document: Dataset) -> None:
    (library,) = named(document, codes.IMAGE_LIBRARY.value)
    library.ContentSequence[0].ContentSequence = []


def _other_class_of_evidence(document: Dataset) -> None:
    study = document.CurrentRequestedProcedureEvidenceSequence[0]
    item = study.ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    item.ReferencedSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"


def _not_ascii(document: Dataset) -> None:
    item = named(document, codes.METHOD.value)[0]
    document.SpecificCharacterSet = "ISO_IR 100"
    item.TextValue = "gewogen und f\u00fcr gut befunden"


CLAIMS = {
    "number without its words": (_number(codes.CERTAINTY.value, "12.0"), "say the probability"),
    "words without their number": (_summary("pneumonia 87 %", "pneumonia 78 %"), "probability of"),
    "other words": (_summary("Findings compatible with", "No findings of"), "does not fit"),
    "other finding": (_concludes_otherwise, "does not fit"),
    "no algorithm": (_no_algorithm, "without the algorithm"),
    "no library": (_no_library, "image library"),
    "evidence of another class": (_other_class_of_evidence, "evidence does not list"),
    "not ASCII": (_not_ascii, "not ASCII"),
}


@pytest.mark.parametrize("claim", CLAIMS)
def test_a_report_that_contradicts_itself_is_stopped(claim: str) -> None:
    damage, words = CLAIMS[claim]
    made = dcmread(BytesIO(healthy(ResultKind.REPORT)))
    damage(made)
    with pytest.raises(Park, match=words):
        gate.check(made, image(**IN_SPACE))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"probabilities": Probabilities(0.86, 0.1, 0.04)}, "probability of covid19"),
        ({"members": ()}, "members said"),
        ({"disagreement": 0.5}, "Disagreement"),
        ({"out_of_distribution": 0.9}, "Distance"),
        ({"lung_area_fraction": None}, "Lung area"),
        ({"outcome": Outcome.INCONCLUSIVE, "reason": Reason.LOW_CONFIDENCE}, "outcome is not"),
    ],
)
def test_a_report_of_another_answer_is_stopped(changes: dict[str, object], words: str) -> None:
    stops(dcmread(BytesIO(healthy(ResultKind.REPORT))), words, replace(SAID, **changes))


# What every object carries


@pytest.mark.parametrize("kind", [kind for kind in ResultKind if kind is not ResultKind.PAGE])
@pytest.mark.parametrize(
    ("keyword", "value", "words"),
    [
        ("OtherPatientIDs", "SOMEBODY-ELSE", "OtherPatientIDs is not"),
        ("PatientAge", "012Y", "PatientAge is not"),
        ("TimezoneOffsetFromUTC", "+0900", "TimezoneOffsetFromUTC is not"),
        ("StudyDescription", "Somebody else's", "StudyDescription is not"),
        ("SeriesDescription", "AI result", "without the notice"),
        ("Modality", "CT", "Modality is not"),
        ("FrameOfReferenceUID", "1.2.3.8", "FrameOfReferenceUID is not"),
        ("Manufacturer", "H\u00e4rsteller", "not ASCII"),
    ],
)
def test_an_object_with_a_wrong_label_is_stopped(
    kind: ResultKind, keyword: str, value: str, words: str
) -> None:
    made = dcmread(BytesIO(healthy(kind)))
    made.decode()
    made.SpecificCharacterSet = "ISO_IR 100" if not value.isascii() else None
    if made.SpecificCharacterSet is None:
        del made.SpecificCharacterSet
    setattr(made, keyword, value)
    with pytest.raises(Park, match=words) as parked:
        gate.check(made, image(**IN_SPACE))
    assert value not in str(parked.value)


@pytest.mark.parametrize("keyword", ["PatientOrientation", "LossyImageCompression"])
def test_a_picture_that_lost_what_is_true_of_its_original_is_stopped(keyword: str) -> None:
    source = image(**IN_SPACE, LossyImageCompression="01", LossyImageCompressionRatio="10")
    order = replace(asked(), source=source)
    made = dcmread(BytesIO(objects(order)[ResultKind.HEATMAP]))
    gate.check(made, source)
    delattr(made, keyword)
    with pytest.raises(Park, match=f"{keyword} is not"):
        gate.check(made, source)
