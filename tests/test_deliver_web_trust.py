"""STOW-RS with tokens and over TLS: who is trusted, who is told the token, and who is not."""

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from covidnet_node.deliver import Fate
from covidnet_node.deliver_web import echo, send
from tests.fake_web_pacs import FakeWebPacs
from tests.test_deliver import fates
from tests.test_deliver_web import TOKEN, deliver, results, target


@pytest.fixture
def pacs() -> Iterator[FakeWebPacs]:
    with FakeWebPacs() as web:
        yield web


@pytest.mark.parametrize(
    ("content", "header"),
    [(f"{TOKEN}\n", f"Bearer {TOKEN}"), ("Basic dXNlcjpwdw==\n", "Basic dXNlcjpwdw==")],
)
def test_the_token_is_read_at_each_request(
    tmp_path: Path, pacs: FakeWebPacs, content: str, header: str
) -> None:
    token = tmp_path / "token"
    token.write_text("old")
    token.chmod(0o600)
    sending = send(target(pacs, token_file=token), results(tmp_path, 2))
    assert next(sending).stored
    token.write_text(content)
    assert next(sending).stored
    assert [each.headers["Authorization"] for each in pacs.posts] == ["Bearer old", header]


@pytest.mark.parametrize("content", [None, "", "two\nlines", "naïve"])
def test_no_token_no_request(tmp_path: Path, pacs: FakeWebPacs, content: str | None) -> None:
    token = tmp_path / "token"
    if content is not None:
        token.write_text(content, encoding="utf-8")
        token.chmod(0o600)
    sent = deliver(pacs, tmp_path, 2, token_file=token)
    assert fates(sent) == [Fate.NOT_TRIED] * 2
    assert sent[0].permanent
    assert str(token) in sent[0].detail
    assert str(token) in (echo(target(pacs, token_file=token)) or "")
    assert pacs.requests == []


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def files(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("certificates")
    client = authority.issue_cert("node@example.org")
    found = {name: folder / f"{name}.pem" for name in ("ca", "other", "certificate", "key")}
    authority.cert_pem.write_to_path(str(found["ca"]))
    trustme.CA().cert_pem.write_to_path(str(found["other"]))
    client.cert_chain_pems[0].write_to_path(str(found["certificate"]))
    client.private_key_pem.write_to_path(str(found["key"]))
    found["key"].chmod(0o600)
    return found


def secure(authority: trustme.CA, host: str = "127.0.0.1", *, ask: bool = False) -> FakeWebPacs:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(host).configure_cert(context)
    if ask:
        context.verify_mode = ssl.CERT_REQUIRED
        authority.configure_trust(context)
    return FakeWebPacs(tls=context)


def test_tls_with_a_trusted_server(
    tmp_path: Path, authority: trustme.CA, files: dict[str, Path]
) -> None:
    token = tmp_path / "token"
    token.write_text(TOKEN)
    token.chmod(0o600)
    with secure(authority) as pacs:
        known = target(pacs, ca_file=files["ca"], token_file=token)
        assert echo(known) is None
        assert fates(list(send(known, results(tmp_path, 2)))) == [Fate.STORED] * 2
        assert {each.headers["Authorization"] for each in pacs.requests} == {f"Bearer {TOKEN}"}


@pytest.mark.parametrize(("host", "trusted"), [("127.0.0.1", "other"), ("pacs.test", "ca")])
def test_tls_with_a_server_that_proves_nothing(
    tmp_path: Path, authority: trustme.CA, files: dict[str, Path], host: str, trusted: str
) -> None:
    with secure(authority, host) as pacs:
        sent = deliver(pacs, tmp_path, 2, ca_file=files[trusted])
        assert fates(sent) == [Fate.NOT_TRIED] * 2
        assert sent[0].permanent
        assert "not trusted" in sent[0].detail
        assert "not trusted" in (echo(target(pacs)) or "")
        assert pacs.requests == []


def test_tls_with_our_own_certificate(
    tmp_path: Path, authority: trustme.CA, files: dict[str, Path]
) -> None:
    with secure(authority, ask=True) as pacs:
        sent = deliver(
            pacs,
            tmp_path,
            2,
            ca_file=files["ca"],
            certificate_file=files["certificate"],
            key_file=files["key"],
        )
        assert fates(sent) == [Fate.STORED] * 2
        without = deliver(pacs, tmp_path, 2, ca_file=files["ca"])
        assert not any(each.stored for each in without)
        assert len(pacs.posts) == 2


def test_certificate_files_that_cannot_be_used(
    tmp_path: Path, authority: trustme.CA, files: dict[str, Path]
) -> None:
    missing, text = tmp_path / "missing.pem", tmp_path / "text.pem"
    text.write_text("no certificate")
    own = {"certificate_file": files["certificate"], "key_file": files["ca"]}
    with secure(authority) as pacs:
        for changes in ({"ca_file": missing}, {"ca_file": text}, own):
            (sent,) = deliver(pacs, tmp_path, **changes)
            assert (sent.fate, sent.permanent) == (Fate.NOT_TRIED, True)
        assert pacs.requests == []


def test_https_to_a_server_without_tls(tmp_path: Path, pacs: FakeWebPacs) -> None:
    (sent,) = send(target(pacs, url=pacs.url.replace("http", "https")), results(tmp_path, 1))
    assert sent.fate is Fate.NOT_TRIED
    assert "TLS failed" in sent.detail
