"""The worker when disk and journal fail it: no case is lost, parked or blamed for that."""

import hashlib
import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
import torch

from covidnet_node.case import Algorithm, Claim, Outcome, Reason, Received, ResultKind, State
from covidnet_node.config import Analyze, Config
from covidnet_node.errors import RetryLater
from covidnet_node.journal.journal import Journal
from covidnet_node.journal.spool import Spool
from covidnet_node.phantom.film import phantom_dataset
from covidnet_node.service import analyzing
from covidnet_node.service.analyzing import Inbox, work_until
from covidnet_node.service.answer import Answerer
from covidnet_node.service.medicine import Medicine, open_medicine
from tests.journal_kit import LEASE, NOW, OURS, keep

CASE_ID = "20260101T000000-0123456789ab"
CORES = os.cpu_count() or 2
FULL = RetryLater(Reason.NO_SPACE, "spool: No space left on device")
ALGORITHM = Algorithm("test", "1", "0" * 64, 0.5, "none")
ONE_CRASH = Config.model_validate({"analyze": {"max_crashes": 1}})


class FullSpool(Spool):
    """A spool that has no room for results while `full`."""

    full = True

    def write_result(self, case_id: str, kind: ResultKind, data: bytes, number: int = 1) -> Path:
        if self.full:
            raise FULL
        return super().write_result(case_id, kind, data, number)


class FullJournal(Journal):
    """A journal that cannot write down a retry while `full`, as on a full disk."""

    full = False

    def retry(
        self, claim: Claim, error: str, due_at: datetime, now: datetime, *, counted: bool = True
    ) -> None:
        if self.full:
            raise RetryLater(Reason.CANNOT_STORE, "journal: database or disk is full")
        super().retry(claim, error, due_at, now, counted=counted)


@pytest.fixture
def spool(tmp_path: Path) -> FullSpool:
    return FullSpool(tmp_path / "spool")


@pytest.fixture
def journal(tmp_path: Path, spool: FullSpool) -> Iterator[FullJournal]:
    """With one admitted case that has taken down its last worker."""
    with FullJournal.open(tmp_path / "journal.db") as journal:
        image = keep(spool, CASE_ID, phantom_dataset(1, rows=128, columns=128))
        journal.admit(CASE_ID, image, OURS, NOW)
        journal.claim("earlier", 1, LEASE, NOW)
        journal.release("earlier", NOW, crashed=True)
        yield journal


@pytest.fixture
def answerer(journal: FullJournal, spool: FullSpool) -> Answerer:
    medicine = Medicine(networks=None, algorithm=ALGORITHM)  # type: ignore[arg-type]
    return Answerer(ONE_CRASH, journal, spool, medicine, clock=lambda: NOW)


def test_a_report_without_room_waits_for_it(
    journal: FullJournal, spool: FullSpool, answerer: Answerer
) -> None:
    (claim,) = journal.claim("worker", 1, LEASE, NOW)
    answerer.answer(claim)
    case = journal.case(CASE_ID)
    assert case.state is State.ADMITTED
    spool.full = False
    (claim,) = journal.claim("worker", 1, LEASE, journal.pause(CASE_ID).due_at)
    answerer.answer(claim)
    case = journal.case(CASE_ID)
    assert (case.state, case.outcome) == (State.PARKED, Outcome.NOT_ANALYZED)


def test_a_file_that_is_gone_is_parked_at_last(journal: FullJournal, answerer: Answerer) -> None:
    answerer.spool.drop(CASE_ID)
    (claim,) = journal.claim("worker", 1, LEASE, NOW)
    answerer.answer(claim)
    case = journal.case(CASE_ID)
    assert (case.state, case.outcome) == (State.PARKED, None)


def test_a_case_discarded_while_its_disk_is_full_is_let_go(
    journal: FullJournal, answerer: Answerer
) -> None:
    (claim,) = journal.claim("worker", 1, LEASE, NOW)
    journal.discard(CASE_ID, NOW, "a test")
    answerer.answer(claim)
    assert journal.case(CASE_ID).state is State.DONE


