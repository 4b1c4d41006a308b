"""What the node says about its certificates: metric, log, check."""

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import structlog
from prometheus_client import CollectorRegistry, generate_latest

from covidnet_node.certificates import Expiry, expiries
from covidnet_node.check import check_node
from covidnet_node.config import Config, Destination, Node, Receive
from covidnet_node.config_doors import DestinationTls
from covidnet_node.service.metrics import CertificateCollector
from covidnet_node.service.schedule import warn_of_certificates
from tests.authority import Authority

OWN, THEIRS = "receive.tls.certificate_file", "destination.pacs.tls.certificate_file"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def config(authority: Authority, days: float, folder: Path) -> Config:
    own, theirs = authority.issue("own", days=days), authority.issue("theirs", days=365)
    tls = DestinationTls(
        ca_file=authority.file, certificate_file=theirs.certificate, key_file=theirs.key
    )
    return Config(
        node=Node(data=folder / "data"),
        receive=Receive.model_validate({"address": "127.0.0.1", "tls": authority.receive_tls(own)}),
        destination=(Destination(name="pacs", ae_title="PACS", host="127.0.0.1", port=1, tls=tls),),
    )


def test_the_metric_counts_the_days(authority, tmp_path):
    found = metric(config(authority, 12, tmp_path))
    assert 11.9 < found[OWN] <= 12
    assert 364 < found[THEIRS] <= 365
    assert set(found) == {OWN, THEIRS, "receive.tls.ca_file", "destination.pacs.tls.ca_file"}


def test_the_metric_of_what_has_run_out_is_negative(authority, tmp_path):
    changed = config(authority, -3, tmp_path)
    assert metric(changed)[OWN] < -2.9
    (tmp_path / "theirs.pem").unlink()
    assert metric(changed)[THEIRS] == -1


def metric(of: Config) -> dict[str, float]:
    registry = CollectorRegistry()
    registry.register(CertificateCollector(of))
    lines = generate_latest(registry).decode().splitlines()
    told = [line.rsplit(" ", 1) for line in lines if not line.startswith("#")]
    return {name.split('"')[1]: float(value) for name, value in told}


@pytest.mark.parametrize(
    ("days", "event", "level"),
    [
        (31, None, None),
        (29, "certificate_expires_soon", "warning"),
        (6, "certificate_expires_soon", "error"),
        (-1, "certificate_expired", "error"),
    ],
)
def test_the_log_warns_in_time(authority, tmp_path, days, event, level):
    with structlog.testing.capture_logs() as logs:
        warn_of_certificates(config(authority, days, tmp_path), datetime.now(UTC))
    told = [(each["event"], each["log_level"], each["which"]) for each in logs]
    assert told == ([(event, level, OWN)] if event else [])
    assert all(each["alert"] for each in logs)


def test_the_log_names_what_cannot_be_read(authority, tmp_path):
    changed = config(authority, 100, tmp_path)
    (tmp_path / "own.pem").write_text("nonsense")
    with structlog.testing.capture_logs() as logs:
        warn_of_certificates(changed, datetime.now(UTC))
    assert [(each["event"], each["which"]) for each in logs] == [("certificate_unusable", OWN)]


def test_a_certificate_from_the_future(authority, tmp_path):
    changed = config(authority, 100, tmp_path)
    with structlog.testing.capture_logs() as logs:
        warn_of_certificates(changed, datetime.now(UTC) - timedelta(days=70))
    assert "certificate_not_valid_yet" in {each["event"] for each in logs}


def test_of_a_bundle_the_next_to_run_out_counts(authority, tmp_path):
    old, young = authority.issue("old", days=-10), authority.issue("young", days=40)
    oldest = authority.issue("older", days=80)
    bundle = tmp_path / "bundle.pem"
    files = (oldest, old, young)
    bundle.write_bytes(b"".join(each.certificate.read_bytes() for each in files))
    web = Destination(name="web", url="https://pacs.example.org", ca_file=bundle)
    (found,) = expiries(Config(destination=(web,)), datetime.now(UTC))
    assert isinstance(found, Expiry)
    assert 39 < found.days(datetime.now(UTC)) < 41


def test_check_has_a_line_for_each(authority, tmp_path):
    lines = {each.what: each for each in check_node(config(authority, 100, tmp_path))}
    assert lines["receive.tls"].ok
    assert lines[OWN].ok
    assert "99 days left" in lines[OWN].words or "100 days left" in lines[OWN].words
    late = {each.what: each for each in check_node(config(authority, 3, tmp_path))}
    assert not late[OWN].ok
    assert "receive.port" not in lines
    assert lines["receive.tls.port"].ok


@pytest.mark.parametrize("version", [3, 5])
def test_a_certificate_of_a_version_that_there_is_not(authority, tmp_path, version):
    changed = config(authority, 100, tmp_path)
    der = ssl.PEM_cert_to_DER_cert((tmp_path / "own.pem").read_text())
    other = der.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01" + bytes([version]), 1)
    (tmp_path / "own.pem").write_text(ssl.DER_cert_to_PEM_cert(other))
    with structlog.testing.capture_logs() as logs:
        warn_of_certificates(changed, datetime.now(UTC))
    assert [(each["event"], each["which"]) for each in logs] == [("certificate_unusable", OWN)]
