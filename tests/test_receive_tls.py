"""DICOM over TLS at the receiver's door: who gets in, who does not, and who cannot hold it up."""

import socket
import ssl
import struct
import subprocess
from pathlib import Path

import pytest
import structlog
from pydicom import dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from covidnet_node.certificates import server_context
from covidnet_node.config_doors import ReceiveTls
from covidnet_node.errors import BadConfig
from tests.authority import Authority, Papers
from tests.conftest import need_dcmtk
from tests.node import wait_until
from tests.raw_client import (
    ABORT,
    ASSOCIATE_AC,
    ASSOCIATE_RJ,
    CR,
    EXPLICIT,
    RELEASE_RP,
    VERIFICATION,
    RawClient,
    request_pdu,
)
from tests.receive_kit import PATIENCE, Site, encoded, image

CALLING_AE = b"\0\1\1\3"
"""Body of an A-ASSOCIATE-RJ (PS3.8 9.3.4): permanent, by the service user, calling AE title."""


@pytest.fixture(scope="module")
def authority(tmp_path_factory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def node(authority) -> Papers:
    return authority.issue("node")


@pytest.fixture(scope="module")
def xray(authority) -> Papers:
    return authority.issue("xray", "xray.example.org")


@pytest.fixture
def safe_site(make_site, authority, node) -> Site:
    return make_site(tls=authority.receive_tls(node))


def echoes(site: Site, context: ssl.SSLContext, **titles: str) -> bool:
    """Whether an association comes about and is released with a proper farewell."""
    try:
        with RawClient(site.receiver.tls_address, PATIENCE, context) as client:
            if client.associate((VERIFICATION, (EXPLICIT,)), **titles) != ASSOCIATE_AC:
                return False
            client.release()
            assert client.socket.recv(1) == b""
            return True
    except OSError:
        return False


# Images


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_images_come_over_tls(safe_site, authority, xray, version):
    context = authority.trusting(xray)
    context.minimum_version = context.maximum_version = version
    dataset = image()
    with RawClient(safe_site.receiver.tls_address, PATIENCE, context) as client:
        assert client.associate((CR, (EXPLICIT,))) == ASSOCIATE_AC
        assert client.store(CR, dataset.SOPInstanceUID, encoded(dataset)) == 0
        assert client.store(CR, dataset.SOPInstanceUID, encoded(dataset)) == 0
        client.release()
        assert client.socket.recv(1) == b""
    assert len(safe_site.journal.cases()) == 1
    first, again = safe_site.events
    assert "xray" in first.peer.certificate
    assert (first.held, again.held) == (False, True)


def test_many_pdus_in_one_record_and_one_pdu_in_many(safe_site, authority, xray):
    """What TLS has decrypted does not show in the socket; nor does part of a record mean data."""
    context = authority.trusting(xray)
    dataset = image(PixelData=b"\0" * 200, Rows=10, Columns=20)
    data = encoded(dataset)
    with RawClient(safe_site.receiver.tls_address, PATIENCE, context) as client:
        for byte in request_pdu([(CR, (EXPLICIT,))]):
            client.send(bytes([byte]))
        assert client.receive()[0] == ASSOCIATE_AC
        together = bytearray()
        client_send, client.send = client.send, together.extend
        client.command(CR, dataset.SOPInstanceUID)
        client.data(data, piece=100)
        assert len(together) < 16_000
        client_send(bytes(together))
        assert client.status() == 0


@pytest.mark.dcmtk
@pytest.mark.parametrize("program", ["storescu", "echoscu"])
def test_dcmtk_calls_over_tls(safe_site, authority, xray, tmp_path, program):
    host, port = safe_site.receiver.tls_address
    words = [
        need_dcmtk(program),
        "--enable-tls",
        xray.key,
        xray.certificate,
        "--add-cert-file",
        authority.file,
    ]
    words += ["-aet", "SENDER", "-aec", "COVIDNET", host, str(port)]
    if program == "storescu":
        words.append(written(tmp_path / "image.dcm"))
    said = subprocess.run(
        list(map(str, words)), capture_output=True, text=True, timeout=60, check=False
    )
    assert said.returncode == 0, said.stderr
    assert len(safe_site.journal.cases()) == (program == "storescu")


def written(path: Path) -> Path:
    dataset = image()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dcmwrite(path, dataset, enforce_file_format=True)
    return path


# Who gets in


def test_with_tls_the_plain_port_is_closed_unless_wanted(make_site, authority, node, xray):
    tls = authority.receive_tls(node)
    both = make_site(tls=tls, plain=True)
    assert both.receiver.address != both.receiver.tls_address
    with both.client() as client:
        client.release()
    assert echoes(both, authority.trusting(xray))
    alone = make_site(tls=tls)
    assert alone.receiver.address == alone.receiver.tls_address
    with RawClient(alone.receiver.address) as client:
        assert client.associate((CR, (EXPLICIT,))) not in {ASSOCIATE_AC, ASSOCIATE_RJ}


def test_a_certificate_is_required(safe_site, authority, xray, tmp_path):
    assert echoes(safe_site, authority.trusting(xray))
    assert not echoes(safe_site, authority.trusting())
    stranger = authority.trusting(Authority(tmp_path, "others").issue("xray"))
    assert not echoes(safe_site, stranger)
    assert not echoes(safe_site, authority.trusting(authority.issue("old", days=-1)))
    assert echoes(safe_site, authority.trusting(xray))
    safe_site.receiver.stop(PATIENCE)
    refused = {detail for what, detail in safe_site.rejected() if what == "tls"}
    assert any("expired" in detail for detail in refused)
    assert len(refused) == 3


def test_a_certificate_can_be_optional(make_site, authority, node, xray, tmp_path):
    site = make_site(tls=authority.receive_tls(node, client_certificate="optional"))
    assert echoes(site, authority.trusting())
    assert echoes(site, authority.trusting(xray))
    assert not echoes(site, authority.trusting(Authority(tmp_path, "others").issue("xray")))


def test_a_single_certificate_can_be_trusted(make_site, authority, node, xray):
    """Pinned: in ca_file stands the device's own certificate, without its authority."""
    site = make_site(tls=authority.receive_tls(node, ca_file=xray.certificate))
    assert echoes(site, authority.trusting(xray))
    assert not echoes(site, authority.trusting(authority.issue("other", "xray.example.org")))


@pytest.mark.parametrize("weak", ["AES128-GCM-SHA256", "ECDHE-RSA-AES128-SHA"])
def test_no_weak_cipher(safe_site, authority, xray, weak):
    context = authority.trusting(xray)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(weak)
    assert not echoes(safe_site, context)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
def test_no_old_version(safe_site, authority, xray):
    context = authority.trusting(xray)
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    assert not echoes(safe_site, context)


@pytest.mark.parametrize(
    ("name", "comes_in"),
    [
        ("dns:XRAY.example.org", True),
        ("dns:example.org", False),
        ("subject:CN=xray", False),
        ("subject:{subject}", True),
        ("sha256:{sha256}", True),
        ("sha256:" + "0" * 64, False),
    ],
)
def test_the_certificate_must_be_the_peers(make_site, authority, node, xray, name, comes_in):
    words = ["openssl", "x509", "-noout", "-nameopt", "RFC2253", "-subject", "-fingerprint"]
    told = subprocess.run(
        [*words, "-sha256", "-in", str(xray.certificate)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    subject, sha256 = (line.partition("=")[2] for line in told)
    wanted = name.format(subject=subject, sha256=sha256)
    site = make_site(
        tls=authority.receive_tls(node),
        plain=True,
        peer=[{"calling_aes": ["XRAY"], "certificates": [wanted]}],
    )
    context = authority.trusting(xray)
    with RawClient(site.receiver.tls_address, PATIENCE, context) as client:
        client.send(request_pdu([(CR, (EXPLICIT,))], calling="XRAY"))
        kind, body = client.receive()
    assert kind == (ASSOCIATE_AC if comes_in else ASSOCIATE_RJ)
    assert comes_in or body == CALLING_AE
    assert not echoes(site, context, calling="OTHER")
    with RawClient(site.receiver.address) as plain:
        assert plain.associate((CR, (EXPLICIT,)), calling="XRAY") == ASSOCIATE_RJ


# Who cannot hold it up


def test_silent_clients_hold_up_nobody(make_site, authority, node, xray):
    site = make_site(tls=authority.receive_tls(node), request_timeout_s=60)
    address = site.receiver.tls_address
    silent = [socket.create_connection(address, PATIENCE) for _ in range(200)]
    hello = client_hello(authority)
    for number, wire in enumerate(silent):
        wire.sendall(hello[: number % len(hello)])
    for _ in range(5):
        assert echoes(site, authority.trusting(xray))
    for wire in silent:
        wire.close()


def client_hello(authority: Authority) -> bytes:
    """How a TLS client begins."""
    said = ssl.MemoryBIO()
    speaker = authority.trusting().wrap_bio(ssl.MemoryBIO(), said, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        speaker.do_handshake()
    return said.read()


def test_dripping_extends_no_deadline(make_site, authority, node):
    site = make_site(tls=authority.receive_tls(node), request_timeout_s=1)
    with socket.create_connection(site.receiver.tls_address, PATIENCE) as wire:
        wire.settimeout(0.1)
        for byte in client_hello(authority):
            try:
                wire.sendall(bytes([byte]))
                if wire.recv(1) == b"":
                    return
            except TimeoutError:
                continue
            except ConnectionError:
                return
    pytest.fail("the node waited for as long as something came")


def test_what_is_no_tls_is_hung_up_on(safe_site, authority, xray):
    for said in (request_pdu([(CR, (EXPLICIT,))]), b"GET / HTTP/1.0\r\n\r\n", b"\0" * 1000):
        with RawClient(safe_site.receiver.tls_address) as client:
            client.send(said)
            assert client.receive()[0] not in {ASSOCIATE_AC, ASSOCIATE_RJ}
    assert echoes(safe_site, authority.trusting(xray))


def test_a_lying_length_is_not_believed(safe_site, authority, xray):
    with RawClient(safe_site.receiver.tls_address, PATIENCE, authority.trusting(xray)) as client:
        client.send(struct.pack(">BBL", 1, 0, 2**31))
        assert hung_up(client)
    with RawClient(safe_site.receiver.tls_address, PATIENCE, authority.trusting(xray)) as client:
        assert client.associate((CR, (EXPLICIT,))) == ASSOCIATE_AC
        client.send(struct.pack(">BBL", 4, 0, 2**31))
        assert hung_up(client)


def hung_up(client: RawClient) -> bool:
    try:
        return client.receive()[0] in {0, ABORT}
    except ssl.SSLEOFError:
        return True


def test_a_silent_association_is_aborted(make_site, authority, node, xray):
    site = make_site(tls=authority.receive_tls(node), network_timeout_s=0.5)
    with RawClient(site.receiver.tls_address, PATIENCE, authority.trusting(xray)) as client:
        assert client.associate((CR, (EXPLICIT,))) == ASSOCIATE_AC
        assert hung_up(client)


# Renewal


def serial_seen(site: Site, context: ssl.SSLContext) -> str:
    with RawClient(site.receiver.tls_address, PATIENCE, context) as client:
        assert isinstance(client.socket, ssl.SSLSocket)
        return str(client.socket.getpeercert()["serialNumber"])


def test_renewal_while_an_association_stands(make_site, authority, xray):
    papers = authority.issue("renewed")
    site = make_site(tls=authority.receive_tls(papers))
    context = authority.trusting(xray)
    first, second = image(), image()
    with RawClient(site.receiver.tls_address, PATIENCE, context) as client:
        assert client.associate((CR, (EXPLICIT,))) == ASSOCIATE_AC
        assert client.store(CR, first.SOPInstanceUID, encoded(first)) == 0
        before = serial_seen(site, context)
        authority.issue("renewed")
        assert serial_seen(site, context) != before
        assert client.store(CR, second.SOPInstanceUID, encoded(second)) == 0
        client.release()


def test_a_bad_renewal_changes_nothing_but_the_log(make_site, authority, xray):
    papers = authority.issue("half")
    site = make_site(tls=authority.receive_tls(papers))
    context = authority.trusting(xray)
    before = serial_seen(site, context)
    good = papers.certificate.read_bytes()
    other = authority.issue("another").certificate.read_bytes()
    for bad in (b"", good[:500], b"nonsense", other):
        papers.certificate.write_bytes(bad)
        with structlog.testing.capture_logs() as logs:
            assert serial_seen(site, context) == before
            assert serial_seen(site, context) == before
        alerts = [each for each in logs if each["event"] == "certificate_not_renewed"]
        assert [each["alert"] for each in alerts] == [True]
        assert alerts[0]["key"].startswith("receive.tls.")
    authority.issue("half")
    assert serial_seen(site, context) != before


# Files that cannot be used


def test_bad_files_are_named(authority, tmp_path):
    papers, other = authority.issue("named"), authority.issue("unlike")
    text = tmp_path / "text.pem"
    text.write_text("no certificate")
    text.chmod(0o600)
    open_key = tmp_path / "open.key"
    open_key.write_bytes(papers.key.read_bytes())
    open_key.chmod(0o644)
    for changes, words in (
        ({"certificate_file": tmp_path / "missing.pem"}, r"missing\.pem cannot be read"),
        ({"certificate_file": text}, r"certificate_file: .*holds no certificate"),
        ({"ca_file": text}, r"ca_file: .*holds no certificate"),
        ({"key_file": text}, r"key_file: .*holds no private key"),
        ({"key_file": other.key}, r"key_file: .*is not the key of .*named\.pem"),
        ({"key_file": open_key}, r"key_file: .*others"),
    ):
        with pytest.raises(BadConfig, match=words):
            server_context(ReceiveTls.model_validate(authority.receive_tls(papers, **changes)))


def test_release_is_answered_while_others_shake_hands(safe_site, authority, xray):
    with RawClient(safe_site.receiver.tls_address, PATIENCE, authority.trusting(xray)) as client:
        assert client.associate((CR, (EXPLICIT,))) == ASSOCIATE_AC
        others = [socket.create_connection(safe_site.receiver.tls_address) for _ in range(20)]
        client.send(struct.pack(">BBLL", 5, 0, 4, 0))
        assert client.receive()[0] == RELEASE_RP
        for wire in others:
            wire.close()
    wait_until(lambda: echoes(safe_site, authority.trusting(xray)), 30, "room")
