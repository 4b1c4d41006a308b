"""The node under torture: a real process, started, killed, stopped, filled up and locked out."""

import contextlib
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import psutil

from tests.node import NodeProcess, wait_until
from torture.clock import CLOCK_FILE
from torture.serve import EX_UNAVAILABLE, STANDIN

WorkerKind = Literal["real", "stand-in"]
LISTENS_S = 120.0
STOPS_S = 150.0
FULL_S = 1.5
SMALL_FILE = 4096
"""RLIMIT_FSIZE that stands for a full disk where no small file system can be mounted."""


@dataclass(slots=True)
class Sample:
    """What one life of the listening process held at one moment."""

    age: float
    rss_mib: float
    threads: int
    files: int


@dataclass(slots=True)
class Life:
    """From listening to the end, POSIX seconds."""

    up: float
    down: float = 0.0
    samples: list[Sample] = field(default_factory=list)


class TorturedNode(NodeProcess):
    """`covidnet-node serve`, or the same with the stand-in worker."""

    def __init__(self, folder: Path, pacs_port: int, worker: WorkerKind, disk_mib: int) -> None:
        self.worker = worker
        self.lives: list[Life] = []
        self.refused_starts = 0
        """Starts that ended with "not now" (69) because of a fault in force."""
        self.mounted = mount_small(folder / "disk", disk_mib)
        self.clock = folder / "clock"
        destination = {
            "name": "pacs",
            "ae_title": "TORTUREPACS",
            "host": "127.0.0.1",
            "port": pacs_port,
            "connect_timeout_s": 3,
            "response_timeout_s": 4,
        }
        super().__init__(
            folder,
            [destination],
            node={"data": str(folder / "disk" / "data")},
            receive={"low_disk_mib": 0, "request_timeout_s": 3, "network_timeout_s": 10},
            analyze={"device": "cpu", "workers": 1, "deadline_s": 120 if worker == "real" else 20},
            deliver={"first_pause_s": 0.2, "longest_pause_s": 3.0},
            retention={"done_days": 0.003, "parked_days": 0.003},
        )
        self.data = folder / "disk" / "data"

    def launch(self) -> None:
        """Start the process; do not wait for anything."""
        real = ["covidnet_node", "serve", "--config", str(self.config)]
        words = real if self.worker == "real" else ["torture.serve", str(self.config)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *words],
                stderr=log,
                env=os.environ | {"OMP_NUM_THREADS": "1", CLOCK_FILE: str(self.clock)},
            )

    def start(self, *, ready: bool = False) -> "TorturedNode":
        """Launch until it listens: what ends with "not now" is started again, as systemd would."""
        self.launch()
        wait_until(self._listens, LISTENS_S, f"the node to listen; see {self.log}")
        self.lives.append(Life(up=time.time()))
        if ready:
            wait_until(lambda: self.answers("/readyz"), LISTENS_S, "the node to be ready")
        return self

    def _listens(self) -> bool:
        assert self.process is not None
        if self.process.poll() == EX_UNAVAILABLE:
            self.refused_starts += 1
            self.launch()
        return self.answers("/healthz")

    def end(self, number: int) -> int:
        """Signal the process, wait for its end, note it; its exit status."""
        assert self.process is not None
        self.lives[-1].down = time.time()
        self.process.send_signal(number)
        return self.process.wait(STOPS_S)

    def workers(self) -> list[psutil.Process]:
        """The worker processes of this life."""
        assert self.process is not None
        name = STANDIN if self.worker == "stand-in" else "covidnet_node.service.analyzing"
        try:
            children = psutil.Process(self.process.pid).children()
            return [child for child in children if name in child.cmdline()]
        except psutil.Error:
            return []

    def sample(self) -> None:
        """Note what the listening process holds now."""
        life, process = self.lives[-1], self.process
        if process is None or life.down:
            return
        with contextlib.suppress(psutil.Error):
            seen = psutil.Process(process.pid)
            rss = seen.memory_info().rss / 2**20
            age = time.time() - life.up
            life.samples.append(Sample(age, rss, seen.num_threads(), seen.num_fds()))

    def unfinished(self) -> int:
        """Cases that still await something, read beside the running node."""
        query = "SELECT count(*) FROM cases WHERE state IN ('admitted', 'reported')"
        with self._database() as database:
            return int(database.execute(query).fetchone()[0])

    def counted(self) -> dict[str, int]:
        """Cases by state, and by reason if parked."""
        query = (
            "SELECT CASE state WHEN 'parked' THEN state || ': ' || park_reason ELSE state END, "
            "count(*) FROM cases GROUP BY 1"
        )
        with self._database() as database:
            return dict(database.execute(query).fetchall())

    def owed(self) -> set[str]:
        """SOP instances that the journal has ever owed to the PACS, in the class they have now."""
        query = (
            "SELECT sop_instance_uid FROM deliveries JOIN results ON results.id = result_id "
            "WHERE retired_at IS NULL"
        )
        with self._database() as database:
            return {str(uid) for (uid,) in database.execute(query)}

    def without_heatmap(self) -> int:
        """Cases with probabilities and no heatmap beside the report."""
        query = (
            "SELECT count(*) FROM cases WHERE outcome IN ('analyzed', 'inconclusive') AND NOT "
            "EXISTS (SELECT 1 FROM results WHERE case_id = cases.id AND kind = 'heatmap')"
        )
        with self._database() as database:
            return int(database.execute(query).fetchone()[0])

    @contextlib.contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        database = sqlite3.connect(self.data / "journal.db", isolation_level=None, timeout=30)
        try:
            yield database
        finally:
            database.close()

    # Faults of its surroundings

    def lock_journal(self, seconds: float) -> None:
        """Hold the write lock as another program might."""
        with self._database() as database:
            database.execute("BEGIN EXCLUSIVE")
            time.sleep(seconds)
            database.execute("ROLLBACK")

    def fill_disk(self) -> None:
        """Leave no room for a while: on the small file system, else by a limit on file sizes."""
        if self.mounted:
            ballast = self.folder / "disk" / "ballast"
            with ballast.open("wb") as file:
                take_all(file.fileno())
            time.sleep(FULL_S)
            ballast.unlink()
            return
        pids = [each.pid for each in self.workers()]
        pids += [self.process.pid] if self.process else []
        with contextlib.suppress(ProcessLookupError):
            for pid in pids:
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (SMALL_FILE, resource.RLIM_INFINITY))
            time.sleep(FULL_S)
        free = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                resource.prlimit(pid, resource.RLIMIT_FSIZE, free)

    def jump(self, seconds: float, lasting: float) -> None:
        """Make the clock wrong for a while (stand-in only)."""
        self.clock.write_text(str(seconds))
        time.sleep(lasting)
        self.clock.unlink()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        if self.mounted:
            subprocess.run(["umount", "-l", str(self.folder / "disk")], check=False)


