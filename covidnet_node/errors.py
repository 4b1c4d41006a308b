"""The verdicts: what deep code says should happen to a case.

They are raised anywhere and turned into action in four places only: the C-STORE handler
(`receive/scp.py`), `service/answer.py`, `service/delivering.py` and `service/committing.py`.
`NotAnalyzed` is the exception to the rule: `analyze.py` itself turns it into an answer,
because an image that cannot be read still gets a report saying so.
"""

from covidnet_node.case import Reason


class Verdict(Exception):
    """A decision about one case, with a reason fit for a log line: no patient data in it."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(f"{reason.value}: {detail}" if detail else reason.value)
        self.reason = reason
        self.detail = detail


class Refuse(Verdict):
    """Tell the sender; `status` is the C-STORE status to answer (PS3.4 B.2.3)."""

    def __init__(self, reason: Reason, detail: str = "", *, status: int) -> None:
        super().__init__(reason, detail)
        self.status = status


class NotAnalyzed(Verdict):
    """The image is ours but cannot be answered with probabilities; the report says why."""


class RetryLater(Verdict):
    """Nothing is wrong with the case; try again after a pause."""


class Park(Verdict):
    """A person must look."""


class BadConfig(Exception):
    """The node cannot start: which file, which key, and what to do about it."""

    def __init__(self, file: str, key: str, remedy: str) -> None:
        super().__init__(f"{file}: {key}: {remedy}")
        self.file = file
        self.key = key
        self.remedy = remedy
