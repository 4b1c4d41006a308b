"""The pause between attempts: grows, is bounded, differs between cases, never surprises."""

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from covidnet_node.journal.backoff import pause_after

FIRST, LONGEST = timedelta(seconds=5), timedelta(seconds=900)


def test_the_pauses_of_one_case():
    full = [5, 10, 20, 40, 80, 160, 320, 640, 900, 900]
    for attempts, seconds in enumerate(full, start=1):
        pause = pause_after(attempts, FIRST, LONGEST, "case").total_seconds()
        assert seconds / 2 <= pause <= seconds


def test_what_failed_together_does_not_come_back_together():
    pauses = {pause_after(3, FIRST, LONGEST, f"case {n}") for n in range(100)}
    assert len(pauses) == 100
    assert max(pauses) - min(pauses) > timedelta(seconds=8)


@given(
    st.integers(-5, 10**9),
    st.timedeltas(timedelta(milliseconds=1), timedelta(days=30)),
    st.timedeltas(timedelta(milliseconds=1), timedelta(days=30)),
    st.text(),
)
def test_any_pause_is_bounded_and_repeatable(attempts, first, longest, seed):
    pause = pause_after(attempts, first, longest, seed)
    assert pause == pause_after(attempts, first, longest, seed)
    rounding = timedelta(microseconds=1)
    assert min(first, longest) / 2 - rounding <= pause <= longest + rounding
