"""The commitment loop of one destination: what it has stored, it is asked to keep.

One of the places that decide: what is committed to is done, what the destination does not have
is sent again, what nobody knows is asked again. Its patience is counted: at its end the case is
parked, with an alert.
"""

import threading
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import groupby
from uuid import uuid4

import structlog

from covidnet_node.associate import Target, target_of
from covidnet_node.case import Commitment, CommitmentState, Delivery, Promise, Promised, Reason
from covidnet_node.commit import (
    CLASS_NOT_COMMITTED,
    DUPLICATE_TRANSACTION,
    Asked,
    Asking,
    Found,
    Instance,
    Look,
    Request,
    Take,
    find,
    told,
)
from covidnet_node.config import Config, Destination
from covidnet_node.deliver import Fate, Sent
from covidnet_node.errors import RetryLater
from covidnet_node.journal.journal import Journal
from covidnet_node.receive.allow import AllowList
from covidnet_node.receive.commitment import Reports
from covidnet_node.service.patience import Patience
from covidnet_node.service.quiet import Quiet

log = structlog.get_logger()

POLL_S = 5.0
"""How long the loop waits at most before it asks the journal by itself."""
MOST_INSTANCES = 100
"""Of one transaction: its report fits into what the listener takes of a message."""
ALONE_AFTER = 2
"""Attempts after which a case is asked about by itself: what one PACS refuses for the sake of one
instance must not hold up the others for ever."""
SENDER_AWAY = 4
"""A sender that could not be reached is called again as after so many failures."""
ASK_AGAIN = frozenset({CLASS_NOT_COMMITTED, DUPLICATE_TRANSACTION})
"""Failure Reasons that say nothing against what is stored: sending it again would not help."""


