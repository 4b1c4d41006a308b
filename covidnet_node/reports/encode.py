"""A result as the bytes of a file. Nothing else encodes results."""

from pydicom.charset import default_encoding
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_data_element, write_file_meta_info
from pydicom.uid import UID

from covidnet_node.reports.identity import pack_item, raw_element, text
from covidnet_node.reports.pixel_encoding import stated_syntax

_IMPLEMENTATION_UID = UID("2.25.309190340529143262418213205148205413141")
_IMPLEMENTATION_NAME = "COVIDNET_NODE_1"


def encode(dataset: Dataset) -> bytes:
    """Write a complete Part 10 file in the stated syntax; same data set, same bytes.

    Explicit VR Little Endian throughout; encapsulated pixel data are written as they are.
    Element by element, because the data set holds the source's own bytes under the source's own
    character set, which must not be decoded, judged or applied to our ASCII.
    """
    buffer = _buffer()
    buffer.write(b"\0" * 128 + b"DICM")
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(text(dataset, "SOPClassUID"))
    meta.MediaStorageSOPInstanceUID = UID(text(dataset, "SOPInstanceUID"))
    meta.TransferSyntaxUID = stated_syntax(dataset)
    meta.ImplementationClassUID = _IMPLEMENTATION_UID
    meta.ImplementationVersionName = _IMPLEMENTATION_NAME
    write_file_meta_info(buffer, meta, enforce_standard=True)
    buffer.write(_encode_elements(dataset))
    return buffer.getvalue()


def _encode_elements(dataset: Dataset) -> bytes:
    buffer = _buffer()
    for tag in sorted(dataset.keys()):
        element: DataElement | RawDataElement = dataset.get_item(tag)
        if isinstance(element, DataElement) and element.VR == "SQ":
            # Item by item, because pydicom would decode raw elements inside a sequence.
            items = b"".join(pack_item(_encode_elements(item)) for item in element.value)
            element = raw_element(tag, items)
        write_data_element(buffer, element, default_encoding)
    return buffer.getvalue()


def _buffer() -> DicomBytesIO:
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    return buffer
