"""Whose image it is, read from headers of which nothing can be trusted."""

from io import BytesIO
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_dataset

from covidnet_node.audit.events import Subject
from covidnet_node.audit.subject import subject_in, subject_of


def header(raw: dict[str, bytes], charset: str) -> Dataset:
    """As it arrives: encoded bytes, nothing converted."""
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 100"
    for keyword in raw:
        setattr(dataset, keyword, "?" * 8)
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, True
    write_dataset(buffer, dataset)
    read = read_dataset(BytesIO(buffer.getvalue()), True, True)
    for keyword, value in raw.items():
        tag = dataset[keyword].tag
        read[tag] = read.get_item(tag)._replace(value=value)
    tag = dataset["SpecificCharacterSet"].tag
    read[tag] = read.get_item(tag)._replace(value=charset.encode())
    return read


@pytest.mark.parametrize(
    ("charset", "raw", "name"),
    [
        ("ISO_IR 192", "Müller^山田 ".encode(), "Müller^山田"),
        ("ISO_IR 100", "Müller^Jörg".encode("latin-1"), "Müller^Jörg"),
        ("GB18030", "王^小东".encode("gb18030"), "王^小东"),
        (
            "\\ISO 2022 IR 87",
            b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B",
            "Yamada^Tarou=山田^太郎",
        ),
        ("ISO_IR 192", "Jörg".encode("latin-1"), "J"),
        ("NO_SUCH_SET", b"Doe^Jane", "Doe^Jane"),
        ("", b"Doe^Jane\x00", "Doe^Jane"),
        ("ISO 2022 IR 87", b"\x1b$B\xff\xff\x1b", ""),
    ],
)
@pytest.mark.filterwarnings("error")
def test_names_in_any_character_set(charset: str, raw: bytes, name: str) -> None:
    subject = subject_of(header({"PatientName": raw, "PatientID": b"4711 "}, charset))
    assert subject.patient_name.startswith(name)
    assert subject.patient_id == "4711"


def test_an_empty_header_says_nothing() -> None:
    assert subject_of(Dataset()) == Subject()


def test_no_file_is_nobody(tmp_path: Path) -> None:
    assert subject_in(tmp_path / "none.dcm") == Subject()
    (tmp_path / "odd.dcm").write_bytes(b"\xff" * 300)
    assert subject_in(tmp_path / "odd.dcm") == Subject()
