"""A report that a peer does not take, in the next SOP class that it may.

The listening process does this, so nothing that draws or builds results is imported here.
"""

from covidnet_node.case import Result, ResultKind
from covidnet_node.reports.order import REPORT_CLASS_UIDS, class_below, class_called
from covidnet_node.reports.recast import recast
from covidnet_node.reports.uids import recast_uid
from covidnet_node.service.finished import Finished


def in_another_class(refused: Result) -> Finished | None:
    """A refused report in the next SOP class that holds its content; None: there is none left.

    Reads the file. Raises OSError.
    """
    given = class_called(refused.sop_class_uid)
    wanted = None if given is None else class_below(given)
    if given is None or wanted is None:
        return None
    return Finished(
        kind=ResultKind.REPORT,
        sop_class_uid=REPORT_CLASS_UIDS[wanted],
        sop_instance_uid=recast_uid(refused.sop_instance_uid, wanted, given),
        series_uid=refused.series_uid,
        transfer_syntax_uid=refused.transfer_syntax_uid,
        data=recast(refused.path.read_bytes(), wanted),
    )
