"""The receiver over real sockets: what is stored, refused, ignored, and survives."""

import os
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from hashlib import sha256
from io import BytesIO
from pathlib import Path

import pytest
from conftest import need_program
from pydicom import dcmread, dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid
from pynetdicom import AE
from raw_client import ABORT, ASSOCIATE_AC, ASSOCIATE_RJ, LAST, RawClient, request_pdu

from covidnet_node.case import Reason, State
from covidnet_node.config import Config, Node, Receive
from covidnet_node.errors import BadConfig
from covidnet_node.intended_use import MANUFACTURER, PRODUCT
from covidnet_node.journal.journal import Journal
from covidnet_node.journal.spool import Spool
from covidnet_node.receive.contexts import TRANSFER_SYNTAXES
from covidnet_node.receive.scp import Receiver

VERIFICATION = "1.2.840.10008.1.1"
CR = "1.2.840.10008.5.1.4.1.1.1"
CT = "1.2.840.10008.5.1.4.1.1.2"
SC = "1.2.840.10008.5.1.4.1.1.7"
IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
BIG, DEFLATED = "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"
PATIENCE = 20


class Site:
    """A receiver with a journal and a spool of its own."""

    def __init__(self, folder: Path, **receive: object) -> None:
        settings = {"address": "127.0.0.1", "port": 0, "low_disk_mib": 0, "max_object_mib": 1}
        settings["request_timeout_s"] = 2
        self.config = Config(
            node=Node(data=folder), receive=Receive.model_validate(settings | receive)
        )
        self.journal = Journal.open(folder / "journal.sqlite")
        self.spool = Spool(folder / "spool")
        self.woken = threading.Semaphore(0)
        self.receiver = Receiver(self.config, self.journal, self.spool, admitted=self.woken.release)
        self.receiver.start()

    @property
    def address(self) -> tuple[str, int]:
        return self.receiver.address

    def client(self, *contexts: tuple[str, tuple[str, ...]]) -> RawClient:
        """A client with an association, by default for CR."""
        client = RawClient(self.address)
        assert client.associate(*(contexts or ((CR, (EXPLICIT,)),))) == ASSOCIATE_AC
        return client

    def files(self) -> list[Path]:
        """All files of the spool."""
        return sorted(path for path in self.spool.root.rglob("*") if path.is_file())

    def rejected(self) -> set[tuple[str, str]]:
        return {(row.what, row.detail) for row in self.journal.rejections()}


@pytest.fixture(scope="module")
def empty_journal(tmp_path_factory) -> Path:
    """A journal without cases; copying it is quicker than making it."""
    path = tmp_path_factory.mktemp("journal") / "journal.sqlite"
    Journal.open(path).close()
    return path


@pytest.fixture
def make_site(tmp_path, empty_journal):
    nodes = []

    def make(**receive):
        folder = tmp_path / str(len(nodes))
        folder.mkdir()
        shutil.copy(empty_journal, folder)
        nodes.append(Site(folder, **receive))
        return nodes[-1]

    yield make
    for made in nodes:
        made.receiver.stop(0.2)
        made.journal.close()


@pytest.fixture
def site(make_site):
    return make_site()


def image(**changes: object) -> Dataset:
    """A small adult's chest radiograph."""
    dataset = Dataset()
    plain = {
        "SOPClassUID": CR,
        "SOPInstanceUID": generate_uid(),
        "StudyInstanceUID": generate_uid(),
        "SeriesInstanceUID": generate_uid(),
        "Modality": "CR",
        "BodyPartExamined": "CHEST",
        "PatientName": "Secret^Name",
        "PatientAge": "045Y",
        "ViewPosition": "PA",
        "Rows": 300,
        "Columns": 300,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 8,
        "BitsStored": 8,
        "HighBit": 7,
        "PixelRepresentation": 0,
        "PixelData": os.urandom(300 * 300),
    }
    for keyword, value in (plain | changes).items():
        if value is not None:
            setattr(dataset, keyword, value)
    if "PixelData" in dataset:
        dataset["PixelData"].VR = "OB"
    return dataset


