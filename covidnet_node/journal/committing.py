"""Storage commitment: what destinations are asked to commit to, and what they answer.

A transaction is written before its request goes out, so that no answer can come too early. Its
report is noted when it arrives and acted on later, by the loop that asked.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    and_,
    exists,
    func,
    insert,
    or_,
    select,
    update,
)

from covidnet_node.case import (
    Commitment,
    CommitmentState,
    Delivery,
    DeliveryState,
    Promise,
    Promised,
)
from covidnet_node.journal.owed import deliveries_of, joined, settle, step
from covidnet_node.journal.rows import AnyRow, delivery_of
from covidnet_node.journal.store import Store
from covidnet_node.journal.tables import commitment_items, commitments, deliveries, results
from covidnet_node.journal.transitions import Cause, IllegalTransition

OPEN = (CommitmentState.WRITTEN, CommitmentState.ASKED)
HEARD = (*OPEN, CommitmentState.EXPIRED, CommitmentState.REFUSED)
"""States in which a first report is still noted."""


class Promises(Store):
    """The commitment loop's chapter."""

    def due_commitments(self, destination: str, now: datetime, limit: int) -> tuple[Delivery, ...]:
        """What a destination is to be asked about now, in the order in which it was journaled.

        Of a case only when nothing of it is left to send there.
        """
        query = (
            joined()
            .where(
                deliveries.c.state == DeliveryState.DELIVERED,
                deliveries.c.destination == destination,
                # The first time at once, so that a case is asked about as a whole. What was
                # written later than now was written before the clock was set back.
                or_(
                    deliveries.c.commit_due_at <= now,
                    deliveries.c.commit_due_at == deliveries.c.delivered_at,
                    deliveries.c.updated_at > now,
                ),
                deliveries.c.commit_due_at.is_not(None),
                ~_more_to_send(),
            )
            .order_by(deliveries.c.id)
            .limit(limit)
        )
        with self._read() as connection:
            return deliveries_of(connection, query, self._spool)

    def next_commitment_due(self, destination: str) -> datetime | None:
        """When a destination is to be asked next; None if there is nothing to ask."""
        query = (
            select(func.min(deliveries.c.commit_due_at))
            .join(results, results.c.id == deliveries.c.result_id)
            .where(
                deliveries.c.state == DeliveryState.DELIVERED,
                deliveries.c.destination == destination,
                ~_more_to_send(),
            )
        )
        with self._read() as connection:
            due_at: datetime | None = connection.execute(query).scalar_one()
        return due_at

    def write_commitment(
        self, asked: Commitment, delivery_ids: Sequence[int], due_at: datetime, now: datetime
    ) -> None:
        """Write a transaction, before its request goes out; its answer is awaited until `due_at`.

        Earlier transactions about the same deliveries expire. Raises IllegalTransition when one
        of them is no longer delivered, RetryLater.
        """
        with self._write() as connection:
            _expire(connection, delivery_ids, now)
            columns = {
                "transaction_uid": asked.transaction_uid,
                "destination": asked.destination,
                "ae_title": asked.ae_title,
                "peer": asked.peer,
                "state": CommitmentState.WRITTEN,
            }
            new = insert(commitments).values(**columns, asked_at=now, updated_at=now)
            number = connection.execute(new.returning(commitments.c.id)).scalar_one()
            query = (
                select(deliveries, results.c.sop_instance_uid)
                .join(results, results.c.id == deliveries.c.result_id)
                .where(deliveries.c.id.in_(delivery_ids))
            )
            for row in connection.execute(query).all():
                if row.state is not DeliveryState.DELIVERED or row.delivered_at is None:
                    raise IllegalTransition(f"delivery {row.id} is {row.state}: nothing to ask")
                item = {"commitment_id": number, "delivery_id": row.id}
                item |= {"delivered_at": row.delivered_at, "sop_instance_uid": row.sop_instance_uid}
                connection.execute(insert(commitment_items).values(**item))
                changes = {"commit_due_at": due_at, "commit_attempts": row.commit_attempts + 1}
                _change(connection, row.id, {**changes, "updated_at": now})

    def commitment_taken(self, transaction_uid: str, now: datetime) -> None:
        """The destination has taken the request; its report may have come before.

        Raises RetryLater.
        """
        with self._write() as connection:
            before, after = (CommitmentState.WRITTEN,), CommitmentState.ASKED
            _turn(connection, transaction_uid, before, after, now)

    def commitment_refused(
        self, transaction_uid: str, error: str, due_at: datetime, now: datetime
    ) -> None:
        """The destination did not take the request; it may be asked again from `due_at` on.

        Raises RetryLater.
        """
        with self._write() as connection:
            if not _turn(connection, transaction_uid, OPEN, CommitmentState.REFUSED, now):
                return
            query = (
                _items()
                .join(deliveries, deliveries.c.id == commitment_items.c.delivery_id)
                .where(
                    commitments.c.transaction_uid == transaction_uid,
                    deliveries.c.state == DeliveryState.DELIVERED,
                    deliveries.c.delivered_at == commitment_items.c.delivered_at,
                )
            )
            for row in connection.execute(query).all():
                _ask_later(connection, row.delivery_id, error, due_at, now)

    def commitment(self, transaction_uid: str) -> Commitment | None:
        """One transaction; None if there never was one of this UID."""
        query = select(commitments).where(commitments.c.transaction_uid == transaction_uid)
        with self._read() as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            return None
        return Commitment(row.transaction_uid, row.destination, row.ae_title, row.peer, row.state)

    def commitment_reported(
        self,
        transaction_uid: str,
        committed: Collection[str],
        failed: Mapping[str, int],
        now: datetime,
    ) -> bool:
        """Note a report, by SOP instance UIDs and Failure Reasons; tell whether it was the first.

        What it names beyond its request is not noted; what it names twice has failed. A second
        report changes nothing. Raises RetryLater.
        """
        with self._write() as connection:
            if not _turn(connection, transaction_uid, HEARD, CommitmentState.ANSWERED, now):
                return False
            query = _items().where(commitments.c.transaction_uid == transaction_uid)
            for row in connection.execute(query).all():
                promise, uid = Promise.NOT_NAMED, row.sop_instance_uid
                if uid in failed:
                    promise = Promise.FAILED
                elif uid in committed:
                    promise = Promise.COMMITTED
                said = {"promise": promise, "failure_reason": failed.get(uid)}
                which = commitment_items.c.id == row.id
                connection.execute(update(commitment_items).where(which).values(**said))
            return True

    def answered_commitments(self, destination: str) -> Mapping[str, tuple[Promised, ...]]:
        """Transactions whose report has not been acted on, each with what is left to do of it.

        Deliveries that have moved on since they were asked about are not among it.
        """
        query = select(commitments.c.transaction_uid).where(
            commitments.c.state == CommitmentState.ANSWERED,
            commitments.c.destination == destination,
        )
        with self._read() as connection:
            uids = connection.execute(query.order_by(commitments.c.id)).scalars().all()
            return {uid: self._promised(connection, uid) for uid in uids}

    def committed(
        self, delivery_id: int, words: str, now: datetime, *, found: bool = False
    ) -> None:
        """The destination keeps the result: it said so, or it was `found` there by a query.

        Raises IllegalTransition, RetryLater.
        """
        cause = Cause.FOUND if found else Cause.COMMITTED
        with self._write() as connection:
            changes = {"commit_due_at": None}
            state = DeliveryState.COMMITTED
            row = step(connection, delivery_id, state, cause, now, columns=changes)
            words = f"{row.kind} to {row.destination} {words}".rstrip()
            settle(connection, row.case_id, cause, words, now)

    def send_again(
        self, delivery_id: int, error: str, due_at: datetime, now: datetime, commit_attempts: int
    ) -> None:
        """The destination does not keep the result: it is owed it once more, from `due_at` on.

        `commit_attempts` were made so far. Raises IllegalTransition, RetryLater.
        """
        with self._write() as connection:
            changes: dict[str, object] = {"due_at": due_at, "commit_attempts": commit_attempts}
            changes |= {"delivered_at": None, "commit_due_at": None}
            state, cause = DeliveryState.PENDING, Cause.NOT_COMMITTED
            row = step(connection, delivery_id, state, cause, now, error, changes)
            words = f"{row.kind} to {row.destination}: {error}"
            settle(connection, row.case_id, cause, words, now)

    def ask_again(
        self, delivery_id: int, error: str, due_at: datetime, now: datetime, *, counted: bool
    ) -> None:
        """It is not known whether the destination keeps the result; ask from `due_at` on.

        `counted` where no transaction has counted the attempt. Raises IllegalTransition,
        RetryLater.
        """
        with self._write() as connection:
            row = _ask_later(connection, delivery_id, error, due_at, now)
            if counted:
                _change(connection, delivery_id, {"commit_attempts": row.commit_attempts + 1})

    def commitment_settled(self, transaction_uid: str, now: datetime) -> None:
        """All that a report says has been acted on. Raises RetryLater."""
        with self._write() as connection:
            before, after = (CommitmentState.ANSWERED,), CommitmentState.SETTLED
            _turn(connection, transaction_uid, before, after, now)

    def recall_unsent(self, destination: str, now: datetime) -> int:
        """Ask at once about what an earlier life wrote down and may never have asked.

        Returns how many transactions those were. Raises RetryLater.
        """
        which = and_(
            commitments.c.state == CommitmentState.WRITTEN,
            commitments.c.destination == destination,
        )
        with self._write() as connection:
            rows = connection.execute(_items().where(which)).all()
            for row in rows:
                asked_for = and_(
                    deliveries.c.id == row.delivery_id,
                    deliveries.c.state == DeliveryState.DELIVERED,
                    deliveries.c.delivered_at == row.delivered_at,
                )
                due = {"commit_due_at": now, "updated_at": now}
                connection.execute(update(deliveries).where(asked_for).values(**due))
            gone = {"state": CommitmentState.EXPIRED, "updated_at": now}
            return connection.execute(update(commitments).where(which).values(**gone)).rowcount

    def waive_commitments(self, keep: Collection[str], now: datetime) -> int:
        """Await nothing more of all destinations but those to `keep`; stored is enough there.

        Returns how many results those were. Raises RetryLater.
        """
        query = select(deliveries.c.id).where(
            deliveries.c.state == DeliveryState.DELIVERED,
            deliveries.c.commit_due_at.is_not(None),
            deliveries.c.destination.not_in(list(keep)),
        )
        with self._write() as connection:
            ids = connection.execute(query.order_by(deliveries.c.id)).scalars().all()
            for number in ids:
                state, cause = DeliveryState.DELIVERED, Cause.WAIVED
                row = step(connection, number, state, cause, now, columns={"commit_due_at": None})
                words = f"{row.kind} to {row.destination}: not asked to commit any more"
                settle(connection, row.case_id, cause, words, now)
            return len(ids)

    def _promised(self, connection: Connection, transaction_uid: str) -> tuple[Promised, ...]:
        later = commitment_items.alias("later")
        asked_since = exists().where(
            later.c.delivery_id == commitment_items.c.delivery_id,
            later.c.id > commitment_items.c.id,
        )
        query = (
            joined()
            .add_columns(
                commitment_items.c.promise,
                commitment_items.c.failure_reason,
                asked_since.label("asked_since"),
            )
            .join(commitment_items, commitment_items.c.delivery_id == deliveries.c.id)
            .join(commitments, commitments.c.id == commitment_items.c.commitment_id)
            .where(
                commitments.c.transaction_uid == transaction_uid,
                deliveries.c.state == DeliveryState.DELIVERED,
                deliveries.c.delivered_at == commitment_items.c.delivered_at,
                deliveries.c.commit_due_at.is_not(None),
            )
            .order_by(deliveries.c.id)
        )
        return tuple(
            Promised(
                delivery_of(row, self._spool), row.promise, row.failure_reason, not row.asked_since
            )
            for row in connection.execute(query)
        )


