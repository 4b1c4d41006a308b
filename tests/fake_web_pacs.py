"""A DICOMweb service that does what a test tells it to, and remembers all that reached it."""

import json
import ssl
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from types import TracebackType
from typing import Any

from pydicom.filereader import read_partial


class Act(Enum):
    """What else a request may meet than an answer."""

    HANG = "no answer until `free` is set"
    CLOSE = "connection closed instead of an answer"
    HALF = "half an answer, then the connection closed"
    DRIP = "an answer byte after byte, never ending until `free` is set"
    GARBLE = "bytes that are not HTTP"
    EARLY = "413 before the body is read, and the connection closed"


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer: `body` is given the SOP class and instance that came."""

    status: int = 200
    body: Callable[[str, str], object] | bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Request:
    """What reached the service."""

    method: str
    path: str
    headers: dict[str, str]
    part: bytes
    """The one part of the body: a DICOM file, byte for byte."""
    part_head: bytes


def item(sop_class: str, uid: str, reason_tag: str = "", reason: object = None) -> dict[str, Any]:
    """One item of a sequence of the Store Instances Response Module."""
    made: dict[str, Any] = {
        "00081150": {"vr": "UI", "Value": [sop_class]},
        "00081155": {"vr": "UI", "Value": [uid]},
    }
    if reason_tag:
        made[reason_tag] = {"vr": "US", "Value": [reason]}
    return made


def stored(warning: object = None) -> Callable[[str, str], object]:
    """Module that names the instance as stored."""
    tag = "" if warning is None else "00081196"
    return lambda sop_class, uid: {
        "00081190": {"vr": "UR", "Value": ["http://127.0.0.1/studies/1"]},
        "00081199": {"vr": "SQ", "Value": [item(sop_class, uid, tag, warning)]},
    }


def failed(reason: object = None) -> Callable[[str, str], object]:
    """Module that names the instance as failed."""
    tag = "" if reason is None else "00081197"
    return lambda sop_class, uid: {
        "00081198": {"vr": "SQ", "Value": [item(sop_class, uid, tag, reason)]}
    }


class FakeWebPacs:
    """Listens on a loopback port; `script` is consumed one act a store, then all is stored."""

    def __init__(self, *script: Act | Reply, tls: ssl.SSLContext | None = None) -> None:
        self.script: deque[Act | Reply] = deque(script)
        self.search: Reply = Reply(204)
        """The answer to every GET."""
        self.free = threading.Event()
        self.requests: list[Request] = []
        self._tls = tls
        self.port = 0

    @property
    def url(self) -> str:
        scheme = "http" if self._tls is None else "https"
        return f"{scheme}://127.0.0.1:{self.port}/dicom-web"

    @property
    def posts(self) -> list[Request]:
        return [each for each in self.requests if each.method == "POST"]

    def __enter__(self) -> "FakeWebPacs":
        pacs = self

        class Handler(_Handler):
            owner = pacs

        self._server = _Server(("127.0.0.1", self.port), Handler)
        self._server.tls = self._tls
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.free.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    """TLS, if any, is begun in the client's own thread."""

    daemon_threads = False
    tls: ssl.SSLContext | None = None

    def finish_request(self, request: Any, client_address: Any) -> None:
        if self.tls is None:
            super().finish_request(request, client_address)
            return
        try:
            with self.tls.wrap_socket(request, server_side=True) as secure:
                super().finish_request(secure, client_address)
        except OSError:
            request.close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone away is no news."""


class _Handler(BaseHTTPRequestHandler):
    owner: FakeWebPacs
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._remember(b"")
        self._answer(self.owner.search, "", "")

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        act = self.owner.script.popleft() if self.owner.script else Reply(200, stored())
        if act is Act.EARLY:
            self._remember(b"")
            self._answer(Reply(413), "", "")
            return
        part = self._remember(self.rfile.read(length))
        meta = read_partial(BytesIO(part), lambda *_: True).file_meta if part else None
        named = (
            ("", "")
            if meta is None
            else (str(meta.MediaStorageSOPClassUID), str(meta.MediaStorageSOPInstanceUID))
        )
        if isinstance(act, Reply):
            self._answer(act, *named)
        else:
            self._misbehave(act)
        self.close_connection = True

    def _remember(self, body: bytes) -> bytes:
        head, part = b"", b""
        if body:
            boundary = self.headers["Content-Type"].partition('boundary="')[2].rstrip('"').encode()
            opening, closing = b"--" + boundary + b"\r\n", b"\r\n--" + boundary + b"--\r\n"
            assert body.startswith(opening)
            assert body.endswith(closing)
            head, _, part = body[len(opening) : -len(closing)].partition(b"\r\n\r\n")
        request = Request(self.command, self.path, dict(self.headers), part, head)
        self.owner.requests.append(request)
        return part

    def _answer(self, reply: Reply, sop_class: str, uid: str) -> None:
        body = reply.body
        data = body if isinstance(body, bytes) else json.dumps(body(sop_class, uid)).encode()
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/dicom+json")
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(data)

    def _misbehave(self, act: Act) -> None:
        if act is Act.HANG:
            self.owner.free.wait(60)
        elif act is Act.HALF:
            self.wfile.write(b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"0008')
        elif act is Act.GARBLE:
            self.wfile.write(b"SECRET^PATIENT was here\r\n\r\n")
        elif act is Act.DRIP:
            self.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
            while not self.owner.free.wait(0.05):
                self.wfile.write(b"x")

    def log_message(self, *_: Any) -> None:
        """Quiet."""
