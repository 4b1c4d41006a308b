"""kill -9 of the node and of its workers while images stream in: nothing lost, nothing twice.

The slice here is small. `pytest tests/test_kill.py --images 200 --kills 10` is the whole thing.
"""

import random
import threading
from io import BytesIO
from pathlib import Path
from time import monotonic

import psutil
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pynetdicom import AE

from covidnet_node.phantom.film import phantom_dataset
from tests.fake_pacs import AE_TITLE, FakePacs
from tests.node import NodeProcess, wait_until

REPORT = "1.2.840.10008.5.1.4.1.1.88.34"
HEATMAP = "1.2.840.10008.5.1.4.1.1.7"


class Sender(threading.Thread):
    """A modality that sends each image again until it is answered Success."""

    def __init__(self, port: int, images: list[Dataset]) -> None:
        super().__init__(daemon=True)
        self._port = port
        self._images = images
        self.acknowledged: list[str] = []
        self.stopping = threading.Event()

    def run(self) -> None:
        for image in self._images:
            while not self.stopping.is_set() and not self._send(image):
                self.stopping.wait(0.2)
            self.acknowledged.append(str(image.SOPInstanceUID))

    def _send(self, image: Dataset) -> bool:
        ae = AE("MODALITY")
        ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 10
        ae.add_requested_context(image.SOPClassUID, image.file_meta.TransferSyntaxUID)
        association = ae.associate("127.0.0.1", self._port, ae_title="COVIDNET")
        if not association.is_established:
            return False
        try:
            status = association.send_c_store(image)
        except RuntimeError:
            return False
        if association.is_established:
            association.release()
        return status.get("Status") == 0x0000


@pytest.mark.torture
@pytest.mark.timeout(3600)
def test_nothing_is_lost_and_nothing_is_sent_twice(
    tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    images, kills = pytestconfig.getoption("images"), pytestconfig.getoption("kills")
    chance = random.Random(pytestconfig.getoption("seed"))
    phantoms = [phantom_dataset(1000 + n, rows=256, columns=256) for n in range(images)]
    with FakePacs() as pacs:
        target = {"name": "pacs", "ae_title": AE_TITLE, "host": "127.0.0.1", "port": pacs.port}
        with NodeProcess(tmp_path, [target]) as node:
            node.start(ready=False)
            sender = Sender(node.port, phantoms)
            sender.start()
            killed = torment(node, chance, kills)
            sender.join(600)
            assert not sender.is_alive()
            wait_until(lambda: all_rest(node), 1200, f"every case to rest; {node.log}")
            cases = node.cases()
            stored = [dcmread(BytesIO(each.data), force=True) for each in pacs.stored]
    assert killed == {"node": kills, "worker": kills}
    assert len(sender.acknowledged) == images
    assert len(cases) == images
    reports: dict[str, set[str]] = {}
    heatmaps: dict[str, set[str]] = {}
    for each in stored:
        kind = reports if each.SOPClassUID == REPORT else heatmaps
        kind.setdefault(str(each.StudyInstanceUID), set()).add(str(each.SOPInstanceUID))
    studies = {str(image.StudyInstanceUID) for image in phantoms}
    assert set(reports) == studies
    assert all(len(uids) == 1 for uids in reports.values())
    assert all(len(uids) == 1 for uids in heatmaps.values())
    answered = [case for case in cases if case["outcome"] in ("analyzed", "inconclusive")]
    assert len(heatmaps) == len(answered)
    assert pacs.changed_repeats() == []


def torment(node: NodeProcess, chance: random.Random, kills: int) -> dict[str, int]:
    """SIGKILL the node and its workers, alternately, each at a random moment of its work."""
    killed = {"node": 0, "worker": 0}
    pause = threading.Event()
    for _round in range(kills):
        worker = wait_until(node.workers, 120, "a worker")[0]
        wait_until(lambda: node.answers("/readyz"), 120, "the node to be ready")
        pause.wait(chance.uniform(0.05, 2.0))
        kill_process(worker)
        killed["worker"] += 1
        pause.wait(chance.uniform(0.05, 3.0))
        node.kill()
        killed["node"] += 1
        node.start(ready=False)
    return killed


def kill_process(process: psutil.Process) -> None:
    process.kill()
    process.wait(30)


def all_rest(node: NodeProcess) -> bool:
    started = monotonic()
    states = {case["state"] for case in node.cases()}
    assert monotonic() - started < 10
    return not states & {"admitted", "reported"}
