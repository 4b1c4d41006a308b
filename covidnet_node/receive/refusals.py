"""Logs and counts who is turned away; a flood of them costs few lines and few commits.

The first ones are told and journaled at once. Beyond that they are gathered, and one timer brings
the sums to log and journal. Whatever strangers make up, only so many different names are kept.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Collection
from datetime import datetime

import structlog

from covidnet_node.audit.events import Alert, AlertKind, Peer, Record, unrecorded
from covidnet_node.errors import RetryLater
from covidnet_node.journal.journal import Journal
from covidnet_node.journal.reception import OTHERS, TurnedAway

log = structlog.get_logger()

BURST = 30
PER_SECOND = 0.5
"""Lines of one kind, and commits, that may follow each other at once, and on the average."""
GATHER_S = 5.0
"""How late a sum may come."""
STRANGERS = frozenset({"called_ae", "calling_ae", "address", "certificate", "tls"})
"""Refusals of somebody, not of something: PS3.15 A.5.3.11 calls them node authentication."""
MOST_GATHERED = 200
"""Different names between two commits."""


class _Bucket:
    """Lets a burst pass, then so many a second."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._left, self._at = float(BURST), clock()

    def take(self) -> bool:
        now = self._clock()
        self._left = min(BURST, self._left + (now - self._at) * PER_SECOND)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Refusals:
    """The doorkeeper's notes."""

    def __init__(
        self,
        journal: Journal,
        clock: Callable[[], datetime],
        monotonic: Callable[[], float] = time.monotonic,
        record: Record = unrecorded,
    ) -> None:
        self._journal = journal
        self._record = record
        self._clock = clock
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._lines: dict[str, _Bucket] = {}
        self._commits = _Bucket(monotonic)
        self._untold: Counter[str] = Counter()
        self._gathered: Counter[TurnedAway] = Counter()
        self._timer: threading.Timer | None = None
        self._closed = False

    def tell(self, event: str, **words: object) -> None:
        """Log a line, unless there have been too many of its kind; those are summed up later."""
        with self._lock:
            bucket = self._lines.setdefault(event, _Bucket(self._monotonic))
            told = bucket.take()
            if not told:
                self._untold[event] += 1
                self._wind()
        if told:
            log.warning(event, **words)

    def count(
        self,
        calling_ae: str,
        peer: str,
        kinds: Collection[tuple[str, str]],
        *,
        at_once: bool = True,
    ) -> None:
        """Count in the journal, now or with the next sum; `kinds` as in the journal.

        With `at_once` false it never waits for the journal. Strangers go into the audit trail.
        """
        for what, detail in kinds:
            if what in STRANGERS:
                words = f"{what}: {detail}" if detail else what
                peer_ = Peer(calling_ae, peer)
                self._record(Alert(AlertKind.NODE_AUTHENTICATION, peer_, words))
        with self._lock:
            for what, detail in kinds:
                self._gather(TurnedAway(calling_ae, peer, what, detail))
            at_once = at_once and self._commits.take()
            if not at_once:
                self._wind()
        if at_once:
            self._commit()

    def flush(self) -> None:
        """Bring all sums to log and journal."""
        with self._lock:
            timer, self._timer = self._timer, None
            untold, self._untold = self._untold, Counter()
        if timer is not None:
            timer.cancel()
        for event, count in untold.items():
            log.warning(event, more=count)
        self._commit()

    def close(self) -> None:
        """Bring the last sums home and start no timer any more."""
        with self._lock:
            self._closed = True
        self.flush()

    def _gather(self, turned: TurnedAway) -> None:
        if turned not in self._gathered and len(self._gathered) >= MOST_GATHERED:
            turned = TurnedAway(OTHERS, OTHERS, turned.what, "")
        self._gathered[turned] += 1

    def _commit(self) -> None:
        with self._lock:
            gathered, self._gathered = self._gathered, Counter()
        if not gathered:
            return
        try:
            self._journal.count_rejections(gathered, self._clock())
        except RetryLater as verdict:
            # The log has it; a journal that is down must not hide it, nor memory grow.
            log.warning("not_counted", count=gathered.total(), reason=verdict.reason)

    def _wind(self) -> None:
        """See to it that what is gathered is brought home soon. Call with the lock held."""
        if self._timer is None and not self._closed:
            timer = threading.Timer(GATHER_S, self.flush)
            timer.daemon = True
            timer.start()
            self._timer = timer
