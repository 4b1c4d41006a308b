"""Audit messages hold to the schema of PS3.15 A.5.1, whatever a stranger puts into a name."""

import base64
import re
import string
from collections.abc import Mapping
from datetime import UTC, datetime
from xml.etree.ElementTree import Element, fromstring

import pytest
from hypothesis import given
from hypothesis import strategies as st

from covidnet_node.audit.events import (
    Activity,
    Alert,
    AlertKind,
    Event,
    Login,
    Peer,
    Subject,
    Transfer,
)
from covidnet_node.audit.messages import Source, message, plain

NOW = datetime(2026, 11, 23, 8, 30, 15, 250_000, tzinfo=UTC)
SOURCE = Source("node-1", "COVIDNET", "Ward 7", "xnode", 4711)
PACS = Peer("PACS", "10.0.0.7")
JANE = Subject("4711", "Doe^Jane", "1.2.3", "A-99", "1.2.840.10008.5.1.4.1.1.1", "1.2.3.4")
EVENTS = (
    Activity(started=True),
    Activity(started=False),
    Transfer(inbound=True, peer=PACS, subject=JANE),
    Transfer(inbound=False, peer=PACS, subject=JANE, failure="status A700"),
    Transfer(inbound=True, peer=Peer("", "pacs.example.org"), subject=Subject()),
    Alert(AlertKind.NODE_AUTHENTICATION, Peer("WHO", "::1"), "calling_ae"),
    Alert(AlertKind.AUDIT_STOPPED, None, "3 messages were not recorded"),
    Login("192.0.2.9", "no token"),
)

# The schema of A.5.1, said anew: attributes (True: must be there) and children in their order,
# with how often each may come.
CODE = {"csd-code": True, "codeSystemName": True, "originalText": True, "displayName": False}
ATTRIBUTES: Mapping[str, Mapping[str, bool]] = {
    "AuditMessage": {},
    "EventIdentification": {
        "EventActionCode": False,
        "EventDateTime": True,
        "EventOutcomeIndicator": True,
    },
    "EventID": CODE,
    "EventTypeCode": CODE,
    "EventOutcomeDescription": {},
    "ActiveParticipant": {
        "UserID": True,
        "AlternativeUserID": False,
        "UserName": False,
        "UserIsRequestor": True,
        "NetworkAccessPointID": False,
        "NetworkAccessPointTypeCode": False,
    },
    "RoleIDCode": CODE,
    "AuditSourceIdentification": {"AuditEnterpriseSiteID": False, "AuditSourceID": True},
    "AuditSourceTypeCode": {"csd-code": True},
    "ParticipantObjectIdentification": {
        "ParticipantObjectID": True,
        "ParticipantObjectTypeCode": False,
        "ParticipantObjectTypeCodeRole": False,
    },
    "ParticipantObjectIDTypeCode": CODE,
    "ParticipantObjectName": {},
    "ParticipantObjectDetail": {"type": True, "value": True},
    "ParticipantObjectDescription": {},
    "Accession": {"Number": True},
    "SOPClass": {"UID": False, "NumberOfInstances": True},
    "Instance": {"UID": True},
}
CHILDREN = {
    "AuditMessage": "EventIdentification (ActiveParticipant )+AuditSourceIdentification "
    "(ParticipantObjectIdentification )*",
    "EventIdentification": "EventID (EventTypeCode )*(EventOutcomeDescription )?",
    "ActiveParticipant": "(RoleIDCode )*",
    "AuditSourceIdentification": "(AuditSourceTypeCode )*",
    "ParticipantObjectIdentification": "ParticipantObjectIDTypeCode ParticipantObjectName "
    "(ParticipantObjectDetail )*(ParticipantObjectDescription )*",
    "ParticipantObjectDescription": "(Accession )*(SOPClass )*",
    "SOPClass": "(Instance )*",
}
VALUES = {
    "EventActionCode": r"[CRUDE]",
    "EventDateTime": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)",
    "EventOutcomeIndicator": r"0|4|8|12",
    "UserIsRequestor": r"true|false",
    "NetworkAccessPointTypeCode": r"[1-5]",
    "ParticipantObjectTypeCode": r"[1-4]",
    "ParticipantObjectTypeCodeRole": r"[1-9]|1\d|2[0-6]",
    "NumberOfInstances": r"\d+",
}


def read(event: Event) -> Element:
    """A message, held against the schema."""
    written = message(event, SOURCE, NOW)
    assert b"\n" not in written
    root = fromstring(written)  # noqa: S314 - our own
    assert root.tag == "AuditMessage"
    for element in root.iter():
        hold(element)
    return root


def hold(element: Element) -> None:
    allowed = ATTRIBUTES[element.tag]
    assert set(element.attrib) <= set(allowed), element.tag
    assert {name for name, must in allowed.items() if must} <= set(element.attrib), element.tag
    for name, value in element.attrib.items():
        assert value.strip() == value != "", name
        assert re.fullmatch(VALUES.get(name, ".+"), value), (name, value)
    children = "".join(f"{child.tag} " for child in element)
    assert re.fullmatch(CHILDREN.get(element.tag, ""), children), (element.tag, children)


def code(element: Element | None) -> tuple[str, str]:
    assert element is not None
    return element.attrib["csd-code"], element.attrib["codeSystemName"]


