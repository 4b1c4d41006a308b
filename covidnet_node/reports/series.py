"""The two series a study gets, and the equipment that claims them."""

from dataclasses import dataclass
from datetime import datetime

from pydicom.dataset import Dataset

from covidnet_node.case import Algorithm, ResultKind
from covidnet_node.intended_use import MANUFACTURER, NOTICE, PRODUCT
from covidnet_node.reports import uids
from covidnet_node.reports.identity import text, zone
from covidnet_node.reports.narrative import ascii_text
from covidnet_node.reports.order import Order

_NUMBERS = {ResultKind.REPORT: 99101, ResultKind.HEATMAP: 99102}
"""High, so that the results sort behind the images in every viewer."""


@dataclass(frozen=True, slots=True)
class Series:
    """Series of one kind in one study under one set of weights."""

    uid: str
    number: int
    description: str
    """At most 64 characters (LO); product, AI and notice."""


def series_of(order: Order, kind: ResultKind) -> Series:
    """Find the series a result belongs to."""
    study_uid = text(order.source, "StudyInstanceUID")
    return Series(
        uid=uids.series_uid(study_uid, kind, order.algorithm),
        number=_NUMBERS[kind],
        description=f"{PRODUCT} AI {kind.value}: {NOTICE}",
    )


def sign(dataset: Dataset, algorithm: Algorithm | None) -> None:
    """Set the General Equipment module (PS3.3 C.7.5.1) to this product and its weights."""
    version = "none" if algorithm is None else ascii_text(algorithm.version)
    dataset.Manufacturer = MANUFACTURER
    dataset.ManufacturerModelName = PRODUCT
    dataset.DeviceSerialNumber = uids.algorithm_digest(algorithm)[:16]
    dataset.SoftwareVersions = [f"weights {version}"[:64], f"format {uids.RESULT_FORMAT}"]


def date(dataset: Dataset, order: Order) -> None:
    """Set our own dates and times, in the source's timezone where it states a valid one.

    Series date and time stay away: they belong to the whole series, in which the images of a
    study meet at different times.
    """
    moment = local_time(order)
    dataset.ContentDate = dataset.InstanceCreationDate = f"{moment:%Y%m%d}"
    dataset.ContentTime = dataset.InstanceCreationTime = f"{moment:%H%M%S}"


def local_time(order: Order) -> datetime:
    """Content time as the study's other objects would tell it."""
    stated = zone(order.source)
    return order.content_at if stated is None else order.content_at.astimezone(stated)
