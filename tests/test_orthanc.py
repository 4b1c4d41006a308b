"""Orthanc as the PACS: it routes images to the node by docs/orthanc-autoroute.lua."""

from collections import Counter
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE

from covidnet_node.phantom.film import phantom_dataset
from covidnet_node.reports.encode import encode
from covidnet_node.reports.results import build_results
from tests.conftest import need_program
from tests.fake_pacs import FakePacs
from tests.node import NodeProcess, running_node, wait_until
from tests.orders import order
from tests.real_pacs import Orthanc

SCRIPT = Path(__file__).parents[1] / "docs" / "orthanc-autoroute.lua"
REPORT = "1.2.840.10008.5.1.4.1.1.88.34"
HEATMAP = "1.2.840.10008.5.1.4.1.1.7"


def kinds(stored: list[Dataset]) -> Counter[tuple[str, str]]:
    """Study and SOP class of everything stored."""
    return Counter((each.StudyInstanceUID, each.SOPClassUID) for each in stored)


def store(orthanc: Orthanc, image: Dataset, calling_ae: str) -> None:
    """C-STORE of one image to Orthanc."""
    ae = AE(calling_ae)
    ae.add_requested_context(image.SOPClassUID, image.file_meta.TransferSyntaxUID)
    association = ae.associate("127.0.0.1", orthanc.port, ae_title=orthanc.ae_title)
    assert association.send_c_store(image).Status == 0
    association.release()


def routed(orthanc: Orthanc) -> list[str]:
    """State of each of Orthanc's jobs that send to the node."""
    jobs = orthanc.json("/jobs?expand")
    return [job["State"] for job in jobs if job["Type"] == "DicomModalityStore"]


@pytest.mark.orthanc
def test_the_script_routes_images_and_nothing_else(tmp_path: Path) -> None:
    orthanc = Orthanc(need_program("Orthanc"), tmp_path)
    orthanc.scripts = [SCRIPT]
    side = {"rows": 256, "columns": 256}
    images = [phantom_dataset(1, **side), phantom_dataset(2, modality="DX", **side)]
    with FakePacs(ae_title="COVIDNET") as listener, orthanc:
        orthanc.add_modality("covidnet", "COVIDNET", listener.port)
        for built in build_results(order()):
            orthanc.upload(encode(built.dataset))
        for image in images:
            orthanc.upload(encode(image))
        store(orthanc, phantom_dataset(3, **side), "COVIDNET")
        store(orthanc, phantom_dataset(4, **side), "MODALITY")
        listener.wait_for(3, 30)
        wait_until(lambda: routed(orthanc) == ["Success"] * 3, 30, "Orthanc's jobs to end")
        assert len(orthanc.stored()) == 6
    wanted = {each.SOPInstanceUID for each in (*images, phantom_dataset(4, **side))}
    assert {each.uid for each in listener.stored} == wanted


@pytest.mark.orthanc
@pytest.mark.timeout(240)
def test_images_stored_in_orthanc_get_report_and_heatmap(tmp_path: Path) -> None:
    images = [
        phantom_dataset(1, "diffuse", rows=512, columns=512),
        phantom_dataset(2, "none", rows=512, columns=512, modality="DX"),
    ]
    orthanc = Orthanc(need_program("Orthanc"), tmp_path)
    orthanc.scripts = [SCRIPT]
    with orthanc, running_node(tmp_path, [destination(orthanc)]) as node:
        orthanc.add_modality("covidnet", "COVIDNET", node.port)
        for image in images:
            orthanc.upload(encode(image))
        wanted = {(image.StudyInstanceUID, kind) for image in images for kind in (REPORT, HEATMAP)}
        orthanc.wait_for(lambda stored: wanted <= set(kinds(stored)), "the results", 120)
        settle(orthanc, node, len(images))
        stored = orthanc.stored()
        assert set(kinds(stored).values()) == {1}
        assert len(stored) == 3 * len(images)
        assert routed(orthanc) == ["Success"] * len(images)
        assert len(node.cases()) == len(images)


@pytest.mark.orthanc
@pytest.mark.timeout(240)
def test_results_sent_to_the_node_by_hand_are_dropped(tmp_path: Path) -> None:
    image = phantom_dataset(3, "lobar", rows=512, columns=512)
    with (
        Orthanc(need_program("Orthanc"), tmp_path) as orthanc,
        running_node(tmp_path, [destination(orthanc)]) as node,
    ):
        orthanc.add_modality("covidnet", "COVIDNET", node.port)
        orthanc.upload(encode(image))
        everything = orthanc.json("/patients")[0]
        orthanc.put("/modalities/covidnet/store", everything.encode(), "POST")
        orthanc.wait_for(lambda stored: len(stored) == 3, "report and heatmap", 120)
        orthanc.put("/modalities/covidnet/store", everything.encode(), "POST")
        settle(orthanc, node, 1)
        assert len(orthanc.stored()) == 3
        assert len(node.cases()) == 1


def destination(orthanc: Orthanc) -> dict[str, str | int]:
    return {
        "name": "orthanc",
        "ae_title": orthanc.ae_title,
        "host": "127.0.0.1",
        "port": orthanc.port,
    }


def settle(orthanc: Orthanc, node: NodeProcess, cases: int) -> None:
    """Until Orthanc has nothing more to send, and the node nothing more to do."""
    wait_until(lambda: set(routed(orthanc)) <= {"Success", "Failure"}, 30, "Orthanc's jobs to end")
    wait_until(
        lambda: [case["state"] for case in node.cases()] == ["done"] * cases, 30, "cases to be done"
    )
