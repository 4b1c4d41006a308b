"""What no honest sender would send, and real files as they are: a verdict, never a crash."""

import socket
import struct
import zlib
from contextlib import suppress

import pytest
from pydicom.dataset import Dataset

from covidnet_node.case import State
from tests.raw_client import (
    ABORT,
    BIG,
    CR,
    CT,
    DEFLATED,
    EXPLICIT,
    IMPLICIT,
    LAST,
    SC,
    VERIFICATION,
    RawClient,
    body_of,
    request_pdu,
)
from tests.receive_kit import PATIENCE, counted, encoded, image, send

# What cannot be understood


@pytest.mark.parametrize(
    ("keyword", "value", "status"),
    [
        ("StudyInstanceUID", None, 0xC000),
        ("SeriesInstanceUID", "", 0xC000),
        ("StudyInstanceUID", "../../../etc/passwd", 0xC000),
        ("SeriesInstanceUID", "1." + "2" * 63, 0xC000),
        ("StudyInstanceUID", "1.2.\u0663", 0xC000),
        ("SOPInstanceUID", "1.2.3.4", 0xA900),
        ("SOPClassUID", CT, 0xA900),
    ],
)
def test_identity_must_be_whole_and_match_the_command(site, keyword, value, status):
    dataset = image()
    instance = dataset.SOPInstanceUID
    spoiled = encoded_with(dataset, keyword, value)
    with site.client() as client:
        assert client.store(CR, instance, spoiled) == status
        assert client.store(CR, instance, encoded(dataset)) == 0
    assert len(site.journal.cases()) == 1
    reason = "bad_uid" if status == 0xC000 else "uid_mismatch"
    assert any(what == reason for what, _ in site.rejected())


def encoded_with(dataset: Dataset, keyword: str, value: str | None) -> bytes:
    """Encode with an identifier that pydicom would not write."""
    good = str(dataset[keyword].value)
    text = (value or "").encode()
    text += b"\0" * (len(text) % 2)
    data = encoded(dataset)
    padded = good.encode() + b"\0" * (len(good) % 2)
    tag = struct.pack("<HH", dataset[keyword].tag.group, dataset[keyword].tag.element) + b"UI"
    old = tag + struct.pack("<H", len(padded)) + padded
    assert old in data
    return data.replace(old, b"" if value is None else tag + struct.pack("<H", len(text)) + text)


def test_class_of_the_command_must_be_its_context(site):
    with site.client((CR, (EXPLICIT,)), (SC, (EXPLICIT,))) as client:
        assert client.store(SC, "1.2.3", encoded(image(SOPClassUID=SC)), 1) == 0xA900
        assert client.store(VERIFICATION, "1.2.3", b"", 1) is None
    assert (site.journal.cases(), site.files()) == ((), [])


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
@pytest.mark.parametrize("instance", ["1.2..3", "hello", "1", "../../x"])
def test_hostile_instance_in_the_command(site, instance):
    with site.client() as client:
        assert client.store(CR, instance, encoded(image())) == 0xC000
    assert (site.journal.cases(), site.files()) == ((), [])


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
def test_leading_zeros_come_from_real_devices_and_are_taken(site):
    dataset = image()
    with site.client() as client:
        spoiled = encoded_with(dataset, "StudyInstanceUID", "1.2.03")
        assert client.store(CR, dataset.SOPInstanceUID, spoiled) == 0
    assert site.journal.cases()[0].received.key.study_uid == "1.2.03"


@pytest.mark.filterwarnings("ignore:The value length")
def test_over_long_instance_in_the_command_aborts(site):
    with site.client() as client:
        client.command(CR, "1." + "2" * 80)
        assert client.status() is None
    assert send(site, image()) == 0


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("data", [b"", b"\0", b"not DICOM at all " * 20, b"\xff" * 5000])
@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, BIG, DEFLATED])
def test_garbage_is_not_understood(site, data, syntax):
    with site.client((CR, (syntax,))) as client:
        assert client.store(CR, "1.2.3", data) == 0xC000
        client.release()
    assert (site.journal.cases(), site.files()) == ((), [])


def test_deflated_bomb_is_not_inflated_to_its_end(make_site):
    site = make_site(max_object_mib=2)
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    bomb = packer.compress(encoded(image(PixelData=None)))
    zeros = struct.pack("<HH2sHL", 0x0029, 0x1010, b"OB", 0, 0x7FFFFFFE) + bytes(16 << 20)
    bomb += packer.compress(zeros) + b"".join(packer.compress(bytes(16 << 20)) for _ in range(5))
    bomb += packer.flush()
    assert len(bomb) < 2 << 20
    with site.client((CR, (DEFLATED,))) as client:
        assert client.store(CR, "1.2.3", bomb) in {0xC000, 0xA900}
    assert site.files() == []


