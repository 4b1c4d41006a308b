"""Events as audit messages: XML by the schema of PS3.15 A.5.1, codes of PS3.16 CID 400 to 402."""

import ipaddress
import os
import re
import socket
from base64 import b64encode
from dataclasses import astuple, dataclass, field
from datetime import datetime
from xml.etree.ElementTree import Element, SubElement, tostring

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
from covidnet_node.intended_use import PRODUCT

LONGEST = 256
"""Characters of a value; no attribute that is quoted here is longer by right."""

UNKNOWN = "unknown"
"""Where the schema wants a value and the header has none."""

SUCCESS, FAILURE, SERIOUS = "0", "4", "8"
"""EventOutcomeIndicator."""

MACHINE_NAME, IP_ADDRESS = "1", "2"
"""NetworkAccessPointTypeCode."""

_DCM = {
    "110100": "Application Activity",
    "110104": "DICOM Instances Transferred",
    "110113": "Security Alert",
    "110114": "User Authentication",
    "110120": "Application Start",
    "110121": "Application Stop",
    "110122": "Login",
    "110126": "Node Authentication",
    "110133": "Audit Recording Stopped",
    "110150": "Application",
    "110152": "Destination Role ID",
    "110153": "Source Role ID",
    "110180": "Study Instance UID",
    "110182": "Node ID",
}
"""PS3.16 Annex D."""

_ALERTS = {AlertKind.NODE_AUTHENTICATION: "110126", AlertKind.AUDIT_STOPPED: "110133"}

_UNFIT = re.compile(
    "[^\x20-\x7e\xa0-\u200a\u2010-\u2027\u202f-\u2065\u206a-\ud7ff\ue000-\ufefe\uff00-\ufffd"
    "\U00010000-\U0010ffff]"
)
"""What XML 1.0 forbids, line ends, and what changes the direction of a line or is not seen."""


@dataclass(frozen=True, slots=True)
class Source:
    """Who writes the messages."""

    node: str
    ae_title: str
    site: str = ""
    host: str = field(default_factory=socket.gethostname)
    process: int = field(default_factory=os.getpid)


def message(event: Event, source: Source, now: datetime) -> bytes:
    """Write one message: a whole XML document in UTF-8, on one line. `now` is aware.

    Any text may stand in an event: what XML cannot hold is written as an escape.
    """
    root = Element("AuditMessage")
    match event:
        case Activity():
            _activity(root, event, source, now)
        case Transfer():
            _transfer(root, event, source, now)
        case Alert():
            _alert(root, event, source, now)
        case Login():
            _login(root, event, source, now)
    body: str = tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>{body}'.encode()


def plain(text: str) -> str:
    """Text that fits into an attribute and shows what it holds, of at most `LONGEST` characters."""
    escaped = _UNFIT.sub(lambda found: f"\\u{ord(found[0]):04x}", text[:LONGEST])
    return " ".join(escaped.split())[:LONGEST]


def _activity(root: Element, event: Activity, source: Source, now: datetime) -> None:
    kind = "110120" if event.started else "110121"
    _identify(root, "110100", "E", now, kind)
    _self(root, source, "110150", requestor=False)
    _written_by(root, source)


def _transfer(root: Element, event: Transfer, source: Source, now: datetime) -> None:
    # Also "R" where the other side receives: what it held before is not ours to know.
    action = "C" if event.inbound and not event.held else "R"
    _identify(root, "110104", action, now, words=event.failure)
    if event.inbound:
        _other(root, event.peer, "110153", requestor=True)
        _self(root, source, "110152", requestor=False)
    else:
        _self(root, source, "110153", requestor=True)
        _other(root, event.peer, "110152", requestor=False)
    _written_by(root, source)
    subject = Subject(*map(plain, astuple(event.subject)))
    _study(root, subject)
    _patient(root, subject)


def _alert(root: Element, event: Alert, source: Source, now: datetime) -> None:
    outcome = FAILURE if event.kind is AlertKind.NODE_AUTHENTICATION else SERIOUS
    _identify(root, "110113", "E", now, _ALERTS[event.kind], outcome, event.words)
    _self(root, source, requestor=True)
    if event.peer is not None:
        _other(root, event.peer, requestor=False)
    _written_by(root, source)
    if event.peer is not None:
        node = _object(root, event.peer.address, "2", "13", "110182", event.peer.name or UNKNOWN)
        _detail(node, "Alert Description", event.words)


def _login(root: Element, event: Login, source: Source, now: datetime) -> None:
    _identify(root, "110114", "E", now, "110122", FAILURE, event.words)
    _other(root, Peer("", event.address), requestor=True)
    _self(root, source, requestor=False)
    _written_by(root, source)


