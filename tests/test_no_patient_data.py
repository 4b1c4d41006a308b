"""No patient's name, id, birth date or accession number where it does not belong.

A whole node at its most talkative level gets images whose identity cannot be mistaken, some of
which fail in each room; PACS that repeat the name in their error comments; and a listener's share
of garbage. Then everything that the node has written, said or named is searched. The names must be
in the audit trail and in the files of the spool, which is where they belong, and nowhere else.
"""

import json
import os
import socket
import sqlite3
import urllib.error
from collections.abc import Iterator
from copy import deepcopy
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_data_element
from pydicom.tag import Tag
from pynetdicom import AE, AllStoragePresentationContexts, evt

from covidnet_node.phantom.film import phantom_dataset
from tests.fake_web_pacs import FakeWebPacs, Reply
from tests.node import NodeProcess, wait_until
from tests.raw_client import ASSOCIATE_AC, CR, EXPLICIT, RawClient

NAME, BIRTH, PATIENT, ACCESSION = "QXSECRETNAME", "19310217", "QXSECRETID", "QXSECRETACC"
SECRETS = (NAME, "QXSECRET", BIRTH, "1931-02-17", "qxsecret")
STUDY_ROOT = "1.2.826.0.1.77665544332211"
"""Of the source's UIDs: no name of a file or folder may hold one."""
IDENTITY_COLUMNS = {"study_uid", "series_uid", "sop_uid"}
JPEG = "1.2.840.10008.1.2.4.50"
DIRTY = f"{NAME}^ANNA"

pytestmark = pytest.mark.timeout(400)


class Gossip:
    """A PACS that refuses the first results with the patient's name in the error comment."""

    def __init__(self, refusals: int) -> None:
        self._left = refusals
        self.stored = 0
        ae = AE("GOSSIP")
        ae.supported_contexts = AllStoragePresentationContexts
        handlers = [(evt.EVT_C_STORE, self._on_store)]
        self._server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
        self.port = self._server.server_address[1]

    def _on_store(self, _event: evt.Event) -> Dataset:
        answer = Dataset()
        self._left -= 1
        answer.Status = 0xC000 if self._left >= 0 else 0x0000
        self.stored += self._left < 0
        answer.ErrorComment = f"{DIRTY} {PATIENT} {BIRTH}"
        return answer

    def __enter__(self) -> "Gossip":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()


@cache
def film(**how: Any) -> Dataset:
    return phantom_dataset(1, rows=256, columns=256, name=DIRTY, patient_id=PATIENT, **how)


def picture(number: int, **how: Any) -> Dataset:
    """A film of somebody who cannot be mistaken."""
    image = deepcopy(film(**how))
    image.StudyInstanceUID, image.SeriesInstanceUID = f"{STUDY_ROOT}.1", f"{STUDY_ROOT}.2"
    image.SOPInstanceUID = f"{STUDY_ROOT}.3.{number}"
    image.PatientBirthDate = BIRTH
    image.AccessionNumber = ACCESSION
    image.ReferringPhysicianName = f"{NAME}^DOCTOR"
    image.OtherPatientIDs = PATIENT
    image.PatientComments = f"{NAME} {BIRTH}"
    return image


def spoiled(number: int, **raw: bytes) -> Dataset:
    """With values as no standard has them, past every check."""
    image = picture(number)
    for keyword, value in raw.items():
        tag = Tag(tag_for_keyword(keyword) or 0)
        even = value + b" " * (len(value) % 2)
        vr = dictionary_VR(tag).partition(" ")[0]
        image[tag] = RawDataElement(tag, vr, len(even), even, 0, False, True)
    return image


