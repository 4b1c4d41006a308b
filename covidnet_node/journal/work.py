"""The worker's steps: claim a case, answer it or give it back; and leases that were left."""

import secrets
from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
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

from covidnet_node.case import Case, Claim, DeliveryState, LeftOut, Outcome, Owed, Reason, State
from covidnet_node.journal.reception import count_in, of_instance
from covidnet_node.journal.rows import AnyRow, case_of, parked_because, result_columns
from covidnet_node.journal.store import Store, move, row_of
from covidnet_node.journal.tables import cases, deliveries, results
from covidnet_node.journal.transitions import Cause, LostLease

FREE: dict[str, object] = {"lease_token": None, "lease_owner": None, "lease_until": None}
"""Columns of a case that nobody has in hand."""


class Work(Store):
    """The worker's chapter. A claim whose lease is lost raises LostLease and changes nothing."""

    def claim(self, owner: str, limit: int, lease: timedelta, now: datetime) -> tuple[Claim, ...]:
        """Take up to `limit` cases in hand: admitted, due, oldest first. Raises RetryLater.

        A case waits while an older one of the same instance is still admitted, so that
        versions are judged in order. A case that has taken down a worker comes alone.
        """
        with self._write() as connection:
            rows = connection.execute(_claimable(now).limit(limit)).all()
            if rows and rows[0].crashes:
                rows = rows[:1]
            return tuple(
                _take(connection, row, owner, now + lease, now)
                for row in rows
                if len(rows) == 1 or not row.crashes
            )

    def predecessors(self, case: Case) -> tuple[Case, ...]:
        """The cases of the same instance that came before and were not refused, oldest first."""
        number = select(cases.c.number).where(cases.c.id == case.id).scalar_subquery()
        query = (
            select(cases)
            .where(of_instance(case.received.key), cases.c.number < number)
            .order_by(cases.c.number)
        )
        with self._read() as connection:
            return tuple(case_of(row) for row in connection.execute(query))

    def record_digests(
        self, claim: Claim, pixel_digest: str, identity_digest: str, now: datetime
    ) -> None:
        """Keep what later versions of the instance are compared with.

        Raises LostLease, RetryLater.
        """
        with self._write() as connection:
            _held(connection, claim)
            connection.execute(
                update(cases)
                .where(cases.c.id == claim.case.id)
                .values(pixel_digest=pixel_digest, identity_digest=identity_digest, updated_at=now)
            )

    def renew(self, claim: Claim, lease: timedelta, now: datetime) -> Claim:
        """Hold the case until `now + lease`. Raises LostLease, RetryLater."""
        with self._write() as connection:
            _held(connection, claim)
            connection.execute(
                update(cases).where(cases.c.id == claim.case.id).values(lease_until=now + lease)
            )
        return replace(claim, until=now + lease)

    def report(
        self,
        claim: Claim,
        outcome: Outcome,
        reason: Reason | None,
        detail: str,
        owed: Sequence[Owed],
        now: datetime,
        park: tuple[Reason, str] | None = None,
        supersedes: str | None = None,
        content_at: datetime | None = None,
        left_out: Sequence[LeftOut] = (),
    ) -> Case:
        """Journal the answer and who is owed it, in one transaction.

        The case becomes reported; done at once when nobody is owed anything. With `park` it
        is parked, for that reason, once all is delivered. `supersedes` is the id of the case
        whose answer this one replaces. `content_at` is the content time of the results, where it
        is not the case's already. Result files must be in the spool. What was `left_out` is noted
        in the history and counted. Raises LostLease, RetryLater; ValueError for an answer without
        results, or with files elsewhere.
        """
        if not owed:
            raise ValueError("an answer has at least one result: silence looks like normal")
        with self._write() as connection:
            row = _held(connection, claim)
            for each in owed:
                self._owe(connection, row.id, each, now)
            after = State.REPORTED
            if not any(each.destinations for each in owed):
                after = State.DONE if park is None else State.PARKED
            answer = {"outcome": outcome, "reason": reason, "detail": detail}
            changes = {**FREE, **answer, **parked_because(park)}
            if content_at is not None:
                changes["content_at"] = content_at
            if supersedes is not None:
                changes["supersedes"] = supersedes
                _supersede(connection, supersedes, row.id, now)
            words = outcome.value
            for without in left_out:
                count_in(connection, f"left_out_{without.kind.value}", now)
                words += f"; {without.kind.value} left out: {without.why}"
            move(connection, row, after, Cause.REPORTED, now, words, changes)
            return case_of(row_of(connection, row.id))

    def duplicate(self, claim: Claim, of_case_id: str, now: datetime) -> None:
        """Close a case that says nothing new. Raises LostLease, RetryLater."""
        with self._write() as connection:
            row = _held(connection, claim)
            detail = f"same as {of_case_id}"
            changes = {**FREE, "reason": Reason.DUPLICATE, "detail": detail}
            move(connection, row, State.DONE, Cause.DUPLICATE, now, detail, changes)

    def retry(
        self, claim: Claim, error: str, due_at: datetime, now: datetime, *, counted: bool = True
    ) -> None:
        """Give the case back, to be claimed again from `due_at` on.

        `counted=False` takes the attempt back: a full disk says nothing about the case. Raises
        LostLease, RetryLater.
        """
        with self._write() as connection:
            row = _held(connection, claim)
            changes = {**FREE, "due_at": due_at, "last_error": error, "last_error_at": now}
            if not counted:
                changes["attempts"] = max(0, row.attempts - 1)
            move(connection, row, State.ADMITTED, Cause.RETRIED, now, error, changes)

    def park(self, claim: Claim, reason: Reason, detail: str, now: datetime) -> None:
        """Park a case without an answer: the last resort. Raises LostLease, RetryLater."""
        with self._write() as connection:
            row = _held(connection, claim)
            changes = {**FREE, **parked_because((reason, detail))}
            changes |= {"reason": reason, "detail": detail}
            changes |= {"last_error": detail, "last_error_at": now}
            move(connection, row, State.PARKED, Cause.PARKED, now, detail, changes)

    def release(self, owner: str, now: datetime, *, crashed: bool) -> tuple[Case, ...]:
        """Take back what a worker holds that is gone; `crashed` counts it against the cases.

        An `owner` that ends in "/" stands for all owners that begin so. Raises RetryLater.
        """
        held: ColumnElement[bool] = cases.c.lease_owner == owner
        if owner.endswith("/"):
            held = func.substr(cases.c.lease_owner, 1, len(owner)) == owner
        return self._take_back(held, Cause.CRASHED if crashed else Cause.RELEASED, now)

    def release_expired(self, now: datetime, living: Collection[str] = ()) -> tuple[Case, ...]:
        """Take back every case whose lease has run out: its worker is gone. Raises RetryLater.

        `living` are owners that somebody watches: a clock that was set forward takes nothing
        from them.
        """
        expired = and_(cases.c.lease_until <= now, cases.c.lease_owner.not_in(living))
        return self._take_back(expired, Cause.EXPIRED, now)

    def _take_back(
        self, which: ColumnElement[bool], cause: Cause, now: datetime
    ) -> tuple[Case, ...]:
        query = select(cases).where(cases.c.state == State.ADMITTED, which)
        with self._write() as connection:
            rows = connection.execute(query.order_by(cases.c.number)).all()
            for row in rows:
                crashes = row.crashes + (cause is not Cause.RELEASED)
                changes = {**FREE, "due_at": now, "crashes": crashes}
                move(connection, row, State.ADMITTED, cause, now, row.lease_owner, changes)
            return tuple(case_of(row_of(connection, row.id)) for row in rows)

    def _owe(
        self,
        connection: Connection,
        case_id: str,
        owed: Owed,
        now: datetime,
    ) -> None:
        """Write a result and a pending row for each destination."""
        columns = result_columns(case_id, owed.result, self._spool)
        written = insert(results).values(**columns).returning(results.c.id)
        result_id = connection.execute(written).scalar_one()
        for destination in dict.fromkeys(owed.destinations):
            connection.execute(
                insert(deliveries).values(
                    result_id=result_id,
                    destination=destination,
                    state=DeliveryState.PENDING,
                    attempts=0,
                    owed_since=now,
                    due_at=now,
                    updated_at=now,
                    last_error="",
                )
            )


