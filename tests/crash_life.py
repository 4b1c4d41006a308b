"""One image's whole life in one process, which ends itself at the n-th durable step.

`python -m tests.crash_life`, one request a line on standard input. It loads everything once and
forks for each life: received over a real connection, admitted, claimed, answered (by the torture's
stand-in, without networks), delivered over a real connection.

A durable step is a fsync or rename of the spool's, or a commit of the journal's: a life may end
before and after each commit, and after each of the others. With `cut` it ends as by a power cut:
files and names of the spool that no fsync has made durable are taken away first.
"""

import gc
import json
import os
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite

from covidnet_node.config import Config
from covidnet_node.journal.journal import Journal
from covidnet_node.journal.spool import Spool
from covidnet_node.receive.scp import Receiver
from covidnet_node.service.answer import Answerer
from covidnet_node.service.delivering import Deliverer
from covidnet_node.service.logs import configure_logs
from covidnet_node.service.run import check_journal, recover
from tests.raw_client import ASSOCIATE_AC, RawClient
from torture.images import Image
from torture.standin import StandIn

KILLED = 9
LEASE = timedelta(minutes=1)
ROUNDS = 50


@dataclass
class Disk:
    """What a power cut would leave of a folder: bytes and names that were fsynced."""

    root: Path
    synced: set[int] = field(default_factory=set)
    """Inodes whose bytes are on the disk."""
    names: set[Path] = field(default_factory=set)
    """Entries of folders that are on the disk."""

    def __post_init__(self) -> None:
        for path in self.root.rglob("*"):
            self.synced.add(path.stat().st_ino)
            self.names.add(path)

    def note_fsync(self, descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        self.synced.add(os.fstat(descriptor).st_ino)
        if path.is_dir():
            self.names = {name for name in self.names if name.parent != path}
            self.names.update(path.iterdir())

    def cut_power(self) -> None:
        """Take away what is not durable: deepest first."""
        for path in sorted(self.root.rglob("*"), key=lambda path: -len(path.parts)):
            above = [path, *path.parents]
            kept = all(each in self.names for each in above[: above.index(self.root)])
            if path.is_dir():
                if not kept:
                    for child in path.iterdir():
                        child.unlink()
                    path.rmdir()
            elif not kept or path.stat().st_ino not in self.synced:
                path.unlink()


@dataclass
class Steps:
    """Counts durable steps, and ends the process at one of them."""

    last: int
    disk: Disk | None
    count: int = 0
    lock: Any = field(default_factory=threading.Lock)

    def step(self) -> None:
        with self.lock:
            self.count += 1
            if self.count == self.last:
                if self.disk is not None:
                    self.disk.cut_power()
                os._exit(KILLED)

    def watch(self) -> None:
        """From now on."""
        fsync, rename, commit = os.fsync, os.rename, SQLiteDialect_pysqlite.do_commit
        changes: dict[int, int] = {}

        def counted_fsync(descriptor: int) -> None:
            fsync(descriptor)
            if self.disk is not None:
                self.disk.note_fsync(descriptor)
            self.step()

        def counted_rename(old: Any, new: Any) -> None:
            rename(old, new)
            self.step()

        def counted_commit(dialect: Any, connection: Any) -> None:
            total = connection.dbapi_connection.total_changes
            writes = changes.get(id(connection), 0) != total
            changes[id(connection)] = total
            if writes:
                self.step()
            commit(dialect, connection)
            if writes:
                self.step()

        os.fsync, os.rename = counted_fsync, counted_rename
        SQLiteDialect_pysqlite.do_commit = counted_commit  # type: ignore[method-assign]


def live(folder: Path, pacs_port: int, image: Image, promise: Path) -> None:
    """From the start of a node to an image that has come to rest."""
    config = Config.model_validate(
        {
            "node": {"data": str(folder)},
            "receive": {"address": "127.0.0.1", "port": 0, "low_disk_mib": 0},
            "destination": [
                {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": pacs_port}
            ],
            "log": {"level": "ERROR"},
        }
    )
    configure_logs(config.log)
    check_journal(folder / "journal.db")
    spool = Spool(folder / "spool")
    with Journal.open(folder / "journal.db") as journal:
        recover(config, journal)
        if not promise.exists():
            receive(config, journal, spool, image)
            promise.write_text("0000")
        answer(config, journal, spool)
        deliver(config, journal)


def receive(config: Config, journal: Journal, spool: Spool, image: Image) -> None:
    receiver = Receiver(config, journal, spool)
    receiver.start()
    with RawClient(receiver.address) as client:
        assert client.associate((image.sop_class, (image.syntax,))) == ASSOCIATE_AC
        assert client.store(image.sop_class, image.uid, image.data) == 0
        client.release()
    receiver.stop(5)


def answer(config: Config, journal: Journal, spool: Spool) -> None:
    answerer = Answerer(config, journal, spool, StandIn(), now)
    for _ in range(ROUNDS):
        claims = journal.claim(f"{config.node.name}/0/test", 1, LEASE, now())
        if not claims:
            return
        answerer.answer(claims[0])


def deliver(config: Config, journal: Journal) -> None:
    loop = Deliverer(config, config.destination[0], journal)
    for _ in range(ROUNDS):
        if not loop._deliver_due(now()):
            return


def now() -> datetime:
    return datetime.now(UTC)


def in_a_fork(life: Callable[[], None]) -> int:
    """Exit status of a child that runs it."""
    child = os.fork()
    if child == 0:
        try:
            life()
        except BaseException:  # noqa: BLE001 - a fork must not come back as a second caller
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def serve_request(request: dict[str, Any]) -> int:
    folder, promise = Path(request["folder"]), Path(request["promise"])
    image = Image(0, *(request[key] for key in ("sop_class", "syntax", "uid", "study")), b"")
    data = Path(request["data"]).read_bytes()
    image = Image(0, image.sop_class, image.syntax, image.uid, image.study, data)

    def life() -> None:
        disk = Disk(folder / "spool") if request["cut"] else None
        steps = Steps(request["last"], disk)
        steps.watch()
        live(folder, request["pacs"], image, promise)
        promise.with_suffix(".steps").write_text(str(steps.count))

    return in_a_fork(life)


if __name__ == "__main__":
    gc.freeze()  # a collection in a fork would copy every page
    for line in sys.stdin:
        print(serve_request(json.loads(line)), flush=True)  # noqa: T201 - the answer
