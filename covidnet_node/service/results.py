"""From an analysis to finished objects: draw, build, check, encode. Nothing is written here."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from pydicom.dataset import Dataset

from covidnet_node.case import Algorithm, Analysis, Outcome, Result, ResultKind
from covidnet_node.config import Results
from covidnet_node.explain.overlay import draw_overlay, draw_plain
from covidnet_node.reports.charset import in_character_set
from covidnet_node.reports.gate import check
from covidnet_node.reports.order import Built, Order, Reference
from covidnet_node.reports.pixel_encoding import stated_syntax
from covidnet_node.reports.results import build_results, encode
from covidnet_node.reports.succession import succeed

Orders = tuple[Order, ...]
Names = tuple[str, ...]


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
    """What the order's profile wants, as files; raises Park if the gate objects."""
    built = build_results(_drawn(order))
    # Against what was received, not against our own conversion of it.
    received = order.source if order.original is None else order.original
    for each in built:
        check(each.dataset, received, order.profile)
    return tuple(_finish(each) for each in built)


def share_out(orders: Orders, wanted: Mapping[str, Results]) -> tuple[tuple[Finished, Names], ...]:
    """Make every order's results; of each object once, with the names of those who want it.

    `wanted` is what each destination wants. Raises Park if the gate objects to any.
    """
    finished: dict[str, Finished] = {}
    names: dict[str, list[str]] = {}
    for order in orders:
        mine = [name for name, profile in wanted.items() if profile == order.profile]
        for each in make_results(order):
            finished.setdefault(each.sop_instance_uid, each)
            names.setdefault(each.sop_instance_uid, []).extend(mine)
    return tuple((each, tuple(names[uid])) for uid, each in finished.items())


def form_of(sop_instance_uid: str) -> str:
    """A name for the file of an object that has others of its kind beside it."""
    return hashlib.sha256(sop_instance_uid.encode()).hexdigest()[:12]


def _drawn(order: Order) -> Order:
    """Draw the pictures that the profile asks for."""
    analysis, algorithm, wanted = order.analysis, order.algorithm, order.profile.heatmap
    if analysis.outcome is Outcome.NOT_ANALYZED or algorithm is None or wanted == "none":
        return order
    plain = draw_plain(analysis, algorithm) if wanted == "plain_and_overlay" else None
    return replace(order, heatmap=draw_overlay(analysis, algorithm), plain=plain)


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
