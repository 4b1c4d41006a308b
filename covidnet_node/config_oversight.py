"""The tables of node.toml for those who watch the node: HTTP and audit trail (part of `config`)."""

import ipaddress
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from covidnet_node.config_doors import Port, Section


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach what listens there."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _syslog_server(text: str) -> str:
    try:
        parts = urlsplit(text)
        whole = parts.scheme in {"tls", "udp"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        whole = False
    if not whole or "@" in parts.netloc or parts.path or parts.query or parts.fragment:
        raise ValueError("is no syslog server such as tls://audit.example.org:6514")
    return text


SyslogServer = Annotated[str, AfterValidator(_syslog_server)]
"""tls://HOST[:PORT] (RFC 5425, port 6514) or udp://HOST[:PORT] (RFC 5426, port 514)."""


class Http(Section):
    """Status page, health and metrics. Beyond this machine only for those who show who they are."""

    address: str = "127.0.0.1"
    port: Port = 8042
    token_file: Path | None = None
    """Holds a bearer token of at least 16 characters; read at each request."""
    certificate_file: Path | None = None
    key_file: Path | None = None
    """PEM, without pass phrase; with them the door speaks HTTPS."""
    ca_file: Path | None = None
    """PEM: every client must show a certificate that leads to one of these."""
    names: tuple[Annotated[str, Field(pattern=r"^[A-Za-z0-9.-]{1,253}$")], ...] = ()
    """Host names under which browsers may ask, beside addresses and localhost."""

    @model_validator(mode="after")
    def _somebody_known(self) -> "Http":
        if (self.certificate_file is None) != (self.key_file is None):
            raise ValueError("certificate_file and key_file are both needed")
        if self.ca_file is not None and self.certificate_file is None:
            raise ValueError("ca_file needs certificate_file and key_file")
        if not is_loopback(self.address) and self.token_file is None and self.ca_file is None:
            raise ValueError(
                f"address {self.address} can be reached from elsewhere: give token_file, or "
                "certificate_file, key_file and ca_file; or leave it at 127.0.0.1"
            )
        return self


class Audit(Section):
    """The audit trail (PS3.15 A.5): who moved whose images, and who was turned away."""

    file: Path | None = None
    """Each message is one line."""
    syslog: SyslogServer | None = None
    ca_file: Path | None = None
    """PEM certificates that the server's must lead to; None: those the system trusts."""
    certificate_file: Path | None = None
    key_file: Path | None = None
    """PEM, without pass phrase; the node's own, for servers that ask for one (most do)."""
    site: str = ""
    """AuditEnterpriseSiteID."""
    backlog_mib: Annotated[int, Field(ge=1, le=65536)] = 256
    """Of messages that cannot get out, for each way; more are lost, with an alert."""

    @model_validator(mode="after")
    def _whole(self) -> "Audit":
        if (self.certificate_file is None) != (self.key_file is None):
            raise ValueError("certificate_file and key_file are both needed")
        own = (self.ca_file, self.certificate_file)
        tls = self.syslog is not None and self.syslog.startswith("tls:")
        if not tls and any(each is not None for each in own):
            raise ValueError("ca_file, certificate_file and key_file need syslog = tls://...")
        return self
