"""A person's steps, and what goes by age."""

from datetime import datetime, timedelta

from sqlalchemy import Connection, and_, delete, or_, select, update

from covidnet_node.case import Case, DeliveryState, Reason, State
from covidnet_node.journal.rows import AnyRow, case_of, parked_because
from covidnet_node.journal.store import Store, move, row_of
from covidnet_node.journal.tables import cases, deliveries, history, results
from covidnet_node.journal.transitions import (
    Cause,
    IllegalTransition,
    check_delivery_step,
)
from covidnet_node.journal.work import FREE

_RESTING = (State.DONE, State.PARKED)


class Operation(Store):
    """The operator's chapter."""

    def requeue(self, case_id: str, now: datetime, *, again: bool = False) -> Case:
        """Start a parked or done case afresh and return it.

        With results to send, what was given up is sent again, or everything if nothing was.
        Without, or with `again`, or after a discard, the image is analyzed anew. The content
        time stays, so that the same answer is the same object; another answer is reported with
        a time of its own. Raises UnknownCase, IllegalTransition (also when the files are gone),
        RetryLater.
        """
        with self._write() as connection:
            row = row_of(connection, case_id)
            if row.purged_at is not None:
                raise IllegalTransition(f"{case_id} cannot: its files were deleted by age")
            rows = _sendable(connection, case_id)
            if rows and not again and row.reason is not Reason.DISCARDED:
                _send_again(connection, rows, now)
                after = State.REPORTED
                changes = parked_because(None)
            else:
                _retire(connection, case_id, now)
                after = State.ADMITTED
                changes = {**FREE, **parked_because(None), "due_at": now}
                changes |= {"attempts": 0, "crashes": 0}
                changes |= {"outcome": None, "reason": None, "detail": "", "last_error": ""}
            move(connection, row, after, Cause.REQUEUED, now, columns=changes)
            return case_of(row_of(connection, case_id))

    def mend(self, case_id: str, now: datetime) -> bool:
        """Start a case afresh that was parked for its damaged file, which lies there whole again.

        Tells whether it was still so parked; also if its files had gone by age. Raises
        UnknownCase, RetryLater.
        """
        with self._write() as connection:
            row = row_of(connection, case_id)
            if row.state is not State.PARKED or row.park_reason is not Reason.FILE_DAMAGED:
                return False
            changes = {**FREE, **parked_because(None), "due_at": now, "purged_at": None}
            changes |= {"attempts": 0, "crashes": 0, "last_error": ""}
            move(connection, row, State.ADMITTED, Cause.REQUEUED, now, columns=changes)
            return True

    def discard(self, case_id: str, now: datetime, why: str) -> Case:
        """Close a parked or admitted case for good and return it.

        A worker that has it in hand loses it. Raises UnknownCase, IllegalTransition, RetryLater.
        """
        with self._write() as connection:
            row = row_of(connection, case_id)
            changes = {**FREE, **parked_because(None)}
            changes |= {"reason": Reason.DISCARDED, "detail": why}
            move(connection, row, State.DONE, Cause.DISCARDED, now, why, changes)
            return case_of(row_of(connection, case_id))

    def expired(self, now: datetime, done: timedelta, parked: timedelta) -> tuple[str, ...]:
        """Ids of the cases that have rested so long that their files may go, oldest first."""
        long_enough = or_(
            and_(cases.c.state == State.DONE, cases.c.since <= now - done),
            and_(cases.c.state == State.PARKED, cases.c.since <= now - parked),
        )
        query = select(cases.c.id).where(long_enough, cases.c.purged_at.is_(None))
        with self._read() as connection:
            return tuple(connection.execute(query.order_by(cases.c.number)).scalars())

    def forgotten(self, case_id: str, now: datetime) -> None:
        """Mark a case whose files have been deleted; its row and history stay.

        Delete the files first: after a crash in between they are found expired once more.
        Raises UnknownCase, IllegalTransition, RetryLater.
        """
        with self._write() as connection:
            row = row_of(connection, case_id)
            move(connection, row, row.state, Cause.PURGED, now, columns={"purged_at": now})

    def purge_refused(self, now: datetime, refused: timedelta) -> int:
        """Delete the rows of objects refused so long ago and return how many it were.

        Raises RetryLater.
        """
        old = and_(cases.c.state == State.REFUSED, cases.c.since <= now - refused)
        ids = select(cases.c.id).where(old)
        with self._write() as connection:
            connection.execute(delete(history).where(history.c.case_id.in_(ids)))
            return connection.execute(delete(cases).where(old)).rowcount


def _sendable(connection: Connection, case_id: str) -> list[AnyRow]:
    """The delivery rows that a requeue sends again."""
    query = (
        select(deliveries)
        .join(results, results.c.id == deliveries.c.result_id)
        .where(results.c.case_id == case_id, results.c.retired_at.is_(None))
        .order_by(deliveries.c.id)
    )
    rows = list(connection.execute(query))
    return [row for row in rows if row.state is DeliveryState.GIVEN_UP] or rows


def _send_again(connection: Connection, rows: list[AnyRow], now: datetime) -> None:
    """Make rows pending, with all patience ahead of them."""
    for row in rows:
        check_delivery_step(row.id, row.state, DeliveryState.PENDING, Cause.REQUEUED)
        connection.execute(
            update(deliveries)
            .where(deliveries.c.id == row.id)
            .values(
                state=DeliveryState.PENDING,
                attempts=0,
                owed_since=now,
                due_at=now,
                updated_at=now,
                delivered_at=None,
                commit_due_at=None,
                commit_attempts=0,
            )
        )


def _retire(connection: Connection, case_id: str, now: datetime) -> None:
    """Set the results of an earlier analysis aside; no row of theirs is pending."""
    connection.execute(
        update(results)
        .where(results.c.case_id == case_id, results.c.retired_at.is_(None))
        .values(retired_at=now)
    )
