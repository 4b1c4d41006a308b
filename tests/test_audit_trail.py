"""The audit trail: taken down at once, brought out when it can be, nothing lost in silence."""

import os
import re
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from xml.etree.ElementTree import Element, fromstring

import pytest
import trustme

from covidnet_node.audit.backlog import Backlog
from covidnet_node.audit.events import Activity, Alert, AlertKind, Peer, Subject, Transfer
from covidnet_node.audit.messages import Source
from covidnet_node.audit.outlets import FileOutlet, SyslogOutlet
from covidnet_node.audit.repeats import WINDOW_S, Repeats
from covidnet_node.audit.trail import Trail, audit_trail
from covidnet_node.config import Config, Node
from covidnet_node.config_oversight import Audit
from tests.node import wait_until
from tests.syslog_server import HEADER, SyslogServer

PATIENCE = 60
SOURCE = Source("node", "COVIDNET")
STRANGER = Alert(AlertKind.NODE_AUTHENTICATION, Peer("WHO", "10.9.9.9"), "calling_ae")


def came_in(number: int) -> Transfer:
    return Transfer(True, Peer("XRAY", "10.0.0.1"), Subject(sop_instance_uid=f"1.2.{number}"))


def parsed(message: bytes) -> Element:
    return fromstring(message.partition(b"\xef\xbb\xbf")[2] or message)  # noqa: S314 - our own


def instances(messages: list[bytes]) -> list[str]:
    found = (parsed(each).find(".//Instance") for each in messages)
    return [each.attrib["UID"] for each in found if each is not None]


def kinds(messages: list[bytes]) -> list[str]:
    """Event type where there is one, else the event."""
    events = [parsed(each)[0] for each in messages]
    codes = [event.find("EventTypeCode") for event in events]
    return [
        (event[0] if code is None else code).attrib["originalText"]
        for event, code in zip(events, codes, strict=True)
    ]


def lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines() if path.exists() else []


def settings(folder: Path, **audit: object) -> Config:
    return Config(node=Node(data=folder / "data"), audit=Audit.model_validate(audit))


def file_trail(folder: Path, most: int = 10**6) -> Trail:
    path = folder / "audit.xml"
    return Trail(SOURCE, [(FileOutlet(path), Backlog(folder / "backlog", most))])


# To a file


def test_a_running_node_writes_its_start_its_images_and_its_stop(tmp_path: Path) -> None:
    path = tmp_path / "audit.xml"
    with audit_trail(settings(tmp_path, file=path)) as trail:
        trail.record(came_in(1))
    assert kinds(lines(path)) == [
        "Application Start",
        "DICOM Instances Transferred",
        "Application Stop",
    ]
    assert trail.lost == 0


def test_without_audit_nothing_is_written(tmp_path: Path) -> None:
    with audit_trail(settings(tmp_path)) as trail:
        trail.record(came_in(1))
    assert not list(tmp_path.rglob("*"))


def test_who_rotates_the_file_need_not_tell(tmp_path: Path) -> None:
    path = tmp_path / "audit.xml"
    with audit_trail(settings(tmp_path, file=path)) as trail:
        trail.record(came_in(1))
        wait_until(lambda: len(lines(path)) == 2, PATIENCE, "the first image")
        path.rename(tmp_path / "audit.xml.1")
        trail.record(came_in(2))
        wait_until(lambda: lines(path), PATIENCE, "the second image")
    assert instances(lines(tmp_path / "audit.xml.1")) == ["1.2.1"]
    assert instances(lines(path)) == ["1.2.2"]


def test_its_files_are_private_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        trail = file_trail(tmp_path)
        trail.record(came_in(1))
        waiting = list((tmp_path / "backlog").iterdir())
        trail.start()
        wait_until(lambda: lines(tmp_path / "audit.xml"), PATIENCE, "the message")
        trail.stop()
    finally:
        os.umask(before)
    assert waiting
    modes = {path.stat().st_mode & 0o777 for path in [tmp_path / "audit.xml"]}
    assert modes == {0o600}
    assert (tmp_path / "backlog").stat().st_mode & 0o777 == 0o700


