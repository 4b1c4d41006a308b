"""A disk that is really full: a small file system with a file that takes all its room."""

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from covidnet_node.case import Claim, Reason, State
from covidnet_node.config import Config
from covidnet_node.errors import RetryLater
from covidnet_node.journal.case_id import new_case_id
from covidnet_node.journal.journal import Journal
from covidnet_node.journal.spool import Spool
from covidnet_node.phantom.film import phantom_dataset
from covidnet_node.service.answer import Answerer
from tests.journal_kit import LEASE, NOW, OURS, keep, open_desk, received
from tests.raw_client import CR, EXPLICIT, LAST
from tests.receive_kit import Site, encoded, image
from torture.node import mount_small, take_all
from torture.standin import StandIn

MIB = 32


@dataclass
class SmallDisk:
    """Where it is mounted, and the file that fills it."""

    folder: Path

    def fill(self) -> None:
        with (self.folder / "ballast").open("wb") as file:
            take_all(file.fileno())

    def free(self) -> None:
        (self.folder / "ballast").unlink()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    folder = tmp_path / "disk"
    if not mount_small(folder, MIB):
        pytest.skip("a small file system cannot be mounted by this user")
    yield SmallDisk(folder)
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def site(disk: SmallDisk) -> Iterator[Site]:
    site = Site(disk.folder)
    yield site
    site.receiver.stop(0.2)
    site.journal.close()


def test_what_cannot_be_stored_is_answered_a700_and_nothing_of_it_stays(
    site: Site, disk: SmallDisk
) -> None:
    with site.client() as client:
        first, second = image(), image()
        assert client.store(CR, first.SOPInstanceUID, encoded(first)) == 0x0000
        kept = site.files()
        disk.fill()
        assert client.store(CR, second.SOPInstanceUID, encoded(second)) == 0xA700
        assert site.files() == kept
        disk.free()
        # The same association goes on.
        assert client.store(CR, second.SOPInstanceUID, encoded(second)) == 0x0000
    assert len(site.journal.cases()) == 2


def test_a_disk_that_fills_up_in_the_middle_of_an_object(site: Site, disk: SmallDisk) -> None:
    sent = image(Rows=900, Columns=1000, PixelData=bytes(900_000))
    data = encoded(sent)
    with site.client((CR, (EXPLICIT,))) as client:
        client.command(CR, sent.SOPInstanceUID)
        half = len(data) // 2
        client.fragment(data[:half], 0)
        disk.fill()
        client.fragment(data[half:], LAST)
        assert client.status() == 0xA700
        disk.free()
        assert client.store(CR, sent.SOPInstanceUID, data) == 0x0000
    (case,) = site.journal.cases()
    assert site.spool.source(case.id).stat().st_size > len(data)


def test_the_journal_says_so_and_is_whole_afterwards(disk: SmallDisk) -> None:
    desk = open_desk(disk.folder)
    with desk.journal as journal:
        first = desk.admit("first", "first")
        claim = desk.claim()
        disk.fill()
        with pytest.raises(RetryLater) as caught:
            admit_until_full(journal)
        assert caught.value.reason is Reason.CANNOT_STORE
        # Reading goes on.
        assert journal.case(first.id).state is State.ADMITTED
        disk.free()
        desk.report(claim)
        assert journal.case(first.id).state is State.DONE
        with journal._engine.connect() as connection:
            assert connection.exec_driver_sql("PRAGMA integrity_check").scalar_one() == "ok"


def admit_until_full(journal: Journal) -> None:
    """Its log may have room for some rows yet."""
    for number in range(2000):
        journal.admit(new_case_id(NOW), received(str(number), str(number)), OURS, NOW)


def test_a_report_waits_for_room_and_the_image_is_not_blamed(disk: SmallDisk) -> None:
    desk = open_desk(disk.folder)
    config = Config.model_validate({"node": {"data": str(disk.folder)}})
    spool = Spool(disk.folder / "spool")
    with desk.journal as journal:
        case_id = new_case_id(NOW)
        image = keep(spool, case_id, phantom_dataset(1, rows=224, columns=224))
        case = journal.admit(case_id, image, OURS, NOW)
        answerer = Answerer(config, journal, spool, StandIn(), clock=lambda: NOW)
        (claim,) = journal.claim("worker", 1, LEASE, NOW)
        give_the_journal_room(journal, claim)
        disk.fill()
        answerer.answer(claim)
        waiting = journal.case(case.id)
        assert (waiting.state, waiting.attempts, waiting.crashes) == (State.ADMITTED, 0, 0)
        assert {path.name for path in spool.source(case.id).parent.iterdir()} == {"source.dcm"}
        disk.free()
        (claim,) = journal.claim("worker", 1, LEASE, journal.pause(case.id).due_at)
        answerer.answer(claim)
        assert journal.case(case.id).state is State.DONE


def give_the_journal_room(journal: Journal, claim: Claim) -> None:
    """A log that has been long, and is begun again, needs no new pages for a while."""
    for minutes in range(40):
        journal.renew(claim, LEASE, NOW + timedelta(minutes=minutes))
    with journal._engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(RESTART)").all()


def test_a_node_does_not_start_on_a_full_disk_but_may_later(disk: SmallDisk) -> None:
    disk.fill()
    with pytest.raises(RetryLater):
        Journal.open(disk.folder / "journal.db")
    disk.free()
    Journal.open(disk.folder / "journal.db").close()
