"""The faults, and the seeded order in which they come."""

import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import psutil

from tests.node import wait_until
from torture.node import TorturedNode, hang, slay
from torture.pacs import ASSOCIATE_ACTS, STORE_ACTS
from torture.senders import ACTS, Senders

WEIGHTS = {
    "node: SIGKILL": 10,
    "node: SIGKILL with its workers": 4,
    "node: SIGKILL while it starts": 3,
    "node: SIGTERM under load": 3,
    "worker: SIGKILL": 12,
    "worker: SIGSTOP": 2,
    "disk full": 4,
    "journal locked": 4,
    "clock forward": 2,
    "clock back": 2,
    "PACS: down": 4,
    **{f"PACS: C-STORE {act}": 3 for act in STORE_ACTS},
    **{f"PACS: association {act}": 3 for act in ASSOCIATE_ACTS},
    **{f"sender: {act}": 4 for act in ACTS},
}
RESTARTS = frozenset(name for name in WEIGHTS if name.startswith("node:"))
CLOCKS = frozenset(name for name in WEIGHTS if name.startswith("clock"))
HOUR = 3600.0
JUMPS = (2 * 60, HOUR, 26 * HOUR, 20 * 24 * HOUR)


@dataclass
class Tormentor:
    """Does one fault after the other to the node, the PACS and the senders."""

    node: TorturedNode
    senders: Senders
    tell_pacs: Callable[[str], None]
    chance: random.Random
    order: random.Random
    """Chooses the kinds, apart from the rest, so that a seed means the same kinds in one order."""
    done: Counter[str]
    exits: Counter[int]
    """Exit statuses after SIGTERM."""

    def one(self, *, restarts: bool) -> str:
        """Choose and do one fault; its name."""
        names = [
            name
            for name in WEIGHTS
            if (restarts or name not in RESTARTS)
            and (self.node.worker == "stand-in" or name not in CLOCKS)
        ]
        name = self.order.choices(names, [WEIGHTS[each] for each in names])[0]
        if self.do(name):
            self.done[name] += 1
        return name

    def do(self, name: str) -> bool:
        """Do the named fault; false if it found nothing to hit."""
        kind, _, what = name.partition(": ")
        if kind == "sender":
            self.senders.misbehave(what)
        elif what.startswith("C-STORE "):
            self.tell_pacs(f"store {what.removeprefix('C-STORE ')} {self.chance.choice((1, 1, 2))}")
        elif what.startswith("association "):
            self.tell_pacs(f"associate {what.removeprefix('association ')}")
        elif what == "down":
            self.tell_pacs(f"down {self.chance.uniform(0.5, 4):.1f}")
        elif kind == "worker":
            return self._worker(what)
        elif kind == "node":
            self._node(what)
        else:
            self._surroundings(name)
        return True

    def _worker(self, what: str) -> bool:
        workers = self.node.workers()
        if not workers:
            return False
        if what == "SIGKILL":
            return slay(workers[0])
        hang(workers[0])
        return True

    def _node(self, what: str) -> None:
        if what == "SIGTERM under load":
            self.exits[self.node.end(signal.SIGTERM)] += 1
        else:
            workers = self.node.workers()
            self.node.end(signal.SIGKILL)
            for worker in workers:
                if what == "SIGKILL with its workers":
                    slay(worker)
                with suppress(psutil.Error):
                    worker.resume()  # one that hangs would outlive the test
        if what == "SIGKILL while it starts":
            self.node.launch()
            time.sleep(self.chance.uniform(0.0, 3.0))
            assert self.node.process is not None
            self.node.process.kill()
            self.node.process.wait(30)
        self.node.start()

    def _surroundings(self, name: str) -> None:
        if name == "disk full":
            self.node.fill_disk()
        elif name == "journal locked":
            self.node.lock_journal(self.chance.choice((0.5, 1.0, 3.0, 12.0)))
        else:
            seconds = self.chance.choice(JUMPS)
            self.node.jump(seconds if name == "clock forward" else -seconds, 3.0)

    def kill_real_worker(self, patience: threading.Event) -> bool:
        """Wait for a worker that has loaded its networks, then SIGKILL it at a random moment."""
        wait_until(lambda: self.node.answers("/readyz"), 300, "the worker to be ready")
        patience.wait(self.chance.uniform(0.0, 2.0))
        return self._worker("SIGKILL")