def encoded(dataset: Dataset, syntax: str = EXPLICIT) -> bytes:
    """The data set's bytes as they travel."""
    buffer = DicomBytesIO()
    buffer.is_implicit_VR = syntax == IMPLICIT
    buffer.is_little_endian = syntax != BIG
    if UID(syntax).is_compressed and syntax != DEFLATED:
        dataset["PixelData"].value = encapsulate([dataset.PixelData])
        dataset["PixelData"].is_undefined_length = True
    write_dataset(buffer, dataset)
    if syntax == DEFLATED:
        packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        return packer.compress(buffer.getvalue()) + packer.flush()
    return buffer.getvalue()


def send(site: Site, dataset: Dataset, syntax: str = EXPLICIT) -> int | None:
    """Send one data set on an association of its own."""
    with site.client((dataset.SOPClassUID, (syntax,))) as client:
        data = encoded(dataset, syntax)
        status = client.store(dataset.SOPClassUID, dataset.SOPInstanceUID, data)
        client.release()
    return status


# Answers


def test_echo_is_answered(site):
    entity = AE("SENDER")
    entity.add_requested_context(VERIFICATION)
    association = entity.associate(*site.address, ae_title="COVIDNET")
    assert association.send_c_echo().Status == 0
    association.release()


def test_admitted_image_is_on_disk_and_in_the_journal_before_success(site):
    dataset = image()
    data = encoded(dataset)
    with site.client() as client:
        assert client.max_pdu == site.config.receive.max_pdu_bytes
        assert client.store(CR, dataset.SOPInstanceUID, data) == 0
        (case,) = site.journal.cases()
        assert case.state is State.ADMITTED
        assert case.received.sha256 == sha256(data).hexdigest()
        assert (case.received.calling_ae, case.received.called_ae) == ("SENDER", "COVIDNET")
        assert case.received.peer == "127.0.0.1"
        path = site.spool.source(case.id)
        assert case.received.size == path.stat().st_size
        assert site.files() == [path]
        assert site.woken.acquire(timeout=PATIENCE)
        client.release()
    stored = dcmread(path)
    assert stored.file_meta.TransferSyntaxUID == EXPLICIT
    assert stored.PatientName == "Secret^Name"


@pytest.mark.parametrize("syntax", TRANSFER_SYNTAXES)
def test_bytes_of_every_transfer_syntax_go_to_disk_untouched(site, syntax):
    dataset = image()
    data = encoded(dataset, syntax)
    with site.client((CR, (syntax,))) as client:
        assert client.store(CR, dataset.SOPInstanceUID, data) == 0
    (case,) = site.journal.cases()
    assert case.received.transfer_syntax_uid == syntax
    stored = site.spool.source(case.id).read_bytes()
    assert stored.endswith(data)
    meta = dcmread(BytesIO(stored), specific_tags=["Modality"]).file_meta
    assert meta.TransferSyntaxUID == syntax


def test_uncompressed_is_preferred_and_lossy_comes_last(site):
    entity = AE("SENDER")
    entity.add_requested_context(CR, list(reversed(TRANSFER_SYNTAXES)))
    association = entity.associate(*site.address, ae_title="COVIDNET")
    assert association.accepted_contexts[0].transfer_syntax == [ExplicitVRLittleEndian]
    association.release()


@pytest.mark.parametrize(
    ("setting", "status"),
    [("success", 0), ("cannot_understand", 0xC000), ("out_of_resources", 0xA700)],
)
def test_refused_image_leaves_a_row_and_no_pixels(make_site, setting, status):
    site = make_site(refused_status=setting)
    assert send(site, image(BodyPartExamined="FOOT")) == status
    (case,) = site.journal.cases()
    assert (case.state, case.reason) == (State.REFUSED, Reason.NO_RULE)
    assert site.files() == []


def test_image_without_pixel_data_is_refused(site):
    assert send(site, image(PixelData=None)) == 0
    assert [case.reason for case in site.journal.cases()] == [Reason.NO_PIXELS]


