"""The series a study gets, and the equipment that claims them."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from pydicom.dataset import Dataset

from covidnet_node.case import Algorithm, ResultKind
from covidnet_node.intended_use import MANUFACTURER, NOTICE, PRODUCT
from covidnet_node.reports import codes, uids
from covidnet_node.reports.identity import zone
from covidnet_node.reports.narrative import ascii_text
from covidnet_node.reports.order import Order

_BEHIND_HEATMAP = {
    ResultKind.HEATMAP: 0,
    ResultKind.CONTOURS: 1,
    ResultKind.SEGMENTATION: 2,
    ResultKind.EVIDENCE_MAP: 3,
    ResultKind.PAGE: 4,
}
"""Series numbers from the heatmap's on."""

_WORDS = {
    ResultKind.CONTOURS: "outline",
    ResultKind.SEGMENTATION: "lungs",
    ResultKind.EVIDENCE_MAP: "map",
    ResultKind.PAGE: "note",
}
"""What a kind is called in a series description, which has little room."""

_LARGEST = 2**31 - 1
"""Of an IS (PS3.5 6.2)."""
_ROOM = 64
"""Characters of an LO."""


@dataclass(frozen=True, slots=True)
class Series:
    """Series of one kind in one study under one set of weights and one profile."""

    uid: str
    number: int
    description: str
    """At most 64 characters (LO); product, AI and notice."""


def series_of(order: Order, kind: ResultKind) -> Series:
    """Find the series a result belongs to."""
    # The plain picture lies beside the heatmap, so that a reader can toggle between the two.
    shared = ResultKind.HEATMAP if kind is ResultKind.PLAIN else kind
    behind = _BEHIND_HEATMAP.get(shared)
    profile = order.profile
    number = (
        profile.report_series_number
        if behind is None
        # The largest number that an IS holds stays the largest.
        else min(profile.heatmap_series_number + behind, _LARGEST)
    )
    description = _describe(profile.series_prefix, _WORDS.get(shared, shared.value))
    return Series(uids.series_uid(order, shared, number, description), number, description)


def _describe(prefix: str, what: str) -> str:
    """Say whose, what and the notice; a long prefix stands in place of the product's name."""
    whole = f"{prefix}{PRODUCT} AI {what}: {NOTICE}"
    return whole if len(whole) <= _ROOM else f"{prefix}AI {what}: {NOTICE}"


def sign(dataset: Dataset, order: Order) -> None:
    """Set the General Equipment module (PS3.3 C.7.5.1) to this product and its weights.

    The same stands first in Contributing Equipment Sequence (C.12.1), with the UID of the device
    that the report's observer has; then every algorithm under the name and version by which the
    report identifies it (PS3.16 TID 4019), as IHE AI Results asks.
    """
    contribution = Dataset()
    contribution.PurposeOfReferenceCodeSequence = [codes.plain(codes.PROCESSING_EQUIPMENT)]
    contribution.DeviceUID = uids.device_uid(order.algorithm)
    contribution.ContributionDescription = _contribution(order.algorithm)
    version = "none" if order.algorithm is None else ascii_text(order.algorithm.version)
    program = [f"program {ascii_text(order.program)}"] if order.program else []
    for equipment in (dataset, contribution):
        equipment.Manufacturer = MANUFACTURER
        equipment.ManufacturerModelName = PRODUCT
        equipment.DeviceSerialNumber = uids.algorithm_digest(order.algorithm)[:16]
        equipment.SoftwareVersions = [
            line[:_ROOM]
            for line in (*program, f"weights {version}", f"format {uids.RESULT_FORMAT}")
        ]
    dataset.ContributingEquipmentSequence = [contribution, *_algorithms(order)]


def _algorithms(order: Order) -> Iterator[Dataset]:
    """One item for the ensemble, one for each network in it."""
    algorithm = order.algorithm
    if algorithm is None:
        return
    for name in (algorithm.name, *(member.name for member in order.analysis.members)):
        item = Dataset()
        item.PurposeOfReferenceCodeSequence = [codes.plain(codes.PROCESSING_EQUIPMENT)]
        item.Manufacturer = MANUFACTURER
        item.ManufacturerModelName = ascii_text(name)[:_ROOM]
        item.SoftwareVersions = ascii_text(algorithm.version)[:_ROOM] or "unknown"
        item.DeviceUID = uids.algorithm_uid(algorithm, name)
        yield item


def _contribution(algorithm: Algorithm | None) -> str:
    if algorithm is None:
        return "Answered without an analysis"
    return f"Analysis by {ascii_text(algorithm.name)} {ascii_text(algorithm.version)}"


def date(dataset: Dataset, order: Order) -> None:
    """Set our own dates and times, in the source's timezone where it states a valid one.

    Series date and time stay away: they belong to the whole series, in which the images of a
    study meet at different times.
    """
    moment = local_time(order)
    # A presentation state has no content date (PS3.3 C.11.10).
    own = "PresentationCreation" if "PresentationCreationDate" in dataset else "Content"
    for stem in (own, "InstanceCreation"):
        setattr(dataset, f"{stem}Date", f"{moment:%Y%m%d}")
        setattr(dataset, f"{stem}Time", f"{moment:%H%M%S}")


def local_time(order: Order) -> datetime:
    """Content time as the study's other objects would tell it."""
    stated = zone(order.source)
    return order.content_at if stated is None else order.content_at.astimezone(stated)
