"""The HTTP door: open to this machine, closed to everybody else who does not show who he is."""

import http.client
import os
import socket
import ssl
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme
from pydantic import ValidationError

from covidnet_node.audit.events import Event, Login
from covidnet_node.config import Config, load_config
from covidnet_node.config_oversight import Http
from covidnet_node.errors import BadConfig
from covidnet_node.service.guard import MOST_CLIENTS, MOST_CONNECTIONS
from covidnet_node.service.http import Health, HttpDoor, build_app
from tests.journal_kit import Desk
from tests.node import wait_until

TOKEN = "0123456789abcdef-token"  # noqa: S105 - of this test
PAGES = ("/", "/readyz", "/metrics", "/api/cases")


class Door:
    """A door on loopback and what it recorded."""

    def __init__(self, desk: Desk, **settings: object) -> None:
        config = Config(http=Http.model_validate({"port": 0} | settings))
        self.events: list[Event] = []
        health = Health(lambda: True, lambda: True)
        app = build_app(config, desk.journal, health)
        self.door = HttpDoor(config, app, self.events.append)
        self.door.start()

    def ask(
        self, path: str, tls: ssl.SSLContext | None = None, **headers: str
    ) -> tuple[int, http.client.HTTPMessage, str]:
        port = self.door.port
        if tls is None:
            line = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        else:
            line = http.client.HTTPSConnection("127.0.0.1", port, timeout=30, context=tls)
        try:
            line.request("GET", path, headers=headers)
            answer = line.getresponse()
            return answer.status, answer.headers, answer.read().decode()
        finally:
            line.close()

    def status(self, path: str, **headers: str) -> int:
        return self.ask(path, **headers)[0]


Open = Callable[..., Door]


@pytest.fixture
def open_door(desk: Desk) -> Iterator[Open]:
    doors = []

    def make(**settings: object) -> Door:
        doors.append(Door(desk, **settings))
        return doors[-1]

    yield make
    for each in doors:
        each.door.stop()


@pytest.fixture
def token(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(TOKEN + "\n")
    path.chmod(0o600)
    return path


# Who may ask


def test_on_loopback_everybody_may_read(open_door: Open) -> None:
    door = open_door()
    assert [door.status(path) for path in (*PAGES, "/healthz")] == [200] * 5


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "10.1.2.3", "node.example.org"])  # noqa: S104
def test_beyond_this_machine_it_must_know_who_asks(address: str, tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="token_file"):
        Http(address=address)
    path = tmp_path / "node.toml"
    path.write_text(f'[http]\naddress = "{address}"\n')
    with pytest.raises(BadConfig, match="http"):
        load_config(path)
    pem = Path("x.pem")
    Http(address=address, token_file=pem)
    Http(address=address, certificate_file=pem, key_file=pem, ca_file=pem)
    with pytest.raises(ValidationError):  # TLS alone knows nobody
        Http(address=address, certificate_file=pem, key_file=pem)


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.9", "::1", "localhost"])
def test_loopback_needs_nothing(address: str) -> None:
    assert Http(address=address).token_file is None


def test_with_a_token_nothing_but_healthz_is_open(open_door: Open, token: Path) -> None:
    door = open_door(token_file=token, address="0.0.0.0")  # noqa: S104 - that is the test
    assert door.status("/healthz") == 200
    for path in (*PAGES, "/nothing", "//healthz", "/healthz/..", "/HEALTHZ"):
        status, headers, body = door.ask(path)
        assert (status, headers["WWW-Authenticate"][:6]) == (401, "Bearer"), path
        assert TOKEN not in body
    wrong = [TOKEN[:-1], TOKEN + "x", "", TOKEN.upper(), "é" * 16]
    for each in wrong:
        assert door.status("/", Authorization=f"Bearer {each}") == 401
    for odd in (TOKEN, f"Basic {TOKEN}", "Basic", "Bearer", "Negotiate abc", "Basic " + "=" * 9):
        assert door.status("/", Authorization=odd) == 401
    assert [door.status(path, Authorization=f"Bearer {TOKEN}") for path in PAGES] == [200] * 4
    assert door.status("/", Authorization=f"bearer {TOKEN}") == 200
    basic = b64encode(f"anybody:{TOKEN}".encode()).decode()
    assert door.status("/", Authorization=f"Basic {basic}") == 200


