"""TLS from certificate files: contexts by PS3.15 B.12, whose certificate it is, when it runs out.

BCP 195 (RFC 9325): TLS 1.3 where both can, TLS 1.2 at least, forward secrecy and authenticated
encryption only, no compression, no renegotiation, no tickets. A session of TLS 1.2 may be resumed
by its id while the context lives: whose it is stays known, its certificate is not checked again.
"""

import hashlib
import socket
import ssl
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import structlog
from cryptography import x509

from covidnet_node.config import Config
from covidnet_node.config_doors import DestinationTls, ReceiveTls
from covidnet_node.config_oversight import Audit, Http
from covidnet_node.errors import BadConfig
from covidnet_node.private_file import Exposed, check_private

log = structlog.get_logger()

CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""For TLS 1.2 (RFC 9325 4.2); the suites of TLS 1.3 are all of this kind."""

UNREADABLE = (ValueError, x509.InvalidVersion, x509.UnsupportedGeneralNameType)
"""What reading a certificate raises; the last two are of no common kind."""

SOON_DAYS, VERY_SOON_DAYS = 30, 7
"""Days before the end at which the log begins to warn, and raises its voice."""


@dataclass(frozen=True, slots=True)
class Files:
    """The PEM files of one end of a connection, and what node.toml calls them."""

    where: str
    """Table of node.toml, e.g. `receive.tls`."""
    ca_file: Path | None
    certificate_file: Path | None
    key_file: Path | None

    def named(self) -> Iterator[tuple[str, Path]]:
        """Key of node.toml and path of each file that is given."""
        for name in ("ca_file", "certificate_file", "key_file"):
            path: Path | None = getattr(self, name)
            if path is not None:
                yield f"{self.where}.{name}", path


@dataclass(frozen=True, slots=True)
class Expiry:
    """When a file's certificates stop being good."""

    which: str
    """Key of node.toml, e.g. `receive.tls.certificate_file`."""
    subject: str
    """RFC 4514."""
    not_before: datetime
    not_after: datetime

    def days(self, now: datetime) -> float:
        """Days left; below zero once it has run out."""
        return (self.not_after - now).total_seconds() / 86400


@dataclass(frozen=True, slots=True)
class Identity:
    """What a peer's certificate says of it; the chain of trust has been checked already."""

    subject: x509.Name
    dns: frozenset[str]
    """Lower case; wildcards stand as they are and match nobody's name."""
    sha256: str

    def __str__(self) -> str:
        return self.subject.rfc4514_string() or f"sha256:{self.sha256}"


# Contexts


class _Accepted(ssl.SSLSocket):
    """A server's end of a connection.

    Closes what was reset before the handshake, which Python's own leaves to the collector.
    """

    def getpeername(self) -> object:
        """Address of the peer; raises ConnectionResetError if it has gone."""
        try:
            return super().getpeername()
        except OSError as error:
            self.close()
            raise ConnectionResetError from error


def server_context(tls: ReceiveTls) -> ssl.SSLContext:
    """For those who call us; raises BadConfig naming file and fault."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.sslsocket_class = _Accepted
    required = tls.client_certificate == "required"
    context.verify_mode = ssl.CERT_REQUIRED if required else ssl.CERT_OPTIONAL
    context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE | ssl.OP_NO_TICKET
    context.num_tickets = 0
    _load(context, receive_files(tls))
    return context


def web_context(http: Http) -> ssl.SSLContext:
    """For those who call the HTTP door; raises BadConfig naming file and fault."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_NONE if http.ca_file is None else ssl.CERT_REQUIRED
    context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE | ssl.OP_NO_TICKET
    context.num_tickets = 0
    _load(context, http_files(http))
    return context


