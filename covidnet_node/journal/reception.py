"""What came to the door: cases admitted and refused, and what never became a case."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, and_, func, insert, select, true, update

from covidnet_node.case import Admission, Case, InstanceKey, Received, State
from covidnet_node.journal.rows import blank_columns, case_of, columns_of
from covidnet_node.journal.store import Store, insert_case, row_of
from covidnet_node.journal.tables import cases, counters, rejections
from covidnet_node.journal.transitions import Cause

MOST_REJECTIONS = 1000
"""Rows of `rejections`: a stranger who makes up titles must not fill the disk."""
MOST_REJECTIONS_OF_A_PEER = 100
OTHERS = "(others)"


@dataclass(frozen=True, slots=True)
class TurnedAway:
    """What was turned away, of whom."""

    calling_ae: str
    peer: str
    what: str
    """A fixed word of the receiver's."""
    detail: str
    """E.g. the abstract syntax."""


class Reception(Store):
    """The receiver's chapter."""

    def admit(self, case_id: str, received: Received, admission: Admission, now: datetime) -> Case:
        """Journal an admitted case, due at once; its file must be in the spool already.

        The same bytes of the same instance are one case, always: if there is one, it comes back
        unchanged (its id tells) and the caller drops the second file. Raises RetryLater.
        """
        with self._write() as connection:
            same_bytes = and_(of_instance(received.key), cases.c.sha256 == received.sha256)
            earlier = connection.execute(select(cases).where(same_bytes)).one_or_none()
            if earlier is not None:
                return case_of(earlier)
            columns = {**columns_of(received, admission), **blank_columns()}
            insert_case(connection, case_id, State.ADMITTED, Cause.ADMITTED, now, columns)
            return case_of(row_of(connection, case_id))

    def refuse(self, case_id: str, received: Received, admission: Admission, now: datetime) -> Case:
        """Journal a refused object; nothing of it is kept but this row. Raises RetryLater."""
        with self._write() as connection:
            columns = {**columns_of(received, admission), **blank_columns()}
            columns |= {"reason": admission.reason, "detail": admission.detail}
            insert_case(connection, case_id, State.REFUSED, Cause.REFUSED, now, columns)
            return case_of(row_of(connection, case_id))

    def versions(self, key: InstanceKey) -> tuple[Case, ...]:
        """Every case of the instance that was not refused, oldest first."""
        query = select(cases).where(of_instance(key)).order_by(cases.c.number)
        with self._read() as connection:
            return tuple(case_of(row) for row in connection.execute(query))

    def count_rejections(self, counts: Mapping[TurnedAway, int], now: datetime) -> None:
        """Count what was turned away, in one transaction. Raises RetryLater.

        Some senders propose a hundred contexts each time; a commit for each would hold them up.
        """
        with self._write() as connection:
            for turned, count in counts.items():
                _count_rejection(connection, asdict(turned), count, now)

    def count(self, name: str, now: datetime, by: int = 1) -> None:
        """Add to a counter, e.g. of own results that came back. Raises RetryLater."""
        with self._write() as connection:
            count_in(connection, name, now, by)


def count_in(connection: Connection, name: str, now: datetime, by: int = 1) -> None:
    """Add to a counter within a transaction."""
    counted = connection.execute(
        update(counters)
        .where(counters.c.name == name)
        .values(count=counters.c.count + by, last_at=now)
    )
    if counted.rowcount == 0:
        connection.execute(insert(counters).values(name=name, count=by, last_at=now))


def of_instance(key: InstanceKey) -> ColumnElement[bool]:
    """The cases of an instance that were not refused."""
    return and_(
        cases.c.sop_uid == key.sop_uid,
        cases.c.series_uid == key.series_uid,
        cases.c.study_uid == key.study_uid,
        cases.c.state != State.REFUSED,
    )


def _count_rejection(
    connection: Connection, names: dict[str, str], count: int, now: datetime
) -> None:
    """Count under its own name, or with the others once there are too many names."""
    if _count_again(connection, names, count, now):
        return
    of_peer = rejections.c.peer == names["peer"]
    for others, condition, most in (
        ({"calling_ae": OTHERS, "detail": ""}, of_peer, MOST_REJECTIONS_OF_A_PEER),
        ({"calling_ae": OTHERS, "detail": "", "peer": OTHERS}, true(), MOST_REJECTIONS),
    ):
        query = select(func.count()).select_from(rejections).where(condition)
        if connection.execute(query).scalar_one() >= most:
            names = names | others
            if _count_again(connection, names, count, now):
                return
    connection.execute(insert(rejections).values(count=count, last_at=now, **names))


def _count_again(connection: Connection, names: dict[str, str], count: int, now: datetime) -> bool:
    """Count a rejection that was seen before; tell whether it was."""
    same = [rejections.c[name] == value for name, value in names.items()]
    counted = connection.execute(
        update(rejections).where(*same).values(count=rejections.c.count + count, last_at=now)
    )
    return counted.rowcount == 1
