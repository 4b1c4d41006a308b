"""Results as DICOM objects: what they say, the same every time, valid for others."""

import subprocess
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import (
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
)

from covidnet_node.case import (
    Analysis,
    Explanation,
    Probabilities,
    Reason,
    ResultKind,
)
from covidnet_node.config import Results
from covidnet_node.intended_use import NOTICE
from covidnet_node.reports import codes, gate, uids
from covidnet_node.reports.encode import encode
from covidnet_node.reports.identity import value_bytes
from covidnet_node.reports.order import Built, Reference
from covidnet_node.reports.results import build_failure, build_results
from tests.conftest import need_program
from tests.orders import (
    ALGORITHM,
    ANALYZED,
    INCONCLUSIVE,
    NOT_ANALYZED,
    OUTCOMES,
    PICTURE,
    WHEN,
    header,
    heatmap,
    named,
    order,
    report,
    reread,
)

# What is built


def test_an_analyzed_image_gets_report_and_heatmap() -> None:
    assert [built.kind for built in build_results(order())] == [
        ResultKind.REPORT,
        ResultKind.HEATMAP,
    ]


def test_a_not_analyzed_image_gets_a_report_alone_even_if_a_picture_is_given() -> None:
    assert [built.kind for built in build_results(order(analysis=NOT_ANALYZED))] == [
        ResultKind.REPORT
    ]


def test_the_report_says_every_probability_with_its_algorithm() -> None:
    document = report(order())
    certain = named(document, codes.CERTAINTY.value)
    values = [float(item.MeasuredValueSequence[0].NumericValue) for item in certain]
    assert values == [87.0, 9.0, 4.0]
    assert len(named(document, codes.MEMBER_CERTAINTY.value)) == 6
    assert {item.TextValue for item in named(document, "111003")} == {"2026.1"}
    assert any("members A, B" in item.TextValue for item in named(document, "111002"))
    assert any(ALGORITHM.digest in item.TextValue for item in named(document, "111002"))


def test_a_person_reads_finding_notice_and_notes_in_plain_text() -> None:
    document = report(order())
    words = " ".join(item.TextValue for item in document.ContentSequence if "TextValue" in item)
    for expected in (
        NOTICE,
        "Findings compatible with COVID-19 pneumonia",
        "87 %",
        "Age of the patient unknown",
        "Provisional weights",
        "Window repaired",
        "2026.1",
    ):
        assert expected in words


@pytest.mark.parametrize(
    ("likely", "threshold", "expected"),
    [
        (Probabilities(0.35, 0.2, 0.45), 0.3, codes.CONCLUSIONS["covid19"]),
        (Probabilities(0.35, 0.2, 0.45), 0.5, codes.CONCLUSIONS["normal"]),
        (Probabilities(0.3, 0.4, 0.3), 0.5, codes.CONCLUSIONS["pneumonia"]),
    ],
)
def test_covid19_is_called_from_its_threshold_on(
    likely: Probabilities, threshold: float, expected: Dataset
) -> None:
    document = report(
        order(
            analysis=replace(ANALYZED, probabilities=likely),
            algorithm=replace(ALGORITHM, covid19_threshold=threshold),
        )
    )
    assert named(document, "121071")[0].ConceptCodeSequence[0].CodeValue == expected.CodeValue
    assert expected.CodeMeaning.split(";")[0] in named(document, "121111")[0].TextValue


def test_an_inconclusive_report_concludes_nothing() -> None:
    document = report(order(analysis=INCONCLUSIVE))
    finding = named(document, "121071")[0].ConceptCodeSequence[0]
    assert finding.CodeValue == codes.NO_CONCLUSION.value
    assert named(document, codes.OUTCOME.value)[0].ConceptCodeSequence[0].CodeValue == (
        "INCONCLUSIVE"
    )
    assert "INCONCLUSIVE" in named(document, "121111")[0].TextValue
    assert "INCONCLUSIVE" in heatmap(order(analysis=INCONCLUSIVE)).ImageComments


