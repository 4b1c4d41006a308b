"""A worker whose node was killed: it finishes what is in hand and leaves without an alarm."""

import subprocess
import sys
from pathlib import Path

from covidnet_node.config import Config
from tests.journal_kit import open_desk


def test_a_worker_whose_node_is_gone_leaves_quietly(tmp_path: Path) -> None:
    desk = open_desk(tmp_path)
    with desk.journal:
        desk.admit()
    config = Config.model_validate({"node": {"data": str(tmp_path)}})
    with subprocess.Popen(
        [sys.executable, "-m", "torture.standin", "node/0/a", "cpu"],
        cwd=Path(__file__).parents[1],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as worker:
        assert worker.stdin is not None
        assert worker.stdout is not None
        assert worker.stderr is not None
        # Both pipes end, as they do when the supervisor is killed.
        worker.stdout.close()
        worker.stdin.write(config.model_dump_json() + "\n")
        worker.stdin.close()
        assert worker.wait(60) == 0
        assert '"died"' not in worker.stderr.read()