def take_all(descriptor: int) -> None:
    """Make a file take all the room that is left, to the last page."""
    size, piece = 0, 2**30
    while piece >= 4096:
        try:
            os.posix_fallocate(descriptor, size, piece)
        except OSError:
            piece //= 2
        else:
            size += piece


def mount_small(folder: Path, mib: int) -> bool:
    """Mount a small file system there, if this user may."""
    folder.mkdir(parents=True)
    if os.geteuid() != 0:
        return False
    words = ["mount", "-t", "tmpfs", "-o", f"size={mib}m,mode=0700", "tmpfs", str(folder)]
    return subprocess.run(words, check=False, capture_output=True).returncode == 0


def hang(process: psutil.Process) -> None:
    """SIGSTOP: it neither works nor dies."""
    with contextlib.suppress(psutil.Error):
        process.suspend()


def slay(process: psutil.Process) -> bool:
    """SIGKILL, and wait; false if it was gone already."""
    try:
        process.send_signal(signal.SIGKILL)
        process.wait(30)
    except psutil.Error:
        return False
    return True


class Watcher(threading.Thread):
    """Samples the node, counts the images in flight, and slows the stream when there are many."""

    def __init__(
        self, node: TorturedNode, in_flight: Callable[[], int], free: threading.Event, most: int
    ) -> None:
        super().__init__(daemon=True)
        self._node = node
        self._in_flight = in_flight
        self._free = free
        self._most = most
        self._stopping = threading.Event()
        self.most_in_flight = 0

    def run(self) -> None:
        """Every two seconds."""
        while not self._stopping.wait(2.0):
            self._node.sample()
            flying = self._in_flight()
            self.most_in_flight = max(self.most_in_flight, flying)
            if flying > self._most:
                self._free.clear()
            else:
                self._free.set()

    def stop(self) -> None:
        """End the thread."""
        self._stopping.set()
        self.join()
