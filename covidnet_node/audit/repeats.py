"""Many equal alerts become one: a stranger who knocks all night must not drown the trail."""

import threading
from collections.abc import Hashable
from dataclasses import dataclass

from covidnet_node.audit.events import Event

WINDOW_S = 60.0
MOST_KINDS = 1000
"""Kinds of alert known at a time; those beyond count as one kind."""


@dataclass(slots=True)
class _Seen:
    event: Event
    since: float
    more: int = 0


class Repeats:
    """Lets the first of a kind pass and counts those that follow within a minute."""

    def __init__(self) -> None:
        self._seen: dict[Hashable, _Seen] = {}
        self._lock = threading.Lock()

    def passes(self, kind: Hashable, event: Event, now: float) -> bool:
        """Whether to record this one now; if not, it is counted. `now` is monotonic seconds."""
        with self._lock:
            if kind not in self._seen and len(self._seen) >= MOST_KINDS:
                kind = None
            known = self._seen.get(kind)
            if known is None:
                self._seen[kind] = _Seen(event, now)
                return True
            known.event, known.more = event, known.more + 1
            return False

    def over(self, now: float) -> list[tuple[Event, int]]:
        """The last of each kind whose minute is over, and how many were held back of it."""
        with self._lock:
            ended = [kind for kind, seen in self._seen.items() if now - seen.since >= WINDOW_S]
            found = [self._seen.pop(kind) for kind in ended]
        return [(seen.event, seen.more) for seen in found if seen.more]
