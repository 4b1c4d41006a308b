"""The tables of node.toml that say who may come in, and over which lines (part of `config`)."""

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)


class Section(BaseModel):
    """A table of node.toml: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


AETitle = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=16),
    Field(pattern=r"^[\x20-\x5b\x5d-\x7e]+$"),
]
"""PS3.5 6.2: at most 16 characters, no backslash, no control characters."""

Port = Annotated[int, Field(ge=0, le=65535)]
"""0 asks the system for a free one (tests and demo)."""


def _network(text: str) -> str:
    try:
        ipaddress.ip_network(text)
    except ValueError as error:
        raise ValueError(f"is no address or range such as 10.1.2.0/24: {error}") from error
    return text


def _certificate(text: str) -> str:
    kind, _, value = text.partition(":")
    digest = value.replace(":", "")
    good = {
        "subject": "=" in value,
        "dns": bool(re.fullmatch(r"[A-Za-z0-9._-]+", value)),
        "sha256": bool(re.fullmatch(r"[0-9A-Fa-f]{64}", digest)),
    }
    if not good.get(kind, False):
        raise ValueError(
            'must be "subject:" and a whole subject such as CN=xray1,O=Hospital (RFC 4514), '
            '"dns:" and a name, or "sha256:" and the fingerprint in hexadecimal'
        )
    return text


Network = Annotated[str, AfterValidator(_network)]
"""One IPv4 or IPv6 address, or a range in CIDR notation without host bits."""

CertificateName = Annotated[str, AfterValidator(_certificate)]
"""`subject:`, `dns:` or `sha256:` and what a client certificate must have there."""


class Peer(Section):
    """Who may associate: every list that is given must hold what the caller brings."""

    calling_aes: tuple[AETitle, ...] = ()
    addresses: tuple[Network, ...] = ()
    certificates: tuple[CertificateName, ...] = ()
    """Only over TLS; such an entry never matches on the plain port."""

    @model_validator(mode="after")
    def _somebody(self) -> "Peer":
        if not (self.calling_aes or self.addresses or self.certificates):
            raise ValueError("give calling_aes, addresses or certificates; this would let all in")
        return self


class ReceiveTls(Section):
    """A port for DICOM over TLS (PS3.15 B.12)."""

    port: Port = 2762
    """PS3.15 B.1 recommends 2762."""
    certificate_file: Path
    """PEM: the node's own certificate, then those between it and the authority."""
    key_file: Path
    """PEM, without pass phrase, not readable by everybody."""
    ca_file: Path
    """PEM: the authorities (or single certificates) that a client's must lead to."""
    client_certificate: Literal["required", "optional"] = "required"
    """`optional`: a client may show none; one that it shows must be good."""


class DestinationTls(Section):
    """C-STORE over TLS (PS3.15 B.12)."""

    ca_file: Path | None = None
    """PEM certificates that the server's must lead to; None: those the system trusts."""
    certificate_file: Path | None = None
    key_file: Path | None = None
    """PEM, without pass phrase; the node's own, for servers that ask for one (most do)."""
    check_server_name: bool = True
    """Whether the certificate must be for `server_name`; false needs a `ca_file`."""
    server_name: str | None = None
    """Name or address in the server's certificate; None: the destination's host."""

    @model_validator(mode="after")
    def _whole(self) -> "DestinationTls":
        if (self.certificate_file is None) != (self.key_file is None):
            raise ValueError("certificate_file and key_file are both needed")
        if not self.check_server_name and self.ca_file is None:
            raise ValueError("check_server_name = false needs a ca_file: else any name would do")
        return self