@pytest.mark.parametrize(
    "sop_class",
    [
        "1.2.840.10008.5.1.4.1.1.88.34",
        "1.2.840.10008.5.1.4.1.1.88.33",
        "1.2.840.10008.5.1.4.1.1.88.22",
        "1.2.840.10008.5.1.4.1.1.66.4",
        "1.2.840.10008.5.1.4.1.1.11.1",
    ],
)
def test_results_that_come_back_are_ignored(site, sop_class):
    assert send(site, image(SOPClassUID=sop_class)) == 0
    assert (site.journal.cases(), site.files()) == ((), [])
    assert counted(site, "own_results_ignored") == 1


def test_our_heatmap_is_ignored_another_secondary_capture_is_refused(site):
    own = image(SOPClassUID=SC, Manufacturer=MANUFACTURER, ManufacturerModelName=PRODUCT)
    assert send(site, own) == 0
    assert (site.journal.cases(), site.files()) == ((), [])
    assert counted(site, "own_results_ignored") == 1
    assert send(site, image(SOPClassUID=SC)) == 0
    assert [case.reason for case in site.journal.cases()] == [Reason.SECONDARY_CAPTURE]


def counted(site: Site, name: str) -> int:
    return dict(site.journal.counters()).get(name, 0)


# Duplicates


def test_same_bytes_again_are_success_without_new_work(site):
    dataset = image()
    assert [send(site, dataset), send(site, dataset)] == [0, 0]
    assert len(site.journal.cases()) == 1
    assert len(site.files()) == 1


def test_same_bytes_from_many_associations_at_once_are_one_case(site):
    dataset = image()
    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(lambda _: send(site, dataset), range(8)))
    assert statuses == [0] * 8
    assert len(site.journal.cases()) == 1
    assert len(site.files()) == 1


def test_other_bytes_under_a_known_uid_are_another_case(site):
    dataset = image()
    send(site, dataset)
    dataset.PatientName = "Corrected^Name"
    assert send(site, dataset) == 0
    assert [case.state for case in site.journal.cases()] == [State.ADMITTED] * 2
    assert len(site.files()) == 2


# What cannot be understood


