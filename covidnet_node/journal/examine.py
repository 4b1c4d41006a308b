"""Whether the journal's file is sound: asked without upgrading it and without writing to it."""

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from urllib.parse import quote

REMEDY = (
    "stop the node, put journal.db, journal.db-wal and journal.db-shm aside and restore them from "
    "a backup, or start without: the images in the spool stay, but what was owed is forgotten"
)
_STEPS = 10_000
"""Instructions of SQLite between two looks at the clock."""


@dataclass(frozen=True, slots=True)
class Condition:
    """What was found."""

    sound: bool
    passing: bool
    """Whether what is wrong may be well again by itself."""
    words: str


def examine(file: Path, patience_s: float) -> Condition:
    """Look a SQLite journal over: every page that `patience_s` leaves time for, and its lock."""
    if not file.exists():
        return Condition(sound=True, passing=False, words="none yet; the first start makes it")
    address = f"file:{quote(str(file))}?mode=rw"
    try:
        with closing(
            sqlite3.connect(address, uri=True, timeout=patience_s, isolation_level=None)
        ) as database:
            complaint, whole = _check_pages(database, patience_s)
            if complaint:
                words = f"{file} is damaged ({complaint}); {REMEDY}"
                return Condition(sound=False, passing=False, words=words)
            database.execute("BEGIN IMMEDIATE")
            database.execute("ROLLBACK")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            words = f"{file} is locked by another program for {patience_s:.0f} s or longer; end it"
            return Condition(sound=False, passing=True, words=words)
        return Condition(sound=False, passing=True, words=f"{file} cannot be read ({error})")
    except sqlite3.DatabaseError as error:
        return Condition(sound=False, passing=False, words=f"{file} is damaged ({error}); {REMEDY}")
    words = "sound" if whole else "sound as far as there was time to look"
    return Condition(sound=True, passing=False, words=words)


def _check_pages(database: sqlite3.Connection, patience_s: float) -> tuple[str, bool]:
    """The first thing wrong, or nothing; and whether all of it was looked at."""
    end = monotonic() + patience_s
    database.set_progress_handler(lambda: monotonic() > end, _STEPS)
    try:
        found = str(database.execute("PRAGMA quick_check(1)").fetchone()[0])
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT:
            return "", False
        raise
    finally:
        database.set_progress_handler(None, 0)
    return ("" if found == "ok" else " ".join(found.split())), True
