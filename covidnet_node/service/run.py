"""The life of the running node, from start to stop.

Start: journal, what an earlier life left behind, DICOM port, delivery, workers, HTTP. C-ECHO
answers before any network has loaded. Stop: the other way round: no new images, finish or
release what is in hand, close.
"""

import errno
import fcntl
import os
import signal
import stat
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from types import FrameType

import structlog

from covidnet_node.audit.trail import Trail, audit_trail
from covidnet_node.case import Reason
from covidnet_node.config import Config
from covidnet_node.errors import BadConfig, RetryLater
from covidnet_node.journal.examine import examine
from covidnet_node.journal.journal import Journal
from covidnet_node.journal.spool import Spool
from covidnet_node.models.manifest import load_manifest, weights_folder
from covidnet_node.private_file import OTHERS
from covidnet_node.receive.commitment import Reports
from covidnet_node.receive.scp import Receiver
from covidnet_node.service.committing import Committer, committers
from covidnet_node.service.delivering import Deliverer, wake_all
from covidnet_node.service.http import Health, HttpDoor, build_app
from covidnet_node.service.metrics import TrailCollector
from covidnet_node.service.notify import notify, watchdog_interval
from covidnet_node.service.schedule import Schedule, build_schedule
from covidnet_node.service.workers import WORKER, Supervisor

log = structlog.get_logger()

JOURNAL_S = 10.0
"""For looking the journal over at the start, and for another program to let go of it."""
STOP_RECEIVING_S = 10.0
STOP_WORKING_S = 60.0
STOP_DELIVERING_S = 15.0


@dataclass(frozen=True, slots=True)
class Running:
    """The parts of a started node that its main thread watches."""

    receiver: Receiver
    supervisor: Supervisor
    http: HttpDoor
    journal: Journal
    deliverers: tuple[Deliverer, ...]
    committers: tuple[Committer, ...]
    trail: Trail
    schedule: Schedule

    def healthy(self) -> bool:
        """Whether everything that must never stop is still going."""
        threads = (self.supervisor, *self.deliverers, *self.committers)
        open_doors = self.receiver.listening and self.http.open
        if not open_doors or not all(thread.is_alive() for thread in threads):
            return False
        if not self.trail.alive or not self.schedule.alive:
            return False
        try:
            self.journal.counts(datetime.now(UTC))
        except RetryLater:
            return False
        return True


def serve(config: Config, worker: str = WORKER) -> None:
    """Run until SIGTERM or SIGINT; raises BadConfig or RetryLater when it cannot start.

    `worker` is the module that worker processes run.
    """
    stop = threading.Event()
    # Whatever a library writes, into whatever folder, is for the service alone.
    os.umask(0o077)

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    with running(config, worker) as node:
        notify("READY=1")
        watch(node, stop)
        notify("STOPPING=1")
        log.info("stopping")
    log.info("stopped")


def watch(node: Running, stop: threading.Event) -> None:
    """Feed systemd's watchdog as long as the node is healthy, until told to stop."""
    interval = watchdog_interval() or 10.0
    announced = False
    while not stop.wait(interval if announced else min(1.0, interval)):
        if node.supervisor.ready and not announced:
            log.info("ready")
            announced = True
        if node.healthy():
            notify("WATCHDOG=1")
        else:
            log.error("not_healthy", alert=True)