def test_a_failed_login_goes_into_the_audit_trail(open_door: Open, token: Path) -> None:
    door = open_door(token_file=token)
    door.status("/")
    door.status("/metrics", Authorization="Bearer wrong")
    door.status("/metrics", Authorization=f"Bearer {TOKEN}")
    assert door.events == [Login("127.0.0.1", "no token"), Login("127.0.0.1", "wrong token")]


def test_a_renewed_token_counts_at_once_and_a_lost_one_closes(open_door: Open, token: Path) -> None:
    door = open_door(token_file=token)
    token.write_text("another-token-of-some-length")
    assert door.status("/", Authorization=f"Bearer {TOKEN}") == 401
    assert door.status("/", Authorization="Bearer another-token-of-some-length") == 200
    token.chmod(0o644)
    assert door.status("/", Authorization="Bearer another-token-of-some-length") == 503
    token.unlink()
    assert door.status("/", Authorization="Bearer ") == 503


@pytest.mark.parametrize(
    ("content", "mode", "words"),
    [
        (TOKEN, 0o644, "others"),
        (TOKEN, 0o620, "others"),
        ("short", 0o600, "16 characters"),
        ("", 0o600, "no token"),
        (None, 0, "cannot be read"),
    ],
)
def test_a_token_that_is_none_stops_the_start(
    desk: Desk, tmp_path: Path, content: str | None, mode: int, words: str
) -> None:
    path = tmp_path / "token"
    if content is not None:
        path.write_text(content)
        path.chmod(mode)
    with pytest.raises(BadConfig, match=words):
        Door(desk, token_file=path)


def test_a_credential_of_systemd_may_have_any_mode(
    open_door: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "credentials"
    folder.mkdir()
    (folder / "http-token").write_text(TOKEN)
    (folder / "http-token").chmod(0o444)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(folder))
    door = open_door(token_file=folder / "http-token")
    assert door.status("/", Authorization=f"Bearer {TOKEN}") == 200


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a file of root's")
def test_a_group_may_read_what_only_root_can_change(open_door: Open, token: Path) -> None:
    token.chmod(0o640)
    door = open_door(token_file=token)
    assert door.status("/", Authorization=f"Bearer {TOKEN}") == 200


# Client certificates


@pytest.fixture
def pki(tmp_path: Path) -> tuple[trustme.CA, dict[str, Path]]:
    authority = trustme.CA()
    files = {name: tmp_path / f"{name}.pem" for name in ("ca_file", "certificate_file", "key_file")}
    authority.cert_pem.write_to_path(str(files["ca_file"]))
    issued = authority.issue_cert("127.0.0.1")
    issued.cert_chain_pems[0].write_to_path(str(files["certificate_file"]))
    issued.private_key_pem.write_to_path(str(files["key_file"]))
    files["key_file"].chmod(0o600)
    return authority, files


