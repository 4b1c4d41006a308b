"""Delivery: every way a PACS may take, refuse or fail a result, over real sockets."""

import hashlib
import logging
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pynetdicom import build_context
from pynetdicom.presentation import PresentationContext

from covidnet_node.associate import Target, target_of
from covidnet_node.case import Result, ResultKind
from covidnet_node.config import Destination
from covidnet_node.deliver import Fate, Sent, echo, send
from tests.fake_pacs import MUCH, Act, FakePacs

SR = str(uid.Comprehensive3DSRStorage)
SC = str(uid.SecondaryCaptureImageStorage)
EXPLICIT = str(uid.ExplicitVRLittleEndian)
NAME = b"SECRET^PATIENT"


def result(
    folder: Path,
    number: int = 1,
    sop_class: str = SC,
    syntax: str = EXPLICIT,
    data_set: bytes | None = None,
) -> Result:
    """A result file whose data set is any bytes: delivery never looks inside."""
    instance = f"1.2.826.0.1.3680043.10.9999.{number}"
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = instance
    meta.TransferSyntaxUID = syntax
    head = Dataset()
    head.file_meta = meta
    path = folder / f"{number}.dcm"
    head.save_as(path, enforce_file_format=True)
    body = odd_data_set(instance) if data_set is None else data_set
    with path.open("ab") as file:
        file.write(body)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Result(
        kind=ResultKind.HEATMAP,
        sop_class_uid=sop_class,
        sop_instance_uid=instance,
        series_uid="1.2.3",
        transfer_syntax_uid=syntax,
        path=path,
        sha256=digest,
    )


def odd_data_set(instance: str) -> bytes:
    """Legal to carry, not to rewrite: raw Japanese, an unknown VR, a date with dashes."""
    return b"".join(
        (
            element(0x0008, 0x0005, b"CS", b"\\ISO 2022 IR 87"),
            element(0x0008, 0x0018, b"UI", instance.encode()),
            element(0x0010, 0x0010, b"PN", NAME + b"=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B"),
            element(0x0010, 0x0030, b"DA", b"1970-01-01"),
            element(0x0011, 0x0010, b"LO", b"\xff\xfe odd  "),
        )
    )


def element(group: int, number: int, vr: bytes, value: bytes) -> bytes:
    value += b" " * (len(value) % 2)
    head = group.to_bytes(2, "little") + number.to_bytes(2, "little")
    return head + vr + len(value).to_bytes(2, "little") + value


def target(pacs: FakePacs, **changes: object) -> Target:
    plain = Target(pacs.ae_title, "127.0.0.1", pacs.port, 2, 5)
    return replace(plain, **changes)


def fates(sent: list[Sent]) -> list[Fate]:
    return [each.fate for each in sent]


def test_results_arrive_byte_for_byte(tmp_path: Path, fake_pacs: FakePacs) -> None:
    big = odd_data_set("1.2.3") + element(0x0013, 0x0010, b"LO", b"x" * 60_000) * 20
    results = [result(tmp_path, 1), result(tmp_path, 2, data_set=big)]
    sent = list(send(target(fake_pacs), results, "COVIDNET"))
    assert fates(sent) == [Fate.STORED, Fate.STORED]
    arrived = fake_pacs.wait_for(2)
    assert [each.data for each in arrived] == [odd_data_set(results[0].sop_instance_uid), big]
    assert [each.uid for each in arrived] == [each.sop_instance_uid for each in results]


def test_only_needed_contexts_on_one_association(tmp_path: Path, fake_pacs: FakePacs) -> None:
    kinds = [
        (SR, EXPLICIT),
        (SC, EXPLICIT),
        (SC, str(uid.RLELossless)),
        (SR, str(uid.ImplicitVRLittleEndian)),
        (SR, str(uid.DeflatedExplicitVRLittleEndian)),
    ]
    wide = [build_context(each, [syntax for _, syntax in kinds]) for each in (SR, SC)]
    with FakePacs(contexts=wide) as pacs:
        results = [result(tmp_path, i, *kinds[i % 5]) for i in range(60)]
        sent = list(send(target(pacs), results, "COVIDNET"))
        assert {each.fate for each in sent} == {Fate.STORED}
        assert [each.uid for each in pacs.wait_for(60)] == [r.sop_instance_uid for r in results]
        assert pacs.wait_for_end() == ["released"]
        (call,) = pacs.calls
    assert call.proposed == [(sop_class, (syntax,)) for sop_class, syntax in kinds]
    assert (call.calling_ae, call.called_ae) == ("COVIDNET", "FAKEPACS")
    assert {(each.sop_class, each.transfer_syntax) for each in call.arrivals} == set(kinds)


