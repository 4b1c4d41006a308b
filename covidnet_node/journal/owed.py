"""What destinations are owed, and what became of it."""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Select, func, insert, or_, select, update

from covidnet_node.case import Delivery, DeliveryState, Reason, Result, State
from covidnet_node.journal.rows import AnyRow, delivery_of, parked_because, result_columns
from covidnet_node.journal.store import Store, move, row_of
from covidnet_node.journal.tables import cases, deliveries, results
from covidnet_node.journal.transitions import Cause, UnknownCase, check_delivery_step


class Debts(Store):
    """The delivery loop's chapter."""

    def due_deliveries(self, destination: str, now: datetime, limit: int) -> tuple[Delivery, ...]:
        """What a destination may be sent now, in the order in which it was journaled."""
        query = (
            joined()
            .where(
                deliveries.c.state == DeliveryState.PENDING,
                deliveries.c.destination == destination,
                # What was written later than now was written before the clock was set back.
                or_(deliveries.c.due_at <= now, deliveries.c.updated_at > now),
            )
            .order_by(deliveries.c.id)
            .limit(limit)
        )
        with self._read() as connection:
            return deliveries_of(connection, query, self._spool)

    def delivered(
        self, delivery_id: int, now: datetime, detail: str = "", *, commit: bool = False
    ) -> None:
        """The destination has stored the result. Raises IllegalTransition, RetryLater.

        With `commit` it is still to be asked to commit to it. With the last row that waits for
        nothing the case becomes done, or parked if its answer asked for that.
        """
        with self._write() as connection:
            changes = {"delivered_at": now, "commit_due_at": now if commit else None}
            state, cause = DeliveryState.DELIVERED, Cause.DELIVERED
            row = step(connection, delivery_id, state, cause, now, columns=changes)
            words = f"{row.kind} to {row.destination} {detail}".rstrip()
            settle(connection, row.case_id, Cause.DELIVERED, words, now)

    def postpone(self, delivery_id: int, error: str, due_at: datetime, now: datetime) -> None:
        """The attempt failed; the next one is due at `due_at`.

        Raises IllegalTransition, RetryLater.
        """
        with self._write() as connection:
            pending, changes = DeliveryState.PENDING, {"due_at": due_at}
            step(connection, delivery_id, pending, Cause.RETRIED, now, error, changes)

    def owe_instead(self, delivery_id: int, result: Result, error: str, now: datetime) -> None:
        """The destination is owed the same result in another form, at once.

        The file must be in the spool. Raises IllegalTransition, RetryLater.
        """
        with self._write() as connection:
            case_id = connection.execute(
                select(results.c.case_id)
                .join(deliveries, deliveries.c.result_id == results.c.id)
                .where(deliveries.c.id == delivery_id)
            ).scalar_one()
            columns = result_columns(case_id, result, self._spool)
            query = select(results.c.id).where(
                results.c.case_id == case_id,
                results.c.sop_instance_uid == result.sop_instance_uid,
                results.c.retired_at.is_(None),
            )
            known = connection.execute(query).scalar_one_or_none()
            if known is None:
                written = insert(results).values(**columns).returning(results.c.id)
                known = connection.execute(written).scalar_one()
            changes = {"due_at": now, "result_id": known}
            step(connection, delivery_id, DeliveryState.PENDING, Cause.RETRIED, now, error, changes)

    def give_up(self, delivery_id: int, error: str, now: datetime) -> None:
        """The site's patience with this destination is at an end.

        Once no row of the case is open, it is parked. Raises IllegalTransition, RetryLater.
        """
        with self._write() as connection:
            state, cause = DeliveryState.GIVEN_UP, Cause.GAVE_UP
            changes = {"commit_due_at": None}
            row = step(connection, delivery_id, state, cause, now, error, changes)
            words = f"{row.kind} to {row.destination}: {error}"
            settle(connection, row.case_id, Cause.GAVE_UP, words, now)

    def destinations_owed(self) -> frozenset[str]:
        """Names of all destinations with pending rows, configured or not."""
        query = select(deliveries.c.destination).distinct()
        with self._read() as connection:
            pending = query.where(deliveries.c.state == DeliveryState.PENDING)
            return frozenset(connection.execute(pending).scalars())

    def has_taken(self, destination: str, sop_class_uid: str) -> bool:
        """Whether a destination has ever stored a result of this SOP class. Raises RetryLater."""
        query = (
            select(deliveries.c.id)
            .join(results, results.c.id == deliveries.c.result_id)
            .where(
                deliveries.c.state.in_((DeliveryState.DELIVERED, DeliveryState.COMMITTED)),
                deliveries.c.destination == destination,
                results.c.sop_class_uid == sop_class_uid,
            )
        )
        with self._read() as connection:
            return connection.execute(query.limit(1)).first() is not None

    def next_due(self, destination: str) -> datetime | None:
        """When the next delivery to a destination is due; None if nothing is pending."""
        query = select(func.min(deliveries.c.due_at)).where(
            deliveries.c.state == DeliveryState.PENDING, deliveries.c.destination == destination
        )
        with self._read() as connection:
            due_at: datetime | None = connection.execute(query).scalar_one()
        return due_at


