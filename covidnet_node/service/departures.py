"""What the audit trail is to know of a result that was put to a destination."""

from urllib.parse import urlsplit

from covidnet_node.audit.events import Peer, Transfer
from covidnet_node.audit.subject import subject_in
from covidnet_node.case import Delivery
from covidnet_node.config import Destination
from covidnet_node.deliver import Sent


def departure(destination: Destination, delivery: Delivery, sent: Sent) -> Transfer:
    """Whose result went where, or why it did not; the patient stands in the result's own file."""
    return Transfer(
        inbound=False,
        peer=_peer(destination, delivery),
        subject=subject_in(delivery.result.path),
        failure="" if sent.stored else sent.detail,
    )


def _peer(destination: Destination, delivery: Delivery) -> Peer:
    if destination.back_to_sender:
        return Peer(delivery.calling_ae, delivery.peer)
    if destination.url is not None:
        return Peer(destination.url, urlsplit(destination.url).hostname or "")
    return Peer(destination.ae_title or "", destination.host or "")