def _claimable(now: datetime) -> Select[tuple[Any, ...]]:
    older = cases.alias("older")
    waits_for_older = exists().where(
        older.c.sop_uid == cases.c.sop_uid,
        older.c.series_uid == cases.c.series_uid,
        older.c.study_uid == cases.c.study_uid,
        older.c.state == State.ADMITTED,
        older.c.number < cases.c.number,
    )
    return (
        select(cases)
        .where(
            cases.c.state == State.ADMITTED,
            cases.c.lease_token.is_(None),
            # What was written later than now was written before the clock was set back.
            or_(cases.c.due_at <= now, cases.c.updated_at > now),
            ~waits_for_older,
        )
        .order_by(cases.c.number)
    )


def _take(connection: Connection, row: AnyRow, owner: str, until: datetime, now: datetime) -> Claim:
    """Put a case in a worker's hands."""
    token = secrets.token_hex(16)
    lease = {"lease_token": token, "lease_owner": owner, "lease_until": until}
    # Content date and time are taken once, so that a second attempt makes the same bytes.
    work = {"attempts": row.attempts + 1, "content_at": row.content_at or now}
    move(connection, row, State.ADMITTED, Cause.CLAIMED, now, owner, {**lease, **work})
    return Claim(case_of(row_of(connection, row.id)), token, until)


def _held(connection: Connection, claim: Claim) -> AnyRow:
    """The row of a claimed case; raises LostLease unless the claim still holds it."""
    query = select(cases).where(
        and_(cases.c.id == claim.case.id, cases.c.lease_token == claim.token)
    )
    row = connection.execute(query).one_or_none()
    if row is None:
        raise LostLease(f"{claim.case.id} is no longer held by this worker")
    return row


def _supersede(connection: Connection, old_id: str, new_id: str, now: datetime) -> None:
    """Note on a case that a later one answers in its place."""
    old = row_of(connection, old_id)
    move(connection, old, old.state, Cause.SUPERSEDED, now, new_id, {"superseded_by": new_id})
