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
            _joined()
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

    def delivered(self, delivery_id: int, now: datetime, detail: str = "") -> None:
        """The destination has stored the result. Raises IllegalTransition, RetryLater.

        With the last row the case becomes done, or parked if its answer asked for that.
        """
        with self._write() as connection:
            row = _step(connection, delivery_id, DeliveryState.DELIVERED, Cause.DELIVERED, now)
            words = f"{row.kind} to {row.destination} {detail}".rstrip()
            _settle(connection, row.case_id, Cause.DELIVERED, words, now)

    def postpone(self, delivery_id: int, error: str, due_at: datetime, now: datetime) -> None:
        """The attempt failed; the next one is due at `due_at`.

        Raises IllegalTransition, RetryLater.
        """
        with self._write() as connection:
            pending, changes = DeliveryState.PENDING, {"due_at": due_at}
            _step(connection, delivery_id, pending, Cause.RETRIED, now, error, changes)

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
            _step(
                connection, delivery_id, DeliveryState.PENDING, Cause.RETRIED, now, error, changes
            )

    def give_up(self, delivery_id: int, error: str, now: datetime) -> None:
        """The site's patience with this destination is at an end.

        Once no row of the case is pending, it is parked. Raises IllegalTransition, RetryLater.
        """
        with self._write() as connection:
            row = _step(connection, delivery_id, DeliveryState.GIVEN_UP, Cause.GAVE_UP, now, error)
            words = f"{row.kind} to {row.destination}: {error}"
            _settle(connection, row.case_id, Cause.GAVE_UP, words, now)

    def destinations_owed(self) -> frozenset[str]:
        """Names of all destinations with pending rows, configured or not."""
        query = select(deliveries.c.destination).distinct()
        with self._read() as connection:
            pending = query.where(deliveries.c.state == DeliveryState.PENDING)
            return frozenset(connection.execute(pending).scalars())

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
    """Run a query of `_joined` rows."""
    return tuple(delivery_of(row, spool) for row in connection.execute(query))


def _joined() -> Select[tuple[Any, ...]]:
    """Deliveries with their result and their sender."""
    return (
        select(
            deliveries.c.id.label("delivery_id"),
            deliveries.c.destination,
            deliveries.c.state.label("delivery_state"),
            deliveries.c.attempts,
            deliveries.c.owed_since,
            results,
            cases.c.calling_ae,
            cases.c.peer,
        )
        .join(results, results.c.id == deliveries.c.result_id)
        .join(cases, cases.c.id == results.c.case_id)
    )


def _step(
    connection: Connection,
    delivery_id: int,
    state: DeliveryState,
    cause: Cause,
    now: datetime,
    error: str = "",
    columns: Mapping[str, object] | None = None,
) -> AnyRow:
    """Move one row after an attempt and return it as it was, with case and kind."""
    query = (
        select(deliveries, results.c.case_id, results.c.kind)
        .join(results, results.c.id == deliveries.c.result_id)
        .where(deliveries.c.id == delivery_id)
    )
    row = connection.execute(query).one_or_none()
    if row is None:
        raise UnknownCase(f"there is no delivery {delivery_id}")
    check_delivery_step(delivery_id, row.state, state, cause)
    changes = {"state": state, "attempts": row.attempts + 1, "updated_at": now, **(columns or {})}
    if error:
        changes |= {"last_error": error, "last_error_at": now}
    connection.execute(update(deliveries).where(deliveries.c.id == delivery_id).values(**changes))
    return row


def _settle(connection: Connection, case_id: str, cause: Cause, words: str, now: datetime) -> None:
    """Note what became of one row; if it was the last one, bring the case to rest."""
    case = row_of(connection, case_id)
    query = (
        select(deliveries.c.state)
        .join(results, results.c.id == deliveries.c.result_id)
        .where(results.c.case_id == case_id, results.c.retired_at.is_(None))
    )
    states = set(connection.execute(query).scalars())
    if DeliveryState.PENDING in states:
        move(connection, case, State.REPORTED, cause, now, words)
        return
    if DeliveryState.GIVEN_UP in states:
        # What the answer asked to be looked at is not overwritten: that is the graver reason.
        gave_up = parked_because((Reason.GAVE_UP, words)) if case.park_reason is None else {}
        move(connection, case, State.PARKED, Cause.GAVE_UP, now, words, gave_up)
        return
    after = State.DONE if case.park_reason is None else State.PARKED
    move(connection, case, after, Cause.DELIVERED, now, words)