def films() -> Iterator[tuple[str, Dataset]]:
    """Transfer syntax and image, for every room one that fails there."""
    name = DIRTY.encode()
    yield EXPLICIT, picture(1)
    lateral = picture(2)
    lateral.ViewPosition = "LL"
    yield EXPLICIT, lateral
    for number, raw in enumerate(
        (
            {"StudyInstanceUID": name},
            {"SOPClassUID": name},
            {"SpecificCharacterSet": name},
            {
                "SpecificCharacterSet": b"\\ISO 2022 IR 87",
                "PatientName": b"\x1b$B\xff" + name,
                "BodyPartExamined": b"CHEST " + name,
                **dict.fromkeys(("PatientAge", "PatientSex", "PatientBirthDate"), name),
                **dict.fromkeys(("StudyDate", "StudyTime", "AcquisitionDate"), name),
                **dict.fromkeys(("PatientOrientation", "ViewPosition", "Laterality"), name),
            },
            {"BodyPartExamined": name, "StudyDescription": name, "SeriesDescription": name},
            {"Rows": name, "Columns": name},
            {"PhotometricInterpretation": name},
            {"WindowCenter": name, "WindowWidth": name, "RescaleSlope": name},
            {"NumberOfFrames": name},
            {"PixelSpacing": name, "ImagerPixelSpacing": name, "VOILUTSequence": name},
            {"PixelData": name},
        ),
        start=10,
    ):
        yield EXPLICIT, spoiled(number, **raw)
    jpeg = picture(40, transfer_syntax=JPEG, bits=8)
    comment = b"\xff\xfe" + (len(name) + 2).to_bytes(2, "big") + name
    data = jpeg.PixelData.replace(
        b"\xff\xd8", b"\xff\xd8" + comment + b"\xff\xc4\x00\x08" + name, 1
    )
    jpeg["PixelData"].value = data + b"\0" * (len(data) % 2)
    yield JPEG, jpeg


def bytes_of(image: Dataset) -> bytes:
    """Explicit VR little endian, raw elements as they are."""
    buffer = DicomBytesIO()
    buffer.is_implicit_VR, buffer.is_little_endian = False, True
    for tag in sorted(image.keys()):
        element = image.get_item(tag)
        assert element is not None
        write_data_element(buffer, element, ["latin-1"])
    return buffer.getvalue()


def bring(node: NodeProcess) -> list[int | None]:
    """Send everything; the statuses."""
    statuses = []
    for syntax, image in films():
        with RawClient(("127.0.0.1", node.port), 60) as client:
            assert client.associate((CR, (syntax,)), called="COVIDNET") == ASSOCIATE_AC
            statuses.append(client.store(CR, str(image.SOPInstanceUID), bytes_of(image)))
            client.release()
    with RawClient(("127.0.0.1", node.port), 60) as client:
        assert client.associate((CR, (EXPLICIT,)), called="COVIDNET") == ASSOCIATE_AC
        statuses.append(client.store(CR, f"{STUDY_ROOT}.98", bytes_of(picture(97))))
        statuses.append(client.store(CR, f"{STUDY_ROOT}.99", DIRTY.encode() * 7))
        client.release()
    garbage = b"\x01\x00\x00\x00\x01\x00" + DIRTY.encode() * 40
    for data in (garbage, DIRTY.encode() * 20, b"GET /" + DIRTY.encode() + b" HTTP/1.0\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", node.port), timeout=60) as client:
            client.sendall(data)
    return statuses


Told = tuple[NodeProcess, list[int | None]]
"""The node, and how it answered each image."""


@pytest.fixture(scope="module")
def site(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[NodeProcess, list[int | None]]]:
    """A node to which all this has happened."""
    folder = tmp_path_factory.mktemp("node")
    comment = {"00000902": {"vr": "LO", "Value": [DIRTY]}, "00081198": DIRTY}
    replies = [
        Reply(500, DIRTY.encode(), {"X-Reason": DIRTY, "Location": f"http://127.0.0.1/{NAME}"}),
        Reply(302, b"", {"Location": f"http://127.0.0.1/{NAME}"}),
        Reply(409, json.dumps(comment).encode()),
        Reply(200, f"<html>{DIRTY} {BIRTH}".encode()),
    ]
    with Gossip(6) as pacs, FakeWebPacs(*replies) as web:
        destinations = [
            {"name": "pacs", "ae_title": "GOSSIP", "host": "127.0.0.1", "port": pacs.port},
            {"name": "web", "url": web.url},
        ]
        tables = {"log": {"level": "DEBUG"}, "audit": {"file": str(folder / "audit.xml")}}
        with NodeProcess(folder, destinations, **tables) as node:
            # Nobody has set the node a mask: what it writes must be private all the same.
            before = os.umask(0)
            try:
                node.start()
            finally:
                os.umask(before)
            statuses = bring(node)
            admitted = [case for case in node.cases() if case["state"] != "refused"]
            assert len(admitted) > 5
            wait_until(lambda: _rest(node), 240, f"all cases to rest; see {node.log}")
            assert pacs.stored
            yield node, statuses


