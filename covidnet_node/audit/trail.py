"""Takes events down at once, on disk, and brings them out in threads of its own.

Whoever records waits for one write to a local file and for nothing else. What cannot be taken down,
because the disk or the backlog is full, is counted, told in the log, and told in the trail itself
as soon as there is room again.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from time import monotonic

import structlog

from covidnet_node.audit.backlog import Backlog
from covidnet_node.audit.events import (
    Activity,
    Alert,
    AlertKind,
    Event,
    Login,
    Transfer,
)
from covidnet_node.audit.messages import Source, message
from covidnet_node.audit.outlets import FileOutlet, Outlet, SyslogOutlet
from covidnet_node.audit.repeats import Repeats
from covidnet_node.config import Config
from covidnet_node.errors import BadConfig

log = structlog.get_logger()

MIB = 1024 * 1024
FAILURES_SHARE = 0.5
"""Of the backlog: strangers and failures may not take the room of images that moved."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0
IDLE_S = 5.0
LEAVING_S = 5.0


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Courier(threading.Thread):
    """Brings one backlog out through its outlet."""

    def __init__(self, outlet: Outlet, backlog: Backlog, tidy: Callable[[], None]) -> None:
        super().__init__(name=f"audit to {outlet.name}", daemon=True)
        self.outlet = outlet
        self.backlog = backlog
        self._tidy = tidy
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._failures = 0

    @property
    def stuck(self) -> bool:
        """Whether the last attempt failed."""
        return self._failures > 0

    def wake(self) -> None:
        """Something waits."""
        self._wake.set()

    def stop(self) -> None:
        """Bring out what waits, if that can be done at once, and leave."""
        self._stopping.set()
        self._wake.set()

    def run(self) -> None:
        """Take the oldest, bring it out, and again; after a failure wait."""
        while True:
            leaving = self._stopping.is_set()
            self._wake.clear()
            arrived = self._bring_out()
            if leaving and (self.stuck or not arrived):
                break
            if self.stuck:
                pause = min(FIRST_PAUSE_S * 2 ** min(self._failures - 1, 10), LONGEST_PAUSE_S)
                self._stopping.wait(pause)
            elif not arrived:
                self._wake.wait(IDLE_S)
            self._tidy()
        self.outlet.close()
        self.backlog.close()

    def _bring_out(self) -> bool:
        """One segment; tells whether there was one and it arrived."""
        try:
            segment = self.backlog.take()
            if segment is None:
                self._recovered()
                return False
            self.outlet.deliver(segment.records)
            self.backlog.drop(segment)
        except (OSError, ValueError, BadConfig) as error:
            self._failed(error)
            return False
        self._recovered()
        return True

    def _failed(self, error: Exception) -> None:
        self._failures += 1
        if self._failures == 1:
            # Words of this machine: what syslog servers say is not read.
            log.error("audit_does_not_get_out", outlet=self.outlet.name, why=str(error), alert=True)
        try:
            self.backlog.sync()
        except OSError as worse:
            log.warning("audit_not_on_disk", why=worse.strerror)

    def _recovered(self) -> None:
        if self._failures:
            log.info("audit_gets_out_again", outlet=self.outlet.name)
        self._failures = 0


@dataclass(slots=True)
class _Gap:
    since: datetime
    count: int = 0


