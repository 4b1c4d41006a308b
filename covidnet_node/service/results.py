"""From an analysis to finished objects: draw, build, check, encode. Nothing is written here."""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from covidnet_node.case import Algorithm, Analysis, Outcome, Result, ResultKind
from covidnet_node.explain.overlay import draw_overlay
from covidnet_node.reports.gate import check
from covidnet_node.reports.order import Built, Order, Reference
from covidnet_node.reports.results import build_results, encode


@dataclass(frozen=True, slots=True)
class Finished:
    """One object that has passed the gate, as the bytes of its file."""

    kind: ResultKind
    sop_class_uid: str
    sop_instance_uid: str
    series_uid: str
    data: bytes

    def at(self, path: Path) -> Result:
        """The same object once its bytes lie at `path`."""
        return Result(
            kind=self.kind,
            sop_class_uid=self.sop_class_uid,
            sop_instance_uid=self.sop_instance_uid,
            series_uid=self.series_uid,
            transfer_syntax_uid=ExplicitVRLittleEndian,
            path=path,
            sha256=hashlib.sha256(self.data).hexdigest(),
        )


@dataclass(frozen=True, slots=True)
class Source:
    """The image that is answered: its header and what identifies its content."""

    header: Dataset
    content_at: datetime
    pixel_digest: str
    """Empty when the pixels could not be decoded."""
    identity_digest: str
    notes: tuple[str, ...] = ()
    predecessor: Reference | None = None


def make_results(
    source: Source, analysis: Analysis, algorithm: Algorithm | None
) -> tuple[Finished, ...]:
    """Report and, where there is something to show, heatmap; raises Park if the gate objects."""
    picture = None
    if analysis.outcome is not Outcome.NOT_ANALYZED and algorithm is not None:
        picture = draw_overlay(analysis, algorithm)
    order = Order(
        source=source.header,
        analysis=analysis,
        algorithm=algorithm,
        content_at=source.content_at,
        pixel_digest=source.pixel_digest,
        identity_digest=source.identity_digest,
        admission_notes=source.notes,
        predecessor=source.predecessor,
        heatmap=picture,
    )
    built = build_results(order)
    for each in built:
        check(each.dataset, source.header)
    return tuple(_finish(each) for each in built)


def _finish(built: Built) -> Finished:
    dataset = built.dataset
    return Finished(
        kind=built.kind,
        sop_class_uid=str(dataset.SOPClassUID),
        sop_instance_uid=str(dataset.SOPInstanceUID),
        series_uid=str(dataset.SeriesInstanceUID),
        data=encode(dataset),
    )
