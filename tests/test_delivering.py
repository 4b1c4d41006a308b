"""The delivery loop when the journal fails it, and when there is nothing left to deliver."""

import hashlib
import threading
from collections.abc import Iterator
from datetime import datetime
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread

from covidnet_node.audit.events import Event, Peer, Record, Subject, Transfer, unrecorded
from covidnet_node.case import Delivery, DeliveryState, Outcome, Owed, Reason, Result, ResultKind
from covidnet_node.config import Config
from covidnet_node.errors import RetryLater
from covidnet_node.journal.journal import Journal
from covidnet_node.phantom.film import phantom_dataset
from covidnet_node.service.delivering import Deliverer
from tests.fake_pacs import FakePacs
from tests.fake_web_pacs import FakeWebPacs, Reply
from tests.journal_kit import NOW, Desk, open_desk
from tests.node import wait_until

DEADLINE_S = 10.0
BROKEN = RetryLater(Reason.CANNOT_STORE, "journal: database or disk is full")


class Faulty(Journal):
    """A journal whose reads or notes fail so often; it counts how often it is asked."""

    bad_reads = 0
    bad_notes = 0
    asked = 0
    refused: threading.Event

    def due_deliveries(self, destination: str, now: datetime, limit: int) -> tuple[Delivery, ...]:
        self.asked += 1
        self._fail_reading()
        return super().due_deliveries(destination, now, limit)

    def next_due(self, destination: str) -> datetime | None:
        self._fail_reading()
        return super().next_due(destination)

    def delivered(
        self, delivery_id: int, now: datetime, detail: str = "", *, commit: bool = False
    ) -> None:
        if self.bad_notes:
            self.bad_notes -= 1
            self.refused.set()
            raise BROKEN
        super().delivered(delivery_id, now, detail, commit=commit)

    def _fail_reading(self) -> None:
        if self.bad_reads:
            self.bad_reads -= 1
            raise BROKEN


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """One result is owed to the destination "pacs"."""
    plain = open_desk(tmp_path)
    case = plain.admit()
    data = BytesIO()
    image = phantom_dataset(1, rows=64, columns=64)
    image.save_as(data, enforce_file_format=True)
    result = Result(
        kind=ResultKind.HEATMAP,
        sop_class_uid=str(image.SOPClassUID),
        sop_instance_uid=str(image.SOPInstanceUID),
        series_uid=str(image.SeriesInstanceUID),
        transfer_syntax_uid=str(image.file_meta.TransferSyntaxUID),
        path=plain.spool.write_result(case.id, ResultKind.HEATMAP, data.getvalue()),
        sha256=hashlib.sha256(data.getvalue()).hexdigest(),
    )
    plain.journal.report(plain.claim(), Outcome.ANALYZED, None, "", [Owed(result, ("pacs",))], NOW)
    plain.journal.close()
    with Faulty.open(tmp_path / "journal.db") as journal:
        journal.refused = threading.Event()
        yield Desk(journal, plain.spool)


def web_deliverer(desk: Desk, pacs: FakeWebPacs, first_pause_s: float = 0.05) -> Deliverer:
    target = {"name": "pacs", "url": pacs.url}
    pauses = {"first_pause_s": first_pause_s, "longest_pause_s": 60}
    config = Config.model_validate({"destination": [target], "deliver": pauses})
    return Deliverer(config, config.destination[0], desk.journal)


def deliverer(
    desk: Desk, pacs: FakePacs, first_pause_s: float = 0.05, record: Record = unrecorded
) -> Deliverer:
    target = {"name": "pacs", "ae_title": pacs.ae_title, "host": "127.0.0.1", "port": pacs.port}
    pauses = {"first_pause_s": first_pause_s, "longest_pause_s": 60, "give_up_after_hours": 1e9}
    config = Config.model_validate({"destination": [target], "deliver": pauses})
    return Deliverer(config, config.destination[0], desk.journal, record)


def faulty(desk: Desk) -> Faulty:
    assert isinstance(desk.journal, Faulty)
    return desk.journal


def test_the_loop_outlives_a_journal_that_cannot_be_read(desk: Desk, fake_pacs: FakePacs) -> None:
    faulty(desk).bad_reads = 4
    loop = deliverer(desk, fake_pacs)
    loop.start()
    fake_pacs.wait_for(1, DEADLINE_S)
    loop.stop()
    loop.join(DEADLINE_S)


def test_what_cannot_be_noted_is_not_sent_again_at_once(desk: Desk, fake_pacs: FakePacs) -> None:
    faulty(desk).bad_notes = 1000
    loop = deliverer(desk, fake_pacs, first_pause_s=60)
    loop.start()
    assert faulty(desk).refused.wait(DEADLINE_S)
    loop.join(1.0)
    assert len(fake_pacs.arrivals) == 1
    # The journal can be written again, and the destination answers: it is noted after all.
    faulty(desk).bad_notes = 0
    loop.heartbeat()
    fake_pacs.wait_for_arrivals(2, DEADLINE_S)
    loop.stop()
    loop.join(DEADLINE_S)
    (debt,) = desk.journal.deliveries(desk.journal.cases()[0].id)
    assert debt.state is DeliveryState.DELIVERED


