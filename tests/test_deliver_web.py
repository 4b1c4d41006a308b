"""STOW-RS: every way a DICOMweb service may take, refuse or fail a result, over real sockets."""

import hashlib
import logging
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from covidnet_node.case import Result
from covidnet_node.config import Destination
from covidnet_node.deliver import Fate, Sent
from covidnet_node.deliver_web import WebTarget, _judge, echo, send, web_target_of
from covidnet_node.deliver_web import _Answer as Answer
from covidnet_node.service.doors import door_to
from tests.fake_pacs import FakePacs
from tests.fake_web_pacs import Act, FakeWebPacs, Reply, failed, stored
from tests.test_deliver import NAME, SC, element, fates, result

TOKEN = "s3cret-t0ken"  # noqa: S105 - nobody's


@pytest.fixture
def pacs() -> Iterator[FakeWebPacs]:
    with FakeWebPacs() as web:
        yield web


def target(pacs: FakeWebPacs, **changes: object) -> WebTarget:
    return replace(WebTarget(pacs.url, 20, 60), **changes)


def results(folder: Path, count: int) -> list[Result]:
    return [result(folder, number) for number in range(count)]


def deliver(pacs: FakeWebPacs, folder: Path, count: int = 1, **changes: object) -> list[Sent]:
    return list(send(target(pacs, **changes), results(folder, count)))


def test_results_arrive_byte_for_byte(tmp_path: Path, pacs: FakeWebPacs) -> None:
    owed = [result(tmp_path, 1), result(tmp_path, 2, data_set=bytes(3_000_001))]
    sent = list(send(target(pacs), owed))
    assert fates(sent) == [Fate.STORED] * 2
    assert [each.detail for each in sent] == ["0000 Success"] * 2
    assert [each.part for each in pacs.posts] == [each.path.read_bytes() for each in owed]
    request = pacs.posts[0]
    assert (request.path, request.part_head) == (
        "/dicom-web/studies",
        b"Content-Type: application/dicom",
    )
    assert request.headers["Accept"] == "application/dicom+json"
    assert 'type="application/dicom"' in request.headers["Content-Type"]
    assert "Authorization" not in request.headers


def test_each_is_told_before_the_next_is_sent(tmp_path: Path, pacs: FakeWebPacs) -> None:
    sending = send(target(pacs), results(tmp_path, 2))
    assert next(sending).stored
    assert len(pacs.posts) == 1
    sending.close()


@pytest.mark.parametrize(
    ("status", "warning", "told"),
    [
        (200, None, 0),
        (202, 0xB000, 0xB000),
        (200, 0xB006, 0xB006),
        (202, 0xB007, 0xB007),
        (202, "45057", 0xB001),
    ],
)
def test_named_as_stored(
    tmp_path: Path, pacs: FakeWebPacs, status: int, warning: object, told: int
) -> None:
    pacs.script.append(Reply(status, stored(warning)))
    (sent,) = deliver(pacs, tmp_path)
    assert (sent.fate, sent.status) == (Fate.STORED, told)
    assert sent.detail.startswith(f"{told:04X} ")


@pytest.mark.parametrize("status", [200, 202, 409])
@pytest.mark.parametrize(
    ("reason", "permanent"),
    [(0xA700, False), (0xA900, True), (0xC122, True), (0x0110, False), (0x0122, False)],
)
def test_named_as_failed_and_the_next_is_tried(
    tmp_path: Path, pacs: FakeWebPacs, status: int, reason: int, permanent: bool
) -> None:
    pacs.script.extend([Reply(200, stored()), Reply(status, failed(reason))])
    sent = deliver(pacs, tmp_path, 3)
    assert fates(sent) == [Fate.STORED, Fate.FAILED, Fate.STORED]
    assert (sent[1].status, sent[1].permanent) == (reason, permanent)
    assert sent[1].detail.startswith(f"{reason:04X} ")


def test_a_duplicate_is_there(tmp_path: Path, pacs: FakeWebPacs) -> None:
    pacs.script.append(Reply(409, failed(0x0111)))
    (sent,) = deliver(pacs, tmp_path)
    assert (sent.fate, sent.status) == (Fate.STORED, 0x0111)


def of_another(sop_class: str, uid: str) -> object:
    return stored()(sop_class, f"{uid}.1")


def of_another_class(_: str, uid: str) -> object:
    return stored()("1.2.840.10008.5.1.4.1.1.2", uid)


def both(sop_class: str, uid: str) -> object:
    return {**stored()(sop_class, uid), **failed(0x0110)(sop_class, uid)}  # type: ignore[dict-item]


