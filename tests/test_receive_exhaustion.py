"""Silent, slow and false clients in numbers: the node neither grows nor keeps others waiting."""

import contextlib
import os
import resource
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
import structlog

from covidnet_node.journal.reception import MOST_REJECTIONS_OF_A_PEER
from covidnet_node.receive import crowd, refusals
from tests.authority import Authority
from tests.node import wait_until
from tests.raw_client import (
    ASSOCIATE_AC,
    ASSOCIATE_RJ,
    CR,
    EXPLICIT,
    VERIFICATION,
    RawClient,
    request_pdu,
)
from tests.receive_kit import PATIENCE, Site, encoded, image

DROPS = 2000


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Debug lines of thousands of connections are of no use to anybody."""
    with structlog.testing.capture_logs():
        yield


def works(site: Site, tls: ssl.SSLContext | None = None) -> bool:
    dataset = image()
    address = site.address if tls is None else site.receiver.tls_address
    with RawClient(address, PATIENCE, tls) as client:
        if client.associate((CR, (EXPLICIT,)), (VERIFICATION, (EXPLICIT,))) != ASSOCIATE_AC:
            return False
        stored = client.store(CR, dataset.SOPInstanceUID, encoded(dataset)) == 0
        client.release()
    return stored


def size(site: Site) -> tuple[int, int, int]:
    """Threads, file descriptors, rows about who came to the door."""
    process = psutil.Process()
    return threading.active_count(), process.num_fds(), len(site.journal.rejections())


def hello(authority: Authority) -> bytes:
    said = ssl.MemoryBIO()
    speaker = authority.trusting().wrap_bio(ssl.MemoryBIO(), said, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        speaker.do_handshake()
    return said.read()


def drop(address: tuple[str, int], said: bytes = b"", *, reset: bool = False) -> None:
    """A port check: connect, perhaps say something, go."""
    with socket.create_connection(address, PATIENCE) as wire:
        if reset:
            wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        with contextlib.suppress(ConnectionError):
            wire.sendall(said)


def test_port_checks_for_days_leave_nothing(make_site, tmp_path):
    """A load balancer asks every few seconds: each way of going away, thousands of times."""
    authority = Authority(tmp_path)
    tls = authority.receive_tls(authority.issue("node"))
    site = make_site(tls=tls, plain=True, request_timeout_s=PATIENCE)
    secure, plain = site.receiver.tls_address, site.address
    greeting, request = hello(authority), request_pdu([(CR, (EXPLICIT,))])
    kinds: list[Callable[[bool], None]] = [
        lambda reset: drop(plain, reset=reset),
        lambda reset: drop(plain, request[:50], reset=reset),
        lambda reset: drop(secure, reset=reset),
        lambda reset: drop(secure, greeting[:100], reset=reset),
        lambda reset: drop(secure, greeting, reset=reset),
    ]
    trusting = authority.trusting(authority.issue("client"))
    assert works(site)
    assert works(site, trusting)
    for number in range(DROPS // 4):
        kinds[number % len(kinds)](number % 2 == 0)
    assert works(site)
    threads, files, rows = size(site)
    memory = psutil.Process().memory_info().rss
    for number in range(DROPS):
        kinds[number % len(kinds)](number % 2 == 0)
    assert works(site)
    assert works(site, trusting)

    def no_more_than_before() -> bool:
        now = size(site)
        return now[0] <= threads and now[1] <= files and now[2] <= rows

    wait_until(no_more_than_before, 60, f"{(threads, files, rows)}, there are {size(site)}")
    assert psutil.Process().memory_info().rss - memory < 10 * 2**20


def test_silent_clients_of_one_address_make_room_for_each_other(make_site):
    site = make_site(max_associations=20, max_connections_per_peer=5, request_timeout_s=60)
    silent = [socket.create_connection(site.address, PATIENCE) for _ in range(40)]
    for _ in range(3):
        assert works(site)
    # The oldest have been cut off, long before their time.
    assert silent[0].recv(1) == b""
    for wire in silent:
        wire.close()


def test_silent_clients_of_many_addresses_keep_nobody_out(make_site):
    site = make_site(max_associations=10, max_connections_per_peer=5, request_timeout_s=60)
    silent = [
        socket.create_connection(site.address, PATIENCE, (f"127.0.{number % 7}.{number + 2}", 0))
        for number in range(60)
    ]
    for _ in range(3):
        assert works(site)
    for wire in silent:
        wire.close()


def test_who_has_asked_is_never_cut_off_for_a_newcomer(make_site):
    site = make_site(max_associations=3, max_connections_per_peer=3, request_timeout_s=60)
    dataset = image()
    with site.client() as client:
        silent = [socket.create_connection(site.address, PATIENCE) for _ in range(30)]
        assert client.store(CR, dataset.SOPInstanceUID, encoded(dataset)) == 0
        for wire in silent:
            wire.close()


def test_clients_that_stop_within_the_request_are_hung_up_on(make_site):
    site = make_site(request_timeout_s=1)
    request = request_pdu([(CR, (EXPLICIT,))])
    slow = [RawClient(site.address, PATIENCE) for _ in range(20)]
    for number, client in enumerate(slow):
        client.send(request[: 7 + number])
    assert works(site)
    for client in slow:
        assert client.receive()[0] == 0
        client.socket.close()


def test_made_up_titles_fill_neither_journal_nor_log(make_site):
    site = make_site()
    attempts = MOST_REJECTIONS_OF_A_PEER + 20
    with structlog.testing.capture_logs() as logs:
        for number in range(attempts):
            with RawClient(site.address, PATIENCE) as client:
                kind = client.associate((CR, (EXPLICIT,)), calling=f"X{number}", called="WRONG")
                assert kind == ASSOCIATE_RJ
        site.receiver.stop(PATIENCE)
    lines = [each for each in logs if each["event"] == "rejected"]
    assert len(lines) < refusals.BURST + attempts // 2
    assert sum(each.get("more", 1) for each in lines) == attempts
    rows = site.journal.rejections()
    assert len(rows) <= MOST_REJECTIONS_OF_A_PEER + 1
    assert sum(row.count for row in rows) == attempts


def test_an_association_ends_with_its_client(make_site):
    """Whoever vanishes in the middle gives back his place, his threads and his files."""
    site = make_site(max_associations=4)
    with site.client():
        threads, files, _ = size(site)
    for number in range(40):
        client = RawClient(site.address, PATIENCE)

        def place(client: RawClient = client) -> bool:
            return client.associate((CR, (EXPLICIT,))) == ASSOCIATE_AC

        if not place():
            client.socket.close()
            continue
        client.command(CR, f"1.2.{number}")
        client.fragment(b"\0" * 1000, 0)
        linger = struct.pack("ii", 1, 0)
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        client.socket.close()
    wait_until(lambda: size(site)[0] <= threads and size(site)[1] <= files, 60, "all to be gone")
    assert works(site)
    wait_until(lambda: len(site.files()) == 1, 30, "the files of the others to go")


@contextlib.contextmanager
def no_file_descriptors() -> Iterator[None]:
    """The process has as many files open as it may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(file.name) for file in Path("/proc/self/fd").iterdir())
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
    taken: list[int] = []
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        yield
    finally:
        for each in taken:
            os.close(each)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_without_file_descriptors_the_listener_waits_and_goes_on(make_site):
    site = make_site()
    with socket.socket() as client, structlog.testing.capture_logs() as lines:
        client.settimeout(PATIENCE)
        with no_file_descriptors():
            client.connect(site.address)
            wait_until(lambda: lines, PATIENCE, "a word about it")
        client.sendall(request_pdu([(CR, (EXPLICIT,))]))
        assert client.recv(1) == bytes([ASSOCIATE_AC])
    assert lines[0]["event"] == "cannot_accept"
    assert lines[0]["alert"]
    assert works(site)