def client(authority: trustme.CA, issuer: trustme.CA | None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    if issuer is not None:
        issuer.issue_cert("monitor").configure_cert(context)
    return context


def test_a_client_certificate_opens_and_nothing_else_does(
    open_door: Open, pki: tuple[trustme.CA, dict[str, Path]]
) -> None:
    authority, files = pki
    door = open_door(address="0.0.0.0", **files)  # noqa: S104 - that is the test
    assert door.ask("/metrics", client(authority, authority))[0] == 200
    for stranger in (client(authority, None), client(authority, trustme.CA())):
        with pytest.raises((ssl.SSLError, ConnectionError, http.client.HTTPException)):
            door.ask("/healthz", stranger)
    with pytest.raises((ConnectionError, http.client.HTTPException)):
        door.ask("/healthz")
    old = client(authority, authority)
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        door.ask("/healthz", old)


def test_a_token_over_tls(
    open_door: Open, token: Path, pki: tuple[trustme.CA, dict[str, Path]]
) -> None:
    authority, files = pki
    del files["ca_file"]
    door = open_door(address="0.0.0.0", token_file=token, **files)  # noqa: S104
    known = client(authority, None)
    assert door.ask("/metrics", known)[0] == 401
    assert door.ask("/metrics", known, Authorization=f"Bearer {TOKEN}")[0] == 200


def test_a_key_that_others_may_read_stops_the_start(
    desk: Desk, pki: tuple[trustme.CA, dict[str, Path]]
) -> None:
    _, files = pki
    files["key_file"].chmod(0o644)
    with pytest.raises(BadConfig, match="key_file"):
        Door(desk, **files)


# What a browser may be lured into


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:8042", "", "a b", "[::1"])
def test_a_strange_host_name_is_answered_with_nothing(open_door: Open, host: str) -> None:
    door = open_door()
    status, _, body = door.ask("/api/cases", Host=host)
    assert status in (400, 421)
    assert "[" not in body


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:8042", "127.0.0.1", "[::1]:8042", "node.hospital.example."]
)
def test_our_own_names_are_known(open_door: Open, host: str) -> None:
    door = open_door(names=["node.hospital.example"])
    assert door.status("/api/cases", Host=host) == 200


def test_headers_say_what_a_browser_may_do(open_door: Open, token: Path) -> None:
    for status, headers, _ in (
        open_door().ask("/"),
        open_door(token_file=token).ask("/"),
        open_door().ask("/nothing"),
    ):
        assert status in (200, 401, 404)
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert headers["Cache-Control"] == "no-store"
        assert headers["Server"] is None
        assert headers["Access-Control-Allow-Origin"] is None


def test_there_is_nothing_else_to_find(open_door: Open) -> None:
    door = open_door()
    for path in ("/docs", "/openapi.json", "/static/", "/../etc/passwd", "/%2e%2e/etc/passwd"):
        assert door.status(path) == 404
    line = http.client.HTTPConnection("127.0.0.1", door.door.port, timeout=30)
    for method in ("POST", "PUT", "DELETE", "TRACE", "OPTIONS"):
        line.request(method, "/api/cases")
        answer = line.getresponse()
        answer.read()
        assert answer.status == 405
    line.close()


def test_many_silent_clients_do_not_take_the_door(open_door: Open) -> None:
    door = open_door()
    where = ("127.0.0.1", door.door.port)
    silent = [socket.create_connection(where, timeout=30) for _ in range(MOST_CONNECTIONS + 20)]

    def hung_up() -> int:
        return sum(_is_closed(each) for each in silent)

    wait_until(lambda: hung_up() >= 20, 30, "those too many to be hung up on")
    for each in silent:
        each.close()
    wait_until(lambda: _answers(door), 30, "room for an honest client")


@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
def test_clients_that_never_end_their_handshake_are_counted_too(
    open_door: Open, pki: tuple[trustme.CA, dict[str, Path]]
) -> None:
    door = open_door(**pki[1])
    where = ("127.0.0.1", door.door.port)
    silent = [socket.create_connection(where, timeout=30) for _ in range(MOST_CLIENTS + 20)]
    wait_until(lambda: sum(map(_is_closed, silent)) >= 20, 60, "those too many to be hung up on")
    for each in silent:
        each.close()


def _is_closed(client: socket.socket) -> bool:
    client.setblocking(False)
    try:
        return client.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def _answers(door: Door) -> bool:
    try:
        return door.status("/healthz") == 200
    except (OSError, http.client.HTTPException):
        return False