def test_a_worker_outlives_a_journal_that_cannot_be_written(
    journal: FullJournal, answerer: Answerer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(analyzing, "clock", lambda: NOW)
    said: list[str] = []
    monkeypatch.setattr(analyzing, "tell", said.append)
    inbox = Patient(journal, answerer)
    journal.full = True
    work_until(journal, answerer, "worker", ONE_CRASH, inbox)
    case = journal.case(CASE_ID)
    assert (case.state, case.outcome) == (State.PARKED, Outcome.NOT_ANALYZED)
    assert case.crashes == 1
    assert "waiting" in said


class Patient(Inbox):
    """Waits twice: at the first time the disk is emptied, at the second the worker stops."""

    def __init__(self, journal: FullJournal, answerer: Answerer) -> None:
        super().__init__()
        self._journal = journal
        self._answerer = answerer

    def wait(self, seconds: float) -> None:
        assert seconds > 0
        if not self._journal.full:
            self.stopping.set()
        self._journal.full = False
        self._answerer.spool.full = False  # type: ignore[attr-defined]


@pytest.mark.parametrize(("wanted", "used"), [(3, 3), (0, max(1, CORES - 1))])
def test_a_worker_takes_as_many_threads_as_configured(wanted: int, used: int) -> None:
    before = torch.get_num_threads()
    try:
        open_medicine(Analyze(threads=wanted), "cpu")
        assert torch.get_num_threads() == used
    finally:
        torch.set_num_threads(before)


def test_a_worker_that_lost_its_case_does_not_overwrite_the_answer_of_another(
    journal: FullJournal, spool: FullSpool, answerer: Answerer
) -> None:
    spool.full = False
    (late,) = journal.claim("late", 1, LEASE, NOW)
    journal.release_expired(NOW + LEASE)
    (claim,) = journal.claim("other", 1, LEASE, NOW + LEASE)
    answerer.answer(claim)
    answerer.answer(late)
    (result,) = journal.results(CASE_ID)
    assert hashlib.sha256(result.path.read_bytes()).hexdigest() == result.sha256


def test_a_header_that_only_the_listener_could_read_is_answered(tmp_path: Path) -> None:
    """Private values of 5 MB, each short enough to be read: more than the worker reads of them."""
    spool, dataset = Spool(tmp_path / "spool"), phantom_dataset(1, rows=128, columns=128)
    block = dataset.private_block(0x0019, "RAW", create=True)
    for number in range(90):
        block.add_new(number, "OB", bytes(60_000))
    image = keep(spool, CASE_ID, dataset)
    medicine = Medicine(networks=None, algorithm=ALGORITHM)  # type: ignore[arg-type]
    with Journal.open(tmp_path / "journal.db") as journal:
        journal.admit(CASE_ID, image, OURS, NOW)
        (claim,) = journal.claim("worker", 1, LEASE, NOW)
        Answerer(Config(), journal, spool, medicine, clock=lambda: NOW).answer(claim)
        case = journal.case(CASE_ID)
        assert (case.outcome, case.reason) == (Outcome.NOT_ANALYZED, Reason.UNDECODABLE)
        assert ResultKind.REPORT in {each.kind for each in journal.results(CASE_ID)}


@pytest.mark.parametrize("damage", [b"\0", None])
def test_a_damaged_file_is_reported_for_nobody(
    tmp_path: Path, damage: bytes | None, answerer: Answerer, journal: FullJournal, spool: FullSpool
) -> None:
    source = spool.source(CASE_ID)
    if damage is None:
        source.unlink()
    else:
        whole = bytearray(source.read_bytes())
        whole[-7] ^= 1
        source.write_bytes(whole)
    spool.full = False
    (claim,) = journal.claim("worker", 1, LEASE, NOW)
    answerer.answer(claim)
    assert journal.case(CASE_ID).state is State.PARKED
    assert journal.pause(CASE_ID).park_reason is Reason.FILE_DAMAGED
    assert journal.results(CASE_ID) == ()


def test_a_file_that_the_system_will_never_read_is_parked_at_last(
    answerer: Answerer, journal: FullJournal, spool: FullSpool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cannot(_case_id: str, _received: Received) -> bool:
        raise RetryLater(Reason.CANNOT_READ, "Input/output error")

    monkeypatch.setattr(spool, "is_as_received", cannot)
    (claim,) = journal.claim("worker", 1, LEASE, NOW)
    answerer.answer(claim)
    assert journal.case(CASE_ID).state is State.PARKED
    assert journal.results(CASE_ID) == ()
