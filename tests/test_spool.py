"""Spool files: durable when kept, gone when dropped, never named by a stranger."""

import errno
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from covidnet_node.case import Reason, ResultKind
from covidnet_node.errors import RetryLater
from covidnet_node.journal.case_id import new_case_id
from covidnet_node.journal.spool import Spool
from tests.journal_kit import NOW

HOUR = timedelta(hours=1)


@pytest.fixture
def spool(tmp_path):
    return Spool(tmp_path / "spool")


def receive(spool, data=b"bytes"):
    temporary, file = spool.incoming()
    with file:
        file.write(data)
    return temporary


def everything(spool):
    return sorted(path for path in spool.root.rglob("*") if path.is_file())


def age(path, by, now):
    moment = (now - by).timestamp()
    os.utime(path, (moment, moment))


def test_a_kept_file_lies_in_its_cases_folder(spool):
    case_id = new_case_id(NOW)
    temporary = receive(spool)
    source = spool.keep(temporary, case_id)
    assert source == spool.source(case_id)
    assert source.relative_to(spool.root).as_posix() == f"cases/20261123/{case_id}/source.dcm"
    assert source.read_bytes() == b"bytes"
    assert everything(spool) == [source]


def test_the_file_is_synced_before_its_name_and_the_names_before_keep_returns(spool, monkeypatch):
    case_id = new_case_id(NOW)
    temporary = receive(spool)
    synced = []
    real = os.fsync

    def record(descriptor):
        synced.append((str(Path(f"/proc/self/fd/{descriptor}").readlink()), temporary.exists()))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    source = spool.keep(temporary, case_id)
    folders = [source.parent, source.parents[1], source.parents[2]]
    assert synced == [(str(temporary), True), *((str(folder), False) for folder in folders)]
    # The day's own name is on the disk now; the next case need not wait for it again.
    synced.clear()
    temporary = receive(spool)
    source = spool.keep(temporary, new_case_id(NOW))
    folders = [source.parent, source.parents[1]]
    assert synced == [(str(temporary), True), *((str(folder), False) for folder in folders)]


def test_incoming_files_have_names_of_their_own(spool):
    names = {receive(spool).name for _ in range(50)}
    assert len(names) == 50


def test_a_result_replaces_an_earlier_one_of_its_kind(spool):
    case_id = new_case_id(NOW)
    spool.keep(receive(spool), case_id)
    spool.write_result(case_id, ResultKind.REPORT, b"one")
    heatmap = spool.write_result(case_id, ResultKind.HEATMAP, b"map")
    report = spool.write_result(case_id, ResultKind.REPORT, b"two")
    assert report.read_bytes() == b"two"
    assert report.stat().st_mode & 0o777 == 0o600
    assert everything(spool) == sorted([heatmap, report, spool.source(case_id)])


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_full_or_broken_disk_is_a_verdict_and_leaves_no_half_file(spool, monkeypatch, number):
    case_id = new_case_id(NOW)
    spool.keep(receive(spool), case_id)
    spool.write_result(case_id, ResultKind.REPORT, b"one")
    temporary = receive(spool)
    before = everything(spool)

    def fail(_descriptor):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    expected = Reason.CANNOT_STORE if number == errno.EIO else Reason.NO_SPACE
    with pytest.raises(RetryLater) as caught:
        spool.write_result(case_id, ResultKind.REPORT, b"two")
    assert caught.value.reason is expected
    with pytest.raises(RetryLater) as caught:
        spool.keep(temporary, new_case_id(NOW))
    assert caught.value.reason is expected
    assert everything(spool) == before
    assert spool.source(case_id).with_name("report.dcm").read_bytes() == b"one"


def test_what_is_not_there_cannot_be_kept(spool):
    with pytest.raises(RetryLater):
        spool.keep(spool.root / "incoming" / "nothing", new_case_id(NOW))
    with pytest.raises(RetryLater):
        spool.write_result(new_case_id(NOW), ResultKind.REPORT, b"x")


@pytest.mark.parametrize(
    "name", ["", "..", "../../etc", "/etc/passwd", "20261123T003300-5f0c9a1b2d3e/..", "1.2\0.3"]
)
def test_a_strangers_name_is_never_a_path(spool, name):
    for step in (
        lambda: spool.source(name),
        lambda: spool.keep(receive(spool), name),
        lambda: spool.write_result(name, ResultKind.REPORT, b"x"),
        lambda: spool.drop(name),
        lambda: spool.drop_pixels(name),
    ):
        with pytest.raises(ValueError, match="no case id"):
            step()


def test_dropping(spool):
    case_id = new_case_id(NOW)
    spool.keep(receive(spool), case_id)
    report = spool.write_result(case_id, ResultKind.REPORT, b"one")
    spool.drop_pixels(case_id)
    spool.drop_pixels(case_id)
    assert everything(spool) == [report]
    spool.drop(case_id)
    spool.drop(case_id)
    assert everything(spool) == []


def test_the_sweep_takes_what_no_row_knows_and_nothing_young(spool):
    now = datetime.now(UTC)
    known, unknown, young = (new_case_id(now) for _ in range(3))
    for case_id in (known, unknown, young):
        spool.keep(receive(spool), case_id)
    old_part, young_part = receive(spool), receive(spool)
    half_result = spool.source(known).with_name("report-0123456789abcdef.part")
    half_result.write_bytes(b"half")
    stray = spool.source(known).parents[1] / "stray"
    stray.write_bytes(b"?")
    for path in (
        old_part,
        half_result,
        stray,
        spool.source(known).parent,
        spool.source(unknown).parent,
    ):
        age(path, 2 * HOUR, now)
    assert spool.sweep(lambda case_id: case_id == known, HOUR, now) == 4
    assert everything(spool) == sorted([spool.source(known), spool.source(young), young_part])
    assert spool.sweep(lambda case_id: case_id == known, HOUR, now) == 0


def test_the_sweep_removes_empty_days_and_follows_no_link(spool, tmp_path):
    now = datetime.now(UTC)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious").write_bytes(b"x")
    day = spool.root / "cases" / "20200101"
    day.mkdir()
    link = day / new_case_id(now)
    link.symlink_to(elsewhere)
    later = now + 3 * HOUR
    assert spool.sweep(lambda _case_id: False, HOUR, later) == 1
    assert (elsewhere / "precious").exists()
    assert not link.is_symlink()
    spool.sweep(lambda _case_id: False, HOUR, later)
    assert not day.exists() or not any(day.iterdir())


def test_free_bytes_and_a_spool_that_cannot_be(spool, tmp_path):
    assert spool.free_bytes() > 0
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(RetryLater):
        Spool(tmp_path / "file" / "spool")
