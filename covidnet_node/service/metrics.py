"""Prometheus metrics, each scraped from the journal at the moment of asking."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from covidnet_node.audit.trail import Trail
from covidnet_node.certificates import Expiry, expiries
from covidnet_node.config import Config
from covidnet_node.errors import RetryLater
from covidnet_node.journal.journal import Journal


class JournalCollector(Collector):
    """Turns the journal's counts into metric families; holds no state of its own."""

    def __init__(
        self, journal: Journal, listening: Callable[[], bool], ready: Callable[[], bool]
    ) -> None:
        self._journal = journal
        self._listening = listening
        self._ready = ready

    def collect(self) -> Iterator[Metric]:
        """Every family; those of the journal are absent while it does not answer."""
        yield GaugeMetricFamily(
            "covidnet_listening", "Whether the DICOM port is open", float(self._listening())
        )
        yield GaugeMetricFamily(
            "covidnet_ready", "Whether a worker has loaded the networks", float(self._ready())
        )
        try:
            yield from self._from_journal(datetime.now(UTC))
        except RetryLater:
            yield GaugeMetricFamily("covidnet_journal_up", "Whether the journal answers", 0.0)

    def _from_journal(self, now: datetime) -> Iterator[Metric]:
        cases = GaugeMetricFamily("covidnet_cases", "Cases by state", labels=["state"])
        oldest = GaugeMetricFamily(
            "covidnet_oldest_case_seconds", "Age of the oldest case by state", labels=["state"]
        )
        for row in self._journal.counts(now):
            cases.add_metric([row.state.value], row.count)
            age = 0.0 if row.oldest is None else row.oldest.total_seconds()
            oldest.add_metric([row.state.value], age)
        counters = CounterMetricFamily(
            "covidnet_events",
            "What was counted at the door, and left out of answers",
            labels=["what"],
        )
        for name, count in self._journal.counters().items():
            counters.add_metric([name], count)
        rejections = CounterMetricFamily(
            "covidnet_rejections", "Rejected associations and contexts", labels=["what"]
        )
        totals: dict[str, int] = {}
        for rejection in self._journal.rejections():
            totals[rejection.what] = totals.get(rejection.what, 0) + rejection.count
        for what, total in totals.items():
            rejections.add_metric([what], total)
        owed = GaugeMetricFamily(
            "covidnet_owed_results", "Results not yet delivered", labels=["destination"]
        )
        uncommitted = GaugeMetricFamily(
            "covidnet_uncommitted_results",
            "Results delivered and not yet committed to",
            labels=["destination"],
        )
        longest = GaugeMetricFamily(
            "covidnet_oldest_owed_seconds",
            "Age of the oldest result not yet delivered, or not yet committed to",
            labels=["destination"],
        )
        for debt in self._journal.backlog():
            owed.add_metric([debt.destination], debt.pending)
            uncommitted.add_metric([debt.destination], debt.uncommitted)
            age = max(0.0, (now - debt.owed_since).total_seconds())
            longest.add_metric([debt.destination], age)
        yield owed
        yield uncommitted
        yield longest
        yield GaugeMetricFamily("covidnet_journal_up", "Whether the journal answers", 1.0)
        yield cases
        yield oldest
        yield counters
        yield rejections


class TrailCollector(Collector):
    """What waits to leave the audit trail, and what it has lost."""

    def __init__(self, trail: Trail) -> None:
        self._trail = trail

    def collect(self) -> Iterator[Metric]:
        """Nothing of either without an audit trail."""
        waiting = GaugeMetricFamily(
            "covidnet_audit_waiting_bytes", "Audit messages not yet brought out", labels=["way"]
        )
        for way, size in self._trail.waiting.items():
            waiting.add_metric([way], size)
        yield waiting
        yield CounterMetricFamily(
            "covidnet_audit_lost", "Audit messages that could not be recorded", self._trail.lost
        )


class CertificateCollector(Collector):
    """Reads at each scrape when the certificates in node.toml run out."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def collect(self) -> Iterator[Metric]:
        """Days left of each file; a file that cannot be read counts as run out."""
        days = GaugeMetricFamily(
            "covidnet_certificate_expiry_days",
            "Days until a certificate runs out; below 0: it has, or cannot be read",
            labels=["which"],
        )
        now = datetime.now(UTC)
        for found in expiries(self._config, now):
            if isinstance(found, Expiry):
                days.add_metric([found.which], round(found.days(now), 2))
            else:
                days.add_metric([found.key], -1.0)
        yield days