@pytest.mark.parametrize("event", EVENTS)
def test_every_event_makes_a_message_of_the_schema(event: Event) -> None:
    read(event)


def test_an_image_that_came_in_names_patient_study_and_both_sides() -> None:
    root = read(Transfer(inbound=True, peer=PACS, subject=JANE))
    event = root[0]
    assert code(event.find("EventID")) == ("110104", "DCM")
    assert event.attrib["EventActionCode"] == "C"
    assert event.attrib["EventOutcomeIndicator"] == "0"
    assert event.attrib["EventDateTime"] == "2026-11-23T08:30:15.250+00:00"
    sender, receiver = root.findall("ActiveParticipant")
    assert code(sender.find("RoleIDCode")) == ("110153", "DCM")
    assert sender.attrib["AlternativeUserID"] == "AETITLES=PACS"
    assert sender.attrib["NetworkAccessPointID"] == "10.0.0.7"
    assert sender.attrib["NetworkAccessPointTypeCode"] == "2"
    assert code(receiver.find("RoleIDCode")) == ("110152", "DCM")
    assert receiver.attrib["UserID"] == "4711"
    study, patient = root.findall("ParticipantObjectIdentification")
    assert code(study.find("ParticipantObjectIDTypeCode")) == ("110180", "DCM")
    assert study.attrib["ParticipantObjectID"] == "1.2.3"
    assert study.find("ParticipantObjectDescription/Accession").attrib == {"Number": "A-99"}
    assert study.find(".//Instance").attrib == {"UID": "1.2.3.4"}
    assert patient.attrib["ParticipantObjectID"] == "4711"
    assert patient.findtext("ParticipantObjectName") == "Doe^Jane"
    assert code(patient.find("ParticipantObjectIDTypeCode")) == ("2", "RFC-3881")
    assert root.find("AuditSourceIdentification").attrib == {
        "AuditEnterpriseSiteID": "Ward 7",
        "AuditSourceID": "node-1",
    }


def test_who_showed_a_certificate_is_named_by_it() -> None:
    peer = Peer("XRAY", "10.0.0.1", "CN=xray1,O=Hospital")
    sender = read(Transfer(inbound=True, peer=peer, subject=JANE)).find("ActiveParticipant")
    assert sender is not None
    assert sender.attrib["UserName"] == "CN=xray1,O=Hospital"


def test_a_failed_delivery_says_so() -> None:
    root = read(Transfer(inbound=False, peer=PACS, subject=JANE, failure="status A700"))
    event = root[0]
    assert (event.attrib["EventActionCode"], event.attrib["EventOutcomeIndicator"]) == ("R", "4")
    assert event.findtext("EventOutcomeDescription") == "status A700"
    ours, theirs = root.findall("ActiveParticipant")
    assert (ours.attrib["UserIsRequestor"], theirs.attrib["UserIsRequestor"]) == ("true", "false")
    assert code(ours.find("RoleIDCode")) == ("110153", "DCM")


def test_start_and_stop() -> None:
    start, stop = read(Activity(started=True))[0], read(Activity(started=False))[0]
    assert code(start.find("EventID")) == code(stop.find("EventID")) == ("110100", "DCM")
    assert code(start.find("EventTypeCode")) == ("110120", "DCM")
    assert code(stop.find("EventTypeCode")) == ("110121", "DCM")


def test_a_stranger_is_an_alert_with_its_words_in_base64() -> None:
    root = read(Alert(AlertKind.NODE_AUTHENTICATION, Peer("WHO", "10.9.9.9"), "unknown AE title"))
    assert code(root[0].find("EventID")) == ("110113", "DCM")
    assert code(root[0].find("EventTypeCode")) == ("110126", "DCM")
    detail = root.find(".//ParticipantObjectDetail")
    assert detail.attrib["type"] == "Alert Description"
    assert base64.b64decode(detail.attrib["value"]) == b"unknown AE title"


def test_a_failed_login() -> None:
    root = read(Login("192.0.2.9", "no token"))
    assert code(root[0].find("EventID")) == ("110114", "DCM")
    assert code(root[0].find("EventTypeCode")) == ("110122", "DCM")
    person, node = root.findall("ActiveParticipant")
    assert person.attrib["NetworkAccessPointID"] == "192.0.2.9"
    assert (person.attrib["UserIsRequestor"], node.attrib["UserIsRequestor"]) == ("true", "false")


def test_what_xml_cannot_hold_is_seen_as_an_escape() -> None:
    assert plain("a\x00b\x1bc\nd\ud800e\ufffef\u202eg") == (
        "a\\u0000b\\u001bc\\u000ad\\ud800e\\ufffef\\u202eg"
    )
    assert plain('<&"Müller^山田') == '<&"Müller^山田'


@given(st.text(), st.text(), st.sampled_from(string.whitespace + "\x00"))
def test_no_text_breaks_a_message(name: str, other: str, odd: str) -> None:
    subject = Subject(name, odd + other, other, name, other + odd, name)
    read(Transfer(inbound=True, peer=Peer(other, name), subject=subject, failure=other))
    read(Alert(AlertKind.NODE_AUTHENTICATION, Peer(name, other), name + odd))
    read(Login(odd + name, other))