class Trail:
    """The audit trail of a running node."""

    def __init__(
        self,
        source: Source,
        ways: Sequence[tuple[Outlet, Backlog]],
        clock: Callable[[], datetime] = _utc_now,
    ) -> None:
        self._source = source
        self._clock = clock
        self._couriers = tuple(Courier(outlet, backlog, self.tidy) for outlet, backlog in ways)
        self._repeats = Repeats()
        self._lock = threading.Lock()
        self._gaps: dict[str, _Gap] = {}
        self._lost = 0

    @property
    def lost(self) -> int:
        """Messages that could not be taken down since the start."""
        return self._lost

    @property
    def waiting(self) -> dict[str, int]:
        """Bytes that wait, by outlet."""
        return {courier.outlet.name: courier.backlog.size for courier in self._couriers}

    @property
    def alive(self) -> bool:
        """Whether everything that brings messages out is still going."""
        return all(courier.is_alive() for courier in self._couriers)

    def start(self) -> None:
        """Begin to bring messages out."""
        for courier in self._couriers:
            courier.start()

    def stop(self, patience_s: float = LEAVING_S) -> None:
        """Bring out what goes at once; the rest waits on disk for the next start."""
        self._tell_over(float("inf"))
        for courier in self._couriers:
            courier.stop()
        for courier in self._couriers:
            courier.join(patience_s)

    def record(self, event: Event) -> None:
        """Take an event down; of equal alerts within a minute the first, then their number."""
        match event:
            case Alert(kind=kind, peer=peer):
                address = peer.address if peer else ""
                if not self._repeats.passes((kind, address), event, monotonic()):
                    return
            case Login(address=address):
                if not self._repeats.passes(("login", address), event, monotonic()):
                    return
        self._write(event)

    def tidy(self) -> None:
        """Tell of the alerts held back, and of gaps, when it is time."""
        self._tell_over(monotonic())
        for courier in self._couriers:
            self._close_gap(courier)

    def _tell_over(self, now: float) -> None:
        for event, more in self._repeats.over(now):
            if isinstance(event, Alert | Login):
                self._write(replace(event, words=f"{event.words} ({more} more within a minute)"))

    def _write(self, event: Event) -> None:
        now = self._clock()
        failed = isinstance(event, Alert | Login) or (isinstance(event, Transfer) and event.failure)
        share = FAILURES_SHARE if failed else 1.0
        for courier in self._couriers:
            self._close_gap(courier)
            if self._put(courier, event, now, share):
                courier.wake()
            else:
                self._open_gap(courier, now)

    def _put(self, courier: Courier, event: Event, now: datetime, share: float) -> bool:
        warning = isinstance(event, Alert | Login)
        text = message(event, self._source, now)
        return courier.backlog.append(courier.outlet.form(text, now, warning=warning), share)

    def _open_gap(self, courier: Courier, now: datetime) -> None:
        with self._lock:
            self._lost += 1
            fresh = courier.outlet.name not in self._gaps
            gap = self._gaps.setdefault(courier.outlet.name, _Gap(now))
            gap.count += 1
        if fresh:
            log.error("audit_messages_lost", outlet=courier.outlet.name, alert=True)

    def _close_gap(self, courier: Courier) -> None:
        """Say in the trail what is missing in it, once there is room for that."""
        with self._lock:
            gap = self._gaps.get(courier.outlet.name)
            if gap is None:
                return
            words = f"{gap.count} messages since {gap.since:%Y-%m-%dT%H:%M:%SZ} were not recorded"
            alert = Alert(AlertKind.AUDIT_STOPPED, None, words)
            if self._put(courier, alert, self._clock(), FAILURES_SHARE):
                del self._gaps[courier.outlet.name]
                courier.wake()


@contextmanager
def audit_trail(config: Config) -> Iterator[Trail]:
    """The trail that node.toml asks for, with the node's start and stop in it; raises BadConfig.

    Without [audit] it takes nothing down.
    """
    trail = Trail(_source(config), _ways(config))
    _tell_of_leftovers(config)
    trail.start()
    trail.record(Activity(started=True))
    try:
        yield trail
    finally:
        trail.record(Activity(started=False))
        trail.stop()


def outlets_of(config: Config) -> list[Outlet]:
    """The ways out that node.toml names; raises BadConfig for certificates of no use."""
    settings = config.audit
    outlets: list[Outlet] = []
    if settings.file is not None:
        outlets.append(FileOutlet(settings.file))
    if settings.syslog is not None:
        outlets.append(SyslogOutlet(settings, _source(config)))
    return outlets


def _ways(config: Config) -> list[tuple[Outlet, Backlog]]:
    folder = config.node.data / "audit"
    most = config.audit.backlog_mib * MIB
    try:
        return [(each, Backlog(folder / each.name, most)) for each in outlets_of(config)]
    except OSError as error:
        remedy = f"{folder} cannot be written ({error.strerror})"
        raise BadConfig("node.toml", "node.data", remedy) from error


def _tell_of_leftovers(config: Config) -> None:
    """Messages wait for a way that node.toml no longer names: nobody else would notice."""
    ways = {outlet.name for outlet in outlets_of(config)}
    left = {path.parent.name for path in (config.node.data / "audit").glob("*/*.messages")}
    for name in sorted(left - ways):
        log.error("audit_messages_wait_for_a_way_not_in_node.toml", outlet=name, alert=True)


def _source(config: Config) -> Source:
    return Source(config.node.name, config.node.ae_title, config.audit.site)