class Committer(threading.Thread):
    """Asks one destination to commit, until told to stop."""

    def __init__(
        self, config: Config, destination: Destination, journal: Journal, reports: Reports
    ) -> None:
        super().__init__(name=f"commit at {destination.name}", daemon=True)
        self.destination = destination
        self._settings = destination.commitment
        self._config = config
        self._journal = journal
        self._reports = reports
        self.owed_again: Callable[[], None] = lambda: None
        """Is called when something is to be sent again."""
        self._allowed = AllowList(config.receive)
        self._trouble = Patience(config.deliver.give_up_after, _now())
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._quiet = Quiet(config.deliver, destination.name)

    def wake(self) -> None:
        """Something new may be stored, or answered."""
        self._wake.set()

    def stop(self) -> None:
        """Finish the question on the wire and leave."""
        self._stopping.set()
        self._wake.set()

    def run(self) -> None:
        """Ask, wait, and again."""
        begun = False
        while not self._stopping.is_set():
            patience = POLL_S
            try:
                if not begun:
                    self._journal.recall_unsent(self.destination.name, _now())
                    begun = True
                patience = 0.0 if self._work(_now()) else self._patience(_now())
            except RetryLater as verdict:
                log.warning("journal_not_available", reason=str(verdict))
                self._quiet.failed()
            except Exception:
                # Deciding place: whatever went wrong, the rows are as they were.
                log.exception("commitment_failed", destination=self.destination.name, alert=True)
                self._quiet.failed()
            if patience:
                self._wake.wait(patience)
                self._wake.clear()

    def _patience(self, now: datetime) -> float:
        """Seconds until something may be due; raises RetryLater."""
        if quiet_s := self._quiet.seconds:
            return min(POLL_S, quiet_s)
        due = self._journal.next_commitment_due(self.destination.name)
        return POLL_S if due is None else max(0.1, min(POLL_S, (due - now).total_seconds()))

    def _work(self, now: datetime) -> bool:
        """Act on what was answered, ask what is due; tells whether there was anything."""
        answered = self._act_on_reports(now)
        if self._quiet.seconds:
            return answered
        most = min(self.destination.max_per_association, MOST_INSTANCES)
        due = self._journal.due_commitments(self.destination.name, now, most)
        for target, deliveries in self._by_target(due):
            patient = [each for each in deliveries if not self._out_of_patience(each, now)]
            if self.destination.back_to_sender and not self._allowed.may_receive(
                target.ae_title, target.host
            ):
                words = f"{target.ae_title} at {target.host} is not among those allowed"
                self._not_reached(patient, words, now)
                continue
            looked = [each for each in patient if self._is_looked_for(each)]
            self._look_for(target, looked)
            self._request(target, [each for each in patient if each not in looked])
            if self._stopping.is_set():
                break
        return answered or bool(due)

    def _by_target(self, due: Sequence[Delivery]) -> Iterable[tuple[Target, list[Delivery]]]:
        """Group by who is asked: one peer, or each image's own sender."""

        def peer(delivery: Delivery) -> tuple[str, str]:
            own = self.destination.back_to_sender
            return (delivery.calling_ae, delivery.peer) if own else ("", "")

        for (sender_ae, host), group in groupby(sorted(due, key=peer), key=peer):
            yield target_of(self.destination, sender_ae=sender_ae, peer=host), list(group)

    def _is_looked_for(self, delivery: Delivery) -> bool:
        """Whether to look by a query, now."""
        fallback = self._settings.ask == "request_or_find" and delivery.commit_attempts > 0
        return self._settings.ask == "find" or fallback

    # Storage commitment

    def _request(self, target: Target, deliveries: Sequence[Delivery]) -> None:
        """Put what is due as one transaction; what has failed so twice, case by case."""
        groups: dict[str, list[Delivery]] = {}
        for delivery in deliveries:
            alone = delivery.commit_attempts >= ALONE_AFTER
            groups.setdefault(delivery.case_id if alone else "", []).append(delivery)
        for group in groups.values():
            if not self._quiet.seconds and not self._stopping.is_set():
                self._put(target, group)

    def _put(self, target: Target, deliveries: Sequence[Delivery]) -> None:
        """Put one transaction, and stay a while for its report."""
        one = Request(f"2.25.{uuid4().int}", tuple(map(_instance, deliveries)))
        hear = partial(self._reports.on_same_association, destination=self.destination.name)
        call = Asking(target, hear)
        try:
            asked = call.put(one, self._calling_ae, partial(self._note, target, deliveries))
            self._record(one.transaction_uid, asked, deliveries, _now())
            if asked.take is Take.TAKEN:
                call.wait(self._settings.wait_s, partial(self._has_waited_enough, one))
        finally:
            call.close()

    def _has_waited_enough(self, one: Request) -> bool:
        """Whether the node stops, or the report has come in another way; raises RetryLater."""
        if self._stopping.is_set():
            return True
        if not self._wake.is_set():
            return False
        self._wake.clear()
        found = self._journal.commitment(one.transaction_uid)
        awaited = (CommitmentState.WRITTEN, CommitmentState.ASKED)
        return found is None or found.state not in awaited

    def _note(
        self, target: Target, deliveries: Sequence[Delivery], one: Request, peer: str
    ) -> None:
        """Write the transaction down before it goes out; raises RetryLater."""
        now, name = _now(), self.destination.name
        asked = Commitment(
            one.transaction_uid, name, target.ae_title, peer, CommitmentState.WRITTEN
        )
        due_at = now + timedelta(seconds=self._settings.timeout_s)
        self._journal.write_commitment(asked, [each.id for each in deliveries], due_at, now)

    def _record(
        self, uid: str, asked: Asked, deliveries: Sequence[Delivery], now: datetime
    ) -> None:
        """Journal how far the request came."""
        told_ = log.bind(destination=self.destination.name, results=len(deliveries))
        if asked.take is Take.TAKEN:
            self._journal.commitment_taken(uid, now)
            self._contact_made(deliveries)
            told_.info("commitment_requested", transaction=uid)
            return
        told_.warning("commitment_not_requested", detail=asked.detail)
        if asked.take is Take.NOT_REACHED:
            self._not_reached(deliveries, asked.detail, now)
            return
        self._contact_made(deliveries)
        due_at = now + self._quiet.pause(deliveries[0].commit_attempts + 1, uid)
        if self._settings.ask == "request_or_find":
            due_at = now
        if asked.take is Take.REFUSED:
            self._journal.commitment_refused(uid, asked.detail, due_at, now)
            return
        for delivery in deliveries:
            self._journal.ask_again(delivery.id, asked.detail, due_at, now, counted=True)

    def _act_on_reports(self, now: datetime) -> bool:
        """Do what the reports that have come ask for; raises RetryLater."""
        answered = self._journal.answered_commitments(self.destination.name)
        for uid, promises in answered.items():
            for each in promises:
                with structlog.contextvars.bound_contextvars(
                    case_id=each.delivery.case_id, destination=self.destination.name
                ):
                    self._act(each, now)
            # Last: after a kill, what is left of it is done.
            self._journal.commitment_settled(uid, now)
        return bool(answered)

    def _act(self, said: Promised, now: datetime) -> None:
        delivery, kind = said.delivery, said.delivery.result.kind.value
        if said.promise is Promise.COMMITTED:
            self._journal.committed(delivery.id, "", now)
            log.info("committed", kind=kind)
            return
        if not said.latest:
            # It has been asked about anew since; that answer counts.
            return
        reason = said.failure_reason
        words = "not committed: the report does not name it"
        if reason is not None:
            words = f"not committed: {told(reason)}"
        if reason in ASK_AGAIN:
            due_at = now + self._quiet.pause(delivery.commit_attempts, str(delivery.id))
            self._journal.ask_again(delivery.id, words, due_at, now, counted=False)
            log.warning("not_committed", kind=kind, detail=words)
            return
        self._send_again(delivery, delivery.commit_attempts, words, now)

    # Looking

    def _look_for(self, target: Target, deliveries: Sequence[Delivery]) -> None:
        """Ask by a query for each result."""
        owed = {each.result.sop_instance_uid: each for each in deliveries}
        if not owed:
            return
        for found in find(target, [_instance(each) for each in deliveries], self._calling_ae):
            delivery = owed[found.sop_instance_uid]
            with structlog.contextvars.bound_contextvars(
                case_id=delivery.case_id, destination=self.destination.name
            ):
                self._settle_look(delivery, found, _now())
            if self._stopping.is_set():
                break

    def _settle_look(self, delivery: Delivery, found: Found, now: datetime) -> None:
        """Journal what one query said."""
        if found.look is Look.NOT_REACHED:
            self._not_reached([delivery], found.detail, now)
            return
        self._contact_made([delivery])
        if found.look is Look.THERE:
            self._journal.committed(delivery.id, "", now, found=True)
            log.info("found_at_destination", kind=delivery.result.kind.value)
            return
        missing = found.look is Look.MISSING
        words = "not found by a query" if missing else found.detail
        if missing and delivery.commit_attempts > 0:
            self._send_again(delivery, delivery.commit_attempts + 1, words, now)
            return
        # Just stored, it may not have been indexed yet.
        due_at = now + self._quiet.pause(delivery.commit_attempts + 1, str(delivery.id))
        self._journal.ask_again(delivery.id, words, due_at, now, counted=True)
        log.warning("not_committed", kind=delivery.result.kind.value, detail=words)

    # Patience

    def _out_of_patience(self, delivery: Delivery, now: datetime) -> bool:
        """Give up on a result that has been asked about too often; tells whether it did."""
        if delivery.commit_attempts < self._most_attempts:
            return False
        self._give_up(delivery, f"asked {delivery.commit_attempts} times", now)
        return True

    @property
    def _most_attempts(self) -> int:
        """Where a query follows on a request, it is one of its own."""
        return self._settings.attempts + (self._settings.ask == "request_or_find")

    def _send_again(self, delivery: Delivery, attempts: int, words: str, now: datetime) -> None:
        """Owe the result once more; `attempts` are those to commit, the last one included."""
        if attempts >= self._most_attempts:
            self._give_up(delivery, words, now)
            return
        due_at = now + self._quiet.pause(attempts, str(delivery.id))
        self._journal.send_again(delivery.id, words, due_at, now, attempts)
        self.owed_again()
        log.warning("sent_again", kind=delivery.result.kind.value, detail=words)

    def _give_up(self, delivery: Delivery, why: str, now: datetime) -> None:
        words = f"stored, but not committed: {why}"
        self._trouble.over(delivery)
        self._journal.give_up(delivery.id, words, now)
        log.error(
            "gave_up_on_commitment",
            case_id=delivery.case_id,
            destination=self.destination.name,
            reason=Reason.GAVE_UP,
            detail=words,
            alert=True,
        )

    def _not_reached(self, deliveries: Sequence[Delivery], detail: str, now: datetime) -> None:
        """Leave the destination in peace; what has waited too long is given up.

        A fixed peer that is down is left in peace as a whole; of many senders, each result.
        """
        own = self.destination.back_to_sender
        if not own and not self._quiet.seconds:
            self._quiet.failed()
        for delivery in deliveries:
            not_tried = Sent(delivery.result.sop_instance_uid, Fate.NOT_TRIED, None, detail)
            self._trouble.failed(delivery, not_tried, now)
            if self._trouble.spent(delivery):
                self._give_up(delivery, detail, now)
            else:
                pause = self._quiet.pause(SENDER_AWAY, str(delivery.id)) if own else timedelta()
                self._journal.ask_again(delivery.id, detail, now + pause, now, counted=False)

    def _contact_made(self, deliveries: Iterable[Delivery]) -> None:
        self._quiet.answered()
        for delivery in deliveries:
            self._trouble.over(delivery)

    @property
    def _calling_ae(self) -> str:
        return self.destination.calling_ae or self._config.node.ae_title


def committers(config: Config, journal: Journal, reports: Reports) -> tuple[Committer, ...]:
    """One loop for each destination that is to commit."""
    return tuple(
        Committer(config, each, journal, reports)
        for each in config.destination
        if each.commitment.ask != "off"
    )


def _instance(delivery: Delivery) -> Instance:
    result = delivery.result
    return Instance(
        delivery.study_uid, result.series_uid, result.sop_class_uid, result.sop_instance_uid
    )


def _now() -> datetime:
    return datetime.now(UTC)
