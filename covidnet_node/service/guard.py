"""Who may come through the HTTP door, and how long they may stand in it.

Nobody reads a page under a host name that is not ours (DNS rebinding), or without the token where
one is configured. `/healthz` alone stays open: it says "ok" to load balancers and nothing else.
"""

import asyncio
import hmac
import ipaddress
import re
from base64 import b64decode
from binascii import Error as NoBase64
from pathlib import Path
from typing import Any

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from covidnet_node.audit.events import Login, Record
from covidnet_node.config_oversight import Http, is_loopback
from covidnet_node.errors import BadConfig
from covidnet_node.private_file import read_token

log = structlog.get_logger()

OPEN = frozenset({"/healthz"})
"""Paths that need no token."""
SHORTEST_TOKEN = 16
MOST_CONNECTIONS = 64
MOST_CLIENTS = 256
"""Those in their TLS handshake included: few enough to leave file descriptors for images."""
HANDSHAKE_S = 60.0
"""What asyncio allows."""
LONGEST_S = 30.0
"""For all that one connection is for; every answer takes less than a second."""

_HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[^:\[\]]*)(:[0-9]{1,5})?")

SECURITY_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; "
        "base-uri 'none'; form-action 'none'"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Guard:
    """Stands before the pages (ASGI)."""

    def __init__(self, app: ASGIApp, settings: Http, record: Record) -> None:
        self._app = app
        self._settings = settings
        self._record = record

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer in place of the page, or let the page answer; headers in either case."""

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(SECURITY_HEADERS)
            await send(message)

        refusal = self._refusal(scope) if scope["type"] == "http" else None
        await (refusal or self._app)(scope, receive, send_guarded)

    def _refusal(self, scope: Scope) -> PlainTextResponse | None:
        headers = Headers(scope=scope)
        if not self._is_ours(headers.get("host")):
            return PlainTextResponse("not under this name (http.names)\n", 421)
        file = self._settings.token_file
        if file is None or scope["path"] in OPEN:
            return None
        try:
            token = read_token(file)
        except (OSError, ValueError) as error:
            # Closed rather than open; whoever looks after the node sees it here.
            log.error("token_file_cannot_be_used", why=str(error), alert=True)  # noqa: TRY400
            return PlainTextResponse("nobody can be let in now\n", 503)
        offered = _offered(headers.get("authorization", ""))
        if offered is not None and hmac.compare_digest(offered, token.encode()):
            return None
        client = scope.get("client")
        words = "no token" if offered is None else "wrong token"
        self._record(Login(client[0] if client else "", words))
        return PlainTextResponse(
            "a token is needed\n", 401, {"WWW-Authenticate": 'Bearer, Basic realm="token"'}
        )

    def _is_ours(self, host: str | None) -> bool:
        """Whether the name that was asked for is ours; a browser always gives one."""
        if host is None:
            return True
        found = _HOST.fullmatch(host)
        name = found["name"].strip("[]").rstrip(".").lower() if found else ""
        names = {each.lower() for each in (*self._settings.names, self._settings.address)}
        return name in names or name == "localhost" or _is_address(name)


class BoundedConnection(H11Protocol):
    """One of a limited number, for a limited time."""

    _end: asyncio.TimerHandle | None = None

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """Raises ConnectionRefusedError, upon which asyncio drops the client.

        That is before TLS: clients that never end their handshake are nowhere else counted.
        """
        self._present: set[BoundedConnection] = server_state.__dict__.setdefault("present", set())
        if len(self._present) >= MOST_CLIENTS:
            raise ConnectionRefusedError
        super().__init__(config, server_state, app_state, _loop)
        self._present.add(self)
        # Nobody tells of a handshake that has failed; by then asyncio has given it up.
        self._forget = self.loop.call_later(HANDSHAKE_S, self._present.discard, self)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn's
        """Hang up at once on one client too many; on every other in due time."""
        super().connection_made(transport)
        if len(self.connections) > MOST_CONNECTIONS:
            transport.abort()
        else:
            self._end = self.loop.call_later(LONGEST_S, transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """It has ended."""
        if self._end is not None:
            self._end.cancel()
        self._forget.cancel()
        self._present.discard(self)
        super().connection_lost(exc)


def check_token(settings: Http) -> None:
    """Look at the token before the door opens; raises BadConfig."""
    if settings.token_file is None:
        return
    try:
        token = read_token(settings.token_file)
    except OSError as error:
        remedy = f"{settings.token_file} cannot be read: {error.strerror}"
        raise BadConfig("node.toml", "http.token_file", remedy) from error
    except ValueError as error:
        raise BadConfig("node.toml", "http.token_file", str(error)) from error
    if len(token) < SHORTEST_TOKEN:
        remedy = f"{settings.token_file} holds a token of less than {SHORTEST_TOKEN} characters"
        raise BadConfig("node.toml", "http.token_file", remedy)


def in_the_clear(settings: Http) -> Path | None:
    """The token's file, if the token crosses a network without TLS."""
    clear = settings.certificate_file is None and not is_loopback(settings.address)
    return settings.token_file if clear else None


def _offered(authorization: str) -> bytes | None:
    """The token of a request: as Bearer (RFC 6750), or as the password of Basic (RFC 7617).

    Browsers can only do the second.
    """
    scheme, _, value = authorization.strip().partition(" ")
    if scheme.lower() == "bearer":
        return value.strip().encode("utf-8", "replace")
    if scheme.lower() == "basic":
        try:
            _, colon, password = b64decode(value.strip(), validate=True).partition(b":")
        except (NoBase64, ValueError):
            return None
        return password if colon else None
    return None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
