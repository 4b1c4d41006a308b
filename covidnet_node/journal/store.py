"""The database under the journal: opening, transactions, and the one way to move a case.

No error of the database library leaves this room: what goes wrong becomes a verdict.
"""

import errno
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from sqlalchemy import (
    URL,
    Connection,
    Engine,
    create_engine,
    event,
    insert,
    select,
    update,
)
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError, StatementError
from sqlalchemy.pool import ConnectionPoolEntry

from covidnet_node.case import Reason, State
from covidnet_node.errors import BadConfig, RetryLater
from covidnet_node.journal.rows import AnyRow
from covidnet_node.journal.schema import NewerSchema, create_private, only_one_opens, upgrade
from covidnet_node.journal.tables import cases, history
from covidnet_node.journal.transitions import Cause, UnknownCase, check_case_step

BUSY_S = 10.0
"""How long a write waits for another process before it gives up."""
MOST_CONNECTIONS = 200
"""Above any sensible number of associations; each is one open file, and only while in use."""


_PASSING = frozenset(
    {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}
)


class Store:
    """An open database. The chapters of the journal stand on it."""

    def __init__(self, engine: Engine, spool: Path) -> None:
        self._engine = engine
        self._immediate = engine.execution_options(journal_begin="IMMEDIATE")
        self._spool = spool
        # SQLite lets waiting writers poll; within a process a lock hands on at once, and fairly.
        self._turn = threading.Lock()

    @classmethod
    def open(cls, where: Path | str, spool: Path | None = None) -> Self:
        """Open a journal, make it if it is missing, upgrade it if it is of an older schema.

        `where` is the path of a SQLite file or a database url; `spool` is the folder that paths
        of results are relative to, by default `spool` beside the file. Any number of processes
        and threads may open the same journal at once. Raises BadConfig when it cannot be
        opened, is corrupt, or is of a newer schema than this program; RetryLater when the disk
        is full or failing, or others keep the journal busy.
        """
        engine = _engine(where)
        name = engine.url.render_as_string()
        file = None
        if engine.dialect.name == "sqlite":
            file = Path(engine.url.database or "")
            name = str(file)
        elif spool is None:
            raise BadConfig(name, "node.data", "the folder of the spool must be given")
        try:
            if file is None:
                upgrade(engine)
            else:
                create_private(file)
                with only_one_opens(file):
                    upgrade(engine)
        except (SQLAlchemyError, sqlite3.Error, NewerSchema, OSError) as error:
            engine.dispose()
            if _passes(error):
                words = error.strerror if isinstance(error, OSError) else _words(error)
                raise RetryLater(Reason.CANNOT_STORE, f"journal: {words}") from error
            raise BadConfig(name, "node.data", _remedy(error)) from error
        root = spool if spool is not None else Path(name).parent / "spool"
        return cls(engine, root.absolute())

    def close(self) -> None:
        """Close every connection; the last one to close folds the write-ahead log in."""
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.close()

    @contextmanager
    def _write(self) -> Iterator[Connection]:
        """One durable transaction: all of it or nothing; raises RetryLater."""
        if not self._turn.acquire(timeout=BUSY_S):
            raise RetryLater(Reason.CANNOT_STORE, "journal: busy")
        try:
            with _storing(), self._immediate.begin() as connection:
                yield connection
        finally:
            self._turn.release()

    @contextmanager
    def _read(self) -> Iterator[Connection]:
        """One consistent view of the journal; raises RetryLater."""
        with _storing(), self._engine.begin() as connection:
            yield connection


def row_of(connection: Connection, case_id: str) -> AnyRow:
    """Read the row of a case; raises UnknownCase."""
    row = connection.execute(select(cases).where(cases.c.id == case_id)).one_or_none()
    if row is None:
        raise UnknownCase(f"there is no case {case_id}")
    return row


