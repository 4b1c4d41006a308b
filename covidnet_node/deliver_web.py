"""Sends results to a PACS by STOW-RS, and asks over HTTP whether it is there (PS3.18 10.5).

The same door as `deliver`: a fate for each result, and nothing raised. The bytes of the spool go
out as they lie. Nothing is stored unless the answer names the instance as stored. What the peer
says in words is never repeated: it may hold a patient's name.
"""

import json
import socket
import ssl
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPSConnection, IncompleteRead
from pathlib import Path
from threading import Timer
from time import monotonic
from urllib.parse import urlsplit

from covidnet_node.case import Result
from covidnet_node.certificates import Files, client_context, words_of
from covidnet_node.config import Destination
from covidnet_node.deliver import SLOWEST_LINE, Fate, Sent, flaw, judged
from covidnet_node.errors import BadConfig
from covidnet_node.private_file import read_token

DUPLICATE = 0x0111
"""The one failure reason that means: it is there (see `deliver.STORED_WITH_WARNING`)."""

BODY_DECIDES = frozenset({200, 202, 409})
"""PS3.18 table 10.5.3-1: the answer says of each instance what became of it."""

FOR_GOOD = frozenset({400, 401, 403, 404, 405, 407, 411, 413, 415, 422, 426, 431, 501})
"""The same request will be answered the same until a person changes something."""

WHOLE_PEER = frozenset({401, 404, 405, 407, 408, 421, 426, 429, 502, 503, 504})
"""Says nothing of the one instance: the next would be answered the same, so it is not tried."""

NO_SEARCH = frozenset({400, 404, 405, 406, 410, 414, 415, 422, 501})
"""Answers to a search by a server that cannot search, and may store all the same."""

NOTHING_TO_STORE = frozenset({400, 406, 409, 411, 415, 422})
"""Complaints about a request to store nothing, by a server that could store something."""

NOBODYS_STUDY = "2.25.167263941705894716229305119214823096511"
"""Searched for to see whether the server is there, so that no answer holds a patient."""

LARGEST_ANSWER = 1024 * 1024
BLOCK = 64 * 1024

_STORED, _FAILED = "00081199", "00081198"
"""Referenced SOP Sequence and Failed SOP Sequence (PS3.18 table I.1-1), as PS3.18 F writes tags."""
_WARNING_REASON, _FAILURE_REASON = "00081196", "00081197"
_SOP_CLASS, _SOP_INSTANCE = "00081150", "00081155"


@dataclass(frozen=True, slots=True)
class WebTarget:
    """A DICOMweb service to call, and how long to wait for it."""

    url: str
    """Base address without closing slash; instances go to `url`/studies."""
    connect_timeout_s: float
    """For the TCP connection and for the TLS handshake."""
    response_timeout_s: float
    """For an answer, on top of the time the bytes take at `SLOWEST_LINE`."""
    token_file: Path | None = None
    ca_file: Path | None = None
    certificate_file: Path | None = None
    key_file: Path | None = None


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    body: bytes


@dataclass(frozen=True, slots=True)
class _Silence:
    """No answer: why."""

    words: str
    asked: bool
    """Whether the request may have reached the peer."""
    permanent: bool = False


def web_target_of(destination: Destination) -> WebTarget:
    """Say whom to call; only for destinations that have a url."""
    return WebTarget(
        url=destination.url or "",
        connect_timeout_s=destination.connect_timeout_s,
        response_timeout_s=destination.response_timeout_s,
        token_file=destination.token_file,
        ca_file=destination.ca_file,
        certificate_file=destination.certificate_file,
        key_file=destination.key_file,
    )


def send(target: WebTarget, results: Sequence[Result]) -> Iterator[Sent]:
    """Send results, one request each, yielding the fate of each before the next is sent.

    Every result gets exactly one fate, in order. Once the peer as a whole is out of reach or
    refuses us, the rest is not tried. Holds one result in memory at a time. Raises nothing.
    """
    away: _Silence | None = None
    for result in results:
        if away is not None:
            uid = result.sop_instance_uid
            yield Sent(uid, Fate.NOT_TRIED, None, away.words, permanent=away.permanent)
            continue
        sent, away = _store(target, result)
        yield sent


def echo(target: WebTarget) -> str | None:
    """Ask whether the peer is there and knows us: None if so, else a sentence why not.

    Searches for a study that nobody has (QIDO-RS, PS3.18 10.6). A server that cannot search
    is asked to store nothing: its complaint about that shows that it could store.
    """
    answer = _ask(target, "GET", f"/studies?StudyInstanceUID={NOBODYS_STUDY}&limit=1")
    if isinstance(answer, _Answer) and answer.status in NO_SEARCH:
        answer = _ask(target, "POST", "/studies", _content_type("nothing"))
        if isinstance(answer, _Answer) and answer.status in NOTHING_TO_STORE:
            return None
    if isinstance(answer, _Silence):
        return answer.words
    return None if 200 <= answer.status < 300 else _words(target, answer.status)