def idle(site: Site, *addresses: str) -> list[socket.socket]:
    """Associations that are accepted, and then nothing."""
    wires = []
    for each in addresses:
        wire = socket.create_connection(site.address, PATIENCE, (each, 0))
        wire.sendall(request_pdu([(CR, (EXPLICIT,))]))
        assert wire.recv(1) == bytes([ASSOCIATE_AC])
        wires.append(wire)
    return wires


def test_idle_associations_make_room_for_an_address_that_has_fewer(make_site, monkeypatch):
    site = make_site(max_associations=4, max_connections_per_peer=3, network_timeout_s=600)
    wires = idle(site, "127.0.0.3", *["127.0.0.2"] * 3)
    # All of them are young: nobody is cut off.
    assert not works(site)
    monkeypatch.setattr(crowd, "IDLE_S", 1e-9)
    assert works(site)
    ends = [bool(select.select([wire], [], [], 0)[0]) and not drained(wire) for wire in wires]
    # One of the address that has most, and the one that has been silent longest.
    assert ends == [False, True, False, False]
    for wire in wires:
        wire.close()


def drained(wire: socket.socket) -> bool:
    """Whether it is still open once all that was said has been read."""
    wire.setblocking(False)
    try:
        while wire.recv(4096):
            pass
    except BlockingIOError:
        return True
    return False


