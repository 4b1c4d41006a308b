"""The words of a verdict end in journal, log and pages: none quotes what a header says."""

from copy import deepcopy
from datetime import date
from io import BytesIO
from pathlib import Path

import pytest
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import FileDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_data_element
from pydicom.tag import Tag

from covidnet_node.admit import HEADER_KEYWORDS, admit
from covidnet_node.config import Admit
from covidnet_node.errors import Verdict
from covidnet_node.imaging.decode import read_source
from covidnet_node.look import look
from covidnet_node.phantom.film import phantom_dataset
from covidnet_node.receive.read_header import read_header

EXPLICIT = "1.2.840.10008.1.2.1"
NAME = "QXSECRETNAME^ANNA"
ALSO = (
    *("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"),
    *("SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "BitsAllocated"),
    *("BitsStored", "HighBit", "PixelRepresentation", "PixelAspectRatio", "PixelPaddingValue"),
    *("WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence", "ModalityLUTSequence"),
    *("RescaleSlope", "RescaleIntercept", "RescaleType", "PresentationLUTShape", "PixelSpacing"),
    *("ImagerPixelSpacing", "BurnedInAnnotation", "LossyImageCompression", "Laterality"),
    *("PatientName", "PatientID", "PatientSex", "AccessionNumber", "TimezoneOffsetFromUTC"),
    *("StudyTime", "ImageLaterality", "FieldOfViewShape", "DetectorType", "PixelData"),
)


@pytest.fixture(scope="module")
def film() -> FileDataset:
    return phantom_dataset(1, rows=128, columns=128, name=NAME, patient_id=NAME)


def written(image: FileDataset, path: Path) -> int:
    """A file as the receiver leaves it; where its data set begins."""
    head = BytesIO()
    image_of_meta = FileDataset(None, {}, file_meta=image.file_meta)
    image_of_meta.save_as(head, enforce_file_format=True)
    buffer = DicomBytesIO()
    buffer.is_implicit_VR, buffer.is_little_endian = False, True
    for tag in sorted(image.keys()):
        element = image.get_item(tag)
        assert element is not None
        write_data_element(buffer, element, ["latin-1"])
    path.write_bytes(head.getvalue() + buffer.getvalue())
    return len(head.getvalue())


def words(path: Path, offset: int) -> str:
    """Everything that the rooms before the report say of a file."""
    said = []
    try:
        header = read_header(path, offset, EXPLICIT)
        told = admit(header.dataset, header.sop_class_uid, "XRAY", Admit(), date(2026, 11, 23))
        said += [told.detail, *told.notes]
        picture = look(read_source(path))
        said += picture.notes
    except Verdict as verdict:
        said.append(str(verdict))
    return " ".join(said)


@pytest.mark.parametrize("keyword", sorted({*HEADER_KEYWORDS, *ALSO}))
@pytest.mark.filterwarnings("ignore")
def test_no_verdict_quotes_the_header(film: FileDataset, tmp_path: Path, keyword: str) -> None:
    image = deepcopy(film)
    tag = Tag(tag_for_keyword(keyword) or 0)
    value = NAME.encode() + b" "
    vr = dictionary_VR(tag).partition(" ")[0]
    image[tag] = RawDataElement(tag, vr, len(value), value, 0, False, True)
    path = tmp_path / "source.dcm"
    assert "SECRET" not in words(path, written(image, path)).upper()
