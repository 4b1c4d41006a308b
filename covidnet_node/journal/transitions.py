"""The state machine as data: which step a case or a delivery may take, and why.

Every write of a state is checked here; a step that is not in a table changes nothing.
"""

from enum import StrEnum

from covidnet_node.case import DeliveryState, State


class Cause(StrEnum):
    """Why a case moved, or what happened to it where it rests. A word of the history."""

    ADMITTED = "admitted"
    REFUSED = "refused"
    CLAIMED = "claimed"
    RETRIED = "retried"
    RELEASED = "released"
    CRASHED = "crashed"
    EXPIRED = "lease_expired"
    REPORTED = "reported"
    DUPLICATE = "duplicate"
    PARKED = "parked"
    DELIVERED = "delivered"
    COMMITTED = "committed"
    FOUND = "found"
    NOT_COMMITTED = "not_committed"
    WAIVED = "commitment_waived"
    GAVE_UP = "gave_up"
    SUPERSEDED = "superseded"
    REQUEUED = "requeued"
    DISCARDED = "discarded"
    PURGED = "purged"


class LostLease(Exception):
    """The claim no longer holds its case; whoever asks must drop the work in hand."""


class IllegalTransition(Exception):
    """The step is not in the table, or what it needs is gone. Nothing was changed."""


class UnknownCase(Exception):
    """The journal holds no such case or delivery."""


_A, _R, _D, _P = State.ADMITTED, State.REPORTED, State.DONE, State.PARKED

CASE_STEPS: frozenset[tuple[State | None, State, Cause]] = frozenset(
    {
        # receive
        (None, _A, Cause.ADMITTED),
        (None, State.REFUSED, Cause.REFUSED),
        # analyze: the case stays admitted until its answer is in the journal
        (_A, _A, Cause.CLAIMED),
        (_A, _A, Cause.RETRIED),
        (_A, _A, Cause.RELEASED),
        (_A, _A, Cause.CRASHED),
        (_A, _A, Cause.EXPIRED),
        (_A, _R, Cause.REPORTED),
        (_A, _D, Cause.REPORTED),  # there is no destination
        (_A, _P, Cause.REPORTED),  # there is no destination, and a person must look
        (_A, _D, Cause.DUPLICATE),
        (_A, _P, Cause.PARKED),
        # deliver: one line per row, and one more when the last row has settled
        (_R, _R, Cause.DELIVERED),
        (_R, _R, Cause.GAVE_UP),
        (_R, _D, Cause.DELIVERED),
        (_R, _P, Cause.DELIVERED),  # all is delivered, and a person must look
        (_R, _P, Cause.GAVE_UP),
        # commit, in the same way
        (_R, _R, Cause.COMMITTED),
        (_R, _R, Cause.FOUND),
        (_R, _R, Cause.NOT_COMMITTED),
        (_R, _R, Cause.WAIVED),
        (_R, _D, Cause.COMMITTED),
        (_R, _D, Cause.FOUND),
        (_R, _D, Cause.WAIVED),
        (_R, _P, Cause.COMMITTED),  # as with DELIVERED
        (_R, _P, Cause.FOUND),
        (_R, _P, Cause.WAIVED),
        # a later case answers the same image anew
        (_A, _A, Cause.SUPERSEDED),
        (_R, _R, Cause.SUPERSEDED),
        (_D, _D, Cause.SUPERSEDED),
        (_P, _P, Cause.SUPERSEDED),
        # operate
        (_D, _A, Cause.REQUEUED),
        (_D, _R, Cause.REQUEUED),
        (_P, _A, Cause.REQUEUED),
        (_P, _R, Cause.REQUEUED),
        (_A, _D, Cause.DISCARDED),
        (_P, _D, Cause.DISCARDED),
        # retention: the files go, the row stays
        (_D, _D, Cause.PURGED),
        (_P, _P, Cause.PURGED),
    }
)

_PENDING, _DELIVERED = DeliveryState.PENDING, DeliveryState.DELIVERED
_COMMITTED, _GIVEN_UP = DeliveryState.COMMITTED, DeliveryState.GIVEN_UP

DELIVERY_STEPS: frozenset[tuple[DeliveryState, DeliveryState, Cause]] = frozenset(
    {
        (_PENDING, _PENDING, Cause.RETRIED),
        (_PENDING, _DELIVERED, Cause.DELIVERED),
        (_PENDING, _GIVEN_UP, Cause.GAVE_UP),
        (_DELIVERED, _COMMITTED, Cause.COMMITTED),
        (_DELIVERED, _COMMITTED, Cause.FOUND),  # by a query: it is there, as far as one can ask
        (_DELIVERED, _DELIVERED, Cause.NOT_COMMITTED),  # asked again later
        (_DELIVERED, _PENDING, Cause.NOT_COMMITTED),  # sent again
        (_DELIVERED, _DELIVERED, Cause.WAIVED),
        (_DELIVERED, _GIVEN_UP, Cause.GAVE_UP),
        (_GIVEN_UP, _PENDING, Cause.REQUEUED),
        (_DELIVERED, _PENDING, Cause.REQUEUED),
        (_COMMITTED, _PENDING, Cause.REQUEUED),
    }
)


def check_case_step(case_id: str, before: State | None, after: State, cause: Cause) -> None:
    """Raise IllegalTransition unless the table allows the step."""
    if (before, after, cause) not in CASE_STEPS:
        where = "new" if before is None else before.value
        raise IllegalTransition(f"{case_id} is {where}: cannot become {after.value} ({cause})")


def check_delivery_step(
    delivery_id: int, before: DeliveryState, after: DeliveryState, cause: Cause
) -> None:
    """Raise IllegalTransition unless the table allows the step."""
    if (before, after, cause) not in DELIVERY_STEPS:
        raise IllegalTransition(
            f"delivery {delivery_id} is {before}: cannot become {after} ({cause})"
        )
