"""A report that a peer does not take, in the next SOP class that it may."""

from collections.abc import Sequence
from typing import get_args

from covidnet_node.case import Result, ResultKind
from covidnet_node.reports.order import REPORT_CLASS_UIDS, ReportClass
from covidnet_node.reports.recast import recast
from covidnet_node.reports.uids import recast_uid
from covidnet_node.service.results import Finished


def in_another_class(refused: Result, reports: Sequence[Result]) -> Finished | None:
    """A refused report in the next SOP class that holds its content; None: there is none left.

    `reports` are the case's in Comprehensive 3D SR, from which the others are made. Reads
    the file. Raises OSError.
    """
    for first in reports:
        forms = {recast_uid(first.sop_instance_uid, each): each for each in get_args(ReportClass)}
        following = list(forms)
        if refused.sop_instance_uid not in forms:
            continue
        place = following.index(refused.sop_instance_uid) + 1
        if place == len(following):
            return None
        wanted = forms[following[place]]
        return Finished(
            kind=ResultKind.REPORT,
            sop_class_uid=REPORT_CLASS_UIDS[wanted],
            sop_instance_uid=following[place],
            series_uid=refused.series_uid,
            transfer_syntax_uid=refused.transfer_syntax_uid,
            data=recast(first.path.read_bytes(), wanted),
        )
    return None
