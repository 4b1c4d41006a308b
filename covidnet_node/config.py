"""node.toml as one frozen, validated model. Read once by `cli.py`, passed down as arguments.

Never read from the environment and never changed while running: a change is a restart.
"""

import re
import tomllib
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, ValidationError, model_validator

from covidnet_node.config_commitment import Commitment
from covidnet_node.config_doors import AETitle, DestinationTls, Peer, Port, ReceiveTls, Section
from covidnet_node.config_oversight import Audit, Http
from covidnet_node.errors import BadConfig


def _pattern(text: str) -> str:
    try:
        re.compile(text, re.IGNORECASE)
    except re.error as error:
        raise ValueError(f"is no regular expression: {error}") from error
    return text


def _web_address(text: str) -> str:
    try:
        parts = urlsplit(text)
        whole = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        whole = False
    if not whole or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError("is no web address such as https://pacs.example.org/dicom-web")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError("must hold no user, query or fragment; a token goes into token_file")
    return text.rstrip("/")


UIDText = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)*$", max_length=64)]

Pattern = Annotated[str, AfterValidator(_pattern)]
"""Regular expression, searched without regard to case."""

WebAddress = Annotated[str, AfterValidator(_web_address)]
"""http or https, without user, query, fragment and closing slash."""

Seconds = Annotated[float, Field(gt=0)]
Days = Annotated[float, Field(gt=0)]


class Node(Section):
    """Who this node is and where it keeps its state."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")] = "covidnet-node"
    ae_title: AETitle = "COVIDNET"
    data: Path = Path("/var/lib/covidnet-node")
    """Folder of journal and spool; mode 0700."""


class Receive(Section):
    """The C-ECHO / C-STORE SCP."""

    address: str = "0.0.0.0"  # noqa: S104 - a DICOM node listens to its hospital
    port: Port = 11112
    plain: bool | None = None
    """Whether `port` is open, without TLS; None: only if there is no table `tls`."""
    tls: ReceiveTls | None = None
    peer: tuple[Peer, ...] = ()
    """Who may associate; empty: anybody whom `calling_aes` allows."""
    require_called_ae: bool = True
    calling_aes: tuple[AETitle, ...] = ()
    """Empty: any."""
    max_associations: Annotated[int, Field(ge=1, le=1000)] = 100
    max_connections_per_peer: Annotated[int, Field(ge=1, le=1000)] = 50
    """Associations of one address, and as many clients of it that have not asked for one yet."""
    max_pdu_bytes: Annotated[int, Field(ge=16_384, le=16 * 1024 * 1024)] = 1024 * 1024
    max_object_mib: Annotated[int, Field(ge=1, le=4096)] = 256
    low_disk_mib: Annotated[int, Field(ge=0)] = 1024
    """Below this much free space C-STORE answers A700."""
    request_timeout_s: Seconds = 10
    """For the TLS handshake and the association request together, of a client that connects."""
    network_timeout_s: Seconds = 60
    """For the next message of an open association."""
    refused_status: Literal["success", "cannot_understand", "out_of_resources"] = "success"
    """Answer to an image that is not ours: 0000, C000 or A700."""
    accept_classes: tuple[UIDText, ...] = ()
    """Further storage SOP classes to accept: admitted only by a rule that names them."""
    refuse_classes: tuple[UIDText, ...] = ()
    """Storage SOP classes never to accept, of those accepted by default."""

    @property
    def open_plain(self) -> bool:
        """Whether the port without TLS is open."""
        return self.tls is None if self.plain is None else self.plain

    @model_validator(mode="after")
    def _some_door(self) -> "Receive":
        if self.tls is None and not self.open_plain:
            raise ValueError("plain = false needs a table [receive.tls]: no port would be open")
        if self.tls is None and any(peer.certificates for peer in self.peer):
            raise ValueError("certificates of a peer need a table [receive.tls]")
        both = self.tls is not None and self.open_plain
        if both and self.tls is not None and self.port and self.tls.port == self.port:
            raise ValueError("port and tls.port must differ")
        return self


class Rule(Section):
    """The first rule of which every given field matches decides."""

    action: Literal["admit", "refuse"]
    name: str = ""
    sop_class: tuple[UIDText, ...] = ()
    modality: tuple[str, ...] = ()
    calling_ae: tuple[AETitle, ...] = ()
    body_part: Pattern | None = None
    procedure: Pattern | None = None
    """Requested or performed procedure, protocol name, and their codes' meanings."""
    description: Pattern | None = None
    """Study or series description."""
    view: Pattern | None = None
    presentation_intent: tuple[str, ...] = ()
    min_rows: Annotated[int, Field(ge=0)] = 0
    min_columns: Annotated[int, Field(ge=0)] = 0


