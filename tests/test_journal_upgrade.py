"""A journal of an older version, with cases in every state, is upgraded, and all goes on."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine

from covidnet_node.case import Admission, Case, DeliveryState, Reason, State
from covidnet_node.journal.case_id import new_case_id
from covidnet_node.journal.journal import Journal
from covidnet_node.journal.schema import MIGRATIONS
from covidnet_node.journal.spool import Spool
from tests.journal_kit import LEASE, NOW, Desk, open_desk, received

OLD = "0001"


@pytest.fixture
def cases(tmp_path: Path) -> dict[str, Case]:
    """One case in each state, written into the tables as the first version had them."""
    desk = open_desk(tmp_path / "new")
    with desk.journal as journal:
        desk.admit("done", "done")
        desk.report(desk.claim(), "pacs")
        desk.deliver("pacs")
        desk.admit("parked", "parked")
        journal.park(desk.claim(), Reason.CANNOT_READ, "a test", NOW)
        desk.admit("reported", "reported")
        desk.report(desk.claim(), "pacs", "second")
        (first, *_) = journal.due_deliveries("second", NOW, 9)
        journal.delivered(first.id, NOW)
        journal.postpone(journal.due_deliveries("pacs", NOW, 9)[0].id, "A700", NOW, NOW)
        desk.admit("held", "held")
        desk.claim(owner="node/0/earlier")
        desk.admit("admitted", "admitted")
        refusal = Admission(admitted=False, reason=Reason.NO_RULE)
        journal.refuse(new_case_id(NOW), received("refused", "refused"), refusal, NOW)
        journal.count("own_results_ignored", NOW, 7)
        found = {case.received.key.sop_uid.rpartition(".")[2]: case for case in journal.cases()}
    rewrite_as(OLD, tmp_path / "new" / "journal.db", tmp_path / "journal.db")
    (tmp_path / "new" / "spool").rename(tmp_path / "spool")
    return found


def rewrite_as(revision: str, new: Path, old: Path) -> None:
    """Make the tables of that revision, and copy every column that it had."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    engine = create_engine(f"sqlite:///{old}")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    engine.dispose()
    with closing(sqlite3.connect(old)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("ATTACH ? AS newer", (str(new),))
        for table in ("cases", "results", "deliveries", "history", "rejections", "counters"):
            had = [row[1] for row in database.execute(f"PRAGMA table_info({table})")]
            columns = ", ".join(had)
            database.execute(
                f"INSERT INTO {table} ({columns}) SELECT {columns} FROM newer.{table}"  # noqa: S608 - our own tables
            )
        database.commit()


def test_nothing_is_forgotten_and_all_goes_on(tmp_path: Path, cases: dict[str, Case]) -> None:
    with Journal.open(tmp_path / "journal.db") as journal:
        desk = Desk(journal, Spool(tmp_path / "spool"))
        for case in cases.values():
            assert journal.case(case.id) == case
            assert journal.history(case.id)
        assert journal.counters() == {"own_results_ignored": 7}
        # What was owed is owed, no more: once delivered the case is done.
        assert len(journal.due_deliveries("pacs", NOW, 9)) == 2
        assert len(journal.due_deliveries("second", NOW, 9)) == 1
        desk.deliver("pacs")
        desk.deliver("second")
        assert journal.case(cases["reported"].id).state is State.DONE
        states = {debt.state for debt in journal.deliveries(cases["done"].id)}
        assert states == {DeliveryState.DELIVERED}
        # What a worker of the old version held is taken up, what waited is claimed.
        journal.release("node/", NOW, crashed=False)
        claims = journal.claim("node/0/now", 9, LEASE, NOW)
        assert [claim.case.id for claim in claims] == [cases["held"].id, cases["admitted"].id]
        # The same bytes are still no new work, and a parked case can still be discarded.
        again = journal.admit(
            new_case_id(NOW), received("done", "done"), Admission(admitted=True, reason=None), NOW
        )
        assert again.id == cases["done"].id
        assert journal.discard(cases["parked"].id, NOW, "a test").state is State.DONE


def test_an_upgrade_leaves_a_journal_that_check_finds_sound(
    tmp_path: Path, cases: dict[str, Case]
) -> None:
    assert cases
    file = tmp_path / "journal.db"
    Journal.open(file).close()
    with closing(sqlite3.connect(file)) as database:
        (revision,) = database.execute("SELECT version_num FROM alembic_version").fetchone()
        assert revision != OLD
        assert database.execute("PRAGMA foreign_key_check").fetchall() == []
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