@pytest.mark.parametrize(
    "reply",
    [
        Reply(200),
        Reply(200, b"{}"),
        Reply(202, b"[]"),
        Reply(200, b'{"00081199": {"vr": "SQ"}}'),
        Reply(200, b'{"00081199": {"vr": "SQ", "Value": [null, 7, []]}}'),
        Reply(200, b"<html>SECRET^PATIENT</html>"),
        Reply(200, b"[" * 100_000),
        Reply(200, b'{"a": "' + b"x" * 1_100_000 + b'"}'),
        Reply(200, b"\xff\xfe\x00"),
        Reply(200, of_another),
        Reply(200, of_another_class),
        Reply(202, both),
        Reply(200, stored(0xA700)),
        Reply(200, failed()),
        Reply(200, failed("SECRET^PATIENT")),
        Reply(200, failed(0)),
        Reply(202, failed(0xB000)),
        Reply(409),
        Reply(409, stored()),
        Reply(500, stored()),
        Reply(201, stored()),
        Reply(103, stored()),
    ],
)
def test_nothing_is_stored_that_is_not_named_as_stored(
    tmp_path: Path, pacs: FakeWebPacs, reply: Reply
) -> None:
    pacs.script.append(reply)
    sent = deliver(pacs, tmp_path, 2)
    assert fates(sent) == [Fate.FAILED, Fate.STORED]
    assert sent[0].detail
    assert "SECRET" not in sent[0].detail


@given(st.binary(max_size=300) | st.recursive(st.none() | st.text(), st.lists).map(str))
def test_garbage_is_never_stored(said: bytes | str) -> None:
    data = said if isinstance(said, bytes) else said.encode()
    owed = Result("heatmap", SC, "1.2.3", "1.2", "1.2.840.10008.1.2.1", Path("x"), "")  # type: ignore[arg-type]
    sent = _judge(WebTarget("http://127.0.0.1", 1, 1), Answer(200, data), owed)
    assert sent.fate is Fate.FAILED


@pytest.mark.parametrize(
    ("status", "permanent", "rest"),
    [
        (400, True, Fate.STORED),
        (403, True, Fate.STORED),
        (413, True, Fate.STORED),
        (415, True, Fate.STORED),
        (500, False, Fate.STORED),
        (401, True, Fate.NOT_TRIED),
        (404, True, Fate.NOT_TRIED),
        (429, False, Fate.NOT_TRIED),
        (502, False, Fate.NOT_TRIED),
        (503, False, Fate.NOT_TRIED),
        (504, False, Fate.NOT_TRIED),
        (599, False, Fate.STORED),
    ],
)
def test_statuses_of_http(
    tmp_path: Path, pacs: FakeWebPacs, status: int, permanent: bool, rest: Fate
) -> None:
    pacs.script.append(Reply(status, b"SECRET^PATIENT"))
    sent = deliver(pacs, tmp_path, 2)
    assert fates(sent) == [Fate.FAILED, rest]
    assert (sent[0].status, sent[0].permanent) == (None, permanent)
    assert f"HTTP {status}" in sent[0].detail
    assert "SECRET" not in sent[0].detail
    assert len(pacs.posts) == (2 if rest is Fate.STORED else 1)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed(tmp_path: Path, pacs: FakeWebPacs, status: int) -> None:
    token = tmp_path / "token"
    token.write_text(TOKEN)
    token.chmod(0o600)
    with FakeWebPacs() as other:
        pacs.script.append(Reply(status, headers={"Location": f"{other.url}/studies"}))
        sent = deliver(pacs, tmp_path, 2, token_file=token)
        pacs.search = Reply(status, headers={"Location": other.url})
        assert "not followed" in (echo(target(pacs, token_file=token)) or "")
        assert other.requests == []
    assert fates(sent) == [Fate.FAILED, Fate.NOT_TRIED]
    assert sent[0].permanent
    assert "not followed" in sent[0].detail


@pytest.mark.parametrize("act", [Act.HANG, Act.DRIP])
def test_a_peer_that_does_not_end_is_given_up(tmp_path: Path, pacs: FakeWebPacs, act: Act) -> None:
    pacs.script.extend([Reply(200, stored()), act])
    sent = deliver(pacs, tmp_path, 3, response_timeout_s=0.4)
    assert fates(sent) == [Fate.STORED, Fate.FAILED, Fate.NOT_TRIED]
    assert "nothing within 0.40" in sent[1].detail
    assert sent[2].detail == sent[1].detail
    assert not any(each.permanent for each in sent)


@pytest.mark.parametrize("act", [Act.CLOSE, Act.HALF, Act.GARBLE])
def test_a_peer_that_breaks_off(tmp_path: Path, pacs: FakeWebPacs, act: Act) -> None:
    pacs.script.append(act)
    sent = deliver(pacs, tmp_path, 2)
    assert fates(sent) == [Fate.FAILED, Fate.NOT_TRIED]
    assert "no valid answer" in sent[0].detail
    assert "SECRET" not in sent[0].detail
    assert fates(deliver(pacs, tmp_path)) == [Fate.STORED]


def test_an_answer_before_the_body_is_read(tmp_path: Path, pacs: FakeWebPacs) -> None:
    pacs.script.append(Act.EARLY)
    huge = result(tmp_path, 1, data_set=bytes(24 * 1024 * 1024))
    (sent,) = send(target(pacs), [huge])
    assert sent.fate is Fate.FAILED


