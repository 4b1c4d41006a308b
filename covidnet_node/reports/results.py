"""The results of one image: a report, and the pictures that its destinations want.

No clock is read and no random number drawn: the same order gives the same bytes.
"""

from collections.abc import Iterator
from datetime import datetime

from pydicom.charset import default_encoding
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_data_element, write_file_meta_info
from pydicom.uid import UID

from covidnet_node.case import Algorithm, Analysis, Outcome, Reason, ResultKind
from covidnet_node.reports.charset import in_character_set
from covidnet_node.reports.contours import build_contours
from covidnet_node.reports.evidence_map import build_evidence_map
from covidnet_node.reports.heatmap_image import build_picture
from covidnet_node.reports.identity import (
    pack_item,
    raw_element,
    refer_to_requests,
    text,
    transplant,
)
from covidnet_node.reports.lung_segmentation import build_segmentation
from covidnet_node.reports.order import Built, Order, Reference, report_class
from covidnet_node.reports.page_image import build_page
from covidnet_node.reports.pixel_encoding import stated_syntax
from covidnet_node.reports.series import date, series_of, sign
from covidnet_node.reports.structured_report import build_report

_IMPLEMENTATION_UID = UID("2.25.309190340529143262418213205148205413141")
_IMPLEMENTATION_NAME = "COVIDNET_NODE_1"


def build_results(order: Order) -> tuple[Built, ...]:
    """Build what is owed for one image, as its profile asks for it: the report first.

    Then heatmap, plain picture, contours, segmentation and evidence map, each where it is wanted
    and there is something to show. Of an image that was not analyzed there is always a report,
    and beside it a page, if that is wanted.
    """
    order = in_character_set(order)
    built = []
    if report_class(order) is not None:
        report = build_report(order, series_of(order, ResultKind.REPORT))
        refer_to_requests(order.source, report)
        built.append(_finish(order, ResultKind.REPORT, report))
    if order.analysis.outcome is not Outcome.NOT_ANALYZED:
        built += [_finish(order, kind, image) for kind, image in _pictures(order)]
    elif order.profile.page:
        page = build_page(order, series_of(order, ResultKind.PAGE))
        built.append(_finish(order, ResultKind.PAGE, page))
    return tuple(built)


def _pictures(order: Order) -> Iterator[tuple[ResultKind, Dataset]]:
    wanted = order.profile
    for kind, picture, asked in (
        (ResultKind.HEATMAP, order.heatmap, wanted.heatmap != "none"),
        (ResultKind.PLAIN, order.plain, wanted.heatmap == "plain_and_overlay"),
    ):
        if picture is not None and asked:
            yield kind, build_picture(order, kind, series_of(order, kind), picture)
    for kind, build, asked in (
        (ResultKind.CONTOURS, build_contours, wanted.contours),
        (ResultKind.SEGMENTATION, build_segmentation, wanted.segmentation),
        (ResultKind.EVIDENCE_MAP, build_evidence_map, wanted.evidence_map),
    ):
        image = build(order, series_of(order, kind)) if asked else None
        if image is not None:
            yield kind, image


def build_failure(
    source: Dataset,
    reason: Reason,
    detail: str,
    *,
    content_at: datetime,
    pixel_digest: str = "",
    identity_digest: str = "",
    algorithm: Algorithm | None = None,
    admission_notes: tuple[str, ...] = (),
    predecessor: Reference | None = None,
    program: str = "",
) -> Built:
    """Build the "not analyzed" report from the header alone, so that no image goes unanswered."""
    order = Order(
        source=source,
        analysis=Analysis(Outcome.NOT_ANALYZED, reason, detail),
        algorithm=algorithm,
        content_at=content_at,
        pixel_digest=pixel_digest,
        identity_digest=identity_digest,
        admission_notes=admission_notes,
        predecessor=predecessor,
        program=program,
    )
    return build_results(order)[0]


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


def _finish(order: Order, kind: ResultKind, dataset: Dataset) -> Built:
    sign(dataset, order)
    date(dataset, order)
    transplant(order.source, dataset)
    return Built(kind, dataset)
