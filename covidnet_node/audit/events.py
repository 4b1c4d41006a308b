"""What is recorded. The one place beside the images where a patient is named."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class Peer:
    """The other side."""

    name: str
    """AE title or web address; empty if it gave none."""
    address: str
    """IP address or host name."""
    certificate: str = ""
    """Subject of the certificate that it has shown over TLS."""


@dataclass(frozen=True, slots=True)
class Subject:
    """One instance and whose it is; empty what its header does not say."""

    patient_id: str = ""
    patient_name: str = ""
    study_uid: str = ""
    accession_number: str = ""
    sop_class_uid: str = ""
    sop_instance_uid: str = ""


class AlertKind(StrEnum):
    """Why a security officer should look."""

    NODE_AUTHENTICATION = "node authentication"
    AUDIT_STOPPED = "audit recording stopped"


@dataclass(frozen=True, slots=True)
class Activity:
    """The node started or stopped (PS3.15 A.5.3.1)."""

    started: bool


@dataclass(frozen=True, slots=True)
class Transfer:
    """One instance came in or went out, or failed to (PS3.15 A.5.3.7)."""

    inbound: bool
    peer: Peer
    subject: Subject
    failure: str = ""
    """Empty: it arrived."""
    held: bool = False
    """Came in, and was known already."""


@dataclass(frozen=True, slots=True)
class Alert:
    """Somebody was turned away, or the trail has a gap (PS3.15 A.5.3.11)."""

    kind: AlertKind
    peer: Peer | None
    words: str


@dataclass(frozen=True, slots=True)
class Login:
    """Somebody knocked at the HTTP door without being let in (PS3.15 A.5.3.12)."""

    address: str
    words: str


Event = Activity | Transfer | Alert | Login

Record = Callable[[Event], None]
"""Takes an event down. Raises nothing and waits for nobody."""


def unrecorded(_event: Event) -> None:
    """Take nothing down: where no audit trail is configured."""
