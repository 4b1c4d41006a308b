"""Results carry the source's own identity, whatever state it is in."""

import warnings

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.datadict import tag_for_keyword

from covidnet_node.case import (
    Analysis,
)
from covidnet_node.reports import codes, gate
from covidnet_node.reports.encode import encode
from covidnet_node.reports.identity import value_bytes
from covidnet_node.reports.results import build_results
from tests.orders import OUTCOMES, header, named, order, raw, report, reread

# The source's own identity


NAMES = {
    "latin1": (b"ISO_IR 100", "Müller^Jörg".encode("latin-1")),
    "utf8": (b"ISO_IR 192", "Вишневская^Ольга=山田".encode()),
    "japanese": (
        b"\\ISO 2022 IR 87 ",
        b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B",
    ),
    "chinese": (b"GB18030 ", "Wang^XiaoDong=王^小东".encode("gb18030")),
    "korean": (
        b"\\ISO 2022 IR 149",
        b"Hong^Gildong=\x1b$)C" + "洪".encode("euc_kr") + b"^\x1b$)C" + "吉洞".encode("euc_kr"),
    ),
    "wrongly declared": (b"ISO_IR 100", "王^小东".encode("gb18030")),
    "undeclared": (None, "Müller^Jörg".encode("latin-1")),
    "unknown declaration": (b"ISO-8859-1", "Müller^Jörg".encode("latin-1")),
}


@pytest.mark.parametrize("language", NAMES)
@OUTCOMES
def test_names_keep_their_bytes_and_their_declaration(language: str, analysis: Analysis) -> None:
    charset, name = NAMES[language]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        source = header(SpecificCharacterSet=charset, PatientName=name, ReferringPhysicianName=name)
    even = name + b" " * (len(name) % 2)
    for built in build_results(order(source, analysis=analysis)):
        gate.check(built.dataset, source)
        written = reread(encode(built.dataset))
        for keyword in ("PatientName", "ReferringPhysicianName"):
            assert value_bytes(built.dataset, keyword) == even
            assert even in encode(built.dataset)
        assert value_bytes(built.dataset, "SpecificCharacterSet") == value_bytes(
            source, "SpecificCharacterSet"
        )
        assert written.PatientID == "PH-1"


def test_missing_type_2_attributes_are_present_and_empty() -> None:
    source = header(PatientBirthDate=None, StudyID=None, ReferringPhysicianName=None)
    for built in build_results(order(source)):
        for keyword in ("PatientBirthDate", "StudyID", "ReferringPhysicianName"):
            assert keyword in built.dataset
            assert value_bytes(built.dataset, keyword) == b""
        gate.check(built.dataset, source)


def test_invalid_values_are_carried_over_and_listed_by_name_only() -> None:
    source = header(
        PatientBirthDate=b"1960-01-01", PatientSex=b"FEMALE", StudyInstanceUID=b"1.02.3"
    )
    document = report(order(source))
    assert value_bytes(document, "PatientBirthDate") == b"1960-01-01"
    assert value_bytes(document, "PatientSex") == b"FEMALE"
    assert value_bytes(document, "StudyInstanceUID") == b"1.02.3"
    notes = " ".join(item.TextValue for item in named(document, codes.REMARK.value))
    assert "PatientBirthDate" in notes
    assert "StudyInstanceUID" in notes
    assert "1960" not in notes


def test_a_header_somebody_has_looked_at_gives_the_same_results() -> None:
    source = header(SpecificCharacterSet=b"GB18030 ", PatientName="王^小东".encode("gb18030"))
    before = encode(report(order(source)))
    assert str(source.PatientName)
    assert list(source)
    assert encode(report(order(source))) == before


IDENTITY = (
    "SpecificCharacterSet",
    "TimezoneOffsetFromUTC",
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "PatientAge",
    "PatientWeight",
    "OtherPatientIDsSequence",
    "IssuerOfPatientIDQualifiersSequence",
    "StudyDate",
    "StudyTime",
    "StudyDescription",
    "ProcedureCodeSequence",
    "RequestAttributesSequence",
    "AdditionalPatientHistory",
    "Modality",
    "Rows",
    "Columns",
    "PatientOrientation",
    "Laterality",
    "BodyPartExamined",
    "BurnedInAnnotation",
    "PixelAspectRatio",
    "LossyImageCompression",
)
PLAUSIBLE = (
    b"",
    b" ",
    b"\0",
    b"ISO 2022 IR 87",
    b"GB18030",
    b"A\\B\\C",
    b"20200101",
    b"x" * 70_000,
    b"\xfe\xff\x00\xe0\x04\x00\x00\x00abcd",
    b"\xfe\xff\x00\xe0\xff\xff\xff\xff\x08\x00\x50\x00SH\x02\x00AB\xfe\xff\x0d\xe0\0\0\0\0",
)
"""Near misses: wrong lengths, wrong types, items that end early."""


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.too_slow])
@given(
    broken=st.dictionaries(
        st.sampled_from(IDENTITY),
        st.one_of(st.sampled_from(PLAUSIBLE), st.binary(max_size=40)),
        max_size=8,
    ),
    missing=st.sets(st.sampled_from(("PatientName", "PatientID", "StudyDate", "Modality", "Rows"))),
    little=st.booleans(),
)
def test_no_header_is_too_broken_for_an_answer(
    broken: dict[str, bytes], missing: set[str], little: bool
) -> None:
    source = header()
    for keyword in missing:
        delattr(source, keyword)
    for keyword, value in broken.items():
        if keyword in {"Rows", "Columns"} and len(value) == 2:
            continue  # a number, and then the picture is rightly not this image's
        number = tag_for_keyword(keyword)
        assert number is not None
        # A null within the declaration keeps pydicom from reading a file at all.
        put = value.replace(b"\0", b"") if keyword == "SpecificCharacterSet" else value
        source[number] = raw(number, put, little=little)
    for built in build_results(order(source)):
        gate.check(built.dataset, source)
        again = reread(encode(built.dataset))
        assert again.SOPInstanceUID == built.dataset.SOPInstanceUID
        if "PatientName" in broken and len(broken["PatientName"]) < 60_000:
            given_name = broken["PatientName"]
            assert value_bytes(again, "PatientName") == given_name + b" " * (len(given_name) % 2)