def _store(target: WebTarget, result: Result) -> tuple[Sent, _Silence | None]:
    """Post one instance; also says why the rest need not be tried, or None."""
    uid = result.sop_instance_uid
    refusal = flaw(result)
    if refusal is not None:
        return Sent(uid, Fate.FAILED, None, refusal, permanent=True), None
    try:
        data = result.path.read_bytes()
    except OSError as error:
        words = f"the file in the spool cannot be read: {error.strerror}"
        return Sent(uid, Fate.FAILED, None, words, permanent=True), None
    boundary = f"covidnet-{result.sha256}"  # a file cannot hold its own digest
    head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    body = (head, data, f"\r\n--{boundary}--\r\n".encode())
    answer = _ask(target, "POST", "/studies", _content_type(boundary), body)
    if isinstance(answer, _Silence):
        fate = Fate.FAILED if answer.asked else Fate.NOT_TRIED
        return Sent(uid, fate, None, answer.words, permanent=answer.permanent), answer
    status = answer.status
    if status in BODY_DECIDES:
        return _judge(target, answer, result), None
    words, for_good = _words(target, status), status in FOR_GOOD or 300 <= status < 400
    sent = Sent(uid, Fate.FAILED, None, words, permanent=for_good)
    peer_as_a_whole = status in WHOLE_PEER or 300 <= status < 400
    return sent, _Silence(words, asked=True, permanent=for_good) if peer_as_a_whole else None


# What the answer says


def _judge(target: WebTarget, answer: _Answer, result: Result) -> Sent:
    """Judge by the Store Instances Response Module (PS3.18 I.2), as C-STORE statuses are."""
    uid = result.sop_instance_uid
    module = _parse(answer.body)
    stored = _reasons(module, _STORED, _WARNING_REASON, result)
    failed = _reasons(module, _FAILED, _FAILURE_REASON, result)
    if failed:
        return _refused(target, uid, failed[0])
    if not stored:
        said = "sent no valid answer" if module is None else "does not name the instance as stored"
        words = f"{target.url} {said} ({_phrase(answer.status)})"
        return Sent(uid, Fate.FAILED, None, words)
    warning = stored[0] or 0
    if answer.status != HTTPStatus.CONFLICT and (warning == 0 or warning & 0xF000 == 0xB000):
        return Sent(uid, Fate.STORED, warning, judged(uid, warning).detail)
    return Sent(uid, Fate.FAILED, warning, f"{target.url} names it as stored and as failed")


def _refused(target: WebTarget, uid: str, reason: int | None) -> Sent:
    if reason is None:
        return Sent(uid, Fate.FAILED, None, f"{target.url} refuses the instance without a reason")
    sent = judged(uid, reason)
    if sent.stored and reason != DUPLICATE:
        words = f"{target.url} names it as failed: {sent.detail}"
        return Sent(uid, Fate.FAILED, reason, words)
    return sent


def _parse(body: bytes) -> Mapping[str, object] | None:
    """Read the answer's data set (PS3.18 F.2), alone or as the only one of a list."""
    try:
        read = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if isinstance(read, list) and len(read) == 1:
        read = read[0]
    return read if isinstance(read, dict) else None


def _reasons(
    module: Mapping[str, object] | None, sequence: str, reason: str, result: Result
) -> list[int | None]:
    """The reason in each item of the sequence that names this very instance."""
    found = []
    for item in _values(module, sequence):
        if _values(item, _SOP_INSTANCE) != [result.sop_instance_uid]:
            continue
        if _values(item, _SOP_CLASS) in ([], [result.sop_class_uid]):
            found.append(_number(_values(item, reason)))
    return found


def _values(data_set: object, tag: str) -> list[object]:
    """Values of one attribute; empty if it is absent, empty or malformed."""
    element = data_set.get(tag) if isinstance(data_set, dict) else None
    value = element.get("Value") if isinstance(element, dict) else None
    return value if isinstance(value, list) else []


def _number(values: list[object]) -> int | None:
    """The first value as an unsigned short, which some servers write as text."""
    first = values[0] if values else None
    if isinstance(first, str) and first.isascii() and first.isdecimal() and len(first) < 6:
        first = int(first)
    if isinstance(first, bool) or not isinstance(first, int):
        return None
    return first if 0 <= first <= 0xFFFF else None


def _words(target: WebTarget, status: int) -> str:
    """An HTTP status as a sentence."""
    if 300 <= status < 400:
        return f"{target.url} redirects ({status}), which is not followed; give the final address"
    remedy = {
        HTTPStatus.UNAUTHORIZED: "; look at token_file",
        HTTPStatus.FORBIDDEN: "; the token or certificate does not give the right",
        HTTPStatus.NOT_FOUND: "; is the path of url right?",
    }.get(HTTPStatus(status) if status in set(HTTPStatus) else HTTPStatus.OK, "")
    return f"{target.url} answered {_phrase(status)}{remedy}"


def _phrase(status: int) -> str:
    """A status in the standard's words, not in the peer's."""
    known = status in set(HTTPStatus)
    return f"HTTP {status} {HTTPStatus(status).phrase}" if known else f"HTTP {status}"


