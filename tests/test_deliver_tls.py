"""Results go out over DICOM TLS: to whom, to whom not, and what the operator is told."""

import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import pytest

from covidnet_node.associate import Target, target_of
from covidnet_node.config import Destination
from covidnet_node.deliver import Fate, Sent, echo, send
from tests.authority import Authority, Papers
from tests.conftest import need_dcmtk, need_program
from tests.fake_pacs import Act, FakePacs
from tests.real_pacs import Orthanc, Storescp
from tests.receive_kit import Site
from tests.test_deliver import result

PATIENCE = 30


@pytest.fixture(scope="module")
def authority(tmp_path_factory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def node(authority) -> Papers:
    return authority.issue("node")


@pytest.fixture(scope="module")
def server(authority) -> Papers:
    return authority.issue("pacs", "127.0.0.1", "pacs.example.org")


@pytest.fixture
def pacs(authority, server) -> Iterator[FakePacs]:
    with FakePacs(tls=authority.serving(server)) as found:
        yield found


def target(port: int, authority: Authority, node: Papers | None, **changes: object) -> Target:
    """As the node would call a destination with a table `tls`."""
    tls: dict[str, object] = {"ca_file": authority.file}
    if node is not None:
        tls |= {"certificate_file": node.certificate, "key_file": node.key}
    table = {"name": "pacs", "ae_title": "FAKEPACS", "host": "127.0.0.1", "port": port}
    waits = {"connect_timeout_s": changes.pop("wait", 10), "response_timeout_s": 10}
    destination = Destination.model_validate(table | waits | {"tls": tls | changes})
    return target_of(destination, sender_ae="", peer="")


def fates(sent: list[Sent]) -> list[Fate]:
    return [each.fate for each in sent]


def test_results_arrive_byte_for_byte(tmp_path, pacs, authority, node):
    big = result(tmp_path, 2, data_set=b"\0" * 3_000_000)
    sent = send(target(pacs.port, authority, node), [result(tmp_path, 1), big], "COVIDNET")
    assert fates(list(sent)) == [Fate.STORED] * 2
    assert pacs.arrivals[1].data == b"\0" * 3_000_000
    assert pacs.wait_for_end(1, PATIENCE) == ["released"]
    assert echo(target(pacs.port, authority, node), "COVIDNET") is None


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_both_versions(authority, server, node, version):
    context = authority.serving(server)
    context.minimum_version = context.maximum_version = version
    with FakePacs(tls=context) as pacs:
        assert echo(target(pacs.port, authority, node), "COVIDNET") is None


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
def test_no_weaker_line_is_taken(authority, server, node):
    old, weak = authority.serving(server), authority.serving(server)
    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.set_ciphers("ALL:@SECLEVEL=0")
    weak.maximum_version = ssl.TLSVersion.TLSv1_2
    weak.set_ciphers("AES128-GCM-SHA256")
    for context in (old, weak):
        with FakePacs(tls=context) as pacs:
            assert "TLS failed" in (echo(target(pacs.port, authority, node), "COVIDNET") or "")


def refused(tmp_path: Path, at: Target) -> Sent:
    (sent,) = send(at, [result(tmp_path)], "COVIDNET")
    assert sent.fate is Fate.NOT_TRIED
    assert echo(at, "COVIDNET") == sent.detail
    return sent


def test_a_server_of_another_authority(tmp_path, pacs, authority, node):
    others = Authority(tmp_path, "others")
    sent = refused(tmp_path, target(pacs.port, authority, node, ca_file=others.file))
    assert "its certificate is not trusted" in sent.detail
    assert sent.permanent
    assert pacs.calls == []


def test_a_server_whose_certificate_has_run_out(tmp_path, authority, node):
    with FakePacs(tls=authority.serving(authority.issue("late", days=-1))) as pacs:
        assert "expired" in refused(tmp_path, target(pacs.port, authority, node)).detail


def test_the_name_in_the_certificate(tmp_path, authority, node):
    elsewhere = authority.issue("elsewhere", "pacs.example.org")
    with FakePacs(tls=authority.serving(elsewhere)) as pacs:
        sent = refused(tmp_path, target(pacs.port, authority, node))
        assert "not trusted" in sent.detail
        assert "127.0.0.1" in sent.detail
        named = target(pacs.port, authority, node, server_name="pacs.example.org")
        assert echo(named, "COVIDNET") is None
        unnamed = target(pacs.port, authority, node, check_server_name=False)
        assert echo(unnamed, "COVIDNET") is None
        wrong = target(pacs.port, authority, node, server_name="ris.example.org")
        assert "not trusted" in refused(tmp_path, wrong).detail


def test_a_server_that_wants_our_certificate(tmp_path, pacs, authority):
    assert "TLS failed" in refused(tmp_path, target(pacs.port, authority, None)).detail
    stranger = Authority(tmp_path, "others").issue("node")
    assert "TLS failed" in refused(tmp_path, target(pacs.port, authority, stranger)).detail
    assert pacs.calls == []


def test_files_that_cannot_be_used(tmp_path, pacs, authority, node):
    missing = tmp_path / "missing.pem"
    sent = refused(tmp_path, target(pacs.port, authority, node, ca_file=missing))
    assert str(missing) in sent.detail
    assert sent.permanent
    unlike = target(pacs.port, authority, node, key_file=authority.issue("unlike").key)
    assert "is not the key of" in refused(tmp_path, unlike).detail


def test_a_plain_server(tmp_path, authority, node):
    with FakePacs() as pacs:
        sent = refused(tmp_path, target(pacs.port, authority, node, wait=2))
    assert "TLS failed" in sent.detail
    assert "is it a port for TLS?" in sent.detail


@pytest.fixture
def deaf() -> Iterator[socket.socket]:
    """Accepts connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        held: list[socket.socket] = []

        def accept() -> None:
            while True:
                try:
                    held.append(listening.accept()[0])
                except OSError:
                    return

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield listening
        listening.shutdown(socket.SHUT_RDWR)
        thread.join(PATIENCE)
        for each in held:
            each.close()


def test_a_silent_server_does_not_hold_the_delivery(tmp_path, deaf, authority, node):
    started = monotonic()
    sent = refused(tmp_path, target(deaf.getsockname()[1], authority, node, wait=0.5))
    assert "nothing within 0.5 s" in sent.detail
    assert monotonic() - started < PATIENCE


def test_a_server_that_falls_silent_later(tmp_path, authority, server, node):
    with FakePacs(Act.HANG, tls=authority.serving(server)) as pacs:
        at = target(pacs.port, authority, node)
        hasty = Target(at.ae_title, at.host, at.port, 10, 0.5, tls=at.tls)
        (sent,) = send(hasty, [result(tmp_path)], "COVIDNET")
        assert sent.fate is Fate.FAILED
        assert "no valid answer" in sent.detail
        pacs.free.set()


def test_back_to_the_sender_over_tls(pacs, authority, node):
    tls = {"ca_file": authority.file, "certificate_file": node.certificate, "key_file": node.key}
    table = {"name": "sender", "back_to_sender": True, "port": pacs.port, "tls": tls}
    destination = Destination.model_validate(table)
    assert echo(target_of(destination, sender_ae="FAKEPACS", peer="127.0.0.1"), "X") is None


# Real ones


class SafeStorescp(Storescp):
    """dcmtk's storescp over TLS, which wants a certificate."""

    def __init__(self, program: str, folder: Path, authority: Authority, own: Papers) -> None:
        super().__init__(program, folder)
        self.client = authority.issue("tester")
        self.authority, self.own = authority, own

    def command(self) -> list[str]:
        program, *words = super().command()
        tls = ["--enable-tls", str(self.own.key), str(self.own.certificate)]
        return [program, *tls, "--add-cert-file", str(self.authority.file), *words]

    def answers(self) -> bool:
        return echo(target(self.port, self.authority, self.client), "TEST") is None


@pytest.mark.dcmtk
def test_dcmtk_stores_over_tls(tmp_path, authority, server, node):
    program = need_dcmtk("storescp")
    with SafeStorescp(program, tmp_path / "storescp", authority, server) as scp:
        sent = list(send(target(scp.port, authority, node), [result(tmp_path)], "COVIDNET"))
        assert fates(sent) == [Fate.STORED]
        assert len(scp.files()) == 1
        assert "TLS failed" in refused(tmp_path, target(scp.port, authority, None)).detail


@pytest.mark.orthanc
def test_orthanc_both_ways_over_tls(tmp_path, make_site, authority, server, node):
    site: Site = make_site(tls=authority.receive_tls(node))
    orthanc = Orthanc(need_program("Orthanc"), tmp_path)
    orthanc.settings = {
        "DicomTlsEnabled": True,
        "DicomTlsCertificate": str(server.certificate),
        "DicomTlsPrivateKey": str(server.key),
        "DicomTlsTrustedCertificates": str(authority.file),
        "DicomTlsRemoteCertificateRequired": True,
        "DicomCheckCalledAet": False,
        "DicomModalities": {
            "node": {
                "AET": "COVIDNET",
                "Host": "127.0.0.1",
                "Port": site.receiver.tls_address[1],
                "UseDicomTls": True,
            }
        },
    }
    with orthanc:
        sent = list(send(target(orthanc.port, authority, node), [result(tmp_path)], "COVIDNET"))
        assert sent[0].tried
        assert echo(target(orthanc.port, authority, node), "COVIDNET") is None
        assert "TLS failed" in refused(tmp_path, target(orthanc.port, authority, None)).detail
        orthanc.put("/modalities/node/echo", b"{}", "POST")