# The parts of a message, in the order of the schema


def _identify(
    root: Element,
    event: str,
    action: str,
    now: datetime,
    kind: str = "",
    outcome: str = "",
    words: str = "",
) -> None:
    found = SubElement(
        root,
        "EventIdentification",
        EventActionCode=action,
        EventDateTime=now.isoformat(timespec="milliseconds"),
        EventOutcomeIndicator=outcome or (FAILURE if words else SUCCESS),
    )
    _code(found, "EventID", event)
    if kind:
        _code(found, "EventTypeCode", kind)
    if words:
        SubElement(found, "EventOutcomeDescription").text = plain(words)


def _self(root: Element, source: Source, role: str = "", *, requestor: bool) -> None:
    """Describe this node: its process id as the log has it, and its AE title."""
    titles = {"AlternativeUserID": f"AETITLES={plain(source.ae_title)}"}
    user, place = str(source.process), (source.host, MACHINE_NAME)
    _participant(root, user, place, role, titles | {"UserName": PRODUCT}, requestor=requestor)


def _other(root: Element, peer: Peer, role: str = "", *, requestor: bool) -> None:
    """Describe the other side, which we know by its AE title, address and certificate only."""
    name, certificate = plain(peer.name), plain(peer.certificate)
    more = {"AlternativeUserID": f"AETITLES={name}"} if name else {}
    if certificate:
        more["UserName"] = certificate
    place = (peer.address, IP_ADDRESS if _is_ip(peer.address) else MACHINE_NAME)
    _participant(root, name or UNKNOWN, place, role, more, requestor=requestor)


def _participant(
    root: Element,
    user: str,
    place: tuple[str, str],
    role: str,
    more: dict[str, str],
    *,
    requestor: bool,
) -> None:
    address, kind = place
    found = SubElement(
        root,
        "ActiveParticipant",
        {"UserID": plain(user), **more},
        UserIsRequestor="true" if requestor else "false",
        NetworkAccessPointID=plain(address) or UNKNOWN,
        NetworkAccessPointTypeCode=kind,
    )
    if role:
        _code(found, "RoleIDCode", role)


def _written_by(root: Element, source: Source) -> None:
    site = {"AuditEnterpriseSiteID": plain(source.site)} if source.site else {}
    found = SubElement(root, "AuditSourceIdentification", site, AuditSourceID=plain(source.node))
    SubElement(found, "AuditSourceTypeCode", {"csd-code": "4"})  # application server process


def _study(root: Element, subject: Subject) -> None:
    study = _object(root, subject.study_uid, "2", "3", "110180", subject.study_uid)
    about = SubElement(study, "ParticipantObjectDescription")
    if subject.accession_number:
        SubElement(about, "Accession", Number=subject.accession_number)
    if subject.sop_class_uid or subject.sop_instance_uid:
        uid = {"UID": subject.sop_class_uid} if subject.sop_class_uid else {}
        classes = SubElement(about, "SOPClass", uid, NumberOfInstances="1")
        if subject.sop_instance_uid:
            SubElement(classes, "Instance", UID=subject.sop_instance_uid)


def _patient(root: Element, subject: Subject) -> None:
    _object(root, subject.patient_id, "1", "1", "2", subject.patient_name)


def _object(root: Element, identity: str, kind: str, role: str, of: str, name: str) -> Element:
    """Kind 1 is a person, 2 a thing; role 1 patient, 3 report, 13 security resource."""
    found = SubElement(
        root,
        "ParticipantObjectIdentification",
        ParticipantObjectID=plain(identity) or UNKNOWN,
        ParticipantObjectTypeCode=kind,
        ParticipantObjectTypeCodeRole=role,
    )
    _code(found, "ParticipantObjectIDTypeCode", of)
    SubElement(found, "ParticipantObjectName").text = plain(name) or UNKNOWN
    return found


def _detail(root: Element, what: str, words: str) -> None:
    value = b64encode((plain(words) or UNKNOWN).encode()).decode()
    SubElement(root, "ParticipantObjectDetail", type=what, value=value)


def _code(root: Element, name: str, code: str) -> None:
    """A coded value: DICOM's, or a patient number of RFC 3881."""
    meaning, system = (_DCM[code], "DCM") if code in _DCM else ("Patient Number", "RFC-3881")
    SubElement(root, name, {"csd-code": code, "codeSystemName": system, "originalText": meaning})


def _is_ip(address: str) -> bool:
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return False
    return True
