"""A slice of the bad input through a whole node: real listener, real worker, results delivered."""

import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.bad_input import frames, structure, wire
from tests.bad_input.build import Bad
from tests.bad_input.corpus import FAMILIES
from tests.bad_input.talk import echo, say
from tests.fake_pacs import FakePacs
from tests.node import NodeProcess, running_node, wait_until
from tests.raw_client import ASSOCIATE_AC, CR, RawClient
from tests.test_service import destination

SEED = 1
OF_EACH = 5
"""Cases of each family."""
BOMBS = {"bomb_small_precincts_.90", "bomb_runs_2.5", "a_million_items_undefined", "deflated_bomb"}
UNWANTED = {"worker_died", "store_failed", "analysis_failed", "parked_without_an_answer",
            "connection_failed", "lease_lost"}  # fmt: skip
MOST_MIB = 3000
RESTS = ("done", "refused", "parked")


def chosen() -> list[Bad]:
    """A few of each family, spread over it, and bombs."""
    found = []
    for family in FAMILIES.values():
        cases = [bad for bad in family(SEED) if not bad.name.startswith("bomb_")]
        found += cases[SEED :: len(cases) // OF_EACH][:OF_EACH]
    bombs = [*frames.bombs(SEED), *structure.bombs(SEED, 400_000)]
    return found + [bad for bad in bombs if bad.name in BOMBS]


def store(node: NodeProcess, bad: Bad) -> int | None:
    """C-STORE as it is; None if the node has hung up."""
    with RawClient(("127.0.0.1", node.port), 60) as client:
        assert client.associate((CR, (bad.syntax,))) == ASSOCIATE_AC
        with suppress(OSError):
            return client.store(bad.sop_class, bad.instance, bad.data)
    return None


def resting(node: NodeProcess) -> list[dict[str, Any]]:
    cases = node.cases()
    return cases if all(case["state"] in RESTS for case in cases) else []


@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore")
def test_bad_input_is_refused_or_answered_and_disturbs_nobody(tmp_path: Path) -> None:
    with FakePacs() as pacs, running_node(tmp_path, [destination(pacs)]) as node:
        workers = [worker.pid for worker in node.workers()]
        statuses = {bad.name: store(node, bad) for bad in chosen()}
        for talk in list(wire.cases(SEED))[::12]:
            say(("127.0.0.1", node.port), talk.data)
        echo(("127.0.0.1", node.port))
        cases = wait_until(lambda: resting(node), 400, f"every case to rest; {node.log}")

        assert set(statuses.values()) <= {0x0000, 0xC000, 0xA900}, statuses
        refused = sum(status != 0 for status in statuses.values())
        counted = re.findall(r'^covidnet_rejections_total\{.*\} ([0-9.]+)$', node.get("/metrics"),
                             re.MULTILINE)  # fmt: skip
        assert sum(map(float, counted)) >= refused > 0
        for case in cases:
            explained = case["state"] != "parked" or case["reason"] == PIXELS_CHANGED
            assert explained, case
            assert case["outcome"] or case["state"] == "refused" or case["reason"], case
        assert any(case["reason"] == "undecodable" for case in cases)
        assert not UNWANTED & {line["event"] for line in node.lines()}
        assert [worker.pid for worker in node.workers()] == workers
        for pid in workers:
            assert psutil.Process(pid).memory_info().rss < MOST_MIB << 20
            # Out of memory, the system is to take a worker and not the listener.
            assert int(Path(f"/proc/{pid}/oom_score_adj").read_text()) >= 500
            assert psutil.Process(pid).nice() > psutil.Process().nice()
        assert node.get("/healthz") == "ok\n"


PIXELS_CHANGED = "other_pixels_under_a_known_uid"
"""Parked on purpose: a sender has used one instance UID for two images."""
