"""Who may associate: AE titles bound to addresses; refusals with the standard's reasons."""

import struct
from pathlib import Path

import pytest
from pydantic import ValidationError

from covidnet_node.config import Receive
from covidnet_node.config_doors import Peer, ReceiveTls
from covidnet_node.receive.allow import AllowList
from tests.node import wait_until
from tests.raw_client import (
    ASSOCIATE_AC,
    ASSOCIATE_RJ,
    CR,
    EXPLICIT,
    RawClient,
    request_pdu,
)
from tests.receive_kit import PATIENCE

CALLED_AE, CALLING_AE, LOCAL_LIMIT = b"\0\1\1\7", b"\0\1\1\3", b"\0\2\3\2"
"""Bodies of A-ASSOCIATE-RJ: reserved, result, source, reason (PS3.8 9.3.4)."""

ROOMS = Peer(calling_aes=("ROOM1", "ROOM2"), addresses=("10.1.2.0/24", "fd00:1::/32"))
PACS = Peer(calling_aes=("PACS",), addresses=("10.9.9.9",))
PORTABLE = Peer(calling_aes=("PORTABLE",))


@pytest.mark.parametrize(
    ("title", "host", "complaint"),
    [
        ("ROOM1", "10.1.2.3", ""),
        ("ROOM2", "10.1.2.255", ""),
        ("ROOM1", "::ffff:10.1.2.3", ""),
        ("ROOM1", "fd00:1:2::7", ""),
        ("ROOM1", "10.1.3.3", "address"),
        ("ROOM1", "fd00:2::7", "address"),
        ("ROOM1", "10.9.9.9", "address"),
        ("PACS", "10.9.9.9", ""),
        ("PACS", "10.1.2.3", "address"),
        ("NOBODY", "10.1.2.3", "calling_ae"),
        ("PORTABLE", "192.0.2.77", ""),
        ("room1", "10.1.2.3", "calling_ae"),
        ("ROOM1", "no address", "address"),
        ("", "", "calling_ae"),
    ],
)
def test_every_list_of_one_entry_must_fit(title, host, complaint):
    found = AllowList(Receive(peer=(ROOMS, PACS, PORTABLE)))
    assert found.complaint(title, host, None) == complaint
    assert found.may_receive(title, host) == (complaint == "")


def test_an_address_alone_may_suffice():
    found = AllowList(Receive(peer=(ROOMS, Peer(addresses=("127.0.0.0/8",)))))
    assert found.complaint("NOBODY", "127.0.0.1", None) == ""
    assert found.complaint("NOBODY", "10.1.2.3", None) == "address"


def test_results_go_back_to_nobody_who_is_known_by_a_certificate_alone():
    """It was shown when the image came; who has the address now cannot be told."""
    known = Peer(certificates=("dns:ct1.example.org",))
    tls = ReceiveTls(certificate_file=Path("own"), key_file=Path("key"), ca_file=Path("ca"))
    found = AllowList(Receive(tls=tls, peer=(known, ROOMS)))
    assert not found.may_receive("EVIL", "203.0.113.9")
    assert found.may_receive("ROOM1", "10.1.2.3")
    assert not AllowList(Receive(tls=tls, peer=(known,))).may_receive("EVIL", "203.0.113.9")


def test_titles_of_the_older_list_still_count():
    both = AllowList(Receive(calling_aes=("PACS",), peer=(ROOMS, PACS)))
    assert both.complaint("ROOM1", "10.1.2.3", None) == "calling_ae"
    assert both.complaint("PACS", "10.9.9.9", None) == ""
    assert not both.may_receive("ROOM1", "10.1.2.3")
    assert AllowList(Receive()).complaint("ANY", "192.0.2.1", None) == ""


@pytest.mark.parametrize(
    "bad",
    [
        {},
        {"addresses": ["10.1.2.3/24"]},
        {"addresses": ["pacs.example.org"]},
        {"certificates": ["CN=x"]},
        {"certificates": ["dns:*.example.org"]},
        {"certificates": ["sha256:abcd"]},
        {"calling_aes": ["A TITLE THAT IS TOO LONG"]},
    ],
)
def test_an_entry_that_means_nothing_is_refused(bad):
    with pytest.raises(ValidationError):
        Peer.model_validate(bad)


