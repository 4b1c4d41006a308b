"""Keep the worker processes alive, and take back what a dead or hung one held.

Never imports torch and never touches a pixel: a worker may die of either.
"""

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from time import monotonic

import structlog

from covidnet_node.config import Config
from covidnet_node.errors import RetryLater
from covidnet_node.journal.backoff import pause_after
from covidnet_node.journal.journal import Journal

log = structlog.get_logger()

WORDS = ("ready", "busy", "idle", "waiting")
"""What a worker may say."""
BEHIND = 5
"""Steps of niceness: the listener must answer within moments, whatever a worker computes."""
LOADING_S = 600.0
"""A worker that has not loaded its networks by then is killed."""
IDLE_S = 60.0
"""A worker without work that has not said so for this long hangs, and is killed."""
KILLING_S = 10.0
CHECK_S = 0.5
TROUBLE_S = 5.0
"""Before the next look after one that failed."""
FIRST_PAUSE = timedelta(seconds=1)
LONGEST_PAUSE = timedelta(seconds=60)
"""Between false starts."""
WORKER = "covidnet_node.service.analyzing"
"""The module that a worker process runs."""
STEADY_S = 60.0
"""A worker that lived this long was no false start."""


@dataclass(slots=True)
class Pulse:
    """What a worker last said, and when (monotonic seconds)."""

    ready: bool = False
    busy_with: str | None = None
    since: float = field(default_factory=monotonic)

    def hear(self, line: str) -> None:
        """Take one line of the worker's standard output; pass over what libraries print there."""
        word, _, case_id = line.strip().partition(" ")
        if word not in WORDS:
            return
        self.busy_with = case_id if word == "busy" else None
        self.ready = self.ready or word == "ready"
        self.since = monotonic()

    def overdue(self, deadline_s: float) -> bool:
        """Whether it has been silent too long for what it is doing."""
        silent = monotonic() - self.since
        if not self.ready:
            return silent > LOADING_S
        return silent > (IDLE_S if self.busy_with is None else deadline_s)


class Worker:
    """One worker process and the thread that listens to it."""

    def __init__(
        self, config: Config, owner: str, device: str, answered: Callable[[], None], module: str
    ) -> None:
        self.owner = owner
        self._answered = answered
        self.device = device
        self.pulse = Pulse()
        self.started = monotonic()
        self.process = subprocess.Popen(  # noqa: S603 - our own module, no shell
            [sys.executable, "-m", module, owner, device],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            errors="replace",
            # Ctrl-C at a terminal is for the node alone, which lets them finish.
            process_group=0,
        )
        with suppress(OSError):  # gone already
            os.setpriority(os.PRIO_PROCESS, self.process.pid, os.nice(0) + BEHIND)
        self._write(config.model_dump_json() + "\n")
        self._listener = threading.Thread(target=self._listen, name=f"{owner} pulse", daemon=True)
        self._listener.start()

    def wake(self) -> None:
        """Tell it that something may be due."""
        self._write("\n")

    def dismiss(self) -> None:
        """Ask it to finish what is in hand and leave."""
        if self.process.stdin and not self.process.stdin.closed:
            try:
                self.process.stdin.close()
            except BrokenPipeError:
                return

    def kill(self) -> bool:
        """End it now; False if the system has not let go of it yet (stuck in a driver, say)."""
        self.process.kill()
        try:
            self.process.wait(KILLING_S)
        except subprocess.TimeoutExpired:
            log.exception("worker_cannot_be_killed", owner=self.owner, alert=True)
            return False
        return True

    def close(self) -> None:
        """Let go of the pipes of a process that has ended."""
        self.dismiss()
        self._listener.join()
        if self.process.stdout:
            self.process.stdout.close()

    def _write(self, text: str) -> None:
        try:
            if self.process.stdin and not self.process.stdin.closed:
                self.process.stdin.write(text)
                self.process.stdin.flush()
        except (BrokenPipeError, ValueError):
            # It died, or is being dismissed; the supervisor sees to that.
            return

    def _listen(self) -> None:
        if self.process.stdout:
            for line in self.process.stdout:
                self.pulse.hear(line)
                if line.strip() == "idle":
                    self._answered()