def test_who_says_little_by_little_is_not_idle(make_site, monkeypatch):
    monkeypatch.setattr(crowd, "IDLE_S", 0.5)
    site = make_site(max_associations=1, max_connections_per_peer=1, network_timeout_s=600)
    (slow,) = idle(site, "127.0.0.2")
    slow.sendall(bytes([4, 0]) + struct.pack(">L", 16_000))
    end = time.monotonic() + 1.0
    while time.monotonic() < end:
        slow.sendall(b"\0")
        assert not select.select([slow], [], [], 0.05)[0] or drained(slow)
    assert not works(site)
    assert drained(slow)
    slow.close()


def test_who_waits_for_an_answer_of_ours_is_not_idle(make_site, monkeypatch):
    site = make_site(max_associations=1, max_connections_per_peer=1, network_timeout_s=600)
    monkeypatch.setattr(crowd, "IDLE_S", 1e-9)
    journal_is_free, asked = threading.Event(), threading.Event()
    versions = site.journal.versions

    def slow_versions(key):
        asked.set()
        assert journal_is_free.wait(PATIENCE)
        return versions(key)

    monkeypatch.setattr(site.journal, "versions", slow_versions)
    with ThreadPoolExecutor(1) as pool:
        stored = pool.submit(works, site)
        assert asked.wait(PATIENCE)
        with socket.create_connection(site.address, PATIENCE, ("127.0.0.2", 0)) as newcomer:
            newcomer.sendall(request_pdu([(CR, (EXPLICIT,))]))
            assert newcomer.recv(1) == bytes([ASSOCIATE_RJ])
        journal_is_free.set()
        assert stored.result(PATIENCE)


def test_what_needs_no_answer_does_not_keep_a_place(make_site, monkeypatch):
    monkeypatch.setattr(crowd, "IDLE_S", 1e-9)
    site = make_site(max_associations=1, max_connections_per_peer=1, network_timeout_s=600)
    (sly,) = idle(site, "127.0.0.2")
    assert drained(sly)
    # A C-ECHO-RSP, to a question that nobody asked.
    elements = [
        (0x0002, VERIFICATION.encode() + b"\0"),
        (0x0100, struct.pack("<H", 0x8030)),
        (0x0120, struct.pack("<H", 1)),
        (0x0800, struct.pack("<H", 0x0101)),
        (0x0900, struct.pack("<H", 0)),
    ]
    body = b"".join(struct.pack("<HHL", 0, tag, len(value)) + value for tag, value in elements)
    command = struct.pack("<HHLL", 0, 0, 4, len(body)) + body
    item = struct.pack(">LBB", len(command) + 2, 1, 3) + command
    sly.sendall(struct.pack(">BBL", 4, 0, len(item)) + item)
    wait_until(lambda: works(site), PATIENCE, "a place")
    sly.close()
