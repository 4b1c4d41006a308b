"""Bringing a database to this program's schema. Safe when several processes open it at once."""

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine

MIGRATIONS = Path(__file__).parent / "migrations"


class NewerSchema(Exception):
    """The journal was written by a newer version of this program."""


def create_private(file: Path) -> None:
    """Make folder (0700) and file (0600) where they are missing; raises OSError.

    A file that is there, e.g. out of a backup, becomes private too, and those beside it. SQLite
    gives its write-ahead log the mode of the file.
    """
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(file, os.O_RDWR | os.O_CREAT, 0o600))
    for each in file.parent.glob(f"{file.name}*"):
        with suppress(FileNotFoundError):  # SQLite has just folded its log in
            if stat.S_IMODE(each.stat().st_mode) & (stat.S_IRWXG | stat.S_IRWXO):
                each.chmod(0o600)


@contextmanager
def only_one_opens(file: Path) -> Iterator[None]:
    """Hold a lock beside the database, across threads and processes; the system frees it.

    SQLite's own locks are not enough: switching to WAL does not wait for them.
    """
    descriptor = os.open(file.with_name(f"{file.name}.opening"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def upgrade(engine: Engine) -> None:
    """Run the migrations that the database has not seen, all in one transaction.

    Raises NewerSchema when it knows a revision that this program does not.
    """
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    # SQLite cannot change its journal mode within a transaction; the mode stays with the file.
    if engine.dialect.name == "sqlite":
        raw = engine.raw_connection()
        try:
            raw.cursor().execute("PRAGMA journal_mode = WAL")
        finally:
            raw.close()
    writer = engine.execution_options(journal_begin="IMMEDIATE")
    with writer.begin() as connection:
        found = MigrationContext.configure(connection).get_current_revision()
        scripts = ScriptDirectory.from_config(config)
        known = {script.revision for script in scripts.walk_revisions()}
        if found is not None and found not in known:
            raise NewerSchema(
                f"the journal has schema {found}, newer than this program knows; install the "
                "version of the program that wrote it, or a newer one"
            )
        if found != scripts.get_current_head():
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