def test_a_not_analyzed_report_says_why_and_gives_no_probability() -> None:
    # Even where the networks had answered before the verdict fell.
    spoiled = replace(NOT_ANALYZED, probabilities=ANALYZED.probabilities, members=ANALYZED.members)
    document = report(order(analysis=spoiled))
    assert named(document, codes.CERTAINTY.value) == []
    assert named(document, codes.MEMBER_CERTAINTY.value) == []
    assert named(document, codes.REASON.value)[0].ConceptCodeSequence[0].CodeValue == "LATERAL"
    summary = named(document, "121111")[0].TextValue
    assert "NOT ANALYZED" in summary
    assert "%" not in summary.split("Algorithm")[0]


def test_a_failure_is_answered_from_the_header_alone() -> None:
    source = header()
    built = build_failure(
        source, Reason.TECHNICAL_FAILURE, "worker died twice", content_at=WHEN, identity_digest="i"
    )
    assert built.kind is ResultKind.REPORT
    assert "worker died twice" in named(built.dataset, "121111")[0].TextValue
    gate.check(built.dataset, source)


def test_the_title_keeps_viewers_from_looking_for_regions() -> None:
    assert report(order()).ConceptNameCodeSequence[0].CodeValue != "126000"


def test_every_reason_has_its_own_code_within_the_limits() -> None:
    coded = [codes.reason_code(reason) for reason in Reason]
    assert len({code.value for code in coded}) == len(coded)
    assert all(len(code.value) <= 16 and len(code.meaning) <= 64 for code in coded)


def test_words_of_others_become_ascii() -> None:
    document = report(order(admission_notes=("Alter unbekannt: Größe\\Gewicht — 年齢",)))
    notes = [item.TextValue for item in named(document, codes.REMARK.value)]
    assert any(note.startswith("Alter unbekannt: Gro") for note in notes)
    assert all(note.isascii() and "\\" not in note for note in notes)


def test_a_successor_names_its_predecessor() -> None:
    first = report(order())
    before = Reference(first.SeriesInstanceUID, first.SOPClassUID, first.SOPInstanceUID)
    source = header()
    second = report(order(source, predecessor=before))
    listed = second.PredecessorDocumentsSequence[0]
    assert listed.StudyInstanceUID == source.StudyInstanceUID
    named_one = listed.ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    assert named_one.ReferencedSOPInstanceUID == first.SOPInstanceUID
    assert named_one.ReferencedSOPClassUID == first.SOPClassUID
    assert listed.ReferencedSeriesSequence[0].SeriesInstanceUID == first.SeriesInstanceUID
    assert second.SOPInstanceUID != first.SOPInstanceUID
    assert second.InstanceNumber != first.InstanceNumber


def test_the_heatmap_is_the_picture_and_nothing_rescales_it() -> None:
    source = header(
        WindowCenter="100", WindowWidth="50", ImagerPixelSpacing=["0.1", "0.1"], Laterality=""
    )
    image = reread(encode(heatmap(order(source))))
    assert (image.pixel_array == PICTURE).all()
    for keyword in ("WindowCenter", "ImagerPixelSpacing", "PixelSpacing", "RescaleSlope"):
        assert keyword not in image
    assert list(image.PatientOrientation) == ["L", "F"]
    assert image.ConversionType == "WSD"
    assert "AI" in image.SeriesDescription
    assert NOTICE in image.SeriesDescription


@pytest.mark.parametrize("stated", ["YES", "NO", None])
def test_burned_in_annotation_follows_the_source(stated: str | None) -> None:
    image = heatmap(order(header(BurnedInAnnotation=stated)))
    assert image.get("BurnedInAnnotation") == stated


