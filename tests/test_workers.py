"""The supervisor: it outlives its workers, the journal's troubles and whatever a worker prints."""

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from time import monotonic

import pytest

from covidnet_node.case import Case, Reason
from covidnet_node.config import Config
from covidnet_node.errors import RetryLater
from covidnet_node.journal.journal import Journal
from covidnet_node.service import workers
from covidnet_node.service.workers import IDLE_S, Pulse, Supervisor
from tests.journal_kit import Desk, open_desk

DEADLINE_S = 10.0
ONE = Config.model_validate({"analyze": {"device": "cpu"}})


class Faulty(Journal):
    """A journal that cannot be written to for a while."""

    failures = 0
    released: threading.Event

    def release(self, owner: str, now: datetime, *, crashed: bool) -> tuple[Case, ...]:
        if self.failures:
            self.failures -= 1
            raise RetryLater(Reason.CANNOT_STORE, "journal: database or disk is full")
        found = super().release(owner, now, crashed=crashed)
        self.released.set()
        return found


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = open_desk(tmp_path)
    with desk.journal:
        yield desk


@contextmanager
def program(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> Iterator[Path]:
    """Every worker is this shell script, in place of Python."""
    path = folder / "worker.sh"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(path))
    yield path


def test_the_supervisor_outlives_a_journal_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "TROUBLE_S", 0.05)
    with Faulty.open(tmp_path / "journal.db") as journal:
        journal.failures, journal.released = 3, threading.Event()
        with program(tmp_path, monkeypatch, "exit 3"), supervised(journal) as supervisor:
            assert journal.released.wait(DEADLINE_S)
            assert supervisor.is_alive()


def test_the_supervisor_outlives_a_system_without_processes_to_give(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(workers, "TROUBLE_S", 0.05)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "missing"))
    with supervised(desk.journal) as supervisor:
        with program(tmp_path, monkeypatch, "echo ready; cat > /dev/null"):
            until(lambda: supervisor.ready)
        assert supervisor.is_alive()


@contextmanager
def supervised(journal: Journal) -> Iterator[Supervisor]:
    supervisor = Supervisor(ONE, journal, answered=lambda: None)
    supervisor.start()
    try:
        yield supervisor
    finally:
        supervisor.stop(0.5)


def until(holds: Callable[[], bool]) -> None:
    """Another process brings it about; there is no event to wait for."""
    pause = threading.Event()
    for _round in range(int(DEADLINE_S / 0.02)):
        if holds():
            return
        pause.wait(0.02)
    raise AssertionError


def test_a_worker_that_is_silent_too_long_is_overdue() -> None:
    loading = Pulse(since=monotonic() - 100)
    assert not loading.overdue(deadline_s=10)
    pulse = Pulse()
    pulse.hear("ready\n")
    pulse.hear("busy 20260101T000000-0123456789ab\n")
    assert not pulse.overdue(deadline_s=10)
    pulse.since -= 20
    assert pulse.overdue(deadline_s=10)
    assert not pulse.overdue(deadline_s=30)
    pulse.hear("idle\n")
    pulse.since -= IDLE_S - 10
    assert not pulse.overdue(deadline_s=10)
    pulse.since -= 20
    assert pulse.overdue(deadline_s=1000)


def test_what_a_library_prints_does_not_stop_the_clock() -> None:
    pulse = Pulse()
    pulse.hear("ready\n")
    pulse.hear("busy 20260101T000000-0123456789ab\n")
    pulse.since -= 20
    pulse.hear("Warning: corrupt JPEG data\n")
    assert pulse.busy_with == "20260101T000000-0123456789ab"
    assert pulse.overdue(deadline_s=10)


def test_a_worker_that_hangs_without_work_is_replaced(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "IDLE_S", 0.2)
    script = "printf 'ready\\n\\377\\n'; exec sleep 60"
    with program(tmp_path, monkeypatch, script), supervised(desk.journal) as supervisor:
        until(lambda: bool(supervisor.processes))
        first = supervisor.processes
        until(lambda: supervisor.processes not in ((), first))


def test_ctrl_c_at_a_terminal_does_not_reach_the_workers(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with program(tmp_path, monkeypatch, "exec cat"), supervised(desk.journal) as supervisor:
        until(lambda: bool(supervisor.processes))
        assert os.getpgid(supervisor.processes[0]) != os.getpgrp()