def answer(site, source: str = "", **titles: str) -> tuple[int, bytes]:
    with RawClient(site.address, PATIENCE, source=source) as client:
        client.send(request_pdu([(CR, (EXPLICIT,))], **titles))
        return client.receive()


def test_a_rejection_has_its_reason(make_site):
    peers = [
        {"calling_aes": ["ROOM1"], "addresses": ["127.0.0.1"]},
        {"calling_aes": ["ROOM2"], "addresses": ["127.0.0.2", "::1"]},
    ]
    site = make_site(peer=peers)
    assert answer(site, calling="ROOM1")[0] == ASSOCIATE_AC
    assert answer(site, "127.0.0.2", calling="ROOM2")[0] == ASSOCIATE_AC
    assert answer(site, "127.0.0.2", calling="ROOM1") == (ASSOCIATE_RJ, CALLING_AE)
    assert answer(site, calling="ROOM2") == (ASSOCIATE_RJ, CALLING_AE)
    assert answer(site, calling="ROOM3") == (ASSOCIATE_RJ, CALLING_AE)
    assert answer(site, calling="ROOM1", called="OTHER") == (ASSOCIATE_RJ, CALLED_AE)
    site.receiver.stop(PATIENCE)
    assert site.rejected() == {("address", ""), ("calling_ae", ""), ("called_ae", "OTHER")}


def test_an_address_that_no_entry_has_is_cut_off_unheard(make_site):
    site = make_site(peer=[{"addresses": ["127.0.0.1"]}])
    with RawClient(site.address, PATIENCE, source="127.0.0.3") as stranger:
        assert stranger.receive()[0] == 0
    assert answer(site)[0] == ASSOCIATE_AC
    site.receiver.stop(PATIENCE)
    assert site.rejected() == {("address", "")}


def test_ipv4_over_a_socket_of_both_kinds(make_site):
    site = make_site(address="::", peer=[{"addresses": ["127.0.0.1"], "calling_aes": ["ROOM1"]}])
    port = site.address[1]
    for host, comes_in in (("127.0.0.1", True), ("::1", False)):
        with RawClient((host, port), PATIENCE) as client:
            client.send(request_pdu([(CR, (EXPLICIT,))], calling="ROOM1"))
            assert (client.receive()[0] == ASSOCIATE_AC) == comes_in


def test_associations_of_one_address_are_limited(make_site):
    site = make_site(max_associations=3, max_connections_per_peer=2)
    with site.client(), site.client():
        assert answer(site) == (ASSOCIATE_RJ, LOCAL_LIMIT)
        with RawClient(site.address, PATIENCE, source="127.0.0.2") as other:
            assert other.associate((CR, (EXPLICIT,))) == ASSOCIATE_AC
            assert answer(site, "127.0.0.3") == (ASSOCIATE_RJ, LOCAL_LIMIT)
    wait_until(lambda: answer(site)[0] == ASSOCIATE_AC, 30, "a free place")


def test_a_request_too_short_for_titles_is_hung_up_on(make_site):
    site = make_site()
    with RawClient(site.address, PATIENCE) as client:
        client.send(struct.pack(">BBL", 1, 0, 40) + b" " * 40)
        assert client.receive()[0] == 0
    assert answer(site)[0] == ASSOCIATE_AC


def test_titles_that_are_no_text_get_no_association(make_site):
    site = make_site(calling_aes=["ROOM1"])
    request = bytearray(request_pdu([(CR, (EXPLICIT,))], calling="ROOM1"))
    request[26:42] = b"ROOM1\xe9\xff\x80        "
    with RawClient(site.address, PATIENCE) as client:
        client.send(bytes(request))
        assert client.receive()[0] != ASSOCIATE_AC
    assert answer(site, calling="ROOM1")[0] == ASSOCIATE_AC
