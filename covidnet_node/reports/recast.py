"""The same report in another SR class, for a peer that turns out not to take the first."""

from io import BytesIO

from pydicom import dcmread
from pydicom.dataset import Dataset

from covidnet_node.reports.encode import encode
from covidnet_node.reports.identity import raw_element, tag_of, text
from covidnet_node.reports.order import (
    REPORT_CLASS_UIDS,
    Reference,
    ReportClass,
    class_called,
    is_below,
)
from covidnet_node.reports.uids import in_class, recast_uid


def recast(file: bytes, wanted: ReportClass) -> bytes:
    """Rewrite a report of ours in a class that asks for less of its reader.

    The result is, byte for byte, what a profile that asks for that class would have given: the
    same content under its own UID. Raises ValueError for what is no report of a class above.
    """
    report = dcmread(BytesIO(file))
    given = class_called(text(report, "SOPClassUID"))
    if given is None or not is_below(wanted, given):
        raise ValueError("only a report of a class above can be recast")
    _set(report, "SOPClassUID", REPORT_CLASS_UIDS[wanted])
    _set(report, "SOPInstanceUID", recast_uid(text(report, "SOPInstanceUID"), wanted, given))
    # In place: `identity.items` would give copies.
    for study in report.get("PredecessorDocumentsSequence", ()):
        for series in study.ReferencedSeriesSequence:
            for item in series.ReferencedSOPSequence:
                _recast_reference(item, wanted)
    return encode(report)


def _recast_reference(item: Dataset, wanted: ReportClass) -> None:
    """Point at the earlier report in the class that this one now has."""
    names = text(item, "ReferencedSOPClassUID"), text(item, "ReferencedSOPInstanceUID")
    there = in_class(Reference("", *names), wanted)
    _set(item, "ReferencedSOPClassUID", there.sop_class_uid)
    _set(item, "ReferencedSOPInstanceUID", there.sop_uid)


def _set(dataset: Dataset, keyword: str, value: str) -> None:
    padded = value.encode("ascii") + b"\0" * (len(value) % 2)
    dataset[tag_of(keyword)] = raw_element(tag_of(keyword), padded)