def test_each_is_told_before_the_next_is_sent(tmp_path: Path, fake_pacs: FakePacs) -> None:
    sending = send(target(fake_pacs), [result(tmp_path, 1), result(tmp_path, 2)], "COVIDNET")
    assert next(sending).stored
    assert len(fake_pacs.arrivals) == 1
    sending.close()
    assert fake_pacs.wait_for_end() == ["released"]
    assert len(fake_pacs.arrivals) == 1


def test_nothing_to_send_calls_nobody(fake_pacs: FakePacs) -> None:
    assert list(send(target(fake_pacs), [], "COVIDNET")) == []
    assert fake_pacs.calls == []


@pytest.mark.parametrize("status", [0xB000, 0xB006, 0xB007, 0x0111])
def test_warnings_count_as_stored(tmp_path: Path, fake_pacs: FakePacs, status: int) -> None:
    fake_pacs.script.append(status)
    (sent,) = send(target(fake_pacs), [result(tmp_path)], "COVIDNET")
    assert sent.stored
    assert sent.status == status
    assert sent.detail.startswith(f"{status:04X} ")


@pytest.mark.parametrize(
    ("status", "permanent"),
    [
        (0xA700, False),
        (0xA7FF, False),
        (0x0110, False),
        (0x0122, False),
        (0xB001, False),
        (0x1234, False),
        (0xA900, True),
        (0xC000, True),
        (0xCFFF, True),
    ],
)
def test_other_statuses_fail_and_the_next_is_tried(
    tmp_path: Path, fake_pacs: FakePacs, status: int, permanent: bool
) -> None:
    fake_pacs.script.extend([0, status])
    sent = list(send(target(fake_pacs), [result(tmp_path, i) for i in range(3)], "COVIDNET"))
    assert fates(sent) == [Fate.STORED, Fate.FAILED, Fate.STORED]
    assert (sent[1].status, sent[1].permanent) == (status, permanent)
    assert sent[1].detail.startswith(f"{status:04X} ")


def test_a_late_answer_is_waited_for(tmp_path: Path, fake_pacs: FakePacs) -> None:
    fake_pacs.script.append(Act.LATE)
    (sent,) = send(target(fake_pacs), [result(tmp_path)], "COVIDNET")
    assert sent.stored


def test_a_hanging_peer_is_given_up(tmp_path: Path, fake_pacs: FakePacs) -> None:
    fake_pacs.script.extend([0, Act.HANG])
    results = [result(tmp_path, i) for i in range(4)]
    sent = list(send(target(fake_pacs, response_timeout_s=0.5), results, "COVIDNET"))
    assert fates(sent) == [Fate.STORED, Fate.FAILED, Fate.NOT_TRIED, Fate.NOT_TRIED]
    assert "no valid answer" in sent[1].detail
    assert sent[3].detail == sent[1].detail
    assert not any(each.permanent for each in sent)
    fake_pacs.free.set()
    assert fake_pacs.wait_for_end() == ["aborted"]


def test_a_peer_that_stops_reading_is_given_up(tmp_path: Path, fake_pacs: FakePacs) -> None:
    fake_pacs.script.append(Act.DEAF)
    huge = result(tmp_path, 1, data_set=bytes(24 * 1024 * 1024))
    threads = threading.active_count()
    slow = target(fake_pacs, response_timeout_s=0.5)
    sent = list(send(slow, [huge, result(tmp_path, 2)], "COVIDNET"))
    assert fates(sent) == [Fate.FAILED, Fate.NOT_TRIED]
    fake_pacs.free.set()
    fake_pacs.wait_for_end()
    assert threading.active_count() <= threads + 2


@pytest.mark.parametrize("act", [Act.ABORT, Act.CLOSE])
def test_a_peer_that_breaks_off(tmp_path: Path, fake_pacs: FakePacs, act: Act) -> None:
    fake_pacs.script.extend([0, act])
    sent = list(send(target(fake_pacs), [result(tmp_path, i) for i in range(3)], "COVIDNET"))
    assert fates(sent) == [Fate.STORED, Fate.FAILED, Fate.NOT_TRIED]
    assert ("aborted" if act is Act.ABORT else "lost") in sent[1].detail
    (again,) = send(target(fake_pacs), [result(tmp_path, 2)], "COVIDNET")
    assert again.stored


@pytest.mark.parametrize("act", [Act.FLOOD, Act.CHATTER])
def test_a_peer_that_answers_without_end(tmp_path: Path, fake_pacs: FakePacs, act: Act) -> None:
    """Field report: what a peer says is kept in memory, however much it is."""
    fake_pacs.script.extend([0, act])
    sent = list(send(target(fake_pacs), [result(tmp_path, i) for i in range(3)], "COVIDNET"))
    assert fates(sent) == [Fate.STORED, Fate.FAILED, Fate.NOT_TRIED]
    fake_pacs.wait_for_end()
    assert fake_pacs.said < MUCH
    (again,) = send(target(fake_pacs), [result(tmp_path, 2)], "COVIDNET")
    assert again.stored


