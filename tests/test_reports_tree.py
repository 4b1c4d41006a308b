"""What the report's tree holds: regions, classes, words for a reader, the device."""

from dataclasses import replace

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    EnhancedSRStorage,
)

from covidnet_node.case import Analysis, Probabilities, ResultKind
from covidnet_node.config import Results
from covidnet_node.reports import codes, uids
from covidnet_node.reports.encode import encode
from covidnet_node.reports.order import REPORT_CLASS_UIDS, Reference, ReportClass
from covidnet_node.reports.recast import recast
from covidnet_node.reports.results import build_results
from tests.orders import (
    ALGORITHM,
    ANALYZED,
    INCONCLUSIVE,
    NOT_ANALYZED,
    OUTCOMES,
    header,
    heatmap,
    items,
    named,
    order,
    report,
)


def test_the_heatmaps_peaks_are_regions_of_the_source() -> None:
    source = header()
    document = report(order(source))
    regions = named(document, "111030")
    assert [region.ValueType for region in regions] == ["SCOORD", "SCOORD"]
    first = regions[0]
    assert first.GraphicType == "POLYLINE"
    assert list(first.GraphicData[:2]) == list(first.GraphicData[-2:])
    columns, rows = first.GraphicData[::2], first.GraphicData[1::2]
    assert (min(columns), max(columns), min(rows), max(rows)) == (8, 18, 40, 50)
    selected = first.ContentSequence[0].ReferencedSOPSequence[0]
    assert selected.ReferencedSOPInstanceUID == source.SOPInstanceUID
    group = next(item for item in items(document) if first in (item.get("ContentSequence") or []))
    shares = [item for item in group.ContentSequence if "MeasuredValueSequence" in item]
    values = [float(item.MeasuredValueSequence[0].NumericValue) for item in shares]
    assert values == [0.9, 60.0]
    assert any("130403" in item.TextValue for item in named(group, "111002"))
    explained = named(group, codes.EXPLAINED.value)[0]
    assert explained.ConceptCodeSequence[0].CodeValue == codes.CLASSES["covid19"].value


@pytest.mark.parametrize(
    ("orientation", "site", "side", "words"),
    [
        (["L", "F"], "281394001", "Right", "left half of the image (patient's right), lower"),
        (["R", "F"], "281394001", "Left", "left half of the image (patient's left), lower"),
        (["L", "H"], "39607008", None, "left half of the image, lower"),
        (None, "39607008", None, "left half of the image, lower"),
    ],
)
def test_sides_of_the_patient_are_named_only_where_the_source_tells(
    orientation: list[str] | None, site: str, side: str | None, words: str
) -> None:
    document = report(order(header(PatientOrientation=orientation)))
    places = [item for item in named(document, "363698007")
              if item.ConceptCodeSequence[0].CodeValue == site]  # fmt: skip
    laterality = named(places[0], "272741003") if side else []
    told = [item.ConceptCodeSequence[0].CodeMeaning for item in laterality]
    assert told == ([side] if side else [])
    assert words in named(document, codes.WHERE.value)[0].TextValue
    if side is None:
        assert "patient's" not in named(document, codes.WHERE.value)[0].TextValue


def test_nothing_is_pointed_at_without_a_likely_pattern() -> None:
    normal = replace(
        ANALYZED,
        probabilities=Probabilities(0.05, 0.05, 0.9),
        explanation=replace(ANALYZED.explanation, target="normal"),
    )
    unlikely = replace(ANALYZED, probabilities=Probabilities(0.2, 0.3, 0.5))
    for analysis in (normal, unlikely, NOT_ANALYZED):
        assert named(report(order(analysis=analysis)), "111030") == []
    assert len(named(report(order(analysis=INCONCLUSIVE)), "111030")) == 2


def test_a_reader_finds_image_place_trust_and_origin_in_words() -> None:
    source = header(
        ViewPosition="PA", SeriesNumber="3", InstanceNumber="2", LossyImageCompression="01"
    )
    document = report(order(source, program="0.1.0"))
    told = {
        item.ConceptNameCodeSequence[0].CodeValue: item.TextValue
        for item in document.ContentSequence
        if item.ValueType == "TEXT"
    }
    for concept, expected in (
        (codes.IMAGE_READ, "CR, view PA, 49 x 61 pixels (width x height), series 3, image 2"),
        (codes.IMAGE_READ, "study of 2026-11-20 08:15"),
        (codes.IMAGE_READ, str(source.SOPInstanceUID)),
        (codes.WHERE, "60 % of the heatmap"),
        (codes.TRUST, "A: 87 %, 9 %, 4 %"),
        (codes.TRUST, "checks of these figures were passed"),
        (codes.METHOD, "CovidNet Node 0.1.0"),
        (codes.METHOD, "CovidNet ensemble 2026.1, weights abababababab"),
        (codes.REMARK, "lossy compressed"),
    ):
        assert expected in told[concept.value]
    doubtful = report(order(source, analysis=INCONCLUSIVE))
    assert "NOT passed" in named(doubtful, codes.TRUST.value)[0].TextValue