def test_a_damaged_or_missing_file_is_not_sent(tmp_path: Path, pacs: FakeWebPacs) -> None:
    damaged, missing, sound = results(tmp_path, 3)
    with damaged.path.open("ab") as file:
        file.write(b"?")
    missing.path.unlink()
    sent = list(send(target(pacs), [damaged, missing, sound]))
    assert fates(sent) == [Fate.FAILED, Fate.FAILED, Fate.STORED]
    assert [each.permanent for each in sent] == [True, True, False]
    assert len(pacs.posts) == 1


def test_nobody_listens(tmp_path: Path) -> None:
    with FakeWebPacs() as gone:
        pass
    sent = deliver(gone, tmp_path, 2)
    assert fates(sent) == [Fate.NOT_TRIED] * 2
    assert "no connection" in sent[0].detail
    assert "no connection" in (echo(target(gone)) or "")
    nowhere = WebTarget("http://no-such-host.invalid", 2, 2)
    assert fates(list(send(nowhere, results(tmp_path, 1)))) == [Fate.NOT_TRIED]


def test_a_peer_that_takes_the_connection_and_says_nothing(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        (sent,) = send(WebTarget(f"http://127.0.0.1:{port}", 2, 0.3), results(tmp_path, 1))
        assert sent.fate is Fate.FAILED
        (sent,) = send(WebTarget(f"https://127.0.0.1:{port}", 0.3, 5), results(tmp_path, 1))
        assert (sent.fate, "nothing within 0.3 s" in sent.detail) == (Fate.NOT_TRIED, True)


# Is it there?


@pytest.mark.parametrize("status", [200, 204])
def test_echo(pacs: FakeWebPacs, status: int) -> None:
    pacs.search = Reply(status)
    assert echo(target(pacs)) is None
    (request,) = pacs.requests
    assert request.method == "GET"
    assert "StudyInstanceUID=2.25." in request.path


@pytest.mark.parametrize("status", [400, 404, 405, 501])
def test_a_server_that_cannot_search_is_there(pacs: FakeWebPacs, status: int) -> None:
    pacs.search = Reply(status)
    pacs.script.append(Reply(400))
    assert echo(target(pacs)) is None
    assert pacs.posts[0].part == b""


@pytest.mark.parametrize("status", [401, 403, 500, 503, 302])
def test_a_server_that_does_not_want_us(pacs: FakeWebPacs, status: int) -> None:
    pacs.search = Reply(status, b"SECRET^PATIENT")
    assert str(status) in (echo(target(pacs)) or "")
    pacs.search = Reply(404)
    pacs.script.append(Reply(status))
    assert str(status) in (echo(target(pacs)) or "")
    pacs.script.append(Reply(404))
    assert "path of url" in (echo(target(pacs)) or "")


def test_a_door_for_each_kind_of_destination(tmp_path: Path, pacs: FakeWebPacs) -> None:
    web = door_to(Destination(name="web", url=pacs.url), "COVIDNET")
    assert (web.where, web.question, web.echo()) == (pacs.url, "over HTTP", None)
    assert fates(list(web.send(results(tmp_path, 1)))) == [Fate.STORED]
    with FakePacs() as listener:
        named = {"name": "p", "ae_title": listener.ae_title, "host": "127.0.0.1"}
        dimse = door_to(Destination(**named, port=listener.port), "COVIDNET")
        assert (dimse.question, dimse.echo()) == ("C-ECHO", None)
        assert fates(list(dimse.send(results(tmp_path, 1)))) == [Fate.STORED]


def test_target_of_a_web_destination() -> None:
    named = Destination(name="web", url="https://pacs.example.org/dicom-web/", ca_file="/t")
    assert web_target_of(named) == WebTarget(
        "https://pacs.example.org/dicom-web", 10, 60, ca_file=Path("/t")
    )


def test_no_patient_data_and_no_token_in_any_log_line(
    tmp_path: Path, pacs: FakeWebPacs, caplog: pytest.LogCaptureFixture
) -> None:
    token = tmp_path / "token"
    token.write_text(TOKEN)
    token.chmod(0o600)
    pacs.script.extend([Reply(200, stored()), Reply(500, NAME), Act.GARBLE])
    with caplog.at_level(logging.DEBUG):
        sent = deliver(pacs, tmp_path, 4, token_file=token)
    for secret in (NAME.decode(), TOKEN):
        assert secret not in caplog.text
        assert not any(secret in each.detail for each in sent)


def test_digest_is_the_boundary(tmp_path: Path, pacs: FakeWebPacs) -> None:
    odd = result(tmp_path, 1, data_set=element(0x13, 0x10, b"LO", b"\r\n--covidnet-\r\n" * 9))
    (sent,) = send(target(pacs), [odd])
    assert sent.stored, sent.detail
    digest = hashlib.sha256(odd.path.read_bytes()).hexdigest()
    assert digest in pacs.posts[0].headers["Content-Type"]
