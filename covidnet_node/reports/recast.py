"""The same report in another SR class, for a peer that turns out not to take the first."""

from io import BytesIO

from pydicom import dcmread
from pydicom.uid import Comprehensive3DSRStorage

from covidnet_node.reports.identity import raw_element, text
from covidnet_node.reports.order import REPORT_CLASS_UIDS, ReportClass
from covidnet_node.reports.results import encode
from covidnet_node.reports.uids import recast_uid


def recast(file: bytes, wanted: ReportClass) -> bytes:
    """Rewrite a Comprehensive 3D SR of ours as Comprehensive or Enhanced SR.

    The result is, byte for byte, what a profile that asks for that class would have given: the
    same content under its own UID. Raises ValueError for a file of another class.
    """
    report = dcmread(BytesIO(file))
    if text(report, "SOPClassUID") != Comprehensive3DSRStorage:
        raise ValueError("only a Comprehensive 3D SR can be recast")
    for keyword, value in (
        ("SOPClassUID", REPORT_CLASS_UIDS[wanted]),
        ("SOPInstanceUID", recast_uid(text(report, "SOPInstanceUID"), wanted)),
    ):
        element = report.get_item(keyword)
        padded = value.encode("ascii") + b"\0" * (len(value) % 2)
        report[element.tag] = raw_element(element.tag, padded)
    return encode(report)