def deliveries_of(
    connection: Connection, query: Select[tuple[Any, ...]], spool: Path
) -> tuple[Delivery, ...]:
    """Run a query of `joined` rows."""
    return tuple(delivery_of(row, spool) for row in connection.execute(query))


def joined() -> Select[tuple[Any, ...]]:
    """Deliveries with their result and their sender."""
    return (
        select(
            deliveries.c.id.label("delivery_id"),
            deliveries.c.destination,
            deliveries.c.state.label("delivery_state"),
            deliveries.c.attempts,
            deliveries.c.owed_since,
            deliveries.c.commit_attempts,
            results,
            cases.c.study_uid,
            cases.c.calling_ae,
            cases.c.peer,
        )
        .join(results, results.c.id == deliveries.c.result_id)
        .join(cases, cases.c.id == results.c.case_id)
    )


def step(
    connection: Connection,
    delivery_id: int,
    state: DeliveryState,
    cause: Cause,
    now: datetime,
    error: str = "",
    columns: Mapping[str, object] | None = None,
) -> AnyRow:
    """Move one row and return it as it was, with case and kind.

    From pending it is an attempt to send, and counted.
    """
    query = (
        select(deliveries, results.c.case_id, results.c.kind)
        .join(results, results.c.id == deliveries.c.result_id)
        .where(deliveries.c.id == delivery_id)
    )
    row = connection.execute(query).one_or_none()
    if row is None:
        raise UnknownCase(f"there is no delivery {delivery_id}")
    check_delivery_step(delivery_id, row.state, state, cause)
    attempts = row.attempts + (row.state is DeliveryState.PENDING)
    changes = {"state": state, "attempts": attempts, "updated_at": now, **(columns or {})}
    if error:
        changes |= {"last_error": error, "last_error_at": now}
    connection.execute(update(deliveries).where(deliveries.c.id == delivery_id).values(**changes))
    return row


def settle(connection: Connection, case_id: str, cause: Cause, words: str, now: datetime) -> None:
    """Note what became of one row; if it was the last open one, bring the case to rest."""
    case = row_of(connection, case_id)
    query = (
        select(deliveries.c.state, deliveries.c.commit_due_at)
        .join(results, results.c.id == deliveries.c.result_id)
        .where(results.c.case_id == case_id, results.c.retired_at.is_(None))
    )
    rows = connection.execute(query).all()
    states = {row.state for row in rows}
    if DeliveryState.PENDING in states or any(row.commit_due_at is not None for row in rows):
        move(connection, case, State.REPORTED, cause, now, words)
        return
    if DeliveryState.GIVEN_UP in states:
        # What the answer asked to be looked at is not overwritten: that is the graver reason.
        gave_up = parked_because((Reason.GAVE_UP, words)) if case.park_reason is None else {}
        move(connection, case, State.PARKED, Cause.GAVE_UP, now, words, gave_up)
        return
    after = State.DONE if case.park_reason is None else State.PARKED
    move(connection, case, after, cause, now, words)
