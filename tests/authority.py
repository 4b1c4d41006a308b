"""A hospital's certificate authority for tests, with files as an administrator would lay them."""

import datetime
import ssl
from dataclasses import dataclass
from pathlib import Path

import trustme


@dataclass(frozen=True, slots=True)
class Papers:
    """The files of one end of a connection."""

    certificate: Path
    key: Path

    @property
    def pair(self) -> tuple[Path, Path]:
        return self.certificate, self.key


class Authority:
    """Issues certificates into a folder."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self.folder = folder
        self.root = trustme.CA(organization_name=name)
        self.file = folder / f"{name}.pem"
        self.root.cert_pem.write_to_path(str(self.file))

    def issue(self, name: str, *names: str, days: float = 30, common_name: str = "") -> Papers:
        """A certificate for these names, and its key; `days` below 0: it has run out."""
        now = datetime.datetime.now(datetime.UTC)
        issued = self.root.issue_cert(
            *(names or ("127.0.0.1", "localhost")),
            common_name=common_name or name,
            not_before=now - datetime.timedelta(days=60),
            not_after=now + datetime.timedelta(days=days),
        )
        papers = Papers(self.folder / f"{name}.pem", self.folder / f"{name}.key")
        issued.cert_chain_pems[0].write_to_path(str(papers.certificate))
        papers.key.touch(mode=0o600)
        issued.private_key_pem.write_to_path(str(papers.key))
        return papers

    def trusting(self, papers: Papers | None = None) -> ssl.SSLContext:
        """A client that trusts this authority and shows its papers."""
        context = ssl.create_default_context(cafile=self.file)
        if papers is not None:
            context.load_cert_chain(*papers.pair)
        return context

    def serving(self, papers: Papers, *, ask: bool = True) -> ssl.SSLContext:
        """A server with these papers, which asks for a certificate of this authority."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*papers.pair)
        if ask:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(self.file)
        return context

    def receive_tls(self, papers: Papers, **changes: object) -> dict[str, object]:
        """The table `[receive.tls]`."""
        return {
            "port": 0,
            "certificate_file": papers.certificate,
            "key_file": papers.key,
            "ca_file": self.file,
        } | changes
