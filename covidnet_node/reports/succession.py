"""The chain of answers that one image has had: each new one names the one it replaces.

The same answer is the same object, however often it is asked for: same UID, same predecessor,
same content time. Any other answer (new weights, a new version of the program, an analysis that
failed before) is a new object, made now, that names the last.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from covidnet_node.case import Result, ResultKind
from covidnet_node.reports.order import REPORT_CLASS_UIDS, Order, Reference
from covidnet_node.reports.uids import instance_uid

_TELLING = (ResultKind.REPORT, ResultKind.HEATMAP)
"""Kinds by which an answer is known again, whatever the profile left out."""


def succeed(order: Order, earlier: Sequence[Sequence[Result]], now: datetime) -> Order:
    """Give an order its predecessor and content time.

    `earlier` are the results of each answer that was set aside, oldest first. The order comes
    with what the first of them followed, and with the content time of the last.
    """
    if not earlier:
        return order
    *before, last = earlier
    names = {result.sop_instance_uid for result in last}
    for candidate in (order.predecessor, *(refer(results) for results in before)):
        same = replace(order, predecessor=candidate)
        if any(instance_uid(same, kind) in names for kind in _TELLING):
            return same
    return replace(order, predecessor=refer(last) or order.predecessor, content_at=now)


def refer(results: Sequence[Result]) -> Reference | None:
    """Point at the report among results, in the class that holds most where there are several.

    From its name follow those in the classes below, so each destination's report can name it in
    its own class. Where the profile wanted no report, at the heatmap: a third answer must not take
    the name of the first because nothing told of the second.
    """
    reports = [each for uid in REPORT_CLASS_UIDS.values() for each in results
               if each.kind is ResultKind.REPORT and each.sop_class_uid == uid]  # fmt: skip
    telling = reports or [result for result in results if result.kind in _TELLING]
    if not telling:
        return None
    chosen = telling[0]
    return Reference(chosen.series_uid, chosen.sop_class_uid, chosen.sop_instance_uid)