def insert_case(
    connection: Connection,
    case_id: str,
    state: State,
    cause: Cause,
    now: datetime,
    columns: Mapping[str, object],
) -> None:
    """Write the first row of a case and the first line of its history."""
    check_case_step(case_id, None, state, cause)
    moments = {"since": now, "updated_at": now, "due_at": now}
    connection.execute(insert(cases).values(id=case_id, state=state, **moments, **columns))
    _note(connection, case_id, None, state, cause, now, "")


def move(
    connection: Connection,
    row: AnyRow,
    state: State,
    cause: Cause,
    now: datetime,
    words: str = "",
    columns: Mapping[str, object] | None = None,
) -> None:
    """Bring a case into a state, with a line in its history; raises IllegalTransition."""
    check_case_step(row.id, row.state, state, cause)
    since = row.since if row.state is state else now
    connection.execute(
        update(cases)
        .where(cases.c.id == row.id)
        .values(state=state, since=since, updated_at=now, **(columns or {}))
    )
    _note(connection, row.id, row.state, state, cause, now, words)


def _note(
    connection: Connection,
    case_id: str,
    before: State | None,
    after: State,
    cause: Cause,
    now: datetime,
    detail: str,
) -> None:
    connection.execute(
        insert(history).values(
            case_id=case_id, at=now, from_state=before, to_state=after, cause=cause, detail=detail
        )
    )


@contextmanager
def _storing() -> Iterator[None]:
    """Turn what the database says into the verdict that C-STORE answers with A700."""
    try:
        yield
    except SQLAlchemyError as error:
        if isinstance(error, StatementError) and isinstance(error.orig, ValueError):
            raise error.orig from error  # a caller's mistake, e.g. a naive time
        raise RetryLater(Reason.CANNOT_STORE, f"journal: {_words(error)}") from error


def _words(error: Exception) -> str:
    """The database's own words, without the statement and its values."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    return str(cause) if isinstance(cause, sqlite3.Error) else type(error).__name__


def _passes(error: Exception) -> bool:
    """Whether the same may succeed later without anybody changing the configuration."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    if isinstance(cause, sqlite3.Error):
        # The low byte is the primary result code. Absent where Python itself complains.
        return getattr(cause, "sqlite_errorcode", 0) & 0xFF in _PASSING
    return isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO)


def _remedy(error: Exception) -> str:
    if isinstance(error, NewerSchema):
        return str(error)
    if isinstance(error, OSError):
        return f"the journal cannot be opened ({error.strerror}); check the folder and its owner"
    return (
        f"the journal cannot be used ({_words(error)}); check the folder, or put the file aside "
        "and restore it from a backup"
    )


def _engine(where: Path | str) -> Engine:
    """An engine that has not connected yet; raises BadConfig for a url it cannot use."""
    try:
        engine = create_engine(
            URL.create("sqlite", database=str(where)) if isinstance(where, Path) else where,
            pool_size=10,
            max_overflow=MOST_CONNECTIONS,
            pool_timeout=BUSY_S,
            hide_parameters=True,
        )
    except (ArgumentError, ImportError) as error:
        raise BadConfig(str(where), "node.data", f"no database is there: {error}") from error
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _configure)
        event.listen(engine, "begin", _begin)
    return engine


def _configure(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
    """Settings that SQLite keeps per connection."""
    if not isinstance(connection, sqlite3.Connection):
        raise TypeError(type(connection))
    # The driver must not begin transactions of its own; `_begin` does.
    connection.isolation_level = None
    for pragma in (
        f"busy_timeout = {int(BUSY_S * 1000)}",
        # Not NORMAL: under WAL that may lose the last commits when the power fails.
        "synchronous = FULL",
        "foreign_keys = ON",
    ):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin(connection: Connection) -> None:
    """Begin as asked: a writer takes its place at once, not in the middle of its work."""
    mode = connection.get_execution_options().get("journal_begin", "DEFERRED")
    connection.exec_driver_sql(f"BEGIN {mode}")