def client_context(files: Files, *, check_server_name: bool = True) -> ssl.SSLContext:
    """For those whom we call; raises BadConfig naming file and fault."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = check_server_name
    if files.ca_file is None:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    _load(context, files)
    return context


def receive_files(tls: ReceiveTls) -> Files:
    """The files of `[receive.tls]`."""
    return Files("receive.tls", tls.ca_file, tls.certificate_file, tls.key_file)


def destination_files(name: str, tls: DestinationTls) -> Files:
    """The files of a `[destination.tls]`."""
    return Files(f"destination.{name}.tls", tls.ca_file, tls.certificate_file, tls.key_file)


def audit_files(audit: Audit) -> Files:
    """The files of `[audit]`."""
    return Files("audit", audit.ca_file, audit.certificate_file, audit.key_file)


def http_files(http: Http) -> Files:
    """The files of `[http]`."""
    return Files("http", http.ca_file, http.certificate_file, http.key_file)


def all_files(config: Config) -> Iterator[Files]:
    """Every set of files that node.toml names."""
    if config.receive.tls is not None:
        yield receive_files(config.receive.tls)
    for each in config.destination:
        if each.tls is not None:
            yield destination_files(each.name, each.tls)
        elif each.url is not None:
            where = f"destination.{each.name}"
            yield Files(where, each.ca_file, each.certificate_file, each.key_file)
    yield audit_files(config.audit)
    yield http_files(config.http)


def _load(context: ssl.SSLContext, files: Files) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    # What stands in ca_file is trusted, also if it is no authority of the highest rank.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.set_ciphers(CIPHERS)
    for key, path in files.named():
        _check_readable(key, path)
    if files.ca_file is not None:
        try:
            context.load_verify_locations(files.ca_file)
        except (OSError, ValueError) as error:
            why = f"{files.ca_file} holds no certificate in PEM that can be read"
            raise BadConfig("node.toml", f"{files.where}.ca_file", why) from error
    if files.certificate_file is not None and files.key_file is not None:
        _load_own(context, files.where, files.certificate_file, files.key_file)


def _load_own(context: ssl.SSLContext, where: str, certificate: Path, key: Path) -> None:
    list(_expiries(f"{where}.certificate_file", certificate))
    try:
        # An empty pass phrase instead of a question on the terminal.
        context.load_cert_chain(certificate, key, password="")
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None)
        if reason == "KEY_VALUES_MISMATCH":
            why = f"{key} is not the key of {certificate}"
        else:
            why = f"{key} holds no private key in PEM that can be read without pass phrase"
        raise BadConfig("node.toml", f"{where}.key_file", why) from error


def _check_readable(key: str, path: Path) -> None:
    try:
        path.open("rb").close()
        if key.endswith("key_file"):
            check_private(path)
    except OSError as error:
        remedy = f"{path} cannot be read: {error.strerror}"
        raise BadConfig("node.toml", key, remedy) from error
    except Exposed as error:
        raise BadConfig("node.toml", key, str(error)) from error


class Renewing:
    """The server's context, made anew when its files change.

    Connections that stand keep the context they began with. New files that are of no use, e.g.
    a certificate whose key has not been written yet, change nothing but the log.
    """

    def __init__(self, tls: ReceiveTls) -> None:
        self._tls = tls
        self._lock = threading.Lock()
        self._seen = self._state()
        self._context = server_context(tls)

    def context(self) -> ssl.SSLContext:
        """The context for a new connection."""
        with self._lock:
            state = self._state()
            if state == self._seen:
                return self._context
            self._seen = state
            fault = self._renew()
            if fault is None:
                log.info("certificate_renewed", file=str(self._tls.certificate_file))
            else:
                log.error("certificate_not_renewed", key=fault.key, why=fault.remedy, alert=True)
            return self._context

    def _renew(self) -> BadConfig | None:
        try:
            self._context = server_context(self._tls)
        except BadConfig as fault:
            return fault
        return None

    def _state(self) -> tuple[tuple[int, int, int], ...]:
        """What changes whenever a file is written or replaced."""
        return tuple(_stamp(path) for _, path in receive_files(self._tls).named())


def _stamp(path: Path) -> tuple[int, int, int]:
    try:
        found = path.stat()
    except OSError:
        return (0, 0, 0)
    return (found.st_ino, found.st_mtime_ns, found.st_size)


# What certificates say


def expiries(config: Config, now: datetime) -> Iterator[Expiry | BadConfig]:
    """When each certificate file runs out, or why that cannot be told.

    Of the node's own file the first of the chain to run out; of a `ca_file` the first that has
    not run out yet, because such bundles keep old authorities.
    """
    for files in all_files(config):
        for key, path in files.named():
            if key.endswith("key_file"):
                continue
            try:
                yield _first(key, path, now)
            except BadConfig as fault:
                yield fault


def _first(key: str, path: Path, now: datetime) -> Expiry:
    found = sorted(_expiries(key, path), key=lambda each: each.not_after)
    if key.endswith("ca_file"):
        return next((each for each in found if each.not_after > now), found[-1])
    return found[0]


def _expiries(key: str, path: Path) -> Iterator[Expiry]:
    """Every certificate of a file; raises BadConfig."""
    try:
        certificates = x509.load_pem_x509_certificates(path.read_bytes())
    except OSError as error:
        remedy = f"{path} cannot be read: {error.strerror}"
        raise BadConfig("node.toml", key, remedy) from error
    except UNREADABLE as error:
        remedy = f"{path} holds no certificate in PEM that can be read"
        raise BadConfig("node.toml", key, remedy) from error
    for each in certificates:
        yield Expiry(key, _subject(each), each.not_valid_before_utc, each.not_valid_after_utc)


def _subject(certificate: x509.Certificate) -> str:
    try:
        return certificate.subject.rfc4514_string()
    except ValueError:
        return "(a subject that cannot be read)"


def identity_of(wire: ssl.SSLSocket) -> Identity | None:
    """Say whose certificate the peer has shown; None if none, or none that can be read."""
    der = wire.getpeercert(binary_form=True)
    if der is None:
        return None
    try:
        certificate = x509.load_der_x509_certificate(der)
        subject = certificate.subject
        names = _dns_names(certificate)
    except UNREADABLE:
        return None
    return Identity(subject, frozenset(names), hashlib.sha256(der).hexdigest())


def _dns_names(certificate: x509.Certificate) -> Iterable[str]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (x509.ExtensionNotFound, x509.DuplicateExtension):
        return ()
    return [each.lower() for each in found.value.get_values_for_type(x509.DNSName)]


def wanted(text: str, key: str) -> tuple[str, object]:
    """A `CertificateName` of node.toml as kind and value to compare; raises BadConfig."""
    kind, _, value = text.partition(":")
    if kind == "sha256":
        return kind, value.replace(":", "").lower()
    if kind == "dns":
        return kind, value.lower()
    try:
        return kind, x509.Name.from_rfc4514_string(value)
    except ValueError as error:
        remedy = f"{value!r} is no subject as RFC 4514 writes it, e.g. CN=xray1,O=Hospital"
        raise BadConfig("node.toml", key, remedy) from error


def has(identity: Identity, kind: str, value: object) -> bool:
    """Whether the certificate has what `wanted` told."""
    if kind == "sha256":
        return identity.sha256 == value
    if kind == "dns":
        return value in identity.dns and "*" not in str(value)
    return identity.subject == value


# On the line


def words_of(error: OSError) -> str:
    """What went wrong with TLS, in words of this machine's library."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        reason = (error.reason or "broken off").replace("_", " ").lower()
        plain = "; is it a port for TLS?" if error.reason == "WRONG_VERSION_NUMBER" else ""
        return f"TLS failed: {reason}{plain}"
    return error.strerror or type(error).__name__


def farewell(wire: socket.socket | None) -> None:
    """Say that nothing more will come (close_notify), without waiting for an answer."""
    if isinstance(wire, ssl.SSLSocket):
        with suppress(OSError, ValueError):
            wire.settimeout(0)
            wire.unwrap()
