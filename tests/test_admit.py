"""Admission: rules, intended use, and headers that lie."""

from datetime import date
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.sequence import Sequence
from pydicom.tag import Tag

from covidnet_node.admit import CR, DX_FOR_PRESENTATION, DX_FOR_PROCESSING, admit, is_own_heatmap
from covidnet_node.admit import SECONDARY_CAPTURE as SC
from covidnet_node.case import Admission, Reason
from covidnet_node.config import CHEST, Admit, Rule
from covidnet_node.intended_use import MANUFACTURER, PRODUCT

TODAY = date(2026, 11, 23)
RULES = Admit()


def chest(**attributes: object) -> Dataset:
    """An adult's PA chest radiograph, as a header."""
    header = Dataset()
    plain = {
        "Modality": "DX",
        "BodyPartExamined": "CHEST",
        "ViewPosition": "PA",
        "PatientAge": "045Y",
        "StudyDate": "20260101",
        "Rows": 2000,
        "Columns": 2000,
    }
    for keyword, value in (plain | attributes).items():
        if value is not None:
            setattr(header, keyword, value)
    return header


def judge(header: Dataset, sop_class: str = DX_FOR_PRESENTATION, rules: Admit = RULES) -> Admission:
    return admit(header, sop_class, "SENDER", rules, TODAY)


