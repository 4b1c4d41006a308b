"""How a destination that is down is left in peace: as a whole, with growing pauses.

By the monotonic clock, so that no change of the wall clock prolongs a pause.
"""

from datetime import timedelta
from time import monotonic

from covidnet_node.config import Deliver
from covidnet_node.journal.backoff import pause_after


class Quiet:
    """What one loop knows of the peer it calls; while that is down, one attempt a pause."""

    def __init__(self, deliver: Deliver, name: str) -> None:
        self._deliver = deliver
        self._name = name
        self._failures = 0
        """In a row."""
        self._until: float | None = None
        """Monotonic seconds; None: it is not down."""

    @property
    def down(self) -> bool:
        """Whether the last contact failed."""
        return self._until is not None

    @property
    def seconds(self) -> float:
        """For how long it is still left in peace."""
        until = self._until  # once: `is_back` comes from another thread
        return 0.0 if until is None else max(0.0, until - monotonic())

    def failed(self) -> None:
        """Leave it in peace for a while, longer each time."""
        self._failures += 1
        self._until = monotonic() + self.pause(self._failures, self._name).total_seconds()

    def answered(self) -> None:
        """It did what was asked of it."""
        self._failures, self._until = 0, None

    def is_back(self) -> None:
        """It can be reached again; whether it does what is asked is to be seen."""
        self._until = None

    def pause(self, attempts: int, seed: str) -> timedelta:
        """How long to wait after so many attempts at anything."""
        first, longest = self._deliver.first_pause_s, self._deliver.longest_pause_s
        return pause_after(attempts, timedelta(seconds=first), timedelta(seconds=longest), seed)
