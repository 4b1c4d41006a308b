"""The whole node when something goes wrong: crashing workers, refusing peers, people who act."""

from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless

from covidnet_node.phantom.film import phantom_dataset
from tests.fake_pacs import FakePacs
from tests.node import running_node, wait_until
from tests.test_service import HEATMAP, REPORT, SIDE, answers, destination, send, settled


def test_the_same_pixels_in_another_transfer_syntax_are_no_new_work(tmp_path: Path) -> None:
    with FakePacs() as pacs, running_node(tmp_path, [destination(pacs)]) as node:
        send(node, phantom_dataset(201, **SIDE))
        settled(node, 1)
        assert send(node, phantom_dataset(201, **SIDE, transfer_syntax=JPEGLSLossless)) == [0]
        settled(node, 2)
        latest = node.cases()[0]
        assert (latest["state"], latest["reason"]) == ("done", "duplicate")
        assert len(pacs.arrivals) == 2


def test_an_image_that_takes_down_two_workers_is_answered_and_parked(tmp_path: Path) -> None:
    # JPEG 2000 of this size keeps a worker busy long enough to be killed over it.
    poison = phantom_dataset(202, rows=2000, columns=2000, transfer_syntax=JPEG2000Lossless)
    with FakePacs() as pacs, running_node(tmp_path, [destination(pacs)]) as node:
        send(node, poison)
        for crash in (1, 2):
            wait_until(lambda n=crash: node.cases()[0]["attempts"] == n, 60, f"claim {crash}")
            for worker in node.workers():
                worker.kill()
            wait_until(lambda n=crash: node.cases()[0]["crashes"] == n, 60, f"crash {crash}")
        settled(node, 1)
        case = node.cases()[0]
        assert (case["state"], case["reason"]) == ("parked", "technical_failure")
        assert set(answers(pacs, poison)) == {REPORT}
        # And the node goes on.
        send(node, phantom_dataset(203, **SIDE))
        wait_until(lambda: node.cases()[0]["state"] == "done", 60, "the next image")


def test_undecodable_pixels_are_answered_with_the_reason(tmp_path: Path) -> None:
    image = phantom_dataset(204, **SIDE)
    image.PixelData = image.PixelData[: len(image.PixelData) // 2]
    with FakePacs() as pacs, running_node(tmp_path, [destination(pacs)]) as node:
        assert send(node, image) == [0x0000]
        settled(node, 1)
        assert node.cases()[0]["reason"] == "undecodable"
        assert set(answers(pacs, image)) == {REPORT}


def test_a_refusing_pacs_gets_it_again_and_a_warning_counts_as_stored(tmp_path: Path) -> None:
    with (
        FakePacs(0xA700, 0xB000, 0xC000, 0xA700, 0xB007) as pacs,
        running_node(tmp_path, [destination(pacs)]) as node,
    ):
        image = phantom_dataset(205, **SIDE)
        send(node, image)
        settled(node, 1)
        assert node.cases()[0]["state"] == "done"
        assert set(answers(pacs, image)) == {REPORT, HEATMAP}
        assert set(pacs.repeats.values()) == {1}


def test_giving_up_parks_and_a_person_can_send_it_again(tmp_path: Path) -> None:
    with FakePacs() as pacs:
        pacs.stop()
        node_tables = {"deliver": {"give_up_after_hours": 0.0005}}
        target = destination(pacs, connect_timeout_s=1)
        with running_node(tmp_path, [target], **node_tables) as node:
            send(node, phantom_dataset(206, **SIDE))
            settled(node, 1)
            case = node.cases()[0]
            assert case["state"] == "parked"
            assert "gave_up" in node.command("queue", "show", case["id"]).stdout
            pacs.start()
            assert node.command("queue", "requeue", case["id"]).returncode == 0
            pacs.wait_for(2, 60)
            wait_until(lambda: node.cases()[0]["state"] == "done", 60, "the requeued case")


def test_a_person_can_have_it_analyzed_again_or_discard_it(tmp_path: Path) -> None:
    with FakePacs() as pacs, running_node(tmp_path, [destination(pacs)]) as node:
        send(node, phantom_dataset(207, **SIDE))
        settled(node, 1)
        case = node.cases()[0]["id"]
        first = {each.uid: each.data for each in pacs.stored}
        assert node.command("queue", "requeue", case, "--again").returncode == 0
        pacs.wait_for_arrivals(4, 60)
        settled(node, 1)
        assert {each.uid for each in pacs.stored} == set(first)
        refused = node.command("queue", "discard", case, "--why", "a test")
        assert refused.returncode == 1
        assert "cannot become" in " ".join(refused.stderr.split())


def test_results_go_back_to_the_sender(tmp_path: Path) -> None:
    with FakePacs(ae_title="XRAY1") as modality:
        back = {"name": "sender", "back_to_sender": True, "port": modality.port}
        with running_node(tmp_path, [back]) as node:
            send(node, phantom_dataset(208, **SIDE), calling_ae="XRAY1")
            modality.wait_for(2, 60)
            settled(node, 1)


def test_without_a_destination_results_stay_here(tmp_path: Path) -> None:
    with running_node(tmp_path, []) as node:
        send(node, phantom_dataset(209, **SIDE))
        settled(node, 1)
        kept = {path.name for path in (node.data / "spool" / "cases").rglob("*.dcm")}
        assert kept == {"source.dcm", "report.dcm", "heatmap.dcm"}
        report = next((node.data / "spool" / "cases").rglob("report.dcm"))
        assert dcmread(report).VerificationFlag == "UNVERIFIED"


@pytest.mark.timeout(240)
def test_what_was_acknowledged_before_a_kill_is_answered_after_it(tmp_path: Path) -> None:
    with FakePacs() as pacs, running_node(tmp_path, [destination(pacs)]) as node:
        images = [phantom_dataset(seed, **SIDE) for seed in range(210, 215)]
        assert send(node, *images) == [0x0000] * 5
        node.kill()
        node.start()
        pacs.wait_for(10, 120)
        settled(node, 5)
        assert {case["crashes"] for case in node.cases()} == {0}
