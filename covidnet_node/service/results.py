"""From an analysis to finished objects: draw, build, check, encode. Nothing is written here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np
import structlog
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from covidnet_node.case import Algorithm, Analysis, LeftOut, Result, ResultKind
from covidnet_node.config import Results
from covidnet_node.errors import Park
from covidnet_node.explain.overlay import draw_overlay, draw_plain
from covidnet_node.reports.charset import in_character_set
from covidnet_node.reports.encode import encode
from covidnet_node.reports.gate import check
from covidnet_node.reports.order import Built, Order, Reference
from covidnet_node.reports.pixel_encoding import stated_syntax
from covidnet_node.reports.results import OPTIONAL, build_one, wanted_kinds
from covidnet_node.reports.succession import succeed
from covidnet_node.reports.uids import instance_uid
from covidnet_node.service.finished import Finished

Orders = tuple[Order, ...]
Pictures = dict[ResultKind, NDArray[np.uint8]]
"""What is drawn of one analysis."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Share:
    """One object, and the names of the destinations that want it."""

    finished: Finished
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Shares:
    """An answer, ready to be shelved."""

    shares: tuple[Share, ...]
    left_out: tuple[LeftOut, ...] = ()


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


def follow(orders: Sequence[Order], earlier: Sequence[Sequence[Result]], now: datetime) -> Orders:
    """Place an answer, ordered in every profile, behind the earlier ones of its case, oldest first.

    The same answer again keeps predecessor and content time; another names the last, at `now`. An
    answer is the same if it is so in any profile: a destination that is new, or wants another
    form now, does not make another answer. All profiles name one predecessor, so that they go on
    sharing what is the same in them.
    """
    if not earlier:
        return tuple(orders)
    placed = [succeed(order, earlier, now) for order in orders]
    chosen = next((order for order in placed if order.content_at != now), placed[0])
    return tuple(
        replace(order, predecessor=chosen.predecessor, content_at=chosen.content_at)
        for order in orders
    )


def order_results(
    source: Source, analysis: Analysis, maker: Maker, profiles: Sequence[Results]
) -> Orders:
    """One order a profile."""
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
    return tuple(in_character_set(replace(order, profile=profile)) for profile in profiles)


def make_results(order: Order) -> tuple[Finished, ...]:
    """What the order's profile wants, as files; raises Park if the gate objects to any of it."""
    pictures: Pictures = {}
    made = (_make(order, kind, pictures) for kind in wanted_kinds(order))
    return tuple(each for each in made if each is not None)


def share_out(orders: Orders, wanted: Mapping[str, Results]) -> Shares:
    """Make what the orders of one answer want: each object once, whoever wants it.

    `wanted` is what each destination wants. Raises Park if the gate objects to a report or a
    heatmap; another object that fails is left out of the answer instead.
    """
    shares: dict[str, Share] = {}
    left_out: dict[str, LeftOut] = {}
    pictures: Pictures = {}
    for order in orders:
        mine = tuple(name for name, profile in wanted.items() if profile == order.profile)
        for kind in wanted_kinds(order):
            uid = instance_uid(order, kind)
            if uid in shares:
                shares[uid] = replace(shares[uid], names=shares[uid].names + mine)
            elif uid not in left_out:
                make = _try if kind in OPTIONAL else _make
                made = make(order, kind, pictures)
                if isinstance(made, LeftOut):
                    left_out[uid] = made
                elif made is not None:
                    shares[uid] = Share(made, mine)
    return Shares(tuple(shares.values()), tuple(left_out.values()))


def _try(order: Order, kind: ResultKind, pictures: Pictures) -> Finished | LeftOut | None:
    """Make an object that an answer can do without, or say why there is none.

    Deciding place: whatever is wrong with it must not keep the report from leaving.
    """
    try:
        return _make(order, kind, pictures)
    except Park as verdict:
        # The gate has said all there is to say.
        log.error("left_out", kind=kind.value, reason=str(verdict), alert=True)  # noqa: TRY400
        return LeftOut(kind, str(verdict))
    except Exception as error:
        log.exception("left_out", kind=kind.value, alert=True)
        return LeftOut(kind, type(error).__name__)


def _make(order: Order, kind: ResultKind, pictures: Pictures) -> Finished | None:
    """Build one object, look at it, encode it; None where there is nothing to show."""
    built = build_one(_drawn(order, kind, pictures), kind)
    if built is None:
        return None
    # Against what was received, not against our own conversion of it.
    received = order.source if order.original is None else order.original
    check(built.dataset, received, order.profile, order.analysis)
    return _finish(built)


def _drawn(order: Order, kind: ResultKind, pictures: Pictures) -> Order:
    """Put the picture that the object shows into the order; of one answer each is drawn once."""
    draw = {ResultKind.HEATMAP: draw_overlay, ResultKind.PLAIN: draw_plain}.get(kind)
    if draw is None or order.algorithm is None:
        return order
    if kind not in pictures:
        pictures[kind] = draw(order.analysis, order.algorithm)
    picture = pictures[kind]
    if kind is ResultKind.HEATMAP:
        return replace(order, heatmap=picture)
    return replace(order, plain=picture)


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
