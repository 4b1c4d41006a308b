"""Broken PDUs: the listener answers, aborts or hangs up, and is there for the next client."""

import tracemalloc

import pytest

from tests.bad_input.talk import associations, echo, say, watched
from tests.bad_input.wire import cases
from tests.node import wait_until

SEED = 1


@pytest.mark.filterwarnings("ignore")
def test_whatever_is_said_the_listener_goes_on(make_site):
    site = make_site(network_timeout_s=5)
    talks = list(cases(SEED))
    with watched() as watch:
        for number, talk in enumerate(talks):
            say(site.address, talk.data)
            assert not watch.lines, (talk.name, watch.lines)
            if number % 40 == 0:
                echo(site.address)
        echo(site.address)
        wait_until(lambda: associations() == 0, 60, "every association to end")
    assert not watch.lines
    assert site.receiver.listening
    assert len(talks) > 400


@pytest.mark.filterwarnings("ignore")
def test_a_length_that_is_only_claimed_costs_no_memory(make_site):
    site = make_site(network_timeout_s=5)
    claims = [talk for talk in cases(SEED) if "hidden" in talk.name or "length_f" in talk.name]
    assert len(claims) > 8
    tracemalloc.start()
    try:
        for talk in claims * 3:
            say(site.address, talk.data)
        echo(site.address)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 64 << 20