def test_lossy_compression_is_not_forgotten() -> None:
    source = header(LossyImageCompression="01", LossyImageCompressionRatio="12.5")
    image = heatmap(order(source))
    assert (image.LossyImageCompression, image.LossyImageCompressionRatio) == ("01", 12.5)


def test_a_lossy_source_that_forgot_to_say_so_is_called_lossy() -> None:
    source = header()
    source.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    assert heatmap(order(source)).LossyImageCompression == "01"
    assert "LossyImageCompression" not in heatmap(order())


def test_requests_are_carried_over() -> None:
    request = Dataset()
    request.RequestedProcedureID = "RP1"
    request.ScheduledProcedureStepID = "SP1"
    request.AccessionNumber = "A200"
    source = header(RequestAttributesSequence=[request])
    listed = reread(encode(report(order(source)))).ReferencedRequestSequence[0]
    assert (listed.RequestedProcedureID, listed.AccessionNumber) == ("RP1", "A200")
    assert listed.StudyInstanceUID == "1.2.3.4"
    image = reread(encode(heatmap(order(source))))
    assert image.RequestAttributesSequence[0].ScheduledProcedureStepID == "SP1"


@pytest.mark.parametrize(
    ("offset", "date", "time"),
    [
        (None, "20261123", "233005"),
        ("+0100", "20261124", "003005"),
        ("-0530", "20261123", "180005"),
        ("nonsense", "20261123", "233005"),
    ],
)
def test_times_are_told_in_the_zone_of_the_source(offset: str | None, date: str, time: str) -> None:
    stated = None if offset is None else offset.encode()
    document = report(order(header(TimezoneOffsetFromUTC=stated)))
    assert (document.ContentDate, document.ContentTime) == (date, time)
    carried = value_bytes(document, "TimezoneOffsetFromUTC")
    assert (carried and carried.rstrip()) == stated


# The same every time


def test_same_order_same_bytes() -> None:
    first, second = build_results(order()), build_results(order())
    assert [encode(b.dataset) for b in first] == [encode(b.dataset) for b in second]


def test_other_content_other_uid_same_series() -> None:
    variants = [
        order(),
        order(header(SOPInstanceUID="1.2.3.4.1.2")),
        order(pixel_digest="q"),
        order(identity_digest="j"),
        order(analysis=INCONCLUSIVE),
        order(analysis=NOT_ANALYZED),
        order(analysis=replace(NOT_ANALYZED, detail="view RL")),
        order(admission_notes=()),
    ]
    documents = [report(variant) for variant in variants]
    assert len({document.SOPInstanceUID for document in documents}) == len(variants)
    assert len({document.InstanceNumber for document in documents}) == len(variants)
    assert len({document.SeriesInstanceUID for document in documents}) == 1


def test_new_weights_open_a_new_series_and_are_a_new_device() -> None:
    other = replace(ALGORITHM, digest="cd" * 32, version="2026.2")
    first, second = report(order()), report(order(algorithm=other))
    assert first.SeriesInstanceUID != second.SeriesInstanceUID
    assert first.SOPInstanceUID != second.SOPInstanceUID
    assert uids.device_uid(ALGORITHM) != uids.device_uid(other)
    assert uids.device_uid(ALGORITHM) == named(first, "121012")[0].UID


def test_report_and_heatmap_share_a_number_but_no_uid() -> None:
    document, image = (built.dataset for built in build_results(order()))
    assert document.InstanceNumber == image.InstanceNumber
    assert document.SeriesInstanceUID != image.SeriesInstanceUID
    assert document.SOPInstanceUID != image.SOPInstanceUID


# Judged by others


def complaints(folder: Path, built: Built) -> list[str]:
    path = folder / f"{built.kind}.dcm"
    path.write_bytes(encode(built.dataset))
    return verify(path)


def verify(path: Path) -> list[str]:
    done = subprocess.run(
        [need_program("dciodvfy"), str(path)], capture_output=True, check=False, timeout=60
    )
    lines = (done.stdout + done.stderr).decode("utf-8", "replace").splitlines()
    return [line for line in lines if line.startswith("Error")]


