"""The delivery loop of one destination: what is due goes out, what fails is due again later.

One of the places that decide. One thread per destination, so that a PACS that hangs
holds up nobody else's results.
"""

import threading
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from itertools import groupby
from typing import Protocol

import structlog
from pydicom.uid import UID

from covidnet_node.audit.events import Record, unrecorded
from covidnet_node.case import Delivery, Reason, ResultKind
from covidnet_node.config import Config, Destination
from covidnet_node.deliver import Sent, flaw
from covidnet_node.errors import RetryLater
from covidnet_node.journal.journal import Journal
from covidnet_node.journal.spool import Spool
from covidnet_node.receive.allow import AllowList
from covidnet_node.service.another_class import in_another_class
from covidnet_node.service.departures import departure
from covidnet_node.service.doors import Door, closed_door, door_to
from covidnet_node.service.finished import form_of
from covidnet_node.service.patience import Patience
from covidnet_node.service.quiet import Quiet

log = structlog.get_logger()

POLL_S = 5.0
"""How long the loop waits at most before it asks the journal by itself."""
HEARTBEAT_S = 10.0
"""How long a destination may take to say that it is back."""


class Deliverer(threading.Thread):
    """Delivers to one destination until told to stop."""

    def __init__(
        self,
        config: Config,
        destination: Destination,
        journal: Journal,
        record: Record = unrecorded,
        stored: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(name=f"deliver to {destination.name}", daemon=True)
        self.destination = destination
        self._config = config
        self._journal = journal
        self._audit = record
        self._stored = stored
        self._spool = Spool(config.node.data / "spool")
        self._trouble = Patience(config.deliver.give_up_after, _now())
        self._allowed = AllowList(config.receive)
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._quiet = Quiet(config.deliver, destination.name)

    def wake(self) -> None:
        """Something new may be due."""
        self._wake.set()

    def stop(self) -> None:
        """Finish the object on the wire and leave."""
        self._stopping.set()
        self._wake.set()

    def heartbeat(self) -> None:
        """While the destination is down, ask it whether it is back.

        With back_to_sender there is no fixed peer to ask; there the pause alone decides.
        """
        if not self._quiet.down or self.destination.back_to_sender:
            return
        # A short question: the stop of the node may have to wait for its answer.
        short = min(HEARTBEAT_S, self.destination.response_timeout_s)
        asked = self.destination.model_copy(update={"response_timeout_s": short})
        if door_to(asked, self._config.node.ae_title).echo() is None:
            log.info("destination_is_back", destination=self.destination.name)
            self._quiet.is_back()
            self._wake.set()

    def run(self) -> None:
        """Deliver, wait, and again."""
        while not self._stopping.is_set():
            patience = POLL_S
            try:
                patience = 0.0 if self._deliver_due(_now()) else self._patience(_now())
            except RetryLater as verdict:
                # What the journal does not note is sent again, and not at once.
                log.warning("journal_not_available", reason=str(verdict))
                self._quiet.failed()
            except Exception:
                # Deciding place: whatever went wrong, the rows are still pending.
                log.exception("delivery_failed", destination=self.destination.name, alert=True)
                self._quiet.failed()
            if patience:
                self._wake.wait(min(patience, self._quiet.seconds or patience))
                self._wake.clear()

    def _door(self, sender_ae: str = "", peer: str = "") -> Door:
        if self.destination.back_to_sender and not self._allowed.may_receive(sender_ae, peer):
            # He was allowed when he sent it; node.toml has changed since.
            words = f"{sender_ae} at {peer} is not among those allowed: nothing is sent to it"
            return closed_door(words)
        node_ae = self._config.node.ae_title
        return door_to(self.destination, node_ae, sender_ae=sender_ae, peer=peer)

    def _patience(self, now: datetime) -> float:
        """Seconds until something may be due; raises RetryLater."""
        if quiet_s := self._quiet.seconds:
            return min(POLL_S, quiet_s)
        due = self._journal.next_due(self.destination.name)
        return POLL_S if due is None else max(0.1, min(POLL_S, (due - now).total_seconds()))

    def _deliver_due(self, now: datetime) -> bool:
        """Send what is due; returns whether there was anything to send."""
        if self._quiet.seconds:
            return False
        due = self._journal.due_deliveries(
            self.destination.name, now, self.destination.max_per_association
        )
        for door, deliveries in self._by_door(due):
            self._send(door, deliveries)
            if self._stopping.is_set():
                break
        return bool(due)

    def _by_door(self, due: Sequence[Delivery]) -> Iterable[tuple[Door, list[Delivery]]]:
        """Group by who is to get them: one peer, or each image's own sender."""

        def peer(delivery: Delivery) -> tuple[str, str]:
            if self.destination.back_to_sender:
                return delivery.calling_ae, delivery.peer
            return "", ""

        for (sender_ae, host), group in groupby(sorted(due, key=peer), key=peer):
            yield self._door(sender_ae, host), list(group)

    def _send(self, door: Door, deliveries: list[Delivery]) -> None:
        owed = {delivery.result.sop_instance_uid: delivery for delivery in deliveries}
        for sent in door.send([delivery.result for delivery in deliveries]):
            delivery = owed[sent.sop_instance_uid]
            with structlog.contextvars.bound_contextvars(
                case_id=delivery.case_id, destination=self.destination.name
            ):
                self._record(delivery, sent, _now())
            if self._stopping.is_set():
                break

    def _record(self, delivery: Delivery, sent: Sent, now: datetime) -> None:
        """Journal what became of one result before the next one is sent."""
        if sent.tried:
            self._audit(departure(self.destination, delivery, sent))
        if sent.stored:
            commit = self.destination.commitment.ask != "off"
            self._journal.delivered(delivery.id, now, sent.detail, commit=commit)
            self._stored()
            self._trouble.over(delivery)
            self._quiet.answered()
            log.info("delivered", kind=delivery.result.kind.value, status=sent.detail)
            return
        self._trouble.failed(delivery, sent, now)
        if sent.not_taken and self._send_in_another_class(delivery, sent, now):
            return
        # A fixed peer that is down is left in peace as a whole; of many senders, each result.
        peer_down = not sent.tried and not self.destination.back_to_sender
        if peer_down and not self._quiet.seconds:
            self._quiet.failed()
        if self._trouble.spent(delivery):
            log.error("gave_up_delivering", reason=Reason.GAVE_UP, detail=sent.detail, alert=True)
            self._journal.give_up(delivery.id, sent.detail, now)
            self._trouble.over(delivery)
            return
        own_pause = self._quiet.pause(delivery.attempts + 1, str(delivery.id))
        due_at = now if peer_down else now + own_pause
        self._journal.postpone(delivery.id, sent.detail, due_at, now)
        log.warning("not_delivered", detail=sent.detail, attempts=delivery.attempts + 1)

    def _send_in_another_class(self, delivery: Delivery, sent: Sent, now: datetime) -> bool:
        """Owe a report in its next SOP class; false if there is none, or its file is damaged.

        Raises RetryLater.
        """
        if self._trouble.may_have_arrived(delivery) and self._journal.has_taken(
            self.destination.name, delivery.result.sop_class_uid
        ):
            # It takes this class, and may have this report: another would be a second report.
            return False
        refused = delivery.result
        if refused.kind is not ResultKind.REPORT or flaw(refused) is not None:
            return False
        other = in_another_class(refused)
        if other is None:
            return False
        form = form_of(other.sop_instance_uid)
        path = self._spool.write_result(delivery.case_id, other.kind, other.data, form)
        self._journal.owe_instead(delivery.id, other.at(path), sent.detail, now)
        log.warning("another_class", detail=sent.detail, instead=UID(other.sop_class_uid).name)
        return True


class Wakeable(Protocol):
    """A loop that waits for something new."""

    def wake(self) -> None:
        """Something new may be due."""


def wake_all(loops: Iterable[Wakeable]) -> Callable[[], None]:
    """A call that wakes every one of the loops."""

    def wake() -> None:
        for loop in loops:
            loop.wake()

    return wake


def _now() -> datetime:
    return datetime.now(UTC)
