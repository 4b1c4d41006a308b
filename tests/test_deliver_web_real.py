"""STOW-RS to a server that others wrote, read back by a client that others wrote."""

import hashlib
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dicomweb_client.api import DICOMwebClient
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian
from requests import Session

from covidnet_node import deliver
from covidnet_node.associate import Target
from covidnet_node.case import Result, ResultKind
from covidnet_node.conformance.example import build_examples
from covidnet_node.deliver import Fate
from covidnet_node.deliver_web import WebTarget, echo, send
from covidnet_node.reports.pixel_encoding import SYNTAXES
from tests.real_pacs import WebOrthanc
from tests.test_deliver_real import data_set_bytes, results

AS_STORED = (("application/dicom", "*"),)
"""Media type of a whole file in the transfer syntax it came in."""


@pytest.fixture
def client(web_orthanc: WebOrthanc) -> Iterator[DICOMwebClient]:
    with Session() as session:
        yield DICOMwebClient(web_orthanc.url, session=session)


def where(owed: Result) -> tuple[str, str, str]:
    """Study, series and instance."""
    study = str(dcmread(owed.path).StudyInstanceUID)
    return study, owed.series_uid, owed.sop_instance_uid


def metadata(client: DICOMwebClient, owed: Result) -> Any:
    """WADO-RS metadata of one stored result."""
    return client.retrieve_instance_metadata(*where(owed))


def pixels(client: DICOMwebClient, owed: Result) -> bytes:
    """Its first frame, by WADO-RS."""
    plain = (("application/octet-stream", str(ExplicitVRLittleEndian)),)
    (frame,) = client.retrieve_instance_frames(*where(owed), [1], media_types=plain)
    return bytes(frame)


class LockedOrthanc(WebOrthanc):
    """The same with a name and a password. (Debian's crashes at the first request over TLS.)"""

    def __init__(self, program: str, folder: Path, plugin: Path) -> None:
        super().__init__(program, folder, plugin)
        self.folder.mkdir(parents=True)
        self.settings |= {"AuthenticationEnabled": True, "RegisteredUsers": {"node": "s3cret"}}

    def target(self, password: str) -> WebTarget:
        token = self.folder / password
        token.write_text("Basic " + b64encode(f"node:{password}".encode()).decode())
        token.chmod(0o600)
        return WebTarget(self.url, 5, 30, token_file=token)

    def answers(self) -> bool:
        return echo(self.target("s3cret")) is None


@pytest.mark.orthanc
def test_orthanc_asks_for_a_password(tmp_path: Path, web_orthanc: WebOrthanc) -> None:
    owed = results(tmp_path)
    program, (plugin,) = web_orthanc.program, web_orthanc.plugins
    with LockedOrthanc(program, tmp_path / "locked", plugin) as locked:
        assert {each.fate for each in send(locked.target("s3cret"), owed)} == {Fate.STORED}
        first, *rest = send(locked.target("wrong"), owed)
        assert (first.fate, "401" in first.detail) == (Fate.FAILED, True)
        assert {each.fate for each in rest} == {Fate.NOT_TRIED}
        assert "401" in (echo(locked.target("wrong")) or "")


@pytest.mark.orthanc
def test_orthanc_keeps_the_same_whichever_way_it_came(
    tmp_path: Path, web_orthanc: WebOrthanc, client: DICOMwebClient
) -> None:
    owed = results(tmp_path)
    web = WebTarget(web_orthanc.url, 5, 30)
    dimse = Target(web_orthanc.ae_title, "127.0.0.1", web_orthanc.port, 5, 30)
    assert echo(web) is None
    assert [each.fate for each in send(web, owed)] == [Fate.STORED] * len(owed)
    by_web = {data_set_bytes(each) for each in web_orthanc.files()}
    told_by_web = [metadata(client, each) for each in owed]
    image = next(each for each in owed if "PixelData" in dcmread(each.path))
    seen_by_web = pixels(client, image)
    for instance in web_orthanc.json("/instances"):
        web_orthanc.put(f"/instances/{instance}", b"", "DELETE")

    assert {each.fate for each in deliver.send(dimse, owed, "COVIDNET")} == {Fate.STORED}
    by_dimse = {data_set_bytes(each) for each in web_orthanc.files()}
    assert by_web == by_dimse == {data_set_bytes(each.path.read_bytes()) for each in owed}
    assert told_by_web == [metadata(client, each) for each in owed]
    sound = dcmread(image.path).pixel_array.tobytes()
    assert seen_by_web == pixels(client, image) == sound


