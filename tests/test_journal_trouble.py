"""A journal that is locked or damaged at the start: one clear sentence, and what to do."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from covidnet_node.check import check_node
from covidnet_node.config import Config
from covidnet_node.errors import BadConfig, RetryLater
from covidnet_node.journal import examine as room
from covidnet_node.journal.examine import examine
from covidnet_node.journal.journal import Journal
from covidnet_node.service import run
from tests.journal_kit import open_desk
from tests.node import NodeProcess

EX_UNAVAILABLE, EX_CONFIG = 69, 78
PAGE = 4096


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """Some hundred cases."""
    desk = open_desk(tmp_path / "data")
    with desk.journal:
        for number in range(100):
            desk.admit(str(number), str(number))
    return tmp_path / "data" / "journal.db"


@contextmanager
def locked(file: Path) -> Iterator[None]:
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield


def damage(file: Path) -> None:
    """Overwrite some pages in the middle, as a failing disk would."""
    whole = bytearray(file.read_bytes())
    pages = len(whole) // PAGE
    for page in range(pages // 3, pages // 2):
        whole[page * PAGE : page * PAGE + 200] = b"\xa5" * 200
    file.write_bytes(whole)


def test_a_sound_journal_is_said_to_be_so_and_is_not_changed(journal: Path) -> None:
    before = journal.read_bytes()
    found = examine(journal, 10)
    assert (found.sound, found.words) == (True, "sound")
    assert journal.read_bytes() == before
    assert {path.name for path in journal.parent.glob("journal.db*")} == {
        "journal.db",
        "journal.db.opening",
    }
    assert examine(journal.with_name("none.db"), 1).sound
    assert not journal.with_name("none.db").exists()


def test_a_large_journal_does_not_hold_up_the_start(
    journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "_STEPS", 10)
    found = examine(journal, 0.0)
    assert found.sound
    assert "as far as" in found.words


def test_damage_is_found_before_anything_is_written(journal: Path) -> None:
    damage(journal)
    with pytest.raises(BadConfig, match="damaged") as caught:
        run.check_journal(journal)
    assert "backup" in caught.value.remedy
    journal.write_bytes(b"no database at all, " * 1000)
    with pytest.raises(BadConfig, match="damaged"):
        run.check_journal(journal)


def test_a_locked_journal_is_not_now(journal: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "JOURNAL_S", 0.1)
    with locked(journal), pytest.raises(RetryLater, match="locked by another program"):
        run.check_journal(journal)
    run.check_journal(journal)


def test_check_says_it_too(journal: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("covidnet_node.check.JOURNAL_S", 0.1)
    config = Config.model_validate(
        {"node": {"data": str(journal.parent)}, "receive": {"port": 0}, "http": {"port": 0}}
    )

    def said() -> tuple[bool, str]:
        (finding,) = [each for each in check_node(config) if each.what == "journal"]
        return finding.ok, finding.words

    assert said() == (True, "sound")
    with locked(journal):
        assert "locked" in said()[1]
    damage(journal)
    assert not said()[0]
    assert "restore" in said()[1]


def test_the_node_itself_ends_with_one_sentence(tmp_path: Path) -> None:
    with NodeProcess(tmp_path, []) as node:
        node.data.mkdir()
        with Journal.open(node.data / "journal.db"):
            pass
        with locked(node.data / "journal.db"):
            found = node.command("serve")
        assert found.returncode == EX_UNAVAILABLE, found.stderr
        assert "locked by another program" in " ".join(found.stderr.split())
        (node.data / "journal.db").write_bytes(b"garbage" * 4096)
        found = node.command("serve")
        assert found.returncode == EX_CONFIG, found.stderr
        assert "restore" in " ".join(found.stderr.split())
