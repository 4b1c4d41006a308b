"""The whole node as its users meet it: a real process, a PACS, images in, results back."""

import sqlite3
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pynetdicom import AE
from pynetdicom.sop_class import Verification

from covidnet_node.phantom.film import phantom_dataset
from tests.fake_pacs import AE_TITLE, FakePacs
from tests.node import NodeProcess, running_node, wait_until

HEATMAP = "1.2.840.10008.5.1.4.1.1.7"
REPORT = "1.2.840.10008.5.1.4.1.1.88.34"
SIDE = {"rows": 512, "columns": 512}


def send(node: NodeProcess, *images: Dataset, calling_ae: str = "MODALITY") -> list[int]:
    """C-STORE images over one association; the statuses."""
    ae = AE(calling_ae)
    for image in images:
        ae.add_requested_context(image.SOPClassUID, image.file_meta.TransferSyntaxUID)
    association = ae.associate("127.0.0.1", node.port, ae_title="COVIDNET")
    assert association.is_established
    statuses = [int(association.send_c_store(image).Status) for image in images]
    association.release()
    return statuses


def destination(pacs: FakePacs, name: str = "pacs", **more: Any) -> dict[str, Any]:
    return {"name": name, "ae_title": AE_TITLE, "host": "127.0.0.1", "port": pacs.port, **more}


def answers(pacs: FakePacs, image: Dataset) -> dict[str, Dataset]:
    """SOP class → result, of all that reached the PACS for the image's study."""
    stored = [dcmread(BytesIO(each.data), force=True) for each in pacs.stored]
    return {
        str(each.SOPClassUID): each
        for each in stored
        if each.StudyInstanceUID == image.StudyInstanceUID
    }


def settled(node: NodeProcess, count: int) -> list[dict[str, Any]]:
    """The cases, once `count` of them rest."""

    def rest() -> list[dict[str, Any]]:
        cases = node.cases()
        resting = [case for case in cases if case["state"] not in ("admitted", "reported")]
        return cases if len(resting) >= count else []

    found: list[dict[str, Any]] = wait_until(rest, 90, f"{count} cases to rest; {node.log}")
    return found


@pytest.fixture(scope="module")
def pacs() -> Iterator[FakePacs]:
    with FakePacs() as running:
        yield running


@pytest.fixture(scope="module")
def node(pacs: FakePacs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    with running_node(tmp_path_factory.mktemp("node"), [destination(pacs)]) as running:
        yield running


def test_an_image_comes_back_as_report_and_heatmap(node: NodeProcess, pacs: FakePacs) -> None:
    image = phantom_dataset(101, **SIDE)
    before = len(node.cases())
    assert send(node, image) == [0x0000]
    settled(node, before + 1)
    back = answers(pacs, image)
    assert set(back) == {REPORT, HEATMAP}
    for result in back.values():
        assert result.PatientID == image.PatientID
        assert result.SeriesInstanceUID != image.SeriesInstanceUID
    assert node.cases()[0]["outcome"] in ("analyzed", "inconclusive")


def test_the_same_image_again_makes_no_new_work(node: NodeProcess, pacs: FakePacs) -> None:
    image = phantom_dataset(102, **SIDE)
    before = len(node.cases())
    assert send(node, image) == [0x0000]
    settled(node, before + 1)
    arrived = len(pacs.arrivals)
    assert send(node, image, image) == [0x0000, 0x0000]
    assert len(node.cases()) == before + 1
    assert len(pacs.arrivals) == arrived


def test_a_corrected_name_is_answered_anew_and_supersedes(
    node: NodeProcess, pacs: FakePacs
) -> None:
    image = phantom_dataset(103, **SIDE)
    before = len(node.cases())
    send(node, image)
    settled(node, before + 1)
    first = answers(pacs, image)[REPORT]
    image.PatientName = "PHANTOM^CORRECTED"
    send(node, image)
    settled(node, before + 2)
    second = answers(pacs, image)[REPORT]
    assert second.PatientName == "PHANTOM^CORRECTED"
    assert second.SOPInstanceUID != first.SOPInstanceUID
    named = second.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0]
    assert named.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == first.SOPInstanceUID
    old = node.cases()[1]
    history = node.command("queue", "show", old["id"]).stdout
    assert "superseded" in history


def test_other_pixels_under_a_known_uid_are_not_analyzed_and_parked(
    node: NodeProcess, pacs: FakePacs
) -> None:
    image = phantom_dataset(104, **SIDE)
    before = len(node.cases())
    send(node, image)
    settled(node, before + 1)
    other = phantom_dataset(105, **SIDE)
    image.PixelData = other.PixelData
    assert send(node, image) == [0x0000]
    settled(node, before + 2)
    latest = node.cases()[0]
    assert latest["state"] == "parked"
    assert latest["outcome"] == "not_analyzed"
    assert latest["reason"] == "other_pixels_under_a_known_uid"
    assert any(line.get("alert") and line.get("case_id") == latest["id"] for line in node.lines())


