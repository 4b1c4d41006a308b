"""Delivery to servers that others wrote: Orthanc and dcmtk."""

import hashlib
from pathlib import Path

import pytest
from pydicom import uid

from covidnet_node.associate import Target
from covidnet_node.case import Result
from covidnet_node.deliver import Fate, echo, send
from covidnet_node.reports.encode import encode
from covidnet_node.reports.results import build_results
from tests.orders import order
from tests.real_pacs import Orthanc, Storescp


def results(folder: Path) -> list[Result]:
    """A report and a heatmap as the node makes them, written to files."""
    made = []
    for built in build_results(order()):
        data_set = built.dataset
        path = folder / f"{data_set.SOPInstanceUID}.dcm"
        path.write_bytes(encode(data_set))
        made.append(
            Result(
                kind=built.kind,
                sop_class_uid=data_set.SOPClassUID,
                sop_instance_uid=data_set.SOPInstanceUID,
                series_uid=data_set.SeriesInstanceUID,
                transfer_syntax_uid=str(uid.ExplicitVRLittleEndian),
                path=path,
                sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
            )
        )
    return made


def data_set_bytes(file: bytes) -> bytes:
    """What follows the file meta information, whose length its first element gives."""
    assert file[128:132] == b"DICM"
    return file[144 + int.from_bytes(file[140:144], "little") :]


@pytest.mark.orthanc
def test_orthanc_keeps_report_and_heatmap_byte_for_byte(tmp_path: Path, orthanc: Orthanc) -> None:
    owed = results(tmp_path)
    target = Target(orthanc.ae_title, "127.0.0.1", orthanc.port, 5, 30)
    assert echo(target, "COVIDNET") is None
    assert [each.fate for each in send(target, owed, "COVIDNET")] == [Fate.STORED, Fate.STORED]
    again = list(send(target, owed, "COVIDNET"))
    assert [each.fate for each in again] == [Fate.STORED, Fate.STORED]
    kept = {data_set_bytes(each) for each in orthanc.files()}
    assert kept == {data_set_bytes(each.path.read_bytes()) for each in owed}
    wrong = Target("NOBODY", "127.0.0.1", orthanc.port, 30, 30)
    assert "rejected" in (echo(wrong, "COVIDNET") or "")


@pytest.mark.dcmtk
def test_dcmtk_keeps_report_and_heatmap_byte_for_byte(tmp_path: Path, storescp: Storescp) -> None:
    owed = results(tmp_path)
    target = Target(storescp.ae_title, "127.0.0.1", storescp.port, 5, 30)
    assert [each.fate for each in send(target, owed, "COVIDNET")] == [Fate.STORED, Fate.STORED]
    kept = {data_set_bytes(each.read_bytes()) for each in storescp.files()}
    assert kept == {data_set_bytes(each.path.read_bytes()) for each in owed}
