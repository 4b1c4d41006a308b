"""UIDs of results: the same content has the same UID, other content has another.

A UID is 2.25 and the first 128 bits of a SHA-256 (PS3.5 B.2), so nothing has to be remembered
to give a repeated result its old name. Never from a clock and never from a random number.
"""

import hashlib

from covidnet_node.case import Algorithm, ResultKind
from covidnet_node.reports.identity import text
from covidnet_node.reports.order import (
    REPORT_CLASS_UIDS,
    Order,
    Reference,
    ReportClass,
    class_called,
    classes_between,
    is_below,
    report_class,
)

RESULT_FORMAT = "5"
"""To be raised with every change of code that changes the bytes of a result."""

_NO_ALGORITHM = "no algorithm"


def instance_uid(order: Order, kind: ResultKind) -> str:
    """Name one result by all that shapes it.

    The probabilities are not part of the name: they follow from pixels and weights, and a last
    digit that differs between two processors must not make a second report.
    """
    name = _uid(kind.value, *_content(order), *_form(order, kind))
    wanted = report_class(order) if kind is ResultKind.REPORT else None
    return name if wanted is None else recast_uid(name, wanted)


def recast_uid(name: str, wanted: ReportClass, given: ReportClass = "comprehensive_3d") -> str:
    """Name the report that is called `name` in the class `given` in the class `wanted` below it.

    One follows from the other, step by step, so that a report can be recast without its order.
    """
    for each in classes_between(given, wanted):
        name = _uid("recast", name, each)
    return name


def in_class(report: Reference, wanted: ReportClass) -> Reference:
    """Point at a report in the class `wanted` where that is below its own, else as it is."""
    given = class_called(report.sop_class_uid)
    if given is None or not is_below(wanted, given):
        return report
    name = recast_uid(report.sop_uid, wanted, given)
    return Reference(report.series_uid, REPORT_CLASS_UIDS[wanted], name)


def series_uid(order: Order, kind: ResultKind, number: int, description: str) -> str:
    """Name the one series per study, kind, model version, number and description."""
    return _uid(
        "series",
        text(order.source, "StudyInstanceUID"),
        kind.value,
        algorithm_digest(order.algorithm),
        str(number),
        description,
        RESULT_FORMAT,
        # The equipment, its software included, is one for a series (PS3.3 C.7.5.1).
        order.program,
    )


def device_uid(algorithm: Algorithm | None) -> str:
    """Name the observing device: stable for one set of weights, new when they change."""
    return _uid("device", algorithm_digest(algorithm))


def algorithm_uid(algorithm: Algorithm, name: str) -> str:
    """Name the ensemble or one network in it as contributing equipment; new with new weights."""
    return _uid("algorithm", algorithm.digest, name)


def tracking_uid(order: Order, what: str) -> str:
    """Name one finding of one report (PS3.16 TID 4108)."""
    return _uid("tracking", what, *_content(order))


def instance_number(order: Order, kind: ResultKind) -> int:
    """Number a result within its series, 1 to 99,999,999.

    The rule: an odd hash of the same content as the UID, without kind and form. Report and
    heatmap of one image thus share their number, and the plain picture has the next one, so that
    it lies beside the heatmap in every viewer; two images of a study, or a report and its
    successor, share one in fifty million.
    """
    odd = 2 * (int(_digest("number", *_content(order))[:16], 16) % 49_999_999) + 1
    return odd + 1 if kind is ResultKind.PLAIN else odd


def algorithm_digest(algorithm: Algorithm | None) -> str:
    """Digest of the weights, or words that say that none answered."""
    return _NO_ALGORITHM if algorithm is None else algorithm.digest


def _content(order: Order) -> tuple[str, ...]:
    before = order.predecessor
    return (
        text(order.source, "StudyInstanceUID"),
        text(order.source, "SeriesInstanceUID"),
        text(order.source, "SOPInstanceUID"),
        order.pixel_digest,
        order.identity_digest,
        algorithm_digest(order.algorithm),
        RESULT_FORMAT,
        order.program,
        order.analysis.outcome.value,
        "" if order.analysis.reason is None else order.analysis.reason.value,
        order.analysis.detail,
        *order.admission_notes,
        "supersedes",
        "" if before is None else before.sop_uid,
        # Converted or not: the same identity in another character set is other bytes.
        text(order.source, "SpecificCharacterSet"),
    )


def _form(order: Order, kind: ResultKind) -> tuple[str, ...]:
    """Those parts of the profile that shape an object of this kind, and no others."""
    profile = order.profile
    if kind is ResultKind.REPORT:
        return (str(profile.report_series_number), profile.series_prefix)
    own = (str(profile.heatmap_series_number), profile.series_prefix)
    pictures = (ResultKind.HEATMAP, ResultKind.PLAIN, ResultKind.PAGE)
    return (*own, profile.heatmap_syntax) if kind in pictures else own


def _uid(*parts: str) -> str:
    return f"2.25.{int(_digest(*parts)[:32], 16)}"


def _digest(*parts: str) -> str:
    # Lengths keep ("ab", "c") and ("a", "bc") apart.
    whole = "".join(f"{len(part)}:{part}" for part in parts)
    return hashlib.sha256(whole.encode()).hexdigest()
