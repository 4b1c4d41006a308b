"""What the journal tells its observers, beside the nouns of `case`."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from covidnet_node.case import DeliveryState, Reason, ResultKind, State
from covidnet_node.journal.transitions import Cause


@dataclass(frozen=True, slots=True)
class StateCount:
    """How many cases rest in a state, and for how long the oldest has."""

    state: State
    count: int
    oldest: timedelta | None
    """Since it came into the state; None when there is no case."""


@dataclass(frozen=True, slots=True)
class HistoryLine:
    """One transition of one case."""

    case_id: str
    at: datetime
    from_state: State | None
    to_state: State
    cause: Cause
    detail: str


@dataclass(frozen=True, slots=True)
class Lease:
    """A case in a worker's hands."""

    owner: str
    case_id: str
    token: str
    until: datetime


@dataclass(frozen=True, slots=True)
class Pause:
    """Why and until when a case that is not being worked on waits, or why it is parked."""

    due_at: datetime
    last_error: str
    park_reason: Reason | None
    park_detail: str


@dataclass(frozen=True, slots=True)
class Debt:
    """One result and one destination, as an operator sees them."""

    id: int
    case_id: str
    kind: ResultKind
    destination: str
    state: DeliveryState
    attempts: int
    owed_since: datetime
    due_at: datetime
    updated_at: datetime
    last_error: str


@dataclass(frozen=True, slots=True)
class Backlog:
    """What one destination is still owed."""

    destination: str
    pending: int
    """Results to send."""
    uncommitted: int
    """Results it has stored and is still to commit to."""
    owed_since: datetime
    """Of the oldest of both."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """A kind of thing that was turned away at the door, and how often."""

    calling_ae: str
    peer: str
    what: str
    detail: str
    count: int
    last_at: datetime


@dataclass(frozen=True, slots=True)
class LastError:
    """The latest failure of a case, in analysis or on the way to a destination."""

    at: datetime
    case_id: str
    destination: str | None
    """None: in analysis."""
    error: str
