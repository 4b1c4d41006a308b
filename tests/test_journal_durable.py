"""What the journal survives: kills, races, other processes, a full or broken disk, new versions."""

import errno
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, event

from covidnet_node.case import Reason, State
from covidnet_node.errors import BadConfig, RetryLater
from covidnet_node.journal import store
from covidnet_node.journal.case_id import new_case_id
from covidnet_node.journal.journal import Journal
from covidnet_node.journal.tables import metadata
from tests.journal_kit import LEASE, NOW, OURS, open_desk, received

HERE = Path(__file__).parent

ADMIT_FOR_EVER = """
import sys
from pathlib import Path
from tests.journal_kit import open_desk
desk = open_desk(Path(sys.argv[1]))
number = 0
while True:
    case = desk.admit(str(number), str(number))
    print(case.id, flush=True)
    number += 1
"""

CLAIM_ALL = """
import sys
from pathlib import Path
from tests.journal_kit import LEASE, NOW, open_desk
desk = open_desk(Path(sys.argv[1]))
print("open", flush=True)
sys.stdin.readline()
while claims := desk.journal.claim(sys.argv[2], 2, LEASE, NOW):
    for claim in claims:
        print(claim.case.id, flush=True)
"""


def child(code: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", code, *arguments],
        cwd=HERE,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_what_was_acknowledged_survives_a_kill(tmp_path):
    with child(ADMIT_FOR_EVER, str(tmp_path)) as process:
        said = [process.stdout.readline().strip() for _ in range(25)]
        process.kill()
        said += process.stdout.read().split()
    desk = open_desk(tmp_path)
    with desk.journal:
        for case_id in said:
            assert desk.journal.case(case_id).state is State.ADMITTED
            assert desk.spool.source(case_id).read_bytes()
        # At most the one in hand is more than was said.
        assert len(desk.journal.cases(limit=10_000)) <= len(said) + 1


def test_processes_share_a_new_journal_and_no_case_goes_out_twice(tmp_path):
    workers = [child(CLAIM_ALL, str(tmp_path), f"node/{n}") for n in range(3)]
    try:
        # All three made or found the database at the same time.
        assert [worker.stdout.readline() for worker in workers] == ["open\n"] * 3
        desk = open_desk(tmp_path)
        with desk.journal:
            ids = {desk.admit(str(n), str(n)).id for n in range(30)}
            claimed = []
            for worker in workers:
                worker.stdin.write("go\n")
                worker.stdin.flush()
            for worker in workers:
                claimed += worker.communicate(timeout=60)[0].split()
            assert len(claimed) == 30
            assert set(claimed) == ids
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()


def test_threads_that_admit_the_same_bytes_get_one_case(tmp_path):
    with Journal.open(tmp_path / "journal.db") as journal:
        together = threading.Barrier(8)
        got: list[str] = []

        def admit() -> None:
            together.wait(10)
            got.append(journal.admit(new_case_id(NOW), received(), OURS, NOW).id)

        threads = [threading.Thread(target=admit) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert len(got) == 8
        assert len(set(got)) == 1
        assert len(journal.cases()) == 1


def test_two_journals_of_one_file_admit_one_case(tmp_path):
    file = tmp_path / "journal.db"
    with Journal.open(file) as one, Journal.open(file) as two:
        together = threading.Barrier(2)
        got: list[str] = []

        def admit(journal: Journal) -> None:
            together.wait(10)
            got.append(journal.admit(new_case_id(NOW), received(), OURS, NOW).id)

        threads = [threading.Thread(target=admit, args=(each,)) for each in (one, two)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert len(got) == 2
        assert len(set(got)) == 1


def test_the_settings_that_durability_rests_on(tmp_path):
    with Journal.open(tmp_path / "new" / "journal.db") as journal:
        engine = journal._engine
        with engine.connect() as connection:
            pragmas = {
                name: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
                for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
            }
    assert pragmas == {
        "journal_mode": "wal",
        "synchronous": 2,  # FULL
        "foreign_keys": 1,
        "busy_timeout": 10_000,
    }


def test_patients_images_are_nobody_elses_business(tmp_path):
    desk = open_desk(tmp_path / "data")
    with desk.journal:
        case = desk.admit()
        inside = list((tmp_path / "data").rglob("*"))
        modes = {path.name: path.stat().st_mode & 0o777 for path in inside if path.is_file()}
        folders = {path.stat().st_mode & 0o777 for path in inside if path.is_dir()}
    assert desk.spool.source(case.id) in inside
    assert {"journal.db", "journal.db-wal", "source.dcm"} <= set(modes)
    assert set(modes.values()) == {0o600}
    assert folders == {0o700}


# one transaction, one wait for the disk


def test_an_admit_is_one_transaction(tmp_path):
    with Journal.open(tmp_path / "journal.db") as journal:
        commits = []
        event.listen(journal._engine, "commit", lambda _connection: commits.append(1))
        journal.admit(new_case_id(NOW), received(), OURS, NOW)
        assert len(commits) == 1


# failures


def test_a_locked_or_broken_database_says_cannot_store(tmp_path, monkeypatch):
    monkeypatch.setattr("covidnet_node.journal.store.BUSY_S", 0.05)
    file = tmp_path / "journal.db"
    with Journal.open(file) as journal:
        case = journal.admit(new_case_id(NOW), received(), OURS, NOW)
        other = sqlite3.connect(file, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(RetryLater) as caught:
            journal.admit(new_case_id(NOW), received("2"), OURS, NOW)
        assert caught.value.reason is Reason.CANNOT_STORE
        assert received("2").key.sop_uid not in str(caught.value)
        # Reading goes on beside a writer.
        assert journal.case(case.id) == case
        other.execute("DROP TABLE history")
        other.execute("COMMIT")
        other.close()
        with pytest.raises(RetryLater):
            journal.admit(new_case_id(NOW), received("2"), OURS, NOW)
        # What cannot be told whole is not told at all.
        assert len(journal.cases()) == 1


def test_a_full_disk_says_cannot_store_and_recovers(tmp_path):
    with Journal.open(tmp_path / "journal.db") as journal:
        case = journal.admit(new_case_id(NOW), received("0"), OURS, NOW)
        limit = "PRAGMA max_page_count = {}"
        with journal._engine.connect() as connection:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()

        def limit_pages(connection, _record, _proxy):
            connection.execute(limit.format(pages))

        def fill():
            for number in range(1, 2000):
                journal.admit(new_case_id(NOW), received(str(number)), OURS, NOW)

        event.listen(journal._engine, "checkout", limit_pages)
        with pytest.raises(RetryLater, match="full"):
            fill()
        event.remove(journal._engine, "checkout", limit_pages)
        assert journal.case(case.id) == case
        event.listen(
            journal._engine,
            "checkout",
            lambda connection, _record, _proxy: connection.execute(limit.format(2**30)),
        )
        journal.admit(new_case_id(NOW), received("again"), OURS, NOW)


def test_what_passes_by_itself_is_no_wrong_configuration(tmp_path, monkeypatch):
    file = tmp_path / "journal.db"
    Journal.open(file).close()
    monkeypatch.setattr(store, "BUSY_S", 0.05)
    with closing(sqlite3.connect(file)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(RetryLater, match="locked"):
            Journal.open(file)
        other.rollback()

    def full(_file):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(store, "create_private", full)
        with pytest.raises(RetryLater, match="No space left"):
            Journal.open(file)
    Journal.open(file).close()


def test_a_journal_moves_with_its_spool(tmp_path):
    desk = open_desk(tmp_path / "old")
    with desk.journal:
        desk.admit()
        desk.report(desk.claim(), "pacs")
    (tmp_path / "old").rename(tmp_path / "new")
    desk = open_desk(tmp_path / "new")
    with desk.journal:
        for delivery in desk.journal.due_deliveries("pacs", NOW, 9):
            assert delivery.result.path.is_relative_to(tmp_path / "new")
            assert delivery.result.path.is_file()


# opening


def test_what_cannot_be_opened_is_said_with_file_key_and_remedy(tmp_path):
    garbage = tmp_path / "garbage.db"
    garbage.write_bytes(b"this is no database, " * 500)
    folder = tmp_path / "folder.db"
    folder.mkdir()
    below_a_file = garbage / "journal.db"
    for where in (garbage, folder, below_a_file):
        with pytest.raises(BadConfig) as caught:
            Journal.open(where)
        assert caught.value.key == "node.data"
        assert str(where) == caught.value.file
        assert caught.value.remedy
    for url in ("no url", "nosuchdatabase://x/y"):
        with pytest.raises(BadConfig):
            Journal.open(url, tmp_path)


def test_a_torn_database_is_refused_at_open(tmp_path):
    file = tmp_path / "journal.db"
    Journal.open(file).close()
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(BadConfig):
        Journal.open(file)


def test_a_journal_of_a_newer_program_is_left_alone(tmp_path):
    file = tmp_path / "journal.db"
    Journal.open(file).close()
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    with pytest.raises(BadConfig, match="newer"):
        Journal.open(file)


def test_an_old_database_is_upgraded_and_opening_again_changes_nothing(tmp_path):
    file = tmp_path / "journal.db"
    connection = sqlite3.connect(file)
    connection.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) PRIMARY KEY)")
    connection.commit()
    connection.close()
    for _ in range(2):
        with Journal.open(file) as journal:
            journal.count("opened", NOW)
    with Journal.open(file) as journal:
        assert journal.counters() == {"opened": 2}


def test_a_migration_that_was_cut_short_is_done_again(tmp_path):
    file = tmp_path / "journal.db"
    code = """
import os, sys
from pathlib import Path
from alembic.operations import Operations
from covidnet_node.journal.journal import Journal
def die(*_arguments, **_more): os._exit(9)
Operations.create_index = die
import alembic.op
alembic.op.create_index = die
Journal.open(Path(sys.argv[1]))
"""
    with child(code, str(file)) as process:
        process.communicate(timeout=60)
    assert process.returncode == 9
    with Journal.open(file) as journal:
        journal.count("opened", NOW)


def test_the_migrations_make_the_tables_that_the_code_knows(tmp_path):
    file = tmp_path / "journal.db"
    Journal.open(file).close()
    engine = create_engine(f"sqlite:///{file}")
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
    engine.dispose()


def test_a_url_opens_the_same_journal(tmp_path):
    with Journal.open(tmp_path / "journal.db") as journal:
        journal.count("x", NOW)
    with Journal.open(f"sqlite:///{tmp_path / 'journal.db'}", tmp_path / "spool") as journal:
        assert journal.counters() == {"x": 1}
        assert journal.claim("node/1", 1, LEASE, NOW) == ()
