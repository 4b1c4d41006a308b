"""Storage commitment survives kill -9: of each life of the node, only the journal is left."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from covidnet_node.case import DeliveryState, State
from tests.commitment_site import DEADLINE_S, NODE_AE
from tests.committing_pacs import CommittingPacs, Vow
from tests.journal_kit import open_desk
from tests.node import wait_until

LIFE = """
import sys
from pathlib import Path
from tests.commitment_site import Peer, Site
folder, title, port, images = sys.argv[1:]
with Site(Path(folder), Peer(title, int(port)), wait_s=0, timeout_s=3600) as site:
    for number in range(int(images)):
        site.answer_image(number)
    print(site.receiver.address[1], flush=True)
    sys.stdin.readline()
"""


@contextmanager
def life(folder: Path, pacs: CommittingPacs, images: int = 0) -> Iterator[subprocess.Popen[str]]:
    """A node in a process of its own, which ends by SIGKILL."""
    with subprocess.Popen(
        [sys.executable, "-c", LIFE, str(folder), pacs.ae_title, str(pacs.port), str(images)],
        cwd=Path(__file__).parents[1],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if line.strip().isdecimal():
                    pacs.node = ("127.0.0.1", int(line), NODE_AE)
                    break
            yield process
        finally:
            process.kill()
            process.communicate()


@pytest.mark.timeout(240)
@pytest.mark.parametrize("answered", [False, True])
def test_a_kill_between_request_and_report_loses_and_repeats_nothing(
    tmp_path: Path, *, answered: bool
) -> None:
    with CommittingPacs(Vow.NEVER) as pacs:
        with life(tmp_path, pacs, images=1):
            (wish,) = pacs.wait_for_wishes(1)
            if answered:
                assert pacs.report(wish) == 0x0000
        with life(tmp_path, pacs):
            # An answer that the node has given is kept; if there was none, this is the first.
            assert pacs.report(wish) == 0x0000
            desk = open_desk(tmp_path)
            with desk.journal as journal:
                (case,) = journal.cases()
                wait_until(lambda: journal.case(case.id).state is State.DONE, DEADLINE_S, "done")
                states = {each.state for each in journal.deliveries(case.id)}
        assert states == {DeliveryState.COMMITTED}
        assert set(pacs.repeats.values()) == {1}
        assert len({each.transaction_uid for each in pacs.wishes}) == len(pacs.wishes)