def _more_to_send() -> ColumnElement[bool]:
    """Whether something of the case of a joined row is still to be sent to the same destination."""
    other, others = deliveries.alias("other"), results.alias("others")
    return exists().where(
        other.c.result_id == others.c.id,
        others.c.case_id == results.c.case_id,
        others.c.retired_at.is_(None),
        other.c.destination == deliveries.c.destination,
        other.c.state == DeliveryState.PENDING,
    )


def _items() -> Select[tuple[Any, ...]]:
    """Items with their transaction."""
    return select(commitment_items).join(
        commitments, commitments.c.id == commitment_items.c.commitment_id
    )


def _turn(
    connection: Connection,
    transaction_uid: str,
    before: Collection[CommitmentState],
    after: CommitmentState,
    now: datetime,
) -> bool:
    """Bring a transaction from one of some states into another; false if it is in none of them."""
    which = and_(commitments.c.transaction_uid == transaction_uid, commitments.c.state.in_(before))
    changes = {"state": after, "updated_at": now}
    return connection.execute(update(commitments).where(which).values(**changes)).rowcount > 0


def _expire(connection: Connection, delivery_ids: Sequence[int], now: datetime) -> None:
    """Nobody waits any more for the answers to earlier requests about these deliveries."""
    about = select(commitment_items.c.commitment_id).where(
        commitment_items.c.delivery_id.in_(delivery_ids)
    )
    which = and_(commitments.c.id.in_(about), commitments.c.state.in_(OPEN))
    changes = {"state": CommitmentState.EXPIRED, "updated_at": now}
    connection.execute(update(commitments).where(which).values(**changes))


def _ask_later(
    connection: Connection, delivery_id: int, error: str, due_at: datetime, now: datetime
) -> AnyRow:
    state, cause = DeliveryState.DELIVERED, Cause.NOT_COMMITTED
    return step(connection, delivery_id, state, cause, now, error, {"commit_due_at": due_at})


def _change(connection: Connection, delivery_id: int, columns: Mapping[str, object]) -> None:
    connection.execute(update(deliveries).where(deliveries.c.id == delivery_id).values(**columns))