@contextmanager
def running(config: Config, worker: str = WORKER) -> Iterator[Running]:
    """A started node; stopped in order when the block is left. Raises BadConfig."""
    weights = load_manifest(weights_folder(config.analyze.weights))
    log.info(
        "weights",
        version=weights.algorithm.version,
        digest=weights.algorithm.digest,
        notice=weights.algorithm.notice,
        licence=weights.licence,
    )
    with ExitStack() as parts:
        parts.enter_context(alone(prepare_data(config.node.data)))
        spool = Spool(config.node.data / "spool")
        trail = parts.enter_context(audit_trail(config))
        check_journal(config.node.data / "journal.db")
        journal = parts.enter_context(Journal.open(config.node.data / "journal.db"))
        recover(config, journal)

        reports = Reports(journal, config.destination, _now)
        committing = committers(config, journal, reports)
        reports.noted = stored = wake_all(committing)
        deliverers = tuple(
            Deliverer(config, each, journal, trail.record, stored) for each in config.destination
        )
        for committer in committing:
            committer.owed_again = wake_all(deliverers)
        supervisor = Supervisor(config, journal, wake_all(deliverers), worker)
        receiver = Receiver(
            config,
            journal,
            spool,
            admitted=supervisor.wake,
            record=trail.record,
            reports=reports if reports.expected else None,
        )

        receiver.start()
        # For a start that fails half-way; a node that ran has closed it first of all, see below.
        parts.callback(receiver.stop, STOP_RECEIVING_S)
        for loop in (*deliverers, *committing):
            loop.start()
        parts.callback(stop_delivering, (*deliverers, *committing))
        supervisor.start()
        parts.callback(supervisor.stop, STOP_WORKING_S)

        health = Health(lambda: receiver.listening, lambda: supervisor.ready)
        app = build_app(config, journal, health, TrailCollector(trail))
        http = HttpDoor(config, app, trail.record)
        http.start()
        parts.callback(http.stop)
        log.info("http_open", address=config.http.address, port=http.port)

        schedule = build_schedule(
            config, journal, spool, deliverers, supervisor.wake, lambda: supervisor.owners
        )
        schedule.start()
        parts.callback(schedule.shutdown)
        # Registered last, so run first: nothing new comes in while the rest finishes.
        parts.callback(receiver.stop, STOP_RECEIVING_S)
        yield Running(receiver, supervisor, http, journal, deliverers, committing, trail, schedule)


def prepare_data(folder: Path) -> Path:
    """Make the data folder, private to the service.

    Raises BadConfig when that cannot be, RetryLater when only room is missing.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if stat.S_IMODE(folder.stat().st_mode) & OTHERS:
            folder.chmod(0o700)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise RetryLater(Reason.NO_SPACE, f"{folder}: {error.strerror}") from error
        remedy = f"{folder} cannot be written ({error.strerror}); create it or choose another"
        raise BadConfig("node.toml", "node.data", remedy) from error
    return folder


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold the data folder: a second node would take images from the first one's workers.

    Raises RetryLater if another has it. The system lets go of it with the process, however
    that ends.
    """
    held = os.open(folder / "node.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(held)
        words = f"another node works on {folder}; stop it, or give this one a folder of its own"
        raise RetryLater(Reason.CANNOT_STORE, words) from error
    except OSError as error:
        os.close(held)
        remedy = f"{folder} cannot be locked ({error.strerror}); it must lie on a local disk"
        raise BadConfig("node.toml", "node.data", remedy) from error
    try:
        yield
    finally:
        os.close(held)


def check_journal(file: Path) -> None:
    """Never work on with a damaged journal: raises BadConfig; RetryLater if it is only locked."""
    found = examine(file, JOURNAL_S)
    if not found.sound and found.passing:
        raise RetryLater(Reason.CANNOT_STORE, found.words)
    if not found.sound:
        raise BadConfig("node.toml", "node.data", found.words)


def recover(config: Config, journal: Journal) -> None:
    """Take up what workers of an earlier life held, and await no more than is asked for."""
    for case in journal.release(f"{config.node.name}/", _now(), crashed=False):
        log.info("taken_up_again", case_id=case.id)
    configured = {destination.name for destination in config.destination}
    for name in sorted(journal.destinations_owed() - configured):
        log.error("results_owed_to_a_destination_not_in_node.toml", destination=name, alert=True)
    asked = {each.name for each in config.destination if each.commitment.ask != "off"}
    waived = journal.waive_commitments(asked, _now())
    if waived:
        log.warning("commitment_no_longer_asked_for", results=waived)


def stop_delivering(loops: tuple[Deliverer | Committer, ...]) -> None:
    """Let each loop finish the object on the wire; what is not sent stays pending.

    All of them share one deadline: together they must be done before systemd's patience ends.
    """
    for loop in loops:
        loop.stop()
    until = monotonic() + STOP_DELIVERING_S
    for loop in loops:
        loop.join(max(0.0, until - monotonic()))


def _now() -> datetime:
    return datetime.now(UTC)
