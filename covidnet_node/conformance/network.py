"""What the node negotiates and answers, from the tables it does so with."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from http import HTTPStatus

from pydantic import BaseModel
from pydicom.uid import UID

from covidnet_node.admit import RESULT_CLASSES
from covidnet_node.associate import Target
from covidnet_node.case import Reason
from covidnet_node.commit import SOP_CLASS, STUDY_ROOT_FIND, SYNTAXES
from covidnet_node.config import Config, Deliver, Destination, Receive, Results
from covidnet_node.config_commitment import Commitment
from covidnet_node.config_doors import DestinationTls, Peer, ReceiveTls
from covidnet_node.conformance.example import Example
from covidnet_node.deliver import MOST_CONTEXTS, SLOWEST_LINE, judged
from covidnet_node.deliver_web import BODY_DECIDES, DUPLICATE, FOR_GOOD, WHOLE_PEER
from covidnet_node.receive.bounded import MAX_REQUEST_PDU
from covidnet_node.receive.contexts import UNCOMPRESSED, VERIFICATION, supported_contexts
from covidnet_node.receive.inbox import MAX_WAITING
from covidnet_node.receive.read_header import CANNOT_UNDERSTAND, DATA_SET_MISMATCH
from covidnet_node.receive.scp import OUT_OF_RESOURCES, REFUSED_STATUS, SUCCESS


def storage_lines(examples: Sequence[Example]) -> Iterator[str]:
    """Storage SOP classes, and who is what for them (PS3.2 table N.1-1)."""
    created = sorted({str(each.dataset.SOPClassUID) for each in examples})
    received = _accepted().keys() - {VERIFICATION}
    yield "| SOP Class | UID | SCU | SCP | User Agent (STOW-RS) | Created | Remark |"
    yield "|---|---|---|---|---|---|---|"
    for uid in sorted({*created, *received}):
        own, taken = uid in created, uid in received
        remark = "received ones are answered Success and dropped" if uid in RESULT_CLASSES else ""
        cells = [UID(uid).name, uid, *map(_yes, (own, taken, own, own)), remark]
        yield f"| {' | '.join(cells)} |"
    yield f"| {UID(VERIFICATION).name} | {VERIFICATION} | Y | Y | N | N |  |"


def syntax_lines(examples: Sequence[Example]) -> Iterator[str]:
    """Transfer syntaxes received, in order of preference, and sent (PS3.2 table N.1-2)."""
    sent = _sent(examples)
    every = {syntax for syntaxes in sent.values() for syntax in syntaxes}
    received = max(_accepted().values(), key=len)
    yield "| Transfer Syntax | UID | Receives | Sends |"
    yield "|---|---|---|---|"
    for uid in (*received, *sorted(every - set(received))):
        yield f"| {UID(uid).name} | {uid} | {_yes(uid in received)} | {_yes(uid in every)} |"


def proposed_lines(examples: Sequence[Example]) -> Iterator[str]:
    """Presentation contexts that the node proposes: one a SOP class and transfer syntax."""
    yield "| Abstract Syntax | UID | Transfer Syntax | Role | Extended negotiation |"
    yield "|---|---|---|---|---|"
    for uid, syntaxes in sorted(_sent(examples).items()):
        for syntax in sorted(syntaxes):
            yield f"| {UID(uid).name} | {uid} | {UID(syntax).name} ({syntax}) | SCU | None |"
    plain = UNCOMPRESSED[1]
    yield (
        f"| {UID(VERIFICATION).name} | {VERIFICATION} | {UID(plain).name} ({plain}) | SCU | None |"
    )
    for uid in (SOP_CLASS, STUDY_ROOT_FIND):
        both = ", ".join(f"{UID(each).name} ({each})" for each in SYNTAXES)
        yield f"| {UID(uid).name} (where `commitment.ask` says so) | {uid} | {both} | SCU | None |"


def accepted_lines() -> Iterator[str]:
    """Presentation contexts that the node accepts."""
    yield "| Abstract Syntax | UID | Transfer Syntaxes | Role | Extended negotiation |"
    yield "|---|---|---|---|---|"
    for uid, syntaxes in _accepted().items():
        many = len(syntaxes) > len(UNCOMPRESSED)
        which = "all that are received" if many else ", ".join(UID(each).name for each in syntaxes)
        yield f"| {UID(uid).name} | {uid} | {which} | SCP | None |"
    ours = {str(each.abstract_syntax) for each in supported_contexts(Receive(), reports=True)}
    for uid in sorted(ours - _accepted().keys()):
        which = ", ".join(UID(each).name for each in UNCOMPRESSED)
        chosen = "Role selection: the peer as SCP, proposed or not"
        name = f"{UID(uid).name} (where `commitment.ask` says so)"
        yield f"| {name} | {uid} | {which} | SCU | {chosen} |"


def association_lines() -> Iterator[str]:
    """Numbers of associations, sizes and waits (PS3.2 table N.7-2)."""
    receive = Receive()
    named = Destination(name="x", ae_title="X", host="x", port=104)
    yield "| Parameter | Value | Set by |"
    yield "|---|---|---|"
    for what, value, key in (
        ("Application Context Name", "1.2.840.10008.3.1.1.1", ""),
        ("Called AE title is checked", _yes(receive.require_called_ae),
         "receive.require_called_ae"),
        ("Calling AE titles accepted", receive.calling_aes or "any", "receive.calling_aes"),
        ("Addresses, and certificates, accepted", receive.peer or "any", "receive.peer"),
        ("Associations accepted at a time", receive.max_associations, "receive.max_associations"),
        ("Of these, from one address", receive.max_connections_per_peer,
         "receive.max_connections_per_peer"),
        ("Connections without a request yet; beyond, the oldest is closed",
         receive.max_associations, "receive.max_associations"),
        ("Of these, from one address", receive.max_connections_per_peer,
         "receive.max_connections_per_peer"),
        ("Largest PDU accepted, bytes", receive.max_pdu_bytes, "receive.max_pdu_bytes"),
        ("Largest association request, bytes", MAX_REQUEST_PDU, ""),
        ("Largest object accepted, MiB", receive.max_object_mib, "receive.max_object_mib"),
        ("Wait for TLS handshake and association request, s (ARTIM)", receive.request_timeout_s,
         "receive.request_timeout_s"),
        ("Wait within and between messages, s", receive.network_timeout_s,
         "receive.network_timeout_s"),
        ("Requests taken ahead of their answers; none is negotiated", MAX_WAITING, ""),
        ("Associations initiated at a time, to each destination", 1, ""),
        ("Objects sent on one association, at most", named.max_per_association,
         "destination.max_per_association"),
        ("Presentation contexts proposed, at most", MOST_CONTEXTS, ""),
        ("Largest PDU announced as initiator, bytes", Target("X", "x", 1, 1, 1).max_pdu, ""),
        ("Wait for connection, TLS and association response, s each", named.connect_timeout_s,
         "destination.connect_timeout_s"),
        ("Wait for a C-STORE or HTTP response, s, and besides it 1 s for each so many KiB sent",
         f"{named.response_timeout_s:g}; {SLOWEST_LINE // 1024}", "destination.response_timeout_s"),
        ("First and longest pause before the next attempt, s",
         f"{Deliver().first_pause_s:g}; {Deliver().longest_pause_s:g}",
         "deliver.first_pause_s, deliver.longest_pause_s"),
        ("Attempts end after, hours", Deliver().give_up_after_hours, "deliver.give_up_after_hours"),
    ):  # fmt: skip
        yield f"| {what} | {value} | {key} |"


# Statuses


@dataclass(frozen=True, slots=True)
class Answer:
    """A status that the node answers C-STORE with."""

    status: int
    meaning: str
    condition: str
    reasons: frozenset[Reason] = frozenset()
    """What the code says it for."""


_OTHERS = ", ".join(f"{status:04X}" for status in REFUSED_STATUS.values())

ANSWERS = (
    Answer(SUCCESS, "Success", "The object is on disk and journaled; or it is a copy of one that "
           "is; or it is a result of this node, which is dropped"),
    Answer(REFUSED_STATUS[Receive().refused_status], "Success",
           "The image is not of a kind that is analyzed: recorded, not kept (other statuses by "
           f"`receive.refused_status`: {_OTHERS})"),
    Answer(OUT_OF_RESOURCES, "Refused: Out of Resources",
           "Too little disk space, the object is larger than allowed, the journal cannot be "
           "written, or an internal error: to be sent again",
           frozenset({Reason.NO_SPACE, Reason.CANNOT_STORE, Reason.TOO_LARGE})),
    Answer(DATA_SET_MISMATCH, "Error: Data Set does not match SOP Class",
           "SOP class or instance of the command are not those of the data set",
           frozenset({Reason.UID_MISMATCH})),
    Answer(CANNOT_UNDERSTAND, "Error: Cannot understand",
           "No data set, none that can be read, a header too long to be one, or UIDs missing or "
           "invalid",
           frozenset({Reason.NOT_DICOM, Reason.BAD_UID, Reason.TOO_LARGE})),
)  # fmt: skip
"""The test compares this with every place that raises a refusal."""


def answer_lines() -> Iterator[str]:
    """Statuses of the node as Storage SCP (PS3.2 table N.7-43)."""
    yield "| Status | Meaning | Condition |"
    yield "|---|---|---|"
    for answer in ANSWERS:
        yield f"| {answer.status:04X} | {answer.meaning} | {answer.condition} |"


HEARD = (0x0000, 0xB000, 0xB006, 0xB007, 0x0111, 0x0110, 0x0112, 0x0117, 0x0122, 0x0124, 0x0210,
         0x0211, 0x0212, 0xA700, 0xA900, 0xC000)  # fmt: skip


def heard_lines() -> Iterator[str]:
    """What the node as Storage SCU makes of a status (PS3.2 table N.7-42)."""
    yield "| Status | Meaning | Behavior |"
    yield "|---|---|---|"
    for status in HEARD:
        sent = judged("", status)
        code, _, meaning = sent.detail.partition(" ")
        span = {0xA700: "A700-A7FF", 0xA900: "A900-A9FF", 0xC000: "C000-CFFF"}.get(status, code)
        yield f"| {span} | {meaning} | {_behavior(stored=sent.stored)} |"
    yield f"| anything else | unknown | {_behavior(stored=False)} |"


def web_lines() -> Iterator[str]:
    """What the node as STOW-RS User Agent makes of an HTTP status (PS3.2 N.7.3.3.3.4)."""
    yield "| Status | Meaning | Behavior |"
    yield "|---|---|---|"
    for status in sorted(BODY_DECIDES | FOR_GOOD | WHOLE_PEER | {500}):
        yield f"| {status} | {HTTPStatus(status).phrase} | {_web_behavior(status)} |"
    yield ("| 3xx | Redirection | Not followed; not stored, tried again; the others wait with it |")
    yield f"| anything else | unknown | {_web_behavior(599)} |"
    yield (
        f"| Failure Reason {DUPLICATE:04X} | duplicate SOP instance | "
        "Stored: the same UID means the same bytes |"
    )


def _behavior(*, stored: bool) -> str:
    if stored:
        return "Stored: noted in the journal, not sent again"
    return "Not stored: logged, sent again after a pause that grows"


def _web_behavior(status: int) -> str:
    if status in BODY_DECIDES:
        stored = "" if status == HTTPStatus.CONFLICT else "stored if it names the instance so; "
        return f"The answer decides: {stored}a Failure Reason is judged like a C-STORE status"
    rest = "; the others wait with it" if status in WHOLE_PEER else ""
    return f"Not stored, tried again{rest}"


# Configuration


def setting_lines() -> Iterator[str]:
    """Keys of node.toml that shape what goes over the network, with their defaults."""
    yield "| Key | Default |"
    yield "|---|---|"
    config = Config()
    for name, section in (
        ("node", config.node),
        ("receive", config.receive),
        ("admit", config.admit),
        ("deliver", config.deliver),
    ):
        for key, value in _defaults(section):
            yield f"| {name}.{key} | {value} |"
    for key, value in _defaults(Destination.model_construct(name="")):
        yield f"| destination.{key} | {value} |"
    for name, table in (
        ("receive.tls", ReceiveTls),
        ("receive.peer", Peer),
        ("destination.tls", DestinationTls),
        ("destination.commitment", Commitment),
    ):
        for key, field in table.model_fields.items():
            value = "(needed)" if field.is_required() else _told(field.default)
            yield f"| {name}.{key} | {value} |"


def profile_lines() -> Iterator[str]:
    """What a destination may ask for (`config.Results`)."""
    yield "| Key | Default | Others |"
    yield "|---|---|---|"
    for key, described in Results.model_json_schema()["properties"].items():
        default = described["default"]
        words = described.get("enum") or ([True, False] if isinstance(default, bool) else [])
        others = ", ".join(_told(word) for word in words if word != default)
        yield f"| {key} | {_told(default)} | {others} |"


def _defaults(section: BaseModel) -> Iterator[tuple[str, str]]:
    for key in type(section).model_fields:
        value = getattr(section, key)
        if key not in {"rules", "name", "data"} and not isinstance(value, BaseModel):
            yield key, _told(value)


def _told(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "(none)" if value in (None, (), "") else str(value)


def _sent(examples: Iterable[Example]) -> dict[str, set[str]]:
    sent: dict[str, set[str]] = {}
    for each in examples:
        syntax = str(each.dataset.file_meta.TransferSyntaxUID)
        sent.setdefault(str(each.dataset.SOPClassUID), set()).add(syntax)
    return sent


def _accepted() -> dict[str, tuple[str, ...]]:
    """Abstract syntaxes that are accepted by default, each with its transfer syntaxes."""
    return {
        str(context.abstract_syntax): tuple(map(str, context.transfer_syntax or ()))
        for context in supported_contexts(Receive())
    }


def _yes(holds: object) -> str:
    return "Y" if holds else "N"
