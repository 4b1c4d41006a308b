"""How long a result has been tried in vain, and whether it may have arrived unheard.

By the monotonic clock: a wall clock that jumps ahead by a week must not make the node give up what
it owes. What this life of the node has not seen itself is judged with caution.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from time import monotonic

from covidnet_node.case import Delivery
from covidnet_node.deliver import Sent

AT_LEAST = timedelta(hours=1)
"""Nothing is given up before it was tried for so long since the start of the node."""
UNHEARD = timedelta(hours=1)
"""For so long a result that may have arrived is not sent in another form."""


@dataclass(slots=True)
class _Trouble:
    """What is known of one result that was not delivered."""

    since: float
    """Monotonic seconds of the first failure in this life."""
    age: timedelta
    """How long it had been owed by then, by the wall clock."""
    unheard: bool
    """Whether it was on the wire and no answer came, or may have been in an earlier life."""


class Patience:
    """What one delivery loop remembers of its failures; forgotten at a restart."""

    def __init__(self, give_up_after: timedelta, started: datetime) -> None:
        self._limit = give_up_after
        self._started = started
        self._troubles: dict[tuple[int, datetime], _Trouble] = {}

    def failed(self, delivery: Delivery, sent: Sent, now: datetime) -> None:
        """Note an attempt that did not end with the result stored."""
        known = self._troubles.get(_key(delivery))
        if known is None:
            earlier = delivery.attempts > 0 or delivery.owed_since < self._started
            known = _Trouble(monotonic(), now - delivery.owed_since, earlier)
            self._troubles[_key(delivery)] = known
        if sent.tried and sent.status is None and not sent.not_taken:
            known.unheard = True

    def spent(self, delivery: Delivery) -> bool:
        """Whether the site's patience with a failed delivery is at an end."""
        known = self._troubles[_key(delivery)]
        tried = timedelta(seconds=monotonic() - known.since)
        return tried >= min(self._limit, AT_LEAST) and known.age + tried > self._limit

    def may_have_arrived(self, delivery: Delivery) -> bool:
        """Whether the destination may hold a failed delivery without having said so."""
        known = self._troubles[_key(delivery)]
        return known.unheard and monotonic() - known.since < UNHEARD.total_seconds()

    def over(self, delivery: Delivery) -> None:
        """Forget it: it is delivered, or given up."""
        self._troubles.pop(_key(delivery), None)


def _key(delivery: Delivery) -> tuple[int, datetime]:
    """A delivery that a person has requeued is another one."""
    return delivery.id, delivery.owed_since
