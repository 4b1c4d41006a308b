"""Associations with the receiver: who may, how many, how long, and how they end."""

import socket
import struct
import threading
import time

import pytest

from covidnet_node.case import Reason
from covidnet_node.errors import BadConfig
from tests.node import wait_until
from tests.raw_client import (
    ABORT,
    ASSOCIATE_AC,
    ASSOCIATE_RJ,
    CR,
    CT,
    EXPLICIT,
    SC,
    RawClient,
    request_pdu,
)
from tests.receive_kit import PATIENCE, Site, encoded, image, send

# Who and what is accepted


@pytest.mark.parametrize(
    ("settings", "titles", "accepted", "what"),
    [
        ({}, {"called": "OTHER"}, False, "called_ae"),
        ({"require_called_ae": False}, {"called": "OTHER"}, True, None),
        ({"calling_aes": ("ROOM1",)}, {"calling": "ROOM2"}, False, "calling_ae"),
        ({"calling_aes": ("ROOM1",)}, {"calling": "ROOM1"}, True, None),
    ],
)
def test_ae_titles_are_checked_and_counted(make_site, settings, titles, accepted, what):
    site = make_site(**settings)
    with RawClient(site.address) as client:
        kind = client.associate((CR, (EXPLICIT,)), **titles)
    assert kind == (ASSOCIATE_AC if accepted else ASSOCIATE_RJ)
    site.receiver.stop(PATIENCE)
    assert {name for name, _ in site.rejected()} == ({what} if what else set())


def test_another_application_context_is_rejected(site):
    """PS3.8 9.3.4: permanent, by the service user, application context name not supported."""
    request = bytearray(request_pdu([(CR, (EXPLICIT,))]))
    name = b"1.2.840.10008.3.1.1.1"
    request[request.find(name) + len(name) - 1] = ord("9")
    with RawClient(site.address) as client:
        client.send(bytes(request))
        kind, body = client.receive()
    assert (kind, tuple(body[1:4])) == (ASSOCIATE_RJ, (1, 1, 2))


def test_rejected_contexts_are_counted_and_the_others_used(site):
    dataset = image()
    with site.client((CT, (EXPLICIT,)), (CR, ("1.2.3.4",)), (CR, (EXPLICIT,))) as client:
        assert client.results == {1: 3, 3: 4, 5: 0}
        assert client.store(CR, dataset.SOPInstanceUID, encoded(dataset), 5) == 0
    assert site.rejected() == {("abstract_syntax", CT), ("transfer_syntax", CR)}


def test_classes_can_be_added_and_taken_away(make_site):
    private = "1.2.826.0.1.3680043.99.1"
    site = make_site(accept_classes=(CT, private), refuse_classes=(SC,))
    assert send(site, image(SOPClassUID=CT)) == 0
    assert send(site, image(SOPClassUID=private)) == 0
    assert [case.reason for case in site.journal.cases()] == [Reason.NO_RULE] * 2
    with site.client((SC, (EXPLICIT,))) as client:
        assert client.results == {1: 3}


def test_class_of_another_service_is_a_bad_config(make_site):
    with pytest.raises(BadConfig, match=r"receive\.accept_classes"):
        make_site(accept_classes=("1.2.840.10008.5.1.4.1.2.2.1",))


def test_bound_port_is_a_bad_config(site, make_site):
    with pytest.raises(BadConfig, match=r"receive\.port"):
        make_site(port=site.address[1])


# Clients that fall silent, and too many of them


def test_aborted_association_leaves_no_file(site):
    dataset = image()
    with site.client() as client:
        client.command(CR, dataset.SOPInstanceUID)
        client.fragment(encoded(dataset)[:50_000], 0)
    site.receiver.stop(PATIENCE)
    assert (site.journal.cases(), site.files()) == ((), [])


def test_silent_clients_hold_no_association(make_site):
    site = make_site(max_associations=2)
    silent = [socket.create_connection(site.address) for _ in range(2)]
    with site.client() as first, site.client() as second:
        for client in (first, second):
            dataset = image()
            assert client.store(CR, dataset.SOPInstanceUID, encoded(dataset)) == 0
    for connection in silent:
        connection.close()


def test_one_association_too_many_is_rejected(make_site):
    site = make_site(max_associations=1)
    with site.client() as first:
        # It is in use for certain once it has been answered.
        assert first.store(CR, "1.2", b"") == 0xC000
        with RawClient(site.address) as second:
            assert second.associate((CR, (EXPLICIT,))) == ASSOCIATE_RJ
        wait_until(lambda: ("local_limit", "") in site.rejected(), PATIENCE, "a row about it")
        first.release()
    assert accepted_in_time(site)


def accepted_in_time(site: Site) -> bool:
    """The slot comes back as soon as the node has noticed that the client is gone."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        with RawClient(site.address) as client:
            if client.associate((CR, (EXPLICIT,))) == ASSOCIATE_AC:
                return True
    return False


def test_silent_client_is_hung_up_on(make_site):
    site = make_site(request_timeout_s=0.3)
    with RawClient(site.address) as client:
        assert client.receive()[0] in {0, ABORT}


def test_silent_association_is_aborted(make_site):
    site = make_site(network_timeout_s=0.3)
    with site.client() as client:
        assert client.receive()[0] in {0, ABORT}
    with site.client() as client:
        # A fragment of which the end never comes.
        client.send(struct.pack(">BBL", 4, 0, 1000) + b"\0")
        assert client.receive()[0] in {0, ABORT}
    site.receiver.stop(PATIENCE)
    assert site.files() == []


def test_largest_announced_pdu_is_taken(make_site):
    site = make_site(max_pdu_bytes=100_000)
    dataset = image()
    data = encoded(dataset)
    with site.client() as client:
        client.command(CR, dataset.SOPInstanceUID)
        client.data(data, piece=100_000 - 6)
        assert client.status() == 0


# Stopping


def test_stop_lets_the_image_in_hand_finish(site):
    dataset = image()
    data = encoded(dataset)
    with site.client() as client:
        client.command(CR, dataset.SOPInstanceUID)
        client.fragment(data[:10_000], 0)
        stopping = threading.Thread(target=site.receiver.stop, args=(PATIENCE,))
        stopping.start()
        client.data(data[10_000:])
        assert client.status() == 0
        client.release()
    stopping.join(PATIENCE)
    assert not stopping.is_alive()
    assert not site.receiver.listening
    assert len(site.journal.cases()) == 1
    with pytest.raises(ConnectionRefusedError):
        RawClient(site.address)


def test_stop_aborts_what_does_not_finish(site):
    with site.client() as client:
        client.command(CR, "1.2.3")
        client.fragment(b"\0" * 100, 0)
        site.receiver.stop(0.1)
        assert client.receive()[0] in {0, ABORT}
    assert site.files() == []