def test_the_second_answer_to_one_object_is_not_that_to_the_next(
    tmp_path: Path, fake_pacs: FakePacs
) -> None:
    fake_pacs.script.extend([Act.TWICE, 0xA700, 0])
    sent = list(send(target(fake_pacs), [result(tmp_path, i) for i in range(3)], "COVIDNET"))
    assert fates(sent) == [Fate.STORED, Fate.FAILED, Fate.STORED]
    assert "A700" in sent[1].detail


def test_a_peer_that_goes_away_between_two(tmp_path: Path, fake_pacs: FakePacs) -> None:
    sending = send(target(fake_pacs), [result(tmp_path, i) for i in range(3)], "COVIDNET")
    assert next(sending).stored
    fake_pacs.stop()
    rest = list(sending)
    assert len(rest) == 2
    assert not any(each.stored for each in rest)
    assert rest[1].fate is Fate.NOT_TRIED


@pytest.mark.parametrize(
    ("reject", "permanent", "words"),
    [
        ((1, 1, 7), True, "Called AE title"),
        ((1, 1, 3), True, "Calling AE title"),
        ((1, 1, 1), True, "No reason"),
        ((2, 3, 2), False, "Local limit"),
        ((2, 3, 1), False, "Temporary congestion"),
    ],
)
def test_rejected_associations(
    tmp_path: Path,
    fake_pacs: FakePacs,
    reject: tuple[int, int, int],
    permanent: bool,
    words: str,
) -> None:
    fake_pacs.reject = reject
    sent = list(send(target(fake_pacs), [result(tmp_path, i) for i in range(2)], "COVIDNET"))
    assert fates(sent) == [Fate.NOT_TRIED] * 2
    assert all(words in each.detail for each in sent)
    assert [each.permanent for each in sent] == [permanent] * 2
    assert words in (echo(target(fake_pacs), "COVIDNET") or "")


def test_a_wrong_called_ae_title(tmp_path: Path, fake_pacs: FakePacs) -> None:
    wrong = target(fake_pacs, ae_title="OTHER")
    (sent,) = send(wrong, [result(tmp_path)], "COVIDNET")
    assert (sent.fate, sent.permanent) == (Fate.NOT_TRIED, True)
    assert "Called AE title" in sent.detail


def test_a_full_peer(tmp_path: Path) -> None:
    with FakePacs(most_associations=1) as pacs:
        first = send(target(pacs), [result(tmp_path, 1), result(tmp_path, 2)], "COVIDNET")
        assert next(first).stored
        (second,) = send(target(pacs), [result(tmp_path, 3)], "COVIDNET")
        assert (second.fate, second.permanent) == (Fate.NOT_TRIED, False)
        assert "Local limit" in second.detail
        assert next(first).stored


@pytest.mark.parametrize(
    ("contexts", "words"),
    [
        ([build_context(SR)], "Abstract Syntax Not Supported"),
        ([build_context(SR), build_context(SC, uid.RLELossless)], "Transfer Syntax"),
    ],
)
def test_a_rejected_context_fails_only_its_own(
    tmp_path: Path, contexts: list[PresentationContext], words: str
) -> None:
    with FakePacs(contexts=contexts) as pacs:
        results = [result(tmp_path, 1), result(tmp_path, 2, SR), result(tmp_path, 3)]
        sent = list(send(target(pacs), results, "COVIDNET"))
    assert fates(sent) == [Fate.FAILED, Fate.STORED, Fate.FAILED]
    assert sent[0].permanent
    assert "Secondary Capture" in sent[0].detail
    assert words in sent[0].detail


def test_all_contexts_rejected(tmp_path: Path) -> None:
    with FakePacs(contexts=[]) as pacs:
        sent = list(send(target(pacs), [result(tmp_path, 1), result(tmp_path, 2, SR)], "COVIDNET"))
    assert fates(sent) == [Fate.FAILED, Fate.FAILED]
    assert all(each.permanent and "Not Supported" in each.detail for each in sent)


def test_more_kinds_than_an_association_can_propose(tmp_path: Path, fake_pacs: FakePacs) -> None:
    results = [result(tmp_path, i, f"1.2.826.0.1.3680043.10.9998.{i}") for i in range(129)]
    results.append(result(tmp_path, 200))
    results.insert(0, result(tmp_path, 201))
    sent = list(send(target(fake_pacs), results, "COVIDNET"))
    assert len(sent) == 131
    assert (sent[0].stored, sent[-1].stored) == (True, True)
    assert len(fake_pacs.calls[0].proposed) == 128


