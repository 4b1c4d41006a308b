"""What the report room is asked for, and what it hands back."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    EnhancedSRStorage,
)

from covidnet_node.case import Algorithm, Analysis, Outcome, ResultKind
from covidnet_node.config import Results


@dataclass(frozen=True, slots=True)
class Reference:
    """One instance of the same study, named so that another object can point at it."""

    series_uid: str
    sop_class_uid: str
    sop_uid: str


@dataclass(frozen=True, slots=True)
class Order:
    """Everything that shapes the results of one image."""

    source: Dataset
    """Header of the source as read from the spool; elements never looked at keep their bytes."""
    analysis: Analysis
    algorithm: Algorithm | None
    """None only where no weights answered, as after a technical failure."""
    content_at: datetime
    """Aware. Shown in the source's timezone where it states one, else in the zone given here."""
    pixel_digest: str
    """Hex digest of the decoded pixels; empty if they could not be decoded."""
    identity_digest: str
    """Hex digest of the source's identity attributes."""
    admission_notes: tuple[str, ...] = ()
    predecessor: Reference | None = None
    """The report that this one supersedes."""
    heatmap: NDArray[np.uint8] | None = None
    """(rows, columns, 3) RGB as drawn by `explain.overlay`; margins allowed."""
    plain: NDArray[np.uint8] | None = None
    """The same picture without color and contour, of the same size."""
    profile: Results = field(default_factory=Results)
    """What the destinations that get these results want."""
    original: Dataset | None = None
    """The source as it was read, where `source` is a copy converted to UTF-8."""
    program: str = ""
    """Version of this program. Results name it, so it is part of their UIDs."""


@dataclass(frozen=True, slots=True)
class Built:
    """One finished object. Its data set is written by `results.encode`, by nothing else."""

    kind: ResultKind
    dataset: Dataset


ReportClass = Literal["comprehensive_3d", "comprehensive", "enhanced"]


def report_class(order: Order) -> ReportClass | None:
    """Say as which kind of SR the report goes out; None where the profile wants none.

    "Not analyzed" is always reported: silence looks like "normal".
    """
    wanted = order.profile.report
    if wanted != "none":
        return wanted
    return "comprehensive_3d" if order.analysis.outcome is Outcome.NOT_ANALYZED else None


REPORT_CLASS_UIDS: dict[str, UID] = {
    "comprehensive_3d": Comprehensive3DSRStorage,
    "comprehensive": ComprehensiveSRStorage,
    "enhanced": EnhancedSRStorage,
}
"""What a profile's word stands for. Each class holds what the next one holds, and more."""

_DOWNWARD: tuple[ReportClass, ...] = get_args(ReportClass)


def class_called(sop_class_uid: str) -> ReportClass | None:
    """Name the class of a report; None: it is no class of report that we send."""
    return next((each for each in _DOWNWARD if REPORT_CLASS_UIDS[each] == sop_class_uid), None)


def classes_between(above: ReportClass, down_to: ReportClass) -> tuple[ReportClass, ...]:
    """List the classes below one, down to another and with it; empty if that is not below."""
    return _DOWNWARD[_DOWNWARD.index(above) + 1 : _DOWNWARD.index(down_to) + 1]


def class_below(above: ReportClass) -> ReportClass | None:
    """Name the next class, which asks for less of its reader; None: there is none."""
    return next(iter(classes_between(above, _DOWNWARD[-1])), None)


def is_below(one: ReportClass, other: ReportClass) -> bool:
    """Whether a report of class `other` can be recast as `one`."""
    return bool(classes_between(other, one))
