"""The worker process: claim a case, look, judge, analyze, report, and journal the results.

One of the three places that decide. Under `serve` it is the only process that imports torch,
so a CUDA fault or a decoder's crash kills it and never the listener.

Standard input carries the configuration (one JSON line), then one empty line per wake-up; its
end means stop: finish what is in hand and leave. Standard output tells the supervisor "ready",
"busy <case id>", "idle" after it, and "waiting" at every look at an empty journal; a worker that
is silent for too long is killed.
"""

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import structlog

from covidnet_node.config import Analyze, Config
from covidnet_node.errors import BadConfig, RetryLater
from covidnet_node.journal.journal import Journal
from covidnet_node.journal.spool import Spool
from covidnet_node.service.answer import Analyst, Answerer
from covidnet_node.service.logs import configure_logs

log = structlog.get_logger()

EX_CONFIG = 78

OOM_SCORE = Path("/proc/self/oom_score_adj")
WORKERS_SCORE = "500"
"""Of 1000; the listener has 0, unless the unit says otherwise."""

POLL = timedelta(seconds=5)
"""How long a worker waits at most before it asks the journal by itself."""

OpenMedicine = Callable[[Analyze, str], Analyst]
"""Loads what answers, on the device that is named; raises BadConfig."""


class Inbox(threading.Thread):
    """Listens to the supervisor on standard input."""

    def __init__(self) -> None:
        super().__init__(name="inbox", daemon=True)
        self._wake = threading.Event()
        self.stopping = threading.Event()

    def run(self) -> None:
        """Turn each line into a wake-up and the end of input into a stop."""
        for _line in sys.stdin:
            self._wake.set()
        self.stopping.set()
        self._wake.set()

    def wait(self, seconds: float) -> None:
        """Return after a wake-up, a stop or `seconds`."""
        self._wake.wait(seconds)
        self._wake.clear()


def tell(word: str) -> None:
    """One line to the supervisor; nothing if it was killed, which ends standard input too."""
    try:
        sys.stdout.write(word + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes once more at the exit, and would fail aloud.
        with Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())


@contextmanager
def busy_with(case_id: str) -> Iterator[None]:
    """Tell the supervisor whose deadline is running, and put the case id on every log line."""
    tell(f"busy {case_id}")
    with structlog.contextvars.bound_contextvars(case_id=case_id):
        yield
    tell("idle")


def work(config: Config, owner: str, device: str, open_medicine: OpenMedicine) -> None:
    """Answer cases until standard input ends."""
    inbox = Inbox()
    inbox.start()
    spool = Spool(config.node.data / "spool")
    with Journal.open(config.node.data / "journal.db") as journal:
        medicine = open_medicine(config.analyze, device)
        answerer = Answerer(config, journal, spool, medicine, clock)
        log.info("worker_ready", owner=owner)
        tell("ready")
        work_until(journal, answerer, owner, config, inbox)


def clock() -> datetime:
    """The time of day, UTC."""
    return datetime.now(UTC)


def work_until(
    journal: Journal, answerer: Answerer, owner: str, config: Config, inbox: Inbox
) -> None:
    """Claim one case after the other; wait only when none is due."""
    lease = timedelta(seconds=2 * config.analyze.deadline_s)
    troubled = False
    while not inbox.stopping.is_set():
        worked = False
        try:
            if troubled:
                # What was in hand when the journal failed; not a crash of the image's.
                journal.release(owner, clock(), crashed=False)
            troubled = False
            worked = answer_next(journal, answerer, owner, lease)
        except RetryLater as verdict:
            log.warning("journal_not_available", reason=str(verdict))
            troubled = True
        if not worked:
            tell("waiting")
            inbox.wait(POLL.total_seconds())


def answer_next(journal: Journal, answerer: Answerer, owner: str, lease: timedelta) -> bool:
    """Claim and answer the next case; tell whether there was one. Raises RetryLater."""
    claims = journal.claim(owner, 1, lease, clock())
    for claim in claims:
        with busy_with(claim.case.id):
            answerer.answer(claim)
    return bool(claims)


def _die_first() -> None:
    """Where the machine runs out of memory, the system is to end a worker, not the listener."""
    with suppress(OSError):  # not on Linux
        OOM_SCORE.write_text(WORKERS_SCORE)


def main(arguments: list[str], open_medicine: OpenMedicine) -> None:
    """Entry of the worker process: `owner device`, configuration on standard input."""
    owner, device = arguments
    config = Config.model_validate_json(sys.stdin.readline())
    configure_logs(config.log)
    _die_first()
    try:
        work(config, owner, device, open_medicine)
    except BadConfig as error:
        # The weights changed under the running node; the supervisor tries again, ever slower.
        log.error("worker_cannot_start", error=str(error), alert=True)  # noqa: TRY400
        sys.exit(EX_CONFIG)


if __name__ == "__main__":
    # Here and not above: it loads torch, which nobody else who needs this loop may want.
    from covidnet_node.service.medicine import open_medicine

    main(sys.argv[1:], open_medicine)