@pytest.mark.dciodvfy
@OUTCOMES
def test_dciodvfy_finds_no_error(analysis: Analysis, tmp_path: Path) -> None:
    request = Dataset()
    request.RequestedProcedureID = "RP1"
    request.ScheduledProcedureStepID = "SP1"
    source = header(
        RequestAttributesSequence=[request], TimezoneOffsetFromUTC="+0100", StudyDescription="Chest"
    )
    before = Reference("2.25.77", "1.2.840.10008.5.1.4.1.1.88.34", "2.25.78")
    for wanted in ("comprehensive_3d", "comprehensive", "enhanced"):
        profile = Results(report=wanted, page=True)
        made = order(source, analysis=analysis, predecessor=before, profile=profile)
        for built in build_results(made):
            assert complaints(tmp_path, built) == []


@pytest.mark.dciodvfy
def test_dciodvfy_finds_no_error_in_a_failure(tmp_path: Path) -> None:
    bare = header(PatientOrientation=None, BodyPartExamined=None)
    built = build_failure(bare, Reason.UNDECODABLE, "truncated", content_at=WHEN)
    assert complaints(tmp_path, built) == []


@pytest.mark.dcmtk
@OUTCOMES
def test_dcmtk_reads_the_report(analysis: Analysis, tmp_path: Path) -> None:
    path = tmp_path / "report.dcm"
    path.write_bytes(encode(report(order(analysis=analysis))))
    done = subprocess.run(
        [need_program("dsrdump"), str(path)], capture_output=True, text=True, check=True, timeout=60
    )
    assert NOTICE in done.stdout
    assert analysis.outcome.value.replace("_", " ").upper() in done.stdout.upper()


CHEST_LIKE = (
    "cr_chest_japanese_names_32px",
    "cr_chest_mono1_10bit_nopreamble",
    "cr_chest_pa_mono1_15bit_j2k",
    "dai_covid_196",
    "dai_covid_943",
    "dai_normal_118",
    "dai_pneumonia_036",
    "dai_pneumonia_927_1_1",
    "dai_pneumonia_927_3_1",
    "dx_dog_thorax_mono1",
    "rsna_cr_chest_ap_8bit_jpeg",
    "rsna_cr_chest_pa_mono1_tag_flipped",
)


@pytest.mark.shared
@pytest.mark.dciodvfy
@pytest.mark.parametrize("name", CHEST_LIKE)
def test_real_headers_bring_their_own_errors_and_get_none_from_us(
    name: str, shared: Path, tmp_path: Path
) -> None:
    path = shared / "dicom" / f"{name}.dcm"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        source = dcmread(path, stop_before_pixels=True, force=True)
    theirs = set(verify(path))
    rows, columns = source.Rows, source.Columns
    lungs, heat = np.ones((rows, columns), bool), np.zeros((rows, columns), np.float32)
    heat[rows // 4 : rows // 2, columns // 8 : columns // 3] = 0.8
    picture = np.zeros((rows + 8, columns, 3), np.uint8)
    picture[8:] = np.arange(columns)[None, :, None] % 256
    explained = Explanation(heat, "covid19", 0.8)
    for analysis in (ANALYZED, INCONCLUSIVE, NOT_ANALYZED):
        seen = replace(analysis, lungs=lungs, explanation=explained)
        for built in build_results(order(source, analysis=seen, heatmap=picture)):
            gate.check(built.dataset, source)
            ours = set(complaints(tmp_path, built)) - theirs
            assert ours == set()


def test_what_is_written_is_a_complete_file() -> None:
    written = reread(encode(report(order())))
    assert written.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert written.file_meta.MediaStorageSOPInstanceUID == written.SOPInstanceUID
    assert len(written.file_meta.ImplementationVersionName) <= 16
