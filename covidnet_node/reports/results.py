"""The results of one image: a report, and the pictures that its destinations want.

No clock is read and no random number drawn: the same order gives the same bytes.
"""

from datetime import datetime

from pydicom.dataset import Dataset

from covidnet_node.case import Algorithm, Analysis, Outcome, Reason, ResultKind
from covidnet_node.reports.charset import in_character_set
from covidnet_node.reports.contours import build_contours
from covidnet_node.reports.evidence_map import build_evidence_map
from covidnet_node.reports.heatmap_image import build_picture
from covidnet_node.reports.identity import (
    refer_to_requests,
    transplant,
)
from covidnet_node.reports.lung_segmentation import build_segmentation
from covidnet_node.reports.order import Built, Order, Reference, report_class
from covidnet_node.reports.page_image import build_page
from covidnet_node.reports.series import Series, date, series_of, sign
from covidnet_node.reports.structured_report import build_report

OPTIONAL = frozenset(
    {
        ResultKind.PLAIN,
        ResultKind.CONTOURS,
        ResultKind.SEGMENTATION,
        ResultKind.EVIDENCE_MAP,
        ResultKind.PAGE,
    }
)
"""Beside report and heatmap: an answer without them is still a whole answer."""


def build_results(order: Order) -> tuple[Built, ...]:
    """Build all that is owed for one image, as its profile asks for it: the report first.

    Of an image that was not analyzed there is always a report, and beside it a page, if that is
    wanted.
    """
    built = (build_one(order, kind) for kind in wanted_kinds(order))
    return tuple(each for each in built if each is not None)


def wanted_kinds(order: Order) -> tuple[ResultKind, ...]:
    """Name what the profile asks for of such an answer, the report first."""
    wanted = order.profile
    analyzed = order.analysis.outcome is not Outcome.NOT_ANALYZED
    asked = {
        ResultKind.REPORT: report_class(order) is not None,
        ResultKind.HEATMAP: analyzed and wanted.heatmap != "none",
        ResultKind.PLAIN: analyzed and wanted.heatmap == "plain_and_overlay",
        ResultKind.CONTOURS: analyzed and wanted.contours,
        ResultKind.SEGMENTATION: analyzed and wanted.segmentation,
        ResultKind.EVIDENCE_MAP: analyzed and wanted.evidence_map,
        ResultKind.PAGE: not analyzed and wanted.page,
    }
    return tuple(kind for kind, is_asked in asked.items() if is_asked)


def build_one(order: Order, kind: ResultKind) -> Built | None:
    """Build one object of an answer; None where there is nothing to show in it."""
    order = in_character_set(order)
    dataset = _dataset(order, kind, series_of(order, kind))
    if dataset is None:
        return None
    if kind is ResultKind.REPORT:
        refer_to_requests(order.source, dataset)
    sign(dataset, order)
    date(dataset, order)
    transplant(order.source, dataset)
    return Built(kind, dataset)


def _dataset(order: Order, kind: ResultKind, series: Series) -> Dataset | None:
    match kind:
        case ResultKind.REPORT:
            return build_report(order, series)
        case ResultKind.HEATMAP | ResultKind.PLAIN:
            picture = order.heatmap if kind is ResultKind.HEATMAP else order.plain
            return None if picture is None else build_picture(order, kind, series, picture)
        case ResultKind.CONTOURS:
            return build_contours(order, series)
        case ResultKind.SEGMENTATION:
            return build_segmentation(order, series)
        case ResultKind.EVIDENCE_MAP:
            return build_evidence_map(order, series)
        case ResultKind.PAGE:
            return build_page(order, series)


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