def test_a_damaged_or_missing_file_is_not_sent(tmp_path: Path, fake_pacs: FakePacs) -> None:
    damaged, missing, other, text, sound = (result(tmp_path, i) for i in range(5))
    with damaged.path.open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"?")
    missing.path.unlink()
    other = replace(other, sop_instance_uid="1.2.3.4")
    text.path.write_bytes(b"no DICOM")
    text = replace(text, sha256=hashlib.sha256(b"no DICOM").hexdigest())
    sent = list(send(target(fake_pacs), [damaged, missing, other, text, sound], "COVIDNET"))
    assert fates(sent) == [Fate.FAILED] * 4 + [Fate.STORED]
    assert [each.permanent for each in sent] == [True] * 4 + [False]
    assert [each.uid for each in fake_pacs.wait_for(1)] == [sound.sop_instance_uid]


def test_nobody_listens(tmp_path: Path, fake_pacs: FakePacs) -> None:
    fake_pacs.stop()
    sent = list(send(target(fake_pacs), [result(tmp_path, i) for i in range(3)], "COVIDNET"))
    assert fates(sent) == [Fate.NOT_TRIED] * 3
    assert all("no connection" in each.detail for each in sent)
    assert "no connection" in (echo(target(fake_pacs), "COVIDNET") or "")
    fake_pacs.start()
    assert {each.fate for each in send(target(fake_pacs), [result(tmp_path)], "COVIDNET")} == {
        Fate.STORED
    }


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """Takes TCP connections (the system does) and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def test_a_peer_that_takes_the_connection_and_says_nothing(
    tmp_path: Path, silent: socket.socket
) -> None:
    mute = Target("MUTE", "127.0.0.1", silent.getsockname()[1], 0.5, 5)
    (sent,) = send(mute, [result(tmp_path)], "COVIDNET")
    assert sent.fate is Fate.NOT_TRIED
    assert "did not answer the association request within 0.5 s" in sent.detail


def test_a_peer_that_takes_no_connection(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        port = server.getsockname()[1]
        full = [socket.socket() for _ in range(4)]
        try:
            for each in full:
                each.setblocking(False)
                each.connect_ex(("127.0.0.1", port))
            (sent,) = send(Target("FULL", "127.0.0.1", port, 0.5, 5), [result(tmp_path)], "NODE")
        finally:
            for each in full:
                each.close()
    assert sent.fate is Fate.NOT_TRIED
    assert "nothing within 0.5 s" in sent.detail


@pytest.mark.parametrize(
    ("changes", "calling_ae"),
    [
        ({"host": "no-such-host.invalid"}, "COVIDNET"),
        ({"ae_title": ""}, "COVIDNET"),
        ({"ae_title": "LONGER THAN SIXTEEN"}, "COVIDNET"),
        ({"host": ""}, "COVIDNET"),
        ({}, ""),
    ],
)
def test_a_target_that_cannot_be_called(
    tmp_path: Path, fake_pacs: FakePacs, changes: dict[str, str], calling_ae: str
) -> None:
    (sent,) = send(target(fake_pacs, **changes), [result(tmp_path)], calling_ae)
    assert sent.fate is Fate.NOT_TRIED
    assert sent.detail


def test_echo(fake_pacs: FakePacs) -> None:
    assert echo(target(fake_pacs), "COVIDNET") is None
    assert fake_pacs.wait_for_end() == ["released"]
    assert fake_pacs.calls[0].proposed == [("1.2.840.10008.1.1", ("1.2.840.10008.1.2",))]


def test_target_of_a_named_destination() -> None:
    named = Destination(name="pacs", ae_title="PACS", host="10.0.0.1", port=104)
    found = target_of(named, sender_ae="CR1", peer="10.0.0.9")
    assert (found.ae_title, found.host, found.port) == ("PACS", "10.0.0.1", 104)
    assert (found.connect_timeout_s, found.response_timeout_s) == (10, 60)


def test_target_of_the_sender() -> None:
    back = Destination(name="back", back_to_sender=True, port=104, response_timeout_s=7)
    found = target_of(back, sender_ae="CR1", peer="10.0.0.9")
    assert (found.ae_title, found.host, found.port) == ("CR1", "10.0.0.9", 104)
    assert found.response_timeout_s == 7


def test_no_patient_data_in_any_log_line(
    tmp_path: Path, fake_pacs: FakePacs, caplog: pytest.LogCaptureFixture
) -> None:
    fake_pacs.script.extend([0, 0xA700, Act.ABORT])
    with caplog.at_level(logging.DEBUG):
        sent = list(send(target(fake_pacs), [result(tmp_path, i) for i in range(4)], "COVIDNET"))
    assert NAME.decode() not in caplog.text
    assert not any(NAME.decode() in each.detail for each in sent)