@pytest.mark.parametrize(
    ("changes", "reason"),
    [({"view": "LL"}, "lateral"), ({"age": "009Y"}, "under_18")],
)
def test_outside_intended_use_is_answered_without_probabilities(
    node: NodeProcess, pacs: FakePacs, changes: dict[str, Any], reason: str
) -> None:
    image = phantom_dataset(106, **SIDE)
    image.ViewPosition = changes.get("view", image.ViewPosition)
    image.PatientAge = changes.get("age", image.PatientAge)
    if "age" in changes:
        del image.PatientBirthDate
    for keyword in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
        uid = f"{getattr(image, keyword)[:50]}.{len(reason)}"
        setattr(image, keyword, uid)
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
    before = len(node.cases())
    assert send(node, image) == [0x0000]
    settled(node, before + 1)
    assert node.cases()[0]["reason"] == reason
    assert set(answers(pacs, image)) == {REPORT}


def test_not_ours_is_refused_with_success_and_not_kept(node: NodeProcess) -> None:
    image = phantom_dataset(107, **SIDE)
    image.BodyPartExamined = "HAND"
    for keyword in ("StudyDescription", "SeriesDescription", "ProtocolName"):
        setattr(image, keyword, "HAND")
    for keyword in ("ProcedureCodeSequence", "AnatomicRegionSequence"):
        if keyword in image:
            del image[keyword]
    assert send(node, image) == [0x0000]
    case = node.cases()[0]
    assert (case["state"], case["reason"]) == ("refused", "no_rule_admits_it")
    assert not list((node.data / "spool").rglob(f"{case['id']}/*"))


def test_results_that_come_back_are_not_analyzed(node: NodeProcess, pacs: FakePacs) -> None:
    image = phantom_dataset(108, **SIDE)
    before = len(node.cases())
    send(node, image)
    settled(node, before + 1)
    for path in (node.data / "spool").rglob("report.dcm"):
        assert send(node, dcmread(path)) == [0x0000]
        break
    for path in (node.data / "spool").rglob("heatmap.dcm"):
        assert send(node, dcmread(path)) == [0x0000]
        break
    assert len(node.cases()) == before + 1
    assert 'what="own_results_ignored"} 2.0' in node.get("/metrics")


def test_logs_and_api_name_no_patient(node: NodeProcess) -> None:
    send(node, phantom_dataset(109, **SIDE))
    settled(node, len(node.cases()))
    shown = node.log.read_text() + node.get("/api/cases") + node.get("/") + node.get("/metrics")
    assert "PHANTOM" not in shown
    assert str(phantom_dataset(109, **SIDE).PatientID) not in shown
    for line in node.lines():
        if line["event"] in ("admitted", "refused", "reported", "delivered"):
            assert line["case_id"]


def test_files_and_folders_belong_to_the_service_alone(node: NodeProcess) -> None:
    for path in [node.data, *node.data.rglob("*")]:
        mode = path.stat().st_mode & 0o777
        assert mode == (0o700 if path.is_dir() else 0o600), path


def test_the_journal_is_durable_by_configuration(node: NodeProcess) -> None:
    with sqlite3.connect(node.data / "journal.db") as journal:
        assert journal.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_doors(node: NodeProcess) -> None:
    assert node.get("/healthz") == "ok\n"
    assert node.get("/readyz") == "ready\n"
    assert "Research use only" in node.get("/")
    assert not node.answers("/api/cases?state=lost")
    for limit in ("0", "1001", "-1", "%C2%B2"):  # the last is a digit to Python, and no number
        with pytest.raises(HTTPError, match="400"):
            node.get(f"/api/cases?limit={limit}")
    assert '"states"' in node.command("status", "--json").stdout


def test_a_second_node_on_the_same_folder_does_not_start(node: NodeProcess) -> None:
    second = node.command("serve")
    assert second.returncode == 69
    assert "another node works on" in second.stdout + second.stderr
    assert node.answers("/readyz")


def test_c_echo_before_the_networks_have_loaded_and_order_at_stop(tmp_path: Path) -> None:
    with FakePacs() as pacs, NodeProcess(tmp_path, [destination(pacs)]) as node:
        node.start(ready=False)
        ae = AE("MODALITY")
        ae.add_requested_context(Verification)
        association = ae.associate("127.0.0.1", node.port, ae_title="COVIDNET")
        assert association.send_c_echo().Status == 0x0000
        association.release()
        send(node, phantom_dataset(110, **SIDE))
        pacs.wait_for(2, 90)
        assert node.stop() == 0
        events = [line["event"] for line in node.lines()]
        assert events[-1] == "stopped"
        assert events.index("listening") < events.index("worker_ready")


def test_a_pacs_that_was_down_gets_everything_once_it_is_up(tmp_path: Path) -> None:
    with FakePacs() as pacs, NodeProcess(tmp_path, [destination(pacs)]) as node:
        pacs.stop()
        node.start()
        images = [phantom_dataset(seed, **SIDE) for seed in (111, 112, 113)]
        assert send(node, *images) == [0x0000] * 3
        wait_until(lambda: all(case["state"] == "reported" for case in node.cases()), 60, "reports")
        pacs.start()
        pacs.wait_for(6, 60)
        settled(node, 3)
        assert set(pacs.repeats.values()) == {1}


def test_two_destinations_do_not_wait_for_each_other(tmp_path: Path) -> None:
    with FakePacs() as up, FakePacs() as down:
        targets = [destination(up, "up"), destination(down, "down", connect_timeout_s=1)]
        down.stop()
        with running_node(tmp_path, targets) as node:
            send(node, phantom_dataset(114, **SIDE))
            up.wait_for(2, 60)
            assert node.cases()[0]["state"] == "reported"
            down.start()
            down.wait_for(2, 60)
            settled(node, 1)
