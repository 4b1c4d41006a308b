"""The duplicate policy: what another version of a known instance means."""

from dataclasses import replace
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from covidnet_node.case import Admission, Case, InstanceKey, Outcome, Reason, Received, State
from covidnet_node.versions import Relation, judge

NOW = datetime(2026, 1, 1, tzinfo=UTC)
CASE = Case(
    id="20260101T000000-000000000001",
    state=State.DONE,
    received=Received(
        key=InstanceKey("1.2", "1.3", "1.4"),
        sop_class_uid="1.2.840.10008.5.1.4.1.1.1",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        calling_ae="MODALITY",
        called_ae="COVIDNET",
        peer="127.0.0.1",
        received_at=NOW,
        sha256="0" * 64,
        size=1,
    ),
    admission=Admission(admitted=True, reason=None),
    outcome=Outcome.ANALYZED,
    reason=None,
    detail="",
    pixel_digest="pixels",
    identity_digest="identity",
    content_at=NOW,
    attempts=1,
    crashes=0,
    supersedes=None,
    superseded_by=None,
    updated_at=NOW,
)


def test_the_first_is_new() -> None:
    assert judge("pixels", "identity", []).relation is Relation.NEW


def test_same_pixels_and_identity_are_a_duplicate() -> None:
    assert judge("pixels", "identity", [CASE]).relation is Relation.DUPLICATE


def test_same_pixels_with_another_identity_are_a_correction_of_the_latest() -> None:
    second = replace(CASE, id="second", identity_digest="corrected")
    judgment = judge("pixels", "corrected again", [CASE, second])
    assert judgment.relation is Relation.CORRECTION
    assert judgment.of == second


def test_other_pixels_are_never_accepted() -> None:
    judgment = judge("other", "identity", [CASE])
    assert judgment.relation is Relation.PIXELS_CHANGED
    changed = replace(CASE, id="changed", pixel_digest="other", reason=Reason.PIXELS_CHANGED)
    again = judge("other", "another identity", [CASE, changed])
    assert again.relation is Relation.PIXELS_CHANGED
    assert again.of == CASE


def test_what_could_not_be_decoded_is_superseded_by_what_can() -> None:
    undecodable = replace(CASE, pixel_digest=None, reason=Reason.UNDECODABLE)
    assert judge("pixels", "identity", [undecodable]).relation is Relation.CORRECTION


def test_a_version_that_could_not_be_decoded_does_not_hide_the_pixels_before_it() -> None:
    torn = replace(CASE, id="torn", pixel_digest=None, reason=Reason.UNDECODABLE)
    judgment = judge("other", "identity", [CASE, torn])
    assert judgment.relation is Relation.PIXELS_CHANGED
    assert judgment.of == CASE
    corrected = judge("pixels", "corrected", [CASE, torn])
    assert (corrected.relation, corrected.of) == (Relation.CORRECTION, CASE)


def test_what_was_never_answered_has_no_duplicate() -> None:
    discarded = replace(CASE, outcome=None, reason=Reason.DISCARDED)
    assert judge("pixels", "identity", [discarded]).relation is Relation.NEW
    parked = replace(CASE, state=State.PARKED, outcome=None, reason=Reason.TECHNICAL_FAILURE)
    judgment = judge("pixels", "identity", [parked])
    assert (judgment.relation, judgment.of) == (Relation.CORRECTION, parked)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xyz")), max_size=8))
def test_in_any_history_old_identity_never_meets_new_pixels(history: list[tuple[str, str]]) -> None:
    seen: list[Case] = []
    for number, (pixels, identity) in enumerate(history):
        judgment = judge(pixels, identity, seen)
        if judgment.relation in (Relation.CORRECTION, Relation.DUPLICATE):
            assert judgment.of is not None
            assert judgment.of.pixel_digest == pixels
        reason = {
            Relation.PIXELS_CHANGED: Reason.PIXELS_CHANGED,
            Relation.DUPLICATE: Reason.DUPLICATE,
        }.get(judgment.relation)
        seen.append(
            replace(
                CASE, id=str(number), pixel_digest=pixels, identity_digest=identity, reason=reason
            )
        )
    accepted = {case.pixel_digest for case in seen if case.reason is None}
    assert len(accepted) <= 1