def test_a_destination_that_is_down_and_owed_nothing_is_no_work(
    desk: Desk, fake_pacs: FakePacs
) -> None:
    fake_pacs.stop()
    loop = deliverer(desk, fake_pacs)
    (owed,) = desk.journal.due_deliveries("pacs", NOW, 10)
    loop.start()
    loop.join(0.3)
    desk.journal.give_up(owed.id, "a test", NOW)
    loop.join(0.3)
    before = faulty(desk).asked
    loop.join(1.0)
    assert faulty(desk).asked - before <= 2
    assert loop.is_alive()
    loop.stop()
    loop.join(DEADLINE_S)


def test_a_web_destination_gets_what_it_is_owed(desk: Desk) -> None:
    (owed,) = desk.journal.due_deliveries("pacs", NOW, 10)
    with FakeWebPacs(Reply(500), Reply(503)) as pacs:
        loop = web_deliverer(desk, pacs)
        loop.start()
        case = desk.journal.cases()[0].id
        wait_until(
            lambda: desk.journal.deliveries(case)[0].state is DeliveryState.DELIVERED,
            DEADLINE_S,
            "the delivery",
        )
        loop.stop()
        loop.join(DEADLINE_S)
        assert [each.path for each in pacs.posts] == ["/dicom-web/studies"] * 3
        assert {each.part for each in pacs.posts} == {owed.result.path.read_bytes()}


def test_a_web_destination_that_is_back_is_sent_to_at_once(desk: Desk) -> None:
    with FakeWebPacs() as pacs:
        pass
    loop = web_deliverer(desk, pacs, first_pause_s=60)
    loop.start()
    case = desk.journal.cases()[0].id
    wait_until(lambda: desk.journal.deliveries(case)[0].attempts == 1, DEADLINE_S, "an attempt")
    with pacs:
        loop.heartbeat()
        wait_until(lambda: pacs.posts, DEADLINE_S, "the result")
        loop.stop()
        loop.join(DEADLINE_S)


def test_what_went_out_and_what_was_refused_stands_in_the_audit_trail(
    desk: Desk, fake_pacs: FakePacs
) -> None:
    (owed,) = desk.journal.due_deliveries("pacs", NOW, 10)
    events: list[Event] = []
    loop = deliverer(desk, fake_pacs, record=events.append)
    fake_pacs.script.append(0xA700)
    loop.start()
    fake_pacs.wait_for(1, DEADLINE_S)
    case = desk.journal.cases()[0].id
    wait_until(
        lambda: desk.journal.deliveries(case)[0].state is DeliveryState.DELIVERED,
        DEADLINE_S,
        "the delivery",
    )
    loop.stop()
    loop.join(DEADLINE_S)
    refused, stored = events
    assert isinstance(refused, Transfer)
    assert isinstance(stored, Transfer)
    assert "A700" in refused.failure
    assert (stored.inbound, stored.failure) == (False, "")
    assert stored.peer == Peer(fake_pacs.ae_title, "127.0.0.1")
    header = dcmread(owed.result.path)
    assert stored.subject == Subject(
        patient_id=header.PatientID,
        patient_name=str(header.PatientName),
        study_uid=header.StudyInstanceUID,
        accession_number=header.get("AccessionNumber", ""),
        sop_class_uid=header.SOPClassUID,
        sop_instance_uid=header.SOPInstanceUID,
    )


@pytest.mark.parametrize("allowed", [True, False])
def test_results_go_back_only_to_senders_who_may_come(desk: Desk, allowed: bool) -> None:
    """node.toml may have changed since the image came."""
    (debt,) = desk.journal.due_deliveries("pacs", NOW, 10)
    with FakePacs(ae_title=debt.calling_ae) as pacs:
        target = {"name": "pacs", "back_to_sender": True, "port": pacs.port}
        address = "127.0.0.1" if allowed else "127.0.0.2"
        peer = {"calling_aes": [debt.calling_ae], "addresses": [address]}
        config = Config.model_validate({"destination": [target], "receive": {"peer": [peer]}})
        loop = Deliverer(config, config.destination[0], desk.journal)
        loop.start()
        if allowed:
            pacs.wait_for(1, DEADLINE_S)
        else:
            wait_until(lambda: last_error(desk), DEADLINE_S, "a refusal")
            assert "not among those allowed" in last_error(desk)
            assert pacs.calls == []
        loop.stop()
        loop.join(DEADLINE_S)


def last_error(desk: Desk) -> str:
    errors = desk.journal.last_errors()
    return errors[0].error if errors else ""
