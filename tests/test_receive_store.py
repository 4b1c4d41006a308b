"""What the receiver answers to an image over real sockets, and what it then keeps."""

import os
import shutil
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE

from covidnet_node.case import Reason, State
from covidnet_node.intended_use import MANUFACTURER, PRODUCT
from covidnet_node.receive.contexts import TRANSFER_SYNTAXES
from tests.conftest import need_program
from tests.raw_client import (
    CR,
    EXPLICIT,
    SC,
    VERIFICATION,
)
from tests.receive_kit import PATIENCE, counted, encoded, image, send

PIXEL_DATA = struct.pack("<HH2s", 0x7FE0, 0x0010, b"OB")

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
    "before",
    [
        struct.pack("<HH2sHL", 0x7FE0, 0x0000, b"UL", 4, 90_012),
        struct.pack("<HH2sHLQ", 0x7FE0, 0x0001, b"OV", 0, 8, 0)
        + struct.pack("<HH2sHLQ", 0x7FE0, 0x0002, b"OV", 0, 8, 90_000),
    ],
    ids=["group length", "extended offset table"],
)
def test_pixels_are_found_behind_what_may_precede_them(site, before):
    dataset = image()
    header, pixels = encoded(dataset).split(PIXEL_DATA)
    with site.client() as client:
        data = header + before + PIXEL_DATA + pixels
        assert client.store(CR, dataset.SOPInstanceUID, data) == 0
    assert [case.state for case in site.journal.cases()] == [State.ADMITTED]


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


def test_an_image_that_is_sent_again_mends_its_damaged_file(site):
    dataset = image()
    assert send(site, dataset) == 0
    (case,) = site.journal.cases()
    source = site.spool.source(case.id)
    whole = source.read_bytes()
    # Sent again while the file is sound: it stays a duplicate.
    assert send(site, dataset) == 0
    source.write_bytes(whole[:-1])
    (claim,) = site.journal.claim("worker", 1, timedelta(minutes=1), datetime.now(UTC))
    site.journal.park(claim, Reason.FILE_DAMAGED, "a test", datetime.now(UTC))
    assert send(site, dataset) == 0
    assert source.read_bytes() == whole
    assert [(each.id, each.state) for each in site.journal.cases()] == [(case.id, State.ADMITTED)]


def test_an_image_whose_damaged_file_went_by_age_is_taken_up_again(site):
    dataset, now = image(), datetime.now(UTC)
    assert send(site, dataset) == 0
    (case,) = site.journal.cases()
    (claim,) = site.journal.claim("worker", 1, timedelta(minutes=1), now)
    site.journal.park(claim, Reason.FILE_DAMAGED, "a test", now)
    site.spool.drop(case.id)
    site.journal.forgotten(case.id, now)
    assert send(site, dataset) == 0
    assert len(site.files()) == 1
    assert [(each.id, each.state) for each in site.journal.cases()] == [(case.id, State.ADMITTED)]