def _rest(node: NodeProcess) -> bool:
    return all(case["state"] not in ("admitted", "reported") for case in node.cases())


def leaks(text: str) -> list[str]:
    """Where a secret stands, with what is around it."""
    found = [text.find(secret) for secret in SECRETS]
    return [text[max(0, at - 200) : at + 60] for at in found if at >= 0]


def test_the_images_failed_in_many_rooms(site: Told) -> None:
    node, statuses = site
    assert {0x0000, 0xC000, 0xA900} <= set(statuses)
    outcomes = {case["outcome"] for case in node.cases()}
    assert "not_analyzed" in outcomes
    assert outcomes & {"analyzed", "inconclusive"}
    states = {case["state"] for case in node.cases()}
    assert {"refused", "done"} <= states


def test_the_search_finds_names_where_they_belong(site: Told) -> None:
    node, _ = site
    trail = (node.folder / "audit.xml").read_text()
    for secret in (NAME, PATIENT, ACCESSION):
        assert secret in trail
    assert "DICOM Instances Transferred" in trail
    sources = list((node.data / "spool").rglob("source.dcm"))
    assert any(NAME.encode() in path.read_bytes() for path in sources)
    assert leaks(f"... {NAME} ...")


def test_no_line_of_the_log_names_a_patient(site: Told) -> None:
    node, _ = site
    text = node.log.read_text(errors="replace")
    assert '"level": "debug"' in text
    assert "not_delivered" in text
    assert leaks(text) == []
    assert STUDY_ROOT not in text


def test_no_page_and_no_metric_names_a_patient(site: Told) -> None:
    node, _ = site
    for path in ("/", "/healthz", "/readyz", "/metrics", "/api/cases?limit=1000"):
        assert leaks(node.get(path)) == [], path
        assert STUDY_ROOT not in node.get(path)
    for state in ("parked", "refused", "done"):
        assert leaks(node.get(f"/api/cases?state={state}")) == []
    with pytest.raises(urllib.error.HTTPError):
        node.get(f"/api/cases?state={NAME}")
    assert leaks(node.log.read_text(errors="replace")) == []


def test_no_command_names_a_patient(site: Told) -> None:
    node, _ = site
    for words in (
        ("status",),
        ("status", "--json"),
        ("queue", "list"),
        ("queue", "list", "--json"),
    ):
        told = node.command(*words)
        assert leaks(told.stdout + told.stderr) == [], words
    case = next(each for each in node.cases() if each["state"] == "done")
    told = node.command("queue", "show", case["id"])
    assert case["id"] in told.stdout
    assert leaks(told.stdout + told.stderr) == []


def test_no_name_of_a_file_comes_from_outside(site: Told) -> None:
    node, _ = site
    names = [str(path.relative_to(node.folder)) for path in node.folder.rglob("*")]
    assert names
    assert [name for name in names if leaks(name) or STUDY_ROOT in name] == []


def test_the_journal_names_a_patient_by_uids_and_digests_only(site: Told) -> None:
    node, _ = site
    with sqlite3.connect(f"file:{node.data / 'journal.db'}?mode=ro", uri=True) as journal:
        tables = [
            row[0] for row in journal.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        ]
        assert "cases" in tables
        for table in tables:
            rows = journal.execute(f"SELECT * FROM {table}")  # noqa: S608 - names from the schema
            columns = [column[0] for column in rows.description]
            for row in rows:
                for column, value in zip(columns, row, strict=True):
                    if column not in IDENTITY_COLUMNS:
                        assert leaks(str(value)) == [], (table, column)
    journal.close()


def test_a_secret_in_the_spool_or_trail_is_for_the_service_alone(site: Told) -> None:
    node, _ = site
    for path in [*node.data.rglob("*"), node.data, node.folder / "audit.xml"]:
        assert Path(path).stat().st_mode & 0o077 == 0, path
