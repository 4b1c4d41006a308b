"""Killed, or cut off from power, at every durable step of an image's life: always one answer.

Each life has a node's parts with real connections; `tests/crash_life.py` says what a step is. By
default every other step, kills and power cuts in turn; `--every-step` does both at each, and with a
heatmap.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from covidnet_node.journal.journal import Journal
from covidnet_node.journal.spool import Spool
from tests.crash_life import KILLED
from torture.account import balance
from torture.images import Image, draw_templates, images
from torture.run import PacsProcess, pacs_process

FIRST_LIFE_AT_LEAST = 15
"""Fewer steps than that would mean that they are not seen."""
MERGED = 3
"""Steps that a life may have less than another."""


@dataclass
class Lives:
    """Runs lives, each of an image of its own."""

    folder: Path
    pacs: PacsProcess
    process: subprocess.Popen[str]
    stream: Iterator[Image]
    number: int = 0

    def one(self, image: Image, folder: Path, last: int, *, cut: bool) -> int:
        """One life in that folder; its exit status."""
        (self.folder / "image").write_bytes(image.data)
        request: dict[str, Any] = {
            "folder": str(folder / "data"),
            "promise": str(folder / "promise"),
            "data": str(self.folder / "image"),
            "pacs": self.pacs.port,
            "last": last,
            "cut": cut,
            "sop_class": image.sop_class,
            "syntax": image.syntax,
            "uid": image.uid,
            "study": image.study,
        }
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def begin(self) -> tuple[Image, Path]:
        """A fresh node and an image that it has never seen."""
        self.number += 1
        folder = self.folder / str(self.number)
        shutil.copytree(self.folder / "empty", folder / "data")
        return next(self.stream), folder


@pytest.fixture(scope="module")
def lives(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[Lives]:
    folder = tmp_path_factory.mktemp("lives")
    Journal.open(folder / "empty" / "journal.db").close()
    Spool(folder / "empty" / "spool")
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.crash_life"],
        cwd=Path(__file__).parents[1],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    analyzed, *_, too_small = draw_templates(folder)
    chosen = analyzed if pytestconfig.getoption("every_step") else too_small
    with pacs_process(folder / "arrivals.jsonl") as pacs, process:
        yield Lives(folder, pacs, process, images([chosen], 5))
        process.kill()


@pytest.mark.torture
@pytest.mark.timeout(900)
def test_after_any_step_a_restart_ends_in_one_answer(
    lives: Lives, pytestconfig: pytest.Config
) -> None:
    image, folder = lives.begin()
    assert lives.one(image, folder, 0, cut=False) == 0
    steps = int((folder / "promise.steps").read_text())
    assert steps >= FIRST_LIFE_AT_LEAST
    every = pytestconfig.getoption("every_step")
    for last in range(1, steps + 1, 1 if every else 2):
        for cut in (False, True) if every else (last // 2 % 2 == 0,):
            end_at(lives, last, steps, cut=cut)


def end_at(lives: Lives, last: int, steps: int, *, cut: bool) -> None:
    """End a life at that step, live again, and look at what is there."""
    image, folder = lives.begin()
    ended = lives.one(image, folder, last, cut=cut)
    # Rows that meet are one commit: a life may have a step less than the one that was counted.
    assert ended == KILLED or (ended == 0 and last > steps - MERGED), f"step {last}"
    promised = (folder / "promise").exists()
    assert lives.one(image, folder, 0, cut=cut) == 0, f"after step {last}"
    with Journal.open(folder / "data" / "journal.db") as journal:
        (case,) = journal.cases()
        assert case.state.value == "done", (last, case)
        owed = {each.sop_instance_uid for each in journal.results(case.id)}
    found = balance({image.study}, owed, lives.folder / "arrivals.jsonl")
    wrong = found.lost, found.missing, found.duplicated, found.changed
    assert wrong == ((), (), (), ()), (last, promised)
