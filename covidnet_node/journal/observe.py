"""Questions to the journal that change nothing."""

from collections.abc import Mapping
from datetime import datetime
from itertools import groupby

from sqlalchemy import case as sql_case
from sqlalchemy import func, literal, or_, select

from covidnet_node.case import Case, DeliveryState, Result, State
from covidnet_node.journal.rows import case_of, result_of
from covidnet_node.journal.store import Store, row_of
from covidnet_node.journal.tables import cases, counters, deliveries, history, rejections, results
from covidnet_node.journal.views import (
    Backlog,
    Debt,
    HistoryLine,
    LastError,
    Lease,
    Pause,
    Rejection,
    StateCount,
)


class Observation(Store):
    """The observers' chapter: status page, metrics, `status` and `queue`."""

    def counts(self, now: datetime) -> tuple[StateCount, ...]:
        """How many cases rest in each state, one entry per state, in the order of State."""
        query = select(cases.c.state, func.count(), func.min(cases.c.since))
        with self._read() as connection:
            found = {row[0]: row for row in connection.execute(query.group_by(cases.c.state))}
        return tuple(
            StateCount(state, found[state][1], now - found[state][2])
            if state in found
            else StateCount(state, 0, None)
            for state in State
        )

    def knows(self, case_id: str) -> bool:
        """Tell whether there is such a case."""
        with self._read() as connection:
            query = select(cases.c.number).where(cases.c.id == case_id)
            return connection.execute(query).one_or_none() is not None

    def case(self, case_id: str) -> Case:
        """One case; raises UnknownCase."""
        with self._read() as connection:
            return case_of(row_of(connection, case_id))

    def cases(self, state: State | None = None, limit: int = 100) -> tuple[Case, ...]:
        """The newest cases, newest first, of one state or of all."""
        query = select(cases).order_by(cases.c.number.desc()).limit(limit)
        if state is not None:
            query = query.where(cases.c.state == state)
        with self._read() as connection:
            return tuple(case_of(row) for row in connection.execute(query))

    def pause(self, case_id: str) -> Pause:
        """Why and until when a case waits, or why it is parked; raises UnknownCase."""
        with self._read() as connection:
            row = row_of(connection, case_id)
        return Pause(row.due_at, row.last_error, row.park_reason, row.park_detail)

    def history(self, case_id: str) -> tuple[HistoryLine, ...]:
        """All that ever happened to a case, oldest first."""
        query = select(history).where(history.c.case_id == case_id).order_by(history.c.id)
        with self._read() as connection:
            return tuple(
                HistoryLine(
                    row.case_id, row.at, row.from_state, row.to_state, row.cause, row.detail
                )
                for row in connection.execute(query)
            )

    def results(self, case_id: str) -> tuple[Result, ...]:
        """The results of a case's latest analysis."""
        query = (
            select(results)
            .where(results.c.case_id == case_id, results.c.retired_at.is_(None))
            .order_by(results.c.id)
        )
        with self._read() as connection:
            return tuple(result_of(row, self._spool) for row in connection.execute(query))

    def earlier_results(self, case_id: str) -> tuple[tuple[Result, ...], ...]:
        """The results of each answer of a case that was set aside, oldest first.

        Their files may have been overwritten since; their names stay.
        """
        query = (
            select(results)
            .where(results.c.case_id == case_id, results.c.retired_at.is_not(None))
            .order_by(results.c.retired_at, results.c.id)
        )
        with self._read() as connection:
            rows = connection.execute(query).all()
        return tuple(
            tuple(result_of(row, self._spool) for row in answer)
            for _, answer in groupby(rows, key=lambda row: row.retired_at)
        )

    def deliveries(self, case_id: str) -> tuple[Debt, ...]:
        """How each result of a case's latest analysis stands with each destination."""
        query = (
            select(deliveries, results.c.case_id, results.c.kind)
            .join(results, results.c.id == deliveries.c.result_id)
            .where(results.c.case_id == case_id, results.c.retired_at.is_(None))
            .order_by(deliveries.c.id)
        )
        with self._read() as connection:
            return tuple(
                Debt(
                    id=row.id,
                    case_id=row.case_id,
                    kind=row.kind,
                    destination=row.destination,
                    state=row.state,
                    attempts=row.attempts,
                    owed_since=row.owed_since,
                    due_at=row.due_at,
                    updated_at=row.updated_at,
                    last_error=row.last_error,
                )
                for row in connection.execute(query)
            )

    def backlog(self) -> tuple[Backlog, ...]:
        """What each destination is still owed, or has still to commit to, by name."""
        pending = deliveries.c.state == DeliveryState.PENDING
        uncommitted = deliveries.c.commit_due_at.is_not(None)
        query = (
            select(
                deliveries.c.destination,
                func.count(sql_case((pending, 1))),
                func.count(sql_case((uncommitted, 1))),
                func.min(deliveries.c.owed_since),
            )
            .where(or_(pending, uncommitted))
            .group_by(deliveries.c.destination)
            .order_by(deliveries.c.destination)
        )
        with self._read() as connection:
            return tuple(Backlog(*row) for row in connection.execute(query))

    def leases(self) -> tuple[Lease, ...]:
        """The cases in workers' hands, oldest first."""
        query = (
            select(cases.c.lease_owner, cases.c.id, cases.c.lease_token, cases.c.lease_until)
            .where(cases.c.state == State.ADMITTED, cases.c.lease_token.is_not(None))
            .order_by(cases.c.number)
        )
        with self._read() as connection:
            return tuple(Lease(*row) for row in connection.execute(query))

    def rejections(self) -> tuple[Rejection, ...]:
        """What was turned away at the door, latest first."""
        query = select(rejections).order_by(rejections.c.last_at.desc(), rejections.c.id)
        with self._read() as connection:
            return tuple(
                Rejection(
                    row.calling_ae,
                    row.peer,
                    row.what,
                    row.detail,
                    row._mapping["count"],
                    row.last_at,
                )
                for row in connection.execute(query)
            )

    def counters(self) -> Mapping[str, int]:
        """Every counter by its name."""
        query = select(counters.c.name, counters.c["count"]).order_by(counters.c.name)
        with self._read() as connection:
            return {row[0]: row[1] for row in connection.execute(query)}

    def last_errors(self, limit: int = 10) -> tuple[LastError, ...]:
        """The latest failures, newest first; one per case and one per delivery row."""
        analysis = (
            select(cases.c.last_error_at, cases.c.id, literal(None), cases.c.last_error)
            .where(cases.c.last_error_at.is_not(None))
            .order_by(cases.c.last_error_at.desc())
            .limit(limit)
        )
        delivery = (
            select(
                deliveries.c.last_error_at,
                results.c.case_id,
                deliveries.c.destination,
                deliveries.c.last_error,
            )
            .join(results, results.c.id == deliveries.c.result_id)
            .where(deliveries.c.last_error_at.is_not(None))
            .order_by(deliveries.c.last_error_at.desc())
            .limit(limit)
        )
        with self._read() as connection:
            rows = [*connection.execute(analysis), *connection.execute(delivery)]
        found = sorted((LastError(*row) for row in rows), key=lambda each: each.at, reverse=True)
        return tuple(found[:limit])