@pytest.mark.parametrize(
    ("wanted", "class_uid"),
    [
        ("comprehensive_3d", Comprehensive3DSRStorage),
        ("comprehensive", ComprehensiveSRStorage),
        ("enhanced", EnhancedSRStorage),
    ],
)
@OUTCOMES
def test_the_destination_chooses_the_class_and_nothing_else(
    analysis: Analysis, wanted: str, class_uid: str
) -> None:
    plain = report(order(analysis=analysis))
    made = report(order(analysis=analysis, profile=Results(report=wanted)))
    assert made.SOPClassUID == class_uid
    assert (made.SOPInstanceUID == plain.SOPInstanceUID) == (wanted == "comprehensive_3d")
    assert made.ContentSequence == plain.ContentSequence
    assert made.SeriesInstanceUID == plain.SeriesInstanceUID


@pytest.mark.parametrize(
    ("start", "wanted"),
    [("comprehensive_3d", "comprehensive"), ("comprehensive_3d", "enhanced"),
     ("comprehensive", "enhanced")],
)  # fmt: skip
@OUTCOMES
def test_a_report_is_recast_to_what_the_profile_would_have_given(
    analysis: Analysis, start: ReportClass, wanted: ReportClass
) -> None:
    source = header(
        SpecificCharacterSet=b"ISO_IR 100",
        PatientName="M\xfcller^J\xf6rg".encode("latin-1"),
        RequestAttributesSequence=[Dataset()],
    )
    before = Reference("2.25.77", "1.2.840.10008.5.1.4.1.1.88.34", "2.25.78")
    first = order(source, analysis=analysis, predecessor=before)
    asked = report(replace(first, profile=Results(report=wanted)))
    given = report(replace(first, profile=Results(report=start)))
    assert recast(encode(given), wanted) == encode(asked)


@pytest.mark.parametrize("known", REPORT_CLASS_UIDS)
@pytest.mark.parametrize("own", REPORT_CLASS_UIDS)
def test_a_report_names_its_predecessor_as_its_reader_has_it(
    own: ReportClass, known: ReportClass
) -> None:
    """In the class of the report; in the one that is known, if that is below already."""
    plain = order(predecessor=None, pixel_digest="earlier")
    earlier = {each: report(replace(plain, profile=Results(report=each)))
               for each in REPORT_CLASS_UIDS}  # fmt: skip
    before = Reference("2.25.77", REPORT_CLASS_UIDS[known], earlier[known].SOPInstanceUID)
    made = report(order(predecessor=before, profile=Results(report=own)))
    (study,) = made.PredecessorDocumentsSequence
    (item,) = study.ReferencedSeriesSequence[0].ReferencedSOPSequence
    named = earlier[max(own, known, key=list(REPORT_CLASS_UIDS).index)]
    assert item.ReferencedSOPInstanceUID == named.SOPInstanceUID
    assert item.ReferencedSOPClassUID == named.SOPClassUID


@pytest.mark.parametrize("wanted", ["comprehensive_3d", "comprehensive"])
def test_a_report_is_recast_downward_only(wanted: ReportClass) -> None:
    made = encode(report(order(profile=Results(report="comprehensive"))))
    for file in (made, encode(heatmap(order()))):
        with pytest.raises(ValueError, match="class above"):
            recast(file, wanted)


def test_no_report_leaves_where_none_is_wanted_but_not_analyzed_is_always_said() -> None:
    none = Results(report="none")
    assert [built.kind for built in build_results(order(profile=none))] == [ResultKind.HEATMAP]
    said = build_results(order(analysis=NOT_ANALYZED, profile=none))
    assert [built.kind for built in said] == [ResultKind.REPORT]
    assert said[0].dataset.SOPInstanceUID == report(order(analysis=NOT_ANALYZED)).SOPInstanceUID


def test_results_name_the_device_that_made_them() -> None:
    for built in build_results(order(program="0.1.0")):
        device, *_ = built.dataset.ContributingEquipmentSequence
        assert device.PurposeOfReferenceCodeSequence[0].CodeValue == "109102"
        assert device.PurposeOfReferenceCodeSequence[0].CodingSchemeDesignator == "DCM"
        assert device.DeviceUID == uids.device_uid(ALGORITHM)
        assert list(device.SoftwareVersions) == list(built.dataset.SoftwareVersions)
        assert "program 0.1.0" in device.SoftwareVersions
        assert "weights 2026.1" in device.SoftwareVersions


def test_every_algorithm_that_a_report_identifies_is_contributing_equipment() -> None:
    document = report(order())
    _, *equipment = document.ContributingEquipmentSequence
    listed = {(each.ManufacturerModelName, each.SoftwareVersions) for each in equipment}
    names, versions = named(document, "111001"), named(document, "111003")
    pairs = zip(names, versions, strict=True)
    assert {(name.TextValue, version.TextValue) for name, version in pairs} == listed
    assert {each.PurposeOfReferenceCodeSequence[0].CodeValue for each in equipment} == {"109102"}
    others = report(order(algorithm=replace(ALGORITHM, digest="cd" * 32)))
    uids_of = [{each.DeviceUID for each in made.ContributingEquipmentSequence}
               for made in (document, others)]  # fmt: skip
    assert len(uids_of[0]) == 1 + len(equipment)
    assert not uids_of[0] & uids_of[1]


def test_another_program_makes_other_objects_of_the_same_device() -> None:
    first, second = report(order(program="0.1.0")), report(order(program="0.1.1"))
    assert first.SOPInstanceUID != second.SOPInstanceUID
    assert first.SeriesInstanceUID != second.SeriesInstanceUID
    assert named(first, "121012")[0].UID == named(second, "121012")[0].UID