CHEST = r"chest|thora|lung|\bcxr\b"

DEFAULT_RULES = (
    Rule(action="admit", name="chest by body part", modality=("CR", "DX"), body_part=CHEST),
    Rule(action="admit", name="chest by procedure", modality=("CR", "DX"), procedure=CHEST),
    Rule(action="admit", name="chest by description", modality=("CR", "DX"), description=CHEST),
)


class Admit(Section):
    """Which images are ours. Intended use itself (adult, frontal) is not configurable."""

    rules: tuple[Rule, ...] = DEFAULT_RULES
    age_unknown: Literal["analyze", "not_analyzed"] = "analyze"


class Analyze(Section):
    """The worker processes."""

    weights: Path | None = None
    """Folder with manifest.toml; None: the weights shipped with the package."""
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")] = "auto"
    workers: Annotated[int, Field(ge=0, le=16)] = 0
    """0: one per GPU, or one on a CPU."""
    threads: Annotated[int, Field(ge=0, le=256)] = 0
    """CPU threads per worker; 0: all cores but one."""
    deadline_s: Seconds = 120
    """For one image; a worker silent for longer is killed and the image tried once more."""
    max_crashes: Annotated[int, Field(ge=1, le=10)] = 2
    """Workers one image may take down before it is parked."""
    max_attempts: Annotated[int, Field(ge=1, le=100)] = 10
    """Attempts of any kind (restarts of the node, memory running out) before it is parked."""


class Results(Section):
    """What a destination wants to get, and in which form."""

    report: Literal["comprehensive_3d", "comprehensive", "enhanced", "none"] = "comprehensive_3d"
    """SOP class of the Structured Report; the content is the same in all three."""
    heatmap: Literal["overlay", "plain_and_overlay", "none"] = "overlay"
    """`plain_and_overlay`: a second instance without color, to switch the overlay off."""
    contours: bool = False
    """A presentation state (GSPS) that draws lungs and peaks on the original."""
    segmentation: bool = False
    """The lungs as a SEG object."""
    evidence_map: bool = False
    """The raw heatmap as a Parametric Map, where the source has a frame of reference."""
    page: bool = False
    """For "not analyzed": a page of text as an image beside the report."""
    heatmap_syntax: Literal["explicit_little_endian", "rle", "jpeg_lossless", "jpeg_baseline"] = (
        "explicit_little_endian"
    )
    character_set: Literal["source", "utf8"] = "source"
    """`source`: declaration and bytes untouched. `utf8`: converted to ISO_IR 192."""
    report_series_number: Annotated[int, Field(ge=1, le=2**31 - 1)] = 99101
    heatmap_series_number: Annotated[int, Field(ge=1, le=2**31 - 1)] = 99102
    """High, so that the results sort behind the images in every viewer. Contours, segmentation and
    evidence map take the numbers that follow."""
    series_prefix: Annotated[str, Field(pattern=r"^[ -\[\]-~]{0,16}$")] = ""
    """Put before the series description; what and the notice follow."""

    @model_validator(mode="after")
    def _something(self) -> "Results":
        if self.report == "none" and self.heatmap == "none":
            raise ValueError("report and heatmap cannot both be none: silence looks like normal")
        return self


LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class Destination(Section):
    """A PACS that wants results: by C-STORE, back to each sender, or by STOW-RS."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
    ae_title: AETitle | None = None
    host: str | None = None
    port: Port | None = None
    back_to_sender: bool = False
    """Results go to the AE title and address the image came from, at `port`."""
    calling_ae: AETitle | None = None
    """AE title to call with; None: the node's own."""
    tls: DestinationTls | None = None
    """For C-STORE; a url with https has its own keys below."""
    url: WebAddress | None = None
    """Base of a DICOMweb service; results go by STOW-RS to `url`/studies."""
    token_file: Path | None = None
    """Holds a bearer token, or a whole value of the header Authorization; read at each request."""
    ca_file: Path | None = None
    """PEM certificates that the server's must lead to; None: those the system trusts."""
    certificate_file: Path | None = None
    key_file: Path | None = None
    """PEM, without pass phrase; the node's own certificate, for servers that ask for one."""
    connect_timeout_s: Seconds = 10
    response_timeout_s: Seconds = 60
    max_per_association: Annotated[int, Field(ge=1, le=1000)] = 50
    results: Results = Results()
    """What it gets. Destinations that want the same share the same objects."""
    commitment: Commitment = Commitment()
    """Whether it must say that it keeps what it has stored."""

    @model_validator(mode="after")
    def _one_target(self) -> "Destination":
        named = self.ae_title is not None or self.host is not None
        if [named, self.back_to_sender, self.url is not None].count(True) != 1:
            raise ValueError("give either ae_title and host, or back_to_sender = true, or url")
        if named and (self.ae_title is None or self.host is None):
            raise ValueError("ae_title and host are both needed")
        if self.url is None:
            self._check_dimse()
        else:
            self._check_web(self.url)
        return self

    def _check_dimse(self) -> None:
        if self.port is None:
            raise ValueError("port is needed")
        web = (self.token_file, self.ca_file, self.certificate_file, self.key_file)
        if any(each is not None for each in web):
            raise ValueError(
                "token_file, ca_file, certificate_file and key_file belong to a url; for C-STORE "
                "over TLS the last three stand in [destination.tls]"
            )

    def _check_web(self, url: str) -> None:
        if self.tls is not None:
            raise ValueError("[destination.tls] does not belong to a url; https is TLS")
        if self.commitment.ask != "off":
            raise ValueError("[destination.commitment] does not belong to a url; it needs C-STORE")
        if self.port is not None or self.calling_ae is not None:
            raise ValueError("port and calling_ae do not belong to a url; it holds its own port")
        if (self.certificate_file is None) != (self.key_file is None):
            raise ValueError("certificate_file and key_file are both needed")
        parts = urlsplit(url)
        if parts.scheme == "https":
            return
        if self.ca_file is not None or self.certificate_file is not None:
            raise ValueError("ca_file, certificate_file and key_file need a url with https")
        if self.token_file is not None and parts.hostname not in LOOPBACK:
            raise ValueError("token_file needs a url with https; in the clear anyone could read it")


class Deliver(Section):
    """How results that a destination misses are sent again."""

    first_pause_s: Seconds = 5
    longest_pause_s: Seconds = 900
    give_up_after_hours: Annotated[float, Field(gt=0)] = 24 * 7
    """After that the case is parked with an alert; `queue requeue` starts afresh."""

    @property
    def give_up_after(self) -> timedelta:
        """As a duration."""
        return timedelta(hours=self.give_up_after_hours)


class Retention(Section):
    """How long pixels and results stay on disk once a case rests. Rows of the journal stay."""

    done_days: Days = 7
    refused_days: Days = 30
    """Of a refused image only its row is kept; this is the row's age."""
    parked_days: Days = 90


class Log(Section):
    """Operational log, JSON lines on standard error; never patient data."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    format: Literal["json", "console"] = "json"


class Config(Section):
    """All of node.toml."""

    node: Node = Node()
    receive: Receive = Receive()
    admit: Admit = Admit()
    analyze: Analyze = Analyze()
    deliver: Deliver = Deliver()
    destination: tuple[Destination, ...] = ()
    retention: Retention = Retention()
    http: Http = Http()
    audit: Audit = Audit()
    log: Log = Log()

    @model_validator(mode="after")
    def _names_differ(self) -> "Config":
        names = [destination.name for destination in self.destination]
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise ValueError(f"two destinations are named {sorted(twice)[0]!r}")
        return self


def load_config(path: Path) -> Config:
    """Read node.toml; raises BadConfig naming file, key and remedy."""
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BadConfig(str(path), "file", "does not exist; start from config/node.toml") from error
    except (OSError, UnicodeDecodeError) as error:
        raise BadConfig(str(path), "file", f"cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise BadConfig(str(path), "file", f"is not valid TOML: {error}") from error
    try:
        return Config.model_validate(raw)
    except ValidationError as error:
        raise BadConfig(str(path), *_first_complaint(error)) from error


def _first_complaint(error: ValidationError) -> tuple[str, str]:
    """Key and remedy of the first thing wrong, in an administrator's words."""
    first = error.errors(include_url=False)[0]
    key = ".".join(str(part) for part in first["loc"]) or "file"
    if first["type"] == "extra_forbidden":
        return key, "is not a known key; see config/node.toml for all of them"
    if first["type"] == "missing":
        return key, "is missing; see config/node.toml"
    message = first["msg"].removeprefix("Value error, ")
    if key == "file" or key.endswith(".url"):  # an address may hold a password
        return key, message
    return key, f"{message} (found {first['input']!r})"
