"""What is periodic: lease recovery, retention and sweeping, heartbeats, certificates."""

from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime, timedelta

import structlog
from apscheduler.schedulers.background import BackgroundScheduler

from covidnet_node.case import Reason
from covidnet_node.certificates import SOON_DAYS, VERY_SOON_DAYS, expiries
from covidnet_node.config import Config, Retention
from covidnet_node.errors import BadConfig, RetryLater
from covidnet_node.journal.journal import Journal
from covidnet_node.journal.spool import Spool
from covidnet_node.journal.transitions import IllegalTransition
from covidnet_node.service.delivering import Deliverer

log = structlog.get_logger()

RECOVERY_S = 30
RETENTION_S = 3600
HEARTBEAT_S = 30
CERTIFICATES_S = 24 * 3600
LEFTOVER_AGE = timedelta(minutes=5)
"""A younger file may still be on its way to its row."""
MOST_GIVEN_UP = 1000
"""Results of one removed destination given up in one round."""


class Schedule(BackgroundScheduler):  # type: ignore[misc]  # it has no types
    """The periodic duties, in a thread of their own."""

    @property
    def alive(self) -> bool:
        """Whether that thread is still going."""
        return bool(self.running) and self._thread.is_alive()


def build_schedule(
    config: Config,
    journal: Journal,
    spool: Spool,
    deliverers: Sequence[Deliverer],
    wake_workers: Callable[[], None],
    living: Callable[[], Collection[str]] = tuple,
) -> Schedule:
    """A scheduler with every periodic duty, not yet started; a missed run is made up once.

    `living` names the workers that somebody watches; no lease of theirs runs out by the clock.
    """
    schedule = Schedule(
        timezone="UTC",
        job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
    )

    def recover() -> None:
        recover_leases(journal, datetime.now(UTC), living())
        wake_workers()

    def retain() -> None:
        now = datetime.now(UTC)
        give_up_on_removed(config, journal, now)
        apply_retention(config.retention, journal, spool, now)
        sweep(journal, spool, now)

    def beat() -> None:
        for deliverer in deliverers:
            # The stop of the node waits for this round, and each question may take a while.
            if schedule.running:
                deliverer.heartbeat()

    schedule.add_job(recover, "interval", seconds=RECOVERY_S, id="lease recovery")
    # The first at once, beside the open ports: it looks at every case folder, and a node that is
    # restarted more often than hourly would never come to it.
    schedule.add_job(
        retain, "interval", seconds=RETENTION_S, id="retention", next_run_time=datetime.now(UTC)
    )
    schedule.add_job(beat, "interval", seconds=HEARTBEAT_S, id="heartbeat")
    schedule.add_job(
        lambda: warn_of_certificates(config, datetime.now(UTC)),
        "interval",
        seconds=CERTIFICATES_S,
        id="certificates",
        next_run_time=datetime.now(UTC),
    )
    return schedule


def recover_leases(journal: Journal, now: datetime, living: Collection[str] = ()) -> None:
    """Make cases claimable again whose worker is gone and was not seen to go."""
    for case in journal.release_expired(now, living):
        log.warning("lease_expired", case_id=case.id)


def give_up_on_removed(config: Config, journal: Journal, now: datetime) -> None:
    """Give up what a destination is owed that node.toml no longer names, after the same patience.

    No delivery loop looks at these rows; without this their cases would be reported for ever.
    """
    removed = journal.destinations_owed() - {each.name for each in config.destination}
    for name in sorted(removed):
        for delivery in journal.due_deliveries(name, now, MOST_GIVEN_UP):
            if now - delivery.owed_since > config.deliver.give_up_after:
                words = "the destination is not in node.toml"
                journal.give_up(delivery.id, words, now)
                log.error(
                    "gave_up_delivering",
                    case_id=delivery.case_id,
                    destination=name,
                    reason=Reason.GAVE_UP,
                    detail=words,
                    alert=True,
                )


def warn_of_certificates(config: Config, now: datetime) -> None:
    """Say which certificates have run out, or will soon, or cannot be read."""
    for found in expiries(config, now):
        if isinstance(found, BadConfig):
            log.error("certificate_unusable", which=found.key, why=found.remedy, alert=True)
            continue
        days = found.days(now)
        if found.not_before > now:
            event = "certificate_not_valid_yet"
        elif days <= 0:
            event = "certificate_expired"
        elif days <= SOON_DAYS:
            event = "certificate_expires_soon"
        else:
            continue
        soon = event == "certificate_expires_soon" and days > VERY_SOON_DAYS
        tell = log.warning if soon else log.error
        tell(event, which=found.which, subject=found.subject, days=round(days, 1), alert=True)


def sweep(journal: Journal, spool: Spool, now: datetime) -> None:
    """Delete received files that were never acknowledged, e.g. because the journal was busy."""
    try:
        removed = spool.sweep(journal.knows, LEFTOVER_AGE, now)
    except RetryLater as verdict:
        # What is left over harms nobody: no reason not to start.
        log.warning("not_swept", reason=str(verdict))
        return
    if removed:
        log.info("unacknowledged_files_removed", count=removed)


def apply_retention(retention: Retention, journal: Journal, spool: Spool, now: datetime) -> None:
    """Delete the files of cases that have rested long enough; their rows stay."""
    expired = journal.expired(
        now,
        done=timedelta(days=retention.done_days),
        parked=timedelta(days=retention.parked_days),
    )
    for case_id in expired:
        try:
            spool.drop(case_id)
            journal.forgotten(case_id, now)
        except RetryLater as verdict:
            # One folder that will not go must not keep all the younger ones.
            log.warning("files_not_deleted", case_id=case_id, reason=str(verdict))
            continue
        except IllegalTransition:
            # Taken up again this moment: it will be parked, with an alert, for its missing file.
            log.error("files_deleted_too_soon", case_id=case_id, alert=True)  # noqa: TRY400 - said
            continue
        log.info("files_deleted_by_age", case_id=case_id)
    refused = journal.purge_refused(now, refused=timedelta(days=retention.refused_days))
    if refused:
        log.info("refused_rows_deleted_by_age", count=refused)