class Supervisor(threading.Thread):
    """Starts the workers, restarts the dead, kills the hung, returns their cases."""

    def __init__(
        self,
        config: Config,
        journal: Journal,
        answered: Callable[[], None],
        worker: str = WORKER,
    ) -> None:
        super().__init__(name="supervisor", daemon=True)
        self._module = worker
        self._config = config
        self._journal = journal
        self._answered = answered
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._workers: dict[int, Worker | None] = {}
        self._false_starts: dict[int, int] = {}
        self._not_before: dict[int, float] = {}
        self._devices: list[str] = []

    @property
    def ready(self) -> bool:
        """Whether at least one worker has loaded its networks."""
        return any(worker.pulse.ready for worker in self._present())

    @property
    def processes(self) -> tuple[int, ...]:
        """Process ids of the living workers."""
        return tuple(worker.process.pid for worker in self._present())

    @property
    def owners(self) -> tuple[str, ...]:
        """Names under which the workers hold cases; a hung one is taken care of here."""
        return tuple(worker.owner for worker in self._present())

    def wake(self) -> None:
        """Tell every worker that an image was admitted."""
        for worker in self._present():
            worker.wake()

    def run(self) -> None:
        """Watch until told to stop."""
        # Here and not before: asking the driver may take a while, and the port must open.
        self._devices = devices(self._config)
        while not self._stopping.is_set():
            self._stopping.wait(CHECK_S if self._look_after_all() else TROUBLE_S)

    def stop(self, deadline_s: float) -> None:
        """Let the workers finish what is in hand; after `deadline_s` kill and take it back."""
        self._stopping.set()
        self.join()
        workers = self._present()
        for worker in workers:
            worker.dismiss()
        end = monotonic() + deadline_s
        for worker in workers:
            try:
                worker.process.wait(max(0.0, end - monotonic()))
            except subprocess.TimeoutExpired:
                log.warning("worker_killed_at_stop", owner=worker.owner)
                if not worker.kill():
                    continue
            worker.close()
            try:
                self._journal.release(worker.owner, _now(), crashed=False)
            except RetryLater as verdict:
                # The next start takes them up.
                log.warning("not_released", owner=worker.owner, reason=str(verdict))

    def _present(self) -> list[Worker]:
        with self._lock:
            return [worker for worker in self._workers.values() if worker is not None]

    def _look_after_all(self) -> bool:
        """Look after every slot; False if the journal or the system failed one of them."""
        well = True
        for slot, device in enumerate(self._devices):
            try:
                self._look_after(slot, device)
            except (RetryLater, OSError) as error:
                # Nothing is forgotten: a dead worker keeps its slot until its cases are released.
                log.warning("cannot_look_after_worker", slot=slot, reason=str(error), alert=True)
                well = False
        return well

    def _look_after(self, slot: int, device: str) -> None:
        worker = self._workers.get(slot)
        if worker is None:
            if monotonic() >= self._not_before.get(slot, 0.0):
                self._start(slot, device)
            return
        if worker.process.poll() is not None:
            self._bury(slot, worker, f"exit status {worker.process.returncode}")
        elif worker.pulse.overdue(self._config.analyze.deadline_s) and worker.kill():
            self._bury(slot, worker, "silent beyond its deadline")

    def _start(self, slot: int, device: str) -> None:
        # The start is part of the owner's name: a lease of an earlier life is not this one's.
        owner = f"{self._config.node.name}/{slot}/{_now():%Y%m%dT%H%M%S%f}"
        worker = Worker(self._config, owner, device, self._answered, self._module)
        with self._lock:
            self._workers[slot] = worker
        log.info("worker_started", owner=owner, device=device, pid=worker.process.pid)

    def _bury(self, slot: int, worker: Worker, cause: str) -> None:
        """A worker is gone: return its cases, counting the crash, and plan its successor."""
        worker.close()
        held = self._journal.release(worker.owner, _now(), crashed=True)
        with self._lock:
            self._workers[slot] = None
        lived = monotonic() - worker.started
        false_start = not worker.pulse.ready or (lived < STEADY_S and not held)
        self._false_starts[slot] = self._false_starts.get(slot, 0) + 1 if false_start else 0
        if false_start:
            wait = pause_after(self._false_starts[slot], FIRST_PAUSE, LONGEST_PAUSE, worker.owner)
            self._not_before[slot] = monotonic() + wait.total_seconds()
        log.error(
            "worker_died",
            owner=worker.owner,
            cause=cause,
            case_id=held[0].id if held else None,
            alert=True,
        )


def devices(config: Config) -> list[str]:
    """The device of each worker slot; "auto" is resolved by the worker, which knows torch."""
    wanted = config.analyze.device
    names = (gpus() or ["cpu"]) if wanted == "auto" else [wanted]
    count = config.analyze.workers or len(names)
    return [names[slot % len(names)] for slot in range(count)]


def gpus() -> list[str]:
    """The machine's NVIDIA GPUs, e.g. cuda:0, asked of the driver without importing torch."""
    try:
        listing = subprocess.run(
            ["nvidia-smi", "--list-gpus"],  # noqa: S607 - wherever the driver put it
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    found = [line for line in listing.stdout.splitlines() if line.startswith("GPU ")]
    return [f"cuda:{index}" for index in range(len(found))]


def _now() -> datetime:
    return datetime.now(UTC)
