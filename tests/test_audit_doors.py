"""What the doors put into the audit trail: who brought what, who got what, who was turned away."""

import socket
from collections.abc import Callable

from covidnet_node.audit.events import Alert, AlertKind, Peer, Subject, Transfer
from tests.raw_client import ASSOCIATE_AC, CR, EXPLICIT, RawClient
from tests.receive_kit import PATIENCE, Site, encoded, image, send

MakeSite = Callable[..., Site]
CONTEXT = (CR, (EXPLICIT,))


def only(site: Site) -> Transfer:
    [event] = site.events
    assert isinstance(event, Transfer)
    return event


def test_an_image_that_came_in_is_recorded_with_its_patient(site: Site) -> None:
    picture = image(PatientID="4711", AccessionNumber="A-99")
    assert send(site, picture) == 0x0000
    event = only(site)
    assert (event.inbound, event.failure, event.held) == (True, "", False)
    assert event.peer.address == "127.0.0.1"
    assert event.peer.name
    assert event.subject == Subject(
        patient_id="4711",
        patient_name="Secret^Name",
        study_uid=picture.StudyInstanceUID,
        accession_number="A-99",
        sop_class_uid=CR,
        sop_instance_uid=picture.SOPInstanceUID,
    )


def test_the_same_image_again_was_held_already(site: Site) -> None:
    picture = image()
    send(site, picture)
    send(site, picture)
    assert [event.held for event in site.events if isinstance(event, Transfer)] == [False, True]


def test_an_image_that_is_not_ours_came_in_all_the_same(site: Site) -> None:
    send(site, image(BodyPartExamined="FOOT"))
    assert only(site).failure == ""
    assert only(site).subject.patient_name == "Secret^Name"


def test_an_image_that_cannot_be_read_is_a_failure(site: Site) -> None:
    picture = image(StudyInstanceUID=None)
    assert send(site, picture) == 0xC000
    assert only(site).failure == "answered with status C000"
    assert only(site).subject.sop_instance_uid == picture.SOPInstanceUID


def test_an_image_for_which_there_is_no_room_is_a_failure(make_site: MakeSite) -> None:
    site = make_site(low_disk_mib=10**9)
    assert send(site, image()) == 0xA700
    assert only(site).failure == "answered with status A700"


def test_it_stands_in_the_trail_before_it_is_answered(site: Site) -> None:
    picture = image()
    with site.client() as client:
        client.store(CR, picture.SOPInstanceUID, encoded(picture))
        assert len(site.events) == 1  # the association goes on
        client.release()


def test_strangers_are_alerts(make_site: MakeSite) -> None:
    site = make_site(calling_aes=("ROOM1",))
    for titles in ({"calling": "ROOM2"}, {"called": "SOMEBODY", "calling": "ROOM1"}):
        with RawClient(site.address) as client:
            assert client.associate(CONTEXT, **titles) != ASSOCIATE_AC
    site.receiver.stop(PATIENCE)
    assert site.events == [
        Alert(AlertKind.NODE_AUTHENTICATION, Peer("ROOM2", "127.0.0.1"), "calling_ae"),
        Alert(AlertKind.NODE_AUTHENTICATION, Peer("ROOM1", "127.0.0.1"), "called_ae: SOMEBODY"),
    ]


def test_an_address_that_is_not_allowed_is_an_alert(make_site: MakeSite) -> None:
    site = make_site(peer=[{"addresses": ["10.0.0.0/8"]}])
    with socket.create_connection(site.address, timeout=30) as client:
        assert client.recv(1) == b""
    site.receiver.stop(PATIENCE)
    assert site.events == [Alert(AlertKind.NODE_AUTHENTICATION, Peer("", "127.0.0.1"), "address")]


def test_one_that_asks_for_too_much_is_no_stranger(site: Site) -> None:
    with RawClient(site.address) as client:
        client.associate(("1.2.840.10008.5.1.4.1.1.2", (EXPLICIT,)))
    assert site.events == []