def test_a_kill_loses_nothing_that_was_taken_down(tmp_path: Path) -> None:
    killed = file_trail(tmp_path)  # its threads never run
    for number in range(5):
        killed.record(came_in(number))
    youngest = max((tmp_path / "backlog").iterdir())
    with youngest.open("ab") as file:
        file.write(b"<half a li")  # as a power cut may leave it
    trail = file_trail(tmp_path)
    trail.start()
    trail.record(came_in(5))
    trail.stop(PATIENCE)
    assert instances(lines(tmp_path / "audit.xml")) == [f"1.2.{number}" for number in range(6)]
    assert not list((tmp_path / "backlog").iterdir())


def test_a_file_that_cannot_be_written_holds_up_nobody(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    outlet = FileOutlet(folder / "audit.xml")
    trail = Trail(SOURCE, [(outlet, Backlog(tmp_path / "backlog", 10**6))])
    trail.start()
    trail.record(came_in(1))
    assert trail.waiting["file"] > 0
    folder.mkdir()
    wait_until(lambda: trail.waiting["file"] == 0, PATIENCE, "the folder to be found")
    trail.stop(PATIENCE)
    assert instances(lines(folder / "audit.xml")) == ["1.2.1"]


def test_a_full_backlog_is_told_in_the_trail_itself(tmp_path: Path) -> None:
    trail = file_trail(tmp_path, most=20_000)
    for number in range(100):
        trail.record(came_in(number))
    assert 0 < trail.lost < 100
    trail.start()
    wait_until(lambda: trail.waiting["file"] == 0, PATIENCE, "room")
    trail.tidy()
    trail.stop(PATIENCE)
    told = lines(tmp_path / "audit.xml")
    assert len(instances(told)) + trail.lost == 100
    assert kinds(told)[-1] == "Audit Recording Stopped"
    words = parsed(told[-1]).findtext(".//EventOutcomeDescription")
    assert words is not None
    assert words.startswith(f"{trail.lost} messages since ")


def test_strangers_leave_room_for_images(tmp_path: Path) -> None:
    trail = file_trail(tmp_path, most=20_000)
    for number in range(100):
        peer = Peer("WHO", f"10.9.9.{number}")
        trail.record(Alert(AlertKind.NODE_AUTHENTICATION, peer, "calling_ae"))
    assert trail.lost > 0
    assert trail.waiting["file"] < 10_000
    before = trail.lost
    trail.record(came_in(1))
    assert trail.lost == before


def test_many_equal_alerts_become_one_and_a_number() -> None:
    repeats = Repeats()
    passed = [repeats.passes("who", STRANGER, now) for now in (0.0, 1.0, 59.0)]
    assert passed == [True, False, False]
    assert repeats.passes("another", STRANGER, 2.0)
    assert repeats.over(WINDOW_S - 1) == []
    assert repeats.over(WINDOW_S + 2) == [(STRANGER, 2)]
    assert repeats.passes("who", STRANGER, WINDOW_S + 3)


def test_a_stopping_trail_tells_how_many_alerts_it_held_back(tmp_path: Path) -> None:
    path = tmp_path / "audit.xml"
    with audit_trail(settings(tmp_path, file=path)) as trail:
        for _ in range(100):
            trail.record(STRANGER)
    words = [parsed(line).findtext(".//EventOutcomeDescription") for line in lines(path)]
    assert words == [None, "calling_ae", None, "calling_ae (99 more within a minute)"]


def test_many_threads_record_at_once(tmp_path: Path) -> None:
    trail = file_trail(tmp_path)
    trail.start()

    def record(first: int) -> None:
        for number in range(first, first + 50):
            trail.record(came_in(number))

    threads = [threading.Thread(target=record, args=(1000 * i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    trail.stop(PATIENCE)
    assert len(set(instances(lines(tmp_path / "audit.xml")))) == 400


# To a syslog server


class Authority:
    """Certificates for a server and for a node."""

    def __init__(self, folder: Path) -> None:
        self.authority = trustme.CA()
        self.ca_file = folder / "ca.pem"
        self.authority.cert_pem.write_to_path(str(self.ca_file))
        self.node = folder / "node.pem"
        self.key = folder / "node-key.pem"
        issued = self.authority.issue_cert("node")
        issued.cert_chain_pems[0].write_to_path(str(self.node))
        issued.private_key_pem.write_to_path(str(self.key))
        self.key.chmod(0o600)

    def server(self, trusted: trustme.CA | None = None) -> SyslogServer:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.authority.issue_cert("127.0.0.1").configure_cert(context)
        (trusted or self.authority).configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
        return SyslogServer(context)

    def trail(self, folder: Path, port: int) -> Trail:
        audit = Audit(
            syslog=f"tls://127.0.0.1:{port}",
            ca_file=self.ca_file,
            certificate_file=self.node,
            key_file=self.key,
        )
        outlet = SyslogOutlet(audit, SOURCE)
        return Trail(SOURCE, [(outlet, Backlog(folder / "backlog", 10**6))])


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def started(request: pytest.FixtureRequest) -> Callable[[Trail], Trail]:
    def start(trail: Trail) -> Trail:
        trail.start()
        request.addfinalizer(trail.stop)
        return trail

    return start


Start = Callable[[Trail], Trail]


def test_messages_are_framed_as_the_rfcs_say(
    authority: Authority, tmp_path: Path, started: Start
) -> None:
    with authority.server() as server:
        trail = started(authority.trail(tmp_path, server.port))
        trail.record(came_in(1))
        trail.record(STRANGER)
        first, second = server.wait_for(2)
    found = HEADER.match(first)
    assert found is not None
    priority, moment, _, program, process, kind = found.groups()
    assert priority == b"85"  # facility 10, severity 5
    assert re.fullmatch(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", moment)
    assert (program, process) == (b"covidnet-node", str(os.getpid()).encode())
    assert kind == b"DICOM+RFC3881"
    assert instances([first]) == ["1.2.1"]
    assert second.startswith(b"<84>1 ")
    assert kinds([second]) == ["Node Authentication"]


def test_a_repository_that_was_away_gets_everything(
    authority: Authority, tmp_path: Path, started: Start
) -> None:
    server = authority.server()
    with server:
        trail = started(authority.trail(tmp_path, server.port))
        trail.record(came_in(0))
        server.wait_for(1)
        server.stop()
        for number in range(1, 20):
            trail.record(came_in(number))
        assert trail.waiting["syslog"] > 0
        server.start()
        wait_until(lambda: trail.waiting["syslog"] == 0, PATIENCE, "the backlog to be sent")
        server.wait_for(20)
    assert set(instances(server.messages)) == {f"1.2.{number}" for number in range(20)}


def test_a_connection_that_was_closed_meanwhile_loses_nothing(
    authority: Authority, tmp_path: Path, started: Start
) -> None:
    with authority.server() as server:
        trail = started(authority.trail(tmp_path, server.port))
        for number in range(4):
            trail.record(came_in(number))
            server.wait_for(number + 1)
            wait_until(lambda: trail.waiting["syslog"] == 0, PATIENCE, "it to count as sent")
            server.hang_up()
    assert instances(server.messages) == [f"1.2.{number}" for number in range(4)]


def test_a_server_that_does_not_know_our_certificate_gets_nothing_and_nothing_is_lost(
    authority: Authority, tmp_path: Path, started: Start
) -> None:
    # In TLS 1.3 it says so after the handshake has succeeded on our side.
    with authority.server(trusted=trustme.CA()) as server:
        trail = started(authority.trail(tmp_path, server.port))
        trail.record(came_in(1))
        server.wait_for_refusals(2)
        assert trail.waiting["syslog"] > 0
        assert server.messages == []


def test_we_tell_nothing_to_a_server_that_we_do_not_know(
    authority: Authority, tmp_path: Path, started: Start
) -> None:
    trustme.CA().cert_pem.write_to_path(str(authority.ca_file))
    with authority.server() as server:
        trail = started(authority.trail(tmp_path, server.port))
        trail.record(came_in(1))
        server.wait_for_refusals(1)
        assert trail.waiting["syslog"] > 0
        assert server.messages == []


def test_udp(tmp_path: Path, started: Start) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(PATIENCE)
        audit = Audit(syslog=f"udp://127.0.0.1:{server.getsockname()[1]}")
        way = (SyslogOutlet(audit, SOURCE), Backlog(tmp_path / "backlog", 10**6))
        trail = started(Trail(SOURCE, [way]))
        trail.record(Activity(started=True))
        message = server.recv(65536)
    assert HEADER.match(message)
    assert kinds([message]) == ["Application Start"]