# The line


def _content_type(boundary: str) -> dict[str, str]:
    words = f'multipart/related; type="application/dicom"; boundary="{boundary}"'
    return {"Content-Type": words}


def _ask(
    target: WebTarget,
    method: str,
    path: str,
    headers: Mapping[str, str] | None = None,
    body: Sequence[bytes] = (),
) -> _Answer | _Silence:
    """One request over a connection of its own.

    Not kept open for the next: a server may close an idle connection at any time, and then a
    request that failed would mean nothing.
    """
    try:
        sent_along = {
            "Accept": "application/dicom+json",
            "Content-Length": str(sum(map(len, body))),
            **(headers or {}),
            **_authorization(target.token_file),
        }
        connection = _connection(target)
    except (OSError, ValueError) as error:
        why = _why(error) if isinstance(error, OSError) else str(error)
        return _Silence(f"cannot call {target.url}: {why}", asked=False, permanent=True)
    try:
        connection.connect()
        return _exchange(
            target, connection, method, urlsplit(target.url).path + path, sent_along, body
        )
    except (OSError, ValueError) as error:
        untrusted = isinstance(error, ssl.SSLCertVerificationError)
        words = f"no connection to {target.url}: {_why(error, target.connect_timeout_s)}"
        return _Silence(words, asked=False, permanent=untrusted)
    finally:
        connection.close()


def _exchange(
    target: WebTarget,
    connection: HTTPConnection,
    method: str,
    path: str,
    headers: Mapping[str, str],
    body: Sequence[bytes],
) -> _Answer | _Silence:
    """Send and listen on an open connection, all of it within one deadline."""
    patience = target.response_timeout_s + sum(map(len, body)) / SLOWEST_LINE
    wire = connection.sock
    wire.settimeout(target.response_timeout_s)
    # Each wait has its limit, but a peer that drips byte after byte would never meet it.
    hourglass = Timer(patience, _cut, [wire])
    hourglass.daemon = True
    hourglass.start()
    started = monotonic()
    try:
        # A server that refuses early answers and closes before it has read everything.
        with suppress(BrokenPipeError, ConnectionResetError):
            connection.request(method, path, _blocks(body), dict(headers))
        with connection.getresponse() as response:
            said = response.read(LARGEST_ANSWER + 1)
            if monotonic() - started >= patience:
                raise TimeoutError  # cut off, which may look like the end of an answer
            if response.length and len(said) <= LARGEST_ANSWER:
                raise IncompleteRead(said)
            # Too long to be an answer to one instance: as good as none.
            return _Answer(response.status, said if len(said) <= LARGEST_ANSWER else b"")
    except (OSError, HTTPException, ValueError) as error:
        late = isinstance(error, TimeoutError) or monotonic() - started >= patience
        why = f"nothing within {patience:.3g} s" if late else _why(error)
        return _Silence(f"no valid answer from {target.url}: {why}", asked=True)
    finally:
        hourglass.cancel()
        hourglass.join()


def _blocks(body: Iterable[bytes]) -> Iterator[memoryview]:
    """In pieces, because the socket's limit of time holds for each piece."""
    for part in body:
        for start in range(0, len(part), BLOCK):
            yield memoryview(part)[start : start + BLOCK]


def _cut(wire: socket.socket) -> None:
    """End a connection that another thread waits on."""
    with suppress(OSError):
        # Past TLS, whose own ending would want to talk to the peer first.
        socket.socket.shutdown(wire, socket.SHUT_RDWR)


def _connection(target: WebTarget) -> HTTPConnection:
    """Raises OSError or ValueError if it cannot even be tried."""
    parts = urlsplit(target.url)
    host, patience = parts.hostname or "", target.connect_timeout_s
    if parts.scheme == "http":
        return HTTPConnection(host, parts.port, timeout=patience)
    # The files are read anew each time, so that a renewed certificate needs no restart.
    files = Files(target.url, target.ca_file, target.certificate_file, target.key_file)
    try:
        context = client_context(files)
    except BadConfig as fault:
        raise ValueError(fault.remedy) from fault
    return HTTPSConnection(host, parts.port, timeout=patience, context=context)


def _authorization(token_file: Path | None) -> dict[str, str]:
    """Header of the request (RFC 6750, RFC 7617); raises OSError or ValueError."""
    if token_file is None:
        return {}
    token = read_token(token_file)
    return {"Authorization": token if " " in token else f"Bearer {token}"}


def _why(error: Exception, patience_s: float = 0.0) -> str:
    """An error in words of this machine's libraries, never in the peer's."""
    if isinstance(error, TimeoutError):
        return f"nothing within {patience_s:g} s"
    if isinstance(error, ssl.SSLError):
        return words_of(error)
    if isinstance(error, ConnectionResetError | BrokenPipeError):
        return "the connection was lost"
    if isinstance(error, OSError):
        named = f"{error.filename}: " if error.filename else ""
        return f"{named}{error.strerror or type(error).__name__}"
    return type(error).__name__