@pytest.mark.parametrize(
    ("keyword", "value", "status"),
    [
        ("StudyInstanceUID", None, 0xC000),
        ("SeriesInstanceUID", "", 0xC000),
        ("StudyInstanceUID", "../../../etc/passwd", 0xC000),
        ("SeriesInstanceUID", "1." + "2" * 63, 0xC000),
        ("StudyInstanceUID", "1.2.03", 0xC000),
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
@pytest.mark.parametrize("instance", ["1.2.03", "1.2..3", "hello", "1", "../../x"])
def test_hostile_instance_in_the_command(site, instance):
    with site.client() as client:
        assert client.store(CR, instance, encoded(image())) == 0xC000
    assert (site.journal.cases(), site.files()) == ((), [])


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


# What cannot be stored


def test_low_disk_answers_out_of_resources(make_site):
    site = make_site(low_disk_mib=2**40)
    assert send(site, image()) == 0xA700
    assert (site.journal.cases(), site.files()) == ((), [])
    assert any(what == "no_space" for what, _ in site.rejected())


def test_spool_that_cannot_be_written_answers_out_of_resources(site):
    shutil.rmtree(site.spool.root)
    assert send(site, image()) == 0xA700
    assert site.journal.cases() == ()


def test_disk_that_fills_up_answers_out_of_resources(site, monkeypatch, tmp_path):
    # Every write to this device fails with "No space left on device".
    full = Path("/dev/full")
    monkeypatch.setattr(site.spool, "incoming", lambda: (tmp_path / "part", full.open("wb")))
    assert send(site, image()) == 0xA700
    assert any(what == "no_space" for what, _ in site.rejected())
    assert (site.journal.cases(), site.files()) == ((), [])


def test_journal_that_is_down_answers_out_of_resources(site, monkeypatch):
    (site.config.node.data / "journal.sqlite").rename(site.config.node.data / "away")
    site.journal.close()
    assert send(site, image()) == 0xA700
    assert site.woken.acquire(blocking=False) is False


def test_unexpected_error_is_never_a_success(site, monkeypatch):
    def fail(*_args: object) -> None:
        raise KeyError("Secret^Name")

    monkeypatch.setattr(site.journal, "admit", fail)
    assert send(site, image()) == 0xA700


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
            for _ in range(10_000):
                client.fragment(bytes(60_000), 0)
    assert send(site, image()) == 0
    assert len(site.files()) == 1


# Associations


@pytest.mark.parametrize(
    ("settings", "titles", "accepted", "what"),
    [
        ({}, {"called": "OTHER"}, False, "called_ae"),
        ({"require_called_ae": False}, {"called": "OTHER"}, True, None),
        ({"calling_aes": ("ROOM1",)}, {"calling": "ROOM2"}, False, "calling_ae"),
        ({"calling_aes": ("ROOM1",)}, {"calling": "ROOM1"}, True, None),
    ],
)
def test_ae_titles_are_checked_and_counted(make_site, settings, titles, accepted, what):
    site = make_site(**settings)
    with RawClient(site.address) as client:
        kind = client.associate((CR, (EXPLICIT,)), **titles)
    assert kind == (ASSOCIATE_AC if accepted else ASSOCIATE_RJ)
    site.receiver.stop(PATIENCE)
    assert {name for name, _ in site.rejected()} == ({what} if what else set())


def test_rejected_contexts_are_counted_and_the_others_used(site):
    dataset = image()
    with site.client((CT, (EXPLICIT,)), (CR, ("1.2.3.4",)), (CR, (EXPLICIT,))) as client:
        assert client.results == {1: 3, 3: 4, 5: 0}
        assert client.store(CR, dataset.SOPInstanceUID, encoded(dataset), 5) == 0
    assert site.rejected() == {("abstract_syntax", CT), ("transfer_syntax", CR)}


def test_classes_can_be_added_and_taken_away(make_site):
    private = "1.2.826.0.1.3680043.99.1"
    site = make_site(accept_classes=(CT, private), refuse_classes=(SC,))
    assert send(site, image(SOPClassUID=CT)) == 0
    assert send(site, image(SOPClassUID=private)) == 0
    assert [case.reason for case in site.journal.cases()] == [Reason.NO_RULE] * 2
    with site.client((SC, (EXPLICIT,))) as client:
        assert client.results == {1: 3}


def test_class_of_another_service_is_a_bad_config(make_site):
    with pytest.raises(BadConfig, match=r"receive\.accept_classes"):
        make_site(accept_classes=("1.2.840.10008.5.1.4.1.2.2.1",))


def test_bound_port_is_a_bad_config(site, make_site):
    with pytest.raises(BadConfig, match=r"receive\.port"):
        make_site(port=site.address[1])


def test_aborted_association_leaves_no_file(site):
    dataset = image()
    with site.client() as client:
        client.command(CR, dataset.SOPInstanceUID)
        client.fragment(encoded(dataset)[:50_000], 0)
    site.receiver.stop(PATIENCE)
    assert (site.journal.cases(), site.files()) == ((), [])


def test_silent_clients_hold_no_association(make_site):
    site = make_site(max_associations=2)
    silent = [socket.create_connection(site.address) for _ in range(2)]
    with site.client() as first, site.client() as second:
        for client in (first, second):
            dataset = image()
            assert client.store(CR, dataset.SOPInstanceUID, encoded(dataset)) == 0
    for connection in silent:
        connection.close()


def test_one_association_too_many_is_rejected(make_site):
    site = make_site(max_associations=1)
    with site.client() as first:
        # It is in use for certain once it has been answered.
        assert first.store(CR, "1.2", b"") == 0xC000
        with RawClient(site.address) as second:
            assert second.associate((CR, (EXPLICIT,))) == ASSOCIATE_RJ
        assert ("local_limit", "") in site.rejected()
        first.release()
    assert accepted_in_time(site)


def accepted_in_time(site: Site) -> bool:
    """The slot comes back as soon as the node has noticed that the client is gone."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        with RawClient(site.address) as client:
            if client.associate((CR, (EXPLICIT,))) == ASSOCIATE_AC:
                return True
    return False


def test_silent_client_is_hung_up_on(make_site):
    site = make_site(request_timeout_s=0.3)
    with RawClient(site.address) as client:
        assert client.receive()[0] in {0, ABORT}


def test_silent_association_is_aborted(make_site):
    site = make_site(network_timeout_s=0.3)
    with site.client() as client:
        assert client.receive()[0] in {0, ABORT}
    with site.client() as client:
        # A fragment of which the end never comes.
        client.send(struct.pack(">BBL", 4, 0, 1000) + b"\0")
        assert client.receive()[0] in {0, ABORT}
    site.receiver.stop(PATIENCE)
    assert site.files() == []


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


def test_largest_announced_pdu_is_taken(make_site):
    site = make_site(max_pdu_bytes=100_000)
    dataset = image()
    data = encoded(dataset)
    with site.client() as client:
        client.command(CR, dataset.SOPInstanceUID)
        client.data(data, piece=100_000 - 6)
        assert client.status() == 0


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


def test_stop_lets_the_image_in_hand_finish(site):
    dataset = image()
    data = encoded(dataset)
    with site.client() as client:
        client.command(CR, dataset.SOPInstanceUID)
        client.fragment(data[:10_000], 0)
        stopping = threading.Thread(target=site.receiver.stop, args=(PATIENCE,))
        stopping.start()
        client.data(data[10_000:])
        assert client.status() == 0
        client.release()
    stopping.join(PATIENCE)
    assert not stopping.is_alive()
    assert not site.receiver.listening
    assert len(site.journal.cases()) == 1
    with pytest.raises(ConnectionRefusedError):
        RawClient(site.address)


def test_stop_aborts_what_does_not_finish(site):
    with site.client() as client:
        client.command(CR, "1.2.3")
        client.fragment(b"\0" * 100, 0)
        site.receiver.stop(0.1)
        assert client.receive()[0] in {0, ABORT}
    assert site.files() == []


def test_logs_hold_no_patient_data(site, capsys, caplog):
    send(site, image(PatientID="4711-secret"))
    send(site, image(BodyPartExamined="FOOT", PatientID="4711-secret"))
    shown = capsys.readouterr()
    text = shown.out + shown.err + caplog.text
    assert "admitted" in text
    assert not any(secret in text for secret in ("Secret", "4711"))


# Other senders


def dcmtk(name: str) -> str:
    """The dcmtk program, not pynetdicom's script of the same name beside the interpreter."""
    ours = Path(sys.executable).parent
    folders = [entry for entry in os.environ["PATH"].split(os.pathsep) if Path(entry) != ours]
    found = shutil.which(name, path=os.pathsep.join(folders))
    return found or need_program(f"dcmtk {name}")


@pytest.mark.dcmtk
def test_dcmtk_echoes_and_stores(site, tmp_path):
    host, port = site.address
    dataset = image()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    path = tmp_path / "image.dcm"
    dcmwrite(path, dataset, enforce_file_format=True)
    target = ["-aec", "COVIDNET", host, str(port)]
    subprocess.run([dcmtk("echoscu"), *target], check=True, timeout=30)
    subprocess.run([dcmtk("storescu"), *target, str(path)], check=True, timeout=30)
    assert [case.state for case in site.journal.cases()] == [State.ADMITTED]


def body_of(path: Path) -> tuple[str, str, str, bytes]:
    """SOP class, instance, transfer syntax and data set of any file, as far as told."""
    data = path.read_bytes()
    try:
        header = dcmread(path, force=True, stop_before_pixels=True)
    except Exception:  # noqa: BLE001 - not DICOM: its bytes are sent all the same
        return CR, "1.2.3", EXPLICIT, data
    sop_class = str(header.get("SOPClassUID", "")) or CR
    instance = str(header.get("SOPInstanceUID", "")) or "1.2.3"
    meta = header.file_meta
    syntax = str(meta.get("TransferSyntaxUID", "")) or IMPLICIT
    start = 0
    if data[128:132] == b"DICM":
        length = meta.get("FileMetaInformationGroupLength")
        start = 144 + length if length is not None else 132
    return sop_class, instance, syntax, data[start:]


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