def every_kind(folder: Path) -> list[Result]:
    """One object of each kind, SOP class and transfer syntax that a profile may ask for."""
    chosen = {
        (each.kind, each.dataset.SOPClassUID, each.dataset.file_meta.TransferSyntaxUID): each
        for each in build_examples()
    }
    made = []
    for (_, sop_class, syntax), example in chosen.items():
        path = folder / f"{example.dataset.SOPInstanceUID}.dcm"
        example.dataset.save_as(path, enforce_file_format=True)
        made.append(
            Result(
                kind=example.kind,
                sop_class_uid=sop_class,
                sop_instance_uid=example.dataset.SOPInstanceUID,
                series_uid=example.dataset.SeriesInstanceUID,
                transfer_syntax_uid=syntax,
                path=path,
                sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
            )
        )
    return made


@pytest.mark.orthanc
@pytest.mark.timeout(300)
def test_orthanc_takes_every_kind_both_ways(
    tmp_path: Path, web_orthanc: WebOrthanc, client: DICOMwebClient
) -> None:
    """Whichever way an object came, a viewer gets the same file and the same metadata."""
    owed = every_kind(tmp_path)
    assert {each.kind for each in owed} == set(ResultKind)
    assert {each.transfer_syntax_uid for each in owed} == set(SYNTAXES.values())
    sound = {data_set_bytes(each.path.read_bytes()) for each in owed}
    web = WebTarget(web_orthanc.url, 5, 30)
    assert [each.detail for each in send(web, owed)] == ["0000 Success"] * len(owed)
    assert {data_set_bytes(each) for each in web_orthanc.files()} == sound
    told = [metadata(client, each) for each in owed]
    read = [client.retrieve_instance(*where(each), media_types=AS_STORED) for each in owed]
    assert read == [dcmread(each.path) for each in owed]
    for instance in web_orthanc.json("/instances"):
        web_orthanc.put(f"/instances/{instance}", b"", "DELETE")
    dimse = Target(web_orthanc.ae_title, "127.0.0.1", web_orthanc.port, 5, 30)
    sent = list(deliver.send(dimse, owed, "COVIDNET"))
    assert [each.detail for each in sent] == ["0000 Success"] * len(owed)
    assert {data_set_bytes(each) for each in web_orthanc.files()} == sound
    assert told == [metadata(client, each) for each in owed]
    again = [client.retrieve_instance(*where(each), media_types=AS_STORED) for each in owed]
    assert again == read


@pytest.mark.orthanc
def test_orthanc_is_sent_the_same_again(tmp_path: Path, web_orthanc: WebOrthanc) -> None:
    owed = results(tmp_path)
    web = WebTarget(web_orthanc.url, 5, 30)
    for _ in range(2):
        assert [each.fate for each in send(web, owed)] == [Fate.STORED] * len(owed)
    assert len(web_orthanc.stored()) == len(owed)


@pytest.mark.orthanc
def test_orthanc_at_another_path(tmp_path: Path, web_orthanc: WebOrthanc) -> None:
    lost = WebTarget(web_orthanc.url.replace("dicom-web", "dicomweb"), 5, 30)
    first, *rest = send(lost, results(tmp_path))
    assert first.fate is Fate.FAILED
    assert "404" in first.detail
    assert {each.fate for each in rest} <= {Fate.NOT_TRIED}
    assert "path of url" in (echo(lost) or "")
