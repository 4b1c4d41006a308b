"""From an analysis to finished objects: draw, build, check, encode. Nothing is written here."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from pydicom.dataset import Dataset

from covidnet_node.case import Algorithm, Analysis, Outcome, Result, ResultKind
from covidnet_node.explain.overlay import draw_overlay, draw_plain
from covidnet_node.reports.charset import in_character_set
from covidnet_node.reports.gate import check
from covidnet_node.reports.order import Built, Order, Reference
from covidnet_node.reports.pixel_encoding import stated_syntax
from covidnet_node.reports.results import build_results, encode
from covidnet_node.reports.succession import succeed


@dataclass(frozen=True, slots=True)
class Finished:
    """One object that has passed the gate, as the bytes of its file."""

    kind: ResultKind
    sop_class_uid: str
    sop_instance_uid: str
    series_uid: str
    transfer_syntax_uid: str
    data: bytes

    def at(self, path: Path) -> Result:
        """The same object once its bytes lie at `path`."""
        return Result(
            kind=self.kind,
            sop_class_uid=self.sop_class_uid,
            sop_instance_uid=self.sop_instance_uid,
            series_uid=self.series_uid,
            transfer_syntax_uid=self.transfer_syntax_uid,
            path=path,
            sha256=hashlib.sha256(self.data).hexdigest(),
        )


@dataclass(frozen=True, slots=True)
class Source:
    """The image that is answered, what identifies its content, and what its answer follows."""

    header: Dataset
    content_at: datetime
    pixel_digest: str
    """Empty when the pixels could not be decoded."""
    identity_digest: str
    notes: tuple[str, ...] = ()
    predecessor: Reference | None = None


@dataclass(frozen=True, slots=True)
class Maker:
    """What answers: the weights, and the version of this program."""

    algorithm: Algorithm | None
    program: str


def follow(
    source: Source,
    analysis: Analysis,
    maker: Maker,
    earlier: Sequence[Sequence[Result]],
    now: datetime,
) -> Source:
    """Place an answer behind the earlier ones of the same case, oldest first.

    The same answer again keeps predecessor and content time; another names the last, at `now`.
    """
    order = succeed(_order(source, analysis, maker), earlier, now)
    return replace(source, predecessor=order.predecessor, content_at=order.content_at)


def make_results(source: Source, analysis: Analysis, maker: Maker) -> tuple[Finished, ...]:
    """Report and, where there is something to show, pictures; raises Park if the gate objects."""
    order = _drawn(_order(source, analysis, maker))
    built = build_results(order)
    for each in built:
        check(each.dataset, source.header, order.profile)
    return tuple(_finish(each) for each in built)


def _drawn(order: Order) -> Order:
    """Draw the pictures that the profile asks for."""
    analysis, algorithm, wanted = order.analysis, order.algorithm, order.profile.heatmap
    if analysis.outcome is Outcome.NOT_ANALYZED or algorithm is None or wanted == "none":
        return order
    plain = draw_plain(analysis, algorithm) if wanted == "plain_and_overlay" else None
    return replace(order, heatmap=draw_overlay(analysis, algorithm), plain=plain)


def _order(source: Source, analysis: Analysis, maker: Maker) -> Order:
    order = Order(
        source=source.header,
        analysis=analysis,
        algorithm=maker.algorithm,
        content_at=source.content_at,
        pixel_digest=source.pixel_digest,
        identity_digest=source.identity_digest,
        admission_notes=source.notes,
        predecessor=source.predecessor,
        program=maker.program,
    )
    return in_character_set(order)


def _finish(built: Built) -> Finished:
    dataset = built.dataset
    return Finished(
        kind=built.kind,
        sop_class_uid=str(dataset.SOPClassUID),
        sop_instance_uid=str(dataset.SOPInstanceUID),
        series_uid=str(dataset.SeriesInstanceUID),
        transfer_syntax_uid=str(stated_syntax(dataset)),
        data=encode(dataset),
    )