# What is too large


def test_oversize_object_is_discarded_and_answered(site):
    dataset = image(PixelData=bytes(1_200_000))
    with site.client() as client:
        assert client.store(CR, dataset.SOPInstanceUID, encoded(dataset)) == 0xA700
        small = image()
        assert client.store(CR, small.SOPInstanceUID, encoded(small)) == 0
    assert len(site.files()) == 1
    assert any(what == "too_large" for what, _ in site.rejected())


def test_endless_object_is_aborted(site):
    with site.client() as client:
        client.command(CR, "1.2.3")
        with pytest.raises(OSError, match=r"."):  # noqa: PT012 - broken once the node hangs up
            for _ in range(1_000_000):  # what comes before it does is thrown away, at GB a second
                client.fragment(bytes(60_000), 0)
    assert send(site, image()) == 0
    assert len(site.files()) == 1


# Below the messages


@pytest.mark.parametrize("length", [64 * 1024 + 1, 0x7FFFFFFF, 0xFFFFFFFF])
def test_huge_pdu_before_acceptance_closes_the_connection(site, length):
    with RawClient(site.address) as client:
        client.send(struct.pack(">BBL", 1, 0, length))
        assert client.receive()[0] in {0, ABORT}


def test_huge_pdu_after_acceptance_closes_the_connection(site):
    with site.client() as client:
        client.send(struct.pack(">BBL", 4, 0, site.config.receive.max_pdu_bytes + 1))
        assert client.receive()[0] in {0, ABORT}
    assert send(site, image()) == 0


@pytest.mark.parametrize(
    "hostile",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        bytes(100),
        request_pdu([(CR, (EXPLICIT,))])[:40],
        struct.pack(">BBL", 4, 0, 4) + b"\0\0\0\0",
        struct.pack(">BBL", 1, 0, 4) + b"\0\0\0\0",
        b"",
    ],
)
def test_nonsense_does_not_disturb_others(site, hostile):
    with RawClient(site.address) as client:
        client.send(hostile)
        with suppress(OSError):  # the node may have hung up already
            client.socket.shutdown(socket.SHUT_WR)
        assert client.receive()[0] in {0, ABORT}
    assert send(site, image()) == 0


@pytest.mark.parametrize(
    ("data", "control", "context"),
    [
        (b"nonsense", 3, 1),
        (b"", 3, 1),
        (bytes(65_000), 1, 1),
        (b"data without command", LAST, 1),
        (b"unknown context", 3, 99),
    ],
)
def test_malformed_messages_end_the_association_only(site, data, control, context):
    with site.client() as client:
        client.fragment(data, control, context)
        if control == LAST or len(data) > 60_000:
            client.fragment(data, control, context)
        with suppress(OSError):
            client.socket.shutdown(socket.SHUT_WR)
        assert client.receive()[0] in {0, ABORT}
    assert send(site, image()) == 0


def test_requests_ahead_of_answers_are_bounded(site):
    with site.client() as client:
        data = encoded(image(BodyPartExamined="FOOT"))
        with suppress(OSError):
            for _ in range(500):
                client.command(CR, "1.2.3")
                client.data(data)
        answers = [client.status()]
        while answers[-1] is not None:
            answers.append(client.status())
        assert len(answers) < 500
    site.receiver.stop(PATIENCE)
    assert site.files() == []


# Real files


@pytest.mark.shared
@pytest.mark.filterwarnings("ignore")
def test_every_real_file_is_rejected_refused_or_admitted(make_site, shared):
    site = make_site(max_object_mib=16)
    for path in sorted((shared / "dicom").glob("*.dcm")):
        sop_class, instance, syntax, data = body_of(path)
        before = (len(site.journal.cases()), sum(row.count for row in site.journal.rejections()))
        ignored = counted(site, "own_results_ignored")
        with site.client((sop_class, (syntax,))) as client:
            if client.results[1] == 0:
                status = client.store(sop_class, instance, data)
                assert status in {0, 0xC000, 0xA900}, path.name
            client.release()
        after = (len(site.journal.cases()), sum(row.count for row in site.journal.rejections()))
        noticed = after != before or counted(site, "own_results_ignored") > ignored
        assert noticed or status == 0, path.name
    states = {case.state for case in site.journal.cases()}
    assert states == {State.ADMITTED, State.REFUSED}
