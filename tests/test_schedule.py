"""What is periodic: files go by age, leases come back, systemd hears of us."""

import os
import socket
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from apscheduler.events import EVENT_JOB_EXECUTED

from covidnet_node.case import Admission, Outcome, Reason, State
from covidnet_node.config import Config, Retention
from covidnet_node.errors import RetryLater
from covidnet_node.journal.journal import Journal
from covidnet_node.journal.spool import Spool
from covidnet_node.service.notify import notify, watchdog_interval
from covidnet_node.service.schedule import (
    apply_retention,
    build_schedule,
    give_up_on_removed,
    recover_leases,
    sweep,
)
from tests.journal_kit import LEASE, NOW, open_desk, received

DAY = timedelta(days=1)


def test_files_of_done_cases_go_by_age_and_rows_stay(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    with Journal.open(tmp_path / "journal.db") as journal:
        path, file = spool.incoming()
        with file:
            file.write(b"pixels")
        case_id = "20260101T000000-0123456789ab"
        spool.keep(path, case_id)
        journal.admit(case_id, received(), Admission(admitted=True, reason=None), NOW)
        (claim,) = journal.claim("worker/", 1, LEASE, NOW)
        journal.park(claim, Reason.TECHNICAL_FAILURE, "a test", NOW)
        retention = Retention(done_days=1, parked_days=10)
        apply_retention(retention, journal, spool, NOW + 9 * DAY)
        assert spool.source(case_id).exists()
        apply_retention(retention, journal, spool, NOW + 11 * DAY)
        assert not spool.source(case_id).exists()
        assert journal.case(case_id).state is State.PARKED
        assert journal.history(case_id)[-1].cause.value == "purged"


def test_one_folder_that_will_not_go_does_not_keep_the_others(tmp_path: Path) -> None:
    desk = open_desk(tmp_path)
    with desk.journal as journal:
        stuck, other = desk.admit("1"), desk.admit("2")
        for _case in (stuck, other):
            journal.park(desk.claim(), Reason.TECHNICAL_FAILURE, "a test", NOW)
        spool = StickySpool(tmp_path / "spool", stuck.id)
        apply_retention(Retention(parked_days=1), journal, spool, NOW + 2 * DAY)
        assert spool.source(stuck.id).exists()
        assert not spool.source(other.id).exists()


class StickySpool(Spool):
    """A spool in which one case cannot be deleted."""

    def __init__(self, root: Path, stuck: str) -> None:
        super().__init__(root)
        self._stuck = stuck

    def drop(self, case_id: str) -> None:
        if case_id == self._stuck:
            raise RetryLater(Reason.CANNOT_STORE, "spool: Operation not permitted")
        super().drop(case_id)


def test_what_was_never_acknowledged_goes_while_the_node_runs(tmp_path: Path) -> None:
    desk = open_desk(tmp_path)
    with desk.journal as journal:
        known = desk.admit()
        temporary, file = desk.spool.incoming()
        file.close()
        unknown = "20260101T000000-0123456789ab"
        desk.spool.keep(temporary, unknown)
        sweep(journal, desk.spool, datetime.now(UTC) + timedelta(hours=1))
        assert desk.spool.source(known.id).exists()
        assert not desk.spool.source(unknown).exists()


def test_the_first_sweep_and_retention_come_at_the_start(tmp_path: Path) -> None:
    desk = open_desk(tmp_path)
    temporary, file = desk.spool.incoming()
    file.close()
    os.utime(temporary, (0, 0))
    with desk.journal as journal:
        schedule = build_schedule(Config(), journal, desk.spool, (), lambda: None)
        ran = threading.Event()
        schedule.add_listener(lambda _event: ran.set(), EVENT_JOB_EXECUTED)
        schedule.start()
        try:
            assert ran.wait(10)
        finally:
            schedule.shutdown()
    assert not temporary.exists()


def test_rows_of_refused_images_go_by_age(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    with Journal.open(tmp_path / "journal.db") as journal:
        refusal = Admission(admitted=False, reason=Reason.NO_RULE)
        journal.refuse("20260101T000000-0123456789ab", received(), refusal, NOW)
        apply_retention(Retention(refused_days=5), journal, spool, NOW + 4 * DAY)
        assert len(journal.cases()) == 1
        apply_retention(Retention(refused_days=5), journal, spool, NOW + 6 * DAY)
        assert journal.cases() == ()


def test_an_expired_lease_is_taken_back(tmp_path: Path) -> None:
    with Journal.open(tmp_path / "journal.db") as journal:
        case_id = "20260101T000000-0123456789ab"
        journal.admit(case_id, received(), Admission(admitted=True, reason=None), NOW)
        journal.claim("elsewhere/", 1, LEASE, NOW)
        recover_leases(journal, NOW + LEASE / 2)
        assert journal.claim("here/", 1, LEASE, NOW + LEASE / 2) == ()
        recover_leases(journal, NOW + 2 * LEASE)
        (claim,) = journal.claim("here/", 1, LEASE, NOW + 2 * LEASE)
        assert claim.case.id == case_id
        assert claim.case.outcome is not Outcome.ANALYZED


def test_what_a_removed_destination_is_owed_is_given_up_in_the_end(tmp_path: Path) -> None:
    desk = open_desk(tmp_path)
    with desk.journal as journal:
        case_id = desk.admit().id
        desk.report(desk.claim(), "kept", "removed")
        kept = {"name": "kept", "ae_title": "PACS", "host": "127.0.0.1", "port": 104}
        config = Config.model_validate({"destination": [kept]})
        desk.deliver("kept")
        patience = config.deliver.give_up_after
        give_up_on_removed(config, journal, NOW + patience / 2)
        assert journal.case(case_id).state is State.REPORTED
        give_up_on_removed(config, journal, NOW + 2 * patience)
        assert journal.case(case_id).state is State.PARKED
        assert journal.pause(case_id).park_reason is Reason.GAVE_UP
        assert journal.discard(case_id, NOW + 2 * patience, "no such PACS").state is State.DONE


def test_systemd_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(address))
        systemd.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", str(address))
        notify("READY=1")
        assert systemd.recv(100) == b"READY=1"
    notify("WATCHDOG=1")  # systemd has gone; we go on
    monkeypatch.delenv("NOTIFY_SOCKET")
    notify("READY=1")


@pytest.mark.parametrize(
    ("microseconds", "seconds"), [("60000000", 30.0), ("", None), ("0", None), ("soon", None)]
)
def test_the_watchdog_is_fed_twice_as_often_as_it_must_be(
    monkeypatch: pytest.MonkeyPatch, microseconds: str, seconds: float | None
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", microseconds)
    assert watchdog_interval() == seconds
