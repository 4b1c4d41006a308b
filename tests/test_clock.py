"""Clocks that jump, and destinations that are away: nothing given up early, no thundering."""

import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from covidnet_node.case import Case, Result, State
from covidnet_node.config import Config
from covidnet_node.deliver import Fate, Sent
from covidnet_node.journal.journal import Journal
from covidnet_node.service import delivering, patience, quiet
from covidnet_node.service.delivering import Deliverer
from covidnet_node.service.schedule import build_schedule, recover_leases
from tests.journal_kit import LEASE, NOW, Desk
from tests.node import wait_until

SECOND, HOUR, DAY = timedelta(seconds=1), timedelta(hours=1), timedelta(days=1)
AWAY = "cannot connect: Connection refused"


class Clock:
    """Both clocks of the node: the wall's, which may jump, and the monotonic one."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.wall, self.steady = NOW, 1000.0
        patch.setattr(delivering, "_now", lambda: self.wall)
        for module in (quiet, patience):
            patch.setattr(module, "monotonic", lambda: self.steady)

    def pass_by(self, time: timedelta) -> None:
        self.wall += time
        self.steady += time.total_seconds()

    def jump(self, time: timedelta) -> None:
        self.wall += time


class FakeDoor:
    """A destination that does what its script says; when that is empty it is away or takes all."""

    where, question = "nowhere", "nothing"

    def __init__(self, *script: Sent) -> None:
        self.script = list(script)
        self.away = False
        self.calls: list[int] = []
        """How many results were put to it, a call."""
        self.stored: list[str] = []
        self.echoes = 0

    def echo(self) -> str | None:
        self.echoes += 1
        return AWAY if self.away else None

    def send(self, results: Sequence[Result]) -> Iterator[Sent]:
        self.calls.append(len(results))
        for result in results:
            uid = result.sop_instance_uid
            if self.away:
                yield Sent(uid, Fate.NOT_TRIED, None, AWAY)
            elif self.script:
                act = self.script.pop(0)
                yield Sent(uid, act.fate, act.status, act.detail, act.permanent, act.not_taken)
            else:
                self.stored.append(uid)
                yield Sent(uid, Fate.STORED, 0, "0000")


REFUSED = Sent("", Fate.FAILED, 0xA700, "A700")
UNHEARD = Sent("", Fate.FAILED, None, "no answer")
NOT_TAKEN = Sent("", Fate.FAILED, None, "class rejected", permanent=True, not_taken=True)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.fixture
def door(monkeypatch: pytest.MonkeyPatch) -> FakeDoor:
    door = FakeDoor()
    monkeypatch.setattr(delivering, "door_to", lambda *_args, **_more: door)
    return door


def owed(desk: Desk, count: int = 1) -> None:
    """So many reported cases, two results each."""
    for number in range(count):
        desk.admit(str(number), str(number))
        desk.report(desk.claim(), "pacs")


def loop_of(desk: Desk, **deliver: float) -> Deliverer:
    target = {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": 104}
    config = Config.model_validate({"destination": [target], "deliver": deliver})
    return Deliverer(config, config.destination[0], desk.journal)


def test_a_clock_that_jumps_a_month_ahead_gives_up_nothing(
    desk: Desk, clock: Clock, door: FakeDoor
) -> None:
    owed(desk)
    loop = loop_of(desk)
    door.script = [REFUSED] * 6
    for jump in (timedelta(0), 30 * DAY, 30 * DAY):
        clock.jump(jump)
        clock.pass_by(10 * SECOND)
        loop._deliver_due(clock.wall)
    case = desk.journal.cases()[0]
    assert case.state is State.REPORTED
    clock.jump(-60 * DAY)
    loop._deliver_due(clock.wall)
    assert desk.journal.case(case.id).state is State.DONE


def test_a_node_that_starts_after_a_jump_tries_for_an_hour_first(
    desk: Desk, clock: Clock, door: FakeDoor
) -> None:
    owed(desk)
    clock.jump(30 * DAY)
    loop = loop_of(desk, longest_pause_s=60)
    door.script = [REFUSED] * 1000
    started = clock.steady
    while desk.journal.cases()[0].state is State.REPORTED:
        clock.pass_by(61 * SECOND)
        loop._deliver_due(clock.wall)
    assert clock.steady - started >= 3600
    assert desk.journal.cases()[0].state is State.PARKED


def test_patience_ends_when_the_time_has_really_passed(
    desk: Desk, clock: Clock, door: FakeDoor
) -> None:
    owed(desk)
    loop = loop_of(desk, give_up_after_hours=10)
    door.script = [REFUSED] * 1000
    while desk.journal.cases()[0].state is State.REPORTED:
        clock.pass_by(15 * 60 * SECOND)
        loop._deliver_due(clock.wall)
    assert 10 * HOUR < clock.wall - NOW < 11 * HOUR


def test_a_lease_of_a_living_worker_does_not_run_out_by_a_jump(tmp_path: Path) -> None:
    with Journal.open(tmp_path / "journal.db") as journal:
        desk = Desk(journal, delivering.Spool(tmp_path / "spool"))
        first, second = desk.admit("1", "1"), desk.admit("2", "2")
        desk.claim(owner="node/0/a")
        gone = desk.claim(owner="node/1/b")
        recover_leases(journal, NOW + 30 * DAY, ["node/0/a"])
        assert journal.case(first.id).crashes == 0
        assert journal.case(second.id).crashes == 1
        (again,) = journal.claim("node/2/c", 9, LEASE, NOW + 30 * DAY)
        assert again.case.id == gone.case.id


def test_a_pacs_that_is_back_after_an_hour_was_left_in_peace_and_gets_all_in_order(
    desk: Desk, clock: Clock, door: FakeDoor
) -> None:
    owed(desk, 30)
    loop = loop_of(desk, first_pause_s=5, longest_pause_s=900)
    door.away = True
    for _ in range(240):
        loop._deliver_due(clock.wall)
        clock.pass_by(15 * SECOND)
    # 5, 10, 20 ... 900 seconds, not one attempt for each of the 60 results.
    assert 6 <= len(door.calls) <= 14
    door.away = False
    loop.heartbeat()
    before = len(door.calls)
    while loop._deliver_due(clock.wall):
        pass
    assert len(door.stored) == 60
    assert max(door.calls[before:]) <= 50
    due = [each.sop_instance_uid for case in desk.journal.cases() for each in results(desk, case)]
    assert sorted(door.stored) == sorted(due)
    assert {case.state for case in desk.journal.cases()} == {State.DONE}


def results(desk: Desk, case: Case) -> tuple[Result, ...]:
    return desk.journal.results(case.id)


def test_refused_results_do_not_come_back_together(
    desk: Desk, clock: Clock, door: FakeDoor
) -> None:
    owed(desk, 20)
    loop = loop_of(desk, first_pause_s=600, longest_pause_s=600)
    door.script = [REFUSED] * 40
    loop._deliver_due(clock.wall)
    assert len(door.script) == 0
    seen = []
    for _ in range(60):
        clock.pass_by(10 * SECOND)
        before = len(door.stored)
        loop._deliver_due(clock.wall)
        seen.append(len(door.stored) - before)
    assert sum(seen) == 40
    assert max(seen) <= 10
    assert sum(seen[:29]) == 0


@pytest.fixture
def recast(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """UIDs of the reports for which another class was looked for."""
    asked: list[str] = []
    monkeypatch.setattr(delivering, "flaw", lambda _result: None)  # the kit's files are no DICOM
    monkeypatch.setattr(
        delivering, "in_another_class", lambda result: asked.append(result.sop_instance_uid)
    )
    return asked


def test_a_report_that_may_have_arrived_is_not_sent_in_another_class_too(
    desk: Desk, clock: Clock, door: FakeDoor, recast: list[str]
) -> None:
    owed(desk)
    loop = loop_of(desk)
    loop._deliver_due(clock.wall)
    assert len(door.stored) == 2
    desk.admit("next", "next")
    desk.report(desk.claim(), "pacs")
    door.script = [UNHEARD, UNHEARD, NOT_TAKEN, NOT_TAKEN]
    for _ in range(2):
        loop._deliver_due(clock.wall)
        clock.pass_by(60 * SECOND)
    assert recast == []
    door.script = [NOT_TAKEN] * 2
    clock.pass_by(HOUR)
    loop._deliver_due(clock.wall)
    # The class has been gone for an hour: better twice than never.
    assert len(recast) == 1


def test_a_report_that_was_never_on_the_wire_goes_out_in_another_class_at_once(
    desk: Desk, clock: Clock, door: FakeDoor, recast: list[str]
) -> None:
    loop = loop_of(desk)
    owed(desk, 2)
    door.script = [Sent("", Fate.STORED, 0, "0000"), REFUSED, NOT_TAKEN, NOT_TAKEN]
    door.away = True
    loop._deliver_due(clock.wall)
    clock.pass_by(60 * SECOND)
    door.away = False
    loop._deliver_due(clock.wall)
    assert len(recast) == 1


def test_what_an_earlier_life_may_have_sent_is_judged_with_caution(
    desk: Desk, clock: Clock, door: FakeDoor, recast: list[str]
) -> None:
    owed(desk)
    loop_of(desk)._deliver_due(clock.wall)
    desk.admit("next", "next")
    desk.report(desk.claim(), "pacs")
    # Killed between the C-STORE and its answer; nothing of it is in the journal.
    clock.pass_by(SECOND)
    restarted = loop_of(desk)
    door.script = [NOT_TAKEN] * 2
    restarted._deliver_due(clock.wall)
    assert recast == []


class Slow:
    """A destination's loop whose heartbeat takes until it is let go."""

    def __init__(self) -> None:
        self.asked, self.let_go = threading.Event(), threading.Event()

    def heartbeat(self) -> None:
        self.asked.set()
        assert self.let_go.wait(30)


def test_a_stop_waits_for_one_heartbeat_not_for_all(desk: Desk) -> None:
    first, second = Slow(), Slow()
    schedule = build_schedule(Config(), desk.journal, desk.spool, (first, second), lambda: None)
    schedule.start()
    schedule.modify_job("heartbeat", next_run_time=datetime.now(UTC))
    assert first.asked.wait(30)
    stop = threading.Thread(target=schedule.shutdown)
    stop.start()
    wait_until(lambda: not schedule.running, 30, "the schedule to stop")
    first.let_go.set()
    stop.join(30)
    assert not stop.is_alive()
    assert not second.asked.is_set()