def code(meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = "1", "99TEST", meaning
    return item


def test_adult_frontal_chest_is_admitted_without_reason():
    assert judge(chest()) == Admission(admitted=True, reason=None)


@pytest.mark.parametrize(
    ("attributes", "sop_class", "reason"),
    [
        ({"BodyPartExamined": "HIP"}, CR, Reason.NO_RULE),
        ({"Modality": "CT"}, "1.2.840.10008.5.1.4.1.1.2", Reason.NO_RULE),
        ({"Modality": "CT"}, CR, Reason.NO_RULE),
        ({"Rows": None}, CR, Reason.NO_PIXELS),
        ({"Columns": 0}, CR, Reason.NO_PIXELS),
        ({"NumberOfFrames": "30"}, CR, Reason.MULTI_FRAME),
        ({}, SC, Reason.SECONDARY_CAPTURE),
        ({}, DX_FOR_PROCESSING, Reason.FOR_PROCESSING),
        ({"PresentationIntentType": "FOR PROCESSING"}, DX_FOR_PRESENTATION, Reason.FOR_PROCESSING),
        ({}, "1.2.840.10008.5.1.4.1.1.88.34", Reason.NO_RULE),
    ],
)
def test_what_is_not_ours_is_refused(attributes, sop_class, reason):
    admission = judge(chest(**attributes), sop_class)
    assert (admission.admitted, admission.reason) == (False, reason)


def test_secondary_capture_needs_a_rule_that_names_its_class():
    named = Admit(rules=(Rule(action="admit", sop_class=(SC,), body_part=CHEST),))
    assert judge(chest(), SC, named).admitted
    assert judge(chest(BodyPartExamined="FOOT"), SC, named).reason is Reason.SECONDARY_CAPTURE


def test_our_own_heatmap_is_refused_even_by_a_rule_for_secondary_captures():
    named = Admit(rules=(Rule(action="admit", sop_class=(SC,)),))
    own = chest(Manufacturer=MANUFACTURER, ManufacturerModelName=PRODUCT)
    assert is_own_heatmap(own)
    assert not is_own_heatmap(chest(Manufacturer=MANUFACTURER))
    assert judge(own, SC, named).reason is Reason.SECONDARY_CAPTURE


def test_for_processing_needs_a_rule_that_names_the_intent():
    named = Admit(rules=(Rule(action="admit", presentation_intent=("for processing",)),))
    assert judge(chest(PresentationIntentType="FOR PROCESSING"), DX_FOR_PROCESSING, named).admitted
    assert judge(chest(), DX_FOR_PROCESSING, named).admitted


def test_first_rule_that_matches_decides():
    rules = Admit(
        rules=(
            Rule(action="refuse", name="no portables", calling_ae=("PORTABLE",)),
            Rule(action="admit", view="^(pa|ap)$", min_rows=500, min_columns=500),
        )
    )
    portable = admit(chest(), CR, "PORTABLE", rules, TODAY)
    assert (portable.reason, portable.detail) == (Reason.RULE_REFUSES, "rule 'no portables'")
    assert admit(chest(), CR, "ROOM1", rules, TODAY).admitted
    assert admit(chest(Rows=499), CR, "ROOM1", rules, TODAY).reason is Reason.NO_RULE


@pytest.mark.parametrize(
    "attributes",
    [
        {"StudyDescription": "XR Thorax 2 Ebenen"},
        {"ProcedureCodeSequence": Sequence([code("Plain chest X-ray")])},
        {"AnatomicRegionSequence": Sequence([code("Chest")])},
        {"ProtocolName": "lung"},
    ],
)
def test_chest_is_recognized_by_more_than_the_body_part(attributes):
    assert judge(chest(BodyPartExamined="", **attributes)).admitted


def test_chest_is_recognized_in_the_request():
    request = Dataset()
    request.RequestedProcedureDescription = "CXR portable"
    assert judge(chest(BodyPartExamined="", RequestAttributesSequence=Sequence([request]))).admitted


@pytest.mark.parametrize(
    "attributes",
    [
        {"ViewPosition": "LL"},
        {"ViewPosition": "LATERAL"},
        {"ViewPosition": "RL"},
        {"ViewPosition": "", "ViewCodeSequence": Sequence([code("left lateral")])},
        {"ViewPosition": "", "PatientOrientation": ["A", "F"]},
        {"ViewPosition": "", "PatientOrientation": ["PR", "FA"]},
        {"ViewPosition": "", "SeriesDescription": "Chest lat."},
    ],
)
def test_lateral_view_is_admitted_and_answered(attributes):
    admission = judge(chest(**attributes))
    assert (admission.admitted, admission.reason) == (True, Reason.LATERAL)


@pytest.mark.parametrize(
    "attributes",
    [
        {"PatientOrientation": ["L", "F"]},
        {"PatientOrientation": ["R", "F"]},
        {"SeriesDescription": "Chest PA and lateral"},
        {"ViewPosition": "", "SeriesDescription": "Thorax, PA/LAT"},
        {"ViewPosition": "", "ViewCodeSequence": Sequence([code("postero-anterior")])},
        {"ViewPosition": "", "SeriesDescription": "bilateral lungs"},
    ],
)
def test_frontal_view_is_not_taken_for_lateral(attributes):
    assert judge(chest(**attributes)).reason is None


@pytest.mark.parametrize(
    ("age", "birth", "study", "reason"),
    [
        ("018Y", None, "20260101", None),
        ("017Y", None, "20260101", Reason.UNDER_18),
        ("216M", None, "20260101", None),
        ("215M", None, "20260101", Reason.UNDER_18),
        ("939W", None, "20260101", Reason.UNDER_18),
        ("999D", None, "20260101", Reason.UNDER_18),
        ("003D", None, "20260101", Reason.UNDER_18),
        ("45", None, "20260101", None),
        ("", "20080102", "20260101", Reason.UNDER_18),
        ("", "20080101", "20260101", None),
        ("", "1970-12-31", "2021-03-06", None),
        ("", "2010.01.01", "2021.03.06", Reason.UNDER_18),
        ("", "20200229", "", Reason.UNDER_18),
        ("000Y", "19500101", "20260101", None),
        ("000Y", None, "20260101", Reason.UNDER_18),
        ("045Y", "20200101", "20260101", Reason.UNDER_18),
        ("", "20990101", "20260101", None),
        ("", "00010101", "20260101", None),
        ("", "19991399", "20260101", None),
    ],
)
@pytest.mark.filterwarnings("ignore:Invalid value")
def test_age_comes_from_age_or_dates(age, birth, study, reason):
    header = parsed(PatientAge=age, PatientBirthDate=birth or "", StudyDate=study)
    assert judge(header).reason is reason


def parsed(**attributes: str | bytes) -> Dataset:
    """The chest header as it comes from a sender that does not keep to the VRs."""
    header = chest(**dict.fromkeys(attributes))
    encoded = BytesIO()
    header.save_as(encoded, implicit_vr=True, little_endian=True)
    again = read_dataset(BytesIO(encoded.getvalue()), is_implicit_VR=True, is_little_endian=True)
    for keyword, text in attributes.items():
        tag = Tag(tag_for_keyword(keyword))
        value = text if isinstance(text, bytes) else text.encode()
        again._dict[tag] = RawDataElement(tag, None, len(value), value, 0, True, True)
    return again


def test_unknown_age_is_noted_or_answered_as_the_site_says():
    header = chest(PatientAge=None)
    admission = judge(header)
    assert admission.reason is None
    assert any("age" in note for note in admission.notes)
    strict = Admit(age_unknown="not_analyzed")
    assert judge(header, rules=strict).reason is Reason.AGE_UNKNOWN


def test_small_matrix_is_too_small():
    assert judge(chest(Columns=199)).reason is Reason.TOO_SMALL


def test_animals_are_not_analyzed():
    assert judge(chest(PatientSpeciesDescription="Canine")).reason is Reason.NOT_A_CHEST
    assert judge(chest(PatientSpeciesDescription="Homo sapiens")).reason is None


def test_detail_and_notes_hold_no_patient_data():
    header = chest(
        PatientName="Secret^Name", PatientID="4711", PatientBirthDate="20150607", PatientAge=None
    )
    text = repr(judge(header))
    assert not any(secret in text for secret in ("Secret", "4711", "2015"))


def test_pattern_in_the_language_of_the_site():
    header = chest(
        BodyPartExamined="", SpecificCharacterSet="ISO_IR 192", StudyDescription="胸部正面"
    )
    encoded = BytesIO()
    header.save_as(encoded, implicit_vr=True, little_endian=True)
    again = read_dataset(BytesIO(encoded.getvalue()), is_implicit_VR=True, is_little_endian=True)
    rules = Admit(rules=(Rule(action="admit", description="胸部"),))
    assert judge(again, rules=rules).admitted


WORDS = st.text("CHESTPALtR0123459YMDW-./\\ ", max_size=16)
TEXT_KEYWORDS = (
    *("Modality", "BodyPartExamined", "ViewPosition", "PatientAge", "PatientBirthDate"),
    *("StudyDate", "StudyDescription", "PatientOrientation", "PresentationIntentType"),
    *("SpecificCharacterSet", "NumberOfFrames", "ViewCodeSequence", "Rows"),
)


@given(
    st.dictionaries(st.sampled_from(TEXT_KEYWORDS), st.binary(max_size=24)), st.text(max_size=70)
)
def test_any_header_gets_an_admission(values, sop_class):
    header = parsed(**values)
    for uid in (sop_class, CR, SC):
        assert isinstance(judge(header, uid), Admission)


@given(st.binary(max_size=400), st.booleans(), st.booleans())
def test_any_bytes_read_as_a_header_get_an_admission(data, implicit, little):
    try:
        header = read_dataset(BytesIO(data), implicit, little)
    except Exception:  # noqa: BLE001 - whatever pydicom cannot read never reaches admit
        return
    assert isinstance(judge(header, CR), Admission)


@given(
    st.dictionaries(st.sampled_from(TEXT_KEYWORDS[:9]), WORDS), st.sampled_from(["", " ", "   "])
)
def test_case_and_white_space_do_not_change_the_verdict(values, pad):
    upper = parsed(**{key: value.upper() for key, value in values.items()})
    lower = parsed(
        **{
            key: "\\".join(f"{pad}{part.lower()}{pad}" for part in value.split("\\"))
            for key, value in values.items()
        }
    )
    assert judge(upper) == judge(lower)


@pytest.mark.shared
@pytest.mark.filterwarnings("ignore")
def test_real_files(shared):
    expected = {
        "cr_chest_pa_mono1_15bit_j2k": (True, None),
        "cr_chest_mono1_10bit_nopreamble": (True, None),
        "cr_chest_japanese_names_32px": (True, Reason.TOO_SMALL),
        "dx_dog_thorax_mono1": (True, Reason.UNDER_18),
        "rsna_cr_chest_ap_8bit_jpeg": (False, Reason.SECONDARY_CAPTURE),
        "dai_covid_196": (False, Reason.SECONDARY_CAPTURE),
        "cr_hip_rle": (False, Reason.NO_RULE),
        "ct_chest_scout_like_jpeg_lossless": (False, Reason.NO_RULE),
        "xa_multiframe_96_jpeg": (False, Reason.MULTI_FRAME),
        "sr_no_pixels": (False, Reason.NO_PIXELS),
        "rtplan_no_pixels": (False, Reason.NO_PIXELS),
    }
    for name, verdict in expected.items():
        header = dcmread(shared / "dicom" / f"{name}.dcm", force=True, stop_before_pixels=True)
        admission = judge(header, str(header.get("SOPClassUID")))
        assert (name, admission.admitted, admission.reason) == (name, *verdict)
