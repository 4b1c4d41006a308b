"""One run: stream, torment, make peace, wait until all is answered, count."""

import json
import os
import platform
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.node import wait_until
from torture.account import Answered, Balance, balance, echoes, longest_life
from torture.faults import Tormentor
from torture.images import draw_templates, images
from torture.node import TorturedNode, Watcher, WorkerKind
from torture.senders import Senders

DRAIN_S = 1200.0
DISK_MIB = 3000
"""Room for an hour of images; less of it is taken than that."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What one run is to do; it ends at whichever comes first: time, images, or faults."""

    seed: int
    minutes: float
    images: int
    worker: WorkerKind
    rate: float
    """Images a second that the senders aim at."""
    soak: float
    """Share of the time, at its end, in which the node is not restarted: for its memory."""
    folder: Path
    senders: int = 3
    most_in_flight: int = 300
    """Beyond that the senders pause, as an operator would."""
    faults: int = 10**9
    """It ends after so many, too."""
    pause: float = 6.0
    """Mean seconds between two faults."""


def torture(plan: Plan) -> dict[str, Any]:
    """Run it; the result, as one line of the record."""
    plan.folder.mkdir(parents=True)
    arrivals, probes = plan.folder / "arrivals.jsonl", plan.folder / "echo.txt"
    started = time.time()
    with ExitStack() as parts:
        pacs = parts.enter_context(pacs_process(arrivals))
        node = parts.enter_context(TorturedNode(plan.folder, pacs.port, plan.worker, DISK_MIB))
        node.start()
        parts.enter_context(program("torture.prober", str(node.port), str(probes)))
        stream = images(draw_templates(plan.folder), plan.seed)
        senders = Senders(node.port, stream, plan.folder / "promises.jsonl", plan.rate)
        answered = Answered(arrivals)
        watcher = Watcher(
            node, lambda: in_flight(senders, answered()), senders.free, plan.most_in_flight
        )
        senders.start(plan.senders)
        watcher.start()
        chance = random.Random(plan.seed)
        order = random.Random(f"order {plan.seed}")
        tormentor = Tormentor(node, senders, pacs.tell, chance, order, Counter(), Counter())
        torment(plan, tormentor)
        pacs.tell("peace")
        senders.stop()
        tormented = time.time() - started
        watcher.stop()
        drained = drain(node, senders, answered)
        cases, owed, bare = node.counted(), node.owed(), node.without_heatmap()
        tormentor.exits[node.end(signal.SIGTERM)] += 1
    found = balance(senders.acknowledged, owed, arrivals)
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": plan.seed,
        "minutes": round(tormented / 60, 1),
        "machine": machine(),
        "worker": plan.worker,
        "disk": "tmpfs" if node.mounted else "RLIMIT_FSIZE",
        "faults": dict(sorted(tormentor.done.items())),
        "exits_after_sigterm": dict(tormentor.exits),
        "starts": len(node.lives),
        "acknowledged": len(senders.acknowledged),
        "refused_and_sent_again": senders.refusals,
        "in_flight": watcher.most_in_flight,
        "owed": len(owed),
        "without_heatmap": bare,
        **_fates(found),
        "drained_in_s": round(drained, 1),
        "cases": cases,
        "echo": echoes(probes, node.lives),
        "memory": longest_life(node.lives),
    }


def _fates(found: Balance) -> dict[str, Any]:
    """What became of the images, in numbers, and some UIDs of those that fared ill."""
    faulty = {
        "lost": found.lost,
        "missing": found.missing,
        "duplicated": found.duplicated,
        "changed": found.changed,
    }
    return {
        "delivered": found.delivered,
        "objects": found.objects,
        "resent": found.resent,
        **{fate: len(uids) for fate, uids in faulty.items()},
        "examples": [uid for uids in faulty.values() for uid in uids[:3]],
    }


def torment(plan: Plan, tormentor: Tormentor) -> None:
    """Fault after fault until time or images are up."""
    start, pause = time.monotonic(), threading.Event()
    end = start + 60 * plan.minutes
    calm = end - 60 * plan.minutes * plan.soak
    while (
        time.monotonic() < end
        and len(tormentor.senders.acknowledged) < plan.images
        and tormentor.done.total() < plan.faults
    ):
        if plan.worker == "real" and tormentor.kill_real_worker(pause):
            tormentor.done["worker: SIGKILL"] += 1
        name = tormentor.one(restarts=time.monotonic() < calm)
        acknowledged = len(tormentor.senders.acknowledged)
        say(f"{(time.monotonic() - start) / 60:6.1f} min {acknowledged:6} images  {name}")
        pause.wait(tormentor.chance.expovariate(1 / plan.pause))


def in_flight(senders: Senders, answered: set[str]) -> int:
    """Acknowledged and not yet answered."""
    return len(senders.acknowledged.copy() - answered)


def drain(node: TorturedNode, senders: Senders, answered: Answered) -> float:
    """Wait in peace until nothing is left to do; seconds that it took."""
    start = time.monotonic()

    def done() -> bool:
        assert node.process is not None
        assert node.process.poll() is None, "the node ended by itself"
        return node.unfinished() == 0

    try:
        wait_until(done, DRAIN_S, "every case to rest")
    except AssertionError as error:
        # What is missing then is counted as lost.
        say(str(error))
    say(f"drained; {in_flight(senders, answered())} unanswered")
    return time.monotonic() - start


@dataclass(frozen=True, slots=True)
class PacsProcess:
    """The PACS, and the pipe to it."""

    process: subprocess.Popen[str]
    port: int

    def tell(self, line: str) -> None:
        """One command."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()


@contextmanager
def pacs_process(arrivals: Path) -> Iterator[PacsProcess]:
    """A running PACS."""
    with program("torture.pacs", "0", str(arrivals)) as process:
        assert process.stdout is not None
        yield PacsProcess(process, int(process.stdout.readline()))


@contextmanager
def program(module: str, *words: str) -> Iterator[subprocess.Popen[str]]:
    """One of the torture's own processes, ended with the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", module, *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def machine() -> str:
    """In a few words, without its name."""
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    load = os.getloadavg()[0]
    return f"{platform.machine()}, {os.cpu_count()} cores, {gib:.0f} GiB, load {load:.1f}"


def say(words: str) -> None:
    """Progress."""
    print(words, flush=True)  # noqa: T201 - the command's output


def record(result: dict[str, Any], file: Path) -> None:
    """Add one line."""
    with file.open("a") as lines:
        lines.write(json.dumps(result) + "\n")
